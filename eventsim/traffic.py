"""Data that reaches a layer and leaves it: messages, addresses and values."""

from __future__ import annotations

from collections.abc import Sequence

from eventsim.context import Context
from eventsim.facts import Facts
from eventsim.ledger import LedgerRows
from eventsim.signals import Dense, Rows


def report_traffic(given: Sequence[Rows | Dense], output: Rows | Dense, facts: Facts, context: Context) -> None:
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
    context : Context
        Of the layer, and of the time steps at hand.
    """
    rows = context.rows
    for place, operations in facts.reads:
        signal = given[place]
        read = _of_its_steps(rows, signal)
        for operation in operations:
            read.add(operation, signal.type.size if isinstance(signal, Dense) else context.by_step(signal))
    for operation in facts.writes:
        executed = output.type.size if isinstance(output, Dense) else context.by_step(output)
        _of_its_steps(rows, output).add(operation, executed)


def _of_its_steps(rows: LedgerRows, signal: Rows | Dense) -> LedgerRows:
    return rows if signal.steps == rows.steps else rows.part(rows.steps - signal.steps, rows.steps)
