"""Delays that differ from neuron to neuron."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eventsim.context import Context
from eventsim.layers.dense import Memory, spread, with_past
from eventsim.layers.layer import LayerError, Op
from eventsim.layers.listing import rows_from_dense
from eventsim.layers.neurons.spiking import rows_of
from eventsim.layers.routing import Routing
from eventsim.signals import CountArray, Dense, FloatArray, Rows, SignalType

MAXIMUM_WAITING = 2**28
"""Values held: a gigabyte."""


@dataclass(frozen=True, eq=False, repr=False)
class DelayEach(Routing):
    """Every value waits a number of time steps of its own; before it come zeros.

    A delay that is the same for all of them belongs to the edge (`eventsim.network.Delayed`).

    Parameters
    ----------
    steps : integer array (channels,) or of the per-step shape
    """

    steps: CountArray

    @property
    def parameters(self) -> int:
        """Return 0: delays are not weights."""
        return 0

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return the same type."""
        (source,) = inputs
        if self.steps.dtype.kind not in "iu" or self.steps.size == 0 or self.steps.min() < 0:
            raise LayerError("steps that are no whole numbers of 0 or more found; expected time steps to wait")
        rows_of(np.asarray(self.steps, np.float32), "steps", source)
        if int(self.steps.max()) * source.size > MAXIMUM_WAITING:
            raise LayerError(
                f"a delay of {self.steps.max()} steps of {source.size} values found; expected at most "
                f"{MAXIMUM_WAITING} values that wait"
            )
        return source

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return every value of as many steps ago as it waits, 0 where there was none."""
        (x,) = inputs
        longest = int(self.steps.max())
        seen, past = with_past(x, memory, longest)
        waited = np.concatenate([np.zeros((longest - past, *x.shape[1:]), np.float32), seen])
        wait = np.broadcast_to(spread(self.steps, x.shape[1:]), x.shape[1:]).astype(np.int64)
        at = np.arange(len(x)).reshape(-1, *(1,) * wait.ndim) + longest - wait
        return np.take_along_axis(waited, at, axis=0)

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        (source,) = inputs
        steps = rows_of(np.asarray(self.steps, np.float32), "steps", source).astype(np.int64)
        return DelayEachOp(source, np.broadcast_to(steps, (source.positions, source.channels)))


class DelayEachOp(Op):
    """Holds what arrived in as many of the last steps as the longest delay has."""

    kernel = "delay_each"
    state_names = ("held",)
    looks_ahead = False
    once_if_static = False

    def __init__(self, source: SignalType, steps: CountArray) -> None:
        self.source = source
        self.steps = steps
        self.longest = int(steps.max())
        self.reset()

    def reset(self) -> None:
        """Begin with silence."""
        self.held = np.zeros((self.longest, self.source.positions, self.source.channels), np.float32)

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Rows | Dense:
        """Take in one chunk and emit what has waited long enough."""
        signal, source = inputs[0], self.source
        seen = np.concatenate([self.held, signal.to_array().reshape(-1, source.positions, source.channels)])
        self.held = seen[signal.steps :].copy()
        at = np.arange(signal.steps)[:, None, None] + self.longest - self.steps
        data = np.take_along_axis(seen, at, axis=0).reshape(-1, source.channels)
        return Dense(source, signal.steps, data) if source.dense else rows_from_dense(source, signal.steps, data)
