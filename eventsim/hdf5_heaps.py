"""The heaps of an HDF5 file, in which strings of any length lie: its library never returns from some damaged ones."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from pathlib import Path

from eventsim.errors import InputError

SIGNATURE = b"GCOL"
HEADER_BYTES = 16
# index, references, and the size of what follows
OBJECT_BYTES = 16


def check_heaps(path: Path, starts: Iterable[int]) -> None:
    """Refuse heaps whose objects do not lie one behind the other within them.

    A heap is a header with its size and objects, each a header with the object's size and data filled up to 8 bytes;
    object 0 is the free space at the end and counts its own header. Source: the HDF5 File Format Specification 3.0,
    III.E.

    Parameters
    ----------
    path : Path
    starts : iterable of int
        Bytes at which heaps are said to begin. Where none does, the library says so itself.

    Raises
    ------
    InputError
        Names the byte.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for at in starts:
            size = int.from_bytes(data[at + 8 : at + HEADER_BYTES], "little")
            head = SIGNATURE + b"\x01\0\0\0"
            if data[at : at + len(head)] == head and not _whole(data, at + HEADER_BYTES, at + size):
                raise InputError(f"{path}: the heap at byte {at} is damaged; the file is corrupt")


def _whole(data: mmap.mmap, start: int, end: int) -> bool:
    """Tell whether the objects from a byte on fill a heap up to its end."""
    at = start
    if end > len(data):
        return False
    while at + OBJECT_BYTES <= end:
        index = int.from_bytes(data[at : at + 2], "little")
        size = int.from_bytes(data[at + 8 : at + OBJECT_BYTES], "little")
        step = size if index == 0 else OBJECT_BYTES + size + -size % 8
        if step < OBJECT_BYTES or at + step > end:
            return False
        at += step
    return True
