"""Event Stream (``.es``), the format of the neuromorphic systems group in Sydney and of the package `event_stream`.

The bytes ``Event Stream``, a version (3 bytes), a type, and for cameras width and height (uint16, little-endian).
An event of a DVS (type 1) is a byte and x and y (uint16 each): the byte's bits 1-7 are the time since the event before,
in microseconds, and bit 0 is the polarity (1 = ON). A byte of 255 in the place of an event adds 127 us; one of 254 is
ignored. Recordings of version 2 and 1 have the same events. Format: https://github.com/neuromorphicsystems/event_stream

Coordinates as stored: x to the right, y *upwards* from the lower edge; ``Orientation(flip_y=True)`` shows the scene
upright with row 0 at the top, as the package `faery` delivers it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eventsim.dvs.columns import Packed
from eventsim.dvs.compiled import compiled
from eventsim.dvs.decoding import FULL, MORE, Decoding
from eventsim.dvs.event_format import EventFormat
from eventsim.dvs.readable_file import readable_file
from eventsim.dvs.recording import AS_RECORDED, Orientation, Recording, SensorSize
from eventsim.errors import InputError

MAGIC = b"Event Stream"
HEADER_BYTES = len(MAGIC) + 3 + 1 + 4
EVENT_BYTES = 5
# where the decoder keeps the time of the event before; nothing wraps
NOW = 1
DVS = 1
OTHER_TYPES = {0: "generic data", 2: "an ATIS", 3: "a colour camera"}


def recognises(path: Path, head: bytes) -> bool:
    """Tell by its first bytes whether a file is an Event Stream."""
    return head.startswith(MAGIC)


class EsRecording(Recording):
    """An Event Stream of a DVS; see the module for the format and its coordinates.

    Parameters
    ----------
    path : str or path
        File to read.
    sensor_size : tuple of int, optional
        (height, width) in pixels; the header's when not given.
    orientation : Orientation
        How to turn the picture.

    Raises
    ------
    InputError
        The file is missing or empty, of another version than 1 and 2, or not of a DVS. While reading: the file ends
        within an event.
    """

    format = "es"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sensor_size: SensorSize | None = None,
        orientation: Orientation = AS_RECORDED,
    ) -> None:
        file = readable_file(path)
        head = file.head[:HEADER_BYTES]
        if len(head) < HEADER_BYTES or not head.startswith(MAGIC):
            raise InputError(f"{file}: {len(head)} bytes of header, expected {HEADER_BYTES}; the file is truncated")
        if head[12] not in (1, 2):
            raise InputError(
                f"{file}: version {head[12]}.{head[13]}.{head[14]} of Event Stream, expected 1 or 2; convert it"
            )
        if head[15] != DVS:
            kind = OTHER_TYPES.get(head[15], f"type {head[15]}")
            raise InputError(f"{file}: events of {kind}, expected those of a DVS (type 1); convert them with faery")
        width, height = np.frombuffer(head[16:20], "<u2").tolist()
        super().__init__(str(file), (height, width) if sensor_size is None else sensor_size, orientation)
        self.size_given = sensor_size is not None
        self._file = file
        self.told_size = (height, width)

    def _decode(self, block_events: int) -> Iterator[Packed]:
        state, live = np.zeros(2, np.int64), self._file.arrives
        with self._file.opened(HEADER_BYTES) as file:
            decoding = Decoding(file.readinto, _decode_bytes, state, coordinates="<u2", as_they_come=live)
            yield from decoding.blocks(block_events)
        if decoding.rest:
            raise InputError(
                f"{self.path}: {len(decoding.rest)} bytes are left over after event {decoding.events}, expected 5 "
                f"bytes per event; {self._file.cut}: copy it again or pass salvage=True"
            )


@compiled
def _decode_bytes(
    data: npt.NDArray[np.uint8],
    state: npt.NDArray[np.int64],
    x: npt.NDArray[np.uint16],
    y: npt.NDArray[np.uint16],
    t: npt.NDArray[np.int64],
    p: npt.NDArray[np.bool_],
) -> tuple[int, int, int]:
    """Decode whole events; see `Decoding`."""
    now = state[NOW]
    count = 0
    index = 0
    why = MORE
    while index < len(data):
        first = data[index]
        if first == 255:
            now += 127
            index += 1
        elif first == 254:
            index += 1
        elif index + EVENT_BYTES > len(data):
            break
        elif count == len(t):
            why = FULL
            break
        else:
            now += first >> 1
            x[count] = data[index + 1] | (np.uint16(data[index + 2]) << 8)
            y[count] = data[index + 3] | (np.uint16(data[index + 4]) << 8)
            t[count] = now
            p[count] = first & 1
            count += 1
            index += EVENT_BYTES
    state[NOW] = now
    return index, count, why


FORMAT = EventFormat(
    title="Event Stream",
    description="Event Stream of a DVS, as event_stream and faery write it",
    extensions=(".es",),
    recognises=recognises,
    open=EsRecording,
    forward=True,
)
