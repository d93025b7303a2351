"""What a checkpoint format consists of, ours or another package's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from eventsim.errors import InputError
from eventsim.network import Network
from eventsim.preparation_options import PREPARED
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.options import declared

PARTS = ("description", "options", "signature", "read")
RESERVED = ("path", "format", "weights", "ignore", "assume", *PREPARED)


@dataclass(frozen=True)
class Importer:
    """A checkpoint format: how its files are told from others, and how they become networks.

    Any object or module with these four attributes is one. `eventsim.testing.importers.check_importer` tests what is
    demanded here.

    Attributes
    ----------
    description : str
        One line for ``eventsim formats``.
    options : type
        A dataclass of what a checkpoint of this format cannot tell. Every field has a default, and is a ``bool``,
        ``int``, ``float``, ``str`` or ``Literal`` of words, or one of them ``| None``; None means that the checkpoint's
        metadata answers, else a default that `read` chooses and says
        (`eventsim_importers.reading.options.Chooser`).
    signature : callable
        ``signature(checkpoint) -> int``: how many tensors of the checkpoint have a place in this format; 0 if the
        checkpoint is not of it. Of all formats the one that places most reads the file, so that a format which is built
        on another needs no mention there: it places the same tensors and its own. Of those that place as many it is the
        one that the metadata name as ``format``. It looks at names, shapes and metadata, takes nothing, and never
        raises.
    read : callable
        ``read(checkpoint, options) -> Network``. Every tensor is taken or ignored by name and the rest refused
        (`Checkpoint.finish`); layers are named by the modules of the checkpoint; ``Network.assumptions`` holds one
        sentence for each value that was chosen, which begins with the name of its option. Raises `InputError` in one
        line that names the file and the tensor, or the option, also for a checkpoint of another format.
    """

    description: str
    options: type[Any]
    signature: Callable[[Checkpoint], int]
    read: Callable[[Checkpoint, Any], Network]


def check_importer_parts(part: object) -> None:
    """Refuse what is no `Importer` by its attributes.

    Raises
    ------
    InputError
        One line that says which attribute is lacking or of the wrong kind.
    """
    missing = [name for name in PARTS if not hasattr(part, name)]
    if missing:
        raise InputError(f"no {' and no '.join(missing)} found; expected an importer with {', '.join(PARTS)}")
    description, options, *functions = (getattr(part, name) for name in PARTS)
    if not isinstance(description, str) or not description.strip() or "\n" in description:
        raise InputError(f"description {description!r} found; expected one line of text")
    if not isinstance(options, type) or not dataclasses.is_dataclass(options):
        raise InputError(f"options {options!r} found; expected a dataclass")
    for field in dataclasses.fields(options):
        if field.name in RESERVED:
            raise InputError(
                f"option {field.name} found; expected another name, that of an argument of import_checkpoint"
            )
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise InputError(f"option {field.name} without a default found; expected one for every option")
    declared(options)
    for name, function in zip(PARTS[2:], functions, strict=True):
        if not callable(function):
            raise InputError(f"{name} {function!r} found; expected a function")
