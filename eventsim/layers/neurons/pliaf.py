"""Neurons that pass on their membrane potential instead of spikes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eventsim.context import Context
from eventsim.kernels.values_of_channels import limit
from eventsim.layers.dense import Memory
from eventsim.layers.layer import LayerError, Op
from eventsim.layers.listing import every_channel, listed
from eventsim.layers.neurons.membrane import Membrane
from eventsim.layers.neurons.spiking import PLIF, NeuronOp, stepped
from eventsim.signals import Dense, FloatArray, Rows, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class PLIAF(PLIF):
    r"""PLIF neuron with an analog output: the positive part of its potential h, before the reset.

    .. math:: y = \max(h, 0)

    A spike, where ``h >= v_threshold``, only resets the potential and goes nowhere: none is counted. The "leaky
    integrate and analog fire" neuron of Wu et al. (2022) with the learned time constant of `PLIF`.
    """

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return rows of the positive values at the same positions."""
        emitted = super().output_type(*inputs)
        if self.emits != "spikes":
            raise LayerError(f"emits {self.emits!r} found; expected 'spikes', in the place of which it emits max(h, 0)")
        return replace(emitted, kind="real")

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the positive potentials before the reset, in float32."""
        out = np.empty_like(inputs[0])
        for index, (step, _) in enumerate(stepped(self, inputs[0], memory)):
            out[index] = np.maximum(step.charged, np.float32(0))
        return out

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        (source,) = inputs
        return PLIAFOp(self.membrane(source, self.output_type(source)))


class PLIAFOp(NeuronOp):
    """Passes on the potential before the reset."""

    kernel = "analog_fire"

    def __init__(self, membrane: Membrane) -> None:
        super().__init__(membrane)
        self.hears_bands = False

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Rows:
        """Charge, emit and reset in every step of one chunk."""
        signal = inputs[0]
        current = every_channel(signal, context)
        emitted = context.buffers.floats(current.size).reshape(current.shape)
        self.membrane.begin(signal.steps, context)
        self.fire(0, current, context, emitted)
        context.call(limit, emitted, np.float32(0), np.float32(np.inf), emitted)
        output = self.membrane.output
        context.rows.add("updates_with_spike", context.by_step(self.membrane.spikes(signal.steps)))
        self.report(context.rows)
        return listed(output, signal.steps, emitted, context)
