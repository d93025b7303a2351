"""Arguments of PyTorch's functions, which may be a number or several."""

from __future__ import annotations

from typing import Any

from eventsim_importers.torch_program.axes import Dims, broadcast
from eventsim_importers.torch_program.values import OverTime, Value


def pair(value: Any) -> tuple[Any, Any]:
    """Return two values of one or two."""
    return (value[0], value[-1]) if isinstance(value, (tuple, list)) else (value, value)


def first(value: Any) -> int:
    """Return one number, which may stand in a tuple."""
    return int(value[0] if isinstance(value, (tuple, list)) else value)


def level(a: Value | OverTime, b: Value | OverTime) -> tuple[Dims, Dims]:
    """Return the axes of two values of which one may have fewer."""
    rank = max(len(a.dims), len(b.dims))
    return broadcast(a.dims, rank), broadcast(b.dims, rank)
