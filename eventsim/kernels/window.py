"""The grid of a convolution or pooling layer."""

from __future__ import annotations

from typing import NamedTuple


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
