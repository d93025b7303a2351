"""Spikformer V1: the three official variants (CIFAR, CIFAR10-DVS, ImageNet) and the first public release.

Forward pass and tensor names: Zhou et al., "Spikformer: When Spiking Neural Network Meets Transformer" (ICLR 2023),
and the authors' MIT-licensed code, github.com/ZK-Zhou/spikformer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, cast

from eventsim.errors import InputError
from eventsim.layers import Layer, Residual
from eventsim.network import Network
from eventsim.signals import FloatArray
from eventsim_importers.protocol import Importer
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.neurons import PoolOptions, Pools, ResidualMode, ResidualOptions
from eventsim_importers.reading.options import InputOptions
from eventsim_importers.reading.reader import BATCH_NORM
from eventsim_importers.reading.spiking_transformer import (
    LEARNED_SCALE,
    UNUSED_NORMS,
    TransformerOptions,
    TransformerReader,
    encoder_names,
)
from eventsim_importers.reading.synapses import linear


@dataclass(frozen=True)
class Options(TransformerOptions, ResidualOptions, PoolOptions, InputOptions):
    """What the state dict of a Spikformer cannot tell; None takes what the metadata say, else the variant's default.

    Those of `TransformerOptions`, `ResidualOptions` and `PoolOptions` (default of `pools`: "0011" for 32 x 32 pixels,
    "1111" for DVS and ImageNet), and

    Attributes
    ----------
    heads : int, optional
        Attention heads. Default: one per 32 channels (CIFAR: 12 for width 384; DVS128 Gesture, told by its 11 classes:
        8 for 256), one per 16 (CIFAR10-DVS: 16 for 256), 12 for ImageNet at width 768 and else 8.
    scale : float, optional
        Attention scale: 0.25 for DVS, else 0.125. Not beside learned ones ("a learnable parameter to control the
        scaling factor", 5.3.2 of the paper on V2): tensors ``block.{i}.attn.scale`` of one number each.
    time_steps : int, optional
        Of a sample. Default: 16 for DVS, else 4.
    height, width : int, optional
        Input size: 128 for DVS, 224 for ImageNet, else 32.
    input_kind : {"binary", "graded", "real"}, optional
        What arrives: spikes ("binary"), event counts ("graded") or pixels ("real"). Default: "graded" for two input
        channels, else "real".
    """

    heads: int | None = None
    scale: float | None = None


@dataclass(frozen=True)
class Variant:
    """How the variants differ in names, pooling and defaults."""

    name: str
    stages: tuple[str, ...]
    lifs: tuple[str, ...]
    pool_names: tuple[str, ...]
    pools: str
    layer: str
    qkv_axes: int
    fc_axes: int
    qkv_bias: bool
    scale: float
    time_steps: int
    size: int

    def heads(self, width: int, classes: int | None) -> int:
        """Return the published number of heads for an embedding width and, where there is a head, its classes."""
        if self.name == "imagenet":
            return 12 if width == 768 else 8
        return max(width // (16 if self.name == "dvs" and classes != GESTURES else 32), 1)

    @property
    def patch_embed_names(self) -> tuple[str, ...]:
        """Regular expressions of the names of the patch embedding's tensors."""
        stages = "|".join((*self.stages, "rpe_conv"))
        norms = stages.replace("_conv", "_bn")
        return rf"patch_embed\.({stages})\.weight", rf"patch_embed\.({norms}){BATCH_NORM}"

    @property
    def encoder_names(self) -> tuple[str, ...]:
        """Regular expressions of the names of the tensors of blocks and head."""
        return (*encoder_names(self.layer, "fc", self.qkv_bias), LEARNED_SCALE)


GESTURES = 11
"""Classes of DVS128 Gesture, whose model has half as many heads as that of CIFAR10-DVS."""
_STAGES = ("proj_conv", "proj_conv1", "proj_conv2", "proj_conv3")
_LIFS = ("proj_lif", "proj_lif1", "proj_lif2", "proj_lif3")
_POOLS = ("maxpool", "maxpool1", "maxpool2", "maxpool3")
CIFAR = Variant("cifar", _STAGES, _LIFS, _POOLS, "0011", "linear", 0, 0, True, 0.125, 4, 32)
DVS = Variant("dvs", _STAGES, _LIFS, _POOLS, "1111", "conv", 1, 1, False, 0.25, 16, 128)
IMAGENET = Variant("imagenet", _STAGES, _LIFS, _POOLS, "1111", "conv", 1, 2, False, 0.125, 4, 224)
FIRST_RELEASE = Variant(
    "first release",
    ("block1_conv", "block2_conv", "block3_conv", "block4_conv"),
    ("block1_lif", "block2_lif", "block3_lif", "block4_lif"),
    ("block1_mp", "block2_mp", "block3_mp", "block4_mp"),
    "0011",
    "conv",
    1,
    2,
    False,
    0.125,
    4,
    32,
)
UNUSED = (UNUSED_NORMS, "pos_embed", r"norm\.(weight|bias)")
"""Tensors that the forward pass never uses, as regular expressions."""
TOLD_BY = (
    "patch_embed.rpe_conv.weight, and block.0.attn.q_linear.weight, or block.0.attn.q_conv.weight of 3 axes with "
    "block.0.mlp.fc1_conv.weight of 3 or 4"
)
"""The tensors that tell a Spikformer and its variant, for people."""


def signature(checkpoint: Checkpoint) -> int:
    """Count the tensors of the variant, which the names in the patch embedding and the first block tell."""
    variant = variant_of(checkpoint)
    return (
        0 if variant is None else len(checkpoint.matching(*variant.patch_embed_names, *variant.encoder_names, *UNUSED))
    )


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
        raise InputError(f"{checkpoint.path}: no Spikformer found; expected {TOLD_BY}")
    return Reader(checkpoint, options, variant).network()


class Reader(TransformerReader):
    """Walks the modules in the order of the forward pass.

    Systems that are built on Spikformer derive from it and override what they change.
    """

    unused: ClassVar[tuple[str, ...]] = UNUSED

    def __init__(self, checkpoint: Checkpoint, options: Options, variant: Variant) -> None:
        super().__init__(checkpoint, options)
        self.variant = variant
        self.residual = cast(ResidualMode, self.choose("residual_op", "add"))
        self.in_channels, self.dim = self._widths()
        self.depth = checkpoint.count("block.{}.")
        self.heads = self._heads()
        self.scale = self._learned_or_chosen_scale(variant.scale)
        self.time_steps = self.choose("time_steps", variant.time_steps)
        self.input = self.choose.input(self.in_channels, variant.size, variant.size)
        self._begin(self._name())

    def network(self) -> Network:
        """Read everything, and refuse what is left over."""
        x = self._patch_embed(self.build.add("input", self.input))
        for index in range(self.depth):
            x = self._block(f"block.{index}", x)
        x = self._head(x)
        self.checkpoint.ignore(*self.unused)
        return self._finish(x, self.time_steps)

    def _name(self) -> str:
        return f"Spikformer {self.variant.name} {self.depth}-{self.dim}"

    def _heads(self) -> int:
        head = self.checkpoint.tensors.get("head.weight")
        classes = None if head is None or not head.shape else head.shape[0]
        return self.choose.heads(self.variant.heads(self.dim, classes), self.dim)

    def _widths(self) -> tuple[int, int]:
        """Return the channels of the input and of a token."""
        first = self.checkpoint.take(f"patch_embed.{self.variant.stages[0]}.weight", None, None, 3, 3)
        return first.shape[1], self.checkpoint.take("patch_embed.rpe_conv.weight", None, None, 3, 3).shape[0]

    def _patch_embed(self, x: str) -> str:
        variant, pools = self.variant, Pools(self.choose, self.variant.pools)
        names = zip(variant.stages, variant.lifs, variant.pool_names, strict=True)
        for index, (stage, lif, pool) in enumerate(names):
            x = self._conv(f"patch_embed.{stage}", x, size=3)
            neurons = self._neurons(f"patch_embed.{lif}")
            x = pools.add(self.build, index, f"patch_embed.{pool}", x, f"patch_embed.{lif}", neurons)
        rpe = self._lif("patch_embed.rpe_lif", self._conv("patch_embed.rpe_conv", x, size=3))
        return self.build.add(f"{rpe}_{self.residual}", Residual(self.residual), x, rpe)

    def _block(self, block: str, x: str) -> str:
        attn, mlp, axes = f"{block}.attn", f"{block}.mlp", self.variant.fc_axes
        y = self._lif(f"{attn}.proj_lif", self._attention(attn, x, x))
        x = self.build.add(f"{block}.attn_{self.residual}", Residual(self.residual), x, y)
        first, second = (f"{mlp}.fc{index}_{self.variant.layer}" for index in (1, 2))
        y = self._lif(f"{mlp}.fc1_lif", self._linear(first, x, (None, self.dim), axes, True))
        y = self._lif(f"{mlp}.fc2_lif", self._linear(second, y, (self.dim, self._outputs(first)), axes, True))
        return self.build.add(f"{block}.mlp_{self.residual}", Residual(self.residual), x, y)

    def _project(
        self, attn: str, part: str, source: str, make: Callable[[FloatArray, FloatArray | None], Layer] = linear
    ) -> str:
        has_bias = part == "proj" or self.variant.qkv_bias
        name = f"{attn}.{part}_{self.variant.layer}"
        return self._linear(name, source, (self.dim, self.dim), self.variant.qkv_axes, has_bias, make)


IMPORTER = Importer("Spikformer V1: CIFAR, CIFAR10-DVS, ImageNet, first public release", Options, signature, read)
