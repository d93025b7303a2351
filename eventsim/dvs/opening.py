"""Which formats there are, and from a file to the recording that it holds."""

from __future__ import annotations

import importlib
import io
import os
import pkgutil
import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from eventsim.dvs import formats
from eventsim.dvs.arriving import ArrivingFile, arriving_file, printable_text
from eventsim.dvs.event_format import EventFormat
from eventsim.dvs.events_array import ArrayRecording
from eventsim.dvs.readable_file import ReadableFile, readable_file
from eventsim.dvs.recording import AS_RECORDED, TIME_LIMIT_US, Orientation, Recording, SensorSize
from eventsim.dvs.said_values import orientation_of, sensor_size_of, whole_number
from eventsim.errors import EventsimError, InputError
from eventsim.plugins import EVENT_FORMATS, PluginWarning, plugins
from eventsim.untrusted import described

SALVAGE = "salvage"
"""The option of formats that find damage when a file is opened, and can leave it to the reading."""
ARCHIVES = {
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ\x00": "an xz file",
    b"\x28\xb5\x2f\xfd": "a Zstandard file",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"Rar!": "a RAR archive",
}
"""What recordings are often packed into, by its first bytes."""
TEXT = "text"
"""The format without a magic number that a pipe, which has no extension, is known to hold by its characters."""


def event_formats() -> dict[str, EventFormat]:
    """Return every event-file format by name: ours, and those of other packages, which are looked up here.

    Returns
    -------
    dict of str to EventFormat
        Sorted by name, ours first. A plug-in that cannot be used is left out with a `PluginWarning`.
    """
    shipped = _shipped()
    return {**shipped, **plugins(EVENT_FORMATS, [*shipped, ArrayRecording.format], _check)}


@cache
def _shipped() -> dict[str, EventFormat]:
    names = sorted(module.name for module in pkgutil.iter_modules(formats.__path__))
    return {name: importlib.import_module(f"{formats.__name__}.{name}").FORMAT for name in names}


def _check(part: Any) -> None:
    if not isinstance(part, EventFormat):
        raise InputError(f"{type(part).__name__} found; expected an eventsim.dvs.EventFormat")


def open_recording(
    source: str | os.PathLike[str] | npt.NDArray[Any] | io.BufferedIOBase | io.RawIOBase,
    *,
    sensor_size: SensorSize | None = None,
    orientation: Orientation | None = None,
    format: str | None = None,
    start_us: int | None = None,
    end_us: int | None = None,
    salvage: bool = False,
    **options: Any,
) -> Recording:
    """Open an event file of any readable format, or a structured array of events.

    Parameters
    ----------
    source : str, path, ndarray or binary file
        Event file, or an array as `ArrayRecording` takes it. A file is recognised by its content; where no format
        recognises that, the extension decides between the formats without a magic number (``.bin``). Of a binary file
        that is open, such as ``sys.stdin.buffer``, what comes is read once and forwards, no more than is used and a
        piece of 64 KiB; formats that cannot be read so are refused.
    sensor_size : tuple of int, optional
        (height, width) of the sensor in pixels, before orientation. When not given, what the file says; see the
        reader's class for what it assumes where the file says nothing.
    orientation : Orientation, optional
        How to turn the picture. When not given, each format's own convention, see the reader's module, until a
        `Preparation` or a network says one; what is given here, they leave as it is.
    format : str, optional
        Name of the file's format (`event_formats`), in place of recognising it.
    start_us, end_us : int, optional
        Read the events from `start_us` up to, but without, `end_us`; microseconds, as in the file.
    salvage : bool
        Read up to the first damage in place of refusing the recording; `Defects` tell where that was.
    **options
        Options of the format, such as ``camera`` of AEDAT 2.0; None is the same as not given.

    Returns
    -------
    Recording
        Ready to be read with `Recording.chunks` or one of the ``frames_by_...`` functions.

    Raises
    ------
    InputError
        The source is missing, a folder, empty, truncated, of no readable format or of more than one, or the options do
        not fit it.
    """
    sensor_size = None if sensor_size is None else sensor_size_of(sensor_size)
    orientation = None if orientation is None else orientation_of(orientation)
    for name, at in (("start_us", start_us), ("end_us", end_us)):
        if at is not None and not -TIME_LIMIT_US <= whole_number(name, at) <= TIME_LIMIT_US:
            raise InputError(f"{name}={at} found; expected microseconds of less than 2^62")
    if start_us is not None and end_us is not None and start_us >= end_us:
        raise InputError(f"start_us={start_us} and end_us={end_us} found; expected an end behind the start")
    recording = open_as_one_of(
        event_formats(),
        source,
        sensor_size=sensor_size,
        orientation=orientation,
        format=format,
        salvage=salvage,
        **options,
    )
    recording.start_us, recording.end_us = start_us, end_us
    return recording


def open_as_one_of(
    known: Mapping[str, EventFormat],
    source: str | os.PathLike[str] | npt.NDArray[Any] | io.BufferedIOBase | io.RawIOBase,
    *,
    sensor_size: SensorSize | None = None,
    orientation: Orientation | None = None,
    format: str | None = None,
    salvage: bool = False,
    **options: Any,
) -> Recording:
    """Do what `open_recording` does with the given formats in place of `event_formats`."""
    given = {name: value for name, value in options.items() if value is not None}
    turned = AS_RECORDED if orientation is None else orientation
    if isinstance(source, np.ndarray):
        _refuse_options("array", given, frozenset({"columns", "time_unit"}), known)
        if format is not None:
            raise InputError(f"array: format={format!r} was given, expected it for files alone; leave it out")
        array = ArrayRecording(source, sensor_size=sensor_size, orientation=turned, salvage=salvage, **given)
        array.salvage, array.orientation_given = salvage, orientation is not None
        return array
    file = readable_file(_path(source))
    chosen = known[_recognised(file, known) if format is None else _named(file, format, known)]
    if file.arrives and not chosen.forward:
        forward = ", ".join(name for name, entry in known.items() if entry.forward)
        raise InputError(
            f"{file}: {chosen.title} comes by a pipe, expected a format that is read forwards ({forward}); save it to "
            "a file first"
        )
    _refuse_options(str(file), given, chosen.options, known)
    if salvage and SALVAGE in chosen.options:
        given[SALVAGE] = True
    try:
        recording = chosen.open(file, sensor_size=sensor_size, orientation=turned, **given)
        if not isinstance(recording, Recording):
            raise TypeError(f"open returned {type(recording).__name__}")
        recording.size_given, recording.salvage = sensor_size is not None, salvage
        recording.orientation_given = orientation is not None
        recording.waiting = file.pipe.waiting if isinstance(file, ArrivingFile) else None
        return recording
    except EventsimError:
        raise
    except Exception as error:
        package = getattr(chosen.open, "__module__", "")
        if package.startswith("eventsim."):
            raise
        raise InputError(
            f"{file}: its reader in {package} failed ({described(error)}); the file is damaged, or the reader is"
        ) from error


def _path(source: object) -> str | os.PathLike[str]:
    """Return a path, or the beginning of what comes by a pipe; refuse what is neither."""
    if isinstance(source, (str, os.PathLike)):
        return source
    if isinstance(source, (io.BufferedIOBase, io.RawIOBase)):
        return arriving_file(source)
    raise InputError(
        f"{type(source).__name__} found as a recording; expected a path, an array of events, or a binary file; "
        "batches of events as they come are for eventsim.stream"
    )


def _recognised(file: ReadableFile, known: Mapping[str, EventFormat]) -> str:
    """Find the one format of a file: by its content, and by its extension where that says nothing."""
    found = [name for name, entry in known.items() if _recognises(name, entry, file)]
    suffix = file.path.suffix.lower()
    found = found or [name for name, entry in known.items() if entry.recognises is None and suffix in entry.extensions]
    untold = [f"format={name!r}" for name, entry in known.items() if entry.forward and entry.recognises is None]
    if file.arrives and not found:
        if TEXT in known and printable_text(file.head):
            return TEXT
        raise InputError(
            f"{file}: begins with {file.head[:8]!r}, of no format that tells itself; pass {' or '.join(untold)}, or "
            "save it to a file and convert that"
        )
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"{file}: could be {' or '.join(found)}, expected a file of one format; pass format={found[0]!r} or the "
            "other, or uninstall the package of the wrong one"
        )
    archive = next((title for magic, title in ARCHIVES.items() if file.head.startswith(magic)), None)
    if archive is not None:
        raise InputError(f"{file}: {archive} found, expected a recording; unpack it, and name the file in it")
    if TEXT in known and printable_text(file.head):
        extensions = " or ".join(known[TEXT].extensions)
        raise InputError(
            f"{file}: text found, expected a name that ends in {extensions}; pass format='text' if its lines are events"
        )
    readable = ", ".join(f"{name} ({'/'.join(entry.extensions)})" for name, entry in known.items())
    raise InputError(
        f"{file}: begins with {file.head[:8]!r}, of no readable format; readable are {readable}: convert it to one of "
        f"them, or pass {' or '.join(untold)} if it is of one that its name has to tell"
    )


def _recognises(name: str, entry: EventFormat, file: ReadableFile) -> bool:
    """Ask one format; what it raises is reported and leaves the file to the others."""
    if entry.recognises is None:
        return False
    try:
        return bool(entry.recognises(file.path, file.head))
    except Exception as error:  # noqa: BLE001 - whatever the code of another package raises
        warnings.warn(
            f"event format {name} ({EVENT_FORMATS}) is left out: {described(error)}", PluginWarning, stacklevel=5
        )
        return False


def _named(file: ReadableFile, name: str, known: Mapping[str, EventFormat]) -> str:
    if name not in known:
        meant = "".join(f"; did you mean {near}?" for near in get_close_matches(name, known, 1))
        raise InputError(f"{file}: format {name!r} was given, expected one of {', '.join(known)}{meant}")
    return name


def _refuse_options(
    path: str, given: Mapping[str, Any], taken: frozenset[str], known: Mapping[str, EventFormat]
) -> None:
    """Refuse an option that the format does not take, and name those that do."""
    for name in sorted(set(given) - taken):
        titles = [entry.title for entry in known.values() if name in entry.options]
        if not titles:
            every = sorted(set().union(*(entry.options for entry in known.values())) - {SALVAGE})
            raise InputError(
                f"{path}: {name}={given[name]!r} was given, expected an option of some format ({', '.join(every)})"
            )
        raise InputError(
            f"{path}: {name}={given[name]!r} was given, expected only for {', '.join(titles)} files; leave it out"
        )
