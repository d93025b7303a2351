"""Events that come out of order: taken as they come, sorted within a lag, left out, or refused, and counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from eventsim.dvs.defects import Defects
from eventsim.dvs.packing import in_order, joined
from eventsim.errors import InputError

Disorder: TypeAlias = Literal["keep", "sort", "drop", "refuse"]

DEFAULT_LAG_US = 10_000
# some 100 MB; so many events within one lag are no jitter of a camera
MOST_HELD = 1 << 22
BEFORE_ALL = -(2**62)


@dataclass(frozen=True)
class Reading:
    """How the events of one pass over a recording are taken.

    Parameters
    ----------
    disorder : {"keep", "sort", "drop", "refuse"}, optional
        What to do with an event that is earlier than one before it: take it as it comes; put it where it belongs if it
        is at most `lag_us` late, and refuse it otherwise; leave it out; or refuse the recording. When not given,
        windows of equally many events take the events as they come and all others refuse.
    lag_us : int
        Microseconds within which ``"sort"`` sorts.
    defects : Defects, optional
        Takes the counts of this pass.

    Raises
    ------
    InputError
        An unknown `disorder`, or a negative lag.
    """

    disorder: Disorder | None = None
    lag_us: int = DEFAULT_LAG_US
    defects: Defects | None = None

    def __post_init__(self) -> None:
        if self.disorder not in (None, *get_args(Disorder)):
            raise InputError(f"disorder={self.disorder!r} found; expected one of {', '.join(get_args(Disorder))}")
        if not 0 <= self.lag_us < 2**62:
            raise InputError(f"lag_us={self.lag_us} found; expected 0 microseconds or more, below 2^62")


class Order:
    """Brings the events of one pass in order, and counts those that were not.

    Parameters
    ----------
    path : str
        For messages.
    disorder : {"keep", "sort", "drop", "refuse"}
    lag_us : int
        Microseconds within which ``"sort"`` sorts.
    defects : Defects
        Takes the counts.
    live : bool
        Whether events are waited for, of which no windows of equally many are made.

    Attributes
    ----------
    latest : int
        Latest time so far, microseconds.
    """

    def __init__(self, path: str, disorder: Disorder, lag_us: int, defects: Defects, *, live: bool = False) -> None:
        self._path, self._disorder, self._lag_us, self._defects = path, disorder, lag_us, defects
        self._live = live
        self.latest = self._previous = BEFORE_ALL
        self._held: list[npt.NDArray[np.void]] = []

    def take(
        self, events: npt.NDArray[np.void], number: Callable[[int], int], ordered: bool = False
    ) -> Iterator[npt.NDArray[np.void]]:
        """Yield what can be said to come next, after these events.

        Parameters
        ----------
        events : ndarray of EVENT_DTYPE, shape (n,)
            At least one.
        number : callable
            Which event of the recording the i-th of these is, for messages.
        ordered : bool
            Whether they are known to be in order, and none of them before the latest.

        Raises
        ------
        InputError
            An event is refused; those before it were taken.
        """
        t = events["t"]
        if ordered or in_order(events, self.latest):
            self.latest = self._previous = int(t[-1])
            yield from self._passed(events)
            return
        latest = np.maximum(np.maximum.accumulate(t), self.latest)
        lag = latest - t
        refused = lag > {"refuse": 0, "sort": self._lag_us}.get(self._disorder, 2**63 - 1)
        if refused.any():
            at = int(np.argmax(refused))
            if at:
                yield from self.take(events[:at], number)
            raise self._refusal(number(at), int(t[at]), int(latest[at]))
        late = lag > 0
        self._defects.out_of_order += int(late.sum())
        self._defects.steps_back += int((t < np.concatenate(([self._previous], t[:-1]))).sum())
        self._defects.largest_lag_us = max(self._defects.largest_lag_us, int(lag.max()))
        self.latest, self._previous = int(latest[-1]), int(t[-1])
        if self._disorder == "drop":
            self._defects.dropped += int(late.sum())
            events = events[~late]
        yield from self._passed(events)

    def rest(self) -> Iterator[npt.NDArray[np.void]]:
        """Yield what is held back, at the end."""
        if self._held:
            yield _sorted(self._held)
            self._held = []

    def _passed(self, events: npt.NDArray[np.void]) -> Iterator[npt.NDArray[np.void]]:
        if self._disorder != "sort":
            if len(events):
                yield events
            return
        events = _sorted([*self._held, events])
        # an event of this very time may still come, and its place is behind those that are here
        certain = int(np.searchsorted(events["t"], self.latest - self._lag_us, side="right"))
        if len(events) - certain > MOST_HELD:
            raise InputError(
                f"{self._path}: {len(events) - certain} events within {self._lag_us} us found, expected at most "
                f"{MOST_HELD} to be sorted at a time; pass a shorter lag_us={self._lag_us // 2}"
            )
        self._held = [events[certain:].copy()] if certain < len(events) else []
        if certain:
            yield events[:certain]

    def _refusal(self, number: int, t: int, latest: int) -> InputError:
        found = f"{self._path}: event {number} has t = {t} us after {latest} us, expected times that never decrease"
        if self._disorder == "refuse":
            upto = "read up to it (salvage=True)"
            # windows of equally many events come here only where refusing was asked for
            kept = "in windows of equally many events (window='count' without disorder='refuse')"
            last = f"or {upto}" if self._live else f"{upto}, or take them as they come {kept}"
            return InputError(
                f"{found}; sort within a lag or leave such events out (disorder='sort', disorder='drop'), {last}"
            )
        return InputError(
            f"{found} by more than lag_us={self._lag_us}; pass lag_us={latest - t} or more, or disorder='drop'"
        )


def _sorted(blocks: list[npt.NDArray[np.void]]) -> npt.NDArray[np.void]:
    """Put blocks together in order of time; events of one time stay as they came."""
    events = joined(blocks)
    return events if in_order(events, BEFORE_ALL) else events[np.argsort(events["t"], kind="stable")]
