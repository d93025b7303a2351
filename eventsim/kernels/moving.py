"""Kernels that move values to other rows and channels, unchanged.

Rows are triples (indptr, indices, values) as in CSR, values empty where all are 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eventsim.kernels.jit import kernel
from eventsim.kernels.values_of_rows import Triple


@kernel
def concat_rows(a: Triple, b: Triple, channels: int, joined: Triple) -> None:
    """Put rows of `b`, `channels` further up, behind those of `a`; values are written where there is room for any."""
    (a_indptr, a_indices, a_values), (b_indptr, b_indices, b_values) = a, b
    indptr, indices, values = joined
    valued, n = len(values) > 0, np.uint64(0)
    indptr[0] = 0
    for row in range(len(a_indptr) - 1):
        for e in range(np.uint64(a_indptr[row]), np.uint64(a_indptr[row + 1])):
            indices[n] = a_indices[e]
            if valued:
                values[n] = a_values[e] if len(a_values) > 0 else np.float32(1)
            n += np.uint64(1)
        for e in range(np.uint64(b_indptr[row]), np.uint64(b_indptr[row + 1])):
            indices[n] = b_indices[e] + channels
            if valued:
                values[n] = b_values[e] if len(b_values) > 0 else np.float32(1)
            n += np.uint64(1)
        indptr[row + 1] = n


@kernel
def concat_channels(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32], joined: npt.NDArray[np.float32]) -> None:
    """Put dense rows of `b` behind those of `a`."""
    first = a.shape[1]
    for row in range(len(joined)):
        for c in range(first):
            joined[row, c] = a[row, c]
        for c in range(b.shape[1]):
            joined[row, first + c] = b[row, c]


@kernel
def take_values(data: npt.NDArray[np.float32], taken: npt.NDArray[np.int64], out: npt.NDArray[np.float32]) -> None:
    """Write to each place of a row of `out` what lies at the place `taken` of the row of `data`; 0 where that is -1."""
    for row in range(len(out)):
        for index in range(len(taken)):
            place = taken[index]
            out[row, index] = data[row, place] if place >= 0 else np.float32(0)


@kernel
def move_rows(
    rows: Triple,
    grid: tuple[int, int],
    out_grid: tuple[int, int],
    lists: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    moved: Triple,
) -> None:
    """Move the values of some rows to all their places in some other rows, again and again.

    Parameters
    ----------
    rows : tuple
    grid, out_grid : tuples of int
        How many rows are taken together, of a time step, say, and their channels; and what they become.
    lists : tuple (begins, places)
        By place in the rows, where the list of its places in the others begins; the lists one behind the other.
    moved : tuple
        Written: sorted rows; indices and values have room for as many as there are places, and one more.
    """
    indptr, indices, values = rows
    out_indptr, out_indices, out_values = moved
    begins, places = lists
    binary, n = len(values) == 0, np.uint64(0)
    room = np.zeros(out_grid[0] * out_grid[1], np.float32)
    out_indptr[0] = 0
    for block in range((len(indptr) - 1) // grid[0]):
        for position in range(grid[0]):
            row = block * grid[0] + position
            for e in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
                place = position * grid[1] + indices[e]
                for index in range(begins[place], begins[place + 1]):
                    room[places[index]] = np.float32(1) if binary else values[e]
        for position in range(out_grid[0]):
            for c in range(out_grid[1]):
                value = room[position * out_grid[1] + c]
                out_indices[n] = c
                out_values[n] = value
                n += np.uint64(value != 0)
            out_indptr[block * out_grid[0] + position + 1] = n
        room[:] = 0


@kernel
def flatten_tokens(
    rows: Triple, positions: int, channels: int, indptr: npt.NDArray[np.int64], flat: npt.NDArray[np.int32]
) -> None:
    """Turn the rows of each time step into one row: index = position * channels + channel. Values stay as they are."""
    ends, indices, _ = rows
    indptr[0] = ends[0]
    for step in range(len(indptr) - 1):
        for position in range(positions):
            row = step * positions + position
            for e in range(np.uint64(ends[row]), np.uint64(ends[row + 1])):
                flat[e] = position * channels + indices[e]
        indptr[step + 1] = ends[(step + 1) * positions]
