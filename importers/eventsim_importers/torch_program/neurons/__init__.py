"""Neurons of PyTorch frameworks, one file each, told by their classes without importing the framework.

A framework is a module here with a function ``read(module)`` that returns a `protocol.Neuron`, or None of a module that
is no neuron of its own.
"""
