"""Sum pooling."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eventsim.context import Context
from eventsim.kernels.filling import divide_by_row
from eventsim.kernels.pooling import pool_dense
from eventsim.kernels.values_of_rows import divide_rows
from eventsim.kernels.window import Spans
from eventsim.layers.dense import Memory
from eventsim.layers.layer import LayerError, Op
from eventsim.layers.pooling.pool import Adding
from eventsim.layers.pooling.pooled_rows import pooled_rows
from eventsim.layers.window import output_grid, sliding_spans, taps_over
from eventsim.signals import Dense, FloatArray, Rows, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class SumPool2d(Adding):
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

    def divisors(self, source: SignalType) -> FloatArray | None:
        """Return nothing: sums are not divided."""
        return None

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the sums, tap by tap in float64, divided in float32 where an average is asked for."""
        (x,) = inputs
        source = SignalType("real", x.shape[1], x.shape[2:], dense=True)
        windows, divisors = self.windows(source), self.divisors(source)
        sums = np.zeros((*x.shape[:2], *windows))
        for _, read in taps_over(x, self.kernel_size, self.stride, self.padding, windows):
            sums += read
        pooled = np.asarray(sums, np.float32)
        return pooled if divisors is None else pooled / divisors.reshape(windows)

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        (source,) = inputs
        output = self.output_type(source)
        spans = sliding_spans(source.grid, self.windows(source), self.kernel_size, self.stride, self.padding)
        return SumPool2dOp(output, spans, self.divisors(source))


class SumPool2dOp(Op):
    """Adds up windows, and divides where an average is asked for."""

    state_names = ()
    looks_ahead = False
    once_if_static = True
    plays = True

    def __init__(self, output: SignalType, spans: Spans, divisors: FloatArray | None) -> None:
        self.output = output
        self.spans = spans
        self.divisors = None if divisors is None else np.ascontiguousarray(divisors.reshape(-1), np.float32)
        if self.divisors is not None and (self.divisors == self.divisors[0]).all():
            self.divisors = self.divisors[:1]  # of every window
        self.kernel = "pool_dense" if output.dense else "pool_rows"

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Rows | Dense:
        """Pool one chunk."""
        signal = inputs[0]
        if isinstance(signal, Rows):
            rows, added = pooled_rows(signal, self.output, self.spans, context, maximum=False)
            context.rows.add("additions", added)
            if self.divisors is None:
                return rows
            context.rows.add("divisions", context.by_step(rows))
            context.call(divide_rows, *rows.whole, self.divisors)
            return Rows.within(self.output, signal.steps, *rows.whole)
        size = signal.steps * self.output.positions
        pooled = context.buffers.floats(size * self.output.channels).reshape(size, self.output.channels)
        touched = context.call(pool_dense, signal.data, signal.steps, self.spans, pooled, False)
        context.rows.add("additions", touched // max(signal.steps, 1))
        if self.divisors is not None:
            context.rows.add("divisions", self.output.size)
            context.call(divide_by_row, pooled, self.divisors)
        return Dense(self.output, signal.steps, pooled)
