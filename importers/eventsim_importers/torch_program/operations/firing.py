"""Neurons, and activations without memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from eventsim.layers import (
    Activation,
    Layer,
    Threshold,
)
from eventsim_importers.torch_program.axes import (
    AxesError,
    find,
    joined,
    size_of,
    whole,
)
from eventsim_importers.torch_program.operations import joins
from eventsim_importers.torch_program.recorder import FIRE, NEURON, Node
from eventsim_importers.torch_program.values import Held, Value

if TYPE_CHECKING:
    from eventsim_importers.torch_program.translation import Translation


def neuron(at: Translation, node: Node) -> Sequence[Held]:
    """Add a call of a neuron."""
    neuron = node.neuron
    assert neuron is not None
    value = at.value_of(node.refs[0], node)
    times = find(value.dims, "time")
    if value.layer in at.late:
        raise AxesError("an input that is there once, not in each time step, found; expected time steps")
    if neuron.time_axis is not None and at.time_steps > 1 and times != [neuron.time_axis]:
        raise AxesError(f"time in axis {', '.join(map(str, times)) or 'none'} found; expected axis {neuron.time_axis}")
    if neuron.time_axis is None and times:
        raise AxesError("several time steps in one call found; expected a multi-step neuron, or a loop over time")
    if node.path in at.neurons:
        raise AxesError("neurons called twice in a time step found; expected a module of its own for each call")
    at.neurons[node.path] = node
    names = [node.path] * len(neuron.layers)
    names[:-1] = [f"{node.path}.current{index or ''}" for index in range(len(names) - 1)]
    for name, layer in zip(names, _fitted(at, node, value), strict=True):
        value = Value(at.build.add(name, layer, at.heard(value)), value.dims)
    promised = at.promised.get(node.path)
    if promised is not None and promised != at.build.types[node.path]:
        raise AxesError(f"{at.build.types[node.path]} found; {promised} was expected where it is read a step later")
    at.emitted[node.path] = value
    return [value]


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


def fire(at: Translation, node: Node) -> Held:
    """Compare with a threshold, without memory."""
    value = at.value(node)
    kind = at.kind(value)
    threshold, strict = node.arguments[1:]
    array = joins.spread(at, node, value, threshold)
    if array.shape[0] > 1:
        raise AxesError("thresholds that differ in time found; expected the same in every step")
    at_all = float(array.reshape(-1)[0]) if array.size == 1 else joins.per_step(array[0], kind)
    return Value(at.add(node.path or "fire", Threshold(at_all, strict), value), value.dims)


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
}
