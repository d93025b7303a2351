"""The vectors of float32 that the sums of a tile of output channels are made of: where they lie, and parts of one."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from eventsim.kernels.vectors import LANES, WORD, kind_of, whole_number

TILE = 96
VECTOR = kind_of(LANES)
_NO_LANES = ir.Constant(ir.VectorType(WORD, LANES), ir.Undefined)
_ALL_FIRST = ir.Constant(ir.VectorType(WORD, LANES), [0] * LANES)
_ORDER = ir.Constant(ir.VectorType(WORD, LANES), list(range(LANES)))
ALIGNED = ir.Constant(WORD, 4)


def pointer(builder: Any, address: Any, element: Any, offset: Any) -> Any:
    """Return a pointer to an element of an array that begins at an address."""
    return builder.gep(builder.inttoptr(address, element.as_pointer()), [offset])


def vectors(builder: Any, row: Any, count: int) -> list[Any]:
    """Return pointers to so many vectors that lie one behind the other."""
    places = [builder.gep(row, [whole_number(n * LANES)]) for n in range(count)]
    return [builder.bitcast(place, VECTOR.as_pointer()) for place in places]


def only(builder: Any, lanes: Any) -> Any:
    """Return a mask of the first lanes of a vector."""
    lane = builder.insert_element(_NO_LANES, builder.trunc(lanes, WORD), ir.Constant(WORD, 0))
    return builder.icmp_signed("<", _ORDER, builder.shuffle_vector(lane, _NO_LANES, _ALL_FIRST))


def masked(builder: Any, name: str, *arguments: Any) -> Any:
    """Load or store a vector by a mask."""
    result = ir.VoidType() if name == "store" else VECTOR
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    intrinsic_of = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.{name}.v{LANES}f32.p0v{LANES}f32")
    return builder.call(intrinsic_of, arguments)
