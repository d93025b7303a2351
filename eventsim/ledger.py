"""The ledger: what was executed, as 64-bit integers by layer, time step and operation.

Ops report to `LedgerRows`, their layer's rows of the chunk at hand. A sample of known length keeps every time step; a
stream, which may never end, keeps sums. Whoever reads gets `Counts`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from eventsim.errors import LayerError
from eventsim.operations import OPERATIONS
from eventsim.signals import CountArray

Executed: TypeAlias = npt.NDArray[np.integer[Any]] | np.integer[Any] | int
_SETTLING = threading.Lock()
"""Held by whoever adds up, as several may look at one result."""


class Counts(Mapping[str, int]):
    """Exact numbers of operations by name, also as attributes; what was not executed counts 0.

    Python integers, so that sums never overflow. The names are those of `eventsim.operations.OPERATIONS`.

    Examples
    --------
    >>> counts = Counts(acs=3) + Counts(acs=4, spikes=1)
    >>> counts.acs, counts["spikes"], counts.macs
    (7, 1, 0)
    """

    __slots__ = ("_executed",)

    def __init__(self, executed: Mapping[str, int] | None = None, **more: int) -> None:
        merged = {**(executed or {}), **more}
        if unknown := sorted(merged.keys() - OPERATIONS.keys()):
            raise LayerError(f"operation {unknown[0]!r} found; expected one registered in eventsim.operations")
        self._executed = {name: int(value) for name, value in merged.items() if value}

    @classmethod
    def total(cls, counts: Iterable[Counts]) -> Counts:
        """Return the sum of several."""
        sums: dict[str, int] = {}
        for some in counts:
            for name, value in some._executed.items():
                sums[name] = sums.get(name, 0) + value
        return cls(sums)

    def __getitem__(self, name: str) -> int:
        if name not in OPERATIONS:
            raise KeyError(name)
        return self._executed.get(name, 0)

    def __getattr__(self, name: str) -> int:
        if name.startswith("_") or name not in OPERATIONS:
            raise AttributeError(f"{type(self).__name__!r} has no operation {name!r}", name=name, obj=self)
        return self._executed.get(name, 0)

    def __iter__(self) -> Iterator[str]:
        return iter(OPERATIONS)

    def __len__(self) -> int:
        return len(OPERATIONS)

    def __add__(self, other: Counts) -> Counts:
        return Counts.total((self, other))

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *OPERATIONS]

    def __repr__(self) -> str:
        return f"Counts({', '.join(f'{name}={self[name]}' for name in OPERATIONS if self[name])})"

    def __getstate__(self) -> dict[str, int]:
        return self._executed

    def __setstate__(self, state: dict[str, int]) -> None:
        self._executed = state

    __hash__ = None  # type: ignore[assignment]


class Columns(Mapping[str, CountArray]):
    """A layer's columns of the ledger: what it executed, by operation, int64 ``(length,)``.

    What is reported is noted down, and added up when somebody looks: a small layer runs no longer than the additions
    would take. Whoever lets notes pile up calls `settle`.

    Parameters
    ----------
    length : int
        Of a column; 1 for the sum over all steps.
    """

    __slots__ = ("_notes", "_sums", "length")

    def __init__(self, length: int) -> None:
        self.length = length
        self._sums: dict[str, CountArray] = {}
        self._notes: list[tuple[str, int, int, Executed, int]] = []

    def note(self, operation: str, start: int, steps: int, executed: Executed, times: int) -> None:
        """Note down what was executed in some time steps, in each of them or, a number, alike in all; and how often."""
        if isinstance(executed, np.ndarray):
            executed = executed.copy()  # the op may use its array again before anybody looks
        self._notes.append((operation, start, steps, executed, times))

    def settle(self) -> dict[str, CountArray]:
        """Add up what was noted down, and return the columns."""
        with _SETTLING:
            for operation, start, steps, each, times in self._notes:
                executed = each if times == 1 else each * times
                column = self._sums.get(operation)
                if column is None:
                    column = self._sums[operation] = np.zeros(self.length, np.int64)
                if self.length == 1:
                    column[0] += executed.sum() if isinstance(executed, np.ndarray) else executed * steps
                else:
                    column[start : start + steps] += executed
            self._notes.clear()
        return self._sums

    def copy(self) -> dict[str, CountArray]:
        """Return the columns as they are now."""
        return {operation: column.copy() for operation, column in self.settle().items()}

    def __getitem__(self, operation: str) -> CountArray:
        return self.settle()[operation]

    def __iter__(self) -> Iterator[str]:
        return iter(self.settle())

    def __len__(self) -> int:
        return len(self.settle())

    def __getstate__(self) -> tuple[int, dict[str, CountArray]]:
        return self.length, self.settle()

    def __setstate__(self, state: tuple[int, dict[str, CountArray]]) -> None:
        self.length, self._sums = state
        self._notes = []


class LedgerRows:
    """One layer's rows for the time steps of one chunk.

    Parameters
    ----------
    columns : Columns
        The layer's.
    start, steps : int
        The chunk's first time step and its number of steps.
    """

    __slots__ = ("columns", "start", "steps")

    def __init__(self, columns: Columns, start: int, steps: int) -> None:
        self.columns = columns
        self.start = start
        self.steps = steps

    def add(self, operation: str, executed: Executed, times: int = 1) -> None:
        """Report what was executed.

        Parameters
        ----------
        operation : str
            Its name in `eventsim.operations.OPERATIONS`.
        executed : integer array (steps,), or int
            Per time step; a number is the same in each of them.
        times : int
            How often each was.

        Raises
        ------
        LayerError
            If the operation is not registered, or `executed` is not of whole numbers, one for each step.
        """
        if operation not in OPERATIONS:
            raise LayerError(
                f"operation {operation!r} reported; expected one registered in eventsim.operations: add it to "
                "the table there, or call eventsim.operations.register where the layer is defined"
            )
        if isinstance(executed, np.ndarray):
            if executed.dtype.kind not in "iu" or executed.shape != (self.steps,):
                raise self._refused(operation, f"{executed.dtype} {executed.shape}")
        elif not isinstance(executed, (int, np.integer)):
            raise self._refused(operation, repr(executed)[:60])
        self.columns.note(operation, self.start, self.steps, executed, times)

    def part(self, start: int, stop: int) -> LedgerRows:
        """Return the rows of the steps ``start <= t < stop`` of this chunk."""
        return LedgerRows(self.columns, self.start + start, stop - start)

    def _refused(self, operation: str, found: str) -> LayerError:
        return LayerError(
            f"{operation} reported as {found}; expected a whole number, or whole numbers ({self.steps},), one "
            "for each time step"
        )


class Ledger:
    """What every layer executed.

    Parameters
    ----------
    layers : iterable of str
    time_steps : int or None
        Steps of the sample; None keeps sums over the steps of a stream.
    """

    def __init__(self, layers: Iterable[str], time_steps: int | None) -> None:
        self.time_steps = time_steps
        length = 1 if time_steps is None else time_steps
        self._columns = {name: Columns(length) for name in layers}

    def rows(self, layer: str, start: int, steps: int) -> LedgerRows:
        """Return a layer's rows for the time steps from `start` on, for its op to write into."""
        return LedgerRows(self._columns[layer], start, steps)

    def columns(self, layer: str) -> Columns:
        """Return a layer's columns by operation, ``(T,)``, or ``(1,)`` where sums are kept."""
        return self._columns[layer]

    def settle(self) -> None:
        """Add up what has been reported so far, so that what is held does not grow with the chunks."""
        for columns in self._columns.values():
            columns.settle()

    def state(self) -> dict[str, dict[str, CountArray]]:
        """Return everything as plain data."""
        return {layer: columns.copy() for layer, columns in self._columns.items()}

    def restore(self, state: Mapping[str, Mapping[str, CountArray]]) -> None:
        """Take back what `state` returned: sums, to which the steps that follow are added."""
        for layer, sums in state.items():
            for operation, column in sums.items():
                self.rows(layer, 0, 1).add(operation, column)
