"""Event files that come by a pipe: read once, forwards, as they come, and no further ahead than one piece."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedIOBase, RawIOBase
from pathlib import Path
from typing import BinaryIO, ClassVar

from eventsim.dvs.readable_file import HEAD_BYTES, ReadableFile
from eventsim.errors import InputError
from eventsim.stopwatch import Stopwatch

# as much as a pipe of Linux holds; nothing more is asked for while some of it is unused
PIECE_BYTES = 1 << 16
# the longest header of a format that comes by a pipe: jAER's preferences in AEDAT 2.0
MOST_HEADER_BYTES = 4 << 20
# the longest beginning behind lines of comments that is looked at (the header of a packet of AEDAT 3.1: 28 bytes)
LEAST_HEAD_BYTES = 32


@dataclass(frozen=True)
class ArrivingFile(ReadableFile):
    """The beginning of a file that comes by a pipe, and the rest as it comes; made by `arriving_file`.

    Attributes
    ----------
    path : Path
        A name for messages, such as ``-``.
    size : int
        Bytes of the beginning; how many there will be, nobody knows.
    head : bytes
        As of any file, or less where no more had come and it tells enough.
    pipe : Pipe
    """

    pipe: Pipe = field(repr=False)
    arrives: ClassVar[bool] = True
    cut: ClassVar[str] = "its writer stopped there"

    def beginning(self, most: int) -> bytes:
        """Return what has come before the events: whole lines of a header, and something of what is behind them."""
        return self.pipe.held[:most]

    @contextmanager
    def opened(self, begin: int, unit: int = 1) -> Iterator[Pipe]:
        """Yield what reads from byte `begin` on, in whole units; once.

        Raises
        ------
        InputError
            It was read before.
        """
        self.pipe.open(begin, unit)
        yield self.pipe

    def left_over(
        self, begin: int, size: int, expected: str, *, salvage: bool, unit: str = "event", advice: str = ""
    ) -> str:
        """Note what is to be said where the pipe ends within a unit; the reading does."""
        self.pipe.refuse_rest = lambda units, rest: InputError(
            self._left_over_message(units, rest, expected, unit, f"{self.cut}: salvage=True takes what came before")
        )
        return ""


class Pipe:
    """Bytes in the order in which they come.

    Parameters
    ----------
    source : binary file
    name : str
        For messages.

    Attributes
    ----------
    held : bytes
        Read and not used yet: less than one piece and one unit, behind the header.
    waiting : Stopwatch
        What reading took, which is waiting for who writes.
    refuse_rest : callable or None
        ``refuse_rest(units, rest)`` returns the error where `rest` bytes behind so many units are no whole one.
    """

    def __init__(self, source: BufferedIOBase | RawIOBase | BinaryIO, name: str) -> None:
        # at most what is there; `read` of a buffered file would wait for all that was asked for
        self._read: Callable[[int], bytes | None] = getattr(source, "read1", source.read)
        self._name = name
        self._opened = False
        self._unit = 1
        self._given = 0
        self.held = b""
        self.waiting = Stopwatch()
        self.refuse_rest: Callable[[int, int], InputError] | None = None

    def more(self) -> bool:
        """Wait for the next piece; tell whether there was one.

        Raises
        ------
        InputError
            It cannot be read, or does not wait.
        """
        try:
            with self.waiting:
                piece = self._read(PIECE_BYTES)
        except (OSError, ValueError) as error:  # a folder, a broken connection, a closed file
            raise InputError(f"{self._name}: cannot be read ({error}), expected what another program writes") from error
        if piece is None:
            raise InputError(f"{self._name}: does not wait for what comes, expected that; make it blocking")
        self.held += piece
        return bool(piece)

    def open(self, begin: int, unit: int) -> None:
        """Go on from a byte of the beginning."""
        if self._opened:
            raise InputError(
                f"{self._name}: comes by a pipe and was read before, expected one pass over it; save it to a file, or "
                "take bins of a fixed duration (bin_us)"
            )
        self._opened, self._unit = True, unit
        self.held = self.held[begin:]

    def read(self, most: int, /) -> bytes:
        """Return whole units, at most so many bytes and at least one unit; nothing at the end.

        Raises
        ------
        InputError
            It ends within a unit.
        """
        while len(self.held) < self._unit:
            if not self.more():
                if self.held and self.refuse_rest is not None:
                    raise self.refuse_rest(self._given // self._unit, len(self.held))
                break
        size = min(len(self.held), max(most, self._unit))
        if size >= self._unit:
            size -= size % self._unit
        data, self.held = self.held[:size], self.held[size:]
        self._given += size
        return data

    def readinto(self, buffer: memoryview, /) -> int:
        """Do what `read` does, into a buffer; return the number of bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int, /) -> int:
        """Step over so many bytes behind those that were read; return how many were read or stepped over.

        Raises
        ------
        InputError
            It ends before.
        """
        assert whence == os.SEEK_CUR and offset >= 0
        left = offset
        while left > len(self.held):
            left, self.held = left - len(self.held), b""
            if not self.more():
                raise InputError(
                    f"{self._name}: ends {left} bytes before the end of a packet that holds no events; its writer "
                    "stopped there"
                )
        self.held = self.held[left:]
        self._given += offset
        return self._given


def arriving_file(source: BufferedIOBase | RawIOBase | BinaryIO, name: str = "-") -> ArrivingFile:
    """Wait for the beginning of a file that comes by a pipe.

    Parameters
    ----------
    source : binary file
        Such as ``sys.stdin.buffer``; what is behind the beginning is read as it is used.
    name : str
        For messages.

    Returns
    -------
    ArrivingFile
        What `open_recording` takes.

    Raises
    ------
    InputError
        It ends without a byte.
    """
    pipe = Pipe(source, name)
    while not _tells_enough(pipe.held) and pipe.more():
        pass
    if not pipe.held:
        raise InputError(f"{name}: ended without a byte, expected events; see what its writer says")
    return ArrivingFile(Path(name), len(pipe.held), pipe.held[:HEAD_BYTES], pipe)


def printable_text(data: bytes) -> bool:
    """Tell whether bytes are those of plain text."""
    return not any(byte < 0x20 and byte not in b"\t\r\n" for byte in data)


def _tells_enough(head: bytes) -> bool:
    """Tell whether a beginning holds its lines of comments whole, and enough behind them to know what it is."""
    begin = 0
    while head[begin : begin + 1] in (b"#", b"%"):
        end = head.find(b"\n", begin)
        # events may begin with these signs, too
        if not printable_text(head[begin : None if end < 0 else end]):
            break
        if end < 0:
            return len(head) >= MOST_HEADER_BYTES
        begin = end + 1
    rest = head[begin:]
    if len(head) - begin >= HEAD_BYTES:
        return True
    if printable_text(rest):
        return rest.count(b"\n") >= 2  # of a table, names and the first numbers
    return len(rest) >= LEAST_HEAD_BYTES
