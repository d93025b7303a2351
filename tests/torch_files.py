"""Files of PyTorch and hostile pickles, put together by hand: without PyTorch, and with what it would never write."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
KINDS = {"f4": "FloatStorage", "f8": "DoubleStorage", "f2": "HalfStorage", "i8": "LongStorage", "b1": "BoolStorage"}


class Raw(bytes):
    """Opcodes that stand as they are."""


def code(value: Any) -> bytes:
    """Return the opcodes that push a value."""
    match value:
        case Raw():
            return value
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8b" + struct.pack("<I", len(data)) + data
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            data = value.encode()
            return b"X" + struct.pack("<I", len(data)) + data
        case tuple():
            return b"(" + b"".join(map(code, value)) + b"t"
        case list():
            return b"](" + b"".join(map(code, value)) + b"e"
        case dict():
            return b"}(" + b"".join(code(key) + code(each) for key, each in value.items()) + b"u"
    raise TypeError(type(value))


def name(path: str) -> Raw:
    """Return the opcodes that push a global."""
    module, _, last = path.rpartition(".")
    return Raw(f"c{module}\n{last}\n".encode())


def call(path: str, *arguments: Any) -> Raw:
    """Return the opcodes that call a global."""
    return Raw(name(path) + code(arguments) + b"R")


def storage(key: str, size: Any, kind: str = "FloatStorage", module: str = "torch", *more: Any) -> Raw:
    return Raw(code(("storage", name(f"{module}.{kind}"), key, "cpu", size, *more)) + b"Q")


def tensor(
    stored: Any, shape: Any, stride: Any = None, offset: Any = 0, rebuild: str = "_rebuild_tensor_v2", rest: Any = None
) -> Raw:
    if stride is None:
        stride = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    rest = (False, call("collections.OrderedDict")) if rest is None else rest
    return call(f"torch._utils.{rebuild}", stored, offset, shape, stride, *rest)


def pickled(value: Any) -> bytes:
    return b"\x80\x02" + code(value) + b"."


def write(path: Path, value: Any, storages: Mapping[str, bytes] | None = None, **entries: bytes) -> Path:
    """Write an archive of PyTorch: of a value, or of opcodes as bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", value if type(value) is bytes else pickled(value))
        for key, content in {**{f"data/{key}": each for key, each in (storages or {}).items()}, **entries}.items():
            archive.writestr(f"archive/{key}", content)
    return path


def parts(state: Mapping[str, np.ndarray]) -> tuple[dict[str, Raw], dict[str, bytes]]:
    """Return tensors as opcodes, and their storages."""
    tensors, storages = {}, {}
    for number, (key, array) in enumerate(state.items()):
        kind = KINDS[array.dtype.str[1:]]
        storages[str(number)] = array.tobytes()
        tensors[key] = tensor(storage(str(number), array.size, kind), array.shape)
    return tensors, storages


def write_state(path: Path, state: Mapping[str, np.ndarray], wrap: Any = None, **beside: Any) -> Path:
    """Write a state dict, in what `wrap` makes of it."""
    tensors, storages = parts(state)
    return write(path, (wrap(tensors) if wrap else tensors) | beside, storages)
