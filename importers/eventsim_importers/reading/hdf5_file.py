"""HDF5 files: datasets by path, ``/`` read as ``.``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from eventsim.errors import InputError
from eventsim.untrusted import Room, check_here, check_stored, first_line
from eventsim_importers.reading.container import Array, Container, as_float32, loaded

PROBE = """
import sys, h5py
def visit(name, item):
    if isinstance(item, h5py.Dataset) and item.dtype.kind in "OSU":
        item[()]
with h5py.File(sys.argv[1], "r") as file:
    file.visititems(visit)
    dict(file.attrs)
"""
PROBE_SECONDS = 20


def holds(path: Path, head: bytes) -> bool:
    """Tell whether a file is of this kind."""
    return head.startswith(b"\x89HDF\r\n\x1a\n")


def read(path: Path) -> Container:
    """Read every dataset; text becomes metadata.

    Raises
    ------
    InputError
        If the file is damaged, or a dataset claims more than the file stores.
    """
    import h5py  # noqa: PLC0415 - takes long to import, and most checkpoints are of other kinds

    tensors: dict[str, Array] = {}
    metadata: dict[str, str] = {}
    room = Room(path)

    def visit(name: str, item: Any) -> None:
        key = name.replace("/", ".")
        texts = {f"{key}.{attribute}": _text(value) for attribute, value in item.attrs.items()}
        metadata.update({place: text for place, text in texts.items() if text is not None})
        if not isinstance(item, h5py.Dataset) or item.shape is None:
            return
        if item.dtype.kind in "OSU":
            check_here(path, name, item)
            if item.shape == ():
                value = item[()]
                metadata[key] = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
            return
        check_stored(path, name, item)
        room.take(item.size, item.dtype.itemsize)
        tensors[key] = as_float32(np.asarray(item[()]))

    _probe(path)
    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
            texts = {key: _text(value) for key, value in file.attrs.items()}
            metadata.update({key: text for key, text in texts.items() if text is not None})
    except InputError:
        raise
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: damaged or truncated HDF5 file ({first_line(error)})") from None
    return loaded("hdf5", tensors, metadata)


def _text(value: Any) -> str | None:
    """Return an attribute as text where it is a text or a single number."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, str):
        return str(value)
    array = np.asarray(value)
    return str(array.item()) if array.size == 1 and array.dtype.kind in "biufSU" else None


def _probe(path: Path) -> None:
    """Let a child process read the structure and the texts first: HDF5's C library can hang or crash on damaged ones.

    Anything that the child survives and only raises is left for the reader to say.
    """
    command = [sys.executable, "-I", "-c", PROBE, str(path)]
    try:
        code = subprocess.run(command, capture_output=True, timeout=PROBE_SECONDS, check=False).returncode
    except subprocess.TimeoutExpired:
        raise InputError(f"{path}: damaged HDF5 file (not read within {PROBE_SECONDS} s); copy it again") from None
    if code < 0:
        raise InputError(f"{path}: damaged HDF5 file (the HDF5 library crashed on it); copy it again")
