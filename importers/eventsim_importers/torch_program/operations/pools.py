"""Windows, and means and sums over positions, channels and time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from eventsim.layers import (
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    Affine,
    AttentionPool,
    AvgPool2d,
    Layer,
    MaxPool2d,
    MeanOverPositions,
    MeanOverTime,
    SumOverChannels,
    SumOverPositions,
)
from eventsim_importers.torch_program.arguments import first, pair
from eventsim_importers.torch_program.arranging import rearranged
from eventsim_importers.torch_program.axes import (
    Atom,
    AxesError,
    joined,
    whole,
)
from eventsim_importers.torch_program.recorder import Node, leaves
from eventsim_importers.torch_program.values import Held, PoolWeights, Value

if TYPE_CHECKING:
    from eventsim_importers.torch_program.translation import Translation


def pool2d(at: Translation, node: Node) -> Held:
    """Add a maximum or average over windows of a map."""
    value = at.map_of(node)
    layer = _windows(at, node, pair)
    return at.standard(at.add(node.path or node.operation, layer, value), value.dims, ("channel", "grid"))


def pool1d(at: Translation, node: Node) -> Held:
    """Add a maximum or average over windows of a line; or of neighbouring channels, as voting layers take it."""
    value = at.value(node)
    kind = at.kind(value)
    if joined(value.dims[-1]) == joined(whole("channel", kind.channels)):
        return _vote(at, node, value)
    value = at.line_of(node, value)
    layer = at.add(node.path or node.operation, _windows(at, node, _along_line), value)
    return at.standard(layer, value.dims, ("channel", "position"))


def adaptive_pool1d(at: Translation, node: Node) -> Held:
    """Add a maximum or average over windows that cover a line."""
    value = at.line_of(node, at.value(node))
    size = (1, first(at.plain(node, 1, "output_size", 1)))
    if node.operation == "adaptive_avg_pool1d" and size == (1, 1):
        return _vector(at, value, at.add(node.path or "mean_over_positions", MeanOverPositions(), value))
    make = AdaptiveAvgPool2d if node.operation == "adaptive_avg_pool1d" else AdaptiveMaxPool2d
    return at.standard(at.add(node.path or node.operation, make(size), value), value.dims, ("channel", "position"))


def _along_line(size: Any) -> tuple[int, int]:
    return (0 if size in (0, (0,)) else 1, first(size))


def _windows(at: Translation, node: Node, both: Callable[[Any], tuple[int, int]]) -> Layer:
    """Return the layer of a maximum or average over windows; `both` makes a size of two of what is given."""
    kernel = both(at.plain(node, 1, "kernel_size", 1))
    given = at.plain(node, 2, "stride", None)
    stride = kernel if given is None or given == () else both(given)
    padding = both(at.plain(node, 3, "padding", 0))
    padding = (0, padding[1]) if both is _along_line else padding
    if node.operation.startswith("max"):
        dilation = both(at.plain(node, 4, "dilation", 1))
        return MaxPool2d(
            kernel, stride, padding, dilation=dilation, ceil_mode=bool(at.plain(node, 5, "ceil_mode", False))
        )
    if at.plain(node, 6, "divisor_override", None) is not None:
        raise AxesError("divisor_override found; expected the size of the window")
    count = bool(at.plain(node, 5, "count_include_pad", True))
    ceil = bool(at.plain(node, 4, "ceil_mode", False))
    return AvgPool2d(kernel, stride, padding, count_include_pad=count, ceil_mode=ceil)


def adaptive_pool2d(at: Translation, node: Node) -> Held:
    """Add a maximum or average over windows that cover the map."""
    value = at.map_of(node)
    grid = at.kind(value).grid
    asked = pair(at.plain(node, 1, "output_size", 1))
    size = tuple(g if s is None else int(s) for g, s in zip(grid, asked, strict=True))
    size = (size[0], size[1])
    if node.operation == "adaptive_avg_pool2d" and size == (1, 1):
        return _vector(at, value, at.add(node.path or "mean_over_positions", MeanOverPositions(), value))
    layer = AdaptiveAvgPool2d(size) if node.operation == "adaptive_avg_pool2d" else AdaptiveMaxPool2d(size)
    return at.standard(at.add(node.path or node.operation, layer, value), value.dims, ("channel", "grid"))


def _vote(at: Translation, node: Node, value: Value) -> Value:
    """Add the mean of each group of neighbouring channels."""
    kind = at.kind(value)
    size = first(at.plain(node, 1, "kernel_size", 1))
    given = at.plain(node, 2, "stride", None)
    stride = size if given in (None, ()) else first(given)
    if node.operation != "avg_pool1d" or stride != size or kind.channels % size:
        raise AxesError(f"windows of {size} every {stride} over {kind} found; expected the mean of equal groups")
    if first(at.plain(node, 3, "padding", 0)):
        raise AxesError("padding found; expected none")
    groups = kind.channels // size
    summed = Value(at.add(at.named(node, "sum"), SumOverChannels(groups), value), value.dims)
    layer = at.add(node.path or "vote", Affine(np.full(groups, 1 / size, np.float32)), summed)
    return Value(layer, (*value.dims[:-1], whole("channel", groups)))


def _vector(at: Translation, value: Value, layer: str) -> Value:
    """Return a value whose positions are gone, with axes of size 1 in their place."""
    dims = tuple(tuple(atom for atom in dim if atom.of != "position") for dim in value.dims)
    return Value(layer, dims)


def reduce(at: Translation, node: Node) -> Held:
    """Add a mean or sum over positions, time, or the channels of each head."""
    weights = at.held.get(node.refs[0])
    if isinstance(weights, PoolWeights):
        return _pooled(at, node, weights)
    value = at.value(node)
    rank = len(value.dims)
    given = at.plain(node, 1, "dim", None)
    axes = [axis % rank for axis in (leaves(given) if given is not None else range(rank))]
    keep = bool(at.plain(node, 2, "keepdim", False))
    reduced = joined(*(value.dims[axis] for axis in axes))
    mean = node.operation == "mean"
    if not _reducible(at, value, axes):
        value = _apart(at, node, value, axes)
        reduced = joined(*(value.dims[axis] for axis in axes))
    dims = [() if axis in axes else dim for axis, dim in enumerate(value.dims)]
    kept = tuple(dim for axis, dim in enumerate(dims) if keep or axis not in axes)
    for of in ("position", "channel", "time"):
        atoms = [atom for axis in axes for atom in joined(value.dims[axis]) if atom.of == of]
        if atoms:
            value = _reduced(at, node, value, of, atoms, mean)
    if not reduced:
        return value.along(kept)
    fewer = math.prod(atom.size for atom in reduced if atom.of == "channel")
    return Value(value.layer, tuple(tuple(_renumbered(atom, fewer) for atom in dim) for dim in kept))


def _reducible(at: Translation, value: Value, axes: list[int]) -> bool:
    """Tell whether all positions, none, or the channels of each of equal heads are reduced."""
    atoms = [atom for axis in axes for atom in joined(value.dims[axis])]
    positions = math.prod(atom.size for atom in atoms if atom.of == "position")
    channels = [atom for atom in atoms if atom.of == "channel"]
    return positions in (1, at.kind(value).positions) and [atom.stride for atom in channels] in ([], [1])


def _apart(at: Translation, node: Node, value: Value, axes: list[int]) -> Value:
    """Return a value whose positions are the axes that are reduced, time apart, and whose channels are all others."""
    held = [axis for axis in axes if any(atom.of != "time" for atom in value.dims[axis])]
    others = [axis for axis in range(len(value.dims)) if axis not in held]
    return rearranged(at, node, value, others, held)


def _pooled(at: Translation, node: Node, weights: PoolWeights) -> Value:
    """Add the weighted mean over all positions and time steps."""
    given = at.plain(node, 1, "dim", None)
    axes = [axis % len(weights.dims) for axis in leaves(given)] if given is not None else []
    reduced = joined(*(weights.dims[axis] for axis in axes))
    if not weights.applied or node.operation != "sum" or {atom.of for atom in reduced} != {"time", "position"}:
        raise AxesError("weights of positions and time found; expected what they weigh, summed over both")
    layer = at.add(at.named(node, "attention_pool"), AttentionPool(weights.weight), weights.source)
    kept = tuple(dim for axis, dim in enumerate(weights.dims) if axis not in axes)
    return Value(layer, kept)


def _renumbered(atom: Atom, fewer: int) -> Atom:
    """Return an atom where so many neighbouring channels became one."""
    return Atom("channel", atom.stride // fewer, atom.size) if atom.of == "channel" else atom


def _reduced(at: Translation, node: Node, value: Value, of: str, atoms: list[Atom], mean: bool) -> Value:
    kind = at.kind(value)
    size = math.prod(atom.size for atom in atoms)
    if of == "position":
        if size != kind.positions:
            raise AxesError(f"{node.operation} over {size} of {kind.positions} positions found; expected all")
        layer: Layer = MeanOverPositions() if mean else SumOverPositions()
        return Value(at.add(at.named(node, f"{node.operation}_over_positions"), layer, value), value.dims)
    if of == "time":
        if size != at.steps_of(value):
            raise AxesError(f"{node.operation} over {size} of {at.steps_of(value)} time steps found; expected all")
        if mean:
            return Value(at.add("mean_over_time", MeanOverTime(), value), value.dims)
        return at.sum_over_time(value)
    if len(atoms) != 1 or atoms[0].stride != 1:
        raise AxesError(f"{node.operation} over channels that are no neighbours found; expected those of each head")
    layer = SumOverChannels(kind.channels // size)
    summed = Value(at.add(at.named(node, "sum_over_channels"), layer, value), value.dims)
    if not mean:
        return summed
    factor = np.full(kind.channels // size, 1 / size, np.float32)
    return Value(at.add(at.named(node, "mean_over_channels"), Affine(factor), summed), value.dims)


OPERATIONS = {
    **dict.fromkeys(("max_pool2d", "avg_pool2d"), pool2d),
    **dict.fromkeys(("adaptive_avg_pool2d", "adaptive_max_pool2d"), adaptive_pool2d),
    **dict.fromkeys(("mean", "sum"), reduce),
    **dict.fromkeys(("max_pool1d", "avg_pool1d"), pool1d),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_max_pool1d"), adaptive_pool1d),
}
