"""Neurons that never fire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from eventsim.context import Context
from eventsim.facts import Entailed, Role, Words
from eventsim.kernels.dynamics import DECAY, INTEGRATE, Dynamics
from eventsim.layers.dense import Memory, spread
from eventsim.layers.layer import Layer, Op
from eventsim.layers.listing import every_channel
from eventsim.layers.neurons.membrane import Membrane
from eventsim.layers.neurons.spiking import MembraneOp, PerNeuron, rows_of, updating
from eventsim.signals import Dense, FloatArray, Rows, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class LeakyIntegrator(Layer):
    r"""Potential that leaks, takes in, and is passed on as it is; or the synaptic current before a neuron.

    .. math:: v = \beta v + x

    A NIR ``LI`` or ``I``; in a ``CubaLIF`` and a ``CubaLI``, the current. It counts as one neuron with one update in
    each step, so that a current-based neuron, which holds two values, counts as two.

    Parameters
    ----------
    decay : float or float32 array
        Beta: 1 never leaks, 0 passes on what arrives.
    start : float or float32 array
        The potential at the beginning of every sample.
    """

    decay: PerNeuron = 1.0
    start: PerNeuron = 0.0

    role: ClassVar[Role] = "neurons"

    @property
    def parameters(self) -> int:
        """Return 0: time constants are not weights."""
        return 0

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return real values at the same positions."""
        (source,) = inputs
        rows_of(self.decay, "decay", source)
        rows_of(self.start, "start", source)
        return replace(source, kind="real", dense=True)

    def neurons(self, *inputs: SignalType) -> int:
        """Return one neuron per value of the input."""
        return inputs[0].size

    def words(self, *inputs: SignalType) -> Mapping[str, Words]:
        """Return one potential for each neuron."""
        return {"potential": Words(inputs[0].size)}

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return what the charge consists of; nothing is compared."""
        return updating(self._charge, 0, inputs[0], self.output_type(*inputs))

    @property
    def _charge(self) -> int:
        return INTEGRATE if (np.asarray(self.decay) == 1).all() else DECAY

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the potentials, in float32."""
        (x,) = inputs
        decay, start = spread(self.decay, x.shape[1:]), spread(self.start, x.shape[1:])
        v = memory.kept.get("potential", np.broadcast_to(start, x.shape[1:]))
        out = np.empty_like(x)
        for step, current in enumerate(x):
            v = out[step] = v * decay + current
        memory.kept["potential"] = np.array(v)
        return out

    def absolute(self) -> Layer:
        """Return the layer of absolute decay and start."""
        return replace(self, decay=np.abs(np.asarray(self.decay)), start=np.abs(np.asarray(self.start)))

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        (source,) = inputs
        decay = rows_of(self.decay, "decay", source)
        never = np.full((1, source.channels), np.inf, np.float32)
        dynamics = Dynamics(self._charge, 0, True)
        start = rows_of(self.start, "start", source)
        return LeakyIntegratorOp(Membrane(self.output_type(source), decay, never, dynamics, start))


class LeakyIntegratorOp(MembraneOp):
    """Passes on what a membrane was charged to that cannot fire."""

    kernel = "integrate"
    plays = True

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Dense:
        """Leak and take in, in every step of one chunk."""
        signal = inputs[0]
        current = every_channel(signal, context)
        emitted = context.buffers.floats(current.size).reshape(current.shape)
        self.membrane.begin(signal.steps, context)
        self.fire(0, current, context, emitted)
        self.report(context.rows)
        return Dense(self.membrane.output, signal.steps, emitted)
