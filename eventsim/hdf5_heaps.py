"""The heaps of an HDF5 file, in which strings of any length lie: its library never returns from some damaged ones."""

from __future__ import annotations

import mmap
from pathlib import Path

from eventsim.errors import InputError

SIGNATURE = b"GCOL"
HEADER_BYTES = 16
# index, references, and the size of what follows
OBJECT_BYTES = 16


def check_heaps(path: str) -> None:
    """Refuse a file with a heap whose objects do not lie one behind the other within it.

    A heap is a header with its size and objects, each a header with the object's size and data filled up to 8 bytes;
    object 0 is the free space at the end and counts its own header. Source: the HDF5 File Format Specification 3.0,
    III.E. What looks like a heap within other data is checked too, and only in files that have such strings.

    Raises
    ------
    InputError
        Names the byte.
    """
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(SIGNATURE)
        while at >= 0:
            size = int.from_bytes(data[at + 8 : at + HEADER_BYTES], "little")
            end = at + size
            # damaged data of events can look like a signature: what follows it must be of version 1 to be a heap
            if data[at + 4 : at + 8] == b"\x01\0\0\0" and not _whole(data, at + HEADER_BYTES, end):
                raise InputError(f"{path}: the heap at byte {at} is damaged; the file is corrupt")
            at = data.find(SIGNATURE, at + 1)


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
