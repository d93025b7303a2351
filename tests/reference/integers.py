"""Integer synapses and neurons in 64-bit integers, loop by loop; nothing is rounded but where it is written.

Everything is int64, in which nothing here comes near an overflow; results are int64, too.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Longs = NDArray[np.int64]


def conv2d(
    x: ArrayLike,
    weight: ArrayLike,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
    dilation: tuple[int, int] = (1, 1),
) -> Longs:
    """Sums of integer maps (T, C, H, W) times integer kernels (O, C / groups, kH, kW), zeros around the map."""
    maps, kernels = np.asarray(x).astype(np.int64), np.asarray(weight).astype(np.int64)
    steps, _, height, width = maps.shape
    outputs, per_group, rows, columns = kernels.shape
    size = [
        (n + 2 * pad - d * (k - 1) - 1) // s + 1
        for n, pad, d, k, s in zip((height, width), padding, dilation, (rows, columns), stride, strict=True)
    ]
    y = np.zeros((steps, outputs, *size), np.int64)
    for o, i, j, a, b in np.ndindex(outputs, *size, rows, columns):
        k, m = i * stride[0] + a * dilation[0] - padding[0], j * stride[1] + b * dilation[1] - padding[1]
        if 0 <= k < height and 0 <= m < width:
            first = o // (outputs // groups) * per_group
            y[:, o, i, j] += maps[:, first : first + per_group, k, m] @ kernels[o, :, a, b]
    return y


def linear(x: ArrayLike, weight: ArrayLike) -> Longs:
    """Sums over the last axis of x (..., C) times a matrix (O, C)."""
    values, matrix = np.asarray(x).astype(np.int64), np.asarray(weight).astype(np.int64)
    return np.einsum("...c,oc->...o", values, matrix)


def conv3d(
    x: ArrayLike,
    weight: ArrayLike,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
    causal: bool = False,
) -> Longs:
    """Sums of integer maps (T, C, H, W) times kernels (O, C / groups, kT, kH, kW); silence before and after."""
    maps, kernels = np.asarray(x).astype(np.int64), np.asarray(weight).astype(np.int64)
    length = kernels.shape[2]
    before = length - 1 if causal else length // 2
    padded = np.pad(maps, ((before, length - 1 - before), *((0, 0),) * 3))
    parts = [conv2d(padded[k : k + len(maps)], kernels[:, :, k], stride, padding, groups) for k in range(length)]
    return np.sum(parts, axis=0, dtype=np.int64)


def windowed_linear(
    x: ArrayLike, weight: ArrayLike, windows: list[int], exponents: list[int], decay: str = "geometric"
) -> Longs:
    """Sums over the last axis of x (T, N, C), each output over its window of steps: the oldest counts once."""
    products = linear(x, weight)
    y = np.zeros_like(products)
    for o, (window, exponent) in enumerate(zip(windows, exponents, strict=True)):
        halvings = [exponent * (age if decay == "geometric" else min(age, 1)) for age in range(window)]
        for t in range(len(y)):
            for age in range(min(window, t + 1)):
                y[t, ..., o] += products[t - age, ..., o] << (halvings[-1] - halvings[age])
    return y


def joined(a: ArrayLike, b: ArrayLike, factors: ArrayLike) -> Longs:
    """Sums of two rows (..., C), each times its integers (2, C)."""
    one, other = np.asarray(factors).astype(np.int64)
    return np.asarray(a).astype(np.int64) * one + np.asarray(b).astype(np.int64) * other


def lif(
    sums: ArrayLike,
    threshold: ArrayLike,
    bias: ArrayLike = 0,
    leak: ArrayLike = 0,
    *,
    input_leaks: bool = True,
    fraction: int = 0,
    subtract: bool = False,
    strict: bool = False,
) -> tuple[Longs, Longs, Longs, Longs]:
    """Return spikes, charges, potentials before them, and inputs of fixed-point neurons, all of the shape of sums.

    x = sums * 2^fraction + bias; h = v + x without a leak, else v + R((x - v) leak) or v + R(-v leak) + x with
    R(y) = floor(y / 2^15 + 1/2). Potentials end each step between -2^30 and 2^30.
    """
    given = np.asarray(sums).astype(np.int64)
    shape = given.shape[1:]
    limit, offset, share = (np.broadcast_to(np.asarray(a, np.int64), shape) for a in (threshold, bias, leak))
    spikes, charges, befores, inputs = (np.zeros_like(given) for _ in range(4))
    for place in np.ndindex(*shape):
        v = 0
        for t in range(len(given)):
            x = int(given[(t, *place)]) * 2**fraction + int(offset[place])
            k = int(share[place])
            if not share.any():
                h = v + x
            elif input_leaks:
                h = v + (2 * (x - v) * k + 2**15) // 2**16
            else:
                h = v + (2 * -v * k + 2**15) // 2**16 + x
            fired = h > limit[place] if strict else h >= limit[place]
            at = (t, *place)
            spikes[at], charges[at], befores[at], inputs[at] = fired, h, v, x
            v = (h - int(limit[place]) if subtract else 0) if fired else h
            v = max(-(2**30), min(2**30, v))
    return spikes, charges, befores, inputs
