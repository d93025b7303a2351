"""A row of sums becomes a list of those that are not 0, a vector at a time where the processor moves lanes.

Some move those that are set next to each other; others move each to the place that a vector says, which is looked up.
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

from eventsim.kernels.bits import LISTED
from eventsim.kernels.jit import kernel
from eventsim.kernels.processor import COMPRESSED, FEATURES
from eventsim.kernels.vectors import spread

SPARE = 16
"""Entries that a list has more than there can be sums, as so many are written at a time."""
LANES = SPARE if COMPRESSED else 8
BY_VECTORS = (COMPRESSED or "avx2" in FEATURES) and not numba.config.DISABLE_JIT

_WIDE, _WORD, _BYTE, _FLOAT = ir.IntType(64), ir.IntType(32), ir.IntType(8), ir.FloatType()
_WORDS, _FLOATS = ir.VectorType(_WORD, LANES), ir.VectorType(_FLOAT, LANES)


def _next_to_each_other(b: Any, vector: Any, there: Any, listed: Any) -> tuple[Any, Any]:
    """Return the lanes of a vector that are there, and their numbers, next to each other."""
    numbers = ir.Constant(_WORDS, list(range(LANES)))
    if not COMPRESSED:
        entry = b.add(listed, b.shl(b.zext(b.bitcast(there, _BYTE), _WIDE), ir.Constant(_WIDE, 3)))
        bytes_ = b.load(b.inttoptr(entry, ir.VectorType(_BYTE, LANES).as_pointer()), align=1)
        places = b.zext(bytes_, _WORDS)
        kind = ir.FunctionType(_FLOATS, [_FLOATS, _WORDS])
        return b.call(cgutils.get_or_insert_function(b.module, kind, "llvm.x86.avx2.permps"), [vector, places]), places
    bits, moved = ir.VectorType(ir.IntType(1), LANES), []
    for each, suffix in ((vector, "f32"), (numbers, "i32")):
        kind = ir.FunctionType(each.type, [each.type, bits, each.type])
        name = f"llvm.experimental.vector.compress.v{LANES}{suffix}"
        compress = cgutils.get_or_insert_function(b.module, kind, name)
        moved.append(b.call(compress, [each, there, ir.Constant(each.type, ir.Undefined)]))
    return moved[0], moved[1]


@intrinsic  # type: ignore[untyped-decorator]
def _compress(typingctx: Any, sums: Any, vectors: Any, listed: Any, indices: Any, values: Any) -> Any:
    """List what is not 0 in whole vectors of sums, set them to 0, and return how many are listed.

    Arguments are addresses, that of `LISTED` among them, and how many vectors there are.
    """
    address, size = types.uintp, types.int64

    def generate(context: Any, b: Any, _: Any, arguments: Any) -> Any:
        sums, vectors, listed, indices, values = arguments
        nothing = ir.Constant(_FLOATS, [0.0] * LANES)

        def place(base: Any, index: Any, kind: Any) -> Any:
            return b.inttoptr(b.add(base, b.shl(index, ir.Constant(_WIDE, 2))), kind.as_pointer())

        entry, loop, end = b.block, b.append_basic_block("vectors"), b.append_basic_block("listed")
        nil = ir.Constant(_WIDE, 0)
        b.cbranch(b.icmp_signed(">", vectors, nil), loop, end)
        b.position_at_end(loop)
        index, kept = b.phi(_WIDE), b.phi(_WIDE)
        first = b.mul(index, ir.Constant(_WIDE, LANES))
        at = place(sums, first, _FLOATS)
        vector = b.load(at, align=4)
        b.store(nothing, at, align=4)
        there = b.fcmp_unordered("!=", vector, nothing)
        moved, numbers = _next_to_each_other(b, vector, there, listed)
        b.store(b.add(numbers, spread(b, b.trunc(first, _WORD), LANES)), place(indices, kept, _WORDS), align=4)
        b.store(moved, place(values, kept, _FLOATS), align=4)
        more = b.add(kept, b.zext(b.ctpop(b.bitcast(there, ir.IntType(LANES))), _WIDE))
        following = b.add(index, ir.Constant(_WIDE, 1))
        for phi, new in ((index, following), (kept, more)):
            phi.add_incoming(nil, entry)
            phi.add_incoming(new, loop)
        b.cbranch(b.icmp_signed("<", following, vectors), loop, end)
        b.position_at_end(end)
        found = b.phi(_WIDE)
        found.add_incoming(nil, entry)
        found.add_incoming(more, loop)
        return found

    return size(address, size, address, address, address), generate


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
        return n + int(_compress(sums.ctypes.data, len(sums) // LANES, LISTED.ctypes.data, places[0], places[1]))
    begin = end = np.uint64(n)
    for c in range(np.uint64(len(sums))):
        indices[end] = c
        end += np.uint64(sums[c] != 0)
    for e in range(begin, end):
        values[e] = sums[np.uint64(indices[e])]
    sums[:] = 0
    return int(end)
