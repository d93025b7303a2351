"""From every channel to the active ones."""

from __future__ import annotations

import numpy as np

from eventsim.kernels.rows import list_nonzeros
from eventsim.signals import FloatArray, Rows, SignalType


def rows_from_dense(output: SignalType, steps: int, data: FloatArray) -> Rows:
    """List the non-zero channels of `data`, float32 ``(steps * positions, channels)``."""
    nonzeros = int(np.count_nonzero(data))
    indptr = np.empty(len(data) + 1, np.int64)
    indices = np.empty(nonzeros + 1, np.int32)
    values = np.empty(nonzeros + 1, np.float32)
    list_nonzeros(data, indptr, indices, values)
    return Rows(output, steps, indptr, indices[:-1], None if output.kind == "binary" else values[:-1])
