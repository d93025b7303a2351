"""AEDAT 4.0, the format of iniVation's DV: packets of events, of which each may be compressed.

The file begins with ``#!AER-DAT4.0`` and a header of FlatBuffers, see `aedat4_header`; packets follow, each a stream
number and a size in bytes (two int32, little-endian) and data, compressed or not. The data of events are the size of a
FlatBuffers table (uint32) and the table: an identifier ``EVTS``, and a vector of events of 16 bytes, each a time in
microseconds (int64), x and y (int16) and the polarity (a byte; 1 = ON).
Format: https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-4.0.html

A file that promises more packets than it holds is refused when it is opened. A packet is unpacked as a whole, and
refused beyond 128 MiB; one that is not compressed may be of any size.

Coordinates as stored: the origin is the upper left corner, x to the right and y downwards; p = True is ON.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from eventsim.dvs.aedat4_header import Aedat4Header, parsed_aedat4_header
from eventsim.dvs.aedat4_packets import EVENT_BYTES, EVENTS, HEADER_BYTES, SMALL_BYTES, SmallFrames, list_of_events
from eventsim.dvs.columns import Packed
from eventsim.dvs.compiled import compiled
from eventsim.dvs.decoding import FULL, MORE, REFUSED, Decoding, int32
from eventsim.dvs.event_format import EventFormat
from eventsim.dvs.readable_file import ReadableFile, readable_file
from eventsim.dvs.recording import AS_RECORDED, TIME_LIMIT_US, Orientation, Recording, SensorSize
from eventsim.dvs.unpacking import Unpack, unpack_lz4, unpack_zstd
from eventsim.errors import InputError
from eventsim.untrusted import printable

MAGIC = b"#!AER-DAT4.0\r\n"
MAX_HEADER_BYTES = 16 << 20
INT32 = struct.Struct("<i")
PACKET_HEADER = struct.Struct("<ii")
SIDES = ("sizeX", "sizeY")
# by the number in the header: LZ4 and Zstandard, each also at a higher level
COMPRESSIONS: dict[int, Callable[[], Unpack]] = {1: unpack_lz4, 2: unpack_lz4, 3: unpack_zstd, 4: unpack_zstd}
LZ4 = (1, 2)
# small packets are stepped over many at a time, and of large ones little is read
STEP_BYTES = 16 << 10
UNPACKED_BYTES = 64 << 10
# streams of which the last packet is remembered, and how large it may be to be looked at before all others
STREAMS = 256
MOST_LOOKED_AT = 1 << 20
# what the decoder keeps beside the wraps, which there are none of: the stream, how many events of the packet are to
# come, how many bytes of it are behind them, and how many of those that follow are not wanted
STREAM, NUMBER, BEHIND, SKIPPED = range(1, 5)


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
        given, or says no size while `sensor_size` is not given.
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
        last = np.full(STREAMS, -1, np.int64)
        header, self._data_start, self._data_end, self._damage = _check_framing(file, last)
        if self._damage and not salvage:
            raise InputError(f"{self._damage}: copy it again or pass salvage=True")
        if header.compression != 0 and header.compression not in COMPRESSIONS:
            raise InputError(
                f"{file}: compression {header.compression}, expected 0 to {max(COMPRESSIONS)}; the file is corrupt"
            )
        self._compression, self.slow = header.compression, header.compression != 0
        self._stream_id = _event_stream(file, header.streams, stream)
        self._last_packet = int(last[self._stream_id]) if self._stream_id < STREAMS else -1
        self.told_size = _size_of(header.streams[self._stream_id])
        size = sensor_size or self.told_size
        if size is None:
            raise InputError(
                f"{file}: stream {self._stream_id} says no size of the sensor; pass sensor_size=(height, width)"
            )
        super().__init__(str(file), size, orientation)
        self.size_given = sensor_size is not None

    def _stored_end(self) -> int | None:
        if self._last_packet < 0:
            return None
        with suppress(InputError, ValueError, struct.error), Path(self.path).open("rb") as file:  # reading tells
            file.seek(self._last_packet)
            _, size = PACKET_HEADER.unpack(file.read(HEADER_BYTES))
            if size > MOST_LOOKED_AT:
                return None
            data = bytes(COMPRESSIONS[self._compression]()(file.read(size)) if self._compression else file.read(size))
            begin, number, _ = list_of_events(np.frombuffer(data, np.uint8), len(data))
            if number > 0:
                time = int.from_bytes(data[begin + (number - 1) * EVENT_BYTES :][:8], "little")
                return time if time < TIME_LIMIT_US else None
        return None

    def _decode(self, block_events: int) -> Iterator[Packed]:
        state = np.zeros(5, np.int64)
        state[STREAM] = self._stream_id
        with Path(self.path).open("rb", 64 << 10) as file:
            file.seek(self._data_start)
            read = self._stored(file, state) if self._compression == 0 else self._unpacked(file, state)
            decoding = Decoding(read, _decode_packets, state, coordinates="<u2")
            yield from decoding.blocks(block_events)
        if decoding.why == REFUSED and state[NUMBER] > 0:
            # as other readers have it: a time without a sign
            time = int.from_bytes(decoding.rest[:8], "little")
            raise InputError(
                f"{self.path}: a time of {time} us, expected 63 bits; the file is corrupt: salvage=True "
                "reads up to there"
            )
        if decoding.why == REFUSED:
            raise self._refusal(f"no list of events in a packet after event {decoding.events}")
        if self._damage:
            raise InputError(self._damage)

    def _refusal(self, reason: str) -> InputError:
        return InputError(f"{self.path}: cannot be decoded as AEDAT 4.0 ({reason}); the file is truncated or corrupt")

    def _stored(self, file: BinaryIO, state: npt.NDArray[np.int64]) -> Callable[[memoryview], int]:
        """Return what reads packets as they are, up to the last sound one."""

        def read(buffer: memoryview) -> int:
            # packets of other streams are stepped over, not read
            begin = file.seek(state[SKIPPED], os.SEEK_CUR)
            state[SKIPPED] = 0
            return file.readinto(buffer[: max(self._data_end - begin, 0)])  # type: ignore[attr-defined, no-any-return]

        return read

    def _unpacked(self, file: BinaryIO, state: npt.NDArray[np.int64]) -> Callable[[memoryview], int]:
        """Return what reads the packets of the stream unpacked, each behind a header with its new size."""
        unpack = COMPRESSIONS[self._compression]()
        small = SmallFrames(self._stream_id) if self._compression in LZ4 else None
        left = memoryview(b"")
        refusal: InputError | None = None

        def more() -> bytes:
            nonlocal refusal
            pieces: list[bytes | memoryview] = []
            size = 0
            try:
                while size < UNPACKED_BYTES and file.tell() < self._data_end:
                    stream, packed = PACKET_HEADER.unpack(file.read(HEADER_BYTES))
                    if stream != self._stream_id:
                        file.seek(packed, os.SEEK_CUR)
                        continue
                    if small is not None and packed <= SMALL_BYTES:
                        file.seek(-HEADER_BYTES, os.SEEK_CUR)
                        if together := small.unpack(file, self._data_end):
                            pieces.append(together)
                            size += len(together)
                            continue
                        file.seek(HEADER_BYTES, os.SEEK_CUR)
                    data = unpack(file.read(packed))
                    pieces += [PACKET_HEADER.pack(stream, len(data)), data]
                    size += len(data)
            except (ValueError, struct.error) as error:
                # the events before it are read
                refusal = self._refusal(" ".join(str(error).split()))
            return b"".join(pieces)

        def read(buffer: memoryview) -> int:
            nonlocal left
            left, state[SKIPPED] = left[state[SKIPPED] :], 0
            if not left:
                if refusal is not None:
                    raise refusal
                left = memoryview(more())
                if not left and refusal is not None:
                    raise refusal
            got = min(len(left), len(buffer))
            buffer[:got], left = left[:got], left[got:]
            return got

        return read


@compiled
def _decode_packets(
    data: npt.NDArray[np.uint8],
    state: npt.NDArray[np.int64],
    x: npt.NDArray[np.uint16],
    y: npt.NDArray[np.uint16],
    t: npt.NDArray[np.int64],
    p: npt.NDArray[np.bool_],
) -> tuple[int, int, int]:
    """Decode packets, up to one without a sound list of events or a time that cannot be; see `Decoding`."""
    used = 0
    count = 0
    why = MORE
    while True:
        if state[NUMBER] > 0:
            most = min(state[NUMBER], (len(data) - used) // EVENT_BYTES, len(t) - count)
            taken = 0
            here, to_x, to_y, to_t, to_p = data[used:], x[count:], y[count:], t[count:], p[count:]
            for index in range(most):
                at = index * EVENT_BYTES
                time = int32(here, at) & 0xFFFFFFFF | int32(here, at + 4) << 32
                if time < 0:
                    why = REFUSED
                    break
                to_x[index] = np.uint16(here[at + 8]) | np.uint16(here[at + 9]) << 8
                to_y[index] = np.uint16(here[at + 10]) | np.uint16(here[at + 11]) << 8
                to_t[index] = time
                to_p[index] = here[at + 12] != 0
                taken += 1
            count += taken
            used += taken * EVENT_BYTES
            state[NUMBER] -= taken
            if why == MORE and state[NUMBER] > 0 and count == len(t):
                why = FULL
            if state[NUMBER] > 0:
                break
        if state[BEHIND] > 0:
            passed = min(state[BEHIND], len(data) - used)
            used += passed
            state[SKIPPED], state[BEHIND] = state[BEHIND] - passed, 0
            if state[SKIPPED] > 0:
                break
        if used + HEADER_BYTES > len(data):
            break
        stream, size = int32(data, used), int32(data, used + 4)
        body = data[used + HEADER_BYTES : used + HEADER_BYTES + size]
        if stream != state[STREAM]:
            used += HEADER_BYTES
            state[BEHIND] = size
            continue
        begin, number, known = list_of_events(body, size)
        if not known:
            break
        if begin < 0:
            why = REFUSED
            break
        used += HEADER_BYTES + begin
        state[NUMBER], state[BEHIND] = number, size - begin - number * EVENT_BYTES
    return used, count, why


def _event_stream(path: ReadableFile, streams: dict[int, dict[str, str]], asked: int | None) -> int:
    """Choose the stream of events that was asked for, or the only one."""
    found = sorted(number for number, said in streams.items() if said.get("typeIdentifier") == EVENTS)
    sizes = [f"{number} ({' x '.join(streams[number].get(side, '?')[:9] for side in SIDES)})" for number in found]
    listed = printable(", ".join(sizes))
    if not found:
        raise InputError(f"{path}: holds 0 event streams, expected 1; export the camera's events from DV")
    if asked is None and len(found) > 1:
        raise InputError(
            f"{path}: holds {len(found)} event streams, {listed}, expected 1; pass stream={min(found)} or another"
        )
    if asked is not None and asked not in found:
        raise InputError(f"{path}: stream={asked} was given, expected one of its event streams, {listed}")
    return found[0] if asked is None else asked


def _size_of(said: dict[str, str]) -> SensorSize | None:
    """Return (height, width) that the description says of a stream."""
    sides = [said.get(side, "").strip() for side in SIDES]
    if not all(re.fullmatch(r"\d{1,9}", side) for side in sides):
        return None
    width, height = (int(side) for side in sides)
    return height, width


def _check_framing(path: ReadableFile, last: npt.NDArray[np.int64]) -> tuple[Aedat4Header, int, int, str]:
    """Check version, header and the size of every packet.

    Return the header, the bytes at which the packets begin and behind the last sound one, and what is damaged; in
    `last` is written where the last packet of each stream begins.
    """
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
            header = parsed_aedat4_header(file.read(size))
        except ValueError as error:
            raise InputError(f"{path}: the header is not AEDAT 4.0's ({error}); the file is corrupt") from error
        begin, position = file.tell(), header.table_position
        end = position if 0 <= position <= path.size else path.size
        end, damage = _check_packets(path, file, begin, end, last)
        return header, begin, end, damage


def _check_packets(
    path: ReadableFile, file: BinaryIO, begin: int, end: int, last: npt.NDArray[np.int64]
) -> tuple[int, str]:
    """Step over the packets between two bytes; return where the last sound one ends, and what ends them early."""
    packets = 0
    while begin < end:
        file.seek(begin)
        data = np.frombuffer(file.read(min(STEP_BYTES, end - begin)), np.uint8)
        stepped, found, size = _step_over(data, end - begin, begin, last)
        begin += stepped
        packets += found
        if found == 0:
            left = max(end - begin - HEADER_BYTES, 0)
            return begin, (
                f"{path}: packet {packets} at byte {begin} has a size of {size} bytes and {left} are left; the file is "
                "truncated or corrupt"
            )
    return begin, ""


@compiled
def _step_over(data: npt.NDArray[np.uint8], left: int, begin: int, last: npt.NDArray[np.int64]) -> tuple[int, int, int]:
    """Step over sound packets of which the headers are in `data`, and which are among `left` bytes.

    Write where the last one of each stream begins, counted from `begin`. Return the bytes and packets, and the size
    that the next one would have, -1 where that is not there.
    """
    at = 0
    packets = 0
    size = -1
    while at + HEADER_BYTES <= len(data):
        size = int32(data, at + 4)
        if not 0 < size <= left - at - HEADER_BYTES:
            return at, packets, size
        stream = int32(data, at)
        if 0 <= stream < len(last):
            last[stream] = begin + at
        at += HEADER_BYTES + size
        packets += 1
        size = -1
    return at, packets, size


FORMAT = EventFormat(
    title="AEDAT 4.0",
    description="AEDAT 4.0 of iniVation DV",
    extensions=(".aedat4",),
    recognises=recognises,
    open=Aedat4Recording,
    options=frozenset({"salvage", "stream"}),
)
