"""Where the value of an option comes from."""

from __future__ import annotations

from typing import TypeVar

from eventsim.errors import InputError
from eventsim_importers.reading.checkpoint import Checkpoint

T = TypeVar("T", bool, int, float, str)


class Chooser:
    """Takes an option from the user, else from the checkpoint's metadata, else the default - and says so."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    def __call__(self, name: str, given: T | None, default: T) -> T:
        """Return the value of option `name`.

        Raises
        ------
        InputError
            If the metadata holds something of another type.
        """
        if given is not None:
            return given
        stored = self.checkpoint.metadata.get(name)
        if stored is not None:
            try:
                return _truth(stored) if isinstance(default, bool) else type(default)(stored)
            except ValueError:
                raise InputError(
                    f"{self.checkpoint.path}: metadata {name}={stored!r} found; expected {type(default).__name__}"
                ) from None
        self.checkpoint.assumptions.append(f"{name} = {default}: not in the checkpoint, the default")
        return default


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"
