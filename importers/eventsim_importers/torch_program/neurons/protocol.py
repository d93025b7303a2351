"""What is known of a neuron module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from eventsim.layers import Layer


@dataclass(frozen=True)
class Neuron:
    """A module of neurons, and how it is called.

    Attributes
    ----------
    layers : tuple of Layer
        What it computes, one behind the other: a synaptic current before a neuron is a layer of its own. Arrays are per
        channel, ``(channels,)``, or of the shape of one time step without the batch axis.
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
