"""SEW-ResNet, plain and spiking ResNet for event cameras: a sequence of blocks with poolings between them.

Forward pass and tensor names: Fang et al., "Deep Residual Learning in Spiking Neural Networks" (NeurIPS 2021), and the
authors' code, github.com/fangwei123456/Spike-Element-Wise-ResNet (``dvsgesture``, ``cifar10dvs``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

from eventsim.errors import InputError
from eventsim.layers import Flatten, MaxPool2d, MeanOverTime, Residual
from eventsim.network import Network
from eventsim_importers.protocol import Importer
from eventsim_importers.reading.checkpoint import Checkpoint, describe
from eventsim_importers.reading.neurons import Leaking, LeakOptions, ResidualMode, ResidualOptions
from eventsim_importers.reading.options import InputOptions
from eventsim_importers.reading.reader import BATCH_NORM, BatchNormOptions, Reader

TOLD_BY = ("conv.0.0.module.0.weight", "out.weight")
"""The tensors that tell this system."""
NAMES = (
    r"conv\.\d+\.(0|conv\.[01]\.0|conv\.1)\.module\.0\.weight",
    rf"conv\.\d+\.(0|conv\.[01]\.0|conv\.1)\.module\.1{BATCH_NORM}",
    r"conv\.\d+\.(1|conv\.[01]\.1|sn)\.w",
    r"out\.(weight|bias)",
)
"""Every tensor, as regular expressions."""


@dataclass(frozen=True)
class Options(LeakOptions, ResidualOptions, BatchNormOptions, InputOptions):
    """What the state dict cannot tell; None takes what the metadata say, else the default.

    Those of `LeakOptions`, `ResidualOptions` (called ``connect_f`` by the authors; for ``block=sew`` only) and
    `BatchNormOptions`, and below. The time constants of all neurons are learned, and in the checkpoint.

    Attributes
    ----------
    block : {"sew", "plain"}, optional
        Whether blocks of two convolutions with neurons have a shortcut. Those that end in neurons of their own,
        ``conv.N.sn``, are a spiking ResNet's. Default: "sew".
    pool : int, optional
        Size and stride of the max poolings, which are where the numbers of the modules leave one out. Default: 2.
    time_steps : int, optional
        Of a sample. Default: 16.
    height, width : int, optional
        Input size. Default: 128.
    input_kind : {"binary", "graded", "real"}, optional
        What arrives: spikes ("binary"), event counts ("graded") or pixels ("real"). Default: "graded" for two input
        channels, else "real".
    """

    block: Literal["sew", "plain"] | None = None
    pool: int | None = None


def signature(checkpoint: Checkpoint) -> int:
    """Count the tensors by their names."""
    return len(checkpoint.matching(*NAMES)) if checkpoint.tensors.keys() >= set(TOLD_BY) else 0


def read(checkpoint: Checkpoint, options: Options) -> Network:
    """Compose the network.

    A sequence of fire(BN(conv x)), where the number of channels changes; of blocks, g(x, fire(BN(conv fire(BN(conv
    x))))) with the function g of spikes, or nothing, or in a spiking ResNet fire(x + BN(conv fire(BN(conv x)))); and of
    max poolings. Head: linear on the mean over time of the last map.

    Raises
    ------
    InputError
        If a tensor is missing, left over or of the wrong shape, or an option does not fit.
    """
    if not checkpoint.tensors.keys() >= set(TOLD_BY):
        raise InputError(f"{checkpoint.path}: no SEW-ResNet of events found; expected {' with '.join(TOLD_BY)}")
    return _Reader(checkpoint, options).network()


class _Reader(Reader):
    """Walks the modules in the order of the forward pass."""

    def __init__(self, checkpoint: Checkpoint, options: Options) -> None:
        super().__init__(checkpoint, options)
        self.firing = Leaking(self.choose)
        self.numbers = sorted({int(name.split(".")[1]) for name in checkpoint.matching(r"conv\.\d+\..*")})
        self.pool = self.choose("pool", 2)
        if self.pool < 2:
            raise InputError(f"{checkpoint.path}: pool={self.pool} found; expected at least 2")
        self.kind, self.residual = self._block_kind()
        first = checkpoint.take_kernel(TOLD_BY[0])
        self.time_steps = self.choose("time_steps", 16)
        self.input = self.choose.input(first.shape[1], 128, 128)
        blocks = sum(f"conv.{number}.conv.0.0.module.0.weight" in checkpoint.tensors for number in self.numbers)
        names = {"sew": "SEW-ResNet", "plain": "Plain network", "spiking_resnet": "Spiking ResNet"}
        self._begin(f"{names[self.kind]} of {blocks} blocks")

    def _block_kind(self) -> tuple[str, ResidualMode]:
        """Return what the blocks of the network are, and the function of spikes that joins their shortcut."""
        kind = "spiking_resnet" if self.checkpoint.matching(r"conv\.\d+\.sn\.w") else self.choose("block", "sew")
        if kind == "sew":
            return kind, cast(ResidualMode, self.choose("residual_op", "add"))
        for option in ("block", "residual_op") if kind == "spiking_resnet" else ("residual_op",):
            self.choose.without_effect(option, f"blocks of kind {kind}")
        return kind, "add"

    def network(self) -> Network:
        """Read everything, and refuse what is left over."""
        x = self.build.add("input", self.input)
        last = self.numbers[-1]
        for number in range(last + 1):
            module = f"conv.{number}"
            if number not in self.numbers:
                x = self._pool(module, x)
            elif any(re.match(rf"conv\.{number}\.(conv|sn)\.", name) for name in self.checkpoint.tensors):
                x = self._block(module, x)
            else:
                x = self._fire(f"{module}.1", self._conv(f"{module}.0", x))
        weight = self.checkpoint.take("out.weight", None, None)
        if weight.shape[1] != self.build.types[x].size:  # the sequence ends in a pooling, which has no tensors
            last += 1
            x = self._pool(f"conv.{last}", x)
        size = self.build.types[x].size
        if weight.shape[1] != size:
            raise InputError(
                f"{self.checkpoint.path}: tensor out.weight {describe(weight.shape)} found; "
                f"expected (any, {size}) with this height, width and pool"
            )
        x = self.build.add("mean_over_time", MeanOverTime(), self.build.add(f"conv.{last + 1}", Flatten(), x))
        return self._finish(self._dense("out", x, size), self.time_steps)

    def _block(self, block: str, x: str) -> str:
        y = self._fire(f"{block}.conv.0.1", self._conv(f"{block}.conv.0.0", x))
        if self.kind == "spiking_resnet":
            y = self._conv(f"{block}.conv.1", y)
            return self._fire(f"{block}.sn", self.build.add(f"{block}.add", Residual("add"), x, y))
        y = self._fire(f"{block}.conv.1.1", self._conv(f"{block}.conv.1.0", y))
        return self.build.add(f"{block}.join", Residual(self.residual), x, y) if self.kind == "sew" else y

    def _conv(self, module: str, source: str) -> str:
        """Add a convolution that keeps the size of the map, and its normalisation."""
        channels = self.build.types[source].channels
        weight = self.checkpoint.take_kernel(f"{module}.module.0.weight", inputs=channels)
        padding = weight.shape[2] // 2
        return self.synapses.conv2d(f"{module}.module.0", weight, source, norm=f"{module}.module.1", padding=padding)

    def _fire(self, name: str, source: str) -> str:
        return self.build.add(name, self.firing.plif(self.checkpoint.take_number(f"{name}.w")), source)

    def _pool(self, name: str, source: str) -> str:
        return self.build.add(name, MaxPool2d((self.pool, self.pool), (self.pool, self.pool)), source)


IMPORTER = Importer("SEW-ResNet, plain and spiking ResNet for event cameras", Options, signature, read)
