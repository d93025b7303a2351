"""Sliding windows: the grid that they leave, and how kernels take them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from eventsim.kernels.window import Spans, Window
from eventsim.layers.dense import Array
from eventsim.layers.layer import LayerError
from eventsim.signals import CountArray, FloatArray, SignalType

Pair = tuple[int, int]


def output_grid(grid: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair, ceil_mode: bool = False) -> Pair:
    """Return ``floor((size + 2 * padding - kernel) / stride) + 1`` along each axis.

    With `ceil_mode` the division rounds up, as in PyTorch: a last window may hang over the far border, as long as it
    does not begin beyond it or in the padding there.

    Raises
    ------
    LayerError
        If the window does not fit, or kernel, stride or padding make no sense.
    """
    if not len(kernel) == len(stride) == len(padding) == 2:
        raise LayerError(f"kernel {kernel}, stride {stride}, padding {padding} found; expected two numbers each")
    if min(kernel) < 1 or min(stride) < 1 or min(padding) < 0:
        raise LayerError(f"kernel {kernel}, stride {stride}, padding {padding} found; expected positive sizes")
    sizes = []
    for size, k, s, p in zip(grid, kernel, stride, padding, strict=True):
        room = size + 2 * p - k
        windows = (-(-room // s) if ceil_mode else room // s) + 1
        sizes.append(windows - 1 if ceil_mode and (windows - 1) * s >= size + p else windows)
    height, width = sizes
    if height < 1 or width < 1:
        raise LayerError(f"kernel {kernel} with padding {padding} does not fit into a {grid[0]}x{grid[1]} map")
    return height, width


def slide(
    source: SignalType, output: SignalType, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = (1, 1)
) -> Window:
    """Return the window that kernels slide over maps of type `source` to make maps of type `output`."""
    height, width = source.grid
    out_height, out_width = output.grid
    return Window(height, width, out_height, out_width, *kernel, *stride, *padding, *dilation)


def taps_inside(size: int, windows: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> int:
    """Return how many taps of all windows along one axis lie on the map, not in its padding."""
    return int(windows_inside(size, windows, kernel, stride, padding, dilation).sum())


def windows_inside(size: int, windows: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> CountArray:
    """Return, for each tap along one axis, how many windows it lies on the map in: int64 array (kernel,)."""
    at = np.arange(windows)[:, None] * stride + np.arange(kernel) * dilation - padding
    return np.asarray(np.count_nonzero((at >= 0) & (at < size), axis=0), np.int64)


def taps_over(
    x: Array,
    kernel: tuple[int, ...],
    stride: Pair,
    padding: Pair,
    windows: Pair,
    dilation: Pair = (1, 1),
    fill: float = 0,
) -> Iterator[tuple[Pair, Array]]:
    """Yield each tap of a kernel and what it reads of maps (T, C, H, W) in every window, (T, C, *windows).

    Padding, and what a window that hangs over the far border reads there, is `fill`.
    """
    sides = []
    for size, k, s, p, n, d in zip(x.shape[2:], kernel, stride, padding, windows, dilation, strict=True):
        sides.append((p, max((n - 1) * s + d * (k - 1) + 1 - size - p, 0)))
    padded = np.pad(x, ((0, 0), (0, 0), *sides), constant_values=fill)
    for row, column in np.ndindex(*kernel):
        top, left = row * dilation[0], column * dilation[1]
        rows = slice(top, top + (windows[0] - 1) * stride[0] + 1, stride[0])
        columns = slice(left, left + (windows[1] - 1) * stride[1] + 1, stride[1])
        yield (row, column), padded[:, :, rows, columns]


def sliding_spans(
    grid: tuple[int, ...], windows: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = (1, 1)
) -> Spans:
    """Return the pixels of a grid that each of the windows sliding over it holds, padding left out."""
    axes = []
    for size, count, k, s, p, d in zip(grid, windows, kernel, stride, padding, dilation, strict=True):
        start = np.arange(count) * s - p
        axes.append((np.where(start < 0, start % d, start), np.minimum(start + d * (k - 1) + 1, size)))
    return _spans(grid, axes, dilation)


def adaptive_grid(source: SignalType, size: Pair) -> Pair:
    """Return the size asked for.

    Raises
    ------
    LayerError
        If the input is no map, or the size makes no sense.
    """
    if len(source.grid) != 2:
        raise LayerError(f"input {source} found; expected a map C x H x W")
    if len(size) != 2 or min(size) < 1:
        raise LayerError(f"output_size {size} found; expected two numbers, 1 or more")
    return size


def adaptive_spans(grid: tuple[int, ...], windows: Pair) -> Spans:
    """Return the pixels of each of so many windows that cover a grid, as PyTorch's adaptive pooling lays them.

    Window i of n is ``floor(i * size / n)`` up to ``ceil((i + 1) * size / n)``: neighbours overlap, or repeat pixels,
    where n does not divide the size.
    """
    axes = []
    for size, count in zip(grid, windows, strict=True):
        i = np.arange(count)
        axes.append((i * size // count, -(-(i + 1) * size // count)))
    return _spans(grid, axes, (1, 1))


def adaptively(x: FloatArray, windows: Pair, reduce: Callable[..., Array]) -> FloatArray:
    """Reduce maps (T, C, H, W) window by window of so many that cover them, as PyTorch's adaptive pooling does."""
    out = np.empty((*x.shape[:2], *windows), np.float32)
    height, width = x.shape[2:]
    for row, column in np.ndindex(*windows):
        rows = slice(row * height // windows[0], -(-(row + 1) * height // windows[0]))
        columns = slice(column * width // windows[1], -(-(column + 1) * width // windows[1]))
        out[:, :, row, column] = reduce(x[:, :, rows, columns], axis=(2, 3))
    return out


def _spans(grid: tuple[int, ...], axes: list[tuple[CountArray, CountArray]], dilation: Pair) -> Spans:
    height, width = grid
    rows, columns = ((first.astype(np.int64), stop.astype(np.int64)) for first, stop in axes)
    return Spans(height, width, *rows, *columns, *dilation)
