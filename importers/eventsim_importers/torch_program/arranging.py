"""Values of a step in another arrangement of positions and channels, where an operation needs one.

A tensor of a step holds the values of a signal along axes whose atoms say where each of them lies. What takes some of
its axes for channels and the others for positions, whatever they were, gets a `Rearrange` before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from eventsim.layers import PositionEncoding, Rearrange
from eventsim.signals import SignalType
from eventsim_importers.torch_program.axes import (
    Atom,
    AxesError,
    Dim,
    broadcast,
    find,
    grid_axes,
    index_along,
    joined,
    same,
    whole,
)
from eventsim_importers.torch_program.values import Bordered, Value

if TYPE_CHECKING:
    from eventsim_importers.torch_program.recorder import Node
    from eventsim_importers.torch_program.translation import Translation

Places = npt.NDArray[np.int64]


def places(kind: SignalType, dim: Dim) -> Places:
    """Return what each element of an axis adds to the place of a value, in PyTorch's order of the per-step shape."""
    channel, position = index_along(dim, "channel"), index_along(dim, "position")
    return channel * kind.positions + position if len(kind.grid) == 2 else position * kind.channels + channel


def rearranged(
    at: Translation,
    node: Node,
    value: Value,
    channels: Sequence[int],
    positions: Sequence[int] | None = None,
    picked: Mapping[int, Places] | None = None,
) -> Value:
    """Add what makes some axes of a value its channels and others its positions.

    Parameters
    ----------
    at, node, value
    channels : sequence of int
        Axes, in the order in which their values become channels.
    positions : sequence of int, optional
        Likewise; of two axes a map is made, else tokens. Default: all other axes, as tokens.
    picked : mapping of int to int array, optional
        By axis, the elements that are taken along it, -1 for zeros. Default: all.

    Returns
    -------
    Value
        Along the same axes.

    Raises
    ------
    AxesError
        If time lies on a picked axis, or values lie on none of the axes.
    """
    kind, rank = at.kind(value), len(value.dims)
    picked = {axis % rank: index for axis, index in (picked or {}).items()}
    channels = [axis % rank for axis in channels]
    on_map = positions is not None and len(positions) == 2
    grid = (
        [axis for axis in range(rank) if axis not in channels] if positions is None else [a % rank for a in positions]
    )
    left = [axis for axis in range(rank) if axis not in (*channels, *grid)]
    if any(atom.of != "time" for axis in left for atom in value.dims[axis]):
        raise AxesError("positions or channels in the place of time and batch found; expected those alone")
    parts: dict[int, list[tuple[Atom | None, Places]]] = {}  # by axis: time, or places
    for axis, dim in enumerate(value.dims):
        if axis in picked:
            if find((dim,), "time"):
                raise AxesError("a part of time with positions or channels found; expected either")
            along = places(kind, dim)
            index = picked[axis]
            parts[axis] = [(None, np.where(index < 0, -kind.size, along[np.maximum(index, 0)]))]
        else:
            parts[axis] = [(atom if atom.of == "time" else None, places(kind, (atom,))) for atom in dim]
    index, made = _laid_out(parts, channels, grid, on_map)
    if on_map:
        sizes = [prod(len(part) for time, part in parts[axis] if time is None) for axis in grid]
        shape = (len(index) // prod(sizes), *sizes)
    else:
        count = prod(len(part) for axis in channels for time, part in parts[axis] if time is None)
        shape = (len(index) // count, count) if len(index) > count else (count,)
    index = np.where(index < 0, -1, index)
    dims = tuple(tuple(made[axis]) for axis in range(rank))
    return Value(_added(at, node, value, index, shape), dims)


def _laid_out(
    parts: Mapping[int, list[tuple[Atom | None, Places]]], channels: Sequence[int], grid: Sequence[int], on_map: bool
) -> tuple[Places, dict[int, list[Atom]]]:
    """Return the place of every value in the new order, and the new atoms of each axis."""
    made: dict[int, list[Atom]] = {axis: [] for axis in parts}
    index: dict[str, Places] = {}
    for of, axes in (("channel", channels), ("position", grid)):
        along = np.zeros(1, np.int64)
        stride = prod(len(part) for axis in axes for time, part in parts[axis] if time is None)
        for axis in axes:
            for time, part in parts[axis]:
                if time is not None:
                    made[axis].append(time)
                    continue
                along = (along[:, None] + part).reshape(-1)
                stride //= len(part)
                if len(part) > 1:
                    made[axis].append(Atom("channel" if of == "channel" else "position", stride, len(part)))
        index[of] = along
    for axis, given in parts.items():
        if axis not in (*channels, *grid):
            made[axis] = [time for time, _ in given if time is not None]
    first, second = ("channel", "position") if on_map else ("position", "channel")
    return (index[first][:, None] + index[second]).reshape(-1), made


def _added(at: Translation, node: Node, value: Value, index: Places, shape: tuple[int, ...]) -> str:
    """Add the layer, or return the one that was added for the same."""
    key = (value, shape, index.tobytes())
    if key not in at.arranged or at.arranged[key] not in at.build.layers:
        layer = Rearrange(index.astype(np.int32), shape)
        at.arranged[key] = at.add(at.named(node, "arranged"), layer, value)
    return at.arranged[key]


def laid_like(at: Translation, node: Node, value: Value, like: Value) -> Value:
    """Return a value with each of its values where another has the one beside it, repeated along axes of size 1.

    Raises
    ------
    AxesError
        If time lies on other axes, or an axis is of another size.
    """
    rank = max(len(value.dims), len(like.dims))
    given, wanted = broadcast(value.dims, rank), broadcast(like.dims, rank)
    kind, other = at.kind(value), at.kind(like)
    if same(given, wanted) and kind.shape == other.shape:
        return value.along(given)
    taken, found = np.zeros(1, np.int64), np.zeros(1, np.int64)
    for mine, theirs in zip(given, wanted, strict=True):
        times = [joined(tuple(atom for atom in dim if atom.of == "time")) for dim in (mine, theirs)]
        mixed = any(find((dim,), "time") and len({atom.of for atom in dim}) > 1 for dim in (mine, theirs))
        if times[0] != times[1] or mixed:
            raise AxesError(f"{kind} and {other} along different axes of time found; expected the same")
        if times[0]:
            continue
        here, there = places(kind, mine), places(other, theirs)
        if len(here) not in (1, len(there)):
            raise AxesError(f"an axis of {len(here)} beside one of {len(there)} found; expected the same, or 1")
        taken = (taken[:, None] + np.broadcast_to(here, len(there))).reshape(-1)
        found = (found[:, None] + there).reshape(-1)
    assert len(found) == other.size, "a value holds all of its signal"
    index = np.empty(other.size, np.int64)
    index[found] = taken
    return Value(_added(at, node, value, index, other.shape), wanted)


def picked(at: Translation, node: Node, value: Value, chosen: Mapping[int, Places]) -> Value:
    """Add what takes elements of axes, -1 for zeros; what were channels stay channels, and a map a map where it can."""
    rank = len(value.dims)
    chosen = {axis % rank: index for axis, index in chosen.items()}
    of_channels = [axis for axis, dim in enumerate(value.dims) if any(atom.of == "channel" for atom in dim)]
    kind = at.kind(value)
    grid = grid_axes(kind.grid)
    if len(grid) == 2:  # where the axes of a map are seen as such, it stays one
        for axis in range(rank - 1):
            if same(value.dims[axis : axis + 2], grid) and not {axis, axis + 1} & set(of_channels):
                rest = [other for other in range(rank) if other not in (axis, axis + 1)]
                if all(atom.of == "channel" for other in rest for atom in value.dims[other] if atom.of != "time"):
                    return rearranged(at, node, value, rest, (axis, axis + 1), chosen)
    if not of_channels:
        of_channels = [axis for axis in chosen if not value.dims[axis]][:1]
    return rearranged(at, node, value, of_channels, None, chosen)


def bordered(at: Translation, node: Node, held: Bordered) -> Value:
    """Add a border of zeros, and what it holds."""
    _, height, width = held.border.shape
    _, rows, columns = held.within
    index = []
    for size, inner in ((height, rows), (width, columns)):
        along = np.full(size, -1, np.int64)
        along[inner] = np.arange(inner.stop - inner.start)
        index.append(along)
    value = rearranged(at, node, held.value, (-3,), (-2, -1), {-2: index[0], -1: index[1]})
    if not held.border.any():
        return value
    encoding = np.ascontiguousarray(held.border.reshape(1, len(held.border), -1))
    return Value(at.add(at.named(node, "border"), PositionEncoding(encoding), value), value.dims)


def vectors(at: Translation, node: Node, value: Value, axis: int) -> Value:
    """Return a value whose channels are one axis, in order."""
    kind = at.kind(value)
    if joined(value.dims[axis]) == joined(whole("channel", kind.channels)):
        return value
    return rearranged(at, node, value, (axis,))
