"""Slow, plain NumPy definitions that the tests compare eventsim with; imports NumPy only, and never eventsim.

Activity is dense with time first: maps (T, C, H, W), tokens (T, N, D), vectors (T, F). Results are float32. Sums of
products are taken in float64 and rounded once, which is exact for dyadic weights; every other formula is evaluated
in float32 in the order in which it is written.
"""
