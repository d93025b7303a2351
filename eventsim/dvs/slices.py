"""Slices of equally many events or of one duration, which may overlap: Tonic's ``event_count`` and ``time_window``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from eventsim.dvs.defects import Defects
from eventsim.dvs.fitting import SENSOR_SIZE, Fit, Frames, PixelMap, agreed, pixel_map, positive
from eventsim.dvs.order import Reading
from eventsim.dvs.recording import Recording
from eventsim.dvs.timed_bins import MAX_BINS
from eventsim.dvs.windowing import AS_NEEDED, _read, empty_frames, refuse_empty
from eventsim.errors import InputError


def frames_of_slices(
    recording: Recording,
    *,
    events: int | None = None,
    duration_us: int | None = None,
    overlap: int = 0,
    fit: Fit = SENSOR_SIZE,
    binary: bool = False,
    reading: Reading = AS_NEEDED,
) -> Iterator[Frames]:
    """Stream slices as Tonic's ``ToFrame(event_count=events)`` or ``ToFrame(time_window=duration_us)`` has them.

    Slice i begins i * (size - overlap) events, or microseconds, behind the first event and holds `events` events, or
    those of less than `duration_us`. An incomplete one at the end is left out, unless it is the only one. One pass;
    memory holds the slices that are open at the same time.

    Parameters
    ----------
    recording : Recording
        Events.
    events, duration_us : int
        Size of a slice, events or microseconds; one of them.
    overlap : int
        How much of a slice is in the next one, too, in the same unit; less than the size.
    fit : Fit
        How the sensor's pixels meet the frame size.
    binary : bool
        Clip counts to 1.
    reading : Reading
        What to do with events out of order. When nothing is said, slices of events take them as they come, and slices
        of one duration refuse them.

    Yields
    ------
    ndarray of int32, shape (2, H, W)
        Events per polarity (0 = OFF, 1 = ON), row and column of one slice.

    Raises
    ------
    InputError
        At the call: an option makes no sense, or the sizes do not fit. While reading: there are no events, more than a
        million slices, or the recording is malformed.
    """
    if events is not None and duration_us is None:
        size = positive("events", events)
    elif duration_us is not None and events is None:
        size = positive("duration_us", duration_us)
    else:
        raise InputError(f"events={events} and duration_us={duration_us} found; expected one of them")
    if not 0 <= overlap < size:
        raise InputError(f"overlap={overlap} with slices of {size} found; expected 0 or more, and less than a slice")
    pixels = pixel_map(recording, fit)
    recording = agreed(recording)
    empty_frames(recording, -(-size // (size - overlap)), pixels)
    counted = replace(reading, defects=reading.defects or Defects())
    slices = _slices(recording, size, size - overlap, duration_us is not None, pixels, counted)
    return (np.minimum(frame, 1) if binary else frame for frame in slices)


def _slices(
    recording: Recording, size: int, stride: int, by_time: bool, pixels: PixelMap, reading: Reading
) -> Iterator[Frames]:
    open_slices: dict[int, Frames] = {}
    first = seen = 0
    origin: int | None = None
    for chunk in _read(recording, "refuse" if by_time else "keep", reading):
        at: npt.NDArray[Any] = chunk["t"] if by_time else np.arange(seen, seen + len(chunk))
        seen += len(chunk)
        origin = int(at[0]) if origin is None else origin
        # behind whatever ends at or before this, nothing of it can come
        reached = int(at[-1]) + (0 if by_time else 1)
        if (reached - origin) // stride > MAX_BINS:
            raise InputError(
                f"{recording.path}: slices every {stride} up to {reached - origin} found, expected at most {MAX_BINS}; "
                "the times are corrupt, or choose larger ones"
            )
        index = first
        while (begin := origin + index * stride) <= int(at[-1]):
            frame = open_slices.pop(index, None)
            frame = pixels.count(chunk[:0]) if frame is None else frame
            low, high = np.searchsorted(at, (begin, begin + size))
            pixels.add(chunk[low:high], frame)
            if begin + size <= reached:
                yield frame
                first = index + 1
            else:
                open_slices[index] = frame
            index += 1
    if origin is None:
        assert reading.defects is not None
        refuse_empty(recording, reading.defects)
    elif first == 0:
        yield open_slices[0]
