"""Numba kernels over plain arrays; a leaf that imports nothing of eventsim.

A kernel calls only jitted functions of its own file: the on-disk cache does not see changes in another one.
"""
