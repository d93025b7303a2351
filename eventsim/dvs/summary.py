"""What a recording holds, in numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eventsim.dvs.defects import Defects

# above every coordinate
LARGEST = 2**15


@dataclass(frozen=True)
class RecordingSummary:
    """What a recording holds, from one pass over it.

    Attributes
    ----------
    events, on_events, off_events : int
        Number of events; events = on_events + off_events.
    first_us, last_us : int or None
        Earliest and latest time of an event, microseconds; None when there are no events.
    duration_us : int
        last_us - first_us; 0 when there are no events.
    width, height : int
        Sensor size in pixels, after orientation.
    x_range, y_range : tuple of int or None
        Smallest and largest coordinate that occurs; None when there are no events.
    out_of_order, steps_back, largest_lag_us, wraps, damage
        As `Defects` has them; events out of order are counted as they come.
    """

    events: int
    on_events: int
    off_events: int
    first_us: int | None
    last_us: int | None
    duration_us: int
    width: int
    height: int
    x_range: tuple[int, int] | None
    y_range: tuple[int, int] | None
    out_of_order: int = 0
    steps_back: int = 0
    largest_lag_us: int = 0
    wraps: int = 0
    damage: str | None = None


def summarised(chunks: Iterable[npt.NDArray[np.void]], width: int, height: int, defects: Defects) -> RecordingSummary:
    """Count and measure events.

    Parameters
    ----------
    chunks : iterable of ndarray of EVENT_DTYPE
        None of them empty.
    width, height : int
        Pixels.
    defects : Defects
        Filled while the chunks come.
    """
    events = on_events = 0
    first_us: int | None = None
    last_us: int | None = None
    low = [LARGEST, LARGEST]
    high = [0, 0]
    for chunk in chunks:
        events += len(chunk)
        on_events += int(np.count_nonzero(chunk["p"]))
        earliest, latest = int(chunk["t"].min()), int(chunk["t"].max())
        first_us = earliest if first_us is None else min(first_us, earliest)
        last_us = latest if last_us is None else max(last_us, latest)
        for axis, name in enumerate("xy"):
            low[axis] = min(low[axis], int(chunk[name].min()))
            high[axis] = max(high[axis], int(chunk[name].max()))
    return RecordingSummary(
        events=events,
        on_events=on_events,
        off_events=events - on_events,
        first_us=first_us,
        last_us=last_us,
        duration_us=0 if first_us is None or last_us is None else last_us - first_us,
        width=width,
        height=height,
        x_range=(low[0], high[0]) if events else None,
        y_range=(low[1], high[1]) if events else None,
        out_of_order=defects.out_of_order,
        steps_back=defects.steps_back,
        largest_lag_us=defects.largest_lag_us,
        wraps=defects.wraps,
        damage=defects.damage,
    )
