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
    executed : int64 array (steps, 3)
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
        executed[step, 0] = met
        executed[step, 1] = added
        executed[step, 2] = emitted


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
    executed : int64 array (steps, 5)
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
        executed[step, 0] = met
        executed[step, 1] = added
        executed[step, 2] = emitted
        executed[step, 3] = lookups
        executed[step, 4] = kept


@kernel
def _add_up_context(
    k: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]],
    v: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]],
    base: int,
    head: npt.NDArray[np.uint32],
    held: npt.NDArray[np.int32],
    spread: npt.NDArray[np.uint8],
    heard: npt.NDArray[np.int64],
    context: npt.NDArray[np.int32],
) -> None:
    """Add up k^T v of the step whose rows begin at `base`: the row of v of a token, once for each spike of k in it.

    ``head[c]`` is the head of channel c. Written: the spikes of v in each head and token, ``held``; v itself,
    ``spread[token, c]``; in how many tokens k is active in each channel, ``heard``; and ``context[c]``, a row of as
    many channels as a head has.
    """
    k_indptr, k_indices = k
    v_indptr, v_indices = v
    d = np.uint64(context.shape[1])  # what is unsigned needs no look at whether it counts from the end
    held[:] = 0
    spread[:] = 0
    heard[:] = 0
    context[:] = 0
    for j in range(len(spread)):
        for e in range(v_indptr[base + j], v_indptr[base + j + 1]):
            at = np.uint64(v_indices[e])
            spread[j, at] = 1
            held[head[at], j] += 1
        for e in range(k_indptr[base + j], k_indptr[base + j + 1]):
            at = np.uint64(k_indices[e])
            heard[at] += 1
            first = head[at] * d
            for n in range(d):
                context[at, n] += spread[j, first + n]


@kernel
def _read_context(
    q: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]],
    row: int,
    head: npt.NDArray[np.uint32],
    heard: npt.NDArray[np.int64],
    context: npt.NDArray[np.int32],
    scale: np.float32,
    sums: npt.NDArray[np.int32],
    out: npt.NDArray[np.float32],
) -> int:
    """Write one row of scale * q (k^T v) to `out`; return how many of its values are not zero. `sums` is scratch."""
    q_indptr, q_indices = q
    d = np.uint64(context.shape[1])
    sums[:] = 0
    for e in range(q_indptr[row], q_indptr[row + 1]):
        at = np.uint64(q_indices[e])
        if heard[at] != 0:
            first = head[at] * d
            for n in range(d):
                sums[first + n] += context[at, n]
    emitted = 0
    for c in range(len(sums)):
        emitted += sums[c] != 0
        out[row, c] = np.float32(sums[c]) * scale
    return emitted


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

    Each pair of spikes of k and v in one token and head adds 1 to the context matrix, all those of one spike of k at
    once; each spike of q then adds the entries of its row of the context to the output.

    Parameters are those of `attend_scores_first`; executed are additions into the context, which are coincidences of k
    and v, additions of its non-zero entries into the output, and values of the output that are not zero.
    """
    q_indptr, q_indices = q
    k_indptr, k_indices = k
    rows, channels = out.shape
    d = channels // heads
    head = np.empty(channels, np.uint32)
    for c in range(channels):
        head[c] = c // d
    held = np.empty((heads, tokens), np.int32)
    spread = np.empty((tokens, channels), np.uint8)
    heard = np.empty(channels, np.int64)
    context = np.empty((channels, d), np.int32)
    filled = np.empty(channels, np.int64)  # non-zero entries per row of the context
    sums = np.empty(channels, np.int32)
    for step in range(rows // tokens):
        base = step * tokens
        met = 0
        added = 0
        emitted = 0
        _add_up_context(k, v, base, head, held, spread, heard, context)
        for j in range(tokens):
            for e in range(k_indptr[base + j], k_indptr[base + j + 1]):
                met += held[head[np.uint64(k_indices[e])], j]
        for c in range(channels):
            n = 0
            for i in range(d):
                n += context[c, i] != 0
            filled[c] = n
        for i in range(tokens):
            emitted += _read_context(q, base + i, head, heard, context, scale, sums, out)
            for e in range(q_indptr[base + i], q_indptr[base + i + 1]):
                added += filled[np.uint64(q_indices[e])]
        executed[step, 0] = met
        executed[step, 1] = added
        executed[step, 2] = emitted
