"""How papers and tools would have counted a run: the operations and the energy of their published rules.

The ledger (`eventsim.ledger`) holds what was executed; a convention estimates it from dense work and firing rates.
Shown side by side, they tell where a published figure comes from and how far it is from the truth. Every convention
charges 45 nm: 0.9 pJ per accumulate, 4.6 pJ per multiply-accumulate (the energy model ``45nm_mac``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from eventsim.accounting.energy import models
from eventsim.layers import SpikingAttention
from eventsim.ledger import Counts
from eventsim.network import Network
from eventsim.result import LayerProfile


@dataclass(frozen=True)
class AttentionFacts:
    """Spiking self-attention as the Spikingformer tool sees it.

    Attributes
    ----------
    steps, heads, tokens, channels : int
    q_rate, k_rate, v_rate : float
        Firing rates of the neurons that emit q, k and v.
    """

    steps: int
    heads: int
    tokens: int
    channels: int
    q_rate: float
    k_rate: float
    v_rate: float

    @property
    def acs(self) -> float:
        r"""Accumulates: :math:`T H N d^2 (\min(r_K, r_V) + r_Q)`, with d channels per head."""
        head_channels = self.channels // self.heads
        dense = self.steps * self.heads * self.tokens * head_channels**2
        return dense * (min(self.k_rate, self.v_rate) + self.q_rate)


@dataclass(frozen=True)
class LayerFacts:
    """What a convention knows about one layer with weights, or one attention, over all time steps of a sample.

    Attributes
    ----------
    dense_macs : int
        Multiply-accumulates if nothing were sparse, borders included.
    bias_additions : int
        Outputs that receive a bias.
    input_density : float
        Non-zero inputs per input: the firing rate in the papers' formulas.
    binary_input : bool
        Whether every input was 0 or 1.
    attention : AttentionFacts, optional
        Where the layer is a spiking self-attention.
    """

    dense_macs: int
    bias_additions: int
    input_density: float
    binary_input: bool
    attention: AttentionFacts | None = None


def facts(network: Network, profile: Sequence[LayerProfile]) -> list[LayerFacts]:
    """Return the facts of a run, layer by layer in order of execution; layers without dense work are left out.

    Integers that all happen to be 0 or 1 are binary inputs, real values never are.

    Parameters
    ----------
    network : Network
    profile : sequence of LayerProfile
        What a simulation of this network returned.
    """
    profiles = {layer.name: layer for layer in profile}
    return [
        LayerFacts(
            layer.dense_macs,
            layer.steps * bias_additions(network, layer.name),
            layer.input_density,
            layer.counts.macs == 0 and layer.counts.graded_acs == layer.counts.graded_macs,
            _attention(network, profiles, layer),
        )
        for layer in profile
        if layer.dense_macs
    ]


def bias_additions(network: Network, name: str) -> int:
    """Return how many outputs of a layer receive a bias in one time step."""
    return network.types[name].size if "bias" in network.layers[name].arrays() else 0


def _attention(network: Network, profiles: Mapping[str, LayerProfile], profile: LayerProfile) -> AttentionFacts | None:
    """Return the facts of a spiking attention between neurons; the tool knows no other."""
    layer = network.layers[profile.name]
    sources = [profiles[source] for source in network.sources[profile.name]]
    types = network.input_types(profile.name)
    if not isinstance(layer, SpikingAttention) or not all(source.neurons for source in sources):
        return None
    type_of_q = types[0]
    if any(source.kind != "binary" or source.shape != type_of_q.shape for source in types):
        return None
    q_rate, k_rate, v_rate = (source.firing_rate for source in sources)
    return AttentionFacts(profile.steps, layer.heads, type_of_q.positions, type_of_q.channels, q_rate, k_rate, v_rate)


def spikformer_iclr(layers: Sequence[LayerFacts]) -> Counts:
    r"""Count as the first Spikformer paper does, for images.

    .. math:: E = 4.6\,\mathrm{pJ} \cdot MAC_1 + 0.9\,\mathrm{pJ} \cdot \sum_{l>1} SOP_l,
              \qquad SOP_l = r_l \, T \, MAC_l

    The first convolution is dense in every time step. r is the firing rate of a layer's input; where residual sums
    make it an integer, a non-zero input is taken as one spike. Attention is a layer of 2 N^2 D dense operations.

    Zhou et al., "Spikformer: When Spiking Neural Network Meets Transformer", ICLR 2023.
    """
    return Counts(acs=_synaptic_operations(layers[1:]), macs=sum(layer.dense_macs for layer in layers[:1]))


def spikformer_v2(layers: Sequence[LayerFacts]) -> Counts:
    r"""Count as `spikformer_iclr`, without the first convolution: :math:`P = 0.9\,\mathrm{pJ} \cdot \sum_{l>1} SOP_l`.

    The power that the paper prints for Spikformer V1 and V2 is 0.9 pJ times its operations, with no other term.

    Zhou et al., "Spikformer V2: Join the High Accuracy Club on ImageNet with an SNN Ticket", arXiv 2401.02020.
    """
    return Counts(acs=_synaptic_operations(layers[1:]))


def _synaptic_operations(layers: Sequence[LayerFacts]) -> int:
    return round(sum(layer.dense_macs * layer.input_density for layer in layers))


def spikingformer_tool(layers: Sequence[LayerFacts]) -> Counts:
    """Count as the energy tool of Spikingformer, a modified syops-counter, which also gave figures for Spikformer.

    A layer whose inputs are all 0 or 1 counts its dense operations times the input density as accumulates; a single
    other input makes all of them multiply-accumulates. Additions of a bias are operations (a folded batch
    normalisation gives every layer a bias; import with ``fold_bn=false`` for those that the tool saw). Spiking
    attention: `AttentionFacts.acs`.

    github.com/zhouchenlin2096/Spikingformer, energy_consumption_calculation; Chen, github.com/iCGY96/syops-counter.
    """
    acs, macs = 0.0, 0
    for layer in layers:
        operations = layer.dense_macs + layer.bias_additions
        if layer.attention is not None:
            acs += layer.attention.acs
        elif layer.binary_input:
            acs += operations * layer.input_density
        else:
            macs += operations
    return Counts(acs=round(acs), macs=macs)


CONVENTIONS: Mapping[str, Callable[[Sequence[LayerFacts]], Counts]] = MappingProxyType(
    {
        "spikformer_iclr": spikformer_iclr,
        "spikformer_v2": spikformer_v2,
        "spikingformer_tool": spikingformer_tool,
    }
)


def estimates(network: Network, profile: Sequence[LayerProfile]) -> dict[str, dict[str, float]]:
    """Return what each convention would have counted for a run: ``acs``, ``macs``, ``energy_mj`` by its name."""
    layers = facts(network, profile)
    price = models()["45nm_mac"]
    counted = {name: convention(layers) for name, convention in CONVENTIONS.items()}
    return {
        name: {"acs": counts.acs, "macs": counts.macs, "energy_mj": price.millijoules(counts)}
        for name, counts in counted.items()
    }
