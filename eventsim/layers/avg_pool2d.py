"""Average pooling."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eventsim.kernels.window import Window
from eventsim.layers.sum_pool2d import SumPool2d
from eventsim.signals import CountArray, FloatArray, SignalType


@dataclass(frozen=True, eq=False)
class AvgPool2d(SumPool2d):
    """Average over a sliding window: the sum divided by the number of values, in float32.

    The average of spikes stays a row of non-zeros: a silent window costs nothing downstream.

    Parameters
    ----------
    count_include_pad : bool
        Whether padding counts in the divisor, as in PyTorch.
    """

    count_include_pad: bool = True

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return real values, sparse if the input is."""
        return replace(super().output_type(*inputs), kind="real", dense=inputs[0].dense)

    def divisors(self, window: Window) -> FloatArray:
        """Return the number of values averaged at each output pixel ``(positions, 1)``."""
        if self.count_include_pad:
            height = np.full(window.out_height, window.kernel_height)
            width = np.full(window.out_width, window.kernel_width)
        else:
            height = _values_inside(window.out_height, *self._axis(0), window.height)
            width = _values_inside(window.out_width, *self._axis(1), window.width)
        return np.outer(height, width).astype(np.float32).reshape(-1, 1)

    def _axis(self, axis: int) -> tuple[int, int, int]:
        return self.kernel_size[axis], self.stride[axis], self.padding[axis]


def _values_inside(out_size: int, kernel: int, stride: int, padding: int, size: int) -> CountArray:
    start = np.arange(out_size) * stride - padding
    return np.asarray(np.minimum(start + kernel, size) - np.maximum(start, 0), np.int64)
