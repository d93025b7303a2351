"""Synaptic accumulation: for each output row, add up the weight rows of the active input channels.

A linear layer is the convolution with one tap. An output row starts from the bias and takes tap after tap, event after
event, so its sum has one order, whatever the chunk, and whatever part of a layer is served when.

The limit is the load of one weight-row slice per event. So the sums of a tile, up to `TILE` output channels, stay in
vector registers over the events of a visit: of an output row by one tap or, where events or weights are few, by a row
of taps, whose input pixels lie side by side in the lists; where they are many, by a part of the channels of one tap,
whose weights the nearest cache holds. A tap visits up to `ROWS` rows before the next one does, so that weights and sums
stay in near caches; meanwhile the weights that come next are fetched, which in a network are far away.

The vectors are LLVM's, which any target lowers to what it has. Uncompiled, plain loops do the same. Groups that are
narrower than a vector have a kernel of their own (`gather_narrow`).
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

from eventsim.kernels.fetching import FIRST_LEVEL, fetch
from eventsim.kernels.gather_narrow import serve_narrow
from eventsim.kernels.jit import kernel
from eventsim.kernels.processor import FEATURES
from eventsim.kernels.scatter import deal, scatter
from eventsim.kernels.tiles import TILE, VECTOR, load_masked, only, pointer, store_masked, vectors
from eventsim.kernels.vectors import FLOAT, LANES, WIDE, WORD, spread, whole_number
from eventsim.kernels.visits import BLOCK, ROWS, RowArrays, by_column, find, split
from eventsim.kernels.window import Window, lines_read

FEW = 12
"""Events of a row below which a visit takes a row of taps; it does where the nearest cache holds their weights, too."""
LINE = 16
"""Floats of a cache line."""
RARE = 2
"""Events of a row below which each event looks for the sums that it reaches, in place of the other way round."""
NEAR = 12288
"""Weights that the nearest cache holds, about."""
MANY = 16
"""Events of a row by the channels of so many weights, above which a visit takes those of one part of the channels."""

COMPILED = not numba.config.DISABLE_JIT
FUSED = "fma" in FEATURES
"""Whether the processor multiplies and adds at once, and rounds once."""
FRACTION, ONE = (1 << 23) - 1, 127 << 23
"""The bits of a float that are its fraction, and the bits of 1.0; those of what is more are more, as integers."""
ONES, ANY, POWERS = 0, 1, 2
"""Values: 1 all of them; whatever they are; or at least 1, and most of them powers of two, for whom one step does."""
WAYS = (ONES, ANY, POWERS) if FUSED else (ONES, ANY)
SEEN = 64
"""Values of which three quarters say what most are."""

_NO_BITS = ir.Constant(WORD, 0)
_ZEROS = ir.Constant(VECTOR, [0.0] * LANES)


def _load(b: Any, places: list[Any], lanes: Any, mask: Any) -> list[Any]:
    """Load the vectors at some places, of the last one so many lanes; what lies behind them is not touched."""
    *whole, last = places
    loaded = [b.load(place, align=4) for place in whole]
    with b.if_else(b.icmp_unsigned("==", lanes, whole_number(LANES))) as (all_, some):
        with all_:
            first, first_block = b.load(last, align=4), b.block
        with some:
            part, part_block = load_masked(b, last, mask, _ZEROS), b.block
    chosen = b.phi(VECTOR)
    chosen.add_incoming(first, first_block)
    chosen.add_incoming(part, part_block)
    return [*loaded, chosen]


def _store(b: Any, vectors: list[Any], places: list[Any], lanes: Any, mask: Any) -> None:
    """Store what `_load` loads."""
    for vector, place in zip(vectors[:-1], places[:-1], strict=True):
        b.store(vector, place, align=4)
    with b.if_else(b.icmp_unsigned("==", lanes, whole_number(LANES))) as (all_, some):
        with all_:
            b.store(vectors[-1], places[-1], align=4)
        with some:
            store_masked(b, vectors[-1], places[-1], mask)


def _sum(b: Any, begun: list[Any], kind: int, events: Any, weights: Any, lists: tuple[Any, Any]) -> list[Any]:
    """Build the loop over the events of a visit; return the sums, which begin as they are given, as vectors."""
    (indices, values), width = lists, len(begun) * LANES
    bits = _hidden(b, b.bitcast(values, WORD.as_pointer())) if kind == POWERS else None
    entry, loop, end = b.block, b.append_basic_block("events"), b.append_basic_block("summed")
    b.cbranch(b.icmp_signed(">", events, whole_number(0)), loop, end)

    b.position_at_end(loop)
    event = b.phi(WIDE)
    sums = [b.phi(VECTOR) for _ in begun]
    index = b.sext(b.load(b.gep(indices, [event])), WIDE)
    row = b.gep(weights, [b.mul(index, whole_number(width))])
    if kind != ONES:
        exact = None
        if kind == POWERS:  # the bits are loaded apart: to test those of the vector, they would be moved out of it
            exact = b.icmp_unsigned("==", b.and_(b.load(b.gep(bits, [event])), ir.Constant(WORD, FRACTION)), _NO_BITS)
        added = _add_products(b, sums, row, b.load(b.gep(values, [event])), exact)
    else:
        terms = [b.load(place, align=4) for place in vectors(b, row, len(begun))]
        added = [b.fadd(total, term) for total, term in zip(sums, terms, strict=True)]
    following = b.add(event, whole_number(1))
    event.add_incoming(whole_number(0), entry)
    event.add_incoming(following, b.block)
    added_at = b.block
    b.cbranch(b.icmp_signed("<", following, events), loop, end)

    b.position_at_end(end)
    last = [b.phi(VECTOR) for _ in begun]
    for phi in (sums, last):
        for total, begin, new in zip(phi, begun, added, strict=True):
            total.add_incoming(begin, entry)
            total.add_incoming(new, added_at)
    return last


def _hidden(b: Any, address: Any) -> Any:
    """Return an address as one that the compiler knows nothing of."""
    return b.asm(ir.FunctionType(address.type, [address.type]), "", "=r,0", [address], side_effect=False)


def _add_products(b: Any, sums: list[Any], row: Any, value: Any, exact: Any) -> list[Any]:
    """Return the sums with weights times a value added to each, which are rounded before they are added.

    Where it may be `exact`, which a power of two is that is no fraction, both may be done at once.
    """
    factor = spread(b, value, LANES)

    def rounded(row: Any) -> list[Any]:
        terms = [b.fmul(b.load(place, align=4), factor) for place in vectors(b, row, len(sums))]
        return [b.fadd(total, term) for total, term in zip(sums, terms, strict=True)]

    def fused(row: Any) -> list[Any]:
        three = ir.FunctionType(VECTOR, [VECTOR] * 3)
        fma = cgutils.get_or_insert_function(b.module, three, f"llvm.fma.v{LANES}f32")
        weights = [b.load(place, align=4) for place in vectors(b, row, len(sums))]
        return [b.call(fma, [weight, factor, total]) for weight, total in zip(weights, sums, strict=True)]

    if exact is None:
        return rounded(row)
    with b.if_else(exact, likely=True) as (most, few):
        with most:
            made = [(fused(row), b.block)]
        with few:
            # these are the same weights: loaded before it is known which way, they would fit no registers
            made.append((rounded(_hidden(b, row)), b.block))
    added = [b.phi(VECTOR) for _ in sums]
    for new, block in made:
        for phi, total in zip(added, new, strict=True):
            phi.add_incoming(total, block)
    return added


@intrinsic  # type: ignore[untyped-decorator]
def _serve(  # noqa: PLR0917
    typingctx: Any, width: Any, lanes: Any, kind: Any, visits: Any, count: Any, weights: Any, indices: Any,
    values: Any, bias: Any, out: Any, ahead: Any, lines: Any,
) -> Any:  # fmt: skip
    """Add the weight rows of the events of each visit, times their values, of this `kind`, to a row of sums.

    Arguments are sizes and addresses. A visit is four integers: its first event, how many, and where its weights (those
    of index 0; each next one lies `width` floats further) and its sums begin, of which the last vector has so many
    `lanes`. The sums start from `bias` or, where that is 0, from what they are; visits without events are then left
    out. Each visit fetches `lines` more from `ahead` on, and the sums of the next one; there is one more to read.
    """
    address, size = types.uintp, types.int64
    signature = types.void(size, size, size, address, size, *[address] * 6, size)

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        b, (width, lanes, kind, visits, count, weights, indices, values, bias, out, ahead, lines) = builder, arguments
        mask, fresh = only(b, lanes), b.icmp_unsigned("!=", bias, whole_number(0))
        kinds = [(tile, times) for tile in range(LANES, TILE + 1, LANES) for times in WAYS]
        end = b.append_basic_block("served")
        ways = b.switch(b.or_(width, kind), end)
        for tile, times in kinds:
            block = b.append_basic_block("tile")
            ways.add_case(whole_number(tile + times), block)
            b.position_at_end(block)
            with cgutils.for_range(b, count) as loop:
                at = b.mul(loop.index, whole_number(4))
                first, events, weight, to = (
                    b.load(pointer(b, visits, WIDE, b.add(at, whole_number(n)))) for n in range(4)
                )
                with cgutils.for_range(b, lines) as line:
                    behind = b.add(b.mul(loop.index, lines), line.index)
                    fetch(b, pointer(b, ahead, FLOAT, b.mul(behind, whole_number(LINE))))
                later = pointer(b, out, FLOAT, b.load(pointer(b, visits, WIDE, b.add(at, whole_number(7)))))
                for n in range(0, tile, LINE):
                    fetch(b, b.gep(later, [whole_number(n)]), FIRST_LEVEL)
                with b.if_then(b.or_(fresh, b.icmp_signed(">", events, whole_number(0)))):
                    sums = pointer(b, out, FLOAT, to)
                    start = b.select(fresh, pointer(b, bias, FLOAT, whole_number(0)), sums)
                    begun = _load(b, vectors(b, start, tile // LANES), lanes, mask)
                    lists = pointer(b, indices, WORD, first), pointer(b, values, FLOAT, first)
                    last = _sum(b, begun, times, events, pointer(b, weights, FLOAT, weight), lists)
                    _store(b, last, vectors(b, sums, len(last)), lanes, mask)
            b.branch(end)
        b.position_at_end(end)
        return context.get_dummy_value()

    return signature, generate


def edge(outputs: int, tile: int) -> int:
    """Return the output channel with which a tile begins, and the one before it ends.

    Tiles are multiples of `LANES` wide, `TILE` at most, as equal as can be, but for the end of the last one.
    """
    vectors = (outputs + LANES - 1) // LANES
    tiles = (vectors + TILE // LANES - 1) // (TILE // LANES)
    return min((tile * (vectors // tiles) + min(tile, vectors % tiles)) * LANES, outputs)


def tiles_of(outputs: int) -> int:
    """Return how many tiles there are, each of which may be served apart."""
    return (outputs + TILE - 1) // TILE


_edge, _tiles_of = kernel(edge), kernel(tiles_of)


@kernel
def _kind_of(indptr: npt.NDArray[np.int64], values: npt.NDArray[np.float32], window: Window) -> int:
    """Return what the values are that the window reads; what most are, to judge by the first of all."""
    if len(values) == 0 or not FUSED:
        return ONES if len(values) == 0 else ANY
    first, last = indptr[0], indptr[-1]
    seen, powers = min(last - first, SEEN), 0
    for e in range(first, first + seen):
        powers += (values[e] == 1) | (values[e] == 2) | (values[e] == 4)
    if 4 * powers < 3 * seen:
        return ANY
    w, (top, bottom), bits, least = window, lines_read(window), values.view(np.int32), np.int32(ONE)
    for begin in range(0, len(indptr) - 1, w.height * w.width):
        read = indptr[begin + top * w.width], indptr[begin + max(top, bottom) * w.width]
        for e in range(np.uint64(read[0]), np.uint64(read[1])):
            least = min(least, bits[e])
    return POWERS if least == ONE else ANY


@kernel
def _serve_plainly(
    widths: tuple[int, int],
    visits: npt.NDArray[np.int64],
    packed: npt.NDArray[np.float32],
    rows: tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]],
    bias: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
) -> None:
    """Do what `_serve` does, uncompiled, with widths in memory and in use; the bias may be empty."""
    (indices, values), (width, used) = rows, widths
    for visit in range(0, len(visits), 4):
        first, count, weights, to = visits[visit], visits[visit + 1], visits[visit + 2], visits[visit + 3]
        for j in range(used):
            total = bias[j] if len(bias) > 0 else out[to + j]
            for e in range(first, first + count):
                weight = packed[weights + indices[e] * width + j]
                total += weight if len(values) == 0 else weight * values[e]
            out[to + j] = total


@kernel
def gather(
    rows: RowArrays,
    packed: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    window: Window,
    groups: int,
    part: tuple[int, int, int, int],
) -> None:
    """Add up the bias and the weight rows of the active channels, times their values.

    Parts that do not overlap may be served at the same time; together they give what all at once would.

    Parameters
    ----------
    rows : tuple (indptr, indices, values)
        CSR rows of the input, ``steps * height * width`` of them; values are empty where all are 1.
    packed : float32 array
        Weights as `eventsim.kernels.packing.pack` arranges them.
    bias : float32 array (outputs,)
        What every sum begins with.
    out : float32 array (steps * out_height * out_width, outputs)
        Written.
    window : Window
    groups : int
        Channels are split into so many groups that do not see each other.
    part : tuple (first tile, last tile, first row, last row)
        Served are these tiles, of each group, and these rows of the output, the last ones excluded. Groups that are
        narrower than a vector are served with the first tile.
    """
    indptr, indices, values = rows
    first_tile, last_tile, first_row, last_row = part
    w, outputs = window, out.shape[1]
    fan, taps = outputs // groups, w.kernel_height * w.kernel_width
    if groups > 1 and fan < LANES:
        if first_tile == 0 < last_tile:
            serve_narrow(rows, packed, bias, out, window, groups, (first_row, last_row))
        return
    group_weights = len(packed) // groups
    size = group_weights // max(taps * ((fan + LANES - 1) // LANES * LANES), 1)  # input channels of a group
    sources, events = len(indptr) - 1, indptr[-1] - indptr[0]
    in_rows = groups == 1 and w.dilation_width == 1
    scattered = in_rows and taps > 1 and events < RARE * sources and first_row < last_row
    few = events < FEW * sources or w.kernel_width * size * _edge(fan, 1) <= NEAR
    reach = w.kernel_width if in_rows and not scattered and few else 1
    listed = by_column(indptr, indices, w, size, BLOCK) if reach > 1 else indices
    parts = max((size * _edge(fan, 1) + NEAR - 1) // NEAR, 1)
    if groups > 1 or reach > 1 or scattered or events < MANY * parts * sources:
        parts = 1
    ends = split(indptr, indices, size, parts) if parts > 1 else indptr
    deals = np.empty(0, np.int32)
    if scattered:
        pixels = w.out_height * w.out_width
        deals = deal(indptr, indices, w, size, (first_row // pixels, (last_row - 1) // pixels + 1))
    at_once = max(ROWS // groups, 1)
    visits = np.zeros(4 * at_once * groups + 4, np.int64)
    sums = out.reshape(-1)
    start = np.empty(TILE if groups == 1 else 0, np.float32)
    biased_first, kind = groups > 1, _kind_of(indptr, values, w)
    for tile in range(first_tile, last_tile):
        channel, width = _edge(fan, tile), _edge(fan, tile + 1) - _edge(fan, tile)
        row_weights = (width + LANES - 1) // LANES * LANES
        lanes = width - row_weights + LANES
        pitches = (row_weights, group_weights, outputs, fan)
        tile_weights = taps * size * channel
        stretch = reach * size * row_weights // parts
        if groups == 1:
            for j in range(row_weights):
                start[j] = bias[channel + j] if j < width else np.float32(0)
        if scattered:
            alone = _tiles_of(fan) == 1
            weights = packed[tile_weights:]
            scatter(rows, deals, weights, start, out, w, size, (channel, width, alone), (first_row, last_row))
            continue
        for begin in range(first_row, last_row, at_once):
            end = min(begin + at_once, last_row)
            to = begin * outputs + channel
            for group in range(groups if biased_first else 0):
                for row in range(end - begin):
                    for j in range(width):
                        sums[to + row * pitches[2] + group * pitches[3] + j] = bias[group * fan + channel + j]
            for turn in range(taps // reach * parts):
                fresh = turn == 0 and not biased_first
                reading = turn // parts * reach, reach, turn % parts, parts
                found = find((ends, listed), w, reading, (groups, size), (begin, end), pitches, fresh, visits)
                # meanwhile fetch what the next turn will read, where it was not just read and most of it will be
                following = tile_weights + (turn + 1) * stretch
                lines = 0
                if groups == 1 and begin == first_row and following < len(packed) and events * found > size * sources:
                    lines = (stretch // LINE + found - 1) // found
                if COMPILED:
                    _serve(
                        row_weights,
                        lanes,
                        kind,
                        np.uintp(visits.ctypes.data),
                        found,
                        np.uintp(packed.ctypes.data + 4 * tile_weights),
                        np.uintp(listed.ctypes.data),
                        np.uintp(values.ctypes.data),
                        np.uintp(start.ctypes.data) if fresh else np.uintp(0),
                        np.uintp(sums.ctypes.data + 4 * to),
                        np.uintp(packed.ctypes.data + 4 * following),
                        lines,
                    )
                else:
                    _serve_plainly(
                        (row_weights, width),
                        visits[: 4 * found],
                        packed[tile_weights:],
                        (listed, values),
                        start if fresh else start[:0],
                        sums[to:],
                    )
