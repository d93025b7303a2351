"""Spiking neurons over all time steps; the state starts at 0.

Each step charges v to h, fires where h >= v_threshold (h > v_threshold if strict), then resets: "zero" leaves v = 0
where fired, "subtract" leaves v = h - v_threshold where fired, and v = h elsewhere. Every neuron returns
(spikes, h): both of the shape of x, h being the potential before the reset.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float32 = NDArray[np.float32]


def lif(
    x: Float32,
    tau: ArrayLike = 2.0,
    v_threshold: ArrayLike = 1.0,
    decay_input: bool = True,
    reset: str = "zero",
    strict: bool = False,
) -> tuple[Float32, Float32]:
    """Charge h = v + (x - v) / tau, or with decay_input off h = v - v / tau + x."""
    time_constant = np.asarray(tau, np.float32)
    if decay_input:
        return _over_time(x, lambda v, x_t: v + (x_t - v) / time_constant, v_threshold, reset, strict)
    return _over_time(x, lambda v, x_t: v - v / time_constant + x_t, v_threshold, reset, strict)


def if_neuron(
    x: Float32, v_threshold: ArrayLike = 1.0, reset: str = "zero", strict: bool = False
) -> tuple[Float32, Float32]:
    """Charge h = v + x."""
    return _over_time(x, lambda v, x_t: v + x_t, v_threshold, reset, strict)


def plif(
    x: Float32, k: ArrayLike, v_threshold: ArrayLike = 1.0, reset: str = "zero", strict: bool = False
) -> tuple[Float32, Float32]:
    """Charge h = v + (x - v) * k, where k = sigmoid(w); see plif_factor."""
    factor = np.asarray(k, np.float32)
    return _over_time(x, lambda v, x_t: v + (x_t - v) * factor, v_threshold, reset, strict)


def pliaf(
    x: Float32, k: ArrayLike, v_threshold: ArrayLike = 1.0, reset: str = "zero", strict: bool = False
) -> tuple[Float32, Float32]:
    """Charge and reset of plif; what leaves it instead of spikes is the positive part of h."""
    _, h = plif(x, k, v_threshold, reset, strict)
    return np.maximum(h, np.float32(0)), h


def plif_factor(w: ArrayLike) -> Float32:
    """Sigmoid of w, taken in float64 and rounded to float32."""
    return np.asarray(1 / (1 + np.exp(-np.asarray(w, np.float64))), np.float32)


def decay_lif(
    x: Float32, decay: ArrayLike, v_threshold: ArrayLike = 1.0, reset: str = "zero", strict: bool = False, **more: Any
) -> tuple[Float32, Float32]:
    """Charge h = decay * v + x; further parameters as for neuron."""
    factor = np.asarray(decay, np.float32)
    return neuron(x, lambda v, x_t: v * factor + x_t, v_threshold, reset, strict, **more)


def leaky_integrator(x: Float32, decay: ArrayLike, start: ArrayLike = 0.0) -> Float32:
    """V = decay * v + x in every step, from start; nothing fires."""
    factor, inputs = np.asarray(decay, np.float32), np.asarray(x, np.float32)
    potentials = np.zeros_like(inputs)
    v = np.zeros(inputs.shape[1:], np.float32) + np.asarray(start, np.float32)
    for t in range(len(inputs)):
        v = potentials[t] = v * factor + inputs[t]
    return potentials


def neuron(
    x: Float32,
    charge: Callable[[Float32, Float32], Float32],
    v_threshold: ArrayLike,
    reset: str,
    strict: bool,
    start: ArrayLike = 0.0,
    v_min: ArrayLike | None = None,
    multiple_spikes: bool = False,
) -> tuple[Float32, Float32]:
    """Spikes and potentials before the reset; see neuron_states."""
    options = (v_threshold, reset, strict, start, v_min, multiple_spikes)
    spikes, charged, _ = neuron_states(x, charge, *options)
    return spikes, charged


def neuron_states(
    x: Float32,
    charge: Callable[[Float32, Float32], Float32],
    v_threshold: ArrayLike,
    reset: str,
    strict: bool,
    start: ArrayLike = 0.0,
    v_min: ArrayLike | None = None,
    multiple_spikes: bool = False,
) -> tuple[Float32, Float32, Float32]:
    """Spikes, potentials before and behind the reset, with the resets that snnTorch has, as snnTorch writes them.

    There, `late` is 1 where v is above the threshold when a step begins, and the layers compute

    subtract_late (Leaky): h = charge(v) - late * threshold, v = h
    subtract_once (Leaky, reset_delay=False): the same h, and v = h - (spikes - late) * threshold
    zero_late (Synaptic): h = charge(v) - late * charge(v), v = h

    Several spikes in a step are as many as the threshold goes into h, for h at or above it (sinabs).
    """
    inputs, threshold = np.asarray(x, np.float32), np.asarray(v_threshold, np.float32)
    spikes, charged, potentials = np.zeros_like(inputs), np.zeros_like(inputs), np.zeros_like(inputs)
    v = np.zeros(inputs.shape[1:], np.float32) + np.asarray(start, np.float32)
    for t in range(len(inputs)):
        late = (v > threshold if strict else v >= threshold).astype(np.float32)
        h = charge(v, inputs[t])
        if reset in {"subtract_late", "subtract_once"}:
            h = h - late * threshold
        elif reset == "zero_late":
            h = np.where(late == 1, np.float32(0), h)
        fired = (h > threshold if strict else h >= threshold).astype(np.float32)
        if multiple_spikes:
            fired = fired * np.trunc(h / threshold)
        after = {
            "zero": np.where(fired > 0, np.float32(0), h),
            "subtract": h - fired * threshold,
            "subtract_late": h,
            "subtract_once": h - (fired - late) * threshold,
            "zero_late": h,
        }
        v = after[reset] if v_min is None else np.maximum(after[reset], np.asarray(v_min, np.float32))
        spikes[t], charged[t], potentials[t] = fired, h, v
    return spikes, charged, potentials


def _over_time(
    x: Float32, charge: Callable[[Float32, Float32], Float32], v_threshold: ArrayLike, reset: str, strict: bool
) -> tuple[Float32, Float32]:
    if reset not in {"zero", "subtract"}:
        raise ValueError(f"reset {reset!r}; one of zero, subtract")
    inputs = np.asarray(x, np.float32)
    threshold = np.asarray(v_threshold, np.float32)
    spikes, potentials = np.zeros_like(inputs), np.zeros_like(inputs)
    v = np.zeros(inputs.shape[1:], np.float32)
    for t in range(len(inputs)):
        h = charge(v, inputs[t])
        fired = h > threshold if strict else h >= threshold
        v = np.where(fired, np.float32(0) if reset == "zero" else h - threshold, h)
        spikes[t], potentials[t] = fired, h
    return spikes, potentials


def integer_activation(x: NDArray[np.float32], maximum: int, ties: str = "even") -> NDArray[np.float32]:
    """Values between 0 and a maximum, rounded; halves to the even integer, or up. No memory."""
    y = np.zeros_like(x)
    for place, value in np.ndenumerate(x):
        clamped = min(max(float(value), 0.0), float(maximum))
        y[place] = round(clamped) if ties == "even" else int(np.floor(clamped + 0.5))
    return y
