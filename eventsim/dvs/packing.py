"""The compiled loops between a reader and the frames: check and pack events, and count them by pixel."""

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
    out_x: npt.NDArray[np.int16],
    out_y: npt.NDArray[np.int16],
    out_t: npt.NDArray[np.int64],
    out_p: npt.NDArray[np.bool_],
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
    out_x, out_y, out_t, out_p : ndarray, shape (n,), written
        Fields of the packed events. What is written of events that are not sound means nothing.

    Returns
    -------
    tuple of bool
        Whether all are sound; and whether their times never decrease, the first one not below `latest` either, which
        means nothing unless all are sound.
    """
    # a turned coordinate is begin + step * coordinate, and written where the other one would be if transposed
    x_begin, x_step = (width - 1, -1) if (flip_y if transpose else flip_x) else (0, 1)
    y_begin, y_step = (height - 1, -1) if (flip_x if transpose else flip_y) else (0, 1)
    for_x, for_y = (out_y, out_x) if transpose else (out_x, out_y)
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
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    t: npt.NDArray[np.int64],
    height: int,
    width: int,
    limit: int,
    latest: int,
) -> tuple[bool, bool]:
    """Check packed events as `pack` does, which see for parameters and results; x and y are of 16 bits."""
    before = latest
    for index in range(len(t)):
        # without their signs, so that one comparison finds the negative ones, too
        if t[index] < before or np.uint16(x[index]) >= width or np.uint16(y[index]) >= height:
            return _look(x, y, t, height, width, limit, latest)
        before = t[index]
    # of times in order, the ends tell of all
    return bool(len(t) == 0 or (t[0] >= -limit and before < limit)), True


@compiled
def _look(
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    t: npt.NDArray[np.int64],
    height: int,
    width: int,
    limit: int,
    latest: int,
) -> tuple[bool, bool]:
    """Check events of which something is known to be not sound or not in order, as `pack` does."""
    wrong = back = np.int64(0)
    for index in range(len(t)):
        column, row, now = np.int64(x[index]), np.int64(y[index]), t[index]
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
def in_order(t: npt.NDArray[np.int64], latest: int) -> bool:
    """Tell whether times never decrease, the first one not below `latest` either."""
    for index in range(len(t)):
        if t[index] < latest:
            return False
        latest = t[index]
    return True


@compiled
def count_pixels(
    x: npt.NDArray[np.int16],
    y: npt.NDArray[np.int16],
    p: npt.NDArray[np.bool_],
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    counts: npt.NDArray[Any],
) -> None:
    """Add one to a frame for each event whose row and column have a place in it.

    Parameters
    ----------
    x, y, p : ndarray, shape (n,)
        Fields of packed events.
    rows, columns : ndarray of int64
        Where each row and column of the sensor goes; -1 for nowhere.
    counts : ndarray of int32, shape (2, H, W), changed
    """
    for index in range(len(x)):
        row, column = rows[y[index]], columns[x[index]]
        if row >= 0 and column >= 0:
            counts[1 if p[index] else 0, row, column] += 1
