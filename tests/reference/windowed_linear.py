"""Linear map over a window of time steps, attenuated by powers of two."""

import numpy as np
from numpy.typing import NDArray

from .synapses import linear

Float32 = NDArray[np.float32]


def attenuation(age: int, exponent: int, decay: str) -> float:
    """Factor of an input of `age` steps ago: 2^(-d age), or "constant" 2^-d for every age but 0."""
    if age == 0:
        return 1.0
    return 0.5**exponent if decay == "constant" else 0.5 ** (exponent * age)


def windowed_linear(
    x: Float32, weight: Float32, bias: Float32 | None, window: int, exponent: int, decay: str = "geometric"
) -> Float32:
    """y[t] = bias + W (sum over m < window of a(m) x[t - m]): here the inputs are filtered, not the currents."""
    trace = np.zeros(x.shape)
    for t in range(len(x)):
        for age in range(min(window, t + 1)):
            trace[t] += attenuation(age, exponent, decay) * x[t - age].astype(np.float64)
    return linear(trace.astype(np.float32), weight, bias)


def window_products(x: Float32, outputs: int, window: int, dense: bool = False) -> int:
    """Pairs of an input of the window and a synapse leaving it, over all steps; with dense=True zeros count too."""
    products = 0
    for t in range(len(x)):
        for earlier in range(max(0, t - window + 1), t + 1):
            products += outputs * (x[earlier].size if dense else int(np.count_nonzero(x[earlier])))
    return products


def shifted_sums(steps: int, size: int, window: int) -> int:
    """Additions of currents of earlier steps: one for each of `size` outputs, step, and earlier step of its window."""
    return size * sum(min(t, window - 1) for t in range(steps))
