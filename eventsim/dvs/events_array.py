"""Events in a structured NumPy array, Tonic's convention: in memory or in a ``.npy`` file."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from eventsim.dvs.readable_file import readable_file
from eventsim.dvs.recording import (
    AS_RECORDED,
    BLOCK_EVENTS,
    TIME_LIMIT_US,
    Columns,
    EventArray,
    Integers,
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
        With fields x, y, t and p in any order, further fields are ignored: x, y pixels, t microseconds, of any integer
        types; p boolean, or integers of which 1 is ON and 0 or -1 is OFF. It is not copied.
    sensor_size : tuple of int, optional
        (height, width) in pixels. When not given it is inferred as the largest coordinates plus 1, in one pass: that is
        too small where border pixels stayed silent.
    orientation : Orientation
        How to turn the picture.
    path : str
        Name for messages.

    Raises
    ------
    InputError
        The array is not structured so, or is empty while `sensor_size` is not given.
    """

    format = "array"

    def __init__(
        self,
        events: npt.NDArray[Any],
        *,
        sensor_size: SensorSize | None = None,
        orientation: Orientation = AS_RECORDED,
        path: str = "array",
    ) -> None:
        _check_fields(events, path)
        self._events: EventArray = events
        super().__init__(path, _largest_plus_one(events, path) if sensor_size is None else sensor_size, orientation)
        if sensor_size is None:
            self.untold = frozenset({"sensor_size"})

    def _decode(self, block_events: int) -> Iterator[Columns]:
        for start in range(0, len(self._events), block_events):
            block = self._events[start : start + block_events]
            t: Integers = block["t"]
            # before the cast: a large unsigned time would become a negative one
            if t.max() >= TIME_LIMIT_US:
                raise InputError(f"{self.path}: a time of {t.max()} us, expected less than 2^62; the times are corrupt")
            p = block["p"]
            if p.dtype != np.bool_ and (p.min() < -1 or p.max() > 1):
                raise InputError(
                    f"{self.path}: polarities from {p.min()} to {p.max()}, expected booleans, 0 and 1, or -1 and 1; "
                    "convert them"
                )
            yield Columns(block["x"], block["y"], t.astype(np.int64), p > 0)


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


def _check_fields(events: npt.NDArray[Any], path: str) -> None:
    """Check dimensions, field names and types."""
    names = events.dtype.names or ()
    wrong = [name for name in "xytp" if name not in names]
    wrong += [name for name in "xyt" if name in names and events.dtype[name].kind not in "iu"]
    wrong += ["p"] if "p" in names and events.dtype["p"].kind not in "iub" else []
    if events.ndim != 1 or wrong:
        raise InputError(
            f"{path}: holds an array of shape {events.shape} and type {events.dtype}, expected a one-dimensional "
            "structured array with integer fields x, y, t and p; frames are no recording, give them to the run command"
        )


def _largest_plus_one(events: npt.NDArray[Any], path: str) -> SensorSize:
    """Infer the sensor's (height, width) block by block."""
    if len(events) == 0:
        raise InputError(f"{path}: holds no events to infer the sensor from; pass sensor_size=(height, width)")
    starts = range(0, len(events), BLOCK_EVENTS)
    height, width = (max(int(events[axis][i : i + BLOCK_EVENTS].max()) for i in starts) + 1 for axis in "yx")
    # a negative coordinate is reported with its event when the events are read
    return max(height, 1), max(width, 1)
