"""Synaptic accumulation where events are few: each event adds its weight rows to the sums that it reaches.

`eventsim.kernels.gather` looks for what each output row reads, which takes longer than to add it where most rows read
next to nothing, as behind an event camera. Here an output line begins as the bias, in the first-level cache, and takes
input line after input line, event after event, tap after tap, and is written once. What a sum takes, it takes in the
order in which `gather` adds it: an output pixel meets the pixels of a line from left to right, as its taps do.

The vectors are LLVM's, which any target lowers to what it has. Uncompiled, plain loops do the same.
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

from eventsim.kernels.fetching import LINE
from eventsim.kernels.jit import kernel
from eventsim.kernels.tiles import TILE, only, pointer, store_masked, vectors
from eventsim.kernels.vectors import FLOAT, LANES, WIDE, WORD, spread, whole_number
from eventsim.kernels.window import Window, lines_read

COMPILED = not numba.config.DISABLE_JIT
FAR = 1 << 21
"""Floats of sums that leave every near cache before they are read: these are written past the caches."""


def _line_of(b: Any, many: int, valued: bool, mask: Any, arguments: Any) -> None:
    """Build the loops over a line for so many vectors."""
    bias, room, pixels, lines, count, deals, values, weights, step, first, whole, last, out, pitch, far = arguments
    width = whole_number(many * LANES)

    def rows_at(address: Any, offset: Any) -> list[Any]:
        return vectors(b, pointer(b, address, FLOAT, offset), many)

    begun = [b.load(place, align=4) for place in rows_at(bias, whole_number(0))]
    with cgutils.for_range(b, pixels) as pixel:
        for vector, place in zip(begun, rows_at(room, b.mul(pixel.index, width)), strict=True):
            b.store(vector, place, align=4)
    with cgutils.for_range(b, count) as line:
        event, end, tap = (
            b.load(pointer(b, lines, WIDE, b.add(b.mul(line.index, whole_number(3)), whole_number(n))))
            for n in range(3)
        )
        with cgutils.for_range(b, b.sub(end, event)) as loop:
            e = b.add(event, loop.index)
            taps, row, column = (
                b.sext(b.load(pointer(b, deals, WORD, b.add(b.mul(e, whole_number(3)), whole_number(n)))), WIDE)
                for n in range(3)
            )
            read, sums = b.add(tap, b.mul(row, width)), b.mul(column, width)
            factor = spread(b, b.load(pointer(b, values, FLOAT, e)), LANES) if valued else None
            with cgutils.for_range(b, taps) as each:
                weight = pointer(b, weights, FLOAT, b.add(read, b.mul(each.index, step)))
                places = rows_at(room, b.sub(sums, b.mul(each.index, width)))
                for source, place in zip(vectors(b, weight, many), places, strict=True):
                    term = b.load(source, align=4)
                    term = b.fmul(term, factor) if valued else term
                    b.store(b.fadd(b.load(place, align=4), term), place, align=4)

    def write(pixel: Any, in_part: bool, past: bool = False) -> None:
        vector_sums = [b.load(place, align=4) for place in rows_at(room, b.mul(pixel, width))]
        places = rows_at(out, b.mul(b.sub(pixel, first), pitch))
        for n, (vector, place) in enumerate(zip(vector_sums, places, strict=True)):
            if in_part and n == many - 1:
                store_masked(b, vector, place, mask)
            elif past:
                stored = b.store(vector, place, align=LINE)
                stored.set_metadata("nontemporal", b.module.add_metadata([ir.Constant(WORD, 1)]))
            else:
                b.store(vector, place, align=4)

    with b.if_else(far) as (past, near):
        with past, cgutils.for_range(b, b.sub(whole, first)) as pixel:
            write(b.add(first, pixel.index), in_part=False, past=True)
        with near, cgutils.for_range(b, b.sub(whole, first)) as pixel:
            write(b.add(first, pixel.index), in_part=False)
    with cgutils.for_range(b, b.sub(last, whole)) as pixel:
        write(b.add(whole, pixel.index), in_part=True)


@intrinsic  # type: ignore[untyped-decorator]
def _line(  # noqa: PLR0917
    typingctx: Any, width: Any, lanes: Any, valued: Any, bias: Any, room: Any, pixels: Any, lines: Any, count: Any,
    deals: Any, values: Any, weights: Any, step: Any, first: Any, whole: Any, last: Any, out: Any, pitch: Any, far: Any,
) -> Any:  # fmt: skip
    """Add up one output line of `pixels` rows of `width` sums in `room`, and write those from `first` to `last`.

    Arguments are sizes and addresses. Each of `count` input lines is three integers: its first event, the one behind
    its last, and where the weights of its row of taps begin. A deal, of each event, is how many taps there are, the
    weight row of the first and the output pixel that it reaches; the next tap's weights lie `step` floats further and
    reach the pixel before. Rows are written `pitch` floats apart; those before `whole` over what lies behind their
    last `lanes`, which the next one overwrites. Where `far`, rows are whole cache lines, and written past the caches.
    """
    address, size = types.uintp, types.int64
    signature = types.void(
        size, size, types.boolean, address, address, size, address, size, *[address] * 3, *[size] * 4, address, size,
        types.boolean,
    )  # fmt: skip

    def generate(context: Any, b: Any, _: Any, arguments: Any) -> Any:
        width, lanes, valued, *rest = arguments
        mask = only(b, lanes)
        end = b.append_basic_block("written")
        ways = b.switch(b.or_(width, b.zext(valued, WIDE)), end)
        for many in range(1, TILE // LANES + 1):
            for times in (0, 1):
                block = b.append_basic_block("tile")
                ways.add_case(whole_number(many * LANES + times), block)
                b.position_at_end(block)
                _line_of(b, many, bool(times), mask, rest)
                b.branch(end)
        b.position_at_end(end)
        return context.get_dummy_value()

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def _settle(typingctx: Any) -> Any:
    """Wait for what was written past the caches, which other threads may otherwise not find."""

    def generate(context: Any, b: Any, _: Any, arguments: Any) -> Any:
        b.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@kernel
def deal(
    indptr: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int32],
    window: Window,
    inputs: int,
    steps: tuple[int, int],
) -> npt.NDArray[np.int32]:
    """Return what each event reaches along its line, of those that the window reads.

    Parameters
    ----------
    indptr, indices : int64 array, int32 array
        CSR rows of the input.
    window : Window
        Not dilated along a line.
    inputs : int
        Channels.
    steps : tuple (first, last)
        Those that are looked at, the last one excluded.

    Returns
    -------
    int32 array (3 * events,)
        Of each event how many taps of a row reach an output pixel, the first one's weight row, counted from the first
        of the row of taps, and the output pixel that it reaches; the next one, a stride further, reaches the pixel
        before.
    """
    w, (top, bottom) = window, lines_read(window)
    out = np.empty(3 * indptr[steps[1] * w.height * w.width], np.int32)
    for step in range(steps[0], steps[1]):
        for y in range(top, bottom):
            line = (step * w.height + y) * w.width
            for x in range(np.uint64(w.width)):
                first, last = np.uint64(indptr[np.uint64(line) + x]), np.uint64(indptr[np.uint64(line + 1) + x])
                if first == last:
                    continue
                place = int(x) + w.pad_width
                low = max(place - (w.out_width - 1) * w.stride_width, place % w.stride_width)
                high = min(w.kernel_width - 1, place)
                taps = (high - low) // w.stride_width + 1 if low <= high else 0
                target = (place - low) // w.stride_width
                for e in range(first, last):
                    out[3 * e], out[3 * e + 1], out[3 * e + 2] = taps, low * inputs + indices[e], target
    return out


@kernel
def _line_plainly(
    lines: npt.NDArray[np.int64],
    deals: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
    weights: npt.NDArray[np.float32],
    step: int,
    room: npt.NDArray[np.float32],
) -> None:
    """Add up what `_line` does, uncompiled; `room` (pixels, width) holds the bias."""
    width = room.shape[1]
    for line in range(0, len(lines), 3):
        for e in range(lines[line], lines[line + 1]):
            for tap in range(deals[3 * e]):
                at = lines[line + 2] + deals[3 * e + 1] * width + tap * step
                for j in range(width):
                    weight = weights[at + j]
                    room[deals[3 * e + 2] - tap, j] += weight if len(values) == 0 else weight * values[e]


@kernel
def scatter(  # noqa: PLR0917 - one by one for the compiler
    rows: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]],
    deals: npt.NDArray[np.int32],
    weights: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    window: Window,
    inputs: int,
    tile: tuple[int, int, bool],
    span: tuple[int, int],
) -> None:
    """Add up the bias and the weight rows of the active channels for one tile of output channels.

    Parameters
    ----------
    rows : tuple (indptr, indices, values)
        CSR rows of the input; values are empty where all are 1.
    deals : int32 array (3 * events,)
        Of `deal`, for the rows that are read.
    weights : float32 array
        Of the tile, as `eventsim.kernels.packing.pack` arranges them, and what lies behind.
    bias : float32 array
        What every sum of the tile begins with, filled up to a whole number of vectors.
    out : float32 array (steps * out_height * out_width, outputs)
        Written.
    window : Window
        Not dilated along a line.
    inputs : int
        Channels.
    tile : tuple (first channel, channels, alone)
        Of the output, and whether there is no other tile.
    span : tuple (first row, last row)
        Of the output, at least one.
    """
    (indptr, _, values), w, outputs = rows, window, out.shape[1]
    channel, channels, alone = tile
    width = (channels + LANES - 1) // LANES * LANES
    lanes, step = channels - width + LANES, w.stride_width * inputs * width
    room = np.empty(w.out_width * width + LANES, np.float32)
    room = room[-(np.int64(room.ctypes.data) // 4) % LANES :][: w.out_width * width].reshape((w.out_width, width))
    lines = np.empty(3 * w.kernel_height, np.int64)
    sums = out.reshape(-1)
    far = out.size >= FAR and outputs % LANES == 0 and sums.ctypes.data % LINE == 0
    for line in range(span[0] // w.out_width, (span[1] - 1) // w.out_width + 1):
        found = 0
        for row in range(w.kernel_height):
            y = line % w.out_height * w.stride_height - w.pad_height + row * w.dilation_height
            source = (line // w.out_height * w.height + y) * w.width
            if 0 <= y < w.height and indptr[source] < indptr[source + w.width]:
                lines[found], lines[found + 1] = indptr[source], indptr[source + w.width]
                lines[found + 2] = row * w.kernel_width * inputs * width
                found += 3
        begin = line * w.out_width
        first, last = max(span[0] - begin, 0), min(span[1] - begin, w.out_width)
        to = (begin + first) * outputs + channel
        if COMPILED:
            # what a row writes too much, the next ones overwrite; but not behind the last one, or over other tiles
            whole = max(last - (width - channels + outputs - 1) // outputs, first) if alone else first
            whole = last if lanes == LANES else whole
            _line(
                width,
                lanes,
                len(values) > 0,
                np.uintp(bias.ctypes.data),
                np.uintp(room.ctypes.data),
                w.out_width,
                np.uintp(lines.ctypes.data),
                found // 3,
                np.uintp(deals.ctypes.data),
                np.uintp(values.ctypes.data),
                np.uintp(weights.ctypes.data),
                step,
                first,
                whole,
                last,
                np.uintp(sums.ctypes.data + 4 * to),
                outputs,
                far,
            )
        else:
            for pixel in range(w.out_width):
                for j in range(width):
                    room[pixel, j] = bias[j]
            _line_plainly(lines[:found], deals, values, weights, step, room)
            for pixel in range(first, last):
                for j in range(channels):
                    sums[to + (pixel - first) * outputs + j] = room[pixel, j]
    if COMPILED and far:
        _settle()
