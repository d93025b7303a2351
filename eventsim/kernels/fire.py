"""Charge, fire, reset of spiking neurons; emits the spikes as CSR rows.

The limit is that an input is read once, and a potential read and written. So neurons are numbered through, whatever
their position, and advanced in stretches that stay in the first-level cache, each through all its steps, by vectors
whose comparison becomes a word of bits: who fired, and two that are counted. The rows are then listed from the bits,
eight at a time and without a branch on any of them. What no vector holds is advanced one by one (`_rest`); uncompiled,
that is every neuron.

The vectors are LLVM's, which any target lowers to what it has, since a comparison that becomes bits is nothing that a
loop says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eventsim.kernels.bits import list_steps
from eventsim.kernels.dynamics import (
    INTEGRATE,
    LANES,
    LEAK_DIVIDE,
    LEAK_FREE_INPUT,
    LEAK_FREE_MULTIPLY,
    LEAK_MULTIPLY,
    STRETCH,
    SUBTRACT,
    SUBTRACT_LATE,
    SUBTRACT_ONCE,
    ZERO,
    ZERO_LATE,
    Dynamics,
)
from eventsim.kernels.jit import kernel
from eventsim.kernels.neuron_parts import FLOATS, NOTHING_COUNTED, count, fetch_ahead, keep_bits, total

COMPILED = not numba.config.DISABLE_JIT

Constants: TypeAlias = tuple[
    npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]
]
"""The constant, the threshold, the floor and the start of a population, see `fire`."""

_WIDE, _WORD = ir.IntType(64), ir.IntType(32)
_FLOATS = ir.VectorType(ir.FloatType(), FLOATS)
_NOTHING = ir.Constant(_FLOATS, [0.0] * FLOATS)
_ONE = ir.Constant(_FLOATS, [1.0] * FLOATS)


def _pointer(builder: Any, address: Any, kind: Any, offset: Any) -> Any:
    """Return a pointer to what lies so many bytes behind an address."""
    return builder.inttoptr(builder.add(address, offset), kind.as_pointer())


def _choose(builder: Any, number: Any, ways: Sequence[Callable[[], Any]], bit: int = 2) -> Any:
    """Return what the way of this number makes, decided bit by bit, which is always foreseen."""
    if len(ways) == 1:
        return ways[0]()
    low, high = ways[: 1 << bit], ways[1 << bit :]
    if not high:
        return _choose(builder, number, low, bit - 1)
    blocks = [builder.append_basic_block("way") for _ in range(2)]
    is_set = builder.and_(number, ir.Constant(_WIDE, 1 << bit))
    builder.cbranch(builder.icmp_unsigned("!=", is_set, ir.Constant(_WIDE, 0)), blocks[1], blocks[0])
    made = []
    for block, half in zip(blocks, (low, high), strict=True):
        builder.position_at_end(block)
        made.append((_choose(builder, number, half, bit - 1), builder.block))
    end = builder.append_basic_block("chosen")
    for _, block in made:
        builder.position_at_end(block)
        builder.branch(end)
    builder.position_at_end(end)
    result = builder.phi(made[0][0].type)
    for value, block in made:
        result.add_incoming(value, block)
    return result


def _when(builder: Any, address: Any, way: Callable[[], Any], otherwise: Any) -> Any:
    """Return what `way` makes where there is an address, and something at hand where it is 0."""
    there = builder.icmp_unsigned("!=", address, ir.Constant(_WIDE, 0))
    return _choose(builder, builder.zext(there, _WIDE), [lambda: otherwise, way], 0)


def _charges(b: Any, v: Any, x: Any, k: Callable[[], Any]) -> list[Callable[[], Any]]:
    """Return the charge equations by their number."""
    return [
        lambda: b.fadd(v, x),
        lambda: b.fadd(v, b.fmul(b.fsub(x, v), k())),
        lambda: b.fadd(v, b.fdiv(b.fsub(x, v), k())),
        lambda: b.fadd(b.fsub(v, b.fdiv(v, k())), x),
        lambda: b.fadd(b.fmul(v, k()), x),
        lambda: b.fadd(b.fsub(v, b.fmul(v, k())), x),
    ]


def _advancing(strict: bool) -> Any:
    """Make the loops over vectors, for neurons that fire above the threshold only, or at it too.

    There is one for each charge, with the two resets that most neurons have and nothing besides, and one for all that
    there is. Arguments are addresses, of which the last three may be 0, and integers: input, potential before and
    after, constant, threshold, words of spikes, the neurons with an input and those with a change, to be added to;
    vectors, charge, reset; floor, charged potentials, spikes of each neuron.
    """
    above = ">" if strict else ">="

    @intrinsic  # type: ignore[untyped-decorator]
    def advance(  # noqa: PLR0917
        typingctx: Any, x: Any, u: Any, v: Any, k: Any, threshold: Any, fired: Any, active: Any, vectors: Any,
        charge: Any, reset: Any, floor: Any, charged: Any, times: Any,
    ) -> Any:  # fmt: skip
        address, size = types.uintp, types.int64
        signature = types.void(*[address] * 7, *[size] * 3, *[address] * 3)

        def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
            x, u, v, k, threshold, words, active, vectors, charge, reset, floor, charged, times = arguments
            b, nil = builder, ir.Constant(_WIDE, 0)

            def one(offset: Any, number: int | None) -> tuple[Any, Any, Any]:
                """Advance one part by this charge, or by any; return inputs, changes and spikes as bits."""

                def at(base: Any) -> Any:
                    return b.load(_pointer(b, base, _FLOATS, offset), align=4)

                given, before, limit = at(x), at(u), at(threshold)
                charges = _charges(b, before, given, lambda: at(k))
                if number is not None:
                    h = charges[number]()
                    spikes = b.fcmp_ordered(above, h, limit)
                    resets = [
                        lambda: b.select(spikes, _NOTHING, h),
                        lambda: b.select(spikes, b.fsub(h, limit), h),
                    ]
                    after = _choose(b, reset, resets, 0)
                else:
                    raw = _choose(b, charge, charges)

                    def lateness() -> Any:
                        return b.select(b.fcmp_ordered(above, before, limit), _ONE, _NOTHING)

                    def less() -> Any:
                        return b.fsub(raw, b.fmul(late, limit))

                    def lost() -> Any:
                        return b.select(b.fcmp_ordered("==", late, _ONE), _NOTHING, raw)

                    late = _choose(b, reset, [*[lambda: _NOTHING] * 2, *[lateness] * 3])
                    h = _choose(b, reset, [*[lambda: raw] * 2, less, less, lost])
                    _when(b, charged, lambda: b.store(h, _pointer(b, charged, _FLOATS, offset), align=4) and nil, nil)
                    spikes = b.fcmp_ordered(above, h, limit)

                    def several() -> Any:
                        kind = ir.FunctionType(_FLOATS, [_FLOATS])
                        trunc = cgutils.get_or_insert_function(b.module, kind, f"llvm.trunc.v{FLOATS}f32")
                        many = b.select(spikes, b.call(trunc, [b.fdiv(h, limit)]), _NOTHING)
                        b.store(many, _pointer(b, times, _FLOATS, offset), align=4)
                        return many

                    many = _when(b, times, several, b.select(spikes, _ONE, _NOTHING))
                    resets = [
                        lambda: b.select(spikes, _NOTHING, h),
                        lambda: b.fsub(h, b.fmul(many, limit)),
                        lambda: h,
                        lambda: b.fsub(h, b.fmul(b.fsub(many, late), limit)),
                        lambda: h,
                    ]
                    left = _choose(b, reset, resets)

                    def lifted() -> Any:
                        low = at(floor)
                        return b.select(b.fcmp_ordered("<", left, low), low, left)

                    after = _when(b, floor, lifted, left)
                b.store(after, _pointer(b, v, _FLOATS, offset), align=4)
                return b.fcmp_unordered("!=", given, _NOTHING), b.fcmp_unordered("!=", h, before), spikes

            def all_of(number: int | None) -> Any:
                places = [_pointer(b, active, _WIDE, ir.Constant(_WIDE, 8 * n)) for n in range(2)]
                together = LANES if number is not None else FLOATS  # neurons between two looks at the end
                parts = together // FLOATS
                end_index = b.mul(vectors, ir.Constant(_WIDE, LANES // FLOATS))
                entry, loop, end = b.block, b.append_basic_block("vectors"), b.append_basic_block("end")
                b.branch(loop)
                b.position_at_end(loop)
                index, totals = b.phi(_WIDE), [b.phi(NOTHING_COUNTED.type) for _ in range(2)]
                offset = b.mul(index, ir.Constant(_WIDE, 4 * FLOATS))
                fetch_ahead(b, x, offset, vectors, together)
                fetch_ahead(b, v, offset, vectors, together)
                counted = list(totals)
                for n in range(parts):
                    *changes, spikes = one(b.add(offset, ir.Constant(_WIDE, 4 * FLOATS * n)), number)
                    keep_bits(b, words, b.add(index, ir.Constant(_WIDE, n)), spikes)
                    counted = [count(b, so_far, lanes) for so_far, lanes in zip(counted, changes, strict=True)]
                following = b.add(index, ir.Constant(_WIDE, parts))
                for phi, new in zip([index, *totals], [following, *counted], strict=True):
                    phi.add_incoming(ir.Constant(phi.type, None), entry)  # zeros
                    phi.add_incoming(new, b.block)
                b.cbranch(b.icmp_signed("<", following, end_index), loop, end)
                b.position_at_end(end)
                for so_far, place in zip(counted, places, strict=True):
                    b.store(b.add(b.load(place), total(b, so_far)), place)
                return nil

            besides = b.icmp_unsigned("!=", b.or_(b.or_(floor, charged), times), nil)
            rare = b.or_(besides, b.icmp_unsigned(">=", reset, ir.Constant(_WIDE, 2)))
            which = b.select(rare, ir.Constant(_WIDE, 6), charge)
            loops = [lambda number=number: all_of(number) for number in [*range(6), None]]
            _when(b, vectors, lambda: _choose(b, which, loops), nil)
            return context.get_dummy_value()

        return signature, generate

    return advance


_advance, _advance_strict = _advancing(strict=False), _advancing(strict=True)


@kernel
def _charge(v: np.float32, x: np.float32, k: np.float32, charge: int) -> np.float32:
    if charge == INTEGRATE:
        return v + x
    if charge == LEAK_MULTIPLY:
        return v + (x - v) * k
    if charge == LEAK_DIVIDE:
        return v + (x - v) / k
    if charge == LEAK_FREE_INPUT:
        return v - v / k + x
    if charge == LEAK_FREE_MULTIPLY:
        return v - v * k + x
    return v * k + x


@kernel
def fire(
    current: npt.NDArray[np.float32],
    potential: npt.NDArray[np.float32],
    constants: Constants,
    dynamics: Dynamics,
    listed: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]],
    fired: npt.NDArray[np.uint32],
    charged: npt.NDArray[np.float32],
    active: npt.NDArray[np.int64],
) -> int:
    """Advance every neuron by one time step or several.

    Parameters
    ----------
    current : float32 array (steps * positions, channels)
        Input.
    potential : float32 array (positions, channels)
        Membrane potential; updated in place.
    constants : tuple (constant, threshold, floor, start)
        The k of `Dynamics`, the firing threshold, what the potential is lifted to at the end of a step, and what it is
        before the first step, whatever it is at hand; of these two, an empty one says neither. Float32 arrays as
        `repeated` makes them.
    dynamics : Dynamics
    listed : tuple (indptr, indices, values)
        Written: ends of the rows, int64 (steps * positions + 1,), where ``indptr[0]`` is given and says where the
        spikes begin in `indices`; the channels that fired, int32, with room for every neuron and step, or for none;
        and, where `Dynamics.multiple`, how many spikes each of these stands for, float32.
    fired : uint32 array (steps, words)
        Written: a bit for each neuron and step, `words` of them in each step. Where `Dynamics.multiple`, whose steps
        come one by one, the bits of one step.
    charged : float32 array (steps * positions, channels) or (0, channels)
        Written where it has room: the potentials after the charge, before any reset.
    active : int64 array (steps, 2)
        Written: neurons whose input was not zero, and those whose charge changed the potential.

    Returns
    -------
    int
        Neurons that fired, over all steps.
    """
    indptr, indices, values = listed
    positions, channels = potential.shape
    neurons, steps = positions * channels, active.shape[0]
    together = max(len(fired), 1)  # steps whose rows are listed in one go
    times = np.empty(neurons if dynamics.multiple else 0, np.float32)
    active[:] = 0
    for begin in range(0, steps, together):
        if begin == 1:
            constants = (constants[0], constants[1], constants[2], constants[3][:0])
        advance(current, potential, constants, dynamics, fired, charged, times, active, begin, 0, neurons)
        ends = indptr[begin * positions : (begin + together) * positions + 1]
        list_steps(fired, positions, channels, ends, indices, 0, together)
        if dynamics.multiple:
            _list_times(ends, indices, times, channels, values)
    return int(indptr[steps * positions] - indptr[0])


@kernel
def stretch_of(constants: Constants, neurons: int) -> int:
    """Return how many neurons are advanced together, behind whom constants begin again: whole vectors, or all."""
    constant, threshold, floor, start = constants
    stretch = min(len(constant), len(threshold))
    for some in (floor, start):
        if len(some) > 0:
            stretch = min(stretch, len(some))
    return min(neurons, STRETCH) if stretch == neurons else stretch


@kernel
def advance(  # noqa: PLR0917
    current: npt.NDArray[np.float32],
    potential: npt.NDArray[np.float32],
    constants: Constants,
    dynamics: Dynamics,
    fired: npt.NDArray[np.uint32],
    charged: npt.NDArray[np.float32],
    times: npt.NDArray[np.float32],
    active: npt.NDArray[np.int64],
    begin: int,
    first: int,
    last: int,
) -> None:
    """Advance some of the neurons, as `fire` does, and tell by bits who fired.

    Parameters
    ----------
    current : float32 array (all steps * positions, channels)
        Of all neurons, or of these alone.
    potential, constants, dynamics, charged
        As for `fire`.
    fired : uint32 array (steps, words)
        Written: a bit for each neuron and step, `words` of them in each step; those of these neurons.
    times : float32 array (neurons,) or (0,)
        Written where `Dynamics.multiple`, whose steps come one by one: spikes of each neuron.
    active : int64 array (all steps, 2)
        Added to: as for `fire`.
    begin : int
        The first of the steps, of which there are as many as rows of `fired`; the one that begins from the start.
    first, last : int
        The neurons, numbered through: each a multiple of `LANES` and of the channels, or the end of all.
    """
    constant, threshold, floor, start = constants
    neurons = potential.size
    x, v, kept = current.reshape(-1), potential.reshape(-1), charged.reshape(-1)
    given = x.size // max(len(active), 1)  # neurons of whom the current is
    missing = first if given < neurons else 0
    stretch = stretch_of(constants, neurons)
    if last == neurons:
        fired[:, neurons // LANES :] = 0
    if COMPILED:
        for a in range(first, last, stretch):
            vectors = min(stretch, last - a) // LANES
            k = constant.ctypes.data + (4 * a if len(constant) == neurons else 0)
            th = threshold.ctypes.data + (4 * a if len(threshold) == neurons else 0)
            low = np.uintp(0)
            if len(floor) > 0:
                low = np.uintp(floor.ctypes.data + (4 * a if len(floor) == neurons else 0))
            for row in range(len(fired)):
                at = (begin + row) * neurons + a
                before = v.ctypes.data + 4 * a
                if row == 0 and len(start) > 0:
                    before = start.ctypes.data + (4 * a if len(start) == neurons else 0)
                arguments = (
                    x.ctypes.data + 4 * ((begin + row) * given + a - missing),
                    before,
                    v.ctypes.data + 4 * a,
                    k,
                    th,
                    fired.ctypes.data + 4 * (row * fired.shape[1] + a // LANES),
                    active.ctypes.data + 16 * (begin + row),
                    vectors,
                    dynamics.charge,
                    dynamics.reset,
                    low,
                    np.uintp(kept.ctypes.data + 4 * at) if len(kept) > 0 else np.uintp(0),
                    np.uintp(times.ctypes.data + 4 * a) if len(times) > 0 else np.uintp(0),
                )
                if dynamics.strict:
                    _advance_strict(*arguments)
                else:
                    _advance(*arguments)
    rest = max(first, neurons // LANES * LANES) if COMPILED else first
    if rest < last:
        if not COMPILED:
            fired[:, first // LANES : last // LANES] = 0
        for row in range(len(fired)):
            at, from_rest = (begin + row) * neurons, (begin + row) * given + rest - missing
            _rest(
                rest,
                last,
                x[from_rest : from_rest + last - rest],
                v,
                constants,
                dynamics,
                fired[row],
                kept[at : at + neurons],
                times,
                active[begin + row],
                row == 0 and len(start) > 0,
            )


@kernel
def advance_part(  # noqa: PLR0917
    current: npt.NDArray[np.float32],
    potential: npt.NDArray[np.float32],
    constants: Constants,
    dynamics: Dynamics,
    fired: npt.NDArray[np.uint32],
    charged: npt.NDArray[np.float32],
    active: npt.NDArray[np.int64],
    first: int,
    last: int,
) -> None:
    """Advance some of the neurons by all steps, as `advance` does, with counts of their own, which are written."""
    active[:] = 0
    advance(current, potential, constants, dynamics, fired, charged, np.empty(0, np.float32), active, 0, first, last)


@kernel
def add_up(counted: npt.NDArray[np.int64], active: npt.NDArray[np.int64]) -> None:
    """Add up the counts (parts, ...) of all parts; `active` (...) is written."""
    parts, sums = counted.reshape(len(counted), -1), active.reshape(-1)
    for index in range(len(sums)):
        sums[index] = 0
        for part in range(len(parts)):
            sums[index] += parts[part, index]


@kernel
def _list_times(
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int32],
    times: npt.NDArray[np.float32],
    channels: int,
    values: npt.NDArray[np.float32],
) -> None:
    """Write, behind who fired in one step, how often each did; `times` has one entry for each neuron."""
    for p in range(len(indptr) - 1):
        for e in range(indptr[p], indptr[p + 1]):
            values[e] = times[p * channels + indices[e]]


@kernel
def _rest(  # noqa: PLR0917
    first: int,
    last: int,
    x: npt.NDArray[np.float32],
    v: npt.NDArray[np.float32],
    constants: Constants,
    dynamics: Dynamics,
    fired: npt.NDArray[np.uint32],
    charged: npt.NDArray[np.float32],
    times: npt.NDArray[np.float32],
    active: npt.NDArray[np.int64],
    starts: bool,
) -> None:
    """Advance neurons that no vector holds by one step, from their start or not, as `_advance` does."""
    constant, threshold, floor, start = constants
    zero, one = np.float32(0), np.float32(1)
    for i in range(first, last):
        th, before = threshold[i % len(threshold)], v[i]
        if starts:
            before = start[i % len(start)]
        above = before > th if dynamics.strict else before >= th
        late = one if dynamics.reset >= SUBTRACT_LATE and above else zero
        h = _charge(before, x[i - first], constant[i % len(constant)], dynamics.charge)
        if dynamics.reset == ZERO_LATE:
            h = zero if late else h
        elif dynamics.reset >= SUBTRACT_LATE:
            h = h - late * th
        active[0] += x[i - first] != zero
        active[1] += h != before
        if len(charged) > 0:
            charged[i] = h
        above = h > th if dynamics.strict else h >= th
        many = one if above else zero
        if dynamics.multiple:
            many = np.trunc(h / th) if above else zero
            times[i] = many
        if above:
            fired[i // LANES] |= np.uint32(1) << np.uint32(i % LANES)
        if dynamics.reset == ZERO:
            h = zero if above else h
        elif dynamics.reset == SUBTRACT:
            h = h - many * th
        elif dynamics.reset == SUBTRACT_ONCE:
            h = h - (many - late) * th
        if len(floor) > 0:
            low = floor[i % len(floor)]
            h = low if h < low else h
        v[i] = h
