"""Pooling: the largest values, or the sums, of windows of a map, from lists, bits or every channel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eventsim.kernels.bits import bits_from, list_bits
from eventsim.kernels.jit import kernel
from eventsim.kernels.pool_window import pool_window
from eventsim.kernels.window import Spans


@kernel
def _add_bits(words: npt.NDArray[np.uint64], bit: np.uint64, bits: np.uint64) -> None:
    """Set, of 64 bits from one on, those that are set."""
    word, shift, one = bit >> np.uint64(6), bit & np.uint64(63), np.uint64(1)
    words[word] |= bits << shift
    words[word + one] |= bits >> one >> (np.uint64(63) - shift)


@kernel
def set_bits(
    indptr: npt.NDArray[np.int64], indices: npt.NDArray[np.int32], channels: int, bits: npt.NDArray[np.uint32]
) -> None:
    """Write the bits of rows of spikes, as `pool_bits` reads them, ``(steps, words)``."""
    bits[:] = 0
    positions = (len(indptr) - 1) // max(len(bits), 1)
    for step in range(len(bits)):
        words = bits[step]
        for p in range(positions):
            row, first = step * positions + p, np.uint64(p * channels)
            for e in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
                bit = first + np.uint64(indices[e])
                words[bit >> np.uint64(5)] |= np.uint32(1) << np.uint32(bit & np.uint64(31))


@kernel
def _unite_lines(
    fired: npt.NDArray[np.uint64], spans: Spans, channels: int, out_y: int, united: npt.NDArray[np.uint64]
) -> None:
    """Write which channels of which column are set in one line of a row of windows, or more."""
    united[:] = 0
    size = np.uint64(spans.width * channels)
    row = spans.tops[out_y]
    while row < spans.bottoms[out_y]:  # a range of any step divides
        first = np.uint64(row) * size
        word, shift, one = first >> np.uint64(6), first & np.uint64(63), np.uint64(1)
        rest = np.uint64(63) - shift
        for k in range(np.uint64(len(united) - 1)):
            united[k] |= (fired[word + k] >> shift) | (fired[word + k + one] << one << rest)
        row += spans.row_step


@kernel
def _unite_columns(
    united: npt.NDArray[np.uint64], spans: Spans, channels: int, reached: npt.NDArray[np.uint64]
) -> None:
    """Write which channels of which window are set, from those of united lines."""
    reached[:] = 0
    step, many = np.uint64(spans.column_step), np.uint64(channels)
    for first in range(0, channels, 64):
        within = ~np.uint64(0)
        if channels - first < 64:
            within = (np.uint64(1) << np.uint64(channels - first)) - np.uint64(1)
        for x in range(np.uint64(len(spans.lefts))):
            word, column = np.uint64(0), np.uint64(spans.lefts[x])
            while column < np.uint64(spans.rights[x]):
                word |= bits_from(united, column * many + np.uint64(first))
                column += step
            _add_bits(reached, x * many + np.uint64(first), word & within)


@kernel
def _looked_at(indptr: npt.NDArray[np.int64], spans: Spans, first: int, out_y: int) -> int:
    """Return how many values windows of a line hold, each as often as it is in one; of a map that begins at a row."""
    looked, y = 0, spans.tops[out_y]
    while y < spans.bottoms[out_y]:
        line = np.uint64(first + y * spans.width)
        for out_x in range(np.uint64(len(spans.lefts))):
            x, end = np.uint64(spans.lefts[out_x]), np.uint64(spans.rights[out_x])
            if spans.column_step == 1:
                looked += indptr[line + end] - indptr[line + x]
                continue
            while x < end:
                looked += indptr[line + x + np.uint64(1)] - indptr[line + x]
                x += np.uint64(spans.column_step)
        y += spans.row_step
    return looked


@kernel
def pool_bits(
    indptr: npt.NDArray[np.int64],
    bits: npt.NDArray[np.uint32],
    channels: int,
    spans: Spans,
    pooled: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]],
    touched: npt.NDArray[np.int64],
) -> None:
    """Pool spikes by maximum: there is one where there is one in a window.

    Words of bits are united, those of lines first, then of columns, without a branch on any.

    Parameters
    ----------
    indptr : int64 array (steps * height * width + 1,)
        Of the rows.
    bits : uint32 array (steps, words)
        A bit for each channel, row after row of each step, and at least 64 more.
    channels : int
    spans : Spans
    pooled : tuple (indptr, indices, values)
        Written: sorted rows of spikes, ``steps * out_height * out_width`` of them. Indices have room for as many as
        there can be; values, which are all 1, are not written.
    touched : int64 array (steps,)
        Written: spikes looked at in each step, each as often as it is in a window.
    """
    ends, indices, _ = pooled
    out_height, out_width = len(spans.tops), len(spans.lefts)
    united = np.empty(spans.width * channels // 64 + 2, np.uint64)
    reached = np.empty(out_width * channels // 64 + 2, np.uint64)
    touched[:] = 0
    ends[0] = 0
    for step in range(len(touched)):
        fired = bits[step].view(np.uint64)
        for out_y in range(out_height):
            looked = _looked_at(indptr, spans, step * spans.height * spans.width, out_y)
            touched[step] += looked
            row = (step * out_height + out_y) * out_width
            if looked == 0:
                ends[row + 1 : row + out_width + 1] = ends[row]
                continue
            _unite_lines(fired, spans, channels, out_y, united)
            _unite_columns(united, spans, channels, reached)
            list_bits(reached, channels, ends[row], ends[row + 1 : row + out_width + 1], indices)


@kernel
def pool_rows(
    rows: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]],
    channels: int,
    spans: Spans,
    maximum: bool,
    pooled: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]],
    touched: npt.NDArray[np.int64],
) -> None:
    """Pool rows by maximum (those of positive values; of spikes see `pool_bits`) or by sum, from list to list.

    Parameters
    ----------
    rows : tuple (indptr, indices, values)
        CSR rows, ``steps * height * width`` of them; values are empty where all are 1.
    channels : int
    spans : Spans
    maximum : bool
    pooled : tuple (indptr, indices, values)
        Written: sorted rows of what is not 0, ``steps * out_height * out_width`` of them. Indices and values have room
        for as many as there are values that inputs reach.
    touched : int64 array (steps,)
        Written: values looked at in each step, non-zero inputs times the windows they belong to.
    """
    indptr, indices, values = rows
    out_indptr, out_indices, out_values = pooled
    s = spans
    out_height = len(s.tops)
    out_width = len(s.lefts)
    binary = len(values) == 0
    narrow = channels <= 64  # a word then holds the channels of a window
    one = np.uint64(1)
    line = out_width * channels
    target = np.zeros(line, np.float32)
    reached = np.zeros(line // 64 + 2, np.uint64)  # a bit for each value of a line of windows
    touched[:] = 0
    out_indptr[0] = 0
    for row in range(len(touched) * out_height):
        step = row // out_height
        out_y = row % out_height
        looked = 0
        for out_x in range(out_width):
            first = np.uint64(out_x * channels)
            word = np.uint64(0)
            y = s.tops[out_y] - s.row_step
            while y + s.row_step < s.bottoms[out_y]:  # a range of any step divides
                y += s.row_step
                x = s.lefts[out_x]
                while x < s.rights[out_x]:
                    source = (step * s.height + y) * s.width + x
                    x = s.rights[out_x] if s.column_step == 1 else x + s.column_step
                    together = x - s.lefts[out_x] if s.column_step == 1 else 1  # neighbours are one list
                    begin = indptr[source]
                    stop = indptr[source + together]
                    looked += stop - begin
                    for e in range(np.uint64(begin), np.uint64(stop)):  # what is unsigned is not counted from the end
                        at = first + np.uint64(indices[e])
                        if narrow:
                            word |= one << (at - first)
                        else:
                            reached[at >> np.uint64(6)] |= one << (at & np.uint64(63))
                        value = np.float32(1) if binary else values[e]
                        target[at] = max(target[at], value) if maximum else target[at] + value
            if narrow:
                _add_bits(reached, first, word)
        touched[step] += looked
        ends = out_indptr[row * out_width : (row + 1) * out_width + 1]
        if not looked:
            ends[1:] = ends[0]
            continue
        list_bits(reached, channels, ends[0], ends[1:], out_indices)
        reached[:] = 0
        begin = kept = np.uint64(ends[0])
        for out_x in range(out_width):
            stop = np.uint64(ends[out_x + 1])
            first = np.uint64(out_x * channels)
            for e in range(begin, stop):
                at = first + np.uint64(out_indices[e])
                out_indices[kept] = out_indices[e]
                out_values[kept] = target[at]
                kept += np.uint64(target[at] != 0)  # real values can cancel
                target[at] = 0
            begin = stop
            ends[out_x + 1] = kept


@kernel
def pool_dense(
    data: npt.NDArray[np.float32],
    steps: int,
    spans: Spans,
    pooled: npt.NDArray[np.float32],
    maximum: bool,
) -> int:
    """Pool dense rows by maximum or by sum.

    `data` is ``(steps * height * width, channels)``; `pooled` is written, ``(steps * out_height * out_width,
    channels)``. Returns the values looked at, equally many in each step.
    """
    s = spans
    out_height = len(s.tops)
    out_width = len(s.lefts)
    pitches = s.row_step * s.width, s.column_step
    touched = 0
    for row in range(steps * out_height):
        step = row // out_height
        out_y = row % out_height
        high = max(-(-(s.bottoms[out_y] - s.tops[out_y]) // s.row_step), 0)
        for out_x in range(out_width):
            wide = max(-(-(s.rights[out_x] - s.lefts[out_x]) // s.column_step), 0)
            first = (step * s.height + s.tops[out_y]) * s.width + s.lefts[out_x]
            pool_window(data, first, (high, wide), pitches, maximum, pooled, row * out_width + out_x)
            touched += high * wide * data.shape[1]
    return touched
