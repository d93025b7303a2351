"""Changes of shape, sums and means. Time stays the first axis: a sum over time leaves it with length 1."""

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def flatten(x: Float32) -> Float32:
    """All but time into one axis, the last fastest: (T, C, H, W) -> (T, C*H*W) as torch does."""
    return x.reshape(x.shape[0], -1)


def tokens_from_map(x: Float32) -> Float32:
    """Map (T, C, H, W) to tokens (T, H*W, C); token h * W + w is pixel (h, w)."""
    steps, channels, height, width = x.shape
    tokens = np.zeros((steps, height * width, channels), np.float32)
    for h in range(height):
        for w in range(width):
            tokens[:, h * width + w] = x[:, :, h, w]
    return tokens


def channels_from_tokens(x: Float32) -> Float32:
    """Tokens (T, N, D) to (T, D, N)."""
    steps, count, dim = x.shape
    channels = np.zeros((steps, dim, count), np.float32)
    for n in range(count):
        channels[:, :, n] = x[:, n]
    return channels


def select_channels(x: Float32, indices: NDArray[np.integer]) -> Float32:
    """Output channel c is input channel indices[c]; channels are the axis after time of maps, else the last."""
    axis = 1 if x.ndim == 4 else x.ndim - 1
    shape = list(x.shape)
    shape[axis] = len(indices)
    y = np.zeros(shape, np.float32)
    for place, index in enumerate(indices):
        if x.ndim == 4:
            y[:, place] = x[:, index]
        else:
            y[..., place] = x[..., index]
    return y


def rearrange(x: Float32, indices: NDArray[np.integer], shape: tuple[int, ...]) -> Float32:
    """Value i of a time step is its value indices[i], both as torch numbers them, or 0 where that is -1."""
    y = np.zeros((len(x), len(indices)), np.float32)
    given = flatten(x)
    for place, index in enumerate(indices):
        if index >= 0:
            y[:, place] = given[:, index]
    return y.reshape(len(x), *shape)


def sum_over_channels(x: Float32, groups: int) -> Float32:
    """Output channel g is the sum of the g-th of so many equal parts of the channels."""
    last = np.moveaxis(x, 1, -1) if x.ndim == 4 else x
    parts = np.split(last.astype(np.float64), groups, axis=-1)
    y = np.stack([part.sum(axis=-1) for part in parts], axis=1 if x.ndim == 4 else -1)
    return y.astype(np.float32)


def sum_over_positions(x: Float32) -> Float32:
    """(T, C, H, W) -> (T, C), (T, N, D) -> (T, D)."""
    axes = {3: (1,), 4: (2, 3)}[x.ndim]
    total: NDArray[np.float64] = x.sum(axis=axes, dtype=np.float64)
    return total.astype(np.float32)


def mean_over_positions(x: Float32) -> Float32:
    """Sum over positions, divided in float32 by their number."""
    positions = x.shape[1] if x.ndim == 3 else x.shape[2] * x.shape[3]
    return sum_over_positions(x) / np.float32(positions)


def sum_over_time(x: Float32) -> Float32:
    """(T, ...) -> (1, ...)."""
    total: NDArray[np.float64] = x.sum(axis=0, keepdims=True, dtype=np.float64)
    return total.astype(np.float32)


def mean_over_time(x: Float32) -> Float32:
    """Sum over time, divided in float32 by the number of steps: (T, ...) -> (1, ...)."""
    return sum_over_time(x) / np.float32(len(x))
