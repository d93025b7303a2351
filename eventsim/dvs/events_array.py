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
    MAX_SENSOR_SIDE,
    TIME_LIMIT_US,
    Columns,
    EventArray,
    Integers,
    Orientation,
    Recording,
    SensorSize,
)
from eventsim.errors import InputError

# rows or columns without events that make what lies behind them an outlier, at least
LEAST_GAP = 64
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
        (height, width) in pixels. When not given it is guessed as the largest coordinates plus 1, in one pass: that is
        too small where border pixels stayed silent, so no pixels are moved by it.
    orientation : Orientation
        How to turn the picture.
    path : str
        Name for messages.

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
    ) -> None:
        _check_fields(events, path)
        self._events: EventArray = events
        super().__init__(path, _guessed_size(events, path) if sensor_size is None else sensor_size, orientation)
        self.size_given = sensor_size is not None
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


def _guessed_size(events: npt.NDArray[Any], path: str) -> SensorSize:
    """Guess the sensor's (height, width) block by block, as what the events reach."""
    if len(events) == 0:
        raise InputError(f"{path}: holds no events to guess the sensor from; pass sensor_size=(height, width)")
    return _side(events, "y", path), _side(events, "x", path)


def _side(events: npt.NDArray[Any], axis: str, path: str) -> int:
    """Return the largest coordinate plus 1, or refuse an outlier."""
    # 0 to the largest side, and all that is larger; a negative coordinate is reported with its event when it is read
    seen = np.zeros(MAX_SENSOR_SIDE + 2, np.int64)
    for start in range(0, len(events), BLOCK_EVENTS):
        seen += np.bincount(np.clip(events[axis][start : start + BLOCK_EVENTS], 0, len(seen) - 1), minlength=len(seen))
    used = np.flatnonzero(seen)
    gaps = np.diff(used)
    if len(gaps):
        widest = int(np.argmax(gaps))
        reach, far = int(used[widest]) + 1, int(seen[used[widest] + 1 :].sum())
        # more rows are silent between it and the others than those have, and it is one in a hundred or less
        if gaps[widest] > max(reach, LEAST_GAP) and far * 100 <= len(events):
            index = _first_at_least(events[axis], reach)
            raise InputError(
                f"{path}: event {index} has {axis} = {events[axis][index]} and the others reach {reach - 1} ({far} of "
                f"{len(events)} events lie beyond), so the sensor cannot be guessed; pass sensor_size=(height, width), "
                "or the file is corrupt: salvage=True reads up to there"
            )
    return int(used[-1]) + 1


def _first_at_least(values: npt.NDArray[Any], least: int) -> int:
    for start in range(0, len(values), BLOCK_EVENTS):
        found = np.flatnonzero(values[start : start + BLOCK_EVENTS] >= least)
        if len(found):
            return start + int(found[0])
    raise AssertionError(f"no value of at least {least}")
