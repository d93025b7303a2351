"""Operations that only rearrange: axes, and parts of channels or of time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch

from eventsim.layers import (
    SelectChannels,
)
from eventsim_importers.torch_program.arranging import picked
from eventsim_importers.torch_program.axes import (
    Atom,
    AxesError,
    broadcast,
    find,
    joined,
    reshaped,
    size_of,
    whole,
)
from eventsim_importers.torch_program.one_step import Earlier
from eventsim_importers.torch_program.operations import tables, windows
from eventsim_importers.torch_program.recorder import RETYPED, Node, Ref, leaves
from eventsim_importers.torch_program.values import Contexts, Held, OverTime, Padded, PoolWeights, Scores, Tabled, Value

if TYPE_CHECKING:
    from eventsim_importers.torch_program.translation import Translation


def reshape(at: Translation, node: Node) -> Held:
    """View, reshape, flatten, unflatten, squeeze, unsqueeze: the recorded shape says what became of the axes."""
    ref = node.refs[0]
    held = at.value_of(ref, node) if isinstance(ref, Earlier) else at.held[ref]
    if isinstance(held, Scores | Tabled):
        return tables.reshaped_scores(held, node.shapes[0])
    if isinstance(held, Contexts | PoolWeights):
        raise AxesError("attention scores in another shape found; expected them as they are")
    if not isinstance(held, Value | OverTime):
        held = at.loose(ref, node)
    return held.along(reshaped(held.dims, node.shapes[0]))


def permute(at: Translation, node: Node) -> Held:
    """Permute, transpose and their kin."""
    held = at.given(node)
    order = _order(at, node, len(held.dims))
    return held.along(tuple(held.dims[axis] for axis in order))


def _order(at: Translation, node: Node, rank: int) -> list[int]:
    given = node.arguments[1:]
    axes = list(range(rank))
    if node.operation in ("T", "mT", "H", "mH", "t", "adjoint"):
        given = (-2, -1) if rank > 1 else (0, 0)
    if node.operation == "permute":
        return [int(axis) % rank for axis in leaves(given or node.keywords["dims"])]
    if node.operation in ("movedim", "moveaxis"):
        sources, targets = (list(leaves(each)) for each in given)
        return cast(
            list[int], np.moveaxis(np.empty((0,) * rank), sources, targets).ndim and _moved(rank, sources, targets)
        )
    first, second = (int(axis) % rank for axis in (given or (node.keywords["dim0"], node.keywords["dim1"])))
    axes[first], axes[second] = axes[second], axes[first]
    return axes


def repeat(at: Translation, node: Node) -> Held:
    """Repeat or expand: an axis of size 1 in front becomes time; others hold their values several times."""
    value = at.value(node)
    shape = node.shapes[0]
    dims = list(broadcast(value.dims, len(shape)))
    times: dict[int, npt.NDArray[np.int64]] = {}
    for axis, (dim, size) in enumerate(zip(dims, shape, strict=True)):
        found = size_of(dim)
        if found == size:
            continue
        new = axis == 0 or len(dims) - axis > len(at.kind(value).shape)  # in front of the axes of a step
        if new and found == 1 and size == at.time_steps and not find(value.dims, "time") and at.static:
            dims[axis] = whole("time", size)
        elif axis == 0 or find((dim,), "time"):
            raise AxesError(f"axis {axis} of {found} repeated to {size} found; expected time, of {at.time_steps} steps")
        else:
            times[axis] = np.tile(np.arange(found), size // found)
    value = value.along(tuple(dims))
    return picked(at, node, value, times) if times else value


def shown_in_every_step(at: Translation, node: Node) -> Held:
    """Stack the same image once for each time step; or time steps, and zeros in the place of some."""
    listed = node.arguments[0]
    axis = int(at.plain(node, 1, "dim", 0))
    parts = [at.loose(each, node) if isinstance(each, Ref) else each for each in listed]
    over_time = windows.side_by_side(at, node, parts, axis % len(node.shapes[0]), new=True)
    if over_time is not None:
        return over_time
    value = at.value_of(node.refs[0], node)
    if len(set(node.refs)) > 1 or len(listed) != len(node.refs) or len(listed) != at.time_steps or not at.static:
        raise AxesError("different signals along a new axis found; expected one image, once for each time step")
    axis %= len(value.dims) + 1
    return value.along((*value.dims[:axis], whole("time", at.time_steps), *value.dims[axis:]))


def unchanged(at: Translation, node: Node) -> Held:
    """Add nothing: dropout in evaluation, and other names of the same values."""
    if "dropout" in node.operation and at.plain(node, 2, "training", False):
        raise at.error(node, "dropout in training mode found; expected module.eval()")
    return at.held[node.refs[0]]


def pick(at: Translation, node: Node) -> Held | Sequence[Held | None]:
    """Index, select, narrow, chunk, split, unbind: parts of the channels, or of time, as far as they are read."""
    padded = at.held.get(node.refs[0])
    value = windows.promoted(at, padded) if isinstance(padded, Padded) else at.given(node)
    if node.operation == "__getitem__":
        return _indexed(at, node, value)
    axis = int(at.plain(node, 2 if node.operation in ("chunk", "split") else 1, "dim", 0)) % len(value.dims)
    if node.operation == "select":
        index = int(at.plain(node, 2, "index", 0))
        return _one(at, node, value, axis, index)
    read = [(node.number, index) in at.read for index in range(len(node.shapes))]
    if node.operation == "unbind":
        return [_one(at, node, value, axis, index) if each else None for index, each in enumerate(read)]
    if node.operation == "narrow":
        start = int(at.plain(node, 2, "start", 0))
        return _part(at, node, value, axis, start, start + int(at.plain(node, 3, "length", 0)))
    parts: list[Held | None] = []
    start = 0
    for shape, each in zip(node.shapes, read, strict=True):
        parts.append(_part(at, node, value, axis, start, start + shape[axis]) if each else None)
        start += shape[axis]
    return parts


def _indexed(at: Translation, node: Node, value: Value | OverTime) -> Held:
    index = node.arguments[1]
    given = list(index) if isinstance(index, tuple) else [index]
    if any(isinstance(each, Ref) for each in given):
        raise AxesError("an index that depends on the example found; expected numbers, slices and lists")
    if sum(isinstance(each, (torch.Tensor, tuple)) for each in given) > 1:
        raise AxesError("several indices that are tensors or lists found; expected one")
    if Ellipsis in given:
        dots = given.index(Ellipsis)
        named = sum(each is not None and each is not Ellipsis for each in given)
        given[dots : dots + 1] = [slice(None)] * (len(value.dims) - named)
    axis = 0
    for each in given:
        if each is None:
            value = value.along((*value.dims[:axis], (), *value.dims[axis:]))
            axis += 1
        elif isinstance(each, slice):
            start, stop, step = each.indices(size_of(value.dims[axis]))
            if step == 1:
                value = _part(at, node, value, axis, start, stop)
            else:
                value = _taken(at, node, value, axis, np.arange(start, stop, step))
            axis += 1
        elif isinstance(each, (torch.Tensor, tuple)):
            value = _taken(at, node, value, axis, _listed(each, size_of(value.dims[axis])))
            axis += 1
        else:
            value = _one(at, node, value, axis, int(each))
    return value


def _listed(index: Any, size: int) -> npt.NDArray[np.int64]:
    """Return an index that is a list, or a choice of an axis, as numbers from 0."""
    array = np.asarray(index.detach().cpu() if isinstance(index, torch.Tensor) else index)
    if array.dtype == np.bool_ and array.shape == (size,):
        return np.flatnonzero(array)
    if array.ndim != 1 or array.dtype.kind not in "iu" or not len(array):
        raise AxesError(f"an index {array.dtype} of shape {array.shape} found; expected a list of numbers")
    return array.astype(np.int64) % size


def index_select(at: Translation, node: Node) -> Held:
    """Take elements of an axis by a list."""
    value = at.given(node)
    index, axis = at.plain(node, 2, "index", None), int(at.plain(node, 1, "dim", 0)) % len(value.dims)
    if isinstance(index, Ref):
        raise AxesError("an index that depends on the example found; expected numbers")
    return _taken(at, node, value, axis, _listed(index, size_of(value.dims[axis])))


def _taken(
    at: Translation, node: Node, value: Value | OverTime, axis: int, chosen: npt.NDArray[np.int64]
) -> Value | OverTime:
    """Return some elements of an axis."""
    if windows.is_time(at, value, axis):
        return windows.steps_of(at, node, value, axis, chosen)
    return picked(at, node, at.settled(value), {axis: chosen})


def _one(at: Translation, node: Node, value: Value | OverTime, axis: int, index: int) -> Value | OverTime:
    size = size_of(value.dims[axis])
    part = _part(at, node, value, axis, index % size, index % size + 1)
    return part.along((*part.dims[:axis], *part.dims[axis + 1 :]))


def _part(at: Translation, node: Node, value: Value | OverTime, axis: int, start: int, stop: int) -> Value | OverTime:
    """Return a part of an axis."""
    dim = joined(value.dims[axis])
    size = size_of(dim)
    if (start, stop) == (0, size):
        return value
    if windows.is_time(at, value, axis):
        return windows.steps_of(at, node, value, axis, slice(start, max(start, stop)))
    value = at.settled(value)
    if len(dim) != 1 or dim[0].of == "position":
        return picked(at, node, value, {axis: np.arange(start, stop)})
    if dim[0].of == "time":
        raise AxesError(
            f"a part {start}:{stop} of {size} time steps found; expected a part of all {at.steps_of(value)}"
        )
    (atom,) = dim
    kind = at.kind(value)
    first = 0
    for each in at.beside.get(value.layer, ()) if dim == whole("channel", kind.channels) and not value.delay else ():
        last = first + at.kind(each).channels
        if (first, last) == (start, stop):  # what was put there as a whole
            return each.along((*value.dims[:axis], whole("channel", stop - start), *value.dims[axis + 1 :]))
        first = last
    coordinate = np.arange(kind.channels) // atom.stride % atom.size
    chosen = np.flatnonzero((coordinate >= start) & (coordinate < stop))
    layer = at.add(at.named(node, "part"), SelectChannels(chosen.astype(np.int32)), value)
    outer = atom.stride * atom.size

    def kept(each: Atom) -> Atom:
        if each.of != "channel" or each.stride < outer:
            return each
        return Atom(each.of, each.stride // atom.size * (stop - start), each.size)

    dims = tuple(tuple(kept(each) for each in other) for other in value.dims)
    left = (Atom("channel", atom.stride, stop - start),) if stop - start > 1 else ()
    return Value(layer, (*dims[:axis], left, *dims[axis + 1 :]))


def _moved(rank: int, sources: list[Any], targets: list[Any]) -> list[int]:
    order = [axis for axis in range(rank) if axis not in [s % rank for s in sources]]
    for target, source in sorted(zip([t % rank for t in targets], [s % rank for s in sources], strict=True)):
        order.insert(target, source)
    return order


RESHAPES = (
    "view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "ravel", "squeeze", "squeeze_", "unsqueeze",
    "unsqueeze_", "atleast_1d",
)  # fmt: skip
PERMUTES = ("permute", "transpose", "transpose_", "swapaxes", "swapdims", "T", "mT", "t", "movedim", "moveaxis")
OPERATIONS = {
    **dict.fromkeys(RESHAPES, reshape),
    **dict.fromkeys(PERMUTES, permute),
    **dict.fromkeys(("repeat", "expand", "expand_as", "broadcast_to", "tile"), repeat),
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d", "dropout3d", "feature_dropout", "alpha_dropout"), unchanged),
    **dict.fromkeys(("data", "real", RETYPED), unchanged),
    "index_select": index_select,
    "stack": shown_in_every_step,
    **dict.fromkeys(("__getitem__", "select", "unbind", "narrow", "chunk", "split", "tensor_split"), pick),
}
