"""Pooling by attention, step by step, scaled to the largest logit so far."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eventsim.kernels.exponentials import soften
from eventsim.kernels.jit import kernel
from eventsim.kernels.vectors import LANES, lines, transform, weigh


@kernel
def pool_by_attention(
    x: npt.NDArray[np.float32],
    weight: npt.NDArray[np.float32],
    seen: npt.NDArray[np.float32],
    pooled: npt.NDArray[np.float32],
    mean: npt.NDArray[np.float32],
) -> None:
    """Add some time steps to a weighted sum of rows.

    Parameters
    ----------
    x : float32 array (steps, positions, channels)
    weight : float32 array (channels,)
        Its product with a row is the row's logit.
    seen : float32 array (2,)
        The largest logit so far, and the sum of exponentials of logits less that; changed in place.
    pooled : float32 array (channels,)
        The sum of rows times these exponentials; changed in place.
    mean : float32 array (channels,)
        Written: the weighted mean of all rows so far.
    """
    steps, positions, channels = x.shape
    rows, total = lines(1, (positions + LANES - 1) // LANES * LANES), np.ones(1, np.float32)
    logits = rows[0]
    added, no_bias = np.empty(channels, np.float32), np.zeros(1, np.float32)
    for step in range(steps):
        transform(x[step], weight, no_bias, logits)
        largest = logits[0]
        for position in range(1, positions):
            largest = max(largest, logits[position])
        soften(rows, positions, total)
        weigh(logits[:positions], x[step], added)
        peak = max(seen[0], largest)
        kept, new = np.exp(seen[0] - peak), np.exp(largest - peak)
        seen[0] = peak
        seen[1] = seen[1] * kept + total[0] * new
        for c in range(channels):
            pooled[c] = pooled[c] * kept + added[c] * new
    for c in range(channels):
        mean[c] = pooled[c] / seen[1]
