"""What a container file holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from eventsim.settings import Setting

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Contents:
    """Tensors by name, and the strings kept beside them.

    Attributes
    ----------
    tensors : mapping of str to array
        Floating-point tensors as float32, others as they are.
    metadata : mapping of str to str
    settings : sequence of Setting
        What was chosen while unwrapping the file.
    """

    tensors: Mapping[str, Array]
    metadata: Mapping[str, str] = field(default_factory=dict)
    settings: Sequence[Setting] = ()


def as_float32(array: Array) -> Array:
    """Return floating-point arrays as float32 in memory order, others unchanged."""
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused by name when it is taken
        return np.asarray(array, np.float32, order="C") if array.dtype.kind == "f" else array
