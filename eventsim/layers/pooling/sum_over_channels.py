"""Sum over channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from eventsim.context import Context
from eventsim.facts import Entailed, Role, Words
from eventsim.kernels.rows import sum_groups
from eventsim.layers.dense import Memory, in_shape, tokens
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.listing import rows_from_dense
from eventsim.signals import Dense, FloatArray, Rows, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class SumOverChannels(Layer):
    r"""Sum over neighbouring channels, such as those of each head, at every position.

    .. math:: y_{p,g} = \sum_{d < D} x_{p,\, g D + d}, \qquad D = channels / groups

    Parameters
    ----------
    groups : int
        Channels of the output: heads, or 1 for the sum over all channels.
    """

    groups: int = 1

    role: ClassVar[Role] = "pool"

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return graded values for spikes and graded ones, real and dense ones for real ones."""
        (source,) = inputs
        if self.groups < 1 or source.channels % self.groups:
            raise LayerError(f"{self.groups} groups found; expected a divisor of the {source.channels} channels")
        real = source.kind == "real"
        return replace(source, kind="real" if real else "graded", channels=self.groups, dense=real)

    def words(self, *inputs: SignalType) -> Mapping[str, Words]:
        """Return one sum for each value of the output."""
        return {"sum": Words(self.output_type(*inputs).size)}

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return the sum that an addition reads and writes."""
        return {"additions": {"sum_reads": 1, "sum_writes": 1}}

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the sums over each group of channels, in float64."""
        rows = tokens(inputs[0])
        sums = rows.reshape(*rows.shape[:2], self.groups, rows.shape[2] // self.groups).sum(axis=3, dtype=np.float64)
        return in_shape(sums, inputs[0].shape[1:])

    def absolute(self) -> Layer:
        """Return the layer itself: it moves values, and adds them up without weights."""
        return self

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        (source,) = inputs
        return SumOverChannelsOp(source, self.output_type(source))


class SumOverChannelsOp(Op):
    """Adds up the parts of rows."""

    state_names = ()
    looks_ahead = False
    once_if_static = True

    def __init__(self, source: SignalType, output: SignalType) -> None:
        self.size = source.channels // output.channels
        self.output = output
        self.kernel = "dense_sum" if source.dense else "sum_groups"

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Rows | Dense:
        """Add up each row of one chunk."""
        signal, output = inputs[0], self.output
        sums = np.zeros((signal.steps * output.positions, output.channels), np.float32)
        if isinstance(signal, Dense):
            parts = signal.data.reshape(len(sums), output.channels, self.size)
            for place in range(self.size):  # one order of additions, whatever the shape
                sums += parts[:, :, place]
            context.rows.add("additions", signal.type.size)
        else:
            sum_groups(*signal.triple, self.size, sums)
            context.rows.add("additions", signal.nonzeros_by_step)
        if output.kind == "graded":
            return rows_from_dense(output, signal.steps, sums)
        return Dense(output, signal.steps, sums)
