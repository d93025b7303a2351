"""A row of sums becomes a list of those that are not 0, where the processor can by 16 of them at a time."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eventsim.kernels.jit import kernel
from eventsim.kernels.processor import COMPRESSED

LANES = 16
SPARE = LANES
"""Entries that a list has more than there can be sums, as so many are written at a time."""
BY_VECTORS = COMPRESSED and not numba.config.DISABLE_JIT

_WIDE, _WORD, _FLOAT = ir.IntType(64), ir.IntType(32), ir.FloatType()
_WORDS, _FLOATS = ir.VectorType(_WORD, LANES), ir.VectorType(_FLOAT, LANES)


@intrinsic  # type: ignore[untyped-decorator]
def _compress(typingctx: Any, sums: Any, vectors: Any, indices: Any, values: Any) -> Any:
    """List what is not 0 in whole vectors of sums, set them to 0, and return how many are listed; for addresses."""
    address, size = types.uintp, types.int64

    def generate(context: Any, b: Any, _: Any, arguments: Any) -> Any:
        sums, vectors, indices, values = arguments
        bits, nothing = ir.VectorType(ir.IntType(1), LANES), ir.Constant(_FLOATS, [0.0] * LANES)

        def compressed(vector: Any, mask: Any, suffix: str) -> Any:
            kind = ir.FunctionType(vector.type, [vector.type, bits, vector.type])
            name = f"llvm.experimental.vector.compress.v{LANES}{suffix}"
            undefined = ir.Constant(vector.type, ir.Undefined)
            return b.call(cgutils.get_or_insert_function(b.module, kind, name), [vector, mask, undefined])

        def place(base: Any, index: Any, kind: Any) -> Any:
            return b.inttoptr(b.add(base, b.shl(index, ir.Constant(_WIDE, 2))), kind.as_pointer())

        entry, loop, end = b.block, b.append_basic_block("vectors"), b.append_basic_block("listed")
        nil = ir.Constant(_WIDE, 0)
        b.cbranch(b.icmp_signed(">", vectors, nil), loop, end)
        b.position_at_end(loop)
        index, kept, numbers = b.phi(_WIDE), b.phi(_WIDE), b.phi(_WORDS)
        at = place(sums, b.shl(index, ir.Constant(_WIDE, 4)), _FLOATS)
        vector = b.load(at, align=4)
        b.store(nothing, at, align=4)
        there = b.fcmp_unordered("!=", vector, nothing)
        b.store(compressed(numbers, there, "i32"), place(indices, kept, _WORDS), align=4)
        b.store(compressed(vector, there, "f32"), place(values, kept, _FLOATS), align=4)
        more = b.add(kept, b.zext(b.ctpop(b.bitcast(there, ir.IntType(LANES))), _WIDE))
        following = b.add(index, ir.Constant(_WIDE, 1))
        after = b.add(numbers, ir.Constant(_WORDS, [LANES] * LANES))
        begins = nil, nil, ir.Constant(_WORDS, list(range(LANES)))
        for phi, begin, new in zip((index, kept, numbers), begins, (following, more, after), strict=True):
            phi.add_incoming(begin, entry)
            phi.add_incoming(new, loop)
        b.cbranch(b.icmp_signed("<", following, vectors), loop, end)
        b.position_at_end(end)
        listed = b.phi(_WIDE)
        listed.add_incoming(nil, entry)
        listed.add_incoming(more, loop)
        return listed

    return size(address, size, address, address), generate


def whole_vectors(channels: int) -> int:
    """Return as many channels in whole vectors."""
    return -(-channels // LANES) * LANES


@kernel
def list_sums(
    sums: npt.NDArray[np.float32], n: int, indices: npt.NDArray[np.int32], values: npt.NDArray[np.float32]
) -> int:
    """List the sums that are not 0, and set them to 0.

    Parameters
    ----------
    sums : float32 array (channels,)
        In `whole_vectors`, of which what is too much is 0.
    n : int
        What is listed already.
    indices, values : int32 and float32 arrays
        Written from there on, with room for `SPARE` more than is listed in the end.

    Returns
    -------
    int
        What is listed now.
    """
    if BY_VECTORS:
        places = indices.ctypes.data + 4 * n, values.ctypes.data + 4 * n
        return n + int(_compress(sums.ctypes.data, len(sums) // LANES, places[0], places[1]))
    begin = end = np.uint64(n)
    for c in range(np.uint64(len(sums))):
        indices[end] = c
        end += np.uint64(sums[c] != 0)
    for e in range(begin, end):
        values[e] = sums[np.uint64(indices[e])]
    sums[:] = 0
    return int(end)
