"""Packets that are compressed on their own, by LZ4 or Zstandard, unpacked into memory of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

Unpack: TypeAlias = Callable[[bytes], bytes]

MAX_PACKET_BYTES = 128 << 20
# no more bytes come of one of LZ4
LZ4_EXPANSION = 255
# of what a frame claims to hold, so many times its size is reserved at once; more is unpacked piece by piece
LIKELY_EXPANSION = 16
PIECE_BYTES = 1 << 20


def unpack_lz4() -> Unpack:
    """Return what unpacks a frame of LZ4; it raises ValueError for one that is damaged or too large."""
    import lz4.frame  # noqa: PLC0415 - of compressed files alone

    def in_pieces(packed: bytes) -> Iterator[bytes]:
        decompressor = lz4.frame.LZ4FrameDecompressor()
        # each call copies what it leaves of the frame: most end with the first
        size = max(PIECE_BYTES, 4 * len(packed))
        while not decompressor.eof:
            piece = decompressor.decompress(packed, size)
            packed = b""
            if not piece and not decompressor.eof:
                raise ValueError("the frame of LZ4 is incomplete")
            yield piece

    def unpack(packed: bytes) -> bytes:
        # the library reserves what a frame says of its size, where its flags announce that
        said = int.from_bytes(packed[6:14], "little") if len(packed) > 13 and packed[4] & 8 else 0
        _refuse_large(said)
        try:
            if len(packed) * LZ4_EXPANSION > MAX_PACKET_BYTES or said > LIKELY_EXPANSION * len(packed):
                return _bounded(in_pieces(packed))
            whole: bytes = lz4.frame.decompress(packed)
            return whole
        except (RuntimeError, OverflowError) as error:
            raise ValueError(str(error)) from error

    return unpack


def unpack_zstd() -> Unpack:
    """Return what unpacks a frame of Zstandard; it raises ValueError for one that is damaged or too large."""
    import zstandard  # noqa: PLC0415 - of compressed files alone

    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_PACKET_BYTES)

    def in_pieces(packed: bytes) -> Iterator[bytes]:
        with decompressor.stream_reader(packed) as reader:
            while piece := reader.read(PIECE_BYTES):
                yield piece

    def unpack(packed: bytes) -> bytes:
        try:
            said = zstandard.frame_content_size(packed)
            _refuse_large(said)
            if said < 0 or said > LIKELY_EXPANSION * len(packed):
                return _bounded(in_pieces(packed))
            whole: bytes = decompressor.decompress(packed)
            return whole
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error

    return unpack


def _bounded(pieces: Iterator[bytes]) -> bytes:
    """Put pieces together, unless they are too many."""
    taken, size = [], 0
    for piece in pieces:
        taken.append(piece)
        size += len(piece)
        _refuse_large(size)
    return b"".join(taken)


def _refuse_large(size: int) -> None:
    if size > MAX_PACKET_BYTES:
        raise ValueError(f"a packet of more than {MAX_PACKET_BYTES >> 20} MiB")
