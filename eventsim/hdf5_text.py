"""Text in HDF5 files, in data sets and attributes: nothing is read that claims more bytes than the file has.

A string of any length is stored as its length, the address of a heap and its number in there, and the HDF5 library
reserves the length before it looks at the heap: one damaged byte makes that gigabytes. h5py does not show these
references, so they are looked at in the file. Source: the HDF5 File Format Specification 3.0, III.E (heaps), IV.A.2.m
(attributes), IV.A.2.d (datatypes).
"""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eventsim.errors import InputError
from eventsim.hdf5_filters import FLETCHER32, GZIP, SHUFFLE, filters_of, largest_chunk
from eventsim.hdf5_heaps import check_heaps
from eventsim.untrusted import check_declared, check_here, check_stored, printable

# as most files have it, and all by h5py: addresses and lengths of 8 bytes
SIZES = (8, 8)
REFERENCE = np.dtype([("bytes", "<u4"), ("heap", "<u8"), ("index", "<u4")])
VARIABLE = 9


class HeldText:
    """What a file says of its text; made once for a file, and asked before each text is read.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = path.stat().st_size
        self._found: dict[str, list[npt.NDArray[Any]]] = {}
        self._whole_heaps: set[int] = set()

    def check_dataset(self, name: str, dataset: Any) -> None:
        """Refuse a data set of text that is not to be read.

        Raises
        ------
        InputError
            Names the file and the data set.
        """
        what = f"dataset {printable(name)}"
        if not is_variable(dataset.id):
            check_stored(self._path, printable(name), dataset)
            return
        check_here(self._path, printable(name), dataset)
        check_declared(self._path, what, [dataset])
        if dataset.size:
            self._check(what, dataset, _references_of(self._path, what, dataset), dataset.size)

    def check_attribute(self, owner: Any, key: str) -> None:
        """Refuse an attribute that is not to be read.

        Raises
        ------
        InputError
            Names the file and the attribute.
        """
        attribute = owner.attrs.get_id(key)
        what = f"attribute {printable(key)}"
        values = attribute.get_space().get_simple_extent_npoints()
        if not values:
            return
        if attribute.get_storage_size() > self._size:
            raise InputError(f"{self._path}: {what} declares more bytes than the file has; the file is damaged")
        if not is_variable(attribute):
            return
        if key not in self._found:
            self._found[key] = list(_attributes_called(self._path, key))
        # which of those of one name is this one's is not looked for: all are
        references = [found for found in self._found[key] if len(found) == values]
        if not references:
            raise InputError(f"{self._path}: {what} not found where its text is told; save it again with h5py")
        for found in references:
            self._check(what, owner, [found], values)

    def _check(self, what: str, owner: Any, references: Iterable[npt.NDArray[Any]], values: int) -> None:
        properties = owner.file.id.get_create_plist()
        if properties.get_sizes() != SIZES:
            raise InputError(f"{self._path}: {what} is at addresses of other than 8 bytes; save it again with h5py")
        seen = claimed = 0
        for part in references:
            seen += len(part)
            claimed += int(part["bytes"].sum(dtype=np.int64))
            if claimed > self._size:
                raise InputError(
                    f"{self._path}: {what} claims {claimed} bytes of text in a file of {self._size}; the file "
                    "is damaged"
                )
            heaps = {int(heap) + properties.get_userblock() for heap in np.unique(part["heap"])} - self._whole_heaps
            check_heaps(self._path, heaps)
            self._whole_heaps |= heaps
        if seen < values:
            raise InputError(f"{self._path}: {what} holds {seen} of {values} texts; the file is damaged")


def is_variable(held: Any) -> bool:
    """Tell whether a data set or attribute, by its low-level object of h5py, is text of any length."""
    import h5py  # noqa: PLC0415 - takes long to import

    kind = held.get_type()
    return isinstance(kind, h5py.h5t.TypeStringID) and bool(kind.is_variable_str())


def _references_of(path: Path, what: str, dataset: Any) -> Iterator[npt.NDArray[Any]]:
    """Read the references of a data set from the file."""
    filters = filters_of(dataset)
    if dataset.chunks is None:
        offset = dataset.id.get_offset()
        if offset is None:
            raise InputError(
                f"{path}: {what} is text that is stored within its header or not at all; h5repack -l CONTI rewrites it"
            )
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(dataset.size * REFERENCE.itemsize)
        yield np.frombuffer(data, REFERENCE, len(data) // REFERENCE.itemsize)
        return
    if {number for number, _ in filters} - {GZIP, SHUFFLE, FLETCHER32}:
        raise InputError(f"{path}: {what} is text packed by other than gzip; repack it with h5repack -f GZIP=6")
    largest_chunk(path, what.removeprefix("dataset "), dataset)
    starts: list[tuple[int, ...]] = []
    dataset.id.chunk_iter(lambda chunk: starts.append(chunk.chunk_offset))
    # what h5py calls the type of text has the size of a pointer
    unpacked = int(np.prod(dataset.chunks, dtype=object)) * REFERENCE.itemsize
    for start in starts:
        left_out, data = dataset.id.read_direct_chunk(start)
        for index in reversed(range(len(filters))):
            if left_out >> index & 1:
                continue
            number = filters[index].number
            if number == FLETCHER32:
                data = data[:-4]
            elif number == GZIP:
                try:
                    data = zlib.decompressobj().decompress(data, unpacked + 1)
                except zlib.error as error:
                    raise InputError(f"{path}: {what} cannot be unpacked ({error}); the file is damaged") from None
            else:
                data = np.frombuffer(data, np.uint8).reshape(REFERENCE.itemsize, -1).T.tobytes()
        if len(data) != unpacked:
            raise InputError(f"{path}: {what} has a chunk of {len(data)} bytes, expected {unpacked}")
        yield np.frombuffer(data, REFERENCE)


def _attributes_called(path: Path, key: str) -> Iterator[npt.NDArray[Any]]:
    """Find the references of all attributes of a name that are text of any length.

    Wherever a file keeps an attribute, its parts lie behind each other: version, sizes of the parts, name, type,
    extent, values. In version 1 the parts are filled up to 8 bytes; version 3 has a byte more before the name.
    """
    name = key.encode("utf-8", "surrogateescape") + b"\0"
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(name)
        while at >= 0:
            for version, begin in ((1, at - 8), (2, at - 8), (3, at - 9)):
                if begin >= 0 and data[begin] == version:
                    found = _attribute_at(data, begin, version, at, len(name))
                    if found is not None:
                        yield found
            at = data.find(name, at + 1)


def _attribute_at(data: mmap.mmap, begin: int, version: int, name: int, length: int) -> npt.NDArray[Any] | None:
    """Return the references of an attribute; None where there is none of this kind."""
    flags = data[begin + 1]
    name_bytes, type_bytes, extent_bytes = struct.unpack_from("<HHH", data, begin + 2)
    if name_bytes != length:
        return None
    step = 8 if version == 1 else 1
    kind = name + -(-length // step) * step
    extent = kind + -(-type_bytes // step) * step
    values = extent + -(-extent_bytes // step) * step
    if values > len(data) or not ((version > 1 and flags & 1) or data[kind] & 15 == VARIABLE):
        return None
    rank = data[extent + 1]
    first = extent + (8 if data[extent] == 1 else 4)
    count = (
        int(np.prod(struct.unpack_from(f"<{rank}Q", data, first), dtype=object)) if first + 8 * rank <= values else -1
    )
    if not 0 < count <= (len(data) - values) // REFERENCE.itemsize:
        return None
    return np.frombuffer(data[values : values + count * REFERENCE.itemsize], REFERENCE)
