"""Linear layer of integers over a temporal window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, ClassVar, Literal

import numpy as np

from eventsim.facts import Entailed, Role, Words
from eventsim.layers.dense import Memory
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.synapses.integer_gathering import IntegerSynapsesOp
from eventsim.layers.synapses.integer_linear import IntegerLinear, integer_matrix_op
from eventsim.layers.synapses.integer_weights import (
    LARGEST_SUM,
    ByteWeight,
    Width,
    check_integers,
    width_of,
)
from eventsim.layers.synapses.weights import shape_of
from eventsim.layers.synapses.windowed_linear import WindowedLinear, WindowedLinearOp
from eventsim.signals import FloatArray, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class IntegerWindowedLinear(Layer):
    r"""Linear map with int8 weights whose inputs are felt for several steps: sums of integers, in units of a scale.

    .. math:: S_t = \sum_{m=0}^{\min(window - 1,\, t)} 2^{D - h_m}\, q\, s_{t-m}, \qquad I_t \approx scale\, 2^{-D} S_t

    with :math:`h_m` the halvings of `eventsim.layers.WindowedLinear` (d m if geometric, d for every m but 0 if
    constant) and D those of the oldest step in the window: what is attenuated there is amplified here less, so that
    nothing is lost behind the point. No sum exceeds that of the positive, or of the negative, weights of its channel
    times the largest input and all factors of its window; beyond 2^24 it is refused.

    Parameters
    ----------
    weight : int8 array (C_out, C_in)
        From -127 to 127.
    scale : float32 array (C_out,)
        What a unit of ``q s`` is worth; nothing is multiplied by it here.
    largest_input : int
        Inputs are 0 to this; 1 for spikes.
    window, exponent, decay, form
        Of `eventsim.layers.WindowedLinear`.
    """

    weight: ByteWeight = ByteWeight()  # noqa: RUF009 - a descriptor, no default
    scale: FloatArray  # type: ignore[misc]  # to mypy, a descriptor is a default
    largest_input: int = 1
    window: int | tuple[int, ...] = 1
    exponent: int | tuple[int, ...] = 0
    decay: Literal["geometric", "constant"] = "geometric"
    form: Literal["accumulate_once", "reaccumulate"] = "accumulate_once"

    role: ClassVar[Role] = "linear"

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return prod(shape_of(self))

    @property
    def longest(self) -> int:
        """The longest window."""
        return self._plain.longest

    def _of(self, weight: FloatArray) -> WindowedLinear:
        """Return the layer of float32 of some weights."""
        return WindowedLinear(weight, None, self.window, self.exponent, self.decay, self.form)

    @cached_property
    def _plain(self) -> WindowedLinear:
        """The layer of float32, but for its weights: it tells which outputs listen when."""
        return self._of(np.broadcast_to(np.float32(0), shape_of(self)))

    @cached_property
    def amplified(self) -> tuple[FloatArray, ...]:
        """The factor of an input at each age, float32 ``(listeners,)``: powers of two, the least of a channel is 1."""
        plain, least = self._plain, np.ones(shape_of(self)[0])
        halved = [plain.attenuation(age).astype(np.float64) for age in range(plain.longest)]
        for age, factors in enumerate(halved):
            least[plain.listeners(age)] = factors
        if least.min(initial=1) * LARGEST_SUM < 1:
            raise LayerError(
                f"exponent {self.exponent} over a window of {self.window} found; expected inputs that are halved "
                f"{LARGEST_SUM.bit_length() - 1} times at most"
            )
        return tuple((factors / least[plain.listeners(age)]).astype(np.float32) for age, factors in enumerate(halved))

    @cached_property
    def unit(self) -> FloatArray:
        """What a unit of the sums is worth, float32 ``(C_out,)``: a power of two below `scale`."""
        return np.asarray(self.scale / self.amplified[0], np.float32)

    @cached_property
    def width(self) -> Width:
        """What is proven of the sums of one step, but for the largest, which is that over the window."""
        weight: Any = self.weight
        once = width_of(weight, self.largest_input)
        if len(self.amplified) == 1:
            return once
        plain, total = self._plain, np.zeros(len(weight))
        for age, factors in enumerate(self.amplified):
            total[plain.listeners(age)] += factors
        sides = [np.maximum(sign * weight.astype(np.int64), 0).sum(1) for sign in (1, -1)]
        largest = int((np.maximum(*sides) * total).max(initial=0)) * self.largest_input
        if largest > LARGEST_SUM:
            raise LayerError(
                f"sums up to {largest} found (weights times inputs up to {self.largest_input} over the window); "
                f"expected at most {LARGEST_SUM}, leave the layer in float32"
            )
        return once._replace(largest=largest)

    @property
    def bits(self) -> int:
        """Bits of a whole sum."""
        return self.width.bits if len(self.amplified) == 1 else 32

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return real values, which are integers, at the same positions."""
        check_integers(self, inputs[0])
        output = self._plain.output_type(*inputs)
        _ = self.width
        return output

    def dense_macs(self, *inputs: SignalType) -> int:
        """Return the whole matrix at every position, once: the window adds no weight."""
        return inputs[0].positions * prod(shape_of(self))

    def words(self, *inputs: SignalType) -> Mapping[str, Words]:
        """Return weights and sums, those of the steps before included, of the widths that they have."""
        size = self.output_type(*inputs).size * self._plain.longest
        return {"weight": Words(prod(shape_of(self)), 8), "sum": Words(size, self.bits)}

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return the words that a product reads and writes, and an addition: a sum of a step before, and a sum."""
        return self._plain.entailed(*inputs)

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the sums, in float64: integers that it holds exactly."""
        attenuated = self._of(self.weight.astype(np.float32)).dense(inputs, memory).astype(np.float64)
        factors = self.amplified[0].astype(np.float64)
        spread = factors[:, None, None] if attenuated.ndim == 4 else factors
        return np.asarray(attenuated * spread, np.float32)

    def absolute(self) -> Layer:
        """Return the layer of absolute weights."""
        return replace(self, weight=np.abs(self.weight))

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        (source,), plain = inputs, self._plain
        output = self.output_type(source)
        synapses = integer_matrix_op(self, source)
        if plain.longest == 1:
            return synapses
        fans = self._of(self.weight.astype(np.float32)).fans() if synapses.fan is not None else None
        op = WindowedLinearOp(plain, output, synapses, self._later(source, plain), fans)
        op.attenuation = list(self.amplified)
        return op

    def _later(self, source: SignalType, plain: WindowedLinear) -> dict[int, IntegerSynapsesOp]:
        """Return what serves an input again at the ages at which not all outputs listen."""
        if self.form == "accumulate_once":
            return {}
        listening = {age: plain.listeners(age) for age in range(1, plain.longest)}
        weight: Any = self.weight
        parts = {age: some for age, some in listening.items() if not isinstance(some, slice)}
        return {
            age: integer_matrix_op(IntegerLinear(weight[some], self.scale[some], self.largest_input), source)
            for age, some in parts.items()
        }
