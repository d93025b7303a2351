"""Pooling from list to list."""

from __future__ import annotations

import numpy as np

from eventsim.kernels.fire import SPARE
from eventsim.kernels.rows import pool_rows
from eventsim.kernels.window import Spans
from eventsim.signals import CountArray, Rows, SignalType


def pooled_rows(
    signal: Rows, output: SignalType, spans: Spans, overlap: int, *, maximum: bool
) -> tuple[Rows, CountArray]:
    """Pool rows of maps by maximum or by sum; return them and the values looked at in each step."""
    room = min(signal.nonzeros * overlap, signal.steps * output.size) + SPARE
    indptr = np.empty(signal.steps * output.positions + 1, np.int64)
    indices = np.empty(room, np.int32)
    values = np.empty(0 if maximum and signal.values is None else room, np.float32)
    touched = np.empty(signal.steps, np.int64)
    pool_rows(signal.triple, output.channels, spans, maximum, (indptr, indices, values), touched)
    n = indptr[-1]
    return Rows(output, signal.steps, indptr, indices[:n], None if output.kind == "binary" else values[:n]), touched


def overlap_of(spans: Spans) -> int:
    """Return how many windows hold the pixel that most of them hold."""
    rows = _most(spans.height, spans.tops, spans.bottoms, spans.row_step)
    return rows * _most(spans.width, spans.lefts, spans.rights, spans.column_step)


def _most(size: int, first: CountArray, stop: CountArray, step: int) -> int:
    held = np.zeros(size, np.int64)
    for begin, end in zip(first, stop, strict=True):
        held[begin : max(begin, end) : step] += 1
    return int(held.max())
