"""Pooling from list to list."""

from __future__ import annotations

import numpy as np

from eventsim.context import Context
from eventsim.kernels.bits import SPARE
from eventsim.kernels.rows import pool_rows
from eventsim.kernels.window import Spans
from eventsim.signals import NO_VALUES, CountArray, Rows, SignalType


def pooled_rows(
    signal: Rows, output: SignalType, spans: Spans, context: Context, *, maximum: bool
) -> tuple[Rows, CountArray]:
    """Pool rows of maps by maximum or by sum; return them and the values looked at in each step."""
    room = signal.steps * output.size + SPARE
    pooled = (
        context.buffers.longs(signal.steps * output.positions + 1),
        context.buffers.sparse(room).view(np.int32),
        NO_VALUES if maximum and signal.values is None else context.buffers.sparse(room),
    )
    touched = context.counts(signal.steps)
    context.call(pool_rows, signal.whole, output.channels, spans, maximum, pooled, touched)
    return Rows.within(output, signal.steps, *pooled), touched
