"""Global context: the positions of a step weighed, summed up in one vector, and given to every position.

The limit is that a step is read three times, while it is in a near cache, and written once.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from eventsim.kernels.exponentials import sigmoids, soften
from eventsim.kernels.jit import kernel
from eventsim.kernels.layer_norm import normalise
from eventsim.kernels.vectors import LANES, lines, transform, weigh

STRETCH = 256
"""Values of several positions that a gain is repeated for, about."""

Array: TypeAlias = npt.NDArray[np.float32]


@kernel
def attend_globally(
    x: npt.NDArray[np.float32],
    key: tuple[Array, Array],
    value: tuple[Array, Array],
    query: tuple[Array, Array],
    norm: tuple[Array, Array],
    eps: np.float32,
    kind: tuple[bool, bool],
    out: npt.NDArray[np.float32],
) -> None:
    """Transform some time steps, each on its own.

    Parameters
    ----------
    x, out : float32 arrays (steps, positions, channels)
        Read and written.
    key, value, query, norm : tuples (weight, bias)
        As `GlobalContext` has them; those of the norm are empty if there is none.
    eps : float32
        Added to the variance.
    kind : tuple of bool
        Whether positions are weighed by softmax, else by sigmoids; whether gains multiply, else add.
    """
    (softmax, gated), (steps, positions, channels) = kind, x.shape
    rows, total = lines(1, (positions + LANES - 1) // LANES * LANES), np.ones(1, np.float32)
    logits = rows[0]
    gain = lines(1, (channels + LANES - 1) // LANES * LANES)[0]
    context, hidden = np.empty(channels, np.float32), np.empty(len(value[1]), np.float32)
    several = max(1, STRETCH // channels)
    repeated = np.empty(several * channels, np.float32)
    for step in range(steps):
        given = x[step]
        transform(given, key[0], key[1], logits)
        if softmax:
            soften(rows, positions, total)
        else:
            sigmoids(logits)
        weigh(logits[:positions], given, context)
        for c in range(channels):
            context[c] /= total[0]
        transform(value[0], context, value[1], hidden)
        if len(norm[0]) > 0:
            normalise(hidden.reshape(1, -1), norm[0], norm[1], eps, hidden.reshape(1, -1))
        for i in range(len(hidden)):
            hidden[i] = max(hidden[i], np.float32(0))
        transform(query[0], hidden, query[1], gain)
        if gated:
            sigmoids(gain)
        for at in range(0, len(repeated), channels):
            for c in range(channels):
                repeated[at + c] = gain[c]
        flat, made = given.reshape(-1), out[step].reshape(-1)
        for at in range(0, len(flat), len(repeated)):
            first = np.uint64(at)
            if gated:
                for i in range(np.uint64(min(len(repeated), len(flat) - at))):
                    made[first + i] = flat[first + i] * repeated[i]
            else:
                for i in range(np.uint64(min(len(repeated), len(flat) - at))):
                    made[first + i] = flat[first + i] + repeated[i]
