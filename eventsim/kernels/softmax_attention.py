"""Softmax attention among tokens: scores, exponentials and weighted values of some queries at a time.

The limit is two products of matrices and one exponential for each pair of tokens. The scores of a few queries stay in
the first-level cache from their product to their last use; nothing as large as the map is ever in memory.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eventsim.kernels.exponentials import soften
from eventsim.kernels.jit import kernel
from eventsim.kernels.vectors import LANES, ROWS, lines, product


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
    given, asked, made = qkv.reshape(-1), queries.reshape(-1), out.reshape(-1)
    known, kept, got = keys.reshape(-1), values.reshape(-1), attended.reshape(-1)
    from_group, from_token = np.uint64(3 * channels * pitches[0]), np.uint64(3 * channels * pitches[1])
    depth = np.uint64(size)  # unsigned: never counted from the end
    for group in range(np.uint64(groups[0]), np.uint64(groups[1])):
        for head in range(np.uint64(heads)):
            begin = group * from_group + head * depth
            for token in range(np.uint64(tokens)):
                key = begin + token * from_token + np.uint64(channels)
                value = key + np.uint64(channels)
                for k in range(depth):
                    known[k * np.uint64(padded) + token] = given[key + k]
                    kept[token * np.uint64(width) + k] = given[value + k]
            for first in range(0, tokens, ROWS):
                served = min(ROWS, tokens - first)
                for r in range(np.uint64(served)):
                    query = begin + (np.uint64(first) + r) * from_token
                    for k in range(depth):
                        asked[r * depth + k] = given[query + k]
                product(queries, keys, scores, scale)
                soften(scores, tokens, totals)
                product(scores, values, attended, np.float32(1))
                for r in range(np.uint64(served)):
                    row = group * np.uint64(pitches[0]) + (np.uint64(first) + r) * np.uint64(pitches[1])
                    to = row * np.uint64(channels) + head * depth
                    share = np.float32(1) / totals[r]
                    for k in range(depth):
                        made[to + k] = got[r * np.uint64(width) + k] * share
