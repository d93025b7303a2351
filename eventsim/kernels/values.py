"""Looking at the values of a signal once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eventsim.kernels.jit import kernel

GIVEN_UP = -1


@kernel
def look(
    values: npt.NDArray[np.float32],
    ends: npt.NDArray[np.int64],
    levels: npt.NDArray[np.float32],
    listed: int,
    summary: npt.NDArray[np.float64],
    counted: npt.NDArray[np.int64],
    valued: npt.NDArray[np.int64],
) -> int:
    """Sum up values, and list the distinct ones while there are few.

    Parameters
    ----------
    values : float32 array
    ends : int64 array (steps + 1,)
        Where the values of each time step begin, and where the last ones end.
    levels : float32 array (most,)
        Added to: distinct values that are neither 0 nor 1. Only those in 0 to ``most - 1`` are few.
    listed : int
        How many of these there are; `GIVEN_UP` where there were too many.
    summary : float64 array (3,)
        Updated: of the values that are neither 0 nor 1, the sum, the least and the largest.
    counted : int64 array (2,)
        Added to: ones, and values that are neither 0 nor 1.
    valued : int64 array (steps,)
        Written: values of each time step that are neither 0 nor of magnitude 1.

    Returns
    -------
    int
        `listed` as it is now.
    """
    most = len(levels)
    total, low, high = summary[0], summary[1], summary[2]
    ones = others = 0
    for step in range(len(valued)):
        of_step = 0
        for value in values[ends[step] : ends[step + 1]]:
            if value == 1:
                ones += 1
                continue
            if value == 0:
                continue
            others += 1
            of_step += value != -1
            total += value
            low = min(low, value)
            high = max(high, value)
            if listed == GIVEN_UP:
                continue
            if value < 0 or value > most - 1:
                listed = GIVEN_UP
                continue
            known = 0
            while known < listed and levels[known] != value:
                known += 1
            if known == listed:
                if listed == most:
                    listed = GIVEN_UP
                else:
                    levels[listed] = value
                    listed += 1
        valued[step] = of_step
    summary[0], summary[1], summary[2] = total, low, high
    counted[0] += ones
    counted[1] += others
    return listed
