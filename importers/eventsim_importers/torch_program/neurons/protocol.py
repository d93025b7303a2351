"""What is known of a neuron module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np

from eventsim.errors import InputError
from eventsim.layers import Layer
from eventsim.layers.neurons.spiking import PerNeuron


@dataclass(frozen=True)
class State:
    """What a tensor of a neuron's state holds: ``gain * value + shift``.

    Attributes
    ----------
    layer : int
        Which of the neuron's layers has the value, from 0, or from -1 back.
    value : {"emitted", "potential", "charge"}
        What the layer emits; or, of one that spikes, the potential that a step leaves, or that before the reset.
    gain, shift : float or float32 array
    """

    layer: int = -1
    value: Literal["emitted", "potential", "charge"] = "potential"
    gain: PerNeuron = 1.0
    shift: PerNeuron = 0.0


@dataclass(frozen=True)
class Neuron:
    """A module of neurons, and how it is called.

    Attributes
    ----------
    layers : tuple of Layer
        What it computes, one behind the other: a synaptic current before a neuron is a layer of its own. Arrays have
        the shape with which PyTorch broadcasts them against a time step, from its last axis on: see `fitted`.
    time_axis : int or None
        Which axis of its input is time; None where each call is one time step.
    emitted : callable
        ``emitted(output)``: of what the module returns, the tensor that ``layers`` emit.
    state : callable
        ``state(output)``: the other tensors of it, or of the module, that the next call reads.
    reset : callable
        ``reset()``: put the module at rest, as before the first time step.
    states : tuple of State, optional
        What each tensor of `state` holds, where the rest of the network may read it; of a single-step module.
    """

    layers: tuple[Layer, ...]
    time_axis: int | None
    emitted: Callable[[Any], Any]
    state: Callable[[Any], tuple[Any, ...]]
    reset: Callable[[], None]
    states: tuple[State, ...] = ()

    def passes_on(self, state: int) -> bool:
        """Tell whether a tensor of the state is the potential of its last layer as it is."""
        if not 0 <= state < len(self.states):
            return False
        found = self.states[state]
        return found.value != "emitted" and bool(np.all(np.asarray(found.gain) == 1) and not np.any(found.shift))

    @property
    def spread(self) -> bool:
        """Whether an array has a value for each of several neurons, so that the axes matter."""
        return any(np.size(array) > 1 for layer in self.layers for array in layer.arrays().values())

    def fitted(self, shape: tuple[int, ...], channels: int) -> tuple[Layer, ...]:
        """Return the layers for a time step of this shape, without the batch, of which axis `channels` is the channels.

        Arrays that differ along the channels alone become ``(channels,)``, others have the whole shape.

        Raises
        ------
        InputError
            If an array does not broadcast to the shape.
        """
        return tuple(_fitted(layer, shape, channels) for layer in self.layers)


def _fitted(layer: Layer, shape: tuple[int, ...], channels: int) -> Layer:
    arrays = {}
    for field in fields(layer):
        array = getattr(layer, field.name)
        if not isinstance(array, np.ndarray) or array.size == 1:
            continue
        try:
            spread = np.broadcast_to(array, shape)
        except ValueError:
            raise InputError(
                f"{field.name} of shape {array.shape} found; expected a shape that broadcasts to {shape}, a time step"
            ) from None
        first = np.moveaxis(spread, channels, 0).reshape(shape[channels], -1)
        arrays[field.name] = np.array(first[:, 0] if (first == first[:, :1]).all() else spread)
    return replace(layer, **arrays) if arrays else layer
