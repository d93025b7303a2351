"""Accuracy over a data set; one bad file does not lose the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eventsim.counts import Counts
from eventsim.errors import EventsimError, InputError
from eventsim.ordered import map_in_order
from eventsim.samples import Preparation, Source
from eventsim.simulator import Result, Simulator

if TYPE_CHECKING:  # importing Tonic takes a second
    from eventsim.dvs.tonic_dataset import TonicDataset


@dataclass(frozen=True)
class Labelled:
    """A sample and its class.

    Attributes
    ----------
    name : str
        For reports.
    label : int
    open : callable
        Returns the recording, array or path.
    """

    name: str
    label: int
    open: Callable[[], Source]


@dataclass(frozen=True)
class Outcome:
    """What became of one sample: a result, or the error in one line."""

    sample: Labelled
    result: Result | None
    error: str | None


@dataclass
class Evaluation:
    """Sums over the samples simulated so far.

    Attributes
    ----------
    correct : int
    predictions : list of (str, int, int)
        Sample, label, prediction.
    failed : list of (str, str)
        Sample, error.
    latencies_s : list of float
    totals : Counts
    """

    correct: int = 0
    predictions: list[tuple[str, int, int]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    totals: Counts = field(default_factory=Counts)

    def take(self, outcome: Outcome) -> None:
        """Add one outcome."""
        if outcome.result is None:
            self.failed.append((outcome.sample.name, outcome.error or ""))
            return
        prediction = outcome.result.prediction
        self.correct += prediction == outcome.sample.label
        self.predictions.append((outcome.sample.name, outcome.sample.label, prediction))
        self.latencies_s.append(outcome.result.latency_s)
        self.totals.add(outcome.result.totals)

    @property
    def samples(self) -> int:
        """Samples simulated."""
        return len(self.predictions)

    @property
    def accuracy(self) -> float:
        """Share of right predictions among the samples simulated; NaN if there are none."""
        return self.correct / self.samples if self.samples else float("nan")

    def latency_percentiles_s(self) -> dict[str, float]:
        """Return mean, median, 90th and 99th percentile of the latency in seconds."""
        if not self.latencies_s:
            return {}
        p50, p90, p99 = np.percentile(self.latencies_s, (50, 90, 99))
        return {"mean": float(np.mean(self.latencies_s)), "p50": float(p50), "p90": float(p90), "p99": float(p99)}


def labelled_files(root: str | Path) -> list[Labelled]:
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
        Labelled(str(path), int(folder.name) if numbered else index, lambda path=path: path)  # type: ignore[misc]
        for index, folder in enumerate(folders)
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".")
    ]
    if not samples:
        raise InputError(f"{root}: no recordings found; expected FOLDER/<label>/<recording>")
    return samples


def labelled_dataset(dataset: TonicDataset) -> list[Labelled]:
    """List the samples of a Tonic data set; classes that have names are numbered in sorted order."""
    labels = dataset.labels
    names = sorted({label for label in labels if isinstance(label, str)})
    numbers = [names.index(label) if isinstance(label, str) else int(label) for label in labels]
    return [
        Labelled(f"{dataset.name}[{index}]", number, lambda index=index: dataset[index][0])  # type: ignore[misc]
        for index, number in enumerate(numbers)
    ]


def evaluate(simulator: Simulator, samples: Sequence[Labelled], preparation: Preparation) -> Iterator[Outcome]:
    """Simulate every sample, `simulator.threads` at a time, in order; a bad sample yields its error.

    Raises
    ------
    InputError
        If a label is not one of the network's classes.
    """
    (classes,) = simulator.network.types[simulator.network.order[-1]].shape
    for sample in samples:
        if not 0 <= sample.label < classes:
            raise InputError(
                f"{sample.name}: label {sample.label} found; network {simulator.network.name} has {classes} classes"
            )

    def outcome(sample: Labelled) -> Outcome:
        try:
            frames: Any = preparation.frames(sample.open(), simulator.network)
            return Outcome(sample, simulator.run(frames, preparation.time_steps, sample.name), None)
        except EventsimError as error:
            return Outcome(sample, None, str(error))

    return map_in_order(outcome, samples, simulator.threads)
