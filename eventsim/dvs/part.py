"""A part of a recording, as plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RecordingPart:
    """The events of a file between two times.

    Attributes
    ----------
    path : str
        Event file.
    start_us, end_us : int
        The first and, excluded, the last time of the part; microseconds, as in the file.
    """

    path: str
    start_us: int
    end_us: int
