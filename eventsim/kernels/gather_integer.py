"""Synaptic sums of integers: for each output row, add up the int8 weight rows of the active input channels.

What `eventsim.kernels.gather` does for float32, with an eighth or a quarter of the bytes in registers. Integers may be
added in any order, so the sums of a tile of channels are taken piece by piece: so many taps, or channels of a tap, that
no sum can leave the 16 or 32 bits of its lane, whatever is active. Who calls proves that (`Span`); nothing here checks
it. Then they are added to the float32 output, which is exact for integers up to 2**24.

Sums of up to `TILE` channels stay in vector registers over the events of a row (LLVM vectors, which any target lowers
to what it has); weights are widened as they are loaded, and fetched ahead. Sums of 16 bits take events by twos where
the processor has an instruction for that (`PAIRED`): it multiplies neighbouring unsigned bytes by neighbouring int8,
and adds the two products. So the weight rows of any two events are interleaved in registers, and are widened,
multiplied by their values and added up by it. It would saturate beyond 16 bits, which no two events of a span reach.

A visit serves an output row with as many spans as fit the lanes: those that are proven to, whatever is active, or more
where the values of what is active add up to little (`FITTING`). Where the weights of a tile are far (`NEAR`) it takes
one, whose weights are then still there for the next row. Where spans allow it they are rows of taps, whose input pixels
lie side by side in the lists. Channels are padded to `LANES` with weights of 0, which are not counted. Uncompiled,
plain loops give the same sums.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eventsim.kernels.integer_tiles import COMPILED, LANES, PAIRED, TILE, WIDTHS, chunks
from eventsim.kernels.jit import kernel
from eventsim.kernels.tiles import load_masked, only, store_masked
from eventsim.kernels.vectors import spread
from eventsim.kernels.window import Window

BLOCK = 128
"""Output rows that one span visits before the next."""

FITTING = (2**15 - 1) // 127
"""What the values of events may add up to for their sums to fit 16 bits, whatever the weights are."""


class Span(NamedTuple):
    """Input channels of one tap, or of a row of taps, that are served in one go.

    Attributes
    ----------
    tap, low, high : int
        Channels from `low` on, up to `high`; of a row of taps all.
    begins, ends : bool
        Whether it is the first and the last of those whose sums fit the lanes together.
    """

    tap: int
    low: int
    high: int
    begins: bool
    ends: bool


AHEAD = 16
"""So many events before it is added, a weight row is fetched: from the second-level cache it takes that long."""
NEAR = 512 << 10
"""Bytes of the weights of a tile that the second-level cache holds, about."""

_WIDE, _WORD, _BYTE, _FLOAT = ir.IntType(64), ir.IntType(32), ir.IntType(8), ir.FloatType()


def _places(b: Any, base: Any, kinds: Sequence[Any]) -> list[Any]:
    """Return pointers to vectors of some kinds that lie one behind the other from an address on."""
    sizes = [kind.count * (4 if kind.element == _FLOAT else kind.element.width // 8) for kind in kinds]
    offsets = [0, *itertools.accumulate(sizes)]
    return [
        b.inttoptr(b.add(base, ir.Constant(_WIDE, offset)), kind.as_pointer())
        for offset, kind in zip(offsets, kinds, strict=False)
    ]


def _kinds(width: int, bits: int) -> list[Any]:
    """Return the vectors that hold the sums of a tile."""
    pieces = chunks(width) if PAIRED and bits == 16 else []
    return [
        ir.VectorType(ir.IntType(bits), lanes)
        for lanes in [chunk // 2 for chunk in pieces for _ in range(2)] or [LANES] * (width // LANES)
    ]


def _products(b: Any, row: Any, value: Any, kinds: Sequence[Any]) -> list[Any]:
    """Return the weights of one event, widened, times its value if it has one."""
    bytes_of = [ir.VectorType(_BYTE, kind.count) for kind in kinds]
    terms = [b.sext(b.load(place, align=1), kind) for place, kind in zip(_places(b, row, bytes_of), kinds, strict=True)]
    return terms if value is None else [b.mul(term, spread(b, value, term.type.count)) for term in terms]


def _products_of_two(b: Any, rows: Sequence[Any], values: Any, width: int) -> list[Any]:
    """Return the weights of two events times their values, which are the bytes of 16 bits, added up.

    The instructions work on blocks of 128 bits, from each of which one interleaves the first halves of two vectors, and
    another the second halves; weights lie such that the sums come in order (`integer_tiles`).
    """
    terms = []
    pieces = chunks(width)
    bytes_of = [ir.VectorType(_BYTE, chunk) for chunk in pieces]
    for chunk, *places in zip(pieces, *(_places(b, row, bytes_of) for row in rows), strict=True):
        one, other = (b.load(place, align=1) for place in places)
        factors = b.bitcast(spread(b, values, chunk // 2), one.type)
        kind = ir.FunctionType(ir.VectorType(ir.IntType(16), chunk // 2), [one.type] * 2)
        name = "llvm.x86.avx512.pmaddubs.w.512" if chunk == 64 else "llvm.x86.avx2.pmadd.ub.sw"
        instruction = cgutils.get_or_insert_function(b.module, kind, name)
        for half in (0, 8):
            lanes = [block + half + n // 2 + n % 2 * chunk for block in range(0, chunk, 16) for n in range(16)]
            both = b.shuffle_vector(one, other, ir.Constant(ir.VectorType(_WORD, chunk), lanes))
            terms.append(b.call(instruction, [factors, both]))
    return terms


def _serve_row(b: Any, width: int, bits: int, valued: bool, arguments: Any) -> None:
    """Make the loops over the segments of a visit, and their events, for one width of the tile and one of the sums."""
    tile, silent, indices, values, segments, count, out, kept, fresh = arguments
    kinds, paired = _kinds(width, bits), PAIRED and bits == 16
    step, none = 2 if paired else 1, ir.Constant(_WIDE, 0)

    def entry(base: Any, kind: Any, number: Any) -> Any:
        return b.load(b.gep(b.inttoptr(base, kind.as_pointer()), [number]), align=1)

    def plus(number: Any, by: int) -> Any:
        return b.add(number, ir.Constant(_WIDE, by))

    def row(event: Any) -> Any:
        return b.add(weights, b.mul(b.zext(entry(indices, _WORD, event), _WIDE), ir.Constant(_WIDE, width)))

    begun = [ir.Constant(kind, [0] * kind.count) for kind in kinds]
    before = b.block
    segment, loop, served, end = (b.append_basic_block(name) for name in ("segment", "events", "served", "end"))
    b.branch(segment)

    b.position_at_end(segment)
    number, held = b.phi(_WIDE), [b.phi(kind) for kind in kinds]
    offset, first, last = (entry(segments, _WIDE, plus(b.mul(number, ir.Constant(_WIDE, 3)), n)) for n in range(3))
    weights = b.add(tile, offset)
    b.cbranch(b.icmp_signed("<", first, last), loop, served)

    b.position_at_end(loop)
    event, totals = b.phi(_WIDE), [b.phi(kind) for kind in kinds]
    kind = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), _WORD, _WORD, _WORD])
    fetch = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0i8")
    for n in range(step if width > 64 else 0):  # the weights of narrow tiles are near
        fetched = row(plus(event, AHEAD + n))
        for line in range(0, width, 64):
            place = b.inttoptr(plus(fetched, line), _BYTE.as_pointer())
            b.call(fetch, [place, *(ir.Constant(_WORD, flag) for flag in (0, 3, 1))])
    if paired:
        second = plus(event, 1)
        other = b.select(b.icmp_signed("<", second, last), row(second), silent)
        pair = b.gep(b.inttoptr(values, _BYTE.as_pointer()), [event])
        both = b.load(b.bitcast(pair, ir.IntType(16).as_pointer()), align=1) if valued else None
        terms = _products_of_two(b, [row(event), other], both or ir.Constant(ir.IntType(16), 0x0101), width)
    else:
        value = b.fptosi(entry(values, _FLOAT, event), ir.IntType(bits)) if valued else None
        terms = _products(b, row(event), value, kinds)
    added = [b.add(total, term) for total, term in zip(totals, terms, strict=True)]
    following = plus(event, step)
    b.cbranch(b.icmp_signed("<", following, last), loop, served)

    b.position_at_end(served)
    left = [b.phi(kind) for kind in kinds]
    behind = plus(number, 1)
    b.cbranch(b.icmp_signed("<", behind, count), segment, end)
    for phi, (one, start), (another, block) in [
        (number, (none, before), (behind, served)),
        (event, (first, segment), (following, loop)),
        *((phi, (old, before), (new, served)) for phi, old, new in zip(held, begun, left, strict=True)),
        *((phi, (old, segment), (new, loop)) for phi, old, new in zip(totals, held, added, strict=True)),
        *((phi, (old, segment), (new, loop)) for phi, old, new in zip(left, held, added, strict=True)),
    ]:
        phi.add_incoming(one, start)
        phi.add_incoming(another, block)

    b.position_at_end(end)
    floats = [ir.VectorType(_FLOAT, kind.count) for kind in kinds]
    places, sums = _places(b, out, floats), [b.sitofp(total, kind) for total, kind in zip(left, floats, strict=True)]
    is_first = b.icmp_unsigned("!=", fresh, none)
    with b.if_else(b.icmp_signed("==", kept, ir.Constant(_WIDE, width))) as (whole, narrow):
        with whole:
            for total, place in zip(sums, places, strict=True):
                held = b.select(is_first, ir.Constant(total.type, [0.0] * total.type.count), b.load(place, align=4))
                b.store(b.fadd(held, total), place, align=4)
        with narrow:
            offset = 0
            for total, place in zip(sums, places, strict=True):
                _add_first(b, total, place, b.sub(kept, ir.Constant(_WIDE, offset)), is_first)
                offset += total.type.count


def _add_first(b: Any, total: Any, place: Any, lanes: Any, is_first: Any) -> None:
    """Add the first lanes of a vector to what is there, or write them."""
    mask, nothing = only(b, lanes, total.type.count), ir.Constant(total.type, [0.0] * total.type.count)
    held = b.select(is_first, nothing, load_masked(b, place, mask, nothing))
    store_masked(b, b.fadd(held, total), place, mask)


def _switch(b: Any, code: Any, ways: list[Callable[[], None]]) -> None:
    """Do what the way of a number does."""
    blocks, done = [b.append_basic_block("way") for _ in ways], b.append_basic_block("done")
    cases = b.switch(code, blocks[0])
    for number, (block, way) in enumerate(zip(blocks, ways, strict=True)):
        if number:
            cases.add_case(ir.Constant(_WIDE, number), block)
        b.position_at_end(block)
        way()
        b.branch(done)
    b.position_at_end(done)


@intrinsic  # type: ignore[untyped-decorator]
def _serve(  # noqa: PLR0917
    typingctx: Any, code: Any, tile: Any, silent: Any, indices: Any, values: Any, segments: Any, count: Any, out: Any,
    kept: Any, fresh: Any,
) -> Any:  # fmt: skip
    """Write the sum of the weight rows of some events to the output, or add it to what is there, unless `fresh`.

    A code says the place of the width in `WIDTHS`, whether sums have 32 bits, and whether there are values. Then come
    addresses: weights of the tile, a row of zeros, indices, and values, which are bytes where events are taken by twos.
    There is at least one segment of three integers: the offset of the weights of input channel 0, the first event, and
    the one behind the last. Of the channels of the tile the first `kept` are outputs.
    """
    address, size = types.uintp, types.int64
    signature = types.void(size, address, address, address, address, address, size, address, size, size)

    def generate(context: Any, b: Any, _: Any, arguments: Any) -> Any:
        code, *rest = arguments

        def way(width: int, bits: int, valued: bool) -> Callable[[], None]:
            return lambda: _serve_row(b, width, bits, valued, rest)

        _switch(b, code, [way(*key) for key in itertools.product(WIDTHS, (16, 32), (False, True))])
        return context.get_dummy_value()

    return signature, generate


class Visits(NamedTuple):
    """What the kernel takes of spans.

    Attributes
    ----------
    spans : int64 array (spans, 7)
        Tap, the places of `low` and `high` among the edges, begins, ends, and the offset of the tap in lines and in
        pixels.
    edges : int64 array
        The channels where a tap is cut, in order; nothing where none is.
    reach : int
        Taps of a span.
    """

    spans: npt.NDArray[np.int64]
    edges: npt.NDArray[np.int64]
    reach: int


def visits_of(spans: Sequence[Span], window: Window) -> Visits:
    """Return what the kernel takes of spans, as whole rows of taps where they allow it.

    They do where no span begins or ends, and no tap is divided, within a row.
    """
    w, reach = window, window.kernel_width
    whole = len(spans) == w.kernel_height * reach
    rows = [spans[first : first + reach] for first in range(0, len(spans), reach)]
    cut = any(span.begins for row in rows for span in row[1:]) or any(span.ends for row in rows for span in row[:-1])
    if reach == 1 or w.dilation_width > 1 or not whole or cut:
        reach = 1
    else:
        spans = [row[0]._replace(ends=row[-1].ends) for row in rows]
    taps, low, high, begins, ends = np.array(spans, np.int64).reshape(-1, 5).T
    edges = np.unique([low, high])
    dy = taps // w.kernel_width * w.dilation_height - w.pad_height
    dx = taps % w.kernel_width * w.dilation_width - w.pad_width
    columns = taps, np.searchsorted(edges, low), np.searchsorted(edges, high), begins, ends, dy, dx
    return Visits(np.stack(columns, axis=1), edges if len(edges) > 2 else edges[:0], reach)


@kernel
def _by_column(
    indptr: npt.NDArray[np.int64], indices: npt.NDArray[np.int32], width: int, inputs: int
) -> npt.NDArray[np.int32]:
    """Return indices that count the channels of a whole line of pixels, so that a row of taps reads one list."""
    out = np.zeros(indptr[-1] + AHEAD + 2, np.int32)
    for row in range(len(indptr) - 1):
        shift = np.int32(row % width * inputs)
        for e in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
            out[e] = indices[e] + shift
    return out


@kernel
def _values(values: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Return values as bytes, with room for one more, and what those before each add up to."""
    factors, before = np.zeros(len(values) + 1, np.uint8), np.empty(len(values) + 1, np.int32)
    for e in range(np.uint64(len(values))):
        factors[e] = np.int32(values[e])
    total = np.int32(0)
    for e in range(np.uint64(len(values))):
        before[e] = total
        total += np.int32(factors[e])
    before[len(values)] = total
    return factors, before


@kernel
def gather_integer(
    rows: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]],
    packed: npt.NDArray[np.int8],
    visits: Visits,
    lane: npt.NDArray[Any],
    out: npt.NDArray[np.float32],
    window: Window,
    part: tuple[int, int, int, int],
) -> None:
    """Add up the weight rows of the active channels, times their values.

    Parts that do not overlap may be served at the same time; together they give what all at once would.

    Parameters
    ----------
    rows : tuple (indptr, indices, values)
        CSR rows of the input, ``steps * height * width`` of them; values are empty where all are 1.
    packed : int8 array
        Weights as `pack_integers` arranges them for the bits of a lane.
    visits : Visits
        Of spans which together serve every channel of every tap once.
    lane : int16 or int32 array
        Of the width that the spans were proven for; nothing is read of it. With 16 bits values are at most 255.
    out : float32 array (steps * out_height * out_width, outputs)
        Written.
    window : Window
    part : tuple (first tile, last tile, first row, last row)
        Served are these tiles and these rows of the output, the last ones excluded.
    """
    indptr, indices, values = rows
    spans, edges, reach = visits
    first_tile, last_tile, first_row, last_row = part
    w, outputs = window, out.shape[1]
    padded = (outputs + LANES - 1) // LANES * LANES
    taps = w.kernel_height * w.kernel_width
    inputs = len(packed) // max(taps * padded, 1)
    listed = _by_column(indptr, indices, w.width, inputs if reach > 1 else 0)
    binary = len(values) == 0
    wide = np.int64(lane.itemsize == 4)
    paired = PAIRED and not wide
    silent = np.zeros(TILE, np.int8)
    factors, before = _values(values[:0] if wide else values)
    divided = len(edges) > 0
    cuts = np.empty((len(edges), len(indptr) - 1), np.int64)
    if divided:
        for row in range(len(indptr) - 1):
            e = indptr[row]
            for number in range(len(edges)):
                while e < indptr[row + 1] and indices[e] < edges[number]:
                    e += 1
                cuts[number, row] = e
    segments = np.empty((len(spans), 3), np.int64)
    sums = np.empty(0 if COMPILED else TILE, np.int32)
    first = tile = 0
    for serial in range(last_tile):
        left = padded - first
        width = 96 if left in (96, 192) else min(left, TILE)
        kept = min(width, outputs - first)
        at_once = len(spans) if taps * inputs * width <= NEAR else 1
        begin = first_row if serial >= first_tile else last_row
        next_span = 0
        while begin < last_row:
            first_span, next_span = next_span, min(next_span + at_once, len(spans))
            end = min(begin + BLOCK, last_row)
            out_x = begin % w.out_width - 1
            line = begin // w.out_width
            for target in range(begin, end):
                out_x += 1
                if out_x == w.out_width:
                    out_x = 0
                    line += 1
                n = first_span
                fresh = first_span == 0
                while n < next_span or fresh:
                    total: Any = 0
                    count = 0
                    joined = False
                    while n < next_span:
                        x = out_x * w.stride_width + spans[n, 6]
                        y = line % w.out_height * w.stride_height + spans[n, 5]
                        start: Any = 0
                        stop: Any = 0
                        if x + reach > 0 and x < w.width and y >= 0 and y < w.height:
                            source = (line // w.out_height * w.height + y) * w.width
                            start, stop = indptr[source + max(x, 0)], indptr[source + min(x + reach, w.width)]
                            if divided:
                                start, stop = cuts[spans[n, 1], source + x], cuts[spans[n, 2], source + x]
                        joined = joined or (spans[n, 3] == 1 and count > 0)
                        if start < stop:
                            more = stop - start if binary or wide else np.int64(before[stop] - before[start])
                            if joined and total + more > FITTING:
                                break
                            total += more
                            offset = (spans[n, 0] - (x if reach > 1 else 0)) * inputs * width
                            if count > 0 and segments[count - 1, 0] == offset and segments[count - 1, 2] == start:
                                segments[count - 1, 2] = stop
                            else:
                                segments[count, 0], segments[count, 1], segments[count, 2] = offset, start, stop
                                count += 1
                        n += 1
                    if count == 0 and not fresh:
                        continue
                    if COMPILED:
                        segments[count:1] = 0
                        _serve(
                            2 * (2 * ((TILE - width) // LANES) + wide) + (0 if binary else 1),
                            np.uintp(packed.ctypes.data + tile),
                            silent.ctypes.data,
                            listed.ctypes.data,
                            factors.ctypes.data if paired else values.ctypes.data,
                            segments.ctypes.data,
                            max(count, 1),
                            out.ctypes.data + 4 * (target * outputs + first),
                            kept,
                            np.int64(fresh),
                        )
                    else:
                        sums[:] = 0
                        for segment in range(count):
                            for e in range(segments[segment, 1], segments[segment, 2]):
                                value = np.int32(1) if binary else np.int32(values[e])
                                base = tile + segments[segment, 0] + listed[e] * width
                                for j in range(width):
                                    sums[j] += np.int32(packed[base + j]) * value
                        for j in range(kept):
                            held = np.float32(0) if fresh else out[target, first + j]
                            out[target, first + j] = held + np.float32(sums[j])
                    fresh = False
            if next_span == len(spans):
                begin, next_span = end, 0
        first += width
        tile += taps * inputs * width
