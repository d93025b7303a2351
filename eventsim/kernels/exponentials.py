"""Exponentials of real values by vectors, each made of its nearest power of two and a polynomial."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eventsim.kernels.jit import kernel
from eventsim.kernels.vectors import (
    COMPILED,
    LANES,
    ROWS,
    WIDE,
    WORD,
    carry,
    everywhere,
    fold,
    greater,
    kind_of,
    multiply_add,
    place_of,
    spread,
    whole_number,
)

LOWEST, HIGHEST = -87.0, 88.0
LN2_HIGH = 0.693359375
"""The first 9 bits of ln 2, so that a power of two times it is exact."""
LN2_LOW = math.log(2) - LN2_HIGH
TERMS = (0.0013814539415761828, 0.00836874544620514, 0.04166838899254799, 0.1666652113199234, 0.4999999403953552)
"""Of ``(exp(r) - 1 - r) / r^2`` for ``|r| <= ln 2 / 2``, the highest power first: fitted here, off by 3e-9 at most."""
ROUNDING = 1.5 * 2.0**23
"""Added to a number below 2^22, it leaves the nearest integer in the lowest bits."""


def _exponential(b: Any, x: Any, lanes: int, positive: bool) -> Any:
    """Return exp(x): 0 below `LOWEST` and infinity above `HIGHEST`, which only `positive` numbers are."""

    def many(value: float) -> Any:
        return everywhere(value, lanes)

    words = ir.VectorType(WORD, lanes)
    within = b.select(b.fcmp_ordered("<", x, many(LOWEST)), many(LOWEST), x)
    if positive:
        within = b.select(b.fcmp_ordered(">", within, many(HIGHEST)), many(HIGHEST), within)
    shifted = b.fadd(b.fmul(within, many(1 / math.log(2))), many(ROUNDING))
    power = b.fsub(shifted, many(ROUNDING))
    r = multiply_add(b, power, many(-LN2_HIGH), within, lanes)
    r = multiply_add(b, power, many(-LN2_LOW), r, lanes)
    terms = many(TERMS[0])
    for term in TERMS[1:]:
        terms = multiply_add(b, terms, r, many(term), lanes)
    near = multiply_add(b, terms, b.fmul(r, r), b.fadd(r, many(1.0)), lanes)
    exponent = b.add(b.bitcast(shifted, words), ir.Constant(words, [127] * lanes))
    scale = b.bitcast(b.shl(exponent, ir.Constant(words, [23] * lanes)), kind_of(lanes))
    result = b.fmul(near, scale)
    result = b.select(b.fcmp_ordered("<", x, many(LOWEST)), many(0.0), result)
    return b.select(b.fcmp_ordered(">", x, many(HIGHEST)), many(float("inf")), result) if positive else result


def _softening(rows: int) -> Any:
    """Make what `soften` does with so many rows at once, so that none waits; arguments are addresses and floats."""

    @intrinsic  # type: ignore[untyped-decorator]
    def soften(typingctx: Any, base: Any, pitch: Any, width: Any, totals: Any) -> Any:
        signature = types.void(types.uintp, types.int64, types.int64, types.uintp)

        def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
            q, (base, pitch, width, totals) = builder, arguments
            lowest = everywhere(float("-inf"), LANES)
            whole, rest = q.lshr(width, whole_number(4)), q.and_(width, whole_number(LANES - 1))
            lanes = ir.VectorType(WIDE, LANES)
            nowhere, first = ir.Constant(lanes, ir.Undefined), ir.Constant(ir.VectorType(WORD, LANES), [0] * LANES)
            last = q.shuffle_vector(q.insert_element(nowhere, rest, ir.Constant(WORD, 0)), nowhere, first)
            inside = q.icmp_signed("<", ir.Constant(lanes, list(range(LANES))), last)
            begins = [q.mul(pitch, whole_number(row)) for row in range(rows)]

            def of(index: Any, begin: Any) -> Any:
                return place_of(q, base, q.add(begin, q.mul(index, whole_number(LANES))), LANES)

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

                there = q.zext(q.icmp_signed(">", rest, whole_number(0)), WIDE)
                return carry(q, there, carry(q, whole, begun, turn), rest_of)

            peaks = all_of([lowest] * rows, lambda n, given, found: greater(q, given[1], found))
            peaks = [spread(q, fold(q, peak, LANES, lambda x, y: greater(q, x, y)), LANES) for peak in peaks]

            def raise_(n: Any, given: Any, total: Any) -> Any:
                power = _exponential(q, q.fsub(given[1], peaks[n]), LANES, False)
                q.store(power, given[0], align=4)
                return q.fadd(total, power)

            for row, total in enumerate(all_of([everywhere(0.0, LANES)] * rows, raise_)):
                q.store(fold(q, total, LANES, q.fadd), place_of(q, totals, whole_number(row), 1), align=4)
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
            place = place_of(q, row, q.mul(loop.index, whole_number(LANES)), LANES)
            q.store(_exponential(q, q.load(place, align=4), LANES, True), place, align=4)
        return context.get_dummy_value()

    return signature, generate


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
