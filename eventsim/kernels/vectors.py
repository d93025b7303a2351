"""Products, sums and exponentials of real values by vectors, for the kernels of layers that are not spiking.

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

_WIDE, _WORD, _FLOAT = ir.IntType(64), ir.IntType(32), ir.FloatType()

LOWEST, HIGHEST = -87.0, 88.0
LOG2_E, LN2_HIGH, LN2_LOW = 1.4426950408889634, 0.693359375, -2.12194440e-4
TERMS = (0.0013814539415761828, 0.00836874544620514, 0.04166838899254799, 0.1666652113199234, 0.4999999403953552)
"""Of ``(exp(r) - 1 - r) / r^2`` for ``|r| <= ln 2 / 2``, the highest power first: fitted here, off by 3e-9 at most."""
ROUNDING = 1.5 * 2.0**23
"""Added to a number below 2^22, it leaves the nearest integer in the lowest bits."""


def _number(value: int) -> Any:
    return ir.Constant(_WIDE, value)


def _kind(lanes: int) -> Any:
    return _FLOAT if lanes == 1 else ir.VectorType(_FLOAT, lanes)


def _all(value: float, lanes: int) -> Any:
    """Return a number in every lane."""
    return ir.Constant(_kind(lanes), value if lanes == 1 else [value] * lanes)


def _place(b: Any, base: Any, offset: Any, lanes: int) -> Any:
    """Return a pointer to a vector, so many floats behind an address."""
    return b.bitcast(b.gep(b.inttoptr(base, _FLOAT.as_pointer()), [offset]), _kind(lanes).as_pointer())


def _load(b: Any, base: Any, offset: Any, lanes: int) -> Any:
    return b.load(_place(b, base, offset, lanes), align=4)


def _spread(b: Any, value: Any, lanes: int) -> Any:
    """Return a vector of one number."""
    if lanes == 1:
        return value
    nowhere = ir.Constant(_kind(lanes), ir.Undefined)
    first = b.insert_element(nowhere, value, ir.Constant(_WORD, 0))
    return b.shuffle_vector(first, nowhere, ir.Constant(ir.VectorType(_WORD, lanes), [0] * lanes))


def _multiply_add(b: Any, x: Any, y: Any, z: Any, lanes: int) -> Any:
    """Return ``x * y + z``."""
    kind = _kind(lanes)
    name = "llvm.fmuladd.f32" if lanes == 1 else f"llvm.fmuladd.v{lanes}f32"
    function = cgutils.get_or_insert_function(b.module, ir.FunctionType(kind, [kind] * 3), name)
    return b.call(function, [x, y, z])


def _halves(b: Any, vector: Any, lanes: int) -> tuple[Any, Any]:
    half = lanes // 2
    index = ir.VectorType(_WORD, half)
    parts = [
        b.shuffle_vector(vector, vector, ir.Constant(index, list(range(first, first + half)))) for first in (0, half)
    ]
    return (parts[0], parts[1]) if half > 1 else tuple(b.extract_element(p, ir.Constant(_WORD, 0)) for p in parts)


def _greater(b: Any, x: Any, y: Any) -> Any:
    return b.select(b.fcmp_ordered(">", x, y), x, y)


def _fold(b: Any, vector: Any, lanes: int, join: Callable[[Any, Any], Any]) -> Any:
    """Join all lanes to one number, halves first."""
    while lanes > 1:
        vector, lanes = join(*_halves(b, vector, lanes)), lanes // 2
    return vector


def _loop(b: Any, count: Any, begun: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
    """Build a loop that carries values from one turn to the next; return what the last turn leaves."""
    entry, turn, end = b.block, b.append_basic_block("turn"), b.append_basic_block("done")
    b.cbranch(b.icmp_signed(">", count, _number(0)), turn, end)
    b.position_at_end(turn)
    index, carried = b.phi(_WIDE), [b.phi(value.type) for value in begun]
    made = body(index, carried)
    following = b.add(index, _number(1))
    for phi, first, new in zip([index, *carried], [_number(0), *begun], [following, *made], strict=True):
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


def _exponential(b: Any, x: Any, lanes: int, positive: bool) -> Any:
    """Return exp(x): 0 below `LOWEST` and infinity above `HIGHEST`, which only `positive` numbers are."""

    def many(value: float) -> Any:
        return _all(value, lanes)

    words = ir.VectorType(_WORD, lanes)
    within = b.select(b.fcmp_ordered("<", x, many(LOWEST)), many(LOWEST), x)
    if positive:
        within = b.select(b.fcmp_ordered(">", within, many(HIGHEST)), many(HIGHEST), within)
    shifted = b.fadd(b.fmul(within, many(LOG2_E)), many(ROUNDING))
    power = b.fsub(shifted, many(ROUNDING))
    r = _multiply_add(b, power, many(-LN2_HIGH), within, lanes)
    r = _multiply_add(b, power, many(-LN2_LOW), r, lanes)
    terms = many(TERMS[0])
    for term in TERMS[1:]:
        terms = _multiply_add(b, terms, r, many(term), lanes)
    near = _multiply_add(b, terms, b.fmul(r, r), b.fadd(r, many(1.0)), lanes)
    exponent = b.add(b.bitcast(shifted, words), ir.Constant(words, [127] * lanes))
    scale = b.bitcast(b.shl(exponent, ir.Constant(words, [23] * lanes)), _kind(lanes))
    result = b.fmul(near, scale)
    result = b.select(b.fcmp_ordered("<", x, many(LOWEST)), many(0.0), result)
    return b.select(b.fcmp_ordered(">", x, many(HIGHEST)), many(float("inf")), result) if positive else result


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
        factors = _spread(q, factor, LANES)
        begins = [_place(q, a, q.mul(_number(r), a_pitch), 1) for r in range(ROWS)]
        with cgutils.for_range(q, vectors) as vector:
            column = q.mul(vector.index, _number(LANES))

            def turn(k: Any, sums: list[Any], column: Any = column) -> list[Any]:
                row = _load(q, b, q.add(q.mul(k, b_pitch), column), LANES)
                ones = [q.load(q.gep(begin, [k]), align=4) for begin in begins]
                return [
                    _multiply_add(q, _spread(q, one, LANES), row, total, LANES)
                    for one, total in zip(ones, sums, strict=True)
                ]

            for r, total in enumerate(_loop(q, depth, [_all(0.0, LANES)] * ROWS, turn)):
                to = _place(q, c, q.add(q.mul(_number(r), c_pitch), column), LANES)
                q.store(q.fmul(total, factors), to, align=4)
        return context.get_dummy_value()

    return signature, generate


def _softening(rows: int) -> Any:
    """Make what `soften` does with so many rows at once, so that none waits; arguments are addresses and floats."""

    @intrinsic  # type: ignore[untyped-decorator]
    def soften(typingctx: Any, base: Any, pitch: Any, width: Any, totals: Any) -> Any:
        signature = types.void(types.uintp, types.int64, types.int64, types.uintp)

        def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
            q, (base, pitch, width, totals) = builder, arguments
            lowest = _all(float("-inf"), LANES)
            whole, rest = q.lshr(width, _number(4)), q.and_(width, _number(LANES - 1))
            lanes = ir.VectorType(_WIDE, LANES)
            nowhere, first = ir.Constant(lanes, ir.Undefined), ir.Constant(ir.VectorType(_WORD, LANES), [0] * LANES)
            last = q.shuffle_vector(q.insert_element(nowhere, rest, ir.Constant(_WORD, 0)), nowhere, first)
            inside = q.icmp_signed("<", ir.Constant(lanes, list(range(LANES))), last)
            begins = [q.mul(pitch, _number(row)) for row in range(rows)]

            def of(index: Any, begin: Any) -> Any:
                return _place(q, base, q.add(begin, q.mul(index, _number(LANES))), LANES)

            def all_of(begun: list[Any], one: Callable[[Any, Any, Any], Any]) -> list[Any]:
                """Let every vector of every row change what is carried; in the last one, what is behind is lowest."""

                def turn(index: Any, carried: list[Any]) -> list[Any]:
                    places = [of(index, begin) for begin in begins]
                    return [
                        one(n, (p, q.load(p, align=4)), c) for n, (p, c) in enumerate(zip(places, carried, strict=True))
                    ]

                def rest_of(_: Any, carried: list[Any]) -> list[Any]:
                    places = [of(whole, begin) for begin in begins]
                    given = [q.select(inside, q.load(place, align=4), lowest) for place in places]
                    return [
                        one(n, pair, c)
                        for n, (pair, c) in enumerate(zip(zip(places, given, strict=True), carried, strict=True))
                    ]

                there = q.zext(q.icmp_signed(">", rest, _number(0)), _WIDE)
                return _loop(q, there, _loop(q, whole, begun, turn), rest_of)

            peaks = all_of([lowest] * rows, lambda n, given, found: _greater(q, given[1], found))
            peaks = [_spread(q, _fold(q, peak, LANES, lambda x, y: _greater(q, x, y)), LANES) for peak in peaks]

            def raise_(n: Any, given: Any, total: Any) -> Any:
                power = _exponential(q, q.fsub(given[1], peaks[n]), LANES, False)
                q.store(power, given[0], align=4)
                return q.fadd(total, power)

            for row, total in enumerate(all_of([_all(0.0, LANES)] * rows, raise_)):
                q.store(_fold(q, total, LANES, q.fadd), _place(q, totals, _number(row), 1), align=4)
            return context.get_dummy_value()

        return signature, generate

    return soften


_soften_one, _soften_rows = _softening(1), _softening(ROWS)


@intrinsic  # type: ignore[untyped-decorator]
def _raise(typingctx: Any, row: Any, vectors: Any) -> Any:
    """Replace whole vectors by their exponentials."""
    signature = types.void(types.uintp, types.int64)

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        q, (row, vectors) = builder, arguments
        with cgutils.for_range(q, vectors) as loop:
            place = _place(q, row, q.mul(loop.index, _number(LANES)), LANES)
            q.store(_exponential(q, q.load(place, align=4), LANES, True), place, align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def _transform(typingctx: Any, rows: Any, count: Any, width: Any, vector: Any, out: Any) -> Any:
    """Do what `transform` does without a bias, for addresses."""
    address, size = types.uintp, types.int64
    signature = types.void(address, size, size, address, address)

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        q, (rows, count, width, vector, out) = builder, arguments
        mask = {lanes: q.and_(width, _number(-lanes)) for lanes in PIECES}  # where so many lanes end

        def piece(lanes: int, row: Any, at: Any, total: Any) -> Any:
            x, y = _load(q, rows, q.add(row, at), lanes), _load(q, vector, at, lanes)
            return _multiply_add(q, x, y, total, lanes)

        with cgutils.for_range(q, count) as loop:
            row, total = q.mul(loop.index, width), _all(0.0, LANES)

            def turn(index: Any, sums: list[Any], row: Any = row) -> list[Any]:
                return [piece(LANES, row, q.mul(index, _number(LANES)), sums[0])]

            (total,) = _loop(q, q.lshr(width, _number(4)), [total], turn)
            for lanes in (8, 4):
                total = q.fadd(*_halves(q, total, 2 * lanes))
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
            total = _fold(q, total, 4, q.fadd)

            def single(index: Any, sums: list[Any], row: Any = row) -> list[Any]:
                return [piece(1, row, q.add(mask[4], index), sums[0])]

            (total,) = _loop(q, q.sub(width, mask[4]), [total], single)
            q.store(total, _place(q, out, loop.index, 1), align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def _weigh(typingctx: Any, weights: Any, rows: Any, pitch: Any, count: Any, width: Any, out: Any) -> Any:
    """Do what `weigh` does, for addresses."""
    address, size = types.uintp, types.int64
    signature = types.void(address, address, size, size, size, address)

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        q, (weights, rows, pitch, count, width, out) = builder, arguments
        at = _number(0)
        for lanes in PIECES:
            many = q.sdiv(q.sub(width, at), _number(lanes))
            with cgutils.for_range(q, many) as piece:
                column = q.add(at, q.mul(piece.index, _number(lanes)))

                def turn(row: Any, sums: list[Any], lanes: int = lanes, column: Any = column) -> list[Any]:
                    one = _spread(q, _load(q, weights, row, 1), lanes)
                    return [
                        _multiply_add(q, one, _load(q, rows, q.add(q.mul(row, pitch), column), lanes), sums[0], lanes)
                    ]

                (total,) = _loop(q, count, [_all(0.0, lanes)], turn)
                q.store(total, _place(q, out, column, lanes), align=4)
            at = q.add(at, q.mul(many, _number(lanes)))
        return context.get_dummy_value()

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def _normalise(typingctx: Any, x: Any, rows: Any, vectors: Any, weight: Any, bias: Any, eps: Any, out: Any) -> Any:
    """Do what `normalise` does, for addresses and rows of whole vectors; some rows at a time, so that none waits."""
    address, size = types.uintp, types.int64
    signature = types.void(address, size, size, address, address, types.float32, address)

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        q, (x, rows, vectors, weight, bias, eps, out) = builder, arguments
        pitch = q.mul(vectors, _number(LANES))
        number = q.uitofp(pitch, _FLOAT)
        kind = ir.FunctionType(_FLOAT, [_FLOAT])
        root = cgutils.get_or_insert_function(q.module, kind, "llvm.sqrt.f32")

        def some(first: Any, count: int) -> None:
            begins = [q.mul(q.add(first, _number(row)), pitch) for row in range(count)]
            none = [_all(0.0, LANES)] * count

            def at(base: Any, index: Any, begin: Any) -> Any:
                return _load(q, base, q.add(begin, q.mul(index, _number(LANES))), LANES)

            def add(index: Any, sums: list[Any]) -> list[Any]:
                return [q.fadd(total, at(x, index, begin)) for total, begin in zip(sums, begins, strict=True)]

            sums = [_fold(q, total, LANES, q.fadd) for total in _loop(q, vectors, none, add)]
            means = [_spread(q, q.fdiv(total, number), LANES) for total in sums]

            def square(index: Any, sums: list[Any]) -> list[Any]:
                centred = [q.fsub(at(x, index, begin), mean) for begin, mean in zip(begins, means, strict=True)]
                return [_multiply_add(q, c, c, total, LANES) for c, total in zip(centred, sums, strict=True)]

            sums = [_fold(q, total, LANES, q.fadd) for total in _loop(q, vectors, none, square)]
            deviations = [q.call(root, [q.fadd(q.fdiv(total, number), eps)]) for total in sums]
            factors = [_spread(q, q.fdiv(ir.Constant(_FLOAT, 1.0), each), LANES) for each in deviations]
            with cgutils.for_range(q, vectors) as loop:
                scale, shift = (at(base, loop.index, _number(0)) for base in (weight, bias))
                for begin, mean, factor in zip(begins, means, factors, strict=True):
                    scaled = q.fmul(q.fsub(at(x, loop.index, begin), mean), factor)
                    place = q.add(begin, q.mul(loop.index, _number(LANES)))
                    q.store(_multiply_add(q, scaled, scale, shift, LANES), _place(q, out, place, LANES), align=4)

        whole = q.lshr(rows, _number(2))
        with cgutils.for_range(q, whole) as loop:
            some(q.mul(loop.index, _number(4)), 4)
        with cgutils.for_range(q, q.and_(rows, _number(3))) as loop:
            some(q.add(q.mul(whole, _number(4)), loop.index), 1)
        return context.get_dummy_value()

    return signature, generate


def _pooling(maximum: bool) -> Any:
    """Make what `pool_window` does, for addresses."""

    @intrinsic  # type: ignore[untyped-decorator]
    def pool(typingctx: Any, data: Any, rows: Any, columns: Any, pitches: Any, width: Any, out: Any) -> Any:
        address, size = types.uintp, types.int64
        signature = types.void(address, size, size, types.UniTuple(size, 2), size, address)

        def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
            q, (data, rows, columns, pitches, width, out) = builder, arguments
            down, right = (q.extract_value(pitches, n) for n in range(2))
            at = _number(0)
            for lanes in PIECES:
                many = q.sdiv(q.sub(width, at), _number(lanes))
                with cgutils.for_range(q, many) as piece:
                    column = q.add(at, q.mul(piece.index, _number(lanes)))

                    def line(y: Any, found: list[Any], lanes: int = lanes, column: Any = column) -> list[Any]:
                        begin = q.add(column, q.mul(y, down))

                        def pixel(x: Any, found: list[Any]) -> list[Any]:
                            value = _load(q, data, q.add(begin, q.mul(x, right)), lanes)
                            return [_greater(q, found[0], value) if maximum else q.fadd(found[0], value)]

                        return _loop(q, columns, found, pixel)

                    (made,) = _loop(q, rows, [_all(float("-inf") if maximum else 0.0, lanes)], line)
                    q.store(made, _place(q, out, column, lanes), align=4)
                at = q.add(at, q.mul(many, _number(lanes)))
            return context.get_dummy_value()

        return signature, generate

    return pool


_pool_maximum, _pool_sum = _pooling(True), _pooling(False)


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
def soften(rows: npt.NDArray[np.float32], width: int, totals: npt.NDArray[np.float32]) -> None:
    """Replace rows, one or `ROWS` of whole vectors, by ``exp(row - max(row))``, and write the sums.

    Of each row the first `width` values are looked at; those behind, in the same vector, become 0. An exponential is
    off by 1.5 units in the last place at most, and 0 below exp(-87).
    """
    if COMPILED and len(rows) == 1:
        _soften_one(rows.ctypes.data, rows.shape[1], width, totals.ctypes.data)
    elif COMPILED:
        _soften_rows(rows.ctypes.data, rows.shape[1], width, totals.ctypes.data)
    else:
        for row in range(len(rows)):
            peak, total = max(rows[row, :width]), np.float32(0)
            rows[row, width:] = 0
            for i in range(width):
                rows[row, i] = np.exp(rows[row, i] - peak)
                total += rows[row, i]
            totals[row] = total


@kernel
def sigmoids(row: npt.NDArray[np.float32]) -> None:
    """Replace a row of whole vectors by the logistic function of each value."""
    for i in range(len(row)):
        row[i] = -row[i]
    if COMPILED:
        _raise(row.ctypes.data, len(row) // LANES)
    else:
        for i in range(len(row)):
            row[i] = np.exp(row[i]) if row[i] <= HIGHEST else np.inf
    for i in range(len(row)):
        row[i] = np.float32(1) / (np.float32(1) + row[i])


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


@kernel
def normalise(
    x: npt.NDArray[np.float32],
    weight: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    eps: np.float32,
    out: npt.NDArray[np.float32],
) -> None:
    """Write ``(x - mean) / sqrt(variance + eps) * weight + bias`` of each row to `out`, which may be `x`.

    A row is divided by way of one reciprocal.
    """
    rows, channels = x.shape
    if COMPILED and channels % LANES == 0:
        _normalise(x.ctypes.data, rows, channels // LANES, weight.ctypes.data, bias.ctypes.data, eps, out.ctypes.data)
        return
    number = np.float32(channels)
    for row in range(rows):
        total = np.float32(0)
        for c in range(channels):
            total += x[row, c]
        mean, total = total / number, np.float32(0)
        for c in range(channels):
            total += (x[row, c] - mean) * (x[row, c] - mean)
        reciprocal = np.float32(1) / np.sqrt(total / number + eps)
        for c in range(channels):
            out[row, c] = (x[row, c] - mean) * reciprocal * weight[c] + bias[c]


@kernel
def pool_window(
    data: npt.NDArray[np.float32],
    first: int,
    window: tuple[int, int],
    pitches: tuple[int, int],
    maximum: bool,
    pooled: npt.NDArray[np.float32],
    row: int,
) -> None:
    """Write the largest values or the sums of a window of rows, line by line, to a row of `pooled`.

    It begins with the row `first` of `data`; `window` is its lines and the rows of each, `pitches` the rows from a line
    to the next and from a row of a line to the next. Of no rows, sums are 0 and the largest values below all others.
    """
    width = data.shape[1]
    if COMPILED:
        begin, to = data.ctypes.data + 4 * first * width, pooled.ctypes.data + 4 * row * width
        floats = pitches[0] * width, pitches[1] * width
        if maximum:
            _pool_maximum(begin, window[0], window[1], floats, width, to)
        else:
            _pool_sum(begin, window[0], window[1], floats, width, to)
    else:
        pooled[row] = -np.inf if maximum else 0
        for y in range(window[0]):
            for x in range(window[1]):
                source = data[first + y * pitches[0] + x * pitches[1]]
                for c in range(width):
                    pooled[row, c] = max(pooled[row, c], source[c]) if maximum else pooled[row, c] + source[c]
