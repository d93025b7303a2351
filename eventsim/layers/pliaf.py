"""Neurons that pass on their membrane potential instead of spikes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eventsim.counts import Counts
from eventsim.layers.layer import Op
from eventsim.layers.neuron import PLIF, rows_of
from eventsim.layers.nonzeros import rows_from_dense
from eventsim.signals import Dense, FloatArray, Rows, SignalType


@dataclass(frozen=True, eq=False)
class PLIAF(PLIF):
    r"""PLIF neuron with an analog output: the positive part of its potential, before the reset.

    .. math:: h = v + (x - v)\, \sigma(w), \qquad y = \max(h, 0)

    A spike, where ``h >= v_threshold``, only resets the potential and goes nowhere: none is counted. The "leaky
    integrate and analog fire" neuron of Wu et al. (2022) with the learned time constant of `PLIF`.
    """

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return rows of the positive values at the same positions."""
        return replace(super().output_type(*inputs), kind="real")

    def op(self, *inputs: SignalType) -> Op:
        """Return the op, with every constant spread over the channels."""
        (source,) = inputs
        factor, threshold = rows_of(self.constant, "w", source), rows_of(self.v_threshold, "v_threshold", source)
        return PLIAFOp(self, self.output_type(source), factor, threshold)


class PLIAFOp(Op):
    """Holds the membrane potential and advances it step by step."""

    kernel = "analog_fire"
    stateless = False

    def __init__(self, layer: PLIAF, output: SignalType, factor: FloatArray, threshold: FloatArray) -> None:
        self.subtract = layer.reset == "subtract"
        self.fires = np.greater if layer.strict else np.greater_equal
        self.output = output
        self.factor = factor
        self.threshold = threshold
        self.reset()

    def reset(self) -> None:
        """Set every membrane potential to 0."""
        self.potential = np.zeros((self.output.positions, self.output.channels), np.float32)

    def advance(self, inputs: tuple[Rows | Dense], final: bool) -> tuple[Rows, Counts]:
        """Charge, emit and reset in every step of one chunk."""
        signal = inputs[0]
        potentials = np.empty((signal.steps, *self.potential.shape), np.float32)
        for h, x in zip(potentials, signal.to_array().reshape(potentials.shape), strict=True):
            h[:] = self.potential + (x - self.potential) * self.factor
            rest = h - self.threshold if self.subtract else np.float32(0)
            self.potential = np.where(self.fires(h, self.threshold), rest, h)
        np.maximum(potentials, 0, out=potentials)
        rows = rows_from_dense(self.output, signal.steps, potentials.reshape(-1, self.output.channels))
        return rows, Counts(neuron_updates=potentials.size)
