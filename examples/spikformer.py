"""Spikformer V1 in PyTorch: to train, to export, and to compare a simulation with.

Zhou et al., "Spikformer: When Spiking Neural Network Meets Transformer" (ICLR 2023). The modules bear the names of the
authors' code (github.com/ZK-Zhou/spikformer), so its checkpoints load with ``strict=False``; that skips ``norm1``,
``norm2``, ``norm`` and ``pos_embed``, which its forward pass never uses.

Like every definition in this folder it has `nmnist_model`, the small configuration trained on N-MNIST, and `metadata`,
what the state dict cannot tell an importer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn


class TokenLinear(nn.Linear):
    """Linear layer over the channels of ``[batch, channels, tokens]``."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class TokenConv1d(nn.Conv1d):
    """The same, with the weight of a convolution of kernel 1."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, kernel_size=1, bias=bias)


class TokenConv2d(nn.Conv2d):
    """The same, with the weight of a convolution of kernel 1 x 1."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, kernel_size=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.unsqueeze(-1)).squeeze(-1)


TokenLayer = type[TokenLinear | TokenConv1d | TokenConv2d]


@dataclass(frozen=True)
class Variant:
    """What differs among the three models that the authors published.

    Attributes
    ----------
    pools : tuple of bool
        Whether each of the four stages of the patch embedding ends in a max pooling.
    layer : str
        Ending of the names of the layers in a block.
    attention, mlp : module class
        These layers, in the attention and in the MLP.
    qkv_bias : bool
        Whether those that make q, k and v have a bias.
    scale : float
        Factor of the attention.
    learned_scale : bool
        Whether each block learns it, from that value: "a learnable parameter to control the scaling factor" of the
        models for events (5.3.2 of the paper on V2). The authors' code has none.
    """

    pools: tuple[bool, bool, bool, bool]
    layer: str
    attention: TokenLayer
    mlp: TokenLayer
    qkv_bias: bool
    scale: float
    learned_scale: bool = False


VARIANTS = {
    "cifar": Variant((False, False, True, True), "linear", TokenLinear, TokenLinear, qkv_bias=True, scale=0.125),
    "dvs": Variant((True, True, True, True), "conv", TokenConv1d, TokenConv1d, qkv_bias=False, scale=0.25),
    "imagenet": Variant((True, True, True, True), "conv", TokenConv1d, TokenConv2d, qkv_bias=False, scale=0.125),
}


def lif(v_threshold: float = 1.0) -> neuron.LIFNode:
    """Return leaky integrate-and-fire neurons for ``[time, batch, ...]``."""
    return neuron.LIFNode(
        tau=2.0, v_threshold=v_threshold, detach_reset=True, surrogate_function=surrogate.ATan(), step_mode="m"
    )


def conv3x3(inputs: int, outputs: int, bias: bool = False) -> nn.Conv2d:
    """Return a convolution that keeps the size."""
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=bias)


def max_pool(used: bool) -> nn.Module:
    """Return the overlapping max pooling that halves the size, or nothing."""
    return nn.MaxPool2d(kernel_size=3, stride=2, padding=1) if used else nn.Identity()


def each_step(x: Tensor, *modules: nn.Module) -> Tensor:
    """Apply modules that know no time to ``[time, batch, ...]``."""
    return functional.seq_to_ann_forward(x, modules)


class SPS(nn.Module):
    """Spiking patch splitting with relative position embedding: ``[T, B, C, H, W]`` to ``[T, B, width, H', W']``."""

    def __init__(self, in_channels: int, width: int, pools: tuple[bool, bool, bool, bool]) -> None:
        super().__init__()
        self.proj_conv = conv3x3(in_channels, width // 8)
        self.proj_bn = nn.BatchNorm2d(width // 8)
        self.proj_lif = lif()
        self.maxpool = max_pool(pools[0])

        self.proj_conv1 = conv3x3(width // 8, width // 4)
        self.proj_bn1 = nn.BatchNorm2d(width // 4)
        self.proj_lif1 = lif()
        self.maxpool1 = max_pool(pools[1])

        self.proj_conv2 = conv3x3(width // 4, width // 2)
        self.proj_bn2 = nn.BatchNorm2d(width // 2)
        self.proj_lif2 = lif()
        self.maxpool2 = max_pool(pools[2])

        self.proj_conv3 = conv3x3(width // 2, width)
        self.proj_bn3 = nn.BatchNorm2d(width)
        self.proj_lif3 = lif()
        self.maxpool3 = max_pool(pools[3])

        self.rpe_conv = conv3x3(width, width)
        self.rpe_bn = nn.BatchNorm2d(width)
        self.rpe_lif = lif()

    def forward(self, x: Tensor) -> Tensor:
        x = each_step(self.proj_lif(each_step(x, self.proj_conv, self.proj_bn)), self.maxpool)
        x = each_step(self.proj_lif1(each_step(x, self.proj_conv1, self.proj_bn1)), self.maxpool1)
        x = each_step(self.proj_lif2(each_step(x, self.proj_conv2, self.proj_bn2)), self.maxpool2)
        x = each_step(self.proj_lif3(each_step(x, self.proj_conv3, self.proj_bn3)), self.maxpool3)
        return x + self.rpe_lif(each_step(x, self.rpe_conv, self.rpe_bn))


class TokenStages(nn.Module):
    """A module of stages ``<name>_linear`` or ``<name>_conv``, then ``<name>_bn``, then ``<name>_lif``."""

    def __init__(self, layer: str) -> None:
        super().__init__()
        self.layer = layer

    def add_stage(self, name: str, layer: nn.Module, width: int) -> None:
        """Register the three modules of a stage that has `width` outputs."""
        self.add_module(f"{name}_{self.layer}", layer)
        self.add_module(f"{name}_bn", nn.BatchNorm1d(width))
        self.add_module(f"{name}_lif", lif())

    def stage(self, name: str, x: Tensor) -> Tensor:
        """Return the spikes of a stage, ``[T, B, width, N]``."""
        layer, norm = self.get_submodule(f"{name}_{self.layer}"), self.get_submodule(f"{name}_bn")
        return self.get_submodule(f"{name}_lif")(each_step(x, layer, norm))


class SSA(TokenStages):
    """Spiking self-attention ``scale * (q k^T) v`` without softmax, on tokens ``[T, B, width, N]``."""

    def __init__(self, width: int, heads: int, variant: Variant) -> None:
        super().__init__(variant.layer)
        self.heads = heads
        self.scale = nn.Parameter(torch.tensor(variant.scale)) if variant.learned_scale else variant.scale
        for name in ("q", "k", "v"):
            self.add_stage(name, variant.attention(width, width, bias=variant.qkv_bias), width)
        self.attn_lif = lif(v_threshold=0.5)
        self.add_stage("proj", variant.attention(width, width), width)

    def forward(self, x: Tensor) -> Tensor:
        # [T, B, width, N] -> [T, B, heads, N, width / heads]
        q, k, v = (self.stage(name, x).unflatten(2, (self.heads, -1)).transpose(3, 4) for name in ("q", "k", "v"))
        y = (q @ k.transpose(3, 4)) @ v * self.scale
        return self.stage("proj", self.attn_lif(y.transpose(3, 4).flatten(2, 3)))


class MLP(TokenStages):
    """Two spiking layers with `hidden` neurons per token between them."""

    def __init__(self, width: int, hidden: int, variant: Variant) -> None:
        super().__init__(variant.layer)
        self.add_stage("fc1", variant.mlp(width, hidden), hidden)
        self.add_stage("fc2", variant.mlp(hidden, width), width)

    def forward(self, x: Tensor) -> Tensor:
        return self.stage("fc2", self.stage("fc1", x))


class Block(nn.Module):
    """Encoder block; its residual connections add spikes, so that small integers leave it."""

    def __init__(self, width: int, heads: int, variant: Variant) -> None:
        super().__init__()
        self.attn = SSA(width, heads, variant)
        self.mlp = MLP(width, 4 * width, variant)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.mlp(x)


class Spikformer(nn.Module):
    """Spikformer V1.

    Parameters
    ----------
    variant : {"cifar", "dvs", "imagenet"} or Variant
        Of those in `VARIANTS`, or another, such as ``replace(VARIANTS["dvs"], learned_scale=True)``.
    width : int
        Channels per token, a multiple of 8 and of `heads`.
    depth, heads, classes, in_channels : int
    size : int or (int, int)
        (Height, width) of the input. No weight depends on it, but the importer must know.
    time_steps : int
        How often an image is shown, and how many frames a recording is cut into.
    """

    def __init__(
        self,
        variant: str | Variant,
        *,
        width: int,
        depth: int,
        heads: int,
        classes: int,
        in_channels: int,
        size: int | tuple[int, int],
        time_steps: int,
    ) -> None:
        super().__init__()
        self.variant = VARIANTS[variant] if isinstance(variant, str) else variant
        self.heads = heads
        self.in_channels = in_channels
        self.size = (size, size) if isinstance(size, int) else size
        self.time_steps = time_steps
        self.patch_embed = SPS(in_channels, width, self.variant.pools)
        self.block = nn.ModuleList(Block(width, heads, self.variant) for _ in range(depth))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, classes]`` for frames ``[T, B, C, H, W]`` or images ``[B, C, H, W]``; starts at rest."""
        functional.reset_net(self)
        if x.ndim == 4:
            x = x.expand(self.time_steps, *x.shape)
        x = self.patch_embed(x).flatten(3)
        for block in self.block:
            x = block(x)
        return self.head(x.mean(3).mean(0))


def nmnist_model() -> Spikformer:
    """Return the small model that is trained on N-MNIST: 34 x 34 pixels, 9 tokens, 1 block."""
    return Spikformer("dvs", width=96, depth=1, heads=6, classes=10, in_channels=2, size=34, time_steps=5)


SYNAPSES_AND_NEURONS = {
    "bn_eps": 1e-5,
    "tau": 2.0,
    "decay_input": True,
    "v_threshold": 1.0,
    "attn_threshold": 0.5,
    "reset": "zero",
    "v_reset": 0.0,
    "strict": False,
}
"""What every spiking transformer here has in common and its state dict cannot tell."""


def metadata(model: Spikformer) -> dict[str, str]:
    """Return what the state dict cannot tell, under the names of the importer's options."""
    height, width = model.size
    values = {
        **SYNAPSES_AND_NEURONS,
        "residual_op": "add",
        "pools": "".join("1" if used else "0" for used in model.variant.pools),
        "pool_order": "after_fire",
        "heads": model.heads,
        **({} if model.variant.learned_scale else {"scale": model.variant.scale}),
        "time_steps": model.time_steps,
        "height": height,
        "width": width,
        "input_kind": "graded" if model.in_channels == 2 else "real",
    }
    return {name: str(value) for name, value in values.items()}
