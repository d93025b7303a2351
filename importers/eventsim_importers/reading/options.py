"""Options of a format: their declared types, texts that become values, and where a value comes from."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np

from eventsim.errors import InputError
from eventsim.layers import Input
from eventsim.settings import Plain, Setting
from eventsim.signals import FLOAT32_MAX, Kind
from eventsim.untrusted import meant
from eventsim_importers.reading.checkpoint import Checkpoint

T = TypeVar("T", bool, int, float, str)

PLAIN = (bool, int, float, str)
NOT_STATED = "not found in the checkpoint, the default"
BESIDE = "beside the weights"
OTHER_MEANINGS = ("strict", "scale", "fit", "window", "mean", "std", "binary", "stride", "rename")
"""Options whose names mean something else among the arguments of a training script."""


@dataclass(frozen=True)
class Declared:
    """The declared type of one option: a plain type or words, and whether None is allowed."""

    python_type: type
    words: tuple[str, ...]
    optional: bool

    def convert(self, value: object) -> Any:
        """Convert a value or its text.

        Raises
        ------
        ValueError
            Says what was expected.
        """
        if value is None and self.optional:
            return None
        if self.words:
            if value not in self.words:
                raise ValueError(f"one of {', '.join(self.words)}")
            return value
        if self.python_type is bool:
            word = str(value).lower()
            if word not in ("true", "false"):
                raise ValueError("true or false")
            return word == "true"
        if self.python_type is int and isinstance(value, (bool, float)):
            raise ValueError("int")
        if self.python_type is float and isinstance(value, bool):
            raise ValueError("float")
        try:
            converted = self.python_type(value)
        except (TypeError, ValueError):
            raise ValueError(self.python_type.__name__) from None
        if self.python_type is float and not abs(converted) < float("inf"):
            raise ValueError("a finite number")
        if self.python_type is float and abs(converted) > FLOAT32_MAX:
            raise ValueError(f"a finite number, at most {FLOAT32_MAX:.6g} (float32)")
        if self.python_type is float and converted and not np.float32(converted):
            raise ValueError("0, or a number that is not 0 in float32")
        return converted


def declared(options_type: type) -> dict[str, Declared]:
    """Return the declared types of a dataclass of options, by name.

    Raises
    ------
    InputError
        If a field is of a type that no text can give.
    """
    found = {}
    for name, hint in typing.get_type_hints(options_type).items():
        parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
        bare = [part for part in parts if part is not types.NoneType]
        words = typing.get_args(bare[0]) if typing.get_origin(bare[0]) is typing.Literal else ()
        if len(bare) != 1 or not (bare[0] in PLAIN or (words and all(isinstance(word, str) for word in words))):
            raise InputError(
                f"option {name} of type {hint} found; expected bool, int, float, str or a Literal of words, or None"
            )
        found[name] = Declared(str if words else bare[0], words, len(bare) < len(parts))
    return found


def explained(options_type: type) -> dict[str, tuple[str, str]]:
    """Return what the docstrings of a dataclass of options and of those that it is built on say: type, and text.

    Options that no docstring lists under Attributes are told by their declared type alone.
    """
    told: dict[str, tuple[str, str]] = {}
    for each in reversed(options_type.__mro__):
        listed = inspect.cleandoc(each.__doc__ or "").partition("Attributes\n----------\n")[2]
        for names, kind, text in re.findall(r"^(\w[\w, ]*) : (.+)\n((?:(?:    .*)?\n?)*)", listed, re.MULTILINE):
            told |= {name: (kind.strip(), " ".join(text.split())) for name in names.split(", ")}
    return {
        name: told.get(name, (" | ".join(kind.words) or kind.python_type.__name__, ""))
        for name, kind in declared(options_type).items()
    }


def parse_options(format_name: str, options_type: type, given: Mapping[str, Any], common: tuple[str, ...] = ()) -> Any:
    """Convert options, given as values or as text, to a format's dataclass.

    Parameters
    ----------
    format_name : str
    options_type : type
    given : mapping
    common : tuple of str
        Options that every format has, to be named beside its own.

    Raises
    ------
    InputError
        Names the option that is not known or whose value does not convert, and what was expected.
    """
    known = declared(options_type)
    values = {}
    for name, value in given.items():
        if name not in known:
            near = meant(name, [*known, *common])
            raise InputError(f"option {name!r} of format {format_name} found{near}")
        try:
            values[name] = known[name].convert(value)
        except ValueError as error:
            raise InputError(f"option {name}={value} found; expected {error}") from None
    return dataclasses.replace(options_type(), **values)


@dataclass(frozen=True)
class InputOptions:
    """What arrives at a network; `Chooser.input` chooses the last three.

    Attributes
    ----------
    time_steps : int, optional
    height, width : int, optional
        Input size.
    input_kind : {"binary", "graded", "real"}, optional
        What arrives: spikes ("binary"), event counts ("graded") or pixels ("real"). Default: "graded" for two input
        channels, else "real".
    """

    time_steps: int | None = None
    height: int | None = None
    width: int | None = None
    input_kind: Kind | None = None


class Chooser:
    """Takes an option from the user, else from the checkpoint's metadata, else the default - and says so.

    Parameters
    ----------
    checkpoint : Checkpoint
    options : dataclass instance
        None in a field that the user left open.
    """

    def __init__(self, checkpoint: Checkpoint, options: Any) -> None:
        self.checkpoint = checkpoint
        self.options = options
        self.declared = declared(type(options))

    def __call__(self, name: str, default: T, note: str = NOT_STATED) -> T:
        """Return the value of option `name`, and note where it comes from; of the default `note` says that.

        Raises
        ------
        InputError
            If the metadata holds something of another type.
        """
        value = self.stated(name)
        if value is None:
            unfit = [f"; {place} = {found!r:.40} is no value of it" for place, found in self.checkpoint.beside(name)]
            self.checkpoint.assume(name, default, note + "".join(unfit[:1]))
            return default
        return cast(T, value)

    def way(self, name: str, default: T) -> T:
        """Return the value of an option that changes how the work is done and not what comes out: no assumption."""
        value = self.stated(name)
        return default if value is None else cast(T, value)

    def inferred(self, name: str, value: T, source: str) -> T:
        """Return the value of option `name` as stated, else what `source`, a part of the checkpoint, tells."""
        stated = self.stated(name)
        if stated is not None:
            return cast(T, stated)
        self.checkpoint.say(Setting(name, value, "inferred", source))
        return value

    def stated(self, name: str) -> Any:
        """Return what the user or else the file says of option `name`, and note who; None if neither does.

        Metadata have to fit. What else lies beside the weights may bear the name for another reason, and is left where
        it is no value of the option.
        """
        value = self._said(name)
        return self._beside(name) if value is None else value

    def without_effect(self, name: str, because: str, expected: str = "", harmless: Plain | None = None) -> None:
        """Refuse option `name`, of the user or the metadata, as one that would change nothing.

        Parameters
        ----------
        name : str
        because : str
            With what it has no effect.
        expected : str, optional
            With what it would have one.
        harmless : plain value, optional
            One that says what is so anyway.

        Raises
        ------
        InputError
            If it is said.
        """
        value = self._said(name)
        if value not in (None, harmless):
            found = f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
            instead = f"{expected}, or {name} left out" if expected else f"{name} left out"
            raise InputError(f"{self.checkpoint.path}: {found} with {because} found; expected {instead}")

    def _said(self, name: str) -> Any:
        given = getattr(self.options, name)
        stored = self.checkpoint.metadata.get(name)
        if given is not None:
            self.checkpoint.say(Setting(name, given, "option"))
            return given
        if stored is None:
            return None
        try:
            value = self.declared[name].convert(stored)
        except ValueError as error:
            raise InputError(f"{self.checkpoint.path}: metadata {name}={stored!r} found; expected {error}") from None
        self.checkpoint.say(Setting(name, value, "metadata"))
        return value

    def _beside(self, name: str) -> Any:
        fitting = {}
        for place, found in self.checkpoint.beside(name):
            if "." not in place or name not in OTHER_MEANINGS:
                with suppress(ValueError):
                    fitting[place] = self.declared[name].convert(found)
        if len(set(fitting.values())) > 1:
            said = " and ".join(f"{place}={value}" for place, value in fitting.items())
            raise InputError(
                f"{self.checkpoint.path}: {said} found beside the weights; expected one value: give --set {name}=VALUE "
                f"({name}=)"
            )
        for place, value in fitting.items():
            self.checkpoint.say(Setting(name, value, "metadata", f"{place} {BESIDE}"))
            return value
        return None

    def positive(self, name: str, default: float) -> float:
        """Return the value of an option that is above 0.

        Raises
        ------
        InputError
            If it is not.
        """
        value = self(name, default)
        if value <= 0:
            raise InputError(f"{self.checkpoint.path}: {name}={value:g} found; expected more than 0")
        return value

    def heads(self, default: int, width: int) -> int:
        """Choose the number of attention heads, which divides the width.

        Raises
        ------
        InputError
            If it does not.
        """
        heads = self("heads", default)
        if heads < 1 or width % heads:
            raise InputError(f"{self.checkpoint.path}: heads={heads} found; expected a divisor of width {width}")
        return heads

    def input(self, channels: int, height: int, width: int) -> Input:
        """Choose size and kind of the input; the kind is event counts for two channels, else real values."""
        height, width = self("height", height), self("width", width)
        kind = self("input_kind", "graded" if channels == 2 else "real")
        return Input((channels, height, width), cast(Kind, kind))
