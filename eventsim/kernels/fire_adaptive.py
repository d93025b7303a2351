"""Charge, fire and reset of neurons whose terms have coefficients and gates, which follow from means over positions.

A gate needs every neuron's terms, so that a step goes twice over the population: once to add up what the means are of,
and once to fire. Neurons are numbered through and taken in stretches of whole positions and whole words of bits, for
which what belongs to channels is repeated: loops are long then, however few channels there are.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eventsim.kernels.exponentials import sigmoids
from eventsim.kernels.jit import kernel
from eventsim.kernels.vectors import transform

LANES = 32
"""Neurons whose comparison becomes one word."""
STRETCH = 1024
"""Neurons of a stretch, about."""

COMPILED = not numba.config.DISABLE_JIT

Array: TypeAlias = npt.NDArray[np.float32]
Place: TypeAlias = tuple[int, int]
Four: TypeAlias = tuple[Array, Array, Array, Array]

_WIDE, _WORD, _FLOAT = ir.IntType(64), ir.IntType(32), ir.FloatType()
_FLOATS = ir.VectorType(_FLOAT, LANES)


class Rules(NamedTuple):
    """What is the same in every step.

    Attributes
    ----------
    channels : int
    stretch : int
        Neurons of a stretch, as `stretch_of` returns it.
    of_terms : bool
        Gates follow from the means of both terms, else from those of the last input and of this one.
    joined : bool
        One gate for the sum of both terms, else one for each.
    scalar : bool
        A gate is for all channels, else for one.
    strict : bool
        Fire above the threshold, else at it too.
    subtract : bool
        A spike takes the threshold off the potential, else the potential is 0 after it.
    threshold : float32
    scale : float32
        Of gates.
    places : tuple
        Of each coefficient, floats from a time step to the next, 0 where it is for all; and 1 where it is of every
        neuron, 0 where it begins again with each stretch.
    """

    channels: int
    stretch: int
    of_terms: bool
    joined: bool
    scalar: bool
    strict: bool
    subtract: bool
    threshold: np.float32
    scale: np.float32
    places: tuple[Place, Place, Place, Place]


def stretch_of(channels: int) -> int:
    """Return how many neurons are taken together: whole positions, and whole words of bits."""
    period = math.lcm(channels, LANES)
    return period * max(1, STRETCH // period)


@intrinsic  # type: ignore[untyped-decorator]
def _fire(typingctx: Any, h: Any, v: Any, threshold: Any, strict: Any, subtract: Any, fired: Any, vectors: Any) -> Any:
    """Fire and reset whole vectors; return how many potentials had changed.

    Arguments are addresses of charged potentials, of potentials and of words, and sizes.
    """
    address = types.uintp
    signature = types.int64(address, address, types.float32, types.boolean, types.boolean, address, types.int64)

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        b, (h, v, threshold, strict, subtract, fired, vectors) = builder, arguments
        nowhere, nothing = ir.Constant(_FLOATS, ir.Undefined), ir.Constant(_FLOATS, [0.0] * LANES)
        first = b.insert_element(nowhere, threshold, ir.Constant(_WORD, 0))
        limit = b.shuffle_vector(first, nowhere, ir.Constant(ir.VectorType(_WORD, LANES), [0] * LANES))
        changed = cgutils.alloca_once_value(b, ir.Constant(_WIDE, 0))
        with cgutils.for_range(b, vectors) as loop:

            def place(base: Any, kind: Any, index: Any = loop.index) -> Any:
                return b.gep(b.inttoptr(base, kind.as_pointer()), [index])

            charged, before = b.load(place(h, _FLOATS), align=4), b.load(place(v, _FLOATS), align=4)
            at, above = b.fcmp_ordered("==", charged, limit), b.fcmp_ordered(">", charged, limit)
            spikes = b.select(strict, above, b.or_(above, at))
            b.store(b.bitcast(spikes, _WORD), place(fired, _WORD), align=4)
            left = b.select(subtract, b.fsub(charged, limit), nothing)
            b.store(b.select(spikes, left, charged), place(v, _FLOATS), align=4)
            differs = b.bitcast(b.fcmp_unordered("!=", charged, before), _WORD)
            b.store(b.add(b.load(changed), b.zext(b.ctpop(differs), _WIDE)), changed)
        return b.load(changed)

    return signature, generate


@kernel
def _fire_some(charged: Array, v: Array, rules: Rules, fired: npt.NDArray[np.uint32], first: int, last: int) -> int:
    """Fire and reset some neurons, charged ones counted from the first; return how many potentials had changed."""
    changed, whole = 0, first
    if COMPILED:
        vectors = (last - first) // LANES
        whole = first + vectors * LANES
        changed = _fire(
            charged.ctypes.data,
            v.ctypes.data + 4 * first,
            rules.threshold,
            rules.strict,
            rules.subtract,
            fired.ctypes.data + 4 * (first // LANES),
            vectors,
        )
    else:
        fired[first // LANES : last // LANES] = 0
    for i in range(whole, last):
        h = charged[i - first]
        changed += h != v[i]
        above = h > rules.threshold if rules.strict else h >= rules.threshold
        if above:
            fired[i // LANES] |= np.uint32(1) << np.uint32(i % LANES)
        v[i] = h if not above else h - rules.threshold if rules.subtract else np.float32(0)
    return changed


@kernel
def _begin(place: Place, step: int, at: int) -> np.uint64:
    """Return where a coefficient of a stretch begins in a step."""
    return np.uint64(step * place[0] + at * place[1])  # unsigned: never counted from the end


@kernel
def _add_terms(
    x: Array, v: Array, coefficients: Four, rules: Rules, step: int, room: Array, sums: tuple[Array, Array]
) -> None:
    """Add up both terms of all stretches, neuron by neuron."""
    (retention, gain, encoding, _), (past, present) = coefficients, sums
    past[:] = 0
    present[:] = 0
    for at in range(0, len(v), rules.stretch):
        n, first = np.uint64(min(rules.stretch, len(v) - at)), np.uint64(at)
        r, g = _begin(rules.places[0], step, at), _begin(rules.places[1], step, at)
        if len(encoding) > 0:
            e = _begin(rules.places[2], step, at)
            for i in range(n):
                room[i] = v[first + i] + encoding[e + i]
            for i in range(n):
                past[i] += room[i] * retention[r + i]
        else:
            for i in range(n):
                past[i] += v[first + i] * retention[r + i]
        for i in range(n):
            present[i] += x[first + i] * gain[g + i]


@kernel
def _advance(
    x: Array,
    v: Array,
    coefficients: Four,
    rules: Rules,
    step: int,
    rooms: tuple[Array, Array],
    opened: tuple[Array, Array],
    fired: npt.NDArray[np.uint32],
) -> int:
    """Charge, fire and reset all neurons; return how many potentials the charge changed.

    Without gates, all are open.
    """
    (retention, gain, encoding, added), (past, present), (room, charged) = coefficients, opened, rooms
    changed = 0
    for at in range(0, len(v), rules.stretch):
        n, first = np.uint64(min(rules.stretch, len(v) - at)), np.uint64(at)
        r, g = _begin(rules.places[0], step, at), _begin(rules.places[1], step, at)
        if len(encoding) > 0:
            e = _begin(rules.places[2], step, at)
            for i in range(n):
                room[i] = (v[first + i] + encoding[e + i]) * retention[r + i]
        else:
            for i in range(n):
                room[i] = v[first + i] * retention[r + i]
        if rules.joined:
            for i in range(n):
                charged[i] = (room[i] + x[first + i] * gain[g + i]) * past[i]
        else:
            for i in range(n):
                charged[i] = room[i] * past[i] + x[first + i] * gain[g + i] * present[i]
        if len(added) > 0:
            e = _begin(rules.places[3], step, at)
            for i in range(n):
                charged[i] += added[e + i]
        changed += _fire_some(charged, v, rules, fired, at, min(at + rules.stretch, len(v)))
    return changed


@kernel
def _means(sums: Array, positions: int, means: Array) -> None:
    """Write the means of the channels, whose sums lie repeated."""
    channels = len(means)
    for c in range(channels):
        total = np.float32(0)
        for i in range(c, len(sums), channels):
            total += sums[i]
        means[c] = total / np.float32(positions)


@kernel
def _open(gates: Four, step: int, means: Array, rules: Rules, opened: tuple[Array, Array]) -> None:
    """Write the gates that follow from the means, two terms one behind the other, repeated for a stretch."""
    reduce_weight, reduce_bias, expand_weight, expand_bias = gates
    count, per_term = expand_weight.shape[1], 1 if rules.scalar else rules.channels
    hidden, row = np.empty(reduce_weight.shape[1], np.float32), np.zeros(-(-count // 16) * 16, np.float32)
    transform(
        reduce_weight[step if len(reduce_weight) > 1 else 0],
        means,
        reduce_bias[step if len(reduce_bias) > 1 else 0],
        hidden,
    )
    for i in range(len(hidden)):
        hidden[i] = max(hidden[i], np.float32(0))
    transform(
        expand_weight[step if len(expand_weight) > 1 else 0],
        hidden,
        expand_bias[step if len(expand_bias) > 1 else 0],
        row,
    )
    sigmoids(row)
    for i in range(count):
        row[i] *= rules.scale
    for at in range(0, rules.stretch, per_term):
        for c in range(per_term):
            opened[0][at + c] = row[c]
            opened[1][at + c] = row[c + count - per_term]


@kernel
def fire_adaptively(
    x: Array,
    potential: Array,
    coefficients: Four,
    gates: Four,
    rules: Rules,
    first: int,
    past: Array,
    told: tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]],
) -> None:
    """Advance every neuron by some steps, and tell by bits who fired.

    Parameters
    ----------
    x : float32 array (steps, neurons)
        Input.
    potential : float32 array (neurons,)
        Changed in place.
    coefficients : tuple (retention, gain, past encoding, potential encoding)
        Flat float32 arrays, of each time step or of one, of each neuron or of a stretch, as `Rules.places` says;
        encodings may be empty.
    gates : tuple (reduce weight, reduce bias, expand weight, expand bias)
        As `AdaptiveLIF` has them; the weights are empty if there are no gates.
    rules : Rules
    first : int
        The time step of the sample that the first of these steps is.
    past : float32 array (channels,)
        The means of the last input; written where gates follow from inputs.
    told : tuple (fired, changed)
        Written: the bits of each step, as `eventsim.kernels.bits.list_steps` takes them, and how many potentials the
        charge of each step changed.
    """
    (fired, changed), stretch, channels = told, rules.stretch, rules.channels
    neurons = len(potential)
    positions = neurons // channels
    room, charged = np.empty(stretch, np.float32), np.empty(stretch, np.float32)
    sums = np.zeros(stretch, np.float32), np.zeros(stretch, np.float32)
    opened = np.ones(stretch, np.float32), np.ones(stretch, np.float32)
    means = np.zeros(2 * channels, np.float32)
    gated = len(gates[0]) > 0
    for row in range(len(x)):
        step, given = first + row, x[row]
        fired[row, neurons // LANES :] = 0
        if gated and rules.of_terms:
            _add_terms(given, potential, coefficients, rules, step, room, sums)
            _means(sums[0], positions, means[:channels])
            _means(sums[1], positions, means[channels:])
        elif gated:
            sums[1][:] = 0
            for at in range(0, neurons, stretch):
                for i in range(np.uint64(min(stretch, neurons - at))):
                    sums[1][i] += given[np.uint64(at) + i]
            means[:channels] = past
            _means(sums[1], positions, past)
            means[channels:] = past
        if gated:
            _open(gates, step, means, rules, opened)
        changed[row] = _advance(given, potential, coefficients, rules, step, (room, charged), opened, fired[row])
