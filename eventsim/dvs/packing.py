"""The compiled loops between a reader and the frames: check and pack events, and count them by pixel.

Packed events are handed over as one array: NumPy calls the field of a single event contiguous, for which another loop
would be compiled, in the middle of a recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from eventsim.dvs.compiled import compiled


@compiled
def _off(column: Any, row: Any, now: Any, height: int, width: int, limit: int) -> Any:
    """Return a negative number for an event that is not sound, so that the sign of many, combined, tells of all."""
    return column | (width - 1 - column) | row | (height - 1 - row) | (now + limit) | (limit - 1 - now)


@compiled
def pack(  # noqa: PLR0913, PLR0917 - columns, limits and turns, one by one for the compiler
    x: npt.NDArray[np.int64],
    y: npt.NDArray[np.int64],
    t: npt.NDArray[np.int64],
    p: npt.NDArray[np.bool_],
    height: int,
    width: int,
    limit: int,
    latest: int,
    transpose: bool,
    flip_x: bool,
    flip_y: bool,
    flip_polarity: bool,
    out: npt.NDArray[np.void],
) -> tuple[bool, bool]:
    """Turn events and write them, and check them.

    Parameters
    ----------
    x, y, t, p : ndarray, shape (n,)
        Events in the coordinates of the sensor.
    height, width, limit : int
        They are sound where 0 <= x < width, 0 <= y < height and -limit <= t < limit.
    latest : int
        Time before the first of them.
    transpose, flip_x, flip_y, flip_polarity : bool
        As `Orientation` has them.
    out : ndarray of EVENT_DTYPE, shape (n,), written
        Packed events. What is written of those that are not sound means nothing.

    Returns
    -------
    tuple of bool
        Whether all are sound; and whether their times never decrease, the first one not below `latest` either, which
        means nothing unless all are sound.
    """
    # a turned coordinate is begin + step * coordinate, and written where the other one would be if transposed
    x_begin, x_step = (width - 1, -1) if (flip_y if transpose else flip_x) else (0, 1)
    y_begin, y_step = (height - 1, -1) if (flip_x if transpose else flip_y) else (0, 1)
    out_t, out_p = out["t"], out["p"]
    for_x, for_y = (out["y"], out["x"]) if transpose else (out["x"], out["y"])
    wrong = back = np.int64(0)
    for index in range(len(t)):
        column, row, now = x[index], y[index], t[index]
        wrong |= _off(column, row, now, height, width, limit)
        back |= now - latest
        latest = now
        for_x[index] = x_begin + x_step * column
        for_y[index] = y_begin + y_step * row
        out_t[index] = now
        out_p[index] = p[index] != flip_polarity
    return bool(wrong >= 0), bool(back >= 0)


@compiled
def check(
    events: npt.NDArray[np.void], signed: bool, height: int, width: int, limit: int, latest: int
) -> tuple[bool, bool]:
    """Check packed events as `pack` does, which see for parameters and results; x and y may be meant as unsigned."""
    x, y, t = events["x"], events["y"], events["t"]
    before = latest
    for index in range(len(t)):
        # without their signs, so that one comparison finds the negative ones, too
        if t[index] < before or np.uint16(x[index]) >= width or np.uint16(y[index]) >= height:
            return _look(events, signed, height, width, limit, latest)
        before = t[index]
    # of times in order, the ends tell of all
    return bool(len(t) == 0 or (t[0] >= -limit and before < limit)), True


@compiled
def _look(
    events: npt.NDArray[np.void], signed: bool, height: int, width: int, limit: int, latest: int
) -> tuple[bool, bool]:
    """Check events of which something is known to be not sound or not in order, as `pack` does."""
    x, y, t = events["x"], events["y"], events["t"]
    bits = -1 if signed else 0xFFFF
    wrong = back = np.int64(0)
    for index in range(len(t)):
        column, row, now = np.int64(x[index]) & bits, np.int64(y[index]) & bits, t[index]
        wrong |= _off(column, row, now, height, width, limit)
        back |= now - latest
        latest = now
    return bool(wrong >= 0), bool(back >= 0)


def joined(parts: Sequence[npt.NDArray[np.void]]) -> npt.NDArray[np.void]:
    """Put packed events together, several times faster than `numpy.concatenate` copies fields."""
    dtype = parts[0].dtype
    whole: npt.NDArray[np.void] = np.concatenate([part.view(f"V{dtype.itemsize}") for part in parts]).view(dtype)
    return whole


@compiled
def in_order(events: npt.NDArray[np.void], latest: int) -> bool:
    """Tell whether times never decrease, the first one not below `latest` either."""
    t = events["t"]
    for index in range(len(t)):
        if t[index] < latest:
            return False
        latest = t[index]
    return True


@compiled
def count_pixels(
    events: npt.NDArray[np.void],
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    counts: npt.NDArray[Any],
) -> None:
    """Add one to a frame for each event whose row and column have a place in it.

    Parameters
    ----------
    events : ndarray of EVENT_DTYPE, shape (n,)
    rows, columns : ndarray of int64
        Where each row and column of the sensor goes; -1 for nowhere.
    counts : ndarray of int32, shape (2, H, W), changed
    """
    x, y, p = events["x"], events["y"], events["p"]
    for index in range(len(x)):
        row, column = rows[y[index]], columns[x[index]]
        if row >= 0 and column >= 0:
            counts[1 if p[index] else 0, row, column] += 1
