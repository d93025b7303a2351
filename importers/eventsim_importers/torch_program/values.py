"""What a tensor of the module stands for in the network."""

from __future__ import annotations

from dataclasses import dataclass, replace

from eventsim.signals import FloatArray
from eventsim_importers.torch_program.axes import Dims


@dataclass(frozen=True)
class Value:
    """What a layer emits, with what the axes of the tensor are there.

    Attributes
    ----------
    layer : str
    dims : tuple
    delay : int
        How many time steps before.
    complement : bool
        Whether the tensor is 1 less that.
    """

    layer: str
    dims: Dims
    delay: int = 0
    complement: bool = False

    def along(self, dims: Dims) -> Value:
        """Return the same with other axes."""
        return replace(self, dims=dims)


@dataclass(frozen=True)
class Padded:
    """A value with silent time steps before and behind it."""

    value: Value
    before: int
    after: int


@dataclass(frozen=True)
class Bordered:
    """A map with a border around it.

    Attributes
    ----------
    value : Value
        Without the border; axes end in channels, height, width.
    before, after : (int, int)
        Pixels above and left, below and right.
    border : float32 array (C, H, W)
        With the border's values, zeros within.
    """

    value: Value
    before: tuple[int, int]
    after: tuple[int, int]
    border: FloatArray

    @property
    def within(self) -> tuple[slice, slice, slice]:
        """Where the map lies."""
        _, height, width = self.border.shape
        (top, left), (bottom, right) = self.before, self.after
        return slice(None), slice(top, height - bottom), slice(left, width - right)


@dataclass(frozen=True)
class Scores:
    """The product of queries and keys, before the values; axes end in queries, keys."""

    q: Value
    k: Value
    dims: Dims
    heads: int
    scale: float = 1.0
    softmax: bool = False


@dataclass(frozen=True)
class PoolWeights:
    """A softmax over all positions and time steps of one linear score each; applied to what it scores, or not yet.

    Attributes
    ----------
    source : Value
        What is scored.
    weight : float32 array (channels,)
    dims : tuple
    applied : bool
    """

    source: Value
    weight: FloatArray
    dims: Dims
    applied: bool = False


@dataclass(frozen=True)
class Contexts:
    """The product of keys and values, before the queries."""

    k: Value
    v: Value
    dims: Dims
    heads: int
    scale: float = 1.0


Held = Value | Padded | Bordered | Scores | Contexts | PoolWeights
