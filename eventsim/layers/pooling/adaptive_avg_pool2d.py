"""Average pooling to a given size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from eventsim.facts import Entailed, Role, Words
from eventsim.layers.dense import Array, Memory
from eventsim.layers.layer import Layer, Op
from eventsim.layers.pooling.sum_pool2d import SumPool2dOp
from eventsim.layers.window import adaptive_grid, adaptive_spans, adaptively
from eventsim.signals import FloatArray, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class AdaptiveAvgPool2d(Layer):
    r"""Average over windows that cover the map, however large the output: PyTorch's rule.

    Window i of n along an axis holds the pixels from :math:`\lfloor i\, size / n \rfloor` to before
    :math:`\lceil (i + 1)\, size / n \rceil`, so that windows may overlap, and pixels are repeated where the output is
    larger. The sum is divided by the number of values, in float32; the average of spikes stays a row of non-zeros.

    Parameters
    ----------
    output_size : (int, int)
        Vertical and horizontal.
    """

    output_size: tuple[int, int]

    role: ClassVar[Role] = "pool"

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return real values, sparse if the input is."""
        (source,) = inputs
        return replace(source, kind="real", grid=adaptive_grid(source, self.output_size))

    def words(self, *inputs: SignalType) -> Mapping[str, Words]:
        """Return one sum for each value of the output."""
        return {"sum": Words(self.output_type(*inputs).size)}

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return the sum that an addition reads and writes."""
        return {"additions": {"sum_reads": 1, "sum_writes": 1}}

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the averages, window by window, of sums in float64."""
        return adaptively(inputs[0], self.output_size, average)

    def absolute(self) -> Layer:
        """Return the layer itself: it moves values, and adds them up without weights."""
        return self

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        (source,) = inputs
        output = self.output_type(source)
        spans = adaptive_spans(source.grid, self.output_size)
        values = np.outer(spans.bottoms - spans.tops, spans.rights - spans.lefts)
        return SumPool2dOp(output, spans, values.astype(np.float32).reshape(-1, 1))


def average(values: Array, axis: tuple[int, ...]) -> FloatArray:
    """Return the sum over some axes, rounded to float32, over the number of values."""
    sums = np.asarray(values.sum(axis=axis, dtype=np.float64), np.float32)
    return np.asarray(sums / np.float32(np.prod([values.shape[a] for a in axis])), np.float32)
