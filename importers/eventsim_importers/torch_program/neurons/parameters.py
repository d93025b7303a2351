"""Numbers out of modules, without importing what they are made of."""

from __future__ import annotations

from typing import Any

import numpy as np

from eventsim.layers import Affine
from eventsim.layers.neurons.spiking import PerNeuron


def number(value: Any) -> PerNeuron:
    """Return a number, or a tensor's values: a float if it is one, else float32 without leading axes of size 1."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    if array.size == 1:
        return float(array.item())
    while array.shape[0] == 1:
        array = array[0]
    return np.array(array, np.float32)


def plain(value: PerNeuron) -> PerNeuron:
    """Return float32 arrays for the results of arithmetic."""
    return float(value) if np.ndim(value) == 0 else np.asarray(value, np.float32)


def scaled(gain: PerNeuron, shift: PerNeuron = 0.0) -> tuple[Affine, ...]:
    """Return the layer of gain and shift, none if there are none."""
    if np.all(gain == 1) and not np.any(shift):
        return ()
    scale, offset = (np.atleast_1d(np.asarray(each, np.float32)) for each in (gain, shift))
    return (Affine(scale, offset if offset.any() else None),)


def logit(share: PerNeuron) -> PerNeuron:
    """Return the w of a PLIF for the share that leaks, such that its own, rounded to float32, is this one."""
    kept = np.asarray(share, np.float32).astype(np.float64)
    w = np.log(kept / (1 - kept))
    return float(w) if w.ndim == 0 else w


def is_at_least(value: PerNeuron, least: float) -> bool:
    """Whether all of it is."""
    return bool(np.all(np.asarray(value) >= least))
