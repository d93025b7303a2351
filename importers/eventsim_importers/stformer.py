"""STFormer: spatial core, temporal core (convolutions over time) and spiking guided attention.

"STFormer: Spatial Temporal Spiking Transformer" (submitted to ICLR 2024, OpenReview wPK65O4pqS). No code was published
and the paper leaves much open, so this reads the state dict of ``examples/stformer.py``: module names and everything
that the paper does not describe are those of its baseline, Spikingformer-CML
(github.com/zhouchenlin2096/Spikingformer-CML, Apache-2.0). What stays open are the options below;
docs/papers/stformer.md goes through the paper equation by equation.

The networks of its tables of ablations are read as well: without SGA (no convolution over time makes Y), without a
temporal core, with the spatial core alone. The baseline itself is Spikingformer-CML, and read as that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Literal, NoReturn, cast

import numpy as np

from eventsim.errors import InputError
from eventsim.layers import Concat, Conv3d, JoinOverTime, MaxPool2d, Residual, SliceOverTime, TileOverTime
from eventsim.network import Network
from eventsim_importers.protocol import Importer
from eventsim_importers.reading.checkpoint import BatchNorm, Checkpoint
from eventsim_importers.reading.options import NOT_STATED, InputOptions, T
from eventsim_importers.reading.reader import BATCH_NORM
from eventsim_importers.reading.spiking_transformer import (
    UNUSED_NORMS,
    TransformerOptions,
    TransformerReader,
    encoder_names,
)

BASELINE_KERNEL = 3
STAGES = ("proj", "proj1", "proj2", "proj3")
SPLITS = ("full", "tiled", "concatenated")
OF_SGA = ("query", "key", "value", "later_blocks")
OF_THE_CORE = ("attention", "temporal_padding", "time_split", "rpe", *OF_SGA)
EVENT_CAMERA_TAU = "not in the checkpoint, that of the baseline's models for event cameras"


@dataclass(frozen=True)
class Options(TransformerOptions, InputOptions):
    """What the state dict of an STFormer cannot tell; None takes what the metadata say, else the default.

    Those of `TransformerOptions` (default of `tau`: as in the baseline's models, 1.75 for two input channels, else 2;
    `decay_input`: equation 3 has no such factor, the baseline does), and the ones below.

    The state dict tells the number of convolutions over time, their kernel and groups, whether there is one temporal
    core, one per block or none, and the kernels of the spatial core. Without a temporal core, options that speak of it
    are refused.

    Attributes
    ----------
    heads : int, optional
        Attention heads. Default: one per 16 channels for two input channels (16 for width 256), else one per 32 (12 for
        384), as in the baseline.
    scale : float, optional
        Attention scale. Default: 0.125.
    time_steps : int, optional
        Of a sample. Default: 16 for two input channels, else 4. (The paper also speaks of 4 for event cameras.)
    height, width : int, optional
        Input size. Default: 128 for two input channels, else 32.
    input_kind : {"binary", "graded", "real"}, optional
        What arrives: spikes ("binary"), event counts ("graded") or pixels ("real"). Default: "graded" for two input
        channels, else "real".
    pools : str, optional
        Which of the first four stages end in a max pooling, as ones and zeros. Default: "1111" for two input channels,
        else "0011", as in the baseline.
    temporal_padding : {"centred", "causal"}, optional
        Steps that a convolution over time sees: as many before as after, so that it looks ahead, or none after.
        Default: "centred".
    time_split : {"full", "tiled", "concatenated"}, optional
        Each of n convolutions sees all T steps (T steps are in equation 8). Or the i-th sees the i-th part of T / n
        steps (equation 7), and its output is repeated up to T, or the outputs are concatenated in time (Fig. 3
        concatenates them, along an axis that it does not name). The number of their outputs tells the last from the
        others. Default: "full".
    attention : {"sga", "ssa"}, optional
        Spiking guided attention, or without SGA (Table 5): plain attention on X. The convolutions make X1 and Y or X1
        alone, which their number and outputs tell, but for two convolutions of as many outputs as a token has
        channels. Default: "sga".
    query : {"x2", "x", "y"}, optional
        Queries are made of X2, the spikes before the temporal core (section 3.4), or through neurons of X = X1 + X2, or
        of Y. In later blocks X takes the place of X2. Default: "x2".
    key : {"x", "y"}, optional
        Keys are made of X through neurons, or of Y. X and Y are the inputs of SGA (Fig. 3), so with queries of X2 keys
        are of X. Default: "x"; "y" where the metadata name the query alone, as they did before this was an option.
    value : {"y", "x"}, optional
        Values are made of Y, or of X through neurons. Default: "y".
    rpe : {"before", "after"}, optional
        Position embedding before the temporal core, made of S (equation 6), or after it, made of X1 (section 3.2).
        Default: "before".
    rpe_residual : {"add", "none"}, optional
        Whether it is added to what it is made of (equation 6), or takes its place (the baseline). Default: "add".
    mlp_residual : {"spikes", "membrane"}, optional
        The shortcut of the MLP starts behind its first neurons (equation 11), or before them as in the baseline.
        Default: "spikes".
    attn_residual : {"add", "none"}, optional
        Whether the attention has a shortcut: the baseline's has, equation 9 shows none. Default: "add".
    later_blocks : {"sga", "ssa"}, optional
        Where there is one temporal core: its Y is that of later blocks too, or their own input takes its place.
        Default: "sga".
    head_lif : bool, optional
        Whether neurons stand between the last MLP and the pooling before the head (section 3.2), or none (equation 12
        and the baseline). Default: false.
    """

    heads: int | None = None
    scale: float | None = None
    pools: str | None = None
    temporal_padding: Literal["centred", "causal"] | None = None
    time_split: Literal["full", "tiled", "concatenated"] | None = None
    attention: Literal["sga", "ssa"] | None = None
    query: Literal["x2", "x", "y"] | None = None
    key: Literal["x", "y"] | None = None
    value: Literal["y", "x"] | None = None
    rpe: Literal["before", "after"] | None = None
    rpe_residual: Literal["add", "none"] | None = None
    mlp_residual: Literal["spikes", "membrane"] | None = None
    attn_residual: Literal["add", "none"] | None = None
    later_blocks: Literal["sga", "ssa"] | None = None
    head_lif: bool | None = None


def signature(checkpoint: Checkpoint) -> int:
    """Count the tensors of an STFormer, which `_is_stformer` tells next to the names of its baseline."""
    core = _cores(checkpoint)
    told_by = {"patch_embed.proj4_conv.weight", *(() if core else ("block.0.mlp.mlp1_conv.weight",))}
    if not told_by <= checkpoint.tensors.keys() or not _is_stformer(checkpoint, _is_said(checkpoint)):
        return 0
    cores = {"once": r"temporal_core", "per_block": r"block\.\d+\.temporal_core", None: "no core"}[core]
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


def _is_said(checkpoint: Checkpoint) -> bool:
    """Whether the metadata have an option that the baseline has not."""
    return "rpe_residual" in checkpoint.metadata


def _is_stformer(checkpoint: Checkpoint, is_said: bool) -> bool:
    """Tell an STFormer from its baseline, by a temporal core, by large kernels, or by what is said of it."""
    kernel = checkpoint.tensors.get("patch_embed.proj1_conv.weight")
    is_large = kernel is not None and kernel.shape[3:] > (BASELINE_KERNEL,)
    return is_said or is_large or _cores(checkpoint) is not None


def read(checkpoint: Checkpoint, options: Options) -> Network:
    """Compose the network.

    Spatial core: BN(conv 3x3), then three times BN(conv 5x5(LIF(x))), each with a max pooling where `pools` says so;
    the position embedding BN(conv 3x3(LIF(x))) is added. Temporal core: X2 = LIF(x), X1 and Y are LIF(BN(conv over time
    of X2)), X = X1 + X2. Each block: S = BN(proj(LIF(scale (q k^T) v))) + X with q made of X2, k of X and v of Y, then
    BN(mlp2(LIF(BN(mlp1 LIF(S))))) + LIF(S). Head: linear on the mean over tokens and time.

    Raises
    ------
    InputError
        If a tensor is missing, left over or of the wrong shape, or an option does not fit.
    """
    if not _is_stformer(checkpoint, _is_said(checkpoint) or options.rpe_residual is not None):
        raise InputError(
            f"{checkpoint.path}: no STFormer found; expected temporal_core.conv or block.0.temporal_core.conv, or "
            "spatial kernels above 3 x 3, or rpe_residual said where neither is there"
        )
    return _Reader(checkpoint, options).network()


class _Reader(TransformerReader):
    """Walks the modules in the order of the forward pass."""

    def __init__(self, checkpoint: Checkpoint, options: Options) -> None:
        self.in_channels = checkpoint.take("patch_embed.proj_conv.weight", None, None, 3, 3).shape[1]
        events = self.in_channels == 2
        self.default_tau, self.tau_note = (1.75, EVENT_CAMERA_TAU) if events else (2.0, NOT_STATED)
        super().__init__(checkpoint, options)
        self.options = options
        self.dim = checkpoint.take("patch_embed.proj4_conv.weight", None, None, 3, 3).shape[0]
        self.depth = checkpoint.count("block.{}.")
        self.core = _cores(checkpoint)
        choose = self.choose
        self.heads = choose.heads(max(self.dim // (16 if events else 32), 1), self.dim)
        self.scale = choose("scale", 0.125)
        self.time_steps = choose("time_steps", 16 if events else 4)
        size = 128 if events else 32
        self.input = choose.input(self.in_channels, size, size)
        self.pools = choose("pools", "1111" if events else "0011")
        if not re.fullmatch("[01]{4}", self.pools):
            self._refuse(f"pools={self.pools}", "four ones and zeros, such as 0011")
        self.rpe, self.later_blocks = "before", "sga"
        self.sources = ("x", "x", "x")
        self.attention: str | None = None
        if self.core is None:
            self._expect_unsaid(OF_THE_CORE, "no tensor temporal_core.conv.0.weight")
        else:
            self._choose_core()
        self.rpe_residual = self._chosen_later("rpe_residual", "add", "add")
        self.mlp_residual = choose("mlp_residual", "spikes")
        self.attn_residual = choose("attn_residual", "add")
        self.head_lif = self._chosen_later("head_lif", False, False)
        if self.attention == "sga" and self.attn_residual == "none" and "x" not in self.sources:
            self._refuse(f"attn_residual=none with {self._said()}", "one of them x, or nothing reads X1")
        without = {"sga": "", "ssa": " without SGA", None: " without temporal core"}[self.attention]
        self._begin(f"STFormer {self.depth}-{self.dim}{without}")

    def _default_tau(self) -> float:
        return self.default_tau

    def _choose_core(self) -> None:
        """Choose what the temporal core is and who reads it."""
        choose = self.choose
        self.time_padding = cast(Literal["centred", "causal"], choose("temporal_padding", "centred"))
        self.attention, self.split = self._arrangement()
        self.convs = self._count(0)
        self.parts = ("x1", "y") if self.attention == "sga" else ("x1",)
        self.made = len(self.parts) * self.dim
        if self.split == "concatenated" and self.time_steps < self.convs:
            self._refuse(f"time_steps={self.time_steps} and {self.convs} parts of them", "a time step for every part")
        self.rpe = choose("rpe", "before")
        if self.core == "per_block":
            if self.options.later_blocks is not None:
                self._refuse(
                    f"later_blocks={self.options.later_blocks} with a temporal core in every block",
                    "the option left out",
                )
            if self.rpe == "after":
                self._refuse("rpe=after with a temporal core in every block", "rpe=before")
        if self.attention == "ssa":
            self._expect_unsaid(OF_SGA, "no SGA")
            return
        self.sources = (
            choose("query", "x2"),
            self._chosen_later("key", "x", "y"),
            self._chosen_later("value", "y", "y"),
        )
        if "y" not in self.sources:
            self._refuse(self._said(), "one of them y, or nothing reads Y")
        if self.core == "once":
            self.later_blocks = choose("later_blocks", "sga")

    def _arrangement(self) -> tuple[str, str]:
        """Return attention and split of time: those of which the convolutions tell that they fit, else the stated."""
        core, convs = self._core_of(0), self._count(0)
        weight = self.checkpoint.tensors[f"{core}.conv.0.weight"]
        outputs = len(weight) if weight.ndim else 0
        made = {"sga": 2 * self.dim, "ssa": self.dim}
        known = [(attention, split) for attention in made for split in SPLITS]
        fits = [
            (attention, split)
            for attention, split in known
            if outputs * (1 if split == "concatenated" else convs) == made[attention]
            and not (attention == "sga" and split != "concatenated" and convs % 2)
        ]
        stated = {name: self.choose.stated(name) for name in ("attention", "time_split")}
        fits = [fit for fit in fits if all(want in (None, has) for want, has in zip(stated.values(), fit, strict=True))]
        if not fits:
            said = "".join(f", {name}={value}" for name, value in stated.items() if value is not None)
            self._refuse(
                f"{convs} convolutions {core}.conv with {outputs} outputs in {core}.conv.0.weight{said}",
                f"an even number with {made['sga']} outputs together, or {made['ssa']} together with attention=ssa, or "
                "as many each with time_split=concatenated",
            )
        attention = self._told("attention", "sga", [attention for attention, _ in fits], f"{core}.conv.0.weight")
        splits = [split for each, split in fits if each == attention]
        return attention, self._told("time_split", "full", splits, f"{core}.conv.0.weight")

    def _told(self, name: str, default: str, fits: list[str], tensor: str) -> str:
        """Choose among words that fit a tensor: what is stated, else the one that fits, else the default."""
        return self.choose.inferred(name, fits[0], tensor) if len({*fits}) == 1 else self.choose(name, default)

    def _chosen_later(self, name: str, default: T, before: T) -> T:
        """Choose an option that older exports do not state; their metadata name the query and not the key."""
        metadata = self.checkpoint.metadata
        if "query" in metadata and "key" not in metadata:
            return self.choose.inferred(name, before, "metadata of before it was an option")
        return self.choose(name, default)

    def _said(self) -> str:
        return "query={}, key={}, value={}".format(*self.sources)

    def _expect_unsaid(self, names: tuple[str, ...], found: str) -> None:
        """Refuse options of a part that is not there."""
        for name in names:
            value = self.choose.stated(name)
            if value is not None:
                self._refuse(f"{name}={value} with {found}", "the option left out")

    def _refuse(self, found: str, expected: str) -> NoReturn:
        raise InputError(f"{self.checkpoint.path}: {found} found; expected {expected}")

    def _core_of(self, index: int) -> str:
        return "temporal_core" if self.core == "once" else f"block.{index}.temporal_core"

    def _count(self, index: int) -> int:
        """Count the convolutions over time of a core."""
        return self.checkpoint.count(self._core_of(index) + ".conv.{}.")

    def network(self) -> Network:
        """Read everything, and refuse what is left over."""
        x = self._spatial_core(self.build.add("input", self.input))
        y: str | None = None
        for index in range(self.depth):
            x2 = None
            if self.core == "per_block" or (self.core == "once" and index == 0):
                if self._count(index) != self.convs:
                    found = f"{self._count(index)} convolutions {self._core_of(index)}.conv"
                    self._refuse(found, f"{self.convs}, as in the first block")
                x2, x, y = self._temporal_core(self._core_of(index), x)
            elif self.later_blocks == "ssa":
                y = None
            x = self._block(f"block.{index}", x, {"x2": x2, "y": y})
        if self.head_lif:
            x = self._lif("head_lif", x)
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
        return self._position(self._lif("patch_embed.proj4_lif", x), x if self.rpe_residual == "add" else None)

    def _position(self, spikes: str, shortcut: str | None) -> str:
        """Add the position embedding."""
        position = self._conv("patch_embed.proj4_conv", spikes, self.dim, self.dim)
        return position if shortcut is None else self._add("patch_embed_add", position, shortcut)

    def _add(self, name: str, x: str, shortcut: str) -> str:
        return self.build.add(name, Residual("add"), x, shortcut)

    def _temporal_core(self, core: str, source: str) -> tuple[str, str, str | None]:
        """Add a temporal core; return X2, X, and Y where there is one."""
        x2 = self._lif(f"{core}.lif", source)
        seen = [x2] * self.convs
        if self.split != "full":
            seen = [
                self.build.add(f"{core}.conv.{index}_part", SliceOverTime(index, self.convs), x2)
                for index in range(self.convs)
            ]
        made = self._one_after_another(core, seen, x2) if self.split == "concatenated" else self._beside(core, seen, x2)
        x1, *y = (self._lif(f"{core}.{part}_lif", currents) for part, currents in zip(self.parts, made, strict=True))
        x = x2 if self.rpe == "after" and self.rpe_residual == "none" else self._add(f"{core}_add", x1, x2)
        return x2, self._position(x1, x) if self.rpe == "after" else x, y[0] if y else None

    def _beside(self, core: str, seen: list[str], x2: str) -> list[str]:
        """Add what convolutions make of what they see, side by side: for X1 and, with SGA, half of it for Y."""
        features = []
        for index, source in enumerate(seen):
            x = self._convolution(core, index, self.made // self.convs, source)
            features.append(self.build.add(f"{core}.conv.{index}_tile", TileOverTime(), x, x2) if source != x2 else x)
        size = len(features) // len(self.parts)
        made = []
        for number, part in enumerate(self.parts):
            joined, *others = features[number * size : (number + 1) * size]
            for index, other in enumerate(others, 1):
                joined = self.build.add(f"{core}.{part}_concat.{index}", Concat(), joined, other)
            made.append(joined)
        return made

    def _one_after_another(self, core: str, seen: list[str], x2: str) -> list[str]:
        """Add what convolutions make of their parts of the time steps, in this order, for X1 and, with SGA, for Y."""
        made = []
        for part in self.parts:
            joined, *others = (self._convolution(core, index, self.made, x, part) for index, x in enumerate(seen))
            for index, other in enumerate(others, 1):
                joined = self.build.add(f"{core}.{part}_join.{index}", JoinOverTime(), joined, other, x2)
            made.append(joined)
        return made

    def _convolution(self, core: str, index: int, outputs: int, source: str, part: str | None = None) -> str:
        """Add one convolution over time and its normalisation; or the channels of them that make X1 or Y."""
        name, norm = f"{core}.conv.{index}", f"{core}.bn.{index}"
        weight = self.checkpoint.take(f"{name}.weight", outputs, None, None, None, None)
        group_inputs, _, height, width = weight.shape[1:]
        if group_inputs < 1 or self.dim % group_inputs or height % 2 == 0 or width % 2 == 0:
            self._refuse(f"tensor {name}.weight {weight.shape}", f"({outputs}, a divisor of {self.dim}, any, odd, odd)")
        groups = self.dim // group_inputs
        arrays = self.checkpoint.take_batch_norm(norm, outputs)
        if part is not None and len(self.parts) > 1:
            rows = np.arange(outputs).reshape(groups, 2, -1)[:, self.parts.index(part)].ravel()
            name, norm, weight = f"{name}.{part}", f"{norm}.{part}", weight[rows]
            arrays = BatchNorm(arrays.weight[rows], arrays.bias[rows], arrays.mean[rows], arrays.variance[rows])
        make = partial(Conv3d, padding=(height // 2, width // 2), groups=groups, time_padding=self.time_padding)
        return self.synapses.add(name, weight, None, source, make, norm=norm, arrays=arrays)

    def _block(self, block: str, x: str, others: dict[str, str | None]) -> str:
        """Add a block; X takes the place of X2 and Y where they are None."""
        attn, mlp = f"{block}.attn", f"{block}.mlp"
        sources = [others.get(word) for word in self.sources]
        spikes = self._lif(f"{attn}.proj_lif", x) if None in sources else ""
        y = self._attention_of(attn, *(source or spikes for source in sources))
        if self.attn_residual == "add":
            y = self._add(f"{block}.attn_add", x, y)
        spikes = self._lif(f"{mlp}.mlp1_lif", y)
        out = self._linear(f"{mlp}.mlp1_conv", spikes, (None, self.dim), 2, True)
        out = self._lif(f"{mlp}.mlp2_lif", out)
        out = self._linear(f"{mlp}.mlp2_conv", out, (self.dim, self._outputs(f"{mlp}.mlp1_conv")), 2, True)
        return self._add(f"{out}_add", out, spikes if self.mlp_residual == "spikes" else y)

    def _project(self, attn: str, part: str, source: str) -> str:
        return self._linear(f"{attn}.{part}_conv", source, (self.dim, self.dim), 1, has_bias=part == "proj")


IMPORTER = Importer(
    "STFormer, as in examples/stformer.py, and its ablations: convolutions over time, spiking guided attention",
    Options,
    signature,
    read,
)
