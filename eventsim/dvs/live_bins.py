"""The bins of a recording while it happens: each as soon as its end has come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from eventsim.dvs.defects import Defects
from eventsim.dvs.fitting import SENSOR_SIZE, Fit, PixelMap, agreed, pixel_map, positive
from eventsim.dvs.order import Reading
from eventsim.dvs.recording import Recording
from eventsim.dvs.timed_bins import TimedBin, timed_bins
from eventsim.dvs.windowing import AS_NEEDED, check_order, empty_frames, refuse_empty


def bins_as_they_come(
    recording: Recording,
    bin_us: int,
    *,
    fit: Fit = SENSOR_SIZE,
    binary: bool = False,
    reading: Reading = AS_NEEDED,
    on_arrival: Callable[[int], None] | None = None,
) -> Iterator[TimedBin]:
    """Stream the bins of `frames_by_duration`, each as soon as an event behind it has come, however many there are.

    Parameters
    ----------
    recording : Recording
        Events; no more are read than the bins that were taken need, but for a block.
    bin_us : int
        Duration of a bin, microseconds.
    fit : Fit
        How the sensor's pixels meet the frame size.
    binary : bool
        Clip counts to 1.
    reading : Reading
        What to do with events out of order; they are refused when nothing is said. ``"sort"`` holds a bin back until
        an event one lag behind it has come.
    on_arrival : callable, optional
        As of `Recording.blocks`.

    Yields
    ------
    TimedBin
        The last one may be incomplete.

    Raises
    ------
    InputError
        At the call: `bin_us` is not positive or the sizes do not fit. While reading: there are no events, a gap of more
        than a million bins, or the recording is malformed.
    """
    pixels = pixel_map(recording, fit)
    recording = agreed(recording)
    empty_frames(recording, 1, pixels)
    positive("bin_us", bin_us)
    check_order(recording, "refuse", reading)
    counted = replace(reading, defects=reading.defects or Defects())
    return _as_they_come(recording, bin_us, pixels, binary, counted, on_arrival)


def _as_they_come(
    recording: Recording,
    bin_us: int,
    pixels: PixelMap,
    binary: bool,
    reading: Reading,
    on_arrival: Callable[[int], None] | None,
) -> Iterator[TimedBin]:
    blocks = recording.blocks(
        disorder=reading.disorder or "refuse",
        lag_us=reading.lag_us,
        defects=reading.defects,
        on_arrival=on_arrival,
    )
    empty = True
    for each in timed_bins(blocks, bin_us, pixels, recording.path):
        empty = False
        yield replace(each, frame=np.minimum(each.frame, 1)) if binary else each
    if empty:
        assert reading.defects is not None
        refuse_empty(recording, reading.defects)
