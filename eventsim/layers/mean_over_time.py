"""Mean over the time steps of a sample."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eventsim.counts import Counts
from eventsim.layers.layer import Layer, Op
from eventsim.signals import Dense, Rows, SignalType


@dataclass(frozen=True, eq=False)
class MeanOverTime(Layer):
    """Mean over all time steps so far, emitted once, with the last step of the sample.

    Sums run in time order in float32, so the result does not depend on the chunk size.
    """

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return dense real values of the same shape."""
        return replace(inputs[0], kind="real", dense=True)

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        return MeanOverTimeOp(self.output_type(*inputs))


class MeanOverTimeOp(Op):
    """Holds the sum over the steps seen."""

    kernel = "dense_sum"
    stateless = False

    def __init__(self, output: SignalType) -> None:
        self.output = output
        self.reset()

    def reset(self) -> None:
        """Forget the steps seen."""
        self.total = np.zeros((self.output.positions, self.output.channels), np.float32)
        self.steps = 0

    def advance(self, inputs: tuple[Rows | Dense], final: bool) -> tuple[Dense, Counts]:
        """Add one chunk; emit the mean if it is the final one, else nothing."""
        signal = inputs[0]
        for rows in signal.to_array().reshape(signal.steps, *self.total.shape):
            self.total += rows
        self.steps += signal.steps
        counts = Counts(additions=signal.nonzeros)
        if not final:
            return Dense(self.output, 0, self.total[:0]), counts
        return Dense(self.output, 1, self.total / np.float32(self.steps)), counts
