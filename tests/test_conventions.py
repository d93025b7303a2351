"""Conventions of papers and tools, against their rules applied to the recorded activity of a whole run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from state_dicts import spikformer_state

from eventsim import Network, NetworkBuilder, Result, Simulator
from eventsim.conventions import CONVENTIONS, LayerFacts, facts, spikformer_iclr, spikformer_v2, spikingformer_tool
from eventsim.layers import IF, Conv2d, Flatten, Input, Readout, SelectChannels, SpikingAttention
from eventsim.ledger import Counts
from eventsim.report.document import sample_document
from eventsim_importers import spikformer
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.container import Contents

HEADS = 2


def small_spikformer(channels: int) -> Network:
    checkpoint = Checkpoint(Path("small"), "npz", Contents(spikformer_state("cifar", channels=channels)))
    options = spikformer.Options(heads=HEADS, height=16, width=16, time_steps=3, fold_bn=False)
    return spikformer.read(checkpoint, options)


def samples() -> dict[str, np.ndarray]:
    """Event counts, the same clipped to spikes, and one image for all time steps."""
    rng = np.random.default_rng(0)
    events = rng.poisson(0.5, (3, 2, 16, 16))
    return {"counts": events, "spikes": np.minimum(events, 1), "image": rng.normal(size=(3, 16, 16))}


def read_by(network: Network, result: Result, name: str) -> list[np.ndarray]:
    return [result.recorded[source] for source in network.sources[name]]


def by_hand(network: Network, result: Result) -> dict[str, tuple[float, float]]:
    """ACs and MACs of each convention, from what every layer read."""
    synaptic, tool_acs, tool_macs = [], 0.0, 0
    for name in network.order:
        layer, inputs = network.layers[name], read_by(network, result, name)
        if name.endswith(".attn"):
            q, k, v = inputs
            steps, width, tokens = *q.shape[:2], int(np.prod(q.shape[2:]))
            synaptic.append((2 * steps * tokens**2 * width, np.mean([(x != 0).mean() for x in inputs])))
            dense = steps * HEADS * tokens * (width // HEADS) ** 2
            tool_acs += dense * (min(k.mean(), v.mean()) + q.mean())
        elif name.endswith(("_conv", "_linear", "head", "conv1", "conv2", "conv3")):
            (x,) = inputs
            outputs = result.recorded[name]
            dense = outputs.size * int(np.prod(layer.weight.shape[1:]))
            synaptic.append((dense, (x != 0).mean()))
            operations = dense + (0 if layer.bias is None else outputs.size)
            if set(np.unique(x)) <= {0, 1}:
                tool_acs += operations * x.mean()
            else:
                tool_macs += operations
    (first, _), *others = synaptic
    sops = sum(dense * density for dense, density in others)
    return {
        "spikformer_iclr": (sops, first),
        "spikformer_v2": (sops, 0),
        "spikingformer_tool": (tool_acs, tool_macs),
    }


@pytest.mark.parametrize("sample", samples())
@pytest.mark.parametrize("chunk", [None, 1])
def test_conventions_are_the_published_rules(sample: str, chunk: int | None) -> None:
    frames = samples()[sample]
    network = small_spikformer(channels=frames.shape[-3])
    result = Simulator(network, chunk=chunk, record=network.layers).run(frames)
    layers = facts(network, result.profile)
    expected = by_hand(network, result)
    assert set(expected) == set(CONVENTIONS)
    for name, convention in CONVENTIONS.items():
        acs, macs = expected[name]
        counts = convention(layers)
        assert counts == Counts(acs=counts.acs, macs=counts.macs)
        assert counts.acs == pytest.approx(acs, abs=1, rel=1e-6)
        assert counts.macs == macs
        assert counts.acs > 0
    assert layers[0].binary_input == (sample == "spikes")


def test_a_profile_holds_every_convention_beside_the_exact_counts() -> None:
    network = small_spikformer(channels=2)
    result = Simulator(network).run(samples()["counts"])
    document = sample_document("sample", network, result)
    layers = facts(network, result.profile)
    for name, convention in CONVENTIONS.items():
        acs, macs = convention(layers).acs, convention(layers).macs
        energy = pytest.approx((0.9 * acs + 4.6 * macs) * 1e-9)
        assert document["conventions"][name] == {"acs": acs, "macs": macs, "energy_mj": energy}
    exact = document["totals"]["acs"] + document["totals"]["graded_macs"] + document["totals"]["macs"]
    assert exact < sum(document["conventions"]["spikingformer_tool"][key] for key in ("acs", "macs"))


def one_convolution(values: np.ndarray) -> tuple[list[LayerFacts], Counts]:
    """Sixteen maps of 8 x 8 pixels, 190 active inputs."""
    rng = np.random.default_rng(0)
    frames = np.zeros(16 * 8 * 8, np.float32)
    frames[rng.permutation(frames.size)[: len(values)]] = values
    build = NetworkBuilder("convolution")
    x = build.add("input", Input((16, 8, 8), "graded"))
    x = build.add("conv", Conv2d(rng.normal(size=(16, 16, 3, 3)).astype(np.float32), padding=(1, 1)), x)
    build.add("readout", Readout(), build.add("flatten", Flatten(), x))
    network = build.build()
    result = Simulator(network).run(frames.reshape(1, 16, 8, 8))
    return facts(network, result.profile), result.totals


def test_a_convention_does_not_see_borders() -> None:
    layers, executed = one_convolution(np.ones(190))
    assert spikingformer_tool(layers) == Counts(acs=27_360)
    assert executed.graded_macs < 27_360


def test_a_single_integer_makes_a_layer_dense() -> None:
    values = np.ones(190)
    values[0] = 2
    layers, executed = one_convolution(values)
    assert spikingformer_tool(layers) == Counts(macs=147_456)
    assert executed.graded_macs < 27_360


def test_attention_between_other_layers_than_neurons_counts_like_a_layer() -> None:
    spikes = np.random.default_rng(0).random((2, 6, 8)) < 0.5
    build = NetworkBuilder("attention")
    x = build.add("input", Input((6, 8), "binary"))
    x = build.add("attn", SpikingAttention(heads=2), x, x, x)
    build.add("readout", Readout(), build.add("flatten", Flatten(), x))
    network = build.build()
    layers = facts(network, Simulator(network).run(spikes).profile)
    dense = 2 * 2 * 6**2 * 8
    assert layers == [LayerFacts(dense, 0, spikes.mean(), binary_input=True)]
    assert spikingformer_tool(layers) == Counts(acs=round(dense * spikes.mean()))


def test_without_dense_work_nothing_is_counted() -> None:
    build = NetworkBuilder("nothing")
    build.add("readout", Readout(), build.add("input", Input((4,), "binary")))
    network = build.build()
    layers = facts(network, Simulator(network).run(np.ones((2, 4))).profile)
    assert layers == []
    assert {convention(layers).acs for convention in (spikformer_iclr, spikformer_v2, spikingformer_tool)} == {0}


@pytest.mark.parametrize("kind", ["spikes", "integers", "wide values"])
def test_the_tool_knows_no_attention_but_on_spikes_of_equal_shape(kind: str) -> None:
    build = NetworkBuilder("attention")
    x = build.add("input", Input((3, 4), "graded"))
    x = build.add("neuron", IF(multiple_spikes=kind == "integers"), x)
    v = build.add("wide", SelectChannels(np.arange(8) % 4), x) if kind == "wide values" else x
    if kind == "wide values":
        v = build.add("wide_neuron", IF(), v)
    build.add("attention", SpikingAttention(2), x, x, v)
    build.add("readout", Readout(), build.add("flat", Flatten(), "attention"))
    network = build.build()
    result = Simulator(network).run(np.ones((2, 3, 4), np.float32))
    (attention,) = facts(network, result.profile)
    assert (attention.attention is not None) == (kind == "spikes")
