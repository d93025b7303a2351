"""Random signals without hypothesis, for checks that draw from a seed."""

from __future__ import annotations

import numpy as np

from eventsim.layers.listing import rows_from_dense
from eventsim.signals import Dense, FloatArray, Signal, SignalType

DENSITY = 0.4


def random_signal(kind: SignalType, steps: int, rng: np.random.Generator, density: float = DENSITY) -> Signal:
    """Return spikes, small integers or multiples of 1/8, so many of them not zero; real ones of both signs."""
    rows = random_rows(kind, steps * kind.positions, rng, density)
    return Dense(kind, steps, rows) if kind.dense else rows_from_dense(kind, steps, rows)


def random_rows(kind: SignalType, rows: int, rng: np.random.Generator, density: float = DENSITY) -> FloatArray:
    """Return the values ``(rows, channels)`` of a random signal."""
    shape = (rows, kind.channels)
    if kind.kind == "binary":
        values = np.ones(shape)
    elif kind.kind == "graded":
        values = rng.choice([1, 1, 2, 3, 17], shape)
    else:
        values = rng.integers(1, 17, shape) * rng.choice([-1, 1, 1], shape) / 8
    return np.where(rng.random(shape) < density, values, 0).astype(np.float32)
