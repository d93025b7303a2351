"""Bins of a fixed duration out of events in order of time, empty ones included, as they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from eventsim.dvs.columns import EventArray
from eventsim.dvs.fitting import Frames, PixelMap
from eventsim.errors import InputError

MAX_BINS = 1_000_000
"""Bins of a recording, or empty ones in a row of a stream: a gap of hours in corrupt times would make millions."""


@dataclass(frozen=True)
class TimedBin:
    """One bin.

    Attributes
    ----------
    index : int
        From 0.
    start_us : int
        Its beginning; its end is excluded.
    events : int
        Of the sensor, in it; of a crop, not all of them are in the frame.
    frame : ndarray of int32, shape (2, H, W)
        Events per polarity (0 = OFF, 1 = ON), row and column; a new array.
    """

    index: int
    start_us: int
    events: int
    frame: Frames


def timed_bins(
    blocks: Iterable[EventArray],
    bin_us: int,
    pixels: PixelMap,
    path: str,
    *,
    start_us: int | None = None,
    most_empty: int = MAX_BINS,
) -> Iterator[TimedBin]:
    """Yield the bins up to that of the last event, each as soon as an event behind it has come.

    Parameters
    ----------
    blocks : iterable of ndarray of EVENT_DTYPE
        In order of time; no block is empty. The next one is asked for when every bin that ends in this one was taken.
    bin_us : int
        Duration of a bin.
    pixels : PixelMap
        Where pixels go in the frame.
    path : str
        For messages.
    start_us : int, optional
        Start of bin 0: earlier events are left out. The time of the first event when not given.
    most_empty : int
        Refuse more bins than this between two events.

    Raises
    ------
    InputError
        A gap of more bins.
    """
    current = events_in = 0
    frame: Frames | None = None
    for block in blocks:
        start_us = int(block["t"][0]) if start_us is None else start_us
        events = block if frame is not None else block[block["t"] >= start_us]
        for index, part in parts_by_time(events, start_us, bin_us):
            frame = pixels.count(part[:0]) if frame is None else frame
            if index - current > most_empty:
                raise InputError(
                    f"{path}: a gap of {index - current} bins of {bin_us} us before an event at {part['t'][0]} us, "
                    f"expected at most {most_empty}; the times are corrupt, or choose longer bins"
                )
            while current < index:
                yield TimedBin(current, start_us + current * bin_us, events_in, frame)
                frame = pixels.count(part[:0])
                current, events_in = current + 1, 0
            pixels.add(part, frame)
            events_in += len(part)
    if frame is not None:
        assert start_us is not None
        yield TimedBin(current, start_us + current * bin_us, events_in, frame)


def parts_by_time(events: EventArray, origin_us: int, window_us: int) -> Iterator[tuple[int, EventArray]]:
    """Cut events in order of time into windows of one duration."""
    t = np.ascontiguousarray(events["t"])
    start = 0
    while start < len(events):
        index = (int(t[start]) - origin_us) // window_us
        # Python's integers, since the end of a long window may not fit into 64 bits
        end_us = origin_us + (index + 1) * window_us
        stop = len(events) if end_us > int(t[-1]) else int(np.searchsorted(t, end_us))
        yield index, events[start:stop]
        start = stop
