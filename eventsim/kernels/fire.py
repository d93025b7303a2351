"""Charge, fire, reset of spiking neurons; emits the spikes as CSR rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from eventsim.kernels.jit import kernel

INTEGRATE, LEAK_MULTIPLY, LEAK_DIVIDE, LEAK_FREE_INPUT, DECAY = 0, 1, 2, 3, 4
ZERO, SUBTRACT, SUBTRACT_LATE, SUBTRACT_ONCE, ZERO_LATE = 0, 1, 2, 3, 4


class Dynamics(NamedTuple):
    """How a population charges, fires and resets.

    Attributes
    ----------
    charge : int
        ``INTEGRATE`` v + x; ``LEAK_MULTIPLY`` v + (x - v) * k; ``LEAK_DIVIDE`` v + (x - v) / k; ``LEAK_FREE_INPUT``
        v - v / k + x; ``DECAY`` v * k + x.
    reset : int
        Where a neuron fired: ``ZERO`` v = 0; ``SUBTRACT`` v = h - threshold. With the others, v is left as it is, and
        the next step begins where v is still above the threshold: ``SUBTRACT_LATE`` takes the threshold off after the
        charge; ``SUBTRACT_ONCE`` does that too, and settles the difference at once, h - (fired - late) threshold;
        ``ZERO_LATE`` leaves 0 after the charge.
    strict : bool
        Fire above the threshold instead of at or above it.
    multiple : bool
        As many spikes in one step as the threshold goes into the potential.
    """

    charge: int
    reset: int
    strict: bool
    multiple: bool = False


@kernel
def _charge(v: npt.NDArray[np.float32], x: npt.NDArray[np.float32], k: npt.NDArray[np.float32], charge: int) -> None:
    """Charge one row, as `fire` does; there it is written out, since the call takes 15 % of its time."""
    if charge == INTEGRATE:
        for c in range(len(v)):
            v[c] = v[c] + x[c]
    elif charge == LEAK_MULTIPLY:
        for c in range(len(v)):
            v[c] = v[c] + (x[c] - v[c]) * k[c]
    elif charge == LEAK_DIVIDE:
        for c in range(len(v)):
            v[c] = v[c] + (x[c] - v[c]) / k[c]
    elif charge == LEAK_FREE_INPUT:
        for c in range(len(v)):
            v[c] = v[c] - v[c] / k[c] + x[c]
    else:
        for c in range(len(v)):
            v[c] = v[c] * k[c] + x[c]


@kernel
def _nonzeros(x: npt.NDArray[np.float32]) -> int:
    """Return how many values are not zero."""
    n = np.int32(0)  # 32 bits, as a wider sum is not added up side by side
    for c in range(len(x)):
        n = np.int32(n + np.int32(x[c] != np.float32(0)))
    return int(n)


@kernel
def fire(
    current: npt.NDArray[np.float32],
    potential: npt.NDArray[np.float32],
    constant: npt.NDArray[np.float32],
    threshold: npt.NDArray[np.float32],
    dynamics: Dynamics,
    listed: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]],
    charged: npt.NDArray[np.float32],
    active: npt.NDArray[np.int64],
) -> int:
    """Advance every neuron by one time step or several: one spike at most in each, and a reset at once.

    Parameters
    ----------
    current : float32 array (steps * positions, channels)
        Input.
    potential : float32 array (positions, channels)
        Membrane potential; updated in place.
    constant, threshold : float32 arrays (1 or positions, channels)
        The k of `Dynamics`, and the firing threshold.
    dynamics : Dynamics
    listed : tuple (indptr, indices)
        Written: ends of the rows, int64 (steps * positions + 1,), where ``indptr[0]`` is given and says where the
        spikes begin in `indices`; and the channels that fired, int32, with room for one whole row more than the spikes.
    charged : float32 array (steps * positions, channels) or (0, channels)
        Written where it has room: the potentials after the charge, before any reset.
    active : int64 array (steps, 2)
        Written: neurons whose input was not zero, and those whose charge changed the potential.

    Returns
    -------
    int
        Spikes.
    """
    indptr, indices = listed
    positions, channels = potential.shape
    constant_rows = constant.shape[0]
    threshold_rows = threshold.shape[0]
    zero = np.float32(0)
    keep = charged.shape[0] != 0
    subtract = dynamics.reset == SUBTRACT
    moved = np.empty(channels, np.int32)  # a sum for each channel, so that they are added up side by side
    n = indptr[0]
    for step in range(active.shape[0]):
        moved[:] = 0
        for p in range(positions):
            row = step * positions + p
            x = current[row]
            v = potential[p]
            k = constant[p % constant_rows]
            th = threshold[p % threshold_rows]
            if dynamics.charge == INTEGRATE:
                for c in range(channels):
                    h = v[c] + x[c]
                    moved[c] += h != v[c]
                    v[c] = h
            elif dynamics.charge == LEAK_MULTIPLY:
                for c in range(channels):
                    h = v[c] + (x[c] - v[c]) * k[c]
                    moved[c] += h != v[c]
                    v[c] = h
            elif dynamics.charge == LEAK_DIVIDE:
                for c in range(channels):
                    h = v[c] + (x[c] - v[c]) / k[c]
                    moved[c] += h != v[c]
                    v[c] = h
            elif dynamics.charge == LEAK_FREE_INPUT:
                for c in range(channels):
                    h = v[c] - v[c] / k[c] + x[c]
                    moved[c] += h != v[c]
                    v[c] = h
            else:
                for c in range(channels):
                    h = v[c] * k[c] + x[c]
                    moved[c] += h != v[c]
                    v[c] = h
            if keep:
                for c in range(channels):
                    charged[row, c] = v[c]
            for c in range(channels):
                fired = v[c] > th[c] if dynamics.strict else v[c] >= th[c]
                indices[n] = c
                n += fired
                if subtract:
                    v[c] = v[c] - th[c] if fired else v[c]
                else:
                    v[c] = zero if fired else v[c]
            indptr[row + 1] = n
        active[step, 0] = _nonzeros(current[step * positions : (step + 1) * positions].reshape(-1))
        active[step, 1] = moved.sum()
    return int(n - indptr[0])


@kernel
def fire_any(
    current: npt.NDArray[np.float32],
    potential: npt.NDArray[np.float32],
    constants: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]],
    dynamics: Dynamics,
    listed: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]],
    charged: npt.NDArray[np.float32],
    active: npt.NDArray[np.int64],
) -> int:
    """Do what `fire` does with every reset, several spikes a step, and a floor under the potential.

    Parameters
    ----------
    current, potential, dynamics, charged, active
        As for `fire`.
    constants : tuple (constant, threshold, floor)
        The potential is lifted to the floor at the end of a step: (1 or positions, channels), (0, channels) for none.
    listed : tuple (indptr, indices, values)
        Written; values, where `Dynamics.multiple`, say how many spikes each of the indices stands for.

    Returns
    -------
    int
        Neurons that fired, over all steps.
    """
    constant, threshold, floor = constants
    indptr, indices, values = listed
    positions, channels = potential.shape
    constant_rows, threshold_rows, floor_rows = constant.shape[0], threshold.shape[0], floor.shape[0]
    zero, one = np.float32(0), np.float32(1)
    keep = charged.shape[0] != 0
    late, before = np.zeros(channels, np.float32), np.empty(channels, np.float32)
    active[:] = 0
    n = indptr[0]
    for row in range(current.shape[0]):
        step, p = row // positions, row % positions
        v = potential[p]
        th = threshold[p % threshold_rows]
        if dynamics.reset >= SUBTRACT_LATE:
            for c in range(channels):
                above = v[c] > th[c] if dynamics.strict else v[c] >= th[c]
                late[c] = one if above else zero
        before[:] = v
        _charge(v, current[row], constant[p % constant_rows], dynamics.charge)
        if dynamics.reset == ZERO_LATE:
            for c in range(channels):
                v[c] = zero if late[c] else v[c]
        elif dynamics.reset >= SUBTRACT_LATE:
            for c in range(channels):
                v[c] = v[c] - late[c] * th[c]
        moved = 0
        for c in range(channels):
            moved += v[c] != before[c]
        active[step, 0] += _nonzeros(current[row])
        active[step, 1] += moved
        if keep:
            for c in range(channels):
                charged[row, c] = v[c]
        for c in range(channels):
            fired = v[c] > th[c] if dynamics.strict else v[c] >= th[c]
            times = one if fired else zero
            if dynamics.multiple:
                times = np.trunc(v[c] / th[c]) if fired else zero
                fired = times > zero  # the quotient may round below what the comparison says
                values[n] = times
            indices[n] = c
            n += fired
            if dynamics.reset == ZERO:
                v[c] = zero if fired else v[c]
            elif dynamics.reset == SUBTRACT:
                v[c] = v[c] - times * th[c]
            elif dynamics.reset == SUBTRACT_ONCE:
                v[c] = v[c] - (times - late[c]) * th[c]
        if floor_rows:
            low = floor[p % floor_rows]
            for c in range(channels):
                v[c] = max(v[c], low[c])
        indptr[row + 1] = n
    return int(n - indptr[0])
