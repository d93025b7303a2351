"""Events in a ``.npy`` file: a structured array as Tonic and others write them, or an event list."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from eventsim.dvs.columns import EVENT_DTYPE, Decoded, Packed
from eventsim.dvs.event_format import EventFormat
from eventsim.dvs.events_array import MAGIC, ArrayRecording, map_npy, npy_rest, npy_rows
from eventsim.dvs.readable_file import readable_file
from eventsim.dvs.recording import AS_RECORDED, Orientation, SensorSize
from eventsim.errors import InputError

# between two times that the pages of a mapped file are let go; less often than blocks, since that takes a while
HELD_EVENTS = 500_000


def recognises(path: Path, head: bytes) -> bool:
    """Tell by its first bytes whether a file is ``.npy``."""
    return head.startswith(MAGIC)


class NpyRecording(ArrayRecording):
    """A ``.npy`` file that holds a structured array as `ArrayRecording` takes it; memory-mapped, never read whole.

    Parameters
    ----------
    path : str or path
        File to read.
    sensor_size : tuple of int, optional
        (height, width) in pixels; guessed as the largest coordinates plus 1 when not given.
    orientation : Orientation
        How to turn the picture.
    columns, time_unit : str, optional
        Of an event list, see `ArrayRecording`.
    salvage : bool
        Whether a file that ends early is read as far as it goes, and one with more behind its array up to there.

    Raises
    ------
    InputError
        The file is missing, empty, no ``.npy`` file, not as long as its header says, or holds another kind of array.
    """

    format = "npy"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sensor_size: SensorSize | None = None,
        orientation: Orientation = AS_RECORDED,
        columns: str | None = None,
        time_unit: str | None = None,
        salvage: bool = False,
    ) -> None:
        file = readable_file(path)
        self._opened: dict[str, Any] = {"columns": columns, "time_unit": time_unit, "salvage": salvage}
        mapped: Any = map_npy(file, cut=True)
        lacking, told = npy_rows(file) - len(mapped) if mapped.ndim else 0, npy_rows(file)
        self._cut = f"{file}: {len(mapped):,} of {told:,} events are there; the file is truncated" if lacking else ""
        if self._cut and not salvage:
            raise InputError(f"{self._cut}: copy it again or pass salvage=True")
        if not self._cut:
            self._cut = npy_rest(file)
            if self._cut and not salvage:
                raise InputError(f"{self._cut}, or pass salvage=True")
        self._map = mapped.base
        self._packed_from: int | None = None
        super().__init__(mapped, sensor_size=sensor_size, orientation=orientation, path=str(file), **self._opened)
        # events that are stored as they are delivered need no decoding
        if mapped.dtype == EVENT_DTYPE and mapped.ndim == 1 and time_unit in (None, "us"):
            self._packed_from = int(mapped.offset)

    def _decode(self, block_events: int) -> Iterator[Decoded]:
        yield from self._held(block_events)
        if self._cut:
            raise InputError(self._cut)

    def _held(self, block_events: int) -> Iterator[Decoded]:
        """Decode the events that are there."""
        if self._packed_from is not None:
            yield from self._stored(self._packed_from, block_events)
            return
        held = 0
        for columns in super()._decode(block_events):
            yield columns
            held += len(columns.t)
            if held > HELD_EVENTS and hasattr(mmap, "MADV_DONTNEED"):
                # what was read of the file may leave the memory of this process
                self._map.madvise(mmap.MADV_DONTNEED)
                held = 0

    def _stored(self, begin: int, block_events: int) -> Iterator[Packed]:
        """Read packed events from a byte on."""
        left = self._stored_events()
        with Path(self.path).open("rb") as file:
            file.seek(begin)
            while left:
                events = np.empty(min(block_events, left), EVENT_DTYPE)
                got = file.readinto(events.view(np.uint8).data)
                if got < events.nbytes:
                    raise InputError(f"{self.path}: ends {events.nbytes - got} bytes early; the file is truncated")
                # a byte of a damaged file may be neither 0 nor 1
                events["p"] = events["p"].view(np.uint8) != 0
                left -= len(events)
                yield Packed(events, events.dtype["x"])

    def __reduce__(self) -> tuple[Any, ...]:
        """Open the file again where it is unpickled: a pickled memory map would carry all of its events."""
        size = (self._sensor_height, self._sensor_width)
        opened = partial(NpyRecording, sensor_size=size, orientation=self._orientation, **self._opened)
        said = {name: value for name, value in vars(self).items() if name not in ("_events", "_map")}
        return opened, (self.path,), said


FORMAT = EventFormat(
    title="NumPy",
    description="NumPy array with fields x, y, t, p (Tonic, dv_processing, aedat, faery), or a list with named columns",
    extensions=(".npy",),
    recognises=recognises,
    open=NpyRecording,
    options=frozenset({"columns", "time_unit", "salvage"}),
)
