"""AEDAT 4.0, the format of iniVation's DV, decoded by the package `aedat` packet by packet.

The file begins with ``#!AER-DAT4.0`` and a FlatBuffers header (compression, position of the data table, an XML
description); packets follow, each a stream number and a size in bytes (two int32, little-endian) and compressed data.
Format: https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-4.0.html

The decoder trusts the file: a size that is wrong makes it reserve gigabytes, and a description that is not UTF-8 ends
the process. So header and sizes are checked here before the decoder sees the file.

Coordinates as stored: the origin is the upper left corner, x to the right and y downwards; p = True is ON.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import aedat
import numpy as np

from eventsim.dvs.event_format import EventFormat
from eventsim.dvs.readable_file import ReadableFile, readable_file
from eventsim.dvs.recording import AS_RECORDED, Columns, Orientation, Recording, SensorSize
from eventsim.errors import InputError

MAGIC = b"#!AER-DAT4.0\r\n"
MAX_HEADER_BYTES = 16 << 20
INT32 = struct.Struct("<i")
PACKET_HEADER = struct.Struct("<ii")
# positions of the header's fields in its FlatBuffers vtable: compression, dataTablePosition and infoNode
COMPRESSION_SLOT = 4
TABLE_POSITION_SLOT = 6
DESCRIPTION_SLOT = 8

Result = TypeVar("Result")


def recognises(path: Path, head: bytes) -> bool:
    """Tell by its first bytes whether a file is AEDAT 4."""
    return head.startswith(MAGIC[:10])


class Aedat4Recording(Recording):
    """An AEDAT 4.0 file with one stream of events; other streams (frames, IMU, triggers) are skipped.

    Parameters
    ----------
    path : str or path
        File to read.
    sensor_size : tuple of int, optional
        (height, width) in pixels; the file's own when not given.
    orientation : Orientation
        How to turn the picture.

    Raises
    ------
    InputError
        The file is missing, empty, truncated or corrupt, or holds no stream of events or more than one.
    """

    format = "aedat4"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sensor_size: SensorSize | None = None,
        orientation: Orientation = AS_RECORDED,
    ) -> None:
        file = readable_file(path)
        _check_framing(file)
        streams = _decoded(str(file), lambda: aedat.Decoder(str(file)).id_to_stream())
        found = {number: stream for number, stream in streams.items() if stream["type"] == "events"}
        if len(found) != 1:
            raise InputError(
                f"{file}: holds {len(found)} event streams, expected 1; export one camera's events from DV"
            )
        ((self._stream_id, stream),) = found.items()
        size = (int(stream["height"]), int(stream["width"])) if sensor_size is None else sensor_size
        super().__init__(str(file), size, orientation)

    def _decode(self, block_events: int) -> Iterator[Columns]:
        decoder = _decoded(self.path, lambda: aedat.Decoder(self.path))
        while (packet := _decoded(self.path, lambda: next(decoder, None))) is not None:
            if packet["stream_id"] != self._stream_id:
                continue
            events: Any = packet["events"]
            for start in range(0, len(events), block_events):
                block = events[start : start + block_events]
                t = block["t"]
                if t.max() > np.iinfo(np.int64).max:
                    raise InputError(f"{self.path}: a time of {t.max()} us, expected 63 bits; the file is corrupt")
                yield Columns(block["x"], block["y"], t.astype(np.int64), block["p"].astype(np.bool_))


def _decoded(path: str, decode: Callable[[], Result]) -> Result:
    """Call the decoder; whatever it raises about the file becomes an InputError."""
    try:
        return decode()
    except BaseException as error:
        # a panic of the decoder's Rust code arrives as PanicException, which is no Exception and cannot be imported
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: cannot be decoded as AEDAT 4.0 ({reason}); the file is truncated or corrupt"
        ) from error


def _check_framing(path: ReadableFile) -> None:
    """Check version, header and the size of every packet against the bytes that the file has."""
    with path.path.open("rb") as file:
        magic = file.read(len(MAGIC))
        if magic != MAGIC:
            raise InputError(
                f"{path}: begins with {magic.decode('latin-1').strip()!r}, expected '#!AER-DAT4.0'; export it with DV"
            )
        prefix = file.read(INT32.size)
        size = INT32.unpack(prefix)[0] if len(prefix) == INT32.size else -1
        if not 0 < size <= min(MAX_HEADER_BYTES, path.size - file.tell()):
            raise InputError(
                f"{path}: header of {size} bytes in a file of {path.size}; the file is truncated or corrupt"
            )
        try:
            table_position = _check_header(file.read(size))
        except (struct.error, UnicodeDecodeError) as error:
            raise InputError(f"{path}: the header is not AEDAT 4.0's ({error}); the file is corrupt") from error
        _check_packets(path, file, table_position if 0 <= table_position <= path.size else path.size)


def _check_header(header: bytes) -> int:
    """Check that the description is UTF-8 and return the position of the data table; raises what struct raises."""

    def field(slot: int) -> int:
        # vtable entries are 16-bit offsets into the table; 0 or a short vtable mean that the field has its default
        entry = struct.unpack_from("<H", header, vtable + slot)[0] if slot < vtable_bytes else 0
        return table + int(entry) if entry else -1

    (table,) = struct.unpack_from("<I", header)
    vtable = table - struct.unpack_from("<i", header, table)[0]
    if vtable < 0:
        raise struct.error("vtable before the header")
    (vtable_bytes,) = struct.unpack_from("<H", header, vtable)
    description = field(DESCRIPTION_SLOT)
    if description < 0:
        raise struct.error("no description of the streams")
    text = description + struct.unpack_from("<I", header, description)[0]
    (length,) = struct.unpack_from("<I", header, text)
    if length > len(header) - text - 4:
        raise struct.error("description longer than the header")
    header[text + 4 : text + 4 + length].decode("utf-8")
    compression = field(COMPRESSION_SLOT)
    if compression >= 0:
        # the decoder panics, with lines of its own on stderr, where this field lies beyond the header
        struct.unpack_from("<i", header, compression)
    position = field(TABLE_POSITION_SLOT)
    return -1 if position < 0 else int(struct.unpack_from("<q", header, position)[0])


def _check_packets(path: ReadableFile, file: BinaryIO, end: int) -> None:
    """Step over the packets from the file's position to `end`."""
    packets = 0
    while (start := file.tell()) < end:
        header = file.read(min(PACKET_HEADER.size, end - start))
        size = PACKET_HEADER.unpack(header)[1] if len(header) == PACKET_HEADER.size else -1
        left = end - file.tell()
        if not 0 < size <= left:
            raise InputError(
                f"{path}: packet {packets} at byte {start} has a size of {size} bytes and {left} are left; the file is "
                "truncated or corrupt"
            )
        file.seek(size, os.SEEK_CUR)
        packets += 1


FORMAT = EventFormat(
    title="AEDAT 4.0",
    description="AEDAT 4.0 of iniVation DV",
    extensions=(".aedat4",),
    recognises=recognises,
    open=Aedat4Recording,
)
