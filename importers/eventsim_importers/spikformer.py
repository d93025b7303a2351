"""Spikformer V1: the three official variants (CIFAR, CIFAR10-DVS, ImageNet) and the first public release.

Forward pass and tensor names: Zhou et al., "Spikformer: When Spiking Neural Network Meets Transformer" (ICLR 2023),
and the authors' MIT-licensed code, github.com/ZK-Zhou/spikformer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

from eventsim.errors import InputError
from eventsim.layers import (
    LIF,
    Input,
    Layer,
    Linear,
    MaxPool2d,
    MeanOverPositions,
    MeanOverTime,
    Readout,
    Residual,
    SpikingAttention,
)
from eventsim.network import Network, NetworkBuilder
from eventsim.signals import FloatArray, Kind
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.options import Chooser
from eventsim_importers.reading.synapses import SynapseBuilder, linear

DESCRIPTION = "Spikformer V1: CIFAR, CIFAR10-DVS, ImageNet, first public release"


@dataclass(frozen=True)
class Options:
    """What the state dict of a Spikformer cannot tell; None takes the variant's default.

    Attributes
    ----------
    heads : int, optional
        Attention heads. Default: one per 32 channels (CIFAR: 12 for width 384), one per 16 (DVS: 16 for 256), 12 for
        ImageNet at width 768 and else 8.
    scale : float, optional
        Attention scale: 0.25 for DVS, else 0.125.
    time_steps : int, optional
        16 for DVS, else 4.
    height, width : int, optional
        Input size: 128 for DVS, 224 for ImageNet, else 32.
    input_kind : {"binary", "graded", "real"}, optional
        Event counts ("graded") for two input channels, else "real".
    tau, v_threshold, attn_threshold : float
        Membrane time constant, threshold, and threshold of the neurons behind the attention.
    attention_order : {"scores_first", "context_first"}
        Order of the two products; the result is the same, the work is not.
    fold_bn : bool
        Fold batch normalisation into the weights; otherwise it stays a layer, for bit-level comparison.
    bn_eps : float
    """

    heads: int | None = None
    scale: float | None = None
    time_steps: int | None = None
    height: int | None = None
    width: int | None = None
    input_kind: Literal["binary", "graded", "real"] | None = None
    tau: float = 2.0
    v_threshold: float = 1.0
    attn_threshold: float = 0.5
    attention_order: Literal["scores_first", "context_first"] = "scores_first"
    fold_bn: bool = True
    bn_eps: float = 1e-5


@dataclass(frozen=True)
class Variant:
    """How the variants differ in names, pooling and defaults."""

    name: str
    stages: tuple[str, ...]
    lifs: tuple[str, ...]
    pools: tuple[str | None, ...]
    qkv: str
    fc: str
    fc_axes: int
    qkv_bias: bool
    scale: float
    time_steps: int
    size: int

    def heads(self, width: int) -> int:
        """Return the published number of heads for an embedding width."""
        if self.name == "imagenet":
            return 12 if width == 768 else 8
        return max(width // (16 if self.name == "dvs" else 32), 1)


_STAGES = ("proj_conv", "proj_conv1", "proj_conv2", "proj_conv3")
_LIFS = ("proj_lif", "proj_lif1", "proj_lif2", "proj_lif3")
_POOLS = ("maxpool", "maxpool1", "maxpool2", "maxpool3")
_TWO_POOLS = (None, None, "maxpool2", "maxpool3")
CIFAR = Variant("cifar", _STAGES, _LIFS, _TWO_POOLS, "linear", "linear", 2, True, 0.125, 4, 32)
DVS = Variant("dvs", _STAGES, _LIFS, _POOLS, "conv", "conv", 3, False, 0.25, 16, 128)
IMAGENET = Variant("imagenet", _STAGES, _LIFS, _POOLS, "conv", "conv", 4, False, 0.125, 4, 224)
FIRST_RELEASE = Variant(
    "first release",
    ("block1_conv", "block2_conv", "block3_conv", "block4_conv"),
    ("block1_lif", "block2_lif", "block3_lif", "block4_lif"),
    (None, None, "block3_mp", "block4_mp"),
    "conv",
    "conv",
    4,
    False,
    0.125,
    4,
    32,
)


def recognises(checkpoint: Checkpoint) -> bool:
    """Tell a Spikformer by the names in its patch embedding and its first block."""
    attention = {name.split(".")[3] for name in checkpoint.tensors if name.startswith("block.0.attn.")}
    return variant_of(checkpoint) is not None and attention.isdisjoint(("nsad", "tasa"))  # those are of DS2TA


def variant_of(checkpoint: Checkpoint) -> Variant | None:
    """Return the variant that a checkpoint is of, or is built on."""
    tensors = checkpoint.tensors
    if "patch_embed.rpe_conv.weight" not in tensors:
        return None
    if "block.0.attn.q_linear.weight" in tensors:
        return CIFAR
    q, fc1 = tensors.get("block.0.attn.q_conv.weight"), tensors.get("block.0.mlp.fc1_conv.weight")
    if q is None or fc1 is None or q.ndim != 3:
        return None
    if "patch_embed.block1_conv.weight" in tensors:
        return FIRST_RELEASE
    return {3: DVS, 4: IMAGENET}.get(fc1.ndim)


def read(checkpoint: Checkpoint, options: Options) -> Network:
    """Compose the network.

    Patch embedding: four times conv 3x3 - BN - LIF, then a max pooling where the variant has one; a relative
    position embedding (conv - BN - LIF) is added. Each block: x + LIF(BN(proj(LIF(scale (q k^T) v)))), then
    x + LIF(BN(fc2(LIF(BN(fc1 x))))). Head: linear on the mean over tokens and time.

    Raises
    ------
    InputError
        If a tensor is missing, left over or of the wrong shape, or an option does not fit.
    """
    variant = variant_of(checkpoint)
    if variant is None:
        raise InputError(f"{checkpoint.path}: no Spikformer found; expected patch_embed.rpe_conv and block.0.attn")
    return Reader(checkpoint, options, variant).network()


class Reader:
    """Walks the modules in the order of the forward pass.

    Systems that are built on Spikformer derive from it and override what they change.
    """

    residual: Literal["add", "iand"] = "add"
    unused: ClassVar[tuple[str, ...]] = (
        "block.*.norm1.*",
        "block.*.norm2.*",
        "pos_embed",
        "norm.weight",
        "norm.bias",
    )
    """Tensors that the forward pass never uses."""

    def __init__(self, checkpoint: Checkpoint, options: Options, variant: Variant) -> None:
        self.checkpoint = checkpoint
        self.options = options
        self.variant = variant
        self.in_channels, self.dim = self._widths()
        self.depth = checkpoint.count("block.{}.")
        choose = Chooser(checkpoint)
        self.heads = self._heads(choose)
        self.scale = choose("scale", options.scale, variant.scale)
        self.time_steps = choose("time_steps", options.time_steps, variant.time_steps)
        self.height = choose("height", options.height, variant.size)
        self.width = choose("width", options.width, variant.size)
        kind: Kind = "graded" if self.in_channels == 2 else "real"
        self.input_kind = cast(Kind, choose("input_kind", options.input_kind, kind))
        if self.heads < 1 or self.dim % self.heads:
            raise InputError(f"{checkpoint.path}: heads={self.heads} found; expected a divisor of width {self.dim}")
        self.build = NetworkBuilder(self._name())
        self.synapses = SynapseBuilder(self.build, options.fold_bn, options.bn_eps)

    def network(self) -> Network:
        """Read everything, and refuse what is left over."""
        x = self.build.add("input", Input((self.in_channels, self.height, self.width), self.input_kind))
        x = self._patch_embed(x)
        for index in range(self.depth):
            x = self._block(f"block.{index}", x)
        x = self.build.add("mean_over_tokens", MeanOverPositions(), x)
        x = self.build.add("mean_over_time", MeanOverTime(), x)
        weight = self.checkpoint.take("head.weight", None, self.dim)
        x = self.build.add("head", Linear(weight, self.checkpoint.take("head.bias", len(weight))), x)
        self.build.add("readout", Readout(), x)
        for unused in self.unused:
            self.checkpoint.ignore(unused)
        self.checkpoint.finish()
        return self.build.build(self.time_steps, tuple(self.checkpoint.assumptions))

    def _name(self) -> str:
        return f"Spikformer {self.variant.name} {self.depth}-{self.dim}"

    def _heads(self, choose: Chooser) -> int:
        return choose("heads", self.options.heads, self.variant.heads(self.dim))

    def _widths(self) -> tuple[int, int]:
        """Return the channels of the input and of a token."""
        first = self.checkpoint.take(f"patch_embed.{self.variant.stages[0]}.weight", None, None, 3, 3)
        return first.shape[1], self.checkpoint.take("patch_embed.rpe_conv.weight", None, None, 3, 3).shape[0]

    def _patch_embed(self, x: str) -> str:
        variant = self.variant
        for stage, lif, pool in zip(variant.stages, variant.lifs, variant.pools, strict=True):
            x = self._conv(f"patch_embed.{stage}", x)
            x = self._lif(f"patch_embed.{lif}", x)
            if pool is not None:
                x = self.build.add(f"patch_embed.{pool}", MaxPool2d((3, 3), (2, 2), (1, 1)), x)
        rpe = self._lif("patch_embed.rpe_lif", self._conv("patch_embed.rpe_conv", x))
        return self.build.add("patch_embed.rpe_add", Residual("add"), x, rpe)

    def _block(self, block: str, x: str) -> str:
        variant, mlp = self.variant, f"{block}.mlp"
        x = self.build.add(f"{block}.attn_add", Residual(self.residual), x, self._attention(f"{block}.attn", x))
        y = self._lif(f"{mlp}.fc1_lif", self._linear(f"{mlp}.fc1_{variant.fc}", x, True, "fc"))
        y = self._lif(f"{mlp}.fc2_lif", self._linear(f"{mlp}.fc2_{variant.fc}", y, True, "fc"))
        return self.build.add(f"{block}.mlp_add", Residual(self.residual), x, y)

    def _attention(self, attn: str, x: str) -> str:
        qkv, bias = self.variant.qkv, self.variant.qkv_bias
        q, k, v = (
            self._lif(f"{attn}.{name}_lif", self._linear(f"{attn}.{name}_{qkv}", x, bias, qkv)) for name in "qkv"
        )
        y = self.build.add(attn, SpikingAttention(self.heads, self.scale, self.options.attention_order), q, k, v)
        y = self._lif(f"{attn}.attn_lif", y, self.options.attn_threshold)
        return self._lif(f"{attn}.proj_lif", self._linear(f"{attn}.proj_{qkv}", y, True, qkv))

    def _conv(self, name: str, source: str) -> str:
        weight = self.checkpoint.take(f"{name}.weight", None, None, 3, 3)
        norm = name.replace("_conv", "_bn")
        arrays = self.checkpoint.take_batch_norm(norm, len(weight))
        return self.synapses.conv2d(name, weight, None, (norm, arrays), source, padding=1)

    def _linear(
        self,
        name: str,
        source: str,
        has_bias: bool,
        style: str,
        make: Callable[[FloatArray, FloatArray | None], Layer] = linear,
    ) -> str:
        weight = self._matrix(name, {"linear": 2, "conv": 3, "fc": self.variant.fc_axes}[style])
        bias = self.checkpoint.take(f"{name}.bias", len(weight)) if has_bias else None
        norm = name.rsplit("_", 1)[0] + "_bn"
        arrays = self.checkpoint.take_batch_norm(norm, len(weight))
        return self.synapses.linear(name, weight, bias, (norm, arrays), source, make)

    def _matrix(self, name: str, axes: int) -> FloatArray:
        """Take a linear layer, or the convolution with kernel 1 that stands for one."""
        weight = self.checkpoint.take(f"{name}.weight", None, None, *[1] * (axes - 2))
        return weight.reshape(weight.shape[:2])

    def _lif(self, name: str, source: str, threshold: float | None = None) -> str:
        v_threshold = self.options.v_threshold if threshold is None else threshold
        return self.build.add(name, LIF(v_threshold=v_threshold, tau=self.options.tau), source)
