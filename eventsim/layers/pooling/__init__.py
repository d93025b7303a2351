"""Layers that bring several positions, or all, down to one."""
