"""syops-counter and its descendant in Spikingformer: a layer is accumulates or multiply-accumulates as a whole."""

from __future__ import annotations

from functools import partial

import numpy as np

from eventsim.accounting.conventions.convention import Charge, Convention, Layers, unseen
from eventsim.accounting.conventions.seen import Seen

AS_SPIKES = "a layer of spikes costs dense operations times its mean input, borders included"


def mean_spikes(layer: Seen, most: int) -> float | None:
    """Return the mean input of a layer whose inputs the tools take as spikes; None of any other.

    Spikes are at most `most` + 1 distinct values in 0 to `most`: 0 and 0.3 are spikes too.
    """
    for values in layer.values:
        if values.levels is None or len(values.levels) > most + 1 or values.high > most:
            return None
    elements = sum(values.elements for values in layer.values)
    return sum(values.total for values in layer.values) / elements if elements else 0.0


def _layer(layer: Seen, operations: int, rate: float | None, most: int) -> Charge:
    if rate is not None:
        return Charge(acs=operations * rate, rule=AS_SPIKES, because=f"{operations:,} operations times {rate:.2%}")
    rule = "one input that is neither 0 nor 1 makes a layer MACs, all of it"
    if most > 1:
        rule = f"a layer is MACs, all of it, unless its inputs are at most {most + 1} values in 0 to {most}"
    return Charge(macs=operations, rule=rule, because=layer.others)


def attention_acs(layer: Seen) -> float | None:
    r"""Return what the tool of Spikingformer counts for an attention on spikes that come from neurons.

    .. math:: T H N d^2 (\min(r_K, r_V) + r_Q)

    with H heads of d channels, N tokens and the firing rates r of the neurons that emit q, k and v. None of any other
    layer.
    """
    facts = layer.facts
    if facts.role != "attention" or not facts.order or not all(source.neurons for source in layer.sources):
        return None
    if any(source.kind != "binary" or source.shape != facts.inputs[0].shape for source in facts.inputs):
        return None
    q, k, v = (source.firing_rate for source in layer.sources)
    width = facts.inputs[0].channels // facts.heads
    return layer.profile.steps * facts.heads * facts.inputs[0].positions * width**2 * (min(k, v) + q)


def spikingformer_tool(layers: Layers, most: int = 1) -> list[Charge]:
    """Charge as the energy tool of Spikingformer.

    A layer whose inputs are spikes (`mean_spikes`) counts its dense operations times the mean input as accumulates; a
    single other input makes all of them multiply-accumulates. Additions of a bias are operations (a folded batch
    normalisation gives every layer a bias; import with ``fold_bn=false`` for those that the tool saw). Spiking
    attention: `attention_acs`.

    Parameters
    ----------
    layers : sequence of Seen
    most : int
        The tool's ``Nspks_max``.
    """
    charges = []
    for layer in layers:
        acs = attention_acs(layer)
        if not layer.dense_macs and acs is None:
            charges.append(Charge())
        elif acs is not None:
            because = f"{acs:,.0f} accumulates by T H N d^2 (min(rK, rV) + rQ)"
            charges.append(Charge(acs=acs, rule="attention by a formula of three firing rates", because=because))
        else:
            operations = layer.dense_macs + layer.bias_additions
            charges.append(_layer(layer, operations, mean_spikes(layer, most), most))
    return charges


def syops(layers: Layers) -> list[Charge]:
    """Charge as syops-counter 0.0.5 does where each module is called once for all time steps.

    Convolutions and linear layers as `spikingformer_tool` with ``Nspks_max`` 1, pools by their inputs, and one
    accumulate for each neuron update. Products of two signals and sums outside of modules are not seen. Reproduced
    faults: borders count; ``{0, 0.3}`` are spikes; the bias of a linear layer counts once, whatever the tokens and
    steps; rates are single precision (their sum is exact below 2^24 only). Not reproduced: it divides by the length of
    the first axis of its input, which is time in SpikingJelly's multi-step mode. Batch normalisation, which it counts
    as multiply-accumulates, is not there once it is folded.
    """
    charges = []
    for layer in layers:
        facts, rate = layer.facts, mean_spikes(layer, 1)
        if rate is not None:
            rate = float(np.float32(rate))
        if layer.synaptic:
            once = facts.output.channels if facts.biased else 0
            bias = layer.bias_additions if facts.role == "convolution" else once
            charges.append(_layer(layer, layer.dense_macs + bias, rate, 1))
        elif facts.role == "pool" and facts.output.grid and facts.output.positions < facts.inputs[0].positions:
            charges.append(_layer(layer, layer.profile.steps * facts.inputs[0].size, rate, 1))
        elif facts.role == "neurons":
            updates = layer.profile.steps * facts.neurons
            rule = "one accumulate for each neuron update"
            charges.append(Charge(acs=updates, rule=rule, because=f"{updates:,} updates"))
        else:
            charges.append(unseen("the products of two signals are") if layer.dense_macs else Charge())
    return charges


SPIKINGFORMER_TOOL = Convention(
    "spikingformer_tool",
    "a layer is ACs or, if one input is above 1, MACs",
    "github.com/zhouchenlin2096/Spikingformer, energy_consumption_calculation, Nspks_max = 1",
    spikingformer_tool,
)
SPIKINGFORMER_TOOL_30 = Convention(
    "spikingformer_tool_30",
    "the same; inputs up to 30 are spikes",
    "github.com/zhouchenlin2096/Spikingformer, energy_consumption_calculation, Nspks_max = 30",
    partial(spikingformer_tool, most=30),
)
SYOPS = Convention(
    "syops",
    "a layer is ACs or, if one input is not 0 or 1, MACs",
    "Chen, github.com/iCGY96/syops-counter, syops 0.0.5",
    syops,
)
