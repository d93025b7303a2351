"""What a tensor of the module stands for in the network."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from eventsim.signals import FloatArray
from eventsim_importers.torch_program.axes import Dims
from eventsim_importers.torch_program.recorder import Node

Factors = npt.NDArray[np.float64]


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
class Emitted:
    """What a layer of neurons emits, and where the module has it.

    Attributes
    ----------
    path : str
        Of the neurons.
    value : Value
    state : int or None
        Which tensor of their state it is; None for the spikes.
    """

    path: str
    value: Value
    state: int | None = None


@dataclass(frozen=True)
class Padded:
    """A value with silent time steps before and behind it."""

    value: Value
    before: int
    after: int


@dataclass(frozen=True, eq=False)
class OverTime:
    """Time steps of which each is a sum of time steps of layers, times constants, as long as nothing else is done.

    Attributes
    ----------
    terms : dict of str to float64 array (steps, time steps, 1 or channels)
        By layer: how much of each of its time steps is in each of these steps.
    dims : tuple
        With an axis of time of so many steps, unless it is one.
    made : int
        The operation that made it.
    """

    terms: dict[str, Factors]
    dims: Dims
    made: int

    @property
    def steps(self) -> int:
        """How many time steps there are."""
        return len(next(iter(self.terms.values())))

    @property
    def heard(self) -> int:
        """How many time steps there are of each of the layers."""
        return int(next(iter(self.terms.values())).shape[1])

    def along(self, dims: Dims) -> OverTime:
        """Return the same with other axes."""
        return replace(self, dims=dims)


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
    """The product of queries and keys, before the values; axes end in queries, keys.

    `scaled_by` are the operations that `scale` comes from.
    """

    q: Value
    k: Value
    dims: Dims
    heads: int
    scale: float = 1.0
    softmax: bool = False
    scaled_by: tuple[Node, ...] = ()

    def along(self, dims: Dims) -> Scores:
        """Return the same with other axes."""
        return replace(self, dims=dims)


@dataclass(frozen=True, eq=False)
class Tabled:
    """A function of the scores of spikes, which are whole numbers: what it makes of each.

    Attributes
    ----------
    scores : Scores
    entries : tensor (heads, d + 1)
        Of the type that PyTorch computes with; of some heads, if it is of those.
    heads : tuple of int
        Which they are.
    dims : tuple
        End in queries, keys.
    scale : float
        A factor behind entries that are integers.
    """

    scores: Scores
    entries: torch.Tensor
    heads: tuple[int, ...]
    dims: Dims
    scale: float = 1.0

    def along(self, dims: Dims) -> Tabled:
        """Return the same with other axes."""
        return replace(self, dims=dims)


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


Held = Value | OverTime | Padded | Bordered | Scores | Tabled | Contexts | PoolWeights
