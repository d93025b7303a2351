"""``.safetensors`` files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from eventsim.errors import InputError
from eventsim_importers.reading.container import Array, Container, as_float32, loaded


def holds(path: Path, head: bytes) -> bool:
    """Tell whether a file is of this kind: a length, then a JSON header."""
    return head[5:9] == b"\0\0\0{" or (path.suffix.lower() == ".safetensors" and head[:2] not in (b"PK", b"\x80\x02"))


def read(path: Path) -> Container:
    """Read the tensors and the metadata strings.

    Raises
    ------
    InputError
        If the file is damaged or holds a type that NumPy lacks.
    """
    try:
        with safe_open(path, framework="np") as file:
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            tensors = {name: as_float32(np.asarray(file.get_tensor(name))) for name in kinds if kinds[name] != "BF16"}
            metadata = dict(file.metadata() or {})
        short = [name for name, kind in kinds.items() if kind == "BF16"]
        return loaded("safetensors", tensors | _read_bfloat16(path, short), metadata)
    except (SafetensorError, OSError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: damaged or truncated .safetensors file ({error})") from None


def _read_bfloat16(path: Path, names: list[str]) -> dict[str, Array]:
    """Read tensors of a type that NumPy lacks, the upper halves of float32; the header was checked before."""
    if not names:
        return {}
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        found: dict[str, Array] = {}
        for name in names:
            begin, end = header[name]["data_offsets"]
            file.seek(8 + length + begin)
            halves = np.frombuffer(file.read(end - begin), "<u2").astype(np.uint32)
            found[name] = (halves << 16).view(np.float32).reshape(header[name]["shape"])
    return found
