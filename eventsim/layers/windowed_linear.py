"""Linear layer over a temporal window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from eventsim.counts import Counts
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.linear import Linear
from eventsim.layers.steps import join_steps, take_steps
from eventsim.signals import CountArray, Dense, FloatArray, Rows, Signal, SignalType

DECAYS = ("geometric", "constant")
FORMS = ("accumulate_once", "reaccumulate")


@dataclass(frozen=True, eq=False)
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
        their synapses again in every step of the window. `Counts.window_products` tells the cost of the second either
        way.
    """

    weight: FloatArray
    bias: FloatArray | None = None
    window: int = 1
    exponent: int = 0
    decay: Literal["geometric", "constant"] = "geometric"
    form: Literal["accumulate_once", "reaccumulate"] = "accumulate_once"

    @property
    def linear(self) -> Linear:
        """The map within one step."""
        return Linear(self.weight, self.bias)

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
        return self.linear.output_type(*inputs)

    def dense_macs(self, *inputs: SignalType) -> int:
        """Return the whole matrix at every position, once: the window adds no weight."""
        return self.linear.dense_macs(*inputs)

    def attenuation(self, age: int) -> np.float32:
        """Return the factor of an input that came `age` steps ago."""
        return np.float32(2.0 ** (-self.exponent * (age if self.decay == "geometric" else min(age, 1))))

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        if self.window == 1:
            return self.linear.op(*inputs)
        return WindowedLinearOp(self, self.output_type(*inputs), Linear(self.weight).op(*inputs))


class WindowedLinearOp(Op):
    """Remembers the currents, or the inputs, of the steps before."""

    stateless = False

    def __init__(self, layer: WindowedLinear, output: SignalType, synapses: Op) -> None:
        self.layer = layer
        self.output = output
        self.synapses = synapses
        self.bias = np.zeros(output.channels, np.float32) if layer.bias is None else layer.bias
        self.once = layer.form == "accumulate_once"
        self.kernel = f"{synapses.kernel}_{'once' if self.once else 'window'}"
        self.reset()

    def reset(self) -> None:
        """Forget the steps before."""
        self.synapses = self.synapses.fork()
        self._memory: Signal | None = None
        self._products = np.zeros(0, np.int64)  # of each step remembered

    def advance(self, inputs: tuple[Rows | Dense], final: bool) -> tuple[Dense, Counts]:
        """Serve one chunk, and the steps before it that its window reaches."""
        signal = inputs[0]
        arrived, counts = self.synapses.advance((signal,), final) if self.once else (signal, Counts())
        memory = arrived if self._memory is None else join_steps(self._memory, arrived)
        products = np.concatenate([self._products, self._products_by_step(signal)])
        out = np.empty((signal.steps * self.output.positions, self.output.channels), np.float32)
        out[:] = self.bias
        before = memory.steps - signal.steps
        for age in range(min(self.layer.window, memory.steps)):
            first = max(age - before, 0)  # step of the chunk; those before it had no input so long ago
            span = slice(before + first - age, memory.steps - age)
            currents = take_steps(memory, span.start, span.stop)
            if not self.once:
                currents, executed = self.synapses.advance((currents,), final)
                counts.add(executed)
            shifted = self.layer.attenuation(age) * currents.to_array()
            out[first * self.output.positions :] += shifted
            counts.window_products += int(products[span].sum())
            counts.additions += shifted.size if age else 0
        counts.inputs, counts.nonzero_inputs = signal.steps * signal.type.size, signal.nonzeros
        keep = min(self.layer.window - 1, memory.steps)
        self._memory = join_steps(take_steps(memory, memory.steps - keep, memory.steps))
        self._products = products[len(products) - keep :]
        return Dense(self.output, signal.steps, out), counts

    def _products_by_step(self, signal: Signal) -> CountArray:
        """Return the products that the synapses execute for each step."""
        if isinstance(signal, Dense):
            events = np.full(signal.steps, signal.type.size, np.int64)
        else:
            events = np.diff(signal.indptr[:: signal.type.positions])
        return events * self.output.channels
