"""Kernels that change dense rows of real values one by one, or list what they say of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eventsim.kernels.jit import kernel


@kernel
def scale_and_shift(
    data: npt.NDArray[np.float32],
    scale: npt.NDArray[np.float32],
    shift: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
) -> None:
    """Multiply every row by a row of `scale` (positions or 1, channels), and add one of `shift`, if it has any."""
    shifted = len(shift) > 0
    for row in range(len(data)):
        given, made, factors = data[row], out[row], scale[row % len(scale)]
        if shifted:
            terms = shift[row % len(shift)]
            for c in range(len(made)):
                made[c] = given[c] * factors[c] + terms[c]
        else:
            for c in range(len(made)):
                made[c] = given[c] * factors[c]


@kernel
def limit(data: npt.NDArray[np.float32], least: np.float32, most: np.float32, out: npt.NDArray[np.float32]) -> None:
    """Bring every value of a contiguous array within limits."""
    given, made = data.reshape(-1), out.reshape(-1)
    for index in range(len(made)):
        value = given[index]
        value = least if value < least else value
        made[index] = most if value > most else value


@kernel
def list_above(
    data: npt.NDArray[np.float32],
    threshold: npt.NDArray[np.float32],
    strict: bool,
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int32],
) -> None:
    """List the channels of each row that are at a threshold (positions or 1, channels) or above, if `strict` above it.

    `indices` has room for all and one more.
    """
    n = np.uint64(0)
    indptr[0] = 0
    for row in range(len(data)):
        values, least = data[row], threshold[row % len(threshold)]
        for c in range(len(values)):
            indices[n] = c
            n += np.uint64(values[c] > least[c] if strict else values[c] >= least[c])
        indptr[row + 1] = n


@kernel
def add_neighbours(data: npt.NDArray[np.float32], size: int, sums: npt.NDArray[np.float32]) -> None:
    """Add up every `size` neighbouring channels of each row into `sums` (rows, groups), in their order."""
    for row in range(len(sums)):
        for group in range(sums.shape[1]):
            total = np.float32(0)
            for place in range(size):
                total += data[row, group * size + place]
            sums[row, group] = total


@kernel
def gate_channels(
    gate: npt.NDArray[np.float32],
    data: npt.NDArray[np.float32],
    shared: int,
    size: int,
    gated: npt.NDArray[np.float32],
) -> None:
    """Multiply channel c of row r by channel ``c // size`` of row ``r // shared`` of the gates."""
    for row in range(len(data)):
        factors, given, made = gate[row // shared], data[row], gated[row]
        for group in range(len(factors)):
            factor = factors[group]
            for c in range(group * size, (group + 1) * size):
                made[c] = given[c] * factor


@kernel
def add_up_rows(data: npt.NDArray[np.float32], total: npt.NDArray[np.float32], so_far: npt.NDArray[np.float32]) -> None:
    """Add one row after the other to `total` (channels,), which is what each row of `so_far` then holds."""
    for row in range(len(data)):
        for c in range(len(total)):
            total[c] += data[row, c]
            so_far[row, c] = total[c]
