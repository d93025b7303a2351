"""Sums over the samples of a data set: accuracy, margins, operations, energy, latency."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from statistics import fmean
from typing import NamedTuple

import numpy as np

from eventsim.accounting.energy import Energy, EnergyModel, energies
from eventsim.datasets.outcome import LayerSum, Outcome
from eventsim.dvs import Defects
from eventsim.dvs.defects import DefectsOfMany
from eventsim.ledger import Counts


class Prediction(NamedTuple):
    """What was predicted for a sample: its place in the data set, name, label, prediction, hash of its file."""

    place: int
    input: str
    label: int
    prediction: int
    input_sha256: str | None


class Failure(NamedTuple):
    """A sample that could not be simulated: its place in the data set, name, error."""

    place: int
    input: str
    error: str


class Met(NamedTuple):
    """What was met in a recording: its place in the data set, name, counts."""

    place: int
    input: str
    defects: Defects


@dataclass
class Evaluation:
    """Sums over the samples simulated so far; plain data. Evaluations of parts of a data set add up (`merge`).

    What is told of them is the same in whatever order and parts the samples came.

    Attributes
    ----------
    correct : int
    predictions : list of Prediction
    failed : list of Failure
    latencies_s, binnings_s, readings_s : list of float
        Seconds of each sample: its simulation; reading it and cutting it into frames; all that is no simulation.
    layers : dict of str to LayerSum
        In order of execution.
    energies_mj : dict of str to list of float
        Total of every sample by energy model; `energy` tells more of their sum.
    conventions : dict of str to dict of str to list of float
        The numbers of every sample by convention.
    first_correct_steps, decided_steps : list of int
        Of the samples that were ever predicted right, and of all, where the network answers in every time step.
    answers_by_step, right_by_step : list of int
        Samples that were predicted after each time step, and those of them that were predicted right.
    right_margins, wrong_margins : list of float
        How far the logit of the prediction leads, where it is right and where it is wrong.
    label_margins : list of float
        How far the logit of the label leads; negative where the prediction is wrong.
    unsound : int
        Samples with NaN or infinite logits.
    comparable : bool
        Whether the seconds are those of one machine.
    met : list of Met
        Of the samples that are recordings; `defects` sums it up.
    frames_given : dict of int to int
        How many samples had so many time steps.
    """

    correct: int = 0
    predictions: list[Prediction] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    binnings_s: list[float] = field(default_factory=list)
    readings_s: list[float] = field(default_factory=list)
    layers: dict[str, LayerSum] = field(default_factory=dict)
    energies_mj: dict[str, list[float]] = field(default_factory=dict)
    conventions: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    first_correct_steps: list[int] = field(default_factory=list)
    decided_steps: list[int] = field(default_factory=list)
    answers_by_step: list[int] = field(default_factory=list)
    right_by_step: list[int] = field(default_factory=list)
    right_margins: list[float] = field(default_factory=list)
    wrong_margins: list[float] = field(default_factory=list)
    label_margins: list[float] = field(default_factory=list)
    unsound: int = 0
    comparable: bool = True
    met: list[Met] = field(default_factory=list)
    frames_given: dict[int, int] = field(default_factory=dict)

    def take(self, outcome: Outcome) -> None:
        """Add one outcome."""
        sample = outcome.sample
        if outcome.error is not None:
            self.failed.append(Failure(sample.index, sample.name, outcome.error))
            return
        self.correct += outcome.correct
        self.predictions.append(
            Prediction(sample.index, sample.name, sample.label, outcome.prediction, outcome.input_sha256)
        )
        self.latencies_s.append(outcome.latency_s)
        self.binnings_s.append(outcome.binning_s)
        self.readings_s.append(outcome.reading_s)
        self._add_layers({layer.name: layer for layer in outcome.layers})
        for name, energy in outcome.energy_mj.items():
            self.energies_mj.setdefault(name, []).append(energy)
        for name, counted in outcome.conventions.items():
            for key, value in counted.items():
                self.conventions.setdefault(name, {}).setdefault(key, []).append(value)
        if (first := outcome.first_correct_step) is not None:
            self.first_correct_steps.append(first)
        if (decided := outcome.decided_step) is not None:
            self.decided_steps.append(decided)
        self.answers_by_step = _added(self.answers_by_step, [1] * len(outcome.step_predictions))
        self.right_by_step = _added(self.right_by_step, [int(p == sample.label) for p in outcome.step_predictions])
        if outcome.margin is not None and outcome.label_margin is not None:
            (self.right_margins if outcome.correct else self.wrong_margins).append(outcome.margin)
            self.label_margins.append(outcome.label_margin)
        self.unsound += not outcome.sound
        self.comparable &= outcome.comparable
        if outcome.defects is not None:
            self.met.append(Met(sample.index, sample.name, outcome.defects))
        self._add_given({outcome.time_steps: 1})

    def merge(self, other: Evaluation) -> None:
        """Add the samples of another evaluation of the same network."""
        self.correct += other.correct
        self.unsound += other.unsound
        self.comparable &= other.comparable
        for name in (
            "predictions", "failed", "latencies_s", "binnings_s", "readings_s", "first_correct_steps", "decided_steps",
            "right_margins", "wrong_margins", "label_margins", "met",
        ):  # fmt: skip
            getattr(self, name).extend(getattr(other, name))
        self._add_layers(other.layers)
        for name, each in other.energies_mj.items():
            self.energies_mj.setdefault(name, []).extend(each)
        for name, counted in other.conventions.items():
            for key, values in counted.items():
                self.conventions.setdefault(name, {}).setdefault(key, []).extend(values)
        self.answers_by_step = _added(self.answers_by_step, other.answers_by_step)
        self.right_by_step = _added(self.right_by_step, other.right_by_step)
        self._add_given(other.frames_given)

    def _add_given(self, frames_given: Mapping[int, int]) -> None:
        for steps, samples in frames_given.items():
            self.frames_given[steps] = self.frames_given.get(steps, 0) + samples

    def _add_layers(self, layers: Mapping[str, LayerSum]) -> None:
        for name, layer in layers.items():
            self.layers[name] = self.layers[name] + layer if name in self.layers else layer

    @property
    def samples(self) -> int:
        """Samples simulated."""
        return len(self.predictions)

    @property
    def totals(self) -> Counts:
        """Counts over all layers and samples."""
        return Counts.total(layer.counts for layer in self.layers.values())

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of all layers and samples if nothing were skipped."""
        return sum(layer.dense_macs for layer in self.layers.values())

    @property
    def accuracy(self) -> float:
        """Share of right predictions among the samples simulated; NaN if there are none."""
        return self.correct / self.samples if self.samples else float("nan")

    @property
    def step_accuracy(self) -> list[float]:
        """Share of right predictions after each time step, of the samples that were predicted after it."""
        return [right / of for right, of in zip(self.right_by_step, self.answers_by_step, strict=True)]

    @property
    def defects(self) -> DefectsOfMany:
        """What was met in the recordings, in the order of the data set."""
        found = DefectsOfMany()
        for each in sorted(self.met, key=lambda each: each.place):
            found.take(each.input, each.defects)
        return found

    @property
    def confusion(self) -> dict[int, dict[int, int]]:
        """How often each class was predicted for each label that occurred, both in order."""
        found: dict[int, dict[int, int]] = {}
        for each in sorted(self.predictions, key=lambda each: (each.label, each.prediction)):
            of = found.setdefault(each.label, {})
            of[each.prediction] = of.get(each.prediction, 0) + 1
        return found

    @property
    def mean_energy_mj(self) -> dict[str, float]:
        """Mean of a sample by energy model."""
        return {name: fmean(each) for name, each in self.energies_mj.items()}

    @property
    def std_energy_mj(self) -> dict[str, float]:
        """Standard deviation over the samples by energy model."""
        return {name: deviation(each) for name, each in self.energies_mj.items()}

    def energy(self, by: Mapping[str, EnergyModel]) -> dict[str, Energy]:
        """Return the energy of all samples together by each of some models: with its layers, and what has no price."""
        return energies(self.layers.values(), by)

    def latency_percentiles_s(self) -> dict[str, float]:
        """Return mean, median, 90th, 95th and 99th percentile, and the worst, of the latency in seconds."""
        return percentiles(self.latencies_s)

    def binning_percentiles_s(self) -> dict[str, float]:
        """Return the same of the time that reading and cutting into frames took."""
        return percentiles(self.binnings_s)

    def __repr__(self) -> str:
        return f"Evaluation({self.correct} of {self.samples} right, {len(self.failed)} failed)"


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return mean, median, 90th, 95th and 99th percentile, and the worst of some durations; nothing of none."""
    if not seconds:
        return {}
    p50, p90, p95, p99 = map(float, np.percentile(seconds, (50, 90, 95, 99)))
    return {"mean": fmean(seconds), "p50": p50, "p90": p90, "p95": p95, "p99": p99, "worst": max(seconds)}


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation of some values, rounded the same in whatever order they are."""
    mean = fmean(values)
    return math.sqrt(fmean((value - mean) ** 2 for value in values))


def _added(one: Sequence[int], other: Sequence[int]) -> list[int]:
    """Add numbers for each time step; samples may have fewer steps than others."""
    return [a + b for a, b in zip_longest(one, other, fillvalue=0)]
