"""Maximum pooling to a given size."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eventsim.layers.dense import Memory
from eventsim.layers.layer import Op
from eventsim.layers.pooling.max_pool2d import MaxPool2dOp
from eventsim.layers.pooling.pool import Comparing
from eventsim.layers.window import adaptive_grid, adaptive_spans, adaptively
from eventsim.signals import FloatArray, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class AdaptiveMaxPool2d(Comparing):
    """Maximum over windows that cover the map, those of `AdaptiveAvgPool2d`: OR on spikes.

    Parameters
    ----------
    output_size : (int, int)
        Vertical and horizontal.
    """

    output_size: tuple[int, int]

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return the same kind on the output grid."""
        (source,) = inputs
        return replace(source, grid=adaptive_grid(source, self.output_size), dense=source.kind == "real")

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the maxima, window by window."""
        return adaptively(inputs[0], self.output_size, np.max)

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        (source,) = inputs
        return MaxPool2dOp(source, self.output_type(source), adaptive_spans(source.grid, self.output_size))
