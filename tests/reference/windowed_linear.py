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
    x: Float32,
    weight: Float32,
    bias: Float32 | None,
    window: int | tuple[int, ...],
    exponent: int | tuple[int, ...],
    decay: str = "geometric",
) -> Float32:
    """y[t] = bias + W (sum over m < window of a(m) x[t - m]): here the inputs are filtered, not the currents.

    Given as tuples, windows and exponents are those of equal groups of rows of W.
    """
    outputs = len(weight)
    y = [
        linear(filtered(x, group_of(window, i, outputs), group_of(exponent, i, outputs), decay), weight, bias)[..., i]
        for i in range(outputs)
    ]
    return np.stack(y, axis=-1)


def filtered(x: Float32, window: int, exponent: int, decay: str = "geometric") -> Float32:
    """Sum over m < window of a(m) x[t - m]."""
    trace = np.zeros(x.shape)
    for t in range(len(x)):
        for age in range(min(window, t + 1)):
            trace[t] += attenuation(age, exponent, decay) * x[t - age].astype(np.float64)
    return trace.astype(np.float32)


def group_of(values: int | tuple[int, ...], output: int, outputs: int) -> int:
    """What holds for one output, of one value for all or one for each group."""
    return values if isinstance(values, int) else values[output * len(values) // outputs]


def window_products(x: Float32, exists: NDArray[np.bool_], window: int | tuple[int, ...], dense: bool = False) -> int:
    """Pairs of an input of the window and a synapse leaving it, over all steps; with dense=True zeros count too.

    exists (outputs, channels) tells the weights that are synapses.
    """
    products = 0
    for output, synapses in enumerate(exists):
        for t in range(len(x)):
            for earlier in range(max(0, t - group_of(window, output, len(exists)) + 1), t + 1):
                rows = x[earlier].reshape(-1, len(synapses))
                products += int(((rows != 0) | dense)[:, synapses].sum())
    return products


def shifted_sums(steps: int, positions: int, outputs: int, window: int | tuple[int, ...]) -> int:
    """Additions of currents of earlier steps: one for each position, output, step, and earlier step of its window."""
    return positions * sum(
        min(t, group_of(window, output, outputs) - 1) for output in range(outputs) for t in range(steps)
    )
