"""What a layer is: a description, and the op that executes it.

A layer type is one file with a frozen dataclass derived from `Layer` - arrays and hyperparameters, saved and loaded
field by field - and an `Op` that does the work and counts it. Export the dataclass in ``eventsim/layers/__init__.py``
and networks, model files, the simulator and the profile know it. ``max_pool2d.py`` is a good one to start from. Work
that NumPy cannot do well is a kernel in ``eventsim/kernels``. A test demands that every exported layer is listed in
``tests/test_contract.py``; ``tests/plain_rows.py`` compares an op with plain arrays.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np

from eventsim.counts import Counts
from eventsim.signals import Signal, SignalType


class LayerError(ValueError):
    """A layer does not fit its inputs or its own arrays; `Network` and `Simulator` add the layer's name."""


@dataclass(frozen=True, eq=False)
class Layer(ABC):
    """Description of one layer: hyperparameters and arrays, no state.

    Fields may be arrays, numbers, strings, booleans, tuples of integers, or None.
    """

    arguments: ClassVar[int] = 1
    """Number of inputs."""

    @abstractmethod
    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return what the layer emits for these inputs.

        Raises
        ------
        LayerError
            If the inputs or the layer's own arrays do not fit; says what was found and what was expected.
        """

    @abstractmethod
    def op(self, *inputs: SignalType) -> Op:
        """Return a new op that executes this layer on inputs of these types."""

    def dense_macs(self, *inputs: SignalType) -> int:
        """Multiply-accumulates of one time step if nothing were sparse, as papers count them (borders included)."""
        return 0

    def neurons(self, *inputs: SignalType) -> int:
        """Return how many neurons hold a membrane potential."""
        return 0

    @property
    def parameters(self) -> int:
        """Number of stored array elements."""
        return sum(np.size(value) for value in self.arrays().values())

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the array fields by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


class Op(ABC):
    """Execution of one layer, chunk by chunk of consecutive time steps.

    Whatever changes while it runs is created in `reset`; everything else (packed weights) is shared by its forks.

    Attributes
    ----------
    kernel : str
        What does the work; shown in the profile.
    stateless : bool
        The output of a step depends on the input of that step alone.
    causal : bool
        No step depends on a later one. An op that is not causal needs all steps in one chunk.
    """

    kernel: str
    stateless: bool = True
    causal: bool = True

    @abstractmethod
    def advance(self, inputs: tuple[Any, ...], final: bool) -> tuple[Signal, Counts]:
        """Process one chunk.

        Parameters
        ----------
        inputs : tuple of Rows or Dense
            One signal per argument, of the declared types and of equally many steps: `Dense` where the declared type
            is dense, else `Rows`, real values too. There may be no steps at all, behind a mean over time. Valid during
            the call: what is remembered must be copied.
        final : bool
            The chunk holds the last time step of the sample (in streaming: every step might be the last).

        Returns
        -------
        signal : Rows or Dense
            Valid until the next call of `advance`. In rows, channels ascend and no value is zero.
        counts : Counts
            What was executed.
        """

    def reset(self) -> None:  # noqa: B027
        """Forget the sample: state back to zero. Called before every sample."""

    def fork(self) -> Self:
        """Return an op that shares the weights of this one and has a state of its own."""
        fork = copy.copy(self)
        fork.reset()
        return fork
