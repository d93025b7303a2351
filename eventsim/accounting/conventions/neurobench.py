"""The metrics of NeuroBench: effective and dense synaptic operations, sparsity, footprint, membrane updates."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from eventsim.accounting.conventions.convention import Charge, Convention, Layers, unseen
from eventsim.accounting.conventions.seen import Seen
from eventsim.signals import CountArray


def _of_step(columns: Mapping[str, CountArray], *operations: str) -> CountArray:
    found = [columns[operation] for operation in operations if operation in columns]
    return np.sum(found, axis=0, dtype=np.int64) if found else np.zeros(1, np.int64)


def _synapses(layer: Seen) -> Charge:
    columns = layer.profile.by_step or {}
    served = _of_step(columns, "acs", "graded_macs", "macs").astype(np.float64)
    nonzero = _of_step(columns, "nonzero_inputs")
    (source,) = layer.facts.inputs
    if source.dense:  # zeros are served here and not there
        served = served * nonzero / source.size
    valued = np.broadcast_to(_of_step(columns, "valued_inputs"), served.shape)
    acs, macs = float(served[valued == 0].sum()), float(served[valued > 0].sum())
    steps = int(np.count_nonzero(valued))
    return Charge(
        acs * layer.repeats,
        macs * layer.repeats,
        "a time step with an input other than -1, 0 and 1 costs MACs, its non-zero inputs alone"
        if steps
        else "non-zero inputs times their synapses",
        f"{steps} of {layer.profile.steps} time steps; {layer.others}",
    )


def neurobench(layers: Layers) -> list[Charge]:
    """Charge ``Effective_ACs`` and ``Effective_MACs`` of NeuroBench 2.3.0, for one sample, called step by step.

    Convolutions and linear layers alone, borders exact; a time step whose inputs are all -1, 0 or 1 is accumulates,
    any other multiply-accumulates. Attention and sums are not seen, nor are biases. Theirs adds up single precision
    numbers: equal to this up to 2^24 a layer and step, rounded above. Not kept here: where the zeros of a dense real
    input lie (of a convolution, their share is taken), and, of a layer that is not pruned, which synapses have a weight
    of exactly 0, which theirs skips: ``zero_weights`` says how many weights these are; without any, all is equal.
    """
    return [
        _synapses(layer)
        if layer.synaptic and len(layer.facts.inputs) == 1
        else unseen("the products of two signals are")
        if layer.dense_macs
        else Charge()
        for layer in layers
    ]


def _counted_zeros(layer: Seen) -> int:
    """Return the weights of 0 that count as synapses: those of a layer of which no more than half are 0."""
    zeros, weights = layer.facts.zero_weights, layer.facts.words.get("weight")
    return 0 if weights is not None and 2 * zeros > weights.number else zeros


def metrics(layers: Layers) -> dict[str, float]:
    """Return the other metrics.

    Returns
    -------
    dict of str to float
        ``dense``: synapses served, were every input and weight 1. ``activation_sparsity``: outputs of neurons that are
        zero, per output. ``footprint_bytes``: weights, biases and tables; theirs has the buffers of neurons, too.
        ``membrane_updates``: every neuron in the first time step, those whose charge changed the potential in the
        others, where neurons report it; theirs compares potentials behind the reset, which is the same where a reset
        subtracts one step late, as in snnTorch.
    """
    neurons = [layer.profile for layer in layers if layer.facts.role == "neurons"]
    outputs = sum(profile.neurons * profile.steps for profile in neurons)
    owned = (layer.facts.words.get(kind) for layer in layers for kind in ("weight", "bias", "table"))
    found: dict[str, float] = {
        "dense": sum(layer.profile.steps * layer.facts.inner_macs for layer in layers if layer.synaptic),
        "zero_weights": sum(_counted_zeros(layer) for layer in layers if layer.synaptic),
        "footprint_bytes": sum(words.bytes for words in owned if words is not None),
    }
    if outputs:
        found["activation_sparsity"] = 1 - sum(profile.counts.spikes for profile in neurons) / outputs
    changed = [(profile.by_step or {}).get("updates_with_change") for profile in neurons]
    if neurons and all(column is not None for column in changed):
        first = sum(profile.neurons for profile in neurons)
        found["membrane_updates"] = first + sum(int(column[1:].sum()) for column in changed if column is not None)
    return found


def _refuses(layers: Layers) -> str | None:
    synaptic = [layer for layer in layers if layer.synaptic]
    if not synaptic:
        return "no convolution or linear layer found; expected one"
    for layer in synaptic:
        if layer.profile.by_step is None:
            return "sums of a stream found; expected the counts of each time step, run T frames"
    return None


NEUROBENCH = Convention(
    "neurobench",
    "non-zero inputs, MACs in time steps with other values than -1, 0, 1; no attention",
    "Yik et al., Nature Communications 2025; NeuroBench 2.3.0",
    neurobench,
    _refuses,
    metrics,
)
