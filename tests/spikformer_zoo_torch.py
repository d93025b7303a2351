"""SpikingJelly's Spikformer in PyTorch, from a description of its modules and their names."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch_oracle as oracle
from torch import Tensor, nn

neuron = oracle.neuron


@dataclass(frozen=True)
class Reading:
    """What the weights do not tell."""

    tau: float = 2.0
    attn_tau: float = 2.0
    scale: float = 0.125
    v_threshold: float = 1.0
    attn_threshold: float = 0.5
    decay_input: bool = True
    v_reset: float | None = 0.0

    def lif(self, *, attention: bool = False, v_threshold: float | None = None) -> nn.Module:
        return neuron.LIFNode(
            tau=self.attn_tau if attention else self.tau,
            decay_input=self.decay_input,
            v_threshold=v_threshold or self.v_threshold,
            v_reset=self.v_reset,
            step_mode="m",
        )


class OverSteps(nn.Sequential):
    """Modules that know no time, on [T, B, ...]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Wrapped(nn.Module):
    def __init__(self, inputs: int, outputs: int, pooled: bool) -> None:
        super().__init__()
        pool = [nn.MaxPool2d(3, 2, 1)] if pooled else []
        self.block = OverSteps(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), *pool)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class Stage(nn.Module):
    def __init__(self, inputs: int, outputs: int, pooled: bool, reading: Reading) -> None:
        super().__init__()
        self.conv_bn, self.neuron = Wrapped(inputs, outputs, pooled), reading.lif()

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(self.conv_bn(x))


class PatchEmbedding(nn.Module):
    def __init__(self, in_channels: int, width: int, reading: Reading) -> None:
        super().__init__()
        widths = (in_channels, width // 8, width // 4, width // 2, width)
        pairs = pairwise(widths)
        self.stages = nn.Sequential(*(Stage(a, b, True, reading) for a, b in pairs))
        self.positional_encoding = Stage(width, width, False, reading)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(x)
        return x + self.positional_encoding(x)


def dense(inputs: int, outputs: int) -> OverSteps:
    return OverSteps(nn.Conv1d(inputs, outputs, 1, bias=False), nn.BatchNorm1d(outputs))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, reading: Reading) -> None:
        super().__init__()
        self.heads, self.scale = heads, reading.scale
        self.qkv_conv_bn, self.qkv_lif = dense(width, 3 * width), reading.lif(attention=True)
        self.attn_lif = reading.lif(attention=True, v_threshold=reading.attn_threshold)
        self.proj_conv_bn, self.proj_lif = dense(width, width), reading.lif(attention=True)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv_lif(self.qkv_conv_bn(x)).unflatten(2, (3, self.heads, -1)).unbind(2)
        scores = q.transpose(3, 4) @ k  # [T, B, heads, N, N]
        y = (v @ scores.transpose(3, 4)).flatten(2, 3) * self.scale
        return self.proj_lif(self.proj_conv_bn(self.attn_lif(y)))


class MLP(nn.Module):
    def __init__(self, width: int, reading: Reading) -> None:
        super().__init__()
        self.fc1, self.neuron1 = dense(width, 4 * width), reading.lif()
        self.fc2, self.neuron2 = dense(4 * width, width), reading.lif()

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron2(self.fc2(self.neuron1(self.fc1(x))))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, reading: Reading) -> None:
        super().__init__()
        self.attn, self.mlp = Attention(width, heads, reading), MLP(width, reading)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.mlp(x)


class Spikformer(nn.Module):
    """Mean over steps of the logits of frames [T, B, C, H, W]."""

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
        self.patch_embed = PatchEmbedding(in_channels, width, reading)
        self.blocks = nn.ModuleList(Block(width, heads, reading) for _ in range(depth))
        self.head = nn.Linear(width, classes)

    def forward(self, frames: Tensor) -> Tensor:
        for module in self.modules():
            if isinstance(module, neuron.BaseNode):
                module.reset()
        x = self.patch_embed(frames).flatten(3)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(3)).mean(0)


def excite(model: Spikformer) -> Spikformer:
    """Let queries, keys and values fire more than others, or no attention passes its threshold."""
    for block in model.blocks:
        block.attn.qkv_conv_bn[1].bias.data += 1
    return model


def metadata(model: Spikformer) -> dict[str, str]:
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
    fields = ("tau", "attn_tau", "scale", "v_threshold", "attn_threshold", "decay_input")
    said |= {name: getattr(reading, name) for name in fields}
    if reading.v_reset is not None:
        said["v_reset"] = reading.v_reset
    return {name: str(value) for name, value in said.items()}
