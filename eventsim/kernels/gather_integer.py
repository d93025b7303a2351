"""Synaptic sums of integers: for each output row, add up the int8 weight rows of the active input channels.

What `eventsim.kernels.gather` does for float32, with an eighth or a quarter of the bytes in registers. Integers may be
added in any order, so the sums of a tile of channels are taken span by span: so many taps, or channels of a tap, that
no sum can leave the 16 or 32 bits of its lane, whatever is active. Who calls proves that (`Span`); nothing here checks
it. At the end of a span the sums are added to the float32 output, which is exact for integers up to 2**24.

Sums of up to `TILE` channels stay in vector registers over the events of a row (LLVM vectors, which any target lowers
to what it has); weights are widened as they are loaded. Channels are padded to `LANES` with weights of 0, which are
not counted. Uncompiled, plain loops give the same sums.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from eventsim.kernels.jit import kernel
from eventsim.kernels.window import Window

LANES = 32
TILE = 128
BLOCK = 256
"""Output rows whose sums are held at once."""

COMPILED = not numba.config.DISABLE_JIT


class Span(NamedTuple):
    """Input channels of one tap that are served in one go.

    Attributes
    ----------
    tap, low, high : int
        Channels from `low` on, up to `high`.
    begins, ends : bool
        Whether the sums begin at 0 with it, and whether they are added to the output after it.
    """

    tap: int
    low: int
    high: int
    begins: bool
    ends: bool


def _adder(width: int, bits: int, valued: bool) -> Any:
    """Make the inner loop: ``sums[:width] += sum of weight rows`` over the events of one row.

    Its arguments are addresses and a number: weights of input channel 0, indices, values, number of events, sums.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def add(typingctx: Any, weights: Any, indices: Any, values: Any, events: Any, sums: Any) -> Any:
        address, size = types.uintp, types.int64
        signature = types.void(address, address, address, size, address)

        def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
            b, (weights, indices, values, events, sums) = builder, arguments
            wide, word, byte, lane = ir.IntType(64), ir.IntType(32), ir.IntType(8), ir.IntType(bits)
            narrow, vector = ir.VectorType(byte, LANES), ir.VectorType(lane, LANES)

            def slot(base: Any, kind: Any, n: int) -> Any:
                offset = ir.Constant(wide, n * LANES * kind.element.width // 8)
                return b.inttoptr(b.add(base, offset), kind.as_pointer())

            def entry(base: Any, kind: Any, event: Any) -> Any:
                return b.load(b.gep(b.inttoptr(base, kind.as_pointer()), [event]), align=4)

            places = [slot(sums, vector, n) for n in range(width // LANES)]
            first = [b.load(place, align=4) for place in places]
            before = b.block
            loop, end = b.append_basic_block("events"), b.append_basic_block("end")
            b.branch(loop)

            b.position_at_end(loop)
            event, totals = b.phi(wide), [b.phi(vector) for _ in places]
            channel = b.zext(entry(indices, word, event), wide)
            row = b.add(weights, b.mul(channel, ir.Constant(wide, width)))
            terms = [b.sext(b.load(slot(row, narrow, n), align=LANES), vector) for n in range(len(places))]
            if valued:
                value = b.fptosi(entry(values, ir.FloatType(), event), lane)
                alone = b.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(word, 0))
                zeros = ir.Constant(ir.VectorType(word, LANES), [0] * LANES)
                spread = b.shuffle_vector(alone, ir.Constant(vector, ir.Undefined), zeros)
                terms = [b.mul(term, spread) for term in terms]
            added = [b.add(total, term) for total, term in zip(totals, terms, strict=True)]
            following = b.add(event, ir.Constant(wide, 1))
            for phi, begin, new in zip(
                [event, *totals], [ir.Constant(wide, 0), *first], [following, *added], strict=True
            ):
                phi.add_incoming(begin, before)
                phi.add_incoming(new, loop)
            b.cbranch(b.icmp_signed("<", following, events), loop, end)

            b.position_at_end(end)
            for new, place in zip(added, places, strict=True):
                b.store(new, place, align=4)
            return context.get_dummy_value()

        return signature, generate

    return add


_add_128, _add_64, _add_32 = (_adder(width, 16, valued=False) for width in (128, 64, 32))
_add_valued_128, _add_valued_64, _add_valued_32 = (_adder(width, 16, valued=True) for width in (128, 64, 32))
_wide_128, _wide_64, _wide_32 = (_adder(width, 32, valued=False) for width in (128, 64, 32))
_wide_valued_128, _wide_valued_64, _wide_valued_32 = (_adder(width, 32, valued=True) for width in (128, 64, 32))


def _width(left: int) -> int:
    """Return how many of the channels that are left the next tile takes."""
    return TILE if left >= TILE else 64 if left >= 64 else LANES


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


@kernel
def gather_integer(  # noqa: PLR0917
    rows: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]],
    packed: npt.NDArray[np.int8],
    spans: npt.NDArray[np.int64],
    sums: npt.NDArray[Any],
    out: npt.NDArray[np.float32],
    steps: int,
    window: Window,
    products: npt.NDArray[np.int64],
    units: npt.NDArray[np.float64],
) -> None:
    """Add up the weight rows of the active channels, times their values.

    Parameters
    ----------
    rows : tuple (indptr, indices, values)
        CSR rows of the input, ``steps * height * width`` of them; values are empty where all are 1.
    packed : int8 array
        Weights as `pack_integers` arranges them.
    spans : int64 array (spans, 5)
        Rows of `Span`, which together serve every channel of every tap once.
    sums : int16 or int32 array (BLOCK * TILE,)
        Room for the sums of a block, whose type is the width that the spans were proven for.
    out : float32 array (steps * out_height * out_width, outputs)
        Written.
    steps : int
    window : Window
    products, units : int64 and float64 arrays (steps,)
        Written, as by `eventsim.kernels.gather.gather`.
    """
    indptr, indices, values = rows
    w = window
    pixels, outputs = out.shape
    padded = (outputs + LANES - 1) // LANES * LANES
    taps = w.kernel_height * w.kernel_width
    inputs = len(packed) // max(taps * padded, 1)
    binary = len(values) == 0
    narrow = sums.itemsize == 2
    products[:] = 0
    units[:] = 0
    first = 0
    tile = 0
    while first < outputs:
        left = padded - first
        width = TILE if left >= TILE else 64 if left >= 64 else LANES
        kept = min(width, outputs - first)
        for begin in range(0, pixels, BLOCK):
            end = min(begin + BLOCK, pixels)
            for number in range(len(spans)):
                tap, low, high = spans[number, 0], spans[number, 1], spans[number, 2]
                if spans[number, 3]:
                    sums[: (end - begin) * width] = 0
                base = tile + tap * inputs * width
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
                    if x < 0 or x >= w.width or y < 0 or y >= w.height:
                        continue
                    step = line // w.out_height
                    source = (step * w.height + y) * w.width + x
                    start = indptr[source]
                    stop = indptr[source + 1]
                    if low > 0:
                        start += np.searchsorted(indices[start:stop], low)
                    if high < inputs:
                        stop = start + np.searchsorted(indices[start:stop], high)
                    n = stop - start
                    if n == 0:
                        continue
                    if first == 0:
                        products[step] += n
                        if not binary:
                            for e in range(start, stop):
                                units[step] += abs(values[e])
                    room = (target - begin) * width
                    if not COMPILED:
                        for e in range(start, stop):
                            value = np.int32(1) if binary else np.int32(values[e])
                            for j in range(width):
                                sums[room + j] += np.int32(packed[base + indices[e] * width + j]) * value
                        continue
                    at = packed.ctypes.data + base
                    ix = indices.ctypes.data + 4 * start
                    vx = values.ctypes.data + 4 * start
                    to = sums.ctypes.data + sums.itemsize * room
                    if narrow:
                        if width == 128:
                            if binary:
                                _add_128(at, ix, vx, n, to)
                            else:
                                _add_valued_128(at, ix, vx, n, to)
                        elif width == 64:
                            if binary:
                                _add_64(at, ix, vx, n, to)
                            else:
                                _add_valued_64(at, ix, vx, n, to)
                        elif binary:
                            _add_32(at, ix, vx, n, to)
                        else:
                            _add_valued_32(at, ix, vx, n, to)
                    elif width == 128:
                        if binary:
                            _wide_128(at, ix, vx, n, to)
                        else:
                            _wide_valued_128(at, ix, vx, n, to)
                    elif width == 64:
                        if binary:
                            _wide_64(at, ix, vx, n, to)
                        else:
                            _wide_valued_64(at, ix, vx, n, to)
                    elif binary:
                        _wide_32(at, ix, vx, n, to)
                    else:
                        _wide_valued_32(at, ix, vx, n, to)
                if spans[number, 4]:
                    fresh = spans[: number + 1, 4].sum() == 1
                    for target in range(begin, end):
                        room = (target - begin) * width
                        if fresh:
                            for j in range(kept):
                                out[target, first + j] = np.float32(sums[room + j])
                        else:
                            for j in range(kept):
                                out[target, first + j] += np.float32(sums[room + j])
        first += width
        tile += taps * inputs * width
    products *= outputs
    units *= outputs
