"""Synaptic accumulation: for each output row, add up the weight rows of the active input channels.

A linear layer is the convolution with one tap. An output row starts from the bias and takes tap after tap, event after
event, so its sum has one order whatever the chunk. Every kernel returns what it executed.

The limit is the load of one weight-row slice per event; so the sums of up to `TILE` output channels stay in vector
registers over all events of a row (LLVM vectors of 16 floats, which any target lowers to what it has), and the tap
is the outer loop, so that the active tile of weights stays in the first-level cache.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from eventsim.kernels.jit import kernel
from eventsim.kernels.window import Window

LANES = 16
TILE = 64


def _adder(vectors: int, valued: bool) -> Any:
    """Make the inner loop: ``out[:16 * vectors] += sum of weight rows`` over the events of one row.

    Its arguments are addresses and sizes: weights of input channel 0, floats from one channel's weights to the
    next, indices, values, number of events, output.
    """

    @intrinsic  # type: ignore[untyped-decorator]
    def add(typingctx: Any, weights: Any, pitch: Any, indices: Any, values: Any, events: Any, out: Any) -> Any:
        address, size = types.uintp, types.int64
        signature = types.void(address, size, address, address, size, address)

        def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
            weights, pitch, indices, values, events, out = arguments
            vector, wide, word = ir.VectorType(ir.FloatType(), LANES), ir.IntType(64), ir.IntType(32)

            def pointer(address: Any, element: Any, offset: Any) -> Any:
                return builder.gep(builder.inttoptr(address, element.as_pointer()), [offset])

            def constant(value: int) -> Any:
                return ir.Constant(wide, value)

            def slot(base: Any, n: int) -> Any:
                return builder.bitcast(builder.gep(base, [constant(n * LANES)]), vector.as_pointer())

            target = pointer(out, ir.FloatType(), constant(0))
            first = [builder.load(slot(target, n), align=4) for n in range(vectors)]
            entry = builder.block
            loop, end = builder.append_basic_block("events"), builder.append_basic_block("end")
            builder.cbranch(builder.icmp_signed(">", events, constant(0)), loop, end)

            builder.position_at_end(loop)
            event = builder.phi(wide)
            sums = [builder.phi(vector) for _ in range(vectors)]
            channel = builder.sext(builder.load(pointer(indices, word, event)), wide)
            row = pointer(weights, ir.FloatType(), builder.mul(channel, pitch))
            terms = [builder.load(slot(row, n), align=4) for n in range(vectors)]
            if valued:
                value = builder.load(pointer(values, ir.FloatType(), event))
                lane = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(word, 0))
                zeros = ir.Constant(ir.VectorType(word, LANES), [0] * LANES)
                spread = builder.shuffle_vector(lane, ir.Constant(vector, ir.Undefined), zeros)
                terms = [builder.fmul(term, spread) for term in terms]
            added = [builder.fadd(total, term) for total, term in zip(sums, terms, strict=True)]
            following = builder.add(event, constant(1))
            event.add_incoming(constant(0), entry)
            event.add_incoming(following, loop)
            for total, begin, new in zip(sums, first, added, strict=True):
                total.add_incoming(begin, entry)
                total.add_incoming(new, loop)
            builder.cbranch(builder.icmp_signed("<", following, events), loop, end)

            builder.position_at_end(end)
            last = [builder.phi(vector) for _ in range(vectors)]
            for n, (total, begin, new) in enumerate(zip(last, first, added, strict=True)):
                total.add_incoming(begin, entry)
                total.add_incoming(new, loop)
                builder.store(total, slot(target, n), align=4)
            return context.get_dummy_value()

        return signature, generate

    return add


_add_1, _add_2, _add_3, _add_4 = (_adder(vectors, valued=False) for vectors in (1, 2, 3, 4))
_add_valued_1, _add_valued_2, _add_valued_3, _add_valued_4 = (_adder(vectors, valued=True) for vectors in (1, 2, 3, 4))


def pack(weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Arrange weights ``(taps, inputs, outputs)`` as `gather` reads them: tile by tile of output channels, aligned.

    A tile is `TILE` channels wide; the last takes the multiple of `LANES` that remains, and then the rest.
    """
    outputs = weight.shape[2]
    vectorised = outputs // LANES * LANES
    edges = [*range(0, vectorised, TILE), vectorised, outputs]
    tiles = [weight[:, :, a:b].ravel() for a, b in pairwise(edges)]
    room = np.empty(weight.size + LANES, np.float32)
    start = -(room.ctypes.data // 4) % LANES  # a tile that begins on a cache line is up to twice as fast
    packed = room[start : start + weight.size]
    packed[:] = np.concatenate(tiles) if tiles else 0
    return packed


def unpack(packed: npt.NDArray[np.float32], taps: int, inputs: int, outputs: int) -> npt.NDArray[np.float32]:
    """Return the weights ``(taps, inputs, outputs)`` that `pack` arranged."""
    vectorised = outputs // LANES * LANES
    edges = [*range(0, vectorised, TILE), vectorised, outputs]
    weight = np.empty((taps, inputs, outputs), np.float32)
    for a, b in pairwise(edges):
        begin = taps * inputs * a
        weight[:, :, a:b] = packed[begin : taps * inputs * b].reshape(taps, inputs, b - a)
    return weight


@kernel
def gather(
    rows: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]],
    packed: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    steps: int,
    window: Window,
    products: npt.NDArray[np.int64],
    units: npt.NDArray[np.float64],
) -> None:
    """Add up the bias and the weight rows of the active channels, times their values.

    Parameters
    ----------
    rows : tuple (indptr, indices, values)
        CSR rows of the input, ``steps * height * width`` of them; values are empty where all are 1.
    packed : float32 array
        Weights as `pack` arranges them.
    bias : float32 array (outputs,)
        What every sum begins with.
    out : float32 array (steps * out_height * out_width, outputs)
        Written.
    steps : int
    window : Window
    products : int64 array (steps,)
        Written: synapses reached by non-zero inputs in each step.
    units : float64 array (steps,)
        Written: the same, each weighted by the magnitude of its input; exact while integers stay below 2**53. Left at
        0 where all values are 1.
    """
    indptr, indices, values = rows
    w = window
    outputs = out.shape[1]
    taps = w.kernel_height * w.kernel_width
    inputs = len(packed) // (taps * outputs)
    binary = len(values) == 0
    magnitude = np.zeros(len(indptr) - 1, np.float64)
    if not binary:
        for row in range(len(indptr) - 1):
            for e in range(indptr[row], indptr[row + 1]):
                magnitude[row] += abs(values[e])
    products[:] = 0
    units[:] = 0
    first = 0
    while first < outputs:
        width = min(TILE, (outputs - first) // LANES * LANES)
        if width == 0:
            width = outputs - first
        for tap in range(taps):
            base = (taps * first + tap * width) * inputs
            dy = tap // w.kernel_width * w.dilation_height - w.pad_height
            dx = tap % w.kernel_width * w.dilation_width - w.pad_width
            for row in range(steps * w.out_height):
                if tap == 0:  # no earlier: a tile of a row then stays in the first-level cache
                    for target in range(np.uint64(row * w.out_width), np.uint64((row + 1) * w.out_width)):
                        for j in range(np.uint64(first), np.uint64(first + width)):
                            out[target, j] = bias[j]
                step = row // w.out_height
                y = row % w.out_height * w.stride_height + dy
                if y < 0 or y >= w.height:
                    continue
                for out_x in range(w.out_width):
                    x = out_x * w.stride_width + dx
                    if x < 0 or x >= w.width:
                        continue
                    source = (step * w.height + y) * w.width + x
                    target = row * w.out_width + out_x
                    start = indptr[source]
                    n = indptr[source + 1] - start
                    if first == 0:
                        products[step] += n
                        units[step] += magnitude[source]
                    if n == 0:
                        continue
                    at = packed.ctypes.data + 4 * base
                    ix = indices.ctypes.data + 4 * start
                    vx = values.ctypes.data + 4 * start
                    to = out.ctypes.data + 4 * (target * outputs + first)
                    if width == 64:
                        if binary:
                            _add_4(at, width, ix, vx, n, to)
                        else:
                            _add_valued_4(at, width, ix, vx, n, to)
                    elif width == 48:
                        if binary:
                            _add_3(at, width, ix, vx, n, to)
                        else:
                            _add_valued_3(at, width, ix, vx, n, to)
                    elif width == 32:
                        if binary:
                            _add_2(at, width, ix, vx, n, to)
                        else:
                            _add_valued_2(at, width, ix, vx, n, to)
                    elif width == 16:
                        if binary:
                            _add_1(at, width, ix, vx, n, to)
                        else:
                            _add_valued_1(at, width, ix, vx, n, to)
                    else:
                        for e in range(start, start + n):
                            value = np.float32(1) if binary else values[e]
                            for j in range(width):
                                out[target, first + j] += value * packed[base + indices[e] * width + j]
        first += width
    products *= outputs
    units *= outputs


@kernel
def gather_groups(
    rows: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]],
    weight: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    steps: int,
    window: Window,
    groups: int,
    products: npt.NDArray[np.int64],
    units: npt.NDArray[np.float64],
) -> None:
    """Do what `gather` does where channels are split into groups that do not see each other.

    `weight` is ``(taps, input channels, output channels / groups)``; the rest is as for `gather`.
    """
    indptr, indices, values = rows
    w = window
    fan = weight.shape[2]
    group_inputs = weight.shape[1] // groups
    binary = len(values) == 0
    products[:] = 0
    units[:] = 0
    for tap in range(weight.shape[0]):
        dy = tap // w.kernel_width * w.dilation_height - w.pad_height
        dx = tap % w.kernel_width * w.dilation_width - w.pad_width
        for row in range(steps * w.out_height):
            step = row // w.out_height
            y = row % w.out_height * w.stride_height + dy
            if y < 0 or y >= w.height:
                continue
            for out_x in range(w.out_width):
                x = out_x * w.stride_width + dx
                if x < 0 or x >= w.width:
                    continue
                source = (step * w.height + y) * w.width + x
                target = row * w.out_width + out_x
                for e in range(indptr[source], indptr[source + 1]):
                    i = indices[e]
                    value = np.float32(1) if binary else values[e]
                    first = i // group_inputs * fan
                    for j in range(fan):
                        out[target, first + j] += value * weight[tap, i, j]
                    products[step] += 1
                    if not binary:
                        units[step] += abs(value)
    products *= fan
    units *= fan


@kernel
def gather_synapses(
    rows: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]],
    synapse_indptr: npt.NDArray[np.int64],
    synapse_targets: npt.NDArray[np.int32],
    synapse_weights: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    products: npt.NDArray[np.int64],
    units: npt.NDArray[np.float64],
) -> None:
    """Serve the synapses of each active input channel: fan-out lists in CSR form.

    Parameters
    ----------
    rows : tuple (indptr, indices, values)
        CSR rows of the input; values are empty where all are 1.
    synapse_indptr : int64 array (input channels + 1,)
    synapse_targets : int32 array (synapses,)
    synapse_weights : float32 array (synapses,)
    out : float32 array (steps * positions, output channels)
        Holds the bias on entry.
    products, units : int64 and float64 arrays (steps,)
        Written, as by `gather`.
    """
    indptr, indices, values = rows
    binary = len(values) == 0
    products[:] = 0
    units[:] = 0
    positions = max((len(indptr) - 1) // max(len(products), 1), 1)
    for row in range(len(indptr) - 1):
        step = row // positions
        for e in range(indptr[row], indptr[row + 1]):
            start = synapse_indptr[indices[e]]
            stop = synapse_indptr[indices[e] + 1]
            value = np.float32(1) if binary else values[e]
            for s in range(start, stop):
                out[row, synapse_targets[s]] += value * synapse_weights[s]
            products[step] += stop - start
            if not binary:
                units[step] += abs(value) * (stop - start)
