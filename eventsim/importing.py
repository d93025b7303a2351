"""From a checkpoint file to a network: finds the format and hands over to its importer."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import eventsim_importers
from eventsim.errors import InputError
from eventsim.network import Network
from eventsim_importers.reading.checkpoint import Checkpoint

COMMON_OPTIONS = ("weights",)


def formats() -> dict[str, Any]:
    """Return the importer modules by format name."""
    names = sorted(module.name for module in pkgutil.iter_modules(eventsim_importers.__path__) if not module.ispkg)
    return {name: importlib.import_module(f"eventsim_importers.{name}") for name in names}


def import_checkpoint(path: str | Path, format: str | None = None, **options: Any) -> Network:
    """Import a trained checkpoint.

    Parameters
    ----------
    path : str or Path
        ``.pth``, ``.pt``, ``.tar`` (these need PyTorch), ``.safetensors``, ``.npz``, ``.h5`` or ``.nir``.
    format : str, optional
        Name of a format (`formats`); by default it is recognised by the names of the tensors.
    **options
        Options of the format, and ``weights``: which entry of a training checkpoint to take, such as
        ``state_dict_ema``. Text is converted to the option's type.

    Returns
    -------
    Network
        ``.assumptions`` says what the checkpoint could not tell and was chosen.

    Raises
    ------
    InputError
        If the file, the format or an option does not fit; one line that says what was found and expected.
    """
    known = formats()
    if format is not None and format not in known:
        raise InputError(f"format {format!r} found; expected one of {', '.join(known)}")
    weights = options.pop("weights", None)
    checkpoint = Checkpoint.open(path, weights)
    if format is None:
        format = _recognise(checkpoint, known)
    importer = known[format]
    network: Network = importer.read(checkpoint, _parse_options(format, importer.Options, options))
    return network


def _recognise(checkpoint: Checkpoint, known: Mapping[str, Any]) -> str:
    """Find the one format whose importer recognises the tensors."""
    found = [name for name, importer in known.items() if importer.recognises(checkpoint)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{checkpoint.path}: could be {' or '.join(found)}; say which with --format")
    names = ", ".join(list(checkpoint.tensors)[:3])
    raise InputError(
        f"{checkpoint.path}: tensors of no known format found ({names}, ...); expected one of {', '.join(known)}"
    )


def _parse_options(format_name: str, options_type: Any, given: Mapping[str, Any]) -> Any:
    """Convert options, given as values or as text, to the fields of the format's dataclass."""
    hints = typing.get_type_hints(options_type)
    defaults = options_type()
    values = {}
    for name, value in given.items():
        if name not in hints:
            known = ", ".join([*hints, *COMMON_OPTIONS])
            raise InputError(f"option {name!r} of format {format_name} found; expected one of {known}")
        values[name] = _convert(name, value, hints[name])
    return dataclasses.replace(defaults, **values)


def _convert(name: str, value: Any, hint: Any) -> Any:
    """Convert one option to its declared type."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (hint,) = (part for part in typing.get_args(hint) if part is not types.NoneType)
        if value is None:
            return None
    if typing.get_origin(hint) is typing.Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise InputError(f"option {name}={value} found; expected one of {', '.join(map(str, choices))}")
        return value
    if hint is bool:
        word = str(value).lower()
        if word not in ("true", "false"):
            raise InputError(f"option {name}={value} found; expected true or false")
        return word == "true"
    if hint is int and isinstance(value, (bool, float)):
        raise InputError(f"option {name}={value} found; expected int")
    try:
        converted = hint(value)
    except (TypeError, ValueError):
        raise InputError(f"option {name}={value} found; expected {hint.__name__}") from None
    if hint is float and not abs(converted) < float("inf"):
        raise InputError(f"option {name}={value} found; expected a finite number")
    return converted
