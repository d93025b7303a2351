"""The public contract test of checkpoint formats passes a format that works, and finds the faults that it is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_format

from eventsim import InputError, Network
from eventsim.testing.importers import Example, check_importer
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.options import Chooser

F = np.float32
TOY = {"height": 4, "width": 4, "input_kind": "binary", "reset": "subtract", "v_threshold": 0.5, "averaged": "last"}


def toy(folder: Path, **changes: Any) -> Example:
    given = {"alternatives": TOY, "ways": {"averaged"}, "unused": ("toy.unused",)}
    return Example(toy_format.write(folder), **given | changes)


def test_a_format_of_another_package_keeps_the_contract(tmp_path: Path) -> None:
    check_importer(toy_format.IMPORTER, [toy(tmp_path)])


class _Guesses(Chooser):
    """Takes defaults without a word."""

    def __call__(self, name: str, default: Any) -> Any:
        value = self.stated(name)
        return default if value is None else value


class _Deaf(Chooser):
    """Takes nothing from the metadata."""

    def stated(self, name: str) -> Any:
        return getattr(self.options, name)


class _Stubborn(Chooser):
    """Believes the metadata before the user."""

    def stated(self, name: str) -> Any:
        stored = self.checkpoint.metadata.get(name)
        return super().stated(name) if stored is None else self.declared[name].convert(stored)


class _Credulous(Chooser):
    """Lets metadata that do not convert pass."""

    def stated(self, name: str) -> Any:
        try:
            return super().stated(name)
        except InputError:
            return None


def chosen_by(chooser: type[Chooser]) -> dict[str, Any]:
    return {"read": lambda checkpoint, options: toy_format.compose(checkpoint, chooser(checkpoint, options))}


def taken_from(changed: Callable[[Checkpoint], None]) -> dict[str, Any]:
    def read(checkpoint: Checkpoint, options: Any) -> Network:
        changed(checkpoint)
        return toy_format.read(checkpoint, options)

    return {"read": read}


def forgets_left_over(checkpoint: Checkpoint) -> None:
    checkpoint.finish = lambda: None


def tolerates_shapes(checkpoint: Checkpoint) -> None:
    if "tau" in checkpoint.tensors:
        checkpoint.tensors["tau"] = checkpoint.tensors["tau"].reshape(())


def ignores_nan(checkpoint: Checkpoint) -> None:
    checkpoint.tensors = {name: np.nan_to_num(tensor) for name, tensor in checkpoint.tensors.items()}


def invents_missing(checkpoint: Checkpoint) -> None:
    checkpoint.tensors.setdefault("toy.bias", np.zeros(3, F))


def speaks_in_lines(checkpoint: Checkpoint) -> None:
    if "toy.bias" not in checkpoint.tensors:
        raise InputError(f"{checkpoint.path}: toy.bias missing\nexpected it")


def names_nothing(checkpoint: Checkpoint) -> None:
    if "toy.bias" not in checkpoint.tensors:
        raise InputError(f"{checkpoint.path}: a tensor is missing")


def crashes(checkpoint: Checkpoint) -> None:
    checkpoint.tensors["toy.weight"]  # a KeyError where it is missing


@dataclass(frozen=True)
class _NoDefault:
    height: int


FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "description": ({"description": "two\nlines"}, {}, "description .* found; expected one line"),
    "options": ({"options": _NoDefault}, {}, "option height without a default found"),
    "counts too few": ({"signature": lambda checkpoint: 1}, {}, "signature of 1 found; expected 4"),
    "counts all": (
        {"signature": lambda checkpoint: len(checkpoint.tensors)},
        {},
        "signature of 5 with an unknown tensor",
    ),
    "knows all": ({"signature": lambda checkpoint: 4}, {}, "signature above 0"),
    "left over": (taken_from(forgets_left_over), {}, "tensor left_over left over is read"),
    "shape": (taken_from(tolerates_shapes), {}, "tensor tau of a wrong shape is read"),
    "NaN": (taken_from(ignores_nan), {}, "tensor toy.weight that is not finite is read"),
    "missing": (taken_from(invents_missing), {}, "tensor toy.bias missing is read; expected an InputError"),
    "lines": (taken_from(speaks_in_lines), {}, "refused in several lines"),
    "names nothing": (taken_from(names_nothing), {}, "tensor toy.bias missing is refused without naming it"),
    "unused": ({}, {"unused": ()}, "tensor toy.unused of a wrong shape is read"),
    "used": ({}, {"unused": ("toy.unused", "tau")}, "unused tensor tau of a wrong shape is refused"),
    "not optional": ({}, {"optional": ("tau",)}, "optional tensors tau found, of which every one is refused by name"),
    "silent": (chosen_by(_Guesses), {}, "assumption None of height found"),
    "deaf": (chosen_by(_Deaf), {}, "metadata height=4 gives another shape of layer input than the option"),
    "stubborn": (chosen_by(_Stubborn), {}, "metadata height wins over the option"),
    "credulous": (chosen_by(_Credulous), {}, "metadata height=no such value is accepted"),
    "a guess after all": ({}, {"ways": {"averaged", "reset"}}, "assumption 'reset = zero: .*' of reset found"),
    "no guess": ({}, {"ways": ()}, "assumption None of averaged found"),
    "no alternative": ({}, {"alternatives": {}}, "option height has no alternative"),
    "no such option": ({}, {"told": {"heads"}}, r"told \['heads'\] found; expected options of the format"),
    "no difference": ({}, {"alternatives": TOY | {"v_threshold": 1.0}}, "option v_threshold=1.0 makes no difference"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_contract_finds_faults(tmp_path: Path, name: str) -> None:
    importer, example, message = FAULTS[name]
    with pytest.raises((AssertionError, InputError), match=message):
        check_importer(replace(toy_format.IMPORTER, **importer), [toy(tmp_path, **example)])


def test_other_errors_are_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match=r"toy\.weight"):
        check_importer(replace(toy_format.IMPORTER, **taken_from(crashes)), [toy(tmp_path)])


def test_a_format_that_another_places_all_tensors_of_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rival = replace(toy_format.IMPORTER, read=lambda checkpoint, options: None)
    monkeypatch.setattr("eventsim.testing.importers.formats", lambda: {"rival": rival})
    with pytest.raises(AssertionError, match="format rival places all 4 tensors too"):
        check_importer(toy_format.IMPORTER, [toy(tmp_path)])
    polite = replace(rival, signature=lambda checkpoint: 3)
    monkeypatch.setattr("eventsim.testing.importers.formats", lambda: {"polite": polite})
    with pytest.raises(AssertionError, match="read as polite is accepted; expected an InputError"):
        check_importer(toy_format.IMPORTER, [toy(tmp_path)])
