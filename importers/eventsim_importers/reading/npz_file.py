"""NumPy's ``.npz`` files; pickled arrays are refused."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from eventsim.errors import InputError
from eventsim.untrusted import first_line, most_unpacked
from eventsim_importers.reading.container import Array, Container, as_float32, loaded


def holds(path: Path, head: bytes) -> bool:
    """Tell whether a file is a ZIP archive of arrays."""
    return path.suffix.lower() == ".npz" or head.startswith(b"PK")


def read(path: Path) -> Container:
    """Read the arrays.

    Raises
    ------
    InputError
        If the file is damaged, holds Python objects, or unpacks to more than the limit.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        most = most_unpacked(path)
        if size > most:
            raise InputError(f"{path}: {size} bytes unpacked found; expected at most {most} in a file of its size")
        with np.load(path, allow_pickle=False) as arrays:
            # one by one: what an array was before it became float32 is let go before the next is unpacked
            tensors = {name: _array(path, name, arrays[name]) for name in arrays.files}
    except InputError:
        raise
    except Exception as error:  # NumPy evaluates headers as Python and allocates what they declare
        reason = first_line(error)[:100]
        raise InputError(f"{path}: damaged .npz file, or one that holds Python objects ({reason})") from error
    return loaded("npz", tensors)


def _array(path: Path, name: str, tensor: Any) -> Array:
    if not isinstance(tensor, np.ndarray):  # any other file in the archive
        raise InputError(f"{path}: entry {name} is no array; expected arrays alone")
    return as_float32(tensor)
