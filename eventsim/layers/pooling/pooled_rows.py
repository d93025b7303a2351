"""Pooling from list to list."""

from __future__ import annotations

import numpy as np

from eventsim.kernels.rows import pool_rows
from eventsim.kernels.window import Window
from eventsim.signals import CountArray, Rows, SignalType


def pooled_rows(signal: Rows, output: SignalType, window: Window, *, maximum: bool) -> tuple[Rows, CountArray]:
    """Pool rows of maps by maximum or by sum; return them and the values looked at in each step."""
    overlap = -(-window.kernel_height // window.stride_height) * -(-window.kernel_width // window.stride_width)
    size = signal.steps * output.size
    room = min(signal.nonzeros * overlap, size) + output.channels
    indptr = np.empty(signal.steps * output.positions + 1, np.int64)
    indices, values = np.empty(room, np.int32), np.empty(room, np.float32)
    touched = np.empty(signal.steps, np.int64)
    pool_rows(signal.triple, output.channels, window, maximum, (indptr, indices, values), touched)
    n = indptr[-1]
    return Rows(output, signal.steps, indptr, indices[:n], None if output.kind == "binary" else values[:n]), touched
