"""Softmax attention over space or time, and pooling by attention; sums in float64."""

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def softmax_attention(qkv: Float32, heads: int, axis: str, scale: float | None = None) -> Float32:
    """y = softmax(scale q k^T) v for (T, N, 3 D), channels q, k, v; channel c of D belongs to head c // (D / heads).

    axis "space": the N tokens of a step attend to each other; "time": the T steps of a token do. The default scale is
    1 / sqrt(D / heads).
    """
    steps, tokens, channels = qkv.shape
    dim = channels // 3
    size = dim // heads
    factor = 1 / np.sqrt(size) if scale is None else scale
    x = qkv.astype(np.float64)
    y = np.zeros((steps, tokens, dim))
    for head in range(heads):
        q, k, v = (x[:, :, part * dim + head * size : part * dim + (head + 1) * size] for part in range(3))
        own = slice(head * size, (head + 1) * size)
        if axis == "space":
            for t in range(steps):
                y[t, :, own] = _softmax(factor * (q[t] @ k[t].T)) @ v[t]
        elif axis == "time":
            for n in range(tokens):
                y[:, n, own] = _softmax(factor * (q[:, n] @ k[:, n].T)) @ v[:, n]
        else:
            raise ValueError(f"axis {axis!r}; one of space, time")
    return y.astype(np.float32)


def attention_pool(x: Float32, weight: Float32) -> Float32:
    """Sum over t and n of softmax(w . x[t, n]) x[t, n], the softmax over both, for (T, N, D): (1, D)."""
    rows = x.reshape(-1, x.shape[-1]).astype(np.float64)
    attention = _softmax((rows @ weight.astype(np.float64))[None])
    return (attention @ rows).astype(np.float32)


def _softmax(scores: Float64) -> Float64:
    """Along the last axis."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: Float64 = powers / powers.sum(axis=-1, keepdims=True)
    return shares
