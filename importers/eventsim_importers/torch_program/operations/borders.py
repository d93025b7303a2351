"""Borders around maps: zeros, other numbers, or what lies inside; and more pixels made of each."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from eventsim.layers import Conv2d
from eventsim_importers.torch_program.arranging import picked
from eventsim_importers.torch_program.axes import AxesError, find, grid_axes, reshaped, same, size_of, whole
from eventsim_importers.torch_program.folding import Kernel, behind, kernel_of
from eventsim_importers.torch_program.one_step import Earlier
from eventsim_importers.torch_program.operations import windows
from eventsim_importers.torch_program.recorder import Node, Ref, leaves
from eventsim_importers.torch_program.values import Bordered, Held, OverTime, Padded, Value

if TYPE_CHECKING:
    from eventsim_importers.torch_program.translation import Translation

MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
"""What NumPy calls PyTorch's ways of padding."""


def pad(at: Translation, node: Node) -> Held:
    """Pad time, for a convolution over time or as a shift, or positions and channels."""
    padded = at.held.get(node.refs[0])
    held = windows.promoted(at, padded) if isinstance(padded, Padded) else at.given(node)
    given = [int(each) for each in leaves(at.plain(node, 1, "pad", ()))]
    mode, number = at.plain(node, 2, "mode", "constant"), at.plain(node, 3, "value", 0) or 0
    rank = len(held.dims)
    pairs = {rank - 1 - place // 2: (given[place], given[place + 1]) for place in range(0, len(given), 2)}
    pairs = {axis: pair for axis, pair in pairs.items() if any(pair)}
    if not pairs:
        return held
    if any(find((held.dims[axis],), "time") for axis in pairs):
        return _padded_time(at, node, held, pairs, mode, number)
    value = at.settled(held)
    if mode == "constant" and _is_map(at, value) and min(pairs) >= rank - 2 and min(map(min, pairs.values())) >= 0:
        (top, bottom), (left, right) = (pairs.get(axis, (0, 0)) for axis in (rank - 2, rank - 1))
        kind = at.kind(value)
        height, width = kind.grid
        border = np.full((kind.channels, height + top + bottom, width + left + right), number, np.float32)
        bordered = Bordered(value, (top, left), (bottom, right), border)
        border[bordered.within] = 0
        return bordered
    if mode == "constant" and number:
        raise AxesError(f"padding with {number} of another axis than those of a map found; expected zeros")
    index = {}
    for axis, (before, after) in pairs.items():
        size = size_of(value.dims[axis])
        along = np.arange(max(-before, 0), size - max(-after, 0))
        room = (max(before, 0), max(after, 0))
        if mode == "constant":
            index[axis] = np.pad(along, room, constant_values=-1)
        else:
            index[axis] = np.pad(along, room, mode=MODES[mode])  # type: ignore[call-overload]
    return picked(at, node, value, index)


def _padded_time(
    at: Translation,
    node: Node,
    value: Value | OverTime,
    pairs: dict[int, tuple[int, int]],
    mode: str,
    number: float,
) -> Held:
    (axis, *others) = pairs
    if mode != "constant" or number:
        raise AxesError(f"padding of time with other values than zeros ({mode}, {number}) found; expected zeros")
    if others or not windows.is_time(at, value, axis):
        raise AxesError("padding of time with other axes found; expected time alone")
    before, after = pairs[axis]
    if isinstance(value, Value) and min(before, after) >= 0:
        return Padded(value, before, after)
    return windows.with_zeros(at, node, value, axis, before, after)


def _is_map(at: Translation, value: Value) -> bool:
    kind = at.kind(value)
    front = all(atom.of == "time" for dim in value.dims[:-3] for atom in dim)
    return (
        len(kind.grid) == 2
        and front
        and same(value.dims[-3:], (whole("channel", kind.channels), *grid_axes(kind.grid)))
    )


def assigned(at: Translation, node: Node) -> Held:
    """Put numbers of the module's own into the border of a map, or time steps into the place of others."""
    target, index, number = node.arguments
    held = None if not isinstance(target, Ref) or isinstance(target, Earlier) else at.held[target]
    if not isinstance(held, Bordered) or isinstance(number, Ref):
        return windows.written(at, node)
    rank = len(held.value.dims)
    given = list(index) if isinstance(index, tuple) else [index]
    if any(each is None or not isinstance(each, (slice, int, type(Ellipsis))) for each in given):
        raise AxesError("an assignment by tensors, lists or new axes found; expected numbers and slices")
    if Ellipsis in given:
        dots = given.index(Ellipsis)
        given[dots : dots + 1] = [slice(None)] * (rank - len(given) + 1)
    given.extend([slice(None)] * (rank - len(given)))
    if any(each != slice(None) for each in given[: rank - 3]):
        raise AxesError("an assignment to some time steps found; expected one to all")
    place = tuple(given[rank - 3 :])
    border, touched = held.border.copy(), np.zeros(held.border.shape, np.bool_)
    array = number.detach().float().cpu().numpy() if isinstance(number, torch.Tensor) else np.float32(number)
    wanted = border[place].ndim
    if any(size > 1 for size in np.shape(array)[: max(np.ndim(array) - wanted, 0)]):
        raise AxesError(f"an assignment of shape {np.shape(array)} found; expected the same in every time step")
    border[place] = np.reshape(array, np.shape(array)[max(np.ndim(array) - wanted, 0) :])
    touched[place] = True
    if touched[held.within].any():
        raise AxesError("an assignment to the inside of a map found; expected its border")
    return replace(held, border=border)


def convolved(at: Translation, node: Node, held: Bordered, layer: Conv2d) -> tuple[Value, Conv2d] | Kernel | None:
    """Return how a convolution takes a border with it: as padding of its own, or of the convolution before it.

    Returns
    -------
    (Value, Conv2d), Kernel or None
        The map without the border and the convolution that pads it; or what both convolutions are together; or None
        where the border has to be made.
    """
    if held.before != held.after:
        return None
    if not held.border.any():
        padding = (layer.padding[0] + held.before[0], layer.padding[1] + held.before[1])
        return held.value, replace(layer, padding=padding)
    outside = np.ones(held.border.shape, np.bool_)
    outside[held.within] = False
    values = held.border[:, outside[0]]
    if not at.fold_bn or (values != values[:, :1]).any() or not at.alone(node.number, held.value):
        return None
    first, second = at.kernel(held.value), kernel_of(layer)
    padded = first.bordered(values[:, 0].astype(np.float64), held.before) if first else None
    return behind(padded, second) if padded and second else None


def interpolate(at: Translation, node: Node) -> Held:
    """Repeat pixels: the nearest one, by whole factors."""
    value = at.value(node)
    mode = at.plain(node, 3, "mode", "nearest")
    if mode not in ("nearest", "nearest-exact"):
        raise AxesError(f"interpolation {mode!r} found; expected the nearest pixel")
    before, after = [size_of(dim) for dim in value.dims[2:]], node.shapes[0][2:]
    if any(new % old for old, new in zip(before, after, strict=True)):
        raise AxesError(f"a map of {tuple(before)} as {tuple(after)} found; expected a whole multiple")
    index = {
        axis: np.repeat(np.arange(old), new // old)
        for axis, (old, new) in enumerate(zip(before, after, strict=True), 2)
    }
    return picked(at, node, value, index)


def shuffle(at: Translation, node: Node) -> Held:
    """Channels as pixels, or pixels as channels."""
    value = at.value(node)
    factor = int(at.plain(node, 1, "upscale_factor", node.keywords.get("downscale_factor", 1)))
    *front, channels, height, width = (size_of(dim) for dim in value.dims)
    lead = len(front)
    if node.operation == "pixel_shuffle":
        cut = (*front, channels // factor**2, factor, factor, height, width)
        order = (*range(lead), lead, lead + 3, lead + 1, lead + 4, lead + 2)
    else:
        cut = (*front, channels, height // factor, factor, width // factor, factor)
        order = (*range(lead), lead, lead + 2, lead + 4, lead + 1, lead + 3)
    dims = reshaped(value.dims, cut)
    return value.along(reshaped(tuple(dims[axis] for axis in order), node.shapes[0]))


def moved(at: Translation, node: Node) -> Held:
    """Roll values around, or turn them over."""
    value = at.given(node)
    rank = len(value.dims)
    if node.operation == "roll":
        shifts, axes = (list(leaves(at.plain(node, *each))) for each in ((1, "shifts", 0), (2, "dims", ())))
    else:
        given: Any = at.plain(node, 1, "dims", ())
        axes = list(leaves(node.arguments[1:] if len(node.arguments) > 2 else given))
        shifts = [None] * len(axes)
    if not axes or len(set(axes)) != len(axes):
        raise AxesError("values rolled without axes found; expected dims that differ")
    if len(axes) == 1 and windows.is_time(at, value, axes[0] % rank):
        return windows.turned(at, node, value, axes[0] % rank, shifts[0])
    index: dict[int, npt.NDArray[np.int64]] = {}
    for axis, shift in zip(axes, shifts, strict=True):
        along = np.arange(size_of(value.dims[axis % rank]))
        index[axis % rank] = along[::-1].copy() if shift is None else np.roll(along, int(shift))
    return picked(at, node, at.settled(value), index)


OPERATIONS = {
    "pad": pad,
    "__setitem__": assigned,
    "interpolate": interpolate,
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle"), shuffle),
    **dict.fromkeys(("roll", "flip"), moved),
}
