"""Times from a counter of a few bits, which is full again and again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class Counter:
    """Goes on behind a full counter; keeps its place between blocks.

    A stamp that is less than the one before it by more than half of the counter's range is one behind a full counter.
    One that is more by all but 1/4096 of the range comes late, from before the counter was full.

    Parameters
    ----------
    bits : int
        Of the counter; it counts microseconds.
    """

    def __init__(self, bits: int) -> None:
        self._range = 1 << bits
        self._base = 0
        self._previous: int | None = None

    def times(self, stamps: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], int]:
        """Return the times of some stamps, and how often the counter was full within them.

        Parameters
        ----------
        stamps : ndarray of int64, shape (n,)
            Behind those of the call before, each in 0 to 2^bits - 1; at least one.

        Returns
        -------
        t : ndarray of int64, shape (n,)
            Microseconds since the counter was 0 for the first time.
        full : int
            How often it was full.
        """
        steps = np.diff(stamps, prepend=stamps[0] if self._previous is None else self._previous)
        self._previous = int(stamps[-1])
        full, late = steps < -(self._range // 2), steps > self._range - self._range // 4096
        rounds = int(full.sum()) - int(late.sum())
        if not (full.any() or late.any()):
            return stamps + self._base, 0
        t = stamps + self._base + self._range * (np.cumsum(full) - np.cumsum(late))
        self._base += self._range * rounds
        return t, max(rounds, 0)
