"""From results to JSON documents and tables."""
