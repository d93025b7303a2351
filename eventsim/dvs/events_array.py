"""Events in a structured NumPy array, Tonic's convention: in memory or in a ``.npy`` file."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from eventsim.dvs.blocks import guessed_sensor
from eventsim.dvs.columns import Columns, Decoded
from eventsim.dvs.event_lists import as_columns
from eventsim.dvs.event_values import microseconds, pixels, polarities
from eventsim.dvs.readable_file import ReadableFile, readable_file
from eventsim.dvs.recording import AS_RECORDED, Orientation, Recording, SensorSize
from eventsim.errors import InputError
from eventsim.untrusted import without_addresses

MAGIC = b"\x93NUMPY"
# NumPy itself reads no longer header
MAX_HEADER_BYTES = 12 + 10_000
# version 3 is version 2 with names of fields in UTF-8 in place of latin-1; x, y, t and p are the same in both
READ_HEADER = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,
}


class ArrayRecording(Recording):
    """A structured array as a recording.

    Parameters
    ----------
    events : ndarray, shape (n,)
        With fields x, y, t and p in any order, or of the names that dv_processing, aedat and faery give them
        (``timestamp``, ``polarity``, ``on``); further fields are ignored. x, y pixels, t microseconds, of any integer
        types; p boolean, or integers of which 1 is ON and 0 or -1 is OFF. With `columns` a plain array of shape (n, k),
        an event list. It is not copied.
    sensor_size : tuple of int, optional
        (height, width) in pixels. When not given it is guessed as the largest coordinates plus 1, in one pass: that is
        too small where border pixels stayed silent, so no pixels are moved by it.
    orientation : Orientation
        How to turn the picture.
    path : str
        Name for messages.
    columns : str, optional
        Order of the columns of an event list, such as ``"xytp"``; ``_`` for one to ignore.
    time_unit : {"s", "ms", "us", "ns"}, optional
        Unit of the times, microseconds when not given; floating-point times need it.
    salvage : bool
        Whether the sensor is guessed by the events before the damage.

    Raises
    ------
    InputError
        The array is not structured so; or while `sensor_size` is not given, it is empty or holds an outlier: an event
        far from all others, by which no size can be guessed.
    """

    format = "array"

    def __init__(
        self,
        events: npt.NDArray[Any],
        *,
        sensor_size: SensorSize | None = None,
        orientation: Orientation = AS_RECORDED,
        path: str = "array",
        columns: str | None = None,
        time_unit: str | None = None,
        salvage: bool = False,
    ) -> None:
        self._events, self._scale = as_columns(events, path, columns, time_unit)
        # for messages, before the sensor is known
        self.path = path
        size = guessed_sensor(path, self._decode, salvage) if sensor_size is None else sensor_size
        super().__init__(path, size, orientation)
        self.size_given = sensor_size is not None
        if sensor_size is None:
            self.untold = frozenset({"sensor_size"})

    def _stored_events(self) -> int:
        return len(self._events["t"])

    def _stored_end(self) -> int | None:
        last = self._events["t"][-1:]
        with suppress(InputError):  # reading tells
            return int(microseconds(self.path, last, self._scale)[0]) if len(last) else None
        return None

    def _decode(self, block_events: int) -> Iterator[Decoded]:
        for start in range(0, len(self._events["t"]), block_events):
            x, y, t, p = (self._events[name][start : start + block_events] for name in "xytp")
            yield Columns(
                pixels(self.path, "x", x),
                pixels(self.path, "y", y),
                microseconds(self.path, t, self._scale),
                polarities(self.path, p),
            )


def map_npy(path: str | os.PathLike[str], *, cut: bool = False) -> npt.NDArray[Any]:
    """Map a ``.npy`` file into memory without reading it.

    Parameters
    ----------
    path : str or path
    cut : bool
        Whether the whole rows of a file that ends early, or has more behind them, are mapped, in place of refusing it.

    Raises
    ------
    InputError
        If it is missing, damaged, holds Python objects, which are never unpickled, or more than its array.
    """
    file, header = _described(path)
    shape = header.shape
    if file.size < header.begin + header.bytes:
        rows = (file.size - header.begin) // header.row_bytes
        if not cut or rows < 1 or (header.fortran_order and len(shape) > 1):
            raise InputError(
                f"{path}: {max(rows, 0):,} of {shape[0] if shape else 1:,} rows of .npy are there; the file is "
                "truncated: copy it again"
            )
        shape = (rows, *shape[1:])
    elif not cut and (rest := npy_rest(path)):
        raise InputError(rest)
    order: Literal["F", "C"] = "F" if header.fortran_order else "C"
    try:
        # what ``numpy.load(path, mmap_mode="r")`` does, which opens a file three times
        with file.path.open("rb") as opened:
            return np.memmap(opened, header.dtype, "r", header.begin, shape, order)
    except (OSError, ValueError, OverflowError, TypeError) as error:
        raise _unreadable(path, error) from error


def npy_rows(path: str | os.PathLike[str]) -> int:
    """Return how many rows the header of a ``.npy`` file tells.

    Raises
    ------
    InputError
        As `map_npy` does, but for what lies behind the header.
    """
    shape = _described(path)[1].shape
    return shape[0] if shape else 1


def npy_rest(path: str | os.PathLike[str]) -> str:
    """Say what is left over behind the array of a ``.npy`` file; nothing where the file ends with it.

    Raises
    ------
    InputError
        As `map_npy` does, but for what lies behind the header.
    """
    file, header = _described(path)
    end = header.begin + header.bytes
    if file.size <= end:
        return ""
    with file.path.open("rb") as opened:
        opened.seek(end)
        another = opened.read(len(MAGIC)) == MAGIC
    rows = header.shape[0] if header.shape else 1
    advice = "another array begins there: save each to a file of its own" if another else "save it again"
    return (
        f"{path}: {file.size - end:,} bytes are left over behind {rows:,} rows of .npy, expected the end of the file; "
        f"{advice}"
    )


def npy_fields(path: str | os.PathLike[str]) -> tuple[str, ...] | None:
    """Return the names of the fields of a ``.npy`` file, None where it holds plain values.

    Raises
    ------
    InputError
        As `map_npy` does, but for what lies behind the header.
    """
    return _described(path)[1].dtype.names


class _Header(NamedTuple):
    """What a ``.npy`` file says of itself, and the byte at which its values begin."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]
    begin: int

    @property
    def row_bytes(self) -> int:
        return max(int(np.prod([int(side) for side in self.shape[1:]], dtype=object)) * self.dtype.itemsize, 1)

    @property
    def bytes(self) -> int:
        return int(np.prod([int(side) for side in self.shape], dtype=object)) * self.dtype.itemsize


def _described(path: str | os.PathLike[str]) -> tuple[ReadableFile, _Header]:
    """Read the header of a file."""
    file = readable_file(path)
    try:
        # from memory: a damaged length of the header would have NumPy reserve as much before it reads
        long = int.from_bytes(file.head[8:10], "little") + 12 > len(file.head)
        head = io.BytesIO(file.beginning(MAX_HEADER_BYTES) if long else file.head)
        version = np.lib.format.read_magic(head)
        if version not in READ_HEADER:
            raise ValueError(f"version {version}, expected one of {', '.join(map(str, READ_HEADER))}")
        header = _Header(*READ_HEADER[version](head), head.tell())
    except Exception as error:
        # NumPy evaluates the header as Python and lets through whatever that raises
        raise _unreadable(path, error) from error
    if header.dtype.hasobject:
        raise InputError(
            f"{path}: holds Python objects, which are never unpickled; save the arrays themselves, with numpy.savez"
        )
    if any(side < 0 for side in header.shape):
        raise _unreadable(path, ValueError(f"shape {header.shape}"))
    return file, header


def _unreadable(path: str | os.PathLike[str], error: Exception) -> InputError:
    reason = without_addresses(" ".join(str(error).split()))[:200]
    return InputError(f"{path}: cannot be read as .npy ({reason}); the file is truncated or corrupt")
