"""NumPy's ``.npz`` files; pickled arrays are refused."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from eventsim.errors import InputError
from eventsim.untrusted import MAXIMUM_BYTES, first_line
from eventsim_importers.reading.container import Contents, as_float32


def holds(path: Path, head: bytes) -> bool:
    """Tell whether a file is a ZIP archive of arrays."""
    return path.suffix == ".npz" or head.startswith(b"PK")


def read(path: Path) -> Contents:
    """Read the arrays.

    Raises
    ------
    InputError
        If the file is damaged, holds Python objects, or unpacks to more than the limit.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAXIMUM_BYTES:
            raise InputError(f"{path}: {size} bytes unpacked found; expected at most {MAXIMUM_BYTES}")
        with np.load(path, allow_pickle=False) as arrays:
            return Contents({name: as_float32(arrays[name]) for name in arrays.files})
    except InputError:
        raise
    except (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, KeyError, NotImplementedError) as error:
        raise InputError(f"{path}: damaged .npz file, or one that holds Python objects ({first_line(error)})") from None
