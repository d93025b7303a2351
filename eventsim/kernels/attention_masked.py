"""Spiking self-attention by bit masks of tokens, head by head: integer arithmetic, for narrow heads.

A word tells in which 64 tokens a channel is active. What k and v have in common in two channels of a head is then an
entry of the context k^T v, the bits of one word and another; and the scores of a token that are not 0 belong to the
tokens in which k is active in any channel of q, which is a word again.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eventsim.kernels.bits import bits_of
from eventsim.kernels.jit import kernel

COMPILED = not numba.config.DISABLE_JIT
WORD = 64
LANES = 16
PLANES = 8
"""Bits of a count that are looked at together: enough for heads of 255 channels."""

_WIDE, _WORD, _FLOAT = ir.IntType(64), ir.IntType(32), ir.FloatType()
_SUMS, _FLOATS, _COUNTS = ir.VectorType(_WORD, LANES), ir.VectorType(_FLOAT, LANES), ir.VectorType(_WIDE, PLANES)


def _place(b: Any, base: Any, kind: Any, index: Any) -> Any:
    return b.gep(b.inttoptr(base, kind.as_pointer()), [index])


def _spread(b: Any, value: Any, kind: Any) -> Any:
    nowhere, first = ir.Constant(kind, ir.Undefined), ir.Constant(ir.VectorType(_WORD, kind.count), [0] * kind.count)
    return b.shuffle_vector(b.insert_element(nowhere, value, ir.Constant(_WORD, 0)), nowhere, first)


@intrinsic  # type: ignore[untyped-decorator]
def _add(typingctx: Any, sums: Any, row: Any, vectors: Any) -> Any:
    """Add a row of whole vectors to sums, for addresses."""

    def generate(context: Any, b: Any, _: Any, arguments: Any) -> Any:
        sums, row, vectors = arguments
        with cgutils.for_range(b, vectors) as loop:
            to = _place(b, sums, _SUMS, loop.index)
            b.store(b.add(b.load(to, align=4), b.load(_place(b, row, _SUMS, loop.index), align=4)), to, align=4)
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def _scale(typingctx: Any, sums: Any, scale: Any, out: Any, vectors: Any) -> Any:
    """Write whole vectors of sums times a scale, set the sums to 0, and return how many were not; for addresses."""

    def generate(context: Any, b: Any, _: Any, arguments: Any) -> Any:
        sums, scale, out, vectors = arguments
        nothing, factors = ir.Constant(_SUMS, [0] * LANES), _spread(b, scale, _FLOATS)
        emitted = cgutils.alloca_once_value(b, ir.Constant(_WIDE, 0))
        with cgutils.for_range(b, vectors) as loop:
            at = _place(b, sums, _SUMS, loop.index)
            vector = b.load(at, align=4)
            b.store(nothing, at, align=4)
            scaled = b.fmul(b.sitofp(vector, _FLOATS), factors)
            b.store(scaled, _place(b, out, _FLOATS, loop.index), align=4)
            bits = b.bitcast(b.icmp_signed("!=", vector, nothing), ir.IntType(LANES))
            b.store(b.add(b.load(emitted), b.zext(b.ctpop(bits), _WIDE)), emitted)
        return b.load(emitted)

    return types.int64(types.uintp, types.float32, types.uintp, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def _weigh(typingctx: Any, masks: Any, planes: Any, count: Any) -> Any:
    """Add up the counts of the tokens in each mask, of `PLANES` bits each, and set the masks to 0; for addresses."""

    def generate(context: Any, b: Any, _: Any, arguments: Any) -> Any:
        masks, planes, count = arguments
        kind = ir.FunctionType(_COUNTS, [_COUNTS])
        ctpop = cgutils.get_or_insert_function(b.module, kind, f"llvm.ctpop.v{PLANES}i64")
        total = cgutils.alloca_once_value(b, ir.Constant(_COUNTS, [0] * PLANES))
        with cgutils.for_range(b, count) as loop:
            at = _place(b, masks, _WIDE, loop.index)
            mask = _spread(b, b.load(at), _COUNTS)
            b.store(ir.Constant(_WIDE, 0), at)
            both = b.and_(b.load(_place(b, planes, _COUNTS, loop.index), align=8), mask)
            counted = b.shl(b.call(ctpop, [both]), ir.Constant(_COUNTS, list(range(PLANES))))
            b.store(b.add(b.load(total), counted), total)
        vector, sum_ = b.load(total), ir.Constant(_WIDE, 0)
        for lane in range(PLANES):
            sum_ = b.add(sum_, b.extract_element(vector, ir.Constant(_WORD, lane)))
        return sum_

    return types.int64(types.uintp, types.uintp, types.int64), generate


@kernel
def _mask(
    rows: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]],
    base: int,
    tokens: int,
    masks: npt.NDArray[np.uint64],
) -> None:
    """Write in which tokens each channel is active, ``masks[token // 64, channel]``, of rows that begin at `base`."""
    indptr, indices = rows
    masks[:] = 0
    for j in range(tokens):
        bit, line = np.uint64(1) << np.uint64(j % WORD), masks[j // WORD]
        for e in range(np.uint64(indptr[base + j]), np.uint64(indptr[base + j + 1])):
            line[np.uint64(indices[e])] |= bit


@kernel
def _count(masks: npt.NDArray[np.uint64], d: int, planes: npt.NDArray[np.uint64]) -> None:
    """Count the active channels of each head and token: bit b of the count of a token is in ``planes[head, word, b]``.

    Words are added bit by bit, each with what the bits below carry.
    """
    planes[:] = 0
    for w in range(len(masks)):
        for c in range(masks.shape[1]):
            carried, sums, b = masks[w, c], planes[c // d, w], np.uint64(0)
            while carried:
                before = sums[b]
                sums[b] = before ^ carried
                carried &= before
                b += np.uint64(1)


@kernel
def _meet(
    k: npt.NDArray[np.uint64], v: npt.NDArray[np.uint64], heard: npt.NDArray[np.int64], context: npt.NDArray[np.int32]
) -> None:
    """Write in how many tokens each channel of k is active, ``heard``, and together with each one of v of its head."""
    d = np.uint64(context.shape[1])  # what is unsigned needs no look at whether it counts from the end
    for h in range(np.uint64(len(heard)) // d):
        first = np.uint64(h) * d
        for c in range(first, first + d):
            mask = k[0, c]
            heard[c] = np.int64(bits_of(mask))
            for n in range(d):
                context[c, n] = np.int32(bits_of(v[0, first + n] & mask))
        for w in range(1, len(k)):
            for c in range(first, first + d):
                mask = k[w, c]
                heard[c] += np.int64(bits_of(mask))
                for n in range(d):
                    context[c, n] += np.int32(bits_of(v[w, first + n] & mask))


@kernel
def attend_masked(
    q: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]],
    k: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]],
    v: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]],
    tokens: int,
    heads: int,
    scale: np.float32,
    out: npt.NDArray[np.float32],
    executed: npt.NDArray[np.int64],
) -> None:
    """Do what `eventsim.kernels.attention.attend_scores_first` does, result and counts, in fewer steps.

    The product is taken through the context, row by row, which gives the same integers. The scores are counted, not
    formed.

    Parameters are those of `attend_scores_first`.
    """
    q_indptr, q_indices = q
    rows, channels = out.shape
    d, words = channels // heads, (tokens + WORD - 1) // WORD
    bits = PLANES
    while d >> bits:
        bits += PLANES
    by_vectors = COMPILED and d % LANES == 0
    k_masks, v_masks = np.empty((words, channels), np.uint64), np.empty((words, channels), np.uint64)
    planes, asked = np.empty((heads, words, bits), np.uint64), np.zeros((heads, words), np.uint64)
    head = np.empty(channels, np.uint32)
    for channel in range(channels):
        head[channel] = channel // d
    heard, context, sums = np.empty(channels, np.int64), np.empty((channels, d), np.int32), np.zeros(channels, np.int32)
    for step in range(rows // tokens):
        base = step * tokens
        met, added, emitted = 0, 0, 0
        _mask(k, base, tokens, k_masks)
        _mask(v, base, tokens, v_masks)
        _count(v_masks, d, planes)
        _meet(k_masks, v_masks, heard, context)
        for row in range(base, base + tokens):
            for e in range(np.uint64(q_indptr[row]), np.uint64(q_indptr[row + 1])):
                c = np.uint64(q_indices[e])
                if heard[c] == 0:
                    continue
                h = np.uint64(head[c])
                met += heard[c]
                for w in range(words):
                    asked[h, np.uint64(w)] |= k_masks[np.uint64(w), c]
                first = h * np.uint64(d)
                if by_vectors:
                    _add(sums.ctypes.data + 4 * first, context.ctypes.data + 4 * c * np.uint64(d), d // LANES)
                else:
                    for n in range(np.uint64(d)):
                        sums[first + n] += context[c, n]
            if COMPILED and bits == PLANES:
                added += _weigh(asked.ctypes.data, planes.ctypes.data, heads * words)
            else:
                for group in range(heads):
                    for w in range(words):
                        for b in range(bits):
                            added += int(bits_of(planes[group, w, b] & asked[group, w])) << b
                asked[:] = 0
            if by_vectors:
                emitted += _scale(sums.ctypes.data, scale, out.ctypes.data + 4 * row * channels, channels // LANES)
            else:
                for channel in range(channels):
                    emitted += sums[channel] != 0
                    out[row, channel] = np.float32(sums[channel]) * scale
                sums[:] = 0
        executed[step, 0] = met
        executed[step, 1] = added
        executed[step, 2] = emitted
