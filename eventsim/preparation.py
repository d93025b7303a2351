"""From a file or array to frames that a network takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from eventsim.dvs import (
    Fit,
    Orientation,
    Recording,
    frames_by_count,
    frames_by_duration,
    frames_by_time,
    open_recording,
)
from eventsim.dvs.events_array import map_npy
from eventsim.dvs.formats.npz import frames_of
from eventsim.dvs.readable_file import readable_file
from eventsim.dvs.recording import MAX_SENSOR_SIDE, TIME_LIMIT_US
from eventsim.errors import InputError
from eventsim.network import Network
from eventsim.settings import Setting
from eventsim.signals import FLOAT32_MAX
from eventsim.untrusted import MAXIMUM_BYTES, first_line

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
WindowKind: TypeAlias = Literal["count", "time", "duration"]
Source: TypeAlias = str | Path | npt.NDArray[Any] | Recording


@dataclass(frozen=True)
class PreparationOptions:
    """How the recordings and images of a model were prepared: options of every import; None is told by the metadata.

    Attributes
    ----------
    window : {"count", "time", "duration"}, optional
        Frames of equally many events, of equal time, or bins of `bin_us`. Default: "count".
    bin_us : int, optional
        Bin length in microseconds for "duration".
    binary : bool, optional
        Clip event counts to 1. Default: whether the input takes spikes.
    transpose, flip_x, flip_y, flip_polarity : bool, optional
        Orientation that the loader gave the events. Default: false.
    fit : {"none", "crop", "pad", "downscale"}, optional
        What to do where a sensor or image is not of the model's size. Default: "none".
    sensor : str, optional
        WIDTHxHEIGHT, for event files that do not tell.
    camera : {"dvs128", "davis"}, optional
        Address layout of AEDAT 2.0 files that do not tell.
    mean, std : str, optional
        Numbers for each channel, separated by commas: normalisation of images, after scaling to 0..1. Default: none.
    """

    window: WindowKind | None = None
    bin_us: int | None = None
    binary: bool | None = None
    transpose: bool | None = None
    flip_x: bool | None = None
    flip_y: bool | None = None
    flip_polarity: bool | None = None
    fit: Literal["none", "crop", "pad", "downscale"] | None = None
    sensor: str | None = None
    camera: Literal["dvs128", "davis"] | None = None
    mean: str | None = None
    std: str | None = None


OF_RECORDINGS = ("window", "bin_us", "binary", "sensor_size", "camera", "orientation")
OF_IMAGES = ("mean", "std")
ORIENTATION = ("transpose", "flip_x", "flip_y", "flip_polarity")
PREPARED = tuple(field.name for field in fields(PreparationOptions))


@dataclass(frozen=True)
class Preparation:
    """How recordings and images become frames; what is left out is as the model says, else the default.

    Attributes
    ----------
    time_steps : int, optional
        Frames per recording, or how often an image is shown.
    window : {"count", "time", "duration"}, optional
        Frames of equally many events (the default), of equal time, or bins of `bin_us`.
    bin_us : int, optional
        Bin length in microseconds for ``"duration"``.
    binary : bool, optional
        Clip event counts to 1.
    fit : {"none", "crop", "pad", "downscale"}, optional
        What to do where the sensor or image is not of the model's size.
    sensor_size : (int, int), optional
        (height, width), for formats that do not tell.
    camera : str, optional
        Address layout of AEDAT 2.0.
    orientation : Orientation, optional
    mean, std : tuple of float, optional
        Per-channel normalisation of images, after scaling to 0..1.
    """

    time_steps: int | None = None
    window: WindowKind | None = None
    bin_us: int | None = None
    binary: bool | None = None
    fit: Literal["none", "crop", "pad", "downscale"] | None = None
    sensor_size: tuple[int, int] | None = None
    camera: Literal["dvs128", "davis"] | None = None
    orientation: Orientation | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.window is None and self.bin_us is not None:
            object.__setattr__(self, "window", "duration")
        if self.window not in (None, *get_args(WindowKind)):
            raise InputError(f"window={self.window!r} found; expected one of {', '.join(get_args(WindowKind))}")
        if self.bin_us is not None and (self.window != "duration" or not 1 <= self.bin_us < TIME_LIMIT_US):
            raise InputError(
                f"window={self.window} with bin_us={self.bin_us} found; expected bin_us with duration alone, "
                "1 microsecond or more, below 2^62"
            )

    def of(self, network: Network) -> Preparation:
        """Return the preparation with every value that the network's settings give and this one leaves out."""
        said = {name: value for name, value in _said(network).items() if getattr(self, name) is None}
        if self.window is not None:  # a bin of the model's is of the model's window
            said.pop("bin_us", None)
        return replace(self, **{name: value for name, value in said.items() if value is not None})

    def overridden(self, network: Network) -> list[str]:
        """Say each value of the network's settings that is not followed, and what has no effect, one sentence each."""
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
        idle = OF_RECORDINGS if network.input.takes_images else OF_IMAGES if network.input.takes_recordings else ()
        taken = "images" if network.input.takes_images else "recordings"
        given = (name.removesuffix("_size") for name in idle if getattr(self, name) is not None)
        return told + [f"{name} has no effect, the model takes {taken}" for name in given]

    def noted(self, network: Network) -> Network:
        """Return the network with what this preparation says in the place of what the model said, for reports."""
        mine: dict[str, Any] = {name: getattr(self, name) for name in ("time_steps", "window", "bin_us", "binary")}
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

    def frames(self, source: Source, network: Network) -> npt.NDArray[Any] | Iterator[npt.NDArray[np.int32]]:
        """Return frames ``(T, *input shape)``, one image of the input shape, or a stream of bins of fixed duration.

        Parameters
        ----------
        source : path, structured event array, array of frames, or Recording
        network : Network

        Raises
        ------
        InputError
            Names the file, what was found, what was expected and what to do.
        """
        whole = self.of(network)
        if isinstance(source, np.ndarray) and source.dtype.names is None:
            return whole._values(source, network, "array")
        if isinstance(source, (str, Path)):
            path = Path(source)
            if path.suffix.lower() in IMAGE_SUFFIXES:
                return whole._image(path, network)
            if path.suffix == ".npy" and (array := _plain_array(path)) is not None:
                return whole._values(array, network, str(path))
            if path.suffix == ".npz" and (cached := frames_of(path)) is not None:
                return whole._values(cached, network, str(path))
        return whole._windows(self._recording(source, network), network)

    def recording(self, source: Source) -> Recording:
        """Open an event file or a structured event array."""
        if isinstance(source, Recording):
            return source
        turned = self.orientation or Orientation()
        return open_recording(source, sensor_size=self.sensor_size, orientation=turned, camera=self.camera)

    def _recording(self, source: Source, network: Network) -> Recording:
        """Open a recording; sensor and camera of the model stand in where neither the user nor the file says them."""
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

    def _windows(
        self, recording: Recording, network: Network
    ) -> npt.NDArray[np.int32] | Iterator[npt.NDArray[np.int32]]:
        if self.window == "duration":
            if self.time_steps is not None or self.bin_us is None:
                raise InputError(
                    f"{recording.path}: bins of {self.bin_us} us and {self.time_steps} time steps asked for; expected "
                    "--bin-us alone (bin_us), the recording's length says how many bins there are"
                )
            return frames_by_duration(recording, self.bin_us, fit=self._fit(network), binary=bool(self.binary))
        steps = self.time_steps or network.time_steps
        if steps is None or steps < 1:
            raise InputError(
                f"{recording.path}: neither --time-steps nor a number in the model found; pass --time-steps or "
                "--bin-us (time_steps, bin_us)"
            )
        cut = frames_by_time if self.window == "time" else frames_by_count
        return cut(recording, steps, fit=self._fit(network), binary=bool(self.binary))

    def _fit(self, network: Network) -> Fit:
        shape = network.input.shape
        if not network.input.takes_recordings:
            raise InputError(f"network {network.name} takes {shape}; recordings need an input of 2 x height x width")
        return Fit((shape[1], shape[2]), self.fit or "none")

    def _image(self, path: Path, network: Network) -> npt.NDArray[np.float32]:
        shape = network.input.shape
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise InputError(f"{path}: an image found; network {network.name} takes {shape}")
        channels, height, width = shape
        try:
            with Image.open(readable_file(path).path) as image:
                if image.mode.startswith(("I", "F")):
                    raise InputError(f"{path}: pixels of mode {image.mode} found; expected 8 bits for each channel")
                pixels = _resize(
                    image.convert("L" if channels == 1 else "RGB"), (width, height), self.fit or "none", path
                )
        except InputError:
            raise
        except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError, SyntaxError) as error:
            raise InputError(f"{path}: not a readable image ({first_line(error)})") from None
        array = np.moveaxis(np.asarray(pixels, np.uint8).reshape(height, width, channels), -1, 0)
        return self._normalised(array, network, str(path))

    def _values(self, array: npt.NDArray[Any], network: Network, name: str) -> npt.NDArray[Any]:
        """Return values that are prepared already, or bytes for an input of pixels as an image file has them."""
        shape = network.input.shape
        if network.input.takes_images and array.dtype == np.uint8 and array.shape[-len(shape) :] == shape:
            return self._normalised(array, network, name)
        return array

    def _normalised(self, array: npt.NDArray[Any], network: Network, name: str) -> npt.NDArray[np.float32]:
        """Scale bytes (..., C, H, W) to 0..1, subtract the mean and divide by the standard deviation."""
        channels = network.input.shape[0]
        mean, std = self.mean or (0.0,) * channels, self.std or (1.0,) * channels
        try:
            check_normalisation(mean, std, channels)
        except ValueError as error:
            raise InputError(f"{name}: {error}") from None
        scaled = array.astype(np.float32) / np.float32(255)
        scaled = (scaled - np.asarray(mean, np.float32)[:, None, None]) / np.asarray(std, np.float32)[:, None, None]
        return np.ascontiguousarray(scaled, np.float32)


def _said(network: Network) -> dict[str, Any]:
    """Return what a network's settings say of a preparation, under the names of its attributes."""
    values = {setting.option: setting.value for setting in network.settings}
    said: dict[str, Any] = {name: values.get(name) for name in ("window", "bin_us", "binary", "fit", "camera")}
    if any(name in values for name in ORIENTATION):
        said["orientation"] = Orientation(*(bool(values.get(name)) for name in ORIENTATION))
    if values.get("sensor"):
        said["sensor_size"] = size_of(str(values["sensor"]))
    for name in ("mean", "std"):
        if values.get(name):
            said[name] = numbers_of(str(values[name]))
    return said


def size_of(text: str) -> tuple[int, int]:
    """Read WIDTHxHEIGHT; return (height, width).

    Raises
    ------
    ValueError
        Says what was expected.
    """
    parts = text.lower().split("x")
    sides = [int(part) if part.strip().isdecimal() and len(part) < 9 else 0 for part in parts]
    if len(sides) != 2 or not all(1 <= side <= MAX_SENSOR_SIDE for side in sides):
        raise ValueError(f"WIDTHxHEIGHT such as 34x34, at most {MAX_SENSOR_SIDE} pixels a side")
    return sides[1], sides[0]


def check_normalisation(mean: tuple[float, ...], std: tuple[float, ...], channels: int) -> None:
    """Check mean and standard deviation of images.

    Raises
    ------
    ValueError
        Says what was found and expected.
    """
    for name, values in (("mean", mean), ("std", std)):
        said = ", ".join(map(str, values))
        if len(values) != channels:
            raise ValueError(f"{name} of {len(values)} values found; the model takes {channels} channels")
        if any(not abs(value) < FLOAT32_MAX for value in values):
            raise ValueError(f"{name} of {said} found; expected finite numbers")
        if name == "std" and min(values) <= 0:
            raise ValueError(f"std of {said} found; expected numbers above 0")


def numbers_of(text: str) -> tuple[float, ...]:
    """Read numbers separated by commas.

    Raises
    ------
    ValueError
        Says what was expected.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError("numbers separated by commas") from None


def check_options(options: PreparationOptions) -> None:
    """Refuse texts of options that cannot be read.

    Raises
    ------
    InputError
        Names the option, what was found and what was expected.
    """
    for name, read in (("sensor", size_of), ("mean", numbers_of), ("std", numbers_of)):
        text = getattr(options, name)
        try:
            if text is not None:
                read(text)
        except ValueError as error:
            raise InputError(f"option {name}={text} found; expected {error}") from None
    if options.bin_us is not None and not 1 <= options.bin_us < TIME_LIMIT_US:
        raise InputError(f"option bin_us={options.bin_us} found; expected 1 microsecond or more, below 2^62")
    if options.window is not None and (options.window == "duration") != (options.bin_us is not None):
        raise InputError(
            f"option window={options.window} with bin_us={options.bin_us} found; expected bin_us with duration alone"
        )


def _plain_array(path: Path) -> npt.NDArray[Any] | None:
    """Return an array of numbers, or None where the file holds structured events."""
    array = map_npy(path)
    if array.dtype.names is not None:
        return None
    if array.dtype.kind not in "buif":
        raise InputError(f"{path}: values of type {array.dtype} found; expected numbers")
    if array.nbytes > MAXIMUM_BYTES:
        raise InputError(f"{path}: {array.nbytes} bytes found; expected at most {MAXIMUM_BYTES}")
    return np.asarray(array)


def _resize(image: Image.Image, size: tuple[int, int], fit: str, path: Path) -> Image.Image:
    """Fit an image to (width, height): centre crop, centre pad with zeros, or scale down (bilinear)."""
    width, height = size
    if image.size == size:
        return image
    larger = image.width >= width and image.height >= height
    if fit == "crop" and larger:
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))
    if fit == "pad" and image.width <= width and image.height <= height:
        padded = Image.new(image.mode, size)
        padded.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
        return padded
    if fit == "downscale" and larger:
        return image.resize(size, Image.Resampling.BILINEAR)
    raise InputError(
        f"{path}: an image of {image.width} x {image.height} found; the model takes {width} x {height}; "
        "choose --fit crop, pad or downscale"
    )
