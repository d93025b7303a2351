"""Charge, fire, reset of spiking neurons; emits the spikes as CSR rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from eventsim.kernels.jit import kernel

INTEGRATE, LEAK_MULTIPLY, LEAK_DIVIDE, LEAK_FREE_INPUT = 0, 1, 2, 3


class Dynamics(NamedTuple):
    """How a population charges and resets.

    Attributes
    ----------
    charge : int
        ``INTEGRATE`` v + x; ``LEAK_MULTIPLY`` v + (x - v) * k; ``LEAK_DIVIDE`` v + (x - v) / k; ``LEAK_FREE_INPUT``
        v - v / k + x.
    subtract : bool
        Soft reset (v - threshold) instead of reset to zero.
    strict : bool
        Fire above the threshold instead of at or above it.
    """

    charge: int
    subtract: bool
    strict: bool


@kernel
def fire(
    current: npt.NDArray[np.float32],
    potential: npt.NDArray[np.float32],
    constant: npt.NDArray[np.float32],
    threshold: npt.NDArray[np.float32],
    dynamics: Dynamics,
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int32],
    charged: npt.NDArray[np.float32],
) -> int:
    """Advance every neuron by one time step or several.

    Parameters
    ----------
    current : float32 array (steps * positions, channels)
        Input.
    potential : float32 array (positions, channels)
        Membrane potential; updated in place.
    constant, threshold : float32 arrays (1 or positions, channels)
        The k of `Dynamics`, and the firing threshold.
    dynamics : Dynamics
    indptr : int64 array (steps * positions + 1,)
        Written: ends of the rows; ``indptr[0]`` is given and says where the spikes begin in `indices`.
    indices : int32 array
        Written: channels that fired. Needs room for one whole row more than the spikes.
    charged : float32 array (steps * positions, channels) or (0, channels)
        Written where it has room: the potentials after the charge, before any reset.

    Returns
    -------
    int
        Spikes.
    """
    positions, channels = potential.shape
    constant_rows = constant.shape[0]
    threshold_rows = threshold.shape[0]
    zero = np.float32(0)
    keep = charged.shape[0] != 0
    n = indptr[0]
    for row in range(current.shape[0]):
        p = row % positions
        x = current[row]
        v = potential[p]
        k = constant[p % constant_rows]
        th = threshold[p % threshold_rows]
        if dynamics.charge == 0:
            for c in range(channels):
                v[c] = v[c] + x[c]
        elif dynamics.charge == 1:
            for c in range(channels):
                v[c] = v[c] + (x[c] - v[c]) * k[c]
        elif dynamics.charge == 2:
            for c in range(channels):
                v[c] = v[c] + (x[c] - v[c]) / k[c]
        else:
            for c in range(channels):
                v[c] = v[c] - v[c] / k[c] + x[c]
        if keep:
            for c in range(channels):
                charged[row, c] = v[c]
        for c in range(channels):
            fired = v[c] > th[c] if dynamics.strict else v[c] >= th[c]
            indices[n] = c
            n += fired
            if dynamics.subtract:
                v[c] = v[c] - th[c] if fired else v[c]
            else:
                v[c] = zero if fired else v[c]
        indptr[row + 1] = n
    return int(n - indptr[0])
