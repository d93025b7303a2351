"""How many synapses the inputs of a layer reach, from the lists of the active ones alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from eventsim.kernels.jit import kernel
from eventsim.kernels.vectors import COMPILED, LANES, WORD, carry, fold, kind_of, load, whole_number
from eventsim.kernels.window import Window


@intrinsic  # type: ignore[untyped-decorator]
def _magnitudes(typingctx: Any, values: Any, vectors: Any) -> Any:
    """Add up the magnitudes of so many vectors that lie behind an address, in `LANES` sums of float64."""

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        b, (values, vectors) = builder, arguments
        bits, doubles = ir.VectorType(WORD, LANES), ir.VectorType(ir.DoubleType(), LANES)

        def turn(index: Any, sums: list[Any]) -> list[Any]:
            loaded = b.bitcast(load(b, values, b.mul(index, whole_number(LANES)), LANES), bits)
            size = b.bitcast(b.and_(loaded, ir.Constant(bits, [0x7FFFFFFF] * LANES)), kind_of(LANES))
            return [b.fadd(sums[0], b.fpext(size, doubles))]

        (total,) = carry(b, vectors, [ir.Constant(doubles, [0.0] * LANES)], turn)
        return fold(b, total, LANES, b.fadd)

    return types.float64(types.uintp, types.int64), generate


@kernel
def _magnitude(values: npt.NDArray[np.float32], first: int, last: int) -> float:
    """Add up magnitudes, many sums at a time, so that no addition waits for the one before."""
    vectors = (last - first) // LANES if COMPILED else 0
    total = 0.0
    if COMPILED:
        total += _magnitudes(values.ctypes.data + 4 * first, vectors)
    for e in range(np.uint64(first + vectors * LANES), np.uint64(last)):
        total += abs(np.float64(values[e]))
    return total


@kernel
def _reached(size: int, out_size: int, taps: int, stride: int, pad: int, dilation: int) -> npt.NDArray[np.int64]:
    """Return how many output pixels along one axis each input pixel reaches, through any tap."""
    reached = np.zeros(size, np.int64)
    for out in range(out_size):
        for tap in range(taps):
            place = out * stride + tap * dilation - pad
            if 0 <= place < size:
                reached[place] += 1
    return reached


@kernel
def count_products(
    rows: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]],
    window: Window,
    fan: int,
    products: npt.NDArray[np.int64],
    units: npt.NDArray[np.int64] | npt.NDArray[np.float64],
) -> None:
    """Count the synapses that the active inputs reach: through each tap that lies on the map, `fan` of them.

    Parameters
    ----------
    rows : tuple (indptr, indices, values)
        CSR rows of the input, ``steps * height * width`` of them; values are empty where all are 1.
    window : Window
    fan : int
        Output channels that an input channel reaches through a tap.
    products : int64 array (steps,)
        Written: synapses reached by non-zero inputs in each step.
    units : int64 or float64 array (steps,)
        Written: the same, each weighted by the magnitude of its input; exact while integers stay below 2**53. 0 where
        all values are 1.
    """
    indptr, _, values = rows
    w = window
    valued = len(values) > 0
    down = _reached(w.height, w.out_height, w.kernel_height, w.stride_height, w.pad_height, w.dilation_height)
    across = _reached(w.width, w.out_width, w.kernel_width, w.stride_width, w.pad_width, w.dilation_width)
    ends, runs = np.empty(w.width + 1, np.int64), 0  # of pixels side by side that reach equally many
    ends[0] = 0
    for x in range(1, w.width + 1):
        if x == w.width or across[x] != across[x - 1]:
            runs += 1
            ends[runs] = x
    for step in range(len(products)):
        total, weighed = 0, 0.0
        for y in range(w.height):
            line = (step * w.height + y) * w.width
            for run in range(runs):
                times = down[y] * across[ends[run]]
                first, last = indptr[line + ends[run]], indptr[line + ends[run + 1]]
                total += times * (last - first)
                if valued:
                    weighed += times * _magnitude(values, first, last)
        products[step] = total * fan
        units[step] = weighed * fan


@kernel
def _reaches(place: int, tap: int, out_size: int, stride: int, pad: int, dilation: int) -> bool:
    """Say whether an input pixel reaches an output pixel through a tap, along one axis."""
    at = place + pad - tap * dilation
    return at >= 0 and at % stride == 0 and at // stride < out_size


@kernel
def count_pruned(
    rows: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]],
    window: Window,
    fans: npt.NDArray[np.int64],
    products: npt.NDArray[np.int64],
    units: npt.NDArray[np.int64],
) -> None:
    """Count the synapses that the active inputs reach where an input does not reach all outputs.

    Parameters
    ----------
    rows, window, products, units
        As for `count_products`.
    fans : int64 array (taps, input channels)
        Output channels that each input channel reaches through each tap.
    """
    indptr, indices, values = rows
    w = window
    valued = len(values) > 0
    for step in range(len(products)):
        total, weighed = 0, 0.0
        for y in range(w.height):
            for x in range(w.width):
                row = (step * w.height + y) * w.width + x
                if indptr[row] == indptr[row + 1]:
                    continue
                for tap in range(len(fans)):
                    down, across = tap // w.kernel_width, tap % w.kernel_width
                    if not (
                        _reaches(y, down, w.out_height, w.stride_height, w.pad_height, w.dilation_height)
                        and _reaches(x, across, w.out_width, w.stride_width, w.pad_width, w.dilation_width)
                    ):
                        continue
                    for e in range(indptr[row], indptr[row + 1]):
                        fan = fans[tap, indices[e]]
                        total += fan
                        if valued:
                            weighed += abs(values[e]) * fan
        products[step] = total
        units[step] = weighed
