"""Softmax attention among tokens: scores, exponentials and weighted values of some queries at a time.

The limit is two products of matrices and one exponential for each pair of tokens. The scores of a few queries stay in
the first-level cache from their product to their last use; nothing as large as the map is ever in memory.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eventsim.kernels.jit import kernel
from eventsim.kernels.vectors import LANES, ROWS, lines, product, soften


@kernel
def attend_softly(
    qkv: npt.NDArray[np.float32],
    heads: int,
    groups: tuple[int, int],
    pitches: tuple[int, int],
    tokens: int,
    scale: np.float32,
    out: npt.NDArray[np.float32],
) -> None:
    """Write ``softmax(scale q k^T) v`` of the tokens of each group.

    Parameters
    ----------
    qkv : float32 array (rows, 3 * channels)
        Queries, keys and values of each row side by side, those of a head together.
    heads : int
    groups : tuple (first, last)
        Which groups to serve, the last one excluded.
    pitches : tuple of int
        Rows from a group to the next, and from a token of a group to its next.
    tokens : int
        Of each group.
    scale : float32
    out : float32 array (rows, channels)
        Written.
    """
    channels = out.shape[1]
    size = channels // heads
    padded = (tokens + LANES - 1) // LANES * LANES
    width = (size + LANES - 1) // LANES * LANES
    queries = np.zeros((ROWS, size), np.float32)
    keys, values = lines(size, padded), lines(tokens, width)
    scores, attended = lines(ROWS, padded), lines(ROWS, width)
    totals = np.ones(ROWS, np.float32)
    for group in range(groups[0], groups[1]):
        for head in range(heads):
            first = head * size
            for token in range(tokens):
                row = qkv[group * pitches[0] + token * pitches[1]]
                for k in range(size):
                    keys[k, token] = row[channels + first + k]
                    values[token, k] = row[2 * channels + first + k]
            for begin in range(0, tokens, ROWS):
                served = min(ROWS, tokens - begin)
                for r in range(served):
                    row = qkv[group * pitches[0] + (begin + r) * pitches[1]]
                    for k in range(size):
                        queries[r, k] = row[first + k]
                product(queries, keys, scores, scale)
                for r in range(served):
                    scores[r, tokens:] = -np.inf
                    totals[r] = soften(scores[r])
                product(scores, values, attended, np.float32(1))
                for r in range(served):
                    row = out[group * pitches[0] + (begin + r) * pitches[1]]
                    for k in range(size):
                        row[first + k] = attended[r, k] / totals[r]
