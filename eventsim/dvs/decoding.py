"""From bytes to blocks of packed events: the loop that the readers of binary formats share.

A reader brings one compiled function that decodes as much as it has bytes and room for, and keeps what it needs to go
on in an array of integers; this file reads ahead, and gives it block after block to fill.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from eventsim.dvs.columns import EVENT_DTYPE, Packed
from eventsim.dvs.compiled import compiled
from eventsim.dvs.readable_file import ByteReader, ReadableFile
from eventsim.errors import InputError

MORE, FULL, REFUSED = range(3)
"""Why a decoder ends: it needs more bytes, its block is full, or what comes next cannot be."""

WRAPS = 0
"""Where in a decoder's state stands how often the counter of the time was full."""

# with the block that is made of them they stay in the cache of a core
READ_BYTES = 128 << 10
# of the end of a file: times are in it; and of files that are not much larger, nothing is gained by that
END_BYTES, LEAST_BYTES = 32 << 10, 1 << 20

Decoder: TypeAlias = Callable[..., tuple[int, int, int]]
Read: TypeAlias = Callable[[memoryview], int]


class Decoding:
    """One pass of a decoder over bytes.

    Parameters
    ----------
    read : callable
        ``read(buffer)`` writes the next bytes and returns their number, 0 at the end, as ``readinto`` of a file does.
    decoder : compiled function
        ``decoder(words, state, x, y, t, p)`` decodes `words` into the four fields of packed events and returns how many
        words and events it took, and why it ended: `MORE`, `FULL` or `REFUSED`. It may take words without an event.
    state : ndarray of int64
        What it keeps from call to call; ``state[WRAPS]`` how often the counter of the time was full.
    word : str
        Type of the words.
    coordinates : str
        Type of 16 bits of x and y as they are stored.
    as_they_come : bool
        Whether no event waits for bytes behind it: blocks are then of any length.

    Attributes
    ----------
    events : int
        Decoded so far.
    why : int
        Why the last block ended; `MORE` at the end of the bytes.
    """

    def __init__(
        self,
        read: Read,
        decoder: Decoder,
        state: npt.NDArray[np.int64],
        *,
        word: str = "u1",
        coordinates: str = "<i2",
        as_they_come: bool = False,
    ) -> None:
        self._as_they_come = as_they_come
        self.events, self.why = 0, MORE
        self._read, self._decoder, self._state = read, decoder, state
        self._word, self._coordinates = np.dtype(word), np.dtype(coordinates)
        self._buffer = np.empty(READ_BYTES, np.uint8)
        self._begin = self._end = 0

    def blocks(self, block_events: int) -> Iterator[Packed]:
        """Yield all events, at most `block_events` at a time, up to the end or to what is refused."""
        self.why = FULL
        while self.why == FULL:
            block = Packed(np.empty(block_events, EVENT_DTYPE), self._coordinates)
            fields = (block.x, block.y, block.t, block.p)
            full, count, error = int(self._state[WRAPS]), 0, None
            if self._begin == self._end and not self._as_they_come:
                self._fill()  # no decoder keeps an event that waits for none of its bytes
            while True:
                words = self._buffer[self._begin : self._end - (self._end - self._begin) % self._word.itemsize]
                left = [field[count:] for field in fields] if count else fields
                used, found, self.why = self._decoder(words.view(self._word), self._state, *left)
                self._begin += used * self._word.itemsize
                count += found
                if self._as_they_come and count and self.why == MORE:
                    self.why = FULL  # with what has come
                    break
                try:
                    if self.why != MORE or not self._fill():
                        break
                except InputError as refusal:
                    # of what lies behind these events
                    error = refusal
                    break
            self.events += count
            wraps = max(int(self._state[WRAPS]) - full, 0)
            if count or wraps:
                yield Packed(block.events[:count], self._coordinates, wraps)
            if error is not None:
                raise error

    @property
    def rest(self) -> bytes:
        """The bytes that were read and not decoded."""
        return self._buffer[self._begin : self._end].tobytes()

    def _fill(self) -> bool:
        """Read on behind what is left; tell whether something came."""
        rest = self._buffer[self._begin : self._end]
        if len(rest) == len(self._buffer):
            # one unit is longer than that
            self._buffer = np.empty(2 * len(rest), np.uint8)
        self._buffer[: len(rest)] = rest
        self._begin, self._end = 0, len(rest)
        got = self._read(self._buffer.data[len(rest) :])
        self._end += got
        return got > 0


def time_at_the_end(
    file: ReadableFile, begin: int, unit: int, decoding: Callable[[ByteReader], Decoding]
) -> int | None:
    """Decode the end of a file alone, for `Recording._stored_end`.

    Parameters
    ----------
    file : ReadableFile
    begin, unit : int
        Where the events begin, and the bytes of one or of a word.
    decoding : callable
        Makes one pass of what reads from some unit on.

    Returns
    -------
    int or None
        The time of the last event in it, as if the counter had not been full before; None where there is none.
    """
    units = (file.size - begin) // unit
    if file.arrives or units * unit < LEAST_BYTES:
        return None
    last = None
    with file.opened(begin + (units - END_BYTES // unit) * unit, unit) as opened:
        for block in decoding(opened).blocks(END_BYTES // unit):
            if len(block.events):
                last = int(block.events["t"][-1])
    return last


@compiled
def int32(data: npt.NDArray[np.uint8], at: int) -> Any:
    """Read a little-endian integer of 32 bits."""
    value: Any = np.int64(data[at]) | np.int64(data[at + 1]) << 8 | np.int64(data[at + 2]) << 16
    value |= np.int64(np.int8(data[at + 3])) << 24
    return value
