"""Convolution and linear layers."""

import numpy as np
from numpy.typing import NDArray


def conv2d(
    x: NDArray[np.float32],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32] | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
    dilation: tuple[int, int] = (1, 1),
) -> NDArray[np.float32]:
    """Correlate a zero-padded map with the kernels.

    y[t, o, i, j] = bias[o] + sum over c, a, b of weight[o, c, a, b] * x[t, first(o) + c, k, l] with
    k = i*sh + a*dh - ph and l = j*sw + b*dw - pw, where first(o) is the first input channel of the group of output
    channel o.
    """
    steps, channels, height, width = x.shape
    out, per_group, kh, kw = weight.shape
    (sh, sw), (ph, pw), (dh, dw) = stride, padding, dilation
    reach_h, reach_w = dh * (kh - 1) + 1, dw * (kw - 1) + 1
    if channels != per_group * groups or out % groups:
        raise ValueError(f"{channels} input channels, weight {weight.shape}, {groups} groups")
    padded = np.zeros((steps, channels, height + 2 * ph, width + 2 * pw))
    padded[:, :, ph : ph + height, pw : pw + width] = x
    y = np.zeros((steps, out, (height + 2 * ph - reach_h) // sh + 1, (width + 2 * pw - reach_w) // sw + 1))
    for o in range(out):
        first = o // (out // groups) * per_group
        kernel = weight[o].astype(np.float64)
        for i in range(y.shape[2]):
            for j in range(y.shape[3]):
                window = padded[
                    :, first : first + per_group, i * sh : i * sh + reach_h : dh, j * sw : j * sw + reach_w : dw
                ]
                y[:, o, i, j] = (window * kernel).sum(axis=(1, 2, 3))
        if bias is not None:
            y[:, o] += bias[o]
    return y.astype(np.float32)


def linear(
    x: NDArray[np.float32], weight: NDArray[np.float32], bias: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """y[..., o] = bias[o] + sum over f of weight[o, f] * x[..., f]."""
    y = x.astype(np.float64) @ weight.astype(np.float64).T
    if bias is not None:
        y = y + bias
    return y.astype(np.float32)
