"""Time steps of two signals, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eventsim.context import Context
from eventsim.layers.dense import Memory
from eventsim.layers.layer import LayerError, Op
from eventsim.layers.routing import Routing
from eventsim.layers.time.steps import join_steps
from eventsim.signals import FloatArray, Signal, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class JoinOverTime(Routing):
    r"""The time steps of the first input, then those of the second.

    .. math:: y_t = a_t \;(t < A), \quad y_t = b_{t - A} \;(A \le t < A + B)

    A and B being the steps of these two. The third input is the sample that they are parts of, of which nothing but the
    number of steps is used: together the parts have no more. All steps must be in one chunk.
    """

    arguments: ClassVar[int] = 3

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return the type of the first input."""
        first, second, _ = inputs
        if first != second:
            raise LayerError(f"inputs {first} and {second} found; expected two of one type")
        return first

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the steps of both, one after the other."""
        return np.concatenate(inputs[:2])

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        return JoinOverTimeOp()


class JoinOverTimeOp(Op):
    """Copies steps; nothing is computed."""

    kernel = "join_steps"
    state_names = ()
    looks_ahead = True
    once_if_static = False

    def advance(self, inputs: tuple[Signal, Signal, Signal], context: Context) -> Signal:
        """Join the one chunk."""
        first, second, sample = inputs
        if first.steps + second.steps > sample.steps:
            raise LayerError(
                f"parts of {first.steps} and {second.steps} time steps of a sample of {sample.steps} found; "
                "expected a sample that has a time step for every part"
            )
        return join_steps(first, second)
