"""Layers that scale, shift and normalise element by element."""
