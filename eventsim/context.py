"""What an op is told beside its inputs, and who may watch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from eventsim.buffers import Buffers
from eventsim.ledger import LedgerRows
from eventsim.workers import ALONE, Workers


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
    """

    final: bool
    rows: LedgerRows
    workers: Workers = ALONE
    observers: Sequence[Observer] = ()
    buffers: Buffers = field(default_factory=Buffers)


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
