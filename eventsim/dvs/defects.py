"""What one pass over a recording met that is not as it should be, and what was done about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

DONE = {"keep": "taken as they come", "sort": "sorted", "drop": "left out", "refuse": "refused"}
"""What became of events out of order."""


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
    sensor : str, optional
        Where the size of the sensor was given other than the file says it: both.
    """

    events: int = 0
    out_of_order: int = 0
    steps_back: int = 0
    largest_lag_us: int = 0
    dropped: int = 0
    wraps: int = 0
    disorder: str = "refuse"
    damage: str | None = None
    sensor: str | None = None

    def sentences(self, path: str) -> list[str]:
        """Say what was met and done, one sentence each; nothing where all was well.

        Parameters
        ----------
        path : str
            Name of the recording.
        """
        said = []
        if self.sensor is not None:
            said.append(f"{path}: {self.sensor}")
        if self.out_of_order:
            steps = "1 step" if self.steps_back == 1 else f"{self.steps_back:,} steps"
            said.append(
                f"{path}: {self.out_of_order:,} of {self.events + self.dropped:,} events out of order, up to "
                f"{self.largest_lag_us:,} us late, {steps} back in time: {DONE[self.disorder]}"
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


@dataclass
class DefectsOfMany:
    """Sums over recordings.

    Attributes
    ----------
    recordings : int
        Recordings read.
    disordered : int
        Recordings with events out of order.
    events, out_of_order, dropped, largest_lag_us, wraps
        As `Defects` has them, over all recordings.
    wrapped : int
        Recordings in which the counter of the time was full.
    disorder : str
        What was done with events out of order.
    damaged : list of (str, str)
        Recordings that were read up to their damage, and that.
    resized : list of (str, str)
        Recordings whose sensor was given another size than the file says, and both.
    """

    recordings: int = 0
    disordered: int = 0
    events: int = 0
    out_of_order: int = 0
    dropped: int = 0
    largest_lag_us: int = 0
    wraps: int = 0
    wrapped: int = 0
    disorder: str = "refuse"
    damaged: list[tuple[str, str]] = field(default_factory=list)
    resized: list[tuple[str, str]] = field(default_factory=list)

    def take(self, name: str, defects: Defects | None) -> None:
        """Add one recording; what was no recording has no events and is not counted."""
        if defects is None or not defects.events:
            return
        self.recordings += 1
        self.disordered += defects.out_of_order > 0
        self.events += defects.events
        self.out_of_order += defects.out_of_order
        self.dropped += defects.dropped
        self.largest_lag_us = max(self.largest_lag_us, defects.largest_lag_us)
        self.wraps += defects.wraps
        self.wrapped += defects.wraps > 0
        self.disorder = defects.disorder
        if defects.damage is not None:
            self.damaged.append((name, defects.damage))
        if defects.sensor is not None:
            self.resized.append((name, defects.sensor))

    def sentences(self) -> list[str]:
        """Say what was met and done; nothing where all was well."""
        said = []
        if self.resized:
            name, sensor = self.resized[0]
            said.append(
                f"{len(self.resized):,} of {self.recordings:,} recordings say another size of the sensor; the first is "
                f"{name}: {sensor}"
            )
        if self.disordered:
            done = DONE[self.disorder]
            said.append(
                f"{self.disordered:,} of {self.recordings:,} recordings with events out of order, {self.out_of_order:,}"
                f" of {self.events + self.dropped:,}, up to {self.largest_lag_us:,} us late: {done}"
            )
        if self.wrapped:
            times = "once" if self.wraps == 1 else f"{self.wraps:,} times in all"
            said.append(
                f"{self.wrapped:,} of {self.recordings:,} recordings in which the counter of the time was full, {times}"
                "; the time goes on behind it"
            )
        if self.damaged:
            name, damage = self.damaged[0]
            many = f"{len(self.damaged):,} of {self.recordings:,} recordings"
            said.append(f"{many} read up to their damage; the first is {name}: {damage.removeprefix(f'{name}: ')}")
        return said

    def to_dict(self) -> dict[str, Any]:
        """Return the sums as plain data."""
        return {
            **asdict(self),
            "damaged": [{"input": name, "damage": damage} for name, damage in self.damaged],
            "resized": [{"input": name, "sensor": sensor} for name, sensor in self.resized],
        }
