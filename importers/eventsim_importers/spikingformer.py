"""Spikingformer and Spikingformer-CML: neurons before each convolution, shortcuts that carry potentials.

Forward pass and tensor names: Zhou et al., "Spikingformer: Spike-driven Residual Learning for Transformer-based Spiking
Neural Network" (arXiv 2304.11954), "Enhancing the Performance of Transformer-based Spiking Neural Networks by
SNN-optimized Downsampling with Precise Gradient Backpropagation" (arXiv 2305.05954), and the authors' code,
github.com/zhouchenlin2096/Spikingformer and Spikingformer-CML.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from eventsim.errors import InputError
from eventsim.layers import Residual
from eventsim.network import Network
from eventsim_importers.protocol import Importer
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.neurons import Pools
from eventsim_importers.reading.options import InputOptions
from eventsim_importers.reading.reader import BATCH_NORM
from eventsim_importers.reading.spiking_transformer import (
    UNUSED_NORMS,
    TransformerOptions,
    TransformerReader,
    encoder_names,
)

STAGES = (
    ("block0", "block1", "block2", "block3", "block4"),
    ("proj", "proj1", "proj2", "proj3", "proj4"),
)
"""What the convolutions of the tokenizer are called: in Spikingformer for CIFAR, and in all others."""
KERNEL = 3
"""Height and width of these convolutions."""
LARGEST_SMALL_DATA_SET = 100
"""Classes up to which images are taken to be CIFAR's."""
TOLD_BY = "block.0.mlp.mlp1_conv.weight with patch_embed.block4_conv.weight or patch_embed.proj4_conv.weight"


@dataclass(frozen=True)
class Options(TransformerOptions, InputOptions):
    """What the state dict of a Spikingformer cannot tell; None takes what the metadata say, else the default.

    Those of `TransformerOptions` (default of `tau` for two input channels: 1.5, or 1.75 for CML; else 2), and the ones
    below. Defaults that depend on the data set take two input channels for event cameras; ``patch_embed.block0_conv``,
    or a head of at most 100 classes, for CIFAR; and the rest for ImageNet.

    Attributes
    ----------
    variant : {"spikingformer", "cml"}, optional
        Neurons of a stage before its pooling, or after it (CML). Names and shapes are the same for ImageNet and event
        cameras. Default: "spikingformer", which ``patch_embed.block0_conv`` tells; "cml" for CIFAR under other names.
    pools : str, optional
        Which of the first four convolutions are followed by a max pooling, as ones and zeros. Default: "0011" for
        CIFAR, else "1111".
    heads : int, optional
        Attention heads. Default: one per 16 channels for event cameras (16 for width 256), one per 32 for CIFAR (12
        for 384), 8 for ImageNet.
    scale : float, optional
        Attention scale. Default: 0.125.
    time_steps : int, optional
        Of a sample. Default: 16 for event cameras, else 4.
    height, width : int, optional
        Input size. Default: 128 for event cameras, 32 for CIFAR, 224 for ImageNet.
    input_kind : {"binary", "graded", "real"}, optional
        What arrives: spikes ("binary"), event counts ("graded") or pixels ("real"). Default: "graded" for two input
        channels, else "real".
    """

    variant: Literal["spikingformer", "cml"] | None = None
    pools: str | None = None
    heads: int | None = None
    scale: float | None = None


@dataclass(frozen=True)
class Published:
    """What the published models for a data set have in common."""

    name: str
    pools: str
    channels_per_head: int | None
    time_steps: int
    size: int

    def heads(self, width: int) -> int:
        """Return the number of heads for an embedding width."""
        return 8 if self.channels_per_head is None else max(width // self.channels_per_head, 1)


CIFAR = Published("cifar", "0011", 32, 4, 32)
DVS = Published("dvs", "1111", 16, 16, 128)
IMAGENET = Published("imagenet", "1111", None, 4, 224)


def signature(checkpoint: Checkpoint) -> int:
    """Count the tensors of a Spikingformer, which the last convolution of its tokenizer and its MLP tell.

    Larger kernels in the tokenizer are those of another system.
    """
    stages = _stages(checkpoint)
    if stages is None:
        return 0
    second = checkpoint.tensors.get(f"patch_embed.{stages[1]}_conv.weight")
    if second is not None and second.shape[3:] > (KERNEL,):
        return 0
    names = "|".join(stages)
    return len(
        checkpoint.matching(
            rf"patch_embed\.({names})_conv\.weight",
            rf"patch_embed\.({names})_bn{BATCH_NORM}",
            *encoder_names("conv", "mlp", qkv_bias=False),
            UNUSED_NORMS,
        )
    )


def _stages(checkpoint: Checkpoint) -> tuple[str, ...] | None:
    """Return the names of the tokenizer's convolutions."""
    if "block.0.mlp.mlp1_conv.weight" not in checkpoint.tensors:
        return None
    return next((names for names in STAGES if f"patch_embed.{names[-1]}_conv.weight" in checkpoint.tensors), None)


def read(checkpoint: Checkpoint, options: Options) -> Network:
    """Compose the network.

    Tokenizer: BN(conv 3x3), then four times BN(conv 3x3(LIF(x))), with a max pooling behind the LIF, or before it in
    CML, where `pools` says so. Each block: x + BN(proj(LIF(scale (q k^T) v))) with q, k, v = LIF(BN(conv LIF(x))), then
    x + BN(mlp2(LIF(BN(mlp1 LIF(x))))). Head: linear on the mean over tokens and time.

    Raises
    ------
    InputError
        If a tensor is missing, left over or of the wrong shape, or an option does not fit.
    """
    stages = _stages(checkpoint)
    if stages is None:
        raise InputError(f"{checkpoint.path}: no Spikingformer found; expected {TOLD_BY}")
    return _Reader(checkpoint, options, stages).network()


class _Reader(TransformerReader):
    """Walks the modules in the order of the forward pass."""

    def __init__(self, checkpoint: Checkpoint, options: Options, stages: tuple[str, ...]) -> None:
        self.stages = stages
        self.in_channels = checkpoint.take(f"patch_embed.{stages[0]}_conv.weight", None, None, KERNEL, KERNEL).shape[1]
        self.dim = checkpoint.take(f"patch_embed.{stages[-1]}_conv.weight", None, None, KERNEL, KERNEL).shape[0]
        self.published = self._published(len(checkpoint.take("head.weight", None, self.dim)))
        super().__init__(checkpoint, options)
        choose, published = self.choose, self.published
        self.pools = Pools(choose, published.pools, before_fire=self.is_cml)
        self.depth = checkpoint.count("block.{}.")
        self.heads = choose.heads(published.heads(self.dim), self.dim)
        self.scale = choose("scale", 0.125)
        self.time_steps = choose("time_steps", published.time_steps)
        self.input = choose.input(self.in_channels, published.size, published.size)
        system = "Spikingformer-CML" if self.is_cml else "Spikingformer"
        self._begin(f"{system} {published.name} {self.depth}-{self.dim}")

    def _published(self, classes: int) -> Published:
        if self.stages == STAGES[0]:
            return CIFAR
        if self.in_channels == 2:
            return DVS
        return CIFAR if classes <= LARGEST_SMALL_DATA_SET else IMAGENET

    @cached_property
    def is_cml(self) -> bool:
        """Whether poolings come before neurons."""
        if self.stages == STAGES[0]:
            variant = self.choose.inferred("variant", "spikingformer", f"patch_embed.{self.stages[0]}_conv.weight")
        else:
            variant = self.choose("variant", "cml" if self.published is CIFAR else "spikingformer")
        return variant == "cml"

    def _default_tau(self) -> float:
        if self.published is not DVS:
            return 2.0
        return 1.75 if self.is_cml else 1.5

    def network(self) -> Network:
        """Read everything, and refuse what is left over."""
        x = self._tokenizer(self.build.add("input", self.input))
        for index in range(self.depth):
            x = self._block(f"block.{index}", x)
        x = self._head(x)
        self.checkpoint.ignore(UNUSED_NORMS)
        return self._finish(x, self.time_steps)

    def _tokenizer(self, x: str) -> str:
        first, *later = (f"patch_embed.{stage}" for stage in self.stages)
        x, before = self._conv(f"{first}_conv", x, size=KERNEL), f"{first}_conv"
        for index, stage in enumerate(later):
            neurons = self._neurons(f"{stage}_lif")
            x = self.pools.add(self.build, index, self._pool(index), x, f"{stage}_lif", neurons)
            x, before = self._conv(f"{stage}_conv", x, None, self._outputs(before), KERNEL), f"{stage}_conv"
        return x

    def _pool(self, index: int) -> str:
        """Return the name of the pooling behind a convolution; CML counts it with that, Spikingformer with the next."""
        if self.stages == STAGES[0]:
            return f"patch_embed.{self.stages[index + 1]}_mp"
        if self.is_cml and self.published is CIFAR:
            return f"patch_embed.{self.stages[index]}_mp"
        number = index if self.is_cml else index + 1
        return f"patch_embed.maxpool{number or ''}"

    def _block(self, block: str, x: str) -> str:
        attn, mlp = f"{block}.attn", f"{block}.mlp"
        spikes = self._lif(f"{attn}.proj_lif", x)  # named after the projection, which comes last
        x = self.build.add(f"{block}.attn_add", Residual("add"), x, self._attention(attn, spikes, spikes))
        y = self._linear(f"{mlp}.mlp1_conv", self._lif(f"{mlp}.mlp1_lif", x), (None, self.dim), 2, True)
        y = self._lif(f"{mlp}.mlp2_lif", y)
        y = self._linear(f"{mlp}.mlp2_conv", y, (self.dim, self._outputs(f"{mlp}.mlp1_conv")), 2, True)
        return self.build.add(f"{block}.mlp_add", Residual("add"), x, y)

    def _project(self, attn: str, part: str, source: str) -> str:
        return self._linear(f"{attn}.{part}_conv", source, (self.dim, self.dim), 1, has_bias=part == "proj")


IMPORTER = Importer("Spikingformer and Spikingformer-CML: CIFAR, event cameras, ImageNet", Options, signature, read)
