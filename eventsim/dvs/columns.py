"""Events between a reader and a recording: columns as they are decoded, and packed events."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

EVENT_DTYPE = np.dtype([("x", "<i2"), ("y", "<i2"), ("t", "<i8"), ("p", "?")])
"""One event: column x, row y, time t in microseconds, polarity p (True = ON, brighter). Tonic's names and types."""

EventArray: TypeAlias = npt.NDArray[np.void]
Integers: TypeAlias = npt.NDArray[np.integer[Any]]


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
    wraps : int
        How often the counter of the time was full within these, and the reader went on behind it.
    """

    x: Integers
    y: Integers
    t: npt.NDArray[np.int64]
    p: npt.NDArray[np.bool_]
    wraps: int = 0


class Packed(NamedTuple):
    """The same of a reader that decodes into packed events, which need not be copied then.

    Attributes
    ----------
    events : ndarray of EVENT_DTYPE
        In the coordinates of the sensor; nobody else holds or changes them.
    coordinates : dtype
        Of 16 bits: how x and y are stored, signed or not.
    wraps : int
        As for `Columns`.
    """

    events: EventArray
    coordinates: np.dtype[np.int16] | np.dtype[np.uint16]
    wraps: int = 0

    @property
    def x(self) -> Integers:
        """Columns of the sensor, a view."""
        return self.events["x"].view(self.coordinates)

    @property
    def y(self) -> Integers:
        """Rows of the sensor, a view."""
        return self.events["y"].view(self.coordinates)

    @property
    def t(self) -> npt.NDArray[np.int64]:
        """Microseconds, a view."""
        return self.events["t"]

    @property
    def p(self) -> npt.NDArray[np.bool_]:
        """Polarities, a view."""
        return self.events["p"]


Decoded: TypeAlias = Columns | Packed


def kinds(columns: Decoded) -> str:
    """Return the kinds of the types of x, y, t and p."""
    if isinstance(columns, Packed) and columns.events.dtype == EVENT_DTYPE:
        return 2 * columns.coordinates.kind + "ib"
    return "".join(np.asarray(getattr(columns, name)).dtype.kind for name in "xytp")
