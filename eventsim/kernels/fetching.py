"""Asking for a cache line before it is needed."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

LINE = 64
"""Bytes of a cache line."""
FIRST_LEVEL, SECOND_LEVEL = 3, 2
"""The caches that a line is brought into, as LLVM numbers them."""

_WORD, _ADDRESS = ir.IntType(32), ir.IntType(8).as_pointer()


def fetch(b: Any, place: Any, level: int = SECOND_LEVEL) -> None:
    """Build the request for the cache line at a pointer, or at an address."""
    kind = ir.FunctionType(ir.VoidType(), [_ADDRESS, _WORD, _WORD, _WORD])
    prefetch = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0i8")
    at = b.bitcast(place, _ADDRESS) if place.type.is_pointer else b.inttoptr(place, _ADDRESS)
    b.call(prefetch, [at, *(ir.Constant(_WORD, option) for option in (0, level, 1))])  # to read; how soon; data
