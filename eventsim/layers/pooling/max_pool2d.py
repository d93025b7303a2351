"""Maximum pooling."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eventsim.context import Context
from eventsim.kernels.pooling import pool_dense
from eventsim.kernels.window import Spans
from eventsim.layers.dense import Memory
from eventsim.layers.layer import LayerError, Op
from eventsim.layers.listing import every_channel
from eventsim.layers.pooling.pool import Comparing
from eventsim.layers.pooling.pooled_rows import pooled_rows
from eventsim.layers.window import output_grid, sliding_spans, taps_over
from eventsim.signals import Dense, FloatArray, Rows, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class MaxPool2d(Comparing):
    """Maximum over a sliding window: OR on spikes, the true maximum on graded and real values.

    Padding never wins: it counts as minus infinity, and spikes and graded values are never negative.

    Parameters
    ----------
    kernel_size, stride, padding, dilation : (int, int)
        Vertical and horizontal.
    ceil_mode : bool
        Whether a last window that hangs over the far border counts too, as in PyTorch.
    """

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    ceil_mode: bool = False

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return the same kind on the output grid."""
        (source,) = inputs
        if len(source.grid) != 2:
            raise LayerError(f"input {source} found; expected a map C x H x W")
        if any(2 * p > k for p, k in zip(self.padding, self.kernel_size, strict=True)):
            raise LayerError(f"padding {self.padding} found; expected at most half the kernel {self.kernel_size}")
        spans = self._spans(source)
        if (spans.tops >= spans.bottoms).any() or (spans.lefts >= spans.rights).any():
            raise LayerError(
                f"kernel {self.kernel_size} with dilation {self.dilation} found; a window is padding alone"
            )
        return replace(source, grid=(len(spans.tops), len(spans.lefts)), dense=source.kind == "real")

    def _spans(self, source: SignalType) -> Spans:
        if len(self.dilation) != 2 or min(self.dilation) < 1:
            raise LayerError(f"dilation {self.dilation} found; expected two numbers, 1 or more")
        high, wide = (d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel_size, strict=True))
        windows = output_grid(source.grid, (high, wide), self.stride, self.padding, self.ceil_mode)
        return sliding_spans(source.grid, windows, self.kernel_size, self.stride, self.padding, self.dilation)

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the maxima, tap by tap."""
        (x,) = inputs
        reach = tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel_size, strict=True))
        windows = output_grid(x.shape[2:], (reach[0], reach[1]), self.stride, self.padding, self.ceil_mode)
        out = np.full((*x.shape[:2], *windows), -np.inf, np.float32)
        for _, read in taps_over(x, self.kernel_size, self.stride, self.padding, windows, self.dilation, -np.inf):
            np.maximum(out, read, out=out)
        return out

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        (source,) = inputs
        return MaxPool2dOp(source, self.output_type(source), self._spans(source))


class MaxPool2dOp(Op):
    """Takes the maximum over rows or dense rows."""

    state_names = ()
    looks_ahead = False
    once_if_static = True
    plays = True

    def __init__(self, source: SignalType, output: SignalType, spans: Spans) -> None:
        self.output = output
        self.spans = spans
        rows = "pool_bits" if source.kind == "binary" else "pool_rows"
        self.kernel = "pool_dense" if output.dense else rows
        self.hears_bits = self.kernel == "pool_bits"

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Rows | Dense:
        """Pool one chunk."""
        signal = inputs[0]
        if isinstance(signal, Rows) and not self.output.dense:
            rows, compared = pooled_rows(signal, self.output, self.spans, context, maximum=True)
            context.rows.add("comparisons", compared)
            return rows
        size = signal.steps * self.output.positions
        pooled = context.buffers.floats(size * self.output.channels).reshape(size, self.output.channels)
        touched = context.call(pool_dense, every_channel(signal, context), signal.steps, self.spans, pooled, True)
        context.rows.add("comparisons", touched // max(signal.steps, 1))
        return Dense(self.output, signal.steps, pooled)
