"""Neurons of PyTorch frameworks, one file each, told by their classes without importing the framework.

A framework is a module here with a function ``read(module)`` that returns a `protocol.Neuron`, or None of a module that
is no neuron of its own. Neurons of other making are given as ``{Class: function}``: the function takes a module of that
very class, and returns its `protocol.Neuron`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from eventsim.errors import InputError
from eventsim_importers.torch_program.neurons import norse, sinabs, snntorch, spikingjelly
from eventsim_importers.torch_program.neurons.protocol import Neuron

Read = Callable[[Any], Neuron | None]

FRAMEWORKS: tuple[Read, ...] = (spikingjelly.read, snntorch.read, norse.read, sinabs.read)


def neuron_of(
    module: Any,
    neurons: Mapping[type, Callable[[Any], Neuron]] | None = None,
    frameworks: tuple[Read, ...] = FRAMEWORKS,
) -> Neuron | None:
    """Return what is known of a module's neurons, None if it is no neuron.

    Parameters
    ----------
    module : torch.nn.Module
    neurons : mapping of class to function, optional
        Asked first; subclasses are not meant, since they may compute something else.
    frameworks : tuple of callable

    Raises
    ------
    InputError
        If it is a neuron of a framework that cannot be read, or a given function returns something else.
    """
    function = (neurons or {}).get(type(module))
    if function is not None:
        given = function(module)
        if not isinstance(given, Neuron):
            raise InputError(
                f"neurons: {type(given).__name__} returned for {type(module).__qualname__}; expected a "
                "eventsim_importers.torch_program.neurons.protocol.Neuron"
            )
        return given
    found = (read(module) for read in frameworks)
    return next((neuron for neuron in found if neuron is not None), None)
