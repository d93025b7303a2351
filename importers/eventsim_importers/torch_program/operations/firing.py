"""Neurons, and activations without memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import torch

from eventsim.layers import (
    Activation,
    Affine,
    Layer,
    Threshold,
)
from eventsim.layers.neurons.spiking import Neuron as SpikingLayer
from eventsim_importers.torch_program.axes import (
    AxesError,
    find,
    joined,
    size_of,
    whole,
)
from eventsim_importers.torch_program.neurons.protocol import State
from eventsim_importers.torch_program.operations import joins
from eventsim_importers.torch_program.recorder import FIRE, NEURON, Node
from eventsim_importers.torch_program.values import Emitted, Held, Value
from eventsim_importers.torch_program.written.comparisons import compared

if TYPE_CHECKING:
    from eventsim_importers.torch_program.translation import Translation


def neuron(at: Translation, node: Node) -> Sequence[Held | None]:
    """Add a call of a neuron."""
    neuron = node.neuron
    assert neuron is not None
    value = at.value_of(node.refs[0], node)
    times = find(value.dims, "time")
    if value.layer in at.steps:
        raise AxesError("an input that is there once, or in some time steps, found; expected it in every step")
    if neuron.time_axis is not None and at.time_steps > 1 and times != [neuron.time_axis]:
        raise AxesError(f"time in axis {', '.join(map(str, times)) or 'none'} found; expected axis {neuron.time_axis}")
    if neuron.time_axis is None and times:
        raise AxesError("several time steps in one call found; expected a multi-step neuron, or a loop over time")
    if node.path in at.neurons:
        raise AxesError("neurons called twice in a time step found; expected a module of its own for each call")
    at.neurons[node.path] = node
    names = [node.path] * len(neuron.layers)
    names[:-1] = [f"{node.path}.current{index or ''}" for index in range(len(names) - 1)]
    layers = _fitted(at, node, value)
    read = {index: state for index, state in enumerate(neuron.states) if (node.number, 1 + index) in at.read}
    spikes = (node.number, 0) in at.read or not read
    last = len(layers) - 1 if spikes else max(state.layer % len(layers) for state in read.values())
    held: list[Held | None] = [None] * (1 + len(neuron.states))
    for place, (name, layer) in enumerate(zip(names[: last + 1], layers, strict=False)):
        source = value
        states = {index: state for index, state in read.items() if state.layer % len(layers) == place}
        inner = any(state.value != "emitted" for state in states.values())
        if spikes or place < last or not inner:
            value = Value(at.build.add(name, layer, at.heard(source)), source.dims)
            at.maker[name] = node.number
            at.check_promise(name)
        for index, state in states.items():
            found = value
            if state.value != "emitted":
                assert isinstance(layer, SpikingLayer)
                own = at.name_of_potential(node)
                emits = replace(layer, emits=state.value)
                found = Value(at.build.add(own, emits, at.heard(source)), source.dims)
                at.maker[own] = node.number
                at.check_promise(own)
            if state.value != "emitted" or (not spikes and place == last):
                at.emitted.append(Emitted(node.path, found, index))
            held[1 + index] = _measured(at, node, found, state)
    if spikes:
        held[0] = value
        at.emitted.append(Emitted(node.path, value))
    return held


def _measured(at: Translation, node: Node, value: Value, state: State) -> Value:
    """Add what makes the tensor of a state of what a layer emits."""
    if np.all(np.asarray(state.gain) == 1) and not np.any(state.shift):
        return value
    if np.size(state.gain) > 1 or np.size(state.shift) > 1:
        raise AxesError("the state of neurons that are measured differently found; expected the same v_reset for all")
    channels = at.kind(value).channels
    shift = np.full(channels, state.shift, np.float32) if np.any(state.shift) else None
    layer = Affine(np.full(channels, state.gain, np.float32), shift)
    return Value(at.add(at.named(node, "state"), layer, value), value.dims)


def _fitted(at: Translation, node: Node, value: Value) -> tuple[Layer, ...]:
    """Return the layers of a neuron with their arrays along the signal's axes."""
    neuron = node.neuron
    assert neuron is not None
    kind = at.kind(value)
    axes = [axis for axis in range(len(value.dims)) if axis != neuron.time_axis][1:]  # without the batch
    dims = tuple(value.dims[axis] for axis in axes)
    whole_channels = [axis for axis, dim in enumerate(dims) if joined(dim) == joined(whole("channel", kind.channels))]
    if not neuron.spread:
        return neuron.layers
    if not whole_channels:
        raise AxesError("constants that differ among neurons of channels cut or joined found; expected whole channels")
    shape = tuple(map(size_of, dims))
    fitted = neuron.fitted(shape, whole_channels[0])
    spread = any(np.ndim(array) > 1 for layer in fitted for array in layer.arrays().values())
    if spread and shape != kind.shape:
        raise AxesError(f"constants of shape {shape} found; expected them along the axes of {kind}")
    return fitted


def activation(at: Translation, node: Node) -> Held:
    """ReLU or sigmoid of every value."""
    value = at.value(node)
    word = cast(Literal["relu", "sigmoid"], node.operation.strip("_"))
    return Value(at.add(at.named(node, word), Activation(word), value), value.dims)


def clamp(at: Translation, node: Node) -> Held:
    """Limits of every value: clamp, ReLU6, hardtanh."""
    value, name = at.value(node), node.operation.rstrip("_")
    least, most = LIMITS.get(name, (None, None))
    if name in ("clamp_min", "clamp_max"):
        limit = at.plain(node, 1, name.removeprefix("clamp_"), None)
        least, most = (limit, None) if name == "clamp_min" else (None, limit)
    elif name != "relu6":
        words = ("min_val", "max_val") if name == "hardtanh" else ("min", "max")
        least, most = at.plain(node, 1, words[0], least), at.plain(node, 2, words[1], most)
    if any(np.size(limit) != 1 for limit in (least, most) if limit is not None):
        raise AxesError("limits that are arrays found; expected numbers")
    limits = [None if limit is None else float(limit) for limit in (least, most)]
    return Value(at.add(at.named(node, "clamp"), Activation("clamp", *limits), value), value.dims)


LIMITS = {"relu6": (0.0, 6.0), "hardtanh": (-1.0, 1.0)}
"""Of functions that have some of their own."""
CLAMPS = ("clamp", "clamp_", "clip", "clip_", "clamp_min", "clamp_min_", "clamp_max", "clamp_max_", "relu6", "hardtanh")


def fire(at: Translation, node: Node) -> Value:
    """Compare with a threshold, without memory."""
    value = at.value(node)
    kind = at.kind(value)
    threshold, strict = node.arguments[1:]
    array = joins.spread(at, node, value, threshold)
    if array.shape[0] > 1:
        raise AxesError("thresholds that differ in time found; expected the same in every step")
    at_all = float(array.reshape(-1)[0]) if array.size == 1 else joins.per_step(array[0], kind)
    return Value(at.add(node.path or "fire", Threshold(at_all, strict), value), value.dims)


def comparing(node: Node) -> Callable[[Translation, Node], Held] | None:
    """Return what translates a comparison of a signal with a threshold; None of another operation."""
    found = compared(node)
    if found is None or node.operation == FIRE:
        return None
    ref, threshold, strict, rest = found

    def translate(at: Translation, node: Node) -> Held:
        threshold_of_all = torch.from_numpy(np.asarray(threshold, np.float32))
        made = fire(at, replace(node, arguments=(ref, threshold_of_all, strict), keywords={}))
        return replace(made, complement=rest)

    return translate


def silent(at: Translation, node: Node) -> Held:
    """Take what spikes leave of 1."""
    value = at.value(node)
    if at.kind(value).kind != "binary":
        raise AxesError(f"{node.operation} of {at.kind(value)} found; expected spikes")
    return replace(value, complement=not value.complement)


def as_bool(at: Translation, node: Node) -> Held:
    """Take spikes as they are."""
    value = at.value(node)
    if at.kind(value).kind != "binary":
        raise AxesError(f"{node.operation} of {at.kind(value)} found; expected spikes")
    return value


OPERATIONS = {
    **dict.fromkeys(("__invert__", "logical_not"), silent),
    "bool": as_bool,
    NEURON: neuron,
    FIRE: fire,
    **dict.fromkeys(("relu", "relu_", "sigmoid", "sigmoid_"), activation),
    **dict.fromkeys(CLAMPS, clamp),
}
