"""The node of each layer that NIR has one for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from eventsim import layers
from eventsim.layers import Layer
from eventsim.layers.neurons.spiking import PerNeuron
from eventsim.signals import FloatArray, SignalType

if TYPE_CHECKING:
    from eventsim.exporting.graph import Graph

LARGEST_DIAGONAL = 4096
"""Channels that a matrix may scale and shift one by one."""

Real = npt.NDArray[np.float64]
Fields = dict[str, Any]


class NoNodeError(Exception):
    """Says what NIR has no place for."""


class Place(NamedTuple):
    """A layer of a network, what arrives there and what leaves."""

    graph: Graph
    name: str
    layer: Any
    inputs: tuple[SignalType, ...]
    output: SignalType

    @property
    def source(self) -> SignalType:
        """What arrives at the layer."""
        return self.inputs[0]

    @property
    def arriving(self) -> SignalType:
        """What arrives at the node: before the layers that are in it too."""
        return self.graph.network.input_types((*self.graph.chains[self.name], self.name)[0])[0]

    def part(self, suffix: str) -> Any:
        """Return one of the layers that are in the node too, or None."""
        name = self.name + suffix
        return self.graph.network.layers[name] if name in self.graph.chains[self.name] else None

    def spread(self, value: PerNeuron) -> Real:
        """Return a value for each neuron, in the shape of a time step."""
        shape = self.source.shape
        array = np.asarray(np.asarray(value, np.float32), np.float64)
        if len(shape) == 3 and array.shape == shape[:1]:
            array = array.reshape(-1, 1, 1)
        return np.array(np.broadcast_to(array.reshape(()) if array.size == 1 else array, shape))

    @property
    def scaling(self) -> tuple[Real, Real]:
        """Scale and shift of the layer before this one that is in the node too."""
        layer = self.part(".current")
        if layer is None:
            return self.spread(1.0), self.spread(0.0)
        return self.spread(layer.scale), self.spread(0.0 if layer.shift is None else layer.shift)

    def current_based(self, kind: str, fields: Fields) -> Fields:
        """Return a node of this type, or the one with a synaptic current where that is in the node too."""
        synapse, weight = self.part(".synapse"), self.part(".input")
        if synapse is None:
            return {"type": kind, **fields}
        steps = 1 / (1 - self.spread(synapse.decay))
        gain = self.spread(1.0 if weight is None else weight.scale)
        fields["tau_mem"] = fields.pop("tau")
        return {"type": f"Cuba{kind}", "tau_syn": steps * self.graph.dt, "w_in": gain * steps, **fields}


# --- neurons


def _firing(place: Place, **metadata: Any) -> Fields:
    layer = place.layer
    if layer.emits != "spikes":
        raise NoNodeError(f"emits={layer.emits!r}, while neurons there emit spikes")
    said: Fields = {"reset": layer.reset, "strict": text(layer.strict), **metadata}
    if layer.reset in ("zero", "subtract"):
        said["reset_delay"] = "false"
    said["multiple_spikes"] = text(layer.multiple_spikes)
    if np.any(layer.start):
        said["start"] = place.spread(layer.start)
    said["v_min"] = "none" if layer.v_min is None else place.spread(layer.v_min)
    return {"v_threshold": place.spread(layer.v_threshold), "metadata": said}


def _integrate_and_fire(place: Place) -> Fields:
    return {"type": "IF", "r": place.scaling[0], **_firing(place)}


def _leaky(place: Place) -> Fields:
    layer = place.layer
    (scale, shift), steps = place.scaling, place.spread(layer.tau)
    if (steps < 1).any():
        raise NoNodeError("tau below one time step")
    r = scale if layer.decay_input else steps
    fields = {"tau": steps * place.graph.dt, "r": r, "v_leak": shift, **_firing(place, decay="euler")}
    return place.current_based("LIF", fields)


def _parametric(place: Place) -> Fields:
    share = place.spread(place.layer.share)
    if (share <= 0).any():
        raise NoNodeError("w so low that nothing is taken in")
    if not place.layer.decay_input and (share == 1).all():
        raise NoNodeError("decay_input=False with w so high that nothing is kept")
    metadata = {"decay": "euler", "plif_w": place.spread(place.layer.w)}
    return {
        "type": "LIF",
        "tau": place.graph.dt / share,
        "r": place.spread(1.0) if place.layer.decay_input else 1 / share,
        "v_leak": place.spread(0.0),
        **_firing(place, **metadata),
    }


def _leak(place: Place) -> Fields:
    """Return tau, r and v_leak of ``v = decay v + scale x + shift``."""
    (scale, shift), decay = place.scaling, place.spread(place.layer.decay)
    if (decay < 0).any() or (decay > 1).any():
        raise NoNodeError("decay outside 0 to 1")
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = 1 / (1 - decay)
        leak = np.where(shift == 0, 0, shift * steps)
    return {"tau": steps * place.graph.dt, "r": scale * steps, "v_leak": leak}


def _decaying(place: Place) -> Fields:
    return place.current_based("LIF", {**_leak(place), **_firing(place, decay="multiply")})


def _integrator(place: Place) -> Fields:
    layer = place.layer
    metadata: Fields = {"decay": "multiply"}
    if np.any(layer.start):
        metadata["start"] = place.spread(layer.start)
    if only_integrates(layer):
        return {"type": "I", "r": place.scaling[0]}
    return place.current_based("LI", {**_leak(place), "metadata": metadata})


def _threshold(place: Place) -> Fields:
    layer = place.layer
    threshold = place.spread(layer.threshold).astype(np.float32)
    return {"type": "Threshold", "threshold": threshold, "metadata": {"strict": text(layer.strict)}}


# --- weights and shapes


def _input(place: Place) -> Fields:
    return {"type": "Input", "shape": np.array(place.layer.shape)}


def _output(place: Place) -> Fields:
    return {"type": "Output", "shape": np.array(place.source.shape)}


def _conv2d(place: Place) -> Fields:
    layer = place.layer
    return _convolution(place, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def _convolution(
    place: Place,
    weight: Any,
    bias: Any,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Fields:
    return {
        "type": "Conv2d",
        "input_shape": np.array(place.source.grid),
        "weight": weight,
        "stride": np.array(stride),
        "padding": np.array(padding),
        "dilation": np.array(dilation),
        "groups": groups,
        "bias": np.zeros(len(weight), np.float32) if bias is None else bias,
    }


def _linear(place: Place) -> Fields:
    return _matrix(place, place.layer.weight, place.layer.bias)


def _sparse_linear(place: Place) -> Fields:
    return _matrix(place, _matrix_of(place.layer), place.layer.bias)


def _matrix_of(layer: layers.SparseLinear) -> FloatArray:
    weight = np.zeros((layer.outputs, len(layer.indptr) - 1), np.float32)
    inputs = np.repeat(np.arange(len(layer.indptr) - 1), np.diff(layer.indptr))
    weight[layer.targets, inputs] = layer.weights
    return weight


def _matrix(place: Place, weight: Any, bias: Any) -> Fields:
    """Multiply the last axis; on a map, where that is none of channels, it is a convolution of single pixels."""
    if len(place.source.grid) == 2:
        return _convolution(place, weight[:, :, None, None], bias)
    return {"type": "Linear", "weight": weight} | ({} if bias is None else {"type": "Affine", "bias": bias})


def _affine(place: Place) -> Fields:
    """Scale; with a shift, by a matrix of its diagonal or a convolution of single pixels, channel by channel."""
    layer, source = place.layer, place.source
    if layer.shift is None:
        return {"type": "Scale", "scale": place.spread(layer.scale).astype(np.float32)}
    scale, shift = (np.asarray(each, np.float32) for each in (layer.scale, layer.shift))
    channels = source.channels
    if {scale.size, shift.size} <= {1, channels}:
        scale, shift = (np.array(np.broadcast_to(each.reshape(-1), channels)) for each in (scale, shift))
        if len(source.grid) == 2:
            return _convolution(place, scale.reshape(-1, 1, 1, 1), shift, groups=channels)
        if channels <= LARGEST_DIAGONAL:
            return {"type": "Affine", "weight": np.diag(scale), "bias": shift}
    raise NoNodeError("a shift that differs from position to position")


def _sum_pool(place: Place) -> Fields:
    return _pool(place, "SumPool2d")


def _avg_pool(place: Place) -> Fields:
    layer = place.layer
    if layer.ceil_mode or (any(layer.padding) and not layer.count_include_pad):
        raise NoNodeError("an average over windows that hang over, or without the padding")
    return _pool(place, "AvgPool2d")


def _pool(place: Place, kind: str) -> Fields:
    layer = place.layer
    sizes = {name: np.array(getattr(layer, name)) for name in ("kernel_size", "stride", "padding")}
    return {"type": kind, **sizes}


def _flatten(place: Place) -> Fields:
    return {"type": "Flatten", "input_type": np.array(place.source.shape), "start_dim": 0, "end_dim": -1}


def _reshape(place: Place) -> Fields:
    """Return a Flatten of neighbouring axes, or the node whose work is done in another shape."""
    work = place.part(".conv")
    if work is not None:
        return {
            "type": "Conv1d",
            "input_shape": place.arriving.channels,
            "weight": work.weight[:, :, 0],
            "stride": work.stride[1],
            "padding": work.padding[1],
            "dilation": work.dilation[1],
            "groups": work.groups,
            "bias": np.zeros(len(work.weight), np.float32) if work.bias is None else work.bias,
        }
    work = place.part(".product")
    if work is not None:
        weight = work.weight if isinstance(work, layers.Linear) else _matrix_of(work)
        return {"type": "Linear", "weight": weight} | (
            {} if work.bias is None else {"type": "Affine", "bias": work.bias}
        )
    old, new = place.source.shape, place.layer.shape
    for start in range(len(old)):
        for end in range(start, len(old)):
            if (*old[:start], prod(old[start : end + 1]), *old[end + 1 :]) == tuple(new):
                return {"type": "Flatten", "input_type": np.array(old), "start_dim": start, "end_dim": end}
    raise NoNodeError(f"shape {old} as {tuple(new)}")


def _sum(place: Place) -> Fields:
    if place.layer.mode != "add":
        raise NoNodeError(f"a join by {place.layer.mode}")
    return {"type": "Scale", "scale": np.ones(place.source.shape, np.float32)}


def _delay_each(place: Place) -> Fields:
    return {"type": "Delay", "delay": place.spread(place.layer.steps) * place.graph.dt}


def text(value: object) -> str:
    """Return a value as metadata hold it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def only_integrates(layer: layers.LeakyIntegrator) -> bool:
    """Tell whether it is NIR's I."""
    return bool((np.asarray(layer.decay) == 1).all()) and not np.any(layer.start)


NODES: Mapping[type[Layer], Callable[[Place], Fields]] = {
    layers.Input: _input,
    layers.Readout: _output,
    layers.Conv2d: _conv2d,
    layers.Linear: _linear,
    layers.SparseLinear: _sparse_linear,
    layers.Affine: _affine,
    layers.SumPool2d: _sum_pool,
    layers.AvgPool2d: _avg_pool,
    layers.Flatten: _flatten,
    layers.Reshape: _reshape,
    layers.Residual: _sum,
    layers.DelayEach: _delay_each,
    layers.IF: _integrate_and_fire,
    layers.LIF: _leaky,
    layers.PLIF: _parametric,
    layers.DecayLIF: _decaying,
    layers.LeakyIntegrator: _integrator,
    layers.Threshold: _threshold,
}
"""The layers that have a node, exactly of these types."""
