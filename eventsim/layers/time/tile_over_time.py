"""Time steps repeated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eventsim.context import Context
from eventsim.layers.dense import Memory
from eventsim.layers.layer import Op
from eventsim.layers.routing import Routing
from eventsim.layers.time.steps import join_steps, take_steps
from eventsim.signals import FloatArray, Signal, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class TileOverTime(Routing):
    r"""The time steps of the first input over and over, until there are as many as the second input has.

    .. math:: y_t = x_{t \bmod S}, \quad 0 \le t < T

    S and T being the steps of the first and the second input, of which nothing else is used. All steps must be in one
    chunk.
    """

    arguments: ClassVar[int] = 2

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return the type of the first input."""
        return inputs[0]

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the steps of the first input over and over."""
        x, like = inputs
        return x[np.arange(len(like)) % len(x)]

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        return TileOverTimeOp()


class TileOverTimeOp(Op):
    """Repeats steps; nothing is computed."""

    kernel = "join_steps"
    state_names = ()
    looks_ahead = True
    once_if_static = False

    def advance(self, inputs: tuple[Signal, Signal], context: Context) -> Signal:
        """Tile the one chunk."""
        signal, like = inputs
        whole, rest = divmod(like.steps, signal.steps)
        return join_steps(*[signal] * whole, take_steps(signal, 0, rest))
