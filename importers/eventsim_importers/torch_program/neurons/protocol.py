"""What is known of a neuron module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from eventsim.errors import InputError
from eventsim.layers import Layer


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
        ``state(output)``: the other tensors of it, which only the next call of the module may read.
    reset : callable
        ``reset()``: put the module at rest, as before the first time step.
    """

    layers: tuple[Layer, ...]
    time_axis: int | None
    emitted: Callable[[Any], Any]
    state: Callable[[Any], tuple[Any, ...]]
    reset: Callable[[], None]

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
