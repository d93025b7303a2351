"""What the readers of several formats share: cutting decoded columns into blocks, and guessing a sensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from eventsim.dvs.columns import Columns, Decoded
from eventsim.dvs.recording import BLOCK_EVENTS, MAX_SENSOR_SIDE, SensorSize
from eventsim.errors import InputError

# rows or columns without events that make what lies behind them an outlier, at least
LEAST_GAP = 64


def sliced(columns: Columns, block_events: int) -> Iterator[Columns]:
    """Yield the columns in views of at most `block_events` events."""
    for start in range(0, len(columns.t), block_events):
        part = slice(start, start + block_events)
        wraps = 0 if start else columns.wraps
        yield Columns(columns.x[part], columns.y[part], columns.t[part], columns.p[part], wraps)


def guessed_sensor(path: str, decode: Callable[[int], Iterator[Decoded]], salvage: bool = False) -> SensorSize:
    """Guess the sensor's (height, width) in one pass, as what the events reach.

    Parameters
    ----------
    path : str
        For messages.
    decode : callable
        Of a recording: ``decode(block_events)`` yields its events from the beginning.
    salvage : bool
        Whether reading is to end at damage: what the events before it reach is guessed, and an outlier is damage.

    Raises
    ------
    InputError
        There are no events, or one by which no size can be guessed: far from all others, or beyond any sensor.
    """
    seen = {axis: np.zeros(MAX_SENSOR_SIDE + 2, np.int64) for axis in "yx"}
    try:
        for block in decode(BLOCK_EVENTS):
            for axis, counts in seen.items():
                # 0 to the largest side, and all that is larger; a negative one is reported with its event as it is read
                largest = np.int64(len(counts) - 1)  # beyond what columns of 16 bits hold
                reached = np.bincount(np.clip(getattr(block, axis), np.int64(0), largest).astype(np.int64))
                counts[: len(reached)] += reached
    except InputError:
        # reading will end there again, and say so
        if not salvage or not seen["y"].any():
            raise
    if not seen["y"].any():
        raise InputError(f"{path}: holds no events to guess the sensor from; pass sensor_size=(height, width)")
    return _side(path, "y", seen["y"], decode, salvage), _side(path, "x", seen["x"], decode, salvage)


def _side(
    path: str, axis: str, seen: npt.NDArray[np.int64], decode: Callable[[int], Iterator[Decoded]], salvage: bool
) -> int:
    """Return the largest coordinate plus 1, or refuse an outlier."""
    used, events = np.flatnonzero(seen), int(seen.sum())
    gaps = np.diff(used)
    if len(gaps):
        widest = int(np.argmax(gaps))
        reach, far = int(used[widest]) + 1, int(seen[used[widest] + 1 :].sum())
        # more rows are silent between it and the others than those have, and it is one in a hundred or less
        if gaps[widest] > max(reach, LEAST_GAP) and far * 100 <= events:
            if salvage:
                return reach
            index, value = _first_at_least(axis, reach, decode)
            raise InputError(
                f"{path}: event {index} has {axis} = {value} and the others reach {reach - 1} ({far} of "
                f"{events} events lie beyond), so the sensor cannot be guessed; pass sensor_size=(height, width), "
                "or the file is corrupt: salvage=True reads up to there"
            )
    if used[-1] >= MAX_SENSOR_SIDE and not salvage:
        index, value = _first_at_least(axis, MAX_SENSOR_SIDE, decode)
        raise InputError(
            f"{path}: event {index} has {axis} = {value}, expected less than {MAX_SENSOR_SIDE}; the columns are of "
            "another order, or the file is corrupt: salvage=True reads up to there"
        )
    return min(int(used[-1]) + 1, MAX_SENSOR_SIDE)


def _first_at_least(axis: str, least: int, decode: Callable[[int], Iterator[Decoded]]) -> tuple[int, int]:
    """Return index and value of the first coordinate from `least` on."""
    before = 0
    for block in decode(BLOCK_EVENTS):
        values = getattr(block, axis)
        found = np.flatnonzero(values >= least)
        if len(found):
            return before + int(found[0]), int(values[found[0]])
        before += len(values)
    raise AssertionError(f"no {axis} of at least {least}")
