"""What conventions see of a run: every layer's profile beside those of the layers that it hears."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eventsim.facts import Facts
from eventsim.ledger import Counts
from eventsim.operations import synaptic_operations
from eventsim.profile import LayerProfile
from eventsim.values import Values

SYNAPSES = ("convolution", "linear")


@dataclass(frozen=True)
class Seen:
    """One layer of a run.

    Attributes
    ----------
    profile : LayerProfile
    sources : tuple of LayerProfile
        Of the layers that it hears, input by input.
    """

    profile: LayerProfile
    sources: tuple[LayerProfile, ...] = ()

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.profile.name

    @property
    def facts(self) -> Facts:
        """What the layer is."""
        return self.profile.facts

    @property
    def counts(self) -> Counts:
        """What it executed."""
        return self.profile.counts

    @property
    def synaptic(self) -> bool:
        """Whether it has synapses: a convolution or linear layer, no attention."""
        return self.facts.role in SYNAPSES and self.profile.dense_macs > 0

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates of all time steps if nothing were sparse, borders included."""
        return self.profile.dense_macs

    @property
    def bias_additions(self) -> int:
        """Outputs of all time steps that receive a bias."""
        return self.profile.steps * self.facts.biased

    @property
    def outputs(self) -> int:
        """Values emitted in all time steps."""
        return self.profile.steps * self.facts.output.size

    @property
    def density(self) -> float:
        """Non-zero inputs per input."""
        return self.profile.input_density

    @property
    def values(self) -> tuple[Values, ...]:
        """What is known of the values of each input."""
        return self.profile.values

    @property
    def repeats(self) -> int:
        """How often a machine would execute the layer that does not know that its input is the same in every step."""
        executed = sum(values.elements for values in self.values)
        offered = self.profile.steps * sum(source.size for source in self.facts.inputs)
        return offered // executed if executed else 1

    @property
    def executed(self) -> int:
        """Synapses served, each non-zero integer once."""
        return synaptic_operations(self.counts)

    @property
    def others(self) -> str:
        """Say how many inputs are neither 0 nor 1."""
        found = sum(values.others for values in self.values)
        kind = "real values" if any(source.kind == "real" for source in self.facts.inputs) else "integers above 1"
        return f"{found:,} of its {sum(values.elements for values in self.values):,} inputs are {kind}"


def seen(profile: Sequence[LayerProfile]) -> list[Seen]:
    """Return every layer of a run, in order of execution.

    Parameters
    ----------
    profile : sequence of LayerProfile
        What a simulation returned.
    """
    profiles = {layer.name: layer for layer in profile}
    return [Seen(layer, tuple(profiles[source] for source in layer.sources)) for layer in profile]


def first_dense(layers: Sequence[Seen]) -> int | None:
    """Return the place of the first layer with dense work; None without one."""
    return next((place for place, layer in enumerate(layers) if layer.dense_macs), None)
