"""Leaky neuron with learned coefficients and step attention."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .global_context import sigmoid

Float32 = NDArray[np.float32]


class StepAttention(NamedTuple):
    """Both linear maps, one for each time step or one for all: (T or 1, hidden, 2 C), (T or 1, gates, hidden)."""

    reduce_weight: Float32
    reduce_bias: Float32
    expand_weight: Float32
    expand_bias: Float32


def adaptive_lif(
    x: Float32,
    m: Float32,
    n: Float32,
    attention: StepAttention | None = None,
    v_threshold: float = 1.0,
    scale: float = 2.0,
    gate_inputs: str = "terms",
    *,
    reset: str = "zero",
    strict: bool = False,
    scalar: bool = False,
    past_encoding: Float32 | None = None,
    potential_encoding: Float32 | None = None,
) -> tuple[Float32, Float32]:
    """Spikes and V for (T, N, C): V[t] = SA(m[t] * H[t-1], n[t] * x[t]), fires at V >= v_threshold, H = V (1 - S).

    Strict neurons fire at V > v_threshold; with the reset "subtract" H = V - S v_threshold.

    m and n broadcast against (T, N, C). SA sums its two arguments, multiplied by gates if there is attention: gates =
    scale * sigmoid(E relu(R means + r) + e), where the means over positions of both arguments ("terms") or of x[t-1]
    and x[t] ("features") follow each other. 2 C gates are for the first argument, then for the second; C are for the
    sum. Scalar gates are 2, or 1 for the sum. Encodings broadcast as m and n do: m[t] * (H[t-1] + past_encoding[t]),
    and V[t] + potential_encoding[t].
    Means and gates in float64, the rest in float32, in the order written.
    """
    spikes, potentials = np.zeros_like(x), np.zeros_like(x)
    m, n = np.broadcast_to(m, x.shape), np.broadcast_to(n, x.shape)
    on_past, on_potential = (
        np.broadcast_to(np.float32(0) if p is None else p, x.shape) for p in (past_encoding, potential_encoding)
    )
    left, before = np.zeros_like(x[0]), np.zeros_like(x[0])
    for t, now in enumerate(x):
        past, present = m[t] * (left + on_past[t]), n[t] * now
        if attention is None:
            v = past + present
        else:
            pooled = (past, present) if gate_inputs == "terms" else (before, now)
            gates = _gates(attention, t, np.concatenate([a.mean(axis=0, dtype=np.float64) for a in pooled]), scale)
            per_term = 1 if scalar else x.shape[-1]
            if len(gates) == 2 * per_term:
                v = gates[:per_term] * past + gates[per_term:] * present
            else:
                v = gates * (past + present)
        v = v + on_potential[t]
        threshold = np.float32(v_threshold)
        spikes[t], potentials[t] = (v > threshold if strict else v >= threshold), v
        left, before = v - spikes[t] * (v if reset == "zero" else threshold), now
    return spikes, potentials


def _gates(attention: StepAttention, t: int, means: NDArray[np.float64], scale: float) -> Float32:
    own = [array[t if len(array) > 1 else 0].astype(np.float64) for array in attention]
    hidden = np.maximum(own[0] @ means + own[1], 0)
    return (scale * sigmoid(own[2] @ hidden + own[3])).astype(np.float32)
