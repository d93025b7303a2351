"""From a file or array to frames that a network takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from eventsim.dvs import (
    Defects,
    Fit,
    Orientation,
    ReadableFile,
    Reading,
    Recording,
    frames_by_count,
    frames_by_duration,
    frames_by_time,
    frames_from_events,
    open_recording,
)
from eventsim.dvs.event_lists import refuse_nameless
from eventsim.dvs.events_array import map_npy, npy_fields
from eventsim.dvs.formats.npz import MAX_FRAME_BYTES, frames_of
from eventsim.dvs.order import DEFAULT_LAG_US, Disorder
from eventsim.dvs.part import RecordingPart
from eventsim.dvs.readable_file import readable_file
from eventsim.dvs.slices import frames_of_slices
from eventsim.dvs.windowing import Remainder
from eventsim.errors import InputError
from eventsim.masked import refuse_masked
from eventsim.network import Network
from eventsim.normalisation import normalised
from eventsim.preparation_options import (
    BINS,
    BINS_OF_EVENTS,
    ORIENTATION,
    OVERLAPPING,
    WindowKind,
    numbers_of,
    size_of,
)
from eventsim.preparation_values import bin_size, check_windows, plain_values, windows_of
from eventsim.settings import Setting
from eventsim.unforeseen import each_in_one_line, one_line
from eventsim.untrusted import MAXIMUM_BYTES

FRAME_BYTES = np.dtype(np.int32).itemsize
NPY = b"\x93NUMPY"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
OneRecording: TypeAlias = str | Path | ReadableFile | npt.NDArray[Any] | Recording
Source: TypeAlias = str | Path | npt.NDArray[Any] | Recording | RecordingPart


OF_FORMATS = ("format", "columns", "time_unit", "group", "first_pixel")
OF_READING = ("start_us", "end_us", "disorder", "lag_us", "salvage", "stream", *OF_FORMATS)
OF_RECORDINGS = (
    "window",
    "bin_us",
    "bin_events",
    "overlap",
    "binary",
    "sensor_size",
    "camera",
    "orientation",
    *OF_READING,
)
OF_IMAGES = ("mean", "std")


@dataclass(frozen=True)
class Preparation:
    """How recordings and images become frames; what is left out is as the model says, else the default.

    Attributes
    ----------
    time_steps : int, optional
        Frames per recording, or how often an image is shown.
    window : str, optional
        ``"count"`` (the default): T frames of equally many events, ``"time"``: of equal time, where the last frame has
        the remainder, as SpikingJelly has them. ``"tonic-count"``, ``"tonic-time"``: the same without the remainder, as
        Tonic's ``ToFrame`` has them. ``"duration"``: bins of `bin_us` from the first event on. ``"tonic-duration"``:
        the same without an incomplete last one. ``"tonic-event-count"``: bins of `bin_events`, as Tonic's
        ``event_count`` has them. ``"spikingjelly-duration"``: bins that each begin with an event, as SpikingJelly's
        ``duration`` has them.
    bin_us : int, optional
        Bin length in microseconds for the windows of a duration.
    bin_events : int, optional
        Events of a bin for ``"tonic-event-count"``.
    overlap : int, optional
        How much of a bin is in the next one, too: microseconds of ``"tonic-duration"``, events of
        ``"tonic-event-count"``.
    binary : bool, optional
        Clip event counts to 1.
    fit : {"none", "crop", "pad", "downscale"}, optional
        What to do where the sensor or image is not of the model's size.
    sensor_size : (int, int), optional
        (height, width), for formats that do not tell.
    camera : str, optional
        Address layout of AEDAT 2.0.
    orientation : Orientation, optional
        How to turn the picture; of a recording that is open already, unless it was opened with one.
    mean, std : tuple of float, optional
        Per-channel normalisation of images, after scaling to 0..1.
    start_us, end_us : int, optional
        Take the events from `start_us` up to, but without, `end_us`; microseconds, as in the file.
    disorder : {"sort", "drop", "refuse", "keep"}, optional
        What to do with events out of order, see `eventsim.dvs.Reading`.
    lag_us : int, optional
        Microseconds within which ``"sort"`` sorts; 10,000 where nothing is said.
    salvage : bool, optional
        Read up to the first damage.
    stream : int, optional
        Which of several streams of events in a file.
    format : str, optional
        Name of the format of an event file, in place of recognising it.
    columns : str, optional
        Order of the columns of text and of lists of events in arrays and HDF5, such as ``"txyp"``.
    time_unit : {"s", "ms", "us", "ns"}, optional
        Unit of the times of text, arrays, HDF5 and MATLAB files.
    group : str, optional
        Where the events are in an HDF5 file that holds several recordings.
    first_pixel : {0, 1}, optional
        What the first row and column are called in a MATLAB file.

    Raises
    ------
    InputError
        A value is of another type, or they do not go together.
    """

    time_steps: int | None = None
    window: WindowKind | None = None
    bin_us: int | None = None
    bin_events: int | None = None
    overlap: int | None = None
    binary: bool | None = None
    fit: Literal["none", "crop", "pad", "downscale"] | None = None
    sensor_size: tuple[int, int] | None = None
    camera: Literal["dvs128", "davis"] | None = None
    orientation: Orientation | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    start_us: int | None = None
    end_us: int | None = None
    disorder: Disorder | None = None
    lag_us: int | None = None
    salvage: bool | None = None
    stream: int | None = None
    format: str | None = None
    columns: str | None = None
    time_unit: Literal["s", "ms", "us", "ns"] | None = None
    group: str | None = None
    first_pixel: Literal[0, 1] | None = None

    def __post_init__(self) -> None:
        for name, value in plain_values({field.name: getattr(self, field.name) for field in fields(self)}).items():
            object.__setattr__(self, name, value)
        if self.window is None and self.bin_us is not None:
            object.__setattr__(self, "window", "duration")
        if self.window is None and self.bin_events is not None:
            object.__setattr__(self, "window", BINS_OF_EVENTS)
        check_windows(self.window, self.bin_us, self.bin_events, self.overlap)
        Reading(self.disorder, DEFAULT_LAG_US if self.lag_us is None else self.lag_us)
        if self.lag_us is not None and self.disorder != "sort":
            raise InputError(f"lag_us={self.lag_us} without disorder='sort' found; expected them together")

    def of(self, network: Network) -> Preparation:
        """Return the preparation with every value that the network's settings give and this one leaves out."""
        said = {name: value for name, value in _said(network).items() if getattr(self, name) is None}
        if self.window not in (None, *BINS):  # a bin of the model's is of the model's window
            said.pop("bin_us", None)
        if self.window not in (None, BINS_OF_EVENTS):
            said.pop("bin_events", None)
        if self.window not in (None, said.get("window")) or {"bin_us", "bin_events"} & self._named():
            said.pop("overlap", None)  # it is of the model's bins
        return replace(self, **{name: value for name, value in said.items() if value is not None})

    def _named(self) -> set[str]:
        return {name for name in ("bin_us", "bin_events") if getattr(self, name) is not None}

    def overridden(self, network: Network) -> list[str]:
        """Say each value of the network's settings that is not followed, one sentence each."""
        said, sources = _said(network), {setting.option: setting for setting in network.settings}
        told = []
        if self.time_steps is not None and network.time_steps not in (None, self.time_steps):
            told.append(f"time_steps is not as the model says: time_steps = {network.time_steps}")
        for name, value in said.items():
            mine = getattr(self, name)
            if value is not None and mine is not None and mine != value:
                names = ORIENTATION if name == "orientation" else ("sensor",) if name == "sensor_size" else (name,)
                model = ", ".join(sources[each].sentence for each in names if each in sources)
                told.append(f"{name.removesuffix('_size')} is not as the model says: {model}")
        whole = self.of(network)
        if whole.window in OVERLAPPING and whole.overlap is None and said["overlap"]:  # it was of other bins
            told.append(f"overlap is not as the model says: {sources['overlap'].sentence}")
        return told

    def check(self, network: Network) -> None:
        """Refuse what no input of this network can use.

        Raises
        ------
        InputError
            Names the options.
        """
        if network.input.takes_images:
            self._refuse_unusable(network.name, "a model of images", OF_RECORDINGS)
        elif network.input.takes_recordings:
            self._refuse_unusable(network.name, "a model of recordings", OF_IMAGES)

    def noted(self, network: Network) -> Network:
        """Return the network with what this preparation says in the place of what the model said, for reports."""
        mine: dict[str, Any] = {name: getattr(self, name) for name in ("time_steps", "window", "bin_us", "binary")}
        mine |= {"bin_events": self.bin_events, "overlap": self.overlap}
        mine |= {"fit": self.fit, "camera": self.camera}
        if self.orientation is not None:
            mine |= {name: getattr(self.orientation, name) for name in ORIENTATION}
        if self.sensor_size is not None:
            mine["sensor"] = f"{self.sensor_size[1]}x{self.sensor_size[0]}"
        for name in ("mean", "std"):
            if (numbers := getattr(self, name)) is not None:
                mine[name] = ",".join(map(str, numbers))
        model = {setting.option: setting for setting in network.settings}
        noted = []
        for name, value in mine.items():
            if value is not None and (name not in model or model[name].value != value):
                was = f", the model says {model[name].shown}" if name in model else ""
                noted.append(Setting(name, value, "option", f"said with the input{was}"))
        return network.with_settings(*noted)

    def frames(
        self, source: Source, network: Network, defects: Defects | None = None
    ) -> npt.NDArray[Any] | Iterator[npt.NDArray[np.int32]]:
        """Return frames ``(T, *input shape)``, one image of the input shape, or a stream of bins of fixed duration.

        Parameters
        ----------
        source : path, structured event array, array of frames or pixels, Recording, or RecordingPart
            Pixels are those of image files, and arrays of uint8 or uint16 for a model of images.
        network : Network
        defects : Defects, optional
            Takes what was met in a recording, when its last event has been read.

        Raises
        ------
        InputError
            Names the file, what was found, what was expected and what to do.
        """
        if isinstance(source, RecordingPart):
            if self.start_us is not None or self.end_us is not None:
                raise InputError(f"{source.path}: start and end found beside those of a list of labels; leave them out")
            part = replace(self, start_us=source.start_us, end_us=source.end_us)
            return part.frames(source.path, network, defects)
        name = source.path if isinstance(source, Recording) else "array" if isinstance(source, np.ndarray) else source
        with one_line(str(name)):
            frames = self._frames(source, str(name), network, defects)
        return each_in_one_line(frames, str(name)) if isinstance(frames, Iterator) else frames

    def _frames(
        self, source: OneRecording, name: str, network: Network, defects: Defects | None
    ) -> npt.NDArray[Any] | Iterator[npt.NDArray[np.int32]]:
        refuse_masked(source, name)
        whole = self.of(network)
        if isinstance(source, np.ndarray) and source.dtype.names is None and self.columns is None:
            return self.of_array(source, network, "array")
        if isinstance(source, (str, Path)):
            path = Path(source)
            if path.suffix.lower() in IMAGE_SUFFIXES:
                self._refuse_unusable(str(path), "an image", OF_RECORDINGS)
                return whole._image(path, network)
            if self.columns is None and is_npy(path) and (array := plain_array(path)) is not None:
                return self.of_array(array, network, str(path))
            if path.suffix.lower() in (".npz", "") and (cached := frames_of(path)) is not None:
                return self.of_array(cached, network, str(path))
        self._refuse_unusable(name, "a recording", OF_IMAGES)
        return whole._windows(self.recording_for(source, network), network, defects)

    def recording(self, source: OneRecording) -> Recording:
        """Open an event file, what comes by a pipe, or a structured event array.

        A recording that is open already is turned by `orientation`, and its sensor is of `sensor_size`, where nobody
        said so when it was opened; what was said then is left alone, and something else refused.
        """
        if isinstance(source, Recording):
            opened = ("camera", "start_us", "end_us", "salvage", "stream", *OF_FORMATS)
            self._refuse_unusable(source.path, "a recording that is open already", opened)
            if self.sensor_size is None and self.orientation is None:
                return source
            return source.retold(sensor_size=self.sensor_size, orientation=self.orientation)
        return open_recording(
            source,
            sensor_size=self.sensor_size,
            orientation=self.orientation,
            start_us=self.start_us,
            end_us=self.end_us,
            salvage=bool(self.salvage),
            camera=self.camera,
            stream=self.stream,
            **{name: getattr(self, name) for name in OF_FORMATS},
        )

    def recording_for(self, source: OneRecording, network: Network) -> Recording:
        """Open a recording; sensor and camera of the model stand in where neither the user nor the file says them.

        The model's orientation is that of a recording that is open already, unless it was opened with one.
        """
        if isinstance(source, Recording):
            return self._retold_for(source, network)
        if isinstance(source, (str, Path)):
            source = readable_file(source)  # looked at once, however often it is opened
        mine = replace(self.of(network), sensor_size=self.sensor_size, camera=self.camera)
        said = _said(network)
        known = {name: said[name] for name in ("sensor_size", "camera") if said.get(name) and not getattr(self, name)}
        try:
            opened = mine.recording(source)
        except InputError:
            for names in (("sensor_size",), ("sensor_size", "camera"), ("camera",)):
                if all(name in known for name in names):
                    with suppress(InputError):
                        return replace(mine, **{name: known[name] for name in names}).recording(source)
            raise
        lacking = {name: value for name, value in known.items() if name in opened.untold}
        return replace(mine, **lacking).recording(source) if lacking else opened

    def _retold_for(self, recording: Recording, network: Network) -> Recording:
        """Tell a recording that is open already what the model says of it and nobody said before."""
        said = _said(network)
        if "camera" in recording.untold and (camera := said["camera"]) is not None:
            raise InputError(
                f"{recording.path}: a recording that was opened without a camera found, the model says {camera}; open "
                f"it with camera={camera!r}"
            )
        if self.orientation is not None or recording.orientation_given:
            said.pop("orientation", None)
        if self.sensor_size is not None or "sensor_size" not in recording.untold:
            said.pop("sensor_size", None)
        known = {name: said[name] for name in ("orientation", "sensor_size") if name in said}
        return replace(self, **known).recording(recording)

    def _windows(
        self, recording: Recording, network: Network, defects: Defects | None
    ) -> npt.NDArray[np.int32] | Iterator[npt.NDArray[np.int32]]:
        fit, binary = self.fit_for(network), bool(self.binary)
        reading = Reading(self.disorder, DEFAULT_LAG_US if self.lag_us is None else self.lag_us, defects)
        if defects is not None:
            defects.sensor = recording.overruled_size
        if self.window == BINS_OF_EVENTS:
            bin_events = bin_size(recording.path, self.window, "bin_events", self.bin_events, self.time_steps)
            of_events = {"events": bin_events, "overlap": self.overlap or 0}
            return frames_of_slices(recording, **of_events, fit=fit, binary=binary, reading=reading)
        if self.overlap and self.window != "tonic-duration":
            raise InputError(
                f"{recording.path}: window={self.window or 'count'!r} with overlap={self.overlap} found; expected "
                f"overlap=N with {windows_of(OVERLAPPING)} alone"
            )
        if self.window in BINS:
            bin_us = bin_size(recording.path, self.window, "bin_us", self.bin_us, self.time_steps)
            if self.window == "spikingjelly-duration":
                return frames_from_events(recording, bin_us, fit=fit, binary=binary, reading=reading)
            if self.overlap:
                of_time = {"duration_us": bin_us, "overlap": self.overlap}
                return frames_of_slices(recording, **of_time, fit=fit, binary=binary, reading=reading)
            last: bool | Literal["alone"] = "alone" if self.window == "tonic-duration" else True
            return frames_by_duration(
                recording, bin_us, include_incomplete=last, fit=fit, binary=binary, reading=reading
            )
        steps = self.time_steps or network.time_steps
        if steps is None or steps < 1:
            raise InputError(
                f"{recording.path}: neither --time-steps nor a number in the model found; pass --time-steps or "
                "--bin-us (time_steps, bin_us)"
            )
        step_bytes = FRAME_BYTES * math.prod(network.input.shape)
        most = max(1, MAX_FRAME_BYTES // step_bytes)
        if steps > most:  # as much as a file of frames may take
            raise InputError(
                f"{recording.path}: {steps:,} time steps of {' x '.join(map(str, network.input.shape))} found; "
                f"expected at most {most:,}, since their frames are held at once and may "
                f"take {MAX_FRAME_BYTES >> 20} MiB; lower time_steps=N, or pass bin_us=N, bins that come one by one"
            )
        cut = frames_by_time if self.window in ("time", "tonic-time") else frames_by_count
        remainder: Remainder = "drop" if self.window in ("tonic-count", "tonic-time") else "keep"
        return cut(recording, steps, fit=fit, binary=binary, remainder=remainder, reading=reading)

    def fit_for(self, network: Network) -> Fit:
        """Return how recordings meet the input of a network; values of its settings are those of `of`."""
        shape = network.input.shape
        if not network.input.takes_recordings:
            raise InputError(f"network {network.name} takes {shape}; recordings need an input of 2 x height x width")
        return Fit((shape[1], shape[2]), self.fit or "none")

    def _image(self, path: Path, network: Network) -> npt.NDArray[np.float32]:
        shape = network.input.shape
        if len(shape) != 3 or shape[0] not in (1, 3):
            recordings = "recordings or " if network.input.takes_recordings else ""
            raise InputError(
                f"{path}: an image found; network {network.name} takes {' x '.join(map(str, shape))}, no image; pass "
                f"{recordings}frames in .npy, or take a model of images"
            )
        from eventsim import pixels  # noqa: PLC0415 - recordings and arrays need no library for images

        return self._normalised(pixels.image_file(path, shape, self.fit or "none"), str(path))

    def _normalised(self, values: npt.NDArray[np.float32], name: str) -> npt.NDArray[np.float32]:
        channels = values.shape[-3]
        return normalised(values, self.mean or (0.0,) * channels, self.std or (1.0,) * channels, name)

    def of_array(self, array: npt.NDArray[Any], network: Network, name: str) -> npt.NDArray[Any]:
        """Return the frames of a plain array: values that are prepared already, or pixels as an image file has them."""
        if network.input.takes_recordings and array.ndim == 2 and array.shape[1] == 4:
            refuse_nameless(array, name)
        if not network.input.takes_images or array.dtype.kind not in "iu":
            self._refuse_unusable(name, "frames that are prepared already", OF_RECORDINGS + OF_IMAGES + ("fit",))
            return array
        if array.dtype.kind != "u" or array.dtype.itemsize > 2:
            raise InputError(
                f"{name}: pixels of type {array.dtype} found; expected uint8 or uint16, which are scaled to 0..1 and "
                "normalised, or real values as the model was trained with; convert them"
            )
        from eventsim import pixels  # noqa: PLC0415

        self._refuse_unusable(name, "an array of pixels", OF_RECORDINGS)
        whole = self.of(network)
        return whole._normalised(pixels.pixel_array(array, network.input.shape, whole.fit or "none", name), name)

    def _refuse_unusable(self, name: str, kind: str, options: Iterable[str]) -> None:
        """Refuse what was said with an input that has no use for it."""
        given = [said for option in options for said in self._given(option)]
        if given:
            raise InputError(f"{name}: {', '.join(given)} found; {kind} cannot use that: leave it out")

    def _given(self, option: str) -> list[str]:
        value = getattr(self, option)
        if value is None:
            return []
        if isinstance(value, Orientation):
            return [f"{name}={getattr(value, name)}" for name in ORIENTATION if getattr(value, name)] or ["orientation"]
        return [f"{option}={value!r}"]


def _said(network: Network) -> dict[str, Any]:
    """Return what a network's settings say of a preparation, under the names of its attributes."""
    values = {setting.option: setting.value for setting in network.settings}
    said: dict[str, Any] = {name: values.get(name) for name in ("window", "bin_us", "binary", "fit", "camera")}
    said |= {name: values.get(name) for name in ("bin_events", "overlap")}
    if any(name in values for name in ORIENTATION):
        said["orientation"] = Orientation(*(bool(values.get(name)) for name in ORIENTATION))
    if values.get("sensor"):
        said["sensor_size"] = size_of(str(values["sensor"]))
    for name in ("mean", "std"):
        if values.get(name):
            said[name] = numbers_of(str(values[name]))
    return said


def is_npy(path: Path) -> bool:
    """Tell whether a file is an array, by its name or, where that has no suffix, by its first bytes."""
    return path.suffix.lower() == ".npy" or (not path.suffix and readable_file(path).head.startswith(NPY))


def plain_array(path: Path) -> npt.NDArray[Any] | None:
    """Return an array of numbers, or None where the file holds structured events.

    Raises
    ------
    InputError
        It cannot be read, holds something else than numbers, or too many.
    """
    if npy_fields(path) is not None:
        return None
    array = map_npy(path)
    if array.dtype.kind not in "buif":
        raise InputError(f"{path}: values of type {array.dtype} found; expected numbers")
    if array.nbytes > MAXIMUM_BYTES:
        raise InputError(f"{path}: {array.nbytes} bytes found; expected at most {MAXIMUM_BYTES}")
    return np.asarray(array)
