"""Networks as HDF5 files, driven by the fields of the layer dataclasses.

Layout (schema 1): root attributes ``eventsim_schema`` and ``network`` (JSON: name, time_steps, assumptions, edges);
one group per layer under ``layers``, in order, with the attribute ``layer`` (JSON: name, type, plain fields) and one
dataset per array field. A new layer type needs no code here.

The user block before the HDF5 data holds a SHA-256 of that data, checked before the HDF5 library sees a byte: it can
hang or crash on a damaged file, and a flipped bit in a weight would otherwise go unnoticed.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from eventsim import layers as primitives
from eventsim.errors import InputError
from eventsim.layers import Layer
from eventsim.network import Network
from eventsim.untrusted import check_stored, first_line

SCHEMA = 1
SEAL_BYTES = 512  # the smallest user block that HDF5 allows
SEAL = b"eventsim model, sha256 "


def save(network: Network, path: str | Path) -> None:
    """Write a network; an existing file is replaced only once the new one is complete.

    Raises
    ------
    InputError
        If the network is not valid or the file cannot be written.
    """
    network.validate()
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        with h5py.File(partial, "w", userblock_size=SEAL_BYTES) as file:
            file.attrs["eventsim_schema"] = SCHEMA
            file.create_dataset("network", data=_describe(network))
            for index, (name, layer) in enumerate(network.layers.items()):
                group = file.create_group(f"layers/{index:05d}")
                group.attrs["layer"] = json.dumps(
                    {"name": name, "type": type(layer).__name__, "fields": _plain_fields(name, layer)}
                )
                for field, array in layer.arrays().items():
                    group.create_dataset(field, data=array)
        seal(partial)
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({first_line(error)})") from None
    finally:
        partial.unlink(missing_ok=True)


def seal(path: Path) -> None:
    """Write the checksum of a model file into its user block."""
    with path.open("r+b") as file:
        file.seek(SEAL_BYTES)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        file.write(SEAL + digest.encode() + b"\n")


def _check_seal(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(SEAL_BYTES)
        if not head.startswith(SEAL):
            raise InputError(
                f"{path}: begins with {head[:8]!r}, not a model file; expected one written by eventsim import"
            )
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if head[len(SEAL) :].split(b"\n")[0] != digest.encode():
        raise InputError(
            f"{path}: damaged or truncated (its checksum does not match its contents); import the checkpoint again"
        )


def _describe(network: Network) -> str:
    return json.dumps(
        {
            "name": network.name,
            "time_steps": network.time_steps,
            "assumptions": network.assumptions,
            "edges": network.edges,
        }
    )


def _plain_fields(name: str, layer: Layer) -> dict[str, Any]:
    """Return the fields that are no arrays; refuse what would not come back as it is."""
    if _layer_type(type(layer).__name__) is not type(layer):
        raise InputError(f"layer {name}: type {type(layer).__name__} found; expected one that eventsim.layers exports")
    plain = {field.name: getattr(layer, field.name) for field in fields(layer) if field.name not in layer.arrays()}
    plain = {field: value.item() if isinstance(value, np.generic) else value for field, value in plain.items()}
    for field, value in plain.items():
        if not all(
            isinstance(v, (str, int, float, type(None))) for v in (value if isinstance(value, tuple) else [value])
        ):
            raise InputError(
                f"layer {name}: {field} = {value!r} cannot be saved; expected an array, number, text, None or a tuple "
                "of numbers"
            )
    return plain


def _layer_type(name: str) -> type[Layer] | None:
    """Return the exported layer type of this name, if there is one."""
    found = getattr(primitives, name, None) if name in primitives.__all__ else None
    return found if isinstance(found, type) and issubclass(found, Layer) and found is not Layer else None


def load(path: str | Path) -> Network:
    """Read a network.

    Raises
    ------
    InputError
        If the file is missing, damaged, of a newer schema, or holds a network that does not fit together.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a model written by eventsim import")
    try:
        _check_seal(path)
        with h5py.File(path, "r") as file:
            return _read(path, file).validate()
    except InputError as error:
        raise error if str(error).startswith(str(path)) else InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({first_line(error)}); expected a model file") from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        raise InputError(f"{path}: damaged model file ({first_line(error)}); import the checkpoint again") from None


def _read(path: Path, file: Any) -> Network:
    schema = file.attrs.get("eventsim_schema")
    if not isinstance(schema, (int, np.integer)):
        raise InputError(f"{path}: eventsim_schema {schema!r} found; expected a whole number")
    if schema > SCHEMA:
        raise InputError(f"{path}: schema {schema} found; this eventsim reads up to {SCHEMA}, upgrade it")
    description = json.loads(file["network"][()])
    layers = dict(_read_layer(path, group) for group in file["layers"].values())
    return Network(
        str(description["name"]),
        layers,
        tuple((str(source), str(target)) for source, target in description["edges"]),
        description["time_steps"],
        tuple(map(str, description["assumptions"])),
    )


def _read_layer(path: Path, group: Any) -> tuple[str, Layer]:
    plain = json.loads(group.attrs["layer"])
    name, type_name = plain["name"], plain["type"]
    layer_type = _layer_type(type_name)
    if layer_type is None:
        raise InputError(f"{path}: layer {name}: unknown type {type_name!r} found; expected a layer of this eventsim")
    values = {field: tuple(value) if isinstance(value, list) else value for field, value in plain["fields"].items()}
    for field, dataset in group.items():
        check_stored(path, f"{name}.{field}", dataset)
        array = np.asarray(dataset[()])
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(f"{path}: layer {name}: {field} holds NaN or infinite values; expected finite ones")
        values[field] = array
    known = {field.name for field in fields(layer_type)}
    if unknown := sorted(set(values) - known):
        raise InputError(f"{path}: layer {name}: unknown field {unknown[0]!r} found; {type_name} has {sorted(known)}")
    return name, layer_type(**values)
