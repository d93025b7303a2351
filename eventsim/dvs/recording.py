"""A recording of a dynamic vision sensor (DVS): a stream of events (x, y, t, p), read in pieces of bounded size.

Every reader turns its own bytes into `Columns`; this file checks them, orients them and cuts them into chunks, so that
what is refused is the same for every format.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from eventsim.errors import EventsimError, InputError
from eventsim.untrusted import described

EVENT_DTYPE = np.dtype([("x", "<i2"), ("y", "<i2"), ("t", "<i8"), ("p", "?")])
"""One event: column x, row y, time t in microseconds, polarity p (True = ON, brighter). Tonic's names and types."""

EventArray: TypeAlias = npt.NDArray[np.void]
Integers: TypeAlias = npt.NDArray[np.integer[Any]]
SensorSize: TypeAlias = tuple[int, int]

BLOCK_EVENTS = 65536
# int16 holds the coordinates; differences of two times within this limit cannot overflow int64
MAX_SENSOR_SIDE = 32767
TIME_LIMIT_US = 2**62


class Columns(NamedTuple):
    """Events as a reader decodes them, before they are checked: four arrays of one length.

    Attributes
    ----------
    x, y : ndarray of any integer type
        Pixel, in the coordinates of the sensor (before `Orientation`).
    t : ndarray of int64
        Microseconds, already unwrapped.
    p : ndarray of bool
        True = ON.
    """

    x: Integers
    y: Integers
    t: npt.NDArray[np.int64]
    p: npt.NDArray[np.bool_]


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


@dataclass(frozen=True)
class RecordingSummary:
    """What a recording holds, from one pass over it.

    Attributes
    ----------
    events, on_events, off_events : int
        Number of events; events = on_events + off_events.
    first_us, last_us : int or None
        Time of the first and of the last event, microseconds; None when there are no events.
    duration_us : int
        last_us - first_us; 0 when there are no events.
    width, height : int
        Sensor size in pixels, after orientation.
    x_range, y_range : tuple of int or None
        Smallest and largest coordinate that occurs; None when there are no events.
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


class Recording(ABC):
    """A stream of DVS events that can be read again and again, never held in memory as a whole.

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
        Which of sensor_size and camera the file does not tell, so that the format's custom was taken.

    Raises
    ------
    InputError
        The sensor size is not between 1 and 32767 pixels a side.
    """

    format: ClassVar[str]
    untold: frozenset[str] = frozenset()

    def __init__(self, path: str, sensor_size: SensorSize, orientation: Orientation = AS_RECORDED) -> None:
        height, width = sensor_size
        if not (1 <= height <= MAX_SENSOR_SIDE and 1 <= width <= MAX_SENSOR_SIDE):
            raise InputError(
                f"{path}: sensor_size is (height, width) = ({height}, {width}), expected 1 to {MAX_SENSOR_SIDE} "
                "pixels a side; pass sensor_size=(height, width)"
            )
        self.path = path
        self._sensor_height, self._sensor_width = int(height), int(width)
        self._orientation = orientation
        self.height, self.width = self._sensor_height, self._sensor_width
        if orientation.transpose:
            self.height, self.width = self.width, self.height

    @abstractmethod
    def _decode(self, block_events: int) -> Iterator[Columns]:
        """Decode from the beginning, at most `block_events` (1 to 65536) events at a time; blocks may be empty."""

    def chunks(self, max_events: int = BLOCK_EVENTS) -> Iterator[EventArray]:
        """Read the events from the beginning, in order.

        Parameters
        ----------
        max_events : int
            Events per chunk: every chunk holds exactly so many, the last one the rest. No chunk is empty.

        Yields
        ------
        ndarray of EVENT_DTYPE, shape (n,)
            Events with 0 <= x < width, 0 <= y < height and times that never decrease.

        Raises
        ------
        InputError
            `max_events` is not positive, the file is malformed, a pixel lies outside of the sensor, or time runs
            backwards. None of the recordings this was checked on needs tolerance for disorder, so there is none.
        """
        if max_events < 1:
            raise InputError(f"{self.path}: max_events is {max_events}, expected at least 1")
        return self._stream(max_events)

    def _stream(self, max_events: int) -> Iterator[EventArray]:
        pending: list[EventArray] = []
        pending_events = 0
        seen = 0
        previous_us = -TIME_LIMIT_US
        for columns in self._decoded(min(max_events, BLOCK_EVENTS)):
            if len(columns.t) == 0:
                continue
            self._check(columns, seen, previous_us)
            seen += len(columns.t)
            previous_us = int(columns.t[-1])
            events = self._oriented(columns)
            while len(events):
                room = max_events - pending_events
                pending.append(events[:room])
                pending_events += len(pending[-1])
                events = events[room:]
                if pending_events == max_events:
                    yield np.concatenate(pending)
                    pending, pending_events = [], 0
        if pending:
            yield np.concatenate(pending)

    def _decoded(self, block_events: int) -> Iterator[Columns]:
        """Decode; whatever a reader of another package raises becomes one line."""
        package = type(self).__module__
        try:
            for columns in self._decode(block_events):
                kinds = [np.asarray(column).dtype.kind for column in columns]
                if any(kind not in "iu" for kind in kinds[:3]) or kinds[3] != "b":
                    raise TypeError(f"columns of kinds {kinds}, expected integers and a boolean polarity")
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

    def _check(self, columns: Columns, seen: int, previous_us: int) -> None:
        """Refuse pixels outside of the sensor and times that are too large or run backwards."""
        for axis, values, side in (("x", columns.x, self._sensor_width), ("y", columns.y, self._sensor_height)):
            if values.min() < 0 or values.max() >= side:
                at = int(np.argmax((values < 0) | (values >= side)))
                raise InputError(
                    f"{self.path}: event {seen + at} has {axis} = {values[at]}, outside of the sensor "
                    f"(height {self._sensor_height}, width {self._sensor_width}); pass the camera's "
                    "sensor_size=(height, width), or the file is corrupt"
                )
        t = columns.t
        if t.min() < -TIME_LIMIT_US or t.max() >= TIME_LIMIT_US:
            at = int(np.argmax((t < -TIME_LIMIT_US) | (t >= TIME_LIMIT_US)))
            raise InputError(
                f"{self.path}: event {seen + at} has t = {t[at]} us, expected less than 2^62; the times are corrupt"
            )
        backwards = t < np.concatenate(([previous_us], t[:-1]))
        if backwards.any():
            at = int(np.argmax(backwards))
            before = int(t[at - 1]) if at else previous_us
            raise InputError(
                f"{self.path}: event {seen + at} has t = {t[at]} us after {before} us, expected times that never "
                "decrease; sort or repair the recording"
            )

    def _oriented(self, columns: Columns) -> EventArray:
        """Turn the picture and pack the columns as EVENT_DTYPE."""
        turn = self._orientation
        x, y = (columns.y, columns.x) if turn.transpose else (columns.x, columns.y)
        events = np.empty(len(columns.t), EVENT_DTYPE)
        # widened before subtracting: readers may deliver unsigned bytes
        events["x"] = self.width - 1 - x.astype(np.int64) if turn.flip_x else x
        events["y"] = self.height - 1 - y.astype(np.int64) if turn.flip_y else y
        events["t"] = columns.t
        events["p"] = ~columns.p if turn.flip_polarity else columns.p
        return events

    def summary(self) -> RecordingSummary:
        """Count and measure the events in one pass.

        Returns
        -------
        RecordingSummary
            Counts, times in microseconds, ranges of the coordinates.

        Raises
        ------
        InputError
            As for `chunks`.
        """
        events = on_events = 0
        first_us: int | None = None
        last_us: int | None = None
        low = [MAX_SENSOR_SIDE, MAX_SENSOR_SIDE]
        high = [0, 0]
        for chunk in self.chunks():
            events += len(chunk)
            on_events += int(np.count_nonzero(chunk["p"]))
            first_us = int(chunk["t"][0]) if first_us is None else first_us
            last_us = int(chunk["t"][-1])
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
            width=self.width,
            height=self.height,
            x_range=(low[0], high[0]) if events else None,
            y_range=(low[1], high[1]) if events else None,
        )
