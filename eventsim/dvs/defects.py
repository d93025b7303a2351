"""What one pass over a recording met that is not as it should be, and what was done about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Defects:
    """Counts of one pass; made empty, filled while the recording is read.

    Attributes
    ----------
    events : int
        Events delivered.
    out_of_order : int
        Events earlier than one before them, within the part that was asked for.
    steps_back : int
        How often the time of an event is less than that of the event right before it.
    largest_lag_us : int
        How late the latest of them came, microseconds; after a reset of the camera's clock, the time before it.
    dropped : int
        How many of them were left out.
    wraps : int
        How often the counter of the time was full and began again, which is undone.
    disorder : str
        What was done with events out of order: "keep", "sort", "drop" or "refuse".
    damage : str, optional
        Where reading ended before the end of the file, and why.
    """

    events: int = 0
    out_of_order: int = 0
    steps_back: int = 0
    largest_lag_us: int = 0
    dropped: int = 0
    wraps: int = 0
    disorder: str = "refuse"
    damage: str | None = None

    def sentences(self, path: str) -> list[str]:
        """Say what was met and done, one sentence each; nothing where all was well.

        Parameters
        ----------
        path : str
            Name of the recording.
        """
        said = []
        if self.out_of_order:
            done = {"keep": "taken as they come", "sort": "sorted", "drop": "left out"}.get(self.disorder, "refused")
            steps = "1 step" if self.steps_back == 1 else f"{self.steps_back:,} steps"
            said.append(
                f"{path}: {self.out_of_order:,} of {self.events + self.dropped:,} events out of order, up to "
                f"{self.largest_lag_us:,} us late, {steps} back in time: {done}"
            )
        if self.wraps:
            times = "once" if self.wraps == 1 else f"{self.wraps:,} times"
            said.append(f"{path}: the counter of the time was full {times}; the time goes on behind it")
        if self.damage is not None:
            said.append(
                f"{path}: {self.events:,} events read, up to the damage: {self.damage.removeprefix(path + ': ')}"
            )
        return said

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as plain data."""
        return asdict(self)
