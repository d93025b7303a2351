"""What is known of the values that reached a layer, for counting rules that look at them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from eventsim.kernels.values import GIVEN_UP, TOLD
from eventsim.signals import CountArray, FloatArray, SignalType

MOST_LEVELS = 31
"""The longest list of distinct values that a published rule asks about: 0 to 30 spikes."""
NOTHING: frozenset[float] = frozenset()


@dataclass
class Values:
    """The values of one input of a layer, over the time steps in which the layer was executed.

    Attributes
    ----------
    elements : int
        Values, zero or not.
    nonzero : int
        Those that are not zero.
    others : int
        Those that are neither 0 nor 1.
    rest : float
        The sum of these others.
    least, largest : float
        The smallest and the largest of these others; infinite, in this order, where there is none.
    distinct : frozenset of float, or None
        What these others are, where there are at most 31 and all lie in 0 to 30.
    """

    elements: int = 0
    nonzero: int = 0
    others: int = 0
    rest: float = 0.0
    least: float = np.inf
    largest: float = -np.inf
    distinct: frozenset[float] | None = NOTHING

    def take_spikes(self, kind: SignalType, steps: int, nonzero: int) -> None:
        """Add the values of some time steps of a binary signal."""
        self.elements += steps * kind.size
        self.nonzero += nonzero

    def take(self, kind: SignalType, steps: int, found: Look) -> None:
        """Add what a look at a signal that is not binary found."""
        self.elements += steps * kind.size
        self.nonzero += found.ones + found.others
        self.others += found.others
        for rest in found.rest:  # step by step, so that the sum does not depend on the chunk
            self.rest += rest
        self.least, self.largest = min(self.least, found.low), max(self.largest, found.high)
        if found.levels is None:
            self.distinct = None
        elif self.distinct is not None and not self.distinct.issuperset(found.levels):
            distinct = self.distinct.union(found.levels)
            self.distinct = distinct if len(distinct) <= MOST_LEVELS else None

    def copy(self) -> Values:
        """Return what is known now."""
        return Values(self.elements, self.nonzero, self.others, self.rest, self.least, self.largest, self.distinct)

    @property
    def levels(self) -> frozenset[float] | None:
        """The distinct values, where there are at most 31 and all lie in 0 to 30."""
        if self.distinct is None:
            return None
        levels = self.distinct.union(self._plain)
        return levels if len(levels) <= MOST_LEVELS else None

    @property
    def low(self) -> float:
        """The smallest value."""
        return min(self.least, *self._plain, np.inf)

    @property
    def high(self) -> float:
        """The largest value."""
        return max(self.largest, *self._plain, -np.inf)

    @property
    def _plain(self) -> frozenset[float]:
        """Which of 0 and 1 there are."""
        there = {0.0: self.elements > self.nonzero, 1.0: self.nonzero > self.others}
        return frozenset(value for value, is_there in there.items() if is_there)

    @property
    def total(self) -> float:
        """Sum of all values."""
        return self.nonzero - self.others + self.rest

    @property
    def spikes(self) -> bool:
        """Whether every value is 0 or 1."""
        return not self.others

    @property
    def density(self) -> float:
        """Values that are not zero per value."""
        return self.nonzero / self.elements if self.elements else 0.0


class Look(NamedTuple):
    """What one look at a signal with values finds.

    Attributes
    ----------
    ones, others : int
        Values that are 1, and that are neither 0 nor 1.
    rest : list of float
        The sum of these others in each time step.
    low, high : float
        The smallest and the largest of them; infinite, in this order, where there is none.
    levels : list of float, or None
        Those that are distinct; None where they are more than 31, or not all in 0 to 30.
    """

    ones: int
    others: int
    rest: list[float]
    low: float
    high: float
    levels: list[float] | None


class Looked(NamedTuple):
    """The same as the kernel writes it.

    Attributes
    ----------
    levels : float32 array (31,)
    sums : float64 array (2 + steps,)
    counted : int64 array (3 + 2 * steps,)
        See `eventsim.kernels.values.look`.
    """

    levels: FloatArray
    sums: npt.NDArray[np.float64]
    counted: CountArray

    def valued(self, steps: int) -> CountArray:
        """Return how many values of each time step are neither 0 nor of magnitude 1."""
        return self.counted[TOLD : TOLD + steps]

    def read(self) -> Look:
        """Return what was found."""
        ones, others, listed = self.counted[:TOLD].tolist()
        low, high, *rest = self.sums.tolist()
        return Look(ones, others, rest, low, high, None if listed == GIVEN_UP else self.levels[:listed].tolist())
