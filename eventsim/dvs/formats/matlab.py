"""Events in MATLAB files: a structure ``TD`` with x, y, p and ts, or variables of these names.

Pixels count from 1 as MATLAB's own indices do, or from 0 as in the cameras' files; polarities are 1 (OFF) and 2 (ON), 0
and 1, or -1 and 1:

* a coordinate 0 tells that pixels count from 0 (Prophesee's and most others');
* a polarity 2 tells that they count from 1 (Garrick Orchard's functions for N-MNIST and N-Caltech101);
* polarities of 0 or -1 tell nothing: other functions of his keep them and count from 1.

A file that holds neither is refused unless `first_pixel` says which. Times, in ``ts`` or ``t``, are whole microseconds
unless `time_unit` says another unit. Files of version 5 and those of version 7.3, which are HDF5, are read.
Sources: https://github.com/gorchard/Matlab_AER_vision_functions, https://docs.prophesee.ai (``load_atis_data.m``)
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from eventsim.dvs.blocks import guessed_sensor
from eventsim.dvs.columns import Columns
from eventsim.dvs.event_format import EventFormat
from eventsim.dvs.event_values import column_named, columns_named, microseconds, pixels, polarities, time_scale
from eventsim.dvs.mat5 import Arrays, arrays_of
from eventsim.dvs.readable_file import ReadableFile, readable_file
from eventsim.dvs.recording import AS_RECORDED, Orientation, Recording, SensorSize
from eventsim.errors import InputError
from eventsim.untrusted import check_stored, described, printable

MAGICS = (b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file")
# version 7.3 is held as a whole like version 5
MAX_BYTES = 512 << 20
UNREADABLE = (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError, struct.error, zlib.error)


def recognises(path: Path, head: bytes) -> bool:
    """Tell by its first bytes whether a file is MATLAB's."""
    return head.startswith(MAGICS)


class MatlabRecording(Recording):
    """Events in a MATLAB file; see the module for the two conventions.

    Parameters
    ----------
    path : str or path
        File to read.
    sensor_size : tuple of int, optional
        (height, width) in pixels; the largest coordinates plus 1 when not given.
    orientation : Orientation
        How to turn the picture.
    first_pixel : {0, 1}, optional
        What the first column and row are called; found out as the module says when not given. 1 also means polarities 1
        (OFF) and 2 (ON) where all are positive.
    time_unit : {"s", "ms", "us", "ns"}, optional
        Unit of the times; when not given they are whole microseconds.
    salvage : bool
        Whether the sensor is guessed by the events before the damage.

    Raises
    ------
    InputError
        The file is missing, empty, truncated or corrupt, holds no such events, or does not tell its convention.
    """

    format = "matlab"
    slow = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sensor_size: SensorSize | None = None,
        orientation: Orientation = AS_RECORDED,
        first_pixel: Literal[0, 1] | None = None,
        time_unit: str | None = None,
        salvage: bool = False,
    ) -> None:
        file = readable_file(path)
        self.path = str(file)
        self._scale = None if time_unit is None else time_scale(self.path, time_unit)
        if first_pixel not in (None, 0, 1):
            raise InputError(f"{file}: first_pixel={first_pixel!r} was given, expected 0 or 1")
        columns = _columns(file)
        self._events = len(columns["t"])
        self._first = _first_pixel(self.path, columns) if first_pixel is None else first_pixel
        # 1 and 2, unless one of them is neither
        self._least = 1 if self._first == 1 and not (columns["p"] <= 0).any() else 0
        size = sensor_size or guessed_sensor(self.path, partial(self._blocks, columns), salvage)
        super().__init__(str(file), size, orientation)
        self.size_given = sensor_size is not None
        if sensor_size is None:
            self.untold = frozenset({"sensor_size"})

    def _stored_events(self) -> int:
        return self._events

    def _decode(self, block_events: int) -> Iterator[Columns]:
        yield from self._blocks(_columns(readable_file(self.path)), block_events)

    def _blocks(self, columns: Arrays, block_events: int) -> Iterator[Columns]:
        for start in range(0, len(columns["t"]), block_events):
            block = {name: values[start : start + block_events] for name, values in columns.items()}
            x, y, p = pixels(self.path, "x", block["x"]), pixels(self.path, "y", block["y"]), block["p"]
            if self._first == 1:
                # in 64 bits: a 0 of unsigned bytes must become -1, not 255
                x, y = x.astype(np.int64) - 1, y.astype(np.int64) - 1
            p = np.asarray(p, np.float64) - self._least
            yield Columns(x, y, microseconds(self.path, block["t"], self._scale), polarities(self.path, p))


def _first_pixel(path: str, columns: Arrays) -> Literal[0, 1]:
    """Tell the convention."""
    x, y, p = (columns[name] for name in "xyp")
    if len(p) == 0 or bool((p == 2).any()):
        return 1
    if bool((x <= 0).any() or (y <= 0).any()):
        return 0
    raise InputError(
        f"{path}: polarities from {p.min()} to {p.max()} and no coordinate 0, so nothing tells whether pixels count "
        "from 0 or 1; pass first_pixel=0 or first_pixel=1"
    )


def _columns(file: ReadableFile) -> Arrays:
    """Read the four columns of the one structure or set of variables that has them."""
    try:
        variables = dict(_hdf5_variables(file) if file.head.startswith(MAGICS[1]) else _mat5_variables(file))
    except UNREADABLE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{file}: cannot be read as a MATLAB file ({described(error)}); the file is truncated or corrupt"
        ) from error
    loose = {name: value for name, value in variables.items() if isinstance(value, np.ndarray)}
    candidates = [value for value in variables.values() if not isinstance(value, np.ndarray)] + [loose]
    found = []
    for candidate in candidates:
        named = columns_named(str(file), candidate)
        if named is not None:
            found.append({column: candidate[named[column]] for column in "xytp"})
    if len(found) != 1:
        held = ", ".join(printable(name) for name in list(variables)[:10])
        raise InputError(
            f"{file}: holds {len(found)} sets of x, y, p and ts among {held or 'no variables'}, expected one; save one "
            "structure TD"
        )
    (columns,) = found
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) != 1:
        raise InputError(f"{file}: columns of lengths {lengths}, expected one length; the file is damaged")
    return columns


def _mat5_variables(file: ReadableFile) -> Iterator[tuple[str, npt.NDArray[Any] | Arrays]]:
    with file.path.open("rb") as opened:
        # the arrays lie in the map, which lives as long as they do
        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    yield from arrays_of(memoryview(mapped))


def _hdf5_variables(file: ReadableFile) -> Iterator[tuple[str, npt.NDArray[Any] | Arrays]]:
    import h5py  # noqa: PLC0415 - takes long to import, and every recording asks this format

    left = MAX_BYTES
    with h5py.File(str(file), "r") as opened:
        for name, thing in opened.items():
            read: npt.NDArray[Any] | Arrays
            if isinstance(thing, h5py.Group) and not name.startswith("#"):
                fields = {key: thing[key] for key in thing if column_named(key)}
                read = {key: _numbers(file, key, value) for key, value in fields.items()}
                left -= sum(values.nbytes for values in read.values())
            elif isinstance(thing, h5py.Dataset) and column_named(name):
                read = _numbers(file, name, thing)
                left -= read.nbytes
            else:
                continue
            if left < 0:
                raise InputError(f"{file}: more than {MAX_BYTES} bytes of numbers, expected less; save it in parts")
            yield name, read


def _numbers(file: ReadableFile, name: str, dataset: Any) -> npt.NDArray[Any]:
    """Read a data set of numbers as one row."""
    import h5py  # noqa: PLC0415 - as above

    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "iuf":
        raise InputError(f"{file}: {printable(name)} holds no numbers, expected a column of events")
    check_stored(file.path, printable(name), dataset)
    chunk = int(np.prod(dataset.chunks or (1,), dtype=object)) * dataset.dtype.itemsize
    if max(dataset.size * dataset.dtype.itemsize, chunk) > MAX_BYTES // 4:
        raise InputError(f"{file}: {printable(name)} has {dataset.size} values, expected less; save it in parts")
    return np.asarray(dataset[()]).ravel()


FORMAT = EventFormat(
    title="MATLAB",
    description="MATLAB structure TD with x, y, p, ts: N-MNIST's functions, Prophesee",
    extensions=(".mat",),
    recognises=recognises,
    open=MatlabRecording,
    options=frozenset({"first_pixel", "time_unit", "salvage"}),
)
