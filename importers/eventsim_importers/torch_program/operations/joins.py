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
    Gate,
    Layer,
    PositionEncoding,
    Residual,
    SpikingAttention,
)
from eventsim.signals import FloatArray, SignalType
from eventsim_importers.torch_program.arguments import level
from eventsim_importers.torch_program.axes import (
    Atom,
    AxesError,
    joined,
    same,
    size_of,
    whole,
)
from eventsim_importers.torch_program.operations import attention
from eventsim_importers.torch_program.recorder import Node, Ref
from eventsim_importers.torch_program.unrolled import ADDS
from eventsim_importers.torch_program.values import Contexts, Held, PoolWeights, Scores, Value

if TYPE_CHECKING:
    from eventsim_importers.torch_program.translation import Translation


SUBTRACTS = ("sub", "sub_", "__sub__", "__isub__", "rsub", "__rsub__", "subtract")
MULTIPLIES = ("mul", "mul_", "__mul__", "__rmul__", "__imul__", "multiply")
DIVIDES = ("div", "div_", "__truediv__", "__itruediv__", "true_divide", "divide", "__rtruediv__", "__rdiv__")


def plus(at: Translation, node: Node) -> Held:
    """Add a sum of two signals, or with numbers of the module's own."""
    a, b = at.operands(node)
    if at.plain(node, 2, "alpha", 1) != 1:
        raise AxesError("a factor alpha found; expected 1")
    if node.operation in SUBTRACTS:
        return _minus(at, node, a, b)
    if isinstance(a, Value) and isinstance(b, Value):
        return _join(at, node, Residual("add"), a, b)
    value, number = (a, b) if isinstance(a, Value) else (b, a)
    return _shifted(at, node, cast(Value, value), number)


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
    """Add an array of the module's own."""
    array = spread(at, node, value, number)
    layer = PositionEncoding(np.ascontiguousarray(array.swapaxes(1, 2)))
    return Value(at.add(at.named_for(node, "shift", number), layer, value), value.dims)


def spread(at: Translation, node: Node, value: Value, number: Any) -> FloatArray:
    """Return numbers of the module's own as (T or 1, positions or 1, channels), by the axes of a value."""
    kind = at.kind(value)
    array = number.detach().float().cpu().numpy() if isinstance(number, torch.Tensor) else np.float32(number)
    if np.ndim(array) > len(value.dims):
        raise AxesError(f"an array of {np.ndim(array)} axes with {len(value.dims)} found; expected at most as many")
    array = np.asarray(array).reshape((1,) * (len(value.dims) - np.ndim(array)) + np.shape(array))
    sizes = {"time": at.time_steps, "position": kind.positions, "channel": kind.channels}
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
    a, b = at.operands(node, scores=True)
    divides = node.operation in DIVIDES
    if node.keywords.get("rounding_mode") is not None:
        raise AxesError("a division that rounds found; expected a plain one")
    if isinstance(a, PoolWeights) or isinstance(b, PoolWeights):
        return _weighed(a, b)
    if isinstance(a, (Scores, Contexts)) or isinstance(b, (Scores, Contexts)):
        held, number = (a, b) if isinstance(a, (Scores, Contexts)) else (b, a)
        if isinstance(number, (Value, Scores, Contexts)):
            raise AxesError("attention scores times a signal found; expected a number")
        factor = attention.number_of(number)
        return attention.scaled(held, 1 / factor if divides else factor)
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
    if isinstance(layer, SpikingAttention) and np.size(number) == 1 and at.alone(node.number, value):
        at.build.layers[value.layer] = replace(layer, scale=layer.scale * attention.number_of(number))
        return value
    array = spread(at, node, value, number)
    if array.shape[0] > 1:
        raise AxesError("factors that differ in time found; expected the same in every step")
    return Value(at.add(at.named(node, "scale"), Affine(per_step(array[0], kind)), value), value.dims)


def _product(at: Translation, node: Node, a: Value, b: Value) -> Held:
    if a.complement != b.complement:
        branch, shortcut = (a, b) if a.complement else (b, a)
        return _join(at, node, Residual("iand"), shortcut, Value(branch.layer, branch.dims, branch.delay))
    if at.kind(a).shape == at.kind(b).shape and same(*level(a, b)):
        both = {at.kind(a).kind, at.kind(b).kind} == {"binary"}
        return _join(at, node, Residual("and") if both else Gate(), a, b)
    gate, source = (a, b) if at.kind(a).size < at.kind(b).size else (b, a)
    _check_gate(at, gate, source)
    _, dims = level(gate, source)
    return Value(at.add(at.named(node, "gate"), Gate(), gate, source), dims)


def _check_gate(at: Translation, gate: Value, source: Value) -> None:
    """Check that a smaller signal meets a larger one as `Gate` repeats it."""
    small, large = at.kind(gate), at.kind(source)
    one, other = level(gate, source)
    share = large.channels // max(small.channels, 1)
    for mine, theirs in zip(one, other, strict=True):
        meant = tuple(
            Atom(atom.of, atom.stride * share if atom.of == "channel" else atom.stride, atom.size) for atom in mine
        )
        there = tuple(atom for atom in joined(theirs) if any(atom.of == each.of for each in meant))
        if mine and (joined(meant) != there or there != joined(theirs)):
            raise AxesError(
                f"a product of {small} and {large} along different axes found; expected the same channels and positions"
            )
    if large.channels % small.channels or small.positions not in (1, large.positions):
        raise AxesError(f"a product of {small} and {large} found; expected a gate for channels, heads or tokens")


def _join(at: Translation, node: Node, layer: Layer, a: Value, b: Value) -> Held:
    one, other = level(a, b)
    if not same(one, other):
        raise AxesError(f"{at.kind(a)} and {at.kind(b)} along different axes found; expected the same")
    return Value(at.add(_joint_name(at, node, b), layer, a, b), one)


def _joint_name(at: Translation, node: Node, branch: Value) -> str:
    """Name a join for the child module that its branch comes from: ``block.0.attn_add``."""
    prefix = f"{node.path}." if node.path else ""
    word = {"add_": "add", "__iadd__": "add", "__add__": "add", "__radd__": "add"}.get(
        node.operation, node.operation
    ).strip("_")
    if branch.layer.startswith(prefix):
        child = branch.layer.removeprefix(prefix).split(".")[0]
        return f"{prefix}{child}_{word}"
    return f"{prefix}{word}"


def concat(at: Translation, node: Node) -> Held:
    """Channels side by side."""
    refs = node.arguments[0]
    axis = int(at.plain(node, 1, "dim", 0))
    values = [at.value_of(ref, node) for ref in refs if isinstance(ref, Ref)]
    if len(values) != len(refs):
        raise AxesError("a signal beside an array found; expected signals alone")
    rank = len(values[0].dims)
    axis %= rank
    joint, channels = values[0], at.kind(values[0]).channels
    for other in values:
        if joined(other.dims[axis]) != joined(whole("channel", at.kind(other).channels)):
            raise AxesError("another axis than the channels found; expected channels side by side")
    for other in values[1:]:
        rest = [each.dims[:axis] + each.dims[axis + 1 :] for each in (joint, other)]
        if not same(*rest):
            raise AxesError("signals along different axes found; expected the same")
        channels += at.kind(other).channels
        layer = at.add(at.named(node, "concat"), Concat(), joint, other)
        joint = Value(layer, (*joint.dims[:axis], whole("channel", channels), *joint.dims[axis + 1 :]))
    return joint


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
    **dict.fromkeys(("neg", "negative", "__neg__"), negative),
}
