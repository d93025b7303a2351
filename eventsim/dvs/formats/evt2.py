"""EVT 2.0, Prophesee's raw events of 32 bits: cameras of the third generation.

Lines that begin with ``%``, then little-endian words of 32 bits whose bits 28-31 are a type: 0 and 1 are an event, OFF
and ON, with the lowest 6 bits of its time in bits 22-27, x in bits 11-21 and y in bits 0-10; 8 is the time from bit 6
on (28 bits); 10 is an external trigger, 14 and 15 are other data, which are skipped. Other types are not defined. The
time counts microseconds and wraps after 34 bits. Events before the first time word have no time and are skipped.
Format: https://docs.prophesee.ai/stable/data/encoding_formats/evt2.html

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

WORD_BYTES = 4
# where the decoder keeps the time without its lowest 6 bits (-1: none yet)
TIME_HIGH = 1


def recognises(path: Path, head: bytes) -> bool:
    """Tell by its first bytes whether a file is EVT 2.0, or a version beside 3.0 that this reader refuses by name."""
    encoding = parsed_header(head).encoding()
    return encoding is not None and not encoding.startswith("3")


class Evt2Recording(Recording):
    """An EVT 2.0 file; see the module for the format and its coordinates.

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

    format = "evt2"

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
        encoding = header.encoding()
        if encoding != "2.0":
            raise InputError(
                f"{file}: raw events of EVT {encoding or 'an unnamed version'}, expected 2.0 or 3.0; convert it with "
                "Metavision's metavision_file_to_csv or metavision_file_to_dat"
            )
        super().__init__(str(file), sensor_of(file, header) if sensor_size is None else sensor_size, orientation)
        self.size_given = sensor_size is not None
        self._file, self._data_start = file, header.data_start
        self.told_size = header.sensor_size()
        self._left_over = file.left_over(self._data_start, WORD_BYTES, "words of 4 bytes", unit="word", salvage=salvage)

    def _stored_end(self) -> int | None:
        return time_at_the_end(self._file, self._data_start, WORD_BYTES, self._decoding)

    def _decoding(self, file: ByteReader) -> Decoding:
        state, live = np.array([0, -1], np.int64), self._file.arrives
        return Decoding(file.readinto, _decode_words, state, word="<u4", as_they_come=live)

    def _decode(self, block_events: int) -> Iterator[Packed]:
        with self._file.opened(self._data_start, WORD_BYTES) as file:
            decoding = self._decoding(file)
            yield from decoding.blocks(block_events)
        if decoding.why == REFUSED:
            word = int.from_bytes(decoding.rest[:WORD_BYTES], "little")
            raise InputError(
                f"{self.path}: word {word:#010x} after event {decoding.events} is of type {word >> 28}, which EVT 2.0 "
                "does not define; the file is corrupt: salvage=True reads up to there"
            )
        if self._left_over:
            raise InputError(self._left_over)


@compiled
def _decode_words(
    words: npt.NDArray[np.uint32],
    state: npt.NDArray[np.int64],
    x: npt.NDArray[np.int16],
    y: npt.NDArray[np.int16],
    t: npt.NDArray[np.int64],
    p: npt.NDArray[np.bool_],
) -> tuple[int, int, int]:
    """Decode words, up to one of no defined type; see `Decoding`."""
    wraps, high = state[WRAPS], state[TIME_HIGH]
    base = (wraps << 34) + (high << 6)
    count = 0
    taken = 0
    why = MORE
    for index in range(len(words)):
        word = np.int64(words[index])
        kind = word >> 28
        if kind <= 1:
            if count == len(t):
                why = FULL
                break
            if high >= 0:
                x[count] = (word >> 11) & 0x7FF
                y[count] = word & 0x7FF
                t[count] = base + ((word >> 22) & 0x3F)
                p[count] = kind == 1
                count += 1
        elif kind == 8:
            new = word & 0xFFFFFFF
            wraps += high - new > 1 << 27
            high = new
            base = (wraps << 34) + (high << 6)
        elif kind not in (10, 14, 15):
            why = REFUSED
            break
        taken += 1
    state[WRAPS], state[TIME_HIGH] = wraps, high
    return taken, count, why


FORMAT = EventFormat(
    title="EVT 2.0",
    description="EVT 2.0, raw events of Prophesee cameras",
    extensions=(".raw",),
    recognises=recognises,
    open=Evt2Recording,
    options=frozenset({"salvage"}),
    forward=True,
)
