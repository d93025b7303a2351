"""Events that come in batches, as from a camera or a queue: a recording that is read once, while it happens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from eventsim.dvs.columns import Columns
from eventsim.dvs.event_lists import as_columns
from eventsim.dvs.event_values import microseconds, pixels, polarities
from eventsim.dvs.recording import AS_RECORDED, Orientation, Recording, SensorSize
from eventsim.errors import InputError
from eventsim.stopwatch import Stopwatch


class Batches(Recording):
    """Batches of events as a recording; the next one is asked for when the last one has been used.

    Parameters
    ----------
    batches : iterable
        Of arrays as `ArrayRecording` takes them, of any length, or of objects whose ``numpy()`` returns one, as
        dv_processing's stores do. None, which its readers return while nothing happens, is a batch without events.
    sensor_size : tuple of int
        (height, width) in pixels.
    orientation : Orientation
        How to turn the picture.
    path : str
        Name for messages.
    columns : str, optional
        Order of the columns of plain arrays, such as ``"xytp"``; ``_`` for one to ignore.
    time_unit : {"s", "ms", "us", "ns"}, optional
        Unit of the times, microseconds when not given; floating-point times need it.

    Raises
    ------
    InputError
        `batches` is no iterable. While reading: a batch is no such array, or the batches were read before.
    """

    format = "batches"

    def __init__(
        self,
        batches: Iterable[Any],
        *,
        sensor_size: SensorSize,
        orientation: Orientation = AS_RECORDED,
        path: str = "events",
        columns: str | None = None,
        time_unit: str | None = None,
    ) -> None:
        super().__init__(path, sensor_size, orientation)
        if isinstance(batches, (str, bytes)) or not isinstance(batches, Iterable):
            raise InputError(
                f"{path}: {type(batches).__name__} found, expected an iterable of arrays of events, or a recording; "
                "open_recording(...) opens files and pipes"
            )
        self.size_given = True
        self.waiting = Stopwatch()
        self._batches = batches
        self._columns, self._time_unit = columns, time_unit
        self._read = False

    def _decode(self, block_events: int) -> Iterator[Columns]:
        if self._read:
            raise InputError(f"{self.path}: batches that were read before found, expected one pass; pass new ones")
        self._read = True
        assert self.waiting is not None
        for number, batch in enumerate(self.waiting.timed(iter(self._batches))):
            if batch is None:
                continue
            path = f"{self.path}: batch {number}"
            events, scale = as_columns(_array(batch, path), path, self._columns, self._time_unit)
            for start in range(0, len(events["t"]), block_events):
                x, y, t, p = (events[name][start : start + block_events] for name in "xytp")
                yield Columns(
                    pixels(path, "x", x), pixels(path, "y", y), microseconds(path, t, scale), polarities(path, p)
                )


def _array(batch: Any, path: str) -> np.ndarray[Any, Any]:
    if not isinstance(batch, np.ndarray) and callable(getattr(batch, "numpy", None)):
        batch = batch.numpy()
    if not isinstance(batch, np.ndarray):
        raise InputError(
            f"{path}: {type(batch).__name__} found, expected an array of events with fields x, y, t and p; several "
            "events a batch, not one by one"
        )
    return batch
