"""Layer normalisation by vectors, some rows at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eventsim.kernels.jit import kernel
from eventsim.kernels.vectors import (
    COMPILED,
    FLOAT,
    LANES,
    carry,
    everywhere,
    fold,
    load,
    multiply_add,
    place_of,
    spread,
    whole_number,
)


@intrinsic  # type: ignore[untyped-decorator]
def _normalise(typingctx: Any, x: Any, rows: Any, vectors: Any, weight: Any, bias: Any, eps: Any, out: Any) -> Any:
    """Do what `normalise` does, for addresses and rows of whole vectors; some rows at a time, so that none waits."""
    address, size = types.uintp, types.int64
    signature = types.void(address, size, size, address, address, types.float32, address)

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        q, (x, rows, vectors, weight, bias, eps, out) = builder, arguments
        pitch = q.mul(vectors, whole_number(LANES))
        number = q.uitofp(pitch, FLOAT)
        kind = ir.FunctionType(FLOAT, [FLOAT])
        root = cgutils.get_or_insert_function(q.module, kind, "llvm.sqrt.f32")

        def some(first: Any, count: int) -> None:
            begins = [q.mul(q.add(first, whole_number(row)), pitch) for row in range(count)]
            none = [everywhere(0.0, LANES)] * count

            def at(base: Any, index: Any, begin: Any) -> Any:
                return load(q, base, q.add(begin, q.mul(index, whole_number(LANES))), LANES)

            def add(index: Any, sums: list[Any]) -> list[Any]:
                return [q.fadd(total, at(x, index, begin)) for total, begin in zip(sums, begins, strict=True)]

            sums = [fold(q, total, LANES, q.fadd) for total in carry(q, vectors, none, add)]
            means = [spread(q, q.fdiv(total, number), LANES) for total in sums]

            def square(index: Any, sums: list[Any]) -> list[Any]:
                centred = [q.fsub(at(x, index, begin), mean) for begin, mean in zip(begins, means, strict=True)]
                return [multiply_add(q, c, c, total, LANES) for c, total in zip(centred, sums, strict=True)]

            sums = [fold(q, total, LANES, q.fadd) for total in carry(q, vectors, none, square)]
            deviations = [q.call(root, [q.fadd(q.fdiv(total, number), eps)]) for total in sums]
            factors = [spread(q, q.fdiv(ir.Constant(FLOAT, 1.0), each), LANES) for each in deviations]
            with cgutils.for_range(q, vectors) as loop:
                scale, shift = (at(base, loop.index, whole_number(0)) for base in (weight, bias))
                for begin, mean, factor in zip(begins, means, factors, strict=True):
                    scaled = q.fmul(q.fsub(at(x, loop.index, begin), mean), factor)
                    place = q.add(begin, q.mul(loop.index, whole_number(LANES)))
                    q.store(multiply_add(q, scaled, scale, shift, LANES), place_of(q, out, place, LANES), align=4)

        whole = q.lshr(rows, whole_number(2))
        with cgutils.for_range(q, whole) as loop:
            some(q.mul(loop.index, whole_number(4)), 4)
        with cgutils.for_range(q, q.and_(rows, whole_number(3))) as loop:
            some(q.add(q.mul(whole, whole_number(4)), loop.index), 1)
        return context.get_dummy_value()

    return signature, generate


@kernel
def normalise(
    x: npt.NDArray[np.float32],
    weight: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    eps: np.float32,
    out: npt.NDArray[np.float32],
) -> None:
    """Write ``(x - mean) / sqrt(variance + eps) * weight + bias`` of each row to `out`, which may be `x`.

    A row is divided by way of one reciprocal.
    """
    rows, channels = x.shape
    if COMPILED and channels % LANES == 0:
        _normalise(x.ctypes.data, rows, channels // LANES, weight.ctypes.data, bias.ctypes.data, eps, out.ctypes.data)
        return
    number = np.float32(channels)
    for row in range(rows):
        total = np.float32(0)
        for c in range(channels):
            total += x[row, c]
        mean, total = total / number, np.float32(0)
        for c in range(channels):
            total += (x[row, c] - mean) * (x[row, c] - mean)
        reciprocal = np.float32(1) / np.sqrt(total / number + eps)
        for c in range(channels):
            out[row, c] = (x[row, c] - mean) * reciprocal * weight[c] + bias[c]
