"""A file that can be read, checked once: what `open_recording` looks at and every reader then relies on."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from eventsim.errors import InputError

# long enough for every magic number and the first lines of a text header, short enough to be read from each file
HEAD_BYTES = 4096


class ByteReader(Protocol):
    """What reads bytes forwards."""

    def read(self, most: int, /) -> bytes:
        """Return at most so many bytes; nothing at the end."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Write the next bytes into a buffer and return their number, 0 at the end."""

    def seek(self, offset: int, whence: int, /) -> int:
        """Step over bytes, `whence` being ``os.SEEK_CUR``; of a pipe, forwards alone."""


@dataclass(frozen=True)
class ReadableFile(os.PathLike[str]):
    """A regular file that can be opened and is not empty; made by `readable_file`, and usable as the path it names.

    Attributes
    ----------
    path : Path
        As given.
    size : int
        Bytes, at least 1.
    head : bytes
        How the file begins: its first `HEAD_BYTES` bytes, or all of a shorter file.
    arrives : bool
        Whether it comes by a pipe, so that it is read once, and forwards.
    cut : str
        What is to be said of one that ends too early.
    """

    path: Path
    size: int
    head: bytes = field(repr=False)
    arrives: ClassVar[bool] = False
    cut: ClassVar[str] = "the file is truncated"

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def beginning(self, most: int) -> bytes:
        """Return the first bytes, at most so many: whole headers are in them."""
        with self.path.open("rb") as file:
            return file.read(most)

    @contextmanager
    def opened(self, begin: int, unit: int = 1) -> Iterator[ByteReader]:
        """Yield what reads from byte `begin` on, and no part of a unit of so many bytes before the end."""
        with self.path.open("rb") as file:
            file.seek(begin)
            yield file

    def left_over(
        self,
        begin: int,
        size: int,
        expected: str,
        *,
        salvage: bool,
        unit: str = "event",
        advice: str = "truncated: copy it again or pass salvage=True",
    ) -> str:
        """Say what is left over behind the last whole unit; nothing where the file ends with one.

        Parameters
        ----------
        begin, size : int
            Where the units begin, and the bytes of one.
        expected, unit, advice : str
            For the message.
        salvage : bool
            Leave it to the reading to end there with this message, instead of refusing the file.

        Raises
        ------
        InputError
            Something is left over, and not to be salvaged.
        """
        units, rest = divmod(self.size - begin, size)
        if not rest:
            return ""
        said = self._left_over_message(units, rest, expected, unit, f"the file is {advice}")
        if not salvage:
            raise InputError(said)
        return said

    def _left_over_message(self, units: int, rest: int, expected: str, unit: str, advice: str) -> str:
        found = "1 byte is" if rest == 1 else f"{rest} bytes are"
        return f"{self}: {found} left over at {unit} {units}, expected {expected}; {advice}"


def readable_file(path: str | os.PathLike[str]) -> ReadableFile:
    """Check a path with one stat and one open, and keep what they said; a `ReadableFile` is returned unchecked.

    Parameters
    ----------
    path : str or path
        File to check.

    Returns
    -------
    ReadableFile
        The path, its size and its first bytes.

    Raises
    ------
    InputError
        It is missing, a folder, not a regular file, not readable, or of 0 bytes.
    """
    if isinstance(path, ReadableFile):
        return path
    file = Path(path)
    try:
        found = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        if str(file) == "-":
            raise InputError("-: standard input found, expected a file; only run takes it: save it to a file") from None
        raise InputError(f"{file}: no such file; check the path") from None
    except (OSError, ValueError) as error:  # a loop of links, a name too long, a zero byte in the name
        raise _cannot_be_opened(file, error) from error
    if stat.S_ISDIR(found.st_mode):
        raise InputError(f"{file}: is a folder, expected a file; name one of the files in it")
    # before it is opened: opening a pipe waits for somebody to write
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{file}: is not a regular file, expected one; copy the data to a file first")
    if found.st_size == 0:
        raise InputError(f"{file}: the file is empty (0 bytes), expected data; copy or download it again")
    try:
        with file.open("rb") as opened:
            head = opened.read(HEAD_BYTES)
    except OSError as error:
        raise _cannot_be_opened(file, error) from error
    return ReadableFile(file, found.st_size, head)


def _cannot_be_opened(file: Path, error: Exception) -> InputError:
    return InputError(f"{file}: cannot be opened ({error}); check the path and its permissions")
