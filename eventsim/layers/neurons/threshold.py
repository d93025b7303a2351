"""Comparison with a threshold, without memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from eventsim.context import Context
from eventsim.facts import Role
from eventsim.kernels.values_of_channels import list_above
from eventsim.layers.dense import Memory, spread
from eventsim.layers.layer import Layer, Op
from eventsim.layers.listing import every_channel, room_for
from eventsim.layers.neurons.spiking import PerNeuron, rows_of
from eventsim.signals import Dense, FloatArray, Rows, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class Threshold(Layer):
    r"""Spikes where a value is above a threshold in this very step: a NIR ``Threshold``.

    .. math:: s = 1 \;\text{where}\; x > \theta \quad\text{(strict)} \qquad\text{or}\qquad x \ge \theta

    There is no membrane potential, so no neuron is counted; every value looked at is a comparison.

    Parameters
    ----------
    threshold : float or float32 array (channels,) or of the per-step shape
    strict : bool
        Fire above the threshold only.
    """

    threshold: PerNeuron = 1.0
    strict: bool = True

    role: ClassVar[Role] = "scaling"

    @property
    def parameters(self) -> int:
        """Return 0: thresholds are not weights."""
        return 0

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return spikes at the same positions."""
        (source,) = inputs
        rows_of(self.threshold, "threshold", source)
        return replace(source, kind="binary", dense=False)

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return where values are above the threshold."""
        (x,) = inputs
        threshold = spread(self.threshold, x.shape[1:])
        return np.asarray(x > threshold if self.strict else x >= threshold, np.float32)

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        (source,) = inputs
        return ThresholdOp(self.output_type(source), rows_of(self.threshold, "threshold", source), self.strict)


class ThresholdOp(Op):
    """Compares every value, the silent ones too: a negative threshold lets them fire."""

    kernel = "threshold"
    state_names = ()
    looks_ahead = False
    once_if_static = True
    plays = True

    def __init__(self, output: SignalType, threshold: FloatArray, strict: bool) -> None:
        self.output = output
        self.threshold = threshold
        self.strict = strict

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Rows:
        """Compare one chunk."""
        signal = inputs[0]
        indptr, indices, no_values = room_for(self.output, signal.steps, context)
        data = every_channel(signal, context)
        context.call(list_above, data, self.threshold, self.strict, indptr, indices)
        context.rows.add("comparisons", self.output.size)
        return Rows.within(self.output, signal.steps, indptr, indices, no_values)
