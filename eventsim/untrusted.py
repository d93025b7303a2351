"""Limits and words for files that may be damaged or hostile."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from eventsim.errors import EventsimError, InputError, LayerError

MAXIMUM_BYTES = 8 << 30
"""Arrays of more bytes than this are refused before they are allocated."""


LARGEST_RATIO = 100
"""Weights hardly compress; a file of them that unpacks to more than this many times its size is refused."""
LARGEST_RATIO_HDF5 = 1000
"""What HDF5 declares may be this many times of what it stores."""
SMALL_BYTES = 1 << 26
"""Unpacked bytes that are allowed in any file."""

LONGEST_NAME = 400
"""Characters of a name in a message."""
ADDRESS = re.compile(r":? ?<[^<>]* at 0x[0-9a-fA-F]+>")


def most_unpacked(path: Path) -> int:
    """Return how many bytes the weights of a file may take in memory."""
    return min(MAXIMUM_BYTES, max(LARGEST_RATIO * path.stat().st_size, SMALL_BYTES))


class Room:
    """What the arrays of a file of weights may still take in memory.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self._path, self._most, self._taken = path, most_unpacked(path), 0

    def take(self, values: int, bytes_each: int) -> None:
        """Take the room of an array, at 4 bytes a value or more, before it is unpacked.

        Raises
        ------
        InputError
            There is not so much left.
        """
        self._taken += values * max(bytes_each, 4)
        if self._taken > self._most:
            raise InputError(
                f"{self._path}: {self._taken} bytes unpacked found; expected at most {self._most} in a file of its size"
            )


def check_stored(path: Path, name: str, dataset: Any) -> None:
    """Refuse an HDF5 dataset that is not what the file itself stores of it, before it is read as a whole.

    Compression of up to 1000 : 1 is allowed, by the filters that `eventsim.hdf5_filters` lets through.

    Raises
    ------
    InputError
        Names the file and the dataset.
    """
    from eventsim.hdf5_filters import check_chunks, chunks_unchecked  # noqa: PLC0415 - as in check_here

    if dataset.dtype.hasobject:
        raise InputError(f"{path}: dataset {name} holds values of any length; expected numbers")
    check_here(path, name, dataset)
    check_declared(path, f"dataset {name}", [dataset])
    if chunks_unchecked(path, name, dataset):
        check_chunks(path, name, dataset)


def check_here(path: Path, name: str, dataset: Any) -> None:
    """Refuse an HDF5 dataset that is not in the file itself, or is packed by a filter that is not let through.

    Raises
    ------
    InputError
        Names the file and the dataset.
    """
    # what it imports takes long, and only files of HDF5 need it
    from eventsim.hdf5_filters import check_filters  # noqa: PLC0415

    if dataset.is_virtual or dataset.external:
        raise InputError(f"{path}: dataset {name} points into other files; expected data stored in this one")
    check_filters(path, name, dataset)


def check_declared(path: Path, what: str, datasets: Iterable[Any], most: float = MAXIMUM_BYTES) -> None:
    """Refuse HDF5 datasets that together declare more than a thousand times what they store, or too much for memory.

    Parameters
    ----------
    path : Path
    what : str
        For messages.
    datasets : iterable of h5py.Dataset
        Those that are read together. What bounds the time is all of them: one, such as polarities that are all ON, may
        well become smaller than a thousandth.
    most : float
        Bytes; infinite for what is read in pieces.

    Raises
    ------
    InputError
        Names the file and what the datasets are.
    """
    declared = stored = 0
    for dataset in datasets:
        declared += dataset.size * dataset.dtype.itemsize
        stored += dataset.id.get_storage_size()
    # chunks may lie over one another
    stored = min(stored, path.stat().st_size)
    if declared > most or declared > LARGEST_RATIO_HDF5 * max(stored, 64):
        raise InputError(
            f"{path}: {what} declares {declared} bytes and stores {stored}; expected the data that it declares"
        )


def printable(text: str) -> str:
    """Return a name from a file as it can stand in a message: in one line that is not too long."""
    if text.isprintable() and len(text) <= LONGEST_NAME:
        return text
    return repr(text[:LONGEST_NAME])[1:-1] + "..." * (len(text) > LONGEST_NAME)


def meant(text: str, names: Iterable[str], other: str = "") -> str:
    """Return how a message goes on behind a name that is none of those known: with all, and one that is like it."""
    known = list(names)
    near = "".join(f"; did you mean {name}?" for name in get_close_matches(text, known, 1))
    return f"; expected one of {', '.join(known)}{other}{near}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type; of an error of the system, what the system calls it."""
    if isinstance(error, OSError) and error.errno and error.errno in errno.errorcode:
        return os.strerror(error.errno)
    return without_addresses((str(error).splitlines() or [type(error).__name__])[0])


def without_addresses(text: str) -> str:
    """Leave out objects of Python that a message shows by their address, which is another each time."""
    return ADDRESS.sub("", text)


def blame(error: Exception, layer: str, part: object, doing: str = "") -> NoReturn:
    """Raise what went wrong in a layer, under the layer's name.

    Parameters
    ----------
    error : Exception
        Being handled. Errors that eventsim raises on purpose go on as they are, and so do bugs of ours, which their
        traceback shows.
    layer : str
        The layer's name.
    part : object
        Whose code failed; where it is of another package, that is told.
    doing : str
        What of it, before its class.

    Raises
    ------
    InputError
        Where a layer does not fit what it was given.
    EventsimError
        Where code of another package failed.
    """
    if isinstance(error, LayerError):
        raise InputError(f"layer {layer}: {error}") from None
    package = type(part).__module__
    if isinstance(error, EventsimError) or package.startswith("eventsim."):
        raise error
    raise EventsimError(
        f"layer {layer}: {doing}{type(part).__name__} of {package} failed ({described(error)})"
    ) from error


def described(error: BaseException) -> str:
    """Return an error's type and the first line of its message: what code that is not ours raised."""
    return f"{type(error).__name__}: {first_line(error)}"
