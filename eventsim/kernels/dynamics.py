"""What a population of spiking neurons does in one time step, in the numbers and arrays that its kernel knows."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

INTEGRATE, LEAK_MULTIPLY, LEAK_DIVIDE, LEAK_FREE_INPUT, DECAY, LEAK_FREE_MULTIPLY = 0, 1, 2, 3, 4, 5
ZERO, SUBTRACT, SUBTRACT_LATE, SUBTRACT_ONCE, ZERO_LATE = 0, 1, 2, 3, 4


LANES = 32
"""Neurons of one vector, so that a word of 32 bits tells which of them fired."""

STRETCH = 2048
"""Neurons, at least, for which constants are repeated; their potentials take 8 KiB."""


class Dynamics(NamedTuple):
    """How a population charges, fires and resets.

    Attributes
    ----------
    charge : int
        ``INTEGRATE`` v + x; ``LEAK_MULTIPLY`` v + (x - v) * k; ``LEAK_DIVIDE`` v + (x - v) / k; ``LEAK_FREE_INPUT``
        v - v / k + x; ``LEAK_FREE_MULTIPLY`` v - v * k + x; ``DECAY`` v * k + x.
    reset : int
        Where a neuron fired: ``ZERO`` v = 0; ``SUBTRACT`` v = h - threshold. With the others, v is left as it is, and
        the next step begins where v is still above the threshold: ``SUBTRACT_LATE`` takes the threshold off after the
        charge; ``SUBTRACT_ONCE`` does that too, and settles the difference at once, h - (fired - late) threshold;
        ``ZERO_LATE`` leaves 0 after the charge.
    strict : bool
        Fire above the threshold instead of at or above it.
    multiple : bool
        As many spikes in one step as the threshold, which is above 0, goes into the potential.
    """

    charge: int
    reset: int
    strict: bool
    multiple: bool = False


def faster(charge: int, constant: npt.NDArray[np.float32]) -> tuple[int, npt.NDArray[np.float32]]:
    """Return a charge and constant that multiply instead of dividing, where this gives the same bits.

    It does where every constant is a power of two whose reciprocal is a normal number: both are then exact before they
    are rounded, once, to the same float32.
    """
    if charge not in (LEAK_DIVIDE, LEAK_FREE_INPUT):
        return charge, constant
    mantissa, exponent = np.frexp(constant)
    if not ((np.abs(mantissa) == 0.5) & (np.abs(exponent) <= 120)).all():
        return charge, constant
    return LEAK_MULTIPLY if charge == LEAK_DIVIDE else LEAK_FREE_MULTIPLY, np.float32(1) / constant


def aligned(size: int) -> npt.NDArray[np.float32]:
    """Return zeros that begin on a cache line, so that no vector of them lies on two: float32 array (size,)."""
    room = np.zeros(size + 16, np.float32)
    start = -(room.ctypes.data // 4) % 16
    return room[start : start + size]


def repeated(constant: npt.NDArray[np.float32], positions: int) -> npt.NDArray[np.float32]:
    """Return a constant as `fire` reads it: of every neuron, or of a stretch after which it begins again.

    Parameters
    ----------
    constant : float32 array (1 or positions, channels), or (0, channels) for none
    positions : int

    Returns
    -------
    float32 array (neurons of a stretch,), (positions * channels,) or (0,)
    """
    rows, channels = constant.shape
    neurons = positions * channels
    period = math.lcm(channels, LANES)
    length = -(-STRETCH // period) * period
    out = aligned(0 if rows == 0 else neurons if rows == positions else min(length, neurons))
    out[:] = np.resize(constant, len(out))
    return out
