"""What a simulation returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from eventsim.facts import Facts
from eventsim.ledger import Counts
from eventsim.signals import CountArray, FloatArray


@dataclass(eq=False)
class LayerProfile:
    """What one layer executed over the time steps of a sample.

    Attributes
    ----------
    name, kind, kernel : str
        Layer, its primitive, and what did the work.
    facts : Facts
        What the layer is, whatever runs through it.
    steps : int
        Time steps that the layer saw; a layer after the mean over time sees one.
    seconds : float
        Time spent, compilation aside.
    columns : dict of str to int64 array (T,) or (1,)
        The layer's columns of the ledger by operation, those that its op wrote.
    by_steps : bool
        Whether the columns hold every time step; those of a stream hold sums.
    """

    name: str
    kind: str
    kernel: str
    facts: Facts
    steps: int = 0
    seconds: float = 0.0
    columns: dict[str, CountArray] = field(default_factory=dict)
    by_steps: bool = False

    @property
    def neurons(self) -> int:
        """Neurons that hold a membrane potential."""
        return self.facts.neurons

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of a machine that skips nothing, in all time steps that the layer saw."""
        return self.steps * self.facts.dense_macs

    @cached_property
    def executed(self) -> dict[str, CountArray]:
        """What the op reported and what that entails, by operation: int64 ``(T,)``, or ``(1,)`` where sums are kept."""
        executed = dict(self.columns)
        for operation, column in self.facts.derived(self.columns).items():
            executed[operation] = executed[operation] + column if operation in executed else column
        return executed

    @cached_property
    def counts(self) -> Counts:
        """Every operation executed; ``counts.acs`` and so on."""
        return Counts({operation: int(column.sum()) for operation, column in self.executed.items()})

    @property
    def by_step(self) -> dict[str, CountArray] | None:
        """The counts of each time step by operation, ``(T,)``; None for a stream, which keeps sums.

        What is computed once for an image shown in every step was executed in the first.
        """
        return self.executed if self.by_steps else None

    @property
    def firing_rate(self) -> float:
        """Spikes per neuron and time step."""
        return self.counts.spikes / max(self.neurons * self.steps, 1)

    @property
    def input_density(self) -> float:
        """Non-zero inputs per input."""
        return self.counts.nonzero_inputs / max(self.counts.inputs, 1)

    def summed(self) -> LayerProfile:
        """Return the profile without its time steps."""
        sums = {operation: column.sum(keepdims=True) for operation, column in self.columns.items()}
        return replace(self, columns=sums, by_steps=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the layer as one plain row: names, rates, and every operation of the table."""
        return {
            "name": self.name,
            "kind": self.kind,
            "kernel": self.kernel,
            "neurons": self.neurons,
            "steps": self.steps,
            "firing_rate": self.firing_rate,
            "input_density": self.input_density,
            "dense_macs": self.dense_macs,
            **self.counts,
            "seconds": self.seconds,
        }


@dataclass(repr=False, eq=False)
class Result:
    """Outcome of one sample, or of the steps of a stream so far.

    Attributes
    ----------
    logits : float32 array (classes,)
    time_steps : int
    profile : list of LayerProfile
        In order of execution.
    step_latency_s : list of float
        Seconds of each chunk (each time step where the chunk is 1); of a stream, of the last step alone.
    recorded : dict of str to float32 array
        Output of the layers asked for, ``(T, C, H, W)``, ``(T, N, C)`` or ``(T, C)``; of a stream, in the last step.
    latency_s : float
        Seconds from the first frame to the logits.
    step_logits : float32 array (S, classes)
        The logits after each time step that had some: all T of them, or fewer, the last ones, behind a mean over time;
        one where nothing changes over time. Of a recording of unknown length and of a stream, those of the last chunk.
    potentials : dict of str to float32 array
        Membrane potentials after the reset of the layers asked for, as `recorded`.
    """

    logits: FloatArray
    time_steps: int
    profile: list[LayerProfile]
    step_latency_s: list[float]
    recorded: dict[str, FloatArray]
    latency_s: float
    step_logits: FloatArray
    potentials: dict[str, FloatArray] = field(default_factory=dict)

    @property
    def prediction(self) -> int:
        """Index of the largest logit."""
        return int(np.argmax(self.logits))

    @property
    def decided_step(self) -> int | None:
        """The first time step from which on the prediction stayed as it ended; None without logits of every step."""
        if len(self.step_logits) != self.time_steps:
            return None
        other = np.flatnonzero(self.step_logits.argmax(axis=1) != self.prediction)
        return int(other[-1]) + 1 if len(other) else 0

    def first_step_of(self, label: int) -> int | None:
        """Return the first time step after which `label` was predicted; None if never, or not told by every step."""
        if len(self.step_logits) != self.time_steps:
            return None
        right = np.flatnonzero(self.step_logits.argmax(axis=1) == label)
        return int(right[0]) if len(right) else None

    @property
    def totals(self) -> Counts:
        """Counts over all layers."""
        return Counts.total(layer.counts for layer in self.profile)

    def rows(self) -> list[dict[str, Any]]:
        """Return one plain row for each layer, as any data frame takes them."""
        return [layer.to_dict() for layer in self.profile]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but recorded outputs as plain data."""
        return {
            "logits": [float(value) for value in self.logits],
            "prediction": self.prediction,
            "time_steps": self.time_steps,
            "latency_s": self.latency_s,
            "step_latency_s": list(self.step_latency_s),
            "totals": totals_row(self.profile, self.time_steps),
            "layers": self.rows(),
        }

    def __repr__(self) -> str:
        executed: Mapping[str, int] = self.totals
        synaptic = executed["acs"] + executed["graded_macs"] + executed["macs"]
        dense = sum(layer.dense_macs for layer in self.profile)
        return (
            f"Result(prediction {self.prediction}, {self.time_steps} time steps, {executed['spikes']:,} spikes, "
            f"{synaptic:,} of {dense:,} dense MACs, {self.latency_s * 1e3:.1f} ms)"
        )


def totals_row(profile: list[LayerProfile], time_steps: int) -> dict[str, Any]:
    """Return a profile summed over its layers, with the keys of one layer."""
    counts = Counts.total(layer.counts for layer in profile)
    neurons = sum(layer.neurons for layer in profile)
    return {
        "name": "total",
        "kind": "",
        "kernel": "",
        "neurons": neurons,
        "steps": time_steps,
        "firing_rate": counts.spikes / max(neurons * time_steps, 1),
        "input_density": counts.nonzero_inputs / max(counts.inputs, 1),
        "dense_macs": sum(layer.dense_macs for layer in profile),
        **counts,
        "seconds": sum(layer.seconds for layer in profile),
    }
