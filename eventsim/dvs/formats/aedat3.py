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
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from eventsim.dvs.blocks import sliced
from eventsim.dvs.cameras import camera_named
from eventsim.dvs.compiled import compiled
from eventsim.dvs.event_format import EventFormat
from eventsim.dvs.readable_file import ReadableFile, readable_file
from eventsim.dvs.recording import AS_RECORDED, Columns, Orientation, Recording, SensorSize
from eventsim.errors import InputError

MAGIC = b"#!AER-DAT3"
END_OF_HEADER = b"#!END-HEADER"
MAX_HEADER_BYTES = 1 << 20
PACKET_HEADER = struct.Struct("<hhiiiiii")
HEADER_BYTES = PACKET_HEADER.size
READ_BYTES = 512 << 10
POLARITY_TYPE = 1
POLARITY_BYTES = 8
STAMP_OFFSET = 4


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
        return (
            self.type < 0
            or self.event_size < 1
            or self.overflow < 0
            or not 0 <= self.valid <= self.number <= self.capacity
            or (self.type == POLARITY_TYPE and self.event_size != POLARITY_BYTES)
            or (self.type == POLARITY_TYPE and self.stamp_offset != STAMP_OFFSET)
        )


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
        (height, width) in pixels. When not given: that of the camera named by the header's ``#Source`` line.
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
        file = readable_file(path)
        lines, self._data_start = _read_header(file)
        self._source = stream
        self.size_given = sensor_size is not None
        told = _sensor_sizes(lines)
        self.told_size = next(iter(told)) if len(told) == 1 else None
        super().__init__(str(file), _sensor_size(file, lines) if sensor_size is None else sensor_size, orientation)

    def _decode(self, block_events: int) -> Iterator[Columns]:
        decoded = 0
        source = self._source
        found = False
        file_bytes = Path(self.path).stat().st_size
        with Path(self.path).open("rb") as file:
            file.seek(self._data_start)
            while True:
                columns, last = self._whole_packets(file, source)
                if columns is not None:
                    decoded += len(columns.t)
                    source, found = (source, found) if last < 0 else (last, True)
                    yield from sliced(columns, block_events)
                    continue
                # what is left is damaged, of another source, or longer than was read for
                if (packet := self._next_packet(file, file_bytes, decoded)) is None:
                    break
                other = self._source is not None and packet.source != self._source
                if packet.type != POLARITY_TYPE or other:
                    file.seek(packet.number * packet.event_size, os.SEEK_CUR)
                    continue
                if source not in (None, packet.source):
                    raise InputError(
                        f"{self.path}: polarity events of sources {source} and {packet.source}, expected those of one; "
                        f"pass stream={source} or stream={packet.source}"
                    )
                source, found = packet.source, True
                remaining = min(packet.number, (file_bytes - file.tell()) // POLARITY_BYTES)
                cut = remaining < packet.number
                while remaining:
                    take = min(remaining, block_events)
                    columns, refusal = self._polarity(file.read(take * POLARITY_BYTES), packet.overflow, decoded)
                    yield columns
                    if refusal is not None:
                        raise refusal
                    decoded += len(columns.t)
                    remaining -= take
                if cut:
                    raise InputError(
                        f"{self.path}: a packet of {packet.number} events ends after event {decoded} with the file; "
                        "the file is truncated: copy it again or pass salvage=True"
                    )
        if self._source is not None and not found:
            raise InputError(f"{self.path}: no polarity events of source {self._source} found; pass another stream")

    def _whole_packets(self, file: BinaryIO, source: int | None) -> tuple[Columns | None, int]:
        """Decode the next packets that lie in the file whole and need no word; None where the next one is no such.

        Also return the source of polarity events among them, -1 without any.
        """
        start = file.tell()
        data = np.frombuffer(file.read(READ_BYTES), np.uint8)
        most = len(data) // POLARITY_BYTES
        x, y = np.empty(most, np.int32), np.empty(most, np.int32)
        t, p = np.empty(most, np.int64), np.empty(most, np.bool_)
        asked = -1 if self._source is None else self._source
        used, count, last = _decode_packets(data, asked, -1 if source is None else source, x, y, t, p)
        file.seek(start + used)
        return (Columns(x[:count], y[:count], t[:count], p[:count]) if used else None), last

    def _next_packet(self, file: BinaryIO, file_bytes: int, decoded: int) -> _Packet | None:
        """Read and check one packet header; None at the end of the file."""
        start = file.tell()
        header = file.read(PACKET_HEADER.size)
        if not header:
            return None
        if len(header) < PACKET_HEADER.size:
            raise InputError(
                f"{self.path}: {len(header)} bytes are left over after event {decoded}, expected a packet header of "
                f"{PACKET_HEADER.size} bytes; the file is truncated"
            )
        packet = _Packet(*PACKET_HEADER.unpack(header))
        if packet.impossible:
            raise InputError(
                f"{self.path}: packet header at byte {start} has {packet._asdict()}, expected 0 <= valid <= number <= "
                "capacity and polarity events of 8 bytes with the time at byte 4; the file is corrupt"
            )
        needed, left = packet.number * packet.event_size, file_bytes - start - PACKET_HEADER.size
        # of events those that are there are read before the packet is refused
        if needed > left and packet.type != POLARITY_TYPE:
            raise InputError(
                f"{self.path}: the packet at byte {start} needs {needed} bytes for its {packet.number} events and "
                f"{left} are left, after event {decoded}; the file is truncated"
            )
        return packet

    def _polarity(self, data: bytes, overflow: int, decoded: int) -> tuple[Columns, InputError | None]:
        """Take polarity events apart, drop the invalid ones, and end before one whose time cannot be right."""
        words = np.frombuffer(data, "<u4").reshape(-1, 2).astype(np.int64)
        words = words[(words[:, 0] & 1) != 0]
        refusal = None
        if len(words) and words[:, 1].max() >= 2**31:
            at = int(np.argmax(words[:, 1] >= 2**31))
            refusal = InputError(
                f"{self.path}: event {decoded + at} has the negative time {words[at, 1] - 2**32}, expected 31 bits; "
                "the file is corrupt"
            )
            words = words[:at]
        bits, stamps = words[:, 0], words[:, 1]
        return Columns(bits >> 17, (bits >> 2) & 0x7FFF, (overflow << 31) | stamps, (bits & 2) != 0), refusal


@compiled
def _int32(data: npt.NDArray[np.uint8], at: int) -> Any:
    """Read a little-endian integer of 32 bits."""
    value: Any = np.int64(data[at]) | np.int64(data[at + 1]) << 8 | np.int64(data[at + 2]) << 16
    value |= np.int64(np.int8(data[at + 3])) << 24
    return value


@compiled
def _decode_packets(
    data: npt.NDArray[np.uint8],
    asked: int,
    source: int,
    x: npt.NDArray[np.int32],
    y: npt.NDArray[np.int32],
    t: npt.NDArray[np.int64],
    p: npt.NDArray[np.bool_],
) -> tuple[int, int, int]:
    """Decode whole packets; return bytes and events, and the source of the events or -1.

    It ends before a packet that is not whole or cannot be right, or holds polarity events of another source than
    `source` (-1: any) while none is asked for.
    """
    used = 0
    count = 0
    last = -1
    while used + HEADER_BYTES <= len(data):
        kind, by = _int32(data, used) & 0xFFFF, _int32(data, used) >> 16 & 0xFFFF
        size, offset, overflow = _int32(data, used + 4), _int32(data, used + 8), _int32(data, used + 12)
        capacity, number, valid = _int32(data, used + 16), _int32(data, used + 20), _int32(data, used + 24)
        polarity = kind == POLARITY_TYPE
        if kind >= 0x8000 or by >= 0x8000 or size < 1 or overflow < 0 or not 0 <= valid <= number <= capacity:
            break
        if polarity and (size != POLARITY_BYTES or offset != STAMP_OFFSET):
            break
        if number > (len(data) - used - HEADER_BYTES) // size:
            break
        if polarity and (asked < 0 or by == asked):
            if asked < 0 and source >= 0 and by != source:
                break
            before = count
            sound = True
            for index in range(number):
                at = used + HEADER_BYTES + index * POLARITY_BYTES
                word, stamp = _int32(data, at), _int32(data, at + STAMP_OFFSET)
                if word & 1:
                    sound = sound and stamp >= 0
                    x[count] = word >> 17 & 0x7FFF
                    y[count] = word >> 2 & 0x7FFF
                    t[count] = overflow << 31 | stamp
                    p[count] = word & 2 != 0
                    count += 1
            if not sound:
                count = before
                break
            source = last = by
        used += HEADER_BYTES + number * size
    return used, count, last


def _read_header(path: ReadableFile) -> tuple[list[str], int]:
    """Read the header's lines, check version and encoding, and find the byte at which the packets begin."""
    with path.path.open("rb") as file:
        head = file.read(MAX_HEADER_BYTES)
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
    if formats != ["RAW"]:
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


def _sources(lines: list[str]) -> list[str]:
    return [line.split(":", 1)[1].strip() for line in lines if line.startswith("#Source ") and ":" in line]


def _sensor_sizes(lines: list[str]) -> set[SensorSize]:
    """Return the sizes of the cameras that the header's source lines name."""
    return {camera.sensor_size for camera in map(camera_named, _sources(lines)) if camera is not None}


def _sensor_size(path: ReadableFile, lines: list[str]) -> SensorSize:
    """Find the size of the camera that the header's source lines name."""
    sizes = _sensor_sizes(lines)
    if len(sizes) != 1:
        names = _sources(lines)
        raise InputError(
            f"{path}: the header names the sources {names}, expected one DVS128 or DAVIS; pass "
            "sensor_size=(height, width)"
        )
    return sizes.pop()


FORMAT = EventFormat(
    title="AEDAT 3.1",
    description="AEDAT 3.1 of cAER: DVS128 Gesture",
    extensions=(".aedat",),
    recognises=recognises,
    open=Aedat3Recording,
    options=frozenset({"stream"}),
)
