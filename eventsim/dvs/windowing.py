"""From events to frames: counts of events per window, polarity and pixel.

A frame has shape (2, H, W) and type int32: channel 0 counts OFF events, channel 1 ON events, row = y, column = x. The
recording is streamed, so memory is bounded by the frames and one chunk, however long the recording is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np

from eventsim.dvs.columns import EventArray
from eventsim.dvs.defects import Defects
from eventsim.dvs.fitting import SENSOR_SIZE, Fit, Frames, PixelMap, agreed, pixel_map, positive
from eventsim.dvs.order import Disorder, Reading
from eventsim.dvs.recording import TIME_LIMIT_US, Recording
from eventsim.dvs.timed_bins import MAX_BINS, parts_by_time, timed_bins
from eventsim.errors import InputError

Parts: TypeAlias = Iterator[tuple[int, EventArray]]
Remainder: TypeAlias = Literal["keep", "drop"]

# 4 GiB of counts; a wrong sensor size should be refused, not bring the machine down
MAX_FRAME_VALUES = 2**30
AS_NEEDED = Reading()
# as many events are held, in some 20 MB, so that they are decoded once although windows depend on the last of them
HELD_EVENTS = 1_500_000


def frames_by_count(
    recording: Recording,
    time_steps: int,
    *,
    fit: Fit = SENSOR_SIZE,
    binary: bool = False,
    remainder: Remainder = "keep",
    reading: Reading = AS_NEEDED,
) -> Frames:
    """Split into windows of equally many events, SpikingJelly's ``split_by="number"``.

    With N events, window i holds events i * (N // T) up to but excluding (i + 1) * (N // T); the last window also holds
    the rest of N / T, which Tonic's ``ToFrame(n_event_bins=T)`` drops. The recording is read twice, first to
    count, unless its length tells how many events it holds, or it is slow to decode and holds 1.5 million at most.

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
    remainder : {"keep", "drop"}
        Whether the rest of N / T is in the last window, SpikingJelly's way, or in none, Tonic's.
    reading : Reading
        What to do with events out of order; they are taken as they come when nothing is said.

    Returns
    -------
    ndarray of int32, shape (T, 2, H, W)
        Events per window, polarity (0 = OFF, 1 = ON), row and column.

    Raises
    ------
    InputError
        There are no events or fewer than `time_steps`, the sizes do not fit, or the recording is malformed.
    """
    pixels = pixel_map(recording, fit)
    recording = agreed(recording)
    frames = empty_frames(recording, positive("time_steps", time_steps), pixels)
    twice = _Twice(recording, "keep", reading)
    total = twice.count()
    if time_steps > total:
        raise InputError(
            f"{recording.path}: holds {total} events{twice.left_out}, expected at least one for each of "
            f"{time_steps} time steps; lower the number of time steps"
        )
    first = 0
    for events in twice.again():
        _add(frames, pixels, _parts_by_count(events, first, total // time_steps), remainder)
        first += len(events)
    return np.minimum(frames, 1) if binary else frames


def frames_by_time(
    recording: Recording,
    time_steps: int,
    *,
    fit: Fit = SENSOR_SIZE,
    binary: bool = False,
    remainder: Remainder = "keep",
    reading: Reading = AS_NEEDED,
) -> Frames:
    """Split into windows of equal time, SpikingJelly's ``split_by="time"``.

    With first and last event at t0 and t1 and d = (t1 - t0) // T whole microseconds, window i holds the events with
    t0 + i * d <= t < t0 + (i + 1) * d, and the last window holds everything from t0 + (T - 1) * d on: also the event at
    t1 and whatever the rounding of d left over. Tonic's ``ToFrame(n_time_bins=T)`` has the same windows but drops the
    events from t0 + T * d on, of which there is always at least one. A window without events is a frame of zeros
    (SpikingJelly fails there). The recording is read twice, first for t0 and t1, unless it is slow to
    decode and holds 1.5 million events at most, or t1 turns out to be what the end of the file says.

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
    remainder : {"keep", "drop"}
        Whether events from t0 + T * d on are in the last window, SpikingJelly's way, or in none, Tonic's.
    reading : Reading
        What to do with events out of order; they are refused when nothing is said.

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
    pixels = pixel_map(recording, fit)
    recording = agreed(recording)
    frames = empty_frames(recording, positive("time_steps", time_steps), pixels)
    first_us = last_us = likely_us = 0
    twice = _Twice(recording, "refuse", reading)
    likely_last_us = recording.likely_last_us(reading.disorder or "refuse")
    for index, events in enumerate(twice.first()):
        last_us = int(events["t"][-1])
        if index == 0:
            first_us = int(events["t"][0])
            likely_us = 0 if likely_last_us is None else max(likely_last_us - first_us, 0) // time_steps
        # a window that turns out to be another is of no use; and of too short ones there might be millions
        likely_us = 0 if likely_last_us is None or last_us > likely_last_us else likely_us
        if likely_us:
            _add(frames, pixels, parts_by_time(events, first_us, likely_us), remainder)
    refuse_empty(recording, twice.defects)
    window_us = (last_us - first_us) // time_steps
    if window_us == 0:
        raise InputError(
            f"{recording.path}: the events span {last_us - first_us} us{twice.left_out}, expected at least 1 us for "
            f"each of {time_steps} time steps; lower the number of time steps, or pass window='count'"
        )
    if likely_us != window_us:
        frames.fill(0)
        for events in twice.again():
            _add(frames, pixels, parts_by_time(events, first_us, window_us), remainder)
    return np.minimum(frames, 1) if binary else frames


def frames_by_duration(
    recording: Recording,
    bin_us: int,
    *,
    start_us: int | None = None,
    include_incomplete: bool | Literal["alone"] = True,
    max_bins: int = MAX_BINS,
    fit: Fit = SENSOR_SIZE,
    binary: bool = False,
    reading: Reading = AS_NEEDED,
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
    include_incomplete : bool or "alone"
        Whether the last bin is delivered; ``"alone"``: only where there is no other, as Tonic does without its
        ``include_incomplete``.
    max_bins : int
        Refuse to deliver more bins: a gap of hours in the times of a corrupt file would make millions of empty ones.
    fit : Fit
        How the sensor's pixels meet the frame size.
    binary : bool
        Clip counts to 1.
    reading : Reading
        What to do with events out of order; they are refused when nothing is said.

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
    pixels = pixel_map(recording, fit)
    recording = agreed(recording)
    empty_frames(recording, 1, pixels)
    positive("bin_us", bin_us)
    positive("max_bins", max_bins)
    if start_us is not None and not -TIME_LIMIT_US <= start_us < TIME_LIMIT_US:
        raise InputError(f"start_us is {start_us}, expected less than 2^62 microseconds")
    counted = replace(reading, defects=reading.defects or Defects())
    bins = _bins(recording, bin_us, start_us, max_bins, pixels, counted)
    return _delivered(recording, bins, include_incomplete, binary)


def frames_from_events(
    recording: Recording,
    bin_us: int,
    *,
    fit: Fit = SENSOR_SIZE,
    binary: bool = False,
    reading: Reading = AS_NEEDED,
) -> Iterator[Frames]:
    """Stream bins that each begin with an event, SpikingJelly's ``duration``; one pass.

    A bin begins with the first event behind the bin before it, at time t0, and holds the events with
    t0 <= t <= t0 + bin_us: both ends belong to it. There are no empty bins, so time is not the number of bins times
    `bin_us`.

    Parameters
    ----------
    recording : Recording
        Events.
    bin_us : int
        Longest time between the first and the last event of a bin, microseconds.
    fit : Fit
        How the sensor's pixels meet the frame size.
    binary : bool
        Clip counts to 1.
    reading : Reading
        What to do with events out of order; they are refused when nothing is said.

    Yields
    ------
    ndarray of int32, shape (2, H, W)
        Events per polarity (0 = OFF, 1 = ON), row and column of one bin; every frame is a new array.

    Raises
    ------
    InputError
        At the call: `bin_us` is not positive or the sizes do not fit. While reading: there are no events, or the
        recording is malformed.
    """
    pixels = pixel_map(recording, fit)
    recording = agreed(recording)
    empty_frames(recording, 1, pixels)
    counted = replace(reading, defects=reading.defects or Defects())
    bins = _bins_from_events(recording, positive("bin_us", bin_us), pixels, counted)
    return (np.minimum(frame, 1) if binary else frame for frame in bins)


def _read(recording: Recording, default: Disorder, reading: Reading) -> Iterator[EventArray]:
    """Read a recording once."""
    disorder = check_order(recording, default, reading)
    return recording.chunks(disorder=disorder, lag_us=reading.lag_us, defects=reading.defects)


def check_order(recording: Recording, default: Disorder, reading: Reading) -> Disorder:
    """Say what becomes of disorder; windows of time know no place for an event that is taken as it comes."""
    disorder = reading.disorder or default
    if default == "refuse" and disorder == "keep":
        raise InputError(
            f"{recording.path}: disorder='keep' with windows of time found, expected it with windows of equally many "
            "events alone; pass disorder='sort', 'drop' or 'refuse'"
        )
    return disorder


class _Twice:
    """A recording that may be gone through twice: it is decoded once where that is slow, and its events can be held."""

    def __init__(self, recording: Recording, default: Disorder, reading: Reading) -> None:
        self.defects = reading.defects or Defects()
        self._recording, self._default, self._reading = recording, default, replace(reading, defects=self.defects)
        self._held: list[EventArray] | None = None
        # of the first pass, whichever that is
        self._scan = self.defects

    @property
    def left_out(self) -> str:
        """What is to be said where few events are left; nothing where none was left out."""
        dropped = self._scan.dropped
        return f" without {dropped:,} that were out of order" if dropped else ""

    def count(self) -> int:
        """Count all events, at least one."""
        disorder, scan = self._reading.disorder or self._default, Defects()
        if self._recording.slow and self._recording.known_count(disorder) is None:
            total = sum(len(events) for events in self.first())
            scan = self.defects
        else:
            total = self._recording.count(disorder, self._reading.lag_us, scan)
        self._scan = scan
        refuse_empty(self._recording, scan)
        return total

    def first(self) -> Iterator[EventArray]:
        """Yield all events, and fill `defects`."""
        events = 0
        self._held = [] if self._recording.slow else None
        for chunk in _read(self._recording, self._default, self._reading):
            events += len(chunk)
            if events > HELD_EVENTS:
                self._held = None
            if self._held is not None:
                self._held.append(chunk)
            yield chunk
        # what they are was counted
        self._reading = replace(self._reading, defects=None)

    def again(self) -> Iterator[EventArray]:
        """Yield them once more; or for the first time, and fill `defects`."""
        return _read(self._recording, self._default, self._reading) if self._held is None else iter(self._held)


def _bins_from_events(recording: Recording, bin_us: int, pixels: PixelMap, reading: Reading) -> Iterator[Frames]:
    frame: Frames | None = None
    begin = 0
    for chunk in _read(recording, "refuse", reading):
        events = chunk
        while len(events):
            if frame is None:
                frame, begin = pixels.count(events[:0]), int(events["t"][0])
            end = int(np.searchsorted(events["t"], begin + bin_us, side="right"))
            pixels.add(events[:end], frame)
            events = events[end:]
            if len(events):
                yield frame
                frame = None
    if frame is not None:
        yield frame
        return
    assert reading.defects is not None
    refuse_empty(recording, reading.defects)


def _bins(
    recording: Recording,
    bin_us: int,
    start_us: int | None,
    max_bins: int,
    pixels: PixelMap,
    reading: Reading,
) -> Iterator[Frames]:
    """Yield the counts of every bin up to that of the last event."""

    def checked() -> Iterator[EventArray]:
        nonlocal start_us
        for chunk in _read(recording, "refuse", reading):
            start_us = int(chunk["t"][0]) if start_us is None else start_us
            # a Python int, since a start far from the events may not fit into the difference of two int64
            reached_us = int(chunk["t"][-1]) - start_us
            if reached_us // bin_us >= max_bins:
                raise InputError(
                    f"{recording.path}: bins of {bin_us} us from {start_us} us to an event at {chunk['t'][-1]} us, "
                    f"expected at most {max_bins:,} of them; the times are corrupt, or choose longer ones, "
                    f"bin_us={reached_us // max_bins + 1} or more"
                )
            yield chunk

    empty = True
    for each in timed_bins(checked(), bin_us, pixels, recording.path, start_us=start_us, most_empty=max_bins):
        empty = False
        yield each.frame
    if not empty:
        return
    assert reading.defects is not None
    where = "" if start_us is None else f" from {start_us} us on"
    refuse_empty(recording, replace(reading.defects, events=0), where)


def _delivered(
    recording: Recording, bins: Iterator[Frames], include_incomplete: bool | Literal["alone"], binary: bool
) -> Iterator[Frames]:
    """Hold back the last bin when it is not wanted, and clip."""
    held: Frames | None = None
    delivered = 0
    for frame in bins:
        if held is not None:
            yield held
            delivered += 1
        held = np.minimum(frame, 1) if binary else frame
    wanted = delivered == 0 if include_incomplete == "alone" else include_incomplete
    if wanted and held is not None:
        yield held
    elif delivered == 0:
        raise InputError(
            f"{recording.path}: shorter than one bin, expected a complete one; choose shorter bins or "
            "include_incomplete=True"
        )


def _add(frames: Frames, pixels: PixelMap, parts: Parts, remainder: Remainder) -> None:
    """Add events to the frames of their windows; the remainder lies behind the last."""
    last = len(frames) - 1
    for index, part in parts:
        if index <= last or remainder == "keep":
            pixels.add(part, frames[min(index, last)])


def _parts_by_count(events: EventArray, first: int, each: int) -> Parts:
    """Cut events, of which the first is number `first`, into windows of so many each."""
    start = 0
    while start < len(events):
        index = (first + start) // each
        stop = min((index + 1) * each - first, len(events))
        yield index, events[start:stop]
        start = stop


def empty_frames(recording: Recording, time_steps: int, pixels: PixelMap) -> Frames:
    """Allocate zero frames, after a look at their size."""
    values = 2 * time_steps * pixels.height * pixels.width
    if values > MAX_FRAME_VALUES:
        raise InputError(
            f"{recording.path}: {time_steps} frames of 2 x {pixels.height} x {pixels.width} are {values} counts, "
            f"expected at most {MAX_FRAME_VALUES}; lower the number of time steps, or pass fit='crop' and "
            "sensor_size=(height, width)"
        )
    return np.zeros((time_steps, 2, pixels.height, pixels.width), np.int32)


def refuse_empty(recording: Recording, read: Defects, where: str = "") -> None:
    """Refuse a recording of which no event was read."""
    if read.events:
        return
    ends = (("from", recording.start_us), ("up to", recording.end_us))
    where = where or "".join(f" {word} {at} us" for word, at in ends if at is not None)
    if read.damage is not None:
        where += f" before its damage ({read.damage.removeprefix(f'{recording.path}: ')})"
    raise InputError(f"{recording.path}: holds no events{where}, expected some to make frames of; check the file")
