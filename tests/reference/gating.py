"""Products of two signals, one repeated along the other."""

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def gate(g: Float32, x: Float32) -> Float32:
    """y[t, n, c] = g[t, n or 0, c // (C / G)] * x[t, n, c] for tokens x (T, N, C), gates (T, N or 1, G) or (T, G)."""
    g = g[:, None] if g.ndim == 2 else g
    steps, tokens, channels = x.shape
    y = np.zeros_like(x)
    for t in range(steps):
        for n in range(tokens):
            own = g[t, 0 if g.shape[1] == 1 else n]
            for c in range(channels):
                y[t, n, c] = own[c * len(own) // channels] * x[t, n, c]
    return y


def gate_counts(g: Float32, x: Float32, kinds: tuple[str, str], dense: tuple[bool, bool]) -> dict[str, int]:
    """Work on tokens, value by value: of a dense input every value counts, of another those that are not 0.

    A spike that meets a value is a comparison. Two integers that meet are one graded_mac, and as many graded_acs as
    pairs of their units; any others one mac.
    """
    g = g[:, None] if g.ndim == 2 else g
    meetings, units = 0, 0
    for t, n, c in np.ndindex(*x.shape):
        own = g[t, 0 if g.shape[1] == 1 else n]
        factor, value = own[c * len(own) // x.shape[2]], x[t, n, c]
        if (factor != 0 or dense[0]) and (value != 0 or dense[1]):
            meetings += 1
            units += int(factor) * int(value)
    if "binary" in kinds:
        return {"comparisons": meetings}
    offered = {"inputs": g.size + x.size, "nonzero_inputs": int(np.count_nonzero(g) + np.count_nonzero(x))}
    if "real" in kinds:
        return {"macs": meetings, **offered}
    return {"graded_macs": meetings, "graded_acs": units, **offered}
