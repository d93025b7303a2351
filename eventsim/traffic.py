"""Data that reaches a layer and leaves it: messages, addresses and values."""

from __future__ import annotations

from collections.abc import Sequence

from eventsim.facts import Facts
from eventsim.ledger import LedgerRows
from eventsim.signals import Dense, Rows

UNCOUNTED = ("input", "routing", "readout")
"""Roles of layers that hand on what they are given; those behind them read it."""


def report_traffic(given: Sequence[Rows | Dense], output: Rows | Dense, facts: Facts, rows: LedgerRows) -> None:
    """Report what one layer read and wrote in a chunk.

    Of rows, each non-zero value is a message with an address, and a value where it is not a plain spike. Of dense
    signals, every value is read and written, and no address. What follows from other counts is left to
    `eventsim.facts`: every message is an address that is read, for one.

    Parameters
    ----------
    given : sequence of Rows or Dense
    output : Rows or Dense
        All end with the last step of `rows`, however many steps they have.
    facts : Facts
        Of the layer.
    rows : LedgerRows
        The layer's rows of the time steps at hand.
    """
    if facts.role in UNCOUNTED:
        return
    derives = facts.derives
    for signal in given:
        read = _of_its_steps(rows, signal)
        if isinstance(signal, Dense):
            if "value_reads" not in derives:
                read.add("value_reads", signal.type.size)
            continue
        if "messages" not in derives:
            read.add("messages", signal.nonzeros_by_step)
        if signal.values is not None and "value_reads" not in derives:
            read.add("value_reads", signal.nonzeros_by_step)
    written = _of_its_steps(rows, output)
    if isinstance(output, Dense):
        if "value_writes" not in derives:
            written.add("value_writes", output.type.size)
        return
    if "index_writes" not in derives:
        written.add("index_writes", output.nonzeros_by_step)
    if output.values is not None and "value_writes" not in derives:
        written.add("value_writes", output.nonzeros_by_step)


def _of_its_steps(rows: LedgerRows, signal: Rows | Dense) -> LedgerRows:
    return rows if signal.steps == rows.steps else rows.part(rows.steps - signal.steps, rows.steps)
