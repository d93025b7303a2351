"""What is known of the values that reached a layer, for counting rules that look at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from eventsim.ledger import LedgerRows
from eventsim.signals import CountArray, Dense, FloatArray, Rows

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
    total : float
        Their sum.
    low, high : float
        The smallest and the largest.
    levels : frozenset of float, or None
        The distinct values, where there are at most 31 and all lie in 0 to 30.
    """

    elements: int = 0
    nonzero: int = 0
    others: int = 0
    total: float = 0.0
    low: float = np.inf
    high: float = -np.inf
    levels: frozenset[float] | None = field(default_factory=frozenset)

    def take(self, signal: Rows | Dense) -> None:
        """Add the values of a chunk."""
        size = signal.steps * signal.type.size
        if not size:
            return
        self.elements += size
        nonzero = signal.nonzeros
        self.nonzero += nonzero
        if signal.type.kind == "binary":
            self._span(float(nonzero == size), float(nonzero > 0))
            self._list([value for value, there in ((0.0, nonzero < size), (1.0, nonzero > 0)) if there])
            self.total += nonzero
            return
        values = signal.data if isinstance(signal, Dense) else signal.values
        assert values is not None  # of rows that are not binary
        if nonzero < size:
            self._span(0.0, 0.0)
            self._list([0.0])
        if values.size:
            self.total += float(values.sum(dtype=np.float64))
            self.others += nonzero - int(np.count_nonzero(values == 1))
            self._span(float(values.min()), float(values.max()))
            self._list(_distinct(values) if self.levels is not None else None)

    @property
    def spikes(self) -> bool:
        """Whether every value is 0 or 1."""
        return not self.others

    @property
    def density(self) -> float:
        """Values that are not zero per value."""
        return self.nonzero / self.elements if self.elements else 0.0

    @property
    def mean(self) -> float:
        """Sum per value."""
        return self.total / self.elements if self.elements else 0.0

    def _span(self, low: float, high: float) -> None:
        self.low, self.high = min(self.low, low), max(self.high, high)

    def _list(self, distinct: Sequence[float] | None) -> None:
        if self.levels is not None:
            together = None if distinct is None else self.levels.union(distinct)
            self.levels = None if together is None or not _few(together) else together


def _few(levels: frozenset[float]) -> bool:
    return len(levels) <= MOST_LEVELS and all(0 <= level < MOST_LEVELS for level in levels)


def _distinct(values: FloatArray) -> list[float] | None:
    """Return the distinct values, or None where a part of them already shows more than a rule asks about."""
    flat = values.ravel()
    for part in (flat[: 8 * MOST_LEVELS], flat):
        found = np.unique(part)
        if len(found) > MOST_LEVELS or found[0] < 0 or found[-1] >= MOST_LEVELS:
            return None
    return [float(value) for value in found]


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
        values.take(signal)
        if rows is not None and signal.type.kind != "binary" and (by_step := _valued(signal)).any():
            rows.add("valued_inputs", by_step)


def _valued(signal: Rows | Dense) -> CountArray:
    """Return how many values of each time step are neither 0 nor of magnitude 1, int64 ``(steps,)``."""
    if isinstance(signal, Dense):
        ends = np.arange(signal.steps + 1) * signal.type.size
        valued = np.abs(signal.data.ravel()) != 1
        valued &= signal.data.ravel() != 0
    else:
        assert signal.values is not None  # of rows that are not binary
        ends = signal.indptr[:: signal.type.positions]
        valued = np.abs(signal.values) != 1
    before = np.concatenate(([0], np.cumsum(valued, dtype=np.int64)))
    counted: CountArray = before[ends[1:]] - before[ends[:-1]]
    return counted
