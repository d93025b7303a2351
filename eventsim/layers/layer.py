"""What a layer is: a description, and the op that executes it.

A layer type is one file with a frozen dataclass derived from `Layer` - arrays and hyperparameters, saved and loaded
field by field - and an `Op` that does the work and counts it. Export the dataclass in ``eventsim/layers/__init__.py``
and networks, model files, the simulator and the profile know it; a layer of another package is found through the
entry point group ``eventsim.layers``. ``pooling/max_pool2d.py`` is a good one to start from. Work that NumPy cannot do
well is a kernel in ``eventsim/kernels``. `eventsim.testing.check_layer` tests everything that is promised here.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np

from eventsim.context import Context
from eventsim.errors import LayerError
from eventsim.facts import READING, Entailed, Facts, Role, Words, merged
from eventsim.layers.dense import Memory
from eventsim.layers.synapses.weights import zeros_of
from eventsim.signals import FloatArray, Signal, SignalType

__all__ = ["Layer", "LayerError", "Op"]


@dataclass(frozen=True, eq=False, repr=False)
class Layer(ABC):
    """Description of one layer: hyperparameters and arrays, no state.

    Fields may be arrays, numbers, strings, booleans, tuples of integers, or None.
    """

    arguments: ClassVar[int] = 1
    """Number of inputs."""
    role: ClassVar[Role] = "other"
    """What kind of layer it is, for those who account for its work; see `eventsim.facts`."""

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

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return what the layer computes, without anything event-driven: plain NumPy on every value.

        It is what `eventsim.verify` compares the op with, so it must not call the op or its kernels.

        Parameters
        ----------
        inputs : tuple of float32 array (T, C, H, W), (T, N, C) or (T, C)
            One for each argument; of an `Input`, the frames. There may be no time steps.
        memory : Memory
            What the layer kept of the steps before, and whether the sample ends with these.

        Returns
        -------
        float32 array (T, C, H, W), (T, N, C) or (T, C)

        Raises
        ------
        LayerError
            If the layer has no dense form.
        """
        raise LayerError(
            f"{type(self).__name__} of {type(self).__module__} has no dense form; expected a method `dense`, as "
            "docs/contributing/add-a-layer.md describes it"
        )

    def absolute(self) -> Layer | None:
        """Return the layer that adds up absolute terms; None unless its output is a sum of inputs times constants.

        Given the absolute values of the inputs, the layer returned emits the sum of the absolute values of all terms,
        of which rounding is a share.
        """
        return None

    def terms(self, inputs: tuple[FloatArray, ...], output: FloatArray, memory: Memory) -> FloatArray:
        """Return for every value of the dense output how large the numbers are whose rounding it shows.

        Asked of real-valued layers without `absolute` only. The default is the output itself: right where every value
        is the result of a few operations that lose nothing.

        Parameters
        ----------
        inputs, output
            Of `dense`.
        memory : Memory
            As for `dense`, and not shared with it.

        Returns
        -------
        float32 array
            Of the shape of the output.
        """
        return np.abs(output)

    def dense_macs(self, *inputs: SignalType) -> int:
        """Multiply-accumulates of one time step if nothing were sparse, as papers count them (borders included)."""
        return 0

    def inner_macs(self, *inputs: SignalType) -> int:
        """Return those of `dense_macs` that read inside of the map: all, where there is no padding."""
        return self.dense_macs(*inputs)

    def neurons(self, *inputs: SignalType) -> int:
        """Return how many neurons hold a membrane potential."""
        return 0

    def words(self, *inputs: SignalType) -> Mapping[str, Words]:
        """Return the memory that the layer owns, by the kinds of `eventsim.facts.MEMORIES`.

        Unless a layer says otherwise: its parameters, of which the field ``bias`` holds biases and the others weights.
        """
        bias = getattr(self, "bias", None)
        biases = bias.size if isinstance(bias, np.ndarray) else 0
        held = {"weight": Words(self.parameters - biases), "bias": Words(biases)}
        return {kind: words for kind, words in held.items() if words.number}

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return, for each operation that the op reports, how many of which others go with one of it."""
        return {}

    def facts(self, *inputs: SignalType) -> Facts:
        """Return what accounting knows of the layer."""
        output = self.output_type(*inputs)
        return Facts(
            self.role,
            inputs,
            output,
            self.dense_macs(*inputs),
            self.neurons(*inputs),
            output.size if getattr(self, "bias", None) is not None else 0,
            getattr(self, "heads", 0),
            getattr(self, "order", ""),
            self.inner_macs(*inputs),
            zeros_of(self),
            self.words(*inputs),
            merged(READING, self.entailed(*inputs)),
        )

    @property
    def parameters(self) -> int:
        """Number of stored array elements."""
        return sum(np.size(value) for value in self.arrays().values())

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the array fields by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}

    def __repr__(self) -> str:
        said = []
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                said.append(f"{field.name}: {value.dtype} {'x'.join(map(str, value.shape))}")
            elif value is not None:
                said.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(said)})"


class Op(ABC):
    """Execution of one layer, chunk by chunk of consecutive time steps.

    What is the same for all samples (packed weights) is made once and shared by all forks. What a fork writes is its
    own: `reset` makes the state, `own` the buffers.

    Every op declares the following four, on its class or in ``__init__``; there is no default, `plan` refuses an op
    that leaves one out, and `eventsim.testing.check_layer` tests that they are true.

    Attributes
    ----------
    kernel : str
        What does the work; shown in the profile.
    state_names : tuple of str
        Attributes that hold what is remembered from one time step to the next, made by `reset`; empty where the output
        of a step depends on the input of that step alone.
    looks_ahead : bool
        A step depends on a later one, or on how many there are. All steps must then be in one chunk.
    once_if_static : bool
        Where every input is the same in all time steps, so is the output: it is computed, and counted, once.

    More it may declare:

    Attributes
    ----------
    hears_bits : bool
        Of spikes that have `Rows.bits`, it reads these and `Rows.indptr`, and no list of channels.
    hears_bands : bool
        Of sums that are `eventsim.banded.Banded`, it takes one band after the other.
    plays : bool
        Whatever `advance` does with values of a sample, it does by `Context.call` in memory of `Context.buffers`, and
        what it reports of them lies in that of `Context.counts`; what it decides, it decides by the types and the
        number of steps. Then samples of the same shape can be run without it; see `eventsim.tape`.

    Two it is told in a run (`eventsim.plan.Schedule`), and may pass over:

    Attributes
    ----------
    lists_channels : bool
        Somebody needs the channels that its rows list, beside their bits.
    emits_bands : bool
        One layer alone hears it, in the same chunk, that takes `eventsim.banded.Banded`.
    """

    hears_bits: bool = False
    hears_bands: bool = False
    emits_bands: bool = False
    plays: bool = False
    lists_channels: bool = True
    kernel: str
    state_names: tuple[str, ...]
    looks_ahead: bool
    once_if_static: bool

    @abstractmethod
    def advance(self, inputs: tuple[Any, ...], context: Context) -> Signal:
        """Process one chunk.

        Parameters
        ----------
        inputs : tuple of Rows or Dense
            One signal per argument, of the declared types and of equally many steps: `Dense` where the declared type
            is dense, else `Rows`, real values too. There may be no steps at all, behind a mean over time. Valid during
            the call: what is remembered must be copied.
        context : Context
            Whether the sample ends with this chunk, and where to report what was executed, step by step.

        Returns
        -------
        Rows or Dense
            Valid until the next call of `advance`. In rows, channels ascend and no value is zero.
        """

    def reset(self) -> None:  # noqa: B027
        """Make the state of a new sample."""

    def own(self) -> None:  # noqa: B027
        """Make what only this fork may write: buffers, and forks of inner ops."""

    def fork(self) -> Self:
        """Return an op that shares the weights of this one and has a state and buffers of its own."""
        fork = copy.copy(self)
        fork.own()
        fork.reset()
        return fork

    def state(self) -> dict[str, Any]:
        """Return a copy of the state, as plain data."""
        return {name: copy.deepcopy(getattr(self, name)) for name in self.state_names}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned."""
        for name in self.state_names:
            setattr(self, name, copy.deepcopy(state[name]))
