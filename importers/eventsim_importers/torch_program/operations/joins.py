"""Sums, products and gates of two signals, or of a signal and numbers of the module's own."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from eventsim.layers import (
    Affine,
    Concat,
    Conv2d,
    Gate,
    Layer,
    Linear,
    PositionEncoding,
    Residual,
    SpikingAttention,
    TableAttention,
    WindowedLinear,
)
from eventsim.signals import FloatArray, SignalType
from eventsim_importers.torch_program.arguments import level
from eventsim_importers.torch_program.arranging import laid_like, rearranged, vectors
from eventsim_importers.torch_program.axes import (
    Atom,
    AxesError,
    find,
    joined,
    same,
    size_of,
    whole,
)
from eventsim_importers.torch_program.folding import Kernel, beside
from eventsim_importers.torch_program.one_step import ADDS, DIVIDES, MULTIPLIES, NEGATES, SUBTRACTS
from eventsim_importers.torch_program.operations import attention, windows
from eventsim_importers.torch_program.recorder import Node, Ref
from eventsim_importers.torch_program.values import Contexts, Held, OverTime, PoolWeights, Scores, Tabled, Value

if TYPE_CHECKING:
    from eventsim_importers.torch_program.translation import Translation


def plus(at: Translation, node: Node) -> Held:
    """Add a sum of two signals, or with numbers of the module's own."""
    a, b = at.operands(node, OverTime)
    if at.plain(node, 2, "alpha", 1) != 1:
        raise AxesError("a factor alpha found; expected 1")
    if isinstance(a, OverTime) or isinstance(b, OverTime):
        if (found := _summed_steps(at, node, a, b)) is not None:
            return found
        a, b = (at.settled(each) if isinstance(each, OverTime) else each for each in (a, b))
    if node.operation in SUBTRACTS:
        return _minus(at, node, a, b)
    if isinstance(a, Value) and isinstance(b, Value):
        return _parallel(at, node, a, b) or _join(at, node, Residual("add"), a, b)
    value, number = (a, b) if isinstance(a, Value) else (b, a)
    return _shifted(at, node, cast(Value, value), number)


def _summed_steps(at: Translation, node: Node, a: Any, b: Any) -> Held | None:
    """Return a sum of time steps of the same layers, or of parts of time; None where a join of two signals is meant."""
    if not all(isinstance(each, OverTime) or (isinstance(each, Value) and find(each.dims, "time")) for each in (a, b)):
        return None
    one, other = windows.promoted(at, a), windows.promoted(at, b)
    alike = one.terms.keys() >= other.terms.keys() or one.terms.keys() <= other.terms.keys()
    if (one.steps, one.heard) != (other.steps, other.heard) or not same(*level(one, other)):
        return None
    whole_time = one.steps == one.heard
    if whole_time and not alike and windows.has_layers(one) and windows.has_layers(other):
        return None
    return windows.summed(node, one, other, -1 if node.operation in SUBTRACTS else 1)


def _parallel(at: Translation, node: Node, a: Value, b: Value) -> Value | None:
    """Fold the sum of two convolutions of the same map, or of one and a normalisation, that nothing else reads."""
    if not at.fold_bn or a.layer == b.layer or not same(*level(a, b)) or at.kind(a).shape != at.kind(b).shape:
        return None
    if not all(at.alone(node.number, each, place) for place, each in enumerate((a, b))):
        return None
    layers = [at.build.layers[each.layer] for each in (a, b)]
    if not any(isinstance(layer, Conv2d) for layer in layers):
        return None
    kernels = [at.kernel(each) for each in (a, b)]
    if None in kernels or at.source_of(a.layer) != at.source_of(b.layer):
        return None
    kernel = beside(*cast(list[Kernel], kernels))
    return Value(at.folded(node.path or a.layer, kernel, node, a, b), level(a, b)[0]) if kernel else None


def _minus(at: Translation, node: Node, a: Any, b: Any) -> Held:
    if isinstance(a, Value) and isinstance(b, Value):
        return _join(at, node, Residual("add"), a, _negated(at, node, b))
    if isinstance(a, Value):
        return _shifted(at, node, a, -b)
    value = cast(Value, b)
    if _is_one(a) and at.kind(value).kind == "binary":
        return Value(value.layer, value.dims, value.delay, not value.complement)
    return _shifted(at, node, _negated(at, node, value), a)


def _shifted(at: Translation, node: Node, value: Value, number: Any) -> Value:
    """Add an array of the module's own; to a linear layer that has no bias as its bias."""
    array = spread(at, node, value, number)
    synapses = at.build.layers.get(value.layer)
    of_channels = array.shape[:2] == (1, 1) and array.shape[2] == at.kind(value).channels
    if (
        isinstance(synapses, Linear | WindowedLinear)
        and synapses.bias is None
        and of_channels
        and not (value.delay or value.complement)
        and at.alone(node.number, value)
    ):
        at.build.layers[value.layer] = replace(synapses, bias=array[0, 0])
        at.maker[value.layer] = node.number
        return value
    layer = PositionEncoding(np.ascontiguousarray(array.swapaxes(1, 2)))
    return Value(at.add(at.named(node, "shift", number), layer, value), value.dims)


def spread(at: Translation, node: Node, value: Value | OverTime, number: Any) -> FloatArray:
    """Return numbers of the module's own as (T or 1, positions or 1, channels or 1), by the axes of a value."""
    kind = at.kind(value)
    array = number.detach().float().cpu().numpy() if isinstance(number, torch.Tensor) else np.float32(number)
    if np.ndim(array) > len(value.dims):
        raise AxesError(f"an array of {np.ndim(array)} axes with {len(value.dims)} found; expected at most as many")
    array = np.asarray(array).reshape((1,) * (len(value.dims) - np.ndim(array)) + np.shape(array))
    sizes = {"time": at.steps_of(value), "position": kind.positions, "channel": kind.channels}
    fine: list[int] = []
    order: list[Atom] = []
    for axis, dim in enumerate(value.dims):
        if array.shape[axis] not in (1, size_of(dim)):
            raise AxesError(f"an array of shape {array.shape} found; expected sizes of the signal or 1")
        parts = [atom.size if array.shape[axis] > 1 else 1 for atom in dim]
        fine.extend(parts)
        order.extend(dim)
    array = array.reshape(fine)
    ranked = sorted(
        range(len(order)), key=lambda at: (("time", "position", "channel").index(order[at].of), -order[at].stride)
    )
    array = array.transpose(ranked)
    shape = []
    for of in ("time", "position", "channel"):
        here = [array.shape[place] for place, at in enumerate(ranked) if order[at].of == of]
        whole_size = math.prod(order[at].size for at in ranked if order[at].of == of)
        full = [order[at].size for at in ranked if order[at].of == of]
        if 1 < math.prod(here) < math.prod(full):
            array = np.broadcast_to(
                array,
                [order[at].size if order[at].of == of else array.shape[place] for place, at in enumerate(ranked)],
            )
            here = full
        shape.append(math.prod(here))
        if whole_size not in (1, sizes[of]):
            raise AxesError(f"an array for {whole_size} of {sizes[of]} along {of} found; expected all")
    return np.ascontiguousarray(array.reshape(shape), np.float32)


def negative(at: Translation, node: Node) -> Held:
    """Add the negative of a signal."""
    return _negated(at, node, at.value(node))


def _negated(at: Translation, node: Node, value: Value) -> Value:
    layer = Affine(np.full(at.kind(value).channels, -1, np.float32))
    return Value(at.add(at.named(node, "minus"), layer, value), value.dims)


def times(at: Translation, node: Node) -> Held:
    """Add a product with a number, an array, spikes or a gate."""
    a, b = at.operands(node, Scores, Tabled, Contexts, PoolWeights, OverTime)
    divides = node.operation in DIVIDES
    if node.keywords.get("rounding_mode") is not None:
        raise AxesError("a division that rounds found; expected a plain one")
    if isinstance(a, PoolWeights) or isinstance(b, PoolWeights):
        return _weighed(a, b)
    if isinstance(a, (Scores, Tabled, Contexts)) or isinstance(b, (Scores, Tabled, Contexts)):
        held, number = (a, b) if isinstance(a, (Scores, Tabled, Contexts)) else (b, a)
        if isinstance(number, (Value, OverTime, Scores, Tabled, Contexts)):
            raise AxesError("attention scores times a signal found; expected a number")
        factor = attention.number_of(number)
        return attention.scaled(held, 1 / factor if divides else factor, node)
    if isinstance(a, OverTime) or isinstance(b, OverTime):
        if isinstance(a, OverTime) != isinstance(b, OverTime):
            held, number = (a, b) if isinstance(a, OverTime) else (b, a)
            if not isinstance(number, Value) and not (divides and held is b):
                array = spread(at, node, held, 1 / number if divides else number)
                if array.shape[1] == 1:
                    return windows.times(node, held, array[:, 0].astype(np.float64))
        a, b = (at.settled(each) if isinstance(each, OverTime) else each for each in (a, b))
    if isinstance(a, Value) and isinstance(b, Value):
        if divides:
            raise AxesError("a signal divided by a signal found; expected a product")
        return _product(at, node, a, b)
    value, number = (a, b) if isinstance(a, Value) else (b, a)
    if divides and value is b:
        raise AxesError("a number divided by a signal found; expected the signal over a number")
    return _factor(at, node, cast(Value, value), 1 / number if divides else number)


def _weighed(a: Any, b: Any) -> Held:
    """Apply the weights of a pooling to what they were made of."""
    weights, value = (a, b) if isinstance(a, PoolWeights) else (b, a)
    known = isinstance(value, Value) and value.layer == weights.source.layer and same(value.dims, weights.dims)
    if not known or weights.applied:
        raise AxesError("a softmax over positions and time times something else found; expected what it was made of")
    return replace(weights, applied=True)


def _factor(at: Translation, node: Node, value: Value, number: Any) -> Value:
    kind = at.kind(value)
    if _is_one(number):
        return value
    layer = at.build.layers.get(value.layer)
    if isinstance(layer, SpikingAttention | TableAttention) and np.size(number) == 1 and at.alone(node.number, value):
        at.build.layers[value.layer] = replace(layer, scale=layer.scale * attention.number_of(number))
        return value
    array = spread(at, node, value, number)
    if array.shape[0] > 1:
        raise AxesError("factors that differ in time found; expected the same in every step")
    return Value(at.add(at.named(node, "scale", number), Affine(per_step(array[0], kind)), value), value.dims)


def _product(at: Translation, node: Node, a: Value, b: Value) -> Held:
    if a.complement != b.complement:
        branch, shortcut = (a, b) if a.complement else (b, a)
        return _join(at, node, Residual("iand"), shortcut, Value(branch.layer, branch.dims, branch.delay))
    gate, source = (a, b) if at.kind(a).size < at.kind(b).size else (b, a)
    if at.kind(a).size == at.kind(b).size or not _is_gate(at, gate, source):
        both = {at.kind(a).kind, at.kind(b).kind} == {"binary"}
        return _join(at, node, Residual("and") if both else Gate(), a, b)
    _, dims = level(gate, source)
    return Value(at.add(at.named(node, "gate"), Gate(), gate, source), dims)


def _is_gate(at: Translation, gate: Value, source: Value) -> bool:
    """Tell whether a smaller signal meets a larger one as `Gate` repeats it."""
    small, large = at.kind(gate), at.kind(source)
    share = large.channels // max(small.channels, 1)
    for mine, theirs in zip(*level(gate, source), strict=True):
        meant = tuple(
            Atom(atom.of, atom.stride * share if atom.of == "channel" else atom.stride, atom.size) for atom in mine
        )
        there = tuple(atom for atom in joined(theirs) if any(atom.of == each.of for each in meant))
        if mine and (joined(meant) != there or there != joined(theirs)):
            return False
    return large.channels % small.channels == 0 and (small.positions == 1 or small.grid == large.grid)


def _join(at: Translation, node: Node, layer: Layer, a: Value, b: Value) -> Held:
    name = _joint_name(at, node, layer, a, b)
    if at.kind(a).size < at.kind(b).size:
        a = laid_like(at, node, a, b)
    b = laid_like(at, node, b, a)
    one, _ = level(a, b)
    return Value(at.add(name, layer, a, b), one)


def _joint_name(at: Translation, node: Node, layer: Layer, a: Value, b: Value) -> str:
    """Name a join for the module that does it and the last of its children that had a part: ``block.0.attn_add``."""
    prefix = f"{node.path}." if node.path else ""
    word = layer.mode if isinstance(layer, Residual) else "mul"
    made = [each.layer for each in (a, b) if not each.delay and each.layer in at.maker]
    last = max(made, key=at.maker.__getitem__, default="")
    while last in at.maker and at.nodes[at.maker[last]].path == node.path:  # no child did it
        heard = [edge.source for edge in at.build.edges if edge.target == last]
        last = heard[0] if len(heard) == 1 else ""
    if not last.startswith(prefix) or last not in at.maker:
        return f"{prefix}{word}"
    return f"{prefix}{last.removeprefix(prefix).split('.')[0]}_{word}"


def concat(at: Translation, node: Node) -> Held:
    """Channels side by side, or what another axis holds; or time steps, and zeros in the place of some."""
    refs = node.arguments[0]
    axis = int(at.plain(node, 1, "dim", 0))
    parts = [at.loose(ref, node) if isinstance(ref, Ref) else ref for ref in refs]
    over_time = windows.side_by_side(at, node, parts, axis % len(node.shapes[0]), new=False)
    if over_time is not None:
        return over_time
    values = [at.settled(part) for part in parts if isinstance(part, Value | OverTime)]
    if len(values) != len(refs):
        raise AxesError("a signal beside an array found; expected signals alone")
    axis %= len(values[0].dims)
    values = [vectors(at, node, value, axis) for value in values]
    joint, channels = values[0], at.kind(values[0]).channels
    for each in values[1:]:
        other = each
        if not _beside(at, joint, other, axis):
            joint, other = (rearranged(at, node, one, (axis,)) for one in (joint, other))
        if not _beside(at, joint, other, axis):
            raise AxesError("signals along different axes found; expected the same")
        channels += at.kind(other).channels
        layer = at.add(at.named(node, "concat"), Concat(), joint, other)
        joint = Value(layer, (*joint.dims[:axis], whole("channel", channels), *joint.dims[axis + 1 :]))
    at.beside[joint.layer] = tuple(values)
    return joint


def _beside(at: Translation, one: Value, other: Value, axis: int) -> bool:
    """Tell whether two values lie alike along all axes but one."""
    rest = (each.dims[:axis] + each.dims[axis + 1 :] for each in (one, other))
    return same(*rest) and at.kind(one).grid == at.kind(other).grid


def _is_one(value: Any) -> bool:
    return not isinstance(value, Value) and bool(
        np.all(np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value) == 1)
    )


def per_step(array: FloatArray, kind: SignalType) -> FloatArray:
    """Return (positions or 1, channels or 1) as (channels,) or of the shape of one time step."""
    if array.shape[0] == 1:
        return np.ascontiguousarray(np.broadcast_to(array[0], (kind.channels,)))
    spread = np.broadcast_to(array, (kind.positions, kind.channels))
    return np.ascontiguousarray(spread.T if len(kind.grid) == 2 else spread).reshape(kind.shape)


OPERATIONS = {
    **dict.fromkeys((*ADDS, *SUBTRACTS), plus),
    **dict.fromkeys((*MULTIPLIES, *DIVIDES), times),
    **dict.fromkeys(("cat", "concat", "concatenate"), concat),
    **dict.fromkeys(NEGATES, negative),
}
