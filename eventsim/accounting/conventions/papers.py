r"""Papers' formulas: dense work times firing rate, with the first convolution in one way or another.

.. math:: E = 4.6\,\mathrm{pJ} \cdot MAC_1 + 0.9\,\mathrm{pJ} \cdot \sum_{l>1} SOP_l,
          \qquad SOP_l = r_l \, T \, MAC_l

r is the firing rate of a layer's input; where residual sums make it an integer, a non-zero input is taken as one spike.
Attention is a layer of 2 N^2 D dense operations. Borders are not seen: MAC_l includes the padding.
"""

from __future__ import annotations

from collections.abc import Callable

from eventsim.accounting.conventions.convention import Charge, Convention, Layers, unseen
from eventsim.accounting.conventions.seen import Seen, first_dense

RATE = "dense work times the density of the inputs"
DENSE_FIRST = "the first layer is dense in every time step"

First = Callable[[Seen], Charge]


def _at_rate(layer: Seen) -> Charge:
    """Charge dense work times density as accumulates; the rule names what this changes most."""
    facts, steps, counts = layer.facts, layer.profile.steps, layer.counts
    operations = layer.dense_macs * layer.density
    because = f"{layer.dense_macs:,} dense operations times {layer.density:.2%}"
    if facts.role == "attention":
        return Charge(
            operations, rule="attention is its dense products times the density of q, k and v", because=because
        )
    padding = steps * (facts.dense_macs - facts.inner_macs)
    same = f"its input is the same in all {steps} time steps and was served once"
    effects = (
        (counts.graded_acs - counts.graded_macs, "an integer counts as one spike", layer.others),
        (round(padding * layer.density), "the padding counts, too", f"{padding:,} of them in the padding"),
        (layer.executed * (layer.repeats - 1), "an image counts in every time step", same),
    )
    size, effect, found = max(effects)
    if not size:
        return Charge(operations, rule=RATE, because=because)
    return Charge(operations, rule=f"{RATE}: {effect}", because=f"{because}; {found}")


def _charges(layers: Layers, first: First) -> list[Charge]:
    """Charge the first layer with dense work by a rule of its own."""
    begins = first_dense(layers)
    return [
        Charge() if not layer.dense_macs else first(layer) if place == begins else _at_rate(layer)
        for place, layer in enumerate(layers)
    ]


def _dense(layer: Seen) -> Charge:
    zeros = 1 - layer.density
    return Charge(macs=layer.dense_macs, rule=DENSE_FIRST, because=f"{zeros:.1%} of its inputs are zero{_same(layer)}")


def _same(layer: Seen) -> str:
    return f", and its input is the same in all {layer.profile.steps} time steps" if layer.repeats > 1 else ""


def _dense_once(layer: Seen) -> Charge:
    return Charge(
        macs=layer.facts.dense_macs,
        rule="the first layer is dense in one time step, and not there in the others",
        because=f"one of {layer.profile.steps} time steps of {layer.facts.dense_macs:,} dense operations",
    )


def _left_out(layer: Seen) -> Charge:
    return unseen("the first layer is")


def _nonzero_pixels(layer: Seen) -> Charge:
    return Charge(
        macs=layer.dense_macs * layer.density,
        rule="the first layer costs MACs for its non-zero pixels",
        because=f"{layer.density:.1%} of {layer.dense_macs:,} dense operations{_same(layer)}",
    )


def spikformer_iclr(layers: Layers) -> list[Charge]:
    """Charge the first layer dense in every time step, the others at their rates."""
    return _charges(layers, _dense)


def spikformer_v2(layers: Layers) -> list[Charge]:
    r"""Leave the first layer out: :math:`P = 0.9\,\mathrm{pJ} \cdot \sum_{l>1} SOP_l`.

    The power that the paper prints for Spikformer V1 and V2 is 0.9 pJ times its operations, with no other term.
    """
    return _charges(layers, _left_out)


def first_convolution_once(layers: Layers) -> list[Charge]:
    """Charge the first convolution dense for a single time step."""
    return _charges(layers, _dense_once)


def attention_snn(layers: Layers) -> list[Charge]:
    r"""Charge the first convolution for its non-zero pixels, of event frames.

    .. math:: E = 4.6\,\mathrm{pJ} \cdot T\, FL_1\, \varphi_0 + 0.9\,\mathrm{pJ} \cdot T \sum_{n>1} FL_n\, \varphi_{n-1}
    """
    return _charges(layers, _nonzero_pixels)


def stformer(layers: Layers) -> list[Charge]:
    r"""Charge the convolution that sees the input, then cores, attention and MLP; the classifier is not in the sum.

    .. math:: E = 4.6\,\mathrm{pJ} \cdot FL_{conv} + 0.9\,\mathrm{pJ} \cdot (FL_{STCore} + FL_{SGA} + FL_{STMLP})

    The text calls MACs what turns the image into spikes, which is the first convolution. It leaves open what the other
    FL are; they are taken as dense work times density. The classifier is the last layer, if it emits a single vector.
    """
    charges = _charges(layers, _dense)
    last = max(place for place, layer in enumerate(layers) if layer.dense_macs)
    if layers[last].facts.role == "linear" and not layers[last].facts.output.grid:
        charges[last] = unseen("the classifier is")
    return charges


def no_first_convolution(layers: Layers) -> str | None:
    """Say what comes first, where it is no convolution."""
    begins = first_dense(layers)
    if begins is None:
        return "no layer with weights found; expected a convolution that comes first"
    if layers[begins].facts.role != "convolution":
        found = f"{layers[begins].facts.role} layer {layers[begins].name}"
        return f"{found} found first; expected a convolution that comes first"
    return None


def _no_attention(layers: Layers) -> str | None:
    if any(layer.facts.role == "attention" and len(layer.facts.inputs) == 3 for layer in layers):
        return no_first_convolution(layers)
    return "no attention found; expected the transformer that the formula is of"


SPIKFORMER_ICLR = Convention(
    "spikformer_iclr",
    "rate x T x FLOPs; first layer dense in every step",
    'Zhou et al., "Spikformer: When Spiking Neural Network Meets Transformer", ICLR 2023',
    spikformer_iclr,
)
SPIKFORMER_V2 = Convention(
    "spikformer_v2",
    "rate x T x FLOPs; without the first layer",
    'Zhou et al., "Spikformer V2: Join the High Accuracy Club on ImageNet with an SNN Ticket", arXiv 2401.02020',
    spikformer_v2,
)
FIRST_CONVOLUTION_ONCE = Convention(
    "first_convolution_once",
    "rate x T x FLOPs; first convolution dense in one step",
    "the rows of SEW-ResNet and tdBN in the tables of arXiv 2209.15425 and 2401.02020",
    first_convolution_once,
    no_first_convolution,
)
ATTENTION_SNN = Convention(
    "attention_snn",
    "rate x T x FLOPs; first convolution by its non-zero pixels",
    'Yao et al., "Attention Spiking Neural Networks", TPAMI 2023',
    attention_snn,
    no_first_convolution,
)
STFORMER = Convention(
    "stformer",
    "rate x T x FLOPs; first convolution dense, no classifier",
    "STFormer, eq. 13",
    stformer,
    _no_attention,
)
