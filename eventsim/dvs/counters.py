"""Times from a counter of a few bits, which is full again and again."""

from __future__ import annotations

from typing import Any

from eventsim.dvs.compiled import compiled


@compiled
def steady(step: Any, full: int) -> Any:
    """Tell whether `rounds` is 0, in a form that leaves the loop around it fast where that is so nearly always."""
    return step >= -(full // 2) and step <= full - full // 4096


@compiled
def rounds(step: Any, full: int) -> int:
    """Tell from two stamps that follow one another how often the counter was full between them.

    A stamp that is less than the one before it by more than half of the counter's range is one behind a full counter.
    One that is more by all but 1/4096 of the range comes late, from before the counter was full.

    Parameters
    ----------
    step : int
        A stamp less the one before it.
    full : int
        Range of the counter: stamps are 0 to full - 1.

    Returns
    -------
    int
        1 behind a full counter, -1 before it again, else 0.
    """
    if step < -(full // 2):
        return 1
    if step > full - full // 4096:
        return -1
    return 0
