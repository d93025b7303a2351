"""Synaptic accumulation in groups of fewer outputs than a vector has: what `eventsim.kernels.gather` does for others.

Product by product or, where each group has one input, by vectors over all channels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eventsim.kernels.jit import kernel
from eventsim.kernels.visits import ROWS, RowArrays, find
from eventsim.kernels.window import Window

NEAR = 4096
"""Floats of sums that stay in the first-level cache while tap after tap adds to them."""
SPARSE = 50
"""Where fewer than one channel of so many is active, each is served alone, whatever its group."""


@kernel
def _by_product(
    rows: RowArrays,
    weight: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    window: Window,
    groups: tuple[int, int],
    span: tuple[int, int],
) -> None:
    """Add to some output rows, at most `ROWS`, product by product, where groups have fewer outputs than a vector."""
    indptr, indices, values = rows
    (many, size), outputs, sums = groups, out.shape[1], out.reshape(-1)
    fan = outputs // many
    reached = np.empty(many * size, np.int64)  # first output of each input's group
    for channel in range(many * size):
        reached[channel] = channel // size * fan
    visits = np.empty(4 * ROWS, np.int64)
    for tap in range(window.kernel_height * window.kernel_width):
        pitches = (fan, 0, outputs, 0)
        for n in range(find((indptr, indices), window, (tap, 1, 0, 1), (1, many * size), span, pitches, False, visits)):
            first, stop = visits[4 * n], visits[4 * n] + visits[4 * n + 1]
            at, to = visits[4 * n + 2], visits[4 * n + 3] + span[0] * outputs
            for e in range(np.uint64(first), np.uint64(stop)):
                i = np.int64(indices[e])
                value = np.float32(1) if len(values) == 0 else values[e]
                for j in range(fan):
                    sums[np.uint64(to + reached[i] + j)] += value * weight[np.uint64(at + i * fan + j)]


@kernel
def _by_channel(
    rows: RowArrays,
    weight: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    window: Window,
    groups: int,
    span: tuple[int, int],
    room: tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]],
) -> None:
    """Do what `_by_product` does where each group has one input, over all channels at once; zeros add nothing.

    The output rows are of one step. `room` is the numbers of all input rows, and space for those that are read, where
    each value is written as often as it has outputs.
    """
    (indptr, indices, values), w, (row, end), (numbers, image) = rows, window, span, room
    outputs, sums, pixels = out.shape[1], out.reshape(-1), window.out_height * window.out_width
    fan = outputs // groups
    top = max(row % pixels // w.out_width * w.stride_height - w.pad_height, 0)
    reach = (w.kernel_height - 1) * w.dilation_height + 1
    bottom = min((end - 1) % pixels // w.out_width * w.stride_height - w.pad_height + reach, w.height)
    first = (row // pixels * w.height + top) * w.width
    for source in range(max(bottom - top, 0) * w.width):
        for j in range(source * outputs, (source + 1) * outputs):
            image[j] = 0
        for e in range(np.uint64(indptr[first + source]), np.uint64(indptr[first + source + 1])):
            value = np.float32(1) if len(values) == 0 else values[e]
            at = source * outputs + indices[e] * fan
            for j in range(fan):
                image[np.uint64(at + j)] = value
    few = max(NEAR // outputs, 1)
    visits = np.empty(4 * few, np.int64)
    for begin in range(row, end, few):
        rows_of, pitches = (begin, min(begin + few, end)), (outputs, 0, outputs, 0)
        for tap in range(w.kernel_height * w.kernel_width):
            for n in range(find((numbers, indices), w, (tap, 1, 0, 1), (1, 1), rows_of, pitches, False, visits)):
                read, at = (visits[4 * n] - first) * outputs, visits[4 * n + 2]
                to = visits[4 * n + 3] + begin * outputs
                for j in range(np.uint64(outputs)):
                    value, total, factor = (
                        image[np.uint64(read) + j],
                        sums[np.uint64(to) + j],
                        weight[np.uint64(at) + j],
                    )
                    sums[np.uint64(to) + j] = total + value * factor if value != 0 else total


@kernel
def serve_narrow(
    rows: RowArrays,
    weight: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    window: Window,
    groups: int,
    span: tuple[int, int],
) -> None:
    """Serve groups of fewer outputs than a vector has, in some output rows; weights lie in the order of taps."""
    w, outputs, sources = window, out.shape[1], len(rows[0]) - 1
    pixels, size = w.out_height * w.out_width, len(weight) // max(w.kernel_height * w.kernel_width * out.shape[1], 1)
    by_channel = size == 1 and (rows[0][sources] - rows[0][0]) * SPARSE > sources * groups
    lines = (ROWS // max(w.out_width, 1) + 1) * w.stride_height + (w.kernel_height - 1) * w.dilation_height + 1
    image = np.empty(min(lines, w.height) * w.width * outputs if by_channel else 0, np.float32)
    numbers = np.arange(sources + 1 if by_channel else 0)
    row = span[0]
    while row < span[1]:
        end = min(row + ROWS, (row // pixels + 1) * pixels, span[1])
        for target in range(row, end):
            for j in range(outputs):
                out[target, j] = bias[j]
        if by_channel:
            _by_channel(rows, weight, out, w, groups, (row, end), (numbers, image))
        else:
            _by_product(rows, weight, out, w, (groups, size), (row, end))
        row = end
