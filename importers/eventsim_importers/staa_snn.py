"""STAA-SNN: residual and VGG networks whose neurons attend over space and over time steps.

Zhang et al., "STAA-SNN: Spatial-Temporal Attention Aggregator for Spiking Neural Networks" (CVPR 2025). Its code is not
public, so neither are the names in its checkpoints. Read are the names of its baseline, MPBN (Guo et al., ICCV 2023,
github.com/yfguo91/MPBN), with what the paper adds to a neuron named by the letters of its equations:

====================================  ================================================================================
``X.pool.weight``                     convolution X, such as ``conv1.0``, ``layer2.0.conv1``, ``features.4``
``Y.bn.*``                            batch normalisation Y, such as ``conv1.1``, ``layer2.0.bn1``
``Z.M``, ``Z.N``                      coefficients of neuron Z, such as ``conv1.2``, ``layer2.0.relu1``, ``relu``
``Z.P``, ``Z.P_H``                    position encoding; the second where both ports of a neuron have one
``Z.gc.{key,value,norm,query}.*``     global context; without ``norm`` it has no layer normalisation
``Z.sa.{reduce,expand}.*``            step attention, or ``Z.sa.0.*``, ``Z.sa.1.*``, ... where each step has its own
``fc.conv.*``, ``classifier.conv.*``  classifier of the residual and of the VGG networks
====================================  ================================================================================

M, N and P have any shape that repeats to (time steps, channels, height, width): one number, (channels,), three axes or
four. P, gc and sa may each be absent from all neurons; with no tensor of a neuron at all, all of them are plain.
``docs/papers/staa-snn.md`` says which equation, figure or sentence of the paper each option follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from eventsim.errors import InputError
from eventsim.layers import (
    LIF,
    AdaptiveLIF,
    AvgPool2d,
    GlobalContext,
    Layer,
    MeanOverPositions,
    MeanOverTime,
    PositionEncoding,
    Residual,
)
from eventsim.network import Network
from eventsim.signals import FloatArray, SignalType
from eventsim_importers.protocol import Importer
from eventsim_importers.reading.checkpoint import Checkpoint, describe
from eventsim_importers.reading.neurons import Firing, FiringOptions
from eventsim_importers.reading.options import InputOptions
from eventsim_importers.reading.reader import BATCH_NORM, BatchNormOptions, Reader


@dataclass(frozen=True)
class Options(FiringOptions, BatchNormOptions, InputOptions):
    """What the state dict of a STAA-SNN cannot tell, and what its paper leaves open.

    None takes what the metadata say, else the default. Those of `FiringOptions` (`v_reset` can only be 0 where M
    multiplies the potential) and `BatchNormOptions`, and below. An option of a part that the checkpoint does not have
    is refused.

    Attributes
    ----------
    time_steps : int, optional
        Of a sample. Default: what P, M, N or sa of the first neuron are for; else 16 for two input channels and 4 for
        others.
    height, width : int, optional
        Input size. Default: what P, M or N of the first neuron are for, if it has the size of the input; else 224 for
        ImageNet, 48 for two input channels, 32 for others.
    input_kind : {"binary", "graded", "real"}, optional
        What arrives: spikes ("binary"), event counts ("graded") or pixels ("real"). Default: "graded" for two input
        channels, else "real".
    tau, decay_input : float, bool, optional
        Of plain neurons (eq. 1, whose constants are not printed): the time constant, and whether it divides the input
        too. Default: 2, false.
    gc_at : {"current", "input"}, optional
        What the global context acts on: the current of the neuron (eq. 13, section 4.5) or what goes into the synapses
        of the layer (the text before eq. 7); not what a shortcut carries. Default: what the channels of the first say;
        "current" if the first layer keeps their number.
    pe_at : {"current", "input", "past", "both", "potential"}, optional
        Where the position encoding is added (Fig. 2): to the current, to what goes into the synapses, to what the last
        step left, to that and the current, or to the potential. Default: "both" if there is a P_H, else before the
        global context.
    pe_fixed : {"none", "time", "space", "both"}, optional
        Where there is no P: whether sines and cosines of time steps, pixels, or both are added all the same (section
        4.3). Default: "none".
    gc_norm : {"softmax", "sigmoid"}, optional
        What the global context makes of the logits of the positions. Default: "softmax", as in GCNet.
    gc_combine : {"additive", "gated"}, optional
        How the context reaches the positions: added, or as a factor. Default: "additive", as in GCNet.
    sa_mode : {"each", "sum"}, optional
        Whether step attention gates each of its two terms by its own half of its outputs, or their sum by all of them.
        Default: what their number says.
    sa_gates : {"channel", "scalar"}, optional
        Whether eq. 12 gives a gate for each channel, or one for a whole step. Default: what their number says.
    sa_inputs : {"terms", "features"}, optional
        What step attention pools: "terms" M H[t-1] and N X[t], the default, or "features" X[t-1] and X[t].
    sa_scale : float, optional
        Factor of the sigmoid of step attention. Default: 2.
    ln_eps : float, optional
        What layer normalisation adds to the variance. Default: 1e-5.
    last_pool : bool, optional
        Whether the last group of convolutions of a VGG ends in a pooling too. Default: true.
    """

    tau: float | None = None
    decay_input: bool | None = None
    gc_at: Literal["current", "input"] | None = None
    pe_at: Literal["current", "input", "past", "both", "potential"] | None = None
    pe_fixed: Literal["none", "time", "space", "both"] | None = None
    gc_norm: Literal["softmax", "sigmoid"] | None = None
    gc_combine: Literal["additive", "gated"] | None = None
    sa_mode: Literal["each", "sum"] | None = None
    sa_gates: Literal["channel", "scalar"] | None = None
    sa_inputs: Literal["terms", "features"] | None = None
    sa_scale: float | None = None
    ln_eps: float | None = None
    last_pool: bool | None = None


@dataclass(frozen=True)
class Layout:
    """A backbone, told by the names and the kernel of its first convolution.

    Attributes
    ----------
    name : str
    conv, neuron : str
        The first of each.
    kernel, stride : int
        Of the first convolution.
    average : bool
        Whether shortcuts that halve the size average, instead of striding.
    """

    name: str
    conv: str
    neuron: str
    kernel: int = 3
    stride: int = 1
    average: bool = False

    @property
    def names(self) -> tuple[str, str, str, str]:
        """Regular expressions of the modules: convolutions, normalisations, neurons, classifier."""
        if self.name == "VGG":
            return (r"features\.\d+",) * 3 + ("classifier",)
        block, (conv, norm) = r"layer\d+\.\d+", ("01", "12") if self.average else ("0", "1")
        stem = (r"conv1\.[036]", r"conv1\.[147]", r"conv1\.[258]") if self.average else ("conv1", "bn1", "relu")
        return (
            rf"{stem[0]}|{block}\.(conv[12]|downsample\.[{conv}])",
            rf"{stem[1]}|{block}\.(bn[12]|downsample\.[{norm}])",
            rf"{stem[2]}|{block}\.(relu1|output_act)",
            "fc",
        )


MAXIMUM_BYTES = 2**30
"""What one fixed position encoding may take."""
NO_ATTENTION = (None, None, None, None)
GATES: dict[tuple[str, str], Callable[[int], int]] = {
    ("each", "channel"): lambda channels: 2 * channels,
    ("sum", "channel"): lambda channels: channels,
    ("each", "scalar"): lambda channels: 2,
    ("sum", "scalar"): lambda channels: 1,
}
"""Outputs of a step attention by mode and gates."""
LAYOUTS = (
    Layout("modified ResNet", "conv1.0", "conv1.2", average=True),
    Layout("ResNet", "conv1", "relu"),
    Layout("ImageNet ResNet", "conv1", "relu", kernel=7, stride=2),
    Layout("VGG", "features.0", "features.2"),
)


def signature(checkpoint: Checkpoint) -> int:
    """Count the tensors of a STAA-SNN, told by its first convolution and M, or by neurons without tensors."""
    layout = _layout(checkpoint)
    if layout is None:
        return 0
    conv, norm, neuron, head = layout.names
    return len(
        checkpoint.matching(
            rf"({conv})\.pool\.{'(weight|bias)' if layout.name == 'VGG' else 'weight'}",
            rf"({norm})\.bn{BATCH_NORM}",
            rf"({neuron})\.([MNP]|P_H)",
            rf"({neuron})\.gc\.(key|value|norm|query)\.(weight|bias)",
            rf"({neuron})\.sa\.(\d+\.)?(reduce|expand)\.(weight|bias)",
            rf"{head}\.conv\.(weight|bias)",
        )
    )


def _layout(checkpoint: Checkpoint) -> Layout | None:
    for layout in LAYOUTS:
        first = checkpoint.tensors.get(f"{layout.conv}.pool.weight")
        if first is None or first.shape[2:] != (layout.kernel,) * 2:
            continue
        if f"{layout.neuron}.M" in checkpoint.tensors or _are_plain(checkpoint, layout):
            return layout
    return None


def _are_plain(checkpoint: Checkpoint, layout: Layout) -> bool:
    """Tell a whole network of which no neuron has a tensor, such as the normalised potentials of MPBN have."""
    if f"{layout.names[3]}.conv.weight" not in checkpoint.tensors:
        return False
    if layout.name != "VGG":
        return not checkpoint.matching(rf"({layout.names[2]})\..*")
    convs = [int(name.split(".")[1]) for name in checkpoint.matching(r"features\.\d+\.pool\.weight")]
    return not checkpoint.matching(*(rf"features\.{conv + 2}\..*" for conv in convs))


def read(checkpoint: Checkpoint, options: Options) -> Network:
    """Compose the network.

    Neuron: ``V[t] = SA(M * H[t-1], N * GC(I[t] + P[t]))``, or plain; P and GC may be elsewhere. Residual block:
    neuron(BN(conv(neuron(BN(conv x)))) + shortcut x). The first stage keeps the size, every further one halves it.
    Head: mean over positions, linear in each time step, mean over time. In VGG every group of convolutions ends in an
    average pooling, the last one too if it is not said otherwise. The random dropout of time steps acts in training
    only.

    Raises
    ------
    InputError
        If a tensor is missing, left over or of the wrong shape, or an option does not fit.
    """
    layout = _layout(checkpoint)
    if layout is None:
        names = ", ".join(
            f"{layout.conv}.pool.weight with {layout.neuron}.M" for layout in LAYOUTS if layout.stride == 1
        )
        raise InputError(
            f"{checkpoint.path}: no STAA-SNN found; expected one of {names}, or the convolution with "
            "fc.conv.weight or classifier.conv.weight and no tensor of a neuron"
        )
    return _Reader(checkpoint, options, layout).network()


class _Reader(Reader):
    """Walks the modules in the order of the forward pass."""

    def __init__(self, checkpoint: Checkpoint, options: Options, layout: Layout) -> None:
        super().__init__(checkpoint, options)
        self.take = checkpoint.take
        self.options = options
        self.layout = layout
        neuron = layout.neuron
        first = self.take(f"{layout.conv}.pool.weight", None, None, layout.kernel, layout.kernel)
        self.in_channels = first.shape[1]
        tensors = checkpoint.tensors
        self.plain = f"{neuron}.M" not in tensors
        self.has_position = f"{neuron}.P" in tensors
        self.has_context = f"{neuron}.gc.key.weight" in tensors
        self.has_norm = f"{neuron}.gc.norm.weight" in tensors
        self.sa_steps = checkpoint.count(f"{neuron}.sa.{{}}.")
        self.has_attention = self.sa_steps > 0 or f"{neuron}.sa.reduce.weight" in tensors
        events = self.in_channels == 2
        size = 224 if layout.stride == 2 else 48 if events else 32
        steps, height, width = self._first_extents()
        if layout.stride == 2:
            height = width = 1  # the first neuron does not see the size of the input
        choose = self.choose
        self.time_steps = choose("time_steps", steps if steps > 1 else 16 if events else 4)
        self.input = choose.input(self.in_channels, height if height > 1 else size, width if width > 1 else size)
        self.firing = Firing(choose)
        if self.firing.v_reset and not self.plain:
            raise InputError(
                f"{checkpoint.path}: v_reset={self.firing.v_reset:g} found; expected 0, as {neuron}.M multiplies the "
                "potential"
            )
        self.v_threshold = self.firing.threshold(self.firing.v_threshold, "v_threshold")
        self._choose_neurons()
        self._choose_context(len(first))
        self._choose_position()
        self._choose_attention(len(first))
        if layout.name != "VGG":
            self._refuse(f"for a {layout.name}", "last_pool", why="as only a VGG has it")
        self._begin(f"STAA-SNN {layout.name}")

    def _choose_neurons(self) -> None:
        if not self.plain:
            self._refuse(f"with tensor {self.layout.neuron}.M", "tau", "decay_input", why="as M and N say it")
            return
        self.tau = self.choose("tau", 2.0)
        self.decay_input = self.choose("decay_input", False)
        if self.tau < 1:
            raise InputError(f"{self.checkpoint.path}: tau={self.tau:g} found; expected at least 1 time step")

    def _choose_context(self, channels: int) -> None:
        choose, key = self.choose, f"{self.layout.neuron}.gc.key.weight"
        self.ln_eps = choose.positive("ln_eps", 1e-5) if self.has_norm else 1e-5
        if not self.has_norm and self.options.ln_eps is not None:  # metadata name it with and without one
            self._refuse(f"without tensor {self.layout.neuron}.gc.norm.weight", "ln_eps")
        self.gc_at = "current"
        if not self.has_context:
            self._refuse(f"without tensor {key}", "gc_at", "gc_norm", "gc_combine")
            return
        self.gc_norm = cast(Literal["softmax", "sigmoid"], choose("gc_norm", "softmax"))
        self.gc_combine = cast(Literal["additive", "gated"], choose("gc_combine", "additive"))
        found = self.checkpoint.tensors[key].shape
        if self.in_channels == channels or found[1:2] not in ((self.in_channels,), (channels,)):
            self.gc_at = choose("gc_at", "current")
        else:
            said = "input" if found[1] == self.in_channels else "current"
            self.gc_at = choose.inferred("gc_at", said, f"channels of {key}")
            self._agree("gc_at", self.gc_at, said, f"tensor {key} {describe(found)}")

    def _choose_position(self) -> None:
        choose, tensors, neuron = self.choose, self.checkpoint.tensors, self.layout.neuron
        self.pe_fixed, self.pe_at = "none", "current"
        if self.has_position:
            self._agree(
                "pe_fixed", choose.inferred("pe_fixed", "none", f"tensor {neuron}.P"), "none", f"tensor {neuron}.P"
            )
        elif self.plain:
            self._refuse("for plain neurons", "pe_fixed")
        else:
            self.pe_fixed = choose("pe_fixed", "none")
        if not self.has_position and self.pe_fixed == "none":
            self._refuse(f"without tensor {neuron}.P", "pe_at")
        elif f"{neuron}.P_H" in tensors:
            self.pe_at = choose.inferred("pe_at", "both", f"tensor {neuron}.P_H")
            self._agree("pe_at", self.pe_at, "both", f"tensor {neuron}.P_H")
        else:
            self.pe_at = choose("pe_at", self.gc_at)

    def _choose_attention(self, channels: int) -> None:
        neuron = self.layout.neuron
        self.sa_gates, self.sa_scale = "channel", 2.0
        self.sa_inputs: Literal["terms", "features"] = "terms"
        if not self.has_attention:
            self._refuse(f"without tensor {neuron}.sa.reduce.weight", "sa_mode", "sa_gates", "sa_inputs", "sa_scale")
            return
        self.sa_mode, self.sa_gates = self._first_gates(channels)
        self.sa_inputs = cast(Literal["terms", "features"], self.choose("sa_inputs", "terms"))
        self.sa_scale = self.choose.positive("sa_scale", 2.0)
        if 0 < self.sa_steps < self.time_steps:
            raise InputError(
                f"{self.checkpoint.path}: time_steps={self.time_steps} found; expected at most {self.sa_steps}, "
                f"the number of step attentions {neuron}.sa"
            )

    def _refuse(self, where: str, *options: str, why: str = "as it says nothing here") -> None:
        """Refuse options that do not fit the checkpoint."""
        for option in options:
            value = self.choose.stated(option)
            if value is not None:
                raise InputError(f"{self.checkpoint.path}: {option}={value} {where} found; expected it left out, {why}")

    def _agree(self, option: str, value: str, said: str, found: str) -> None:
        """Refuse an option that contradicts the tensors."""
        if value != said:
            raise InputError(f"{self.checkpoint.path}: {option}={value} with {found} found; expected {said}")

    def network(self) -> Network:
        """Read everything, and refuse what is left over."""
        x = self.build.add("input", self.input)
        if self.layout.name == "VGG":
            x = self._head("classifier", self._features(x))
        else:
            x = self._stem(x)
            stage = 1
            while any(name.startswith(f"layer{stage}.") for name in self.checkpoint.tensors):
                for block in range(self.checkpoint.count(f"layer{stage}.{{}}.")):
                    x = self._block(f"layer{stage}.{block}", x, 2 if stage > 1 and block == 0 else 1)
                stage += 1
            x = self._head("fc", x)
        return self._finish(x, self.time_steps)

    def _stem(self, x: str) -> str:
        if self.layout.average:
            for conv in (0, 3, 6):
                neuron = f"conv1.{conv + 2}"
                x = self._conv_bn(f"conv1.{conv}", f"conv1.{conv + 1}", self._enhance(neuron, x, "input"))
                x = self._neuron(neuron, x)
            return self.build.add("avgpool", AvgPool2d((2, 2), (2, 2)), x)
        x = self._conv_bn("conv1", "bn1", self._enhance("relu", x, "input"), self.layout.kernel, self.layout.stride)
        x = self._neuron("relu", x)
        if self.layout.stride == 2:
            x = self.build.add("avgpool1", AvgPool2d((3, 3), (2, 2), (1, 1)), x)
        return x

    def _features(self, x: str) -> str:
        """Read the convolutions of a VGG; where an index is left out between them there is a pooling."""
        names = [name.split(".") for name in self.checkpoint.tensors if name.startswith("features.")]
        convs = sorted(int(parts[1]) for parts in names if parts[2:] == ["pool", "weight"] and parts[1].isdecimal())
        behind = convs[-1] + (4 if self.choose("last_pool", True) else 3)
        for conv, following in zip(convs, [*convs[1:], behind], strict=True):
            if following - conv not in (3, 4):
                raise InputError(
                    f"{self.checkpoint.path}: features.{conv} followed by features.{following} found; expected a "
                    "convolution, a normalisation and a neuron, then the next convolution, or a pooling between"
                )
            bias = self.take(f"features.{conv}.pool.bias", None)
            neuron = f"features.{conv + 2}"
            x = self._enhance(neuron, x, "input")
            x = self._conv_bn(f"features.{conv}", f"features.{conv + 1}", x, bias=bias)
            x = self._neuron(neuron, x)
            if following - conv == 4:
                x = self.build.add(f"features.{conv + 3}", AvgPool2d((2, 2), (2, 2)), x)
        return x

    def _block(self, block: str, x: str, stride: int) -> str:
        y = self._enhance(f"{block}.relu1", x, "input")
        y = self._neuron(f"{block}.relu1", self._conv_bn(f"{block}.conv1", f"{block}.bn1", y, 3, stride))
        y = self._enhance(f"{block}.output_act", y, "input")
        y = self._conv_bn(f"{block}.conv2", f"{block}.bn2", y)
        if stride == 2 and self.layout.average:
            pool = AvgPool2d((2, 2), (2, 2), count_include_pad=False, ceil_mode=True)
            x = self.build.add(f"{block}.downsample.0", pool, x)
            x = self._conv_bn(f"{block}.downsample.1", f"{block}.downsample.2", x, 1)
        elif stride == 2:
            x = self._conv_bn(f"{block}.downsample.0", f"{block}.downsample.1", x, 1, stride)
        last = x if stride == 2 else y  # the join is called for the child whose work is done last
        name = f"{block}.{last.removeprefix(f'{block}.').split('.')[0]}_add"
        return self._neuron(f"{block}.output_act", self.build.add(name, Residual("add"), x, y))

    def _head(self, name: str, x: str) -> str:
        x = self.build.add("mean_over_positions", MeanOverPositions(), x)
        x = self._dense(name, x, self.build.types[x].channels, tensors=f"{name}.conv")
        return self.build.add("mean_over_time", MeanOverTime(), x)

    def _conv_bn(
        self, conv: str, norm: str, x: str, kernel: int = 3, stride: int = 1, bias: FloatArray | None = None
    ) -> str:
        weight = self.take(f"{conv}.pool.weight", None, self.build.types[x].channels, kernel, kernel)
        return self.synapses.conv2d(
            conv,
            weight,
            x,
            norm=norm,
            norm_tensors=f"{norm}.bn",
            bias=bias,
            padding=kernel // 2,
            stride=stride,
        )

    def _enhance(self, neuron: str, x: str, place: str) -> str:
        """Add the position encoding and the global context of a neuron that belong to this place."""
        if self.pe_at == place or (self.pe_at == "both" and place == "current"):
            encoding = self._encoding(f"{neuron}.P", self.build.types[x])
            if encoding is not None:
                x = self.build.add(f"{neuron}.P", PositionEncoding(encoding), x)
        if self.has_context and self.gc_at == place:
            x = self.build.add(f"{neuron}.gc", self._context(f"{neuron}.gc", self.build.types[x].channels), x)
        return x

    def _neuron(self, name: str, x: str) -> str:
        source = self.build.types[x]
        if self.plain:
            lif = LIF(self.v_threshold, self.firing.reset, self.firing.strict, self.tau, self.decay_input)
            return self.build.add(name, lif, x)
        x = self._enhance(name, x, "current")
        encoding = {"past": "P", "both": "P_H"}.get(self.pe_at)
        attention = self._attention(f"{name}.sa", source.channels) if self.has_attention else NO_ATTENTION
        layer = AdaptiveLIF(
            self._coefficients(f"{name}.M", source),
            self._coefficients(f"{name}.N", source),
            attention[0],
            attention[1],
            attention[2],
            attention[3],
            v_threshold=self.v_threshold,
            gate_scale=self.sa_scale,
            gate_inputs=self.sa_inputs,
            reset=self.firing.reset,
            strict=self.firing.strict,
            scalar_gates=self.sa_gates == "scalar",
            past_encoding=self._encoding(f"{name}.{encoding}", source) if encoding else None,
            potential_encoding=self._encoding(f"{name}.P", source) if self.pe_at == "potential" else None,
        )
        return self.build.add(name, layer, x)

    def _encoding(self, name: str, source: SignalType) -> FloatArray | None:
        """Take a learned encoding, or compute a fixed one; None without either."""
        if self.has_position:
            return self._coefficients(name, source)
        return None if self.pe_fixed == "none" else self._sinusoids(name, source)

    def _sinusoids(self, name: str, source: SignalType) -> FloatArray:
        """Return sines of even channels and cosines of odd ones, as (time steps or 1, channels, positions or 1)."""
        steps = self.time_steps if self.pe_fixed != "space" else 1
        positions = source.positions if self.pe_fixed != "time" else 1
        if not 0 < 4 * steps * positions * source.channels <= MAXIMUM_BYTES:
            raise InputError(
                f"{self.checkpoint.path}: layer {name}: encoding of {steps} time steps, {source.channels} channels and "
                f"{positions} positions found; expected at least one of each, and at most {MAXIMUM_BYTES} bytes"
            )
        channel = np.arange(source.channels)[:, None]
        angle = np.arange(steps * positions).reshape(steps, 1, positions) / 1e4 ** (channel // 2 * 2 / source.channels)
        return np.where(channel % 2 == 0, np.sin(angle), np.cos(angle)).astype(np.float32)

    def _coefficients(self, name: str, source: SignalType) -> FloatArray:
        """Take M, N or P as (time steps or 1, channels or 1, positions or 1)."""
        axes = self.checkpoint.tensors[name].ndim if name in self.checkpoint.tensors else 4
        tensor = self.take(name, *[None] * axes)
        full = (self.time_steps, *source.shape)
        shape = {0: (1, 1, 1, 1), 1: (1, *tensor.shape, 1, 1), 3: (1, *tensor.shape), 4: tensor.shape}.get(axes)
        if shape is None or any(size not in (1, whole) for size, whole in zip(shape[1:], full[1:], strict=True)):
            raise InputError(
                f"{self.checkpoint.path}: tensor {name} {describe(tensor.shape)} found; expected a shape that repeats "
                f"to {describe(full)}: time steps, channels, height, width"
            )
        if shape[0] != 1 and shape[0] < self.time_steps:
            raise InputError(
                f"{self.checkpoint.path}: time_steps={self.time_steps} found; expected at most {shape[0]}, "
                f"the number of tensor {name}"
            )
        spread = tensor.reshape(shape)
        if shape[2:] != (1, 1):
            spread = np.broadcast_to(spread, (*shape[:2], *source.grid))
        return np.ascontiguousarray(spread).reshape(*shape[:2], -1)

    def _context(self, name: str, channels: int) -> Layer:
        value = self.take(f"{name}.value.weight", None, channels, 1, 1)
        hidden = len(value)
        norm = [
            self.take(f"{name}.norm.{part}", hidden, 1, 1).ravel() if self.has_norm else None
            for part in ("weight", "bias")
        ]
        return GlobalContext(
            self.take(f"{name}.key.weight", 1, channels, 1, 1).ravel(),
            self.take(f"{name}.key.bias", 1),
            value.reshape(hidden, channels),
            self.take(f"{name}.value.bias", hidden),
            self.take(f"{name}.query.weight", channels, hidden, 1, 1).reshape(channels, hidden),
            self.take(f"{name}.query.bias", channels),
            norm[0],
            norm[1],
            normalisation=self.gc_norm,
            combination=self.gc_combine,
            eps=self.ln_eps,
        )

    def _attention(self, name: str, channels: int) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Take the weights and biases of both convolutions, for all steps or step by step."""
        prefixes = [f"{name}.{step}" for step in range(self.sa_steps)] or [name]
        hidden = self.take(f"{prefixes[0]}.reduce.weight", None, 2 * channels, 1, 1).shape[0]
        gates = GATES[self.sa_mode, self.sa_gates](channels)

        def stack(part: str, *shape: int) -> FloatArray:
            arrays = [self.take(f"{prefix}.{part}", *shape) for prefix in prefixes]
            return np.stack(arrays).reshape(len(arrays), *shape[:2])

        return (
            stack("reduce.weight", hidden, 2 * channels, 1, 1),
            stack("reduce.bias", hidden),
            stack("expand.weight", gates, hidden, 1, 1),
            stack("expand.bias", gates),
        )

    def _first_extents(self) -> tuple[int, int, int]:
        """Return the time steps, height and width that the first neuron is made for; 1 where any will do."""
        tensors = [self.checkpoint.tensors.get(f"{self.layout.neuron}.{letter}") for letter in ("P", "P_H", "M", "N")]
        shapes = [
            (1, 1, 1, 1),
            *((1, *tensor.shape)[-4:] for tensor in tensors if tensor is not None and tensor.ndim > 2),
        ]
        steps, _, height, width = (max(sizes) for sizes in zip(*shapes, strict=True))
        return max(steps, self.sa_steps), height, width

    def _first_gates(self, channels: int) -> tuple[str, str]:
        """Return mode and gates as the number of outputs of the first step attention says, unless it fits several."""
        prefix = f"{self.layout.neuron}.sa" + (".0" if self.sa_steps else "")
        expand = self.checkpoint.tensors.get(f"{prefix}.expand.weight")
        outputs = len(expand) if expand is not None and expand.ndim == 4 else 0
        stated = {option: self.choose.stated(option) for option in ("sa_mode", "sa_gates")}
        asked = [
            each
            for each in GATES
            if all(said in (None, word) for said, word in zip(stated.values(), each, strict=True))
        ]
        fits = [each for each in asked if GATES[each](channels) == outputs]
        if not fits and any(count(channels) == outputs for count in GATES.values()):
            words = ", ".join(f"{option}={word}" for option, word in stated.items() if word)
            counts = " or ".join(str(GATES[each](channels)) for each in asked)
            raise InputError(
                f"{self.checkpoint.path}: {words} with {outputs} outputs of {prefix}.expand found; expected {counts}"
            )
        mode, gates = (fits or asked)[0]
        if len({mode for mode, _ in fits}) > 1:
            return self.choose("sa_mode", mode), self.choose("sa_gates", gates)
        told = f"outputs of {prefix}.expand"
        return self.choose.inferred("sa_mode", mode, told), self.choose.inferred("sa_gates", gates, told)


IMPORTER = Importer(
    "STAA-SNN: ResNet-19, ResNet-20, ResNet-18/34 (ImageNet) and VGG, named as in MPBN", Options, signature, read
)
