"""Average pooling."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eventsim.layers.layer import LayerError
from eventsim.layers.pooling.sum_pool2d import SumPool2d
from eventsim.layers.window import output_grid
from eventsim.signals import CountArray, FloatArray, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class AvgPool2d(SumPool2d):
    """Average over a sliding window: the sum divided by the number of values, in float32.

    The average of spikes stays a row of non-zeros: a silent window costs nothing downstream.

    Parameters
    ----------
    count_include_pad : bool
        Whether padding counts in the divisor, as in PyTorch.
    ceil_mode : bool
        Whether a last window that hangs over the far border is averaged too, as in PyTorch.
    """

    count_include_pad: bool = True
    ceil_mode: bool = False

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return real values, sparse if the input is."""
        if any(2 * p > k for p, k in zip(self.padding, self.kernel_size, strict=True)):  # a window of padding alone
            raise LayerError(f"padding {self.padding} found; expected at most half the kernel {self.kernel_size}")
        return replace(super().output_type(*inputs), kind="real", dense=inputs[0].dense)

    def windows(self, source: SignalType) -> tuple[int, int]:
        """Return how many windows there are, those that hang over included if asked for."""
        return output_grid(source.grid, self.kernel_size, self.stride, self.padding, self.ceil_mode)

    def divisors(self, source: SignalType) -> FloatArray:
        """Return the number of values averaged at each output pixel ``(positions, 1)``."""
        each = (self._values_averaged(*axis) for axis in zip((0, 1), self.windows(source), source.grid, strict=True))
        return np.outer(*each).astype(np.float32).reshape(-1, 1)

    def _values_averaged(self, axis: int, windows: int, size: int) -> CountArray:
        """Return how many values each window averages along one axis; those over the far border never count."""
        padding = self.padding[axis]
        counted = padding if self.count_include_pad else 0
        start = np.arange(windows) * self.stride[axis] - padding
        stop = np.minimum(start + self.kernel_size[axis], size + counted)
        return np.asarray(stop - np.maximum(start, -counted), np.int64)
