"""What comes by a pipe, for tests of readers that read forwards."""

from __future__ import annotations

import io


class Trickle(io.RawIOBase):
    """Bytes as a pipe hands them over, at most so many at a time.

    Parameters
    ----------
    data : bytes
        All that will come.
    most : int
        Bytes that a read returns at most.
    """

    def __init__(self, data: bytes, most: int) -> None:
        super().__init__()
        self._data, self._most = io.BytesIO(data), most

    def read(self, size: int = -1, /) -> bytes:
        """Return what is there, nothing at the end."""
        return self._data.read(min(size, self._most) if size >= 0 else self._most)
