"""EVT 3.0, Prophesee's raw events of 16 bits: cameras of the fourth generation (EVK3, EVK4).

Lines that begin with ``%``, then little-endian words of 16 bits whose bits 12-15 are a type. Words set a state, and
some make events of it:

=====  ======================================================================================
type   meaning of bits 0-11
=====  ======================================================================================
0      row: y in bits 0-10
2      one event: x in bits 0-10, polarity in bit 11
3      begin of a vector: x in bits 0-10, polarity in bit 11
4, 5   12 or 8 neighbours from there on, one bit each, bit 0 first; the begin moves on by 12 or 8
6      time, bits 0-11
8      time, bits 12-23
=====  ======================================================================================

The words 7, 10, 14 and 15 (continued data, triggers, others) are skipped; the other types are not defined. The time
counts microseconds; its upper bits wrap after 16.8 s. Each time word sets its own bits and leaves the other ones, as
the specification says. Events before the first word of the upper bits have no time and are skipped.
Format: https://docs.prophesee.ai/stable/data/encoding_formats/evt3.html

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
from eventsim.dvs.decoding import FULL, MORE, REFUSED, WRAPS, Decoding, time_at_the_end
from eventsim.dvs.event_format import EventFormat
from eventsim.dvs.prophesee_header import parsed_header, read_header, sensor_of
from eventsim.dvs.readable_file import ByteReader, readable_file
from eventsim.dvs.recording import AS_RECORDED, Orientation, Recording, SensorSize
from eventsim.errors import InputError

WORD_BYTES = 2
# what the decoder keeps beside the wraps; high is -1 before its first word, pending what is left of a vector's bits
ROW, HIGH, LOW, VECTOR_X, VECTOR_P, PENDING = range(1, 7)
FARTHEST = 65_000


def recognises(path: Path, head: bytes) -> bool:
    """Tell by its first bytes whether a file is EVT 3."""
    encoding = parsed_header(head).encoding()
    return encoding is not None and encoding.startswith("3")


class Evt3Recording(Recording):
    """An EVT 3.0 file; see the module for the format and its coordinates.

    Parameters
    ----------
    path : str or path
        File to read.
    sensor_size : tuple of int, optional
        (height, width) in pixels. When not given: the header's geometry, or that of the camera that it names.
    orientation : Orientation
        How to turn the picture.
    salvage : bool
        Whether an incomplete last word is left to the reading, which ends there.

    Raises
    ------
    InputError
        The file is missing or empty, of another version, ends within a word, or says no sensor size while
        `sensor_size` is not given. While reading: a word of a type that is not defined.
    """

    format = "evt3"

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
        if header.encoding() != "3.0":
            raise InputError(f"{file}: raw events of EVT {header.encoding()}, expected 3.0; convert it with Metavision")
        super().__init__(str(file), sensor_of(file, header) if sensor_size is None else sensor_size, orientation)
        self.size_given = sensor_size is not None
        self._file, self._data_start = file, header.data_start
        self.told_size = header.sensor_size()
        self._left_over = file.left_over(self._data_start, WORD_BYTES, "words of 2 bytes", unit="word", salvage=salvage)

    def _stored_end(self) -> int | None:
        return time_at_the_end(self._file, self._data_start, WORD_BYTES, self._decoding)

    def _decoding(self, file: ByteReader) -> Decoding:
        state, types = np.array([0, 0, -1, 0, 0, 0, 0], np.int64), {"word": "<u2", "coordinates": "<u2"}
        return Decoding(file.readinto, _decode_words, state, **types, as_they_come=self._file.arrives)

    def _decode(self, block_events: int) -> Iterator[Packed]:
        with self._file.opened(self._data_start, WORD_BYTES) as file:
            decoding = self._decoding(file)
            yield from decoding.blocks(block_events)
        if decoding.why == REFUSED:
            word = int.from_bytes(decoding.rest[:WORD_BYTES], "little")
            raise InputError(
                f"{self.path}: word {word:#06x} after event {decoding.events} is of type {word >> 12}, which EVT 3.0 "
                "does not define; the file is corrupt: salvage=True reads up to there"
            )
        if self._left_over:
            raise InputError(self._left_over)


@compiled
def _decode_words(
    words: npt.NDArray[np.uint16],
    state: npt.NDArray[np.int64],
    x: npt.NDArray[np.uint16],
    y: npt.NDArray[np.uint16],
    t: npt.NDArray[np.int64],
    p: npt.NDArray[np.bool_],
) -> tuple[int, int, int]:
    """Decode words, up to one of no defined type; see `Decoding`."""
    wraps, row, high, low = state[WRAPS], state[ROW], state[HIGH], state[LOW]
    vector_x, vector_p, pending = state[VECTOR_X], state[VECTOR_P], state[PENDING]
    now = (wraps << 24) + (high << 12) + low
    count = 0
    taken = 0
    why = MORE
    for index in range(len(words)):
        word = np.int64(words[index])
        kind = word >> 12
        if kind == 2:
            if count == len(t):
                why = FULL
                break
            if high >= 0:
                x[count] = word & 0x7FF
                y[count] = row
                t[count] = now
                p[count] = (word >> 11) & 1
                count += 1
        elif kind == 0:
            row = word & 0x7FF
        elif kind in (4, 5):
            width = 12 if kind == 4 else 8
            # of a vector that did not fit into the block before, what is left
            valid = pending if pending else word & ((1 << width) - 1)
            pending = np.int64(0)
            for bit in range(width):
                if (valid >> bit) & 1 and high >= 0:
                    if count == len(t):
                        pending = valid >> bit << bit
                        break
                    x[count] = vector_x + bit
                    y[count] = row
                    t[count] = now
                    p[count] = vector_p
                    count += 1
            if pending:
                why = FULL
                break
            # beyond all sensors; words without end shall not bring it round to the first column
            vector_x = min(vector_x + width, FARTHEST)
        elif kind == 3:
            vector_x = word & 0x7FF
            vector_p = (word >> 11) & 1
        elif kind == 6:
            low = word & 0xFFF
            now = (wraps << 24) + (high << 12) + low
        elif kind == 8:
            new = word & 0xFFF
            wraps += high - new > 1 << 11
            high = new
            now = (wraps << 24) + (high << 12) + low
        elif kind not in (7, 10, 14, 15):
            why = REFUSED
            break
        taken += 1
    state[WRAPS], state[ROW], state[HIGH], state[LOW] = wraps, row, high, low
    state[VECTOR_X], state[VECTOR_P], state[PENDING] = vector_x, vector_p, pending
    return taken, count, why


FORMAT = EventFormat(
    title="EVT 3.0",
    description="EVT 3.0, raw events of Prophesee cameras",
    extensions=(".raw",),
    recognises=recognises,
    open=Evt3Recording,
    options=frozenset({"salvage"}),
    forward=True,
)
