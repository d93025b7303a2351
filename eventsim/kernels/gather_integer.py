"""Synaptic sums of integers: for each output row, add up the int8 weight rows of the active input channels.

What `eventsim.kernels.gather` does for float32, with an eighth or a quarter of the bytes in registers. Integers may be
added in any order, so the events of an output row, of whatever tap, are first put together in one list, which serves
all tiles. The list is served piece by piece: so many events that no sum can leave the 16 or 32 bits of its lane. How
much their values may add up to for that, the caller proves (`room`); nothing here checks it. Then they are added to the
float32 output, which is exact for integers up to 2**24.

Sums of up to `TILE` channels stay in vector registers over the events of a piece (LLVM vectors, which any target lowers
to what it has); weights are widened as they are loaded, and fetched ahead. Sums of 16 bits take events by twos where
the processor has an instruction for that (`PAIRED`): it multiplies neighbouring unsigned bytes by neighbouring int8,
and adds the two products. So the weight rows of any two events are interleaved in registers, and are widened,
multiplied by their values and added up by it. It would saturate beyond 16 bits, which no two events of a piece reach.

Where the weights of a tile are far (`NEAR`), rows of taps are served one after the other, whose weights are then still
there for the next output row. Channels are padded to `LANES` with weights of 0, which are not counted. Uncompiled,
plain loops give the same sums.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eventsim.kernels.fetching import FIRST_LEVEL, LINE, fetch
from eventsim.kernels.integer_tiles import COMPILED, LANES, PAIRED, TILE, WIDTHS, chunks, tile_width
from eventsim.kernels.jit import kernel
from eventsim.kernels.tiles import load_masked, only, store_masked
from eventsim.kernels.vectors import spread
from eventsim.kernels.visits import by_column
from eventsim.kernels.window import Window, is_flat

ENTRIES = 1 << 17
"""Events of output rows that are put together before they are served."""
RUN = 64
"""Events that are put together at once, whether there are so many or not."""
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
    if value is None:
        return terms
    return [b.mul(term, spread(b, value, term.type.count)) for term in terms]


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
    """Make the loop over the events of a piece, for one width of the tile and one of the sums."""
    weights, silent, indices, values, first, last, out, kept, fresh = arguments
    kinds, paired = _kinds(width, bits), PAIRED and bits == 16
    step, none = 2 if paired else 1, ir.Constant(_WIDE, 0)

    def entry(base: Any, number: Any) -> Any:
        return b.load(b.gep(b.inttoptr(base, _WORD.as_pointer()), [number]), align=4)

    def plus(number: Any, by: int) -> Any:
        return b.add(number, ir.Constant(_WIDE, by))

    def row(event: Any) -> Any:
        return b.add(weights, b.mul(b.zext(entry(indices, event), _WIDE), ir.Constant(_WIDE, width)))

    begun = [ir.Constant(kind, [0] * kind.count) for kind in kinds]
    before = b.block
    loop, end = (b.append_basic_block(name) for name in ("events", "end"))
    b.cbranch(b.icmp_signed("<", first, last), loop, end)

    b.position_at_end(loop)
    event, totals = b.phi(_WIDE), [b.phi(kind) for kind in kinds]
    for n in range(step if width > LINE else 0):  # the weights of narrow tiles are near
        fetched = row(plus(event, AHEAD + n))
        for line in range(0, width, LINE):
            fetch(b, plus(fetched, line), FIRST_LEVEL)
    value = b.trunc(entry(values, event), ir.IntType(bits)) if valued else None
    if paired:
        second = plus(event, 1)
        other = b.select(b.icmp_signed("<", second, last), row(second), silent)
        if valued:  # of an event behind the last one, whatever it is, as its weights are 0
            next_value = b.trunc(entry(values, second), ir.IntType(bits))
            value = b.or_(value, b.shl(next_value, ir.Constant(next_value.type, 8)))
        terms = _products_of_two(b, [row(event), other], value or ir.Constant(ir.IntType(16), 0x0101), width)
    else:
        terms = _products(b, row(event), value, kinds)
    added = [b.add(total, term) for total, term in zip(totals, terms, strict=True)]
    following = plus(event, step)
    b.cbranch(b.icmp_signed("<", following, last), loop, end)

    b.position_at_end(end)
    left = [b.phi(kind) for kind in kinds]
    event.add_incoming(first, before)
    event.add_incoming(following, loop)
    for phis in (totals, left):
        for phi, old, new in zip(phis, begun, added, strict=True):
            phi.add_incoming(old, before)
            phi.add_incoming(new, loop)
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
    typingctx: Any, code: Any, tile: Any, silent: Any, indices: Any, values: Any, first: Any, last: Any, out: Any,
    kept: Any, fresh: Any,
) -> Any:  # fmt: skip
    """Write the sum of the weight rows of some events to the output, or add it to what is there, unless `fresh`.

    A code says the place of the width in `WIDTHS`, whether sums have 32 bits, and whether there are values. Then come
    addresses: weights of the tile, a row of zeros, indices and values; the first event and the one behind the last; and
    the address of the output. Of the channels of the tile the first `kept` are outputs.
    """
    address, size = types.uintp, types.int64
    signature = types.void(size, address, address, address, address, size, size, address, size, size)

    def generate(context: Any, b: Any, _: Any, arguments: Any) -> Any:
        code, *rest = arguments

        def way(width: int, bits: int, valued: bool) -> Callable[[], None]:
            return lambda: _serve_row(b, width, bits, valued, rest)

        _switch(b, code, [way(*key) for key in itertools.product(WIDTHS, (16, 32), (False, True))])
        return context.get_dummy_value()

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def _fetch(typingctx: Any, address: Any, lines: Any) -> Any:
    """Ask for some cache lines to be brought into the second-level cache."""

    def generate(context: Any, b: Any, _: Any, arguments: Any) -> Any:
        address, lines = arguments
        with cgutils.for_range(b, lines) as loop:
            fetch(b, b.add(address, b.mul(loop.index, ir.Constant(_WIDE, LINE))))
        return context.get_dummy_value()

    return types.void(types.uintp, types.int64), generate


@kernel
def _serve_plainly(
    width: int,
    weights: npt.NDArray[np.int8],
    indices: npt.NDArray[np.int32],
    values: npt.NDArray[np.int32],
    piece: tuple[int, int],
    out: npt.NDArray[np.float32],
    fresh: bool,
) -> None:
    """Do what `_serve` does, uncompiled, for as many channels as there are outputs."""
    sums = np.zeros(len(out), np.int32)
    for e in range(piece[0], piece[1]):
        value = np.int32(1) if len(values) == 0 else values[e]
        for j in range(len(out)):
            sums[j] += np.int32(weights[np.int64(indices[e]) * width + j]) * value
    for j in range(len(out)):
        out[j] = np.float32(sums[j]) if fresh else out[j] + np.float32(sums[j])


_is_flat, _tile_width = kernel(is_flat), kernel(tile_width)


@kernel
def _with_room(entries: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Return entries, as integers, in an array that has some more, which may be read."""
    out = np.empty(len(entries) + RUN + AHEAD, np.int32)
    for e in range(len(entries)):
        out[e] = np.int32(entries[e])
    out[len(entries) :] = 0
    return out


@kernel
def _put_together(
    lists: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int32]],
    window: Window,
    inputs: int,
    taps: tuple[int, int],
    span: tuple[int, int],
    ends: npt.NDArray[np.int64],
    together: tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]],
) -> int:
    """Put together what output rows read through some rows of taps; return the row at which there is no more room.

    Parameters
    ----------
    lists : tuple (indptr, indices, values)
        Of the input, indices as `by_column` makes them, and values as integers; both with `RUN` more than there are.
    window : Window
    inputs : int
        Channels of a pixel.
    taps : tuple (the first row of taps, the last, which is excluded)
    span : tuple (first row, last row)
    ends : int64 array (rows + 1,)
        Written: ends of the rows.
    together : tuple (indices, values)
        Written: tap times `inputs` and channel of each event, and its value, if there are any. There is room for one
        row at least, and `RUN` more.
    """
    (indptr, indices, values), w, (entries, factors) = lists, window, together
    valued = len(values) > 0
    reach = w.kernel_width if w.dilation_width == 1 else 1
    n, out_x = np.int64(0), w.out_width
    ends[0] = y = frame = 0
    for row in range(span[0], span[1]):
        out_x += 1
        if out_x >= w.out_width:  # a line begins, or the first one goes on
            line = row // w.out_width
            out_x = row - line * w.out_width
            y = line % w.out_height * w.stride_height - w.pad_height
            frame = line // w.out_height * w.height
        for tap_y in range(taps[0], taps[1]):
            source_y = y + tap_y * w.dilation_height
            if source_y < 0 or source_y >= w.height:
                continue
            source = (frame + source_y) * w.width
            for tap_x in range(0, w.kernel_width, reach):
                x = out_x * w.stride_width - w.pad_width + tap_x * w.dilation_width
                begin, end = max(x, 0), min(x + reach, w.width)
                if begin >= end:
                    continue
                first, last = indptr[np.uint64(source + begin)], indptr[np.uint64(source + end)]
                if n + last - first > len(entries) - RUN - AHEAD:
                    entries[n : n + AHEAD + 1] = 0
                    return row
                shift = np.int32((tap_y * w.kernel_width + tap_x - x) * inputs)
                for e in range(0, last - first, RUN):
                    for k in range(RUN):
                        entries[np.uint64(n + e + k)] = indices[np.uint64(first + e + k)] + shift
                for e in range(0, last - first if valued else 0, RUN):
                    for k in range(RUN):
                        factors[np.uint64(n + e + k)] = values[np.uint64(first + e + k)]
                n += last - first
        ends[row + 1 - span[0]] = n
    entries[n : n + AHEAD + 1] = 0  # indices that are read, though not served
    return span[1]


@kernel
def _added_up(values: npt.NDArray[np.int32], events: int) -> npt.NDArray[np.int64]:
    """Return what the values before each event, and before the end, add up to."""
    before = np.empty(events + 1, np.int64)
    total = np.int64(0)
    for e in range(events):
        before[e] = total
        total += values[e]
    before[events] = total
    return before


@kernel
def _serve_rows(  # noqa: PLR0917
    ends: npt.NDArray[np.int64],
    lists: tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]],
    packed: npt.NDArray[np.int8],
    room: int,
    wide: bool,
    out: npt.NDArray[np.float32],
    inputs: int,
    tiles: tuple[int, int],
    fresh: bool,
) -> None:
    """Serve output rows, whose events, of all taps, end where `ends` says; see `gather_integer`."""
    indices, values = lists
    outputs = out.shape[1]
    padded = (outputs + LANES - 1) // LANES * LANES
    binary = len(values) == 0
    before = _added_up(values, 0 if binary or wide else ends[len(out)])
    silent = np.zeros(TILE, np.int8)
    first = tile = 0
    for serial in range(tiles[1]):
        left = padded - first
        width = _tile_width(left)
        kept = min(width, outputs - first)
        # meanwhile fetch what the next tile will read, which in a network is far away, if most of it is read
        following = tile + inputs * width
        lines = 0
        if fresh and serial + 1 < tiles[1] and len(out) > 0 and ends[len(out)] - ends[0] > inputs:
            lines = (inputs * _tile_width(left - width) // LINE + len(out) - 1) // len(out)
        for row in range(len(out) if serial >= tiles[0] else 0):
            if COMPILED:
                _fetch(np.uintp(packed.ctypes.data + following + row * lines * LINE), lines)
            begin, last = ends[row], ends[row + 1]
            is_first = fresh
            while begin < last or is_first:
                end = last
                if not wide and binary:
                    end = min(last, begin + room)
                elif not wide:
                    while before[end] - before[begin] > room and end > begin + 1:
                        end = begin + (end - begin + 1) // 2
                if COMPILED:
                    _serve(
                        2 * (2 * ((TILE - width) // LANES) + np.int64(wide)) + (0 if binary else 1),
                        np.uintp(packed.ctypes.data + tile),
                        silent.ctypes.data,
                        indices.ctypes.data,
                        values.ctypes.data,
                        begin,
                        end,
                        out.ctypes.data + 4 * (row * outputs + first),
                        kept,
                        np.int64(is_first),
                    )
                else:
                    weights = packed[tile : tile + inputs * width]
                    _serve_plainly(
                        width, weights, indices, values, (begin, end), out[row, first : first + kept], is_first
                    )
                begin, is_first = end, False
        first, tile = first + width, following


@kernel
def gather_integer(
    rows: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]],
    packed: npt.NDArray[np.int8],
    room: int,
    wide: bool,
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
    room : int
        Where the values of events add up to no more than it, their sums fit 16 bits; no value is larger.
    wide : bool
        All sums fit 32 bits, and are taken in these. Else no value is above 255.
    out : float32 array (steps * out_height * out_width, outputs)
        Written.
    window : Window
    part : tuple (first tile, last tile, first row, last row)
        Served are these tiles and these rows of the output, the last ones excluded.
    """
    indptr, indices, values = rows
    first_tile, last_tile, first_row, last_row = part
    w, outputs = window, out.shape[1]
    padded = (outputs + LANES - 1) // LANES * LANES
    inputs = len(packed) // max(padded, 1)  # of all taps
    binary = len(values) == 0
    tiles = first_tile, last_tile
    factors = _with_room(values[: indptr[-1]])
    if binary:
        factors = factors[:0]
    if _is_flat(w):
        lists = _with_room(indices[: indptr[-1]]), factors
        ends = indptr[first_row : last_row + 1]
        _serve_rows(ends, lists, packed, room, wide, out[first_row:last_row], inputs, tiles, True)
        return
    channels = inputs // (w.kernel_height * w.kernel_width)
    at_once = w.kernel_height if inputs * min(padded, TILE) <= NEAR else 1
    listed = by_column(indptr, indices, w, channels, RUN + AHEAD)
    given = indptr, listed, factors
    space = max(ENTRIES, inputs) + RUN + AHEAD
    entries = np.empty(space, np.int32)
    their_values = np.empty(0 if binary else space, np.int32)
    ends = np.empty(last_row - first_row + 1, np.int64)
    for first_tap in range(0, w.kernel_height, at_once):
        taps = first_tap, min(first_tap + at_once, w.kernel_height)
        row = first_row
        while row < last_row:
            end = _put_together(given, w, channels, taps, (row, last_row), ends, (entries, their_values))
            lists = entries, their_values
            _serve_rows(ends, lists, packed, room, wide, out[row:end], inputs, tiles, first_tap == 0)
            row = end
