"""Strategies and checks for authors of parts: checkpoint formats, event-file formats, layers."""
