"""Memory for what layers emit, which serves one layer after the other."""

from __future__ import annotations

from sys import getrefcount

import numpy as np

from eventsim.kernels.dynamics import aligned
from eventsim.signals import FloatArray, IntArray

SMALL = 1 << 14
"""Words up to which new memory is as fast as memory used before."""

_ALONE = [np.empty(0, np.float32)]
_IDLE = getrefcount(_ALONE[0])
"""What Python counts where a list alone holds an array."""


class Buffers:
    """Blocks of memory; one is given again once no array, and no view of one, is left of what was in it.

    Blocks are kept, as new memory takes longer to come by than most layers take to run. What was in one before is still
    there. One thread at a time may ask.
    """

    def __init__(self) -> None:
        self._blocks: list[FloatArray] = []
        self._starts: list[int] = []  # of the part that is aligned

    def floats(self, count: int) -> FloatArray:
        """Return room for `count` numbers, float32 ``(count,)``, aligned and not initialised."""
        if count <= SMALL:
            return aligned(count)
        blocks, starts, chosen = self._blocks, self._starts, -1
        for index in range(len(blocks)):
            if (
                getrefcount(blocks[index]) == _IDLE
                and len(blocks[index]) - starts[index] >= count
                and (chosen < 0 or len(blocks[index]) < len(blocks[chosen]))
            ):
                chosen = index
        if chosen < 0:
            room = aligned(count)
            whole = room.base  # what views of a view refer to
            assert isinstance(whole, np.ndarray)
            blocks.append(whole)
            starts.append((room.ctypes.data - whole.ctypes.data) // room.itemsize)
            return room
        return blocks[chosen][starts[chosen] : starts[chosen] + count]

    def indices(self, count: int) -> IntArray:
        """Return room for `count` integers, int32 ``(count,)``, not initialised."""
        return self.floats(count).view(np.int32)
