"""Spiking self-attention on CSR rows: integer arithmetic, head by head."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eventsim.kernels.jit import kernel


@kernel
def _index(
    k: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]],
    v: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]],
    base: int,
    listeners: npt.NDArray[np.int32],
    heard: npt.NDArray[np.int32],
    v_start: npt.NDArray[np.int64],
) -> None:
    """Index k by channel and v by head, for the step whose rows begin at `base`.

    Written: the first ``heard[c]`` of ``listeners[c]`` are the tokens whose k is active in channel c; the spikes of v
    in token j and head h are ``v_start[j, h]`` up to ``v_start[j, h + 1]``.
    """
    k_indptr, k_indices = k
    v_indptr, v_indices = v
    tokens = len(v_start)
    heads = v_start.shape[1] - 1
    d = len(heard) // heads
    heard[:] = 0
    for j in range(tokens):
        for e in range(k_indptr[base + j], k_indptr[base + j + 1]):
            c = k_indices[e]
            listeners[c, heard[c]] = j
            heard[c] += 1
        e = v_indptr[base + j]
        for h in range(heads):
            v_start[j, h] = e
            while e < v_indptr[base + j + 1] and v_indices[e] < (h + 1) * d:
                e += 1
        v_start[j, heads] = e


@kernel
def attend_scores_first(
    q: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]],
    k: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]],
    v: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]],
    tokens: int,
    heads: int,
    scale: np.float32,
    out: npt.NDArray[np.float32],
    executed: npt.NDArray[np.int64],
) -> None:
    """Compute scale * (q k^T) v of one time step or several.

    Each spike of q looks up the tokens whose k is active in the same channel and adds 1 to their score; each non-zero
    score is then added to the output once for every spike of v in its token and head.

    Parameters
    ----------
    q, k, v : tuples (indptr, indices)
        Sorted binary rows, ``steps * tokens`` of them, ``heads * d`` channels.
    tokens, heads : int
    scale : float32
    out : float32 array (steps * tokens, channels)
        Written.
    executed : int64 array (3, steps)
        Written: additions into the scores, which are coincidences of q and k; additions of scores into the output; and
        values of the output that are not zero.
    """
    q_indptr, q_indices = q
    _, v_indices = v
    rows, channels = out.shape
    d = channels // heads
    steps = rows // tokens
    listeners = np.empty((channels, tokens), np.int32)
    heard = np.empty(channels, np.int32)
    v_start = np.empty((tokens, heads + 1), np.int64)
    scores = np.zeros(tokens, np.int32)
    sums = np.zeros(d, np.int32)
    for step in range(steps):
        base = step * tokens
        met = 0
        added = 0
        emitted = 0
        _index(k, v, base, listeners, heard, v_start)
        for i in range(tokens):
            e = q_indptr[base + i]
            stop = q_indptr[base + i + 1]
            for h in range(heads):
                first = h * d
                sums[:] = 0
                if e < stop and q_indices[e] < first + d:
                    while e < stop and q_indices[e] < first + d:
                        c = q_indices[e]
                        for n in range(heard[c]):
                            scores[listeners[c, n]] += 1
                        met += heard[c]
                        e += 1
                    for j in range(tokens):
                        score = scores[j]
                        if score != 0:
                            scores[j] = 0
                            for s in range(v_start[j, h], v_start[j, h + 1]):
                                sums[v_indices[s] - first] += score
                            added += v_start[j, h + 1] - v_start[j, h]
                for c in range(d):
                    emitted += sums[c] != 0
                    out[base + i, first + c] = np.float32(sums[c]) * scale
        executed[0, step] = met
        executed[1, step] = added
        executed[2, step] = emitted


@kernel
def attend_through_table(
    q: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]],
    k: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]],
    v: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]],
    tokens: int,
    table: npt.NDArray[np.int32],
    scale: np.float32,
    out: npt.NDArray[np.float32],
    executed: npt.NDArray[np.int64],
) -> None:
    """Compute scale * table[head, q k^T] v of one time step or several.

    Scores are formed as in `attend_scores_first`; each that is not zero is looked up, and what the table holds is added
    to the output once for every spike of v in its token and head, unless it is zero.

    Parameters
    ----------
    table : int32 array (heads, channels / heads + 1)
        ``table[:, 0]`` is 0: silence is not looked up.
    q, k, v, tokens, scale, out
        As for `attend_scores_first`.
    executed : int64 array (5, steps)
        Written: additions into the scores, which are coincidences of q and k; additions of table entries into the
        output; values of the output that are not zero; lookups, which are scores that are not zero; and those of which
        the table entry is not zero.
    """
    q_indptr, q_indices = q
    _, v_indices = v
    rows, channels = out.shape
    heads = len(table)
    d = channels // heads
    steps = rows // tokens
    listeners = np.empty((channels, tokens), np.int32)
    heard = np.empty(channels, np.int32)
    v_start = np.empty((tokens, heads + 1), np.int64)
    scores = np.zeros(tokens, np.int32)
    sums = np.zeros(d, np.int64)
    for step in range(steps):
        base = step * tokens
        met = 0
        added = 0
        emitted = 0
        lookups = 0
        kept = 0
        _index(k, v, base, listeners, heard, v_start)
        for i in range(tokens):
            e = q_indptr[base + i]
            stop = q_indptr[base + i + 1]
            for h in range(heads):
                first = h * d
                sums[:] = 0
                if e < stop and q_indices[e] < first + d:
                    while e < stop and q_indices[e] < first + d:
                        c = q_indices[e]
                        for n in range(heard[c]):
                            scores[listeners[c, n]] += 1
                        met += heard[c]
                        e += 1
                    for j in range(tokens):
                        score = scores[j]
                        if score != 0:
                            scores[j] = 0
                            lookups += 1
                            entry = table[h, score]
                            if entry != 0:
                                kept += 1
                                for s in range(v_start[j, h], v_start[j, h + 1]):
                                    sums[v_indices[s] - first] += entry
                                added += v_start[j, h + 1] - v_start[j, h]
                for c in range(d):
                    emitted += sums[c] != 0
                    out[base + i, first + c] = np.float32(sums[c]) * scale
        executed[0, step] = met
        executed[1, step] = added
        executed[2, step] = emitted
        executed[3, step] = lookups
        executed[4, step] = kept


@kernel
def attend_context_first(
    q: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]],
    k: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]],
    v: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]],
    tokens: int,
    heads: int,
    scale: np.float32,
    out: npt.NDArray[np.float32],
    executed: npt.NDArray[np.int64],
) -> None:
    """Compute scale * q (k^T v) of one time step or several.

    Each pair of spikes of k and v in one token and head adds 1 to the context matrix; each spike of q then adds the
    non-zero entries of its row of the context to the output.

    Parameters are those of `attend_scores_first`; executed are additions into the context, which are coincidences of k
    and v, additions of its entries into the output, and values of the output that are not zero.
    """
    q_indptr, q_indices = q
    k_indptr, k_indices = k
    v_indptr, v_indices = v
    rows, channels = out.shape
    d = channels // heads
    steps = rows // tokens
    context = np.empty((channels, d), np.int32)
    filled = np.empty(channels, np.int64)  # non-zero entries per row of the context
    sums = np.zeros(channels, np.int32)
    for step in range(steps):
        base = step * tokens
        met = 0
        added = 0
        emitted = 0
        context[:] = 0
        for j in range(tokens):
            v_begin = v_indptr[base + j]
            v_stop = v_indptr[base + j + 1]
            for e in range(k_indptr[base + j], k_indptr[base + j + 1]):
                c = k_indices[e]
                first = c // d * d
                while v_begin < v_stop and v_indices[v_begin] < first:
                    v_begin += 1
                s = v_begin
                while s < v_stop and v_indices[s] < first + d:
                    context[c, v_indices[s] - first] += 1
                    s += 1
                met += s - v_begin
        for c in range(channels):
            n = 0
            for i in range(d):
                n += context[c, i] != 0
            filled[c] = n
        for i in range(tokens):
            sums[:] = 0
            for e in range(q_indptr[base + i], q_indptr[base + i + 1]):
                c = q_indices[e]
                if filled[c] != 0:
                    first = c // d * d
                    for j in range(d):
                        sums[first + j] += context[c, j]
                    added += filled[c]
            for c in range(channels):
                emitted += sums[c] != 0
                out[base + i, c] = np.float32(sums[c]) * scale
        executed[0, step] = met
        executed[1, step] = added
        executed[2, step] = emitted
