"""Sliding windows: the grid that they leave, and how kernels take them."""

from __future__ import annotations

from eventsim.kernels.window import Window
from eventsim.layers.layer import LayerError
from eventsim.signals import SignalType

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
