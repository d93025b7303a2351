"""What the readers of several formats share: cutting decoded columns into blocks, and times that wrap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from eventsim.dvs.recording import MAX_SENSOR_SIDE, Columns, SensorSize
from eventsim.errors import InputError


def sliced(columns: Columns, block_events: int) -> Iterator[Columns]:
    """Yield the columns in views of at most `block_events` events."""
    for start in range(0, len(columns.t), block_events):
        part = slice(start, start + block_events)
        yield Columns(columns.x[part], columns.y[part], columns.t[part], columns.p[part])


def smallest_sensor(path: str, blocks: Iterable[Columns]) -> SensorSize:
    """Infer (height, width) as the largest coordinates plus 1, at most the largest sensor.

    Raises
    ------
    InputError
        There are no events.
    """
    height = width = 0
    for block in blocks:
        if len(block.t):
            # a negative coordinate is reported with its event when the events are read
            height, width = max(height, int(block.y.max()) + 1, 1), max(width, int(block.x.max()) + 1, 1)
    if height == 0:
        raise InputError(f"{path}: holds no events to infer the sensor from; pass sensor_size=(height, width)")
    # one beyond the limit is named with its event too
    return min(height, MAX_SENSOR_SIDE), min(width, MAX_SENSOR_SIDE)


class Unwrapper:
    """Times of a counter of `bits` bits as 64-bit times: a decrease of more than half of its range is a wrap."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._wraps = 0
        self._previous: int | None = None

    def __call__(self, stamps: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Unwrap the next stamps, shape (n,), n >= 1."""
        before = stamps[0] if self._previous is None else self._previous
        wrapped = np.diff(stamps, prepend=before) < -(1 << (self._bits - 1))
        self._previous = int(stamps[-1])
        if not self._wraps and not wrapped.any():
            return stamps
        t: npt.NDArray[np.int64] = stamps + ((self._wraps + np.cumsum(wrapped)) << self._bits)
        self._wraps += int(wrapped.sum())
        return t
