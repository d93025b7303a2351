"""Mean over the time steps of a sample."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eventsim.context import Context
from eventsim.kernels.filling import copy, divide, fill
from eventsim.kernels.rows import total_dense, total_rows
from eventsim.layers.dense import Memory
from eventsim.layers.layer import Op
from eventsim.layers.pooling.pool import Adding
from eventsim.signals import Dense, FloatArray, Rows, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class MeanOverTime(Adding):
    """Mean over all time steps so far, emitted once, with the last step of the sample.

    Sums run in time order in float32, so the result does not depend on the chunk size.
    """

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return dense real values of the same shape."""
        return replace(inputs[0], kind="real", dense=True)

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the mean, of a sum in float64, with the last piece."""
        (x,) = inputs
        total, steps = memory.kept.get("total", (np.zeros(x.shape[1:]), 0))
        total, steps = total + x.sum(axis=0, dtype=np.float64), steps + len(x)
        memory.kept["total"] = total, steps
        mean = np.asarray(total, np.float32) / np.float32(steps or 1)
        return np.asarray(mean[None] if memory.final else mean[None][:0], np.float32)

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        return MeanOverTimeOp(self.output_type(*inputs))


class MeanOverTimeOp(Op):
    """Holds the sum over the steps seen."""

    kernel = "dense_sum"
    state_names = ("total", "steps")
    looks_ahead = False
    once_if_static = False
    plays = True

    def __init__(self, output: SignalType) -> None:
        self.output = output
        self.reset()

    def reset(self) -> None:
        """Forget the steps seen."""
        self.total = np.zeros((self.output.positions, self.output.channels), np.float32)
        self.steps = 0

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Dense:
        """Add one chunk; emit the mean if it is the final one, else nothing."""
        signal = inputs[0]
        if self.steps == 0:
            context.call(fill, self.total, np.float32(0))
        if isinstance(signal, Rows):
            # step by step and row by row, as the kernel adds the steps of one row after the other
            context.call(total_rows, *signal.whole, self.output.positions, self.total)
        else:
            context.call(total_dense, signal.data, self.total)
        self.steps += signal.steps
        context.rows.add("additions", context.by_step(signal))
        if not context.final:
            return Dense(self.output, 0, self.total[:0])
        context.rows.part(signal.steps - 1, signal.steps).add("divisions", self.output.size)
        mean = context.buffers.floats(self.total.size).reshape(self.total.shape)
        context.call(copy, self.total, mean)
        context.call(divide, mean, np.float32(self.steps))
        return Dense(self.output, 1, mean)
