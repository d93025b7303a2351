"""Accuracy, operations and latency over a data set; one bad file does not lose the others."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np

from eventsim.accounting.conventions import estimates
from eventsim.accounting.energy import Energy, EnergyModel, energies, models
from eventsim.datasets.samples import Sample, open_sample
from eventsim.dvs import Defects
from eventsim.errors import OUT_OF_MEMORY, EventsimError, InputError
from eventsim.facts import Facts
from eventsim.hashes import sha256
from eventsim.ledger import Counts
from eventsim.ordered import map_in_order
from eventsim.preparation import Preparation
from eventsim.profile import LayerProfile
from eventsim.simulator import Simulator


@dataclass(frozen=True)
class Outcome:
    """What became of one sample: what was measured, or the error in one line; plain data.

    Attributes
    ----------
    sample : Sample
    error : str, optional
        The rest is empty where there is one.
    prediction : int
    latency_s : float
    profile : tuple of LayerProfile
        Sums over the time steps.
    energy_mj : dict of str to float
        Total by energy model.
    conventions : dict of str to dict
        What published conventions would have counted.
    reading_s : float
        Seconds that were no simulation: reading the file, cutting it into frames, fitting and checking these.
    input_sha256 : str, optional
        Hash of the sample's file; None where it is no file of its own.
    first_correct_step : int, optional
        First time step, from 0, after which the label was predicted; None if never, or where not every step tells.
    defects : Defects, optional
        What was met in the recording and done about it.
    """

    sample: Sample
    error: str | None = None
    prediction: int = -1
    latency_s: float = 0.0
    profile: tuple[LayerProfile, ...] = ()
    energy_mj: dict[str, float] = field(default_factory=dict)
    conventions: dict[str, dict[str, float]] = field(default_factory=dict)
    reading_s: float = 0.0
    first_correct_step: int | None = None
    input_sha256: str | None = None
    defects: Defects | None = None


@dataclass(frozen=True)
class LayerSum:
    """One layer over all samples: kernel and facts, neurons times time steps, dense multiply-accumulates, counts."""

    name: str
    kernel: str
    facts: Facts
    neuron_steps: int
    dense_macs: int
    counts: Counts

    def __add__(self, other: LayerSum) -> LayerSum:
        return LayerSum(
            self.name,
            self.kernel,
            self.facts,
            self.neuron_steps + other.neuron_steps,
            self.dense_macs + other.dense_macs,
            self.counts + other.counts,
        )


@dataclass
class Evaluation:
    """Sums over the samples simulated so far; plain data. Evaluations of parts of a data set add up (`merge`).

    Attributes
    ----------
    correct : int
    predictions : list of (str, int, int)
        Sample, label, prediction.
    failed : list of (str, str)
        Sample, error.
    latencies_s : list of float
    layers : dict of str to LayerSum
        In order of execution.
    energies_mj : dict of str to list of float
        Total of every sample by energy model; `energy` tells more of their sum.
    conventions : dict of str to dict
        Sums by convention.
    conventions_mj : dict of str to list of float
        Energy of every sample by convention.
    readings_s : list of float
        What each sample took beside the simulation.
    hashes : list of str or None
        Of the files of the samples, in the order of `predictions`.
    first_correct_steps : list of int
        Of the samples that were ever predicted right, where the network answers in every time step.
    """

    correct: int = 0
    predictions: list[tuple[str, int, int]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    layers: dict[str, LayerSum] = field(default_factory=dict)
    energies_mj: dict[str, list[float]] = field(default_factory=dict)
    conventions: dict[str, dict[str, float]] = field(default_factory=dict)
    conventions_mj: dict[str, list[float]] = field(default_factory=dict)
    readings_s: list[float] = field(default_factory=list)
    first_correct_steps: list[int] = field(default_factory=list)
    hashes: list[str | None] = field(default_factory=list)

    def take(self, outcome: Outcome) -> None:
        """Add one outcome."""
        sample = outcome.sample
        if outcome.error is not None:
            self.failed.append((sample.name, outcome.error))
            return
        layers = {
            layer.name: LayerSum(
                layer.name, layer.kernel, layer.facts, layer.neurons * layer.steps, layer.dense_macs, layer.counts
            )
            for layer in outcome.profile
        }
        self.merge(
            Evaluation(
                int(outcome.prediction == sample.label),
                [(sample.name, sample.label, outcome.prediction)],
                [],
                [outcome.latency_s],
                layers,
                {name: [energy] for name, energy in outcome.energy_mj.items()},
                outcome.conventions,
                {name: [counted["energy_mj"]] for name, counted in outcome.conventions.items()},
                [outcome.reading_s],
                [] if outcome.first_correct_step is None else [outcome.first_correct_step],
                [outcome.input_sha256],
            )
        )

    def merge(self, other: Evaluation) -> None:
        """Add the samples of another evaluation of the same network, behind those of this one."""
        self.correct += other.correct
        self.predictions += other.predictions
        self.failed += other.failed
        self.latencies_s += other.latencies_s
        self.readings_s += other.readings_s
        self.first_correct_steps += other.first_correct_steps
        self.hashes += other.hashes
        for name, layer in other.layers.items():
            self.layers[name] = self.layers[name] + layer if name in self.layers else layer
        for mine, theirs in ((self.energies_mj, other.energies_mj), (self.conventions_mj, other.conventions_mj)):
            for name, each in theirs.items():
                mine.setdefault(name, []).extend(each)
        for name, counted in other.conventions.items():
            sums = self.conventions.setdefault(name, {})
            for key, value in counted.items():
                sums[key] = sums.get(key, 0) + value

    @property
    def samples(self) -> int:
        """Samples simulated."""
        return len(self.predictions)

    @property
    def totals(self) -> Counts:
        """Counts over all layers and samples."""
        return Counts.total(layer.counts for layer in self.layers.values())

    @property
    def accuracy(self) -> float:
        """Share of right predictions among the samples simulated; NaN if there are none."""
        return self.correct / self.samples if self.samples else float("nan")

    @property
    def mean_energy_mj(self) -> dict[str, float]:
        """Mean of a sample by energy model; the same in whatever order and parts the samples came."""
        return {name: fmean(each) for name, each in self.energies_mj.items()}

    @property
    def std_energy_mj(self) -> dict[str, float]:
        """Standard deviation over the samples by energy model."""
        return {name: float(np.std(each)) for name, each in self.energies_mj.items()}

    def energy(self, by: Mapping[str, EnergyModel]) -> dict[str, Energy]:
        """Return the energy of all samples together by each of some models: with its layers, and what has no price."""
        return energies(self.layers.values(), by)

    def latency_percentiles_s(self) -> dict[str, float]:
        """Return mean, median, 90th, 95th and 99th percentile, and the worst, of the latency in seconds."""
        if not self.latencies_s:
            return {}
        p50, p90, p95, p99 = map(float, np.percentile(self.latencies_s, (50, 90, 95, 99)))
        mean, worst = float(np.mean(self.latencies_s)), max(self.latencies_s)
        return {"mean": mean, "p50": p50, "p90": p90, "p95": p95, "p99": p99, "worst": worst}

    def __repr__(self) -> str:
        return f"Evaluation({self.correct} of {self.samples} right, {len(self.failed)} failed)"


def evaluate(
    simulator: Simulator,
    samples: Sequence[Sample],
    preparation: Preparation,
    by: Mapping[str, EnergyModel] | None = None,
) -> Iterator[Outcome]:
    """Simulate every sample, `simulator.threads` at a time, in order; a bad sample yields its error.

    Parameters
    ----------
    simulator : Simulator
    samples : sequence of Sample
    preparation : Preparation
    by : mapping of str to EnergyModel, optional
        Energy models by name; those that are shipped where none are given.

    Yields
    ------
    Outcome

    Raises
    ------
    InputError
        If the outputs are no scores of classes, or a label is not one of the classes.
    """
    by = models() if by is None else by
    network = simulator.network
    classes = network.types[simulator.schedule.output].channels
    if not network.classifies:
        raise InputError(
            f"network {network.name}: {classes} outputs without a head found; expected scores of classes, as of a "
            "model that was fine-tuned"
        )
    for sample in samples:
        if not 0 <= sample.label < classes:
            raise InputError(f"{sample.name}: label {sample.label} found; network {network.name} has {classes} classes")

    def outcome(sample: Sample) -> Outcome:
        began = time.perf_counter()
        defects = Defects()
        try:
            frames: Any = preparation.frames(open_sample(sample), network, defects)
            result = simulator.run(frames, preparation.time_steps, sample.name)
        except EventsimError as error:
            return Outcome(sample, str(error))
        except MemoryError:
            return Outcome(sample, f"{sample.name}: {OUT_OF_MEMORY}")
        reading_s = time.perf_counter() - began - result.latency_s
        return Outcome(
            sample,
            None,
            result.prediction,
            result.latency_s,
            tuple(layer.summed() for layer in result.profile),
            {name: energy.total_mj for name, energy in energies(result.profile, by).items()},
            estimates(result.profile),
            reading_s,
            result.first_step_of(sample.label),
            sha256(sample.name),
            defects,
        )

    return map_in_order(outcome, samples, simulator.threads)
