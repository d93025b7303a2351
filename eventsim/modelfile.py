"""Networks as HDF5 files, driven by the fields of the layer dataclasses.

Layout (format 2): root attribute ``eventsim_schema`` (the number of the format, under its name in format 1) and the
dataset ``network`` (JSON: name, time_steps, settings, edges as source, target and delay, and what layers emit that
are heard before they run); one group per layer under ``layers``, in order, with the attribute ``layer`` (JSON: name,
type, plain fields) and one dataset per array field. Format 1 has no delays. A new layer type needs no code here.

The user block before the HDF5 data holds a SHA-256 of that data, checked before the HDF5 library sees a byte: it can
hang or crash on a damaged file, and a flipped bit in a weight would otherwise go unnoticed.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eventsim import layers as primitives
from eventsim.errors import InputError
from eventsim.hdf5_text import HeldText
from eventsim.layers import Layer
from eventsim.network import Edge, Network
from eventsim.plugins import LAYERS, plugins
from eventsim.settings import Setting, assumed_in
from eventsim.signals import SignalType
from eventsim.untrusted import Room, check_stored, first_line
from eventsim.whole_file import whole_file

FORMAT = 2
SEAL_BYTES = 512  # the smallest user block that HDF5 allows
SEAL = b"eventsim model, sha256 "


def save(network: Network, path: str | Path) -> None:
    """Write a network; an existing file is replaced only once the new one is complete.

    Raises
    ------
    InputError
        If the network is not valid or the file cannot be written.
    """
    import h5py  # noqa: PLC0415 - takes long to import, and a checkpoint runs without a model file

    network.validate()
    held = io.BytesIO()  # the HDF5 library crashes where a disk is full
    with h5py.File(held, "w", userblock_size=SEAL_BYTES) as file:
        file.attrs["eventsim_schema"] = FORMAT
        file.create_dataset("network", data=_describe(network))
        for index, (name, layer) in enumerate(network.layers.items()):
            group = file.create_group(f"layers/{index:05d}")
            group.attrs["layer"] = json.dumps(
                {"name": name, "type": type(layer).__name__, "fields": _plain_fields(name, layer)}
            )
            for field, array in layer.arrays().items():
                group.create_dataset(field, data=array)
    with whole_file(path) as partial:
        partial.write_bytes(held.getvalue())  # no copy, where nothing is written any more
        seal(partial)


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
            "settings": [vars(setting) for setting in network.settings],
            "edges": network.edges,
            "promised": {name: _type_fields(kind) for name, kind in network.promised.items()},
        }
    )


def _type_fields(kind: SignalType) -> dict[str, Any]:
    return {"kind": kind.kind, "channels": kind.channels, "grid": kind.grid, "dense": kind.dense}


def _plain_fields(name: str, layer: Layer) -> dict[str, Any]:
    """Return the fields that are no arrays; refuse what would not come back as it is."""
    if layer_type(type(layer).__name__) is not type(layer):
        raise InputError(
            f"layer {name}: type {type(layer).__name__} found; expected one that eventsim.layers exports or the entry "
            f"point group {LAYERS} names"
        )
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


def layer_type(name: str) -> type[Layer] | None:
    """Return the type of layer of this name: ours, or that of another package."""
    if name in primitives.__all__:
        found = getattr(primitives, name)
        return found if isinstance(found, type) and issubclass(found, Layer) and found is not Layer else None
    part: type[Layer] | None = plugins(LAYERS, primitives.__all__, _check_layer_type).get(name)
    return part


def _check_layer_type(part: Any) -> None:
    if not (isinstance(part, type) and issubclass(part, Layer) and is_dataclass(part)):
        raise InputError(f"{part!r:.80} found; expected a dataclass derived from eventsim.layers.Layer")


def load(path: str | Path) -> Network:
    """Read a network.

    Raises
    ------
    InputError
        If the file is missing, damaged, of a newer format, or holds a network that does not fit together.
    """
    import h5py  # noqa: PLC0415 - as above

    path = Path(path)
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "is no regular file" if path.exists() else "no such file"
        raise InputError(f"{path}: {found}; expected a model written by eventsim import")
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
    held = HeldText(path)
    if "eventsim_schema" in file.attrs:
        held.check_attribute(file, "eventsim_schema")
    stored = file.attrs.get("eventsim_schema")
    if not isinstance(stored, (int, np.integer)):
        raise InputError(f"{path}: eventsim_schema {stored!r} found; expected a whole number")
    if stored > FORMAT:
        raise InputError(f"{path}: format {stored} found; this eventsim reads up to {FORMAT}, upgrade it")
    held.check_dataset("network", file["network"])
    description = json.loads(file["network"][()])
    room = Room(path)
    layers = dict(_read_layer(path, group, room, held) for group in file["layers"].values())
    promised = {
        str(name): SignalType(kind["kind"], kind["channels"], tuple(kind["grid"]), kind["dense"])
        for name, kind in description.get("promised", {}).items()
    }
    return Network(
        str(description["name"]),
        layers,
        tuple(Edge(str(source), str(target), *delay) for source, target, *delay in description["edges"]),
        description["time_steps"],
        _settings(description),
        promised,
    )


def _settings(description: Mapping[str, Any]) -> tuple[Setting, ...]:
    """Return the settings; format 1 has the assumed ones, as sentences."""
    if "settings" not in description:
        return tuple(assumed_in(str(sentence)) for sentence in description["assumptions"])
    settings = []
    for stored in description["settings"]:
        value = tuple(stored["value"]) if isinstance(stored["value"], list) else stored["value"]
        if not all(
            isinstance(v, (bool, int, float, str, type(None))) for v in (value if isinstance(value, tuple) else [value])
        ):
            raise TypeError(f"setting {stored['option']} = {value!r}")
        settings.append(Setting(str(stored["option"]), value, stored["source"], str(stored["note"])))
    return tuple(settings)


def _read_layer(path: Path, group: Any, room: Room, held: HeldText) -> tuple[str, Layer]:
    held.check_attribute(group, "layer")
    plain = json.loads(group.attrs["layer"])
    name, type_name = plain["name"], plain["type"]
    found = layer_type(type_name)
    if found is None:
        raise InputError(
            f"{path}: layer {name}: unknown type {type_name!r} found; expected a layer of this eventsim, or of a "
            "package that adds it: install the one that the network was made with"
        )
    values = {field: tuple(value) if isinstance(value, list) else value for field, value in plain["fields"].items()}
    for field, dataset in group.items():
        check_stored(path, f"{name}.{field}", dataset)
        room.take(dataset.size, dataset.dtype.itemsize)
        array = np.asarray(dataset[()])
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(f"{path}: layer {name}: {field} holds NaN or infinite values; expected finite ones")
        values[field] = array
    known = {field.name for field in fields(found)}
    if unknown := sorted(set(values) - known):
        raise InputError(f"{path}: layer {name}: unknown field {unknown[0]!r} found; {type_name} has {sorted(known)}")
    try:
        return name, found(**values)
    except TypeError as error:
        raise InputError(
            f"{path}: layer {name}: {type_name} cannot be made of the fields stored ({first_line(error)}); expected "
            "the version of the package that the file was written with"
        ) from None
