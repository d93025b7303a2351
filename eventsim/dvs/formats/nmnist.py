"""N-MNIST and N-Caltech101: 40-bit big-endian events without a header.

Bits of an event, from the most significant: 8 bits x, 8 bits y, 1 bit polarity (1 = ON), 23 bits time in microseconds.
A word with y = 240 is no event: it marks an overflow of the time and adds 2^13 us to the time base of every word from
itself on. Longer recordings of some writers have no such words, and 23 bits are full after 2^23 us: see `rounds`.
Sources: the description at https://www.garrickorchard.com/datasets/n-mnist and the dataset's own reader
(https://github.com/gorchard/event-Python), which `tonic.io.read_mnist_file` follows; this reader gives the same events.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from eventsim.dvs.columns import Packed
from eventsim.dvs.compiled import compiled
from eventsim.dvs.counters import rounds, steady
from eventsim.dvs.decoding import FULL, MORE, WRAPS, Decoding, time_at_the_end
from eventsim.dvs.event_format import EventFormat
from eventsim.dvs.readable_file import ByteReader, readable_file
from eventsim.dvs.recording import AS_RECORDED, Orientation, Recording, SensorSize
from eventsim.errors import InputError

EVENT_BYTES = 5
OVERFLOW_Y = 240
OVERFLOW_US = 2**13
NMNIST_SENSOR = (34, 34)
# what the decoder keeps beside the wraps: the stamp before (-1: none yet), what markers added, and the row that is one
PREVIOUS, BASE, OVERFLOW_ROW = 1, 2, 3


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
        self._file = file
        self._left_over = file.left_over(
            0,
            EVENT_BYTES,
            "5 bytes per event of N-MNIST's 40-bit format",
            salvage=salvage,
            advice="truncated or of another format, or pass salvage=True",
        )

    def _lay_out(self, sensor_size: SensorSize, orientation: Orientation) -> None:
        super()._lay_out(sensor_size, orientation)
        if self._overflow_row is not None and self._sensor_height > self._overflow_row:
            raise InputError(
                f"{self.path}: sensor height {self._sensor_height}, expected at most {OVERFLOW_Y} (row {OVERFLOW_Y} "
                "marks time overflows in this format); pass sensor_size=(height, width) of the recording"
            )

    def _stored_end(self) -> int | None:
        return time_at_the_end(self._file, 0, EVENT_BYTES, self._decoding)

    def _decoding(self, file: ByteReader) -> Decoding:
        state = np.array([0, -1, 0, -1 if self._overflow_row is None else self._overflow_row], np.int64)
        return Decoding(file.readinto, _decode_events, state, as_they_come=self._file.arrives)

    def _decode(self, block_events: int) -> Iterator[Packed]:
        with self._file.opened(0, EVENT_BYTES) as file:
            yield from self._decoding(file).blocks(block_events)
        if self._left_over:
            raise InputError(self._left_over)


@compiled
def _decode_events(
    data: npt.NDArray[np.uint8],
    state: npt.NDArray[np.int64],
    x: npt.NDArray[np.int16],
    y: npt.NDArray[np.int16],
    t: npt.NDArray[np.int64],
    p: npt.NDArray[np.bool_],
) -> tuple[int, int, int]:
    """Decode words of 40 bits; see `Decoding`."""
    wraps, previous, base, overflow_row = state[WRAPS], state[PREVIOUS], state[BASE], state[OVERFLOW_ROW]
    count = 0
    taken = 0
    for index in range(len(data) // EVENT_BYTES):
        if count == len(t):
            break
        column, row, high = data[5 * index], data[5 * index + 1], np.int64(data[5 * index + 2])
        stamp = (high & 0x7F) << 16 | np.int64(data[5 * index + 3]) << 8 | np.int64(data[5 * index + 4])
        step = stamp - previous
        if not steady(step, 1 << 23) and previous >= 0:
            wraps += rounds(step, 1 << 23)
        previous = stamp
        if row == overflow_row:
            base += OVERFLOW_US
        else:
            x[count] = column
            y[count] = row
            t[count] = (wraps << 23) + base + stamp
            p[count] = high >= 0x80
            count += 1
        taken += 1
    state[WRAPS], state[PREVIOUS], state[BASE] = wraps, previous, base
    return EVENT_BYTES * taken, count, FULL if count == len(t) else MORE


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
