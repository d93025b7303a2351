"""The vectors of float32 that the sums of a tile of output channels are made of: where they lie, and parts of one."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from eventsim.kernels.vectors import LANES, WORD, kind_of, spread, whole_number

TILE = 96
VECTOR = kind_of(LANES)
ALIGNED = ir.Constant(WORD, 4)


def pointer(builder: Any, address: Any, element: Any, offset: Any) -> Any:
    """Return a pointer to an element of an array that begins at an address."""
    return builder.gep(builder.inttoptr(address, element.as_pointer()), [offset])


def vectors(builder: Any, row: Any, count: int) -> list[Any]:
    """Return pointers to so many vectors that lie one behind the other."""
    places = [builder.gep(row, [whole_number(n * LANES)]) for n in range(count)]
    return [builder.bitcast(place, VECTOR.as_pointer()) for place in places]


def only(builder: Any, lanes: Any, count: int = LANES) -> Any:
    """Return a mask of the first lanes of a vector."""
    order = ir.Constant(ir.VectorType(WORD, count), list(range(count)))
    return builder.icmp_signed("<", order, spread(builder, builder.trunc(lanes, WORD), count))


def load_masked(builder: Any, place: Any, mask: Any, otherwise: Any) -> Any:
    """Load the lanes of a vector of floats that a mask names; the others are those of another vector."""
    return _masked(builder, "load", otherwise.type, otherwise.type, place, ALIGNED, mask, otherwise)


def store_masked(builder: Any, vector: Any, place: Any, mask: Any) -> None:
    """Store the lanes of a vector of floats that a mask names."""
    _masked(builder, "store", ir.VoidType(), vector.type, vector, place, ALIGNED, mask)


def _masked(builder: Any, name: str, result: Any, vector: Any, *arguments: Any) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    whole_name = f"llvm.masked.{name}.v{vector.count}f32.p0v{vector.count}f32"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, whole_name), arguments)
