"""Arrays of events that are not Tonic's: other names of fields, times in seconds, and plain lists of shape (N, 4)."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from eventsim.dvs.event_values import column_order, columns_named, time_scale
from eventsim.errors import InputError
from eventsim.masked import refuse_masked
from eventsim.untrusted import printable

NUMBERS = "iuf"


def as_columns(
    events: npt.NDArray[Any], path: str, columns: str | None = None, time_unit: str | None = None
) -> tuple[dict[str, npt.NDArray[Any]], int]:
    """Return views of the four columns of an array, and the power of ten from its unit of time to microseconds.

    Parameters
    ----------
    events : ndarray
        Structured and of shape (n,), with fields named as `eventsim.dvs.event_values.NAMES` says (Tonic, dv_processing,
        aedat, faery, Metavision), or of shape (n, k) with `columns`. Further fields are ignored.
    path : str
        For messages.
    columns : str, optional
        Order of the columns of a plain list, such as ``"xytp"``.
    time_unit : {"s", "ms", "us", "ns"}, optional
        Unit of the times; needed where they are no integers.

    Raises
    ------
    InputError
        It is no such array, or an option is wrong or missing.
    """
    refuse_masked(events, path)
    # a plain view: slices of a memory map are slow to make
    plain = events.view(np.ndarray)
    views = _of_list(plain, path, columns) if plain.dtype.names is None else _of_fields(plain, path, columns)
    t, p = views["t"], views["p"]
    for name, values in views.items():
        if values.ndim != 1:
            raise InputError(
                f"{path}: {name} is an array of shape {values.shape[1:]} in each event, expected one number; convert it"
            )
        allowed = NUMBERS + "b" * (name == "p")
        if values.dtype.kind not in allowed or values.dtype.itemsize > 8:
            raise InputError(f"{path}: {name} is of type {values.dtype}, expected integers; convert the array")
    if t.dtype.kind == "f" and time_unit is None:
        raise InputError(
            f"{path}: an event list with times of type {t.dtype}, which may be seconds or microseconds; pass "
            "time_unit='s' or 'us', or convert them to whole microseconds"
        )
    if p.dtype.kind == "f" and events.dtype.names is not None:
        raise InputError(f"{path}: polarities of type {p.dtype}, expected booleans or integers; convert them")
    return views, 0 if time_unit is None else time_scale(path, time_unit)


def _of_fields(events: npt.NDArray[Any], path: str, columns: str | None) -> dict[str, npt.NDArray[Any]]:
    """Find the fields of a structured array by their names and titles."""
    if columns is not None:
        raise InputError(f"{path}: columns={columns!r} was given, expected none for named fields; leave it out")
    # a title, as aedat's p of the field "on", is a second name of a field and stands in `fields` too
    found = columns_named(path, events.dtype.names or ()) or columns_named(path, events.dtype.fields or ())
    if found is None:
        raise InputError(
            f"{path}: holds an array of the fields {', '.join(map(printable, events.dtype.names or ()))}, expected "
            "x, y, t and p; rename them"
        )
    if events.ndim != 1:
        raise InputError(
            f"{path}: holds an array of events of shape {events.shape}, expected one dimension; save its ravel()"
        )
    return {column: events[found[column]] for column in "xytp"}


def refuse_nameless(events: npt.NDArray[Any], path: str) -> NoReturn:
    """Refuse a list of events, one a row, that does not say which column is which."""
    # both at once: times that are floating-point numbers are refused next
    unit = ", and time_unit='s' or 'us'" if events.dtype.kind == "f" else ""
    raise InputError(
        f"{path}: holds an event list of shape {events.shape}, whose columns have no names; pass columns='xytp' or "
        f"another order{unit}"
    )


def _of_list(events: npt.NDArray[Any], path: str, columns: str | None) -> dict[str, npt.NDArray[Any]]:
    """Take the columns of a plain list, where their order was given."""
    if columns is not None and events.ndim != 2:
        raise InputError(
            f"{path}: columns={columns!r} was given for an array of shape {events.shape}, expected a list of events "
            "of shape (N, 4); leave it out for frames"
        )
    if events.dtype.kind not in NUMBERS or events.ndim != 2 or (columns is None and events.shape[1] != 4):
        raise InputError(
            f"{path}: holds an array of shape {events.shape} and type {events.dtype}, expected a one-dimensional "
            "structured array with integer fields x, y, t and p; frames are no recording, give them to the run command"
        )
    if columns is None:
        refuse_nameless(events, path)
    order = column_order(path, columns)
    if len(order) != events.shape[1]:
        turned = "; transpose the array" if len(order) == events.shape[0] else "; use _ for those to ignore"
        raise InputError(
            f"{path}: columns={columns!r} was given for {events.shape[1]} columns, expected a name for each{turned}"
        )
    return {column: events[:, order.index(column)] for column in "xytp"}
