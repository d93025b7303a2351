"""Maximum pooling."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eventsim.context import Context
from eventsim.kernels.rows import pool_dense
from eventsim.kernels.window import Window
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.pooling.pooled_rows import pooled_rows
from eventsim.layers.window import output_grid, slide
from eventsim.signals import Dense, Rows, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class MaxPool2d(Layer):
    """Maximum over a sliding window: OR on spikes, the true maximum on graded and real values.

    Padding never wins: it counts as minus infinity, and spikes and graded values are never negative.

    Parameters
    ----------
    kernel_size, stride, padding : (int, int)
        Vertical and horizontal.
    """

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return the same kind on the output grid."""
        (source,) = inputs
        if len(source.grid) != 2:
            raise LayerError(f"input {source} found; expected a map C x H x W")
        if any(2 * p > k for p, k in zip(self.padding, self.kernel_size, strict=True)):
            raise LayerError(f"padding {self.padding} found; expected at most half the kernel {self.kernel_size}")
        grid = output_grid(source.grid, self.kernel_size, self.stride, self.padding)
        return replace(source, grid=grid, dense=source.kind == "real")

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        (source,) = inputs
        output = self.output_type(source)
        window = slide(source, output, self.kernel_size, self.stride, self.padding)
        return MaxPool2dOp(output, window)


class MaxPool2dOp(Op):
    """Takes the maximum over rows or dense rows."""

    state_names = ()
    looks_ahead = False
    once_if_static = True

    def __init__(self, output: SignalType, window: Window) -> None:
        self.output = output
        self.window = window
        self.kernel = "pool_dense" if output.dense else "pool_rows"

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Rows | Dense:
        """Pool one chunk."""
        signal = inputs[0]
        if isinstance(signal, Rows) and not self.output.dense:
            rows, compared = pooled_rows(signal, self.output, self.window, maximum=True)
            context.rows.add("comparisons", compared)
            return rows
        pooled = np.empty((signal.steps * self.output.positions, self.output.channels), np.float32)
        touched = pool_dense(signal.to_array(), signal.steps, self.window, pooled, True)
        context.rows.add("comparisons", np.full(signal.steps, touched // max(signal.steps, 1)))
        return Dense(self.output, signal.steps, pooled)
