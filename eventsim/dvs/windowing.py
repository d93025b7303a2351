"""From events to frames: counts of events per window, polarity and pixel.

A frame has shape (2, H, W) and type int32: channel 0 counts OFF events, channel 1 ON events, row = y, column = x. The
recording is streamed, so memory is bounded by the frames and one chunk, however long the recording is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from eventsim.dvs.recording import TIME_LIMIT_US, EventArray, Integers, Recording
from eventsim.errors import InputError

Frames: TypeAlias = npt.NDArray[np.int32]
FitMode: TypeAlias = Literal["none", "crop", "pad", "downscale"]

# 4 GiB of counts; a wrong sensor size should be refused, not bring the machine down
MAX_FRAME_VALUES = 2**30


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
    """

    size: tuple[int, int] | None = None
    mode: FitMode = "none"


SENSOR_SIZE = Fit()


@dataclass(frozen=True)
class _PixelMap:
    """Where each row and column of the sensor goes in the frame; -1 for nowhere."""

    height: int
    width: int
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]

    def count(self, events: EventArray) -> Frames:
        """Count events per polarity and pixel: shape (2, H, W)."""
        rows, columns = self.rows[events["y"]], self.columns[events["x"]]
        flat = (events["p"] * self.height + rows) * self.width + columns
        inside = (rows >= 0) & (columns >= 0)
        counts = np.bincount(flat[inside], minlength=2 * self.height * self.width)
        return counts.reshape(2, self.height, self.width).astype(np.int32)


def frames_by_count(recording: Recording, time_steps: int, *, fit: Fit = SENSOR_SIZE, binary: bool = False) -> Frames:
    """Split into windows of equally many events, SpikingJelly's ``split_by="number"``.

    With N events, window i holds events i * (N // T) up to but excluding (i + 1) * (N // T); the last window also holds
    the rest of N / T. The recording is read twice, first to count.

    Parameters
    ----------
    recording : Recording
        Events.
    time_steps : int
        T, the number of frames.
    fit : Fit
        How the sensor's pixels meet the frame size.
    binary : bool
        Clip counts to 1.

    Returns
    -------
    ndarray of int32, shape (T, 2, H, W)
        Events per window, polarity (0 = OFF, 1 = ON), row and column.

    Raises
    ------
    InputError
        There are no events or fewer than `time_steps`, the sizes do not fit, or the recording is malformed.
    """
    pixels = _pixel_map(recording, fit)
    frames = _empty_frames(recording, _positive("time_steps", time_steps), pixels)
    total = sum(len(chunk) for chunk in recording.chunks())
    _refuse_empty(recording, total)
    if time_steps > total:
        raise InputError(
            f"{recording.path}: holds {total} events, expected at least one for each of {time_steps} time steps; lower "
            "the number of time steps"
        )
    first = 0
    for events in recording.chunks():
        window = np.minimum(np.arange(first, first + len(events)) // (total // time_steps), time_steps - 1)
        _add(frames, pixels, events, window)
        first += len(events)
    return np.minimum(frames, 1) if binary else frames


def frames_by_time(recording: Recording, time_steps: int, *, fit: Fit = SENSOR_SIZE, binary: bool = False) -> Frames:
    """Split into windows of equal time, SpikingJelly's ``split_by="time"``.

    With first and last event at t0 and t1 and d = (t1 - t0) // T whole microseconds, window i holds the events with
    t0 + i * d <= t < t0 + (i + 1) * d, and the last window holds everything from t0 + (T - 1) * d on: also the event at
    t1 and whatever the rounding of d left over. Tonic's ``ToFrame(n_time_bins=T)`` has the same windows but drops the
    events from t0 + T * d on, of which there is always at least one. A window without events is a frame of zeros
    (SpikingJelly fails there). The recording is read twice, first for t0 and t1.

    Parameters
    ----------
    recording : Recording
        Events.
    time_steps : int
        T, the number of frames.
    fit : Fit
        How the sensor's pixels meet the frame size.
    binary : bool
        Clip counts to 1.

    Returns
    -------
    ndarray of int32, shape (T, 2, H, W)
        Events per window, polarity (0 = OFF, 1 = ON), row and column.

    Raises
    ------
    InputError
        There are no events, they span less than `time_steps` microseconds, the sizes do not fit, or the recording is
        malformed.
    """
    pixels = _pixel_map(recording, fit)
    frames = _empty_frames(recording, _positive("time_steps", time_steps), pixels)
    summary = recording.summary()
    _refuse_empty(recording, summary.events)
    window_us = summary.duration_us // time_steps
    if window_us == 0:
        raise InputError(
            f"{recording.path}: the events span {summary.duration_us} us, expected at least 1 us for each of "
            f"{time_steps} time steps; lower the number of time steps, or split by count"
        )
    for events in recording.chunks():
        window = np.minimum((events["t"] - summary.first_us) // window_us, time_steps - 1)
        _add(frames, pixels, events, window)
    return np.minimum(frames, 1) if binary else frames


def frames_by_duration(
    recording: Recording,
    bin_us: int,
    *,
    start_us: int | None = None,
    include_incomplete: bool = True,
    max_bins: int = 1_000_000,
    fit: Fit = SENSOR_SIZE,
    binary: bool = False,
) -> Iterator[Frames]:
    """Stream bins of a fixed duration, one pass, empty bins included.

    Bin i holds the events with start + i * bin_us <= t < start + (i + 1) * bin_us. The bin of the last event is the
    last one; recording ended within it, so it is the incomplete one. Complete bins equal Tonic's
    ``ToFrame(time_window=bin_us)``; with ``include_incomplete=True`` Tonic drops the last events when they fall exactly
    on the start of a bin, while no event is dropped here.

    Parameters
    ----------
    recording : Recording
        Events.
    bin_us : int
        Duration of a bin, microseconds.
    start_us : int, optional
        Start of bin 0, microseconds; earlier events are dropped. The first event's time when not given.
    include_incomplete : bool
        Whether the last bin is delivered.
    max_bins : int
        Refuse to deliver more bins: a gap of hours in the times of a corrupt file would make millions of empty ones.
    fit : Fit
        How the sensor's pixels meet the frame size.
    binary : bool
        Clip counts to 1.

    Yields
    ------
    ndarray of int32, shape (2, H, W)
        Events per polarity (0 = OFF, 1 = ON), row and column of one bin; every frame is a new array.

    Raises
    ------
    InputError
        At the call: an option is not positive or the sizes do not fit. While reading: there are no events (from
        `start_us` on), more than `max_bins` bins, no complete bin although `include_incomplete` is False, or the
        recording is malformed.
    """
    pixels = _pixel_map(recording, fit)
    _empty_frames(recording, 1, pixels)
    _positive("bin_us", bin_us)
    _positive("max_bins", max_bins)
    if start_us is not None and not -TIME_LIMIT_US <= start_us < TIME_LIMIT_US:
        raise InputError(f"start_us is {start_us}, expected less than 2^62 microseconds")
    bins = _bins(recording, bin_us, start_us, max_bins, pixels)
    return _delivered(recording, bins, include_incomplete, binary)


def _bins(
    recording: Recording, bin_us: int, start_us: int | None, max_bins: int, pixels: _PixelMap
) -> Iterator[Frames]:
    """Yield the counts of every bin up to that of the last event."""
    current = 0
    frame: Frames | None = None
    for chunk in recording.chunks():
        origin = start_us = int(chunk["t"][0]) if start_us is None else start_us
        events = chunk[chunk["t"] >= origin]
        if len(events) == 0:
            continue
        # a Python int, since a start far from the events may not fit into the difference of two int64
        if (int(events["t"][-1]) - origin) // bin_us >= max_bins:
            raise InputError(
                f"{recording.path}: bins of {bin_us} us from {origin} us to an event at {events['t'][-1]} us, expected "
                f"at most max_bins={max_bins}; the times are corrupt, or choose longer bins or a larger max_bins"
            )
        frame = pixels.count(events[:0]) if frame is None else frame
        for index, part in _runs(events, (events["t"] - origin) // bin_us):
            while current < index:
                yield frame
                frame = pixels.count(events[:0])
                current += 1
            frame += pixels.count(part)
    if frame is None:
        _refuse_empty(recording, 0, "" if start_us is None else f" from {start_us} us on")
    else:
        yield frame


def _delivered(
    recording: Recording, bins: Iterator[Frames], include_incomplete: bool, binary: bool
) -> Iterator[Frames]:
    """Hold back the last bin when it is not wanted, and clip."""
    held: Frames | None = None
    delivered = 0
    for frame in bins:
        if held is not None:
            yield held
            delivered += 1
        held = np.minimum(frame, 1) if binary else frame
    if include_incomplete and held is not None:
        yield held
    elif delivered == 0:
        raise InputError(
            f"{recording.path}: shorter than one bin, expected a complete one; choose shorter bins or "
            "include_incomplete=True"
        )


def _add(frames: Frames, pixels: _PixelMap, events: EventArray, window: npt.NDArray[Any]) -> None:
    """Add events to the frames of their windows, which never decrease."""
    for index, part in _runs(events, window):
        frames[index] += pixels.count(part)


def _runs(events: EventArray, window: Integers) -> Iterator[tuple[int, EventArray]]:
    """Cut events into runs of one window each."""
    starts = np.concatenate(([0], np.flatnonzero(np.diff(window)) + 1, [len(events)]))
    for start, stop in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        yield int(window[start]), events[start:stop]


def _pixel_map(recording: Recording, fit: Fit) -> _PixelMap:
    """Map the sensor's rows and columns to the frame's, or refuse sizes that do not fit."""
    sensor = (recording.height, recording.width)
    size = sensor if fit.size is None else fit.size
    height, width = (_positive("frame side", side) for side in size)
    if fit.mode not in ("none", "crop", "pad", "downscale"):
        raise InputError(f"{recording.path}: fit mode {fit.mode!r}, expected 'none', 'crop', 'pad' or 'downscale'")
    smaller = height < sensor[0] or width < sensor[1]
    larger = height > sensor[0] or width > sensor[1]
    if (smaller and fit.mode in ("none", "pad")) or (larger and fit.mode in ("none", "crop", "downscale")):
        raise InputError(
            f"{recording.path}: sensor {sensor[0]} x {sensor[1]} and frames {height} x {width} (height x width) do not "
            f"fit with mode '{fit.mode}'; choose 'crop' or 'downscale' for a larger sensor, 'pad' for a smaller one"
        )
    return _PixelMap(height, width, _axis_map(sensor[0], height, fit.mode), _axis_map(sensor[1], width, fit.mode))


def _axis_map(sensor: int, side: int, mode: FitMode) -> npt.NDArray[np.int64]:
    """Map 0..sensor-1 to 0..side-1, or to -1 where a crop cuts off."""
    pixel = np.arange(sensor)
    if mode == "downscale":
        return pixel * side // sensor
    # floor towards the upper left for both: a crop's offset is not the negative of a pad's
    target = pixel + (side - sensor) // 2 if mode == "pad" else pixel - (sensor - side) // 2
    return np.where((target >= 0) & (target < side), target, -1)


def _empty_frames(recording: Recording, time_steps: int, pixels: _PixelMap) -> Frames:
    """Allocate zero frames, after a look at their size."""
    values = 2 * time_steps * pixels.height * pixels.width
    if values > MAX_FRAME_VALUES:
        raise InputError(
            f"{recording.path}: {time_steps} frames of 2 x {pixels.height} x {pixels.width} are {values} counts, "
            f"expected at most {MAX_FRAME_VALUES}; lower the number of time steps or pass fit and sensor_size"
        )
    return np.zeros((time_steps, 2, pixels.height, pixels.width), np.int32)


def _positive(name: str, value: int) -> int:
    if not isinstance(value, (int, np.integer)) or value < 1:
        raise InputError(f"{name} is {value!r}, expected a whole number of at least 1")
    return int(value)


def _refuse_empty(recording: Recording, events: int, where: str = "") -> None:
    if events == 0:
        raise InputError(f"{recording.path}: holds no events{where}, expected some to make frames of; check the file")
