"""Mean over the positions of a time step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eventsim.context import Context
from eventsim.kernels.rows import sum_rows
from eventsim.layers.layer import Layer, Op
from eventsim.signals import Dense, Rows, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class MeanOverPositions(Layer):
    """Mean over the pixels or tokens of each time step (global average pooling)."""

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return one real vector."""
        return SignalType("real", inputs[0].channels, (), dense=True)

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        (source,) = inputs
        return MeanOverPositionsOp(source, self.output_type(source))


class MeanOverPositionsOp(Op):
    """Adds up rows, then divides."""

    state_names = ()
    looks_ahead = False
    once_if_static = True

    def __init__(self, source: SignalType, output: SignalType) -> None:
        self.positions = source.positions
        self.output = output
        self.kernel = "dense_sum" if source.dense else "sum_rows"

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Dense:
        """Average each step of one chunk."""
        signal = inputs[0]
        sums = np.zeros((signal.steps, self.output.channels), np.float32)
        if isinstance(signal, Dense):
            for step, rows in enumerate(signal.data.reshape(signal.steps, self.positions, self.output.channels)):
                sums[step] = rows.sum(axis=0)
            context.rows.add("additions", signal.type.size)
        else:
            sum_rows(*signal.triple, self.positions, sums)
            context.rows.add("additions", signal.nonzeros_by_step)
        return Dense(self.output, signal.steps, sums / np.float32(self.positions))
