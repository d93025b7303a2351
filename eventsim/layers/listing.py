"""From every channel to the active ones, and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from eventsim.context import Context
from eventsim.kernels.bits import list_steps
from eventsim.kernels.rows import list_nonzeros, unlist
from eventsim.signals import NO_VALUES, BitArray, CountArray, Dense, FloatArray, IntArray, Rows, SignalType

LISTED_NS = 0.1
"""What a neuron takes that may have fired, about."""


def rows_from_dense(output: SignalType, steps: int, data: FloatArray) -> Rows:
    """List the non-zero channels of `data`, float32 ``(steps * positions, channels)``."""
    nonzeros = int(np.count_nonzero(data))
    indptr = np.empty(len(data) + 1, np.int64)
    indices = np.empty(nonzeros + 1, np.int32)
    values = np.empty(nonzeros + 1, np.float32)
    list_nonzeros(data, indptr, indices, values)
    return Rows(output, steps, indptr, indices[:-1], None if output.kind == "binary" else values[:-1])


def room_for(
    output: SignalType, steps: int, context: Context, spare: int = 1
) -> tuple[CountArray, IntArray, FloatArray]:
    """Return memory for rows of as many values as there can be, and some to spare: indptr, indices and values."""
    room = steps * output.size + spare
    indptr = context.buffers.longs(steps * output.positions + 1)
    values = NO_VALUES if output.kind == "binary" else context.buffers.sparse(room)
    return indptr, context.buffers.sparse(room).view(np.int32), values


def listed(output: SignalType, steps: int, data: FloatArray, context: Context) -> Rows:
    """Do what `rows_from_dense` does, in memory of the context with room for every value."""
    rows = room_for(replace(output, kind="real"), steps, context)
    context.call(list_nonzeros, data, *rows)
    return Rows.within(output, steps, *rows)


def list_spikes(fired: BitArray, output: SignalType, indptr: CountArray, indices: IntArray, context: Context) -> None:
    """List the bits of neurons that fired; workers share the time steps. See `eventsim.kernels.bits.list_steps`."""
    parts = context.ranges(len(fired), LISTED_NS * len(fired) * output.size)
    given = fired, output.positions, output.channels, indptr, indices
    context.share(list_steps, [(*given, *part) for part in parts])


def every_channel(signal: Rows | Dense, context: Context) -> FloatArray:
    """Return every value of a signal, contiguous float32 ``(steps * positions, channels)``; no copy of dense values."""
    if isinstance(signal, Dense) and signal.data.flags.c_contiguous:
        return signal.data
    rows = signal.steps * signal.type.positions
    data = context.buffers.floats(rows * signal.type.channels).reshape(rows, signal.type.channels)
    if isinstance(signal, Dense):
        context.call(np.copyto, data, signal.data)
    else:
        context.call(unlist, *signal.whole, data)
    return data


def without_zeros(rows: Rows) -> Rows:
    """Drop the entries whose value became 0."""
    if rows.values is None or rows.values.all():
        return rows
    kept = rows.values != 0
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
    return replace(rows, indptr=before[rows.indptr], indices=rows.indices[kept], values=rows.values[kept])
