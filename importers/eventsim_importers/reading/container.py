"""What a container file holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from eventsim.settings import Setting
from eventsim.untrusted import printable

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Contents:
    """Tensors by name, and the strings kept beside them.

    Attributes
    ----------
    tensors : mapping of str to array
        Floating-point tensors as float32, others as they are.
    metadata : mapping of str to str
    settings : sequence of Setting
        What was chosen while unwrapping the file.
    strays : mapping of str to array
        Tensors beside those of the network, by their whole names.
    place : str
        What the option ``weights`` calls the place of the network's tensors.
    beside : mapping of str to plain value
        Plain values beside the tensors, such as the arguments of a training script, by the keys that lead to them.
    """

    tensors: Mapping[str, Array]
    metadata: Mapping[str, str] = field(default_factory=dict)
    settings: Sequence[Setting] = ()
    strays: Mapping[str, Array] = field(default_factory=dict)
    place: str = "."
    beside: Mapping[str, bool | int | float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Container:
    """A file before anything in it is chosen.

    Attributes
    ----------
    kind : str
        ``"pytorch"``, ``"safetensors"``, ``"npz"`` or ``"hdf5"``.
    entries : mapping of str to mapping of str to array
        Mappings of tensors by where they are, ``""`` for the file itself. The arrays may be outlines (`outline`).
    load : callable
        ``load(entry, names)``: some tensors of an entry, with their values.
    metadata : mapping of str to str
    beside : mapping of str to plain value
        As of `Contents`.
    """

    kind: str
    entries: Mapping[str, Mapping[str, Array]]
    load: Callable[[str, Iterable[str]], Mapping[str, Array]]
    metadata: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, bool | int | float | str] = field(default_factory=dict)


def loaded(kind: str, tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> Container:
    """Return the container whose tensors are all in memory."""
    named = {printable(name): tensor for name, tensor in tensors.items()}
    return Container(kind, {"": named}, lambda _, names: {name: named[name] for name in names}, metadata or {})


def outline(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """Return an array of a shape and a type that needs no memory, in the place of values not read yet."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def as_float32(array: Array) -> Array:
    """Return floating-point arrays as float32 in memory order, others unchanged."""
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused by name when it is taken
        return np.asarray(array, np.float32, order="C") if array.dtype.kind == "f" else array
