"""DAT, the older format of Prophesee (Chronocam): N-CARS, Gen1 Automotive and 1 Megapixel detection.

Lines that begin with ``%``, two bytes with the type and the size of an event, then 8 bytes per event, little-endian: a
time in microseconds (uint32) and an address (uint32). In version 2 the address has x in bits 0-13, y in bits 14-27 and
polarity in bits 28-31 (0 = OFF); in version 1, and where the header says no version, x in bits 0-8, y in bits 9-16 and
polarity in bit 17. Behind a full counter the time goes on: see `rounds`.
Format: https://docs.prophesee.ai/stable/data/file_formats/dat.html

Coordinates as stored: the origin is the upper left corner, x to the right and y downwards.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eventsim.dvs.columns import Packed
from eventsim.dvs.compiled import compiled
from eventsim.dvs.counters import rounds, steady
from eventsim.dvs.decoding import FULL, MORE, WRAPS, Decoding, time_at_the_end
from eventsim.dvs.event_format import EventFormat
from eventsim.dvs.prophesee_header import parsed_header, read_header
from eventsim.dvs.readable_file import ByteReader, readable_file
from eventsim.dvs.recording import AS_RECORDED, Orientation, Recording, SensorSize
from eventsim.errors import InputError

EVENT_BYTES = 8
# "2D" of Chronocam's files and "CD" of later ones: changes in contrast; 14 are external triggers
EVENT_TYPES = (0, 12)
ATIS_SENSOR = (240, 304)
# what the decoder keeps beside the wraps: the stamp before (-1: none yet) and the bits of a coordinate
PREVIOUS, X_BITS, Y_BITS = 1, 2, 3


def recognises(path: Path, head: bytes) -> bool:
    """Tell by its first bytes whether a file is DAT."""
    header = parsed_header(head)
    named = head.startswith(b"% Data file containing") or path.suffix.lower() == ".dat"
    return head.startswith(b"% ") and named and header.encoding() is None


class DatRecording(Recording):
    """A Prophesee DAT file of contrast changes.

    Parameters
    ----------
    path : str or path
        File to read.
    sensor_size : tuple of int, optional
        (height, width) in pixels. When not given: the header's, and (240, 304), an ATIS's, where it says none (N-CARS).
    orientation : Orientation
        How to turn the picture.
    salvage : bool
        Whether an incomplete last event is left to the reading, which ends there.

    Raises
    ------
    InputError
        The file is missing or empty, of another version or kind of event, or ends within an event.
    """

    format = "dat"
    custom_size = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sensor_size: SensorSize | None = None,
        orientation: Orientation = AS_RECORDED,
        salvage: bool = False,
    ) -> None:
        file = readable_file(path)
        header = read_header(file)
        said = header.sensor_size()
        super().__init__(str(file), sensor_size or said or ATIS_SENSOR, orientation)
        self.size_given = sensor_size is not None
        self.told_size = said
        if sensor_size is None and said is None:
            self.untold = frozenset({"sensor_size"})
        version = header.fields.get("version", "1")
        if version not in ("1", "2"):
            raise InputError(f"{file}: DAT version {version[:20]!r}, expected 1 or 2; save it again with Metavision")
        self._x_bits, self._y_bits = (9, 8) if version == "1" else (14, 14)
        kind = file.beginning(header.data_start + 2)[header.data_start :]
        if len(kind) < 2 or kind[0] not in EVENT_TYPES or kind[1] != EVENT_BYTES:
            raise InputError(
                f"{file}: events of type and size {list(kind)} after the header, expected type 0 or 12 and 8 bytes; "
                "the file holds no contrast changes, or is corrupt"
            )
        self._file, self._data_start = file, header.data_start + 2
        self._left_over = file.left_over(self._data_start, EVENT_BYTES, "8 bytes per event", salvage=salvage)

    def _stored_events(self) -> int:
        return (self._file.size - self._data_start) // EVENT_BYTES

    def _stored_end(self) -> int | None:
        return time_at_the_end(self._file, self._data_start, EVENT_BYTES, self._decoding)

    def _decoding(self, file: ByteReader) -> Decoding:
        state = np.array([0, -1, self._x_bits, self._y_bits], np.int64)
        return Decoding(file.readinto, _decode_events, state, word="<u4", as_they_come=self._file.arrives)

    def _decode(self, block_events: int) -> Iterator[Packed]:
        with self._file.opened(self._data_start, EVENT_BYTES) as file:
            yield from self._decoding(file).blocks(block_events)
        if self._left_over:
            raise InputError(self._left_over)


@compiled
def _decode_events(
    words: npt.NDArray[np.uint32],
    state: npt.NDArray[np.int64],
    x: npt.NDArray[np.int16],
    y: npt.NDArray[np.int16],
    t: npt.NDArray[np.int64],
    p: npt.NDArray[np.bool_],
) -> tuple[int, int, int]:
    """Decode pairs of time and address; see `Decoding`."""
    x_bits, p_bit = np.uint32(state[X_BITS]), np.uint32(state[X_BITS] + state[Y_BITS])
    x_mask, y_mask = np.uint32((1 << state[X_BITS]) - 1), np.uint32((1 << state[Y_BITS]) - 1)
    # version 1 leaves the bits above its one polarity bit unused, version 2 has four of them
    p_mask = np.uint32((1 if x_bits == 9 else 0xF) << p_bit)
    count = min(len(t), len(words) // 2)
    base, previous = state[WRAPS] << 32, state[PREVIOUS]
    if previous < 0 and count:
        previous = np.int64(words[0])
    for index in range(count):
        stamp, address = np.int64(words[2 * index]), words[2 * index + 1]
        step = stamp - previous
        if not steady(step, 1 << 32):
            base += rounds(step, 1 << 32) << 32
        previous = stamp
        x[index] = address & x_mask
        y[index] = (address >> x_bits) & y_mask
        t[index] = base + stamp
        p[index] = address & p_mask != 0
    state[WRAPS], state[PREVIOUS] = base >> 32, previous
    return 2 * count, count, FULL if count == len(t) else MORE


FORMAT = EventFormat(
    title="DAT",
    description="DAT of Prophesee: N-CARS, Gen1 Automotive, 1 Megapixel",
    extensions=(".dat",),
    recognises=recognises,
    open=DatRecording,
    options=frozenset({"salvage"}),
    forward=True,
)
