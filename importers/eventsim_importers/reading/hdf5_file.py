"""HDF5 files: datasets by path, ``/`` read as ``.``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from eventsim.errors import InputError
from eventsim_importers.reading.container import MAXIMUM_BYTES, Array, Contents, as_float32


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
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: damaged or truncated HDF5 file ({reason})") from None
    return Contents(tensors, metadata)


def check_stored(path: Path, name: str, dataset: Any) -> None:
    """Refuse a dataset whose declared size is not backed by stored bytes (compression up to 1000 : 1 is allowed)."""
    declared = dataset.size * dataset.dtype.itemsize
    if declared > MAXIMUM_BYTES or declared > 1000 * max(dataset.id.get_storage_size(), 64):
        raise InputError(
            f"{path}: dataset {name} declares {declared} bytes and stores {dataset.id.get_storage_size()}; "
            "expected the data that it declares"
        )
