"""STFormer in PyTorch: to train, to export, and to compare a simulation with.

"STFormer: Spatial Temporal Spiking Transformer" (submitted to ICLR 2024, OpenReview wPK65O4pqS). Its code was never
published. Its baselines are those of Spikingformer-CML (github.com/zhouchenlin2096/Spikingformer-CML), so whatever it
does not describe is taken from there, and so are the names of the modules. Three kernels of 5 x 5 make the spatial
core, convolutions over time the temporal core, and in the attention the temporal core gives keys and values.

The paper leaves open: the shape of the convolutions over time, whether they see later steps, how many there are, and
whether each sees T steps or T / n (equations 7 and 8 differ); how often the temporal core occurs; what the queries are
made of, X2 (section 3.4) or X = X1 + X2; whether the position embedding stands before the temporal core (equation 6)
or after it (section 3.2); whether neurons divide their input by tau (equation 3 does not); whether the MLP's shortcut
carries spikes (equation 11) or membrane potentials (the baseline), and the attention has one (equation 9 has none, the
baseline does); what the later blocks attend to. Each is a field of `Reading`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn


@dataclass(frozen=True)
class Reading:
    """What the paper leaves open; the defaults are the proposed reading.

    Attributes
    ----------
    kernel_size : int
        Of the three spatial blocks; 3 is the baseline's.
    pools : str
        Which of the first four stages end in a max pooling; the baseline's models for event cameras have "1111".
    convs : int
        Convolutions over time side by side, an even number n. Each makes 2 D / n channels; the first half of them makes
        X1, the second half Y. With 0 there is no temporal core: a `kernel_size` of 3 and the MLP's shortcut on the
        membrane then leave Spikingformer-CML, but for the shortcut around the position embedding.
    temporal_kernel : (int, int, int)
        Their kernel: time, height, width.
    groups : int
        Of these convolutions; the width makes them depthwise.
    temporal_padding : {"centred", "causal"}
        As many steps before as after, or the present and earlier steps only.
    time_split : {"full", "tiled"}
        Every convolution sees all T steps; or the i-th one sees the i-th part of T / n steps, repeated afterwards.
    core : {"once", "per_block"}
        One temporal core before the first block, or one at the beginning of each.
    query : {"x2", "x"}
        Queries are made of X2, the spikes before the temporal core, or of X = X1 + X2, through neurons.
    rpe : {"before", "after"}
        Position embedding before the temporal core, as in equation 6; or after it, made of X1 and added to X.
    lif_input : {"decayed", "undecayed"}
        Neurons charge by v + (x - v) / tau, or by v - v / tau + x.
    tau : float
        2; the baseline's models for event cameras have 1.75.
    mlp_residual : {"spikes", "membrane"}
        The shortcut of the MLP starts behind its first neurons, or before them.
    attn_residual : {"add", "none"}
        Whether the attention has a shortcut; without one X1 must reach the queries.
    later_blocks : {"sga", "ssa"}
        With one temporal core, later blocks make keys and values of Y again, or of their own input like the queries.
    """

    kernel_size: int = 5
    pools: str = "0011"
    convs: int = 2
    temporal_kernel: tuple[int, int, int] = (3, 1, 1)
    groups: int = 1
    temporal_padding: Literal["centred", "causal"] = "centred"
    time_split: Literal["full", "tiled"] = "full"
    core: Literal["once", "per_block"] = "once"
    query: Literal["x2", "x"] = "x2"
    rpe: Literal["before", "after"] = "before"
    lif_input: Literal["decayed", "undecayed"] = "decayed"
    tau: float = 2.0
    mlp_residual: Literal["spikes", "membrane"] = "spikes"
    attn_residual: Literal["add", "none"] = "add"
    later_blocks: Literal["sga", "ssa"] = "sga"

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.convs % 2:
            raise ValueError(f"convs={self.convs}: an even number is needed, X1 and Y take half of them each")
        if self.attn_residual == "none" and self.query == "x2":
            raise ValueError("attn_residual='none' needs query='x': else nothing would read X1")
        if self.core == "per_block" and (self.rpe == "after" or self.later_blocks == "ssa"):
            raise ValueError("core='per_block' needs rpe='before' and later_blocks='sga'")
        if self.convs == 0 and self.rpe == "after":
            raise ValueError("rpe='after' needs a temporal core")

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
    """Currents ``[T, B, width, H', W']`` to spikes of that shape: X2, X1 and Y."""

    def __init__(self, width: int, reading: Reading) -> None:
        super().__init__()
        outputs = 2 * width // reading.convs
        time, height, side = reading.temporal_kernel
        self.causal = reading.temporal_padding == "causal"
        self.tiled = reading.time_split == "tiled"
        self.before = time - 1 if self.causal else time // 2
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
        self.y_lif = reading.lif()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x2 = self.lif(x)
        z = [self.features(index, x2) for index in range(len(self.conv))]
        half = len(z) // 2
        return x2, self.x1_lif(torch.cat(z[:half], 2)), self.y_lif(torch.cat(z[half:], 2))

    def features(self, index: int, x2: Tensor) -> Tensor:
        """Return what one of the convolutions makes, over all T steps."""
        steps = len(x2)
        if self.tiled:
            start = index * steps // len(self.conv)
            x2 = x2[start : max(start + 1, (index + 1) * steps // len(self.conv))]
        volume = nn.functional.pad(x2.permute(1, 2, 0, 3, 4), (0, 0, 0, 0, self.before, self.after))
        z = self.bn[index](self.conv[index](volume)).permute(2, 0, 1, 3, 4)
        return z.repeat(-(-steps // len(z)), 1, 1, 1, 1)[:steps]


class SGA(nn.Module):
    """Spiking guided attention: ``0.125 (q k^T) v`` with q made of one signal, k and v of another."""

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

    def forward(self, guide: Tensor, context: Tensor) -> Tensor:
        """Return currents made of spikes, all ``[T, B, width, H', W']``."""
        size = guide.shape[3:]
        guide, context = guide.flatten(3), context.flatten(3)
        q = self.split(self.q_lif(each_step(guide, self.q_conv, self.q_bn)))
        k = self.split(self.k_lif(each_step(context, self.k_conv, self.k_bn)))
        v = self.split(self.v_lif(each_step(context, self.v_conv, self.v_bn)))
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
        self.attn_residual = reading.attn_residual == "add"

    def forward(self, x: Tensor, guide: Tensor, context: Tensor) -> Tensor:
        y = self.attn(guide, context)
        return self.mlp(x + y if self.attn_residual else y)


class STFormer(nn.Module):
    """STFormer.

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
        self.reading = Reading() if reading is None else reading
        self.patch_embed = SpatialCore(in_channels, width, self.reading)
        if self.reading.convs and self.reading.core == "once":
            self.temporal_core = TemporalCore(width, self.reading)
        self.block = nn.ModuleList(Block(width, heads, self.reading) for _ in range(depth))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, classes]`` for frames ``[T, B, C, H, W]`` or images ``[B, C, H, W]``; starts at rest."""
        functional.reset_net(self)
        if x.ndim == 4:
            x = x.expand(self.time_steps, *x.shape)
        reading, embed = self.reading, self.patch_embed
        x = embed(x)
        if reading.rpe == "before":
            x = embed.position(embed.proj4_lif(x)) + x
        y = None
        for index, block in enumerate(self.block):
            core = self.core_of(index)
            if core is not None:
                x2, x1, y = core(x)
                x = x1 + x2 if reading.rpe == "before" else x1 + x2 + embed.position(x1)
            guide = x2 if core is not None and reading.query == "x2" else block.attn.proj_lif(x)
            own = core is None and (y is None or reading.later_blocks == "ssa")
            x = block(x, guide, guide if own else y)
        return self.head(x.flatten(3).mean(3).mean(0))

    def core_of(self, index: int) -> TemporalCore | None:
        """Return the temporal core that comes before the attention of a block."""
        if self.reading.convs == 0:
            return None
        if self.reading.core == "per_block":
            return self.block[index].temporal_core
        return self.temporal_core if index == 0 else None


def nmnist_model() -> STFormer:
    """Return the small model that is trained on N-MNIST: 34 x 34 pixels, 9 tokens, 2 blocks."""
    reading = Reading(pools="1111")
    return STFormer(width=48, depth=2, heads=4, classes=10, in_channels=2, size=34, time_steps=4, reading=reading)


def metadata(model: STFormer) -> dict[str, str]:
    """Return what the state dict cannot tell, under the names of the importer's options."""
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
        "temporal_padding": reading.temporal_padding,
        "time_split": reading.time_split,
        "query": reading.query,
        "rpe": reading.rpe,
        "mlp_residual": reading.mlp_residual,
        "attn_residual": reading.attn_residual,
        "later_blocks": reading.later_blocks,
    }
    return {name: str(value) for name, value in values.items()}
