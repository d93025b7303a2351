"""SEW-ResNet and spiking ResNet in PyTorch.

`ResNet` is made from a description, with the names of the authors' code. `Zoo` is SpikingJelly's own model, with fewer
channels than its constructor allows; its names are torchvision's.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Literal

import pytest
import torch_oracle as oracle
from torch import Tensor, nn

with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
    warnings.simplefilter("ignore")
    if find_spec("torchvision") is None:  # SpikingJelly's models take no more of it than what downloads weights
        download = ModuleType("torchvision._internally_replaced_utils")
        download.load_state_dict_from_url = None  # type: ignore[attr-defined]
        patch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
        patch.setitem(sys.modules, download.__name__, download)
    from spikingjelly.activation_based import layer
    from spikingjelly.activation_based.model import sew_resnet, spiking_resnet

neuron = oracle.neuron


@dataclass(frozen=True)
class Reading:
    """What the weights do not tell."""

    block: Literal["sew", "spiking_resnet"] = "sew"
    residual_op: Literal["add", "and", "iand"] = "add"
    neuron: Literal["if", "lif", "plif"] = "if"
    tau: float = 2.0
    v_threshold: float = 1.0
    v_reset: float | None = 0.0

    def fire(self) -> nn.Module:
        shared = {"v_threshold": self.v_threshold, "v_reset": self.v_reset, "step_mode": "m"}
        if self.neuron == "if":
            return neuron.IFNode(**shared)
        if self.neuron == "lif":
            return neuron.LIFNode(tau=self.tau, **shared)
        return neuron.ParametricLIFNode(init_tau=self.tau, **shared)


class Container(nn.Module):
    """Modules that know no time, as ``module.0`` and ``module.1``."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.module = nn.Sequential(*modules)

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def conv(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> Container:
    weights = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False, groups=groups)
    return Container(weights, nn.BatchNorm2d(outputs))


class Block(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool, groups: int, reading: Reading) -> None:
        super().__init__()
        outputs = 4 * width if bottleneck else width
        shapes = [(inputs, width, 3, stride, groups), (width, width, 3, 1, groups)]
        if bottleneck:
            shapes = [(inputs, width, 1, 1, 1), (width, width, 3, stride, groups), (width, outputs, 1, 1, 1)]
        self.reading, self.convs = reading, len(shapes)
        for number, shape in enumerate(shapes, 1):
            self.add_module(f"conv{number}", conv(*shape))
            self.add_module(f"sn{number}", reading.fire())
        self.downsample = None
        if stride > 1 or inputs != outputs:
            shortcut = conv(inputs, outputs, 1, stride)
            self.downsample = nn.Sequential(shortcut, reading.fire()) if reading.block == "sew" else shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for number in range(1, self.convs):
            y = self.get_submodule(f"sn{number}")(self.get_submodule(f"conv{number}")(y))
        y, last = self.get_submodule(f"conv{self.convs}")(y), self.get_submodule(f"sn{self.convs}")
        shortcut = x if self.downsample is None else self.downsample(x)
        if self.reading.block == "spiking_resnet":
            return last(y + shortcut)
        y = last(y)
        return {"add": shortcut + y, "and": shortcut * y, "iand": shortcut * (1 - y)}[self.reading.residual_op]


class ResNet(nn.Module):
    """Logits of frames [T, B, C, H, W]; as small as `widths` and `blocks` say."""

    def __init__(
        self,
        *,
        widths: tuple[int, ...],
        blocks: tuple[int, ...],
        classes: int,
        in_channels: int,
        size: int,
        time_steps: int,
        bottleneck: bool = False,
        groups: int = 1,
        reading: Reading,
    ) -> None:
        super().__init__()
        self.in_channels, self.size, self.time_steps, self.reading = in_channels, (size, size), time_steps, reading
        self.conv1 = nn.Conv2d(in_channels, widths[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.sn1 = reading.fire()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = widths[0]
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True), 1):
            made = []
            for index in range(count):
                stride = 2 if stage > 1 and index == 0 else 1
                made.append(Block(inputs, width, stride, bottleneck, groups, reading))
                inputs = 4 * width if bottleneck else width
            self.add_module(f"layer{stage}", nn.Sequential(*made))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, frames: Tensor) -> Tensor:
        reset(self)
        x = self.bn1(self.conv1(frames.flatten(0, 1))).unflatten(0, frames.shape[:2])
        x = self.sn1(x)
        x = self.maxpool(x.flatten(0, 1)).unflatten(0, frames.shape[:2])
        for name, stage in self.named_children():
            x = stage(x) if name.startswith("layer") else x
        return self.fc(x.mean((3, 4)).mean(0))


def reset(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, neuron.BaseNode):
            module.reset()


class Zoo(nn.Module):
    """SpikingJelly's own blocks, stages and forward pass, with fewer channels than its constructor allows."""

    def __init__(
        self,
        *,
        widths: tuple[int, int, int, int],
        blocks: tuple[int, int, int, int],
        classes: int,
        in_channels: int,
        size: int,
        time_steps: int,
        bottleneck: bool = False,
        groups: int = 1,
        reading: Reading,
    ) -> None:
        super().__init__()
        self.in_channels, self.size, self.time_steps, self.reading = in_channels, (size, size), time_steps, reading
        sew = reading.block == "sew"
        theirs, kind = (sew_resnet, "SEWResNet") if sew else (spiking_resnet, "SpikingResNet")
        block = theirs.Bottleneck if bottleneck else theirs.BasicBlock
        fire = {"spiking_neuron": reading.fire}
        joined = fire | ({"cnf": reading.residual_op.upper()} if sew else {})
        net = getattr(theirs, kind).__new__(getattr(theirs, kind))
        nn.Module.__init__(net)
        net._norm_layer, net.dilation, net.groups, net.base_width = layer.BatchNorm2d, 1, groups, 64
        net.inplanes = widths[0]
        net.conv1 = layer.Conv2d(in_channels, widths[0], 7, 2, 3, bias=False)
        net.bn1, net.sn1 = layer.BatchNorm2d(widths[0]), reading.fire()
        net.maxpool = layer.MaxPool2d(3, 2, 1)
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True), 1):
            made = net._make_layer(block, width, count, stride=1 if stage == 1 else 2, **joined)
            setattr(net, f"layer{stage}", made)
        net.avgpool = layer.AdaptiveAvgPool2d((1, 1))
        net.fc = layer.Linear(net.inplanes, classes)
        for module in net.modules():
            if hasattr(module, "step_mode"):
                module.step_mode = "m"
        self.net = net

    def forward(self, frames: Tensor) -> Tensor:
        reset(self)
        return self.net(frames).mean(0)


def metadata(model: Any) -> dict[str, str]:
    """What the state dict cannot tell, as the importer calls it."""
    reading = model.reading
    said: dict[str, Any] = {
        "block": reading.block,
        "neuron": reading.neuron,
        "v_threshold": reading.v_threshold,
        "time_steps": model.time_steps,
        "height": model.size[0],
        "width": model.size[1],
        "input_kind": "graded" if model.in_channels == 2 else "real",
        "reset": "subtract" if reading.v_reset is None else "zero",
        "strict": False,
        "bn_eps": 1e-5,
    }
    if reading.block == "sew":
        said["residual_op"] = reading.residual_op
    if reading.neuron == "lif":
        said["tau"] = reading.tau
    if reading.neuron != "if":
        said["decay_input"] = True
    if reading.v_reset is not None:
        said["v_reset"] = reading.v_reset
    return {name: str(value) for name, value in said.items()}


def export(model: Any, folder: Any) -> Any:
    """Write the state dict under the names of the code that the model is of."""
    return oracle.export(model.net if isinstance(model, Zoo) else model, folder, metadata(model))


@dataclass(frozen=True)
class EventReading:
    """What the weights of a network for event cameras do not tell."""

    block: Literal["sew", "plain", "spiking_resnet"] = "sew"
    residual_op: Literal["add", "and", "iand"] = "add"
    pool: int = 2
    v_threshold: float = 1.0
    v_reset: float | None = 0.0

    def fire(self) -> nn.Module:
        shared = {"v_threshold": self.v_threshold, "v_reset": self.v_reset, "step_mode": "m"}
        return neuron.ParametricLIFNode(init_tau=2.0, **shared)


class EventBlock(nn.Module):
    def __init__(self, width: int, reading: EventReading) -> None:
        super().__init__()
        first = nn.Sequential(conv(width, width, 3), reading.fire())
        self.reading = reading
        if reading.block == "spiking_resnet":
            self.conv, self.sn = nn.Sequential(first, conv(width, width, 3)), reading.fire()
        else:
            self.conv = nn.Sequential(first, nn.Sequential(conv(width, width, 3), reading.fire()))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.reading.block == "spiking_resnet":
            return self.sn(x + y)
        if self.reading.block == "plain":
            return y
        return {"add": x + y, "and": x * y, "iand": x * (1 - y)}[self.reading.residual_op]


class Pool(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.max_pool2d(x.flatten(0, 1), self.size, self.size).unflatten(0, x.shape[:2])


class EventNet(nn.Module):
    """Logits of frames [T, B, C, H, W]: one block of each width, each with a pooling behind it."""

    def __init__(
        self,
        *,
        widths: tuple[int, ...],
        classes: int,
        in_channels: int,
        size: int,
        time_steps: int,
        kernel: int = 1,
        pools: str = "",
        reading: EventReading,
    ) -> None:
        super().__init__()
        self.in_channels, self.size, self.time_steps, self.reading = in_channels, (size, size), time_steps, reading
        made: list[nn.Module] = []
        channels = in_channels
        for width, pooled in zip(widths, pools or "1" * len(widths), strict=True):
            if channels != width:
                made.append(nn.Sequential(conv(channels, width, kernel), reading.fire()))
            channels = width
            made.append(EventBlock(width, reading))
            if pooled == "1":
                made.append(Pool(reading.pool))
                size //= reading.pool
        self.conv = nn.Sequential(*made)
        self.out = nn.Linear(channels * size * size, classes)

    def forward(self, frames: Tensor) -> Tensor:
        reset(self)
        return self.out(self.conv(frames).flatten(2).mean(0))


def event_metadata(model: EventNet) -> dict[str, str]:
    """What the state dict cannot tell, as the importer calls it."""
    reading = model.reading
    said: dict[str, Any] = {
        "pool": reading.pool,
        "decay_input": True,
        "v_threshold": reading.v_threshold,
        "time_steps": model.time_steps,
        "height": model.size[0],
        "width": model.size[1],
        "input_kind": "graded" if model.in_channels == 2 else "real",
        "reset": "subtract" if reading.v_reset is None else "zero",
        "strict": False,
        "bn_eps": 1e-5,
    }
    if reading.block != "spiking_resnet":
        said["block"] = reading.block
    if reading.block == "sew":
        said["residual_op"] = reading.residual_op
    if reading.v_reset is not None:
        said["v_reset"] = reading.v_reset
    return {name: str(value) for name, value in said.items()}
