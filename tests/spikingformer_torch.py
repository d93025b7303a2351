"""Spikingformer in PyTorch, from a description of its modules: neurons, convolution, normalisation, in that order.

Module names are those of the authors' code. `Tokenizer` is what differs between the published models: how its
convolutions are called, which of them are followed by a pooling, and on which side of the neurons that stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch_oracle as oracle
from torch import Tensor, nn

neuron, torch = oracle.neuron, oracle.torch

NAMES = {
    "block": ("block0", "block1", "block2", "block3", "block4"),
    "proj": ("proj", "proj1", "proj2", "proj3", "proj4"),
}


@dataclass(frozen=True)
class Reading:
    """What the weights do not tell."""

    names: Literal["block", "proj"] = "proj"
    variant: Literal["spikingformer", "cml"] = "spikingformer"
    pools: str = "1111"
    scale: float = 0.125
    tau: float = 2.0
    decay_input: bool = True
    v_threshold: float = 1.0
    attn_threshold: float = 0.5
    v_reset: float | None = 0.0

    def lif(self, v_threshold: float | None = None) -> nn.Module:
        return neuron.LIFNode(
            tau=self.tau,
            decay_input=self.decay_input,
            v_threshold=v_threshold or self.v_threshold,
            v_reset=self.v_reset,
            step_mode="m",
        )


def over_steps(x: Tensor, *modules: nn.Module) -> Tensor:
    """Apply modules that know no time to [T, B, ...]."""
    steps = x.shape[0]
    x = x.flatten(0, 1)
    for module in modules:
        x = module(x)
    return x.unflatten(0, (steps, -1))


class Tokenizer(nn.Module):
    def __init__(self, in_channels: int, width: int, reading: Reading) -> None:
        super().__init__()
        self.reading = reading
        self.stages = NAMES[reading.names]
        widths = (in_channels, width // 8, width // 4, width // 2, width, width)
        for stage, inputs, outputs in zip(self.stages, widths, widths[1:], strict=False):
            if stage != self.stages[0]:
                self.add_module(f"{stage}_lif", reading.lif())
            self.add_module(f"{stage}_conv", nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))
            self.add_module(f"{stage}_bn", nn.BatchNorm2d(outputs))
        self.pool = nn.MaxPool2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        get = self.get_submodule
        for index, stage in enumerate(self.stages):
            if index:
                pooled = self.reading.pools[index - 1] == "1"
                if pooled and self.reading.variant == "cml":
                    x = over_steps(x, self.pool)
                x = get(f"{stage}_lif")(x)
                if pooled and self.reading.variant == "spikingformer":
                    x = over_steps(x, self.pool)
            x = over_steps(x, get(f"{stage}_conv"), get(f"{stage}_bn"))
        return x


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, reading: Reading) -> None:
        super().__init__()
        self.heads, self.scale = heads, reading.scale
        self.proj_lif = reading.lif()
        for part in "qkv":
            self.add_module(f"{part}_conv", nn.Conv1d(width, width, 1, bias=False))
            self.add_module(f"{part}_bn", nn.BatchNorm1d(width))
            self.add_module(f"{part}_lif", reading.lif())
        self.attn_lif = reading.lif(reading.attn_threshold)
        self.proj_conv = nn.Conv1d(width, width, 1)
        self.proj_bn = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.proj_lif(x).flatten(3)
        q, k, v = (
            self.get_submodule(f"{part}_lif")(
                over_steps(spikes, self.get_submodule(f"{part}_conv"), self.get_submodule(f"{part}_bn"))
            ).unflatten(2, (self.heads, -1))
            for part in "qkv"
        )
        y = (v @ (k.transpose(3, 4) @ q)).flatten(2, 3) * self.scale
        return over_steps(self.attn_lif(y), self.proj_conv, self.proj_bn).unflatten(3, x.shape[3:])


class MLP(nn.Module):
    def __init__(self, width: int, reading: Reading) -> None:
        super().__init__()
        self.mlp1_lif, self.mlp2_lif = reading.lif(), reading.lif()
        self.mlp1_conv, self.mlp2_conv = nn.Conv2d(width, 4 * width, 1), nn.Conv2d(4 * width, width, 1)
        self.mlp1_bn, self.mlp2_bn = nn.BatchNorm2d(4 * width), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        x = over_steps(self.mlp1_lif(x), self.mlp1_conv, self.mlp1_bn)
        return over_steps(self.mlp2_lif(x), self.mlp2_conv, self.mlp2_bn)


class Block(nn.Module):
    def __init__(self, width: int, heads: int, reading: Reading) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)  # never used, as in the published code
        self.attn = Attention(width, heads, reading)
        self.mlp = MLP(width, reading)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.mlp(x)


class Spikingformer(nn.Module):
    """Logits of frames [T, B, C, H, W]."""

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        heads: int,
        classes: int,
        in_channels: int,
        size: int,
        time_steps: int,
        reading: Reading,
    ) -> None:
        super().__init__()
        self.heads, self.in_channels, self.size = heads, in_channels, (size, size)
        self.time_steps, self.reading = time_steps, reading
        self.patch_embed = Tokenizer(in_channels, width, reading)
        self.block = nn.ModuleList(Block(width, heads, reading) for _ in range(depth))
        self.head = nn.Linear(width, classes)

    def forward(self, frames: Tensor) -> Tensor:
        for module in self.modules():
            if isinstance(module, neuron.BaseNode):
                module.reset()
        x = self.patch_embed(frames)
        for block in self.block:
            x = block(x)
        return self.head(x.flatten(3).mean(3).mean(0))


def metadata(model: Spikingformer) -> dict[str, str]:
    """What the state dict cannot tell, as the importer calls it."""
    reading = model.reading
    said: dict[str, Any] = {
        "heads": model.heads,
        "time_steps": model.time_steps,
        "height": model.size[0],
        "width": model.size[1],
        "input_kind": "graded" if model.in_channels == 2 else "real",
        "reset": "subtract" if reading.v_reset is None else "zero",
        "strict": False,
        "bn_eps": 1e-5,
    }
    fields = ("variant", "pools", "scale", "tau", "decay_input", "v_threshold", "attn_threshold")
    said |= {name: getattr(reading, name) for name in fields}
    if reading.v_reset is not None:
        said["v_reset"] = reading.v_reset
    return {name: str(value) for name, value in said.items()}
