"""What an op is told beside its inputs, and who may watch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from eventsim.buffers import Buffers
from eventsim.kernels.values import count_rows, count_values
from eventsim.ledger import LedgerRows
from eventsim.signals import CountArray, Dense, Rows
from eventsim.tape import Tape
from eventsim.workers import ALONE, Workers

AWAKE = 40
"""How much shorter work may be that is shared by threads that are awake."""


@dataclass(slots=True)
class Context:
    """The circumstances of one call of `Op.advance`.

    Attributes
    ----------
    final : bool
        The chunk holds the last time step of the sample (in streaming: every step might be the last).
    rows : LedgerRows
        Where the op reports what it executed, time step by time step.
    workers : Workers
        Threads that the op may share its work with.
    observers : sequence of Observer
        Who is told about the layer once it is done; an op that runs others hands them on.
    buffers : Buffers
        Memory for what the op emits.
    tape : Tape, optional
        Where calls are written down that will be made again for other samples.
    """

    final: bool
    rows: LedgerRows
    workers: Workers = ALONE
    observers: Sequence[Observer] = ()
    buffers: Buffers = field(default_factory=Buffers)
    tape: Tape | None = None

    def call(self, function: Any, *arguments: Any, holds: Callable[[Any], bool] | None = None) -> Any:
        """Call a kernel, or a function of NumPy that writes into an array, and return what it returns.

        Parameters
        ----------
        function : kernel or callable
        *arguments
            Arrays, in memory that stays, and numbers, the same for every sample of the same shape.
        holds : callable, optional
            Of a kernel, whether what it returned is as it has to be. The caller asks that now; of a sample to come, one
            that it does not hold of is run once more, so that the caller can say what is wrong with it.
        """
        returned = function(*arguments)
        if self.tape is not None:
            self.tape.write(function, arguments, holds)
        return returned

    def share(self, function: Callable[..., Any], parts: Sequence[tuple[Any, ...]]) -> None:
        """Call a kernel with the arguments of every part, which write nothing in common, on several threads."""
        if self.tape is None:
            self.workers.share(function, parts)
            return
        for number, part in enumerate(parts):
            began = perf_counter()
            function(*part)
            self.tape.write(function, part, part=number, seconds=perf_counter() - began)

    def worth(self, nanoseconds: float) -> bool:
        """Say whether work of about this length is worth sharing: less is, where others are awake all the time."""
        return self.workers.worth(nanoseconds if self.tape is None else AWAKE * nanoseconds)

    def ranges(self, items: int, nanoseconds: float) -> list[tuple[int, int]]:
        """Divide ``range(items)`` among the workers, where work of about this length in all is worth sharing."""
        return (self.workers.ranges(items) if self.worth(nanoseconds) else []) or [(0, items)]

    def counts(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike = np.int64) -> npt.NDArray[Any]:
        """Return memory for a call to count in, not initialised; what is reported lies there."""
        return np.empty(shape, dtype) if self.tape is None else self.tape.tally.take(shape, dtype)

    def by_step(self, signal: Rows | Dense) -> CountArray:
        """Return the non-zero values of each time step of a signal, int64 ``(steps,)``, to be reported."""
        if self.tape is None:
            return signal.nonzeros_by_step
        kept: CountArray | None = signal.__dict__.get("_by_step")
        if kept is None or self.tape.tally.place(kept) is None:
            kept = self.counts(signal.steps)
            if isinstance(signal, Rows):
                self.call(count_rows, signal.indptr, signal.type.positions, kept)
            else:
                self.call(count_values, signal.data, signal.type.positions, kept)
            signal.__dict__["_by_step"] = kept
        return kept


class Observed(Protocol):
    """What an observer learns of a layer beside its signals: its name and its op."""

    @property
    def name(self) -> str:
        """The layer's name."""

    @property
    def op(self) -> Any:
        """Its op; not to be changed."""


class Observer(Protocol):
    """Sees every layer right after it has run.

    Several samples on several threads tell one observer at the same time.
    """

    def on_layer(self, node: Observed, inputs: Sequence[Any], output: Any, rows: LedgerRows) -> None:
        """Look at one layer.

        Parameters
        ----------
        node : Observed
        inputs : sequence of Rows or Dense
            What it was given; of the input layer, the frames. Valid during the call: what is kept must be copied.
        output : Rows or Dense
            What it emitted, likewise. A static signal holds one step that stands for all of `rows`.
        rows : LedgerRows
            The layer's rows of the time steps at hand.
        """
