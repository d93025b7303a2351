"""Numbers that papers, their code and their logs state, and that need no trained weights.

Numbers of systems that are compared with dense PyTorch definitions stand beside those comparisons: Spikformer V2 in
test_spikformer_v2.py, Spikeformer in test_spikeformer.py, the degenerate DS2TA in test_ds2ta.py and STAA-SNN in
test_staa_snn.py.
"""

from __future__ import annotations

import csv
import itertools
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from state_dicts import STAGES, spikformer_shapes, spikformer_state

from eventsim import Network, NetworkBuilder, Simulator
from eventsim.accounting.conventions import CONVENTIONS, Seen, energy_mj
from eventsim.accounting.energy import models
from eventsim.facts import Facts, Role
from eventsim.layers import LIF, Affine, Conv2d, Flatten, Input, Layer, Linear, MaxPool2d, Readout, Residual
from eventsim.ledger import Counts
from eventsim.profile import LayerProfile
from eventsim.signals import SignalType
from eventsim.values import Values
from eventsim_importers import spikformer
from eventsim_importers.reading.checkpoint import BatchNorm, Checkpoint
from eventsim_importers.reading.container import Contents
from eventsim_importers.reading.synapses import fold, normalisation

GIGA = 1e9


@dataclass(frozen=True)
class Spikformer:
    """A configuration of Spikformer V1, named depth-width in the papers."""

    variant: str
    depth: int
    dim: int
    channels: int
    classes: int

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return spikformer_shapes(
            self.variant, dim=self.dim, depth=self.depth, channels=self.channels, classes=self.classes
        )

    @cache  # noqa: B019 - the configurations live as long as the tests
    def network(self, fold_bn: bool = False) -> Network:
        """Import tensors of the right shapes, each a single value that is never copied."""
        tensors = {name: np.broadcast_to(np.float32(1), shape) for name, shape in self.shapes.items()}
        checkpoint = Checkpoint(Path(f"{self.variant} {self.depth}-{self.dim}"), "npz", Contents(tensors))
        return spikformer.read(checkpoint, spikformer.Options(fold_bn=fold_bn))


CIFAR = Spikformer("cifar", 4, 384, 3, 10)
DVS = Spikformer("dvs", 2, 256, 2, 10)
IMAGENET = {(depth, dim): Spikformer("imagenet", depth, dim, 3, 1000) for depth, dim in
            ((8, 384), (6, 512), (8, 512), (10, 512), (8, 768))}  # fmt: skip
IMAGENET_STEPS = 4


def dense_macs(network: Network) -> dict[str, int]:
    """Dense multiply-accumulates of one time step, of the layers that have any."""
    macs = {name: network.layers[name].dense_macs(*network.input_types(name)) for name in network.order}
    return {name: n for name, n in macs.items() if n}


def over_time(network: Network, steps: int) -> dict[str, int]:
    """The same over all time steps; the head sees their mean."""
    return {name: n if name == "head" else steps * n for name, n in dense_macs(network).items()}


# Parameters: "total" is what the official code holds, "used" what enters its forward pass.


@pytest.mark.parametrize(
    ("config", "used"),
    [
        (Spikformer("cifar", 4, 256, 3, 10), 4_155_178),
        (Spikformer("cifar", 2, 384, 3, 10), 5_765_050),
        (CIFAR, 9_324_730),
        (Spikformer("cifar", 4, 384, 3, 100), 9_359_380),
        (Spikformer("first_release", 4, 256, 3, 10), 4_152_106),
        (Spikformer("first_release", 2, 384, 3, 10), 5_762_746),
        (Spikformer("first_release", 4, 384, 3, 10), 9_320_122),
        (DVS, 2_566_666),
        (IMAGENET[8, 384], 16_816_024),
        (IMAGENET[6, 512], 23_373_352),
        (IMAGENET[8, 512], 29_689_384),
        (IMAGENET[10, 512], 36_005_416),
        (IMAGENET[8, 768], 66_338_632),
    ],
)
def test_used_parameters_of_spikformer(config: Spikformer, used: int) -> None:
    """An affine layer holds as many values as its batch normalisation trains: scale and shift."""
    assert config.network().parameters == used


@pytest.mark.parametrize(
    ("config", "total"),
    [
        (Spikformer("cifar", 4, 256, 3, 10), 4_159_274),
        (Spikformer("cifar", 2, 384, 3, 10), 5_768_122),
        (CIFAR, 9_330_874),
        (Spikformer("cifar", 4, 384, 3, 100), 9_365_524),
        (DVS, 2_585_610),
        (IMAGENET[8, 384], 16_828_312),
        (IMAGENET[6, 512], 23_385_640),
        (IMAGENET[8, 512], 29_705_768),
        (IMAGENET[10, 512], 36_025_896),
        (IMAGENET[8, 768], 66_363_208),
    ],
)
def test_total_parameters_of_spikformer(config: Spikformer, total: int) -> None:
    """The importer leaves out two layer normalisations in each block; for DVS, another one and position embeddings."""
    stored = sum(int(np.prod(shape)) for name, shape in config.shapes.items() if not _is_statistic(name))
    left_out = 4 * config.dim * config.depth + ((64 + 2) * config.dim if config.variant == "dvs" else 0)
    assert stored == total
    assert config.network().parameters + left_out == total


def _is_statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


@pytest.mark.parametrize("config", [CIFAR, DVS, IMAGENET[6, 512]])
def test_folding_leaves_one_bias_for_each_normalised_channel(config: Spikformer) -> None:
    shapes = config.shapes
    scales_and_shifts = sum(2 * shape[0] for name, shape in shapes.items() if name.endswith("running_mean"))
    new_biases = sum(
        shape[0]
        for name, shape in shapes.items()
        if name.endswith(("_linear.weight", "_conv.weight", "conv1.weight", "conv2.weight", "conv3.weight"))
        and name.replace(".weight", ".bias") not in shapes
    )
    folded = config.network(fold_bn=True)
    assert folded.parameters == config.network().parameters - scales_and_shifts + new_biases
    assert dense_macs(folded) == dense_macs(config.network())


@pytest.mark.parametrize(("depth", "dim", "millions"), [(4, 256, 4.15), (2, 384, 5.76), (4, 384, 9.32)])
def test_papers_print_the_parameters_of_the_first_release(depth: int, dim: int, millions: float) -> None:
    network = Spikformer("first_release", depth, dim, 3, 10).network()
    assert round(network.parameters / 1e6, 2) == millions


# Dense multiply-accumulates, layer by layer


@pytest.mark.parametrize(
    ("config", "steps", "convolutions", "projection", "mlp", "attention", "head"),
    [
        (
            CIFAR,
            1,
            (1_327_104, 42_467_328, 169_869_312, 169_869_312, 84_934_656),
            9_437_184,
            37_748_736,
            3_145_728,
            3_840,
        ),
        (
            DVS,
            1,
            (9_437_184, 75_497_472, 75_497_472, 75_497_472, 37_748_736),
            4_194_304,
            16_777_216,
            2_097_152,
            2_560,
        ),
        (
            IMAGENET[8, 512],
            IMAGENET_STEPS,
            (346_816_512, 3_699_376_128, 3_699_376_128, 3_699_376_128, 1_849_688_064),
            205_520_896,
            822_083_584,
            157_351_936,
            512_000,
        ),
    ],
)
def test_dense_macs_of_spikformer(
    config: Spikformer,
    steps: int,
    convolutions: tuple[int, ...],
    projection: int,
    mlp: int,
    attention: int,
    head: int,
) -> None:
    kind = "linear" if config.variant == "cifar" else "conv"
    stages = (*STAGES[config.variant], "rpe_conv")
    expected = {f"patch_embed.{stage}": n for stage, n in zip(stages, convolutions, strict=True)}
    for block in (f"block.{i}" for i in range(config.depth)):
        expected |= {f"{block}.attn.{name}_{kind}": projection for name in ("q", "k", "v", "proj")}
        expected |= {f"{block}.mlp.{name}_{kind}": mlp for name in ("fc1", "fc2")}
        expected[f"{block}.attn"] = attention
    assert over_time(config.network(), steps) == expected | {"head": head}


@pytest.mark.parametrize(
    ("config", "steps", "synapses", "with_attention"), [(CIFAR, 4, 3.6858, 3.7361), (DVS, 16, 5.9895, 6.0566)]
)
def test_dense_totals_of_small_spikformers(
    config: Spikformer, steps: int, synapses: float, with_attention: float
) -> None:
    macs = over_time(config.network(), steps)
    attention = sum(n for name, n in macs.items() if name.endswith(".attn"))
    assert round((sum(macs.values()) - attention) / GIGA, 4) == synapses
    assert round(sum(macs.values()) / GIGA, 4) == with_attention


@pytest.mark.parametrize(
    ("size", "patch_embed", "linears", "attention", "total"),
    [
        ((8, 384), 7.5433, 11.0981, 0.9441, 19.586),
        ((6, 512), 13.2946, 14.7975, 0.9441, 29.037),
        ((8, 512), 13.2946, 19.7300, 1.2588, 34.284),
        ((10, 512), 13.2946, 24.6625, 1.5735, 39.531),
        ((8, 768), 29.6528, 44.3925, 1.8882, 75.934),
    ],
)
def test_dense_totals_on_imagenet(
    size: tuple[int, int], patch_embed: float, linears: float, attention: float, total: float
) -> None:
    macs = over_time(IMAGENET[size].network(), IMAGENET_STEPS)
    parts = {
        "patch_embed": sum(n for name, n in macs.items() if name.startswith("patch_embed")),
        "linears": sum(n for name, n in macs.items() if name.endswith("_conv") and name.startswith("block")),
        "attention": sum(n for name, n in macs.items() if name.endswith(".attn")),
    }
    expected = {"patch_embed": patch_embed, "linears": linears, "attention": attention}
    assert {name: round(n / GIGA, 4) for name, n in parts.items()} == expected
    assert round(sum(macs.values()) / GIGA, 3) == total


# Energy that papers print beside their operations


ENOUGH = 10**15
"""Inputs of a layer made up by hand: enough for every digit of a rate."""


def at_rate(name: str, dense: int, rate: float, role: Role = "linear", biased: int = 0, steps: int = 1) -> Seen:
    """A layer of so many dense operations in all its time steps, whose inputs are spikes at this rate; at a rate of 1
    they are real values, as those of a first convolution and a head."""
    nonzero = round(rate * ENOUGH)
    spikes = Values(ENOUGH, nonzero)
    values = Values(ENOUGH, ENOUGH, ENOUGH, 0.0, -1.0, 2.0, None) if rate == 1 else spikes
    some = SignalType("real", 1, (1,), dense=True)
    facts = Facts(role, (some,), some, dense // steps, 0, biased, inner_macs=dense // steps)
    columns = {"inputs": np.array([ENOUGH]), "nonzero_inputs": np.array([nonzero])}
    return Seen(LayerProfile(name, "", "", facts, steps, 0.0, columns, values=(values,)))


def with_operations(network: Network, giga_operations: float) -> list[Seen]:
    """An image network whose layers behind the first convolution fire at one rate, such that the synaptic operations
    are those that the paper prints."""
    first, *others = over_time(network, IMAGENET_STEPS).values()
    rate = giga_operations * GIGA / sum(others)
    return [
        at_rate("first", first, 1.0, "convolution", steps=IMAGENET_STEPS),
        *(at_rate(f"layer {place}", n, rate) for place, n in enumerate(others)),
    ]


@pytest.mark.parametrize(
    ("size", "operations", "millijoules"),
    [
        ((8, 384), 6.63, 5.967),
        ((6, 512), 8.21, 7.389),
        ((8, 512), 10.95, 9.855),
        ((10, 512), 13.67, 12.303),
        ((8, 768), 22.22, 19.998),
    ],
)
def test_power_of_spikformer_in_table_2_of_version_2(
    size: tuple[int, int], operations: float, millijoules: float
) -> None:
    counts = CONVENTIONS["spikformer_v2"](with_operations(IMAGENET[size].network(), operations))
    assert energy_mj(counts) == pytest.approx(millijoules, abs=5e-4)


@pytest.mark.parametrize(
    ("operations", "millijoules"),
    [
        (1.92, 1.728),  # Table II: 8-384 with 1 and 4 time steps, 8-512 with 1 and 4
        (5.21, 4.689),
        (3.15, 2.835),
        (10.40, 9.360),
        (4.15, 3.735),  # Table III, supervised: 12-512, 12-768, 16-768
        (6.35, 5.715),
        (7.64, 6.876),
        (4.01, 3.609),  # fine-tuned: 12-512, 12-768, 16-768 with 1 and 4 time steps
        (16.31, 14.680),
        (6.40, 5.760),
        (19.97, 17.970),
        (7.48, 6.732),
        (28.42, 25.578),
    ],
)
def test_power_of_spikformer_v2(operations: float, millijoules: float) -> None:
    counts = Counts(acs=round(operations * GIGA))
    assert models()["45nm_mac"].millijoules(counts) == pytest.approx(millijoules, abs=4e-3)


def test_table_3_prints_one_power_that_no_convention_gives() -> None:
    layers = with_operations(IMAGENET[8, 512].network(), 10.95)
    for convention in ("spikformer_v2", "spikformer_iclr", "first_convolution_once", "attention_snn"):
        assert abs(energy_mj(CONVENTIONS[convention](layers)) - 11.304) > 0.1


@pytest.mark.parametrize(
    ("size", "operations", "millijoules"),
    [((8, 512), 11.09, 11.577), ((8, 768), 12.54, 13.680)],  # Spikformer (ICLR), Spikingformer
)
def test_power_with_a_dense_first_convolution(size: tuple[int, int], operations: float, millijoules: float) -> None:
    counts = CONVENTIONS["spikformer_iclr"](with_operations(IMAGENET[size].network(), operations))
    assert energy_mj(counts) == pytest.approx(millijoules, abs=2e-3)


@pytest.mark.parametrize(
    ("operations", "millijoules"),
    [(3.88, 4.035), (4.83, 4.890), (9.30, 8.913), (13.72, 12.891), (6.50, 6.393)],  # SEW-ResNets, tdBN ResNet-34
)
def test_power_of_spiking_resnets_counts_the_stem_once(operations: float, millijoules: float) -> None:
    stem = Conv2d(np.broadcast_to(np.float32(1), (64, 3, 7, 7)), stride=(2, 2), padding=(3, 3))
    dense = stem.dense_macs(SignalType("real", 3, (224, 224), dense=True))
    layers = [at_rate("stem", 4 * dense, 1.0, "convolution", steps=4), at_rate("others", 10**11, operations / 100)]
    counts = CONVENTIONS["first_convolution_once"](layers)
    assert (round(counts.macs / GIGA, 3), round(counts.acs / GIGA, 2)) == (0.118, operations)
    assert round(energy_mj(counts), 3) == millijoules


@pytest.mark.parametrize(
    ("config", "steps", "megaflops", "microjoules"),
    [
        (CIFAR, 4, 6.29, 29),
        (DVS, 16, 16.78, 77),
        (IMAGENET[8, 512], 4, 78.68, 362),  # Figure 2 prints 77 M and 354.2 uJ
    ],
)
def test_attention_without_spikes_costs_one_product(
    config: Spikformer, steps: int, megaflops: float, microjoules: float
) -> None:
    products = steps * dense_macs(config.network())["block.0.attn"] // 2  # T N^2 D
    assert round(products / 1e6, 2) == megaflops
    assert round(models()["45nm_mac"].millijoules(Counts(macs=products)) * 1e3) == microjoules


@pytest.mark.parametrize(
    ("counts", "microjoules"),
    [
        (Counts(acs=660_000), 0.594),  # Table I: CIFAR10-DVS, CIFAR-10, CIFAR-100
        (Counts(acs=1_100_000), 0.990),
        (Counts(acs=1_300_000), 1.170),
        (Counts(macs=77_000_000), 354.2),  # Figure 2
    ],
)
def test_energy_of_attention(counts: Counts, microjoules: float) -> None:
    assert models()["45nm_mac"].millijoules(counts) * 1e3 == pytest.approx(microjoules)


@pytest.mark.parametrize(
    ("base", "base_nanojoules", "denoised", "nanojoules", "reduction"),
    [
        (0.7426, 7.69, 0.9699, 0.90, 88.3),
        (0.7682, 6.93, 0.9782, 0.65, 90.6),
        (0.7898, 6.28, 0.9814, 0.56, 91.1),
        (0.8264, 5.19, 0.9859, 0.42, 91.9),
    ],
)
def test_energy_of_denoised_attention_maps_in_table_3_of_ds2ta(
    base: float, base_nanojoules: float, denoised: float, nanojoules: float, reduction: float
) -> None:
    model = models()["ds2ta_table3"]
    entries = 4 * 12 * 64**2  # time steps, heads, tokens by tokens
    before, after = (
        model.millijoules(Counts(kept_scores=round(entries * (1 - sparsity)))) * 1e6 for sparsity in (base, denoised)
    )
    assert round(before, 2) == base_nanojoules
    assert round(after, 2) == nanojoules
    assert round(100 * (1 - round(after, 2) / round(before, 2)), 1) == reduction  # of the energies as printed


# The energy logs of Spikingformer, from their firing rates


@pytest.mark.parametrize(
    ("log", "size", "heads", "macs", "giga_acs", "millijoules", "tolerance"),
    [
        ("spikingformer_8_512", (8, 512), 8, 347_329_512, 6.51754094, 7.463502602, 1e-9),
        # The tool averages rates over batches and operations over images: not the same if the last batch is smaller
        ("spikingformer_8_768", (8, 768), 12, 520_993_768, 12.513659577, 13.658864952, 4e-6),
        ("spikingformer_cml_8_768", (8, 768), 12, 520_993_768, 15.455129803, 16.306188155, 1e-9),
    ],
)
def test_logs_of_spikingformer(
    shared: Path,
    log: str,
    size: tuple[int, int],
    heads: int,
    macs: int,
    giga_acs: float,
    millijoules: float,
    tolerance: float,
) -> None:
    """Its layers are those of Spikformer on ImageNet, in the same order, whatever their names."""
    network = IMAGENET[size].network()
    with (shared / "published_rates" / f"{log}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    synapses = [row for row in rows if row["firing_rate_percent"] and row["dense_ops_with_bias"]]
    layers = []
    names = [name for name in dense_macs(network) if not name.endswith(".attn")]
    for name, row in zip(names, synapses, strict=True):
        steps = 1 if name == "head" else IMAGENET_STEPS
        biased = network.types[name].size if network.layers[name].arrays().get("bias") is not None else 0
        rate = float(row["firing_rate_percent"]) / 100
        layer = at_rate(name, steps * dense_macs(network)[name], rate, biased=biased, steps=steps)
        assert float(f"{layer.dense_macs + layer.bias_additions:.9g}") == float(row["dense_ops_with_bias"]), name
        layers.append(layer)
    tokens = SignalType("binary", size[1], (network.types["patch_embed.rpe_lif_add"].positions,))
    for row in rows[len(synapses) :]:
        sources = tuple(fires_at(float(rate)) for rate in row["firing_rate_percent"].split(";"))
        facts = Facts("attention", (tokens,) * 3, tokens, heads=heads, order="scores_first")
        layers.append(Seen(LayerProfile(row["layer"], "", "", facts, IMAGENET_STEPS), sources))
    assert len(layers) == len(rows)
    counts = CONVENTIONS["spikingformer_tool"](layers)
    assert counts.macs == macs
    assert counts.acs / GIGA == pytest.approx(giga_acs, rel=tolerance)
    assert energy_mj(counts) == pytest.approx(millijoules, rel=tolerance)


def fires_at(rate: float) -> LayerProfile:
    """Neurons that fire at this rate."""
    some = SignalType("binary", 1)
    facts = Facts("neurons", (some,), some, neurons=ENOUGH)
    return LayerProfile("", "", "", facts, 1, 0.0, {"spikes": np.array([round(rate * ENOUGH)])})


# Parameters of related systems, from the shapes of their layers


def conv(inputs: int, outputs: int, kernel: int = 1, groups: int = 1, bias: bool = False, norm: bool = True) -> int:
    """Parameters of a convolution, and of the batch normalisation behind it; a linear layer has kernel 1."""
    one = np.float32(1)
    vector = np.broadcast_to(one, outputs)
    weight = np.broadcast_to(one, (outputs, inputs // groups, kernel, kernel))
    layers: list[Layer] = [Conv2d(weight, vector if bias else None, groups=groups)]
    if norm:
        layers.append(Affine(vector, vector))
    return sum(layer.parameters for layer in layers)


def convs(widths: list[int], kernel: int, bias: bool = False) -> int:
    return sum(conv(*pair, kernel, bias=bias) for pair in itertools.pairwise(widths))


def mlp(dim: int, bias: bool = True) -> int:
    return convs([dim, 4 * dim, dim], 1, bias=bias)


def zoo_spikformer(dim: int, depth: int) -> int:
    """SpikingJelly's: no bias but the head's, q, k and v in one."""
    stem = convs([3, dim // 8, dim // 4, dim // 2, dim, dim], 3)
    block = conv(dim, 3 * dim) + conv(dim, dim) + mlp(dim, bias=False)
    return stem + depth * block + conv(dim, 1000, bias=True, norm=False)


def spikingformer_cifar10(dim: int, depth: int) -> int:
    """With two unused layer normalisations in each block, which hold as much as a batch normalisation."""
    stem = convs([3, dim // 8, dim // 4, dim // 2, dim, dim], 3)
    block = 3 * conv(dim, dim) + conv(dim, dim, bias=True) + mlp(dim) + 2 * (2 * dim)
    return stem + depth * block + conv(dim, 10, bias=True, norm=False)


def qkformer(dim: int, depth: int = 10) -> int:
    """Three stages of a quarter, half and all of the width; token attention has q and k only."""

    def block(width: int, arrays: int) -> int:
        return arrays * conv(width, width) + conv(width, width, bias=True) + mlp(width)

    quarter, half, eighth = dim // 4, dim // 2, dim // 8
    first = convs([3, eighth, quarter, quarter], 3) + conv(eighth, quarter)
    others = sum(convs([width // 2, width, width], 3) + conv(width // 2, width) for width in (half, dim))
    blocks = block(quarter, 2) + 2 * block(half, 2) + (depth - 3) * block(dim, 3)
    return first + others + blocks + conv(dim, 1000, bias=True, norm=False)


def spike_driven_transformer_v2(a: int, b: int, c: int, d: int) -> int:
    """Meta-SpikeFormer: four convolution blocks, then six and two attention blocks of reparametrised convolutions."""

    def conv_block(width: int) -> int:
        separable = conv(width, 2 * width) + conv(2 * width, 2 * width, 7, groups=2 * width, norm=False)
        return separable + conv(2 * width, width) + convs([width, 4 * width, width], 3)

    def attention_block(width: int) -> int:
        depthwise = conv(width, width, 3, groups=width, norm=False)
        reparametrised = conv(width, width) + depthwise + conv(width, width) + 2 * width
        return 4 * reparametrised + mlp(width)

    downsampling = conv(3, a // 2, 7, bias=True) + convs([a // 2, a, b, c, d], 3, bias=True)
    blocks = conv_block(a // 2) + conv_block(a) + 2 * conv_block(b) + 6 * attention_block(c) + 2 * attention_block(d)
    return downsampling + blocks + conv(d, 1000, bias=True, norm=False)


@pytest.mark.parametrize(
    ("found", "published"),
    [
        (zoo_spikformer(256, 4), 4_400_392),
        (zoo_spikformer(384, 6), 13_244_824),
        (spikingformer_cifar10(384, 4), 9_326_266),
        (qkformer(384), 16_473_688),
        (qkformer(512), 29_079_336),
        (qkformer(768), 64_962_760),
        (spike_driven_transformer_v2(96, 192, 384, 480), 31_333_864),
        (spike_driven_transformer_v2(128, 256, 512, 640), 55_350_248),
    ],
)
def test_parameters_of_related_systems(found: int, published: int) -> None:
    assert found == published


# Properties that the papers state or rely on


def small(state: dict[str, np.ndarray], **options: object) -> Network:
    """Import a small Spikformer for event counts."""
    checkpoint = Checkpoint(Path("small"), "npz", Contents(state))
    given = {"height": 16, "width": 16, "heads": 2, **options}
    return spikformer.read(checkpoint, spikformer.Options(**given))


def recorded(network: Network, frames: np.ndarray) -> dict[str, np.ndarray]:
    """The output of every layer."""
    return Simulator(network, record=network.layers).run(frames).recorded


@pytest.mark.parametrize("variant", STAGES)
def test_attention_does_not_depend_on_the_order_of_its_products(variant: str) -> None:
    state = spikformer_state(variant)
    size = 64 if variant in ("dvs", "imagenet") else 16  # 16 tokens
    frames = np.random.default_rng(0).integers(0, 4, (3, 2, size, size))
    scores, context = (
        recorded(small(state, attention_order=order, height=size, width=size), frames)
        for order in ("scores_first", "context_first")
    )
    assert scores["block.1.attn"].any()
    for name, output in scores.items():
        assert_array_equal(context[name], output, err_msg=name)


@pytest.mark.parametrize("loud", [False, True])
def test_added_residuals_are_bounded_integers(loud: bool) -> None:
    depth = 3
    state = spikformer_state("cifar", depth=depth)
    if loud:  # every neuron fires in every time step: what v_threshold = 1 and tau = 2 need is a current of 2
        state |= {name: np.full_like(array, 1e3) for name, array in state.items() if "_bn" in name and "bias" in name}
    network = small(state, attn_threshold=1e-6) if loud else small(state)
    outputs = recorded(network, np.random.default_rng(0).integers(0, 4, (3, 2, 16, 16)))
    bounds = {"patch_embed.rpe_lif_add": 2}
    for i in range(depth):
        bounds |= {f"block.{i}.attn_add": 2 * i + 3, f"block.{i}.mlp_add": 2 * i + 4}
    for name, bound in bounds.items():
        assert network.types[name].kind == "graded"
        assert_array_equal(outputs[name], np.round(outputs[name]))
        assert outputs[name].min() >= 0
        assert outputs[name].max() == bound if loud else outputs[name].max() <= bound
    read_by_synapses = {s for name in dense_macs(network) if name != "head" for s in network.sources[name]}
    assert max(bounds[name] for name in read_by_synapses & set(bounds)) == 2 * depth + 1
    assert any((outputs[name] > 1).any() for name in bounds)


def test_iand_residuals_stay_binary() -> None:
    rng = np.random.default_rng(0)
    build = NetworkBuilder("iand")
    x = build.add("input", Input((2, 8, 8), "binary"))
    for i in range(4):
        weight = rng.normal(0.5, 1, (2, 2, 3, 3)).astype(np.float32)
        branch = build.add(f"lif{i}", LIF(), build.add(f"conv{i}", Conv2d(weight, padding=(1, 1)), x))
        x = build.add(f"iand{i}", Residual("iand"), x, branch)
    build.add("readout", Readout(), build.add("flatten", Flatten(), x))
    network = build.build()
    outputs = recorded(network, rng.random((5, 2, 8, 8)) < 0.7)
    for i in range(4):
        before = outputs[f"iand{i - 1}"] if i else outputs["input"]
        assert network.types[f"iand{i}"].kind == "binary"
        assert_array_equal(outputs[f"iand{i}"], before * (1 - outputs[f"lif{i}"]))
        assert set(np.unique(outputs[f"iand{i}"])) == {0, 1}


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.2, 0.9]), st.integers(1, 9), st.integers(1, 9))
def test_pooling_spikes_is_a_logical_or(seed: int, density: float, height: int, width: int) -> None:
    spikes = np.random.default_rng(seed).random((2, 3, height, width)) < density
    build = NetworkBuilder("pool")
    pool = build.add("pool", MaxPool2d((3, 3), (2, 2), (1, 1)), build.add("input", Input((3, height, width), "binary")))
    build.add("readout", Readout(), build.add("flatten", Flatten(), pool))
    network = build.build()
    padded = np.pad(spikes, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    assert network.types["pool"].kind == "binary"
    assert_array_equal(recorded(network, spikes)["pool"], np.logical_or.reduce(windows, axis=(-1, -2)))


@pytest.mark.parametrize("seed", range(5))
def test_a_reparametrised_convolution_is_one_zero_padded_3x3(seed: int) -> None:
    """1x1 - BN - padding with what BN makes of 0 - depthwise 3x3 - 1x1 - BN; dyadic weights make every sum exact."""
    rng = np.random.default_rng(seed)
    inputs, hidden, outputs, size = 3, 4, 5, 6

    def dyadic(*shape: int) -> np.ndarray:
        return rng.integers(-4, 5, shape).astype(np.float32) / 4

    def norm(channels: int) -> BatchNorm:
        return BatchNorm(dyadic(channels), dyadic(channels), dyadic(channels), np.ones(channels, np.float32))

    first, depthwise, last = dyadic(hidden, inputs), dyadic(hidden, 1, 3, 3), dyadic(outputs, hidden)
    norms = norm(hidden), norm(outputs)
    spikes = (rng.random((2, inputs, size, size)) < 0.5).astype(np.float32)

    normalised = _run([Linear(first), normalisation(norms[0], 0.0)], spikes, "binary")
    of_zero = normalisation(norms[0], 0.0).shift
    padded = np.broadcast_to(of_zero[:, None, None], (2, hidden, size + 2, size + 2)).copy()
    padded[:, :, 1:-1, 1:-1] = normalised
    stack = [Conv2d(depthwise, groups=hidden), Linear(last), normalisation(norms[1], 0.0)]
    expected = _run(stack, padded, "real")

    first, first_bias = fold(first, None, norms[0], 0.0)
    last, last_bias = fold(last, None, norms[1], 0.0)
    weight = np.einsum("om,mxy,mi->oixy", last, depthwise[:, 0], first)
    bias = last_bias + last @ (depthwise.sum((1, 2, 3)) * first_bias)
    assert_array_equal(_run([Conv2d(weight, bias, padding=(1, 1))], spikes, "binary"), expected)

    stack[0] = Conv2d(depthwise, padding=(1, 1), groups=hidden)
    padded_with_zeros = _run(stack, normalised, "real")
    assert_array_equal(padded_with_zeros[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1])
    assert (padded_with_zeros != expected).any()


def _run(layers: list[Layer], frames: np.ndarray, kind: str) -> np.ndarray:
    """The output of a chain of layers."""
    build = NetworkBuilder("chain")
    x = build.add("input", Input(frames.shape[1:], kind))
    for i, layer in enumerate(layers):
        x = build.add(f"layer{i}", layer, x)
    build.add("readout", Readout(), build.add("flatten", Flatten(), x))
    return Simulator(build.build(), record=[x]).run(frames).recorded[x]
