"""Layers that mix time steps: convolution over time and space, parts and repetitions of the time axis."""

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Pair = tuple[int, int]


def conv3d(
    x: Float32,
    weight: Float32,
    bias: Float32 | None = None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    groups: int = 1,
    causal: bool = False,
) -> Float32:
    """Correlate maps (T, C, H, W), zero-padded in time and space, with kernels (O, C / groups, kT, kH, kW).

    Time is padded with kT - 1 steps before if causal, else with kT // 2 before and after.
    """
    steps, channels, height, width = x.shape
    out, per_group, kt, kh, kw = weight.shape
    (sh, sw), (ph, pw) = stride, padding
    if channels != per_group * groups or out % groups:
        raise ValueError(f"{channels} input channels, weight {weight.shape}, {groups} groups")
    before = kt - 1 if causal else kt // 2
    padded = np.zeros((steps + kt - 1, channels, height + 2 * ph, width + 2 * pw))
    padded[before : before + steps, :, ph : ph + height, pw : pw + width] = x
    y = np.zeros((steps, out, (height + 2 * ph - kh) // sh + 1, (width + 2 * pw - kw) // sw + 1))
    for t, o, i, j in np.ndindex(*y.shape):
        first = o // (out // groups) * per_group
        seen = padded[t : t + kt, first : first + per_group, i * sh : i * sh + kh, j * sw : j * sw + kw]
        y[t, o, i, j] = (seen * weight[o].swapaxes(0, 1).astype(np.float64)).sum()
    if bias is not None:
        y += bias[:, None, None]
    return y.astype(np.float32)


def conv3d_pairs(
    x: Float32,
    weight_shape: tuple[int, ...],
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    groups: int = 1,
    causal: bool = False,
) -> tuple[int, float]:
    """Count the synapses of the non-zero values of x, followed from each to the outputs that it reaches.

    Returns (pairs of a non-zero value and a synapse leaving it, the sum of |value| over them).
    """
    steps, _, height, width = x.shape
    out, _, kt, kh, kw = weight_shape
    before = kt - 1 if causal else kt // 2
    rows = (height + 2 * padding[0] - kh) // stride[0] + 1
    columns = (width + 2 * padding[1] - kw) // stride[1] + 1
    pairs, units = 0, 0.0
    for t, c, y, column in zip(*np.nonzero(x), strict=True):
        reached = 0
        for k, a, b in np.ndindex(kt, kh, kw):
            target = t - k + before
            i, left_i = divmod(y - a + padding[0], stride[0])
            j, left_j = divmod(column - b + padding[1], stride[1])
            inside = 0 <= target < steps and 0 <= i < rows and 0 <= j < columns
            reached += inside and left_i == 0 and left_j == 0
        pairs += reached * (out // groups)
        units += reached * (out // groups) * abs(float(x[t, c, y, column]))
    return pairs, units


def slice_over_time(x: Float32, index: int, parts: int) -> Float32:
    """Steps floor(index * T / parts) up to floor((index + 1) * T / parts), at least one."""
    start = index * len(x) // parts
    return x[start : max(start + 1, (index + 1) * len(x) // parts)]


def crop_over_time(x: Float32, start: int, stop: int | None) -> Float32:
    """Steps start up to stop, or all from start on."""
    return np.array([step for t, step in enumerate(x) if t >= start and (stop is None or t < stop)], np.float32)


def tile_over_time(x: Float32, steps: int) -> Float32:
    """y[t] = x[t mod S], S being the steps of x."""
    return x[np.arange(steps) % len(x)]


def join_over_time(first: Float32, second: Float32) -> Float32:
    """The steps of the first, then those of the second."""
    return np.array([*first, *second], np.float32).reshape(-1, *first.shape[1:])


def delay_each(x: Float32, steps: NDArray[np.int64]) -> Float32:
    """Every value of a step as many steps later as `steps`, of the same shape, says; zeros come first."""
    y = np.zeros_like(x)
    for place in np.ndindex(*x.shape[1:]):
        late = int(steps[place])
        for t in range(late, len(x)):
            y[(t, *place)] = x[(t - late, *place)]
    return y
