"""Time steps left out at the beginning, as those of a warm-up are, or at the end."""

from __future__ import annotations

from dataclasses import dataclass

from eventsim.context import Context
from eventsim.layers.dense import Memory
from eventsim.layers.layer import LayerError, Op
from eventsim.layers.routing import Routing
from eventsim.layers.time.steps import take_steps
from eventsim.signals import FloatArray, Signal, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class CropOverTime(Routing):
    r"""The time steps from one on, up to another: layers behind do no work for the others.

    .. math:: start \le t < stop

    All steps must be in one chunk. A part that grows with the sample is a `SliceOverTime`.

    Parameters
    ----------
    start : int
        The first time step, from 0.
    stop : int, optional
        The first time step behind the last; default: all that follow.
    """

    start: int
    stop: int | None = None

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return the type of the input."""
        if self.start < 0 or (self.stop is not None and self.stop <= self.start):
            stop = "" if self.stop is None else self.stop
            raise LayerError(f"time steps {self.start}:{stop} found; expected a start from 0 on, and a stop behind it")
        return inputs[0]

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the time steps that are left."""
        return inputs[0][self.start : self.stop]

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        return CropOverTimeOp(self.start, self.stop)


class CropOverTimeOp(Op):
    """Takes steps; nothing is computed."""

    kernel = "take_steps"
    state_names = ()
    looks_ahead = True
    once_if_static = False

    def __init__(self, start: int, stop: int | None) -> None:
        self.start = start
        self.stop = stop

    def advance(self, inputs: tuple[Signal], context: Context) -> Signal:
        """Take a part of the one chunk."""
        (signal,) = inputs
        if signal.steps < max(self.start + 1, self.stop or 0):
            stop = "" if self.stop is None else self.stop
            raise LayerError(f"{signal.steps} time steps found; expected those of {self.start}:{stop}")
        return take_steps(signal, self.start, signal.steps if self.stop is None else self.stop)
