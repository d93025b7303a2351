"""A part of the time steps."""

from __future__ import annotations

from dataclasses import dataclass

from eventsim.context import Context
from eventsim.layers.dense import Memory
from eventsim.layers.layer import LayerError, Op
from eventsim.layers.routing import Routing
from eventsim.layers.time.steps import take_steps
from eventsim.signals import FloatArray, Signal, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class SliceOverTime(Routing):
    r"""One of `parts` consecutive parts of the sample's T time steps.

    .. math:: \lfloor index\; T / parts \rfloor \le t < \lfloor (index + 1)\; T / parts \rfloor

    If that is empty (T < parts), its first step alone. T must be known, so all steps must be in one chunk.

    Parameters
    ----------
    index : int
        Which part, from 0.
    parts : int
    """

    index: int
    parts: int

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return the type of the input."""
        if not 0 <= self.index < self.parts:
            raise LayerError(f"part {self.index} of {self.parts} found; expected one from 0 to {self.parts - 1}")
        return inputs[0]

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the part."""
        (x,) = inputs
        start = self.index * len(x) // self.parts
        return x[start : max(start + 1, (self.index + 1) * len(x) // self.parts)]

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        return SliceOverTimeOp(self.index, self.parts)


class SliceOverTimeOp(Op):
    """Takes steps; nothing is computed."""

    kernel = "take_steps"
    state_names = ()

    def __init__(self, index: int, parts: int) -> None:
        self.index = index
        self.parts = parts
        self.looks_ahead = parts > 1
        self.once_if_static = parts == 1

    def advance(self, inputs: tuple[Signal], context: Context) -> Signal:
        """Take a part of the one chunk."""
        signal = inputs[0]
        start = self.index * signal.steps // self.parts
        stop = min(max(start + 1, (self.index + 1) * signal.steps // self.parts), signal.steps)
        return take_steps(signal, start, stop)
