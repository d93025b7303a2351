"""Looking at the values of a signal once."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from eventsim.kernels.jit import kernel

COMPILED = not numba.config.DISABLE_JIT

_WIDE, _WORD = ir.IntType(64), ir.IntType(32)

GIVEN_UP = -1
BLOCK = 1024
"""Values that are looked at together, in the hope that all are small integers."""
LANES = 16
"""Sums that grow side by side, so that no addition waits for the one before."""
MOST_LOOKED_AT = 2**30
"""Values whose numbers fit in the lanes of a vector."""
TOLD = 3
"""Numbers that `look` tells of all time steps together."""


@kernel
def _look_at_integers(values: npt.NDArray[np.float32], largest: np.float32) -> tuple[bool, int, int, int, int]:
    """Look at values without a branch, if all are integers from 0 to `largest`.

    Returned: whether they are, how many are 0 and 1, their sum, and which are there, integer n as bit n. All have 32
    bits, as values have: what is wider is no vector of every processor.
    """
    nothing, bit = np.float32(0), np.uint32(1)
    among = np.uint32(0)
    strange = zero = one = total = np.int32(0)
    for i in range(len(values)):
        value = values[i]
        number = np.int32(value if (value >= 0) & (value <= largest) else nothing)
        strange = np.int32(strange | (np.float32(number) != value))
        among = np.uint32(among | np.uint32(bit << np.uint32(number)))
        zero = np.int32(zero + (number == 0))
        one = np.int32(one + (number == 1))
        total = np.int32(total + number)
    return bool(strange == 0), int(zero), int(one), int(total), int(among)


@intrinsic  # type: ignore[untyped-decorator]
def _regard(typingctx: Any, values: Any, vectors: Any, total: Any, low: Any, high: Any, counted: Any) -> Any:
    """Do what `_look_at_any` does with whole vectors, for addresses; add what is 0, 1 and -1 to `counted`."""
    signature = types.void(types.uintp, types.int64, *[types.uintp] * 4)

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        b, (values, vectors, total, low, high, counted) = builder, arguments
        floats, doubles, words = (ir.VectorType(kind, LANES) for kind in (ir.FloatType(), ir.DoubleType(), _WORD))

        def many(value: float) -> Any:
            return ir.Constant(floats, [value] * LANES)

        def place(base: Any, kind: Any, index: Any) -> Any:
            return b.gep(b.inttoptr(base, kind.as_pointer()), [index])

        nil = ir.Constant(_WIDE, 0)
        kept = [place(base, kind, nil) for base, kind in ((total, doubles), (low, floats), (high, floats))]
        begun = [*(b.load(each, align=4) for each in kept), *[ir.Constant(words, [0] * LANES)] * 3]
        entry, turn, end = b.block, b.append_basic_block("turn"), b.append_basic_block("looked")
        b.cbranch(b.icmp_signed(">", vectors, nil), turn, end)
        b.position_at_end(turn)
        index, carried = b.phi(_WIDE), [b.phi(each.type) for each in begun]
        value = b.load(place(values, floats, index), align=4)
        alike = [b.fcmp_ordered("==", value, many(number)) for number in (0.0, 1.0, -1.0)]
        plain = b.or_(alike[0], alike[1])
        other = b.bitcast(b.or_(b.bitcast(value, words), b.sext(plain, words)), floats)  # no number where it is 0 or 1
        made = [
            b.fadd(carried[0], b.fpext(b.select(plain, many(0.0), value), doubles)),
            b.select(b.fcmp_ordered("<", other, carried[1]), other, carried[1]),
            b.select(b.fcmp_ordered(">", other, carried[2]), other, carried[2]),
            *(b.sub(number, b.sext(same, words)) for number, same in zip(carried[3:], alike, strict=True)),
        ]
        following = b.add(index, ir.Constant(_WIDE, 1))
        for phi, first, new in zip([index, *carried], [nil, *begun], [following, *made], strict=True):
            phi.add_incoming(first, entry)
            phi.add_incoming(new, turn)
        b.cbranch(b.icmp_signed("<", following, vectors), turn, end)
        b.position_at_end(end)
        left = [b.phi(each.type) for each in begun]
        for phi, first, new in zip(left, begun, made, strict=True):
            phi.add_incoming(first, entry)
            phi.add_incoming(new, turn)
        for each, to in zip(left[:3], kept, strict=True):
            b.store(each, to, align=4)
        for number, lanes in enumerate(left[3:]):
            sum_ = nil
            for lane in range(LANES):
                sum_ = b.add(sum_, b.zext(b.extract_element(lanes, ir.Constant(_WORD, lane)), _WIDE))
            to = place(counted, _WIDE, ir.Constant(_WIDE, number))
            b.store(b.add(b.load(to), sum_), to)
        return context.get_dummy_value()

    return signature, generate


@kernel
def _look_at_any(
    values: npt.NDArray[np.float32],
    total: npt.NDArray[np.float64],
    low: npt.NDArray[np.float32],
    high: npt.NDArray[np.float32],
) -> tuple[int, int, int]:
    """Look at values of any kind, as many side by side as there are lanes; return how many are 0, 1 and -1.

    Added to, lane by lane: of the values that are neither 0 nor 1, the sum, the least and the largest.
    """
    whole, counted = len(values) // LANES * LANES, np.zeros(3, np.int64)
    if COMPILED:
        places = total.ctypes.data, low.ctypes.data, high.ctypes.data
        for first in range(0, whole, MOST_LOOKED_AT):  # so that no lane counts beyond 31 bits
            vectors = min(MOST_LOOKED_AT, whole - first) // LANES
            _regard(values.ctypes.data + 4 * first, vectors, places[0], places[1], places[2], counted.ctypes.data)
    zero, one, minus = counted[0], counted[1], counted[2]
    for i in range(whole if COMPILED else 0, len(values)):
        value, lane = values[i], i % LANES if i < whole else 0
        zero += value == 0
        one += value == 1
        minus += value == -1
        if (value != 1) & (value != 0):
            total[lane] += value
            low[lane] = min(low[lane], value)
            high[lane] = max(high[lane], value)
    return zero, one, minus


@kernel
def _list_level(level: np.float32, levels: npt.NDArray[np.float32], listed: int) -> int:
    """Add a value to the first `listed` of the levels, if it is not there; return how many there are now."""
    for known in range(listed):
        if levels[known] == level:
            return listed
    if listed == GIVEN_UP or listed == len(levels):
        return GIVEN_UP
    levels[listed] = level
    return listed + 1


@kernel
def _list_levels(
    values: npt.NDArray[np.float32], levels: npt.NDArray[np.float32], listed: int, largest: np.float32
) -> int:
    """Add values that are neither 0 nor 1 to the first `listed` of the levels; return how many there are now."""
    for i in range(len(values)):
        value = values[i]
        if (value != 0) & (value != 1):
            if not ((value >= 0) & (value <= largest)):
                return GIVEN_UP
            listed = _list_level(value, levels, listed)
            if listed == GIVEN_UP:
                return GIVEN_UP
    return listed


@kernel
def _are_listed(values: npt.NDArray[np.float32], levels: npt.NDArray[np.float32]) -> bool:
    """Say whether all values are 0, 1 or a level; level by level, which takes no branch."""
    known = np.int32(0)
    for i in range(len(values)):
        known = np.int32(known + ((values[i] == 0) | (values[i] == 1)))
    for level in levels:
        for i in range(len(values)):
            known = np.int32(known + (values[i] == level))
    return bool(known == len(values))


@kernel
def look(
    values: npt.NDArray[np.float32],
    indptr: npt.NDArray[np.int64],
    size: int,
    levels: npt.NDArray[np.float32],
    sums: npt.NDArray[np.float64],
    counted: npt.NDArray[np.int64],
) -> None:
    """Sum up values, and list the distinct ones while there are few.

    Parameters
    ----------
    values : float32 array
    indptr : int64 array (steps * size + 1,) or (0,)
        Of rows, where the values of each begin, and where the last ones end; empty for dense values.
    size : int
        Rows of a time step, or, where there are none, its values.
    levels : float32 array (most,)
        Written: distinct values that are neither 0 nor 1. Only those in 0 to ``most - 1`` are few; at most 32.
    sums : float64 array (2 + steps,)
        Written: of the values that are neither 0 nor 1, the least and the largest, infinite where there is none, and
        their sum in each time step, whose order of additions does not depend on the other steps.
    counted : int64 array (3 + 2 * steps,)
        Written: ones; values that are neither 0 nor 1; how many levels are listed, `GIVEN_UP` where there are too
        many; the values of each time step that are neither 0 nor of magnitude 1; and those that are not 0.
    """
    most = len(levels)
    largest = np.float32(most - 1)
    low, high = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    low[:] = np.inf
    high[:] = -np.inf
    totals = np.empty(LANES, np.float64)
    integers = np.uint64(0)
    small = True
    ones = others = listed = 0
    steps = len(sums) - 2
    for step in range(steps):
        begin = start = indptr[step * size] if len(indptr) > 0 else step * size
        stop = indptr[(step + 1) * size] if len(indptr) > 0 else (step + 1) * size
        one = zero = minus = 0
        total = 0.0
        while small and start < stop:
            block = values[start : min(start + BLOCK, stop)]
            small, no, yes, sum_, among = _look_at_integers(block, largest)
            if small:
                integers |= np.uint64(among)
                zero += no
                one += yes
                total += sum_ - yes
                start += len(block)
        totals[:] = 0
        while start < stop:
            block = values[start : min(start + BLOCK, stop)]
            if listed != GIVEN_UP and not _are_listed(block, levels[:listed]):
                listed = _list_levels(block, levels, listed, largest)
            if listed == GIVEN_UP:
                block = values[start:stop]
            no, yes, less = _look_at_any(block, totals, low, high)
            zero += no
            one += yes
            minus += less
            start += len(block)
        for lane in range(LANES):
            total += totals[lane]
        ones += one
        others += stop - begin - zero - one
        sums[2 + step] = total
        counted[TOLD + step] = stop - begin - zero - one - minus
        counted[TOLD + steps + step] = stop - begin - zero
    for number in range(2, most):
        if integers >> np.uint64(number) & np.uint64(1):
            level = np.float32(number)
            low[0] = min(low[0], level)
            high[0] = max(high[0], level)
            listed = _list_level(level, levels, listed)
    for lane in range(1, LANES):  # plain loops, which compile in half the time of NumPy's functions
        low[0] = min(low[0], low[lane])
        high[0] = max(high[0], high[lane])
    sums[0] = low[0]
    sums[1] = high[0]
    counted[0] = ones
    counted[1] = others
    counted[2] = listed


@kernel
def count_rows(indptr: npt.NDArray[np.int64], positions: int, counted: npt.NDArray[np.int64]) -> None:
    """Count the values of rows in each time step of so many `positions`; `counted` (steps,) is written."""
    for step in range(len(counted)):
        counted[step] = indptr[(step + 1) * positions] - indptr[step * positions]


@kernel
def count_values(data: npt.NDArray[np.float32], positions: int, counted: npt.NDArray[np.int64]) -> None:
    """Count the values that are not 0 in each time step of so many rows of `data`; `counted` (steps,) is written."""
    values, size = data.reshape(-1), positions * data.shape[1]
    for step in range(len(counted)):
        active = 0
        for begin in range(step * size, (step + 1) * size, BLOCK):
            active += _active(values[begin : min(begin + BLOCK, (step + 1) * size)])
        counted[step] = active


@kernel
def _active(values: npt.NDArray[np.float32]) -> int:
    """Return how many values are not 0, counted by 32 bits, as values have."""
    active = np.int32(0)
    for i in range(len(values)):
        active = np.int32(active + (values[i] != 0))
    return int(active)


@kernel
def largest(indptr: npt.NDArray[np.int64], values: npt.NDArray[np.float32]) -> np.float32:
    """Return the largest of the values that rows hold, or 0 if that is more.

    The bits of numbers that are not negative are ordered as these are, and can be compared side by side.
    """
    most, bits, found = np.int32(0), values.view(np.int32), np.zeros(1, np.int32)
    for e in range(np.uint64(indptr[0]), np.uint64(indptr[-1])):
        most = max(most, bits[e])
    found[0] = most
    return np.float32(found.view(np.float32)[0])
