"""Attention on spikes, without softmax."""

import numpy as np
from numpy.typing import NDArray


def spiking_attention(
    q: NDArray[np.float32], k: NDArray[np.float32], v: NDArray[np.float32], heads: int, scale: float
) -> NDArray[np.float32]:
    """y = ((q k^T) v) * scale per step and head, for q (T, N, D), k (T, M, D) and v (T, M, E); usually all (T, N, D).

    Channel c of C belongs to head c // (C / heads).
    """
    steps, tokens, dim = q.shape
    if dim % heads or v.shape[2] % heads:
        raise ValueError(f"{dim} and {v.shape[2]} channels cannot be split into {heads} heads")
    size, width = dim // heads, v.shape[2] // heads
    y = np.zeros((steps, tokens, v.shape[2]), np.float32)
    for t in range(steps):
        for head in range(heads):
            own, out = slice(head * size, (head + 1) * size), slice(head * width, (head + 1) * width)
            scores = q[t, :, own].astype(np.float64) @ k[t, :, own].astype(np.float64).T
            summed = (scores @ v[t, :, out].astype(np.float64)).astype(np.float32)
            y[t, :, out] = summed * np.float32(scale)
    return y
