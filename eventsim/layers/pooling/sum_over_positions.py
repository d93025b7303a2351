"""Sum over the positions of a time step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eventsim.context import Context
from eventsim.kernels.filling import divide, fill
from eventsim.kernels.rows import sum_rows
from eventsim.layers.dense import Memory, tokens
from eventsim.layers.layer import Op
from eventsim.layers.listing import listed
from eventsim.layers.pooling.pool import Adding
from eventsim.signals import Dense, FloatArray, Rows, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class SumOverPositions(Adding):
    r"""Sum over the pixels or tokens of each time step: :math:`y_c = \sum_p x_{p,c}`."""

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return one vector: graded for spikes and graded values, real and dense for real ones."""
        (source,) = inputs
        real = source.kind == "real"
        return SignalType("real" if real else "graded", source.channels, (), dense=real)

    def divisor(self, source: SignalType) -> int | None:
        """Return nothing: sums are not divided."""
        return None

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the sums over the positions, in float64, divided in float32 where a mean is asked for."""
        rows = tokens(inputs[0])
        source = SignalType("real", rows.shape[2], rows.shape[1:2], dense=True)
        sums = np.asarray(rows.sum(axis=1, dtype=np.float64), np.float32)
        divisor = self.divisor(source)
        return sums if divisor is None else sums / np.float32(divisor)

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        (source,) = inputs
        return SumOverPositionsOp(source, self.output_type(source), self.divisor(source))


class SumOverPositionsOp(Op):
    """Adds up rows, and divides where a mean is asked for."""

    state_names = ()
    looks_ahead = False
    once_if_static = True
    plays = True

    def __init__(self, source: SignalType, output: SignalType, divisor: int | None) -> None:
        self.positions = source.positions
        self.output = output
        self.divisor = divisor
        self.kernel = "dense_sum" if source.dense else "sum_rows"

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Rows | Dense:
        """Add up each step of one chunk."""
        signal = inputs[0]
        sums = context.buffers.floats(signal.steps * self.output.channels).reshape(-1, self.output.channels)
        if isinstance(signal, Dense):
            for step, rows in enumerate(signal.data.reshape(signal.steps, self.positions, self.output.channels)):
                context.call(np.add.reduce, rows, 0, None, sums[step])
            context.rows.add("additions", signal.type.size)
        else:
            context.call(fill, sums, np.float32(0))
            context.call(sum_rows, *signal.whole, self.positions, sums)
            context.rows.add("additions", context.by_step(signal))
        if self.output.kind == "graded":
            return listed(self.output, signal.steps, sums, context)
        if self.divisor is None:
            return Dense(self.output, signal.steps, sums)
        context.rows.add("divisions", self.output.size)
        context.call(divide, sums, np.float32(self.divisor))
        return Dense(self.output, signal.steps, sums)
