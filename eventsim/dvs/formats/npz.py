"""Events in a ``.npz`` archive: one array each for x, y, t and p, as SpikingJelly caches its data sets.

SpikingJelly (0.0.0.0.12 and later) writes ``t``, ``x``, ``y`` and ``p`` with `numpy.savez`, one file a sample; t in
microseconds, p 1 = ON. Its caches of *frames* hold one array ``frames`` of shape (T, 2, H, W) and are no recordings:
`frames_of` reads them for whoever runs a network.
Source: https://github.com/fangwei123456/spikingjelly, spikingjelly/datasets

Coordinates as stored. The archive does not say the sensor's size.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from eventsim.dvs.blocks import guessed_sensor
from eventsim.dvs.columns import Columns
from eventsim.dvs.event_format import EventFormat
from eventsim.dvs.event_values import columns_named, microseconds, pixels, polarities, time_scale
from eventsim.dvs.events_array import MAX_HEADER_BYTES, READ_HEADER
from eventsim.dvs.readable_file import ReadableFile, readable_file
from eventsim.dvs.recording import AS_RECORDED, BLOCK_EVENTS, Orientation, Recording, SensorSize
from eventsim.errors import InputError
from eventsim.untrusted import described, printable

MAGIC = b"PK\x03\x04"
# where the name of the first member stands in an archive
NAME_START = 30
FRAMES = "frames.npy"
# frames are held as a whole, and become values of 4 bytes; the archive is refused before more is read
MAX_FRAME_BYTES = 256 << 20
LEAST_BYTES = 4
UNREADABLE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError)


def recognises(path: Path, head: bytes) -> bool:
    """Tell by its first bytes whether a file is ``.npz``: an archive whose first member is ``.npy``."""
    length = int.from_bytes(head[26:28], "little")
    return head.startswith(MAGIC) and head[NAME_START : NAME_START + length].endswith(b".npy")


class NpzRecording(Recording):
    """A ``.npz`` file of events, read piece by piece, compressed or not.

    Parameters
    ----------
    path : str or path
        File to read. Its arrays are named as `eventsim.dvs.event_values.NAMES` says; further ones are ignored.
    sensor_size : tuple of int, optional
        (height, width) in pixels; guessed as the largest coordinates plus 1 when not given.
    orientation : Orientation
        How to turn the picture.
    time_unit : {"s", "ms", "us", "ns"}, optional
        Unit of the times, microseconds when not given; floating-point times need it.
    salvage : bool
        Whether the sensor is guessed by the events before the damage.

    Raises
    ------
    InputError
        The file is missing, empty, truncated or corrupt, lacks one of the arrays, or they are not of one length.
    """

    format = "npz"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        sensor_size: SensorSize | None = None,
        orientation: Orientation = AS_RECORDED,
        time_unit: str | None = None,
        salvage: bool = False,
    ) -> None:
        file = readable_file(path)
        # for messages, before the sensor is known
        self.path = str(file)
        self._scale = None if time_unit is None else time_scale(self.path, time_unit)
        with _opened(self.path) as archive, ExitStack() as stack:
            _, self._events = _members(self.path, archive, stack, self._scale is not None)
        size = guessed_sensor(self.path, self._decode, salvage) if sensor_size is None else sensor_size
        super().__init__(str(file), size, orientation)
        self.size_given = sensor_size is not None
        if sensor_size is None:
            self.untold = frozenset({"sensor_size"})

    def _stored_events(self) -> int:
        return self._events

    def _stored_end(self) -> int | None:
        with suppress(InputError), _opened(self.path) as archive, ExitStack() as stack:  # reading tells
            (times, dtype), left = _members(self.path, archive, stack, self._scale is not None)[0]["t"], self._events
            while left > BLOCK_EVENTS:
                _values(times, dtype, BLOCK_EVENTS)
                left -= BLOCK_EVENTS
            if left:
                return int(microseconds(self.path, _values(times, dtype, left)[-1:], self._scale)[0])
        return None

    def _decode(self, block_events: int) -> Iterator[Columns]:
        with _opened(self.path) as archive, ExitStack() as stack:
            members, events = _members(self.path, archive, stack, self._scale is not None)
            for start in range(0, events, block_events):
                count = min(block_events, events - start)
                x, y, t, p = (_values(*members[name], count) for name in "xytp")
                yield Columns(
                    pixels(self.path, "x", x),
                    pixels(self.path, "y", y),
                    microseconds(self.path, t, self._scale),
                    polarities(self.path, p),
                )
            # the archive's check sum is compared at the end of a member
            for member, _ in members.values():
                if member.read(1):
                    raise ValueError("bytes after the last event")


@contextmanager
def _opened(path: str) -> Iterator[zipfile.ZipFile]:
    """Open an archive; what its reader raises becomes one line."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except UNREADABLE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: cannot be read as .npz ({described(error)}); the file is truncated or corrupt"
        ) from error


def _members(
    path: str, archive: zipfile.ZipFile, stack: ExitStack, unit_told: bool
) -> tuple[dict[str, tuple[IO[bytes], np.dtype[Any]]], int]:
    """Open the four arrays at their first values; return them with their types, and the number of events."""
    names = columns_named(path, [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")])
    if names is None:
        held = ", ".join(printable(name) for name in archive.namelist()[:10])
        frames = "; frames are no recording, give them to the run command" if FRAMES in archive.namelist() else ""
        raise InputError(
            f"{path}: holds the arrays {held}, expected arrays x, y, t and p; save them with numpy.savez{frames}"
        )
    members = {}
    lengths = {}
    for column in "xytp":
        member = stack.enter_context(archive.open(f"{names[column]}.npy"))
        shape, _, dtype = _read_header(member)
        if len(shape) != 1 or dtype.kind not in ("iubf" if column == "p" else "iuf") or dtype.itemsize > 8:
            raise InputError(
                f"{path}: array {printable(names[column])} has shape {shape} and type {dtype}, expected one dimension "
                "of numbers; save its ravel(), or convert it"
            )
        if column == "t" and dtype.kind == "f" and not unit_told:
            raise InputError(
                f"{path}: times of type {dtype}, which may be seconds or microseconds; pass time_unit='s' or 'us', or "
                "convert them to whole microseconds"
            )
        members[column], lengths[column] = (member, dtype), shape[0]
    if len(set(lengths.values())) != 1:
        raise InputError(f"{path}: arrays of lengths {lengths}, expected one length; the file is damaged")
    return members, lengths["t"]


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, order and type of a member; raises ValueError."""
    prefix = member.read(8)
    version = np.lib.format.read_magic(io.BytesIO(prefix))
    if version not in READ_HEADER:
        raise ValueError(f"version {version} of .npy")
    size = member.read(2 if version == (1, 0) else 4)
    length = int.from_bytes(size, "little")
    # a damaged length would have NumPy unpack as much before it reads
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"header of .npy of {length} bytes")
    head = io.BytesIO(prefix + size + member.read(length))
    np.lib.format.read_magic(head)
    try:
        shape, fortran_order, dtype = READ_HEADER[version](head, max_header_size=MAX_HEADER_BYTES)
    except Exception as error:  # NumPy evaluates the header as Python and lets through whatever that raises
        raise ValueError(f"header of .npy: {described(error)}") from error
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not unpickled")
    return shape, fortran_order, dtype


def _values(member: IO[bytes], dtype: np.dtype[Any], count: int) -> npt.NDArray[Any]:
    """Read the next values of a member."""
    data = member.read(count * dtype.itemsize)
    if len(data) < count * dtype.itemsize:
        raise EOFError(f"{len(data)} bytes for {count} values of {dtype}")
    return np.frombuffer(data, dtype, count)


def frames_of(path: str | os.PathLike[str]) -> npt.NDArray[Any] | None:
    """Read the array ``frames`` of an archive, as SpikingJelly caches them; None where it holds none.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    ndarray, shape (T, 2, H, W), or None
        Events per frame, polarity (0 = OFF, 1 = ON), row and column.

    Raises
    ------
    InputError
        The file cannot be read, or the array is of another kind or of more than 256 MiB.
    """
    file: ReadableFile = readable_file(path)
    if not recognises(file.path, file.head):
        return None
    with _opened(str(file)) as archive:
        if FRAMES not in archive.namelist():
            return None
        with archive.open(FRAMES) as member:
            shape, fortran_order, dtype = _read_header(member)
            values = int(np.prod([int(side) for side in shape], dtype=object))
            if dtype.kind not in "iufb" or values * max(dtype.itemsize, LEAST_BYTES) > MAX_FRAME_BYTES:
                raise InputError(
                    f"{file}: frames of shape {shape} and type {dtype}, expected numbers of at most "
                    f"{MAX_FRAME_BYTES >> 20} MiB, 4 bytes or more each; run them in parts"
                )
            # in pieces: memory is taken as it is filled, and a damaged shape takes none that the archive does not hold
            flat = np.empty(values, dtype)
            for start in range(0, values, 1 << 20):
                piece = _values(member, dtype, min(1 << 20, values - start))
                flat[start : start + len(piece)] = piece
    return flat.reshape(shape, order="F" if fortran_order else "C")


FORMAT = EventFormat(
    title="NumPy archive",
    description="NumPy archive with arrays x, y, t, p, as SpikingJelly caches",
    extensions=(".npz",),
    recognises=recognises,
    open=NpzRecording,
    options=frozenset({"time_unit", "salvage"}),
)
