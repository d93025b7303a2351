"""Packets that are compressed on their own, by LZ4 or Zstandard, unpacked into memory of bounded size."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Unpack: TypeAlias = Callable[[bytes], bytes]

MAX_PACKET_BYTES = 128 << 20
# no more bytes come of one of LZ4
LZ4_EXPANSION = 255
PIECE_BYTES = 1 << 20


def unpack_lz4() -> Unpack:
    """Return what unpacks a frame of LZ4; it raises ValueError for one that is damaged or too large."""
    import lz4.frame  # noqa: PLC0415 - of compressed files alone

    def unpack(packed: bytes) -> bytes:
        try:
            # the library reserves what a frame says of its size, where its flags announce that
            says = len(packed) > 13 and packed[4] & 8
            if len(packed) * LZ4_EXPANSION <= MAX_PACKET_BYTES and not says:
                whole: bytes = lz4.frame.decompress(packed)
                return whole
            _refuse_large(int.from_bytes(packed[6:14], "little") if says else 0)
            decompressor = lz4.frame.LZ4FrameDecompressor()
            whole = decompressor.decompress(packed, MAX_PACKET_BYTES + 1)
            _refuse_large(len(whole))
            if not decompressor.eof:
                raise ValueError("the frame of LZ4 is incomplete")
            return whole
        except (RuntimeError, OverflowError) as error:
            raise ValueError(str(error)) from error

    return unpack


def unpack_zstd() -> Unpack:
    """Return what unpacks a frame of Zstandard; it raises ValueError for one that is damaged or too large."""
    import zstandard  # noqa: PLC0415 - of compressed files alone

    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_PACKET_BYTES)

    def unpack(packed: bytes) -> bytes:
        try:
            said = zstandard.frame_content_size(packed)
            if said >= 0:
                _refuse_large(said)
                whole: bytes = decompressor.decompress(packed)
                return whole
            pieces, size = [], 0
            with decompressor.stream_reader(packed) as reader:
                while piece := reader.read(PIECE_BYTES):
                    pieces.append(piece)
                    size += len(piece)
                    _refuse_large(size)
            return b"".join(pieces)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error

    return unpack


def _refuse_large(size: int) -> None:
    if size > MAX_PACKET_BYTES:
        raise ValueError(f"a packet of more than {MAX_PACKET_BYTES >> 20} MiB")
