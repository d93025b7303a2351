"""Average pooling to a given size."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eventsim.layers.dense import Array, Memory
from eventsim.layers.layer import Op
from eventsim.layers.pooling.pool import Adding
from eventsim.layers.pooling.sum_pool2d import SumPool2dOp
from eventsim.layers.window import adaptive_grid, adaptive_spans, adaptively
from eventsim.signals import FloatArray, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class AdaptiveAvgPool2d(Adding):
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

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return real values, sparse if the input is."""
        (source,) = inputs
        return replace(source, kind="real", grid=adaptive_grid(source, self.output_size))

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the averages, window by window, of sums in float64."""
        return adaptively(inputs[0], self.output_size, average)

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
