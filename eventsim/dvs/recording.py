"""A recording of a dynamic vision sensor (DVS): a stream of events (x, y, t, p), read in pieces of bounded size.

Every reader turns its own bytes into `Columns`; this file checks them, orients them and cuts them into chunks, so that
what is refused is the same for every format.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from eventsim.dvs.columns import EVENT_DTYPE, Decoded, EventArray, Packed, kinds
from eventsim.dvs.defects import Defects
from eventsim.dvs.order import DEFAULT_LAG_US, Disorder, Order, Reading
from eventsim.dvs.packing import check, joined, pack
from eventsim.dvs.soundness import first_unsound
from eventsim.dvs.summary import RecordingSummary, summarised
from eventsim.errors import EventsimError, InputError
from eventsim.stopwatch import Stopwatch
from eventsim.untrusted import described

SensorSize: TypeAlias = tuple[int, int]
SizeSource: TypeAlias = Literal["file", "given", "format", "guessed"]

# as many as stay in the cache of a core while they are decoded, checked and counted
BLOCK_EVENTS = 16384
# int16 holds the coordinates; differences of two times within this limit cannot overflow int64
MAX_SENSOR_SIDE = 32767
TIME_LIMIT_US = 2**62


@dataclass(frozen=True)
class Orientation:
    """How to turn the picture that a reader delivers; the default leaves it as the format's convention has it.

    `transpose` comes first; the flips act on the coordinates after it.

    Parameters
    ----------
    transpose : bool
        Exchange x and y (width and height of the recording change places too).
    flip_x, flip_y : bool
        Mirror left-right (x becomes width - 1 - x), top-bottom (y becomes height - 1 - y).
    flip_polarity : bool
        Exchange ON and OFF.
    """

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False
    flip_polarity: bool = False


AS_RECORDED = Orientation()


class Recording(ABC):
    """A stream of DVS events that is never held in memory as a whole; unless they come as they happen, read repeatedly.

    Parameters
    ----------
    path : str
        Where it comes from, for messages.
    sensor_size : tuple of int
        (height, width) of the sensor in pixels, before orientation.
    orientation : Orientation
        How to turn the picture.

    Attributes
    ----------
    format : str
        Name of the format, one of `eventsim.dvs.event_formats` or ``"array"``.
    path : str
        As given.
    width, height : int
        Size in pixels of what `chunks` delivers, that is after orientation.
    untold : frozenset of str
        Which of sensor_size and camera neither the file nor the caller tells, so that something else was taken.
    size_given : bool
        Whether the caller said the size of the sensor.
    orientation_given : bool
        Whether the caller said how to turn the picture, which a model's orientation then leaves alone.
    told_size : (int, int) or None
        (height, width) that the file says, whatever the caller said.
    custom_size : bool
        Whether an untold size is the one that files of the format have by custom. Where it is not, it was guessed from
        the events, and pixels are never moved by it.
    slow : bool
        Whether to decode events takes longer than to hold those that were decoded before.
    start_us, end_us : int or None
        Events from the one time up to, but without, the other are read; microseconds, as in the file.
    salvage : bool
        Whether reading ends at what would be refused, in place of refusing it. `open_recording` sets these three.
    waiting : Stopwatch or None
        Of events that come as they happen, and can be read once: the seconds spent waiting for them.

    Raises
    ------
    InputError
        The sensor size is not between 1 and 32767 pixels a side.
    """

    format: ClassVar[str]
    untold: frozenset[str] = frozenset()
    size_given: bool = False
    orientation_given: bool = False
    told_size: SensorSize | None = None
    custom_size: ClassVar[bool] = False
    slow: bool = False
    start_us: int | None = None
    end_us: int | None = None
    salvage: bool = False
    waiting: Stopwatch | None = None

    def __init__(self, path: str, sensor_size: SensorSize, orientation: Orientation = AS_RECORDED) -> None:
        self.path = path
        self._lay_out(sensor_size, orientation)
        self.orientation_given = self._turned

    def _lay_out(self, sensor_size: SensorSize, orientation: Orientation) -> None:
        """Take a size of the sensor, checked, and how to turn the picture."""
        height, width = sensor_size
        if not (1 <= height <= MAX_SENSOR_SIDE and 1 <= width <= MAX_SENSOR_SIDE):
            raise InputError(
                f"{self.path}: sensor_size is (height, width) = ({height}, {width}), expected 1 to {MAX_SENSOR_SIDE} "
                "pixels a side; pass sensor_size=(height, width)"
            )
        self._sensor_height, self._sensor_width = int(height), int(width)
        self._orientation, self._turned = orientation, orientation != AS_RECORDED
        self.height, self.width = self._sensor_height, self._sensor_width
        if orientation.transpose:
            self.height, self.width = self.width, self.height

    def retold(self, *, sensor_size: SensorSize | None = None, orientation: Orientation | None = None) -> Recording:
        """Return the same events with what nobody told when they were opened; this recording stays as it is.

        Parameters
        ----------
        sensor_size : tuple of int, optional
            (height, width) in pixels, before orientation, in the place of a guess or of the format's custom. Reading
            refuses events outside of it.
        orientation : Orientation, optional
            How to turn the picture.

        Returns
        -------
        Recording
            That reads the same source.

        Raises
        ------
        InputError
            The recording was opened with another orientation, or its sensor is known to be of another size.
        """
        size = (self._sensor_height, self._sensor_width)
        if orientation not in (None, self._orientation) and self.orientation_given:
            raise InputError(
                f"{self.path}: {orientation} found; a recording that is open already with {self._orientation} cannot "
                "use that: leave it out, or open the recording without one"
            )
        if sensor_size is not None and tuple(sensor_size) != size and "sensor_size" not in self.untold:
            raise InputError(
                f"{self.path}: sensor_size={tuple(sensor_size)} found; a recording that is open already, of "
                f"{size[1]} x {size[0]} pixels (width x height), cannot use that: leave it out, or open it with that"
            )
        # not copied as copy does, which opens some files again
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        if sensor_size is not None and "sensor_size" in self.untold:
            other.untold, other.size_given = self.untold - {"sensor_size"}, True
            size = sensor_size
        other._lay_out(size, self._orientation if orientation is None else orientation)
        other.orientation_given = self.orientation_given or orientation is not None
        return other

    @property
    def _limits(self) -> tuple[int, int, int]:
        return self._sensor_height, self._sensor_width, TIME_LIMIT_US

    @property
    def size_source(self) -> SizeSource:
        """Who says how large the sensor is: the file, the caller, the format's custom, or nobody, so it was guessed."""
        if "sensor_size" in self.untold:
            return "format" if self.custom_size else "guessed"
        return "given" if self.size_given else "file"

    @property
    def overruled_size(self) -> str | None:
        """What the file says of the sensor's size and the caller does otherwise, in words; None where they agree."""
        size = (self._sensor_height, self._sensor_width)
        if not self.size_given or self.told_size in (None, size):
            return None
        assert self.told_size is not None
        height, width = self.told_size
        return f"sensor_size={size} given, the file says {width} x {height} pixels: taken as given"

    @property
    def flipped(self) -> bool:
        """Whether pixels are mirrored, for which the size of the sensor has to be known."""
        return self._orientation.flip_x or self._orientation.flip_y

    @property
    def transposed(self) -> bool:
        """Whether x and y change places."""
        return self._orientation.transpose

    def refuse_guess(self) -> None:
        """Refuse to move pixels by a size that nobody told: where border pixels stayed silent the guess is too small.

        Raises
        ------
        InputError
            The size of the sensor was guessed.
        """
        if self.size_source == "guessed":
            raise InputError(
                f"{self.path}: the file does not tell the size of the sensor; its events reach {self.width} x "
                f"{self.height} pixels (width x height), which may be too few to fit or mirror pixels by; pass "
                "sensor_size=(height, width)"
            )

    @abstractmethod
    def _decode(self, block_events: int) -> Iterator[Decoded]:
        """Decode from the beginning, at most `block_events` (1 to 16384) events at a time; blocks may be empty."""

    def _stored_events(self) -> int | None:
        """Return how many events there are where that is known without decoding them."""
        return None

    def _stored_end(self) -> int | None:
        """Return the time of the last event where the end of the file tells it, in which this may be wrong."""
        return None

    def chunks(
        self,
        max_events: int = BLOCK_EVENTS,
        *,
        disorder: Disorder = "refuse",
        lag_us: int = DEFAULT_LAG_US,
        defects: Defects | None = None,
    ) -> Iterator[EventArray]:
        """Read the events from the beginning.

        Parameters
        ----------
        max_events : int
            Events per chunk: every chunk holds exactly so many, the last one the rest. No chunk is empty.
        disorder : {"refuse", "keep", "sort", "drop"}
            What to do with events out of order, see `Reading`.
        lag_us : int
            Microseconds within which ``"sort"`` sorts; memory holds the events of one lag.
        defects : Defects, optional
            Takes the counts of this pass.

        Yields
        ------
        ndarray of EVENT_DTYPE, shape (n,)
            Events with 0 <= x < width, 0 <= y < height and, unless `disorder` is ``"keep"``, times that never decrease.

        Raises
        ------
        InputError
            `max_events` is not positive or `disorder` is not known, or pixels are mirrored by a size of the sensor that
            was guessed. Where the recording is not salvaged, also: the file
            is malformed, a pixel lies outside of the sensor, or an event out of order is refused.
        """
        if max_events < 1:
            raise InputError(f"{self.path}: max_events is {max_events}, expected at least 1")
        if self.flipped:
            self.refuse_guess()
        taken = Reading(disorder, lag_us, Defects() if defects is None else defects)
        return self._stream(max_events, taken)

    def blocks(
        self,
        *,
        disorder: Disorder = "refuse",
        lag_us: int = DEFAULT_LAG_US,
        defects: Defects | None = None,
        on_arrival: Callable[[int], None] | None = None,
    ) -> Iterator[EventArray]:
        """Read the events from the beginning as `chunks` does, but in blocks of any length that wait for no others.

        Parameters
        ----------
        disorder, lag_us, defects
            As for `chunks`.
        on_arrival : callable, optional
            Called with the latest time, microseconds, of events that were read, before ``"sort"`` holds any of them.

        Yields
        ------
        ndarray of EVENT_DTYPE, shape (n,)
            At least one event and at most some 16,384; with ``"sort"``, those of a lag more.

        Raises
        ------
        InputError
            As for `chunks`.
        """
        if self.flipped:
            self.refuse_guess()
        taken = Reading(disorder, lag_us, Defects() if defects is None else defects)
        return self._counted(BLOCK_EVENTS, taken, on_arrival)

    def _counted(
        self, block_events: int, taken: Reading, on_arrival: Callable[[int], None] | None = None
    ) -> Iterator[EventArray]:
        assert taken.defects is not None
        for block in self._ordered(block_events, taken, on_arrival):
            taken.defects.events += len(block)
            yield block

    def count(self, disorder: Disorder = "keep", lag_us: int = DEFAULT_LAG_US, defects: Defects | None = None) -> int:
        """Count the events that `chunks` delivers, in one pass where the length of the recording does not tell.

        Parameters
        ----------
        disorder, lag_us, defects
            As for `chunks`; where nothing but the count is asked for, `defects` takes that alone.

        Returns
        -------
        int

        Raises
        ------
        InputError
            The file is malformed. What lies in it is checked only where the count depends on that.
        """
        if self._chooses(disorder):
            taken = Reading(disorder, lag_us, Defects() if defects is None else defects)
            return sum(len(block) for block in self._counted(BLOCK_EVENTS, taken))
        total = self.known_count(disorder)
        if total is None:
            total = sum(len(columns.t) for columns in self._decoded(BLOCK_EVENTS))
        if defects is not None:
            defects.events += total
        return total

    def known_count(self, disorder: Disorder = "keep") -> int | None:
        """Return what `count` does where that takes no reading, else None."""
        untold = self._chooses(disorder) or self.waiting is not None
        return None if untold else self._stored_events()

    def likely_last_us(self, disorder: Disorder = "refuse") -> int | None:
        """Return the time in microseconds that the last event is likely to have; None where only reading tells.

        Reading may find another: times may be out of order, or a counter have been full.
        """
        untold = self._chooses(disorder) or self.waiting is not None
        return None if untold else self._stored_end()

    def _chooses(self, disorder: Disorder) -> bool:
        """Tell whether some events may be left out."""
        return disorder == "drop" or self.salvage or self.start_us is not None or self.end_us is not None

    def _stream(self, max_events: int, taken: Reading) -> Iterator[EventArray]:
        """Cut what is read into chunks of one length."""
        pending: list[EventArray] = []
        pending_events = 0
        for block in self._counted(min(max_events, BLOCK_EVENTS), taken):
            events = block
            while len(events):
                room = max_events - pending_events
                pending.append(events[:room])
                pending_events += len(pending[-1])
                events = events[room:]
                if pending_events == max_events:
                    yield pending[0] if len(pending) == 1 else joined(pending)
                    pending, pending_events = [], 0
        if pending:
            yield joined(pending)

    def _ordered(
        self, block_events: int, taken: Reading, on_arrival: Callable[[int], None] | None
    ) -> Iterator[EventArray]:
        """Check, select, turn and order; a recording that is salvaged ends at what is refused."""
        assert taken.defects is not None and taken.disorder is not None
        defects = taken.defects
        defects.disorder = taken.disorder
        order = Order(self.path, taken.disorder, taken.lag_us, defects, live=self.waiting is not None)
        seen = 0
        try:
            for columns in self._decoded(block_events):
                defects.wraps += columns.wraps
                refusal = None
                events, sound, ordered = self._packed(columns, order.latest)
                if not sound:
                    first, refusal = first_unsound(columns, seen, self.path, *self._limits)
                    events, ordered = events[:first], False
                if len(events):
                    kept = self._selected(events["t"])
                    events = events if kept is None else events[kept]
                    if len(events):
                        if on_arrival is not None:
                            on_arrival(int(events["t"][-1] if ordered else events["t"].max()))
                        yield from order.take(events, _numbers(seen, kept), ordered)
                if refusal is not None:
                    raise refusal
                seen += len(columns.t)
        except InputError as error:
            if not self.salvage:
                raise
            what, _, advice = str(error).rpartition("; ")
            defects.damage = what or advice
        yield from order.rest()

    def _selected(self, t: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_] | None:
        """Tell which times lie between start and end; None for all."""
        if self.start_us is None and self.end_us is None:
            return None
        kept = np.ones(len(t), np.bool_)
        if self.start_us is not None:
            kept &= t >= self.start_us
        if self.end_us is not None:
            kept &= t < self.end_us
        return kept

    def _decoded(self, block_events: int) -> Iterator[Decoded]:
        """Decode; whatever a reader of another package raises becomes one line."""
        package = type(self).__module__
        try:
            for columns in self._decode(block_events):
                found = kinds(columns)
                if any(kind not in "iu" for kind in found[:3]) or found[3] != "b":
                    raise TypeError(f"columns of kinds {[*found]}, expected integers and a boolean polarity")
                yield columns
        except EventsimError:
            raise
        except Exception as error:
            if package.startswith("eventsim."):
                raise
            raise InputError(
                f"{self.path}: {type(self).__name__} of {package} failed ({described(error)}); "
                "the file or it is damaged"
            ) from error

    def _packed(self, columns: Decoded, latest: int) -> tuple[EventArray, bool, bool]:
        """Turn the picture and pack the columns; tell whether all events are sound, and none is before `latest`."""
        turn = self._orientation
        limits = (*self._limits, latest)
        if isinstance(columns, Packed) and not self._turned:
            return columns.events, *check(columns.events, columns.coordinates.kind == "i", *limits)
        events = np.empty(len(columns.t), EVENT_DTYPE)
        # of one type and layout, so that one loop is compiled
        x, y, t = (np.ascontiguousarray(column, np.int64) for column in (columns.x, columns.y, columns.t))
        sound, ordered = pack(
            *(x, y, t, np.ascontiguousarray(columns.p), *limits),
            *(turn.transpose, turn.flip_x, turn.flip_y, turn.flip_polarity),
            events,
        )
        return events, sound, ordered

    def summary(self) -> RecordingSummary:
        """Count and measure the events in one pass.

        Returns
        -------
        RecordingSummary
            Counts, times in microseconds, ranges of the coordinates.

        Raises
        ------
        InputError
            As for `chunks`, but no event out of order is refused.
        """
        defects = Defects()
        return summarised(self.chunks(disorder="keep", defects=defects), self.width, self.height, defects)


def _numbers(seen: int, kept: npt.NDArray[np.bool_] | None) -> Callable[[int], int]:
    """Return which event of the recording the i-th of a block is, of which some were kept."""
    if kept is None:
        return lambda index: seen + index
    return lambda index: seen + int(np.flatnonzero(kept)[index])
