"""Which events serve which output rows: what a tap of a window, or a row of taps, reads."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from eventsim.kernels.jit import kernel
from eventsim.kernels.window import Window

ROWS = 256
"""Output rows that one tap visits before the next."""

RowArrays: TypeAlias = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]
"""CSR rows: ends, channels, and values, of which there are none where all are 1."""


@kernel
def find(
    lists: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]],
    window: Window,
    taps: tuple[int, int],
    groups: tuple[int, int],
    span: tuple[int, int],
    pitches: tuple[int, int, int, int],
    silent: bool,
    visits: npt.NDArray[np.int64],
) -> int:
    """Find what a tap, or a row of taps, reads for a span of output rows.

    Parameters
    ----------
    lists : tuple (indptr, indices)
    window : Window
    taps : tuple (the first, how many in a row)
    groups : tuple (groups, input channels of each)
    span : tuple (first row, last row)
    pitches : tuple of int
        Floats from a weight row to the next, from a group's weights to the next, from an output row to the next and
        from a group in it to the next.
    silent : bool
        Whether there is a visit without events to each output row that reads none; not with groups.
    visits : int64 array (4 * room,)
        Written: one for each output row, or, with groups, for each that a row reads from. A visit is four integers: its
        first event, how many, and where its weights and its sums begin.

    Returns
    -------
    int
        Visits.
    """
    (indptr, indices), w, (tap, reach), (row, end) = lists, window, taps, span
    (many, size), (width, group_weights, pitch, group_sums) = groups, pitches
    dy = tap // w.kernel_width * w.dilation_height - w.pad_height
    dx = tap % w.kernel_width * w.dilation_width - w.pad_width
    found, begin = 0, row
    while row < end:
        line = row // w.out_width
        y = line % w.out_height * w.stride_height + dy
        x = (row - line * w.out_width) * w.stride_width + dx
        source = (line // w.out_height * w.height + y) * w.width
        inside = 0 <= y < w.height and indptr[source] < indptr[source + w.width]
        if not (inside or silent):
            row = (line + 1) * w.out_width
            continue
        for target in range(row, min(end, (line + 1) * w.out_width)):
            left, right = max(x, 0), min(x + reach, w.width)
            first = last = np.int64(0)
            if inside and left < right:  # what is unsigned needs no look at whether it counts from the end
                first, last = indptr[np.uint64(source + left)], indptr[np.uint64(source + right)]
            if many == 1:
                visits[np.uint64(found)], visits[np.uint64(found + 1)] = first, last - first
                visits[np.uint64(found + 2)] = (tap - x if reach > 1 else tap) * size * width
                visits[np.uint64(found + 3)] = (target - begin) * pitch
                found += 4 if silent or first < last else 0
            while many > 1 and first < last:
                group = indices[first] // size
                stop = first + 1
                while stop < last and indices[stop] < (group + 1) * size:
                    stop += 1
                visits[found], visits[found + 1] = first, stop - first
                visits[found + 2] = group * group_weights + (tap - group) * size * width
                visits[found + 3] = (target - begin) * pitch + group * group_sums
                found += 4
                first = stop
            x += w.stride_width
        row = (line + 1) * w.out_width
    return found // 4
