"""STAA-SNN in PyTorch: to train, to export, and to compare a simulation with.

Zhang et al., "STAA-SNN: Spatial-Temporal Attention Aggregator for Spiking Neural Networks" (CVPR 2025). Its code is not
public. The backbones are those of its baseline, MPBN (Guo et al., ICCV 2023, github.com/yfguo91/MPBN), and so are the
names of their modules: a wrapper that applies a layer to each time step holds it as ``pool``, ``bn`` or ``conv``. Every
neuron is a `STAALIF`, whose modules and parameters bear the letters of the paper.

What the paper leaves open is a field of `Reading`; the default is the proposed answer. The 12.69 M parameters that it
states for the ResNet-20 with 100 classes are met by ``pe_axes=("channel", "height", "width")``, among other choices.

Like every definition in this folder it has `nmnist_model`, the small configuration trained on N-MNIST, and `metadata`,
what the state dict cannot tell an importer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from spikingjelly.activation_based import functional, surrogate
from torch import Tensor, nn

AXES = ("time", "channel", "height", "width")


@dataclass(frozen=True)
class Reading:
    """What the paper does not say.

    Attributes
    ----------
    gc_norm : {"softmax", "sigmoid"}
        What the global context makes of the logits of the positions, eq. 7. GCNet, which it cites, has the softmax.
    gc_combine : {"additive", "gated"}
        How the context reaches the positions, eq. 10: added, or as a factor of sigmoids. GCNet has both, and adds.
    gc_layer_norm : bool
        Whether there is a layer normalisation in the bottleneck, as in GCNet.
    gc_ratio : int
        Channels per channel of the bottleneck; stated, and found best.
    pe_axes : tuple of axes
        What the position encoding P depends on, of "time", "channel", "height" and "width". That it differs between
        steps and layers is stated.
    mn_axes : tuple of axes
        The same for M and N, which are called matrices.
    retention, gain : float
        Initial M and N. The defaults make a leaky neuron with tau = 2 and undivided input.
    sa_mode : {"each", "sum"}
        Whether step attention gates each of the two terms by its own half of the output, or their sum.
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

    gc_norm: str = "softmax"
    gc_combine: str = "additive"
    gc_layer_norm: bool = True
    gc_ratio: int = 4
    pe_axes: tuple[str, ...] = ("time", "height", "width")
    mn_axes: tuple[str, ...] = ("channel",)
    retention: float = 0.5
    gain: float = 1.0
    sa_mode: str = "each"
    sa_inputs: str = "terms"
    sa_per_step: bool = False
    sa_ratio: int = 16
    sa_scale: float = 2.0
    tsrd: float = 0.1
    modules: tuple[str, ...] = ("pe", "gc", "sa")

    def __post_init__(self) -> None:
        for name, value, known in (
            ("gc_norm", self.gc_norm, ("softmax", "sigmoid")),
            ("gc_combine", self.gc_combine, ("additive", "gated")),
            ("sa_mode", self.sa_mode, ("each", "sum")),
            ("sa_inputs", self.sa_inputs, ("terms", "features")),
        ):
            if value not in known:
                raise ValueError(f"{name} {value!r} found; expected one of {known}")


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
        self.scale = reading.sa_scale
        self.each = reading.sa_mode == "each"
        self.reduce = nn.Conv2d(2 * channels, hidden, kernel_size=1)
        self.expand = nn.Conv2d(hidden, 2 * channels if self.each else channels, kernel_size=1)

    def forward(self, past: Tensor, present: Tensor, before: Tensor, now: Tensor) -> Tensor:
        """Aggregate the terms `past` and `present`, gated by the means of `before` and `now`; all [B, C, H, W]."""
        means = torch.cat((before.mean((2, 3), keepdim=True), now.mean((2, 3), keepdim=True)), 1)
        gates = self.scale * self.expand(torch.relu(self.reduce(means))).sigmoid()
        if not self.each:
            return gates * (past + present)
        gate_past, gate_present = gates.chunk(2, 1)
        return gate_past * past + gate_present * present


class STAALIF(nn.Module):
    """Leaky neuron with spatial-temporal attention, eqs. 3, 6 and 11-14, on currents ``[T, B, C, H, W]``.

    ``V[t] = SA(M * H[t-1], N * GC(I[t] + P[t]))``; it fires where V >= 1, then ``H[t] = V[t] (1 - S[t])``. P, GC and SA
    are there if the reading names them.
    """

    def __init__(self, shape: tuple[int, int, int], time_steps: int, reading: Reading) -> None:
        super().__init__()
        modules = reading.modules
        sizes = dict(zip(AXES, (time_steps, *shape), strict=True))

        def shape_of(axes: tuple[str, ...]) -> list[int]:
            return [sizes[axis] if axis in axes else 1 for axis in AXES]

        self.tsrd = reading.tsrd
        self.of_terms = reading.sa_inputs == "terms"
        self.M = nn.Parameter(torch.full(shape_of(reading.mn_axes), reading.retention))
        self.N = nn.Parameter(torch.full(shape_of(reading.mn_axes), reading.gain))
        self.P = nn.Parameter(torch.zeros(shape_of(reading.pe_axes))) if "pe" in modules else None
        self.gc = GlobalContext(shape[0], reading) if "gc" in modules else None
        self.sa: nn.Module | None = None
        if "sa" in modules and reading.sa_per_step:
            self.sa = nn.ModuleList(StepAttention(shape[0], reading) for _ in range(time_steps))
        elif "sa" in modules:
            self.sa = StepAttention(shape[0], reading)
        self.spike = surrogate.PiecewiseLeakyReLU(w=0.5, c=0.0)  # a rectangle of width and height 1

    def forward(self, x: Tensor) -> Tensor:
        features = x if self.P is None else x + self.P.unsqueeze(1)[: len(x)]
        if self.gc is not None:
            features = functional.seq_to_ann_forward(features, self.gc)
        left, before = torch.zeros_like(x[0]), torch.zeros_like(x[0])
        spikes = []
        for t, now in enumerate(features):
            past, gain = _at(self.M, t) * left, _at(self.N, t)
            if self.training and torch.rand(()) < self.tsrd:
                v = past + gain * x[t]
            else:
                v = self.aggregate(t, past, gain * now, before, now)
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


def _at(parameter: Tensor, t: int) -> Tensor:
    return parameter[t if len(parameter) > 1 else 0]


class Neurons:
    """Makes the neurons of one network, which differ in their shapes alone."""

    def __init__(self, size: tuple[int, int], time_steps: int, reading: Reading) -> None:
        self.size = size
        self.time_steps = time_steps
        self.reading = reading

    def pooled(self, kernel: int, padding: int = 0) -> None:
        """Follow the map through a window of stride 2."""
        height, width = ((n + 2 * padding - kernel) // 2 + 1 for n in self.size)
        self.size = (height, width)

    def __call__(self, channels: int) -> STAALIF:
        return STAALIF((channels, *self.size), self.time_steps, self.reading)


class Block(nn.Module):
    """Conv - BN - neuron - Conv - BN, plus the shortcut, then a neuron on the sum: spikes leave it."""

    def __init__(self, inputs: int, outputs: int, stride: int, average: bool, neurons: Neurons) -> None:
        super().__init__()
        if stride == 2:
            neurons.pooled(3, 1)
        self.conv1 = conv(inputs, outputs, stride=stride)
        self.bn1 = norm(outputs)
        self.relu1 = neurons(outputs)
        self.conv2 = conv(outputs, outputs)
        self.bn2 = norm(outputs)
        self.downsample: nn.Module | None = None
        if stride == 2 and average:
            pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
            self.downsample = nn.Sequential(Each("pool", pool), conv(inputs, outputs, kernel=1), norm(outputs))
        elif stride == 2:
            self.downsample = nn.Sequential(conv(inputs, outputs, kernel=1, stride=2), norm(outputs))
        self.output_act = neurons(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.output_act(y + (x if self.downsample is None else self.downsample(x)))


class Backbone(nn.Module):
    """What the backbones share: images or frames in, mean over time out; every sample starts at rest."""

    def __init__(self, size: int | tuple[int, int], in_channels: int, time_steps: int, reading: Reading | None) -> None:
        super().__init__()
        self.size = (size, size) if isinstance(size, int) else size
        self.in_channels = in_channels
        self.time_steps = time_steps
        self.reading = reading or Reading()
        self.neurons = Neurons(self.size, time_steps, self.reading)

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
        neurons, width = self.neurons, widths[0]
        if stem == "three":
            stages = [(conv(n, width), norm(width), neurons(width)) for n in (in_channels, width, width)]
            self.conv1 = nn.Sequential(*(module for stage in stages for module in stage))
            self.avgpool = avg_pool(2, 2)
            neurons.pooled(2)
            self.stem = ("conv1", "avgpool")
        elif stem == "one":
            self.conv1, self.bn1, self.relu = conv(in_channels, width), norm(width), neurons(width)
            self.stem = ("conv1", "bn1", "relu")
        elif stem == "imagenet":
            neurons.pooled(7, 3)
            self.conv1, self.bn1 = conv(in_channels, width, kernel=7, stride=2), norm(width)
            self.relu = neurons(width)
            self.avgpool1 = avg_pool(3, 2, 1)
            neurons.pooled(3, 1)
            self.stem = ("conv1", "bn1", "relu", "avgpool1")
        else:
            raise ValueError(f"stem {stem!r} found; expected 'three', 'one' or 'imagenet'")
        self.stages = len(widths)
        for stage, (outputs, count) in enumerate(zip(widths, blocks, strict=True), start=1):
            layer = [Block(width, outputs, 1 if stage == 1 else 2, stem == "three", neurons)]
            layer += [Block(outputs, outputs, 1, stem == "three", neurons) for _ in range(count - 1)]
            self.add_module(f"layer{stage}", nn.Sequential(*layer))
            width = outputs
        self.fc = Each("conv", nn.Linear(width, classes))

    def classify(self, x: Tensor) -> Tensor:
        for name in (*self.stem, *(f"layer{stage}" for stage in range(1, self.stages + 1))):
            x = self.get_submodule(name)(x)
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
                layers += [conv(channels, width, bias=True), norm(width), self.neurons(width)]
                channels = width
            layers.append(avg_pool(2, 2))
            self.neurons.pooled(2)
        self.features = nn.Sequential(*layers)
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


def nmnist_model() -> VGG:
    """Return the small model that is trained on N-MNIST: a VGG of three groups of two convolutions, 34 x 34 pixels."""
    groups = ((8, 16), (32, 32), (64, 64))
    return VGG(widths=groups, classes=10, size=34, time_steps=5, reading=Reading(sa_ratio=4))


def metadata(model: Backbone) -> dict[str, str]:
    """Return what the state dict cannot tell, under the names of the importer's options."""
    height, width = model.size
    reading = model.reading
    values = {
        "time_steps": model.time_steps,
        "height": height,
        "width": width,
        "input_kind": "graded" if model.in_channels == 2 else "real",
        "v_threshold": 1.0,
        "reset": "zero",
        "v_reset": 0.0,
        "strict": False,
        "bn_eps": 1e-5,
        "ln_eps": 1e-5,
    }
    if "gc" in reading.modules:
        values |= {"gc_norm": reading.gc_norm, "gc_combine": reading.gc_combine}
    if "sa" in reading.modules:
        values |= {"sa_mode": reading.sa_mode, "sa_inputs": reading.sa_inputs, "sa_scale": reading.sa_scale}
    if isinstance(model, VGG):
        values |= {"last_pool": True}
    return {name: str(value) for name, value in values.items()}
