"""Batch normalization with stored statistics, and the scale and shift that it amounts to."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float32 = NDArray[np.float32]


def batch_norm(
    x: Float32, gamma: Float32, beta: Float32, mean: Float32, var: Float32, eps: float = 1e-5, axis: int | None = None
) -> Float32:
    """y = x * alpha + shift with alpha = gamma / sqrt(var + eps), shift = beta - mean * alpha, all in float32.

    PyTorch on a CPU takes alpha = (1 / sqrt(var + eps)) * gamma and may fuse multiply-adds: the last bits can differ.
    axis is that of the channels: by default 1 for maps (T, C, H, W) and the last for anything else.
    """
    channel_axis = (1 if x.ndim == 4 else x.ndim - 1) if axis is None else axis
    gamma, beta, mean, var = (np.asarray(a, np.float32) for a in (gamma, beta, mean, var))
    alpha = gamma / np.sqrt(var + np.float32(eps))
    shift = beta - mean * alpha
    shape = [1] * x.ndim
    shape[channel_axis] = -1
    y: Float32 = np.asarray(x, np.float32) * alpha.reshape(shape) + shift.reshape(shape)
    return y


def affine(x: Float32, scale: ArrayLike, shift: ArrayLike | None = None) -> Float32:
    """y = x * scale + shift, in float32; both broadcast against a time step of x."""
    y: Float32 = x * np.asarray(scale, np.float32)
    return y if shift is None else y + np.asarray(shift, np.float32)
