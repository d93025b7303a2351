"""Layers that multiply by weights: linear maps and convolutions."""
