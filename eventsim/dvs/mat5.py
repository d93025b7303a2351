"""Numeric arrays in MATLAB files of version 5 (``.mat``), without trusting the sizes that the file claims.

A file is a header of 128 bytes and elements: a type and a size (two 32-bit words, or one word that holds both and up
to 4 bytes of data), and data, filled up to 8 bytes. An element of type 15 is a compressed element. An element of type
14 is a matrix: flags with its class, dimensions, a name, and its numbers, or for a structure the names and matrices of
its fields. Source: MathWorks, "MAT-File Format", R2019b.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

HEADER_BYTES = 128
COMPRESSED, MATRIX = 15, 14
STRUCTURE = 2
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
# what is unpacked in memory at once; a damaged or hostile element may claim a thousand times its size
MAX_UNPACKED_BYTES = 256 << 20

Arrays = dict[str, npt.NDArray[Any]]


def arrays_of(data: memoryview) -> Iterator[tuple[str, npt.NDArray[Any] | Arrays]]:
    """Yield the variables of a file: numeric arrays, flat, and structures of them; other kinds are left out.

    Parameters
    ----------
    data : memoryview
        The whole file.

    Raises
    ------
    ValueError, struct.error, zlib.error
        The file is damaged.
    """
    order = {b"IM": "<", b"MI": ">"}.get(bytes(data[126:128]))
    if order is None:
        raise ValueError("no byte order in its header")
    at = HEADER_BYTES
    left = MAX_UNPACKED_BYTES
    while at < len(data):
        kind, content, at = _element(data, at, order, padded=False)
        if kind == COMPRESSED:
            unpacked = _unpacked(content, left)
            left -= len(unpacked)
            kind, content, _ = _element(memoryview(unpacked), 0, order)
        if kind == MATRIX and (found := _matrix(content, order)) is not None:
            yield found


def _unpacked(content: memoryview, limit: int) -> bytes:
    """Unpack an element, up to a limit."""
    unpacker = zlib.decompressobj()
    unpacked = unpacker.decompress(content, limit + 1)
    if len(unpacked) > limit:
        raise ValueError(f"more than {MAX_UNPACKED_BYTES >> 20} MiB when unpacked; save it as version 7.3")
    if not unpacker.eof:
        raise ValueError("a compressed variable is cut")
    return unpacked


def _element(data: memoryview, at: int, order: str, padded: bool = True) -> tuple[int, memoryview, int]:
    """Return type and data of the element at a byte, and where the next one begins."""
    (word,) = struct.unpack_from(f"{order}I", data, at)
    if word >> 16:
        size, start, end = word >> 16, at + 4, at + 8
        kind = word & 0xFFFF
        if size > 4:
            raise ValueError(f"a short element of {size} bytes")
    else:
        kind, size = struct.unpack_from(f"{order}II", data, at)
        start = at + 8
        # compressed elements are not filled up
        end = start + size + (-size % 8 if padded or kind != COMPRESSED else 0)
    if start + size > len(data):
        raise ValueError(f"an element of {size} bytes where {max(len(data) - start, 0)} are left")
    return kind, data[start : start + size], end


def _matrix(data: memoryview, order: str) -> tuple[str, npt.NDArray[Any] | Arrays] | None:
    """Read a matrix: its name, and its numbers or the fields of a structure of one element; None for other kinds."""
    _, flags, at = _element(data, 0, order)
    kind = struct.unpack_from(f"{order}I", flags)[0] & 0xFF
    _, sides, at = _element(data, at, order)
    shape = struct.unpack(f"{order}{len(sides) // 4}i", sides[: len(sides) // 4 * 4])
    _, name, at = _element(data, at, order)
    title = bytes(name).decode("latin-1")
    if kind == STRUCTURE:
        return (title, _fields(data, at, order)) if all(side == 1 for side in shape) else None
    if kind < 6:
        return None
    stored, numbers, _ = _element(data, at, order)
    if stored not in NUMBERS:
        return None
    return title, np.frombuffer(numbers, f"{order}{NUMBERS[stored]}", len(numbers) // int(NUMBERS[stored][1]))


def _fields(data: memoryview, at: int, order: str) -> Arrays:
    """Read the numeric fields of a structure of one element."""
    _, length, at = _element(data, at, order)
    (width,) = struct.unpack_from(f"{order}i", length)
    _, names, at = _element(data, at, order)
    if width < 1:
        raise ValueError(f"names of {width} bytes")
    fields: Arrays = {}
    for start in range(0, len(names), width):
        kind, content, at = _element(data, at, order)
        name = bytes(names[start : start + width]).split(b"\0", 1)[0].decode("latin-1")
        found = _matrix(content, order) if kind == MATRIX and len(content) else None
        if found is not None and isinstance(found[1], np.ndarray):
            fields[name] = found[1]
    return fields
