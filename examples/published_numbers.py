"""Prints every number of the five papers that needs no trained weights, beside the one computed here.

Parameters are those of the definitions in this folder at the published sizes, and of the networks that eventsim makes
of them. Energies are those of 45 nm (Horowitz, ISSCC 2014), 4.6 pJ for a multiply-accumulate and 0.9 pJ for an
accumulate, of the operations that a paper prints beside them. Accuracies, firing rates and what follows from them need
weights and are left out, as are the sizes of other authors' networks. The abstract of Spikeformer and the paper of
STFormer state no such number; what stands for the first are the sizes of its authors' code.

Where a printed number is not the computed one, a note says why, or that nobody knows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import ds2ta
import numpy as np
import spikeformer
import spikformer
import spikformer_v2
import staa_snn
import torch
from torch import nn

from eventsim import Network
from eventsim.accounting.energy import models
from eventsim.layers import Conv2d, GlobalContext, Linear
from eventsim.ledger import Counts
from eventsim_importers import ds2ta as ds2ta_importer
from eventsim_importers import spikformer as spikformer_importer
from eventsim_importers import spikformer_v2 as spikformer_v2_importer
from eventsim_importers import staa_snn as staa_snn_importer
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.container import Contents

MEGA, GIGA = 1e6, 1e9

IMAGENET_V1 = {  # depth, width: heads do not change a number
    "8-384": (8, 384),
    "6-512": (6, 512),
    "8-512": (8, 512),
    "10-512": (10, 512),
    "8-768": (8, 768),
}
IMAGENET_STEPS = 4
STEM_OF_RESNET = 64 * 3 * 7 * 7 * 112 * 112
"""Products of the first convolution of a ResNet for images of 224 x 224."""


@dataclass(frozen=True)
class Row:
    """A number of a paper.

    Attributes
    ----------
    paper, place, what : str
    printed : str
        With the digits that are printed.
    computed : float
        In the same unit.
    note : str
        Why it differs.
    """

    paper: str
    place: str
    what: str
    printed: str
    computed: float
    note: str = ""

    @property
    def shown(self) -> str:
        """The computed number, with a digit more than the printed one has."""
        return f"{self.computed:.{self.digits + 1}f}"

    @property
    def digits(self) -> int:
        """Digits of the printed number behind its point."""
        return len(self.printed.partition(".")[2])

    @property
    def equal(self) -> bool:
        """Whether the computed number rounds to the printed one."""
        return abs(self.computed - float(self.printed)) <= 0.5001 * 10.0**-self.digits


def network_of(module: nn.Module, importer: Any, prefix: str = "", **options: Any) -> Network:
    """Import the tensors of a module on the device meta, each a single value that is never copied."""
    tensors = {prefix + name: np.broadcast_to(np.float32(1), tuple(t.shape)) for name, t in module.state_dict().items()}
    checkpoint = Checkpoint(Path(type(module).__name__), "npz", Contents(tensors))
    return importer.read(checkpoint, importer.Options(fold_bn=False, **options))


def dense_macs(network: Network, kinds: tuple[type, ...] = (), source: str | None = None) -> int:
    """Return the dense products of one time step, of layers of some types that read one kind of signal."""
    return sum(
        layer.dense_macs(*network.input_types(name))
        for name, layer in network.layers.items()
        if isinstance(layer, kinds or object) and source in (None, network.input_types(name)[0].kind)
    )


def energy(acs: float = 0, macs: float = 0) -> float:
    """Return millijoules of operations, by the prices that the papers use."""
    return models()["45nm_mac"].millijoules(Counts(acs=round(acs), macs=round(macs)))


@cache
def spikformer_v1(variant: str, depth: int, width: int, classes: int, model: Callable[..., Any]) -> Network:
    """Return Spikformer V1, or what derives from it, at a size."""
    channels = 2 if variant == "dvs" else 3
    size, steps = {"cifar": (32, 4), "dvs": (128, 16), "imagenet": (224, IMAGENET_STEPS)}[variant]
    with torch.device("meta"):
        made = model(
            variant,
            width=width,
            depth=depth,
            heads=8,
            classes=classes,
            in_channels=channels,
            size=size,
            time_steps=steps,
        )
    return network_of(made, ds2ta_importer if isinstance(made, ds2ta.DS2TA) else spikformer_importer)


@cache
def spikformer_v2_at(size: str) -> Network:
    """Return Spikformer V2 at a published size."""
    with torch.device("meta"):
        return network_of(spikformer_v2.imagenet_model(size), spikformer_v2_importer)


def later(network: Network, depth: int, width: int) -> str:
    """Return a note for a size that was printed of the first release."""
    first = (network.parameters - 3 * depth * width) / MEGA
    return f"as the official code; {first:.3f} as first released, q, k and v without bias"


def spikformers() -> Iterator[Row]:
    """Zhou et al., "Spikformer V2" (2024), which states the numbers of Spikformer (ICLR 2023) too."""
    paper = "Spikformer V2"
    for size, printed, operations, millijoules in (
        ("8-384", "16.81", 6.63, "5.967"),
        ("6-512", "23.37", 8.21, "7.389"),
        ("8-512", "29.68", 10.95, "9.855"),
        ("10-512", "36.01", 13.67, "12.303"),
        ("8-768", "66.34", 22.22, "19.998"),
    ):
        network = spikformer_v1("imagenet", *IMAGENET_V1[size], 1000, spikformer.Spikformer)
        cut = "not rounded but cut" if size in ("8-384", "8-512") else ""
        yield Row(paper, "Table II", f"V1-{size}, parameters (M)", printed, network.parameters / MEGA, cut)
        yield Row(
            paper, "Table II", f"V1-{size}, {operations} G operations (mJ)", millijoules, energy(operations * GIGA)
        )
    for size, printed, works in (
        ("8-384", "29.11", ((1.92, "1.728"), (5.21, "4.689"))),
        ("8-512", "51.55", ((3.15, "2.835"), (10.40, "9.360"))),
    ):
        parameters = spikformer_v2_at(size).parameters / MEGA
        yield Row(paper, "Table II", f"V2-{size}, parameters (M)", printed, parameters)
        for operations, millijoules in works:
            what = f"V2-{size}, {operations} G operations (mJ)"
            yield Row(paper, "Table II", what, millijoules, energy(operations * GIGA))
    yield from _others_in_table_2(paper)
    yield from _table_3(paper)
    for depth, width, printed in ((4, 256, "4.15"), (2, 384, "5.76"), (4, 384, "9.32")):
        network = spikformer_v1("cifar", depth, width, 10, spikformer.Spikformer)
        what = f"V1-{depth}-{width} for CIFAR-10, parameters (M)"
        yield Row(paper, "Table IV", what, printed, network.parameters / MEGA, later(network, depth, width))
    hundred = spikformer_v1("cifar", 4, 384, 100, spikformer.Spikformer).parameters / MEGA
    yield Row(paper, "Table IV", "V1-4-384 for CIFAR-100, parameters (M)", "9.32", hundred, "printed for 10 classes")
    dvs = spikformer_v1("dvs", 2, 256, 10, spikformer.Spikformer).parameters
    held = (dvs + 2 * 4 * 256 + (64 + 2) * 256) / MEGA
    unused = f"as the official code, which holds norms and a position embedding that it never uses: {held:.3f}"
    yield Row(paper, "5.3.2", "V1-2-256 for event cameras, parameters (M)", "2.59", dvs / MEGA, unused)
    yield from _attention(paper)


def _others_in_table_2(paper: str) -> Iterator[Row]:
    for name, operations, printed, note in (
        ("T2T-ViT-24", 13.80, "63.516", "the operations are rounded"),
        ("Swin-Base", 15.40, "70.880", "the operations are rounded"),
        ("PVT-Large", 9.80, "38.340", "not 4.6 pJ x the operations"),
        ("MAE ViT-Base", 17.60, "95.310", "not 4.6 pJ x the operations"),
    ):
        what = f"{name}, {operations:.2f} G products (mJ)"
        yield Row(paper, "Table II", what, printed, energy(macs=operations * GIGA), note)
    for name, operations, printed in (
        ("SEW-ResNet-34", 3.88, "4.035"),
        ("SEW-ResNet-50", 4.83, "4.890"),
        ("SEW-ResNet-101", 9.30, "8.913"),
        ("SEW-ResNet-152", 13.72, "12.891"),
        ("Spiking-ResNet-34", 6.50, "6.393"),
    ):
        what = f"{name}, {operations:.2f} G operations and the stem once (mJ)"
        yield Row(paper, "Table II", what, printed, energy(operations * GIGA, STEM_OF_RESNET))
    first = dense_macs(spikformer_v1("imagenet", 8, 768, 1000, spikformer.Spikformer), (Conv2d,), "real")
    what = "Spikingformer-8-768, 12.54 G operations and the stem in each of 4 steps (mJ)"
    yield Row(
        paper, "Table II", what, "13.680", energy(12.54 * GIGA, IMAGENET_STEPS * first), "the operations are rounded"
    )


def _table_3(paper: str) -> Iterator[Row]:
    row_of_v1 = "V1-8-512, 10.95 G operations (mJ)"
    other = "Table II prints 9.855 for the same; no convention gives 11.304"
    v1 = spikformer_v1("imagenet", 8, 512, 1000, spikformer.Spikformer).parameters / MEGA
    yield Row(paper, "Table III", "V1-8-512, parameters (M)", "29.69", v1)
    yield Row(paper, "Table III", row_of_v1, "11.304", energy(10.95 * GIGA), other)
    for size, printed, works in (
        ("12-512", "64.18", ((4.15, "3.735"), (4.01, "3.609"), (16.31, "14.680"))),
        ("12-768", "143.89", ((6.35, "5.715"), (6.40, "5.760"), (19.97, "17.970"))),
        ("16-768", "172.28", ((7.64, "6.876"), (7.48, "6.732"), (28.42, "25.578"))),
    ):
        parameters = spikformer_v2_at(size).parameters / MEGA
        yield Row(paper, "Table III", f"V2-{size}, parameters (M)", printed, parameters)
        for operations, millijoules in works:
            what = f"V2-{size}, {operations} G operations (mJ)"
            rounded = "" if abs(energy(operations * GIGA) - float(millijoules)) < 6e-4 else "the operations are rounded"
            yield Row(paper, "Table III", what, millijoules, energy(operations * GIGA), rounded)
    tuned = "172.28 for the same network two rows above"
    for row in ("fine-tuned, 1 time step", "fine-tuned, 4 time steps"):
        parameters = spikformer_v2_at("16-768").parameters / MEGA
        yield Row(paper, "Table III", f"V2-16-768, {row}, parameters (M)", "172.70", parameters, tuned)


def _attention(paper: str) -> Iterator[Row]:
    """Attention without spikes, priced as T N^2 D products: of one of its two matrix products."""

    def products(network: Network, steps: int) -> float:
        (first,) = (layer for name, layer in network.layers.items() if name == "block.0.attn")
        return steps * first.dense_macs(*network.input_types("block.0.attn")) / 2

    cifar = products(spikformer_v1("cifar", 4, 384, 10, spikformer.Spikformer), 4)
    dvs = products(spikformer_v1("dvs", 2, 256, 10, spikformer.Spikformer), 16)
    image = products(spikformer_v1("imagenet", 8, 512, 1000, spikformer.Spikformer), IMAGENET_STEPS)
    for name, found, millions, microjoules in (("CIFAR", cifar, "6.3", "29"), ("CIFAR10-DVS", dvs, "16.8", "77")):
        yield Row(paper, "Table I", f"A_I on {name}, T N^2 D (M); 2 T N^2 D are executed", millions, found / MEGA)
        yield Row(paper, "Table I", f"A_I on {name} (uJ)", microjoules, 1e3 * energy(macs=found))
    for millions, microjoules in ((0.66, "0.594"), (1.1, "0.990"), (1.3, "1.170")):
        yield Row(paper, "Table I", f"A_SSA, {millions} M operations (uJ)", microjoules, 1e3 * energy(millions * MEGA))
    note = "T N^2 D, as in Table I, is not what is printed"
    yield Row(paper, "Figure 2", "attention without spikes, V1-8-512 (M)", "77", image / MEGA, note)
    yield Row(paper, "Figure 2", "the same, 77 M products (uJ)", "354.2", 1e3 * energy(macs=77 * MEGA))


def ds2ta_paper() -> Iterator[Row]:
    """Xu et al., "DS2TA" (2024)."""
    paper = "DS2TA"
    four = spikformer_v1("cifar", 4, 384, 10, spikformer.Spikformer)
    two = spikformer_v1("dvs", 2, 256, 10, spikformer.Spikformer)
    yield Row(paper, "Table 1", "ViT-4-384, parameters (M)", "9.32", four.parameters / MEGA, later(four, 4, 384))
    unused = f"{(two.parameters + 64 * 256) / MEGA:.3f} with the position embedding of V1 that no forward pass reads"
    yield Row(paper, "Table 2", "ViT-2-256, parameters (M)", "2.58", two.parameters / MEGA, unused)
    model = models()["ds2ta_table3"]
    source, *_ = four.input_types("block.0.attn")
    entries = 4 * 12 * source.positions**2  # four time steps, twelve heads

    def nanojoules(sparsity: float) -> float:
        return model.millijoules(Counts(kept_scores=round(entries * (1 - sparsity)))) * 1e6

    for block, (base, base_nj, denoised, nj, reduction) in enumerate(
        (
            (0.7426, "7.69", 0.9699, "0.90", "88.3"),
            (0.7682, "6.93", 0.9782, "0.65", "90.6"),
            (0.7898, "6.28", 0.9814, "0.56", "91.1"),
            (0.8264, "5.19", 0.9859, "0.42", "91.9"),
        )
    ):
        fitted = "0.019 pJ x (1 - sparsity) N^2 D"
        for name, sparsity, printed in (("Spikformer", base, base_nj), ("DS2TA", denoised, nj)):
            what = f"block {block}, {name}, sparsity {sparsity:.2%}, {fitted} (nJ)"
            yield Row(paper, "Table 3", what, printed, nanojoules(sparsity))
        saved = 100 * (1 - nanojoules(denoised) / nanojoules(base))
        note = "of the energies as rounded: 91.1" if block == 2 else ""
        yield Row(paper, "Table 3", f"block {block}, reduction (%)", reduction, saved, note)


def spikeformer_code() -> Iterator[Row]:
    """Li, Lei, Yang, "Spikeformer" (2022): the sizes of the authors' code."""
    for name, parameters in (("DVS_CIFAR10", 8_792_993), ("DVS_GESTURE", 9_279_900), ("IMAGENET", 39_320_836)):
        with torch.device("meta"):
            model = spikeformer.Spikeformer(getattr(spikeformer, name))
        found = sum(parameter.numel() for parameter in model.parameters())
        yield Row("Spikeformer", "authors' code", f"{name}, parameters", str(parameters), found)


def staa_snn_paper() -> Iterator[Row]:
    """Zhang et al., "STAA-SNN" (CVPR 2025): ResNet-20 on CIFAR-100, 4 time steps."""
    paper, place = "STAA-SNN", "section 5.4"
    with torch.device("meta"):
        model = staa_snn.resnet20(100)
        without_time = staa_snn.resnet20(100, reading=staa_snn.Reading(pe_axes=("channel", "height", "width")))
    network = network_of(model, staa_snn_importer)
    steps = network.time_steps or 1
    other = sum(parameter.numel() for parameter in without_time.parameters()) / MEGA
    note = f"the shapes of P, M and N are not stated: {other:.2f} where P does not depend on time"
    found = sum(parameter.numel() for parameter in model.parameters()) / MEGA
    yield Row(paper, place, "ResNet-20, parameters (M)", "12.69", found, note)
    context = dense_macs(network, (GlobalContext,))
    backbone = dense_macs(network, (Conv2d, Linear))
    real = dense_macs(network, (Conv2d, Linear), "real")
    what = "ResNet-20, dense products of synapses and global context (G)"
    yield Row(paper, place, what, "0.87", steps * (backbone + context) / GIGA)
    what = "ResNet-20, those on real values (G)"
    yield Row(paper, place, what, "0.06", steps * (real + context) / GIGA)
    yield Row(paper, place, "0.10 G AC and 0.06 G MAC (mJ)", "0.366", energy(0.10 * GIGA, 0.06 * GIGA))


PAPERS = (spikformers, ds2ta_paper, spikeformer_code, staa_snn_paper)


def rows() -> list[Row]:
    """Return every number."""
    return [row for paper in PAPERS for row in paper()]


def markdown(found: list[Row]) -> str:
    """Return the table."""
    lines = ["| paper | where | what | printed | computed | |", "|---|---|---|--:|--:|---|"]
    for row in found:
        verdict = "; ".join(filter(None, ("equal" * row.equal, row.note)))
        lines.append(f"| {row.paper} | {row.place} | {row.what} | {row.printed} | {row.shown} | {verdict} |")
    equal = sum(row.equal for row in found)
    return "\n".join([*lines, "", f"{len(found)} numbers, {equal} equal, {len(found) - equal} explained."])


def page() -> str:
    """Return docs/papers/numbers.md."""
    head, *paragraphs = __doc__.strip().split("\n\n")
    title = head.replace("Prints every number", "# Every number").rstrip(".").replace("\n", " ")
    made = "Printed by `python examples/published_numbers.py`."
    return "\n\n".join([title, *paragraphs, made, markdown(rows())])


def main() -> None:
    """Print the page."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print(page())


if __name__ == "__main__":
    main()
