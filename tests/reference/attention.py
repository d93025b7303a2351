"""Attention on spikes, without softmax."""

import numpy as np
from numpy.typing import NDArray


def spiking_attention(
    q: NDArray[np.float32], k: NDArray[np.float32], v: NDArray[np.float32], heads: int, scale: float
) -> NDArray[np.float32]:
    """y = ((q k^T) v) * scale for tokens (T, N, D), per step and head; channel c belongs to head c // (D / heads)."""
    steps, _, dim = q.shape
    if dim % heads:
        raise ValueError(f"{dim} channels cannot be split into {heads} heads")
    size = dim // heads
    y = np.zeros(q.shape, np.float32)
    for t in range(steps):
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            scores = q[t, :, own].astype(np.float64) @ k[t, :, own].astype(np.float64).T
            summed = (scores @ v[t, :, own].astype(np.float64)).astype(np.float32)
            y[t, :, own] = summed * np.float32(scale)
    return y
