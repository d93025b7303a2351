"""Attention on spikes whose scores go through a table of integers."""

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Table = NDArray[np.signedinteger]


def table_attention(q: Float32, k: Float32, v: Float32, table: Table, scale: float) -> Float32:
    """y = table[head][q k^T] v * scale for tokens (T, N, D), per step; head h has the h-th D / heads channels."""
    steps, _, dim = q.shape
    size = dim // len(table)
    y = np.zeros(q.shape, np.float32)
    for t in range(steps):
        for head, entries in enumerate(table):
            own = slice(head * size, (head + 1) * size)
            scores = np.rint(q[t, :, own].astype(np.float64) @ k[t, :, own].astype(np.float64).T).astype(np.int64)
            summed = entries.astype(np.int64)[scores] @ v[t, :, own].astype(np.int64)
            y[t, :, own] = summed.astype(np.float32) * np.float32(scale)
    return y


def table_attention_counts(q: Float32, k: Float32, v: Float32, table: Table) -> dict[str, int]:
    """Work on tokens (T, N, D), pair of tokens by pair, per step and head.

    acs: one for every (i, j, c) with q[i, c] = k[j, c] = 1, and one for every active channel of v[j] for every (i, j)
    whose table entry is not 0. A score that is not 0 costs one lookup.
    """
    steps, tokens, dim = q.shape
    size = dim // len(table)
    counts = {"acs": 0, "table_lookups": 0, "scores": 0, "nonzero_scores": 0, "kept_scores": 0}
    for t in range(steps):
        for head, entries in enumerate(table):
            channels = range(head * size, (head + 1) * size)
            for i in range(tokens):
                for j in range(tokens):
                    score = sum(1 for c in channels if q[t, i, c] != 0 and k[t, j, c] != 0)
                    counts["acs"] += score
                    counts["scores"] += 1
                    if score:
                        counts["table_lookups"] += 1
                        counts["nonzero_scores"] += 1
                    if entries[score]:
                        counts["kept_scores"] += 1
                        counts["acs"] += sum(1 for d in channels if v[t, j, d] != 0)
    return counts
