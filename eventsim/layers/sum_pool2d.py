"""Sum pooling."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eventsim.counts import Counts
from eventsim.kernels.rows import pool_dense, pool_rows
from eventsim.kernels.window import Window
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.nonzeros import rows_from_dense
from eventsim.layers.window import output_grid, slide
from eventsim.signals import Dense, FloatArray, Rows, SignalType


@dataclass(frozen=True, eq=False)
class SumPool2d(Layer):
    """Sum over a sliding window, zero-padded; spikes become small integers.

    Parameters
    ----------
    kernel_size, stride, padding : (int, int)
        Vertical and horizontal.
    """

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return graded values for spikes and graded ones, real for real ones."""
        (source,) = inputs
        if len(source.grid) != 2:
            raise LayerError(f"input {source} found; expected a map C x H x W")
        return replace(source, kind="real" if source.kind == "real" else "graded", grid=self.windows(source))

    def windows(self, source: SignalType) -> tuple[int, int]:
        """Return how many windows there are, vertically and horizontally."""
        return output_grid(source.grid, self.kernel_size, self.stride, self.padding)

    def divisors(self, window: Window) -> FloatArray | None:
        """Return nothing: sums are not divided."""
        return None

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        (source,) = inputs
        output = self.output_type(source)
        window = slide(source, output, self.kernel_size, self.stride, self.padding)
        return SumPool2dOp(output, window, self.divisors(window))


class SumPool2dOp(Op):
    """Adds up windows, and divides where an average is asked for."""

    def __init__(self, output: SignalType, window: Window, divisors: FloatArray | None) -> None:
        self.output = output
        self.window = window
        self.divisors = divisors
        self.kernel = "pool_dense" if output.dense else "pool_rows"

    def advance(self, inputs: tuple[Rows | Dense], final: bool) -> tuple[Rows | Dense, Counts]:
        """Pool one chunk."""
        signal = inputs[0]
        pooled = np.zeros((signal.steps * self.output.positions, self.output.channels), np.float32)
        if isinstance(signal, Dense):
            added = pool_dense(signal.data, signal.steps, self.window, pooled, False)
        else:
            added = pool_rows(*signal.triple, signal.steps, self.window, pooled, False)
        if self.divisors is not None:
            pooled /= np.tile(self.divisors, (signal.steps, 1))
        counts = Counts(additions=added)
        if self.output.dense:
            return Dense(self.output, signal.steps, pooled), counts
        return rows_from_dense(self.output, signal.steps, pooled), counts
