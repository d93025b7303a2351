"""Pooling from list to list."""

from __future__ import annotations

from eventsim.context import Context
from eventsim.kernels.bits import words
from eventsim.kernels.pooling import pool_bits, pool_rows, set_bits
from eventsim.kernels.window import Spans
from eventsim.layers.listing import room_for
from eventsim.signals import BitArray, CountArray, Rows, SignalType


def pooled_rows(
    signal: Rows, output: SignalType, spans: Spans, context: Context, *, maximum: bool
) -> tuple[Rows, CountArray]:
    """Pool rows of maps by maximum or by sum; return them and the values looked at in each step."""
    pooled = room_for(output, signal.steps, context)
    touched = context.counts(signal.steps)
    if maximum and signal.values is None:
        bits = _bits_of(signal, context)
        context.call(pool_bits, signal.indptr, bits, output.channels, spans, pooled, touched)
    else:
        context.call(pool_rows, signal.whole, output.channels, spans, maximum, pooled, touched)
    return Rows.within(output, signal.steps, *pooled), touched


def _bits_of(signal: Rows, context: Context) -> BitArray:
    """Return the bits that neurons left, or those of spikes that come from elsewhere."""
    if signal.bits is not None:
        return signal.bits
    bits = context.buffers.bits(signal.steps, words(signal.type.size))
    context.call(set_bits, signal.indptr, signal.whole[1], signal.type.channels, bits)
    return bits
