"""Global context block; everything in float64."""

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def global_context(
    x: Float32,
    key: tuple[Float32, Float32],
    value: tuple[Float32, Float32],
    query: tuple[Float32, Float32],
    norm: tuple[Float32, Float32] | None = None,
    normalisation: str = "softmax",
    combination: str = "additive",
    eps: float = 1e-5,
) -> Float32:
    """For (T, N, C): weigh the N positions of a step, sum them up, squeeze, and add to or scale every position.

    key, value, query and norm are (weight, bias): (C,) and (1,), (hidden, C) and (hidden,), (C, hidden) and (C,),
    (hidden,) and (hidden,).
    """
    y = np.zeros(x.shape)
    for t, tokens in enumerate(x.astype(np.float64)):
        logits = np.array([token @ key[0] + key[1][0] for token in tokens])
        if normalisation == "softmax":
            weights = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        elif normalisation == "sigmoid":
            weights = sigmoid(logits)
        else:
            raise ValueError(f"normalisation {normalisation!r}; one of softmax, sigmoid")
        context = (weights[:, None] * tokens).sum(axis=0)
        hidden = value[0].astype(np.float64) @ context + value[1]
        if norm is not None:
            hidden = (hidden - hidden.mean()) / np.sqrt(hidden.var() + eps) * norm[0] + norm[1]
        change = query[0].astype(np.float64) @ np.maximum(hidden, 0) + query[1]
        if combination == "additive":
            y[t] = tokens + change
        elif combination == "gated":
            y[t] = tokens * sigmoid(change)
        else:
            raise ValueError(f"combination {combination!r}; one of additive, gated")
    return y.astype(np.float32)


def sigmoid(x: Float64) -> Float64:
    """1 / (1 + exp(-x)), without overflow."""
    power = np.exp(-np.abs(x))
    result: Float64 = np.where(x >= 0, 1 / (1 + power), power / (1 + power))
    return result
