"""The counters of SpikingJelly 2.0: additions where an operand is spikes, dense multiply-accumulates elsewhere."""

from __future__ import annotations

from collections.abc import Callable

from eventsim.accounting.conventions.convention import Charge, Convention, Layers
from eventsim.accounting.conventions.seen import Seen

SPIKES = "spikes cost an addition for each synapse inside of the map, in every time step"
DENSE = "one input that is neither 0 nor 1 makes a layer MACs, all of it, borders included"


def _synapses(layer: Seen) -> Charge:
    """Charge a convolution or linear layer."""
    (values,) = layer.values
    if not values.spikes:
        return Charge(macs=layer.dense_macs, rule=DENSE, because=layer.others)
    served: float = layer.executed * layer.repeats
    if layer.counts.macs:  # real values that happen to be 0 or 1: where they lie is not kept
        served = layer.profile.steps * layer.facts.inner_macs * values.density
    same = f", the same in all {layer.profile.steps} time steps" if layer.repeats > 1 else ""
    return Charge(acs=served, rule=SPIKES, because=f"{values.nonzero:,} spikes{same}")


def _attention(layer: Seen) -> Charge:
    """Charge the two products of an attention without softmax, in its order, the scale between or behind them."""
    q, k, v = layer.values
    facts, steps, times = layer.facts, layer.profile.steps, layer.repeats
    q_type, k_type, v_type = facts.inputs
    width, v_width = q_type.channels // facts.heads, v_type.channels // facts.heads
    if facts.order == "scores_first":
        pair, served = (q, k), (k_type.positions, q_type.positions)
        dense = q_type.positions * k_type.positions * q_type.channels
        second, second_served = v, q_type.positions
        second_dense = q_type.positions * k_type.positions * v_type.channels
    else:
        pair, served = (k, v), (v_width, width)
        dense = k_type.positions * k_type.channels * v_width
        second, second_served = q, v_width
        second_dense = q_type.positions * q_type.channels * v_width
    acs = macs = 0
    if pair[0].spikes and pair[1].spikes:
        acs += layer.counts.coincidences * times
    elif pair[0].spikes or pair[1].spikes:
        spikes, each = (pair[0], served[0]) if pair[0].spikes else (pair[1], served[1])
        acs += spikes.nonzero * each * times
    else:
        macs += steps * dense
    if not second.spikes:
        macs += steps * second_dense
    elif layer.counts.coincidences or not (pair[0].spikes and pair[1].spikes):
        acs += second.nonzero * second_served * times
    zeros = "zeros of the map are not skipped in the second product"
    return Charge(acs, macs, "attention: where spikes meet, then spikes times a dense map", zeros)


def _softmax(layer: Seen) -> Charge | None:
    """Charge the two products of an attention with softmax, whose values arrive side by side."""
    (values,) = layer.values
    return None if values.spikes else Charge(macs=layer.dense_macs, rule=DENSE, because=layer.others)


def _join(layer: Seen) -> Charge:
    """Charge an element-wise addition: spikes on both sides, else every output."""
    rule = "an addition for each output of a sum, for each spike where both sides are spikes"
    if all(values.spikes for values in layer.values):
        added = sum(values.nonzero for values in layer.values) * layer.repeats
        return Charge(acs=added, rule=rule, because=f"{added:,} spikes joined")
    return Charge(acs=layer.outputs, rule=rule, because=f"{layer.outputs:,} sums, zero or not")


def _pool(layer: Seen) -> Charge:
    """Charge a sum or mean: values less results, zeros too."""
    kept = layer.facts.output.size
    over_time = layer.facts.inputs[0].size == kept
    values = layer.profile.steps * layer.facts.inputs[0].size
    added = values - (kept if over_time else layer.profile.steps * kept)
    return Charge(acs=added, rule="a sum or mean adds all values, zeros too", because=f"{added:,} additions")


def _charged(rules: Callable[[Seen], Charge | None], layers: Layers) -> list[Charge]:
    return [rules(layer) or Charge() for layer in layers]


def spikingjelly(layers: Layers) -> list[Charge]:
    """Charge as ``ACCounter`` and ``MACCounter`` of SpikingJelly 2.0.0 do, neurons left out.

    The network as it is here: batch normalisation folded, neurons told to ``extra_ignore_modules`` (their additions
    depend on how a node is written), modules called once for all time steps. What the counters do and this does, too:
    one integer above 1 makes a whole layer multiply-accumulates, borders included; zeros of an attention map are not
    skipped. Not kept, and so not reproduced: where the ones lie in real values that all happen to be 0 or 1 (their
    share counts), weights that are all 0 or 1, attention maps that are, weights of 0 in a layer of which most are 0
    (there they cost as much as others), the ``1 - x`` of an IAND join. Windows of mean pools are taken not to overlap.
    Attention with tables, global context, gates and a softmax over spikes alone are not seen.
    """

    def rule(layer: Seen) -> Charge | None:
        role = layer.facts.role
        if layer.synaptic and len(layer.values) == 1:
            return _synapses(layer)
        if role == "attention" and layer.facts.order and layer.values:
            return _attention(layer)
        if role == "attention" and layer.facts.heads and len(layer.values) == 1:
            return _softmax(layer)
        entailed = {operation for follows in layer.facts.entailed.values() for operation in follows}
        if role == "join" and "residual_additions" in entailed and layer.facts.output.kind != "binary":
            return _join(layer)
        if role == "pool" and "pool_comparisons" not in entailed and not layer.dense_macs:
            return _pool(layer)
        return None

    return _charged(rule, layers)


def spikingjelly_synops(layers: Layers) -> list[Charge]:
    """Charge as ``SynOpCounter`` of SpikingJelly 2.0.0: products with spikes alone, nothing for any other."""
    charges = []
    for layer, charge in zip(layers, spikingjelly(layers), strict=True):
        if layer.facts.role in ("join", "pool"):
            charges.append(Charge())
        elif charge.macs:
            charges.append(Charge(acs=charge.acs, rule="products without spikes are not counted", because=layer.others))
        else:
            charges.append(charge)
    return charges


def _no_products(layers: Layers) -> str | None:
    known = any(layer.synaptic or layer.facts.heads for layer in layers)
    return (
        None
        if known
        else "no convolution, linear layer, spiking attention or attention with softmax found; expected one"
    )


SPIKINGJELLY = Convention(
    "spikingjelly",
    "spikes: ACs inside of the map; anything else: dense MACs; attention and sums",
    "SpikingJelly 2.0.0, op_counter: ACCounter and MACCounter",
    spikingjelly,
    _no_products,
)
SPIKINGJELLY_SYNOPS = Convention(
    "spikingjelly_synops",
    "the same, products with spikes alone",
    "SpikingJelly 2.0.0, op_counter: SynOpCounter",
    spikingjelly_synops,
    _no_products,
)
