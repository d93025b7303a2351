"""Looking at the values of a signal once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eventsim.kernels.jit import kernel

GIVEN_UP = -1
BLOCK = 1024
"""Values that are looked at together, in the hope that all are small integers."""
LANES = 16
"""Sums that grow side by side, so that no addition waits for the one before."""
TOLD = 3
"""Numbers that `look` tells of all time steps together."""


@kernel
def _look_at_integers(values: npt.NDArray[np.float32], largest: np.float32) -> tuple[bool, int, int, int, np.uint64]:
    """Look at values without a branch, if all are integers from 0 to `largest`.

    Returned: whether they are, how many are 0 and 1, their sum, and which are there, integer n as bit n.
    """
    nothing = np.float32(0)
    among = np.uint64(0)
    strange = zero = one = total = np.int64(0)
    for i in range(len(values)):
        value = values[i]
        number = np.int64(value if (value >= 0) & (value <= largest) else nothing)
        strange |= np.int64(np.float32(number) != value)
        among |= np.uint64(1) << np.uint64(number)
        zero += number == 0
        one += number == 1
        total += number
    return bool(strange == 0), int(zero), int(one), int(total), among


@kernel
def _look_at_any(
    values: npt.NDArray[np.float32],
    total: npt.NDArray[np.float64],
    low: npt.NDArray[np.float32],
    high: npt.NDArray[np.float32],
) -> tuple[int, int, int]:
    """Look at values of any kind, as many side by side as there are lanes; return how many are 0, 1 and -1.

    Added to, lane by lane: of the values that are neither 0 nor 1, the sum, the least and the largest.
    """
    whole = len(values) // LANES * LANES
    for i in range(0, whole, LANES):
        block = values[i : i + LANES]
        for j in range(LANES):
            value = block[j]
            other = (value != 1) & (value != 0)
            total[j] += value if other else np.float32(0)
            low[j] = value if other & (value < low[j]) else low[j]
            high[j] = value if other & (value > high[j]) else high[j]
    for i in range(whole, len(values)):
        value = values[i]
        if (value != 1) & (value != 0):
            total[0] += value
            low[0] = min(low[0], value)
            high[0] = max(high[0], value)
    zero = one = minus = 0
    for i in range(len(values)):
        value = values[i]
        zero += value == 0
        one += value == 1
        minus += value == -1
    return zero, one, minus


@kernel
def _list_level(level: np.float32, levels: npt.NDArray[np.float32], listed: int) -> int:
    """Add a value to the first `listed` of the levels, if it is not there; return how many there are now."""
    for known in range(listed):
        if levels[known] == level:
            return listed
    if listed == GIVEN_UP or listed == len(levels):
        return GIVEN_UP
    levels[listed] = level
    return listed + 1


@kernel
def look(
    values: npt.NDArray[np.float32],
    ends: npt.NDArray[np.int64],
    levels: npt.NDArray[np.float32],
    sums: npt.NDArray[np.float64],
    counted: npt.NDArray[np.int64],
) -> None:
    """Sum up values, and list the distinct ones while there are few.

    Parameters
    ----------
    values : float32 array
    ends : int64 array (steps + 1,)
        Where the values of each time step begin, and where the last ones end.
    levels : float32 array (most,)
        Written: distinct values that are neither 0 nor 1. Only those in 0 to ``most - 1`` are few; at most 63.
    sums : float64 array (2 + steps,)
        Written: of the values that are neither 0 nor 1, the least and the largest, infinite where there is none, and
        their sum in each time step, whose order of additions does not depend on the other steps.
    counted : int64 array (3 + 2 * steps,)
        Written: ones; values that are neither 0 nor 1; how many levels are listed, `GIVEN_UP` where there are too
        many; the values of each time step that are neither 0 nor of magnitude 1; and its ones.
    """
    most = len(levels)
    largest = np.float32(most - 1)
    low, high = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    low[:] = np.inf
    high[:] = -np.inf
    totals = np.empty(LANES, np.float64)
    integers = np.uint64(0)
    small = True
    ones = others = listed = 0
    for step in range(len(ends) - 1):
        begin = start = ends[step]
        stop = ends[step + 1]
        one = zero = minus = 0
        total = 0.0
        while small and start < stop:
            block = values[start : min(start + BLOCK, stop)]
            small, no, yes, sum_, among = _look_at_integers(block, largest)
            if small:
                integers |= among
                zero += no
                one += yes
                total += sum_ - yes
                start += len(block)
        while listed != GIVEN_UP and start < stop:
            value = values[start]
            start += 1
            zero += value == 0
            one += value == 1
            minus += value == -1
            if (value != 0) & (value != 1):
                total += value
                low[0] = min(low[0], value)
                high[0] = max(high[0], value)
                few = (value >= 0) & (value <= largest)
                listed = _list_level(value, levels, listed) if few else GIVEN_UP
        if start < stop:
            totals[:] = 0
            no, yes, less = _look_at_any(values[start:stop], totals, low, high)
            zero += no
            one += yes
            minus += less
            for lane in range(LANES):
                total += totals[lane]
        ones += one
        others += stop - begin - zero - one
        sums[2 + step] = total
        counted[TOLD + step] = stop - begin - zero - one - minus
        counted[TOLD + len(ends) - 1 + step] = one
    for number in range(2, most):
        if integers >> np.uint64(number) & np.uint64(1):
            level = np.float32(number)
            low[0] = min(low[0], level)
            high[0] = max(high[0], level)
            listed = _list_level(level, levels, listed)
    for lane in range(1, LANES):  # plain loops, which compile in half the time of NumPy's functions
        low[0] = min(low[0], low[lane])
        high[0] = max(high[0], high[lane])
    sums[0] = low[0]
    sums[1] = high[0]
    counted[0] = ones
    counted[1] = others
    counted[2] = listed
