"""What columns of events are called, and how their values become pixels, microseconds and polarities."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from eventsim.dvs.columns import Integers
from eventsim.dvs.recording import TIME_LIMIT_US
from eventsim.errors import InputError
from eventsim.untrusted import printable

Values = npt.NDArray[Any]

# what Tonic, dv_processing, aedat, faery, Metavision, MATLAB's readers, rpg_e2vid and pandas users write
NAMES = {
    "x": ("x", "xs", "x_position", "col", "column"),
    "y": ("y", "ys", "y_position", "row"),
    "t": ("t", "ts", "time", "timestamp", "timestamps", "time_us", "t_us"),
    "p": ("p", "ps", "pol", "polarity", "polarities", "on"),
}
# how many powers of ten from the unit to a microsecond
TIME_UNITS = {"s": 6, "ms": 3, "us": 0, "ns": -3}


def column_named(name: str) -> str | None:
    """Return which of x, y, t and p a name means, in any case; None when none."""
    plain = name.strip().strip("\"'").lower()
    return next((column for column, names in NAMES.items() if plain in names), None)


def columns_named(path: str, names: Iterable[str]) -> dict[str, str] | None:
    """Find the names of x, y, t and p among others; a letter itself comes before the other names of a column.

    Returns
    -------
    dict of str to str, or None
        The name of each column; None where one of the four has none.

    Raises
    ------
    InputError
        Several names mean one column, and none of them is its letter.
    """
    meant: dict[str, list[str]] = {}
    for name in names:
        column = column_named(name)
        if column is not None:
            meant.setdefault(column, []).append(name)
    if len(meant) < 4:
        return None
    found = {column: [name for name in each if name.lower() == column] or each for column, each in meant.items()}
    for column, each in found.items():
        if len(each) > 1:
            several = " and ".join(printable(name) for name in each)
            raise InputError(f"{path}: holds {several}, expected one name of {column}; leave the other out")
    return {column: each[0] for column, each in found.items()}


def column_order(path: str, columns: str) -> tuple[str | None, ...]:
    """Read an order of columns, such as ``"xytp"``, ``"t x y p"`` or ``"timestamp,x,y,_,polarity"``.

    Returns
    -------
    tuple of str or None
        One of x, y, t, p for each column; None for a column to ignore (``_``).

    Raises
    ------
    InputError
        One of the four is missing or occurs twice, or a name means none of them.
    """
    names = re.split(r"[\s,;]+", columns.strip()) if re.search(r"[\s,;]", columns.strip()) else list(columns.strip())
    order = tuple(column_named(name) for name in names)
    unknown = [name for name, column in zip(names, order, strict=True) if column is None and name != "_"]
    if unknown or sorted(column for column in order if column) != ["p", "t", "x", "y"]:
        raise InputError(
            f"{path}: columns={columns!r} was given, expected x, y, t and p once each, such as 'txyp', and _ for a "
            "column to ignore"
        )
    return order


def time_scale(path: str, unit: str) -> int:
    """Return how many powers of ten lie between a unit of time and a microsecond, or refuse the unit."""
    if unit not in TIME_UNITS:
        raise InputError(f"{path}: time_unit={unit!r} was given, expected one of {', '.join(TIME_UNITS)}")
    return TIME_UNITS[unit]


def pixels(path: str, axis: str, values: Values) -> Integers:
    """Return coordinates as integers; floating-point ones must be whole.

    Raises
    ------
    InputError
        Some are not.
    """
    if values.dtype.kind in "iu":
        return values
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.itemsize < 4:  # of which 2^31 is no number
        values = values.astype(np.float32)
    # also refuses nan; beyond 2^31 lies no sensor, and the cast would be undefined
    whole = (np.abs(values) < 2.0**31) & (np.floor(values) == values)
    if not whole.all():
        raise InputError(
            f"{path}: a coordinate {axis} = {values[np.argmin(whole)]}, expected whole pixels; round the coordinates"
        )
    return values.astype(np.int64)


def microseconds(path: str, values: Values, scale: int | None = None) -> npt.NDArray[np.int64]:
    """Return times as whole microseconds, rounded.

    Parameters
    ----------
    path : str
        For messages.
    values : ndarray, shape (n,)
        Times in a unit of 10^scale microseconds.
    scale : int, optional
        One of `TIME_UNITS`. None: nobody said the unit, so that they are whole microseconds, or refused.

    Raises
    ------
    InputError
        A time is not less than 2^62 microseconds, or not whole while nobody said the unit.
    """
    if scale is None:
        scale = 0
        if values.dtype.kind == "f" and not (whole_times := np.floor(values) == values).all():
            raise InputError(
                f"{path}: a time of {values[np.argmin(whole_times)]}, expected whole microseconds; pass time_unit='s' "
                "or 'us'"
            )
    if values.dtype.kind == "f":
        scaled = np.rint(values.astype(np.float64) * 10.0**scale)
        limit = float(TIME_LIMIT_US)
    else:
        # of the shifted numbers: what is at the limit before the multiplication would overflow in it
        scaled, limit = values, TIME_LIMIT_US // 10 ** max(scale, 0)
    # a pass less where no number of the type reaches the limit
    near = values.dtype.kind not in "iu" or np.iinfo(values.dtype).max >= limit
    if near and (beyond := ~((scaled < limit) & (scaled > -limit))).any():
        raise InputError(
            f"{path}: a time of {values[np.argmax(beyond)]}, expected less than 2^62 microseconds; the times are "
            "corrupt or of another unit"
        )
    whole: npt.NDArray[np.int64] = scaled.astype(np.int64)
    if values.dtype.kind == "f" or scale == 0:
        return whole
    if scale > 0:
        whole *= 10**scale
        return whole
    whole += 10**-scale // 2
    whole //= 10**-scale
    return whole


def polarities(path: str, values: Values) -> npt.NDArray[np.bool_]:
    """Return polarities as booleans: booleans, 0 and 1, or -1 and 1.

    Raises
    ------
    InputError
        There are others.
    """
    if values.dtype.kind == "b":
        return values.astype(np.bool_, copy=False)
    if values.dtype.kind == "u":
        right = values <= 1
    else:
        zero, negative = values == 0, values == -1
        right = zero | negative | (values == 1)
        if negative.any() and zero.any():
            raise InputError(
                f"{path}: polarities of -1 and 0 found, expected booleans, 0 and 1, or -1 and 1; convert them, or "
                "leave out what is no event"
            )
    if not right.all():
        raise InputError(
            f"{path}: a polarity of {values[np.argmin(right)]}, expected booleans, 0 and 1, or -1 and 1; convert them, "
            "or the columns are others"
        )
    return values > 0
