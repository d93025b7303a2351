"""Linear layer over a temporal window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from eventsim.context import Context
from eventsim.facts import Entailed, Role, Words
from eventsim.kernels.filling import repeat
from eventsim.kernels.products import count_pruned
from eventsim.kernels.rows import add_dense, add_some
from eventsim.layers.dense import Memory, in_shape, tokens, with_past
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.synapses.gathering import SynapsesOp, report_inputs
from eventsim.layers.synapses.linear import Linear, matrix_op, matrix_type
from eventsim.layers.synapses.weights import Weight, fan_of, is_pruned, serving, shape_of, words_of
from eventsim.layers.time.steps import join_steps, shared_steps, take_steps
from eventsim.ledger import LedgerRows
from eventsim.signals import CountArray, Dense, FloatArray, Rows, Signal, SignalType

DECAYS = ("geometric", "constant")
FORMS = ("accumulate_once", "reaccumulate")


@dataclass(frozen=True, eq=False, repr=False)
class WindowedLinear(Layer):
    r"""Linear map of each pixel or token whose inputs are felt for several steps, attenuated by powers of two.

    .. math:: I_t = b + \sum_{m=0}^{\min(window - 1,\, t)} a_m\, W s_{t-m}, \qquad
              a_m = 2^{-d\, m} \;\text{(geometric)} \quad\text{or}\quad a_0 = 1,\; a_m = 2^{-d} \;\text{(constant)}

    with d the exponent: the temporally attenuated attention of DS2TA (arXiv 2409.15375, eqs. 1, 4 and 5). Both forms
    add up in the order of the formula, so they give the same currents, with one window bit for bit, and differ in the
    work. A window of 1 is a `Linear`.

    Window and exponent may differ among equal groups of outputs, such as the heads of an attention.

    Parameters
    ----------
    weight : float32 array (C_out, C_in)
    bias : float32 array (C_out,), optional
        Added once.
    window : int or tuple of int
        Time steps, at least 1; one for all outputs, or one for each group.
    exponent : int or tuple of int
        d, 0 to 126; likewise.
    decay : {"geometric", "constant"}
    form : {"accumulate_once", "reaccumulate"}
        Keep the currents ``W s`` of the last ``window - 1`` steps and add them up shifted; or keep the inputs and serve
        their synapses again in every step of the window. The operation ``window_products`` tells the cost of the
        second either way.
    """

    weight: Weight = Weight()  # noqa: RUF009 - a descriptor, no default
    bias: FloatArray | None = None
    window: int | tuple[int, ...] = 1
    exponent: int | tuple[int, ...] = 0
    decay: Literal["geometric", "constant"] = "geometric"
    form: Literal["accumulate_once", "reaccumulate"] = "accumulate_once"

    role: ClassVar[Role] = "linear"

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return real values at the same positions."""
        if not all(isinstance(window, int) and window >= 1 for window in _listed(self.window)):
            raise LayerError(f"window {self.window} found; expected a whole number of time steps, at least 1")
        if not all(isinstance(exponent, int) and 0 <= exponent <= 126 for exponent in _listed(self.exponent)):
            raise LayerError(f"exponent {self.exponent} found; expected a whole number from 0 to 126")
        if self.decay not in DECAYS:
            raise LayerError(f"decay {self.decay!r} found; expected one of {DECAYS}")
        if self.form not in FORMS:
            raise LayerError(f"form {self.form!r} found; expected one of {FORMS}")
        found = matrix_type(inputs[0], shape_of(self), self.bias)
        for name, values in (("window", _listed(self.window)), ("exponent", _listed(self.exponent))):
            if not values or found.channels % len(values):
                raise LayerError(
                    f"{name} for {len(values)} groups found; expected a divisor of the {found.channels} outputs"
                )
        return found

    def dense_macs(self, *inputs: SignalType) -> int:
        """Return the whole matrix at every position, once: the window adds no weight."""
        outputs, channels = shape_of(self)
        return inputs[0].positions * outputs * channels

    @property
    def longest(self) -> int:
        """The longest window."""
        return max(_listed(self.window))

    def listeners(self, age: int) -> CountArray | slice:
        """Return the outputs whose window holds an input that came `age` steps ago."""
        listening = self._of_each_output(self.window) > age
        return slice(None) if listening.all() else np.flatnonzero(listening)

    def attenuation(self, age: int) -> FloatArray:
        """Return the factor of an input that came `age` steps ago, for each output that listens."""
        halvings = self._of_each_output(self.exponent) * (age if self.decay == "geometric" else min(age, 1))
        return np.ldexp(1.0, -halvings[self.listeners(age)]).astype(np.float32)

    def _of_each_output(self, values: int | tuple[int, ...]) -> CountArray:
        """Return what is given for groups, for each output."""
        outputs, _ = shape_of(self)
        return np.repeat(np.array(_listed(values), np.int64), outputs // len(_listed(values)))

    def words(self, *inputs: SignalType) -> Mapping[str, Words]:
        """Return weights, biases and partial sums, those of the steps before included."""
        output = self.output_type(*inputs)
        return words_of(self, output.size * self.longest)

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return the words that a product reads and writes, and an addition: a current of a step before, and a sum."""
        return {**serving(inputs[0], biased=self.bias is not None), "additions": {"sum_reads": 2, "sum_writes": 1}}

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the products of each step, attenuated and added up over the window, in float64."""
        (x,) = inputs
        seen, past = with_past(x, memory, self.longest - 1)
        currents = tokens(seen).astype(np.float64) @ self.weight.T.astype(np.float64)
        windows, exponents = (self._of_each_output(values) for values in (self.window, self.exponent))
        out = np.zeros((len(x), *currents.shape[1:]))
        for age in range(min(self.longest, len(seen))):
            factors = 2.0 ** -(exponents * float(age if self.decay == "geometric" else min(age, 1)))
            felt = currents[max(past - age, 0) : len(seen) - age]
            out[len(x) - len(felt) :] += np.where(windows > age, factors, 0) * felt
        return in_shape(out if self.bias is None else out + self.bias, x.shape[1:])

    def absolute(self) -> Layer:
        """Return the layer of absolute weights."""
        return replace(self, weight=np.abs(self.weight), bias=None if self.bias is None else np.abs(self.bias))

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        (source,) = inputs
        output = self.output_type(source)  # checks the options
        if self.longest == 1:
            return matrix_op(self, source, self.bias)
        synapses = matrix_op(self, source, None)
        fans = self.fans() if synapses.fan is not None else None
        return WindowedLinearOp(self, output, synapses, self._later_synapses(source), fans)

    def fans(self) -> CountArray:
        """Return how many synapses, not pruned, of each input reach the outputs that listen at each age."""
        exists = self.weight != 0
        return np.array([exists[self.listeners(age)].sum(axis=0) for age in range(self.longest)], np.int64)

    def _later_synapses(self, source: SignalType) -> dict[int, SynapsesOp]:
        """Return what serves an input again at the ages at which not all outputs listen."""
        later: dict[int, SynapsesOp] = {}
        for age in range(1, self.longest if self.form == "reaccumulate" else 1):
            outputs = self.listeners(age)
            if isinstance(outputs, slice):
                continue
            if age - 1 in later and len(outputs) == later[age - 1].output.channels:
                later[age] = later[age - 1]
                continue
            weight = self.weight
            later[age] = matrix_op(Linear(weight[outputs]), source, None)
            later[age].fan = fan_of(weight[outputs].T[None]) if is_pruned(weight) else None
        return later


def _listed(values: int | tuple[int, ...]) -> tuple[int, ...]:
    """Return one value, or several, as several."""
    return values if isinstance(values, tuple) else (values,)


class WindowedLinearOp(Op):
    """Remembers the currents, or the inputs, of the steps before."""

    state_names = ("memory", "served")
    looks_ahead = False
    once_if_static = False

    def __init__(
        self,
        layer: WindowedLinear,
        output: SignalType,
        synapses: SynapsesOp,
        later: Mapping[int, SynapsesOp],
        fans: CountArray | None,
    ) -> None:
        self.window = layer.longest
        self.listeners = [layer.listeners(age) for age in range(layer.longest)]
        self.attenuation = [layer.attenuation(age) for age in range(layer.longest)]
        self.output = output
        self.synapses = synapses
        self.later = later
        self.plays = synapses.plays and all(op.plays for op in later.values())
        self.fans = fans
        self.biased = layer.bias is not None
        self.bias = np.zeros(output.channels, np.float32) if layer.bias is None else layer.bias
        self.once = layer.form == "accumulate_once"
        self.kernel = f"{synapses.kernel}_{'once' if self.once else 'window'}"
        self.reset()

    def reset(self) -> None:
        """Forget the steps before."""
        self.memory: Signal | None = None
        self.served: CountArray = np.zeros((1 if self.fans is None else self.window, 0), np.int64)

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Dense:
        """Serve one chunk, and the steps before it that its window reaches."""
        signal, rows = inputs[0], context.rows
        steps, positions = signal.steps, self.output.positions
        report_inputs(signal, context)
        if self.biased:
            rows.add("bias_additions", self.output.size)
        memory = self.synapses.serve(signal, rows, context) if self.once else signal
        served = self._served(signal, context)
        if self.memory is not None:
            memory, served = join_steps(self.memory, memory), np.concatenate([self.served, served], axis=1)
        size = steps * positions
        out = context.buffers.floats(size * self.output.channels).reshape(size, self.output.channels)
        context.call(repeat, self.bias, out)
        before = memory.steps - steps
        for age in range(min(self.window, memory.steps)):
            first = max(age - before, 0)  # step of the chunk; those before it had no input so long ago
            start, stop = before + first - age, memory.steps - age
            felt = rows.part(first, steps) if first else rows
            arriving = shared_steps(memory, start, stop)
            if not self.once:
                arriving = self.later.get(age, self.synapses).serve(arriving, felt, context)
            self._add(arriving.to_array(), age, out[first * positions :], context)
            self._report_products(signal.type, age, served[:, start:stop], felt)
            if age:
                felt.add("additions", positions * len(self.attenuation[age]))
        keep = min(self.window - 1, memory.steps)
        self.memory = join_steps(take_steps(memory, memory.steps - keep, memory.steps))
        self.served = served[:, memory.steps - keep :].copy()
        return Dense(self.output, steps, out)

    def _add(self, arriving: FloatArray, age: int, out: FloatArray, context: Context) -> None:
        """Add currents, attenuated, to the outputs that listen."""
        listeners, factors = self.listeners[age], self.attenuation[age]
        if isinstance(listeners, slice):
            context.call(add_dense, arriving, factors, out)
        else:
            context.call(add_some, arriving, factors, listeners, out)

    def _served(self, signal: Signal, context: Context) -> CountArray:
        """Return what is counted of the inputs of each step and remembered with them, ``(1 or window, steps)``.

        Those that are not zero or, of a pruned weight, the synapses that they serve at each age; nothing of dense ones.
        """
        if isinstance(signal, Dense):
            return np.zeros((len(self.served), signal.steps), np.int64)
        if self.fans is None:
            return context.by_step(signal)[None]
        served, units = context.counts((self.window, signal.steps)), context.counts(signal.steps)
        for age in range(self.window):
            fans = self.fans[age : age + 1]
            context.call(count_pruned, signal.whole, self.synapses.window, fans, served[age], units)
        return served

    def _report_products(self, kind: SignalType, age: int, served: CountArray, rows: LedgerRows) -> None:
        """Report the synapses that the inputs of some steps serve at an age."""
        listening = len(self.attenuation[age])
        if kind.dense:
            fan = kind.channels * listening if self.fans is None else int(self.fans[age].sum())
            rows.add("window_products", kind.positions * fan)
        elif self.fans is None:
            rows.add("window_products", served[0], listening)
        else:
            rows.add("window_products", served[age])
