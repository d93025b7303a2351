"""The largest values or the sums of a window of rows, kept in registers until it is done."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from eventsim.kernels.jit import kernel
from eventsim.kernels.vectors import COMPILED, PIECES, carry, everywhere, greater, load, place_of, whole_number


def _pooling(maximum: bool) -> Any:
    """Make what `pool_window` does, for addresses."""

    @intrinsic  # type: ignore[untyped-decorator]
    def pool(typingctx: Any, data: Any, rows: Any, columns: Any, pitches: Any, width: Any, out: Any) -> Any:
        address, size = types.uintp, types.int64
        signature = types.void(address, size, size, types.UniTuple(size, 2), size, address)

        def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
            q, (data, rows, columns, pitches, width, out) = builder, arguments
            down, right = (q.extract_value(pitches, n) for n in range(2))
            at = whole_number(0)
            for lanes in PIECES:
                many = q.sdiv(q.sub(width, at), whole_number(lanes))
                with cgutils.for_range(q, many) as piece:
                    column = q.add(at, q.mul(piece.index, whole_number(lanes)))

                    def line(y: Any, found: list[Any], lanes: int = lanes, column: Any = column) -> list[Any]:
                        begin = q.add(column, q.mul(y, down))

                        def pixel(x: Any, found: list[Any]) -> list[Any]:
                            value = load(q, data, q.add(begin, q.mul(x, right)), lanes)
                            return [greater(q, found[0], value) if maximum else q.fadd(found[0], value)]

                        return carry(q, columns, found, pixel)

                    (made,) = carry(q, rows, [everywhere(float("-inf") if maximum else 0.0, lanes)], line)
                    q.store(made, place_of(q, out, column, lanes), align=4)
                at = q.add(at, q.mul(many, whole_number(lanes)))
            return context.get_dummy_value()

        return signature, generate

    return pool


_pool_maximum, _pool_sum = _pooling(True), _pooling(False)


@kernel
def pool_window(
    data: npt.NDArray[np.float32],
    first: int,
    window: tuple[int, int],
    pitches: tuple[int, int],
    maximum: bool,
    pooled: npt.NDArray[np.float32],
    row: int,
) -> None:
    """Write the largest values or the sums of a window of rows, line by line, to a row of `pooled`.

    It begins with the row `first` of `data`; `window` is its lines and the rows of each, `pitches` the rows from a line
    to the next and from a row of a line to the next. Of no rows, sums are 0 and the largest values below all others.
    """
    width = data.shape[1]
    if COMPILED:
        begin, to = data.ctypes.data + 4 * first * width, pooled.ctypes.data + 4 * row * width
        floats = pitches[0] * width, pitches[1] * width
        if maximum:
            _pool_maximum(begin, window[0], window[1], floats, width, to)
        else:
            _pool_sum(begin, window[0], window[1], floats, width, to)
    else:
        pooled[row] = -np.inf if maximum else 0
        for y in range(window[0]):
            for x in range(window[1]):
                source = data[first + y * pitches[0] + x * pitches[1]]
                for c in range(width):
                    pooled[row, c] = max(pooled[row, c], source[c]) if maximum else pooled[row, c] + source[c]
