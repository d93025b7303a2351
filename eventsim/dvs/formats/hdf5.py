"""Events in HDF5: DSEC, v2e, Metavision, and whoever writes columns x, y, t and p.

Three layouts are known by their form, wherever in the file they stand:

* a group with one-dimensional data sets for x, y, t and p (DSEC: ``/events``; its scalar ``/t_offset``, in
  microseconds, is added to the times);
* a one-dimensional data set with such fields (Metavision: ``/CD/events``; the attribute ``geometry`` is the sensor's
  size);
* a data set ``events`` of shape (N, 4), in v2e's order t, x, y, p unless `columns` says another.

Whole times are microseconds. Times that are no integers are refused unless `time_unit` says what they are. Where a file
holds several recordings, `group` names one. A compression that h5py has not (Blosc of DSEC and Tonic's caches, Zstd)
needs the package `hdf5plugin`; Prophesee's ECF, with which Metavision compresses, needs its own plug-in in
HDF5_PLUGIN_PATH.
Sources: https://dsec.ifi.uzh.ch/data-format/, https://github.com/SensorsINI/v2e,
https://docs.prophesee.ai/stable/data/file_formats/hdf5.html

Coordinates as stored: the origin is the upper left corner, x to the right and y downwards.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from eventsim.dvs.blocks import guessed_sensor, sliced
from eventsim.dvs.columns import Columns
from eventsim.dvs.event_format import EventFormat
from eventsim.dvs.event_values import column_order, columns_named, microseconds, pixels, polarities, time_scale
from eventsim.dvs.readable_file import readable_file
from eventsim.dvs.recording import AS_RECORDED, TIME_LIMIT_US, Orientation, Recording, SensorSize
from eventsim.errors import InputError
from eventsim.hdf5_filters import COMPRESSIONS, ECF, check_chunks, chunk_bytes, chunks_unchecked, filters_of
from eventsim.hdf5_text import HeldText, is_variable
from eventsim.untrusted import check_declared, check_here, check_stored, described, printable

if TYPE_CHECKING:  # takes long to import, and every recording asks this format: it is imported where it is used
    import h5py

MAGIC = b"\x89HDF\r\n\x1a\n"
V2E_ORDER: tuple[str | None, ...] = ("t", "x", "y", "p")
MAX_CHUNK_BYTES = 64 << 20
MAX_OBJECTS = 10_000
READ_EVENTS = 1 << 17
WHOLE = "whole microseconds; pass time_unit='s' or 'us'"
OFFSET_EXPECTED = "expected one whole number of microseconds; correct it, or leave it out"
UNREADABLE = (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError, OverflowError)


def recognises(path: Path, head: bytes) -> bool:
    """Tell by its first bytes whether a file is HDF5."""
    return head.startswith(MAGIC)


@dataclass(frozen=True)
class _Place:
    """Where in a file the events are: the data set of each column, or one data set with four fields or columns."""

    name: str
    columns: dict[str, str | int] | None
    datasets: dict[str, str]

    def column(self, name: str, block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a column of what was read of its data set."""
        if self.columns is None:
            return block
        key = self.columns[name]
        return block[:, key] if isinstance(key, int) else block[key]

    @property
    def listed(self) -> bool:
        """Whether the columns have numbers in place of names."""
        return self.columns is not None and all(isinstance(column, int) for column in self.columns.values())


class Hdf5Recording(Recording):
    """Events in an HDF5 file; see the module for the layouts.

    Parameters
    ----------
    path : str or path
        File to read.
    sensor_size : tuple of int, optional
        (height, width) in pixels; what the file's attribute ``geometry`` says, or the largest coordinates plus 1, when
        not given.
    orientation : Orientation
        How to turn the picture.
    group : str, optional
        Group or data set of the events, such as ``"CD/events"``, where the file holds several.
    time_unit : {"s", "ms", "us", "ns"}, optional
        Unit of the times.
    columns : str, optional
        Order of the columns of a list of events, such as ``"xytp"``; ``_`` for one to ignore.
    salvage : bool
        Whether the sensor is guessed by the events before the damage.

    Raises
    ------
    InputError
        The file is missing, empty, truncated or corrupt, holds no events or several recordings, or is compressed in a
        way that is not installed.
    """

    format = "hdf5"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sensor_size: SensorSize | None = None,
        orientation: Orientation = AS_RECORDED,
        group: str | None = None,
        time_unit: str | None = None,
        columns: str | None = None,
        salvage: bool = False,
    ) -> None:
        file = readable_file(path)
        # for messages, before the sensor is known
        self.path = str(file)
        self._scale = 0 if time_unit is None else time_scale(self.path, time_unit)
        order = V2E_ORDER if columns is None else column_order(self.path, columns)
        with _opened(self.path) as opened:
            self._place = _place(self.path, opened, group, order)
            if columns is not None and not self._place.listed:
                raise InputError(
                    f"{self.path}: columns={columns!r} was given, expected none for data sets or fields with names; "
                    "leave it out"
                )
            self._events = _checked(self.path, opened, self._place, time_unit)
            names = set(self._place.datasets.values())
            self._unchecked = frozenset(
                name for name in sorted(names) if chunks_unchecked(self.path, printable(name), opened[name])
            )
            if columns is None and self._place.listed:
                _check_order(
                    self.path, self._place.name, self._rows(opened)(self._place.name, 0, min(READ_EVENTS, self._events))
                )
            # a chunk that is unpacked for several blocks is unpacked once, and none is kept behind the next
            self._chunk_bytes = max(chunk_bytes(opened[name]) for name in self._place.datasets.values())
            self._offset_us = _time_offset(self.path, opened, self._place)
            said = _geometry(self.path, opened, self._place, needed=sensor_size is None)
        size = sensor_size or said or guessed_sensor(self.path, self._decode, salvage)
        super().__init__(str(file), size, orientation)
        self.size_given = sensor_size is not None
        self.told_size = said
        if sensor_size is None and said is None:
            self.untold = frozenset({"sensor_size"})

    def _stored_events(self) -> int:
        return self._events

    def _rows(self, file: h5py.File) -> _Rows:
        for name in set(self._place.datasets.values()):
            # anew: a recording may have been pickled into another process
            _find_filters(self.path, name, file[name])
        return _Rows(self.path, file, self._unchecked)

    def _stored_end(self) -> int | None:
        place = self._place
        with suppress(InputError), _opened(self.path) as file:  # reading tells
            last = self._rows(file)(place.datasets["t"], self._events - 1, self._events)
            return (
                int(microseconds(self.path, place.column("t", last), self._scale)[0]) + self._offset_us
                if self._events
                else None
            )
        return None

    def _decode(self, block_events: int) -> Iterator[Columns]:
        place = self._place
        with _opened(self.path, self._chunk_bytes) as file:
            rows = self._rows(file)
            # large reads of one size, since each one takes h5py a while and unpacks whole chunks
            for start in range(0, self._events, READ_EVENTS):
                stop = min(start + READ_EVENTS, self._events)
                read = {name: rows(name, start, stop) for name in dict.fromkeys(place.datasets.values())}
                values = {column: place.column(column, read[name]) for column, name in place.datasets.items()}
                t = microseconds(self.path, values["t"], self._scale)
                t += self._offset_us
                block = Columns(
                    pixels(self.path, "x", values["x"]),
                    pixels(self.path, "y", values["y"]),
                    t,
                    polarities(self.path, values["p"]),
                )
                yield from sliced(block, block_events)


class _Rows:
    """Rows of data sets, read in order; chunks that must be looked at before they are unpacked are, each once."""

    def __init__(self, path: str, file: h5py.File, unchecked: frozenset[str]) -> None:
        self._path, self._file = path, file
        self._checked = dict.fromkeys(unchecked, 0)
        # open until the end: what is closed forgets the chunk that it has unpacked
        self._datasets: dict[str, h5py.Dataset] = {}

    def __call__(self, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        if name not in self._datasets:
            self._datasets[name] = self._file[name]
        dataset = self._datasets[name]
        checked = self._checked.get(name, stop)
        if checked < stop:
            self._checked[name] = check_chunks(self._path, printable(name), dataset, max(start, checked), stop)
        read: npt.NDArray[Any] = dataset[start:stop]
        return read


@contextmanager
def _opened(path: str, cache_bytes: int = 1 << 20) -> Iterator[h5py.File]:
    """Open a file; what h5py raises becomes one line."""
    import h5py  # noqa: PLC0415 - as above

    try:
        with h5py.File(path, "r", rdcc_nbytes=cache_bytes) as file:
            yield file
    except UNREADABLE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: cannot be read as HDF5 ({described(error)}); the file is truncated or corrupt"
        ) from error


def _place(path: str, file: h5py.File, group: str | None, order: tuple[str | None, ...]) -> _Place:
    """Find the events."""
    if group is not None:
        place = _as_events(path, group.strip("/"), file.get(group), order, any_list=True)
        if place is None:
            raise InputError(f"{path}: group={group!r} was given, expected a group or data set of events in this file")
        return place
    places = [place] if (place := _as_events(path, "", file, order)) is not None else []
    names: list[str] = []

    def visit(name: str, thing: Any) -> object:
        names.append(name)
        if (place := _as_events(path, name, thing, order)) is not None:
            places.append(place)
        # another value than None ends the visit
        return True if len(names) > MAX_OBJECTS else None

    file.visititems(visit)
    if len(places) == 1:
        return places[0]
    if places:
        raise InputError(
            f"{path}: holds events in {' and '.join(printable(place.name) for place in places[:10])}, expected one "
            "recording; pass group='...' with one of them"
        )
    held = ", ".join(printable(name) for name in names[:10])
    raise InputError(
        f"{path}: holds no events but {held or 'nothing'}, expected data sets x, y, t and p in a group, one with such "
        "fields, or v2e's events of four columns; it is of another kind"
    )


def _as_events(
    path: str, name: str, thing: Any, order: tuple[str | None, ...], any_list: bool = False
) -> _Place | None:
    """Return where the columns are if a group or data set holds events."""
    import h5py  # noqa: PLC0415 - as above

    if isinstance(thing, h5py.Group):
        # of one dimension: images of time and polarity are no columns
        lists = [key for key in thing if isinstance(held := thing.get(key), h5py.Dataset) and held.ndim == 1]
        members = columns_named(path, lists)
        if members is not None:
            prefix = f"{name}/" if name else ""
            return _Place(name, None, {column: f"{prefix}{members[column]}" for column in "xytp"})
    elif isinstance(thing, h5py.Dataset):
        if thing.ndim == 1 and thing.dtype.names:
            fields = columns_named(path, thing.dtype.names)
            if fields is not None:
                return _Place(name, {column: fields[column] for column in "xytp"}, dict.fromkeys("xytp", name))
        elif thing.ndim == 2 and thing.shape[1] == len(order) and (any_list or name.rsplit("/", 1)[-1] == "events"):
            return _Place(name, {column: order.index(column) for column in "xytp"}, dict.fromkeys("xytp", name))
    return None


def _checked(path: str, file: h5py.File, place: _Place, time_unit: str | None) -> int:
    """Check types, sizes and compression of the data sets; return the number of events."""
    lengths = {}
    for column, name in place.datasets.items():
        dataset = file[name]
        key = None if place.columns is None else place.columns[column]
        dtype = dataset.dtype[key] if isinstance(key, str) else dataset.dtype
        kinds = {"t": "iu" if time_unit is None else "iuf", "p": "iubf"}.get(column, "iuf")
        if dtype.kind not in kinds:
            raise InputError(
                f"{path}: data set {printable(name)} has {column} of type {dtype}, expected "
                f"{WHOLE if column == 't' else 'numbers; convert it'}"
            )
        check_here(Path(path), printable(name), dataset)
        _check_unpacking(path, name, dataset)
        lengths[column] = dataset.shape[0]
    if len(set(lengths.values())) != 1:
        raise InputError(f"{path}: columns of lengths {lengths}, expected one length; the file is damaged")
    held = [file[name] for name in dict.fromkeys(place.datasets.values())]
    what = f"{'group' if place.columns is None else 'dataset'} {printable(place.name or '/')}"
    check_declared(Path(path), what, held, math.inf)
    return int(lengths["t"])


def _check_order(path: str, name: str, rows: npt.NDArray[Any]) -> None:
    """Refuse a list of events without names that begins with something else than times, as v2e's does."""
    first = rows[:, V2E_ORDER.index("t")]
    if 8 * np.count_nonzero(first[1:] < first[:-1]) > len(first):  # a few events may be late
        raise InputError(
            f"{path}: data set /{printable(name)} has four columns without names, and the first is not in "
            "order, expected times as v2e writes them; pass columns='xytp' or what their order is"
        )


def _check_unpacking(path: str, name: str, dataset: h5py.Dataset) -> None:
    """Refuse chunks that are too large to unpack, and find what unpacks the others."""
    if chunk_bytes(dataset) > MAX_CHUNK_BYTES:
        raise InputError(
            f"{path}: data set {printable(name)} has chunks of {dataset.chunks} values, expected at most "
            f"{MAX_CHUNK_BYTES >> 20} MiB; save it again in smaller chunks"
        )
    _find_filters(path, name, dataset)


def _find_filters(path: str, name: str, dataset: h5py.Dataset) -> None:
    """Register the filters of a data set in this process, or say what is lacking."""
    import h5py  # noqa: PLC0415 - as above

    numbers = [number for number, _ in filters_of(dataset)]
    lacking = [number for number in numbers if not h5py.h5z.filter_avail(number)]
    if lacking and ECF not in lacking:
        with suppress(ImportError):
            import hdf5plugin  # noqa: F401, PLC0415 - registers its filters; optional
        lacking = [number for number in numbers if not h5py.h5z.filter_avail(number)]
    for number in lacking:
        known = COMPRESSIONS.get(number, f"filter {number}")
        advice = (
            "install Prophesee's hdf5_ecf and set HDF5_PLUGIN_PATH, or convert it with metavision_file_to_csv"
            if number == ECF
            else "pip install 'eventsim[hdf5]'"
        )
        raise InputError(f"{path}: data set {printable(name)} is compressed with {known}, which is not here; {advice}")


def _time_offset(path: str, file: h5py.File, place: _Place) -> int:
    """Return DSEC's ``t_offset`` beside the events' group, in microseconds; 0 without one."""
    import h5py  # noqa: PLC0415 - as above

    parent = place.name.rpartition("/")[0]
    found = file.get(f"{parent}/t_offset" if parent else "t_offset")
    if found is None:
        return 0
    if not isinstance(found, h5py.Dataset) or found.shape not in ((), (1,)) or found.dtype.kind not in "iuf":
        kind = "that is a group"
        if isinstance(found, h5py.Dataset):
            kind = f"of type {'text' if found.dtype.kind in 'OSU' else found.dtype} and shape {found.shape}"
        raise InputError(f"{path}: t_offset {kind} found, {OFFSET_EXPECTED}")
    check_stored(Path(path), "t_offset", found)
    value = np.asarray(found[()]).ravel()[0]
    if not np.isfinite(value) or value != np.floor(value):
        raise InputError(f"{path}: t_offset {value} found, {OFFSET_EXPECTED}")
    offset = int(value)
    if not abs(offset) < TIME_LIMIT_US // 2:
        raise InputError(f"{path}: t_offset is {offset} us, expected less than 2^61; the file is corrupt")
    return offset


def _geometry(path: str, file: h5py.File, place: _Place, *, needed: bool) -> SensorSize | None:
    """Return (height, width) that an attribute ``geometry`` says, of the events or of what they are in."""
    for name in (place.name, place.name.rpartition("/")[0], "/"):
        holder = file[name or "/"]
        if "geometry" not in holder.attrs:
            continue
        attribute = holder.attrs.get_id("geometry")
        if attribute.dtype.hasobject and not is_variable(attribute):
            said: Any = attribute.dtype
        else:
            HeldText(Path(path)).check_attribute(holder, "geometry")
            said = holder.attrs["geometry"]
        said = said.decode("latin-1") if isinstance(said, bytes) else said
        sides = re.fullmatch(r"(\d{1,5})x(\d{1,5})", said) if isinstance(said, str) else None
        if sides:
            return int(sides[2]), int(sides[1])
        if needed:
            shown = printable(" ".join((repr(said) if isinstance(said, str) else str(said)).split()))
            raise InputError(
                f"{path}: attribute geometry {shown} found, expected the sensor's WIDTHxHEIGHT as text; pass "
                "sensor_size=(height, width)"
            )
    return None


FORMAT = EventFormat(
    title="HDF5",
    description="HDF5 with events: DSEC, v2e, Metavision",
    extensions=(".h5", ".hdf5"),
    recognises=recognises,
    open=Hdf5Recording,
    options=frozenset({"group", "time_unit", "columns", "salvage"}),
)
