"""Frames as they enter a network: whether they hold what it takes, and where a map's channels come last."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from eventsim.kernels.jit import kernel


@kernel
def are_finite(frames: npt.NDArray[Any]) -> bool:
    """Say whether every value of a contiguous array, of any number type, is a finite number in float32."""
    values = frames.reshape(-1)
    fine = True
    for index in range(len(values)):
        value = np.float32(values[index])
        fine &= value - value == 0
    return fine


@kernel
def are_counts(frames: npt.NDArray[Any], most: np.float32) -> bool:
    """Say whether every value of a contiguous array, of any number type, is a whole number from 0 to `most`."""
    values = frames.reshape(-1)
    fine = True
    for index in range(len(values)):
        value = np.float32(values[index])
        fine &= (value >= 0) & (value <= most) & (value == np.floor(value))
    return fine


@kernel
def put_channels_last(frames: npt.NDArray[Any], out: npt.NDArray[np.float32]) -> None:
    """Copy `frames` (steps, channels, positions) to `out` (steps * positions, channels)."""
    steps, channels, positions = frames.shape
    for step in range(steps):
        for c in range(channels):
            line = frames[step, c]
            for p in range(positions):
                out[step * positions + p, c] = line[p]
