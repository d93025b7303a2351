"""Activation functions; everything in float64."""

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def activation(x: Float32, function: str, least: float | None = None, most: float | None = None) -> Float32:
    """ReLU, limits or sigmoid of every value, or softmax over the last axis."""
    values = x.astype(np.float64)
    if function == "relu":
        y = np.where(values > 0, values, 0.0)
    elif function == "clamp":
        y = values.copy()
        if least is not None:
            y[y < least] = least
        if most is not None:
            y[y > most] = most
    elif function == "sigmoid":
        power = np.exp(-np.abs(values))
        y = np.where(values >= 0, 1 / (1 + power), power / (1 + power))
    elif function == "softmax":
        power = np.exp(values - values.max(axis=-1, keepdims=True))
        y = power / power.sum(axis=-1, keepdims=True)
    else:
        raise ValueError(f"function {function!r}; one of relu, clamp, sigmoid, softmax")
    return y.astype(np.float32)
