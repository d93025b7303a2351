"""Sum over channels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eventsim.context import Context
from eventsim.kernels.filling import fill
from eventsim.kernels.rows import sum_groups
from eventsim.kernels.values_of_channels import add_neighbours
from eventsim.layers.dense import Memory, in_shape, tokens
from eventsim.layers.layer import LayerError, Op
from eventsim.layers.listing import every_channel, listed
from eventsim.layers.pooling.pool import Adding
from eventsim.signals import Dense, FloatArray, Rows, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class SumOverChannels(Adding):
    r"""Sum over neighbouring channels, such as those of each head, at every position.

    .. math:: y_{p,g} = \sum_{d < D} x_{p,\, g D + d}, \qquad D = channels / groups

    Parameters
    ----------
    groups : int
        Channels of the output: heads, or 1 for the sum over all channels.
    """

    groups: int = 1

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return graded values for spikes and graded ones, real and dense ones for real ones."""
        (source,) = inputs
        if self.groups < 1 or source.channels % self.groups:
            raise LayerError(f"{self.groups} groups found; expected a divisor of the {source.channels} channels")
        real = source.kind == "real"
        return replace(source, kind="real" if real else "graded", channels=self.groups, dense=real)

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the sums over each group of channels, in float64."""
        rows = tokens(inputs[0])
        sums = rows.reshape(*rows.shape[:2], self.groups, rows.shape[2] // self.groups).sum(axis=3, dtype=np.float64)
        return in_shape(sums, inputs[0].shape[1:])

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        (source,) = inputs
        return SumOverChannelsOp(source, self.output_type(source))


class SumOverChannelsOp(Op):
    """Adds up the parts of rows."""

    state_names = ()
    looks_ahead = False
    once_if_static = True
    plays = True

    def __init__(self, source: SignalType, output: SignalType) -> None:
        self.size = source.channels // output.channels
        self.output = output
        self.kernel = "dense_sum" if source.dense else "sum_groups"

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Rows | Dense:
        """Add up each row of one chunk."""
        signal, output = inputs[0], self.output
        sums = context.buffers.floats(signal.steps * output.size).reshape(-1, output.channels)
        if isinstance(signal, Dense):
            context.call(add_neighbours, every_channel(signal, context), self.size, sums)
            context.rows.add("additions", signal.type.size)
        else:
            context.call(fill, sums, np.float32(0))
            context.call(sum_groups, *signal.whole, self.size, sums)
            context.rows.add("additions", context.by_step(signal))
        if output.kind == "graded":
            return listed(output, signal.steps, sums, context)
        return Dense(output, signal.steps, sums)
