"""STAA-SNN in PyTorch: to train, to export, and to compare a simulation with.

Zhang et al., "STAA-SNN: Spatial-Temporal Attention Aggregator for Spiking Neural Networks" (CVPR 2025). Its code is not
public. The backbones are those of its baseline, MPBN (Guo et al., ICCV 2023, github.com/yfguo91/MPBN), and so are the
names of their modules: a wrapper that applies a layer to each time step holds it as ``pool``, ``bn`` or ``conv``. Every
neuron is a `STAALIF`, whose modules and parameters bear the letters of the paper, or a `PlainLIF`.

What the paper leaves open is a field of `Reading`; the default is the proposed answer. ``docs/papers/staa-snn.md`` goes
through the paper equation by equation. Like every definition in this folder it has `nmnist_model`, the small
configuration trained on N-MNIST, and `metadata`, what the state dict cannot tell an importer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from spikingjelly.activation_based import functional, surrogate
from torch import Tensor, nn

AXES = ("time", "channel", "height", "width")
ABLATIONS: dict[str, dict[str, Any]] = {
    "plain": {"neurons": "plain", "modules": (), "tsrd": 0.0},
    "gc": {"modules": ("gc",), "tsrd": 0.0},
    "gc_pe": {"modules": ("pe", "gc"), "tsrd": 0.0},
    "gc_pe_tsrd": {"modules": ("pe", "gc")},
    "gc_pe_sa": {"tsrd": 0.0},
    "all": {},
}
"""The rows of Table 4 from the first to the last, as fields of `Reading`."""


@dataclass(frozen=True)
class Reading:
    """What the paper does not say.

    Attributes
    ----------
    neurons : {"adaptive", "plain"}
        Those of eq. 6, or those of eq. 1 in a backbone without any module: the first row of Table 4. Whether its rows
        with modules have M and N is not said; here they do.
    tau, decay_input : float, bool
        The constants of eq. 1, for plain neurons: ``V[t] = (1 - 1 / tau) H[t-1] + I[t]``, or ``I[t] / tau`` if the
        input decays too. Their values are not printed.
    gc_at : {"current", "input"}
        What the global context acts on, the X of eqs. 7-10. "current": the current I of the neuron, as eq. 13 is an
        update of the neuron, and the 0.06 G MACs of section 4.5 leave none for synapses behind a context. "input": what
        goes into the layer's synapses, as the text before eq. 7 calls X the spatial spiking input of the layer. A
        shortcut carries the spikes as they are.
    gc_norm : {"softmax", "sigmoid"}
        What the global context makes of the logits of the positions, eq. 7. GCNet, which it cites, has the softmax.
    gc_combine : {"additive", "gated"}
        How the context reaches the positions, eq. 10: added, or as a factor of sigmoids. GCNet has both, and adds.
    gc_layer_norm : bool
        Whether there is a layer normalisation in the bottleneck, as in GCNet.
    gc_ratio : int
        Channels per channel of the bottleneck; stated, and found best in Fig. 5.
    pe_at : {"current", "input", "past", "both", "potential"}, optional
        Where the position encoding is added. Fig. 2 compares four places, of which the text names one, the spatial
        input port before the aggregation: "current", or "input" if that is what a layer is given. The others are the
        places that are left of a neuron: the port of "past", H[t-1]; "both" ports, which takes a second encoding P_H,
        as one of the four is said to need more parameters; and behind the aggregation, the "potential" V. Default:
        `gc_at`, as the encoding is said to come right before the context.
    pe_fixed : {"none", "time", "space", "both"}
        "none": P is learned, found best in section 4.3. Else P is fixed, of sines and cosines over the channels as in
        Vaswani et al. (2017), whose positions are time steps, pixels, or both, counted one after the other. The paper
        does not say which fixed encoding it compares.
    pe_axes : tuple of axes
        What a learned P depends on, of "time", "channel", "height" and "width". That it differs between steps and
        layers is stated.
    mn_axes : tuple of axes
        The same for M and N, which are called matrices.
    retention, gain : float
        Initial M and N. The defaults make a leaky neuron with tau = 2 and undivided input.
    sa_mode : {"each", "sum"}
        Whether step attention gates each of the two terms by its own half of the output, or their sum.
    sa_gates : {"channel", "scalar"}
        Whether eq. 12 gives a gate for each channel, or one number for a whole step.
    sa_inputs : {"terms", "features"}
        What it pools: the two terms M H[t-1] and N X[t], as eq. 13 has it, or X[t-1] and X[t], as the text under
        eq. 12 can be read.
    sa_per_step : bool
        Whether each time step has weights of its own.
    sa_ratio : int
        Channels per channel of its hidden layer.
    sa_scale : float
        Factor of the sigmoid; stated.
    tsrd : float
        Probability with which a time step of a layer is aggregated by plain addition in training; stated. Whether it
        is drawn per layer is not.
    modules : tuple of {"pe", "gc", "sa"}
        What each neuron has: all of them, or fewer, as in the rows of the paper's ablation.
    """

    neurons: str = "adaptive"
    tau: float = 2.0
    decay_input: bool = False
    gc_at: str = "current"
    gc_norm: str = "softmax"
    gc_combine: str = "additive"
    gc_layer_norm: bool = True
    gc_ratio: int = 4
    pe_at: str | None = None
    pe_fixed: str = "none"
    pe_axes: tuple[str, ...] = ("time", "height", "width")
    mn_axes: tuple[str, ...] = ("channel",)
    retention: float = 0.5
    gain: float = 1.0
    sa_mode: str = "each"
    sa_gates: str = "channel"
    sa_inputs: str = "terms"
    sa_per_step: bool = False
    sa_ratio: int = 16
    sa_scale: float = 2.0
    tsrd: float = 0.1
    modules: tuple[str, ...] = ("pe", "gc", "sa")

    def __post_init__(self) -> None:
        object.__setattr__(self, "pe_at", self.pe_at or self.gc_at)
        for name, value, known in (
            ("neurons", self.neurons, ("adaptive", "plain")),
            ("gc_at", self.gc_at, ("current", "input")),
            ("pe_at", self.pe_at, ("current", "input", "past", "both", "potential")),
            ("pe_fixed", self.pe_fixed, ("none", "time", "space", "both")),
            ("sa_gates", self.sa_gates, ("channel", "scalar")),
            ("gc_norm", self.gc_norm, ("softmax", "sigmoid")),
            ("gc_combine", self.gc_combine, ("additive", "gated")),
            ("sa_mode", self.sa_mode, ("each", "sum")),
            ("sa_inputs", self.sa_inputs, ("terms", "features")),
        ):
            if value not in known:
                raise ValueError(f"{name} {value!r} found; expected one of {known}")
        if self.neurons == "plain" and self.modules:
            raise ValueError(f"plain neurons with modules {self.modules} found; expected modules=()")


class Each(nn.Module):
    """Applies a module that knows no time to each step of ``[T, B, C, H, W]``; holds it under a given name."""

    def __init__(self, name: str, module: nn.Module) -> None:
        super().__init__()
        self.add_module(name, module)
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return functional.seq_to_ann_forward(x, self.get_submodule(self.name))


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, bias: bool = False) -> Each:
    """Return a convolution that keeps the size, or halves it."""
    return Each("pool", nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias))


def norm(channels: int) -> Each:
    """Return a batch normalisation with one statistic over time and batch."""
    return Each("bn", nn.BatchNorm2d(channels))


def avg_pool(kernel: int, stride: int, padding: int = 0) -> Each:
    """Return an average pooling."""
    return Each("pool", nn.AvgPool2d(kernel, stride, padding))


class GlobalContext(nn.Module):
    """Attention over the positions of ``[B, C, H, W]``, eqs. 7-10."""

    def __init__(self, channels: int, reading: Reading) -> None:
        super().__init__()
        hidden = max(channels // reading.gc_ratio, 1)
        self.softmax = reading.gc_norm == "softmax"
        self.gated = reading.gc_combine == "gated"
        self.key = nn.Conv2d(channels, 1, kernel_size=1)
        self.value = nn.Conv2d(channels, hidden, kernel_size=1)
        self.norm = nn.LayerNorm([hidden, 1, 1]) if reading.gc_layer_norm else nn.Identity()
        self.query = nn.Conv2d(hidden, channels, kernel_size=1)
        nn.init.zeros_(self.query.weight)  # begin without effect, as GCNet does
        nn.init.zeros_(self.query.bias)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.key(x).flatten(2)
        weights = logits.softmax(2) if self.softmax else logits.sigmoid()
        context = x.flatten(2) @ weights.transpose(1, 2)  # [B, C, 1]
        y = self.query(torch.relu(self.norm(self.value(context.unsqueeze(3)))))
        return x * y.sigmoid() if self.gated else x + y


class StepAttention(nn.Module):
    """Gates for what the last step left and for what this step brings, eq. 12."""

    def __init__(self, channels: int, reading: Reading) -> None:
        super().__init__()
        hidden = max(channels // reading.sa_ratio, 1)
        gates = channels if reading.sa_gates == "channel" else 1
        self.scale = reading.sa_scale
        self.each = reading.sa_mode == "each"
        self.reduce = nn.Conv2d(2 * channels, hidden, kernel_size=1)
        self.expand = nn.Conv2d(hidden, 2 * gates if self.each else gates, kernel_size=1)

    def forward(self, past: Tensor, present: Tensor, before: Tensor, now: Tensor) -> Tensor:
        """Aggregate the terms `past` and `present`, gated by the means of `before` and `now`; all [B, C, H, W]."""
        means = torch.cat((before.mean((2, 3), keepdim=True), now.mean((2, 3), keepdim=True)), 1)
        gates = self.scale * self.expand(torch.relu(self.reduce(means))).sigmoid()
        if not self.each:
            return gates * (past + present)
        gate_past, gate_present = gates.chunk(2, 1)
        return gate_past * past + gate_present * present


def sinusoids(counted: str, time_steps: int, shape: tuple[int, int, int]) -> Tensor:
    """Return a fixed encoding ``[T or 1, C, H or 1, W or 1]``: sines of even channels, cosines of odd ones."""
    channels, *grid = shape
    pixels = grid if counted != "time" else [1, 1]
    steps = time_steps if counted != "space" else 1
    position = torch.arange(steps * pixels[0] * pixels[1], dtype=torch.float64).reshape(steps, 1, *pixels)
    channel = torch.arange(channels).reshape(1, channels, 1, 1)
    angle = position / 10_000.0 ** (channel // 2 * 2 / channels)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()


class PlainLIF(nn.Module):
    """Leaky neuron, eqs. 1-3, on currents ``[T, B, C, H, W]``: fires where V >= 1, then ``H[t] = V[t] (1 - S[t])``."""

    def __init__(self, reading: Reading) -> None:
        super().__init__()
        self.tau = reading.tau
        self.decay_input = reading.decay_input
        self.spike = surrogate.PiecewiseLeakyReLU(w=0.5, c=0.0)  # a rectangle of width and height 1

    def prepare(self, x: Tensor) -> Tensor:
        """Return what the synapses of the layer see: what the layer is given."""
        return x

    def forward(self, x: Tensor) -> Tensor:
        left = torch.zeros_like(x[0])
        spikes = []
        for now in x:
            v = left + (now - left) / self.tau if self.decay_input else left - left / self.tau + now
            spikes.append(self.spike(v - 1.0))
            left = v * (1.0 - spikes[-1].detach())
        return torch.stack(spikes)


class STAALIF(nn.Module):
    """Leaky neuron with spatial-temporal attention, eqs. 3, 6 and 11-14, on currents ``[T, B, C, H, W]``.

    ``V[t] = SA(M * H[t-1], N * GC(I[t] + P[t]))``; it fires where V >= 1, then ``H[t] = V[t] (1 - S[t])``. P, GC and SA
    are there if the reading names them, and P and GC where it puts them: `prepare` is for those before the synapses.

    Parameters
    ----------
    shape : (int, int, int)
        Channels, height and width.
    time_steps : int
    reading : Reading
    source : (int, int, int), optional
        The same of what the synapses of the layer see. Default: `shape`.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        time_steps: int,
        reading: Reading,
        source: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__()
        modules = reading.modules
        source = source or shape
        self.tsrd = reading.tsrd
        self.of_terms = reading.sa_inputs == "terms"
        self.gc_at, self.pe_at = reading.gc_at, reading.pe_at
        self.M = nn.Parameter(torch.full(_sizes(reading.mn_axes, time_steps, shape), reading.retention))
        self.N = nn.Parameter(torch.full(_sizes(reading.mn_axes, time_steps, shape), reading.gain))
        for name in ("P", "P_H"):
            there = "pe" in modules and (name == "P" or self.pe_at == "both")
            encoded = source if self.pe_at == "input" else shape
            if there and reading.pe_fixed == "none":
                self.register_parameter(name, nn.Parameter(torch.zeros(_sizes(reading.pe_axes, time_steps, encoded))))
            else:
                fixed = sinusoids(reading.pe_fixed, time_steps, encoded) if there else None
                self.register_buffer(name, fixed, persistent=False)
        self.gc = GlobalContext((source if self.gc_at == "input" else shape)[0], reading) if "gc" in modules else None
        self.sa: nn.Module | None = None
        if "sa" in modules and reading.sa_per_step:
            self.sa = nn.ModuleList(StepAttention(shape[0], reading) for _ in range(time_steps))
        elif "sa" in modules:
            self.sa = StepAttention(shape[0], reading)
        self.spike = surrogate.PiecewiseLeakyReLU(w=0.5, c=0.0)  # a rectangle of width and height 1
        self.dropped: list[bool] | None = None

    def prepare(self, x: Tensor) -> Tensor:
        """Return what the synapses of the layer see."""
        self.dropped = self.draw(len(x))
        seen = self.enhance(x, "input")
        if seen is x or not any(self.dropped):
            return seen
        return torch.stack([x[t] if drop else seen[t] for t, drop in enumerate(self.dropped)])

    def draw(self, time_steps: int) -> list[bool]:
        """Draw the steps that are aggregated by plain addition."""
        return [bool(self.training and torch.rand(()) < self.tsrd) for _ in range(time_steps)]

    def enhance(self, x: Tensor, place: str) -> Tensor:
        """Add the encoding and the context that belong to this place."""
        if self.P is not None and (self.pe_at == place or (self.pe_at == "both" and place == "current")):
            x = x + self.P.unsqueeze(1)[: len(x)]
        if self.gc is not None and self.gc_at == place:
            x = functional.seq_to_ann_forward(x, self.gc)
        return x

    def forward(self, x: Tensor) -> Tensor:
        dropped, self.dropped = self.dropped or self.draw(len(x)), None
        on_past = self.P_H if self.pe_at == "both" else self.P if self.pe_at == "past" else None
        on_potential = self.P if self.pe_at == "potential" else None
        features = self.enhance(x, "current")
        left, before = torch.zeros_like(x[0]), torch.zeros_like(x[0])
        spikes = []
        for t, now in enumerate(features):
            retention, gain = _at(self.M, t), _at(self.N, t)
            if dropped[t]:
                v = retention * left + gain * x[t]
            else:
                past = retention * (left if on_past is None else left + _at(on_past, t))
                v = self.aggregate(t, past, gain * now, before, now)
                v = v if on_potential is None else v + _at(on_potential, t)
            before = now
            spikes.append(self.spike(v - 1.0))
            left = v * (1.0 - spikes[-1].detach())
        return torch.stack(spikes)

    def aggregate(self, t: int, past: Tensor, present: Tensor, before: Tensor, now: Tensor) -> Tensor:
        """Return V[t] for the two terms, and the features of the last step and of this one."""
        attend = self.sa[t] if isinstance(self.sa, nn.ModuleList) else self.sa
        if attend is None:
            return past + present
        return attend(past, present, past, present) if self.of_terms else attend(past, present, before, now)


def _sizes(axes: tuple[str, ...], time_steps: int, shape: tuple[int, int, int]) -> list[int]:
    return [size if axis in axes else 1 for axis, size in zip(AXES, (time_steps, *shape), strict=True)]


def _at(parameter: Tensor, t: int) -> Tensor:
    return parameter[t if len(parameter) > 1 else 0]


class Layers:
    """Makes the layers of one network: a convolution that keeps the size or halves it, a normalisation, a neuron."""

    def __init__(self, size: tuple[int, int], time_steps: int, reading: Reading) -> None:
        self.size = size
        self.time_steps = time_steps
        self.reading = reading

    def pooled(self, kernel: int, padding: int = 0) -> None:
        """Follow the map through a window of stride 2."""
        height, width = ((n + 2 * padding - kernel) // 2 + 1 for n in self.size)
        self.size = (height, width)

    def __call__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, bias: bool = False
    ) -> tuple[Each, Each, STAALIF | PlainLIF]:
        source = (inputs, *self.size)
        if stride == 2:
            self.pooled(kernel, kernel // 2)
        synapses = conv(inputs, outputs, kernel, stride, bias), norm(outputs)
        if self.reading.neurons == "plain":
            return *synapses, PlainLIF(self.reading)
        return *synapses, STAALIF((outputs, *self.size), self.time_steps, self.reading, source)


class Stack(nn.Sequential):
    """Convolutions, each with its normalisation and its neuron behind it, and poolings."""

    def forward(self, x: Tensor) -> Tensor:
        modules = list(self)
        for index, module in enumerate(modules):
            if isinstance(module, Each) and isinstance(module.get_submodule(module.name), nn.Conv2d):
                x = modules[index + 2].prepare(x)
            x = module(x)
        return x


class Block(nn.Module):
    """Conv - BN - neuron - Conv - BN, plus the shortcut, then a neuron on the sum: spikes leave it."""

    def __init__(self, inputs: int, outputs: int, stride: int, average: bool, layers: Layers) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu1 = layers(inputs, outputs, stride=stride)
        self.conv2, self.bn2, output_act = layers(outputs, outputs)
        self.downsample: nn.Module | None = None
        if stride == 2 and average:
            pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
            self.downsample = nn.Sequential(Each("pool", pool), conv(inputs, outputs, kernel=1), norm(outputs))
        elif stride == 2:
            self.downsample = nn.Sequential(conv(inputs, outputs, kernel=1, stride=2), norm(outputs))
        self.output_act = output_act

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(self.relu1.prepare(x))))
        y = self.bn2(self.conv2(self.output_act.prepare(y)))
        return self.output_act(y + (x if self.downsample is None else self.downsample(x)))


class Backbone(nn.Module):
    """What the backbones share: images or frames in, mean over time out; every sample starts at rest."""

    def __init__(self, size: int | tuple[int, int], in_channels: int, time_steps: int, reading: Reading | None) -> None:
        super().__init__()
        self.size = (size, size) if isinstance(size, int) else size
        self.in_channels = in_channels
        self.time_steps = time_steps
        self.reading = reading or Reading()
        self.layers = Layers(self.size, time_steps, self.reading)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, classes]`` for frames ``[T, B, C, H, W]`` or images ``[B, C, H, W]``."""
        if x.ndim == 4:
            x = x.expand(self.time_steps, *x.shape)
        return self.classify(x).mean(0)

    def classify(self, x: Tensor) -> Tensor:
        """Return the logits of each step, ``[T, B, classes]``."""
        raise NotImplementedError


class ResNet(Backbone):
    """The residual networks.

    Parameters
    ----------
    stem : {"three", "one", "imagenet"}
        Three convolutions and a pooling, with an average pooling in the shortcuts (the modified ResNet-20); one (the
        ResNet-19); or one of 7 x 7 and stride 2, and a pooling (the ResNet-18 and 34).
    widths, blocks : tuple of int
        Channels and number of blocks of each stage; all but the first halve the size. The stem has the first width.
    classes, in_channels : int
    size : int or (int, int)
    time_steps : int
    reading : Reading
    """

    def __init__(
        self,
        stem: str,
        *,
        widths: tuple[int, ...],
        blocks: tuple[int, ...],
        classes: int,
        size: int | tuple[int, int],
        in_channels: int = 3,
        time_steps: int = 4,
        reading: Reading | None = None,
    ) -> None:
        super().__init__(size, in_channels, time_steps, reading)
        layers, width = self.layers, widths[0]
        if stem == "three":
            stages = [layers(n, width) for n in (in_channels, width, width)]
            self.conv1 = Stack(*(module for stage in stages for module in stage))
            self.avgpool = avg_pool(2, 2)
            layers.pooled(2)
        elif stem == "one":
            self.conv1, self.bn1, self.relu = layers(in_channels, width)
        elif stem == "imagenet":
            self.conv1, self.bn1, self.relu = layers(in_channels, width, kernel=7, stride=2)
            self.avgpool1 = avg_pool(3, 2, 1)
            layers.pooled(3, 1)
        else:
            raise ValueError(f"stem {stem!r} found; expected 'three', 'one' or 'imagenet'")
        self.stem = stem
        self.stages = len(widths)
        for stage, (outputs, count) in enumerate(zip(widths, blocks, strict=True), start=1):
            layer = [Block(width, outputs, 1 if stage == 1 else 2, stem == "three", layers)]
            layer += [Block(outputs, outputs, 1, stem == "three", layers) for _ in range(count - 1)]
            self.add_module(f"layer{stage}", nn.Sequential(*layer))
            width = outputs
        self.fc = Each("conv", nn.Linear(width, classes))

    def classify(self, x: Tensor) -> Tensor:
        if self.stem == "three":
            x = self.avgpool(self.conv1(x))
        else:
            x = self.relu(self.bn1(self.conv1(self.relu.prepare(x))))
            x = self.avgpool1(x) if self.stem == "imagenet" else x
        for stage in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.fc(x.mean((3, 4)))


class VGG(Backbone):
    """The VGG networks.

    Parameters
    ----------
    widths : tuple of tuple of int
        Channels of the convolutions of each group; an average pooling ends a group.
    classes, in_channels : int
    size : int or (int, int)
    time_steps : int
    reading : Reading
    """

    def __init__(
        self,
        *,
        widths: tuple[tuple[int, ...], ...],
        classes: int,
        size: int | tuple[int, int],
        in_channels: int = 2,
        time_steps: int = 16,
        reading: Reading | None = None,
    ) -> None:
        super().__init__(size, in_channels, time_steps, reading)
        layers: list[nn.Module] = []
        channels = in_channels
        for group in widths:
            for width in group:
                layers += self.layers(channels, width, bias=True)
                channels = width
            layers.append(avg_pool(2, 2))
            self.layers.pooled(2)
        self.features = Stack(*layers)
        self.classifier = Each("conv", nn.Linear(channels, classes))

    def classify(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((3, 4)))


def resnet20(classes: int = 100, size: int = 32, **options) -> ResNet:
    """Return the modified ResNet-20 for CIFAR."""
    return ResNet("three", widths=(64, 128, 256, 512), blocks=(2, 2, 2, 2), classes=classes, size=size, **options)


def resnet19(classes: int = 100, size: int = 32, **options) -> ResNet:
    """Return the ResNet-19 for CIFAR."""
    return ResNet("one", widths=(128, 256, 512), blocks=(3, 3, 2), classes=classes, size=size, **options)


def resnet18(classes: int = 1000, size: int = 224, **options) -> ResNet:
    """Return the ResNet-18 for ImageNet."""
    return ResNet("imagenet", widths=(64, 128, 256, 512), blocks=(2, 2, 2, 2), classes=classes, size=size, **options)


def resnet34(classes: int = 1000, size: int = 224, **options) -> ResNet:
    """Return the ResNet-34 for ImageNet."""
    return ResNet("imagenet", widths=(64, 128, 256, 512), blocks=(3, 4, 6, 3), classes=classes, size=size, **options)


def vgg13(classes: int = 10, size: int = 48, **options) -> VGG:
    """Return the VGG-13 for recordings; the paper does not list its layers, so this is the usual one."""
    groups = ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512))
    return VGG(widths=groups, classes=classes, size=size, **options)


def nmnist_model(ablation: str = "all") -> VGG:
    """Return the small model that is trained on N-MNIST: a VGG of three groups of two convolutions, 34 x 34 pixels.

    `ablation` is a row of Table 4, a key of `ABLATIONS`.
    """
    if ablation not in ABLATIONS:
        raise ValueError(f"ablation {ablation!r} found; expected one of {tuple(ABLATIONS)}")
    groups = ((8, 16), (32, 32), (64, 64))
    return VGG(widths=groups, classes=10, size=34, time_steps=5, reading=Reading(sa_ratio=4, **ABLATIONS[ablation]))


def metadata(model: Backbone) -> dict[str, str]:
    """Return what the state dict cannot tell, under the names of the importer's options."""
    height, width = model.size
    reading = model.reading
    values: dict[str, object] = {
        "time_steps": model.time_steps,
        "height": height,
        "width": width,
        "input_kind": "graded" if model.in_channels == 2 else "real",
        "v_threshold": 1.0,
        "reset": "zero",
        "v_reset": 0.0,
        "strict": False,
        "bn_eps": 1e-5,
    }
    if reading.neurons == "plain":
        values |= {"tau": reading.tau, "decay_input": reading.decay_input}
    else:
        values |= {"pe_fixed": reading.pe_fixed if "pe" in reading.modules else "none"}
    if "pe" in reading.modules:
        values |= {"pe_at": reading.pe_at}
    if "gc" in reading.modules:
        values |= {"gc_at": reading.gc_at, "gc_norm": reading.gc_norm, "gc_combine": reading.gc_combine}
        values |= {"ln_eps": 1e-5} if reading.gc_layer_norm else {}
    if "sa" in reading.modules:
        values |= {"sa_mode": reading.sa_mode, "sa_gates": reading.sa_gates}
        values |= {"sa_inputs": reading.sa_inputs, "sa_scale": reading.sa_scale}
    if isinstance(model, VGG):
        values |= {"last_pool": True}
    return {name: str(value) for name, value in values.items()}
