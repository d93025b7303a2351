"""Layers that charge and fire."""
