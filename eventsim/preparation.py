"""From a file or array to frames that a network takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

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
from eventsim.dvs.readable_file import readable_file
from eventsim.errors import InputError
from eventsim.network import Network
from eventsim.untrusted import MAXIMUM_BYTES, first_line

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
Source: TypeAlias = str | Path | npt.NDArray[Any] | Recording


@dataclass(frozen=True)
class Preparation:
    """How recordings and images become frames.

    Attributes
    ----------
    time_steps : int, optional
        Frames per recording, or how often an image is shown; default is the network's.
    window : {"count", "time", "duration"}
        Frames of equally many events, of equal time, or bins of `bin_us`.
    bin_us : int, optional
        Bin length in microseconds for ``"duration"``.
    binary : bool
        Clip event counts to 1.
    fit : {"none", "crop", "pad", "downscale"}
        What to do where the sensor or image is not of the model's size.
    sensor_size : (int, int), optional
        (height, width), for formats that do not tell.
    camera : str, optional
        Address layout of AEDAT 2.0.
    orientation : Orientation
    mean, std : tuple of float
        Per-channel normalisation of images, after scaling to 0..1.
    """

    time_steps: int | None = None
    window: Literal["count", "time", "duration"] = "count"
    bin_us: int | None = None
    binary: bool = False
    fit: Literal["none", "crop", "pad", "downscale"] = "none"
    sensor_size: tuple[int, int] | None = None
    camera: Literal["dvs128", "davis"] | None = None
    orientation: Orientation = field(default_factory=Orientation)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

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
        if isinstance(source, np.ndarray) and source.dtype.names is None:
            return source
        if isinstance(source, (str, Path)):
            path = Path(source)
            if path.suffix.lower() in IMAGE_SUFFIXES:
                return self._image(path, network)
            if path.suffix == ".npy" and (array := _plain_array(path)) is not None:
                return array
        return self._windows(self.recording(source), network)

    def recording(self, source: Source) -> Recording:
        """Open an event file or a structured event array."""
        if isinstance(source, Recording):
            return source
        return open_recording(source, sensor_size=self.sensor_size, orientation=self.orientation, camera=self.camera)

    def _windows(
        self, recording: Recording, network: Network
    ) -> npt.NDArray[np.int32] | Iterator[npt.NDArray[np.int32]]:
        if self.window == "duration":
            if self.time_steps is not None or self.bin_us is None:
                raise InputError(
                    f"{recording.path}: bins of {self.bin_us} us and {self.time_steps} time steps asked for; expected "
                    "--bin-us alone, the recording's length says how many bins there are"
                )
            return frames_by_duration(recording, self.bin_us, fit=self._fit(network), binary=self.binary)
        steps = self.time_steps or network.time_steps
        if steps is None or steps < 1:
            raise InputError(
                f"{recording.path}: neither --time-steps nor a number in the model found; pass --time-steps or --bin-us"
            )
        cut = frames_by_count if self.window == "count" else frames_by_time
        return cut(recording, steps, fit=self._fit(network), binary=self.binary)

    def _fit(self, network: Network) -> Fit:
        shape = network.input.shape
        if len(shape) != 3 or shape[0] != 2:
            raise InputError(f"network {network.name} takes {shape}; recordings need an input of 2 x height x width")
        return Fit((shape[1], shape[2]), self.fit)

    def _image(self, path: Path, network: Network) -> npt.NDArray[np.float32]:
        shape = network.input.shape
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise InputError(f"{path}: an image found; network {network.name} takes {shape}")
        channels, height, width = shape
        try:
            with Image.open(readable_file(path)) as image:
                pixels = _resize(image.convert("L" if channels == 1 else "RGB"), (width, height), self.fit, path)
        except InputError:
            raise
        except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError, SyntaxError) as error:
            raise InputError(f"{path}: not a readable image ({first_line(error)})") from None
        array: npt.NDArray[Any] = np.asarray(pixels, np.float32).reshape(height, width, channels) / np.float32(255)
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values and len(values) != channels:
                raise InputError(f"{name} of {len(values)} values found; the model takes {channels} channels")
        if 0 in self.std:
            raise InputError(f"std of {', '.join(map(str, self.std))} found; expected none that is 0")
        array = array - np.asarray(self.mean or 0, np.float32)
        array = array / np.asarray(self.std or 1, np.float32)
        return np.ascontiguousarray(np.moveaxis(array, -1, 0), np.float32)


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
