"""Values that callers give by name: numbers, sizes and turns of the right type, or one line that says what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np

from eventsim.dvs.recording import MAX_SENSOR_SIDE, Orientation, SensorSize
from eventsim.errors import InputError

LONGEST = 60
"""Characters of a value in a message."""
TURNS = ("transpose", "flip_x", "flip_y", "flip_polarity")


def refused(name: str, value: object, expected: str) -> InputError:
    """Return the error of a value: one line that names it, what was found and what was expected."""
    text = " ".join(repr(value).split())
    return InputError(f"{name}={text if len(text) <= LONGEST else f'{text[:LONGEST]}...'} found; expected {expected}")


def whole_number(name: str, value: Any) -> int:
    """Return a whole number; booleans and floats are none.

    Raises
    ------
    InputError
    """
    if not _is_whole(value):
        raise refused(name, value, "a whole number")
    return int(value)


def yes_or_no(name: str, value: Any) -> bool:
    """Return a boolean.

    Raises
    ------
    InputError
    """
    if not isinstance(value, (bool, np.bool_)):
        raise refused(name, value, "True or False")
    return bool(value)


def sensor_size_of(value: Any) -> SensorSize:
    """Return (height, width) of a sensor in pixels.

    Raises
    ------
    InputError
    """
    sides = tuple(value) if isinstance(value, (tuple, list)) or (isinstance(value, np.ndarray) and value.ndim) else ()
    if len(sides) != 2 or not all(_is_whole(side) and 1 <= side <= MAX_SENSOR_SIDE for side in sides):
        raise refused("sensor_size", value, f"(height, width) in whole pixels, 1 to {MAX_SENSOR_SIDE} a side")
    return int(sides[0]), int(sides[1])


def orientation_of(value: Any) -> Orientation:
    """Return an orientation.

    Raises
    ------
    InputError
    """
    if not isinstance(value, Orientation):
        raise refused("orientation", value, "an eventsim.dvs.Orientation, such as Orientation(flip_x=True)")
    return Orientation(*(yes_or_no(name, getattr(value, name)) for name in TURNS))


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
