"""Conventions of papers and tools, against their rules applied by hand to the recorded activity of a whole run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference.counts import conv2d_counts, linear_counts
from state_dicts import spikformer_state

from eventsim import Network, NetworkBuilder, Result, Simulator
from eventsim.accounting.conventions import CONVENTIONS, compare
from eventsim.layers import (
    IF,
    LIF,
    Affine,
    AvgPool2d,
    Conv2d,
    Flatten,
    Input,
    Linear,
    MaxPool2d,
    MeanOverTime,
    Readout,
    Residual,
    SpikingAttention,
)
from eventsim.layers.neurons.spiking import Neuron
from eventsim_importers import spikformer
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.container import Contents

HEADS = 2
PAIRS = ("acs", "graded_macs", "graded_acs", "macs")


def small_spikformer(channels: int) -> Network:
    checkpoint = Checkpoint(Path("small"), "npz", Contents(spikformer_state("cifar", channels=channels)))
    options = spikformer.Options(heads=HEADS, height=16, width=16, time_steps=3, fold_bn=False)
    return spikformer.read(checkpoint, options)


def some_network(seed: int, kind: str) -> Network:
    """Convolutions with strides, borders and groups, pools, a residual, linear layers; biased or not; dyadic."""
    rng = np.random.default_rng(seed)

    def weight(*shape: int) -> np.ndarray:
        return (rng.integers(1, 7, shape) * rng.choice([-1, 1, 1], shape) / 8).astype(np.float32)

    def bias(size: int) -> np.ndarray | None:
        return weight(size) if rng.random() < 0.5 else None

    build = NetworkBuilder("some")
    x = build.add("input", Input((2, 6, 6), kind))
    stride, padding = rng.integers(1, 3, 2).tolist(), rng.integers(0, 3, 2).tolist()
    x = build.add("conv", Conv2d(weight(4, 2, 3, 3), bias(4), tuple(stride), tuple(padding)), x)
    height, width = ((6 + 2 * p - 3) // s + 1 for p, s in zip(padding, stride, strict=True))
    one = x = build.add("one", IF() if rng.random() < 0.5 else LIF(), x)
    x = build.add("same", Conv2d(weight(4, 2, 3, 3), bias(4), padding=(1, 1), groups=2), x)
    x = build.add("two", IF(), x)
    x = build.add("sum", Residual(), one, x)
    x = build.add("again", Conv2d(weight(4, 4, 1, 1), bias(4)), x)
    x = build.add("three", IF(), x)
    x = build.add("pool", (MaxPool2d if rng.random() < 0.5 else AvgPool2d)((2, 2), (2, 2)), x)
    x = build.add("flatten", Flatten(), x)
    x = build.add("line", Linear(weight(5, 4 * (height // 2) * (width // 2)), bias(5)), x)
    x = build.add("four", IF(), x)
    x = build.add("half", Affine(np.full(5, 0.25, np.float32), np.zeros(5, np.float32)), x)
    x = build.add("head", Linear(weight(3, 5)), build.add("mean", MeanOverTime(), x))
    build.add("readout", Readout(), x)
    return build.build(time_steps=3)


# --- the rules, by hand


@dataclass
class Read:
    """One layer and what it read, over all time steps, an image repeated."""

    name: str
    layer: Any
    inputs: list[np.ndarray]
    output: np.ndarray
    kind: str
    dense: bool
    static: bool

    @property
    def synaptic(self) -> bool:
        return isinstance(self.layer, Conv2d | Linear)

    @property
    def attention(self) -> bool:
        return isinstance(self.layer, SpikingAttention)

    @property
    def dense_macs(self) -> int:
        if self.attention:
            steps, tokens, width = self.inputs[0].shape
            return 2 * steps * tokens**2 * width
        return self.output.size * int(np.prod(self.layer.weight.shape[1:]))

    @property
    def biases(self) -> int:
        return 0 if self.layer.bias is None else self.output.size

    @property
    def density(self) -> float:
        return float(np.mean([(x != 0).mean() for x in self.inputs]))

    @property
    def one_step(self) -> bool:
        return self.static and len(self.output) > 1

    def pairs(self, x: np.ndarray, kind: str, dense: bool = False) -> dict[str, int]:
        if isinstance(self.layer, Conv2d):
            return conv2d_counts(
                x, self.layer.weight.shape, self.layer.stride, self.layer.padding, self.layer.groups, kind, dense
            )
        return linear_counts(x, self.layer.weight.shape, kind, dense)

    def executed(self) -> dict[str, int]:
        x = self.inputs[0][:1] if self.one_step else self.inputs[0]
        if self.attention:
            first, second = products(self.inputs, skip=True)
            return dict.fromkeys(PAIRS, 0) | {"acs": first + second}
        return self.pairs(x, self.kind, self.dense)


def heads_of(x: np.ndarray) -> np.ndarray:
    steps, tokens, width = x.shape
    return x.reshape(steps, tokens, HEADS, width // HEADS).swapaxes(1, 2).astype(np.float64)


def products(inputs: list[np.ndarray], skip: bool) -> tuple[int, int]:
    """Additions of both products of an attention on spikes: into the map, and of its entries, zero ones too or not."""
    q, k, v = map(heads_of, inputs)
    scores = q @ k.swapaxes(-1, -2)
    asked = (scores != 0) if skip else np.ones_like(scores)
    return int(scores.sum()), int((asked.sum(-2) * v.sum(-1)).sum())


def tokens(x: np.ndarray) -> np.ndarray:
    """A map as tokens, channels last."""
    return x.reshape(*x.shape[:2], -1).swapaxes(1, 2) if x.ndim == 4 else x


def read_all(network: Network, result: Result, static: bool) -> list[Read]:
    reads, same = [], {network.order[0]} if static else set()
    for name in network.order:
        sources = network.sources[name]
        stays = bool(sources) and all(source in same for source in sources)
        if stays and not isinstance(network.layers[name], Neuron):
            same.add(name)
        if isinstance(network.layers[name], Input | Readout):
            continue
        types, layer = network.input_types(name), network.layers[name]
        arranged = tokens if isinstance(layer, Linear | SpikingAttention) else np.asarray
        reads.append(
            Read(
                name,
                layer,
                [arranged(result.recorded[source]) for source in sources],
                arranged(result.recorded[name]),
                types[0].kind,
                types[0].dense,
                stays,
            )
        )
    return reads


def is_spikes(x: np.ndarray) -> bool:
    return bool(np.isin(x, (0, 1)).all())


def few(x: np.ndarray, most: int) -> bool:
    levels = np.unique(x)
    return len(levels) <= most + 1 and levels.min() >= 0 and levels.max() <= most


def by_hand(network: Network, result: Result, static: bool) -> dict[str, tuple[float, float]]:
    """ACs and MACs of each convention, from what every layer read."""
    reads = read_all(network, result, static)
    work = [read for read in reads if read.synaptic or read.attention]
    first, others = work[0], work[1:]
    rates = [read.dense_macs * read.density for read in work]
    sops = sum(rates[1:])
    done = [read.executed() for read in work]
    total = {pair: sum(each[pair] for each in done) for pair in PAIRS}
    for read in reads:
        if isinstance(read.layer, Affine):  # every value times its scale
            total["macs"] += read.inputs[0][: 1 if read.one_step else None].size
    expected: dict[str, tuple[float, float]] = {
        "exact_unary": (total["acs"] + total["graded_acs"], total["macs"]),
        "exact_macs": (total["acs"], total["graded_macs"] + total["macs"]),
        "spikformer_iclr": (sops, first.dense_macs),
        "spikformer_v2": (sops, 0),
        "first_convolution_once": (sops, first.dense_macs / len(first.output)),
        "attention_snn": (sops, rates[0]),
    }
    if any(read.attention for read in others):
        expected["stformer"] = (sops - rates[-1], first.dense_macs)  # the last one is the head
    expected["syops"] = tuple(map(sum, zip(*(syops(read) for read in reads), strict=True)))  # type: ignore[assignment]
    for name, most in (("spikingformer_tool", 1), ("spikingformer_tool_30", 30)):
        expected[name] = tuple(map(sum, zip(*(tool(read, most) for read in work), strict=True)))  # type: ignore[assignment]
    charged = [spikingjelly(read) for read in reads]
    expected["spikingjelly"] = sum(acs for acs, _ in charged), sum(macs for _, macs in charged)
    expected["spikingjelly_synops"] = sum(spikingjelly(read)[0] for read in work), 0
    acs = macs = 0
    for read in work:
        for x in () if read.attention else read.inputs[0][:, None]:
            pairs = sum(read.pairs((x != 0).astype(np.float32), "binary").values())
            acs, macs = (acs + pairs, macs) if np.isin(x, (-1, 0, 1)).all() else (acs, macs + pairs)
    expected["neurobench"] = acs, macs
    expected["dampfhoffer"] = total["acs"] + total["graded_acs"], 0
    return expected


def tool(read: Read, most: int) -> tuple[float, float]:
    if read.attention:
        q, k, v = (x.mean() for x in read.inputs)
        steps, tokens, width = read.inputs[0].shape
        return steps * HEADS * tokens * (width // HEADS) ** 2 * (min(k, v) + q), 0
    operations = read.dense_macs + read.biases
    return (operations * read.inputs[0].mean(dtype=float), 0) if few(read.inputs[0], most) else (0, operations)


def syops(read: Read) -> tuple[float, float]:
    x = read.inputs[0]
    if isinstance(read.layer, Neuron):
        return read.output.size, 0
    if isinstance(read.layer, Conv2d):
        operations = read.dense_macs + read.biases
    elif isinstance(read.layer, Linear):
        operations = read.dense_macs + (0 if read.layer.bias is None else read.output.shape[-1])
    elif isinstance(read.layer, MaxPool2d | AvgPool2d):
        operations = x.size
    else:
        return 0, 0
    return (operations * x.mean(dtype=float), 0) if few(x, 1) else (0, operations)


def spikingjelly(read: Read) -> tuple[int, int]:
    x = read.inputs[0]
    if read.attention:
        return sum(products(read.inputs, skip=False)), 0
    if isinstance(read.layer, Residual):
        both = all(map(is_spikes, read.inputs))
        return (sum(int(each.sum()) for each in read.inputs) if both else read.output.size), 0
    if read.synaptic:
        return (sum(read.pairs(x, "binary").values()), 0) if is_spikes(x) else (0, read.dense_macs)
    if not isinstance(read.layer, MaxPool2d) and read.output.size < x.size:  # pools and means, of positions or time
        return x.size - read.output.size, 0
    return 0, 0


def check(network: Network, frames: np.ndarray, chunk: int | None = None) -> dict[str, Any]:
    """Compare every convention of a run; return what was found."""
    result = Simulator(network, chunk=chunk, record=network.layers).run(frames)
    expected = by_hand(network, result, static=frames.ndim == 3)
    found = compare(result.profile)
    assert found.keys() == expected.keys() | {"neurobench", "dampfhoffer"}
    for name, estimated in found.items():
        acs, macs = expected[name]
        assert (estimated.acs, estimated.macs) == (pytest.approx(acs, abs=1, rel=1e-6), pytest.approx(macs, abs=1)), (
            name
        )
        assert estimated.energy_mj == pytest.approx((0.9 * estimated.acs + 4.6 * estimated.macs) * 1e-9)
    return found


def samples() -> dict[str, np.ndarray]:
    """Event counts, the same clipped to spikes, and one image for all time steps: of pixels, counts or spikes."""
    rng = np.random.default_rng(0)
    events = rng.poisson(0.5, (3, 2, 16, 16))
    spikes = np.minimum(events, 1)
    images = {"image": rng.normal(size=(3, 16, 16)), "image of counts": events[0], "image of spikes": spikes[0]}
    return {"counts": events, "spikes": spikes, **images}


@pytest.mark.parametrize("sample", samples())
@pytest.mark.parametrize("chunk", [None, 1])
def test_conventions_are_the_published_rules(sample: str, chunk: int | None) -> None:
    frames = samples()[sample]
    found = check(small_spikformer(channels=frames.shape[-3]), frames, chunk)
    assert found.keys() == CONVENTIONS.keys()
    for estimated in found.values():
        assert estimated.acs > 0


@given(st.integers(0, 2**32 - 1), st.sampled_from(["spikes", "counts", "pixels", "silence"]))
def test_conventions_of_any_network(seed: int, kind: str) -> None:
    counts = np.random.default_rng(seed).poisson(0.7, (3, 2, 6, 6))
    pixels = counts * 0.5 + 1
    frames = {"spikes": np.minimum(counts, 1), "counts": counts, "pixels": pixels, "silence": 0 * counts}[kind]
    check(some_network(seed, "real" if kind == "pixels" else "graded"), frames.astype(np.float32))


def test_further_numbers_by_hand() -> None:
    frames = samples()["counts"]
    network = small_spikformer(channels=2)
    result = Simulator(network, record=network.layers).run(frames)
    found, reads = compare(result.profile), read_all(network, result, static=False)
    work = [read for read in reads if read.synaptic]
    ones = [read.pairs(np.ones_like(read.inputs[0]), "binary") for read in work]
    neurons = [read.output for read in reads if isinstance(read.layer, Neuron)]
    outputs = sum(x.size for x in neurons)
    more = found["neurobench"].more
    assert more["dense"] == sum(sum(each.values()) for each in ones)
    assert more["activation_sparsity"] == pytest.approx(1 - sum(x.sum() for x in neurons) / outputs)
    assert more["zero_weights"] == sum((read.layer.weight == 0).sum() for read in work)
    spiking = [read for read in reads if (read.synaptic or read.attention) and read.kind != "real"]
    executed = sum(read.executed()["acs"] + read.executed()["graded_acs"] for read in spiking)
    one_step = sum(read.dense_macs / len(read.output) for read in spiking)
    assert found["dampfhoffer"].more["spikes_per_synapse"] == pytest.approx(executed / one_step)
    assert (found["dampfhoffer"].more["break_even_low"], found["dampfhoffer"].more["break_even_high"]) == (0.15, 1.38)
