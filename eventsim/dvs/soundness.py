"""Which event of a block is the first that cannot be, and what is said of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eventsim.errors import InputError

if TYPE_CHECKING:  # it needs this file
    from eventsim.dvs.columns import Decoded


def first_unsound(
    columns: Decoded, seen: int, path: str, height: int, width: int, limit: int
) -> tuple[int, InputError | None]:
    """Return the index of the first event that lies outside of the sensor or of all time, and its refusal.

    Parameters
    ----------
    columns : Columns or Packed
        Events in the coordinates of the sensor, one of them not sound at least.
    seen : int
        How many events of the recording are before them.
    path : str
        For the message.
    height, width, limit : int
        As of `eventsim.dvs.packing.pack`.
    """
    first, refusal = len(columns.t), None
    for axis, values, side in (("x", columns.x, width), ("y", columns.y, height)):
        if values.min() < 0 or values.max() >= side:
            at = int(np.argmax((values < 0) | (values >= side)))
            if at < first:
                words = (
                    f"event {seen + at} has {axis} = {int(values[at])}, outside of the sensor (width {width}, height"
                )
                advice = (
                    "pass the camera's sensor_size=(height, width), or the file is corrupt: salvage=True reads up to"
                )
                first, refusal = at, InputError(f"{path}: {words} {height}); {advice} there")
    t = columns.t
    if t.min() < -limit or t.max() >= limit:
        at = int(np.argmax((t < -limit) | (t >= limit)))
        if at < first:
            words = f"event {seen + at} has t = {t[at]} us, expected less than 2^62; the times are corrupt"
            first, refusal = at, InputError(f"{path}: {words}")
    return first, refusal
