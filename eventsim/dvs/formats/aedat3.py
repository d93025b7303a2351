"""AEDAT 3.1, the format of cAER: the recordings of IBM's DVS128 Gesture data set.

Text lines from ``#!AER-DAT3.1`` to ``#!END-HEADER``, a line that may be missing, then packets. A packet has a 28-byte
little-endian header - type and source (int16), event size, time offset, time overflow, capacity, number, valid
(int32) - and `number` events. Only polarity packets (type 1) are read: per event 32 bits (bit 0 valid, bit 1 polarity
with 1 = ON, bits 2-16 y, bits 17-31 x) and an int32 time in microseconds; the time overflow of the packet counts from
bit 31 on. Packets of other types and events marked invalid are skipped. Format:
https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-3.1.html, and libcaer's events/common.h
and events/polarity.h.

Coordinates as stored: the origin is the upper left corner, x to the right and y downwards.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from eventsim.dvs.cameras import camera_named
from eventsim.dvs.columns import Packed
from eventsim.dvs.compiled import compiled
from eventsim.dvs.decoding import FULL, MORE, REFUSED, Decoding, int32
from eventsim.dvs.event_format import EventFormat
from eventsim.dvs.readable_file import ReadableFile, readable_file
from eventsim.dvs.recording import AS_RECORDED, Orientation, Recording, SensorSize
from eventsim.errors import InputError

MAGIC = b"#!AER-DAT3"
END_OF_HEADER = b"#!END-HEADER"
MAX_HEADER_BYTES = 1 << 20
PACKET_HEADER = struct.Struct("<hhiiiiii")
HEADER_BYTES = PACKET_HEADER.size
POLARITY_TYPE = 1
# bytes that a pipe is taken to hold
ENDLESS = 1 << 62
POLARITY_BYTES = 8
STAMP_OFFSET = 4
INT32 = struct.Struct("<i")
# small packets are stepped over many at a time, and of large ones little is read
STEP_BYTES = 16 << 10
# how large the last packet may be to be looked at before all others
MOST_LOOKED_AT = 1 << 20
# no source of 16 bits
NO_SOURCE = 1 << 16
# what the decoder keeps beside the wraps, which there are none of: the source that is asked for and that of the events
# (or NO_SOURCE), how many events of the packet are to come and were there, what it adds to their times, how many bytes
# of the file are left, and how many of those that follow are not wanted
ASKED, SOURCE, NUMBER, OF, OVERFLOW, LEFT, SKIPPED = range(1, 8)


class _Packet(NamedTuple):
    """The header of a packet, field by field as in the file."""

    type: int
    source: int
    event_size: int
    stamp_offset: int
    overflow: int
    capacity: int
    number: int
    valid: int

    @property
    def impossible(self) -> bool:
        """Whether no writer makes such a header."""
        return bool(_impossible(*self))


@compiled
def _impossible(
    kind: int, _source: int, size: int, stamp_offset: int, overflow: int, capacity: int, number: int, valid: int
) -> bool:
    """Tell whether no writer makes a header of such fields."""
    if kind < 0 or size < 1 or overflow < 0 or not 0 <= valid <= number <= capacity:
        return True
    return kind == POLARITY_TYPE and (size != POLARITY_BYTES or stamp_offset != STAMP_OFFSET)


def recognises(path: Path, head: bytes) -> bool:
    """Tell by its first bytes whether a file is AEDAT 3."""
    return head.startswith(MAGIC)


class Aedat3Recording(Recording):
    """An AEDAT 3.1 file; see the module for the format and its coordinates.

    Parameters
    ----------
    path : str or path
        File to read.
    sensor_size : tuple of int, optional
        (height, width) in pixels. When not given: that of the camera named by the header's ``#Source`` line, by that of
        `stream` where there are several.
    orientation : Orientation
        How to turn the picture.
    stream : int, optional
        Number of the source whose events are read, where the file holds events of several.

    Raises
    ------
    InputError
        The file is missing or empty, of version 3.0, compressed, its header has no line of the format, or names no
        known camera while `sensor_size` is not given. While reading: a packet header that cannot be right, a packet
        that does not fit into the rest of the file, or polarity events of two sources while `stream` is not given.
    """

    format = "aedat3"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sensor_size: SensorSize | None = None,
        orientation: Orientation = AS_RECORDED,
        stream: int | None = None,
    ) -> None:
        file = self._file = readable_file(path)
        lines, self._data_start = _read_header(file)
        self._source = stream
        self._asked = NO_SOURCE if stream is None else stream
        self.size_given = sensor_size is not None
        told = _sensor_sizes(_sources(lines, stream))
        self.told_size = next(iter(told)) if len(told) == 1 else None
        size = _sensor_size(file, _sources(lines, stream)) if sensor_size is None else sensor_size
        super().__init__(str(file), size, orientation)

    def _stored_end(self) -> int | None:
        with Path(self.path).open("rb") as file:
            begin, end, last, stepped = self._data_start, os.fstat(file.fileno()).st_size, -1, 1
            while stepped > 0 and begin < end:  # or up to what reading will refuse
                file.seek(begin)
                data = np.frombuffer(file.read(STEP_BYTES), np.uint8)
                stepped, found = _step_over(data, self._asked)
                last = begin + found if found >= 0 else last
                begin += stepped
            if last < 0:
                return None
            file.seek(last)
            packet = _Packet(*PACKET_HEADER.unpack(file.read(HEADER_BYTES)))
            size = packet.number * POLARITY_BYTES
            words = np.frombuffer(file.read(size) if size <= MOST_LOOKED_AT else b"", np.uint8)
        words = words[: len(words) // POLARITY_BYTES * POLARITY_BYTES].view("<i4").reshape(-1, 2)
        stamps = words[words[:, 0] & 1 == 1, 1]
        return packet.overflow << 31 | int(stamps[-1]) if len(stamps) and stamps[-1] >= 0 else None

    def _decode(self, block_events: int) -> Iterator[Packed]:
        state = np.zeros(8, np.int64)
        state[ASKED] = self._asked
        state[SOURCE] = NO_SOURCE
        file_bytes = ENDLESS if self._file.arrives else Path(self.path).stat().st_size
        with self._file.opened(self._data_start) as file:

            def read(buffer: memoryview) -> int:
                # what is in no packet of events is stepped over, not read
                file.seek(state[SKIPPED], os.SEEK_CUR)
                state[SKIPPED] = 0
                return file.readinto(buffer)

            state[LEFT] = file_bytes - self._data_start
            decoding = Decoding(read, _decode_packets, state, as_they_come=self._file.arrives)
            yield from decoding.blocks(block_events)
        self._refuse_rest(decoding, state, file_bytes)

    def _refuse_rest(self, decoding: Decoding, state: npt.NDArray[np.int64], file_bytes: int) -> None:
        """Refuse what a decoder ended at, unless it is the end of the file."""
        rest, events = decoding.rest, decoding.events
        if decoding.why == REFUSED and state[NUMBER] > 0:
            (stamp,) = INT32.unpack_from(rest, STAMP_OFFSET)
            raise InputError(
                f"{self.path}: event {events} has the negative time {stamp}, expected 31 bits; the file is corrupt: "
                "salvage=True reads up to there"
            )
        if decoding.why == REFUSED:
            self._refuse_packet(_Packet(*PACKET_HEADER.unpack_from(rest)), state, file_bytes, events)
        if state[NUMBER] > 0:
            raise InputError(
                f"{self.path}: a packet of {state[OF]} events ends after event {events} with the file; "
                f"{self._file.cut}: copy it again or pass salvage=True"
            )
        if rest:
            raise InputError(
                f"{self.path}: {len(rest)} bytes are left over after event {events}, expected a packet header of "
                f"{PACKET_HEADER.size} bytes; {self._file.cut}: copy it again or pass salvage=True"
            )
        if self._source is not None and state[SOURCE] == NO_SOURCE:
            raise InputError(
                f"{self.path}: no polarity events of source {self._source} found; leave stream={self._source} "
                "out, or say another"
            )

    def _refuse_packet(self, packet: _Packet, state: npt.NDArray[np.int64], file_bytes: int, events: int) -> NoReturn:
        """Refuse a packet by its header."""
        left = int(state[LEFT]) - HEADER_BYTES
        start = file_bytes - int(state[LEFT])
        if packet.impossible:
            raise InputError(
                f"{self.path}: packet header at byte {start} has {packet._asdict()}, expected 0 <= valid <= number <= "
                "capacity and polarity events of 8 bytes with the time at byte 4; the file is corrupt: salvage=True "
                "reads up to there"
            )
        if packet.number * packet.event_size > left:
            raise InputError(
                f"{self.path}: the packet at byte {start} needs {packet.number * packet.event_size} bytes for its "
                f"{packet.number} events and {left} are left, after event {events}; the file is truncated: "
                "copy it again or pass salvage=True"
            )
        source = state[SOURCE]
        raise InputError(
            f"{self.path}: polarity events of sources {source} and {packet.source}, expected those of one; pass "
            f"stream={source} or stream={packet.source}"
        )


@compiled
def _header(data: npt.NDArray[np.uint8], at: int) -> tuple[int, int, int, int, int, int, int, int]:
    """Return the fields of a `_Packet`."""
    kind, source = int32(data, at) << 48 >> 48, int32(data, at) >> 16
    size, offset, overflow = int32(data, at + 4), int32(data, at + 8), int32(data, at + 12)
    capacity, number, valid = int32(data, at + 16), int32(data, at + 20), int32(data, at + 24)
    return kind, source, size, offset, overflow, capacity, number, valid


@compiled
def _decode_packets(
    data: npt.NDArray[np.uint8],
    state: npt.NDArray[np.int64],
    x: npt.NDArray[np.int16],
    y: npt.NDArray[np.int16],
    t: npt.NDArray[np.int64],
    p: npt.NDArray[np.bool_],
) -> tuple[int, int, int]:
    """Decode packets, up to a packet or an event that cannot be right; see `Decoding`."""
    used = 0
    count = 0
    why = MORE
    while why == MORE:
        if state[NUMBER] > 0:
            base = state[OVERFLOW] << 31
            most = min(state[NUMBER], (len(data) - used) // POLARITY_BYTES)
            here = data[used : used + most * POLARITY_BYTES]
            taken = 0
            for index in range(most):
                at = index * POLARITY_BYTES
                word, stamp = int32(here, at), int32(here, at + STAMP_OFFSET)
                if word & 1:
                    if count == len(t):
                        why = FULL
                        break
                    if stamp < 0:
                        why = REFUSED
                        break
                    x[count] = word >> 17 & 0x7FFF
                    y[count] = word >> 2 & 0x7FFF
                    t[count] = base | stamp
                    p[count] = word & 2 != 0
                    count += 1
                taken += 1
            state[NUMBER] -= taken
            state[LEFT] -= taken * POLARITY_BYTES
            used += taken * POLARITY_BYTES
            if state[NUMBER] > 0:
                break
            continue
        if used + HEADER_BYTES > len(data):
            break
        kind, source, size, offset, overflow, capacity, number, valid = _header(data, used)
        if _impossible(kind, source, size, offset, overflow, capacity, number, valid):
            why = REFUSED
        elif kind == POLARITY_TYPE and (state[ASKED] == NO_SOURCE or source == state[ASKED]):
            # of events those that are there are read before a packet that is cut is refused
            if state[SOURCE] not in (NO_SOURCE, source):
                why = REFUSED
            else:
                state[SOURCE], state[OVERFLOW], state[NUMBER], state[OF] = source, overflow, number, number
                state[LEFT] -= HEADER_BYTES
                used += HEADER_BYTES
        elif number * size > state[LEFT] - HEADER_BYTES:
            why = REFUSED
        else:
            state[LEFT] -= HEADER_BYTES + number * size
            state[SKIPPED] = max(used + HEADER_BYTES + number * size - len(data), 0)
            used = min(used + HEADER_BYTES + number * size, len(data))
            if state[SKIPPED] > 0:
                break
    return used, count, why


@compiled
def _step_over(data: npt.NDArray[np.uint8], asked: int) -> tuple[int, int]:
    """Step over packets of which the headers are in `data`, up to one that cannot be right.

    Return the bytes, which may be more than there are here, and where the last packet of events of the source begins,
    -1 without one.
    """
    at, last = 0, -1
    while at + HEADER_BYTES <= len(data):
        kind, source, size, offset, overflow, capacity, number, valid = _header(data, at)
        if _impossible(kind, source, size, offset, overflow, capacity, number, valid):
            break
        if kind == POLARITY_TYPE and number > 0 and asked in (NO_SOURCE, source):
            last = at
        at += HEADER_BYTES + number * size
    return at, last


def _read_header(path: ReadableFile) -> tuple[list[str], int]:
    """Read the header's lines, check version and encoding, and find the byte at which the packets begin."""
    head = path.beginning(MAX_HEADER_BYTES)
    lines = head.split(b"\n", 1)
    if not lines[0].startswith(b"#!AER-DAT3.1"):
        raise InputError(
            f"{path}: {lines[0][:16].decode('latin-1').strip()!r}, expected '#!AER-DAT3.1'; convert the recording with "
            "jAER or DV"
        )
    end = _end_of_header(path, head)
    text = head[:end].decode("latin-1").splitlines()
    formats = [line.split(":", 1)[1].strip() for line in text if line.startswith("#Format:")]
    if not formats:
        raise InputError(
            f"{path}: no line '#Format:' in the header, expected '#Format: RAW'; if the packets are not compressed, "
            "write that line behind the first"
        )
    if [name.upper() for name in formats] != ["RAW"]:
        raise InputError(f"{path}: the header has Format {formats}, expected RAW; save it again without compression")
    return text, end


def _end_of_header(path: ReadableFile, head: bytes) -> int:
    """Find the byte behind the header: behind the line that says so, else where the first packet begins."""
    mark = head.find(END_OF_HEADER)
    if mark >= 0 and (newline := head.find(b"\n", mark)) >= 0:
        return newline + 1
    end = 0
    while head[end : end + 1] == b"#" and (newline := head.find(b"\n", end)) >= 0:
        end = newline + 1
    begin = head[end : end + PACKET_HEADER.size]
    if len(begin) < PACKET_HEADER.size or _Packet(*PACKET_HEADER.unpack(begin)).impossible:
        raise InputError(
            f"{path}: no line {END_OF_HEADER.decode()} in its first {len(head)} bytes, and no packet behind its "
            f"{len(head[:end].splitlines())} lines of text; the file is truncated or corrupt"
        )
    return end


def _sources(lines: list[str], stream: int | None) -> dict[str, str]:
    """Return the cameras of the header's source lines by their numbers: that of the stream, or all."""
    said = [line.removeprefix("#Source").split(":", 1) for line in lines if line.startswith("#Source ") and ":" in line]
    sources = {number.strip(): camera.strip() for number, camera in said}
    # a number that no line has: its events may be there all the same
    return {str(stream): sources[str(stream)]} if str(stream) in sources else sources


def _sensor_sizes(sources: dict[str, str]) -> set[SensorSize]:
    """Return the sizes of the cameras that are known."""
    return {camera.sensor_size for camera in map(camera_named, sources.values()) if camera is not None}


def _sensor_size(path: ReadableFile, sources: dict[str, str]) -> SensorSize:
    """Find the size of the camera that the header's source lines name."""
    sizes = _sensor_sizes(sources)
    if len(sizes) != 1:
        choose = f"stream={' or stream='.join(sources)}, or " if len(sizes) > 1 else ""
        raise InputError(
            f"{path}: the header names the sources {list(sources.values())}, expected one DVS128 or DAVIS; pass "
            f"{choose}sensor_size=(height, width)"
        )
    return sizes.pop()


FORMAT = EventFormat(
    title="AEDAT 3.1",
    description="AEDAT 3.1 of cAER: DVS128 Gesture",
    extensions=(".aedat",),
    recognises=recognises,
    open=Aedat3Recording,
    options=frozenset({"stream"}),
    forward=True,
)
