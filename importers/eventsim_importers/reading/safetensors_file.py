"""``.safetensors`` files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from eventsim.errors import InputError
from eventsim_importers.reading.container import Container, as_float32, loaded


def holds(path: Path, head: bytes) -> bool:
    """Tell whether a file is of this kind: a length, then a JSON header."""
    return path.suffix == ".safetensors" or (head[5:9] == b"\0\0\0{")


def read(path: Path) -> Container:
    """Read the tensors and the metadata strings.

    Raises
    ------
    InputError
        If the file is damaged or holds a type that NumPy lacks.
    """
    try:
        with safe_open(path, framework="np") as file:
            tensors = {name: as_float32(np.asarray(file.get_tensor(name))) for name in file.keys()}  # noqa: SIM118
            return loaded("safetensors", tensors, dict(file.metadata() or {}))
    except (SafetensorError, OSError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: damaged or truncated .safetensors file ({error})") from None
