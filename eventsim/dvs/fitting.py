"""Where the pixels of a sensor go in a frame of another size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from eventsim.dvs.columns import EventArray
from eventsim.dvs.packing import count_pixels
from eventsim.dvs.recording import Recording
from eventsim.errors import InputError

Frames: TypeAlias = npt.NDArray[np.int32]
FitMode: TypeAlias = Literal["none", "crop", "pad", "downscale"]


@dataclass(frozen=True)
class Fit:
    """How the sensor's pixels meet the frame size that a model wants.

    Parameters
    ----------
    size : tuple of int, optional
        (H, W) of the frames in pixels; the sensor's when None.
    mode : {"none", "crop", "pad", "downscale"}
        ``none``: the sizes must be equal. ``crop``: keep the centre of a sensor that is at least as large, offset
        (sensor - size) // 2; events outside are dropped, after the windows have been determined. ``pad``: put a sensor
        that is at most as large into the centre, offset (size - sensor) // 2. ``downscale``: pixel (x, y) of a sensor
        that is at least as large goes to (x * W // sensor width, y * H // sensor height), and counts add up.

    A sensor size that was guessed from the events is good for ``none`` alone, where it has to equal the frames'.
    """

    size: tuple[int, int] | None = None
    mode: FitMode = "none"


SENSOR_SIZE = Fit()


@dataclass(frozen=True)
class PixelMap:
    """Where each row and column of the sensor goes in the frame; -1 for nowhere."""

    height: int
    width: int
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]

    def count(self, events: EventArray) -> Frames:
        """Count events per polarity and pixel: shape (2, H, W)."""
        counts = np.zeros((2, self.height, self.width), np.int32)
        self.add(events, counts)
        return counts

    def add(self, events: EventArray, counts: Frames) -> None:
        """Add the counts of events to those of a frame, shape (2, H, W)."""
        count_pixels(events, self.rows, self.columns, counts)


def pixel_map(recording: Recording, fit: Fit) -> PixelMap:
    """Map the sensor's rows and columns to the frame's, or refuse sizes that do not fit.

    Raises
    ------
    InputError
        The sizes do not fit, or pixels would be moved by a sensor size that was guessed.
    """
    sensor = (recording.height, recording.width)
    size = sensor if fit.size is None else fit.size
    height, width = (positive("frame side", side) for side in size)
    if fit.mode not in ("none", "crop", "pad", "downscale"):
        raise InputError(f"{recording.path}: fit mode {fit.mode!r}, expected 'none', 'crop', 'pad' or 'downscale'")
    fitted = fit.mode != "none" or (height, width) != sensor
    if recording.flipped if fit.size is None else fitted:
        recording.refuse_guess()
    smaller = height < sensor[0] or width < sensor[1]
    larger = height > sensor[0] or width > sensor[1]
    if (smaller and fit.mode in ("none", "pad")) or (larger and fit.mode in ("none", "crop", "downscale")):
        raise InputError(
            f"{recording.path}: sensor {sensor[1]} x {sensor[0]} and frames {width} x {height} (width x height) do not "
            f"fit with fit='{fit.mode}'; choose fit='crop' or 'downscale' for a larger sensor, fit='pad' for a smaller "
            "one"
        )
    return PixelMap(height, width, _axis_map(sensor[0], height, fit.mode), _axis_map(sensor[1], width, fit.mode))


def agreed(recording: Recording) -> Recording:
    """Return a recording that a pixel map was made of: its size is that of the frames, and no guess any more."""
    if recording.size_source != "guessed":
        return recording
    size = (recording.height, recording.width)
    return recording.retold(sensor_size=size[::-1] if recording.transposed else size)


def _axis_map(sensor: int, side: int, mode: FitMode) -> npt.NDArray[np.int64]:
    """Map 0..sensor-1 to 0..side-1, or to -1 where a crop cuts off."""
    pixel = np.arange(sensor)
    if mode == "downscale":
        return pixel * side // sensor
    # floor towards the upper left for both: a crop's offset is not the negative of a pad's
    target = pixel + (side - sensor) // 2 if mode == "pad" else pixel - (sensor - side) // 2
    return np.where((target >= 0) & (target < side), target, -1)


def positive(name: str, value: int) -> int:
    """Check a whole number of at least 1.

    Raises
    ------
    InputError
        It is none.
    """
    if not isinstance(value, (int, np.integer)) or value < 1:
        raise InputError(f"{name} is {value!r}, expected a whole number of at least 1")
    return int(value)
