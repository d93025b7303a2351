"""What became of one sample, and the same as a plain row that can be written down and read again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from eventsim.accounting.conventions import estimates
from eventsim.accounting.energy import EnergyModel, energies
from eventsim.datasets.samples import Sample
from eventsim.dvs import Defects
from eventsim.facts import Facts
from eventsim.ledger import Counts
from eventsim.plan import Schedule
from eventsim.profile import LayerProfile
from eventsim.result import Result

Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class LayerSum:
    """One layer over all samples: kernel and facts, time steps, counts.

    Attributes
    ----------
    name, kernel : str
    facts : Facts
    steps : int
        Time steps that the layer saw.
    counts : Counts
    """

    name: str
    kernel: str
    facts: Facts
    steps: int
    counts: Counts

    @classmethod
    def of(cls, layer: LayerProfile) -> LayerSum:
        """Return what one sample executed."""
        return cls(layer.name, layer.kernel, layer.facts, layer.steps, layer.counts)

    def __add__(self, other: LayerSum) -> LayerSum:
        return LayerSum(self.name, self.kernel, self.facts, self.steps + other.steps, self.counts + other.counts)

    @property
    def neuron_steps(self) -> int:
        """Neurons times time steps."""
        return self.steps * self.facts.neurons

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of a machine that skips nothing."""
        return self.steps * self.facts.dense_macs


@dataclass(frozen=True)
class Outcome:
    """What became of one sample: what was measured, or the error in one line; plain data.

    Attributes
    ----------
    sample : Sample
    error : str, optional
        The rest is empty where there is one.
    prediction : int
    time_steps : int
    latency_s : float
        Seconds of the simulation alone.
    layers : tuple of LayerSum
        In order of execution.
    energy_mj : dict of str to float
        Total by energy model.
    conventions : dict of str to dict
        What published conventions would have counted.
    binning_s : float
        Seconds to read the sample and cut it into frames.
    reading_s : float
        Seconds that were no simulation: `binning_s`, and fitting and checking the frames.
    step_predictions : tuple of int
        What was predicted after each time step; empty where not every step tells.
    margin : float, optional
        The largest logit less the largest of the others; None where it is not finite, or there are no others.
    label_margin : float, optional
        The logit of the label less the largest of the others; negative where the prediction is wrong.
    input_sha256 : str, optional
        Hash of the sample's file; None where it is no file of its own.
    sound : bool
        Whether every logit is finite; the prediction means nothing where one is not.
    comparable : bool
        Whether the seconds are those of one machine; those of a cluster are of whichever took the sample, among others.
    defects : Defects, optional
        What was met in the recording and done about it; None where it is no recording.
    """

    sample: Sample
    error: str | None = None
    prediction: int = -1
    time_steps: int = 0
    latency_s: float = 0.0
    layers: tuple[LayerSum, ...] = ()
    energy_mj: dict[str, float] = field(default_factory=dict)
    conventions: dict[str, dict[str, float]] = field(default_factory=dict)
    binning_s: float = 0.0
    reading_s: float = 0.0
    step_predictions: tuple[int, ...] = ()
    margin: float | None = None
    label_margin: float | None = None
    input_sha256: str | None = None
    sound: bool = True
    comparable: bool = True
    defects: Defects | None = None

    @property
    def correct(self) -> bool:
        """Whether the label was predicted."""
        return self.prediction == self.sample.label

    @property
    def first_correct_step(self) -> int | None:
        """First time step, from 0, after which the label was predicted; None if never, or where steps do not tell."""
        label = self.sample.label
        return self.step_predictions.index(label) if label in self.step_predictions else None

    @property
    def decided_step(self) -> int | None:
        """First time step from which on the prediction stayed as it ended; None where not every step tells."""
        if not self.step_predictions:
            return None
        other = [step for step, found in enumerate(self.step_predictions) if found != self.prediction]
        return other[-1] + 1 if other else 0

    def row(self) -> Row:
        """Return everything as numbers, text, lists and objects of these; `outcome_of` reads it.

        A layer is told by its time steps and the operations that it executed.
        """
        totals = Counts.total(layer.counts for layer in self.layers)
        done = self.error is None
        return {
            "index": self.sample.index,
            "input": self.sample.name,
            "label": self.sample.label,
            "prediction": self.prediction if done else None,
            "error": self.error,
            "time_steps": self.time_steps if done else None,
            "margin": self.margin,
            "label_margin": self.label_margin,
            "finite": self.sound if done else None,
            "step_predictions": list(self.step_predictions),
            "binning_s": self.binning_s if done else None,
            "reading_s": self.reading_s if done else None,
            "latency_s": self.latency_s if done else None,
            "latency_comparable": self.comparable,
            "input_sha256": self.input_sha256,
            "recording": None if self.defects is None else self.defects.to_dict(),
            "dense_macs": sum(layer.dense_macs for layer in self.layers) if done else None,
            "totals": dict(totals) if done else {},
            "energy_mj": self.energy_mj,
            "conventions": self.conventions,
            "layers": {
                layer.name: {"steps": layer.steps, **{name: n for name, n in layer.counts.items() if n}}
                for layer in self.layers
            },
        }


def outcome_of(row: Mapping[str, Any], sample: Sample, schedule: Schedule) -> Outcome:
    """Return the outcome that `Outcome.row` wrote.

    Parameters
    ----------
    row : mapping
    sample : Sample
        The one that it is of.
    schedule : Schedule
        Of the network that it ran through.

    Raises
    ------
    KeyError, TypeError, ValueError
        If the row is none, or of another network.
    """
    if row["error"] is not None:
        return Outcome(sample, str(row["error"]), comparable=bool(row["latency_comparable"]))
    layers = []
    for node in schedule.nodes:
        executed = dict(row["layers"][node.name])
        steps = int(executed.pop("steps"))
        layers.append(LayerSum(node.name, node.op.kernel, node.facts, steps, Counts(executed)))
    return Outcome(
        sample,
        None,
        int(row["prediction"]),
        int(row["time_steps"]),
        float(row["latency_s"]),
        tuple(layers),
        {name: float(value) for name, value in row["energy_mj"].items()},
        {name: dict(counted) for name, counted in row["conventions"].items()},
        float(row["binning_s"]),
        float(row["reading_s"]),
        tuple(map(int, row["step_predictions"])),
        _number(row["margin"]),
        _number(row["label_margin"]),
        row["input_sha256"],
        bool(row["finite"]),
        bool(row["latency_comparable"]),
        None if row["recording"] is None else Defects(**row["recording"]),
    )


def measured(
    sample: Sample,
    result: Result,
    by: Mapping[str, EnergyModel],
    binning_s: float,
    reading_s: float,
    input_sha256: str | None,
    defects: Defects,
) -> Outcome:
    """Return the outcome of a sample that was simulated."""
    steps = result.step_logits.argmax(axis=1) if len(result.step_logits) == result.time_steps else ()
    return Outcome(
        sample,
        None,
        result.prediction,
        result.time_steps,
        result.latency_s,
        tuple(LayerSum.of(layer) for layer in result.profile),
        {name: float(energy.total_mj) for name, energy in energies(result.profile, by).items()},
        estimates(result.profile),
        binning_s,
        reading_s,
        tuple(map(int, steps)),
        _lead(result, result.prediction),
        _lead(result, sample.label),
        input_sha256,
        bool(np.isfinite(result.logits).all()),
        defects=defects if defects.events else None,
    )


def _lead(result: Result, of: int) -> float | None:
    """Return a logit less the largest of the others."""
    others = np.delete(result.logits, of)
    if not len(others):
        return None
    lead = float(result.logits[of]) - float(others.max())
    return lead if math.isfinite(lead) else None


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)
