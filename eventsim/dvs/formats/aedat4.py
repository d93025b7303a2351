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
import numpy.typing as npt

from eventsim.dvs.event_format import EventFormat
from eventsim.dvs.readable_file import ReadableFile, readable_file
from eventsim.dvs.recording import AS_RECORDED, BLOCK_EVENTS, Columns, Orientation, Recording, SensorSize
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
    """The events of an AEDAT 4.0 file; other streams (frames, IMU, triggers) are skipped.

    Parameters
    ----------
    path : str or path
        File to read.
    sensor_size : tuple of int, optional
        (height, width) in pixels; the file's own when not given.
    orientation : Orientation
        How to turn the picture.
    stream : int, optional
        Number of the stream whose events are read, where the file holds several of events.
    salvage : bool
        Whether damage behind the header is left to the reading, which ends there.

    Raises
    ------
    InputError
        The file is missing, empty, truncated or corrupt, holds no stream of events, or several while `stream` is not
        given.
    """

    format = "aedat4"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sensor_size: SensorSize | None = None,
        orientation: Orientation = AS_RECORDED,
        stream: int | None = None,
        salvage: bool = False,
    ) -> None:
        file = readable_file(path)
        self._sound_packets, self._damage = _check_framing(file)
        if self._damage and not salvage:
            raise InputError(f"{self._damage}: copy it again or pass salvage=True")
        streams = _decoded(str(file), lambda: aedat.Decoder(str(file)).id_to_stream())
        self._stream_id = _event_stream(file, streams, stream)
        mine = streams[self._stream_id]
        self.told_size = (int(mine["height"]), int(mine["width"]))
        super().__init__(str(file), self.told_size if sensor_size is None else sensor_size, orientation)
        self.size_given = sensor_size is not None

    def _decode(self, block_events: int) -> Iterator[Columns]:
        decoder = _decoded(self.path, lambda: aedat.Decoder(self.path))
        # the decoder is never shown a packet that the file does not hold whole
        left = self._sound_packets
        while left:
            packets, events, refusal = self._packets(decoder, left)
            left -= packets
            for start in range(0, len(events), block_events):
                block = events[start : start + block_events]
                t = block["t"]
                if t.max() > np.iinfo(np.int64).max:
                    raise InputError(f"{self.path}: a time of {t.max()} us, expected 63 bits; the file is corrupt")
                yield Columns(block["x"], block["y"], t.astype(np.int64), block["p"].astype(np.bool_))
            if refusal is not None:
                raise refusal
        if self._damage:
            raise InputError(self._damage)

    def _packets(self, decoder: Any, left: int) -> tuple[int, npt.NDArray[Any], InputError | None]:
        """Decode packets until they hold a block of events: many cameras send packets of some ten.

        Return how many packets (at most `left`, all of them at the end), their events, and what refused the next one.
        """
        found: list[npt.NDArray[Any]] = []
        packets = events = 0
        refusal = None
        try:
            while packets < left and events < BLOCK_EVENTS:
                packet = next(decoder, None)
                if packet is None:
                    packets = left
                    break
                packets += 1
                if packet["stream_id"] == self._stream_id:
                    found.append(packet["events"])
                    events += len(found[-1])
        except BaseException as error:  # noqa: BLE001 - told apart by _refusal
            refusal = _refusal(self.path, error)
        if not found:
            return packets, np.empty(0, np.uint8), refusal
        # several times faster than to concatenate arrays of fields
        joined = np.frombuffer(b"".join(part.tobytes() for part in found), found[0].dtype)
        return packets, joined, refusal


def _event_stream(path: ReadableFile, streams: dict[int, Any], asked: int | None) -> int:
    """Choose the stream of events that was asked for, or the only one."""
    found = {number: stream for number, stream in streams.items() if stream["type"] == "events"}
    listed = ", ".join(f"{number} ({each['width']} x {each['height']})" for number, each in sorted(found.items()))
    if not found:
        raise InputError(f"{path}: holds 0 event streams, expected 1; export the camera's events from DV")
    if asked is None and len(found) > 1:
        raise InputError(
            f"{path}: holds {len(found)} event streams, {listed}, expected 1; pass stream={min(found)} or another"
        )
    if asked is not None and asked not in found:
        raise InputError(f"{path}: stream={asked} was given, expected one of its event streams, {listed}")
    return min(found) if asked is None else asked


def _decoded(path: str, decode: Callable[[], Result]) -> Result:
    """Call the decoder; whatever it raises about the file becomes an InputError."""
    try:
        return decode()
    except BaseException as error:
        raise _refusal(path, error) from error


def _refusal(path: str, error: BaseException) -> InputError:
    """Put what the decoder raised into words; what it did not raise goes on."""
    # a panic of the decoder's Rust code arrives as PanicException, which is no Exception and cannot be imported
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    reason = " ".join(str(error).split())
    return InputError(f"{path}: cannot be decoded as AEDAT 4.0 ({reason}); the file is truncated or corrupt")


def _check_framing(path: ReadableFile) -> tuple[int, str]:
    """Check version, header and the size of every packet; return the packets that are whole, and what is damaged."""
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
        return _check_packets(path, file, table_position if 0 <= table_position <= path.size else path.size)


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


def _check_packets(path: ReadableFile, file: BinaryIO, end: int) -> tuple[int, str]:
    """Step over the packets from the file's position to `end`; return how many there are, and what ends them early."""
    packets = 0
    while (start := file.tell()) < end:
        header = file.read(min(PACKET_HEADER.size, end - start))
        size = PACKET_HEADER.unpack(header)[1] if len(header) == PACKET_HEADER.size else -1
        left = end - file.tell()
        if not 0 < size <= left:
            return packets, (
                f"{path}: packet {packets} at byte {start} has a size of {size} bytes and {left} are left; the file is "
                "truncated or corrupt"
            )
        file.seek(size, os.SEEK_CUR)
        packets += 1
    return packets, ""


FORMAT = EventFormat(
    title="AEDAT 4.0",
    description="AEDAT 4.0 of iniVation DV",
    extensions=(".aedat4",),
    recognises=recognises,
    open=Aedat4Recording,
    options=frozenset({"salvage", "stream"}),
)
