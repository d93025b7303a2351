"""STFormer: spatial core, temporal core (convolutions over time) and spiking guided attention.

"STFormer: Spatial Temporal Spiking Transformer" (submitted to ICLR 2024, OpenReview wPK65O4pqS). No code was published
and the paper leaves much open, so this reads the state dict of ``examples/stformer.py``: module names and everything
that the paper does not describe are those of its baseline, Spikingformer-CML
(github.com/zhouchenlin2096/Spikingformer-CML, Apache-2.0). What stays open are the options below.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

from eventsim.errors import InputError
from eventsim.layers import Concat, Conv3d, MaxPool2d, Residual, SliceOverTime, TileOverTime
from eventsim.network import Network
from eventsim_importers.protocol import Importer
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.options import InputOptions
from eventsim_importers.reading.reader import BATCH_NORM
from eventsim_importers.reading.spiking_transformer import (
    UNUSED_NORMS,
    TransformerOptions,
    TransformerReader,
    encoder_names,
)

STAGES = ("proj", "proj1", "proj2", "proj3")


@dataclass(frozen=True)
class Options(TransformerOptions, InputOptions):
    """What the state dict of an STFormer cannot tell; None takes what the metadata say, else the default.

    Those of `TransformerOptions` (`tau`: the baseline's models for event cameras have 1.75; `decay_input`: equation 3
    has no such factor, the baseline does), and the ones below.

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
    """

    heads: int | None = None
    scale: float | None = None
    pools: str | None = None
    temporal_padding: Literal["centred", "causal"] | None = None
    time_split: Literal["full", "tiled"] | None = None
    query: Literal["x2", "x"] | None = None
    rpe: Literal["before", "after"] | None = None
    mlp_residual: Literal["spikes", "membrane"] | None = None
    attn_residual: Literal["add", "none"] | None = None
    later_blocks: Literal["sga", "ssa"] | None = None


def signature(checkpoint: Checkpoint) -> int:
    """Count the tensors of an STFormer, which convolutions over time next to the names of its baseline tell."""
    core = _cores(checkpoint)
    if core is None or "patch_embed.proj4_conv.weight" not in checkpoint.tensors:
        return 0
    cores = {"once": r"temporal_core", "per_block": r"block\.\d+\.temporal_core"}[core]
    return len(
        checkpoint.matching(
            r"patch_embed\.proj[1-4]?_conv\.weight",
            rf"patch_embed\.proj[1-4]?_bn{BATCH_NORM}",
            rf"{cores}\.conv\.\d+\.weight",
            rf"{cores}\.bn\.\d+{BATCH_NORM}",
            *encoder_names("conv", "mlp", qkv_bias=False),
            UNUSED_NORMS,
        )
    )


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


class _Reader(TransformerReader):
    """Walks the modules in the order of the forward pass."""

    def __init__(self, checkpoint: Checkpoint, options: Options) -> None:
        super().__init__(checkpoint, options)
        self.options = options
        self.in_channels = checkpoint.take("patch_embed.proj_conv.weight", None, None, 3, 3).shape[1]
        self.dim = checkpoint.take("patch_embed.proj4_conv.weight", None, None, 3, 3).shape[0]
        self.depth = checkpoint.count("block.{}.")
        self.core = _cores(checkpoint)
        events = self.in_channels == 2
        choose = self.choose
        self.heads = choose.heads(max(self.dim // (16 if events else 32), 1), self.dim)
        self.scale = choose("scale", 0.125)
        self.time_steps = choose("time_steps", 16 if events else 4)
        size = 128 if events else 32
        self.input = choose.input(self.in_channels, size, size)
        self.pools = choose("pools", "1111" if events else "0011")
        self.time_padding = cast(Literal["centred", "causal"], choose("temporal_padding", "centred"))
        self.tiled = choose("time_split", "full") == "tiled"
        self.query = choose("query", "x2")
        self.rpe = choose("rpe", "before")
        self.mlp_residual = choose("mlp_residual", "spikes")
        self.attn_residual = choose("attn_residual", "add")
        self.later_blocks = choose("later_blocks", "sga") if self.core == "once" else "sga"
        self._check_options()
        self._begin(f"STFormer {self.depth}-{self.dim}")

    def _check_options(self) -> None:
        path = self.checkpoint.path
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
        x = self._spatial_core(self.build.add("input", self.input))
        y = ""
        for index in range(self.depth):
            attn = f"block.{index}.attn"
            core = {"once": "temporal_core", "per_block": f"block.{index}.temporal_core"}[cast(str, self.core)]
            has_core = index == 0 or self.core == "per_block"
            if has_core:
                x2, x, y = self._temporal_core(core, x)
            guide = x2 if has_core and self.query == "x2" else self._lif(f"{attn}.proj_lif", x)
            x = self._block(f"block.{index}", x, guide, y if has_core or self.later_blocks == "sga" else guide)
        x = self._head(x)
        self.checkpoint.ignore(UNUSED_NORMS)  # the baseline has them and never uses them
        return self._finish(x, self.time_steps)

    def _spatial_core(self, x: str) -> str:
        channels = self.in_channels
        for stage, outputs, pool in zip(STAGES, (None, None, None, self.dim), self.pools, strict=True):
            if stage != "proj":
                x = self._lif(f"patch_embed.{stage}_lif", x)
            conv = f"patch_embed.{stage}_conv"
            x, channels = self._conv(conv, x, outputs, channels), self._outputs(conv)
            if pool == "1":
                x = self.build.add(f"patch_embed.{stage}_mp", MaxPool2d((3, 3), (2, 2), (1, 1)), x)
        if self.rpe == "after":
            return x
        return self._position(self._lif("patch_embed.proj4_lif", x), x)

    def _position(self, spikes: str, shortcut: str) -> str:
        """Add the position embedding."""
        position = self._conv("patch_embed.proj4_conv", spikes, self.dim, self.dim)
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
        if group_inputs < 1 or self.dim % group_inputs or height % 2 == 0 or width % 2 == 0:
            raise InputError(
                f"{self.checkpoint.path}: tensor {name}.weight {weight.shape} found; expected ({outputs}, "
                f"a divisor of {self.dim}, any, odd, odd)"
            )
        make = partial(
            Conv3d,
            padding=(height // 2, width // 2),
            groups=self.dim // group_inputs,
            time_padding=self.time_padding,
        )
        x = self.build.add(f"{name}_part", SliceOverTime(index, convs), x2) if self.tiled else x2
        x = self.synapses.add(name, weight, None, x, make, norm=norm)
        return self.build.add(f"{name}_tile", TileOverTime(), x, x2) if self.tiled else x

    def _concat(self, name: str, sources: list[str]) -> str:
        joined, *others = sources
        for index, source in enumerate(others, 1):
            joined = self.build.add(f"{name}.{index}", Concat(), joined, source)
        return joined

    def _block(self, block: str, x: str, guide: str, context: str) -> str:
        mlp = f"{block}.mlp"
        y = self._attention(f"{block}.attn", guide, context)
        if self.attn_residual == "add":
            y = self.build.add(f"{block}.attn_add", Residual("add"), x, y)
        spikes = self._lif(f"{mlp}.mlp1_lif", y)
        out = self._linear(f"{mlp}.mlp1_conv", spikes, (None, self.dim), 2, True)
        out = self._lif(f"{mlp}.mlp2_lif", out)
        out = self._linear(f"{mlp}.mlp2_conv", out, (self.dim, self._outputs(f"{mlp}.mlp1_conv")), 2, True)
        return self.build.add(f"{block}.mlp_add", Residual("add"), out, spikes if self.mlp_residual == "spikes" else y)

    def _project(self, attn: str, part: str, source: str) -> str:
        return self._linear(f"{attn}.{part}_conv", source, (self.dim, self.dim), 1, has_bias=part == "proj")


IMPORTER = Importer(
    "STFormer, as in examples/stformer.py: convolutions over time, spiking guided attention", Options, signature, read
)
