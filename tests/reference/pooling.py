"""Pooling of maps (T, C, H, W); output size floor((n + 2 * padding - kernel) / stride) + 1."""

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Pair = tuple[int, int]


def maxpool2d(x: Float32, kernel: Pair, stride: Pair, padding: Pair = (0, 0)) -> Float32:
    """Largest value of the window, the border being -inf; OR for binary maps."""
    padded = _pad(x, padding, -np.inf)
    y = _empty_output(x, kernel, stride, padding)
    for i in range(y.shape[2]):
        for j in range(y.shape[3]):
            y[:, :, i, j] = _window(padded, i, j, kernel, stride).max(axis=(2, 3))
    return y.astype(np.float32)


def sumpool2d(x: Float32, kernel: Pair, stride: Pair, padding: Pair = (0, 0)) -> Float32:
    """Sum of the window, the border being 0."""
    padded = _pad(x, padding, 0.0)
    y = _empty_output(x, kernel, stride, padding)
    for i in range(y.shape[2]):
        for j in range(y.shape[3]):
            y[:, :, i, j] = _window(padded, i, j, kernel, stride).sum(axis=(2, 3))
    return y.astype(np.float32)


def avgpool2d(
    x: Float32,
    kernel: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    count_include_pad: bool = True,
    ceil_mode: bool = False,
) -> Float32:
    """Sum of the window over its pixels, those of the border included or not.

    With ceil_mode a last window hangs over the far border, if it begins before it; what hangs over is not counted.
    """
    padded, counted = _pad(x, padding, 0.0), _pad(np.ones_like(x), padding, float(count_include_pad))
    y = _empty_output(x, kernel, stride, padding)
    if ceil_mode:
        more = [
            int(
                (y.shape[2 + d] - 1) * stride[d] + kernel[d] < padded.shape[2 + d]  # pixels are left over
                and y.shape[2 + d] * stride[d] < x.shape[2 + d] + padding[d]
            )
            for d in (0, 1)
        ]
        y = np.zeros((*y.shape[:2], y.shape[2] + more[0], y.shape[3] + more[1]))
    pixels = np.zeros_like(y)
    for i in range(y.shape[2]):
        for j in range(y.shape[3]):
            y[:, :, i, j] = _window(padded, i, j, kernel, stride).sum(axis=(2, 3))
            pixels[:, :, i, j] = _window(counted, i, j, kernel, stride).sum(axis=(2, 3))
    return y.astype(np.float32) / pixels.astype(np.float32)


def _pad(x: Float32, padding: Pair, value: float) -> NDArray[np.float64]:
    steps, channels, height, width = x.shape
    ph, pw = padding
    padded = np.full((steps, channels, height + 2 * ph, width + 2 * pw), value)
    padded[:, :, ph : ph + height, pw : pw + width] = x
    return padded


def _empty_output(x: Float32, kernel: Pair, stride: Pair, padding: Pair) -> NDArray[np.float64]:
    rows, columns = ((x.shape[2 + d] + 2 * padding[d] - kernel[d]) // stride[d] + 1 for d in (0, 1))
    return np.zeros((x.shape[0], x.shape[1], rows, columns))


def _window(padded: NDArray[np.float64], i: int, j: int, kernel: Pair, stride: Pair) -> NDArray[np.float64]:
    top, left = i * stride[0], j * stride[1]
    return padded[:, :, top : top + kernel[0], left : left + kernel[1]]
