"""The packets of AEDAT 4.0: where their events lie, and small ones of LZ4, of which one call unpacks many.

To call a library costs as much as to unpack a few hundred bytes. Small packets, as they lie one behind the other in the
file, are therefore made one frame, where they lie: the block of each stays, and what is between two of them, the end of
a frame, the header of a packet, the beginning of the next frame, becomes a block that is stored as it is. Its last
bytes are where the header of the unpacked packet will be. No frame says how long it becomes, but the table in it does,
and that this is true is known by a mark in these bytes, of chance, that no file can hold. What is damaged, or anything
else than a frame of one block, is unpacked alone.
"""

from __future__ import annotations

import os
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from eventsim.dvs.compiled import compiled
from eventsim.dvs.decoding import int32

# stream and size, 32 bits each
HEADER_BYTES = 8
EVENT_BYTES = 16
EVENTS = "EVTS"
EVENTS_WORD = int.from_bytes(EVENTS.encode(), "little")

SMALL_BYTES = 8 << 10
"""Packets up to this size are worth being unpacked together."""
TOGETHER_BYTES = 64 << 10
MOST_UNPACKED = 1 << 20
# so often none could be; others of the file are likely to be as they are
PATIENCE = 8

# of LZ4: how a frame and each of its blocks begin, and how a frame ends
FRAME_BYTES, BLOCK_BYTES, END_BYTES = 7, 4, 4
STORED = 0x80
# what is before the first packet is a block that holds a mark alone, and begins so far before the packet
SPARE_BYTES = BLOCK_BYTES


class SmallFrames:
    """Unpacks runs of small packets of one stream, each a frame of LZ4.

    Parameters
    ----------
    stream : int
        Number of the stream.
    """

    def __init__(self, stream: int) -> None:
        import lz4.frame  # noqa: PLC0415 - of compressed files alone

        self._lz4 = lz4.frame
        self._stream = stream
        # as the library writes them: of blocks that rest on one another, which a single one does not, and of others
        self._begins = np.array([list(self._begin(linked)) for linked in (False, True)], np.uint8)
        self._mark = np.frombuffer(os.urandom(HEADER_BYTES), np.uint8)
        self._buffer = np.empty(SPARE_BYTES + TOGETHER_BYTES, np.uint8)
        self._between = np.empty(TOGETHER_BYTES // (HEADER_BYTES + FRAME_BYTES + BLOCK_BYTES + END_BYTES), np.int64)
        self._context = self._lz4.create_decompression_context()
        self._left = PATIENCE

    def _begin(self, linked: bool) -> bytes:
        context, size = self._lz4.create_compression_context(), self._lz4.BLOCKSIZE_MAX64KB
        begin: bytes = self._lz4.compress_begin(context, block_size=size, block_linked=linked, auto_flush=True)
        return begin

    def unpack(self, file: BinaryIO, end: int) -> memoryview:
        """Unpack the next packets, where they are several.

        Parameters
        ----------
        file : binary file
            Stands at a small packet of the stream; left behind those that were unpacked.
        end : int
            Where the packets end in the file.

        Returns
        -------
        memoryview
            Each packet behind a header with its new size, to which what comes before the next header is counted;
            nothing where none could be unpacked so.
        """
        if not self._left:
            return memoryview(b"")
        begin = file.tell()
        room = self._buffer[SPARE_BYTES:][: end - begin]
        got = file.readinto(room.data)  # type: ignore[attr-defined]
        data = self._buffer[: SPARE_BYTES + got]
        packets, first, last = _join(data, self._stream, self._begins, self._mark, self._between)
        if packets > 1:
            unpacked = self._unpacked(data[first:last])
            whole = np.frombuffer(unpacked, np.uint8)
            if _divide(whole, packets, self._stream, self._mark, self._between):
                file.seek(begin + last - SPARE_BYTES)
                return memoryview(unpacked)
        self._left -= 1
        file.seek(begin)
        return memoryview(b"")

    def _unpacked(self, frame: npt.NDArray[np.uint8]) -> bytearray:
        """Return what is in a frame, as far as it can be unpacked and is not too much."""
        unpack = self._lz4.decompress_chunk
        try:
            data, _, whole = unpack(self._context, frame.data, max_length=MOST_UNPACKED, return_bytearray=True)
        except RuntimeError:
            data, whole = bytearray(), False
        if not whole:
            self._context = self._lz4.create_decompression_context()
            return bytearray()
        found: bytearray = data
        return found


@compiled
def _join(
    data: npt.NDArray[np.uint8],
    stream: int,
    begins: npt.NDArray[np.uint8],
    mark: npt.NDArray[np.uint8],
    between: npt.NDArray[np.int64],
) -> tuple[int, int, int]:
    """Make one frame of the packets of a stream, up to one that is not whole, or is no frame of one block.

    Parameters
    ----------
    data : ndarray of uint8, changed
        Packets behind `SPARE_BYTES`.
    stream : int
    begins : ndarray of uint8, shape (2, 7)
        How their frames may begin; the first is how the one frame begins.
    mark : ndarray of uint8, shape (8,)
        For the place of each packet's header.
    between : ndarray of int64, written
        Bytes behind each packet, the last apart, and before the mark of the next.

    Returns
    -------
    tuple of int
        Packets, where the frame begins, and where it ends.
    """
    packets, first, last = 0, 0, 0
    at = SPARE_BYTES
    while at + HEADER_BYTES <= len(data) and packets < len(between):
        size = int32(data, at + 4)
        frame = at + HEADER_BYTES
        at = frame + size
        if size < 0 or at > len(data):
            break
        if int32(data, frame - HEADER_BYTES) != stream:
            continue
        block = frame + FRAME_BYTES
        length = int32(data, block) & 0x7FFFFFFF if size >= FRAME_BYTES + BLOCK_BYTES + END_BYTES else -1
        if length <= 0 or block + BLOCK_BYTES + length + END_BYTES != at or int32(data, at - END_BYTES) != 0:
            break
        one, other = True, True
        for index in range(FRAME_BYTES):
            one &= data[frame + index] == begins[0, index]
            other &= data[frame + index] == begins[1, index]
        if not (one or other):
            break
        # a block from the end of the one before, or for the first one as short as it can be, up to this one
        begin = last - END_BYTES if packets else block - HEADER_BYTES - BLOCK_BYTES
        if packets:
            between[packets - 1] = block - begin - BLOCK_BYTES - HEADER_BYTES
        else:
            first = begin - FRAME_BYTES
            data[first:begin] = begins[0]
        stored = block - begin - BLOCK_BYTES
        for index in range(BLOCK_BYTES):
            data[begin + index] = stored >> 8 * index & 0xFF
        data[begin + BLOCK_BYTES - 1] |= STORED
        data[block - HEADER_BYTES : block] = mark
        packets += 1
        last = at
    return packets, first, last


@compiled
def _divide(
    data: npt.NDArray[np.uint8],
    packets: int,
    stream: int,
    mark: npt.NDArray[np.uint8],
    between: npt.NDArray[np.int64],
) -> bool:
    """Write the headers of packets that were unpacked together; see `_join` for parameters.

    Returns
    -------
    bool
        Whether each mark is where it must be, and each packet holds a sound list of events. What was written if not
        means nothing.
    """
    at = 0
    for packet in range(packets):
        begin = at + HEADER_BYTES
        if begin + 4 > len(data):
            return False
        for index in range(HEADER_BYTES):
            if data[at + index] != mark[index]:
                return False
        size = 4 + (int32(data, begin) & 0xFFFFFFFF)
        end = begin + size
        if end > len(data) or list_of_events(data[begin:end], size)[0] < 0:
            return False
        if packet + 1 < packets:
            end += between[packet]
        for index in range(4):
            data[at + index] = stream >> 8 * index & 0xFF
            data[at + 4 + index] = end - begin >> 8 * index & 0xFF
        at = end
    return at == len(data)


@compiled
def list_of_events(body: npt.NDArray[np.uint8], size: int) -> tuple[int, int, bool]:
    """Find the vector of events in the data of a packet, unpacked.

    Parameters
    ----------
    body : ndarray of uint8
        The data, or as much of them as there is.
    size : int
        Bytes of the data.

    Returns
    -------
    tuple
        Its first byte and its number of events, each -1 without a sound one; and whether there are bytes enough to
        tell.
    """
    if len(body) < min(size, 12):
        return -1, -1, False
    if size < 12 or int32(body, 8) != EVENTS_WORD:
        return -1, -1, True
    # each place is read once it is known to lie in the packet, and in what there is of it
    table = 4 + (int32(body, 4) & 0xFFFFFFFF)
    if table + 4 > size:
        return -1, -1, True
    if table + 4 > len(body):
        return -1, -1, False
    vtable = table - int32(body, table)
    if vtable < 0 or vtable + 6 > size:
        return -1, -1, True
    if vtable + 6 > len(body):
        return -1, -1, False
    entry = int32(body, vtable + 2) >> 16 & 0xFFFF
    if int32(body, vtable) & 0xFFFF < 6 or entry == 0:
        # no vector is one of no events
        return 0, 0, True
    field = table + entry
    if field + 4 > size:
        return -1, -1, True
    if field + 4 > len(body):
        return -1, -1, False
    vector = field + (int32(body, field) & 0xFFFFFFFF)
    if vector + 4 > size:
        return -1, -1, True
    if vector + 4 > len(body):
        return -1, -1, False
    number = int32(body, vector) & 0xFFFFFFFF
    if number > (size - vector - 4) // EVENT_BYTES:
        return -1, -1, True
    return vector + 4, number, True
