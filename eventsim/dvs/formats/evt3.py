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

from eventsim.dvs.blocks import sliced
from eventsim.dvs.compiled import compiled
from eventsim.dvs.event_format import EventFormat
from eventsim.dvs.prophesee_header import parsed_header, read_header, sensor_of
from eventsim.dvs.readable_file import readable_file
from eventsim.dvs.recording import AS_RECORDED, BLOCK_EVENTS, Columns, Orientation, Recording, SensorSize
from eventsim.errors import InputError

WORD_BYTES = 2
MOST_EVENTS_A_WORD = 12
# what the decoder keeps from word to word; high is -1 before its first word
ROW, HIGH, LOW, WRAPS, VECTOR_X, VECTOR_P = range(6)


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
        self.told_size = header.sensor_size()
        self._data_start = header.data_start
        self._left_over = file.left_over(self._data_start, WORD_BYTES, "words of 2 bytes", unit="word", salvage=salvage)

    def _decode(self, block_events: int) -> Iterator[Columns]:
        state = np.array([0, -1, 0, 0, 0, 0], np.int64)
        decoded = 0
        room = BLOCK_EVENTS + MOST_EVENTS_A_WORD
        with Path(self.path).open("rb") as file:
            file.seek(self._data_start)
            while data := file.read(WORD_BYTES * BLOCK_EVENTS):
                words = np.frombuffer(data, "<u2", len(data) // WORD_BYTES).astype(np.uint16, copy=False)
                taken = 0
                while taken < len(words):
                    x, y = np.empty(room, np.int32), np.empty(room, np.uint16)
                    t, p = np.empty(room, np.int64), np.empty(room, np.bool_)
                    before = int(state[WRAPS])
                    used, count, bad = _decode_words(words[taken:], state, x, y, t, p)
                    taken += used
                    full = int(state[WRAPS]) - before
                    yield from sliced(Columns(x[:count], y[:count], t[:count], p[:count], full), block_events)
                    decoded += count
                    if bad:
                        raise InputError(
                            f"{self.path}: word {int(words[taken]):#06x} after event {decoded} is of type "
                            f"{int(words[taken]) >> 12}, which EVT 3.0 does not define; the file is corrupt"
                        )
        if self._left_over:
            raise InputError(self._left_over)


@compiled
def _decode_words(
    words: npt.NDArray[np.uint16],
    state: npt.NDArray[np.int64],
    x: npt.NDArray[np.int32],
    y: npt.NDArray[np.uint16],
    t: npt.NDArray[np.int64],
    p: npt.NDArray[np.bool_],
) -> tuple[int, int, bool]:
    """Decode while there is room; return the words and events, and whether the next word is of no defined type."""
    row, high, low, wraps = state[ROW], state[HIGH], state[LOW], state[WRAPS]
    vector_x, vector_p = state[VECTOR_X], state[VECTOR_P]
    now = (wraps << 24) + (high << 12) + low
    count = 0
    index = 0
    bad = False
    while index < len(words) and count + MOST_EVENTS_A_WORD <= len(t):
        word = np.int64(words[index])
        kind = word >> 12
        if kind == 2:
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
            valid = word & ((1 << width) - 1)
            if high >= 0:
                for bit in range(width):
                    if (valid >> bit) & 1:
                        x[count] = vector_x + bit
                        y[count] = row
                        t[count] = now
                        p[count] = vector_p
                        count += 1
            vector_x += width
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
            bad = True
            break
        index += 1
    state[ROW], state[HIGH], state[LOW], state[WRAPS] = row, high, low, wraps
    state[VECTOR_X], state[VECTOR_P] = vector_x, vector_p
    return index, count, bad


FORMAT = EventFormat(
    title="EVT 3.0",
    description="EVT 3.0, raw events of Prophesee cameras",
    extensions=(".raw",),
    recognises=recognises,
    open=Evt3Recording,
    options=frozenset({"salvage"}),
)
