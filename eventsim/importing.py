"""From a checkpoint file to a network: finds the format and hands over to its importer."""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from numbers import Integral
from pathlib import Path
from typing import Any

import eventsim_importers
from eventsim.errors import EventsimError, InputError
from eventsim.layers import SparseLinear
from eventsim.network import Network
from eventsim.plugins import IMPORTERS, PluginWarning, plugins
from eventsim.preparation_options import PREPARED, PreparationOptions, check_options
from eventsim.settings import CHECKPOINT_PARAMETERS, Setting
from eventsim.untrusted import described, meant
from eventsim_importers.protocol import PARTS, Importer, check_importer_parts
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.options import BESIDE, declared, parse_options
from eventsim_importers.reading.prepared import keep_preparation
from eventsim_importers.reading.unread import system_of
from eventsim_importers.reading.wrappings import patterns_of

COMMON_OPTIONS = ("weights", "ignore", *PREPARED)


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


def import_checkpoint(path: str | Path, format: str | None = None, *, assume: bool = True, **options: Any) -> Network:
    """Import a trained checkpoint.

    Parameters
    ----------
    path : str or Path
        ``.pth``, ``.pt``, ``.tar`` or ``.ckpt`` of PyTorch (which is not needed to read them), ``.safetensors``,
        ``.npz``, ``.h5`` or ``.nir``.
    format : str, optional
        Name of a format (`formats`); by default it is recognised by the names of the tensors, and, where these fit
        several formats alike, by ``format`` in the metadata of the file.
    assume : bool
        Whether values that nobody says may be assumed; else such a network is refused (`refuse_assumptions`).
    **options
        Options of the format, and those that all have. ``weights``: which entry of a training checkpoint to take, such
        as ``state_dict_ema`` or ``state_dict.student``; needed where several hold weights. ``ignore``: shell-like
        patterns of tensors that enter no forward pass, as a sequence or as text with commas. And how recordings and
        images were prepared (`eventsim.preparation_options.PreparationOptions`). Text is converted to the option's
        type.

    Returns
    -------
    Network
        ``.settings`` says where every value comes from, ``.assumptions`` what the checkpoint could not tell and was
        chosen.

    Raises
    ------
    InputError
        If the file, the format or an option does not fit; one line that says what was found and expected.
    EventsimError
        If a format of another package fails.
    """
    known = formats()
    if format is not None and format not in known:
        raise InputError(f"format {format!r} found{meant(format, known)}")
    weights, ignore = options.pop("weights", None), options.pop("ignore", ())
    if not isinstance(weights, (str, type(None))):
        raise InputError(f"option weights={weights!r} found; expected the name of an entry")
    patterns = patterns_of(ignore)
    prepared = {name: options.pop(name) for name in PREPARED if name in options}
    preparation = parse_options("every import", PreparationOptions, prepared)
    check_options(preparation)
    judge = _Judge(known if format is None else {format: known[format]})
    try:
        checkpoint = Checkpoint.open(path, weights, patterns, judge.most)
        if format is None:
            format = judge.recognise(checkpoint)
    finally:
        for complaint in judge.complaints:
            warnings.warn(complaint, PluginWarning, stacklevel=2)
    chosen = parse_options(format, known[format].options, options, COMMON_OPTIONS)
    try:
        network = known[format].read(checkpoint, chosen)
        if not isinstance(network, Network):
            raise TypeError(f"read returned {type(network).__name__}")
    except InputError as error:
        raise _with_sources(error, checkpoint) from None
    except EventsimError:
        raise
    except (Exception, SystemExit) as error:
        if format in _ours():
            raise
        raise EventsimError(
            f"{path}: format {format} of another package failed ({described(error)}); tell its authors"
        ) from error
    network = keep_preparation(network, checkpoint, preparation)
    network = network.with_settings(*_not_followed(checkpoint, network, options, format))
    if not assume:
        refuse_assumptions(path, network)
    if checkpoint.container == "hdf5" and "node.type" in checkpoint.metadata:
        return network  # a graph's fields are no parameters of PyTorch's
    return network.with_settings(_parameters(checkpoint, network))


class _Judge:
    """Asks formats whether a checkpoint is of theirs; one of another package that cannot say is asked once.

    Attributes
    ----------
    complaints : list of str
        What is to be said of those.
    """

    def __init__(self, known: Mapping[str, Importer]) -> None:
        self.known = dict(known)
        self.complaints: list[str] = []

    def most(self, checkpoint: Checkpoint) -> int:
        """Return how many tensors the format can place that places most."""
        return max(self._placed(checkpoint).values(), default=0)

    def recognise(self, checkpoint: Checkpoint) -> str:
        """Find the one format that can place most of the tensors."""
        placed = self._placed(checkpoint)
        most = max(placed.values())
        found = [name for name, count in placed.items() if count == most > 0]
        if checkpoint.metadata.get("format") in found:
            return checkpoint.metadata["format"]
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(f"{checkpoint.path}: could be {' or '.join(found)}; say which with --format (format=)")
        names = ", ".join(list(checkpoint.tensors)[:3])
        expected = ", ".join(formats())
        unread = system_of(checkpoint.tensors)
        if unread is not None:
            system, told_by = unread
            raise InputError(
                f"{checkpoint.path}: looks like a checkpoint of {system} (tensor {told_by}), which is not read; "
                f"expected one of {expected}"
            )
        raise InputError(
            f"{checkpoint.path}: tensors of no known format found ({names}, ...); expected one of {expected}, or the "
            "module itself: --module package.module:function (eventsim.from_torch)"
        )

    def _placed(self, checkpoint: Checkpoint) -> dict[str, int]:
        return {name: self._places(checkpoint, name) for name in list(self.known)}

    def _places(self, checkpoint: Checkpoint, name: str) -> int:
        try:
            count = self.known[name].signature(checkpoint)
            if name not in _ours() and (not isinstance(count, Integral) or count < 0):
                raise InputError(f"signature of {count!r} found; expected a number of tensors")
        except (Exception, SystemExit) as error:
            if name in _ours():
                raise
            reason = str(error) if isinstance(error, InputError) else described(error)
            self.complaints.append(
                f"format {name} of another package cannot judge {checkpoint.path} and is left out: {reason}"
            )
            del self.known[name]
            return 0
        return int(count)


def refuse_assumptions(path: str | Path, network: Network) -> None:
    """Refuse a network of which any value is assumed: one that neither the checkpoint nor an option says.

    Raises
    ------
    InputError
        Names the options, and how to give them.
    """
    assumed = [setting for setting in network.settings if setting.source == "assumed"]
    if not assumed:
        return
    said = ", ".join(each.option if each.value is None else f"{each.option} = {each.shown}" for each in assumed)
    first = next((f"{each.option}={each.shown}" for each in assumed if each.value is not None), "NAME=VALUE")
    raise InputError(
        f"{path}: assumed {said}; expected every value said by the checkpoint or by an option: give each, such as "
        f"--set {first}, in Python {first}"
    )


def _with_sources(error: InputError, checkpoint: Checkpoint) -> InputError:
    """Say which values were found beside the weights: the user has not given them, and may not know of them."""
    found = [f"{each.option}={each.shown}" for each in checkpoint.settings if each.note.endswith(BESIDE)]
    if not found:
        return error
    return InputError(f"{error} (beside the weights {', '.join(found)} found; --set NAME=VALUE or NAME= say otherwise)")


def _not_followed(checkpoint: Checkpoint, network: Network, given: Mapping[str, Any], format: str) -> Iterator[Setting]:
    """Say which options, and which metadata of an option's name, took no part: some are of another format."""
    options = set(PREPARED).union(*(declared(importer.options) for importer in formats().values()))
    used = {setting.option for setting in network.settings}
    idle = [f"{name}={value}" for name, value in given.items() if name not in used]
    if idle:
        yield Setting("unused options", ", ".join(idle), "option", "without effect on this checkpoint")
    idle = [f"{name}={value}" for name, value in checkpoint.metadata.items() if name in options - used]
    if idle:
        yield Setting("unused metadata", ", ".join(idle), "metadata", f"without effect in format {format}")


def _parameters(checkpoint: Checkpoint, network: Network) -> Setting:
    """Return what PyTorch would count as parameters, and why it is not our number."""
    theirs = checkpoint.parameters
    unused = sum(
        checkpoint.tensors[name].size
        for name in checkpoint.ignored
        if name in checkpoint.tensors and checkpoint.is_parameter(name)
    )
    sparse = [layer for layer in network.layers.values() if isinstance(layer, SparseLinear)]
    zeros = sum((len(layer.indptr) - 1) * layer.outputs - len(layer.weights) for layer in sparse)
    other = theirs - unused - zeros - checkpoint.folded - network.parameters
    parts = {
        "in tensors that no forward pass reads": unused,
        "of batch normalisations folded into weights": checkpoint.folded,
        "zero, of sparse layers": zeros,
        "of neurons and others that are not counted as weights": other,
    }
    why = ", ".join(f"{count:,} {what}" for what, count in parts.items() if count > 0)
    note = "as sum(p.numel()) counts in PyTorch" + (f"; not among ours are {why}" if why else "")
    note += f"; ours hold {-other:,} more, such as tables" if other < 0 else ""
    return Setting(CHECKPOINT_PARAMETERS, theirs, "inferred", note)
