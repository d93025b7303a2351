"""What a simulation returns."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from eventsim.ledger import Counts
from eventsim.operations import synaptic_operations
from eventsim.profile import LayerProfile, totals_row
from eventsim.signals import FloatArray

if TYPE_CHECKING:
    from eventsim.accounting.conventions import Estimate
    from eventsim.accounting.energy import Energy

NEUROBENCH_NAMES = {
    "Dense": "dense",
    "ActivationSparsity": "activation_sparsity",
    "MembraneUpdates": "membrane_updates",
    "Footprint": "footprint_bytes",
}
"""Its names of metrics, and those that they have in `eventsim.accounting.conventions`."""


@dataclass(repr=False, eq=False)
class Result:
    """Outcome of one sample, or of the steps of a stream so far.

    Attributes
    ----------
    logits : float32 array (classes,)
    time_steps : int
    told : callable
        Tells the profile, which is put together when somebody asks for it.
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
    told: Callable[[], list[LayerProfile]]
    step_latency_s: list[float]
    recorded: dict[str, FloatArray]
    latency_s: float
    step_logits: FloatArray
    potentials: dict[str, FloatArray] = field(default_factory=dict)

    @cached_property
    def profile(self) -> list[LayerProfile]:
        """What every layer executed, in order of execution."""
        return self.told()

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

    @cached_property
    def energy(self) -> Mapping[str, Energy]:
        """Energy by every shipped model (`eventsim.accounting.energy`), by its name."""
        from eventsim.accounting.energy import energies, models  # noqa: PLC0415 - a run alone has no prices

        return energies(self.profile, models())

    @cached_property
    def conventions(self) -> Mapping[str, Estimate]:
        """What papers and tools would have counted (`eventsim.accounting.conventions`), by the convention's name."""
        from eventsim.accounting.conventions import compare  # noqa: PLC0415 - nor rules of papers

        return compare(self.profile)

    def neurobench(self) -> dict[str, float]:
        """Return the metrics of NeuroBench under its names, as far as they mean something for the network."""
        found = self.conventions.get("neurobench")
        if found is None:
            return {}
        numbers = found.numbers
        named = {theirs: numbers[ours] for theirs, ours in NEUROBENCH_NAMES.items() if ours in numbers}
        return {"Effective_ACs": found.acs, "Effective_MACs": found.macs, **named}

    @property
    def totals(self) -> Counts:
        """Counts over all layers."""
        return Counts.total(layer.counts for layer in self.profile)

    def rows(self) -> list[dict[str, Any]]:
        """Return one plain row for each layer, as any data frame takes them."""
        return [layer.to_dict() for layer in self.profile]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but recorded outputs, energies and conventions as plain data."""
        return {
            "logits": [float(value) for value in self.logits],
            "prediction": self.prediction,
            "time_steps": self.time_steps,
            "latency_s": self.latency_s,
            "step_latency_s": list(self.step_latency_s),
            "totals": totals_row(self.profile, self.time_steps),
            "layers": self.rows(),
        }

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the outcome, and the layers that executed most."""
        most = sorted(self.profile, key=lambda layer: -synaptic_operations(layer.counts))[:12]
        rows = [layer for layer in self.profile if layer in most and synaptic_operations(layer.counts)]
        whole = max(synaptic_operations(self.totals), 1)
        cells = [
            (
                html.escape(layer.name),
                f"{synaptic_operations(layer.counts):,}",
                f"{synaptic_operations(layer.counts) / whole:.1%}",
                f"{synaptic_operations(layer.counts) / layer.dense_macs:.1%}" if layer.dense_macs else "",
                f"{layer.seconds * 1e3:.2f}",
            )
            for layer in rows
        ]
        heading = "".join(f"<th>{name}</th>" for name in ("layer", "executed", "of all", "of dense", "ms"))
        body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in cells)
        return f"<p>{html.escape(repr(self))}</p><table><thead><tr>{heading}</tr></thead><tbody>{body}</tbody></table>"

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in vars(self).items() if name not in ("energy", "conventions", "told")}
        return {**kept, "profile": self.profile}

    def __repr__(self) -> str:
        executed: Mapping[str, int] = self.totals
        synaptic = synaptic_operations(executed)
        dense = sum(layer.dense_macs for layer in self.profile)
        return (
            f"Result(prediction {self.prediction}, {self.time_steps} time steps, {executed['spikes']:,} spikes, "
            f"{synaptic:,} of {dense:,} dense MACs, {self.latency_s * 1e3:.1f} ms)"
        )
