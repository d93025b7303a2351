"""Charge, fire, reset of neurons whose potentials are fixed-point numbers of 32 bits; emits the spikes as CSR rows.

What `eventsim.kernels.fire` does in float32, in the same stretches and bits. A leak is a product with a fraction of
`LEAK_BITS` bits, rounded to the nearest integer, halves up, and where that fraction is a power of two, a shift gives
the same bits. Every intermediate value fits 32 bits, the product 64, as long as `LARGEST_CURRENT` and
`LARGEST_POTENTIAL` hold, which who calls has proven of the inputs and the kernel sees to for potentials: where the
input leaks, too, a potential ends between what it was and what arrives, else it is kept from growing further.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eventsim.kernels.bits import list_steps
from eventsim.kernels.dynamics import LANES, STRETCH
from eventsim.kernels.jit import kernel
from eventsim.kernels.neuron_parts import FLOATS, NOTHING_COUNTED, count, fetch_ahead, keep_bits, total

COMPILED = not numba.config.DISABLE_JIT

LEAK_BITS = 15
LARGEST_CURRENT = 2**29
"""Magnitude of a sum shifted to the units of the potential, with its bias."""
LARGEST_POTENTIAL = 2**30
"""Magnitude at which a potential stays; no threshold is higher."""

INTEGRATE, SHIFT, SHIFT_LEAK, MULTIPLY, MULTIPLY_LEAK = 0, 1, 2, 3, 4
"""Ways to charge; compiled code keeps the numbers."""

_WIDE, _WORD = ir.IntType(64), ir.IntType(32)
_FLOATS, _WORDS, _WIDES = (ir.VectorType(kind, FLOATS) for kind in (ir.FloatType(), _WORD, _WIDE))


PARTS = LANES // FLOATS
"""Registers whose neurons are advanced together."""


class Fixed(NamedTuple):
    """How a population of fixed-point neurons charges, fires and resets.

    Attributes
    ----------
    way : int
        ``INTEGRATE`` v + x; ``SHIFT`` v + round((x - v) / 2^shift); ``SHIFT_LEAK`` v + round(-v / 2^shift) + x;
        ``MULTIPLY`` and ``MULTIPLY_LEAK`` the same with a leak / 2^15 in place of 1 / 2^shift.
    shift : int
        From 1 to 15, where it is used.
    fraction : int
        Bits behind the point of a potential: x is the sum that arrives times 2^fraction, plus the bias.
    subtract : bool
        A spike takes the threshold off the potential, else it leaves 0.
    largest : int
        Magnitude that a sum which arrives may have.
    fresh : bool
        The first of the steps begins from 0, whatever the potential is at hand.
    """

    way: int
    shift: int
    fraction: int
    subtract: bool
    largest: int
    fresh: bool = False


def repeated_integers(constant: npt.NDArray[np.int32], positions: int) -> npt.NDArray[np.int32]:
    """Return a constant (1 or positions, channels) as `fire_integer` reads it: for every neuron, or for a stretch."""
    rows, channels = constant.shape
    neurons = positions * channels
    period = math.lcm(channels, LANES)
    length = neurons if rows == positions else min(-(-STRETCH // period) * period, neurons)
    return np.resize(constant, length).astype(np.int32)


@intrinsic  # type: ignore[untyped-decorator]
def _advance(  # noqa: PLR0917
    typingctx: Any, x: Any, u: Any, v: Any, bias: Any, leak: Any, fires_at: Any, taken: Any, words: Any, active: Any,
    vectors: Any, way: Any, shift: Any, fraction: Any, subtract: Any, largest: Any,
) -> Any:  # fmt: skip
    """Advance vectors of neurons by one step.

    Addresses of: inputs, potentials before and after, biases, leaks, the least potential that fires, what a spike takes
    off, words of spikes, and three counts that are added to: neurons with an input, with a change, and, not 0 if there
    was one, inputs beyond the largest.
    """
    address, size = types.uintp, types.int64
    signature = types.void(*[address] * 9, *[size] * 6)

    def generate(context: Any, b: Any, _: Any, arguments: Any) -> Any:
        x, u, v, bias, leak, fires_at, taken, words, active, vectors, way, shift, fraction, subtract, largest = (
            arguments
        )
        nil, nothing = ir.Constant(_WIDE, 0), ir.Constant(_WORDS, [0] * FLOATS)

        def spread(value: Any, kind: Any) -> Any:
            alone = b.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_WORD, 0))
            return b.shuffle_vector(alone, ir.Constant(kind, ir.Undefined), nothing)

        def everywhere(value: int, kind: Any = _WORDS) -> Any:
            return ir.Constant(kind, [value] * FLOATS)

        by, point = spread(b.trunc(shift, _WORD), _WORDS), spread(b.trunc(fraction, _WORD), _WORDS)
        half = b.lshr(b.shl(everywhere(1), by), everywhere(1))
        most = spread(b.bitcast(b.sitofp(largest, ir.FloatType()), _WORD), _WORDS)
        magnitude = everywhere(0x7FFFFFFF)
        name = f"llvm.rint.v{FLOATS}f32"
        rounded_to = cgutils.get_or_insert_function(b.module, ir.FunctionType(_FLOATS, [_FLOATS]), name)
        top, bottom = everywhere(LARGEST_POTENTIAL), everywhere(-LARGEST_POTENTIAL)

        def one(offset: Any, number: int, falls: bool) -> tuple[Any, Any, Any, Any]:
            """Advance one part this way; return magnitudes of inputs, as integers, and inputs, changes, spikes."""

            def at(base: Any, kind: Any = _WORDS) -> Any:
                return b.inttoptr(b.add(base, offset), kind.as_pointer())

            given = b.load(at(x, _FLOATS), align=4)
            current = b.add(b.shl(b.fptosi(b.call(rounded_to, [given]), _WORDS), point), b.load(at(bias), align=4))
            before = b.load(at(u), align=4)

            def scaled(value: Any) -> Any:
                product = b.mul(b.sext(value, _WIDES), b.sext(b.load(at(leak), align=4), _WIDES))
                rounded = b.add(product, everywhere(1 << (LEAK_BITS - 1), _WIDES))
                return b.trunc(b.ashr(rounded, everywhere(LEAK_BITS, _WIDES)), _WORDS)

            def shifted(value: Any) -> Any:
                return b.ashr(b.add(value, half), by)

            charge = [
                lambda: current,
                lambda: shifted(b.sub(current, before)),
                lambda: b.add(shifted(b.sub(nothing, before)), current),
                lambda: scaled(b.sub(current, before)),
                lambda: b.add(scaled(b.sub(nothing, before)), current),
            ]
            h = b.add(before, charge[number]())
            spikes = b.icmp_signed(">=", h, b.load(at(fires_at), align=4))
            after = b.select(spikes, b.sub(h, b.load(at(taken), align=4)) if falls else nothing, h)
            if number not in (SHIFT, MULTIPLY):  # there it ends between what it was and what arrives
                after = b.select(b.icmp_signed(">", after, top), top, after)
                after = b.select(b.icmp_signed("<", after, bottom), bottom, after)
            b.store(after, at(v), align=4)
            bits = b.and_(b.bitcast(given, _WORDS), magnitude)
            return bits, b.icmp_signed("!=", current, nothing), b.icmp_signed("!=", h, before), spikes

        def all_of(number: int, falls: bool) -> None:
            places = [b.inttoptr(b.add(active, ir.Constant(_WIDE, 8 * n)), _WIDE.as_pointer()) for n in range(3)]
            entry, loop, end = b.block, b.append_basic_block("vectors"), b.append_basic_block("end")
            b.branch(loop)
            b.position_at_end(loop)
            index, seen, totals = b.phi(_WIDE), b.phi(_WORDS), [b.phi(NOTHING_COUNTED.type) for _ in range(2)]
            offset = b.mul(index, ir.Constant(_WIDE, 4 * FLOATS))
            fetch_ahead(b, x, offset, vectors, LANES)
            fetch_ahead(b, v, offset, vectors, LANES)
            larger, added = seen, list(totals)
            for n in range(PARTS):
                bits, *counted, spikes = one(b.add(offset, ir.Constant(_WIDE, 4 * FLOATS * n)), number, falls)
                keep_bits(b, words, b.add(index, ir.Constant(_WIDE, n)), spikes)
                larger = b.select(b.icmp_unsigned(">", bits, larger), bits, larger)
                added = [count(b, so_far, lanes) for so_far, lanes in zip(added, counted, strict=True)]
            following = b.add(index, ir.Constant(_WIDE, PARTS))
            for phi, new in zip([index, seen, *totals], [following, larger, *added], strict=True):
                phi.add_incoming(ir.Constant(phi.type, None), entry)  # zeros
                phi.add_incoming(new, loop)
            b.cbranch(b.icmp_signed("<", following, b.mul(vectors, ir.Constant(_WIDE, PARTS))), loop, end)
            b.position_at_end(end)
            # magnitudes of floats are ordered as their bits are, and what is no number is above them
            beyond = count(b, NOTHING_COUNTED, b.icmp_unsigned(">", larger, most))
            for lanes, place in zip([*added, beyond], places, strict=True):
                b.store(b.add(b.load(place), total(b, lanes)), place)

        done = b.append_basic_block("done")
        some = b.append_basic_block("some")
        b.cbranch(b.icmp_signed(">", vectors, nil), some, done)
        b.position_at_end(some)
        kinds = [(number, falls) for number in range(5) for falls in (False, True)]
        blocks = [b.append_basic_block("way") for _ in kinds]
        ways = b.switch(b.add(b.shl(way, ir.Constant(_WIDE, 1)), subtract), blocks[0])
        for code, (kind, block) in enumerate(zip(kinds, blocks, strict=True)):
            if code:
                ways.add_case(ir.Constant(_WIDE, code), block)
            b.position_at_end(block)
            all_of(*kind)
            b.branch(done)
        b.position_at_end(done)
        return context.get_dummy_value()

    return signature, generate


@kernel
def fire_integer(
    current: npt.NDArray[np.float32],
    potential: npt.NDArray[np.int32],
    constants: tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]],
    fixed: Fixed,
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int32],
    fired: npt.NDArray[np.uint32],
    active: npt.NDArray[np.int64],
) -> bool:
    """Advance every neuron by some time steps.

    Parameters
    ----------
    current : float32 array (steps * positions, channels)
        Sums that arrive; each is rounded to an integer, halves to the even one.
    potential : int32 array (positions, channels)
        Updated in place.
    constants : tuple (bias, leak, fires_at, taken)
        Biases in units of the potential, leaks in units of 2^-15, the least potential that fires and what a spike takes
        off; int32 arrays of equal length as `repeated_integers` makes them.
    fixed : Fixed
    indptr : int64 array (steps * positions + 1,)
        Written: ends of the rows of spikes; the first entry is given, and says where they begin.
    indices : int32 array
        Written: the channels that fired; with room for every neuron and step, or for none.
    fired : uint32 array (steps, words)
        Written: a bit for each neuron and step, `words` of them in each step.
    active : int64 array (steps, 3)
        Written: neurons whose current, bias included, is not zero; those whose charge changed the potential; and a
        count that is not 0 where an input was beyond the largest.

    Returns
    -------
    bool
        Whether no input was beyond the largest; if one was, nothing that was written means anything.
    """
    positions, channels = potential.shape
    advance_integer(current, potential, constants, fixed, fired, active, 0, positions * channels)
    list_steps(fired, positions, channels, indptr, indices, 0, len(fired))
    return are_within(active)


@kernel
def advance_integer(
    current: npt.NDArray[np.float32],
    potential: npt.NDArray[np.int32],
    constants: tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]],
    fixed: Fixed,
    fired: npt.NDArray[np.uint32],
    active: npt.NDArray[np.int64],
    first: int,
    last: int,
) -> None:
    """Advance some of the neurons, as `fire_integer` does, and tell by bits who fired.

    Parameters
    ----------
    current : float32 array (steps * positions, channels)
        Of all neurons, or of these alone.
    potential, constants, fixed
        As for `fire_integer`.
    fired : uint32 array (steps, words)
        Written: a bit for each neuron and step, `words` of them in each step; those of these neurons.
    active : int64 array (steps, 3)
        Written, of these neurons: as for `fire_integer`.
    first, last : int
        The neurons, numbered through: each a multiple of `LANES` and of the channels, or the end of all.
    """
    bias, leak, fires_at, taken = constants
    active[:] = 0
    neurons, steps = potential.size, active.shape[0]
    x, v = current.reshape(-1), potential.reshape(-1)
    given = x.size // max(steps, 1)  # neurons of whom the current is
    missing = first if given < neurons else 0
    whole = len(bias) == neurons
    stretch = stretch_of_integers(len(bias), neurons)
    if last == neurons:
        fired[:, neurons // LANES :] = 0
    if COMPILED:
        nothing = np.zeros(stretch if fixed.fresh else 0, np.int32)
        for a in range(first, last, stretch):
            at = 4 * a if whole else 0
            for step in range(steps):
                _advance(
                    x.ctypes.data + 4 * (step * given + a - missing),
                    nothing.ctypes.data if fixed.fresh and step == 0 else v.ctypes.data + 4 * a,
                    v.ctypes.data + 4 * a,
                    bias.ctypes.data + at,
                    leak.ctypes.data + at,
                    fires_at.ctypes.data + at,
                    taken.ctypes.data + at,
                    fired.ctypes.data + 4 * (step * fired.shape[1] + a // LANES),
                    active.ctypes.data + 24 * step,
                    min(stretch, last - a) // LANES,
                    fixed.way,
                    fixed.shift,
                    fixed.fraction,
                    np.int64(fixed.subtract),
                    fixed.largest,
                )
    rest = max(first, neurons // LANES * LANES) if COMPILED else first
    if rest < last:
        if not COMPILED:
            fired[:, first // LANES : last // LANES] = 0
        for step in range(steps):
            if fixed.fresh and step == 0:
                v[rest:last] = 0
            at = step * given + rest - missing
            _rest(rest, last, x[at : at + last - rest], v, constants, fixed, fired[step], active[step])


@kernel
def stretch_of_integers(constants: int, neurons: int) -> int:
    """Return how many neurons are advanced together, behind whom constants of a length begin again."""
    return min(neurons, STRETCH) if constants == neurons else constants


@kernel
def are_within(active: npt.NDArray[np.int64]) -> bool:
    """Return whether no input was beyond the largest, of what `advance_integer` counted."""
    beyond = False
    for step in range(len(active)):
        beyond |= active[step, 2] != 0
    return not beyond


@kernel
def _rest(
    first: int,
    last: int,
    x: npt.NDArray[np.float32],
    v: npt.NDArray[np.int32],
    constants: tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]],
    fixed: Fixed,
    fired: npt.NDArray[np.uint32],
    active: npt.NDArray[np.int64],
) -> None:
    """Advance some neurons one by one by one step, as `_advance` does."""
    bias, leak, fires_at, taken = constants
    for i in range(first, last):
        n = i % len(bias)
        before = np.int64(v[i])
        given = np.float64(x[i - first])
        beyond = not -fixed.largest <= given <= fixed.largest
        active[2] += beyond
        sums = np.int64(0) if beyond else np.int64(np.rint(given))
        current = (sums << np.int64(fixed.fraction)) + np.int64(bias[n])
        if fixed.way == INTEGRATE:
            h = before + current
        else:
            rounding = np.int64(1) << np.int64(LEAK_BITS - 1)
            if fixed.way in (SHIFT, MULTIPLY):
                h = before + (((current - before) * np.int64(leak[n]) + rounding) >> np.int64(LEAK_BITS))
            else:
                h = before + ((-before * np.int64(leak[n]) + rounding) >> np.int64(LEAK_BITS)) + current
        active[0] += current != 0
        active[1] += h != before
        if h >= fires_at[n]:
            fired[i // LANES] |= np.uint32(1) << np.uint32(i % LANES)
            h = h - np.int64(taken[n]) if fixed.subtract else np.int64(0)
        v[i] = min(max(h, -np.int64(LARGEST_POTENTIAL)), np.int64(LARGEST_POTENTIAL))
