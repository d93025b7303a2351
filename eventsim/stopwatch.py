"""Seconds spent on one thing among others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TypeVar

Frame = TypeVar("Frame")


class Stopwatch:
    """Adds up the seconds spent inside of ``with`` blocks, and in the steps of iterators.

    Attributes
    ----------
    seconds : float
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._began

    def timed(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """Yield what `frames` yields; the time that it takes for each counts."""
        while True:
            with self:
                try:
                    frame = next(frames)
                except StopIteration:
                    return
            yield frame
