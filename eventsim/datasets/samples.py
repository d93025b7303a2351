"""Samples of a data set as plain data: they can be pickled, sent elsewhere and opened there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from eventsim.dvs import Recording, RecordingPart
from eventsim.errors import InputError

if TYPE_CHECKING:  # importing Tonic takes a second
    from eventsim.dvs.tonic_dataset import Split, TonicDataset


@dataclass(frozen=True)
class TonicReference:
    """Where a sample of a Tonic data set lies.

    Attributes
    ----------
    dataset, root : str
        Name of the data set, and the folder that holds it.
    split : {"train", "test"}, optional
    index : int
    """

    dataset: str
    root: str
    split: Split | None
    index: int


Reference: TypeAlias = str | RecordingPart | TonicReference


@dataclass(frozen=True)
class Sample:
    """A sample and its class.

    Attributes
    ----------
    name : str
        For reports.
    label : int
    reference : str, RecordingPart or TonicReference
        A file, a part of one, or a sample of a Tonic data set; `open_sample` opens it.
    """

    name: str
    label: int
    reference: Reference


def open_sample(sample: Sample) -> str | RecordingPart | Recording:
    """Return the path, the part or the recording that a sample refers to."""
    at = sample.reference
    if isinstance(at, (str, RecordingPart)):
        return at
    return _tonic(at.dataset, at.root, at.split)[at.index][0]


@lru_cache(maxsize=4)
def _tonic(name: str, root: str, split: Split | None) -> TonicDataset:
    from eventsim.dvs.tonic_dataset import open_tonic_dataset  # noqa: PLC0415 - importing Tonic takes a second

    return open_tonic_dataset(name, root, split=split)


def labelled_files(root: str | Path) -> list[Sample]:
    """List ``root/<label>/*``.

    A label is a class index if every folder name is a whole number; otherwise folders are numbered in sorted order.

    Raises
    ------
    InputError
        If there are no such files.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected a data set laid out as FOLDER/<label>/<recording>")
    folders = sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    numbered = all(folder.name.isdecimal() for folder in folders)
    samples = [
        Sample(str(path), int(folder.name) if numbered else index, str(path))
        for index, folder in enumerate(folders)
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".")
    ]
    if not samples:
        raise InputError(f"{root}: no recordings found; expected FOLDER/<label>/<recording>")
    return samples


def labelled_tonic(name: str, root: str | Path, split: Split | None = None) -> list[Sample]:
    """List the samples of a Tonic data set on disk; classes that have names are numbered in sorted order.

    Raises
    ------
    InputError
        If the data set is not known or not there.
    """
    labels = _tonic(name, str(root), split).labels
    names = sorted({label for label in labels if isinstance(label, str)})
    numbers = [names.index(label) if isinstance(label, str) else int(label) for label in labels]
    return [
        Sample(f"{name}[{index}]", number, TonicReference(name, str(root), split, index))
        for index, number in enumerate(numbers)
    ]
