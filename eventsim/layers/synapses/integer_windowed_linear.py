"""Linear layer of integers over a temporal window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np

from eventsim.facts import Entailed, Facts, Role, Words
from eventsim.layers.dense import Memory
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.synapses.integer_linear import IntegerLinear
from eventsim.layers.synapses.integer_weights import (
    LARGEST_SUM,
    ByteArray,
    IntegerSynapsesOp,
    Width,
    check_integers,
    width_of,
)
from eventsim.layers.synapses.windowed_linear import WindowedLinear, WindowedLinearOp
from eventsim.signals import CountArray, FloatArray, SignalType


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

    weight: ByteArray
    scale: FloatArray
    largest_input: int = 1
    window: int | tuple[int, ...] = 1
    exponent: int | tuple[int, ...] = 0
    decay: Literal["geometric", "constant"] = "geometric"
    form: Literal["accumulate_once", "reaccumulate"] = "accumulate_once"

    role: ClassVar[Role] = "linear"

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return int(self.weight.size)

    @property
    def longest(self) -> int:
        """The longest window."""
        return self._plain.longest

    @property
    def _plain(self) -> WindowedLinear:
        """The layer of the same integers in float32."""
        return WindowedLinear(self.weight.astype(np.float32), None, self.window, self.exponent, self.decay, self.form)

    @cached_property
    def amplified(self) -> tuple[FloatArray, ...]:
        """The factor of an input at each age, float32 ``(listeners,)``: powers of two, the least of a channel is 1."""
        plain = self._plain
        halved = [plain.attenuation(age) for age in range(plain.longest)]
        least = np.ones(len(self.weight))
        for age, factors in enumerate(halved):
            least[plain.listeners(age)] = factors
        return tuple((factors / least[plain.listeners(age)]).astype(np.float32) for age, factors in enumerate(halved))

    @cached_property
    def unit(self) -> FloatArray:
        """What a unit of the sums is worth, float32 ``(C_out,)``: a power of two below `scale`."""
        return np.asarray(self.scale / self.amplified[0], np.float32)

    @cached_property
    def width(self) -> Width:
        """What is proven of the sums."""
        once = width_of(self.weight, self.largest_input)
        if len(self.amplified) == 1:
            return once
        plain, total = self._plain, np.zeros(len(self.weight))
        for age, factors in enumerate(self.amplified):
            total[plain.listeners(age)] += factors
        sides = [np.maximum(sign * self.weight.astype(np.int64), 0).sum(1) for sign in (1, -1)]
        largest = int((np.maximum(*sides) * total).max(initial=0)) * self.largest_input
        if largest > LARGEST_SUM:
            raise LayerError(
                f"sums up to {largest} found (weights times inputs up to {self.largest_input} over the window); expected "
                f"at most {LARGEST_SUM}, leave the layer in float32"
            )
        return once._replace(largest=largest)

    @property
    def bits(self) -> int:
        """Bits of a whole sum."""
        return self.width.bits if len(self.amplified) == 1 else 32

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return real values, which are integers, at the same positions."""
        check_integers(self.weight, self.scale, self.largest_input, inputs[0])
        output = self._plain.output_type(*inputs)
        _ = self.width
        return output

    def dense_macs(self, *inputs: SignalType) -> int:
        """Return the whole matrix at every position, once: the window adds no weight."""
        return inputs[0].positions * int(self.weight.size)

    def words(self, *inputs: SignalType) -> Mapping[str, Words]:
        """Return weights and sums, those of the steps before included, of the widths that they have."""
        size = self.output_type(*inputs).size * self._plain.longest
        return {"weight": Words(self.weight.size, 8), "sum": Words(size, self.bits)}

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return the words that a product reads and writes, and an addition: a sum of a step before, and a sum."""
        return self._plain.entailed(*inputs)

    def facts(self, *inputs: SignalType) -> Facts:
        """Return what accounting knows of the layer."""
        return replace(super().facts(*inputs), zero_weights=int(np.count_nonzero(self.weight == 0)))

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the sums, in float64: integers that it holds exactly."""
        attenuated = self._plain.dense(inputs, memory).astype(np.float64)
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
        synapses = self._synapses(source, slice(None))
        if plain.longest == 1:
            return synapses
        fans = plain.fans() if synapses.fan is not None else None
        op = WindowedLinearOp(plain, output, synapses, self._later(source, plain), fans)
        op.attenuation = list(self.amplified)
        return op

    def _synapses(self, source: SignalType, outputs: CountArray | slice) -> IntegerSynapsesOp:
        part: IntegerSynapsesOp = IntegerLinear(self.weight[outputs], self.scale[outputs], self.largest_input).op(
            source
        )  # type: ignore[assignment]
        return part

    def _later(self, source: SignalType, plain: WindowedLinear) -> dict[int, IntegerSynapsesOp]:
        """Return what serves an input again at the ages at which not all outputs listen."""
        if self.form == "accumulate_once":
            return {}
        listening = {age: plain.listeners(age) for age in range(1, plain.longest)}
        return {age: self._synapses(source, some) for age, some in listening.items() if not isinstance(some, slice)}
