"""Kernels that make or reshape CSR rows without weights: listing, joining, flattening, averaging."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from eventsim.kernels.jit import kernel
from eventsim.kernels.nonzeros import BY_VECTORS, list_sums, whole_vectors

MISSED = 4
"""What a branch that was not foreseen costs, in values that are listed one after the other."""
LOOKED_AT = 6 if BY_VECTORS else 4
"""Channels of a row that are looked at in the time that one takes which is merged."""

_whole_vectors = kernel(whole_vectors)


@kernel
def list_nonzeros(
    data: npt.NDArray[np.float32],
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
) -> None:
    """List the non-zero channels of every row of `data` (rows, channels).

    `indptr` has room for one entry more than there are rows; `indices` and `values` for one more than the non-zeros,
    because every channel is written and only the non-zero ones are kept.
    """
    rows, channels = data.shape
    n = np.uint64(0)  # what is unsigned is not counted from the end
    indptr[0] = 0
    for row in range(rows):
        for c in range(np.uint64(channels)):
            indices[n] = c
            values[n] = data[row, c]
            n += np.uint64(data[row, c] != 0)
        indptr[row + 1] = n


@kernel
def unlist(
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
    data: npt.NDArray[np.float32],
) -> None:
    """Write every channel of every row to `data` (rows, channels); `values` is empty where all are 1."""
    binary = len(values) == 0
    for row in range(len(data)):
        data[row] = 0
        for e in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
            data[row, np.uint64(indices[e])] = np.float32(1) if binary else values[e]


@kernel
def list_frames(
    frames: npt.NDArray[Any],
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
) -> None:
    """List the non-zero channels of every position of `frames` (steps, channels, positions), of any number type.

    The rest is as for `list_nonzeros`.
    """
    steps, channels, positions = frames.shape
    n, end = np.uint64(0), np.uint64(0)  # what is unsigned is not counted from the end
    indptr[0] = 0
    for step in range(steps):
        for p in range(np.uint64(positions)):
            for c in range(np.uint64(channels)):
                value = frames[step, c, p]
                indices[n] = c
                values[n] = value
                n += np.uint64(value != 0)
            end += np.uint64(1)
            indptr[end] = n


@kernel
def join_rows(
    a: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]],
    b: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]],
    channels: int,
    mode: int,
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
    meetings: npt.NDArray[np.int64],
) -> None:
    """Join two sets of sorted rows: 0 adds, 1 keeps a where b is silent (IAND), 2 keeps what both hold (AND).

    Sparse rows are merged. To add rows that are not, every channel is looked at, which takes no branch.

    An input is a triple (indptr, indices, values), values empty where all are 1. The outputs have room for the
    non-zeros of both and `eventsim.kernels.nonzeros.SPARE` more; `meetings` (steps,) is written: the places where both
    inputs were non-zero in each step.
    """
    a_indptr, a_indices, a_values = a
    b_indptr, b_indices, b_values = b
    a_binary = len(a_values) == 0
    b_binary = len(b_values) == 0
    sums = np.zeros(_whole_vectors(channels), np.float32)
    looked_at = channels // LOOKED_AT
    meetings[:] = 0
    positions = max((len(a_indptr) - 1) // max(len(meetings), 1), 1)
    n = np.int64(0)
    indptr[0] = 0
    for row in range(len(a_indptr) - 1):
        met = 0
        i = a_indptr[row]
        j = b_indptr[row]
        i_stop = a_indptr[row + 1]
        j_stop = b_indptr[row + 1]
        fewer = min(i_stop - i, j_stop - j)  # where a merge changes sides, which no processor foresees
        if mode == 0 and i_stop - i + j_stop - j + MISSED * fewer > looked_at:
            for e in range(np.uint64(i), np.uint64(i_stop)):
                sums[np.uint64(a_indices[e])] = np.float32(1) if a_binary else a_values[e]
            for e in range(np.uint64(j), np.uint64(j_stop)):
                at = np.uint64(b_indices[e])
                met += sums[at] != 0
                sums[at] += np.float32(1) if b_binary else b_values[e]
            n = np.int64(list_sums(sums, int(n), indices, values))  # real values can cancel
            i = i_stop
            j = j_stop
        while i < i_stop or j < j_stop:
            if j >= j_stop or (i < i_stop and a_indices[i] < b_indices[j]):
                if mode != 2:
                    indices[n] = a_indices[i]
                    values[n] = np.float32(1) if a_binary else a_values[i]
                    n += 1
                i += 1
            elif i >= i_stop or b_indices[j] < a_indices[i]:
                if mode == 0:
                    indices[n] = b_indices[j]
                    values[n] = np.float32(1) if b_binary else b_values[j]
                    n += 1
                j += 1
            else:
                x = np.float32(1) if a_binary else a_values[i]
                y = np.float32(1) if b_binary else b_values[j]
                if mode != 1:
                    indices[n] = a_indices[i]
                    values[n] = x + y if mode == 0 else x * y
                    n += values[n] != 0  # real values can cancel
                met += 1
                i += 1
                j += 1
        indptr[row + 1] = n
        meetings[row // positions] += met


@kernel
def gate_rows(
    gate: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]],
    rows: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]],
    shared: int,
    size: int,
    gated: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]],
    meetings: npt.NDArray[np.int64],
) -> None:
    """Multiply rows by gates: channel c of row r by channel ``c // size`` of row ``r // shared`` of the gates.

    Parameters
    ----------
    gate, rows : tuples (indptr, indices, values)
        Sorted CSR rows; values are empty where all are 1.
    shared : int
        Rows that one row of gates is for.
    size : int
        Channels that one gate is for.
    gated : tuple (indptr, indices, values)
        Written: sorted rows of what is not 0, with room for the non-zeros of `rows`.
    meetings : int64 array (steps,)
        Written: non-zero values that met a gate that is not 0, in each step.
    """
    g_indptr, g_indices, g_values = gate
    indptr, indices, values = rows
    out_indptr, out_indices, out_values = gated
    g_binary = len(g_values) == 0
    binary = len(values) == 0
    meetings[:] = 0
    positions = max((len(indptr) - 1) // max(len(meetings), 1), 1)
    n = 0
    out_indptr[0] = 0
    for row in range(len(indptr) - 1):
        g = g_indptr[row // shared]
        g_stop = g_indptr[row // shared + 1]
        met = 0
        for e in range(indptr[row], indptr[row + 1]):
            group = indices[e] // size
            while g < g_stop and g_indices[g] < group:
                g += 1
            if g < g_stop and g_indices[g] == group:
                value = np.float32(1) if binary else values[e]
                out_indices[n] = indices[e]
                out_values[n] = value if g_binary else value * g_values[g]
                n += out_values[n] != 0  # a product of small values may be 0
                met += 1
        out_indptr[row + 1] = n
        meetings[row // positions] += met


@kernel
def flatten_rows(
    rows: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]],
    positions: int,
    channels: int,
    flat: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]],
) -> None:
    """Turn the rows of each time step into one row in channel-major order: index = channel * positions + position.

    Written: `flat`, a triple (indptr, indices, values) as `rows` is one; no values where all are 1.
    """
    indptr, indices, values = rows
    ends, places, kept = flat
    binary = len(values) == 0
    fill = np.empty(channels + 1, np.int64)
    ends[0] = indptr[0]
    for step in range(len(ends) - 1):
        first = indptr[step * positions]
        fill[:] = 0
        for e in range(first, indptr[(step + 1) * positions]):
            fill[indices[e] + 1] += 1
        for c in range(channels):
            fill[c + 1] += fill[c]
        for p in range(positions):
            for e in range(indptr[step * positions + p], indptr[step * positions + p + 1]):
                c = indices[e]
                slot = first + fill[c]
                fill[c] += 1
                places[slot] = c * positions + p
                if not binary:
                    kept[slot] = values[e]
        ends[step + 1] = indptr[(step + 1) * positions]


@kernel
def sum_rows(
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
    positions: int,
    out: npt.NDArray[np.float32],
) -> None:
    """Add up the rows of each time step into `out` (steps, channels), zero on entry.

    `values` is empty where all are 1. Binary and graded sums are integers, exact in float32 below 2**24.
    """
    binary = len(values) == 0
    for row in range(len(indptr) - 1):
        step = row // positions
        for e in range(indptr[row], indptr[row + 1]):
            out[step, indices[e]] += np.float32(1) if binary else values[e]


@kernel
def sum_groups(
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
    size: int,
    out: npt.NDArray[np.float32],
) -> None:
    """Add up every `size` neighbouring channels of each row into `out` (rows, groups), zero on entry.

    `values` is empty where all are 1.
    """
    binary = len(values) == 0
    for row in range(len(indptr) - 1):
        for e in range(indptr[row], indptr[row + 1]):
            out[row, indices[e] // size] += np.float32(1) if binary else values[e]


@kernel
def total_rows(
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
    positions: int,
    out: npt.NDArray[np.float32],
) -> None:
    """Add every time step to `out` (positions, channels), one after the other; `values` is empty where all are 1."""
    binary = len(values) == 0
    for row in range(len(indptr) - 1):
        for e in range(indptr[row], indptr[row + 1]):
            out[row % positions, indices[e]] += np.float32(1) if binary else values[e]


@kernel
def total_dense(data: npt.NDArray[np.float32], total: npt.NDArray[np.float32]) -> None:
    """Add every time step of `data` (steps * positions, channels) to `total` (positions, channels), in their order."""
    sums, values = total.reshape(-1), data.reshape(-1)
    for step in range(len(values) // max(len(sums), 1)):
        for index in range(len(sums)):
            sums[index] += values[step * len(sums) + index]


@kernel
def add_rows(
    rows: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]],
    factors: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
) -> None:
    """Add rows, each value times the factor of its channel, to `out` (rows, channels)."""
    indptr, indices, values = rows
    binary = len(values) == 0
    for row in range(len(indptr) - 1):
        for e in range(indptr[row], indptr[row + 1]):
            value = np.float32(1) if binary else values[e]
            out[row, indices[e]] += value * factors[indices[e]]


@kernel
def add_dense(data: npt.NDArray[np.float32], factors: npt.NDArray[np.float32], out: npt.NDArray[np.float32]) -> None:
    """Add dense rows, each value times the factor of its channel, to `out` (rows, channels)."""
    for row in range(len(data)):
        for channel in range(len(factors)):
            out[row, channel] += data[row, channel] * factors[channel]


@kernel
def add_some(
    data: npt.NDArray[np.float32],
    factors: npt.NDArray[np.float32],
    channels: npt.NDArray[np.int64],
    out: npt.NDArray[np.float32],
) -> None:
    """Do what `add_dense` does for some channels of `out`, one for each factor; `data` has only these, or all."""
    every = data.shape[1] == out.shape[1]
    for row in range(len(data)):
        for number in range(len(channels)):
            channel = channels[number]
            out[row, channel] += data[row, channel if every else number] * factors[number]
