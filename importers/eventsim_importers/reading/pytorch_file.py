"""PyTorch's ``.pth``, ``.pt``, ``.tar`` and ``.ckpt`` files, read without PyTorch; nothing in them is executed.

What ``torch.save`` writes is an archive of one pickle and one entry of plain bytes for each storage; before PyTorch 1.6
it was some pickles, one behind the other, and then the bytes.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from eventsim.errors import InputError
from eventsim.untrusted import first_line, most_unpacked, printable
from eventsim_importers.reading.container import Array, Container, as_float32, outline
from eventsim_importers.reading.pickled import (
    MOST_BYTES,
    OddTensor,
    PickleError,
    Storage,
    Tensor,
    Unknown,
    read_pickle,
)

MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle of files from before PyTorch 1.6."""
DEEPEST = 6
"""Levels of mappings within mappings in which tensors are looked for."""
MOST_ENTRIES = 10_000
"""Mappings that are looked at."""
MOST_NAMES = 100
"""Further names of mappings that have one."""
PARAMETER = re.compile(r"(.*\.)?(weight|bias|running_(mean|var)|w)")
"""Names that only tensors have."""
DTYPES = {
    "float32": "f4",
    "float64": "f8",
    "float16": "f2",
    "bfloat16": "u2",
    "int64": "i8",
    "int32": "i4",
    "int16": "i2",
    "int8": "i1",
    "uint64": "u8",
    "uint32": "u4",
    "uint16": "u2",
    "uint8": "u1",
    "bool": "?",
    "complex64": "c8",
    "complex128": "c16",
}
HYPERPARAMETERS = re.compile(
    r"metadata|args|opt|config|cfg|hparams|hyper_?parameters|(model|net|init)_?(args|config|kwargs)"
)
"""Entries of training checkpoints that hold the values a network was made with, at any depth."""
ITEM_BYTES = {kind: np.dtype(dtype).itemsize for kind, dtype in DTYPES.items()} | {"qint32": 4}


def holds(path: Path, head: bytes) -> bool:
    """Tell whether a file is one of PyTorch's, by its first bytes or by what its archive lists."""
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):  # bare pickles
        return True
    if not head.startswith(b"PK"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(PurePosixPath(name).name == "data.pkl" for name in archive.namelist())
    except (zipfile.BadZipFile, UnicodeDecodeError, NotImplementedError, ValueError, OSError, EOFError):
        return path.suffix.lower() != ".npz"  # a damaged archive, which the reader will say


def read(path: Path) -> Container:
    """Read which tensors there are; their values follow when they are asked for.

    Raises
    ------
    InputError
        If the file is damaged, holds anything but plain data, or no tensors.
    """
    try:
        with path.open("rb") as file:
            found, stored = _read_archive(path) if file.read(2) == b"PK" else _read_bare(path)
    except InputError:
        raise
    except PickleError as error:
        raise InputError(f"{path}: refused without running it ({error}); expected a state dict") from None
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes zipfile raise
        raise _damaged(path, error) from None
    entries = _entries(path, found)
    made = {id(held): {name: _outline(tensor) for name, tensor in held.items()} for held in entries.values()}
    outlines = {entry: made[id(held)] for entry, held in entries.items()}

    def load(entry: str, names: Iterable[str]) -> Mapping[str, Array]:
        return _load(path, stored, {name: entries[entry][name] for name in names})

    return Container("pytorch", outlines, load, beside=_beside(found))


def _damaged(path: Path, error: BaseException) -> InputError:
    return InputError(
        f"{path}: damaged or truncated PyTorch file ({first_line(error)[:100]}); expected a state dict, copy it again"
    )


@dataclass(frozen=True)
class Stored:
    """Where the bytes of storages are.

    Attributes
    ----------
    order : {"<", ">"}
        Of the bytes of a value.
    read : callable
        ``read(keys)``: the bytes of some storages, as many as the file has.
    """

    order: Literal["<", ">"]
    read: Callable[[Iterable[str]], Mapping[str, bytes]]


def _read_archive(path: Path) -> tuple[Any, Stored]:
    """Read an archive, which others may have packed again."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [name for name in names if PurePosixPath(name).name == "data.pkl"]
        if not pickles:
            raise InputError(f"{path}: ZIP archive without data.pkl found; expected what torch.save writes")
        folder = min(pickles, key=len).removesuffix("data.pkl")
        if f"{folder}constants.pkl" in names or any(name.startswith(f"{folder}code/") for name in names):
            raise InputError(
                f"{path}: TorchScript archive found, a compiled model; expected a state dict: in PyTorch, "
                f"torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pth')"
            )
        found = read_pickle(io.BytesIO(_unpack(path, archive, f"{folder}data.pkl", MOST_BYTES)))
        big = f"{folder}byteorder" in names and _unpack(path, archive, f"{folder}byteorder", 16).strip() == b"big"

    def read(keys: Iterable[str]) -> Mapping[str, bytes]:
        room = most_unpacked(path)
        values = {}
        with zipfile.ZipFile(path) as archive:
            for key in keys:
                values[key] = _unpack(path, archive, f"{folder}data/{key}", room)
                room -= len(values[key])
        return values

    return found, Stored(">" if big else "<", read)


def _unpack(path: Path, archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """Return an entry of at most this many bytes."""
    try:
        entry = archive.getinfo(name)
    except KeyError:
        raise InputError(f"{path}: damaged PyTorch file (entry {printable(name)} missing); copy it again") from None
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(
            f"{path}: entry {printable(name)} packed by method {entry.compress_type} found; expected stored bytes"
        )
    if entry.CRC == 0:  # what PyTorch writes where it is told to compute none
        del entry.CRC
    with archive.open(entry) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise InputError(
            f"{path}: entry {printable(name)} unpacks to more than {most} bytes; expected less in a file of its size"
        )
    return content


def _read_bare(path: Path) -> tuple[Any, Stored]:
    """Read the pickles from before PyTorch 1.6, and find the storages behind them: number of values, values."""
    storages: dict[str, Storage] = {}
    with path.open("rb") as file:
        if read_pickle(file) != MAGIC:
            raise InputError(
                f"{path}: a pickle that torch.save did not write found; expected a state dict: load it where it was "
                "written, and torch.save it"
            )
        _, system, found, keys = read_pickle(file), read_pickle(file), read_pickle(file, storages), read_pickle(file)
        order: Literal["<", ">"] = ">" if isinstance(system, dict) and system.get("little_endian") is False else "<"
        if not isinstance(keys, list):
            raise PickleError("damaged pickle: no list of storages")
        places, end = {}, path.stat().st_size
        for key in keys:
            if key not in storages:
                raise PickleError("damaged pickle: a storage that no tensor has")
            (size,) = struct.unpack(f"{order}q", file.read(8))
            length = size * ITEM_BYTES.get(storages[key].kind, 1)
            if not 0 <= length <= end - file.tell():
                raise PickleError(f"storage {printable(key)} of {length} bytes, of which {end - file.tell()} are there")
            places[key] = (file.tell(), length)
            file.seek(length, io.SEEK_CUR)

    def read(wanted: Iterable[str]) -> Mapping[str, bytes]:
        values = {}
        with path.open("rb") as file:
            for key in wanted:
                begin, length = places[key]
                file.seek(begin)
                values[key] = file.read(length)
        return values

    return found, Stored(order, read)


def _entries(path: Path, found: Any) -> dict[str, dict[str, Tensor | OddTensor]]:
    """Return the mappings that hold tensors, by the keys that lead to them.

    Raises
    ------
    InputError
        If there are none; says what is there.
    """
    if isinstance(found, Unknown):
        raise _no_mapping(path, "", found)
    if not isinstance(found, dict):
        raise InputError(
            f"{path}: {type(found).__name__} found; expected a state dict of named tensors, such as "
            "torch.save(model.state_dict(), 'weights.pth') writes"
        )
    entries: dict[str, dict[str, Tensor | OddTensor]] = {}
    seen: dict[int, str] = {id(found): ""}
    taken = {""}
    others: dict[str, str] = {}  # further names of the same
    waiting = deque([("", found, 0)])
    unknown: list[tuple[str, Unknown]] = []
    while waiting:
        place, mapping, depth = waiting.popleft()
        tensors = {name: value for name, value in mapping.items() if isinstance(value, (Tensor, OddTensor))}
        if tensors:  # of a class that is not known, beside others: to be refused by name where it is taken
            tensors |= {
                name: OddTensor(f"type {value.name}")
                for name, value in mapping.items()
                if isinstance(value, Unknown) and PARAMETER.fullmatch(name)
            }
        for name, value in mapping.items() if tensors else ():
            if "." in str(name) and _is_number(value):  # named as a value of the network, and not to be lost
                raise InputError(
                    f"{path}: a number that is no tensor found as {name}; expected a tensor, save it as one"
                )
        if tensors:
            entries[place] = tensors
        for key, value in mapping.items():
            inner = f"{place}.{key}" if place else key
            while isinstance(value, dict) and inner in taken:  # a key with a dot may lead to the same name
                inner += "'"
            if isinstance(value, Unknown) and value.is_module:
                unknown.append((inner, value))
            if isinstance(value, dict) and depth < DEEPEST and len(seen) < MOST_ENTRIES:
                if id(value) not in seen:
                    seen[id(value)] = inner
                    taken.add(inner)
                    waiting.append((inner, value, depth + 1))
                elif len(others) < MOST_NAMES:
                    others[inner] = seen[id(value)]
    entries |= {other: entries[place] for other, place in others.items() if place in entries}
    if not entries:
        if unknown:
            raise _no_mapping(path, *unknown[0])
        held = ", ".join(list(found)[:8])
        raise InputError(
            f"{path}: no tensors found in {held or 'nothing'}; expected the weights of a network, such as "
            "torch.save(model.state_dict(), 'weights.pth') writes"
        )
    return entries


def _beside(found: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Return the plain values at the top, beside weights, and among what training scripts call their arguments."""
    values: dict[str, bool | int | float | str] = {}
    waiting, seen = deque([("", found, True)]), {id(found)}
    while waiting:
        place, mapping, named = waiting.popleft()
        weights = any(isinstance(value, Tensor) for value in mapping.values())
        for key, value in mapping.items():
            inner = f"{place}.{key}" if place else key
            if isinstance(value, (bool, int, float, str)) and (named or weights):
                values.setdefault(inner, value)
            elif isinstance(value, dict) and id(value) not in seen and len(seen) < MOST_ENTRIES:
                seen.add(id(value))
                inside = bool(HYPERPARAMETERS.fullmatch(key.lower())) or (named and bool(place))
                waiting.append((inner, value, inside))
    return values


def _no_mapping(path: Path, place: str, found: Unknown) -> InputError:
    """Say what is there in the place of a state dict."""
    where = f"entry {place}: " if place else ""
    if found.is_module:
        return InputError(
            f"{path}: {where}whole pickled module {found.name} found; expected its state dict: load it where its code "
            "is, and torch.save(model.state_dict(), 'weights.pth')"
        )
    return InputError(
        f"{path}: {where}not plain tensors, refused without running it ({found.name}); expected a state dict"
    )


def _outline(tensor: Tensor | OddTensor) -> Array:
    """Return the shape and type that a tensor will have; none where it will be refused."""
    if isinstance(tensor, OddTensor) or tensor.kind not in DTYPES:
        return outline((), np.float32)
    dtype = np.dtype(np.float32 if "float" in tensor.kind else DTYPES[tensor.kind])
    return outline(tensor.shape, dtype)


def _is_number(value: object) -> bool:
    """Tell numbers and NumPy's scalars and arrays."""
    return isinstance(value, (int, float)) or (isinstance(value, Unknown) and value.name.startswith("numpy"))


def _load(path: Path, stored: Stored, tensors: Mapping[str, Tensor | OddTensor]) -> Mapping[str, Array]:
    """Return the values of some tensors of an entry.

    Raises
    ------
    InputError
        If the file is damaged, or a tensor is none of plain values that are all there; names it.
    """
    plain = {name: _plain(path, name, tensor) for name, tensor in tensors.items()}
    total, most = 0, most_unpacked(path)
    for name, tensor in plain.items():
        length = math.prod(tensor.shape) * ITEM_BYTES[tensor.kind]
        total += length
        if total > most or length > _bytes(tensor.storage):
            raise InputError(f"{path}: tensor {name} larger than its stored data found; expected plain tensors")
    try:
        values = stored.read({tensor.storage.key: None for tensor in plain.values()})
    except InputError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes zipfile raise
        raise _damaged(path, error) from None
    return {name: _view(path, name, tensor, values[tensor.storage.key], stored.order) for name, tensor in plain.items()}


def _plain(path: Path, name: str, tensor: Tensor | OddTensor) -> Tensor:
    """Refuse a tensor that is no view of plain values."""
    if isinstance(tensor, OddTensor):
        raise InputError(f"{path}: tensor {name} of {tensor.what} found; expected plain floating-point values")
    if tensor.kind not in DTYPES:
        raise InputError(f"{path}: tensor {name} of type torch.{tensor.kind} found; expected floating point")
    return tensor


def _bytes(storage: Storage) -> int:
    return storage.size * ITEM_BYTES.get(storage.kind, 1)


def _view(path: Path, name: str, tensor: Tensor, content: bytes, order: Literal["<", ">"]) -> Array:
    """Return a tensor as a view of its storage, floating-point ones as float32."""
    dtype = np.dtype(DTYPES[tensor.kind]).newbyteorder(order)
    whole = np.frombuffer(content, dtype, len(content) // dtype.itemsize)
    last = tensor.offset + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride, strict=True))
    if 0 in tensor.shape:
        array = np.empty(tensor.shape, dtype)
    elif last >= len(whole):
        raise InputError(
            f"{path}: tensor {name} larger than its stored data found ({len(whole)} values, of which it takes number "
            f"{last}); copy the file again"
        )
    else:
        steps = [step * dtype.itemsize for step in tensor.stride]
        array = np.lib.stride_tricks.as_strided(whole[tensor.offset :], tensor.shape, steps, writeable=False)
    if tensor.kind == "bfloat16":  # the upper half of a float32
        return as_float32(np.asarray(array.astype(np.uint32) << 16).view(np.float32))
    return as_float32(array) if dtype.kind == "f" else np.asarray(array, dtype.newbyteorder("="), order="C")
