"""Maximum pooling to a given size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from eventsim.facts import Entailed, Role, Words
from eventsim.layers.dense import Memory
from eventsim.layers.layer import Layer, Op
from eventsim.layers.pooling.max_pool2d import MaxPool2dOp
from eventsim.layers.window import adaptive_grid, adaptive_spans, adaptively
from eventsim.signals import FloatArray, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class AdaptiveMaxPool2d(Layer):
    """Maximum over windows that cover the map, those of `AdaptiveAvgPool2d`: OR on spikes.

    Parameters
    ----------
    output_size : (int, int)
        Vertical and horizontal.
    """

    output_size: tuple[int, int]

    role: ClassVar[Role] = "pool"

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return the same kind on the output grid."""
        (source,) = inputs
        return replace(source, grid=adaptive_grid(source, self.output_size), dense=source.kind == "real")

    def words(self, *inputs: SignalType) -> Mapping[str, Words]:
        """Return one largest value so far for each value of the output."""
        return {"sum": Words(self.output_type(*inputs).size)}

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return the largest value so far, which a comparison reads and writes."""
        return {"comparisons": {"pool_comparisons": 1, "sum_reads": 1, "sum_writes": 1}}

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the maxima, window by window."""
        return adaptively(inputs[0], self.output_size, np.max)

    def absolute(self) -> Layer:
        """Return the layer itself: a maximum is off by no more than the values that it compares."""
        return self

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        (source,) = inputs
        return MaxPool2dOp(self.output_type(source), adaptive_spans(source.grid, self.output_size))
