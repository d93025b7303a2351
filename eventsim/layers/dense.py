"""Dense execution: what the `dense` of every layer shares.

The dense form of a layer is plain NumPy on every value, in PyTorch's order: ``(T, C, H, W)`` for maps, ``(T, N, C)``
for tokens, ``(T, C)`` for vectors. Sums are taken in float64 and rounded once to float32; what works element by
element is float32 in the order that the layer's description gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from eventsim.signals import FloatArray

Reals = npt.NDArray[np.float64]
Array = npt.NDArray[Any]

MOST_SCORES = 2**22
"""Scores of an attention held at once: 32 MiB."""


@dataclass
class Memory:
    """What a dense execution remembers from one piece of a sample to the next.

    Attributes
    ----------
    kept : dict
        Empty when a sample begins; a layer keeps in it what it needs.
    final : bool
        Whether the sample ends with this piece.
    """

    kept: dict[str, Any] = field(default_factory=dict)
    final: bool = True


def tokens(x: Array) -> Array:
    """Return values in any order of axes as ``(T, positions, channels)``."""
    if x.ndim == 4:
        return np.moveaxis(x.reshape(*x.shape[:2], prod(x.shape[2:])), 1, 2)
    return x if x.ndim == 3 else x[:, None]


def in_shape(values: Array, shape: tuple[int, ...]) -> FloatArray:
    """Undo `tokens`, in float32: ``(T, positions, channels)`` as the time steps of `shape`, but for their channels."""
    steps, _, channels = values.shape
    if len(shape) == 3:
        values = np.moveaxis(values, 2, 1).reshape(steps, channels, *shape[1:])
    return np.ascontiguousarray(values.reshape(steps, *shape[:-1], channels) if len(shape) < 3 else values, np.float32)


def channel_axis(x: Array) -> int:
    """Return the axis of the channels."""
    return 1 if x.ndim == 4 else x.ndim - 1


def spread(value: float | Array, shape: tuple[int, ...]) -> FloatArray:
    """Return a constant, float32, such that it broadcasts to a time step: one number, one per channel or per value."""
    array = np.asarray(value, np.float32)
    if array.shape == shape:
        return array
    if array.size == 1:
        return array.reshape(())
    return array.reshape(-1, 1, 1) if len(shape) == 3 else array


def with_past(x: Array, memory: Memory, steps: int) -> tuple[Array, int]:
    """Return what arrived in the last `steps` steps and now, how many of them are past, and keep what comes next."""
    past = memory.kept.get("past")
    seen = x if past is None else np.concatenate([past, x])
    memory.kept["past"] = seen[max(0, len(seen) - steps) :].copy()
    return seen, len(seen) - len(x)


def by_head(x: Array, heads: int) -> Array:
    """Return values in any order of axes as ``(T, heads, positions, channels of a head)``."""
    rows = tokens(x)
    return rows.reshape(*rows.shape[:2], heads, rows.shape[2] // heads).swapaxes(1, 2)


def heads_together(x: Array) -> Array:
    """Return ``(T, heads, positions, channels of a head)`` as ``(T, positions, channels)``."""
    return x.swapaxes(1, 2).reshape(len(x), x.shape[2], x.shape[1] * x.shape[3])


def blocks(q: Array, k: Array) -> Iterator[tuple[int, slice]]:
    """Yield steps and blocks of queries, so small that their scores with every key stay below `MOST_SCORES`."""
    size = max(1, MOST_SCORES // k.shape[2])
    for step in range(len(q)):
        for first in range(0, q.shape[2], size):
            yield step, slice(first, first + size)
