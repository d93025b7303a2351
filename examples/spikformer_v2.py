"""Spikformer V2 in PyTorch: to train, to export, and to compare a simulation with.

Zhou et al., "Spikformer V2: Join the High Accuracy Club on ImageNet with an SNN Ticket" (2024). No code was published.
The paper fixes the stem of four stages (a convolution 2 x 2 of stride 2, then two convolutions 3 x 3 "like the MLP"),
the encoder of V1 and the two residual operations; the parameter counts that it prints fix the rest of the weights:
expansion by 4, no position embedding, and of the eight ways of biases in the stem three. What they leave open is a
field of `Reading`.

The order convolution - normalisation - neuron is the one under which IAND makes every activation binary, as the paper
says it does. ``pretrain_spikformer_v2.py`` has the masked pre-training, of which the encoder alone is left.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import pairwise

from spikformer import MLP, SSA, SYNAPSES_AND_NEURONS, VARIANTS, conv3x3, each_step, lif
from spikingjelly.activation_based import functional
from torch import Tensor, nn

STEM_RATIO = 4
SIZES = {
    "8-384": {"width": 384, "depth": 8, "heads": 8},
    "8-512": {"width": 512, "depth": 8, "heads": 8},
    "12-512": {"width": 512, "depth": 12, "heads": 8},
    "12-768": {"width": 768, "depth": 12, "heads": 12},
    "16-768": {"width": 768, "depth": 16, "heads": 12},
}
"""The five models of the paper; the heads are those of V1."""


@dataclass(frozen=True)
class Reading:
    """What the paper leaves open, or leaves to choose.

    Attributes
    ----------
    residual_op : {"add", "iand"}
        Both are the paper's; its main results are ADD's.
    scs_residual : bool
        Whether a stage of the stem has the residual connection that its model, the MLP, has.
    scale : float
        Factor of the attention; by default that of V1.
    stem_bias : {"none", "down", "conv2"}
        Which convolutions of the stem have a bias. The parameters that Tables II and III print (29.11, 51.55, 64.18,
        143.89 and 172.28 million) fit all three and no other; the tensors tell an importer.
    """

    residual_op: str = "add"
    scs_residual: bool = True
    scale: float = 0.125
    stem_bias: str = "none"

    def __post_init__(self) -> None:
        if self.residual_op not in ("add", "iand"):
            raise ValueError(f"residual_op {self.residual_op!r} found; expected 'add' or 'iand'")
        if self.stem_bias not in ("none", "down", "conv2"):
            raise ValueError(f"stem_bias {self.stem_bias!r} found; expected 'none', 'down' or 'conv2'")


def join(residual_op: str, shortcut: Tensor, branch: Tensor) -> Tensor:
    """Join a residual connection: ``add`` makes small integers, ``iand`` keeps spikes where the branch is silent."""
    return shortcut + branch if residual_op == "add" else shortcut * (1 - branch)


class SCSStage(nn.Module):
    """Stage of the spiking convolutional stem: halves the size, then widens and narrows the channels."""

    def __init__(self, inputs: int, outputs: int, reading: Reading) -> None:
        super().__init__()
        self.reading = reading
        self.down = nn.Conv2d(inputs, outputs, kernel_size=2, stride=2, bias=reading.stem_bias == "down")
        self.down_bn = nn.BatchNorm2d(outputs)
        self.down_lif = lif()

        self.conv1 = conv3x3(outputs, STEM_RATIO * outputs)
        self.bn1 = nn.BatchNorm2d(STEM_RATIO * outputs)
        self.lif1 = lif()

        self.conv2 = conv3x3(STEM_RATIO * outputs, outputs, bias=reading.stem_bias == "conv2")
        self.bn2 = nn.BatchNorm2d(outputs)
        self.lif2 = lif()

    def forward(self, x: Tensor) -> Tensor:
        x = self.down_lif(each_step(x, self.down, self.down_bn))
        y = self.lif1(each_step(x, self.conv1, self.bn1))
        y = self.lif2(each_step(y, self.conv2, self.bn2))
        return join(self.reading.residual_op, x, y) if self.reading.scs_residual else y


class Block(nn.Module):
    """Encoder block of V1 with either residual operation, on tokens ``[T, B, width, N]``."""

    def __init__(self, width: int, heads: int, reading: Reading) -> None:
        super().__init__()
        variant = replace(VARIANTS["imagenet"], scale=reading.scale)
        self.reading = reading
        self.attn = SSA(width, heads, variant)
        self.mlp = MLP(width, 4 * width, variant)

    def forward(self, x: Tensor) -> Tensor:
        x = join(self.reading.residual_op, x, self.attn(x))
        return join(self.reading.residual_op, x, self.mlp(x))


class SpikformerV2(nn.Module):
    """Spikformer V2.

    Parameters
    ----------
    width : int
        Channels per token, a multiple of 8 and of `heads`.
    depth, heads, classes, in_channels : int
    size : int or (int, int)
        (Height, width) of the input. No weight depends on it, but the importer must know.
    time_steps : int
        How often an image is shown, and how many frames a recording is cut into; the same weights run at several.
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
        reading: Reading = Reading(),
    ) -> None:
        super().__init__()
        self.heads = heads
        self.in_channels = in_channels
        self.size = (size, size) if isinstance(size, int) else size
        self.time_steps = time_steps
        self.reading = reading
        channels = (in_channels, width // 8, width // 4, width // 2, width)
        self.stem = nn.Sequential(*(SCSStage(*pair, reading) for pair in pairwise(channels)))
        self.block = nn.Sequential(*(Block(width, heads, reading) for _ in range(depth)))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, classes]`` for frames ``[T, B, C, H, W]`` or images ``[B, C, H, W]``; starts at rest."""
        functional.reset_net(self)
        if x.ndim == 4:
            x = x.expand(self.time_steps, *x.shape)
        x = self.block(self.stem(x).flatten(3))
        return self.head(x.mean(3).mean(0))


def imagenet_model(name: str, reading: Reading = Reading()) -> SpikformerV2:
    """Return one of the paper's models, by its name in `SIZES`."""
    return SpikformerV2(**SIZES[name], classes=1000, in_channels=3, size=224, time_steps=4, reading=reading)


def nmnist_model() -> SpikformerV2:
    """Return the small model that is trained on N-MNIST: 34 x 34 pixels, 4 tokens, 2 blocks."""
    return SpikformerV2(width=48, depth=2, heads=4, classes=10, in_channels=2, size=34, time_steps=5)


def metadata(model: SpikformerV2) -> dict[str, str]:
    """Return what the state dict cannot tell, under the names of the importer's options."""
    height, width = model.size
    reading = asdict(model.reading)
    del reading["stem_bias"]  # the tensors tell
    values = {
        **SYNAPSES_AND_NEURONS,
        **reading,
        "heads": model.heads,
        "time_steps": model.time_steps,
        "height": height,
        "width": width,
        "input_kind": "graded" if model.in_channels == 2 else "real",
    }
    return {name: str(value) for name, value in values.items()}
