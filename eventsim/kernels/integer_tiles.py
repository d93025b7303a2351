"""How int8 weights lie for `eventsim.kernels.gather_integer`: tile by tile of output channels, each tap after tap.

Where events are taken by twos (`PAIRED`), the instructions work on blocks of 128 bits: one interleaves the first halves
of two vectors in each block, another the second halves. So the bytes of a vector lie such that sums come in order.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from eventsim.kernels.processor import FEATURES

LANES = 32
"""Channels are padded to a multiple of it."""
TILE = 128
WIDTHS = (128, 96, 64, 32)
"""Channels of a tile."""

COMPILED = not numba.config.DISABLE_JIT
PAIRED = COMPILED and "avx2" in FEATURES
"""Whether sums of 16 bits take events by twos."""
REGISTER = 64 if "avx512bw" in FEATURES else 32
"""Bytes of weights that are interleaved at once."""


def chunks(width: int) -> list[int]:
    """Return the bytes of the weights of a tile that are interleaved at once, the last maybe fewer."""
    return [min(REGISTER, width - first) for first in range(0, width, REGISTER)]


def tile_width(left: int) -> int:
    """Return how many of the channels that are left, a multiple of `LANES`, the next tile takes."""
    return 96 if left in (96, 192) else min(left, TILE)


def _arranged(width: int, bits: int) -> npt.NDArray[np.int64]:
    """Return which output of a tile each byte of its weights is of."""
    if not (PAIRED and bits == 16):
        return np.arange(width)
    places = []
    for first, chunk in zip(range(0, width, REGISTER), chunks(width), strict=True):
        block, byte = np.divmod(np.arange(chunk), 16)
        places.append(first + 8 * block + byte % 8 + byte // 8 * (chunk // 2))
    return np.concatenate(places)


def pack_integers(weight: npt.NDArray[np.int8], bits: int) -> npt.NDArray[np.int8]:
    """Arrange weights ``(taps, inputs, outputs)`` for sums of so many bits, tile by tile of outputs, aligned."""
    taps, inputs, outputs = weight.shape
    padded = -(-outputs // LANES) * LANES
    room = np.zeros(taps * inputs * padded + 64, np.int8)
    packed = room[-room.ctypes.data % 64 :][: taps * inputs * padded]
    at = first = 0
    while first < outputs:
        width = tile_width(padded - first)
        tile = packed[at : at + taps * inputs * width].reshape(taps, inputs, width)
        kept = weight[:, :, first : first + width]
        tile[:, :, : kept.shape[2]] = kept
        tile[:] = tile[:, :, _arranged(width, bits)]
        at, first = at + tile.size, first + width
    return packed


def unpack_integers(
    packed: npt.NDArray[np.int8], taps: int, inputs: int, outputs: int, bits: int
) -> npt.NDArray[np.int8]:
    """Return the weights ``(taps, inputs, outputs)`` that `pack_integers` arranged."""
    padded, at, first, tiles = -(-outputs // LANES) * LANES, 0, 0, []
    while first < outputs:
        width = tile_width(padded - first)
        tile = packed[at : at + taps * inputs * width].reshape(taps, inputs, width)
        tiles.append(tile[:, :, np.argsort(_arranged(width, bits))])
        at, first = at + taps * inputs * width, first + width
    return np.concatenate(tiles, axis=2)[:, :, :outputs]


def tiles_of(outputs: int) -> int:
    """Return how many tiles there are, each of which may be served apart."""
    left, tiles = -(-outputs // LANES) * LANES, 0
    while left > 0:
        left, tiles = left - tile_width(left), tiles + 1
    return tiles
