"""Layer normalization over the last axis."""

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def layer_norm(x: Float32, weight: Float32, bias: Float32 | None = None, eps: float = 1e-5) -> Float32:
    """y = (x - mean) / sqrt(var + eps) * weight + bias, in float64; var divides by the number of channels."""
    wide = x.astype(np.float64)
    mean = wide.mean(axis=-1, keepdims=True)
    variance = ((wide - mean) ** 2).mean(axis=-1, keepdims=True)
    y = (wide - mean) / np.sqrt(variance + eps) * weight
    return (y if bias is None else y + bias).astype(np.float32)
