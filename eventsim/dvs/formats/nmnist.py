"""N-MNIST and N-Caltech101: 40-bit big-endian events without a header.

Bits of an event, from the most significant: 8 bits x, 8 bits y, 1 bit polarity (1 = ON), 23 bits time in microseconds.
A word with y = 240 is no event: it marks an overflow of the time and adds 2^13 us to the time base of every word from
itself on. Longer recordings of some writers have no such words, and 23 bits are full after 2^23 us: see `Counter`.
Sources: the description at https://www.garrickorchard.com/datasets/n-mnist and the dataset's own reader
(https://github.com/gorchard/event-Python), which `tonic.io.read_mnist_file` follows; this reader gives the same events.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from eventsim.dvs.counters import Counter
from eventsim.dvs.event_format import EventFormat
from eventsim.dvs.readable_file import readable_file
from eventsim.dvs.recording import AS_RECORDED, Columns, Orientation, Recording, SensorSize
from eventsim.errors import InputError

EVENT_BYTES = 5
OVERFLOW_Y = 240
OVERFLOW_US = 2**13
NMNIST_SENSOR = (34, 34)


class NmnistRecording(Recording):
    """An N-MNIST or N-Caltech101 ``.bin`` file.

    Coordinates as stored: x to the right, y downwards.

    Parameters
    ----------
    path : str or path
        File to read.
    sensor_size : tuple of int, optional
        (height, width) in pixels; (34, 34), N-MNIST's, when not given. N-Caltech101 needs its own, (180, 240) holds
        all of its recordings.
    orientation : Orientation
        How to turn the picture.
    salvage : bool
        Whether an incomplete last event is left to the reading, which ends there.

    Raises
    ------
    InputError
        The file is missing or empty, its length is not a multiple of 5 bytes, or the sensor is higher than the 240
        rows that the format can name.
    """

    format = "nmnist"
    custom_size = True
    # the row that marks an overflow of the time; None where the writer knows no such marker
    _overflow_row: ClassVar[int | None] = OVERFLOW_Y

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sensor_size: SensorSize | None = None,
        orientation: Orientation = AS_RECORDED,
        salvage: bool = False,
    ) -> None:
        file = readable_file(path)
        super().__init__(str(file), NMNIST_SENSOR if sensor_size is None else sensor_size, orientation)
        self.size_given = sensor_size is not None
        if sensor_size is None:
            self.untold = frozenset({"sensor_size"})
        if self._overflow_row is not None and self._sensor_height > self._overflow_row:
            raise InputError(
                f"{file}: sensor height {self._sensor_height}, expected at most {OVERFLOW_Y} (row {OVERFLOW_Y} marks "
                "time overflows in this format); pass sensor_size=(height, width) of the recording"
            )
        self._file = file
        self._left_over = file.left_over(
            0,
            EVENT_BYTES,
            "5 bytes per event of N-MNIST's 40-bit format",
            salvage=salvage,
            advice="truncated or of another format, or pass salvage=True",
        )

    def _decode(self, block_events: int) -> Iterator[Columns]:
        base_us = 0
        counter = Counter(23)
        with self._file.opened(0, EVENT_BYTES) as file:
            while len(data := file.read(EVENT_BYTES * block_events)) >= EVENT_BYTES:
                words = np.frombuffer(data, np.uint8, len(data) // EVENT_BYTES * EVENT_BYTES).reshape(-1, EVENT_BYTES)
                x, y, high, middle, low = words.T
                stamps = ((high & 0x7F).astype(np.int64) << 16) | (middle.astype(np.int64) << 8) | low
                t, full = counter.times(stamps)
                if self._overflow_row is not None and (is_overflow := y == self._overflow_row).any():
                    t += base_us + OVERFLOW_US * np.cumsum(is_overflow)
                    base_us += OVERFLOW_US * int(is_overflow.sum())
                    keep = ~is_overflow
                    yield Columns(x[keep], y[keep], t[keep], high[keep] >= 0x80, full)
                else:
                    yield Columns(x, y, t + base_us, high >= 0x80, full)
        if self._left_over:
            raise InputError(self._left_over)


# no magic number: the extension tells
FORMAT = EventFormat(
    title="N-MNIST",
    description="40-bit events of N-MNIST and N-Caltech101",
    extensions=(".bin",),
    recognises=None,
    open=NmnistRecording,
    options=frozenset({"salvage"}),
    forward=True,
)
