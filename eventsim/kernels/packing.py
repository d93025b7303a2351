"""Weights in memory, in the order in which `eventsim.kernels.gather.gather` reads them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from eventsim.kernels.gather import edge, tiles_of
from eventsim.kernels.vectors import LANES


def _pieces(weight: tuple[int, int, int], groups: int) -> list[tuple[slice, slice, int]]:
    """Return inputs, outputs and width in memory of each tile of each group, in the order in which they are packed."""
    _, inputs, fan = weight
    if groups > 1 and fan < LANES:
        return [(slice(0, inputs), slice(0, fan), fan)]
    size, cuts = inputs // groups, [edge(fan, tile) for tile in range(tiles_of(fan) + 1)]
    return [
        (slice(group * size, (group + 1) * size), slice(a, b), -(-(b - a) // LANES) * LANES)
        for group in range(groups)
        for a, b in pairwise(cuts)
    ]


def pack(weight: npt.NDArray[np.float32], groups: int = 1) -> npt.NDArray[np.float32]:
    """Arrange weights ``(taps, inputs, outputs / groups)`` as `gather` reads them.

    Group by group, in it tile by tile, of which `eventsim.kernels.gather.edge` tells the channels; then as they are.
    The last tile is filled up to whole `LANES` with zeros. Groups that are narrower stay in memory order. The first
    tile begins on a cache line.
    """
    pieces = _pieces(weight.shape, groups)
    sizes = [len(weight) * len(range(*inputs.indices(weight.shape[1]))) * width for inputs, _, width in pieces]
    room = np.zeros(sum(sizes) + LANES, np.float32)
    start = -(room.ctypes.data // 4) % LANES  # a tile that begins on a cache line is up to twice as fast
    packed = room[start : start + sum(sizes)]
    for (inputs, outputs, width), part in zip(pieces, np.split(packed, np.cumsum(sizes)[:-1]), strict=True):
        tile = weight[:, inputs, outputs]
        part.reshape(*tile.shape[:2], width)[:, :, : tile.shape[2]] = tile
    return packed


def unpack(
    packed: npt.NDArray[np.float32], taps: int, inputs: int, outputs: int, groups: int = 1
) -> npt.NDArray[np.float32]:
    """Return the weights ``(taps, inputs, outputs)`` that `pack` arranged, `outputs` those of a group."""
    weight, begin = np.empty((taps, inputs, outputs), np.float32), 0
    for rows, columns, width in _pieces(weight.shape, groups):
        tile = weight[:, rows, columns]
        end = begin + taps * tile.shape[1] * width
        tile[:] = packed[begin:end].reshape(*tile.shape[:2], width)[:, :, : tile.shape[2]]
        begin = end
    return weight
