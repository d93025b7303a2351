"""Takes the tensors of a network out of what they are wrapped in.

A training checkpoint holds them in an entry, wrappers such as ``DataParallel`` and ``torch.compile`` put their own
names before every name, and pruning keeps each weight as what it was and a mask. Entry and prefix are found by the
names that they leave: those that some format recognises. Where several do, the user is asked.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

import numpy as np

from eventsim.errors import InputError
from eventsim.settings import Setting
from eventsim_importers.reading.container import Array, Container, Contents

Tensors = Mapping[str, Array]
Recognise = Callable[[Tensors], int]

DEEPEST = 16
"""Dots in a prefix."""
FEWEST = 4
"""Tensors behind a prefix."""
MOST_STRAYS = 64
"""Tensors beside those behind a prefix, for each of which a place in the network is looked for."""
WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
"""What ``torch.compile``, activation checkpointing and FSDP put into names, wherever a module is wrapped."""
ORIGINAL, MASK = "_orig", "_mask"
"""What `torch.nn.utils.prune` puts behind the name of a weight."""


@dataclass(frozen=True)
class Place:
    """Where the tensors of a network are: an entry of the file, and what stands before every name."""

    entry: str
    prefix: str
    placed: int = 0

    @property
    def name(self) -> str:
        """What the option ``weights`` calls it."""
        return ".".join(filter(None, (self.entry, self.prefix.removesuffix(".")))) or "."


def unwrap(
    path: Path, container: Container, recognise: Recognise, weights: str | None = None, patterns: Iterable[str] = ()
) -> Contents:
    """Find the tensors of a network.

    Parameters
    ----------
    path : Path
    container : Container
    recognise : callable
        ``recognise(tensors)``: how many of them a format can place, 0 if none knows them.
    weights : str, optional
        The entry to take, and the prefix behind it.
    patterns : iterable of str
        Shell-like patterns of tensors to leave out.

    Raises
    ------
    InputError
        If there are several, no such entry, or a pattern without a tensor.
    """
    container = _unwrapped_names(container)
    asked = None if weights is None else _asked_for(path, container, weights)
    place, others, settings = _choose(path, _without(container.entries, patterns), recognise, asked)
    ignored = _ignored(path, container.entries[place.entry], place.prefix, patterns)
    settings += [Setting("ignore", pattern, "option", _counted(names)) for pattern, names in ignored.items()]
    out = set().union(*ignored.values())
    held = {
        name: tensor
        for name, tensor in container.entries[place.entry].items()
        if name not in out and not name.startswith(others)
    }
    renamed = {name: name.removeprefix(place.prefix) for name in held if name.startswith(place.prefix)}
    joined = _joined(place.prefix, held, renamed, recognise)
    if asked:  # and that is all: the rest is something else
        held = {name: each for name, each in held.items() if name.startswith(asked.prefix) or name in joined}
    if joined:
        settings.append(Setting("joined weights", ", ".join(joined), "inferred", f"those that {place.name} lacks"))
    renamed |= joined
    values = container.load(place.entry, held)
    inside = {renamed[name]: value for name, value in values.items() if name in renamed}
    strays = {name: value for name, value in values.items() if name not in renamed}
    pairs = _pruned(inside)
    for name in pairs:
        inside[name] = _multiplied(path, name, inside.pop(name + ORIGINAL), inside.pop(name + MASK))
    if pairs:
        note = f"{pairs[0]} = {pairs[0]}{ORIGINAL} x {pairs[0]}{MASK}, and so on"
        settings.append(Setting("pruned weights", len(pairs), "inferred", note))
    return Contents(inside, container.metadata, settings, strays, place.name, container.beside)


def patterns_of(ignore: object) -> tuple[str, ...]:
    """Return the patterns that the option ``ignore`` gives, in a sequence or with commas.

    Raises
    ------
    InputError
        If it is neither.
    """
    patterns = ignore.split(",") if isinstance(ignore, str) else ignore
    if not isinstance(patterns, Iterable):
        patterns = (None,)
    found = tuple(patterns)
    if not all(isinstance(each, str) for each in found):
        raise InputError(f"option ignore={ignore!r} found; expected patterns of names, in a sequence or with commas")
    return tuple(filter(None, found))


# --- entries and prefixes


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _unwrapped_names(container: Container) -> Container:
    """Take what wrappers put within names out of them, where that leaves different names."""
    entries: dict[str, Tensors] = {}
    stored: dict[str, dict[str, str]] = {}
    for entry, held in container.entries.items():
        names = {_without_wrappers(name): name for name in held}
        stored[entry] = names if len(names) == len(held) else {name: name for name in held}
        entries[entry] = {name: held[old] for name, old in stored[entry].items()}

    def load(entry: str, names: Iterable[str]) -> Tensors:
        olds = {stored[entry][name]: name for name in names}
        return {olds[old]: value for old, value in container.load(entry, olds).items()}

    return replace(container, entries=entries, load=load)


def _without(entries: Mapping[str, Tensors], patterns: Iterable[str]) -> Mapping[str, Tensors]:
    """Leave out tensors whose whole names are to be ignored, and entries that hold nothing else."""
    kept = {
        entry: {
            name: each for name, each in held.items() if not any(fnmatch.fnmatchcase(name, one) for one in patterns)
        }
        for entry, held in entries.items()
    }
    return {entry: held for entry, held in kept.items() if held} or entries


def _choose(
    path: Path, held_by: Mapping[str, Tensors], recognise: Recognise, asked: Place | None
) -> tuple[Place, tuple[str, ...], list[Setting]]:
    """Find the one place that a format recognises, within what is asked for; and the prefixes of other sets in it."""
    entries = {asked.entry: held_by.get(asked.entry, {})} if asked else held_by
    within = asked.prefix if asked else ""
    found = [place for entry, held in entries.items() for place in _recognised(entry, held, within, recognise)]
    every = _recognised(asked.entry, entries[asked.entry], "", recognise) if asked and within else []
    others = tuple(place.prefix for place in [*every, *found] if asked and not asked.prefix.startswith(place.prefix))
    if asked and any(place.prefix == within for place in found):  # the very name of one of them
        return asked, others, [Setting("weights", asked.name, "option")]
    if len(found) > 1:
        first = ", ".join(place.name for place in found[:8]) + (", ..." if len(found) > 8 else "")
        raise InputError(
            f"{path}: {len(found)} sets of weights found ({first}); say which with --set weights=NAME, in Python "
            "weights=" + (" (. is what stands alone)" if any(place.name == "." for place in found[:8]) else "")
        )
    if asked:
        return found[0] if found else asked, (), [Setting("weights", asked.name, "option")]
    if not found and len(entries) > 1:
        names = [entry or "the file itself" for entry in entries][:8]
        raise InputError(
            f"{path}: tensors of no known format found in {', '.join(names)}; say which are the weights with "
            "--set weights=NAME, and of which format they are with --format NAME (in Python weights=, format=)"
        )
    place = found[0] if found else Place(next(iter(entries)), "")
    note = "of all names those that a format knows" if found else "the only entry that holds tensors"
    return place, (), [Setting("weights", place.name, "inferred", note)] if place.name != "." else []


def _asked_for(path: Path, container: Container, weights: str) -> Place:
    """Return the place that the user names: an entry, or the beginning of names in one."""
    if weights in container.entries:
        return Place(weights, "")
    if weights == "." and "" in container.entries:
        return Place("", "")
    weights = _without_wrappers(weights)
    for entry, tensors in container.entries.items():
        prefix = weights.removeprefix(f"{entry}.") + "."
        if (not entry or weights.startswith(f"{entry}.")) and any(name.startswith(prefix) for name in tensors):
            return Place(entry, prefix)
    if container.kind != "pytorch":
        raise InputError(
            f"{path}: weights={weights} asked for; only PyTorch training checkpoints have entries, and no name "
            f"begins with {weights}."
        )
    held = [entry for entry in container.entries if entry][:8] or ["tensors alone"]
    raise InputError(f"{path}: no entry {weights!r} found; it holds {', '.join(held)}")


def _recognised(entry: str, tensors: Tensors, within: str, recognise: Recognise) -> list[Place]:
    """Return the prefixes behind which a format knows the names; of those that share tensors, the one with most."""

    def placed(prefix: str, without: str | None = None) -> int:
        named = {
            name.removeprefix(prefix): each
            for name, each in tensors.items()
            if name.startswith(prefix) and not (without and name.startswith(without))
        }
        for name in _pruned(named):
            named[name] = named.pop(name + ORIGINAL)
            del named[name + MASK]
        return recognise(named)

    def share(one: Place, other: Place) -> bool:
        outer, inner = sorted((one, other), key=lambda place: len(place.prefix))
        return inner.prefix.startswith(outer.prefix) and placed(outer.prefix, inner.prefix) < outer.placed

    prefixes = _prefixes([name for name in tensors if name.startswith(within)], within)
    places = [Place(entry, prefix, placed(prefix)) for prefix in prefixes]
    kept: list[Place] = []
    for place in sorted(places, key=lambda place: -place.placed):
        if place.placed and not any(share(place, other) for other in kept):
            kept.append(place)
    return sorted(kept, key=lambda place: prefixes.index(place.prefix))


def _prefixes(names: Sequence[str], within: str) -> list[str]:
    """Return the beginnings up to a dot that some names have, the shortest first."""
    begin = within.count(".")
    counted: Counter[str] = Counter({within: FEWEST})
    for name in names:
        parts = name.split(".", begin + DEEPEST)[:-1]
        counted.update(".".join(parts[:end]) + "." for end in range(begin + 1, len(parts) + 1))
    return sorted((prefix for prefix, count in counted.items() if count >= FEWEST), key=len)


def _joined(prefix: str, held: Tensors, renamed: Mapping[str, str], recognise: Recognise) -> dict[str, str]:
    """Return tensors that stand beside a prefix and belong to the network behind it, with the names they have there.

    A network that was made of a backbone and a head has a prefix on one of them only, or one on each. Of several that
    would have one name, the one whose own prefix is most like that of the others belongs to it.
    """
    strays = [name for name in held if name not in renamed and not name.endswith(MASK)]
    if not renamed or not 0 < len(strays) <= MOST_STRAYS:
        return {}
    inside = {new: held[name] for name, new in renamed.items()}
    base = recognise(inside)
    found: dict[str, list[tuple[int, int, str]]] = {}
    for name in strays:
        masked = name.endswith(ORIGINAL) and name.removesuffix(ORIGINAL) + MASK in held
        parts = name.removesuffix(ORIGINAL if masked else "").split(".")
        for begin in range(len(parts)):
            tail = ".".join(parts[begin:])
            if tail not in inside and recognise(inside | {tail: held[name]}) > base > 0:
                alike = takewhile(lambda pair: pair[0] == pair[1], zip(parts[:begin], prefix.split("."), strict=False))
                shared = len(list(alike))
                found.setdefault(tail, []).append((-shared, begin - shared, name))
                break
    joined = {}
    for tail, names in found.items():
        nearest, *others = sorted(names)
        if any(other[:2] == nearest[:2] for other in others):
            continue
        name = nearest[2]
        joined[name] = tail + ORIGINAL if name.endswith(ORIGINAL) else tail
        if name.endswith(ORIGINAL):
            joined[name.removesuffix(ORIGINAL) + MASK] = tail + MASK
    return joined


# --- what is left out and what is multiplied


def _ignored(path: Path, tensors: Tensors, prefix: str, patterns: Iterable[str]) -> dict[str, list[str]]:
    """Return the tensors that each pattern matches, by their whole names or behind the prefix."""
    ignored = {}
    for pattern in patterns:
        ignored[pattern] = [
            name
            for name in tensors
            if fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name.removeprefix(prefix), pattern)
        ]
        if not ignored[pattern]:
            raise InputError(
                f"{path}: ignore={pattern} matches no tensor; expected a pattern of names such as {next(iter(tensors))}"
            )
    return ignored


def _counted(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} tensors"


def _pruned(tensors: Tensors) -> list[str]:
    """Return the names of weights that are kept as what they were and a mask."""
    names = (name.removesuffix(ORIGINAL) for name in tensors if name.endswith(ORIGINAL))
    return [name for name in names if name + MASK in tensors and name not in tensors]


def _multiplied(path: Path, name: str, original: Array, mask: Array) -> Array:
    """Return a weight whose masked synapses are zero.

    Raises
    ------
    InputError
        If the mask is of another shape, or holds anything but 0 and 1.
    """
    if mask.shape != original.shape:
        raise InputError(
            f"{path}: tensor {name}{MASK} {mask.shape} found; expected {original.shape}, as {name}{ORIGINAL}"
        )
    if not np.isin(mask, (0, 1)).all():
        raise InputError(f"{path}: tensor {name}{MASK} with other values than 0 and 1 found; expected a mask")
    return np.where(mask != 0, original, np.zeros((), original.dtype))
