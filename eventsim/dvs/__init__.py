"""Recordings of event cameras, and their windowing into frames.

`open_recording` recognises a file by its content; `frames_by_count`, `frames_by_time` and `frames_by_duration` turn a
recording into frames. Data sets that Tonic knows open with `eventsim.dvs.tonic_dataset.open_tonic_dataset`, a module of
its own since importing Tonic takes a second.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from eventsim.dvs import aedat2, aedat3, aedat4, events_array, nmnist
from eventsim.dvs.aedat2 import Aedat2Recording
from eventsim.dvs.aedat3 import Aedat3Recording
from eventsim.dvs.aedat4 import Aedat4Recording
from eventsim.dvs.cameras import Layout
from eventsim.dvs.events_array import ArrayRecording, NpyRecording
from eventsim.dvs.nmnist import NmnistRecording
from eventsim.dvs.recording import (
    AS_RECORDED,
    EVENT_DTYPE,
    Orientation,
    Recording,
    RecordingSummary,
    SensorSize,
    readable_file,
)
from eventsim.dvs.windowing import Fit, frames_by_count, frames_by_duration, frames_by_time
from eventsim.errors import InputError

__all__ = [
    "AS_RECORDED",
    "EVENT_DTYPE",
    "FORMATS",
    "Aedat2Recording",
    "Aedat3Recording",
    "Aedat4Recording",
    "ArrayRecording",
    "EventFormat",
    "Fit",
    "NmnistRecording",
    "NpyRecording",
    "Orientation",
    "Recording",
    "RecordingSummary",
    "frames_by_count",
    "frames_by_duration",
    "frames_by_time",
    "open_recording",
]


class EventFormat(NamedTuple):
    """One event-file format, for lists.

    Attributes
    ----------
    name : str
        As in `Recording.format`.
    description : str
        One line.
    extensions : tuple of str
        Usual file extensions; only ``.bin`` decides anything.
    """

    name: str
    description: str
    extensions: tuple[str, ...]


FORMATS = (
    EventFormat("aedat2", "AEDAT 2.0 of jAER: DVS128 and DAVIS, MNIST-DVS, CIFAR10-DVS", (".aedat", ".aedat2")),
    EventFormat("aedat3", "AEDAT 3.1 of cAER: DVS128 Gesture", (".aedat",)),
    EventFormat("aedat4", "AEDAT 4.0 of iniVation DV", (".aedat4",)),
    EventFormat("nmnist", "40-bit events of N-MNIST and N-Caltech101", (".bin",)),
    EventFormat("npy", "NumPy structured array with fields x, y, t, p, as Tonic's", (".npy",)),
)


def open_recording(
    source: str | os.PathLike[str] | npt.NDArray[Any],
    *,
    sensor_size: SensorSize | None = None,
    orientation: Orientation = AS_RECORDED,
    camera: Layout | None = None,
) -> Recording:
    """Open an event file of any readable format, or a structured array of events.

    Parameters
    ----------
    source : str, path or ndarray
        Event file, recognised by its content (``.bin`` by its name), or an array as `ArrayRecording` takes it.
    sensor_size : tuple of int, optional
        (height, width) of the sensor in pixels, before orientation. When not given, what the file says; see the
        reader's class for what it assumes where the file says nothing.
    orientation : Orientation
        How to turn the picture; by default each format's own convention, see the reader's module.
    camera : {"dvs128", "davis"}, optional
        Address layout of an AEDAT 2.0 file whose header does not say it; no other format takes it.

    Returns
    -------
    Recording
        Ready to be read with `Recording.chunks` or one of the ``frames_by_...`` functions.

    Raises
    ------
    InputError
        The source is missing, a folder, empty, truncated, of no readable format, or the options do not fit it.
    """
    if isinstance(source, np.ndarray):
        _refuse_camera(camera, "array")
        return ArrayRecording(source, sensor_size=sensor_size, orientation=orientation)
    path = readable_file(source)
    if aedat2.recognises(path):
        return Aedat2Recording(path, sensor_size=sensor_size, orientation=orientation, camera=camera)
    _refuse_camera(camera, str(path))
    if aedat3.recognises(path):
        return Aedat3Recording(path, sensor_size=sensor_size, orientation=orientation)
    if aedat4.recognises(path):
        return Aedat4Recording(path, sensor_size=sensor_size, orientation=orientation)
    if events_array.recognises(path):
        return NpyRecording(path, sensor_size=sensor_size, orientation=orientation)
    if nmnist.recognises(path):
        return NmnistRecording(path, sensor_size=sensor_size, orientation=orientation)
    known = ", ".join(f"{name} ({'/'.join(extensions)})" for name, _, extensions in FORMATS)
    with path.open("rb") as file:
        begins = file.read(8)
    raise InputError(
        f"{path}: begins with {begins!r}, of no readable format; readable are {known}: convert it to one of them"
    )


def _refuse_camera(camera: Layout | None, path: str) -> None:
    if camera is not None:
        raise InputError(f"{path}: camera={camera!r} was given, expected only for AEDAT 2.0 files; leave it out")
