"""What is known of the values that reached a layer, for counting rules that look at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from eventsim.kernels.values import GIVEN_UP, look
from eventsim.ledger import LedgerRows
from eventsim.signals import CountArray, Dense, Rows

MOST_LEVELS = 31
"""The longest list of distinct values that a published rule asks about: 0 to 30 spikes."""


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
    low, high : float
        The smallest and the largest.
    levels : frozenset of float, or None
        The distinct values, where there are at most 31 and all lie in 0 to 30.
    """

    elements: int = 0
    nonzero: int = 0
    others: int = 0
    rest: float = 0.0
    low: float = np.inf
    high: float = -np.inf
    levels: frozenset[float] | None = field(default_factory=frozenset)

    def take(self, signal: Rows | Dense) -> CountArray | None:
        """Add the values of a chunk.

        Returns
        -------
        int64 array (steps,), or None
            How many values of each time step are neither 0 nor of magnitude 1; None for spikes.
        """
        size, before = signal.steps * signal.type.size, self.nonzero
        self.elements += size
        if signal.type.kind == "binary":
            valued, ones = None, signal.nonzeros
        else:
            valued, ones = self._look(signal)
        self.nonzero += ones
        self._meet(1.0, ones)
        self._meet(0.0, size - (self.nonzero - before))
        return valued

    def _look(self, signal: Rows | Dense) -> tuple[CountArray, int]:
        """Add the values that are neither 0 nor 1; return how many have another magnitude, by step, and the ones."""
        if isinstance(signal, Dense):
            values, ends = signal.data.ravel(), np.arange(signal.steps + 1) * signal.type.size
        else:
            assert signal.values is not None  # of rows that are not binary
            values, ends = signal.values, signal.indptr[:: signal.type.positions]
        levels, listed = np.empty(MOST_LEVELS, np.float32), GIVEN_UP
        if self.levels is not None:
            known = [level for level in self.levels if level not in (0, 1)]
            listed = len(known)
            levels[:listed] = known
        summary = np.array([self.rest, self.low, self.high])
        counted, valued = np.zeros(2, np.int64), np.empty(signal.steps, np.int64)
        listed = look(values, ends, levels, listed, summary, counted, valued)
        self.rest, self.low, self.high = summary.tolist()
        ones, others = counted.tolist()
        self.nonzero += others
        self.others += others
        if listed == GIVEN_UP or self.levels is None:
            self.levels = None
        else:
            self._list(levels[:listed].tolist())
        return valued, ones

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

    def _meet(self, value: float, times: int) -> None:
        """Add a value to the span and the levels, if it was there."""
        if times and (self.levels is None or value not in self.levels):
            self.low, self.high = min(self.low, value), max(self.high, value)
            self._list([value])

    def _list(self, distinct: Sequence[float]) -> None:
        if self.levels is not None:
            together = self.levels.union(distinct)
            self.levels = together if len(together) <= MOST_LEVELS else None


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
        if rows is not None and valued is not None and valued.any():
            rows.add("valued_inputs", valued)
