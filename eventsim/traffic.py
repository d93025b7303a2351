"""Data that reaches a layer and leaves it: messages, addresses and values."""

from __future__ import annotations

from collections.abc import Sequence

from eventsim.ledger import LedgerRows
from eventsim.signals import Dense, Rows

UNCOUNTED = ("input", "routing", "readout")
"""Roles of layers that hand on what they are given; those behind them read it."""


def report_traffic(given: Sequence[Rows | Dense], output: Rows | Dense, rows: LedgerRows) -> None:
    """Report what one layer read and wrote in a chunk.

    Of rows, each non-zero value is a message with an address, and a value where it is not a plain spike. Of dense
    signals, every value is read and written, and no address.

    Parameters
    ----------
    given : sequence of Rows or Dense
        Of as many steps as `rows`.
    output : Rows or Dense
        Of as many steps, or fewer, which are the last ones then.
    rows : LedgerRows
        The layer's rows of the time steps at hand.
    """
    for signal in given:
        if isinstance(signal, Dense):
            rows.add("value_reads", signal.type.size)
        else:
            arrived = signal.nonzeros_by_step
            rows.add("messages", arrived)
            rows.add("index_reads", arrived)
            if signal.values is not None:
                rows.add("value_reads", arrived)
    written = rows.part(rows.steps - output.steps, rows.steps)
    if isinstance(output, Dense):
        written.add("value_writes", output.type.size)
    else:
        emitted = output.nonzeros_by_step
        written.add("index_writes", emitted)
        if output.values is not None:
            written.add("value_writes", emitted)
