"""W0: single layers on spikes of a given density, four time steps.

Of eventsim, the time of the layer counts, whose inputs arrive as lists, since in a network neurons emit them; of a
dense engine, the call with its dense input and output.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import torch
from measure import Workload
from torch import Tensor, nn

from eventsim import NetworkBuilder
from eventsim.layers import Conv2d, Flatten, Input, Layer, Linear, Readout

DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.5)
STEPS, SAMPLES = 4, 2
Made: TypeAlias = tuple[str, Layer, nn.Module, tuple[int, ...]]
"""Name, the layer in eventsim and in PyTorch, and the shape of its input."""


class EachStep(nn.Module):
    """A layer on [T, B, ...] that returns the outputs of all steps, [B, T * ...]."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(0, 1)).unflatten(0, x.shape[:2]).transpose(0, 1).flatten(1)


def convolution(channels: int, side: int) -> Made:
    """Return a 3 x 3 convolution that keeps the size."""
    module = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    layer = Conv2d(_random(module), padding=(1, 1))
    return f"conv 3x3, {channels} channels, {side} x {side}", layer, module, (channels, side, side)


def matrix(channels: int, tokens: int) -> Made:
    """Return a linear layer over tokens."""
    module = nn.Linear(channels, channels, bias=False)
    return f"linear, {channels} channels, {tokens} tokens", Linear(_random(module)), module, (tokens, channels)


def _random(module: nn.Module) -> np.ndarray:
    weight = np.random.default_rng(0).normal(size=tuple(module.weight.shape)).astype(np.float32)
    module.weight.data = torch.from_numpy(weight)
    return weight.copy()


def workload(made: Made, density: float) -> Workload:
    """Return a layer on seeded spikes."""
    name, layer, module, shape = made
    build = NetworkBuilder("layer")
    x = build.add("layer", layer, build.add("input", Input(shape, "binary")))
    build.add("readout", Readout(), build.add("flatten", Flatten(), x))
    spikes = np.random.default_rng(1).random((SAMPLES, STEPS, *shape)) < density
    samples = list(spikes.astype(np.float32))
    network = build.build(time_steps=STEPS)
    return Workload(f"W0 {name}, {density:.0%}", network, EachStep(module), samples, samples, sizes=(1,), layer="layer")


def workloads(quick: bool) -> Iterator[Workload]:
    """Yield one workload for each layer and density; layers are made anew, each is arranged for its network."""
    for density in (0.1,) if quick else DENSITIES:
        yield workload(convolution(192, 16), density)
    for density in (0.1,) if quick else DENSITIES:
        yield workload(matrix(384, 64), density)
