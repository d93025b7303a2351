"""Sums of a signal's time steps: parts of time, put together and added, as windows of synapses or delayed edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from eventsim.layers import (
    Affine,
    CropOverTime,
    Layer,
    Linear,
    Residual,
    SliceOverTime,
    SpikingAttention,
    TableAttention,
    WindowedLinear,
)
from eventsim_importers.torch_program.axes import AxesError, Dims, joined, whole
from eventsim_importers.torch_program.over_time import Terms, added, by_age, identity, is_identity, joined_steps, mixed
from eventsim_importers.torch_program.recorder import Node, Ref
from eventsim_importers.torch_program.values import Factors, Held, OverTime, Padded, Value

if TYPE_CHECKING:
    from eventsim_importers.torch_program.translation import Translation

LARGEST_EXPONENT = 126
Window = tuple[int | tuple[int, ...], int | tuple[int, ...], Literal["geometric", "constant"]]
"""Steps, exponent and decay of a `WindowedLinear`."""


def is_time(at: Translation, held: Value | OverTime, axis: int) -> bool:
    """Tell whether an axis holds the time steps, all of them."""
    dim = joined(held.dims[axis])
    if isinstance(held, OverTime) and held.steps <= 1:
        return not dim
    steps = at.steps_of(held)
    return steps > 1 and dim == joined(whole("time", steps))


def promoted(at: Translation, held: Value | OverTime | Padded) -> OverTime:
    """Return a signal with an axis of time as a sum of its steps; one of a scaled signal as one of that signal."""
    if isinstance(held, OverTime):
        return held
    if isinstance(held, Padded):
        inner = promoted(at, held.value)
        axis = next(axis for axis in range(len(inner.dims)) if is_time(at, inner, axis))
        return _with_zeros(at, inner, axis, held.before, held.after, inner.made)
    value = at.plainly(held)
    factors: Factors = np.eye(at.steps_of(value), k=-value.delay)[:, :, None]
    name = value.layer
    while isinstance(layer := at.build.layers[name], Affine) and layer.shift is None and layer.scale.ndim == 1:
        (edge,) = (edge for edge in at.build.edges if edge.target == name)
        if edge.delay:
            break
        name, factors = edge.source, factors * layer.scale
    return OverTime({name: factors}, value.dims, at.maker.get(value.layer, 0))


def made(node: Node, terms: Terms, dims: Dims) -> Value | OverTime:
    """Return a sum of time steps; the signal itself, where that is what it is."""
    if is_identity(terms):
        return Value(next(iter(terms)), dims)
    return OverTime(terms, dims, node.number)


def steps_of(at: Translation, node: Node, held: Value | OverTime, axis: int, chosen: Any) -> Value | OverTime:
    """Return some time steps, in an order that is given."""
    whole_time = promoted(at, held)
    terms = {layer: factors[chosen] for layer, factors in whole_time.terms.items()}
    steps = len(next(iter(terms.values())))
    return made(node, terms, (*held.dims[:axis], whole("time", steps), *held.dims[axis + 1 :]))


def with_zeros(at: Translation, node: Node, held: Value | OverTime, axis: int, before: int, after: int) -> Held:
    """Return time steps with silent ones before and behind; fewer of them, where the numbers are negative."""
    padded = _with_zeros(at, promoted(at, held), axis, before, after, node.number)
    return made(node, padded.terms, padded.dims)


def _with_zeros(at: Translation, held: OverTime, axis: int, before: int, after: int, number: int) -> OverTime:
    terms = joined_steps([max(before, 0), held.terms, max(after, 0)], held.heard)
    stop = len(next(iter(terms.values()))) + min(after, 0)
    terms = {layer: factors[max(-before, 0) : stop] for layer, factors in terms.items()}
    steps = len(next(iter(terms.values())))
    return OverTime(terms, (*held.dims[:axis], whole("time", steps), *held.dims[axis + 1 :]), number)


def side_by_side(at: Translation, node: Node, parts: Sequence[Any], axis: int, new: bool) -> Held | None:
    """Return parts of time, and zeros, one behind the other; None where that is not what is put together.

    Parameters
    ----------
    parts : sequence of Value, OverTime or tensor
    axis : int
    new : bool
        Whether the axis is a new one, along which each is one step.
    """
    signals = [part for part in parts if isinstance(part, Value | OverTime)]
    if new:
        timed = all(isinstance(part, OverTime) and part.steps == 1 for part in signals)
    else:
        timed = all(is_time(at, part, axis) for part in signals)
    if not signals or not timed:
        return None
    found: list[Terms | int] = []
    for part in parts:
        if isinstance(part, Value | OverTime):
            found.append(promoted(at, part).terms)
        elif isinstance(part, torch.Tensor) and not bool(part.any()):
            found.append(1 if new else part.shape[axis])
        else:
            raise AxesError("time steps beside an array found; expected time steps and zeros")
    heard = promoted(at, signals[0]).heard
    terms = joined_steps(found, heard)
    steps = len(next(iter(terms.values())))
    dims = signals[0].dims
    rest = dims if new else (*dims[:axis], *dims[axis + 1 :])
    for part in signals[1:]:
        if (part.dims if new else (*part.dims[:axis], *part.dims[axis + 1 :])) != rest:
            raise AxesError("time steps along different axes found; expected the same")
    return made(node, terms, (*rest[:axis], whole("time", steps), *rest[axis:]))


def written(at: Translation, node: Node) -> Held:
    """Return a signal, or zeros, some of whose time steps are those of another."""
    base, index, part = node.arguments[:3]
    given = index if isinstance(index, tuple) else (index,)
    axis = next((axis for axis, each in enumerate(given) if each != slice(None)), 0)
    if isinstance(base, torch.Tensor):
        base = base.clone()
        base[index] = 0  # what is written over need not be zero
    target = at.loose(base, node) if isinstance(base, Ref) else base
    source = at.loose(part, node) if isinstance(part, Ref) else part
    plain = Ellipsis not in given and isinstance(given[axis], int | slice) and axis == len(given) - 1
    signal = source if isinstance(source, Value | OverTime) else target
    plain = plain and (not isinstance(target, Value | OverTime) or is_time(at, target, axis))
    if not plain or not isinstance(signal, Value | OverTime) or not all(_fits(at, each) for each in (target, source)):
        raise AxesError(
            "a part that is written into found; expected time steps of a signal, or of zeros, or numbers in the "
            "border of a padded map"
        )
    one = isinstance(given[axis], int)
    steps = node.shapes[0][axis]
    chosen = np.arange(steps)[given[axis]].reshape(-1)
    inner = None if not isinstance(source, Value | OverTime) else promoted(at, source)
    outer = None if not isinstance(target, Value | OverTime) else promoted(at, target)
    dims = outer.dims if outer is not None else signal.dims
    if outer is None:
        dims = (*dims[:axis], whole("time", steps), *dims[axis + (0 if one else 1) :])
    if inner is not None and inner.steps != len(chosen):
        raise AxesError(f"{inner.steps} time steps written into {len(chosen)} found; expected as many")
    terms: Terms = {}
    if outer is not None:
        kept = np.ones(steps)
        kept[chosen] = 0
        terms = {layer: factors * kept[:, None, None] for layer, factors in outer.terms.items()}
    if inner is not None:
        terms = added(terms, mixed(np.eye(steps)[:, chosen], inner.terms))
    return made(node, terms, dims)


def _fits(at: Translation, part: Any) -> bool:
    """Tell whether something may stand among time steps: time steps, or zeros."""
    if isinstance(part, Value):
        return any(is_time(at, part, axis) for axis in range(len(part.dims)))
    if isinstance(part, torch.Tensor | int | float):
        return not bool(torch.as_tensor(part).any())
    return isinstance(part, OverTime)


def summed(node: Node, one: OverTime, other: OverTime, sign: int = 1) -> Value | OverTime:
    """Return a sum, or a difference, of as many steps of the same layers."""
    return made(node, added(one.terms, {layer: sign * factors for layer, factors in other.terms.items()}), one.dims)


def times(node: Node, held: OverTime, factors: Factors) -> OverTime:
    """Return time steps times constants (1 or steps, 1 or channels)."""
    terms = {layer: found * factors[:, None, :] for layer, found in held.terms.items()}
    return OverTime(terms, held.dims, node.number)


def mixed_steps(at: Translation, node: Node, held: Value | OverTime, axis: int, matrix: Factors) -> Value | OverTime:
    """Return the product of a matrix (steps, steps before) and an axis of time."""
    terms = mixed(matrix, promoted(at, held).terms)
    return made(node, terms, (*held.dims[:axis], whole("time", len(matrix)), *held.dims[axis + 1 :]))


# --- what a sum of time steps becomes


def settled(at: Translation, held: OverTime) -> Value:
    """Add the layers of a sum of time steps: a window of the synapses before it, delayed edges, or parts of time.

    Raises
    ------
    AxesError
        If a step hears later ones, or a part is none that has a layer.
    """
    key = tuple((layer, factors.shape, factors.tobytes()) for layer, factors in held.terms.items())
    if key not in at.sums:
        at.sums[key] = _parts(at, held) if held.steps != held.heard else _of_earlier_steps(at, held)
        at.maker[at.sums[key].layer] = held.made
    return replace(at.sums[key], dims=held.dims)


def _of_earlier_steps(at: Translation, held: OverTime) -> Value:
    ages = by_age(held.terms)
    layers = {layer for layer, _ in ages}
    (first, _), *_ = ages or [("", 0)]
    layer = at.build.layers.get(first)
    if not ages:
        raise AxesError("no time step that is not zero found; expected some")
    if len(layers) == 1 and type(layer) is Linear and layer.bias is None and _only_here(at, first):
        window = window_of({age: factor for (_, age), factor in ages.items()}, at.build.types[first].channels)
        if window is not None:
            at.build.layers[first] = WindowedLinear(layer.weight, None, *window)
            return Value(first, held.dims)
    scale = next(iter(ages.values()))
    if (
        all(isinstance(at.build.layers[each], SpikingAttention | TableAttention) for each in layers)
        and (scale == scale[0]).all()
        and scale[0] > 0
        and all(_only_here(at, each) for each in layers)
    ):
        for each in layers:
            attention = at.build.layers[each]
            assert isinstance(attention, SpikingAttention | TableAttention)
            at.build.layers[each] = replace(attention, scale=attention.scale * float(scale[0]))
        ages = {key: factor / scale[0] for key, factor in ages.items()}
    parts = [
        (age if len(layers) == 1 else number, Value(name, held.dims, age), factor)
        for number, ((name, age), factor) in enumerate(ages.items())
    ]
    return _sum(at, first, parts, held.dims)


def has_layers(held: OverTime) -> bool:
    """Tell whether each step is made of itself and earlier ones, the same in every step, and of any."""
    try:
        return bool(by_age(held.terms))
    except AxesError:
        return False


def _parts_of(at: Translation, held: OverTime) -> list[tuple[str, int, Factors]]:
    """Return layer, first time step and factor of each of the equally long parts of time that are added up."""
    found = []
    for layer, factors in held.terms.items():
        steps, heard = np.nonzero(factors.any(axis=2))
        for start in np.unique(heard - steps).tolist():
            stop = start + held.steps
            diagonal = [factors[step, start + step] for step in range(held.steps) if 0 <= start + step < held.heard]
            if len(diagonal) != held.steps:
                raise AxesError(f"time steps {start}:{stop} of {held.heard} found; expected a part of them")
            if any((each != diagonal[0]).any() for each in diagonal):
                raise AxesError("factors that differ in time found; expected the same in every step")
            found.append((layer, start, diagonal[0]))
    if not found:
        raise AxesError("no time step that is not zero found; expected some")
    return found


def _parts(at: Translation, held: OverTime) -> Value:
    """Add the parts of time that are added up."""
    name = at.named(at.nodes[held.made], "steps")
    parts = []
    for number, (layer, start, factor) in enumerate(_parts_of(at, held)):
        stop = start + held.steps
        part: Layer = CropOverTime(start, None if stop == held.heard else stop)
        if not held.heard % held.steps and not start % held.steps:
            part = SliceOverTime(start // held.steps, held.heard // held.steps)
        parts.append((number, Value(at.add(name, part, Value(layer, held.dims)), held.dims), factor))
    return _sum(at, name, parts, held.dims)


def _sum(at: Translation, name: str, parts: Sequence[tuple[int, Value, Factors]], dims: Dims) -> Value:
    """Add up signals, each times its factor."""
    total = None
    for number, part, factor in parts:
        value = part
        if (factor != 1).any():
            scale = np.ascontiguousarray(np.broadcast_to(factor, at.kind(value).channels), np.float32)
            value = Value(at.add(f"{name}.attenuate{number}", Affine(scale), value), dims)
        total = value if total is None else Value(at.add(f"{name}.sum{number}", Residual("add"), total, value), dims)
    assert total is not None
    return total


def _only_here(at: Translation, layer: str) -> bool:
    """Tell whether all that is made of a layer's steps is what the operation at work reads."""

    def is_of(held: Held | None) -> bool:
        return (isinstance(held, Value) and held.layer == layer) or (isinstance(held, OverTime) and layer in held.terms)

    waiting, seen = [at.maker[layer]], set()
    while waiting:
        for reader in at.readers.get(waiting.pop(), []):
            if reader == at.at_work.number or reader in seen:
                continue
            results = [Ref(number, index) for number, index in at.read if number == reader]
            if not results or not all(is_of(at.held.get(ref)) for ref in results):
                return False
            seen.add(reader)
            waiting.append(reader)
    return sum(is_of(at.held.get(ref)) for ref in at.at_work.refs) == 1


def synapses_window(at: Translation, held: OverTime) -> tuple[Value, Window] | None:
    """Return the signal and the window through which a linear layer hears it, if it is one of `WindowedLinear`."""
    if held.steps != held.heard or len(held.terms) != 1:
        return None
    ages = by_age(held.terms)
    factors = {age: factor for (_, age), factor in ages.items()}
    if any((factor != factor[0]).any() for factor in factors.values()):
        return None
    (layer,) = held.terms
    window = window_of({age: factor[:1] for age, factor in factors.items()}, 1)
    return None if window is None else (Value(layer, held.dims), window)


def window_of(factors: Mapping[int, Factors], channels: int) -> Window | None:
    """Return window, exponent and decay of factors by age, where they are 1 and negative powers of two.

    A constant decay is told from a geometric one by its third step.
    """
    ages = np.zeros((max(factors, default=0) + 1, channels))
    for age, factor in factors.items():
        ages[age] = factor
    mantissa, exponent = np.frexp(ages)
    windows = (ages != 0).argmin(axis=0)
    windows[(ages != 0).all(axis=0)] = len(ages)
    there = np.arange(len(ages))[:, None] < windows
    if (ages[~there] != 0).any() or (mantissa[there] != 0.5).any():
        return None
    halvings = 1 - exponent
    first = halvings[1] if len(ages) > 1 else np.zeros(channels, np.int64)
    known = windows > 1
    if not known.any():
        return None
    first = np.where(known, first, first[known][0])
    for decay in ("geometric", "constant"):
        expected = np.stack([first * (age if decay == "geometric" else min(age, 1)) for age in range(len(ages))])
        if (halvings == expected)[there].all() and first.min() >= 0 and first.max() <= LARGEST_EXPONENT:
            return _grouped(windows), _grouped(first), "geometric" if decay == "geometric" else "constant"
    return None


def _grouped(values: Any) -> int | tuple[int, ...]:
    """Return one number, or one for each of the fewest equal groups that have the same."""
    for groups in range(1, len(values) + 1):
        if len(values) % groups == 0:
            blocks = values.reshape(groups, -1)
            if (blocks == blocks[:, :1]).all():
                break
    found = tuple(int(block[0]) for block in blocks)
    return found[0] if len(found) == 1 else found


def attended(at: Translation, node: Node, attend: Any, name: str, v: OverTime) -> OverTime | None:
    """Add an attention for each of the steps that values are a sum of; None where they are no such sum.

    Parameters
    ----------
    attend : callable
        ``(name, value)``, adds the attention to a value.
    """
    if v.steps != v.heard or len(v.terms) != 1:
        return None
    terms: Terms = {}
    dims: Dims = ()
    for (layer, age), factor in by_age(v.terms).items():
        value = attend(f"{name}.ago{age}" if age else name, Value(layer, v.dims, age))
        terms[value.layer] = identity(v.steps) * factor
        dims = value.dims
    return OverTime(terms, dims, node.number) if terms else None


def turned(at: Translation, node: Node, held: Value | OverTime, axis: int, shift: int | None) -> Held:
    """Return time steps in a circle, of which the first, that come last, are to be set to zero; or turned round."""
    order = np.arange(promoted(at, held).steps)
    return steps_of(at, node, held, axis, order[::-1] if shift is None else np.roll(order, int(shift)))
