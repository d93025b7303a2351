"""Events in a structured NumPy array, Tonic's convention: in memory or in a ``.npy`` file."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from eventsim.dvs.blocks import guessed_sensor
from eventsim.dvs.event_lists import as_columns
from eventsim.dvs.event_values import microseconds, pixels, polarities
from eventsim.dvs.readable_file import readable_file
from eventsim.dvs.recording import (
    AS_RECORDED,
    Columns,
    Decoded,
    Orientation,
    Recording,
    SensorSize,
)
from eventsim.errors import InputError

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
    ) -> None:
        self._events, self._scale = as_columns(events, path, columns, time_unit)
        # for messages, before the sensor is known
        self.path = path
        size = guessed_sensor(path, self._decode) if sensor_size is None else sensor_size
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


def map_npy(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """Map a ``.npy`` file into memory without reading it.

    Raises
    ------
    InputError
        If it is missing, damaged, or holds Python objects, which are never unpickled.
    """
    checked = readable_file(path)
    try:
        return _mapped(checked.path)
    except Exception as error:
        # NumPy evaluates the header as Python and lets through whatever that raises
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: cannot be read as .npy ({reason}); the file is truncated or corrupt") from error


def _mapped(path: Path) -> npt.NDArray[Any]:
    """Do what ``numpy.load(path, mmap_mode="r")`` does, which opens a file three times, with one open."""
    with path.open("rb") as file:
        # from memory: a damaged length of the header would have NumPy reserve as much before it reads
        head = io.BytesIO(file.read(MAX_HEADER_BYTES))
        version = np.lib.format.read_magic(head)
        if version not in READ_HEADER:
            raise ValueError(f"version {version}, expected one of {', '.join(map(str, READ_HEADER))}")
        shape, fortran_order, dtype = READ_HEADER[version](head)
        if dtype.hasobject:
            raise ValueError("it holds Python objects, which are not unpickled")
        order: Literal["F", "C"] = "F" if fortran_order else "C"
        return np.memmap(file, dtype, "r", head.tell(), shape, order)
