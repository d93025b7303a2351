"""HDF5 files: datasets by path, ``/`` read as ``.``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from eventsim.errors import InputError
from eventsim.hdf5_text import HeldText, is_variable
from eventsim.untrusted import Room, check_stored, first_line
from eventsim_importers.reading.container import Array, Container, as_float32, loaded

PROBE = """
import sys, h5py
try:
    import resource
    taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + (512 << 20), resource.RLIM_INFINITY))
except (ImportError, OSError):
    pass  # of this kind on Linux alone
def visit(name, item):
    if isinstance(item, h5py.Dataset) and item.dtype.kind in "OSU":
        packing = item.id.get_create_plist()
        if all(packing.get_filter(index)[0] < 4 for index in range(packing.get_nfilters())):
            item[()]
with h5py.File(sys.argv[1], "r") as file:
    file.visititems(visit)
    dict(file.attrs)
"""
PROBE_SECONDS = 20
# of a text in Python, with its reference
TEXT_BYTES = 64


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
        metadata.update({f"{key}.{attribute}": text for attribute, text in _attributes(held, item)})
        if not isinstance(item, h5py.Dataset) or item.shape is None:
            return
        if item.dtype.kind in "OSU":
            if item.dtype.kind == "O" and not is_variable(item.id):
                return  # lists of any length and references hold no weights
            held.check_dataset(name, item)
            room.take(item.size, TEXT_BYTES)
            if item.shape == ():
                value = item[()]
                metadata[key] = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
            return
        check_stored(path, name, item)
        room.take(item.size, item.dtype.itemsize)
        tensors[key] = as_float32(np.asarray(item[()]))

    _probe(path)
    held = HeldText(path)
    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
            metadata.update(_attributes(held, file))
    except InputError:
        raise
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: damaged or truncated HDF5 file ({first_line(error)})") from None
    return loaded("hdf5", tensors, metadata)


def _attributes(held: HeldText, item: Any) -> Iterator[tuple[str, str]]:
    """Read the attributes of an object that are a text or a single number."""
    for key in item.attrs:
        attribute = item.attrs.get_id(key)
        if attribute.dtype.hasobject and not is_variable(attribute):
            continue
        held.check_attribute(item, key)
        text = _text(item.attrs[key])
        if text is not None:
            yield key, text


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
