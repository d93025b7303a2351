"""Event-driven, sparse simulator for spiking transformers."""
