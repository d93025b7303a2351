"""Memory for what layers emit, which serves one layer after the other."""

from __future__ import annotations

from sys import getrefcount

import numpy as np

from eventsim.signals import BitArray, CountArray, FloatArray, IntArray

SMALL = 1 << 14
"""Words up to which new memory is as fast as memory used before."""
LINE = 16
"""Words of a cache line, on which no vector then lies on two."""

_ALONE = [np.empty(0, np.float32)]
_IDLE = getrefcount(_ALONE[0])
"""What Python counts where a list alone holds an array."""


class Buffers:
    """Blocks of memory; one is given again once no array, and no view of one, is left of what was in it.

    Blocks are kept, as new memory takes longer to come by than most layers take to run. What was in one before is still
    there. One thread at a time may ask.

    Parameters
    ----------
    small : int
        Words up to which memory is not kept.
    """

    def __init__(self, small: int = SMALL) -> None:
        self._small = small
        self._blocks: list[FloatArray] = []
        self._begins: list[int] = []  # of each block, where a cache line begins

    def floats(self, count: int) -> FloatArray:
        """Return room for `count` numbers, float32 ``(count,)``, not initialised; if large, it begins a cache line."""
        if count <= self._small:
            return np.empty(count, np.float32)
        blocks, chosen = self._blocks, -1
        for index in range(len(blocks)):
            if (
                getrefcount(blocks[index]) == _IDLE
                and len(blocks[index]) >= count + LINE
                and (chosen < 0 or len(blocks[index]) < len(blocks[chosen]))
            ):
                chosen = index
        if chosen < 0:
            blocks.append(np.empty(count + LINE, np.float32))
            self._begins.append(-(blocks[-1].ctypes.data // 4) % LINE)
        begin = self._begins[chosen]
        return blocks[chosen][begin : begin + count]

    def indices(self, count: int) -> IntArray:
        """Return room for `count` integers, int32 ``(count,)``, not initialised."""
        return self.floats(count).view(np.int32)

    def sparse(self, count: int) -> FloatArray:
        """Return room for `count` numbers, float32 ``(count,)``, of which few are written: what is not takes no memory.

        Where everything is kept, it is memory used before, like all other.
        """
        return self.floats(count) if self._small == 0 else np.empty(count, np.float32)

    def longs(self, count: int) -> CountArray:
        """Return room for `count` integers, int64 ``(count,)``, not initialised."""
        return self.floats(2 * count).view(np.int64)

    def bits(self, steps: int, width: int) -> BitArray:
        """Return room for bits, uint32 ``(steps, width)`` words of them, not initialised."""
        return self.indices(steps * width).view(np.uint32).reshape(steps, width)

    def holds(self, address: int) -> bool:
        """Say whether a block holds what lies at an address."""
        return any(0 <= address - block.ctypes.data < block.nbytes for block in self._blocks)
