"""What a layer executed over a sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from eventsim.facts import Facts
from eventsim.ledger import Counts
from eventsim.signals import CountArray
from eventsim.values import Values


@dataclass(eq=False)
class LayerProfile:
    """What one layer executed over the time steps of a sample.

    Attributes
    ----------
    name, kind, kernel : str
        Layer, its primitive, and what did the work.
    facts : Facts
        What the layer is, whatever runs through it.
    sources : tuple of str
        The layers that it hears, input by input.
    steps : int
        Time steps that the layer saw; a layer after the mean over time sees one.
    seconds : float
        Time spent, compilation aside.
    columns : mapping of str to int64 array (T,) or (1,)
        The layer's columns of the ledger by operation, those that its op wrote.
    by_steps : bool
        Whether the columns hold every time step; those of a stream hold sums.
    values : tuple of Values
        Of each input, where the layer multiplies, pools or joins: its values in the steps that were executed.
    """

    name: str
    kind: str
    kernel: str
    facts: Facts
    steps: int = 0
    seconds: float = 0.0
    columns: Mapping[str, CountArray] = field(default_factory=dict)
    by_steps: bool = False
    values: tuple[Values, ...] = ()
    sources: tuple[str, ...] = ()

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
