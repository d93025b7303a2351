"""Linear layer over a temporal window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from eventsim.context import Context
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.synapses.gathering import SynapsesOp, report_inputs
from eventsim.layers.synapses.linear import matrix_op, matrix_type
from eventsim.layers.synapses.weights import Weight, shape_of
from eventsim.layers.time.steps import join_steps, take_steps
from eventsim.signals import CountArray, Dense, FloatArray, Rows, Signal, SignalType

DECAYS = ("geometric", "constant")
FORMS = ("accumulate_once", "reaccumulate")


@dataclass(frozen=True, eq=False, repr=False)
class WindowedLinear(Layer):
    r"""Linear map of each pixel or token whose inputs are felt for several steps, attenuated by powers of two.

    .. math:: I_t = b + \sum_{m=0}^{\min(window - 1,\, t)} a_m\, W s_{t-m}, \qquad
              a_m = 2^{-d\, m} \;\text{(geometric)} \quad\text{or}\quad a_0 = 1,\; a_m = 2^{-d} \;\text{(constant)}

    with d the exponent: the temporally attenuated attention of DS2TA (arXiv 2409.15375, eqs. 1, 4 and 5). Both forms
    add up in the order of the formula, so they give the same currents, bit for bit, and differ in the work. A window
    of 1 is a `Linear`.

    Parameters
    ----------
    weight : float32 array (C_out, C_in)
    bias : float32 array (C_out,), optional
        Added once.
    window : int
        Time steps, at least 1.
    exponent : int
        d, 0 to 126.
    decay : {"geometric", "constant"}
    form : {"accumulate_once", "reaccumulate"}
        Keep the currents ``W s`` of the last ``window - 1`` steps and add them up shifted; or keep the inputs and serve
        their synapses again in every step of the window. The operation ``window_products`` tells the cost of the
        second either way.
    """

    weight: Weight = Weight()  # noqa: RUF009 - a descriptor, no default
    bias: FloatArray | None = None
    window: int = 1
    exponent: int = 0
    decay: Literal["geometric", "constant"] = "geometric"
    form: Literal["accumulate_once", "reaccumulate"] = "accumulate_once"

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return real values at the same positions."""
        if not isinstance(self.window, int) or self.window < 1:
            raise LayerError(f"window {self.window} found; expected a whole number of time steps, at least 1")
        if not isinstance(self.exponent, int) or not 0 <= self.exponent <= 126:
            raise LayerError(f"exponent {self.exponent} found; expected a whole number from 0 to 126")
        if self.decay not in DECAYS:
            raise LayerError(f"decay {self.decay!r} found; expected one of {DECAYS}")
        if self.form not in FORMS:
            raise LayerError(f"form {self.form!r} found; expected one of {FORMS}")
        return matrix_type(inputs[0], shape_of(self), self.bias)

    def dense_macs(self, *inputs: SignalType) -> int:
        """Return the whole matrix at every position, once: the window adds no weight."""
        outputs, channels = shape_of(self)
        return inputs[0].positions * outputs * channels

    def attenuation(self, age: int) -> np.float32:
        """Return the factor of an input that came `age` steps ago."""
        return np.float32(2.0 ** (-self.exponent * (age if self.decay == "geometric" else min(age, 1))))

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        (source,) = inputs
        output = self.output_type(source)  # checks the options
        if self.window == 1:
            return matrix_op(self, source, self.bias)
        return WindowedLinearOp(self, output, matrix_op(self, source, None))


class WindowedLinearOp(Op):
    """Remembers the currents, or the inputs, of the steps before."""

    state_names = ("memory", "products")
    looks_ahead = False
    once_if_static = False

    def __init__(self, layer: WindowedLinear, output: SignalType, synapses: SynapsesOp) -> None:
        self.window = layer.window
        self.attenuation = [layer.attenuation(age) for age in range(layer.window)]
        self.output = output
        self.synapses = synapses
        self.bias = np.zeros(output.channels, np.float32) if layer.bias is None else layer.bias
        self.once = layer.form == "accumulate_once"
        self.kernel = f"{synapses.kernel}_{'once' if self.once else 'window'}"
        self.own()
        self.reset()

    def own(self) -> None:
        """Take synapses whose buffer no other fork writes."""
        self.synapses = self.synapses.fork()

    def reset(self) -> None:
        """Forget the steps before."""
        self.memory: Signal | None = None
        self.products = np.zeros(0, np.int64)  # of each step remembered

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Dense:
        """Serve one chunk, and the steps before it that its window reaches."""
        signal, rows = inputs[0], context.rows
        steps = signal.steps
        report_inputs(signal, rows)
        arrived = self.synapses.serve(signal, rows) if self.once else signal
        memory = arrived if self.memory is None else join_steps(self.memory, arrived)
        products = np.concatenate([self.products, self._products_by_step(signal)])
        out = np.empty((steps * self.output.positions, self.output.channels), np.float32)
        out[:] = self.bias
        before = memory.steps - steps
        for age in range(min(self.window, memory.steps)):
            first = max(age - before, 0)  # step of the chunk; those before it had no input so long ago
            span = slice(before + first - age, memory.steps - age)
            felt = rows.part(first, steps)
            currents = take_steps(memory, span.start, span.stop)
            if not self.once:
                currents = self.synapses.serve(currents, felt)
            out[first * self.output.positions :] += self.attenuation[age] * currents.to_array()
            felt.add("window_products", products[span])
            if age:
                felt.add("additions", self.output.size)
        keep = min(self.window - 1, memory.steps)
        self.memory = join_steps(take_steps(memory, memory.steps - keep, memory.steps))
        self.products = products[len(products) - keep :]
        return Dense(self.output, steps, out)

    def _products_by_step(self, signal: Signal) -> CountArray:
        """Return the products that the synapses execute for each step."""
        if isinstance(signal, Dense):
            return np.full(signal.steps, signal.type.size * self.output.channels, np.int64)
        return signal.nonzeros_by_step * self.output.channels
