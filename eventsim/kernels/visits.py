"""Which events serve which output rows: what a tap of a window, or a row of taps, reads."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from eventsim.kernels.jit import kernel
from eventsim.kernels.window import Window, lines_read

BLOCK = 16
"""Events that are numbered at once, whether a pixel has so many or not."""
ROWS = 256
"""Output rows that one tap visits before the next."""

RowArrays: TypeAlias = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]
"""CSR rows: ends, channels, and values, of which there are none where all are 1."""


@kernel
def by_column(
    indptr: npt.NDArray[np.int64], indices: npt.NDArray[np.int32], window: Window, inputs: int, spare: int
) -> npt.NDArray[np.int32]:
    """Return indices that count the channels of a whole line of pixels, so that a row of taps reads one list.

    Those are written that the window reads. Behind them are `spare` more, at least `BLOCK`, that mean nothing.
    """
    w, (top, bottom) = window, lines_read(window)
    out = np.empty(indptr[-1] + spare, np.int32)
    for number in range((len(indptr) - 1) // w.width):
        line = number * w.width
        if not top <= number % w.height < bottom or indptr[line] == indptr[line + w.width]:
            continue
        for x in range(w.width):
            shift = np.int32(x * inputs)
            first, last = np.uint64(indptr[line + x]), np.uint64(indptr[line + x + 1])
            if last + np.uint64(BLOCK) > np.uint64(len(indices)):
                for e in range(first, last):
                    out[e] = indices[e] + shift
                continue
            for begin in range(first, last, BLOCK):  # what is too much, the next pixel writes over
                for k in range(np.uint64(BLOCK)):
                    out[begin + k] = indices[begin + k] + shift
    return out


@kernel
def split(
    indptr: npt.NDArray[np.int64], indices: npt.NDArray[np.int32], size: int, parts: int
) -> npt.NDArray[np.int64]:
    """Return where the events of each part of the `size` channels end in each row, one part behind the other."""
    rows = len(indptr) - 1
    ends = np.empty(rows * parts + 1, np.int64)
    ends[0] = indptr[0]
    for row in range(rows):
        first, last = np.uint64(indptr[row]), np.uint64(indptr[row + 1])
        for part in range(1, parts):
            limit, below = np.int32(size * part // parts), np.int32(0)
            for e in range(first, last):  # all of them: by vectors, that is faster than to stop
                below += np.int32(indices[e] < limit)
            ends[row * parts + part] = indptr[row] + below
        ends[(row + 1) * parts] = indptr[row + 1]
    return ends


@kernel
def find(
    lists: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]],
    window: Window,
    read: tuple[int, int, int, int],
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
    read : tuple (the first tap, how many in a row, which part of their channels, of how many)
        Ends are those of all parts (`split`); one part for several taps, and with groups.
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
    (indptr, indices), w, (tap, reach, part, parts), (row, end) = lists, window, read, span
    (many, size), (width, group_weights, pitch, group_sums) = groups, pitches
    dy = tap // w.kernel_width * w.dilation_height - w.pad_height
    dx = tap % w.kernel_width * w.dilation_width - w.pad_width
    found, begin = 0, row
    while row < end:
        line = row // w.out_width
        y = line % w.out_height * w.stride_height + dy
        x = (row - line * w.out_width) * w.stride_width + dx
        source = (line // w.out_height * w.height + y) * w.width
        inside = 0 <= y < w.height and indptr[source * parts] < indptr[(source + w.width) * parts]
        if not (inside or silent):
            row = (line + 1) * w.out_width
            continue
        for target in range(row, min(end, (line + 1) * w.out_width)):
            left, right = max(x, 0), min(x + reach, w.width)
            first = last = np.int64(0)
            if inside and left < right:  # what is unsigned needs no look at whether it counts from the end
                at = np.uint64((source + left) * parts + part)
                first, last = indptr[at], indptr[at + np.uint64(right - left)]
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
