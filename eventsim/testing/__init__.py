"""Strategies and checks for whoever writes a part of eventsim: a layer, an importer, an event-file format."""
