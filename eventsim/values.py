"""What is known of the values that reached a layer, for counting rules that look at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import add
from typing import NamedTuple

import numpy as np

from eventsim.kernels.values import GIVEN_UP, TOLD, look
from eventsim.ledger import LedgerRows
from eventsim.signals import CountArray, Dense, Rows

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

    def take(self, signal: Rows | Dense) -> CountArray | None:
        """Add the values of a chunk.

        Returns
        -------
        int64 array (steps,), or None
            How many values of each time step are neither 0 nor of magnitude 1; None where there is none.
        """
        kind = signal.type
        self.elements += signal.steps * kind.size
        if kind.kind == "binary":
            self.nonzero += signal.nonzeros
            return None
        found = look_at(signal)
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
        return found.valued

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
    valued : int64 array (steps,), or None
        How many values of each time step are neither 0 nor of magnitude 1; None where there is none.
    sums : list of float
        The sum of all values of each time step.
    """

    ones: int
    others: int
    rest: list[float]
    low: float
    high: float
    levels: list[float] | None
    valued: CountArray | None
    sums: list[float]


def look_at(signal: Rows | Dense) -> Look:
    """Look at the values of a signal that is not binary, once for all the layers that hear it."""
    kept: Look | None = signal.__dict__.get("_look")
    if kept is not None:
        return kept
    if isinstance(signal, Dense):
        values, ends = signal.data.reshape(-1), np.arange(signal.steps + 1) * signal.type.size
    else:
        assert signal.values is not None  # of rows that are not binary
        values = signal.values
        ends = np.ascontiguousarray(signal.indptr[:: signal.type.positions])  # as of dense ones: compiled once
    levels, sums = np.empty(MOST_LEVELS, np.float32), np.empty(2 + signal.steps)
    counted = np.empty(TOLD + 3 * signal.steps, np.int64)
    look(values, ends, levels, sums, counted)
    ones, others, listed, *by_step = counted.tolist()
    low, high, *rest = sums.tolist()
    distinct = None if listed == GIVEN_UP else levels[:listed].tolist()
    valued = counted[TOLD : TOLD + signal.steps] if any(by_step[: signal.steps]) else None
    totals = list(map(add, rest, by_step[signal.steps : 2 * signal.steps]))
    if isinstance(signal, Dense):
        signal.nonzeros_by_step = signal.type.size - counted[TOLD + 2 * signal.steps :]  # is asked for next
    found = Look(ones, others, rest, low, high, distinct, valued, totals)
    signal.__dict__["_look"] = found
    return found


def watch(seen: Sequence[Values], given: Sequence[Rows | Dense], rows: LedgerRows | None) -> None:
    """Look at what a layer was given in a chunk.

    Parameters
    ----------
    seen : sequence of Values
        One for each input; added to.
    given : sequence of Rows or Dense
    rows : LedgerRows, optional
        Where to report ``valued_inputs``, of a layer that multiplies.
    """
    for values, signal in zip(seen, given, strict=True):
        valued = values.take(signal)
        if rows is not None and valued is not None:
            rows.add("valued_inputs", valued)
