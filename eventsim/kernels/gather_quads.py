"""Synaptic sums of integers, four input channels at a time, where the processor has an instruction for that.

The instruction (VPDPBUSD of AVX-512 VNNI and AVX-VNNI) multiplies four unsigned bytes by four int8 weights and adds the
products to a sum of 32 bits, in every lane of a vector, and nothing in it saturates. So the lists of active channels
become lists of quads: four neighbouring channels of which at least one is active, and their values as the bytes of a
word. Silent quads are skipped. A sum needs no proof here beyond that the whole of it fits 32 bits.

As in `eventsim.kernels.gather`, the sums of a tile stay in registers over a visit: of an output row by one tap or,
where these weights are not too many, by a row of taps. Between visits they lie in the output, as integers;
the last visit makes float32 of them, which is exact for integers up to 2**24. Elsewhere, `eventsim.kernels.gather_integer`
serves the same layers; without the instruction and uncompiled, what is here gives the same sums, slowly.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from eventsim.kernels.jit import kernel
from eventsim.kernels.window import Window

QUAD = 4
LANES = 16
TILE = 96
"""Channels of a tile: twice their sums fit the registers, and the weights of 384 inputs the first-level cache."""
ROWS = 64
"""Output rows that one tap visits before the next, with sums that stay in the first-level cache."""
NEAR = 81920
"""Bytes of weights that a visit may take: beyond, they are too far away for few events each."""
LARGEST_VALUE = 255
LINE = 64

COMPILED = not numba.config.DISABLE_JIT

Quads = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int32]]

_WIDE, _WORD, _BYTE, _FLOAT = ir.IntType(64), ir.IntType(32), ir.IntType(8), ir.FloatType()
_SUMS, _FLOATS = ir.VectorType(_WORD, LANES), ir.VectorType(_FLOAT, LANES)
_NOWHERE, _NOTHING = ir.Constant(_SUMS, ir.Undefined), ir.Constant(_SUMS, [0] * LANES)
_SILENCE = np.zeros(1, np.int32)


def _features() -> set[str]:
    """Return what the processor has that kernels are compiled for."""
    *_, features = cpu_target.target_context.codegen().magic_tuple()
    return {name[1:] for name in features.split(",") if name.startswith("+")}


HALVES = "avx512vnni" not in _features()
"""Whether the instruction has 256 bits, as that of AVX-VNNI, if there is one."""
SERVED = not HALVES or "avxvnni" in _features()
"""Whether the processor has the instruction."""


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


def _visit(b: Any, vectors: int, visit: Any, lists: Any, silence: Any, out: Any, fresh: Any, last: Any) -> None:
    """Build one visit: two quads at a time, each with sums of its own, so that no addition waits for the one before."""
    (first, events, weights), (numbers, words) = visit, lists
    numbers, words = b.gep(numbers, [first]), b.gep(words, [first])
    places = _vectors(b, out, vectors)
    begun = [b.select(fresh, _NOTHING, b.load(place, align=4)) for place in places]
    entry, loop, end = b.block, b.append_basic_block("quads"), b.append_basic_block("summed")
    b.cbranch(b.icmp_signed(">", events, _number(0)), loop, end)

    b.position_at_end(loop)
    quad = b.phi(_WIDE)
    sets = 1 if HALVES else 2
    sums = [[b.phi(_SUMS) for _ in places] for _ in range(sets)]
    added = []
    for n in range(sets):
        at = b.add(quad, _number(n))
        there = b.icmp_signed("<", at, events)
        number = b.load(b.gep(numbers, [b.select(there, at, quad)]))
        word = b.load(b.select(there, b.gep(words, [at]), silence))
        alone = b.insert_element(_NOWHERE, word, ir.Constant(_WORD, 0))
        spread = _pick(b, alone, [0] * LANES)
        row = b.add(weights, b.mul(b.sext(number, _WIDE), _number(QUAD * LANES * vectors)))
        rows = _vectors(b, b.inttoptr(row, _BYTE.as_pointer()), vectors)
        factors = [b.load(place, align=LINE) for place in rows]
        added.append([_add_products(b, total, spread, each) for total, each in zip(sums[n], factors, strict=True)])
    following = b.add(quad, _number(sets))
    quad.add_incoming(_number(0), entry)
    quad.add_incoming(following, loop)
    b.cbranch(b.icmp_signed("<", following, events), loop, end)

    b.position_at_end(end)
    totals = [[b.phi(_SUMS) for _ in places] for _ in range(sets)]
    for n in range(sets):
        starts = begun if n == 0 else [_NOTHING] * vectors
        for phi in (sums[n], totals[n]):
            for total, start, new in zip(phi, starts, added[n], strict=True):
                total.add_incoming(start, entry)
                total.add_incoming(new, loop)
    for n, place in enumerate(places):
        total = totals[0][n] if sets == 1 else b.add(totals[0][n], totals[1][n])
        as_float = b.bitcast(b.sitofp(total, _FLOATS), _SUMS)
        b.store(b.select(last, as_float, total), place, align=4)


@intrinsic  # type: ignore[untyped-decorator]
def _serve(  # noqa: PLR0917
    typingctx: Any, vectors: Any, visits: Any, count: Any, weights: Any, numbers: Any, words: Any, silence: Any,
    out: Any, fresh: Any, last: Any, ahead: Any, lines: Any,
) -> Any:  # fmt: skip
    """Add the products of the quads of each visit to a row of sums.

    Arguments are sizes, addresses and, in the end, whether sums begin at 0, and whether they become float32. A visit is
    four integers: its first quad, how many, the offset of its weights in bytes (those of number 0), and that of its
    sums in elements. Each visit fetches `lines` more cache lines from `ahead` on.
    """
    address, size, flag = types.uintp, types.int64, types.boolean
    signature = types.void(size, address, size, *[address] * 5, flag, flag, address, size)

    def generate(context: Any, b: Any, _: Any, arguments: Any) -> Any:
        vectors, visits, count, weights, numbers, words, silence, out, fresh, last, ahead, lines = arguments
        visits, out = b.inttoptr(visits, _WIDE.as_pointer()), b.inttoptr(out, _WORD.as_pointer())
        lists = b.inttoptr(numbers, _WORD.as_pointer()), b.inttoptr(words, _WORD.as_pointer())
        silence = b.inttoptr(silence, _WORD.as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), _WORD, _WORD, _WORD])
        fetch = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0i8")
        options = [ir.Constant(_WORD, option) for option in (0, 2, 1)]  # to read; of use later; data
        end = b.append_basic_block("served")
        ways = b.switch(vectors, end)
        for width in range(1, TILE // LANES + 1):
            block = b.append_basic_block("tile")
            ways.add_case(_number(width), block)
            b.position_at_end(block)
            with cgutils.for_range(b, count) as loop:
                at = b.mul(loop.index, _number(4))
                first, events, weight, to = (b.load(b.gep(visits, [b.add(at, _number(n))])) for n in range(4))
                with cgutils.for_range(b, lines) as line:
                    behind = b.mul(b.add(b.mul(loop.index, lines), line.index), _number(LINE))
                    b.call(fetch, [b.inttoptr(b.add(ahead, behind), _BYTE.as_pointer()), *options])
                needed = b.or_(b.or_(fresh, last), b.icmp_signed(">", events, _number(0)))
                with b.if_then(needed):
                    visit = first, events, b.add(weights, weight)
                    _visit(b, width, visit, lists, silence, b.gep(out, [to]), fresh, last)
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


@kernel
def list_quads(
    rows: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]],
    width: int,
    inputs: int,
    quads: Quads,
) -> float:
    """List the quads of channels that are not silent.

    Parameters
    ----------
    rows : tuple (indptr, indices, values)
        CSR rows; values, which are integers, are empty where all are 1.
    width : int
        Pixels of a line whose quads are numbered through, 1 if each row begins at 0.
    inputs : int
        Channels of a row.
    quads : tuple (indptr, numbers, words)
        Written: ends of the rows, numbers of quads, and their values as bytes; these two have room for the non-zeros.

    Returns
    -------
    float
        The largest value; where it is above `LARGEST_VALUE`, bytes do not hold it.
    """
    indptr, indices, values = rows
    ends, numbers, words = quads
    largest, n = np.float32(0), np.uint64(0)
    per_row = (inputs + QUAD - 1) // QUAD
    ends[0] = 0
    for row in range(len(indptr) - 1):
        shift = np.int32(row % width * per_row)
        before, word = np.int32(-1), np.int32(0)
        for e in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
            channel = indices[e]
            number = channel >> np.int32(2)
            value = np.int32(1)
            if len(values) > 0:
                largest = max(largest, values[e])
                value = np.int32(values[e])
            new = number != before
            word = (np.int32(0) if new else word) | np.int32(value << ((channel & np.int32(3)) << np.int32(3)))
            n += np.uint64(new)
            numbers[n - np.uint64(1)] = number + shift
            words[n - np.uint64(1)] = word
            before = number
        ends[row + 1] = np.int64(n)
    return largest


@kernel
def _serve_plainly(
    width: int,
    visits: npt.NDArray[np.int64],
    packed: npt.NDArray[np.int8],
    numbers: npt.NDArray[np.int32],
    words: npt.NDArray[np.int32],
    out: npt.NDArray[np.int32],
    fresh: bool,
    last: bool,
) -> None:
    """Do what `_serve` does, uncompiled."""
    as_float = out.view(np.float32)
    for visit in range(0, len(visits), 4):
        first, count, weights, to = visits[visit], visits[visit + 1], visits[visit + 2], visits[visit + 3]
        for j in range(width):
            total = np.int64(0) if fresh else np.int64(out[to + j])
            for e in range(first, first + count):
                at = weights + (np.int64(numbers[e]) * width + j) * QUAD
                for n in range(QUAD):
                    total += (np.int64(words[e]) >> np.int64(8 * n) & np.int64(255)) * np.int64(packed[at + n])
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
) -> None:
    """Find what a tap, or a row of taps, reads for a span of output rows: a visit for each, as `_serve` takes them.

    `taps` says the first and how many in a row; `sizes` the bytes of weights of a tap, and elements from one row of sums
    to the next.
    """
    w, (tap, reach), (row, end), (weights, pitch) = window, taps, span, sizes
    dy = tap // w.kernel_width * w.dilation_height - w.pad_height
    dx = tap % w.kernel_width * w.dilation_width - w.pad_width
    found, begin = 0, row
    while row < end:
        line = row // w.out_width
        y = line % w.out_height * w.stride_height + dy
        x = (row - line * w.out_width) * w.stride_width + dx
        source = (line // w.out_height * w.height + y) * w.width
        inside = 0 <= y < w.height
        for target in range(row, min(end, (line + 1) * w.out_width)):
            left, right = max(x, 0), min(x + reach, w.width)
            first = last = np.int64(0)
            if inside and left < right:
                first, last = ends[source + left], ends[source + right]
            visits[found], visits[found + 1] = first, last - first
            visits[found + 2] = (tap - x if reach > 1 else tap) * weights
            visits[found + 3] = (target - begin) * pitch
            found += 4
            x += w.stride_width
        row = (line + 1) * w.out_width


def reach_of(window: Window, inputs: int, outputs: int) -> int:
    """Return how many taps a visit takes: a row of them, where their weights are not too many."""
    bytes_of = window.kernel_width * (inputs + QUAD - 1) // QUAD * QUAD * min(outputs, TILE)
    return window.kernel_width if window.dilation_width == 1 and bytes_of <= NEAR else 1


@kernel
def gather_quads(
    quads: Quads,
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
    quads : tuple (indptr, numbers, words)
        Rows of the input, ``steps * height * width`` of them, as `list_quads` makes them: where several taps are served
        at once, with the numbers of a line.
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
        Served are these tiles and these rows of the output, the last ones excluded.
    """
    ends, numbers, words = quads
    first_tile, last_tile, first_row, last_row = part
    w, outputs = window, out.shape[1]
    taps, size = w.kernel_height * w.kernel_width, (inputs + QUAD - 1) // QUAD * QUAD
    visits = np.empty(4 * ROWS, np.int64)
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
                _find(ends, w, (tap, reach), (begin, end), (tap_weights, pitch), visits)
                fresh, last = tap == 0, tap + reach >= taps
                # meanwhile fetch what the next taps will read, which in a network is far away
                following, lines = tile_weights + (tap + reach) * tap_weights, 0
                if begin == first_row and following < len(packed):
                    lines = (reach * tap_weights // LINE + end - begin - 1) // (end - begin)
                if COMPILED:
                    _serve(
                        width // LANES,
                        np.uintp(visits.ctypes.data),
                        end - begin,
                        np.uintp(packed.ctypes.data + tile_weights),
                        np.uintp(numbers.ctypes.data),
                        np.uintp(words.ctypes.data),
                        np.uintp(_SILENCE.ctypes.data),
                        np.uintp(sums.ctypes.data + 4 * to),
                        fresh,
                        last,
                        np.uintp(packed.ctypes.data + following),
                        lines,
                    )
                else:
                    plain = visits[: 4 * (end - begin)]
                    _serve_plainly(width, plain, packed[tile_weights:], numbers, words, sums[to:], fresh, last)
            if kept < width:
                as_float = rest.view(np.float32)
                for row in range(end - begin):
                    for j in range(kept):
                        out[begin + row, channel + j] = as_float[row * width + j]
