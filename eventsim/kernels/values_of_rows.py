"""Kernels that change the values of rows one by one, and drop what became 0."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eventsim.kernels.jit import kernel


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
