"""Synaptic sums of integers, four input channels at a time, where the processor has an instruction for that.

The instruction (VPDPBUSD of AVX-512 VNNI and AVX-VNNI) multiplies four unsigned bytes by four int8 weights and adds the
products to a sum of 32 bits, in every lane of a vector, and nothing in it saturates. A quad is four neighbouring input
channels, whose values are the bytes of a word; silent quads are skipped. A sum needs no proof here beyond that the
whole of it fits 32 bits.

What limits this is the load of weights, and neighbouring pixels or tokens are active in much the same quads. So two
output rows, side by side, are served at once: what is listed are the quads that either of two inputs is active in. As
in `eventsim.kernels.gather`, their sums stay in registers over a visit: by one tap or, where these weights are not too
many, by a row of taps. Between visits they lie in the output, as integers; the last visit makes float32 of them, which
is exact for integers up to 2**24. Without the instruction and uncompiled, what is here gives the same sums, slowly:
`eventsim.kernels.gather_integer` serves the same layers there.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eventsim.kernels.fetching import LINE, fetch
from eventsim.kernels.jit import kernel
from eventsim.kernels.processor import COMPRESSED, FEATURES
from eventsim.kernels.window import Window, is_flat

QUAD = 4
LANES = 16
ENTRY = 3
"""Integers of an entry: the number of a quad, and its word for the first and for the second row; each has a list."""
ROWS = 64
"""Output rows, an even number, that one tap visits before the next; their sums stay in the first-level cache."""
NEAR = 81920
"""Bytes of weights that a visit may choose from: with more, they are too far away for few events each."""
LARGEST_VALUE = 255
VISIT = 5

COMPILED = not numba.config.DISABLE_JIT

Pairs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]

_WIDE, _WORD, _BYTE, _FLOAT = ir.IntType(64), ir.IntType(32), ir.IntType(8), ir.FloatType()
_SUMS, _FLOATS = ir.VectorType(_WORD, LANES), ir.VectorType(_FLOAT, LANES)
_NOWHERE, _NOTHING = ir.Constant(_SUMS, ir.Undefined), ir.Constant(_SUMS, [0] * LANES)


HALVES = "avx512vnni" not in FEATURES
"""Whether the instruction has 256 bits, as that of AVX-VNNI, if there is one."""
SERVED = not HALVES or "avxvnni" in FEATURES
"""Whether the processor has the instruction."""
TILE = 48 if HALVES else 96
"""Channels of a tile: the sums of two rows fit the registers, and the weights of 384 inputs the first-level cache."""


def _number(value: int) -> Any:
    return ir.Constant(_WIDE, value)


def _pick(b: Any, vector: Any, lanes: Any, other: Any = None) -> Any:
    second = ir.Constant(vector.type, ir.Undefined) if other is None else other
    return b.shuffle_vector(vector, second, ir.Constant(ir.VectorType(_WORD, len(lanes)), list(lanes)))


def _add_products(b: Any, sums: Any, bytes_of: Any, weights: Any) -> Any:
    """Add to each lane the products of four bytes and four weights."""
    if not SERVED:
        many, long = ir.VectorType(_BYTE, 4 * LANES), ir.VectorType(_WORD, 4 * LANES)
        values, factors = b.zext(b.bitcast(bytes_of, many), long), b.sext(b.bitcast(weights, many), long)
        products = b.mul(values, factors)
        for n in range(QUAD):
            sums = b.add(sums, _pick(b, products, range(n, 4 * LANES, QUAD)))
        return sums
    lanes = LANES // 2 if HALVES else LANES
    kind = ir.VectorType(_WORD, lanes)
    name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
    instruction = cgutils.get_or_insert_function(b.module, ir.FunctionType(kind, [kind] * 3), name)
    if not HALVES:
        return b.call(instruction, [sums, bytes_of, weights])
    low, high = range(lanes), range(lanes, LANES)
    halves = [b.call(instruction, [_pick(b, part, half) for part in (sums, bytes_of, weights)]) for half in (low, high)]
    return _pick(b, halves[0], range(LANES), halves[1])


def _vectors(b: Any, place: Any, count: int) -> list[Any]:
    """Return pointers to so many vectors that lie one behind the other."""
    first = b.bitcast(place, _SUMS.as_pointer())
    return [b.gep(first, [_number(n)]) for n in range(count)]


def _visit(b: Any, vectors: int, visit: Any, out: Any, fresh: Any, last: Any) -> None:
    """Build one visit: the loop over its entries, and what happens to the sums before and after."""
    entries, events, weights = visit
    places = [place for row in out for place in _vectors(b, row, vectors)]
    blocks = [b.append_basic_block(name) for name in ("held", "begun", "quads", "summed", "whole", "part", "visited")]
    held, ready, loop, end, whole, part, done = blocks
    start = b.block
    b.cbranch(fresh, ready, held)
    b.position_at_end(held)
    loaded = [b.load(place, align=4) for place in places]
    b.branch(ready)
    b.position_at_end(ready)
    begun = [b.phi(_SUMS) for _ in places]
    for phi, value in zip(begun, loaded, strict=True):
        phi.add_incoming(_NOTHING, start)
        phi.add_incoming(value, held)
    b.cbranch(b.icmp_signed(">", events, _number(0)), loop, end)

    b.position_at_end(loop)
    event, sums = b.phi(_WIDE), [b.phi(_SUMS) for _ in places]
    number, *words = (b.load(b.gep(each, [event])) for each in entries)
    alone = [b.insert_element(_NOWHERE, word, ir.Constant(_WORD, 0)) for word in words]
    spread = [_pick(b, word, [0] * LANES) for word in alone]
    row = b.add(weights, b.mul(b.sext(number, _WIDE), _number(QUAD * LANES * vectors)))
    factors = [b.load(place, align=LINE) for place in _vectors(b, b.inttoptr(row, _BYTE.as_pointer()), vectors)]
    each = [(word, factor) for word in spread for factor in factors]
    added = [_add_products(b, total, *pair) for total, pair in zip(sums, each, strict=True)]
    following = b.add(event, _number(1))
    event.add_incoming(_number(0), ready)
    event.add_incoming(following, loop)
    b.cbranch(b.icmp_signed("<", following, events), loop, end)

    b.position_at_end(end)
    totals = [b.phi(_SUMS) for _ in places]
    for phi in (sums, totals):
        for total, begin, new in zip(phi, begun, added, strict=True):
            total.add_incoming(begin, ready)
            total.add_incoming(new, loop)
    b.cbranch(last, whole, part)
    backwards = list(zip(totals, places, strict=True))[::-1]  # where both rows are one, the first stays
    b.position_at_end(whole)
    for total, place in backwards:
        b.store(b.sitofp(total, _FLOATS), b.bitcast(place, _FLOATS.as_pointer()), align=4)
    b.branch(done)
    b.position_at_end(part)
    for total, place in backwards:
        b.store(total, place, align=4)
    b.branch(done)
    b.position_at_end(done)


@intrinsic  # type: ignore[untyped-decorator]
def _serve(  # noqa: PLR0917
    typingctx: Any, vectors: Any, visits: Any, count: Any, weights: Any, entries: Any, room: Any, out: Any, fresh: Any,
    last: Any, ahead: Any, lines: Any,
) -> Any:  # fmt: skip
    """Add the products of the quads of each visit to two rows of sums.

    Arguments are sizes, addresses, the room of each list of entries and, in the end, whether sums begin at 0, and
    whether they become float32. A visit is five integers: its first entry, how many, the offset of its weights in bytes
    (those of number 0), and those of its two rows of sums in elements, which are the same where there is no second row.
    Each visit fetches `lines` more cache lines from `ahead` on.
    """
    address, size, flag = types.uintp, types.int64, types.boolean
    signature = types.void(size, address, size, address, address, size, address, flag, flag, address, size)

    def generate(context: Any, b: Any, _: Any, arguments: Any) -> Any:
        vectors, visits, count, weights, entries, room, out, fresh, last, ahead, lines = arguments
        visits, out = b.inttoptr(visits, _WIDE.as_pointer()), b.inttoptr(out, _WORD.as_pointer())
        entries = b.inttoptr(entries, _WORD.as_pointer())
        end = b.append_basic_block("served")
        ways = b.switch(vectors, end)
        for width in range(1, TILE // LANES + 1):
            block = b.append_basic_block("tile")
            ways.add_case(_number(width), block)
            b.position_at_end(block)
            with cgutils.for_range(b, count) as loop:
                at = b.mul(loop.index, _number(VISIT))
                first, events, weight, *rows = (b.load(b.gep(visits, [b.add(at, _number(n))])) for n in range(VISIT))
                with cgutils.for_range(b, lines) as line:
                    behind = b.mul(b.add(b.mul(loop.index, lines), line.index), _number(LINE))
                    fetch(b, b.add(ahead, behind))
                needed = b.or_(b.or_(fresh, last), b.icmp_signed(">", events, _number(0)))
                with b.if_then(needed):
                    lists = [b.gep(entries, [b.add(first, b.mul(room, _number(n)))]) for n in range(ENTRY)]
                    visit = lists, events, b.add(weights, weight)
                    _visit(b, width, visit, [b.gep(out, [row]) for row in rows], fresh, last)
            b.branch(end)
        b.position_at_end(end)
        return context.get_dummy_value()

    return signature, generate


def edge(outputs: int, tile: int) -> int:
    """Return the output channel with which a tile begins, counted in whole vectors; tiles are as equal as can be."""
    vectors = (outputs + LANES - 1) // LANES
    tiles = (outputs + TILE - 1) // TILE
    return (tile * (vectors // tiles) + min(tile, vectors % tiles)) * LANES


def tiles_of(outputs: int) -> int:
    """Return how many tiles there are, each of which may be served apart."""
    return (outputs + TILE - 1) // TILE


_edge, _tiles_of = kernel(edge), kernel(tiles_of)


def pack_quads(weight: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """Arrange weights ``(taps, inputs, outputs)`` as `gather_quads` reads them.

    Tile by tile, in it tap by tap and quad by quad of inputs, in which the four weights of an output lie together; what
    is missing of a quad or of the last vector is 0. The first tile begins on a cache line.
    """
    taps, inputs, outputs = weight.shape
    quads, padded = -(-inputs // QUAD), -(-outputs // LANES) * LANES
    whole = np.zeros((taps, quads * QUAD, padded), np.int8)
    whole[:, :inputs, :outputs] = weight
    by_output = whole.reshape(taps, quads, QUAD, padded).transpose(0, 1, 3, 2)
    room = np.zeros(by_output.size + LINE, np.int8)
    packed = room[-room.ctypes.data % LINE :][: by_output.size]
    begin = 0
    for tile in range(tiles_of(outputs)):
        part = by_output[:, :, edge(outputs, tile) : edge(outputs, tile + 1)]
        packed[begin : begin + part.size] = part.reshape(-1)
        begin += part.size
    return packed


def unpack_quads(packed: npt.NDArray[np.int8], taps: int, inputs: int, outputs: int) -> npt.NDArray[np.int8]:
    """Return the weights ``(taps, inputs, outputs)`` that `pack_quads` arranged."""
    quads, begin, tiles = -(-inputs // QUAD), 0, []
    for tile in range(tiles_of(outputs)):
        width = edge(outputs, tile + 1) - edge(outputs, tile)
        part = packed[begin : begin + taps * quads * width * QUAD].reshape(taps, quads, width, QUAD)
        tiles.append(part.transpose(0, 1, 3, 2).reshape(taps, quads * QUAD, width))
        begin += part.size
    return np.concatenate(tiles, axis=2)[:, :inputs, :outputs]


def reach_of(window: Window, inputs: int, outputs: int) -> int:
    """Return how many taps a visit takes: a row of them, where their weights are not too many."""
    bytes_of = window.kernel_width * (inputs + QUAD - 1) // QUAD * QUAD * min(outputs, TILE)
    return window.kernel_width if window.dilation_width == 1 and bytes_of <= NEAR else 1


def lines_of(window: Window, steps: int) -> tuple[int, int]:
    """Return how many lines `list_pairs` lists of so many time steps, and how many pairs each of them has."""
    if is_flat(window):
        return -(-steps * window.height * window.width // 2), 1
    return steps * window.height, window.width + window.stride_width


def room_for_pairs(lines: int, pairs: int, inputs: int) -> int:
    """Return how many entries these lines can have, and some that are written behind them."""
    return lines * pairs * -(-inputs // QUAD) + LANES


@intrinsic  # type: ignore[untyped-decorator]
def _compress(typingctx: Any, one: Any, other: Any, size: Any, shift: Any, out: Any, pitch: Any) -> Any:
    """Write numbers and words of the quads that are not 0 in both of two lists of words, and return how many.

    Given are addresses, how many quads there are, the number of the first one, and how many bytes lie between the lists
    that are written. A vector behind the end may be read, and one behind what is kept is written.
    """
    address, size_type = types.uintp, types.int64
    signature = size_type(address, address, size_type, types.int32, address, address)

    def generate(context: Any, b: Any, _: Any, arguments: Any) -> Any:
        one, other, size, shift, out, pitch = arguments
        bits = ir.VectorType(ir.IntType(1), LANES)
        kind = ir.FunctionType(_SUMS, [_SUMS, bits, _SUMS])
        name = f"llvm.experimental.vector.compress.v{LANES}i32"
        compress = cgutils.get_or_insert_function(b.module, kind, name)
        lanes = ir.Constant(_SUMS, list(range(LANES)))

        def spread(word: Any) -> Any:
            return _pick(b, b.insert_element(_NOWHERE, word, ir.Constant(_WORD, 0)), [0] * LANES)

        def at(base: Any, offset: Any) -> Any:
            return b.inttoptr(b.add(base, offset), _SUMS.as_pointer())

        kept = cgutils.alloca_once_value(b, _number(0))
        vectors = b.udiv(b.add(size, _number(LANES - 1)), _number(LANES))
        with cgutils.for_range(b, vectors) as loop:
            first = b.mul(loop.index, _number(LANES))
            words = [b.load(at(base, b.mul(first, _number(4))), align=4) for base in (one, other)]
            numbers = b.add(lanes, spread(b.trunc(first, _WORD)))
            there = b.icmp_signed("<", numbers, spread(b.trunc(size, _WORD)))
            active = b.and_(there, b.icmp_signed("!=", b.or_(*words), _NOTHING))
            so_far = b.load(kept)
            for n, values in enumerate([b.add(numbers, spread(shift)), *words]):
                place = at(out, b.add(b.mul(so_far, _number(4)), b.mul(pitch, _number(n))))
                b.store(b.call(compress, [values, active, _NOWHERE]), place, align=4)
            count = b.zext(b.ctpop(b.bitcast(active, ir.IntType(LANES))), _WIDE)
            b.store(b.add(so_far, count), kept)
        return b.load(kept)

    return signature, generate


@kernel
def list_pairs(
    rows: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]],
    width: int,
    distance: int,
    inputs: int,
    numbered: bool,
    pairs: Pairs,
    part: tuple[int, int, int],
) -> None:
    """List, for pairs of pixels of a line, the quads of channels that are not silent in both.

    Others may list other lines at the same time.

    Parameters
    ----------
    rows : tuple (indptr, indices, values)
        CSR rows; values, which are integers, are empty where all are 1.
    width : int
        Pixels of a line.
    distance : int
        From the first pixel of a pair to the second: there is a pair for every first one from -distance to the end of
        the line, and pixels outside are silent. 0 for rows in pairs, each of them a line of its own.
    inputs : int
        Channels of a row.
    numbered : bool
        Whether quads are numbered through the pairs of a line.
    pairs : tuple (ends, entries)
        Written: for each line where its first pair begins and each one ends, ``(lines, pairs + 1)``, see `lines_of`;
        and for each quad an integer in each of `ENTRY` lists ``(ENTRY, room)``, see `room_for_pairs`. The bytes do not
        hold values above `LARGEST_VALUE`.
    part : tuple (first line, last line, begin)
        Listed are these lines, the last one excluded, and their entries begin there.
    """
    indptr, indices, values = rows
    ends, entries = pairs
    first, last, begin = part
    total, size = len(indptr) - 1, (inputs + QUAD - 1) // QUAD
    pixels, far, slot_before = (width, distance, 0) if distance > 0 else (2, 1, 1)
    words, room = np.zeros((pixels + 2 * far) * size + LANES, np.int32), np.uint64(entries.shape[1])
    held, listed = words.view(np.uint8), entries.reshape(-1)
    n = np.uint64(begin)
    for line in range(first, last):
        top = line * pixels
        for row in range(top, min(top + pixels, total)):
            at = np.uint64((row - top + far) * size * QUAD)
            for e in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
                value = np.float32(1)
                if len(values) > 0:
                    value = values[e]
                held[at + np.uint64(indices[e])] = np.uint8(np.int64(value) & 255)
        ends[line, 0] = np.int64(n)
        for pair in range(ends.shape[1] - 1):
            slot = slot_before + pair
            a, b = np.uint64(slot * size), np.uint64((slot + far) * size)
            shift = np.int32(slot * size if numbered else 0)
            if COMPILED and COMPRESSED:
                places = words.ctypes.data + 4 * slot * size, words.ctypes.data + 4 * (slot + far) * size
                n += np.uint64(_compress(places[0], places[1], size, shift, listed.ctypes.data + 4 * n, 4 * room))
            else:
                for g in range(np.uint64(size)):
                    one, other = words[a + g], words[b + g]
                    listed[n] = np.int32(g) + shift
                    listed[n + room] = one
                    listed[n + room + room] = other
                    n += np.uint64((one | other) != 0)
            ends[line, pair + 1] = np.int64(n)
        words[:] = 0


@kernel
def _serve_plainly(
    width: int,
    visits: npt.NDArray[np.int64],
    packed: npt.NDArray[np.int8],
    entries: npt.NDArray[np.int32],
    out: npt.NDArray[np.int32],
    fresh: bool,
    last: bool,
) -> None:
    """Do what `_serve` does, uncompiled."""
    as_float = out.view(np.float32)
    for visit in range(0, len(visits), VISIT):
        first, count, weights = visits[visit], visits[visit + 1], visits[visit + 2]
        for row in range(2):
            to = visits[visit + 3 + row]
            if row == 1 and to == visits[visit + 3]:
                continue
            for j in range(width):
                total = np.int64(0) if fresh else np.int64(out[to + j])
                for e in range(first, first + count):
                    at = weights + (np.int64(entries[0, e]) * width + j) * QUAD
                    word = np.int64(entries[row + 1, e])
                    for n in range(QUAD):
                        total += (word >> np.int64(8 * n) & np.int64(255)) * np.int64(packed[at + n])
                if last:
                    as_float[to + j] = total
                else:
                    out[to + j] = total


@kernel
def _find(
    ends: npt.NDArray[np.int64],
    window: Window,
    taps: tuple[int, int],
    span: tuple[int, int],
    sizes: tuple[int, int],
    visits: npt.NDArray[np.int64],
) -> int:
    """Find what a tap, or a row of taps, reads for a span of output rows, as `_serve` takes it; return how many visits.

    `taps` says the first and how many in a row; `sizes` the bytes of weights of a tap, and elements from one row of
    sums to the next.
    """
    w, (tap, reach), (row, end), (weights, pitch) = window, taps, span, sizes
    dy = tap // w.kernel_width * w.dilation_height - w.pad_height
    dx = tap % w.kernel_width * w.dilation_width - w.pad_width
    far, found, begin = w.stride_width, 0, row
    while row < end:
        line = row // w.out_width
        y = line % w.out_height * w.stride_height + dy
        x = (row - line * w.out_width) * w.stride_width + dx
        source = line // w.out_height * w.height + y
        inside = 0 <= y < w.height
        stop = min(end, (line + 1) * w.out_width)
        for target in range(row, stop, 2):
            left, right = max(x, -far), min(x + reach, w.width)
            first = last = np.int64(0)
            if inside and left < right:
                first, last = ends[source, far + left], ends[source, far + right]
            visits[found], visits[found + 1] = first, last - first
            visits[found + 2] = (tap - x - far if reach > 1 else tap) * weights
            visits[found + 3] = (target - begin) * pitch
            visits[found + 4] = (min(target + 1, stop - 1) - begin) * pitch
            found += VISIT
            x += 2 * w.stride_width
        row = stop
    return found // VISIT


@kernel
def _find_flat(ends: npt.NDArray[np.int64], span: tuple[int, int], pitch: int, visits: npt.NDArray[np.int64]) -> int:
    """Do what `_find` does where each output row is that of one input row; the span begins with an even row."""
    row, end = span
    found = 0
    for target in range(row, end, 2):
        first = ends[target // 2, 0]
        visits[found], visits[found + 1] = first, ends[target // 2, 1] - first
        visits[found + 2] = 0
        visits[found + 3] = (target - row) * pitch
        visits[found + 4] = (min(target + 1, end - 1) - row) * pitch
        found += VISIT
    return found // VISIT


@kernel
def gather_quads(
    pairs: Pairs,
    packed: npt.NDArray[np.int8],
    out: npt.NDArray[np.float32],
    window: Window,
    inputs: int,
    reach: int,
    part: tuple[int, int, int, int],
) -> None:
    """Add up the weights of the active channels, times their values.

    Parts that do not overlap may be served at the same time; together they give what all at once would.

    Parameters
    ----------
    pairs : tuple (ends, entries)
        Rows of the input, ``steps * height * width`` of them, as `list_pairs` makes them: with the stride as distance,
        or 0 where the window `is_flat`; and numbered through where several taps are served at once.
    packed : int8 array
        Weights as `pack_quads` arranges them. No sum of them times the values is beyond 2**24.
    out : float32 array (steps * out_height * out_width, outputs)
        Written.
    window : Window
    inputs : int
        Channels of the input.
    reach : int
        Taps served at once, of `reach_of`.
    part : tuple (first tile, last tile, first row, last row)
        Served are these tiles and these rows of the output, the last ones excluded; the first row is an even one.
    """
    ends, entries = pairs
    first_tile, last_tile, first_row, last_row = part
    w, outputs = window, out.shape[1]
    taps, size = w.kernel_height * w.kernel_width, (inputs + QUAD - 1) // QUAD * QUAD
    flat = ends.shape[1] == 2  # of pairs that are lines of their own
    visits = np.empty(VISIT * ROWS, np.int64)
    whole, rest = out.reshape(-1).view(np.int32), np.empty(ROWS * TILE, np.int32)
    for tile in range(first_tile, last_tile):
        channel = _edge(outputs, tile)
        width = _edge(outputs, tile + 1) - channel
        kept = min(width, outputs - channel)
        tile_weights, tap_weights = taps * size * channel, size * width
        for begin in range(first_row, last_row, ROWS):
            end = min(begin + ROWS, last_row)
            sums, to, pitch = (whole, begin * outputs + channel, outputs) if kept == width else (rest, 0, width)
            for tap in range(0, taps, reach):
                if flat:
                    found = _find_flat(ends, (begin, end), pitch, visits)
                else:
                    found = _find(ends, w, (tap, reach), (begin, end), (tap_weights, pitch), visits)
                fresh, last = tap == 0, tap + reach >= taps
                # meanwhile fetch what the next taps will read, which in a network is far away
                following, lines = tile_weights + (tap + reach) * tap_weights, 0
                if begin == first_row and following < len(packed):
                    lines = (reach * tap_weights // LINE + found - 1) // found
                if COMPILED:
                    _serve(
                        width // LANES,
                        np.uintp(visits.ctypes.data),
                        found,
                        np.uintp(packed.ctypes.data + tile_weights),
                        np.uintp(entries.ctypes.data),
                        entries.shape[1],
                        np.uintp(sums.ctypes.data + 4 * to),
                        fresh,
                        last,
                        np.uintp(packed.ctypes.data + following),
                        lines,
                    )
                else:
                    plain = visits[: VISIT * found]
                    _serve_plainly(width, plain, packed[tile_weights:], entries, sums[to:], fresh, last)
            if kept < width:
                as_float = rest.view(np.float32)
                for row in range(end - begin):
                    for j in range(kept):
                        out[begin + row, channel + j] = as_float[row * width + j]
