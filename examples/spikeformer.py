"""Spikeformer in PyTorch: to train, to export, and to compare a simulation with.

Li, Lei, Yang, "Spikeformer: A Novel Architecture for Training High-Performance Low-Latency Spiking Neural Network"
(2022). Not to be mistaken for Spikformer: attention and layer normalisation work on real values, and spikes appear in
the tokenizer and in the hidden layer of the MLPs. The modules bear the names of the authors' code
(github.com/Loydian/Spikeformer), which leaves nothing of the forward pass open.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import isqrt, prod

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention


class PLIF(neuron.ParametricLIFNode):
    """Leaky integrate-and-fire neurons with a learned time constant, for ``[time, ...]``."""

    def __init__(self) -> None:
        super().__init__(init_tau=2.0, detach_reset=True, surrogate_function=surrogate.ATan(), step_mode="m")


class PLIAF(PLIF):
    """The same with an analog output, the positive part of the potential; a spike only resets it."""

    def single_step_forward(self, x: Tensor) -> Tensor:
        self.v_float_to_tensor(x)
        self.neuronal_charge(x)
        output = self.v.relu()
        self.neuronal_reset(self.neuronal_fire())
        return output


NEURONS = {"plif": PLIF, "pliaf": PLIAF}


@dataclass(frozen=True)
class Configuration:
    """Sizes of a Spikeformer.

    Attributes
    ----------
    kernel : int
        Of the convolutions of the SEW blocks; odd.
    stages, blocks_per_stage : int
        Of the tokenizer, which halves height and width in every stage.
    width : int
        Channels per token, a multiple of `heads` and of ``2 ** (stages - 1)``.
    depth, heads, mlp_ratio : int
        Transformer blocks, heads of each attention, and hidden neurons of an MLP in multiples of the width.
    neuron : {"plif", "pliaf"}
    classes, in_channels : int
    size : (int, int)
        Height and width of the input, multiples of ``2 ** stages``.
    time_steps : int
        How often an image is shown, and how many frames a recording is cut into.
    """

    kernel: int
    stages: int
    blocks_per_stage: int
    width: int
    depth: int
    heads: int
    mlp_ratio: int
    neuron: str
    classes: int
    in_channels: int
    size: tuple[int, int]
    time_steps: int


DVS_CIFAR10 = Configuration(3, 3, 2, 256, 7, 4, 2, "plif", 10, 2, (128, 128), 4)  # PLIF_spikeformer_7_3x2x3
DVS_GESTURE = Configuration(5, 3, 1, 256, 7, 4, 2, "plif", 11, 2, (128, 128), 16)  # PLIF_spikeformer_7_5x3x1
IMAGENET = Configuration(3, 4, 2, 512, 7, 8, 3, "pliaf", 1000, 3, (224, 224), 4)  # PLIAF_spikeformer_7_3x2x4
NMNIST = Configuration(3, 1, 2, 32, 1, 2, 2, "plif", 10, 2, (34, 34), 4)


class SEWBlock(nn.Module):
    """Residual block whose two sides are added after their neurons, on ``[T, B, C, H, W]``."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, act: type[PLIF]) -> None:
        super().__init__()

        def conv_bn_act(inputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
            conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
            return nn.Sequential(layer.SeqToANNContainer(conv, nn.BatchNorm2d(outputs)), act())

        self.residual_function = nn.Sequential(conv_bn_act(inputs, kernel, stride), conv_bn_act(outputs, kernel))
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(layer.SeqToANNContainer(nn.AvgPool2d(stride)), conv_bn_act(inputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.residual_function(x) + self.shortcut(x)


class PatchEmbed(nn.Module):
    """Tokenizer: SEW blocks, the first of each stage with stride 2; the width doubles from stage to stage."""

    def __init__(self, sizes: Configuration) -> None:
        super().__init__()
        act, blocks = NEURONS[sizes.neuron], sizes.blocks_per_stage
        widths = [sizes.width >> stage for stage in reversed(range(sizes.stages)) for _ in range(blocks)]
        self.conv_layers = nn.Sequential(
            *(
                SEWBlock(inputs, outputs, sizes.kernel, 1 if index % blocks else 2, act)
                for index, (inputs, outputs) in enumerate(pairwise([sizes.in_channels, *widths]))
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_layers(x)


class Attention(nn.Module):
    """Multi-head softmax attention among the tokens of ``[batch, tokens, width]``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        # [batch, tokens, 3 * width] -> q, k, v of [batch, heads, tokens, width / heads]
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Two linear layers with neurons between them, which keep their state over time."""

    def __init__(self, width: int, hidden: int, act: type[PLIF]) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Sequential(nn.Linear(width, hidden)), act(), nn.Sequential(nn.Linear(hidden, width))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


def layer_norm(width: int) -> nn.LayerNorm:
    """Return a layer normalisation over the channels of a token."""
    return nn.LayerNorm(width, eps=1e-6)


class Block(nn.Module):
    """Transformer block on ``[T, B, tokens, width]``: attention over time, attention over space, MLP."""

    def __init__(self, width: int, heads: int, hidden: int, act: type[PLIF]) -> None:
        super().__init__()
        self.temporal_norm1 = layer_norm(width)
        self.temporal_attn = Attention(width, heads)
        self.temporal_fc = nn.Linear(width, width)
        self.norm1 = layer_norm(width)
        self.attn = Attention(width, heads)
        self.norm2 = layer_norm(width)
        self.mlp = MLP(width, hidden, act)

    def forward(self, x: Tensor) -> Tensor:
        time_steps, batch, tokens, _ = x.shape
        over_time = self.temporal_norm1(x).permute(1, 2, 0, 3).flatten(0, 1)  # [B * tokens, T, width]
        over_time = self.temporal_attn(over_time).unflatten(0, (batch, tokens)).permute(2, 0, 1, 3)
        x = x + self.temporal_fc(over_time)
        over_space = self.norm1(x).flatten(0, 1)  # [T * B, tokens, width]
        x = x + self.attn(over_space).unflatten(0, (time_steps, batch))
        return x + self.mlp(self.norm2(x))


class Spikeformer(nn.Module):
    """Spikeformer of the given sizes."""

    def __init__(self, sizes: Configuration) -> None:
        super().__init__()
        self.sizes = sizes
        width, tokens = sizes.width, prod(pixels >> sizes.stages for pixels in sizes.size)
        self.patch_embed = PatchEmbed(sizes)
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, tokens, width))
        self.time_embed = nn.Parameter(torch.zeros(1, sizes.time_steps, width))
        self.blocks = nn.Sequential(
            *(Block(width, sizes.heads, sizes.mlp_ratio * width, NEURONS[sizes.neuron]) for _ in range(sizes.depth))
        )
        self.norm = layer_norm(width)
        self.attention_pool = nn.Linear(width, 1)
        self.head = nn.Linear(width, sizes.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, classes]`` for frames ``[T, B, C, H, W]`` or images ``[B, C, H, W]``; starts at rest.

        Another size or number of steps than the model's interpolates the embeddings to the nearest.
        """
        functional.reset_net(self)
        if x.ndim == 4:
            x = x.expand(self.sizes.time_steps, *x.shape)
        x = self.patch_embed(x)
        positions, times = self.embeddings(x.shape[3:], len(x))
        x = x.flatten(3).transpose(2, 3)  # [T, B, tokens, width]
        x = x + positions[:, None] + times.transpose(0, 1)[:, None]
        x = self.norm(self.blocks(x)).transpose(0, 1).flatten(1, 2)  # [B, T * tokens, width]
        weights = self.attention_pool(x).softmax(1)
        return self.head((weights * x).sum(1))

    def embeddings(self, grid: torch.Size, time_steps: int) -> tuple[Tensor, Tensor]:
        """Return position and time embedding, ``[1, tokens, width]`` and ``[1, T, width]``."""
        positions, times = self.pos_embed, self.time_embed
        tokens = positions.shape[1]
        if tokens != grid.numel():
            positions = positions.transpose(1, 2).unflatten(2, (isqrt(tokens), -1))
            positions = interpolate(positions, size=grid).flatten(2).transpose(1, 2)
        if times.shape[1] != time_steps:
            times = interpolate(times.transpose(1, 2), size=time_steps).transpose(1, 2)
        return positions, times


def nmnist_model() -> Spikeformer:
    """Return the small model that is trained on N-MNIST, for 24 epochs: 34 x 34 pixels, 289 tokens, 1 block."""
    return Spikeformer(NMNIST)


def metadata(model: Spikeformer) -> dict[str, str]:
    """Return what the state dict cannot tell, under the names of the importer's options."""
    sizes = model.sizes
    values = {
        "heads": sizes.heads,
        "time_steps": sizes.time_steps,
        "height": sizes.size[0],
        "width": sizes.size[1],
        "input_kind": "graded" if sizes.in_channels == 2 else "real",
        "neuron": sizes.neuron,
        "v_threshold": 1.0,
        "reset": "zero",
        "v_reset": 0.0,
        "strict": False,
        "decay_input": True,
        "residual_op": "add",
        "stride": 2,
        "bn_eps": 1e-5,
        "ln_eps": 1e-6,
    }
    return {name: str(value) for name, value in values.items()}
