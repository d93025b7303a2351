"""STFormer in PyTorch: to train, to export, and to compare a simulation with.

"STFormer: Spatial Temporal Spiking Transformer" (submitted to ICLR 2024, OpenReview wPK65O4pqS). Its code was never
published. Its baselines are those of Spikingformer-CML (github.com/zhouchenlin2096/Spikingformer-CML), so whatever it
does not describe is taken from there, and so are the names of the modules. Three kernels of 5 x 5 make the spatial
core, convolutions over time the temporal core, and the attention (SGA) joins what the two have made.

What the paper leaves open, or says twice and differently, is a field of `Reading`; docs/papers/stformer.md goes through
the paper equation by equation. The networks of its tables of ablations are `ABLATIONS`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn

OF_THE_CORE = (
    "temporal_kernel",
    "groups",
    "temporal_padding",
    "time_split",
    "core",
    "attention",
    "query",
    "key",
    "value",
    "rpe",
    "later_blocks",
)
"""Fields that say nothing where there is no temporal core."""
OF_SGA = ("query", "key", "value", "later_blocks")
"""Fields that say nothing with plain attention."""


@dataclass(frozen=True)
class Reading:
    """What the paper leaves open; the defaults are what most of it supports.

    Attributes
    ----------
    kernel_size : int
        Of the three spatial blocks. The best is 5 (section 4.3; Table 7 has 3, the baseline's, 5, 7, 11 and 31).
    pools : str
        Which of the first four stages end in a max pooling; the baseline's models for event cameras have "1111".
    convs : int
        Convolutions over time side by side, n (Fig. 3); it is not printed. With 0 there is no temporal core, and SGA
        has nothing to guide by: queries, keys and values are all of X2, the spikes of what enters the block.
    temporal_kernel : (int, int, int)
        Their kernel: time, height, width. Not printed.
    groups : int
        Of these convolutions; the width makes them depthwise.
    temporal_padding : {"centred", "causal"}
        As many steps before as after, or the present and earlier steps only.
    time_split : {"full", "tiled", "concatenated"}
        Every convolution sees all T steps, and makes 1 / n of the channels of X1 and Y: T steps in equation 8. Or the
        i-th one sees the i-th part of T / n steps (equation 7) and makes as many channels; its steps are repeated up to
        T, or it makes all channels and the parts are concatenated in time (Fig. 3 concatenates them, along an axis that
        it does not name). Then X1 is the first half of the channels that each group makes, Y the second.
    core : {"once", "per_block"}
        One temporal core before the first block (section 3.2), or one at the beginning of each.
    attention : {"sga", "ssa"}
        Spiking guided attention, or without SGA (Table 5): the baseline's attention on X. Nothing reads Y then, so it
        is not made: all convolutions make X1.
    query : {"x2", "x", "y"}
        What queries are made of: X2, the spikes before the temporal core (section 3.4); or X = X1 + X2, through
        neurons; or Y. Later blocks have no X2 of their own: X takes its place.
    key : {"x", "y"}
        What keys are made of. X and Y are the inputs of SGA (Fig. 3): with queries of X2 and values of Y, only keys of
        X make them so.
    value : {"y", "x"}
        What values are made of.
    rpe : {"before", "after"}
        Position embedding before the temporal core, made of S (equation 6); or after it, made of X1 (section 3.2).
    rpe_residual : {"add", "none"}
        Whether it is added to what it is made of (equation 6, "residual concatenation" in section 3.2), or takes its
        place (the baseline).
    lif_input : {"decayed", "undecayed"}
        Neurons charge by v + (x - v) / tau (the baseline), or by v - v / tau + x (equation 3 has no such factor).
    tau : float, optional
        Default: that of the baseline's models, 1.75 for two input channels (event cameras), else 2.
    mlp_residual : {"spikes", "membrane"}
        The shortcut of the MLP starts behind its first neurons (equation 11), or before them (the baseline).
    attn_residual : {"add", "none"}
        Whether the attention has a shortcut: the baseline's has, equation 9 shows none.
    later_blocks : {"sga", "ssa"}
        With one temporal core, Y is that of the first block in later ones too; or their own input is in its place.
    head_lif : bool
        Whether neurons stand between the last MLP and the pooling before the head (section 3.2), or none (equation 12
        and the baseline).
    """

    kernel_size: int = 5
    pools: str = "0011"
    convs: int = 2
    temporal_kernel: tuple[int, int, int] = (3, 1, 1)
    groups: int = 1
    temporal_padding: Literal["centred", "causal"] = "centred"
    time_split: Literal["full", "tiled", "concatenated"] = "full"
    core: Literal["once", "per_block"] = "once"
    attention: Literal["sga", "ssa"] = "sga"
    query: Literal["x2", "x", "y"] = "x2"
    key: Literal["x", "y"] = "x"
    value: Literal["y", "x"] = "y"
    rpe: Literal["before", "after"] = "before"
    rpe_residual: Literal["add", "none"] = "add"
    lif_input: Literal["decayed", "undecayed"] = "decayed"
    tau: float | None = None
    mlp_residual: Literal["spikes", "membrane"] = "spikes"
    attn_residual: Literal["add", "none"] = "add"
    later_blocks: Literal["sga", "ssa"] = "sga"
    head_lif: bool = False

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.convs == 0:
            self._refuse(OF_THE_CORE, "convs above 0")
        elif self.attention == "ssa":
            self._refuse(OF_SGA, "attention='sga'")
        else:
            self._check_sources()
        if self.attention == "sga" and self.time_split != "concatenated" and self.convs % 2:
            raise ValueError(f"convs={self.convs}: an even number is needed, X1 and Y take half of them each")
        if self.core == "per_block" and (self.rpe == "after" or self.later_blocks == "ssa"):
            raise ValueError("core='per_block' needs rpe='before' and later_blocks='sga'")

    def _refuse(self, names: tuple[str, ...], needed: str) -> None:
        for name in names:
            if getattr(self, name) != getattr(Reading, name):
                raise ValueError(f"{name}={getattr(self, name)!r} needs {needed}")

    def _check_sources(self) -> None:
        sources = (self.query, self.key, self.value)
        if "y" not in sources:
            raise ValueError("query, key or value must be 'y': else nothing would read Y")
        if self.attn_residual == "none" and "x" not in sources:
            raise ValueError("attn_residual='none' needs query, key or value 'x': else nothing would read X1")

    @property
    def is_baseline(self) -> bool:
        """Whether this is Spikingformer-CML."""
        fields = {**ABLATIONS["baseline"], "attn_residual": "add", "head_lif": False}
        return all(getattr(self, name) == value for name, value in fields.items())

    def lif(self, v_threshold: float = 1.0) -> neuron.LIFNode:
        """Return leaky integrate-and-fire neurons for ``[time, batch, ...]``."""
        return neuron.LIFNode(
            tau=self.tau,
            decay_input=self.lif_input == "decayed",
            v_threshold=v_threshold,
            detach_reset=True,
            surrogate_function=surrogate.ATan(),
            step_mode="m",
        )


ABLATIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "without_sga": {"attention": "ssa"},
    "without_temporal_core": {"convs": 0},
    "without_st_core": {"convs": 0, "kernel_size": 3},
    "spatial_core": {"convs": 0, "rpe_residual": "none", "mlp_residual": "membrane"},
    "temporal_core": {"attention": "ssa", "kernel_size": 3, "mlp_residual": "membrane"},
    "baseline": {"convs": 0, "kernel_size": 3, "rpe_residual": "none", "mlp_residual": "membrane"},
}
"""Fields of `Reading` that make the networks of Tables 3 to 5.

Rows "w/o" take a part away from STFormer, rows "+" add one to the baseline, Spikingformer-CML: 3 x 3 kernels, no
shortcut around the position embedding, shortcuts of potentials. "none" is STFormer itself. "without_st_core" is "w/o
ST-Core", "spatial_core" is "+ Spatial Core". No row takes the temporal core alone away.
"""


def conv2d(inputs: int, outputs: int, kernel_size: int) -> nn.Conv2d:
    """Return a convolution that keeps the size."""
    return nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, bias=False)


def max_pool(used: bool) -> nn.Module:
    """Return the overlapping max pooling that halves the size, or nothing."""
    return nn.MaxPool2d(kernel_size=3, stride=2, padding=1) if used else nn.Identity()


def each_step(x: Tensor, *modules: nn.Module) -> Tensor:
    """Apply modules that know no time to ``[time, batch, ...]``."""
    return functional.seq_to_ann_forward(x, modules)


class SpatialCore(nn.Module):
    """Frames ``[T, B, C, H, W]`` to currents ``[T, B, width, H', W']``, and the position embedding behind them."""

    def __init__(self, in_channels: int, width: int, reading: Reading) -> None:
        super().__init__()
        size, pools = reading.kernel_size, [digit == "1" for digit in reading.pools]
        self.proj_conv = conv2d(in_channels, width // 8, 3)
        self.proj_bn = nn.BatchNorm2d(width // 8)
        self.proj_mp = max_pool(pools[0])

        self.proj1_lif = reading.lif()
        self.proj1_conv = conv2d(width // 8, width // 4, size)
        self.proj1_bn = nn.BatchNorm2d(width // 4)
        self.proj1_mp = max_pool(pools[1])

        self.proj2_lif = reading.lif()
        self.proj2_conv = conv2d(width // 4, width // 2, size)
        self.proj2_bn = nn.BatchNorm2d(width // 2)
        self.proj2_mp = max_pool(pools[2])

        self.proj3_lif = reading.lif()
        self.proj3_conv = conv2d(width // 2, width, size)
        self.proj3_bn = nn.BatchNorm2d(width)
        self.proj3_mp = max_pool(pools[3])

        self.proj4_lif = reading.lif()
        self.proj4_conv = conv2d(width, width, 3)
        self.proj4_bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        x = each_step(x, self.proj_conv, self.proj_bn, self.proj_mp)
        x = each_step(self.proj1_lif(x), self.proj1_conv, self.proj1_bn, self.proj1_mp)
        x = each_step(self.proj2_lif(x), self.proj2_conv, self.proj2_bn, self.proj2_mp)
        return each_step(self.proj3_lif(x), self.proj3_conv, self.proj3_bn, self.proj3_mp)

    def position(self, spikes: Tensor) -> Tensor:
        """Return the relative position embedding, currents made of spikes."""
        return each_step(spikes, self.proj4_conv, self.proj4_bn)


class TemporalCore(nn.Module):
    """Currents ``[T, B, width, H', W']`` to spikes of that shape: X2, X1, and Y or None where nothing reads it."""

    def __init__(self, width: int, reading: Reading) -> None:
        super().__init__()
        self.groups = reading.groups
        self.has_y = reading.attention == "sga"
        self.split = reading.time_split
        made = 2 * width if self.has_y else width
        outputs = made if self.split == "concatenated" else made // reading.convs
        time, height, side = reading.temporal_kernel
        self.before = time - 1 if reading.temporal_padding == "causal" else time // 2
        self.after = time - 1 - self.before
        self.lif = reading.lif()
        self.conv = nn.ModuleList(
            nn.Conv3d(
                width,
                outputs,
                reading.temporal_kernel,
                padding=(0, height // 2, side // 2),
                groups=reading.groups,
                bias=False,
            )
            for _ in range(reading.convs)
        )
        self.bn = nn.ModuleList(nn.BatchNorm3d(outputs) for _ in range(reading.convs))
        self.x1_lif = reading.lif()
        if self.has_y:
            self.y_lif = reading.lif()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        x2 = self.lif(x)
        z = [self.features(index, x2) for index in range(len(self.conv))]
        if self.split == "concatenated":
            z = torch.cat(z)
            halves = [half.flatten(2, 3) for half in z.unflatten(2, (self.groups, -1)).chunk(1 + self.has_y, 3)]
        else:
            halves = torch.cat(z, 2).chunk(1 + self.has_y, 2)
        return x2, self.x1_lif(halves[0]), self.y_lif(halves[1]) if self.has_y else None

    def features(self, index: int, x2: Tensor) -> Tensor:
        """Return what one of the convolutions makes: over its part of the steps if they are concatenated, else all."""
        steps = len(x2)
        if self.split != "full":
            start = index * steps // len(self.conv)
            x2 = x2[start : max(start + 1, (index + 1) * steps // len(self.conv))]
        volume = nn.functional.pad(x2.permute(1, 2, 0, 3, 4), (0, 0, 0, 0, self.before, self.after))
        z = self.bn[index](self.conv[index](volume)).permute(2, 0, 1, 3, 4)
        return z if self.split == "concatenated" else z.repeat(-(-steps // len(z)), 1, 1, 1, 1)[:steps]


class SGA(nn.Module):
    """Spiking guided attention: ``0.125 (q k^T) v`` with q, k and v made of a signal each; plain if that is one."""

    def __init__(self, width: int, heads: int, reading: Reading) -> None:
        super().__init__()
        self.heads = heads
        self.proj_lif = reading.lif()
        self.q_conv = nn.Conv1d(width, width, kernel_size=1, bias=False)
        self.q_bn = nn.BatchNorm1d(width)
        self.q_lif = reading.lif()
        self.k_conv = nn.Conv1d(width, width, kernel_size=1, bias=False)
        self.k_bn = nn.BatchNorm1d(width)
        self.k_lif = reading.lif()
        self.v_conv = nn.Conv1d(width, width, kernel_size=1, bias=False)
        self.v_bn = nn.BatchNorm1d(width)
        self.v_lif = reading.lif()
        self.attn_lif = reading.lif(v_threshold=0.5)
        self.proj_conv = nn.Conv1d(width, width, kernel_size=1)
        self.proj_bn = nn.BatchNorm1d(width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return currents made of spikes, all ``[T, B, width, H', W']``."""
        size = query.shape[3:]
        q = self.split(self.q_lif(each_step(query.flatten(3), self.q_conv, self.q_bn)))
        k = self.split(self.k_lif(each_step(key.flatten(3), self.k_conv, self.k_bn)))
        v = self.split(self.v_lif(each_step(value.flatten(3), self.v_conv, self.v_bn)))
        y = (q @ k.transpose(3, 4)) @ v * 0.125
        y = self.attn_lif(y.transpose(3, 4).flatten(2, 3))
        return each_step(y, self.proj_conv, self.proj_bn).unflatten(3, size)

    def split(self, x: Tensor) -> Tensor:
        """Return ``[T, B, heads, N, width / heads]``."""
        return x.unflatten(2, (self.heads, -1)).transpose(3, 4)


class MLP(nn.Module):
    """Two layers with `hidden` neurons per token between them."""

    def __init__(self, width: int, hidden: int, reading: Reading) -> None:
        super().__init__()
        self.mlp1_lif = reading.lif()
        self.mlp1_conv = nn.Conv2d(width, hidden, kernel_size=1)
        self.mlp1_bn = nn.BatchNorm2d(hidden)
        self.mlp2_lif = reading.lif()
        self.mlp2_conv = nn.Conv2d(hidden, width, kernel_size=1)
        self.mlp2_bn = nn.BatchNorm2d(width)
        self.shortcut_of_spikes = reading.mlp_residual == "spikes"

    def forward(self, x: Tensor) -> Tensor:
        """Return currents, the shortcut included."""
        spikes = self.mlp1_lif(x)
        y = self.mlp2_lif(each_step(spikes, self.mlp1_conv, self.mlp1_bn))
        return each_step(y, self.mlp2_conv, self.mlp2_bn) + (spikes if self.shortcut_of_spikes else x)


class Block(nn.Module):
    """Encoder block: attention, then MLP."""

    def __init__(self, width: int, heads: int, reading: Reading) -> None:
        super().__init__()
        if reading.convs and reading.core == "per_block":
            self.temporal_core = TemporalCore(width, reading)
        self.attn = SGA(width, heads, reading)
        self.mlp = MLP(width, 4 * width, reading)
        self.reading = reading

    def forward(self, x: Tensor, x2: Tensor | None, y: Tensor | None) -> Tensor:
        """Return currents; X takes the place of X2 and Y where they are None."""
        reading = self.reading
        sources = [{"x2": x2, "x": None, "y": y}[word] for word in (reading.query, reading.key, reading.value)]
        if any(source is None for source in sources):
            spikes = self.attn.proj_lif(x)
            sources = [spikes if source is None else source for source in sources]
        out = self.attn(*sources)
        return self.mlp(x + out if reading.attn_residual == "add" else out)


class STFormer(nn.Module):
    """STFormer, or one of its ablations.

    Parameters
    ----------
    width : int
        Channels per token, a multiple of 8 and of `heads`.
    depth, heads, classes, in_channels : int
    size : int or (int, int)
        (Height, width) of the input. No weight depends on it, but the importer must know.
    time_steps : int
        How often an image is shown, and how many frames a recording is cut into.
    reading : Reading
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        heads: int,
        classes: int,
        in_channels: int,
        size: int | tuple[int, int],
        time_steps: int,
        reading: Reading | None = None,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.in_channels = in_channels
        self.size = (size, size) if isinstance(size, int) else size
        self.time_steps = time_steps
        reading = Reading() if reading is None else reading
        if reading.tau is None:
            reading = replace(reading, tau=1.75 if in_channels == 2 else 2.0)
        self.reading = reading
        self.patch_embed = SpatialCore(in_channels, width, reading)
        if reading.convs and reading.core == "once":
            self.temporal_core = TemporalCore(width, reading)
        self.block = nn.ModuleList(Block(width, heads, reading) for _ in range(depth))
        if reading.head_lif:
            self.head_lif = reading.lif()
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, classes]`` for frames ``[T, B, C, H, W]`` or images ``[B, C, H, W]``; starts at rest."""
        functional.reset_net(self)
        if x.ndim == 4:
            x = x.expand(self.time_steps, *x.shape)
        reading, embed = self.reading, self.patch_embed
        if reading.time_split == "concatenated" and len(x) < reading.convs:
            raise ValueError(f"{len(x)} time steps found; expected one for each of {reading.convs} parts")
        x = embed(x)
        if reading.rpe == "before":
            position = embed.position(embed.proj4_lif(x))
            x = position + x if reading.rpe_residual == "add" else position
        y = None
        for index, block in enumerate(self.block):
            core = self.core_of(index)
            if core is not None:
                x2, x1, y = core(x)
                x = x2 if reading.rpe == "after" and reading.rpe_residual == "none" else x1 + x2
                x = x + embed.position(x1) if reading.rpe == "after" else x
            elif reading.later_blocks == "ssa":
                y = None
            x = block(x, x2 if core is not None and reading.attention == "sga" else None, y)
        if reading.head_lif:
            x = self.head_lif(x)
        return self.head(x.flatten(3).mean(3).mean(0))

    def core_of(self, index: int) -> TemporalCore | None:
        """Return the temporal core that comes before the attention of a block."""
        if self.reading.convs == 0:
            return None
        if self.reading.core == "per_block":
            return self.block[index].temporal_core
        return self.temporal_core if index == 0 else None


def nmnist_model(ablation: str = "none", **reading: Any) -> STFormer:
    """Return the small model that is trained on N-MNIST: 34 x 34 pixels, 9 tokens, 2 blocks.

    Parameters
    ----------
    ablation : str
        A name in `ABLATIONS`. "none" is what the exported weights are of: keys of Y, and tau 2.
    **reading
        Further fields of `Reading`.
    """
    fields = {"pools": "1111", "tau": 2.0, **({"key": "y"} if ablation == "none" else ABLATIONS[ablation])}
    sizes = {"width": 48, "depth": 2, "heads": 4, "classes": 10, "in_channels": 2, "size": 34, "time_steps": 4}
    return STFormer(**sizes, reading=Reading(**fields | reading))


def metadata(model: STFormer) -> dict[str, str]:
    """Return what the state dict cannot tell, under the names of the importer's options.

    The baseline's are those of Spikingformer's importer, which reads it.
    """
    height, width = model.size
    reading = model.reading
    values = {
        "heads": model.heads,
        "time_steps": model.time_steps,
        "height": height,
        "width": width,
        "input_kind": "graded" if model.in_channels == 2 else "real",
        "pools": reading.pools,
        "scale": 0.125,
        "bn_eps": 1e-5,
        "tau": reading.tau,
        "decay_input": reading.lif_input == "decayed",
        "v_threshold": 1.0,
        "attn_threshold": 0.5,
        "reset": "zero",
        "v_reset": 0.0,
        "strict": False,
    }
    if reading.is_baseline:
        names: tuple[str, ...] = ()
        values |= {"variant": "cml"}
    else:
        names = ("rpe_residual", "mlp_residual", "attn_residual", "head_lif")
        values["format"] = "stformer"
        if reading.convs:
            names += ("attention", "temporal_padding", "time_split", "rpe")
            if reading.attention == "sga":
                names += ("query", "key", "value")
                names += ("later_blocks",) if reading.core == "once" else ()
    values |= {name: getattr(reading, name) for name in names}
    return {name: str(value) for name, value in values.items()}
