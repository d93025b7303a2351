"""What kernels of neurons share that advance a part of them at once, of which bits and counts are left."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from eventsim.kernels.dynamics import LANES
from eventsim.kernels.fetching import LINE, fetch
from eventsim.kernels.processor import MASKED

FLOATS = LANES if MASKED else 8
"""Neurons of a part, which is advanced at once: where the lanes of a register have to be told one by one, a byte."""

_WIDE, _WORD = ir.IntType(64), ir.IntType(32)
_COUNTS = _WIDE if MASKED else ir.VectorType(_WORD, FLOATS)
NOTHING_COUNTED = ir.Constant(_COUNTS, None)


def fetch_ahead(b: Any, x: Any, offset: Any, vectors: Any, neurons: int) -> None:
    """Ask for what is needed, in this step, of so many neurons of the next stretch, which is as long as this one.

    What arrives lies elsewhere for each step, so that no processor foresees the next piece; potentials were left long
    ago.
    """
    ahead = b.add(offset, b.mul(vectors, ir.Constant(_WIDE, 4 * LANES)))
    for begin in range(0, 4 * neurons, LINE):
        fetch(b, b.add(x, b.add(ahead, ir.Constant(_WIDE, begin))))


def keep_bits(b: Any, words: Any, part: Any, spikes: Any) -> None:
    """Write down who fired of a part, the bits of which follow those of the part before."""
    bits = ir.IntType(FLOATS)
    b.store(b.bitcast(spikes, bits), b.gep(b.inttoptr(words, bits.as_pointer()), [part]), align=1)


def count(b: Any, totals: Any, lanes: Any) -> Any:
    """Add what lanes are set to totals: their number, or to that of each lane, where it takes longer to count bits."""
    if MASKED:
        return b.add(totals, b.zext(b.ctpop(b.bitcast(lanes, ir.IntType(FLOATS))), _WIDE))
    return b.add(totals, b.zext(lanes, _COUNTS))


def total(b: Any, totals: Any) -> Any:
    """Add up the totals."""
    if MASKED:
        return totals
    name = f"llvm.vector.reduce.add.v{FLOATS}i32"
    add_up = cgutils.get_or_insert_function(b.module, ir.FunctionType(_WORD, [_COUNTS]), name)
    return b.zext(b.call(add_up, [totals]), _WIDE)
