"""Values rounded to small integers, without memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from eventsim.context import Context
from eventsim.facts import Role
from eventsim.layers.dense import Memory
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.listing import rows_from_dense, without_zeros
from eventsim.signals import Dense, FloatArray, Rows, SignalType

LARGEST = 2**24
"""Integers up to here are exact in float32."""


@dataclass(frozen=True, eq=False, repr=False)
class IntegerActivation(Layer):
    r"""Each value clamped and rounded to an integer in this very step: as many spikes as a neuron would fire at once.

    .. math:: y = \mathrm{round}\big(\min(\max(x, 0), maximum)\big)

    Quantised activations and integer-valued training (I-LIF, Spike-driven Transformer V3) have it, often divided by
    the maximum afterwards: that factor belongs to the weights or the attention scale that come next, or to an `Affine`,
    so that integers stay integers. There is no membrane potential, so no neuron is counted; every value looked at is a
    comparison. Zeros that arrive in rows stay zeros and are not looked at.

    Parameters
    ----------
    maximum : int
        The largest integer.
    ties : {"even", "up"}
        A value halfway between two integers becomes the even one, as in PyTorch's round, or the upper one, as in
        floor(x + 0.5).
    """

    maximum: int = 4
    ties: Literal["even", "up"] = "even"

    role: ClassVar[Role] = "scaling"

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return graded values at the same positions."""
        (source,) = inputs
        if not 1 <= self.maximum <= LARGEST:
            raise LayerError(f"maximum {self.maximum} found; expected 1 to {LARGEST}")
        if self.ties not in ("even", "up"):
            raise LayerError(f"ties {self.ties!r} found; expected 'even' or 'up'")
        return replace(source, kind="graded", dense=False)

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the rounded values, in float32."""
        clamped = np.clip(inputs[0], np.float32(0), np.float32(self.maximum))
        return np.rint(clamped) if self.ties == "even" else np.floor(clamped + np.float32(0.5))

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        return IntegerActivationOp(self.output_type(*inputs), self.maximum, self.ties)


class IntegerActivationOp(Op):
    """Rounds the values that are not zero, or every dense one."""

    kernel = "numpy"
    state_names = ()
    looks_ahead = False
    once_if_static = True

    def __init__(self, output: SignalType, maximum: int, ties: str) -> None:
        self.output = output
        self.maximum = np.float32(maximum)
        self.ties = ties

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Rows:
        """Round one chunk."""
        signal = inputs[0]
        if isinstance(signal, Dense):
            context.rows.add("comparisons", self.output.size)
            return rows_from_dense(self.output, signal.steps, self._rounded(signal.data))
        context.rows.add("comparisons", signal.nonzeros_by_step)
        values = np.ones(signal.nonzeros, np.float32) if signal.values is None else self._rounded(signal.values)
        return without_zeros(Rows(self.output, signal.steps, signal.indptr, signal.indices, values))

    def _rounded(self, values: FloatArray) -> FloatArray:
        clamped = np.clip(values, np.float32(0), self.maximum)
        rounded: FloatArray = np.rint(clamped) if self.ties == "even" else np.floor(clamped + np.float32(0.5))
        return rounded
