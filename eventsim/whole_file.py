"""A file that is there as a whole, or as it was before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from eventsim.errors import InputError
from eventsim.untrusted import first_line


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a name to write to, which takes the place of `path` once everything is written.

    Raises
    ------
    InputError
        If the file cannot be written, or there is something that is no file: a folder, a device.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        found = "a folder" if path.is_dir() else "no regular file"
        raise InputError(f"{path}: {found} found; expected the name of a file to write")
    target = Path(os.path.realpath(path))  # a link stays one
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, target)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({first_line(error)})") from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
