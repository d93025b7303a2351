"""Samples of a data set as plain data: they can be pickled, sent elsewhere and opened there."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from eventsim.dvs import Recording, RecordingPart
from eventsim.dvs.events_array import map_npy
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


@dataclass(frozen=True)
class ArrayReference:
    """One entry of an array of frames that lies in an ``.npy`` file.

    Attributes
    ----------
    path : str
    index : int
    """

    path: str
    index: int


@dataclass(frozen=True, eq=False)
class Given:
    """Frames that are in memory: ``(T, *input shape)``, or one image of the input shape."""

    frames: npt.NDArray[Any]


Reference: TypeAlias = str | RecordingPart | TonicReference | ArrayReference | Given


@dataclass(frozen=True)
class Sample:
    """A sample and its class.

    Attributes
    ----------
    name : str
        For reports.
    label : int
    reference : str, RecordingPart, TonicReference, ArrayReference or Given
        A file, a part of one, a sample of a Tonic data set, or an entry of an array; `open_sample` opens it.
    index : int
        Place in the data set, from 0; a part of a data set keeps the places.
    class_name : str, optional
        What the label is called where the data set has names, which were numbered in sorted order.
    """

    name: str
    label: int
    reference: Reference
    index: int = 0
    class_name: str | None = None


def open_sample(
    sample: Sample, sensor_size: tuple[int, int] | None = None
) -> str | RecordingPart | Recording | npt.NDArray[Any]:
    """Return the path, the part, the recording or the frames that a sample refers to.

    Parameters
    ----------
    sample : Sample
    sensor_size : (int, int), optional
        (height, width) of the sensor, for a data set of which Tonic does not know it; guessed when not given.

    Raises
    ------
    InputError
        If there is nothing of the kind.
    """
    at = sample.reference
    if isinstance(at, (str, RecordingPart)):
        return at
    if isinstance(at, Given):
        return at.frames
    if isinstance(at, ArrayReference):
        frames: npt.NDArray[Any] = np.array(map_npy(at.path)[at.index])
        return frames
    return _tonic(at.dataset, at.root, at.split).sample(at.index, sensor_size)[0]


def part(samples: Sequence[Sample], limit: int | None = None, shard: tuple[int, int] | None = None) -> list[Sample]:
    """Return a part of a data set.

    Parameters
    ----------
    samples : sequence of Sample
    limit : int, optional
        So many samples, spread evenly over all: data sets are mostly sorted by class.
    shard : (int, int), optional
        (i, n): every n-th of them from the i-th on, counted from 1. The shards 1 to n are all of them, each once.
    """
    chosen = list(samples)
    if limit is not None and limit < len(chosen):
        chosen = [chosen[k * len(chosen) // limit] for k in range(limit)]
    return chosen if shard is None else chosen[shard[0] - 1 :: shard[1]]


@lru_cache(maxsize=4)
def _tonic(name: str, root: str, split: Split | None) -> TonicDataset:
    from eventsim.dvs.tonic_dataset import open_tonic_dataset  # noqa: PLC0415 - importing Tonic takes a second

    return open_tonic_dataset(name, root, split=split)


def labelled_files(root: str | Path, tell: Callable[[str], object] | None = None) -> list[Sample]:
    """List ``root/<label>/*``.

    A label is a class index if every folder name is a whole number; otherwise folders are numbered in sorted order.

    Parameters
    ----------
    root : path
    tell : callable, optional
        Takes a sentence about folders that are not looked into; it is a warning when not given.

    Raises
    ------
    InputError
        If there are no such files, or a folder of a label holds folders alone.
    """
    root = Path(root)
    if root.is_file():
        raise InputError(
            f"{root}: a file found; expected a data set as FOLDER/<label>/<recording>, or a table of labels of "
            "this one, with --labels FILE (labels)"
        )
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; expected a data set laid out as FOLDER/<label>/<recording>")
    folders = _listed(root)[0]
    inside = {root / name: _listed(root / name) for name in folders}
    files = [(f"{folder}{os.sep}{file}", folder.name) for folder, (_, there) in inside.items() for file in there]
    said = _passed_over(root, inside)
    if not files:
        raise InputError(f"{root}: no recordings found; expected FOLDER/<label>/<recording>")
    if said and tell is None:
        warnings.warn(said, stacklevel=2)
    elif said and tell is not None:
        tell(said)
    numbers = numbered(folders)
    return [
        Sample(path, numbers[name], path, index, class_name(name, numbers)) for index, (path, name) in enumerate(files)
    ]


def _listed(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the folders and files in a folder, sorted; the listing tells what each is, links apart."""
    with os.scandir(folder) as entries:
        shown = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
        folders, files = ([entry.name for entry in shown if _is(entry, folder=kind)] for kind in (True, False))
        return folders, files


def _passed_over(root: Path, inside: Mapping[Path, tuple[list[str], list[str]]]) -> str:
    """Say which folders of those of labels are not looked into, nothing where there are none; refuse these alone."""
    nested = {folder: names for folder, (names, _) in inside.items() if names}
    for folder, names in nested.items():
        if not inside[folder][1]:
            raise InputError(
                f"{folder}: {len(names):,} folders and no recording found, such as {folder / names[0]}; expected "
                "FOLDER/<label>/<recording>: move what is in there up, or leave the folder out"
            )
    if not nested:
        return ""
    every = [folder / name for folder, names in nested.items() for name in names]
    return (
        f"{root}: {len(every):,} folders inside of those of {len(nested):,} labels are not looked into, such as "
        f"{every[0]}, and what is in there is no sample; expected FOLDER/<label>/<recording>"
    )


def _is(entry: os.DirEntry[str], *, folder: bool) -> bool:
    if entry.is_symlink():  # one that leads nowhere, or round, is a file that cannot be read, and not one sample fewer
        return Path(entry).is_dir() if folder else Path(entry).is_file() or not Path(entry).exists()
    return entry.is_dir() if folder else entry.is_file()


def labelled_arrays(
    frames: str | Path | npt.NDArray[Any], labels: str | Path | npt.ArrayLike, name: str = "array"
) -> list[Sample]:
    """List the entries of an array of frames.

    Parameters
    ----------
    frames : array (samples, ...), or the path of an ``.npy`` file with one
        Each entry as `Simulator.run` takes it: T frames, or one image. A file is read as its samples are opened.
    labels : int array (samples,), or the path of an ``.npy`` file with one
    name : str
        Of an array in memory, for reports.

    Raises
    ------
    InputError
        If they are no such arrays, or not of one length.
    """
    from_file = isinstance(frames, (str, Path))
    if isinstance(frames, (str, Path)):
        name, frames = str(frames), map_npy(str(frames))
    said = f"{labels}" if isinstance(labels, (str, Path)) else f"{name}: labels"
    classes = np.asarray(map_npy(str(labels)) if isinstance(labels, (str, Path)) else labels)
    if classes.ndim != 1 or classes.dtype.kind not in "iu":
        raise InputError(f"{said}: {classes.dtype} {classes.shape} found; expected whole numbers, one for each sample")
    if frames.dtype.names is not None or frames.ndim < 2 or len(frames) != len(classes) or not frames.size:
        raise InputError(
            f"{name}: {frames.dtype} {frames.shape} with {len(classes)} labels found; expected frames or images of "
            "each sample along the first axis, and as many labels"
        )
    return [
        Sample(
            f"{name}[{index}]", int(label), ArrayReference(name, index) if from_file else Given(frames[index]), index
        )
        for index, label in enumerate(classes)
    ]


def numbered(names: Iterable[str]) -> dict[str, int]:
    """Return the class of each name: its number if all are whole numbers, else its place in sorted order."""
    names = sorted(set(names))
    if all(name.isdecimal() for name in names):
        return {name: int(name) for name in names}
    return {name: number for number, name in enumerate(names)}


def class_name(label: str, numbers: Mapping[str, int]) -> str | None:
    """Return what a class is called where names were numbered, or None where they are the numbers themselves."""
    try:
        return None if all(int(name) == number for name, number in numbers.items()) else label
    except ValueError:
        return label


def labelled_tonic(name: str, root: str | Path, split: Split | None = None) -> list[Sample]:
    """List the samples of a Tonic data set on disk; classes that have names are numbered in sorted order.

    Raises
    ------
    InputError
        If the data set is not known or not there.
    """
    labels = _tonic(name, str(root), split).labels
    names = {label: number for number, label in enumerate(sorted({each for each in labels if isinstance(each, str)}))}
    classes = [(names[label], label) if isinstance(label, str) else (int(label), None) for label in labels]
    return [
        Sample(f"{name}[{index}]", number, TonicReference(name, str(root), split, index), index, called)
        for index, (number, called) in enumerate(classes)
    ]


def elsewhere(sample: Sample) -> Sample:
    """Return a sample that can be opened from another working directory."""
    at = sample.reference
    if isinstance(at, str):
        return replace(sample, reference=str(Path(at).absolute()))
    if isinstance(at, (ArrayReference, RecordingPart)):
        return replace(sample, reference=replace(at, path=str(Path(at.path).absolute())))
    return (
        sample if isinstance(at, Given) else replace(sample, reference=replace(at, root=str(Path(at.root).absolute())))
    )
