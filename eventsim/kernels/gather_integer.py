"""Synaptic sums of integers: for each output row, add up the int8 weight rows of the active input channels.

What `eventsim.kernels.gather` does for float32, with an eighth or a quarter of the bytes in registers. Integers may be
added in any order, so the sums of a tile of channels are taken span by span: so many taps, or channels of a tap, that
no sum can leave the 16 or 32 bits of its lane, whatever is active. Who calls proves that (`Span`); nothing here checks
it. At the end of a span the sums are added to the float32 output, which is exact for integers up to 2**24.

Sums of up to `TILE` channels stay in vector registers over the events of a row (LLVM vectors, which any target lowers
to what it has); weights are widened as they are loaded, and fetched ahead. Where a span is one tap its sums go from
registers to the output; else they wait in a block of rows until its last tap. Where spans allow it, a visit takes a
row of taps, whose input pixels lie side by side in the lists. Channels are padded to `LANES` with
weights of 0, which are not counted. Uncompiled, plain loops give the same sums.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eventsim.kernels.jit import kernel
from eventsim.kernels.window import Window

LANES = 32
TILE = 128
BLOCK = 128
"""Output rows whose sums are held at once."""

COMPILED = not numba.config.DISABLE_JIT


class Span(NamedTuple):
    """Input channels of one tap, or of a row of taps, that are served in one go.

    Attributes
    ----------
    tap, low, high : int
        Channels from `low` on, up to `high`; of a row of taps all.
    begins, ends : bool
        Whether the sums begin at 0 with it, and whether they are added to the output after it.
    """

    tap: int
    low: int
    high: int
    begins: bool
    ends: bool


WIDTHS = (128, 96, 64, 32)
"""Channels of a tile."""
AHEAD = 16
"""So many events before it is added, a weight row is fetched: from the second-level cache it takes that long."""

_WIDE, _WORD, _BYTE, _FLOAT = ir.IntType(64), ir.IntType(32), ir.IntType(8), ir.FloatType()


def _slot(builder: Any, base: Any, kind: Any, n: int) -> Any:
    """Return a pointer to the n-th vector behind an address."""
    size = 4 if kind.element == _FLOAT else kind.element.width // 8
    offset = ir.Constant(_WIDE, n * LANES * size)
    return builder.inttoptr(builder.add(base, offset), kind.as_pointer())


def _give(builder: Any, totals: list[Any], out: Any, fresh: Any) -> None:
    """Write sums to the float32 at an address, or add them to what is there."""
    floats = ir.VectorType(_FLOAT, LANES)
    nothing = ir.Constant(floats, [0.0] * LANES)
    first = builder.icmp_unsigned("!=", fresh, ir.Constant(_WIDE, 0))
    for n, total in enumerate(totals):
        place = _slot(builder, out, floats, n)
        before = builder.select(first, nothing, builder.load(place, align=4))
        builder.store(builder.fadd(before, builder.sitofp(total, floats)), place, align=4)


def _serve_row(b: Any, width: int, bits: int, valued: bool, direct: bool, arguments: Any) -> None:
    """Make the loop over the events of a row for one width of the tile and one of the sums."""
    weights, indices, values, events, last, sums, out, fresh = arguments
    narrow, vector = ir.VectorType(_BYTE, LANES), ir.VectorType(ir.IntType(bits), LANES)
    vectors = range(width // LANES)

    def entry(base: Any, kind: Any, event: Any) -> Any:
        return b.load(b.gep(b.inttoptr(base, kind.as_pointer()), [event]), align=4)

    def row(event: Any) -> Any:
        return b.add(weights, b.mul(b.zext(entry(indices, _WORD, event), _WIDE), ir.Constant(_WIDE, width)))

    nothing = ir.Constant(vector, [0] * LANES)
    begun = [nothing if direct else b.load(_slot(b, sums, vector, n), align=4) for n in vectors]
    before = b.block
    loop, end = b.append_basic_block("events"), b.append_basic_block("end")
    b.cbranch(b.icmp_signed(">", events, ir.Constant(_WIDE, 0)), loop, end)

    b.position_at_end(loop)
    event, totals = b.phi(_WIDE), [b.phi(vector) for _ in vectors]
    ahead = b.add(event, ir.Constant(_WIDE, AHEAD))
    fetched = row(b.select(b.icmp_signed("<", ahead, last), ahead, last))
    kind = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), _WORD, _WORD, _WORD])
    fetch = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0i8")
    for line in range(0, width, 64):
        place = b.inttoptr(b.add(fetched, ir.Constant(_WIDE, line)), _BYTE.as_pointer())
        b.call(fetch, [place, *(ir.Constant(_WORD, flag) for flag in (0, 3, 1))])
    here = row(event)
    terms = [b.sext(b.load(_slot(b, here, narrow, n), align=LANES), vector) for n in vectors]
    if valued:
        value = b.fptosi(entry(values, _FLOAT, event), vector.element)
        alone = b.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(_WORD, 0))
        zeros = ir.Constant(ir.VectorType(_WORD, LANES), [0] * LANES)
        spread = b.shuffle_vector(alone, ir.Constant(vector, ir.Undefined), zeros)
        terms = [b.mul(term, spread) for term in terms]
    added = [b.add(total, term) for total, term in zip(totals, terms, strict=True)]
    following = b.add(event, ir.Constant(_WIDE, 1))
    for phi, begin, new in zip([event, *totals], [ir.Constant(_WIDE, 0), *begun], [following, *added], strict=True):
        phi.add_incoming(begin, before)
        phi.add_incoming(new, loop)
    b.cbranch(b.icmp_signed("<", following, events), loop, end)

    b.position_at_end(end)
    left = [b.phi(vector) for _ in vectors]
    for phi, begin, new in zip(left, begun, added, strict=True):
        phi.add_incoming(begin, before)
        phi.add_incoming(new, loop)
    if direct:
        _give(b, left, out, fresh)
        return
    for n, total in enumerate(left):
        b.store(total, _slot(b, sums, vector, n), align=4)


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
    typingctx: Any, code: Any, weights: Any, indices: Any, values: Any, events: Any, last: Any, sums: Any, out: Any,
    fresh: Any,
) -> Any:  # fmt: skip
    """Add the weight rows of some events to sums, or, where all are here, to the output.

    A code says the place of the width in `WIDTHS`, whether sums have 32 bits, whether there are values, and whether
    sums begin at 0 and go to the output (to what is there, unless `fresh`). Then come addresses: weights of input
    channel 0, indices and values of the first event; events; the place of the last event that may be looked at;
    addresses of the sums and of the output.
    """
    address, size = types.uintp, types.int64
    signature = types.void(size, address, address, address, size, size, address, address, size)

    def generate(context: Any, b: Any, _: Any, arguments: Any) -> Any:
        code, *rest = arguments

        def way(width: int, bits: int, valued: bool, direct: bool) -> Callable[[], None]:
            return lambda: _serve_row(b, width, bits, valued, direct, rest)

        yes = (False, True)
        ways = [way(*key) for key in itertools.product(WIDTHS, (16, 32), yes, yes)]
        _switch(b, code, ways)
        return context.get_dummy_value()

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def _flush(typingctx: Any, code: Any, sums: Any, out: Any, fresh: Any) -> Any:
    """Bring the sums of a tile to the output; the code says the place of its width, and whether they have 32 bits."""
    signature = types.void(types.int64, types.uintp, types.uintp, types.int64)

    def generate(context: Any, b: Any, _: Any, arguments: Any) -> Any:
        code, sums, out, fresh = arguments

        def way(width: int, bits: int) -> Callable[[], None]:
            vector = ir.VectorType(ir.IntType(bits), LANES)
            return lambda: _give(
                b, [b.load(_slot(b, sums, vector, n), align=4) for n in range(width // LANES)], out, fresh
            )

        _switch(b, code, [way(*key) for key in itertools.product(WIDTHS, (16, 32))])
        return context.get_dummy_value()

    return signature, generate


def _width(left: int) -> int:
    """Return how many of the channels that are left, a multiple of `LANES`, the next tile takes."""
    return 96 if left in (96, 192) else min(left, TILE)


def pack_integers(weight: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """Arrange weights ``(taps, inputs, outputs)`` as `gather_integer` reads them: tile by tile of outputs, aligned."""
    taps, inputs, outputs = weight.shape
    padded = -(-outputs // LANES) * LANES
    room = np.zeros(taps * inputs * padded + 64, np.int8)
    packed = room[-room.ctypes.data % 64 :][: taps * inputs * padded]
    at = first = 0
    while first < outputs:
        width = _width(padded - first)
        tile = packed[at : at + taps * inputs * width].reshape(taps, inputs, width)
        kept = weight[:, :, first : first + width]
        tile[:, :, : kept.shape[2]] = kept
        at, first = at + tile.size, first + width
    return packed


def unpack_integers(packed: npt.NDArray[np.int8], taps: int, inputs: int, outputs: int) -> npt.NDArray[np.int8]:
    """Return the weights ``(taps, inputs, outputs)`` that `pack_integers` arranged."""
    padded, at, first, tiles = -(-outputs // LANES) * LANES, 0, 0, []
    while first < outputs:
        width = _width(padded - first)
        tiles.append(packed[at : at + taps * inputs * width].reshape(taps, inputs, width))
        at, first = at + taps * inputs * width, first + width
    return np.concatenate(tiles, axis=2)[:, :, :outputs]


def tiles_of(outputs: int) -> int:
    """Return how many tiles there are, each of which may be served apart."""
    left, tiles = -(-outputs // LANES) * LANES, 0
    while left > 0:
        left, tiles = left - _width(left), tiles + 1
    return tiles


def by_rows(spans: Sequence[Span], window: Window) -> tuple[tuple[Span, ...], int]:
    """Return spans of whole rows of taps, where the spans allow it, and how many taps each of them has.

    They do where no span begins or ends, and no tap is divided, within a row.
    """
    reach, whole = window.kernel_width, len(spans) == window.kernel_height * window.kernel_width
    rows = [spans[first : first + reach] for first in range(0, len(spans), reach)]
    cut = any(span.begins for row in rows for span in row[1:]) or any(span.ends for row in rows for span in row[:-1])
    if reach == 1 or window.dilation_width > 1 or not whole or cut:
        return tuple(spans), 1
    return tuple(row[0]._replace(ends=row[-1].ends) for row in rows), reach


@kernel
def _by_column(
    indptr: npt.NDArray[np.int64], indices: npt.NDArray[np.int32], width: int, inputs: int
) -> npt.NDArray[np.int32]:
    """Return indices that count the channels of a whole line of pixels, so that a row of taps reads one list."""
    out = np.empty(indptr[-1], np.int32)
    for row in range(len(indptr) - 1):
        shift = np.int32(row % width * inputs)
        for e in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
            out[e] = indices[e] + shift
    return out


@kernel
def gather_integer(
    rows: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]],
    packed: npt.NDArray[np.int8],
    spans: npt.NDArray[np.int64],
    reach: int,
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
        Weights as `pack_integers` arranges them.
    spans : int64 array (spans, 5)
        Rows of `Span`, which together serve every channel of every tap once.
    reach : int
        Taps of a span, of `by_rows`.
    lane : int16 or int32 array
        Of the width that the spans were proven for; nothing is read of it.
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
    taps = w.kernel_height * w.kernel_width
    inputs = len(packed) // max(taps * padded, 1)
    listed = _by_column(indptr, indices, w.width, inputs) if reach > 1 else indices
    sums = np.empty(BLOCK * TILE, lane.dtype)
    binary = len(values) == 0
    wide = np.int64(sums.itemsize == 4)
    edges = np.unique(spans[:, 1:3])
    divided = len(edges) > 2
    cuts = np.empty((len(edges) if divided else 0, len(indptr) - 1), np.int64)
    if divided:
        for row in range(len(indptr) - 1):
            e = indptr[row]
            for number in range(len(edges)):
                while e < indptr[row + 1] and indices[e] < edges[number]:
                    e += 1
                cuts[number, row] = e
    ended = np.cumsum(spans[:, 4])
    first = tile = 0
    for serial in range(last_tile):
        left = padded - first
        width = 96 if left in (96, 192) else min(left, TILE)
        kept = min(width, outputs - first)
        code = 2 * ((TILE - width) // LANES) + wide
        for begin in range(first_row, last_row if serial >= first_tile else first_row, BLOCK):
            end = min(begin + BLOCK, last_row)
            for number in range(len(spans)):
                tap = spans[number, 0]
                low_edge, high_edge = np.searchsorted(edges, spans[number, 1]), np.searchsorted(edges, spans[number, 2])
                fresh = np.int64(ended[number] == 1)  # only looked at where a span ends
                direct = COMPILED and spans[number, 3] == 1 and spans[number, 4] == 1 and kept == width
                if spans[number, 3] and not direct:
                    sums[: (end - begin) * width] = 0
                dy = tap // w.kernel_width * w.dilation_height - w.pad_height
                dx = tap % w.kernel_width * w.dilation_width - w.pad_width
                out_x = begin % w.out_width - 1
                line = begin // w.out_width
                for target in range(begin, end):
                    out_x += 1
                    if out_x == w.out_width:
                        out_x = 0
                        line += 1
                    x = out_x * w.stride_width + dx
                    y = line % w.out_height * w.stride_height + dy
                    start, n = np.int64(0), np.int64(0)
                    if x + reach > 0 and x < w.width and y >= 0 and y < w.height:
                        source = (line // w.out_height * w.height + y) * w.width
                        start, stop = indptr[source + max(x, 0)], indptr[source + min(x + reach, w.width)]
                        if divided:
                            start, stop = cuts[low_edge, source + x], cuts[high_edge, source + x]
                        n = stop - start
                    if n == 0 and not direct:
                        continue
                    base = tile + (tap - x if reach > 1 else tap) * inputs * width
                    room = (target - begin) * width
                    if COMPILED:
                        _serve(
                            2 * (2 * code + (0 if binary else 1)) + (1 if direct else 0),
                            np.uintp(packed.ctypes.data + base),
                            listed.ctypes.data + 4 * start,
                            values.ctypes.data + 4 * start,
                            n,
                            len(listed) - 1 - start,
                            sums.ctypes.data + sums.itemsize * room,
                            out.ctypes.data + 4 * (target * outputs + first),
                            fresh,
                        )
                    else:
                        for e in range(start, start + n):
                            value = np.int32(1) if binary else np.int32(values[e])
                            for j in range(width):
                                sums[room + j] += np.int32(packed[base + listed[e] * width + j]) * value
                if spans[number, 4] and not direct:
                    for target in range(begin, end):
                        room = (target - begin) * width
                        if COMPILED and kept == width:
                            _flush(
                                code,
                                sums.ctypes.data + sums.itemsize * room,
                                out.ctypes.data + 4 * (target * outputs + first),
                                fresh,
                            )
                        else:
                            for j in range(kept):
                                before = np.float32(0) if fresh else out[target, first + j]
                                out[target, first + j] = before + np.float32(sums[room + j])
        first += width
        tile += taps * inputs * width
