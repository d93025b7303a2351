"""What the values of a preparation may be: each on its own, and windows with their bins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np

from eventsim.dvs.fitting import FitMode
from eventsim.dvs.recording import TIME_LIMIT_US
from eventsim.dvs.said_values import orientation_of, refused, sensor_size_of, whole_number, yes_or_no
from eventsim.errors import InputError
from eventsim.preparation_options import BINS, BINS_OF_EVENTS, OVERLAPPING, WindowKind

WHOLE = ("time_steps", "bin_us", "bin_events", "overlap", "start_us", "end_us", "lag_us", "stream", "first_pixel")
YES_OR_NO = ("binary", "salvage")
REAL = ("mean", "std")
TEXT = ("window", "fit", "camera", "disorder", "format", "columns", "time_unit", "group")
CHOICES: dict[str, tuple[Any, ...]] = {
    "window": get_args(WindowKind),
    "fit": get_args(FitMode),
    "camera": ("dvs128", "davis"),
    "time_unit": ("s", "ms", "us", "ns"),
    "first_pixel": (0, 1),
}


def plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values of a preparation as Python's own types; None stays None.

    Parameters
    ----------
    values : mapping
        By the names of its attributes.

    Raises
    ------
    InputError
        Names the attribute, what was found and what was expected.
    """
    return {name: None if value is None else _plain(name, value) for name, value in values.items()}


def _plain(name: str, value: Any) -> Any:
    if name in WHOLE:
        value = whole_number(name, value)
    elif name in YES_OR_NO:
        return yes_or_no(name, value)
    elif name in REAL:
        return _numbers(name, value)
    elif name == "sensor_size":
        return sensor_size_of(value)
    elif name == "orientation":
        return orientation_of(value)
    elif name in TEXT and not isinstance(value, str):
        raise refused(name, value, f"one of {', '.join(CHOICES[name])}" if name in CHOICES else "text")
    if name in CHOICES and value not in CHOICES[name]:
        raise refused(name, value, f"one of {', '.join(map(str, CHOICES[name]))}")
    if name == "time_steps" and value < 1:
        raise refused(name, value, "1 or more")
    return value


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    numbers = tuple(value) if isinstance(value, (tuple, list)) or (isinstance(value, np.ndarray) and value.ndim) else ()
    if not numbers or not all(isinstance(each, (int, float, np.integer, np.floating)) for each in numbers):
        raise refused(name, value, "numbers, one for each channel, such as (0.5, 0.5, 0.5)")
    return tuple(map(float, numbers))


def check_windows(window: str | None, bin_us: int | None, bin_events: int | None, overlap: int | None) -> None:
    """Refuse bins and overlaps that are not of the window.

    Raises
    ------
    InputError
        Names both.
    """
    if bin_us is not None and (window not in BINS or not 1 <= bin_us < TIME_LIMIT_US):
        raise InputError(
            f"window={window!r} with bin_us={bin_us} found; expected bin_us=N with {windows_of(BINS)} alone, "
            "1 microsecond or more, below 2^62"
        )
    if bin_events is not None and (window != BINS_OF_EVENTS or bin_events < 1):
        raise InputError(
            f"window={window!r} with bin_events={bin_events} found; expected bin_events=N with "
            f"{windows_of((BINS_OF_EVENTS,))} alone, 1 or more"
        )
    size = bin_us if window == "tonic-duration" else bin_events
    if overlap is not None and not (
        window in (None, *OVERLAPPING) and overlap >= 0 and (size is None or overlap < size)
    ):
        raise InputError(
            f"window={window!r} with overlap={overlap} found; expected overlap=N with {windows_of(OVERLAPPING)} alone, "
            "less than a bin"
        )


def bin_size(path: str, window: str, option: str, size: int | None, time_steps: int | None) -> int:
    """Return the size of bins, which has to be said, and of which the recording says how many there are.

    Parameters
    ----------
    path, window : str
        For messages.
    option : {"bin_us", "bin_events"}
        What `size` is called.
    size, time_steps : int, optional
        As they were given.

    Raises
    ------
    InputError
        There is no size, or a number of time steps beside it.
    """
    if size is None:
        raise InputError(f"{path}: window={window!r} found; expected {option}=N with it")
    if time_steps is not None:
        raise InputError(
            f"{path}: bins of {size} {option.removeprefix('bin_')} and {time_steps} time steps asked for; expected "
            f"--{option.replace('_', '-')} alone ({option}), the recording's length says how many bins there are"
        )
    return size


def windows_of(kinds: Sequence[str]) -> str:
    """Name windows to choose from, as an option."""
    *others, last = map(repr, kinds)
    return f"window={', '.join(others)} or {last}" if others else f"window={last}"
