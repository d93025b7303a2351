"""Products and sums of real values by vectors, for the kernels of layers that are not spiking.

Each function here has one order of additions, which depends on the sizes that it is given and on nothing else. A
product and the sum that it goes into are rounded once where the processor does both at once, and twice where it cannot:
that is all that differs from one processor to another.

The vectors are LLVM's, which any target lowers to what it has. Uncompiled, plain loops do the same in another order.
Addresses reach beyond no array: what is not a whole vector is taken by shorter ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eventsim.kernels.jit import kernel

LANES = 16
ROWS = 6
"""Rows of a product whose sums stay in registers, with 16 lanes each, where there are 16 registers of 8."""
PIECES = (16, 8, 4, 1)
"""Lanes of the vectors that share what is no whole number of them."""
COMPILED = not numba.config.DISABLE_JIT
WIDE, WORD, FLOAT = ir.IntType(64), ir.IntType(32), ir.FloatType()


def whole_number(value: int) -> Any:
    """Return an integer of 64 bits."""
    return ir.Constant(WIDE, value)


def kind_of(lanes: int) -> Any:
    """Return the type of a vector of floats, or of one."""
    return FLOAT if lanes == 1 else ir.VectorType(FLOAT, lanes)


def everywhere(value: float, lanes: int) -> Any:
    """Return a number in every lane."""
    return ir.Constant(kind_of(lanes), value if lanes == 1 else [value] * lanes)


def place_of(b: Any, base: Any, offset: Any, lanes: int) -> Any:
    """Return a pointer to a vector, so many floats behind an address."""
    return b.bitcast(b.gep(b.inttoptr(base, FLOAT.as_pointer()), [offset]), kind_of(lanes).as_pointer())


def load(b: Any, base: Any, offset: Any, lanes: int) -> Any:
    """Return a vector that lies so many floats behind an address."""
    return b.load(place_of(b, base, offset, lanes), align=4)


def spread(b: Any, value: Any, lanes: int) -> Any:
    """Return a vector of one number, of whatever type."""
    if lanes == 1:
        return value
    nowhere = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = b.insert_element(nowhere, value, ir.Constant(WORD, 0))
    return b.shuffle_vector(first, nowhere, ir.Constant(ir.VectorType(WORD, lanes), [0] * lanes))


def multiply_add(b: Any, x: Any, y: Any, z: Any, lanes: int) -> Any:
    """Return ``x * y + z``."""
    kind = kind_of(lanes)
    name = "llvm.fmuladd.f32" if lanes == 1 else f"llvm.fmuladd.v{lanes}f32"
    function = cgutils.get_or_insert_function(b.module, ir.FunctionType(kind, [kind] * 3), name)
    return b.call(function, [x, y, z])


def halves(b: Any, vector: Any, lanes: int) -> tuple[Any, Any]:
    """Return the lower lanes of a vector and the upper ones."""
    half = lanes // 2
    index = ir.VectorType(WORD, half)
    parts = [
        b.shuffle_vector(vector, vector, ir.Constant(index, list(range(first, first + half)))) for first in (0, half)
    ]
    return (parts[0], parts[1]) if half > 1 else tuple(b.extract_element(p, ir.Constant(WORD, 0)) for p in parts)


def greater(b: Any, x: Any, y: Any) -> Any:
    """Return the greater of two in each lane."""
    return b.select(b.fcmp_ordered(">", x, y), x, y)


def fold(b: Any, vector: Any, lanes: int, join: Callable[[Any, Any], Any]) -> Any:
    """Join all lanes to one number, halves first."""
    while lanes > 1:
        vector, lanes = join(*halves(b, vector, lanes)), lanes // 2
    return vector


def carry(b: Any, count: Any, begun: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
    """Build a loop that carries values from one turn to the next; return what the last turn leaves."""
    entry, turn, end = b.block, b.append_basic_block("turn"), b.append_basic_block("done")
    b.cbranch(b.icmp_signed(">", count, whole_number(0)), turn, end)
    b.position_at_end(turn)
    index, carried = b.phi(WIDE), [b.phi(value.type) for value in begun]
    made = body(index, carried)
    following = b.add(index, whole_number(1))
    for phi, first, new in zip([index, *carried], [whole_number(0), *begun], [following, *made], strict=True):
        phi.add_incoming(first, entry)
        phi.add_incoming(new, b.block)
    last = b.block
    b.cbranch(b.icmp_signed("<", following, count), turn, end)
    b.position_at_end(end)
    left = [b.phi(value.type) for value in begun]
    for phi, first, new in zip(left, begun, made, strict=True):
        phi.add_incoming(first, entry)
        phi.add_incoming(new, last)
    return left


@intrinsic  # type: ignore[untyped-decorator]
def _product(  # noqa: PLR0917
    typingctx: Any, a: Any, a_pitch: Any, b: Any, b_pitch: Any, c: Any, c_pitch: Any, depth: Any, vectors: Any,
    factor: Any,
) -> Any:  # fmt: skip
    """Multiply `ROWS` rows by a matrix; arguments are addresses, and floats from a row to the next."""
    address, size = types.uintp, types.int64
    signature = types.void(address, size, address, size, address, size, size, size, types.float32)

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        a, a_pitch, b, b_pitch, c, c_pitch, depth, vectors, factor = arguments
        q = builder
        factors = spread(q, factor, LANES)
        begins = [place_of(q, a, q.mul(whole_number(r), a_pitch), 1) for r in range(ROWS)]
        with cgutils.for_range(q, vectors) as vector:
            column = q.mul(vector.index, whole_number(LANES))

            def turn(k: Any, sums: list[Any], column: Any = column) -> list[Any]:
                row = load(q, b, q.add(q.mul(k, b_pitch), column), LANES)
                ones = [q.load(q.gep(begin, [k]), align=4) for begin in begins]
                return [
                    multiply_add(q, spread(q, one, LANES), row, total, LANES)
                    for one, total in zip(ones, sums, strict=True)
                ]

            for r, total in enumerate(carry(q, depth, [everywhere(0.0, LANES)] * ROWS, turn)):
                to = place_of(q, c, q.add(q.mul(whole_number(r), c_pitch), column), LANES)
                q.store(q.fmul(total, factors), to, align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def _transform(typingctx: Any, rows: Any, count: Any, width: Any, vector: Any, out: Any) -> Any:
    """Do what `transform` does without a bias, for addresses."""
    address, size = types.uintp, types.int64
    signature = types.void(address, size, size, address, address)

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        q, (rows, count, width, vector, out) = builder, arguments
        mask = {lanes: q.and_(width, whole_number(-lanes)) for lanes in PIECES}  # where so many lanes end

        def piece(lanes: int, row: Any, at: Any, total: Any) -> Any:
            x, y = load(q, rows, q.add(row, at), lanes), load(q, vector, at, lanes)
            return multiply_add(q, x, y, total, lanes)

        with cgutils.for_range(q, count) as loop:
            row, total = q.mul(loop.index, width), everywhere(0.0, LANES)

            def turn(index: Any, sums: list[Any], row: Any = row) -> list[Any]:
                return [piece(LANES, row, q.mul(index, whole_number(LANES)), sums[0])]

            (total,) = carry(q, q.lshr(width, whole_number(4)), [total], turn)
            for lanes in (8, 4):
                total = q.fadd(*halves(q, total, 2 * lanes))
                before, more, end = q.block, q.append_basic_block("piece"), q.append_basic_block("whole")
                there = q.icmp_signed("<", mask[2 * lanes], mask[lanes])
                q.cbranch(there, more, end)
                q.position_at_end(more)
                added = piece(lanes, row, mask[2 * lanes], total)
                q.branch(end)
                q.position_at_end(end)
                total, without = q.phi(total.type), total
                total.add_incoming(without, before)
                total.add_incoming(added, more)
            total = fold(q, total, 4, q.fadd)

            def single(index: Any, sums: list[Any], row: Any = row) -> list[Any]:
                return [piece(1, row, q.add(mask[4], index), sums[0])]

            (total,) = carry(q, q.sub(width, mask[4]), [total], single)
            q.store(total, place_of(q, out, loop.index, 1), align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def _weigh(typingctx: Any, weights: Any, rows: Any, pitch: Any, count: Any, width: Any, out: Any) -> Any:
    """Do what `weigh` does, for addresses."""
    address, size = types.uintp, types.int64
    signature = types.void(address, address, size, size, size, address)

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        q, (weights, rows, pitch, count, width, out) = builder, arguments
        at = whole_number(0)
        for lanes in PIECES:
            many = q.sdiv(q.sub(width, at), whole_number(lanes))
            with cgutils.for_range(q, many) as piece:
                column = q.add(at, q.mul(piece.index, whole_number(lanes)))

                def turn(row: Any, sums: list[Any], lanes: int = lanes, column: Any = column) -> list[Any]:
                    one = spread(q, load(q, weights, row, 1), lanes)
                    return [
                        multiply_add(q, one, load(q, rows, q.add(q.mul(row, pitch), column), lanes), sums[0], lanes)
                    ]

                (total,) = carry(q, count, [everywhere(0.0, lanes)], turn)
                q.store(total, place_of(q, out, column, lanes), align=4)
            at = q.add(at, q.mul(many, whole_number(lanes)))
        return context.get_dummy_value()

    return signature, generate


@kernel
def lines(rows: int, width: int) -> npt.NDArray[np.float32]:
    """Return zeros (rows, width) that begin on a cache line, as each row does that is of whole vectors."""
    room = np.zeros(rows * width + LANES, np.float32)
    start = -(np.int64(room.ctypes.data) // 4) % LANES
    return room[start : start + rows * width].reshape((rows, width))


@kernel
def product(
    a: npt.NDArray[np.float32],
    b: npt.NDArray[np.float32],
    c: npt.NDArray[np.float32],
    factor: np.float32,
) -> None:
    """Write ``factor * a @ b`` to `c`.

    Of the `ROWS` rows of `a` is read what the rows of `b` are for; these, and those of `c`, are of whole vectors.
    """
    if COMPILED:
        _product(
            a.ctypes.data, a.shape[1], b.ctypes.data, b.shape[1], c.ctypes.data, c.shape[1], len(b),
            b.shape[1] // LANES, factor,
        )  # fmt: skip
    else:
        for r in range(ROWS):
            for j in range(b.shape[1]):
                total = np.float32(0)
                for k in range(len(b)):
                    total += a[r, k] * b[k, j]
                c[r, j] = factor * total


@kernel
def transform(
    rows: npt.NDArray[np.float32],
    vector: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
) -> None:
    """Write ``rows @ vector + bias`` to `out`; the bias is of each row, or of all."""
    if COMPILED:
        _transform(rows.ctypes.data, len(rows), rows.shape[1], vector.ctypes.data, out.ctypes.data)
    else:
        for row in range(len(rows)):
            out[row] = 0
            for c in range(rows.shape[1]):
                out[row] += rows[row, c] * vector[c]
    if len(bias) == 1:
        only = bias[0]
        for row in range(len(rows)):
            out[row] += only
    else:
        for row in range(len(rows)):
            out[row] += bias[row]


@kernel
def weigh(weights: npt.NDArray[np.float32], rows: npt.NDArray[np.float32], out: npt.NDArray[np.float32]) -> None:
    """Write ``weights @ rows`` to `out`, added up in the order of the rows."""
    if COMPILED:
        width = rows.shape[1]
        _weigh(weights.ctypes.data, rows.ctypes.data, width, len(weights), width, out.ctypes.data)
    else:
        for c in range(rows.shape[1]):
            out[c] = np.float32(0)
        for row in range(len(weights)):
            for c in range(rows.shape[1]):
                out[c] += weights[row] * rows[row, c]
