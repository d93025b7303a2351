"""What a layer of eventsim executes, by brute force: which count of `reference.accounting` belongs to which layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from reference import accounting, integers
from reference.accounting import Signal, Work
from reference.adaptive_lif import StepAttention
from reference.adaptive_lif import adaptive_lif as adaptive_lif_reference
from reference.neurons import neuron

from eventsim import layers
from eventsim.layers import Layer
from eventsim.signals import SignalType

F = np.float32
Array = np.ndarray
NOTHING_IS_COUNTED = (
    layers.Input,
    layers.Concat,
    layers.CropOverTime,
    layers.DelayEach,
    layers.Flatten,
    layers.JoinOverTime,
    layers.Rearrange,
    layers.Reshape,
    layers.SelectChannels,
    layers.SliceOverTime,
    layers.TileOverTime,
)


class Case:
    """A layer, what it is given and what it puts out, as frames in PyTorch's order over all time steps."""

    def __init__(self, layer: Layer, types: Sequence[SignalType], inputs: Sequence[Array], output: Array) -> None:
        self.layer: Any = layer
        self.types = types
        self.inputs = inputs
        self.output = output
        self.signals = [Signal(kind.kind, kind.dense) for kind in types]
        self.work = Work(len(inputs[0]))

    @property
    def rows(self) -> list[Array]:
        """The inputs ``(T, positions, channels)``."""
        return [rows_of(x, kind) for x, kind in zip(self.inputs, self.types, strict=True)]


def rows_of(x: Array, kind: SignalType) -> Array:
    """Frames as ``(T, positions, channels)``."""
    last = np.moveaxis(x, 1, -1) if x.ndim == 4 else x
    return last.reshape(len(x), kind.positions, kind.channels)


def brute_force(
    layer: Layer, types: Sequence[SignalType], inputs: Sequence[Array], output: Array
) -> dict[str, list[int]]:
    """Every operation that a layer executes in each time step; those that it does not are left out."""
    case = Case(layer, types, inputs, output)
    if isinstance(layer, NOTHING_IS_COUNTED):
        return {}
    COUNTS[type(layer)](case)
    if isinstance(layer, layers.Readout):
        return case.work.columns()
    if type(layer) in MULTIPLYING and not (
        isinstance(layer, layers.Gate) and "binary" in [s.kind for s in case.signals]
    ):
        for x in inputs:
            for t, frame in enumerate(x):
                case.work.offer(t, frame)
    emitted = layer.output_type(*types)
    for x, signal in zip(inputs, case.signals, strict=True):
        for t, frame in enumerate(x):
            case.work.read(t, frame, signal)
    for t, frame in enumerate(output, start=len(inputs[0]) - len(output)):
        case.work.write(t, frame, Signal(emitted.kind, emitted.dense))
    return case.work.columns()


def biases(case: Case) -> None:
    """One for every output in every step."""
    if getattr(case.layer, "bias", None) is not None:
        for t in range(len(case.inputs[0])):
            case.work.biases(t, case.output[0].size)


def conv2d(case: Case) -> None:
    layer, x = case.layer, case.inputs[0]
    exists = accounting.is_synapse(layer.weight)[:, :, None]
    place = {name: getattr(layer, name) for name in ("stride", "padding", "groups", "dilation")}
    accounting.convolution(case.work, x, case.signals[0], exists, case.output.shape[2:], **place)
    biases(case)


def conv3d(case: Case) -> None:
    layer, x = case.layer, case.inputs[0]
    kernel_time = layer.weight.shape[2]
    before = kernel_time - 1 if layer.time_padding == "causal" else kernel_time // 2
    exists = accounting.is_synapse(layer.weight)
    place = {name: getattr(layer, name) for name in ("stride", "padding", "groups")}
    accounting.convolution(case.work, x, case.signals[0], exists, case.output.shape[2:], **place, before=before)
    biases(case)


def linear(case: Case) -> None:
    accounting.matrix(case.work, case.rows[0], case.signals[0], accounting.is_synapse(case.layer.weight))
    biases(case)


def sparse_linear(case: Case) -> None:
    """Weights of 0 are no synapses, and of dense values those that are not 0 are served."""
    layer = case.layer
    exists = np.zeros((layer.outputs, case.types[0].channels), bool)
    for channel in range(exists.shape[1]):
        exists[layer.targets[layer.indptr[channel] : layer.indptr[channel + 1]], channel] = True
    accounting.matrix(case.work, case.rows[0], case.signals[0]._replace(dense=False), exists)
    biases(case)


def windowed_linear(case: Case) -> None:
    layer = case.layer
    if layer.longest == 1:
        return linear(case)
    exists = accounting.is_synapse(layer.weight)
    groups = layer.window if isinstance(layer.window, tuple) else (layer.window,)
    window = [groups[output * len(groups) // len(exists)] for output in range(len(exists))]
    once = layer.form == "accumulate_once"
    accounting.windowed(case.work, case.rows[0], case.signals[0], exists, window, once=once)
    return biases(case)


def spread(value: Any, shape: tuple[int, ...]) -> Any:
    """A constant that broadcasts against frames of a shape: per channel, per neuron, or one."""
    array = np.asarray(value, F)
    return array[:, None, None] if array.ndim == 1 and array.size > 1 and len(shape) == 3 else array


CHARGES: dict[str, tuple[Callable[[Any], Callable[[Array, Array], Array]], int, int]] = {
    "integrate": (lambda _: lambda v, x: v + x, 0, 1),
    "towards, divided": (lambda k: lambda v, x: v + (x - v) / k, 1, 2),
    "towards, times": (lambda k: lambda v, x: v + (x - v) * k, 1, 2),
    "leak divided": (lambda k: lambda v, x: v - v / k + x, 1, 2),
    "decay": (lambda k: lambda v, x: v * k + x, 1, 1),
}
"""Charge equations with a constant, and how often each multiplies or divides by it, and adds or subtracts."""


def charge_of(layer: Any) -> tuple[str, Any]:
    """The equation of a neuron and its constant."""
    if isinstance(layer, layers.LIF):
        return ("towards, divided" if layer.decay_input else "leak divided"), layer.tau
    if isinstance(layer, layers.PLIF):
        share = np.asarray(1 / (1 + np.exp(-np.asarray(layer.w, np.float64))), F)
        return ("towards, times", share) if layer.decay_input else ("decay", F(1) - share)
    if isinstance(layer, layers.DecayLIF):
        return "decay", layer.decay
    return "integrate", None


def neurons(case: Case) -> None:
    layer, x = case.layer, case.inputs[0]
    name, constant = charge_of(layer)
    equation, leaks, additions = CHARGES[name]
    shape = x.shape[1:]
    before: list[Array] = []
    charge = accounting.watched(equation(None if constant is None else spread(constant, shape)), before)
    spikes, charged = neuron(
        x,
        charge,
        spread(layer.v_threshold, shape),
        layer.reset,
        layer.strict,
        start=spread(layer.start, shape),
        v_min=None if layer.v_min is None else spread(layer.v_min, shape),
        multiple_spikes=layer.multiple_spikes,
    )
    comparisons = 1 if layer.v_min is None else 2
    accounting.neurons(case.work, np.array(before), x, charged, spikes, leaks, additions, comparisons)
    if not isinstance(layer, layers.PLIAF) and layer.emits == "spikes":
        for t, fired in enumerate(spikes):
            case.work.add(t, spikes=int(fired.sum()))


def integer_neurons(case: Case) -> None:
    """A bias is read and added to what arrives, in the neuron."""
    layer, x = case.layer, case.inputs[0]
    bias = np.asarray(0 if layer.bias is None else layer.bias)
    per_neuron = [
        a[:, None, None] if a.ndim == 1 and x.ndim == 4 else a
        for a in map(np.asarray, (layer.v_threshold, bias, layer.leak))
    ]
    spikes, charged, before, current = integers.lif(
        np.rint(x),
        *per_neuron,
        input_leaks=layer.input_leaks,
        fraction=layer.fraction,
        subtract=layer.reset == "subtract",
        strict=layer.strict,
    )
    leaks, additions = (1, 2) if np.any(layer.leak) else (0, 1)
    accounting.neurons(case.work, before, current, charged, spikes, leaks, additions, 1)
    for t, fired in enumerate(spikes):
        case.work.add(t, spikes=int(fired.sum()))
        if layer.bias is not None:
            case.work.add(t, bias_additions=fired.size, bias_reads=fired.size)


def leaky_integrator(case: Case) -> None:
    """Never fires; the potential after the charge is what it puts out, and what the next step begins with."""
    layer, x = case.layer, case.inputs[0]
    start = np.broadcast_to(spread(layer.start, x.shape[1:]), x[:1].shape)
    before = np.concatenate([start, case.output[:-1]])
    leaks = 0 if (np.asarray(layer.decay) == 1).all() else 1
    accounting.neurons(case.work, before, x, case.output, np.zeros_like(x), leaks, 1, 0)


def spiking_attention(case: Case) -> None:
    graded = any(signal.kind == "graded" for signal in case.signals)
    context = case.layer.order == "context_first"
    parts: Any = tuple(case.rows)
    accounting.attention(
        case.work, parts, case.layer.heads, case.layer.scale, case.output, context=context, graded=graded
    )


def table_attention(case: Case) -> None:
    parts: Any = tuple(case.rows)
    accounting.table_attention(case.work, parts, case.layer.table, case.layer.scale, case.output)


def softmax_attention(case: Case) -> None:
    layer, (steps, positions, channels) = case.layer, case.rows[0].shape
    d = channels // 3 // layer.heads
    one = F(d**-0.5 if layer.scale is None else layer.scale) == 1
    over_time = layer.axis == "time"
    accounting.softmax_attention(case.work, steps, positions, layer.heads, d, over_time=over_time, one=one)


def sliding_pool(case: Case) -> None:
    layer, size = case.layer, case.types[0].grid
    maximum = isinstance(layer, layers.MaxPool2d)
    dilation = layer.dilation if maximum else (1, 1)
    windows = accounting.sliding_windows(
        size, case.output.shape[2:], layer.kernel_size, layer.stride, layer.padding, dilation
    )
    mean = isinstance(layer, layers.AvgPool2d)
    accounting.pool(case.work, case.inputs[0], case.signals[0], windows, maximum=maximum, mean=mean)


def adaptive_pool(case: Case) -> None:
    windows = accounting.adaptive_windows(case.types[0].grid, case.layer.output_size)
    maximum = isinstance(case.layer, layers.AdaptiveMaxPool2d)
    accounting.pool(case.work, case.inputs[0], case.signals[0], windows, maximum=maximum, mean=not maximum)


def sum_over(case: Case) -> None:
    accounting.sums(case.work, case.inputs[0], every=case.signals[0].dense)
    if isinstance(case.layer, layers.MeanOverPositions):
        for t, frame in enumerate(case.output):
            case.work.add(t, divisions=frame.size)


def mean_over_time(case: Case) -> None:
    """Zeros are not added, and the sums are divided with the last step."""
    accounting.sums(case.work, case.inputs[0], every=False)
    case.work.add(len(case.inputs[0]) - 1, divisions=case.output.size)


def readout(case: Case) -> None:
    if case.layer.reduce == "sum":
        accounting.sums(case.work, case.inputs[0], every=False)


def residual(case: Case) -> None:
    dense = any(signal.dense for signal in case.signals)
    accounting.residual(case.work, *case.inputs, case.layer.mode, dense=dense)


def integer_residual(case: Case) -> None:
    """What has a factor other than 1 is multiplied where it is not 0; everything is added."""
    accounting.residual(case.work, *case.inputs, "add", dense=True)
    for x, factors in zip(case.inputs, case.layer.factors, strict=True):
        for t, frame in enumerate(x):
            if (factors != 1).any():
                case.work.add(t, scale_multiplications=np.count_nonzero(frame), weight_reads=np.count_nonzero(frame))


def gate(case: Case) -> None:
    accounting.gate(case.work, *case.rows, (case.signals[0], case.signals[1]))


def affine(case: Case) -> None:
    shifted = case.layer.shift is not None
    accounting.scaling(case.work, case.inputs[0], every=shifted or case.signals[0].dense, shifted=shifted)


def layer_norm(case: Case) -> None:
    accounting.layer_norm(case.work, case.rows[0], biased=case.layer.bias is not None)


def position_encoding(case: Case) -> None:
    for t, frame in enumerate(case.inputs[0]):
        case.work.add(t, additions=frame.size, weight_reads=frame.size)


def compared(case: Case) -> None:
    """Of rows the values that are not 0 are compared, of dense values, and by a threshold, all."""
    every = case.signals[0].dense or isinstance(case.layer, layers.Threshold)
    for t, frame in enumerate(case.inputs[0]):
        case.work.add(t, comparisons=frame.size if every else np.count_nonzero(frame))


def activation(case: Case) -> None:
    if case.layer.function == "relu":
        return compared(case)
    if case.layer.function == "clamp":
        limits = sum(limit is not None for limit in (case.layer.least, case.layer.most))
        for t, (frame, made) in enumerate(zip(case.inputs[0], case.output, strict=True)):
            every = case.signals[0].dense or case.layer.output_type(case.types[0]).dense
            case.work.add(t, comparisons=limits * (made.size if every else np.count_nonzero(frame)))
        return None
    for t, frame in enumerate(case.inputs[0]):
        case.work.add(t, exponentials=frame.size, divisions=frame.size)
    return None


def attention_pool(case: Case) -> None:
    accounting.attention_pool(case.work, case.rows[0])


def global_context(case: Case) -> None:
    layer = case.layer
    hidden, gated = len(layer.value_bias), layer.combination == "gated"
    normed = layer.norm_weight is not None
    accounting.global_context(case.work, case.rows[0], hidden, normed=normed, gated=gated)


def adaptive_lif(case: Case) -> None:
    """Spikes and potentials are those of the layer; the potential that a step leaves is where the next begins."""
    layer, x = case.layer, case.rows[0]
    gates = None
    if layer.reduce_weight is not None:
        per_term = 1 if layer.scalar_gates else x.shape[2]
        gates = layer.reduce_weight.shape[1], layer.expand_weight.shape[1], per_term
    encodings = sum(array is not None for array in (layer.past_encoding, layer.potential_encoding))
    accounting.adaptive_lif(case.work, x, gates, encodings, terms=layer.gate_inputs == "terms")
    before, charged, spikes = potentials_of(layer, x)
    accounting.neurons(case.work, before, x, charged, spikes, 0, 1, 1)
    for t, fired in enumerate(spikes):
        case.work.add(t, spikes=int(fired.sum()))


def potentials_of(layer: Any, x: Array) -> tuple[Array, Array, Array]:
    """Potentials before and after the charge, and spikes, of an `AdaptiveLIF`."""

    def like(array: Array | None) -> Any:
        return None if array is None else array.swapaxes(1, 2)

    attention = None
    if layer.reduce_weight is not None:
        attention = StepAttention(layer.reduce_weight, layer.reduce_bias, layer.expand_weight, layer.expand_bias)
    spikes, charged = adaptive_lif_reference(
        x,
        like(layer.retention),
        like(layer.gain),
        attention,
        layer.v_threshold,
        layer.gate_scale,
        layer.gate_inputs,
        reset=layer.reset,
        strict=layer.strict,
        scalar=layer.scalar_gates,
        past_encoding=like(layer.past_encoding),
        potential_encoding=like(layer.potential_encoding),
    )
    left = charged - spikes * (charged if layer.reset == "zero" else F(layer.v_threshold))
    return np.concatenate([np.zeros_like(x[:1]), left[:-1]]), charged, spikes


COUNTS: dict[type[Layer], Callable[[Case], None]] = {
    layers.Conv2d: conv2d,
    layers.Conv3d: conv3d,
    layers.Linear: linear,
    layers.IntegerConv2d: conv2d,
    layers.IntegerConv3d: conv3d,
    layers.IntegerLinear: linear,
    layers.IntegerWindowedLinear: windowed_linear,
    layers.IntegerLIF: integer_neurons,
    layers.SparseLinear: sparse_linear,
    layers.WindowedLinear: windowed_linear,
    layers.IF: neurons,
    layers.LIF: neurons,
    layers.PLIF: neurons,
    layers.DecayLIF: neurons,
    layers.PLIAF: neurons,
    layers.LeakyIntegrator: leaky_integrator,
    layers.AdaptiveLIF: adaptive_lif,
    layers.SpikingAttention: spiking_attention,
    layers.TableAttention: table_attention,
    layers.SoftmaxAttention: softmax_attention,
    layers.GlobalContext: global_context,
    layers.MaxPool2d: sliding_pool,
    layers.SumPool2d: sliding_pool,
    layers.AvgPool2d: sliding_pool,
    layers.AdaptiveMaxPool2d: adaptive_pool,
    layers.AdaptiveAvgPool2d: adaptive_pool,
    layers.SumOverPositions: sum_over,
    layers.SumOverChannels: sum_over,
    layers.MeanOverPositions: sum_over,
    layers.MeanOverTime: mean_over_time,
    layers.AttentionPool: attention_pool,
    layers.Readout: readout,
    layers.Residual: residual,
    layers.IntegerResidual: integer_residual,
    layers.Gate: gate,
    layers.Affine: affine,
    layers.LayerNorm: layer_norm,
    layers.PositionEncoding: position_encoding,
    layers.IntegerActivation: compared,
    layers.Threshold: compared,
    layers.Activation: activation,
}
MULTIPLYING = {
    layers.Conv2d,
    layers.IntegerConv2d,
    layers.IntegerConv3d,
    layers.IntegerLinear,
    layers.IntegerWindowedLinear,
    layers.Conv3d,
    layers.Linear,
    layers.SparseLinear,
    layers.WindowedLinear,
    layers.AdaptiveLIF,
    layers.SpikingAttention,
    layers.TableAttention,
    layers.SoftmaxAttention,
    layers.GlobalContext,
    layers.AttentionPool,
    layers.Gate,
    layers.Affine,
    layers.LayerNorm,
}
"""Layers that report their inputs; a gate that spikes pass through does not."""
