"""Kernels that change the values of rows one by one, and drop what became 0, or add them up.

Rows are triples (indptr, indices, values) as in CSR, values empty where all are 1; there may be room for more. What is
written has room for as many as there are, and one more.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from eventsim.kernels.jit import kernel

Triple: TypeAlias = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]


@kernel
def drop_zeros(indptr: npt.NDArray[np.int64], indices: npt.NDArray[np.int32], values: npt.NDArray[np.float32]) -> None:
    """Move up, in place, what is not 0."""
    begin = kept = np.uint64(indptr[0])
    for row in range(len(indptr) - 1):
        stop = np.uint64(indptr[row + 1])
        for e in range(begin, stop):
            indices[kept] = indices[e]
            values[kept] = values[e]
            kept += np.uint64(values[e] != 0)
        begin = stop
        indptr[row + 1] = kept


@kernel
def divide_rows(
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
    divisors: npt.NDArray[np.float32],
) -> None:
    """Divide values in place, and drop those that became 0.

    Parameters
    ----------
    indptr, indices, values : arrays
        CSR rows; there may be room for more.
    divisors : float32 array (positions,) or (1,)
        Of each row of a time step, or one for all.
    """
    rows, lost = len(indptr) - 1, 0
    together = max(rows, 1) if len(divisors) == 1 else 1
    for row in range(0, rows, together):
        divisor = divisors[row // together % len(divisors)]
        for e in range(np.uint64(indptr[row]), np.uint64(indptr[row + together])):
            values[e] /= divisor
            lost += values[e] == 0
    if lost > 0:
        drop_zeros(indptr, indices, values)


@kernel
def scale_rows(rows: Triple, scale: npt.NDArray[np.float32], scaled: Triple) -> None:
    """Multiply every value by that of its channel in `scale` (positions or 1, channels)."""
    (indptr, indices, values), (ends, channels, products) = rows, scaled
    binary, n = len(values) == 0, np.uint64(0)
    ends[0] = 0
    for row in range(len(indptr) - 1):
        factors = scale[row % len(scale)]
        for e in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
            channel = np.uint64(indices[e])
            channels[n] = indices[e]
            products[n] = factors[channel] if binary else values[e] * factors[channel]
            n += np.uint64(products[n] != 0)  # a scale of 0 silences a channel
        ends[row + 1] = n


@kernel
def limit_rows(rows: Triple, least: np.float32, most: np.float32, limited: Triple) -> None:
    """Bring every value within limits that include 0."""
    (indptr, indices, values), (ends, channels, kept) = rows, limited
    binary, n = len(values) == 0, np.uint64(0)
    ends[0] = 0
    for row in range(len(indptr) - 1):
        for e in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
            value = np.float32(1) if binary else values[e]
            value = least if value < least else value
            value = most if value > most else value
            channels[n] = indices[e]
            kept[n] = value
            n += np.uint64(value != 0)
        ends[row + 1] = n


@kernel
def gate_by_values(gate: npt.NDArray[np.float32], rows: Triple, shared: int, size: int, gated: Triple) -> None:
    """Multiply channel c of row r by channel ``c // size`` of row ``r // shared`` of dense gates."""
    (indptr, indices, values), (ends, channels, products) = rows, gated
    binary, n = len(values) == 0, np.uint64(0)
    ends[0] = 0
    for row in range(len(indptr) - 1):
        factors = gate[row // shared]
        for e in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
            factor = factors[indices[e] // size]
            channels[n] = indices[e]
            products[n] = factor if binary else values[e] * factor
            n += np.uint64(products[n] != 0)
        ends[row + 1] = n


@kernel
def add_up_steps(
    indptr: npt.NDArray[np.int64], values: npt.NDArray[np.float32], positions: int, sums: npt.NDArray[np.int64]
) -> None:
    """Write the sum of the values, which are integers, of each time step of so many `positions`."""
    for step in range(len(sums)):
        total = np.int64(0)
        for e in range(np.uint64(indptr[step * positions]), np.uint64(indptr[(step + 1) * positions])):
            total += np.int64(values[e])
        sums[step] = total
