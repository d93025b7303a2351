"""From a checkpoint file to a network: finds the format and hands over to its importer."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import warnings
from collections.abc import Mapping
from functools import cache
from numbers import Integral
from pathlib import Path
from typing import Any

import eventsim_importers
from eventsim.errors import EventsimError, InputError
from eventsim.network import Network
from eventsim.plugins import IMPORTERS, PluginWarning, plugins
from eventsim.preparation import ORIENTATION, PREPARED, PreparationOptions, check_options
from eventsim.untrusted import first_line
from eventsim_importers.protocol import PARTS, Importer, check_importer_parts
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.options import Chooser, parse_options

COMMON_OPTIONS = ("weights", *PREPARED)


def formats() -> dict[str, Importer]:
    """Return the importers by format name: ours, then those of other packages (`eventsim.plugins`)."""
    found = plugins(IMPORTERS, _ours(), check_importer_parts)
    return dict(_ours()) | {name: Importer(*(getattr(part, name) for name in PARTS)) for name, part in found.items()}


@cache
def _ours() -> Mapping[str, Importer]:
    """Return the importers of the modules that define one."""
    found = {}
    for name in sorted(module.name for module in pkgutil.iter_modules(eventsim_importers.__path__)):
        importer = getattr(importlib.import_module(f"eventsim_importers.{name}"), "IMPORTER", None)
        if importer is not None:
            found[name] = importer
    return found


def import_checkpoint(path: str | Path, format: str | None = None, **options: Any) -> Network:
    """Import a trained checkpoint.

    Parameters
    ----------
    path : str or Path
        ``.pth``, ``.pt``, ``.tar`` (these need PyTorch), ``.safetensors``, ``.npz``, ``.h5`` or ``.nir``.
    format : str, optional
        Name of a format (`formats`); by default it is recognised by the names of the tensors.
    **options
        Options of the format; ``weights``: which entry of a training checkpoint to take, such as ``state_dict_ema``;
        and how recordings and images were prepared (`eventsim.preparation.PreparationOptions`). Text is converted to
        the option's type.

    Returns
    -------
    Network
        ``.assumptions`` says what the checkpoint could not tell and was chosen.

    Raises
    ------
    InputError
        If the file, the format or an option does not fit; one line that says what was found and expected.
    EventsimError
        If a format of another package fails.
    """
    known = formats()
    if format is not None and format not in known:
        raise InputError(f"format {format!r} found; expected one of {', '.join(known)}")
    weights = options.pop("weights", None)
    prepared = {name: options.pop(name) for name in PREPARED if name in options}
    preparation = parse_options("every import", PreparationOptions, prepared)
    check_options(preparation)
    checkpoint = Checkpoint.open(path, weights)
    if format is None:
        format = _recognise(checkpoint, known)
    chosen = parse_options(format, known[format].options, options, COMMON_OPTIONS)
    try:
        network = known[format].read(checkpoint, chosen)
        if not isinstance(network, Network):
            raise TypeError(f"read returned {type(network).__name__}")
    except EventsimError:
        raise
    except (Exception, SystemExit) as error:
        if format in _ours():
            raise
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise EventsimError(
            f"{path}: format {format} of another package failed ({reason}); tell its authors"
        ) from error
    return _prepared(network, checkpoint, preparation)


def _prepared(network: Network, checkpoint: Checkpoint, options: PreparationOptions) -> Network:
    """Keep in the network how its recordings or images are prepared, as the user, the metadata or nobody says."""
    already = len(checkpoint.settings)
    choose = Chooser(checkpoint, options)
    shape, kind = network.input.shape, network.input.kind
    if len(shape) == 3 and shape[0] == 2:
        window = (
            choose("window", "count") if options.bin_us is None else choose.inferred("window", "duration", "bin_us")
        )
        if window == "duration" and choose.stated("bin_us") is None:
            raise InputError(f"{checkpoint.path}: window=duration without bin_us found; expected the length of a bin")
        if kind == "binary":
            choose.inferred("binary", True, "the input takes spikes")
        else:
            choose("binary", False)
        for name in ORIENTATION:
            choose(name, False)
        choose("fit", "none")
    elif len(shape) == 3 and shape[0] in (1, 3) and kind == "real":
        choose("fit", "none")
        for name, default in (("mean", "0"), ("std", "1")):
            choose(name, ",".join([default] * shape[0]))
    for name in ("sensor", "camera"):
        choose.stated(name)
    used = {setting.option for setting in checkpoint.settings[already:]}
    for name in PREPARED:
        if getattr(options, name) is not None and name not in used:
            size = " x ".join(map(str, shape))
            raise InputError(f"{checkpoint.path}: option {name} found; expected none for {kind} input of {size}")
    chosen: dict[str, Any] = {setting.option: setting.value for setting in checkpoint.settings[already:]}
    try:
        check_options(dataclasses.replace(options, **chosen))
    except InputError as error:
        raise InputError(f"{checkpoint.path}: {str(error).removeprefix('option ')}") from None
    return network.with_settings(*checkpoint.settings[already:])


def _recognise(checkpoint: Checkpoint, known: Mapping[str, Importer]) -> str:
    """Find the one format that can place most of the tensors."""
    placed = {name: _places(checkpoint, name, importer) for name, importer in known.items()}
    most = max(placed.values())
    found = [name for name, count in placed.items() if count == most > 0]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{checkpoint.path}: could be {' or '.join(found)}; say which with --format")
    names = ", ".join(list(checkpoint.tensors)[:3])
    raise InputError(
        f"{checkpoint.path}: tensors of no known format found ({names}, ...); expected one of {', '.join(known)}"
    )


def _places(checkpoint: Checkpoint, name: str, importer: Importer) -> int:
    """Return how many tensors a format can place; one of another package that cannot say is left out."""
    try:
        count = importer.signature(checkpoint)
        if name not in _ours() and (not isinstance(count, Integral) or count < 0):
            raise InputError(f"signature of {count!r} found; expected a number of tensors")
    except (Exception, SystemExit) as error:
        if name in _ours():
            raise
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {first_line(error)}"
        warnings.warn(
            f"format {name} of another package cannot judge {checkpoint.path} and is left out: {reason}",
            PluginWarning,
            stacklevel=4,
        )
        return 0
    return int(count)
