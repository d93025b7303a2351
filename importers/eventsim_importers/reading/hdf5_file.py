"""HDF5 files: datasets by path, ``/`` read as ``.``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from eventsim.errors import InputError
from eventsim.untrusted import check_stored, first_line
from eventsim_importers.reading.container import Array, Contents, as_float32


def holds(path: Path, head: bytes) -> bool:
    """Tell whether a file is of this kind."""
    return head.startswith(b"\x89HDF\r\n\x1a\n")


def read(path: Path) -> Contents:
    """Read every dataset; text becomes metadata.

    Raises
    ------
    InputError
        If the file is damaged, or a dataset claims more than the file stores.
    """
    tensors: dict[str, Array] = {}
    metadata: dict[str, str] = {}

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        key = name.replace("/", ".")
        if item.dtype.kind in "OSU":
            if item.shape == ():
                value = item[()]
                metadata[key] = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
            return
        check_stored(path, name, item)
        tensors[key] = as_float32(np.asarray(item[()]))

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
            metadata.update({key: value for key, value in file.attrs.items() if isinstance(value, str)})
    except InputError:
        raise
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: damaged or truncated HDF5 file ({first_line(error)})") from None
    return Contents(tensors, metadata)
