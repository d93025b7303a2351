"""Layers in which positions attend to each other."""
