"""What the axes of a tensor are: time, positions and channels of a signal, in any order, cut and joined.

Every axis is a list of atoms, row-major; an atom is a part of time, positions or channels with the step that it takes
there. Axes of size 1, such as the batch, hold none. Nothing is told by sizes alone: an operation that changes axes says
what becomes of each atom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

Of = Literal["time", "position", "channel"]


class AxesError(ValueError):
    """An operation that mixes what cannot be mixed; says what was found and expected."""


@dataclass(frozen=True)
class Atom:
    """`size` steps of `stride` through time, positions or channels."""

    of: Of
    stride: int
    size: int


Dim = tuple[Atom, ...]
Dims = tuple[Dim, ...]


def whole(of: Of, size: int) -> Dim:
    """Return the axis that holds all of one kind."""
    return (Atom(of, 1, size),) if size > 1 else ()


def grid_axes(grid: Sequence[int]) -> Dims:
    """Return an axis for each axis of a grid, row-major."""
    strides = [math.prod(grid[axis + 1 :]) for axis in range(len(grid))]
    return tuple(
        (Atom("position", stride, size),) if size > 1 else () for stride, size in zip(strides, grid, strict=True)
    )


def joined(*dims: Dim) -> Dim:
    """Return one axis of several, atoms merged where one continues the other."""
    found: list[Atom] = []
    for atom in (atom for dim in dims for atom in dim):
        last = found[-1] if found else None
        if last is not None and last.of == atom.of and last.stride == atom.stride * atom.size:
            found[-1] = Atom(atom.of, atom.stride, last.size * atom.size)
        else:
            found.append(atom)
    return tuple(found)


def size_of(dim: Dim) -> int:
    """Return the size of an axis."""
    return math.prod(atom.size for atom in dim)


def reshaped(dims: Dims, shape: Sequence[int]) -> Dims:
    """Return the axes of the same values in another shape, row-major.

    Raises
    ------
    AxesError
        If an axis would have to be cut where it is no multiple.
    """
    left = list(joined(*dims))
    found = []
    for size in shape:
        taken: list[Atom] = []
        need = size
        while need > 1:
            if not left:
                raise AxesError(f"shape {tuple(shape)} found; expected as many values as there are")
            atom = left.pop(0)
            if need % atom.size == 0:
                taken.append(atom)
                need //= atom.size
            elif atom.size % need == 0:
                inner = atom.size // need
                taken.append(Atom(atom.of, atom.stride * inner, need))
                left.insert(0, replace(atom, size=inner))
                need = 1
            else:
                raise AxesError(f"an axis of {atom.size} cut into parts of {need} found; expected a divisor")
        found.append(tuple(taken))
    return tuple(found)


def broadcast(dims: Dims, rank: int) -> Dims:
    """Return axes with as many empty ones before them as a higher rank needs."""
    return ((),) * (rank - len(dims)) + dims


def same(one: Dims, other: Dims) -> bool:
    """Tell whether axes are the same, however their atoms are cut."""
    return [joined(dim) for dim in one] == [joined(dim) for dim in other]


def find(dims: Dims, of: Of) -> list[int]:
    """Return the axes that hold atoms of a kind."""
    return [axis for axis, dim in enumerate(dims) if any(atom.of == of for atom in dim)]


def index_along(dim: Dim, of: Of) -> npt.NDArray[np.int64]:
    """Return where in time, positions or channels each element of an axis lies."""
    index = np.zeros(1, np.int64)
    for atom in dim:
        step = np.arange(atom.size) * (atom.stride if atom.of == of else 0)
        index = (index[:, None] + step).reshape(-1)
    return index
