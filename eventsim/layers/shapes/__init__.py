"""Layers that only rearrange."""
