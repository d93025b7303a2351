"""SEW-ResNet and spiking ResNet for images, as their authors name the tensors, and as SpikingJelly's models do.

Forward pass and tensor names: Fang et al., "Deep Residual Learning in Spiking Neural Networks" (NeurIPS 2021), the
authors' code, github.com/fangwei123456/Spike-Element-Wise-ResNet (``imagenet``), and
``spikingjelly.activation_based.model.sew_resnet`` and ``spiking_resnet`` of SpikingJelly 0.0.0.0.14, whose names are
those of torchvision's ResNet.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

from eventsim.errors import InputError
from eventsim.layers import Conv2d, Layer, MaxPool2d, MeanOverPositions, MeanOverTime, Residual
from eventsim.network import Network
from eventsim_importers.protocol import Importer
from eventsim_importers.reading.checkpoint import Checkpoint, describe
from eventsim_importers.reading.neurons import Firing, Leaking, LIFOptions, Neurons, ResidualMode, ResidualOptions
from eventsim_importers.reading.options import InputOptions
from eventsim_importers.reading.reader import BATCH_NORM, BatchNormOptions, Reader


@dataclass(frozen=True)
class Options(LIFOptions, ResidualOptions, BatchNormOptions, InputOptions):
    """What the state dict of a SEW-ResNet cannot tell; None takes what the metadata say, else the default.

    Those of `LIFOptions` (`tau` and `decay_input` for ``neuron=lif`` only), `ResidualOptions` (called ``cnf`` or
    ``connect_f`` by the authors; for ``block=sew`` only) and `BatchNormOptions`, and below.

    Attributes
    ----------
    block : {"sew", "spiking_resnet"}, optional
        Spikes of the branch join spikes of the shortcut; or neurons see the sum of both. The names of the authors' code
        tell where a stage begins, else "sew" is the default. Names like torchvision's tell nothing, not even whether
        there are spikes: there it has to be said.
    neuron : {"if", "lif", "plif"}, optional
        Type of every neuron. Default: "plif" where the checkpoint holds learned time constants, ``sn1.w`` and so on,
        else "if".
    time_steps : int, optional
        Of a sample. Default: 4.
    height, width : int, optional
        Input size. Default: 224.
    input_kind : {"binary", "graded", "real"}, optional
        What arrives: spikes ("binary"), event counts ("graded") or pixels ("real"). Default: "graded" for two input
        channels, else "real".
    """

    block: Literal["sew", "spiking_resnet"] | None = None
    neuron: Literal["if", "lif", "plif"] | None = None


@dataclass(frozen=True)
class Layout:
    """How one code base names what a block consists of.

    Attributes
    ----------
    conv, norm : str
        A convolution of a block and its normalisation, by number.
    downsample : dict of str to tuple of str
        For each kind of block the convolution, normalisation and neurons of the shortcut.
    told_by : str
        The tensor that tells this layout.
    branch_first : bool
        Whether "iand" in blocks of three convolutions is the branch where the shortcut is silent, not the reverse.
    """

    conv: str
    norm: str
    downsample: dict[str, tuple[str, str, str]]
    told_by: str
    branch_first: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Regular expressions of the names of all tensors."""
        block = r"layer\d+\.\d+\."
        convs, norms, neurons = (
            [_pattern(name) for name in (each, *shortcuts) if name]
            for each, shortcuts in zip(
                (self.conv, self.norm, "sn{}"), zip(*self.downsample.values(), strict=True), strict=True
            )
        )
        return (
            r"conv1\.weight",
            rf"bn1{BATCH_NORM}",
            r"sn1\.w",
            *(rf"{block}{conv}\.weight" for conv in convs),
            *(rf"{block}{norm}{BATCH_NORM}" for norm in norms),
            *(rf"{block}{neuron}\.w" for neuron in neurons),
            r"fc\.(weight|bias)",
        )


def _pattern(name: str, number: str = "[123]") -> str:
    """Return a name as a regular expression."""
    return name.replace(".", r"\.").format(number)


AUTHORS = Layout(
    "conv{}.module.0",
    "conv{}.module.1",
    {
        "sew": ("downsample.0.module.0", "downsample.0.module.1", "downsample.1"),
        "spiking_resnet": ("downsample.module.0", "downsample.module.1", ""),
    },
    "layer1.0.conv1.module.0.weight",
    branch_first=False,
)
TORCHVISION = Layout(
    "conv{}",
    "bn{}",
    {
        "sew": ("downsample.0", "downsample.1", "downsample_sn"),
        "spiking_resnet": ("downsample.0", "downsample.1", ""),
    },
    "layer1.0.conv1.weight",
    branch_first=True,
)
NAMES = {"sew": "SEW-ResNet", "spiking_resnet": "Spiking ResNet"}


def signature(checkpoint: Checkpoint) -> int:
    """Count the tensors of the layout, which the first convolution of the first block tells."""
    layout = _layout(checkpoint)
    return 0 if layout is None else len(checkpoint.matching(*layout.names))


def _layout(checkpoint: Checkpoint) -> Layout | None:
    if "conv1.weight" not in checkpoint.tensors:
        return None
    return next((each for each in (AUTHORS, TORCHVISION) if each.told_by in checkpoint.tensors), None)


def read(checkpoint: Checkpoint, options: Options) -> Network:
    """Compose the network.

    Stem: max pooling of fire(BN(conv 7x7 of stride 2)). Blocks: two convolutions 3x3, or 1x1, 3x3 and 1x1, each with BN
    and neurons, joined with the shortcut, which is fire(BN(conv 1x1)) where sizes change; in a spiking ResNet the last
    neurons and those of the shortcut are replaced by neurons behind the sum. The first block of each stage but the
    first halves the map, by its first 3x3. Head: linear on the mean over pixels and time.

    Raises
    ------
    InputError
        If a tensor is missing, left over or of the wrong shape, or an option does not fit.
    """
    layout = _layout(checkpoint)
    if layout is None:
        raise InputError(
            f"{checkpoint.path}: no SEW-ResNet found; expected conv1.weight with {AUTHORS.told_by} or "
            f"{TORCHVISION.told_by}"
        )
    return _Reader(checkpoint, options, layout).network()


class _Reader(Reader):
    """Walks the modules in the order of the forward pass."""

    def __init__(self, checkpoint: Checkpoint, options: Options, layout: Layout) -> None:
        super().__init__(checkpoint, options)
        self.layout = layout
        self.stages = checkpoint.count("layer{}.", first=1)
        self.convs = 3 if f"layer1.0.{layout.conv.format(3)}.weight" in checkpoint.tensors else 2
        self.block = self._block_kind()
        self.residual = self._residual()
        self.neuron = self._neuron_kind()
        kinds: dict[str, type[Firing]] = {"if": Firing, "lif": Neurons, "plif": Leaking}
        self.firing = kinds[self.neuron](self.choose)
        self.stem = checkpoint.take("conv1.weight", None, None, 7, 7)
        self.time_steps = self.choose("time_steps", 4)
        self.input = self.choose.input(self.stem.shape[1], 224, 224)
        self.blocks = [checkpoint.count(f"layer{stage}.{{}}.") for stage in range(1, self.stages + 1)]
        self._begin(f"{NAMES[self.block]}-{sum(self.blocks) * self.convs + 2}")

    def _block_kind(self) -> str:
        checkpoint, layout = self.checkpoint, self.layout
        for kind, (conv, _, neurons) in layout.downsample.items():
            tells = f"{conv}.weight" if layout is AUTHORS else f"{neurons}.w"
            found = checkpoint.matching(rf"layer\d+\.\d+\.{_pattern(tells)}")
            if found:
                return self.choose.inferred("block", kind, found[0])
        if layout is AUTHORS:
            return self.choose("block", "sew")
        stated = self.choose.stated("block")
        if stated is None:
            raise InputError(
                f"{checkpoint.path}: names of tensors found that ResNets without spikes have too ({layout.told_by}); "
                "expected block=sew or block=spiking_resnet to say which it is"
            )
        return cast(str, stated)

    def _residual(self) -> ResidualMode:
        if self.block == "sew":
            return cast(ResidualMode, self.choose("residual_op", "add"))
        self.choose.without_effect("residual_op", "block=spiking_resnet", "block=sew")
        return "add"

    def _neuron_kind(self) -> str:
        if "sn1.w" in self.checkpoint.tensors:
            kind = self.choose.inferred("neuron", "plif", "sn1.w")
        else:
            kind = self.choose("neuron", "if")
        if kind != "lif":
            self.choose.without_effect("tau", f"neuron={kind}", "neuron=lif")
        if kind == "if":
            self.choose.without_effect("decay_input", "neuron=if", "neuron=lif")
        return kind

    def network(self) -> Network:
        """Read everything, and refuse what is left over."""
        x = self.build.add("input", self.input)
        x = self.synapses.conv2d("conv1", self.stem, x, norm="bn1", padding=3, stride=2)
        x = self._fire("sn1", x)
        x = self.build.add("maxpool", MaxPool2d((3, 3), (2, 2), (1, 1)), x)
        for stage, blocks in enumerate(self.blocks, 1):
            for index in range(blocks):
                x = self._block(f"layer{stage}.{index}", x, 2 if stage > 1 and index == 0 else 1)
        channels = self.build.types[x].channels
        x = self.build.add("avgpool", MeanOverPositions(), x)
        x = self.build.add("mean_over_time", MeanOverTime(), x)
        return self._finish(self._dense("fc", x, channels), self.time_steps)

    def _block(self, block: str, x: str, stride: int) -> str:
        y, size_of = x, {2: (3, 3), 3: (1, 3, 1)}[self.convs]
        strided = size_of.index(3)
        for index, size in enumerate(size_of):
            conv, norm = (f"{block}.{name.format(index + 1)}" for name in (self.layout.conv, self.layout.norm))
            y = self._conv(conv, norm, y, size, stride if index == strided else 1)
            if index + 1 < self.convs or self.block == "sew":
                y = self._fire(f"{block}.sn{index + 1}", y)
        x = self._shortcut(block, x, stride)
        if self.block == "sew":
            swapped = self.layout.branch_first and self.convs == 3
            return self.build.add(f"{block}.join", Residual(self.residual), *((y, x) if swapped else (x, y)))
        return self._fire(f"{block}.sn{self.convs}", self.build.add(f"{block}.add", Residual("add"), x, y))

    def _shortcut(self, block: str, x: str, stride: int) -> str:
        if not any(name.startswith(f"{block}.downsample") for name in self.checkpoint.tensors):
            return x
        conv, norm, neurons = self.layout.downsample[self.block]
        x = self._conv(f"{block}.{conv}", f"{block}.{norm}", x, 1, stride)
        return self._fire(f"{block}.{neurons}", x) if neurons else x

    def _conv(self, name: str, norm: str, source: str, size: int, stride: int) -> str:
        """Add a convolution, whose weight tells its groups, and its normalisation."""
        weight = self.checkpoint.take(f"{name}.weight", None, None, size, size)
        channels = self.build.types[source].channels
        if weight.shape[1] < 1 or channels % weight.shape[1]:
            raise InputError(
                f"{self.checkpoint.path}: tensor {name}.weight {describe(weight.shape)} found; expected a divisor of "
                f"{channels} input channels"
            )
        make = partial(
            Conv2d, stride=(stride, stride), padding=(size // 2, size // 2), groups=channels // weight.shape[1]
        )
        return self.synapses.add(name, weight, None, source, make, norm=norm)

    def _fire(self, name: str, source: str) -> str:
        return self.build.add(name, self._neurons(name), source)

    def _neurons(self, name: str) -> Layer:
        if isinstance(self.firing, Neurons):
            return self.firing.lif()
        if isinstance(self.firing, Leaking):
            return self.firing.plif(self.checkpoint.take_number(f"{name}.w"))
        return self.firing.integrate()


IMPORTER = Importer("SEW-ResNet and spiking ResNet: names of the authors and of SpikingJelly", Options, signature, read)
