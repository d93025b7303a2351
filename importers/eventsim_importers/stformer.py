"""STFormer: spatial core, temporal core (convolutions over time) and spiking guided attention.

"STFormer: Spatial Temporal Spiking Transformer" (submitted to ICLR 2024, OpenReview wPK65O4pqS). No code was published
and the paper leaves much open, so this reads the state dict of ``examples/stformer.py``: module names and everything
that the paper does not describe are those of its baseline, Spikingformer-CML
(github.com/zhouchenlin2096/Spikingformer-CML, Apache-2.0). What stays open are the options below.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

from eventsim.errors import InputError
from eventsim.layers import (
    LIF,
    Concat,
    Conv3d,
    Input,
    Linear,
    MaxPool2d,
    MeanOverPositions,
    MeanOverTime,
    Readout,
    Residual,
    SliceOverTime,
    SpikingAttention,
    TileOverTime,
)
from eventsim.network import Network, NetworkBuilder
from eventsim.signals import Kind
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.options import Chooser
from eventsim_importers.reading.synapses import SynapseBuilder

DESCRIPTION = "STFormer, as in examples/stformer.py: convolutions over time, spiking guided attention"

STAGES = ("proj", "proj1", "proj2", "proj3")


@dataclass(frozen=True)
class Options:
    """What the state dict of an STFormer cannot tell; None takes the default and says so.

    The state dict tells the number of convolutions over time, their kernel and groups, whether there is one temporal
    core or one per block, and the kernels of the spatial core.

    Attributes
    ----------
    heads : int, optional
        Attention heads. Default: one per 16 channels for two input channels (16 for width 256), else one per 32 (12 for
        384), as in the baseline.
    scale : float, optional
        Attention scale. Default: 0.125.
    time_steps : int, optional
        Default: 16 for two input channels, else 4. (The paper also speaks of 4 for event cameras.)
    height, width : int, optional
        Input size. Default: 128 for two input channels, else 32.
    input_kind : {"binary", "graded", "real"}, optional
        Default: event counts ("graded") for two input channels, else "real".
    pools : str, optional
        Which of the first four stages end in a max pooling, as ones and zeros. Default: "1111" for two input channels,
        else "0011", as in the baseline.
    tau : float, optional
        Membrane time constant. Default: 2; the baseline's models for event cameras have 1.75.
    lif_input : {"decayed", "undecayed"}, optional
        Whether the input is divided by tau too. Default: "decayed", as in the baseline; equation 3 has no such factor.
    temporal_padding : {"centred", "causal"}, optional
        Steps that a convolution over time sees: as many before as after, so that it looks ahead, or none after.
        Default: "centred".
    time_split : {"full", "tiled"}, optional
        Each convolution sees all T steps, or the i-th of n sees the i-th part of T / n steps and its output is repeated
        up to T (equation 7 against equation 8). Default: "full".
    query : {"x2", "x"}, optional
        Queries are made of X2, the spikes before the temporal core, or through neurons of X = X1 + X2. Default: "x2".
    rpe : {"before", "after"}, optional
        Position embedding before the temporal core (equation 6), or after it, made of X1 and added to X (section 3.2).
        Default: "before".
    mlp_residual : {"spikes", "membrane"}, optional
        The shortcut of the MLP starts behind its first neurons (equation 11), or before them as in the baseline.
        Default: "spikes".
    attn_residual : {"add", "none"}, optional
        Whether the attention has a shortcut: the baseline's has, equation 9 shows none. Default: "add".
    later_blocks : {"sga", "ssa"}, optional
        Where there is one temporal core: later blocks make keys and values of its Y again, or of their own input.
        Default: "sga".
    v_threshold, attn_threshold : float
        Thresholds, of the neurons behind the attention and of all others.
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
    pools: str | None = None
    tau: float | None = None
    lif_input: Literal["decayed", "undecayed"] | None = None
    temporal_padding: Literal["centred", "causal"] | None = None
    time_split: Literal["full", "tiled"] | None = None
    query: Literal["x2", "x"] | None = None
    rpe: Literal["before", "after"] | None = None
    mlp_residual: Literal["spikes", "membrane"] | None = None
    attn_residual: Literal["add", "none"] | None = None
    later_blocks: Literal["sga", "ssa"] | None = None
    v_threshold: float = 1.0
    attn_threshold: float = 0.5
    attention_order: Literal["scores_first", "context_first"] = "scores_first"
    fold_bn: bool = True
    bn_eps: float = 1e-5


def recognises(checkpoint: Checkpoint) -> bool:
    """Tell an STFormer by its convolutions over time, next to the names of its baseline."""
    return _cores(checkpoint) is not None and "patch_embed.proj4_conv.weight" in checkpoint.tensors


def _cores(checkpoint: Checkpoint) -> Literal["once", "per_block"] | None:
    """Return where the temporal core is."""
    if "temporal_core.conv.0.weight" in checkpoint.tensors:
        return "once"
    return "per_block" if "block.0.temporal_core.conv.0.weight" in checkpoint.tensors else None


def read(checkpoint: Checkpoint, options: Options) -> Network:
    """Compose the network.

    Spatial core: BN(conv 3x3), then three times BN(conv 5x5(LIF(x))), each with a max pooling where `pools` says so;
    the position embedding BN(conv 3x3(LIF(x))) is added. Temporal core: X2 = LIF(x), X1 and Y are LIF(BN(conv over time
    of X2)), X = X1 + X2. Each block: S = BN(proj(LIF(scale (q k^T) v))) + X with q made of X2 and k, v of Y, then
    BN(mlp2(LIF(BN(mlp1 LIF(S))))) + LIF(S). Head: linear on the mean over tokens and time.

    Raises
    ------
    InputError
        If a tensor is missing, left over or of the wrong shape, or an option does not fit.
    """
    if _cores(checkpoint) is None:
        raise InputError(
            f"{checkpoint.path}: no STFormer found; expected temporal_core.conv or block.0.temporal_core.conv"
        )
    return _Reader(checkpoint, options).network()


class _Reader:
    """Walks the modules in the order of the forward pass."""

    def __init__(self, checkpoint: Checkpoint, options: Options) -> None:
        self.checkpoint = checkpoint
        self.options = options
        self.in_channels = checkpoint.take("patch_embed.proj_conv.weight", None, None, 3, 3).shape[1]
        self.dim = checkpoint.take("patch_embed.proj4_conv.weight", None, None, 3, 3).shape[0]
        self.depth = checkpoint.count("block.{}.")
        self.core = _cores(checkpoint)
        events = self.in_channels == 2
        self.choose = choose = Chooser(checkpoint)
        self.heads = choose("heads", options.heads, max(self.dim // (16 if events else 32), 1))
        self.scale = choose("scale", options.scale, 0.125)
        self.time_steps = choose("time_steps", options.time_steps, 16 if events else 4)
        self.height = choose("height", options.height, 128 if events else 32)
        self.width = choose("width", options.width, 128 if events else 32)
        self.input_kind = cast(Kind, choose("input_kind", options.input_kind, "graded" if events else "real"))
        self.pools = choose("pools", options.pools, "1111" if events else "0011")
        self.tau = choose("tau", options.tau, 2.0)
        self.decay_input = self._choose_word("lif_input", options.lif_input, "decayed", "undecayed") == "decayed"
        self.causal = self._choose_word("temporal_padding", options.temporal_padding, "centred", "causal") == "causal"
        self.tiled = self._choose_word("time_split", options.time_split, "full", "tiled") == "tiled"
        self.query = self._choose_word("query", options.query, "x2", "x")
        self.rpe = self._choose_word("rpe", options.rpe, "before", "after")
        self.mlp_residual = self._choose_word("mlp_residual", options.mlp_residual, "spikes", "membrane")
        self.attn_residual = self._choose_word("attn_residual", options.attn_residual, "add", "none")
        self.later_blocks = "sga"
        if self.core == "once":
            self.later_blocks = self._choose_word("later_blocks", options.later_blocks, "sga", "ssa")
        self._check_options()
        self.build = NetworkBuilder(f"STFormer {self.depth}-{self.dim}")
        self.synapses = SynapseBuilder(self.build, options.fold_bn, options.bn_eps)

    def _choose_word(self, name: str, given: str | None, *words: str) -> str:
        """Choose an option that is one of `words`; the first is the default."""
        value = self.choose(name, given, words[0])
        if value not in words:
            raise InputError(f"{self.checkpoint.path}: {name}={value} found; expected one of {', '.join(words)}")
        return value

    def _check_options(self) -> None:
        path = self.checkpoint.path
        if self.heads < 1 or self.dim % self.heads:
            raise InputError(f"{path}: heads={self.heads} found; expected a divisor of width {self.dim}")
        if not re.fullmatch("[01]{4}", self.pools):
            raise InputError(f"{path}: pools={self.pools} found; expected four ones and zeros, such as 0011")
        if self.attn_residual == "none" and self.query == "x2":
            raise InputError(f"{path}: attn_residual=none with query=x2 found; expected query=x, or nothing reads X1")
        if self.core == "per_block" and self.options.later_blocks is not None:
            raise InputError(
                f"{path}: later_blocks={self.options.later_blocks} with a temporal core in every block found; "
                "expected the option left out"
            )
        if self.core == "per_block" and self.rpe == "after":
            raise InputError(f"{path}: rpe=after with a temporal core in every block found; expected rpe=before")

    def network(self) -> Network:
        """Read everything, and refuse what is left over."""
        x = self.build.add("input", Input((self.in_channels, self.height, self.width), self.input_kind))
        x = self._spatial_core(x)
        y = ""
        for index in range(self.depth):
            attn = f"block.{index}.attn"
            core = {"once": "temporal_core", "per_block": f"block.{index}.temporal_core"}[cast(str, self.core)]
            has_core = index == 0 or self.core == "per_block"
            if has_core:
                x2, x, y = self._temporal_core(core, x)
            guide = x2 if has_core and self.query == "x2" else self._lif(f"{attn}.proj_lif", x)
            x = self._block(f"block.{index}", x, guide, y if has_core or self.later_blocks == "sga" else guide)
        x = self.build.add("mean_over_tokens", MeanOverPositions(), x)
        x = self.build.add("mean_over_time", MeanOverTime(), x)
        weight = self.checkpoint.take("head.weight", None, self.dim)
        x = self.build.add("head", Linear(weight, self.checkpoint.take("head.bias", len(weight))), x)
        self.build.add("readout", Readout(), x)
        for unused in ("block.*.norm1.*", "block.*.norm2.*"):  # the baseline has them and never uses them
            self.checkpoint.ignore(unused)
        self.checkpoint.finish()
        return self.build.build(self.time_steps, tuple(self.checkpoint.assumptions))

    def _spatial_core(self, x: str) -> str:
        channels = self.in_channels
        for stage, outputs, pool in zip(STAGES, (None, None, None, self.dim), self.pools, strict=True):
            if stage != "proj":
                x = self._lif(f"patch_embed.{stage}_lif", x)
            x, channels = self._conv2d(f"patch_embed.{stage}_conv", x, outputs, channels)
            if pool == "1":
                x = self.build.add(f"patch_embed.{stage}_mp", MaxPool2d((3, 3), (2, 2), (1, 1)), x)
        if self.rpe == "after":
            return x
        return self._position(self._lif("patch_embed.proj4_lif", x), x)

    def _position(self, spikes: str, shortcut: str) -> str:
        """Add the position embedding."""
        position, _ = self._conv2d("patch_embed.proj4_conv", spikes, self.dim, self.dim)
        return self.build.add("patch_embed.proj4_add", Residual("add"), position, shortcut)

    def _temporal_core(self, core: str, source: str) -> tuple[str, str, str]:
        """Add a temporal core; return X2, X and Y."""
        x2 = self._lif(f"{core}.lif", source)
        convs = self.checkpoint.count(core + ".conv.{}.")
        if convs == 0 or convs % 2 or 2 * self.dim % convs:
            raise InputError(
                f"{self.checkpoint.path}: {convs} convolutions {core}.conv found; "
                f"expected an even number that divides {2 * self.dim}"
            )
        features = [self._features(core, index, convs, x2) for index in range(convs)]
        x1 = self._lif(f"{core}.x1_lif", self._concat(f"{core}.x1_concat", features[: convs // 2]))
        y = self._lif(f"{core}.y_lif", self._concat(f"{core}.y_concat", features[convs // 2 :]))
        x = self.build.add(f"{core}.x_add", Residual("add"), x1, x2)
        return x2, self._position(x1, x) if self.rpe == "after" else x, y

    def _features(self, core: str, index: int, convs: int, x2: str) -> str:
        """Add one convolution over time and its normalisation."""
        name, norm = f"{core}.conv.{index}", f"{core}.bn.{index}"
        outputs = 2 * self.dim // convs
        weight = self.checkpoint.take(f"{name}.weight", outputs, None, None, None, None)
        group_inputs, _, height, width = weight.shape[1:]
        if self.dim % group_inputs or height % 2 == 0 or width % 2 == 0:
            raise InputError(
                f"{self.checkpoint.path}: tensor {name}.weight {weight.shape} found; expected ({outputs}, "
                f"a divisor of {self.dim}, any, odd, odd)"
            )
        arrays = self.checkpoint.take_batch_norm(norm, outputs)
        weight, bias = self.synapses.fold(weight, None, (norm, arrays))
        groups, padding = self.dim // group_inputs, (height // 2, width // 2)
        layer = Conv3d(weight, bias, (1, 1), padding, groups, "causal" if self.causal else "centred")
        x = self.build.add(f"{name}_part", SliceOverTime(index, convs), x2) if self.tiled else x2
        x = self.synapses.normalise(self.build.add(name, layer, x), (norm, arrays))
        return self.build.add(f"{name}_tile", TileOverTime(), x, x2) if self.tiled else x

    def _concat(self, name: str, sources: list[str]) -> str:
        joined, *others = sources
        for index, source in enumerate(others, 1):
            joined = self.build.add(f"{name}.{index}", Concat(), joined, source)
        return joined

    def _block(self, block: str, x: str, guide: str, context: str) -> str:
        attn, mlp = f"{block}.attn", f"{block}.mlp"
        q, k, v = (
            self._lif(f"{attn}.{name}_lif", self._linear(f"{attn}.{name}_conv", source, self.dim, self.dim, axes=1))
            for name, source in (("q", guide), ("k", context), ("v", context))
        )
        y = self.build.add(attn, SpikingAttention(self.heads, self.scale, self.options.attention_order), q, k, v)
        y = self._lif(f"{attn}.attn_lif", y, self.options.attn_threshold)
        y = self._linear(f"{attn}.proj_conv", y, self.dim, self.dim, axes=1, has_bias=True)
        if self.attn_residual == "add":
            y = self.build.add(f"{block}.attn_add", Residual("add"), x, y)
        spikes = self._lif(f"{mlp}.mlp1_lif", y)
        hidden = self.checkpoint.take(f"{mlp}.mlp1_conv.weight", None, self.dim, 1, 1).shape[0]
        out = self._linear(f"{mlp}.mlp1_conv", spikes, hidden, self.dim, axes=2, has_bias=True)
        out = self._lif(f"{mlp}.mlp2_lif", out)
        out = self._linear(f"{mlp}.mlp2_conv", out, self.dim, hidden, axes=2, has_bias=True)
        return self.build.add(f"{block}.mlp_add", Residual("add"), out, spikes if self.mlp_residual == "spikes" else y)

    def _conv2d(self, name: str, source: str, outputs: int | None, inputs: int) -> tuple[str, int]:
        """Add a convolution that keeps the size; return its name and its number of output channels."""
        weight = self.checkpoint.take(f"{name}.weight", outputs, inputs, None, None)
        size = weight.shape[2]
        if size % 2 == 0 or weight.shape[3] != size:
            raise InputError(
                f"{self.checkpoint.path}: tensor {name}.weight {weight.shape} found; expected a square, odd kernel"
            )
        norm = name.replace("_conv", "_bn")
        arrays = self.checkpoint.take_batch_norm(norm, len(weight))
        x = self.synapses.conv2d(name, weight, None, (norm, arrays), source, padding=size // 2)
        return x, len(weight)

    def _linear(self, name: str, source: str, outputs: int, inputs: int, *, axes: int, has_bias: bool = False) -> str:
        """Add a linear layer, stored as a convolution of kernel 1 with so many spatial axes."""
        weight = self.checkpoint.take(f"{name}.weight", outputs, inputs, *[1] * axes)
        weight = weight.reshape(weight.shape[:2])
        bias = self.checkpoint.take(f"{name}.bias", len(weight)) if has_bias else None
        norm = name.replace("_conv", "_bn")
        arrays = self.checkpoint.take_batch_norm(norm, len(weight))
        return self.synapses.linear(name, weight, bias, (norm, arrays), source)

    def _lif(self, name: str, source: str, threshold: float | None = None) -> str:
        v_threshold = self.options.v_threshold if threshold is None else threshold
        return self.build.add(name, LIF(v_threshold=v_threshold, tau=self.tau, decay_input=self.decay_input), source)
