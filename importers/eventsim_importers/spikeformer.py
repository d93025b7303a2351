"""Spikeformer: SEW tokenizer, then divided space-time softmax attention with spiking MLPs.

Forward pass and tensor names: Li, Lei, Yang, "Spikeformer: A Novel Architecture for Training High-Performance
Low-Latency Spiking Neural Network" (2022), and the authors' code, github.com/Loydian/Spikeformer. In the models that
its ImageNet logs print, something without weights precedes the SEW blocks, whose indices begin at 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Literal, cast

import numpy as np

from eventsim.errors import InputError
from eventsim.layers import (
    PLIAF,
    PLIF,
    AttentionPool,
    AvgPool2d,
    LayerNorm,
    Linear,
    PositionEncoding,
    Residual,
    SoftmaxAttention,
)
from eventsim.network import Network
from eventsim.settings import Setting
from eventsim.signals import FloatArray
from eventsim.untrusted import MAXIMUM_BYTES
from eventsim_importers.protocol import Importer
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.neurons import Leaking, LeakOptions, ResidualMode, ResidualOptions
from eventsim_importers.reading.options import InputOptions
from eventsim_importers.reading.reader import BATCH_NORM, BatchNormOptions, Reader

NEURONS = {"plif": PLIF, "pliaf": PLIAF}


@dataclass(frozen=True)
class Options(LeakOptions, BatchNormOptions, ResidualOptions, InputOptions):
    """What the state dict of a Spikeformer cannot tell; None takes what the metadata say, else the default.

    Those of `LeakOptions`, `BatchNormOptions` and `ResidualOptions` (of the SEW blocks), and

    Attributes
    ----------
    heads : int, optional
        Attention heads, over space and over time. Default: one per 64 channels.
    time_steps : int, optional
        Of a sample. Default: the length of the time embedding; another length interpolates it to the nearest step.
    height, width : int, optional
        Input size. Default: what leaves the grid of the position embedding; another grid interpolates it to the
        nearest position.
    input_kind : {"binary", "graded", "real"}, optional
        What arrives: spikes ("binary"), event counts ("graded") or pixels ("real"). Default: "graded" for two input
        channels, else "real".
    neuron : {"plif", "pliaf"}, optional
        Spiking neurons for two input channels, else those with analog outputs, as for ImageNet.
    stride : int, optional
        Stride of the SEW blocks whose shortcut is a convolution; the others have stride 1. Default: 2.
    ln_eps : float, optional
        What layer normalisation adds to the variance. Default: 1e-6.
    """

    heads: int | None = None
    neuron: Literal["plif", "pliaf"] | None = None
    stride: int | None = None
    ln_eps: float | None = None


def signature(checkpoint: Checkpoint) -> int:
    """Count the tensors of a Spikeformer, which its time embedding and its attention pooling tell."""
    if not {"time_embed", "attention_pool.weight"} <= set(checkpoint.tensors):
        return 0
    conv = r"patch_embed\.conv_layers\.\d+\.(residual_function\.[01]|shortcut\.1)"
    return len(
        checkpoint.matching(
            "pos_embed|time_embed",
            rf"{conv}\.0\.0\.weight",
            rf"{conv}\.0\.1{BATCH_NORM}",
            rf"{conv}\.1\.w",
            r"blocks\.\d+\.(temporal_norm1|norm1|norm2)\.(weight|bias)",
            r"blocks\.\d+\.(temporal_attn|attn)\.(qkv\.weight|proj\.(weight|bias))",
            r"blocks\.\d+\.(temporal_fc|mlp\.mlp\.[02]\.0)\.(weight|bias)",
            r"blocks\.\d+\.mlp\.mlp\.1\.w",
            r"(norm|attention_pool|head)\.(weight|bias)",
        )
    )


def read(checkpoint: Checkpoint, options: Options) -> Network:
    """Compose the network.

    SEW block: a = act(BN(conv(act(BN(conv x))))), then a + x, or a + act(BN(conv1x1(avgpool x))) where it strides or
    widens. Tokens: plus position and time embedding. Transformer block: x + temporal_fc(attention over time of LN x),
    x + attention over space of LN x, x + W2 act(W1 LN x). Head: LN, attention pooling over tokens and time, linear.

    Raises
    ------
    InputError
        If a tensor is missing, left over or of the wrong shape, or an option does not fit.
    """
    if not signature(checkpoint):
        raise InputError(f"{checkpoint.path}: no Spikeformer found; expected time_embed and attention_pool.weight")
    return _Reader(checkpoint, options).network()


class _Reader(Reader):
    """Walks the modules in the order of the forward pass."""

    def __init__(self, checkpoint: Checkpoint, options: Options) -> None:
        super().__init__(checkpoint, options)
        self.options = options
        self.convs = [f"patch_embed.conv_layers.{i}" for i in _indices(checkpoint, "patch_embed.conv_layers", (0, 1))]
        self.blocks = [f"blocks.{i}" for i in _indices(checkpoint, "blocks", (0,))]
        self.positions = checkpoint.take("pos_embed", 1, None, None)[0]
        self.times = checkpoint.take("time_embed", 1, None, self.positions.shape[1])[0]
        self.dim = self.positions.shape[1]
        if not self.positions.size or not self.times.size:
            raise InputError(f"{checkpoint.path}: empty pos_embed or time_embed found; expected (1, tokens, width)")
        self.in_channels = checkpoint.take(f"{self.convs[0]}.residual_function.0.0.0.weight", *[None] * 4).shape[1]
        self.block_stride = self.choose("stride", 2)
        if self.block_stride < 1:
            raise InputError(f"{checkpoint.path}: stride={self.block_stride} found; expected at least 1")
        self.neurons = Leaking(self.choose)
        self.ln_eps = self.choose.positive("ln_eps", 1e-6)
        self.residual = cast(ResidualMode, self.choose("residual_op", "add"))
        choose = self.choose
        self.heads = choose.heads(max(self.dim // 64, 1), self.dim)
        self.time_steps = choose("time_steps", len(self.times))
        self.stride = self.block_stride ** sum(map(self._has_shortcut, self.convs))
        side = isqrt(len(self.positions)) * self.stride
        self.input = choose.input(self.in_channels, side, side)
        _, self.height, self.width = self.input.shape
        self.neuron = NEURONS[choose("neuron", "plif" if self.in_channels == 2 else "pliaf")]
        for name, value in (("height", self.height), ("width", self.width)):
            if value < 1 or value % self.stride:
                raise InputError(f"{checkpoint.path}: {name}={value} found; expected a multiple of {self.stride}")
        if self.time_steps < 1:
            raise InputError(f"{checkpoint.path}: time_steps={self.time_steps} found; expected at least 1")
        largest = 4 * self.dim * max(self.time_steps, self.height * self.width // self.stride**2)
        if largest > MAXIMUM_BYTES:
            raise InputError(
                f"{checkpoint.path}: an embedding of {largest} bytes asked for by height={self.height}, "
                f"width={self.width}, time_steps={self.time_steps}; expected at most {MAXIMUM_BYTES}"
            )
        self._begin(f"Spikeformer {len(self.blocks)}-{self.dim}")

    def network(self) -> Network:
        """Read everything, and refuse what is left over."""
        x = self.build.add("input", self.input)
        channels = self.in_channels
        for conv in self.convs:
            x, channels = self._sew_block(conv, x, channels)
        if channels != self.dim:
            raise InputError(
                f"{self.checkpoint.path}: {self.convs[-1]} with {channels} channels found; pos_embed expects {self.dim}"
            )
        x = self.build.add("pos_embed", PositionEncoding(self._position_encoding()), x)
        x = self.build.add("time_embed", PositionEncoding(self._time_encoding()), x)
        for block in self.blocks:
            x = self._block(block, x)
        x = self._norm("norm", x)
        weight = self.checkpoint.take("attention_pool.weight", 1, self.dim)[0]
        self.checkpoint.take("attention_pool.bias", 1)  # moves every logit by the same: the softmax cancels it
        x = self.build.add("attention_pool", AttentionPool(weight), x)
        return self._finish(self._dense("head", x, self.dim), self.time_steps)

    def _has_shortcut(self, block: str) -> bool:
        return f"{block}.shortcut.1.0.0.weight" in self.checkpoint.tensors

    def _sew_block(self, block: str, x: str, channels: int) -> tuple[str, int]:
        """Add a block; return its last layer and its channels."""
        stride = self.block_stride if self._has_shortcut(block) else 1
        branch = f"{block}.residual_function"
        first = self.checkpoint.take_kernel(f"{branch}.0.0.0.weight", None, channels)
        outputs, _, kernel, _ = first.shape
        second = self.checkpoint.take(f"{branch}.1.0.0.weight", outputs, outputs, kernel, kernel)
        y = self._conv_bn(f"{branch}.0", first, x, stride)
        y = self._conv_bn(f"{branch}.1", second, y)
        later = f"{branch}_add"
        if self._has_shortcut(block):
            later = f"{block}.shortcut_add"
            shortcut = self.checkpoint.take(f"{block}.shortcut.1.0.0.weight", outputs, channels, 1, 1)
            x = self.build.add(f"{block}.shortcut.0.0", AvgPool2d((stride, stride), (stride, stride)), x)
            x = self._conv_bn(f"{block}.shortcut.1", shortcut, x)
        return self.build.add(later, Residual(self.residual), x, y), outputs

    def _conv_bn(self, name: str, weight: FloatArray, source: str, stride: int = 1) -> str:
        padding = weight.shape[2] // 2
        x = self.synapses.conv2d(f"{name}.0.0", weight, source, norm=f"{name}.0.1", padding=padding, stride=stride)
        return self._act(f"{name}.1", x)

    def _act(self, name: str, source: str) -> str:
        w = self.checkpoint.take_number(f"{name}.w")
        return self.build.add(name, self.neurons.plif(w, kind=self.neuron), source)

    def _block(self, block: str, x: str) -> str:
        y = self._attention(f"{block}.temporal_attn", self._norm(f"{block}.temporal_norm1", x), over_time=True)
        y = self._dense(f"{block}.temporal_fc", y, self.dim, self.dim)
        x = self.build.add(f"{block}.temporal_fc_add", Residual("add"), x, y)
        y = self._attention(f"{block}.attn", self._norm(f"{block}.norm1", x), over_time=False)
        x = self.build.add(f"{block}.attn_add", Residual("add"), x, y)
        first, second = (f"{block}.mlp.mlp.{index}.0" for index in (0, 2))
        y = self._dense(first, self._norm(f"{block}.norm2", x), self.dim)
        hidden = len(self.checkpoint.tensors[f"{first}.weight"])
        y = self._act(f"{block}.mlp.mlp.1", y)
        y = self._dense(second, y, hidden, self.dim)
        return self.build.add(f"{block}.mlp_add", Residual("add"), x, y)

    def _attention(self, name: str, x: str, over_time: bool) -> str:
        qkv = self.checkpoint.take(f"{name}.qkv.weight", 3 * self.dim, self.dim)
        x = self.build.add(f"{name}.qkv", Linear(qkv), x)
        attention = SoftmaxAttention(self.heads, "time", self.time_steps) if over_time else SoftmaxAttention(self.heads)
        x = self.build.add(name, attention, x)
        return self._dense(f"{name}.proj", x, self.dim, self.dim)

    def _norm(self, name: str, source: str) -> str:
        weight, bias = (self.checkpoint.take(f"{name}.{part}", self.dim) for part in ("weight", "bias"))
        return self.build.add(name, LayerNorm(weight, bias, self.ln_eps), source)

    def _position_encoding(self) -> FloatArray:
        """Return ``(1, D, N)`` for the tokens of this input size."""
        known, grid = len(self.positions), (self.height // self.stride, self.width // self.stride)
        encoding = self.positions
        if known != grid[0] * grid[1]:
            side = isqrt(known)
            if side**2 != known:
                raise InputError(
                    f"{self.checkpoint.path}: pos_embed for {known} positions found; {self.height}x{self.width} pixels "
                    f"expect {grid[0]}x{grid[1]}, or a square grid to interpolate"
                )
            rows, columns = (_nearest(side, size) for size in grid)
            encoding = encoding.reshape(side, side, -1)[np.ix_(rows, columns)].reshape(-1, self.dim)
            note = f"{side}x{side} positions interpolated to {grid[0]}x{grid[1]}, to the nearest"
            self.checkpoint.say(Setting("pos_embed", None, "inferred", note))
        return np.ascontiguousarray(encoding.T[None])

    def _time_encoding(self) -> FloatArray:
        """Return ``(T, D, 1)`` for this number of time steps."""
        known = len(self.times)
        if known != self.time_steps:
            note = f"{known} steps interpolated to {self.time_steps}, to the nearest"
            self.checkpoint.say(Setting("time_embed", None, "inferred", note))
        return np.take(self.times, _nearest(known, self.time_steps), axis=0)[:, :, None]


def _indices(checkpoint: Checkpoint, prefix: str, firsts: tuple[int, ...]) -> list[int]:
    """Return the indices i that have tensors ``prefix.i.*``: consecutive ones, from one of `firsts` on."""
    names = (name.removeprefix(f"{prefix}.") for name in checkpoint.tensors if name.startswith(f"{prefix}."))
    indices = sorted({int(index) for name in names if (index := name.split(".")[0]).isdecimal()})
    if not indices or indices[0] not in firsts or indices != list(range(indices[0], indices[-1] + 1)):
        found = ", ".join(map(str, indices)) or "none"
        expected = " or ".join(f"{first}, {first + 1}, ..." for first in firsts)
        raise InputError(f"{checkpoint.path}: {prefix} with indices {found} found; expected all of {expected}")
    return indices


def _nearest(known: int, wanted: int) -> list[int]:
    """Return which of `known` samples stands at each of `wanted`, as PyTorch's nearest interpolation chooses it."""
    scale = np.float32(known) / np.float32(wanted)
    return [min(int(np.float32(index) * scale), known - 1) for index in range(wanted)]


IMPORTER = Importer("Spikeformer (Li, Lei, Yang): DVS-CIFAR10, DVS-Gesture, ImageNet", Options, signature, read)
