"""What is derived from facts and counts of layers: energies, and more to come."""
