"""Pooling from list to list."""

from __future__ import annotations

from eventsim.context import Context
from eventsim.kernels.bits import SPARE
from eventsim.kernels.rows import pool_rows
from eventsim.kernels.window import Spans
from eventsim.layers.listing import room_for
from eventsim.signals import CountArray, Rows, SignalType


def pooled_rows(
    signal: Rows, output: SignalType, spans: Spans, context: Context, *, maximum: bool
) -> tuple[Rows, CountArray]:
    """Pool rows of maps by maximum or by sum; return them and the values looked at in each step."""
    pooled = room_for(output, signal.steps, context, SPARE)
    touched = context.counts(signal.steps)
    context.call(pool_rows, signal.whole, output.channels, spans, maximum, pooled, touched)
    return Rows.within(output, signal.steps, *pooled), touched
