"""Pooling of maps (T, C, H, W); output size floor((n + 2 * padding - kernel) / stride) + 1."""

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Pair = tuple[int, int]


def maxpool2d(
    x: Float32,
    kernel: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    ceil_mode: bool = False,
) -> Float32:
    """Largest value of the window, the border being -inf; OR for binary maps.

    With dilation, only every so many-th row and column of the window counts. With ceil_mode a last window hangs over
    the far border, if it begins before it.
    """
    reach = (dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1)
    padded = _pad(x, padding, -np.inf)
    y = _empty_output(x, reach, stride, padding)
    if ceil_mode:
        y = _one_more(y, x, reach, stride, padding)
    for i in range(y.shape[2]):
        for j in range(y.shape[3]):
            window = _window(padded, i, j, reach, stride)[:, :, :: dilation[0], :: dilation[1]]
            y[:, :, i, j] = window.max(axis=(2, 3))
    return y.astype(np.float32)


def adaptive_max_pool2d(x: Float32, size: Pair) -> Float32:
    """Largest value of each of so many windows that cover the map; see `adaptive_windows`."""
    y = np.zeros((*x.shape[:2], *size), np.float32)
    for i, rows in enumerate(adaptive_windows(x.shape[2], size[0])):
        for j, columns in enumerate(adaptive_windows(x.shape[3], size[1])):
            y[:, :, i, j] = x[:, :, rows, columns].max(axis=(2, 3))
    return y


def adaptive_avg_pool2d(x: Float32, size: Pair) -> Float32:
    """Sum of each of so many windows that cover the map over their pixels; see `adaptive_windows`."""
    y = np.zeros((*x.shape[:2], *size), np.float32)
    for i, rows in enumerate(adaptive_windows(x.shape[2], size[0])):
        for j, columns in enumerate(adaptive_windows(x.shape[3], size[1])):
            window = x[:, :, rows, columns].astype(np.float64)
            pixels = np.float32(window.shape[2] * window.shape[3])
            y[:, :, i, j] = window.sum(axis=(2, 3)).astype(np.float32) / pixels
    return y


def adaptive_windows(length: int, many: int) -> list[slice]:
    """From floor(i * length / many) up to ceil((i + 1) * length / many)."""
    return [slice(i * length // many, ((i + 1) * length + many - 1) // many) for i in range(many)]


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
        y = _one_more(y, x, kernel, stride, padding)
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


def _one_more(y: NDArray[np.float64], x: Float32, kernel: Pair, stride: Pair, padding: Pair) -> NDArray[np.float64]:
    """Make room for a last window along each axis, if pixels are left over and it begins before the far border."""
    more = [
        int(
            (y.shape[2 + d] - 1) * stride[d] + kernel[d] < x.shape[2 + d] + 2 * padding[d]
            and y.shape[2 + d] * stride[d] < x.shape[2 + d] + padding[d]
        )
        for d in (0, 1)
    ]
    return np.zeros((*y.shape[:2], y.shape[2] + more[0], y.shape[3] + more[1]))


def _window(padded: NDArray[np.float64], i: int, j: int, kernel: Pair, stride: Pair) -> NDArray[np.float64]:
    top, left = i * stride[0], j * stride[1]
    return padded[:, :, top : top + kernel[0], left : left + kernel[1]]
