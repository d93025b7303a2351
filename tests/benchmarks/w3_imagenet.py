"""W3: Spikingformer-8-512 on 224 x 224 pixels, every layer at the density that the trained one was published with.

The authors publish how often the inputs of every layer were not zero. With seeded weights, and neurons set one layer
after the other to fire at these rates, the whole network runs: the sum over all layers, with the neurons, poolings and
attention between them. How well the rates are met is printed.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import networks
import torch
from calibrate import EPS, calibrate, make_dyadic
from machine import ROOT, SHARED
from measure import Workload
from torch import Tensor, nn
from w1_cifar import smooth_images

from eventsim import Network, Simulator

RATES = SHARED / "published_rates" / "spikingformer_8_512.csv"
SIZES = {"width": 512, "depth": 8, "heads": 8, "classes": 1000, "in_channels": 3, "size": 224, "time_steps": 4}
STAGES = ("proj_conv", "proj_conv1", "proj_conv2", "proj_conv3", "rpe_conv")
PARTS = {
    "attn.q_conv": "attn.proj_lif",
    "attn.proj_conv": "attn.attn_lif",
    "mlp.fc1_conv": "mlp.mlp1_lif",
    "mlp.fc2_conv": "mlp.mlp2_lif",
}
"""A layer of a block as the published file calls it, and the neurons whose spikes it takes."""


class Shown(nn.Module):
    """A network for frames, that is shown an image in every step."""

    def __init__(self, model: nn.Module, steps: int) -> None:
        super().__init__()
        self.model, self.steps = model, steps

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.expand(self.steps, *x.shape))


def published() -> dict[str, float]:
    """Return the rates by the names of the neurons in tests/spikingformer_torch.py; of the tokenizer, after pooling."""
    rates: dict[str, float] = {}
    with RATES.open(newline="") as file:
        for row in csv.DictReader(file):
            block = re.fullmatch(r"block\[(\d+)\]\.(.*)", row["layer"])
            if block and block[2] == "attn":
                given = row["firing_rate_percent"].split(";")
                rates |= {
                    f"block.{block[1]}.attn.{part}_lif": float(rate) for part, rate in zip("qkv", given, strict=True)
                }
            elif block and block[2] in PARTS:
                rates[f"block.{block[1]}.{PARTS[block[2]]}"] = float(row["firing_rate_percent"]) / 100
            elif (stage := row["layer"].removeprefix("patch_embed.")) in STAGES[1:]:
                rates[f"patch_embed.proj{STAGES.index(stage)}_lif"] = float(row["firing_rate_percent"]) / 100
    return rates


def workloads(quick: bool) -> Iterator[Workload]:
    """Yield the network on one image, with --quick two blocks of it; nothing where ../shared is absent."""
    if not RATES.exists():
        return
    sys.path.append(str(ROOT / "tests"))
    import spikingformer_torch as definition

    sizes = SIZES | ({"depth": 2} if quick else {})
    rates = published()
    torch.manual_seed(0)
    inner = definition.Spikingformer(**sizes, reading=definition.Reading())
    model = Shown(inner, SIZES["time_steps"])

    def pool(spikes: Tensor) -> Tensor:
        return definition.over_steps(spikes, inner.patch_embed.pool)

    pooled = {f"model.patch_embed.proj{stage}_lif": pool for stage in range(1, 5)}
    (image,) = smooth_images(1, 224)
    wanted = {f"model.{name}": rate for name, rate in rates.items()}
    example = torch.from_numpy(image[None])
    calibrate(model, example, wanted, pooled)
    make_dyadic(model, example)
    network = _with_thresholds(networks.imported(inner, definition.metadata(inner) | EPS), inner)
    name = f"W3 Spikingformer-{sizes['depth']}-512, 224 x 224, published densities"
    yield Workload(name, network, model, [image], [image], image=True, sizes=(1,), facts=facts)


def _with_thresholds(network: Network, model: nn.Module) -> Network:
    """Return the network with the threshold that each attention was given."""
    modules = dict(model.named_modules())
    changed = {
        name: replace(layer, v_threshold=modules[name].v_threshold)
        for name, layer in network.layers.items()
        if name.endswith("attn_lif")
    }
    return replace(network, layers={**network.layers, **changed})


def facts(workload: Workload) -> dict[str, Any]:
    """Return how far the densities of the inputs of layers are from the published ones, in percentage points."""
    result = Simulator(workload.network).run(workload.samples[0])
    found = {layer.name: layer.counts.nonzero_inputs / max(layer.counts.inputs, 1) for layer in result.profile}
    off: dict[str, float] = {}
    with RATES.open(newline="") as file:
        for row in csv.DictReader(file):
            name = re.sub(r"block\[(\d+)\]", r"block.\1", row["layer"]).replace("mlp.fc", "mlp.mlp")
            if (stage := name.removeprefix("patch_embed.")) in STAGES:
                name = f"patch_embed.proj{STAGES.index(stage) or ''}_conv"
            if name in found and row["kind"].startswith("Conv") and row["firing_rate_percent"] != "100.0":
                off[name] = 100 * found[name] - float(row["firing_rate_percent"])
    worst = max(off, key=lambda name: abs(off[name]))
    return {"layers_with_published_density": len(off), "farthest": worst, "farthest_points": off[worst]}
