"""Where the values of a network come from that its weights do not tell."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from eventsim.errors import InputError

Plain: TypeAlias = bool | int | float | str | tuple[bool | int | float | str, ...]
Source: TypeAlias = Literal["option", "metadata", "inferred", "assumed"]

CHECKPOINT_PARAMETERS = "checkpoint_parameters"
"""The setting that holds the number of parameters that PyTorch counts in the checkpoint."""
HEAD, NO_HEAD = "head", "none"
"""The setting, and its value, of a network that ends in features, such as an encoder after its pre-training."""


@dataclass(frozen=True)
class Setting:
    """One value that an import was made with.

    Attributes
    ----------
    option : str
        The option that sets it; of what no option sets, what it is.
    value : plain value, optional
        None where the note says all.
    source : {"option", "metadata", "inferred", "assumed"}
        Who said so: the user, the file beside its weights, the shapes or names of its weights, or nobody.
    note : str
        From what it was inferred, or why it was assumed.
    """

    option: str
    value: Plain | None
    source: Source
    note: str = ""

    @property
    def sentence(self) -> str:
        """The setting in words, beginning with its option."""
        said = self.option if self.value is None else f"{self.option} = {self.shown}"
        return f"{said}: {self.note}" if self.note else said

    @property
    def shown(self) -> str:
        """The value as text, as the command line takes it."""
        if isinstance(self.value, bool):
            return str(self.value).lower()
        if isinstance(self.value, tuple):
            return ",".join(map(str, self.value))
        return "" if self.value is None else str(self.value)

    def __post_init__(self) -> None:
        if self.source not in get_args(Source):
            raise InputError(f"setting {self.option} of source {self.source!r} found; expected {get_args(Source)}")


def assumed_in(sentence: str) -> Setting:
    """Read the sentence of an assumption, as model files of format 1 keep them."""
    said, colon, note = sentence.partition(": ")
    named = re.fullmatch(r"(\w+) = (.*)", said)
    if named is None:
        return Setting(said, None, "assumed", note) if colon else Setting(sentence, None, "assumed")
    return Setting(named[1], named[2], "assumed", note)
