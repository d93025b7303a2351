"""Layers of two inputs."""
