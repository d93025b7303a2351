"""Data sets on disk in the layout of Tonic, opened through `tonic.datasets`; nothing is ever downloaded.

Of Tonic's data sets those are listed whose samples are one recording with one label. Coordinates and polarity are as
Tonic delivers them.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeAlias

import tonic.datasets

from eventsim.dvs.events_array import ArrayRecording
from eventsim.dvs.recording import Recording, SensorSize
from eventsim.errors import InputError

Label: TypeAlias = int | str
Split: TypeAlias = Literal["train", "test"]

TONIC_DATASETS = ("CIFAR10DVS", "DVSGesture", "NCALTECH101", "NMNIST")


class TonicDataset:
    """Labelled recordings of a Tonic data set; a sample is read when it is asked for.

    Parameters
    ----------
    name : str
        Name of the data set.
    dataset : tonic.Dataset
        Tonic's own object: `len`, ``dataset[i] -> (events, label)``, `targets`, `sensor_size`.
    """

    def __init__(self, name: str, dataset: Any) -> None:
        self.name = name
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[tuple[Recording, Label]]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> tuple[Recording, Label]:
        return self.sample(index)

    def sample(self, index: int, sensor_size: SensorSize | None = None) -> tuple[Recording, Label]:
        """Read a sample, as indexing does.

        Parameters
        ----------
        index : int
        sensor_size : tuple of int, optional
            (height, width), where Tonic does not know it; guessed from the events when not given.

        Raises
        ------
        InputError
            It cannot be read, or no size can be guessed.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        path = f"{self.name}[{index}] ({self._dataset.data[index]})"
        try:
            events, label = self._dataset[index]
        except Exception as error:
            raise _unreadable(path, error) from error
        known = self._dataset.sensor_size
        size = sensor_size if known is None else (known[1], known[0])
        return ArrayRecording(events, sensor_size=size, path=path), label

    @property
    def labels(self) -> list[Label]:
        """Label of every sample, in order, without reading any: class number, or name where Tonic has names."""
        return list(self._dataset.targets)


def open_tonic_dataset(
    name: str, root: str | os.PathLike[str], *, split: Split | None = None, **options: Any
) -> TonicDataset:
    """Open a data set that lies below `root` as Tonic lays it out, complete or in part.

    Tonic's constructors download what they miss, and call a set missing when the archive is gone or files are too few.
    Here both checks are narrowed to "some recordings are there", so that a part of a data set opens as that part, and
    the download is replaced by an error.

    Parameters
    ----------
    name : str
        One of `TONIC_DATASETS`.
    root : str or path
        Tonic's `save_to`: the folder that holds the folder called `name`, as in ``ROOT/NMNIST/Test/3/00019.bin``.
    split : {"train", "test"}, optional
        Which part of a set that is divided; ``"test"`` when not given. Must not be given for one that is not.
    **options
        Further arguments of Tonic's class, such as ``first_saccade_only=True`` of NMNIST.

    Returns
    -------
    TonicDataset
        A sequence of (Recording, label).

    Raises
    ------
    InputError
        No such data set, no recordings where Tonic expects them, a split or an option that the set does not have.
    """
    if name not in TONIC_DATASETS:
        called = {each.upper(): each for each in TONIC_DATASETS}
        meant = "".join(f"; did you mean {called[near]}?" for near in get_close_matches(name.upper(), called, 1))
        raise InputError(
            f"{name}: no data set that is read through Tonic, expected one of {', '.join(TONIC_DATASETS)}{meant}"
        )
    original = getattr(tonic.datasets, name)
    parameters = inspect.signature(original.__init__).parameters
    if split not in (None, "train", "test"):
        raise InputError(f"{name}: split {split!r}, expected 'train' or 'test'")
    if "train" in parameters:
        options["train"] = split == "train"
    elif split is not None:
        raise InputError(f"{name}: split {split!r} was given, but the data set is not divided; leave it out")
    unknown = sorted(set(options) - set(parameters))
    if unknown:
        raise InputError(f"{name}: no option {', '.join(unknown)}, expected some of {', '.join(list(parameters)[2:])}")

    def refuse_download(dataset: Any) -> NoReturn:
        expected = Path(dataset.location_on_system, dataset.folder_name)
        raise InputError(
            f"{expected}: holds no recordings of {name}, expected them there in Tonic's layout; download and unpack "
            "the data set with Tonic, or name its parent folder as root"
        )

    def any_file(dataset: Any, n_files: int, file_type: str) -> bool:
        return any(Path(dataset.location_on_system, dataset.folder_name).glob(f"**/*{file_type}"))

    # the same name: Tonic takes the data set's folder from the name of the class
    on_disk = type(
        name,
        (original,),
        {
            "download": refuse_download,
            "_is_file_present": lambda dataset: True,
            "_folder_contains_at_least_n_files_of_type": any_file,
        },
    )
    try:
        return TonicDataset(name, on_disk(os.fspath(root), **options))
    except InputError:
        raise
    except Exception as error:
        raise _unreadable(f"{Path(root, name)}", error) from error


def _unreadable(path: str, error: Exception) -> InputError:
    """Put whatever Tonic raised into one line."""
    reason = " ".join(str(error).split())
    return InputError(f"{path}: Tonic cannot read it ({type(error).__name__}: {reason}); check the files")
