"""The grid of a convolution or pooling layer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from eventsim.kernels.jit import kernel


class Window(NamedTuple):
    """Input and output pixels, kernel, stride, padding, and pixels from one tap to the next."""

    height: int
    width: int
    out_height: int
    out_width: int
    kernel_height: int
    kernel_width: int
    stride_height: int
    stride_width: int
    pad_height: int
    pad_width: int
    dilation_height: int = 1
    dilation_width: int = 1


def flat(rows: int) -> Window:
    """Return the window of a linear layer that serves so many rows of each time step."""
    return Window(1, rows, 1, rows, 1, 1, 1, 1, 0, 0)


def is_flat(window: Window) -> bool:
    """Say whether each output row is that of one input row: a linear layer, or a convolution with one tap."""
    w = window
    taps, strides = w.kernel_height * w.kernel_width, w.stride_height * w.stride_width
    pads, alike = (w.pad_height, w.pad_width), (w.height, w.width) == (w.out_height, w.out_width)
    return taps == 1 and strides == 1 and pads == (0, 0) and alike  # a band begins above its map, or lower down


def band(window: Window, first: int, last: int) -> Window:
    """Return the window of some lines of the output, which reads the same input."""
    return window._replace(out_height=last - first, pad_height=window.pad_height - first * window.stride_height)


@kernel
def lines_read(window: Window) -> tuple[int, int]:
    """Return the lines of the input that the window reads, the last one excluded: all, but for a `band`."""
    w = window
    reach = (w.out_height - 1) * w.stride_height + (w.kernel_height - 1) * w.dilation_height + 1
    return min(max(-w.pad_height, 0), w.height), min(max(reach - w.pad_height, 0), w.height)


class Spans(NamedTuple):
    """Input pixels, and those that each output pixel takes in: from a row or column on, up to another one.

    Every `row_step`-th row counts and every `column_step`-th column; none lies outside of the map.
    """

    height: int
    width: int
    tops: npt.NDArray[np.int64]
    bottoms: npt.NDArray[np.int64]
    lefts: npt.NDArray[np.int64]
    rights: npt.NDArray[np.int64]
    row_step: int = 1
    column_step: int = 1
