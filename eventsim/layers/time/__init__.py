"""Layers that mix, cut or repeat time steps."""
