"""Channels side by side."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from eventsim.context import Context
from eventsim.kernels.moving import concat_channels, concat_rows
from eventsim.layers.dense import Memory, channel_axis
from eventsim.layers.layer import LayerError, Op
from eventsim.layers.listing import every_channel, room_for
from eventsim.layers.routing import Routing
from eventsim.signals import Dense, FloatArray, Kind, Rows, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class Concat(Routing):
    """The channels of the first input, then those of the second, at every position.

    The result is real if an input is, else graded if an input is, else binary.
    """

    arguments: ClassVar[int] = 2

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return the joint type."""
        a, b = inputs
        if a.grid != b.grid:
            raise LayerError(f"inputs {a} and {b} found; expected equal positions")
        kinds = {a.kind, b.kind}
        kind: Kind = "real" if "real" in kinds else "graded" if "graded" in kinds else "binary"
        return replace(a, kind=kind, channels=a.channels + b.channels, dense=kind == "real")

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the channels side by side."""
        return np.concatenate(inputs, axis=channel_axis(inputs[0]))

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        return ConcatOp(self.output_type(*inputs))


class ConcatOp(Op):
    """Copies; nothing is computed."""

    state_names = ()
    looks_ahead = False
    once_if_static = True
    plays = True

    def __init__(self, output: SignalType) -> None:
        self.output = output
        self.kernel = "concat_dense" if output.dense else "concat_rows"

    def advance(self, inputs: tuple[Rows | Dense, Rows | Dense], context: Context) -> Rows | Dense:
        """Join one chunk."""
        a, b = inputs
        if self.output.dense:
            data = context.buffers.floats(a.steps * self.output.size).reshape(-1, self.output.channels)
            context.call(concat_channels, every_channel(a, context), every_channel(b, context), data)
            return Dense(self.output, a.steps, data)
        assert isinstance(a, Rows)
        assert isinstance(b, Rows)
        joined = room_for(self.output, a.steps, context)
        context.call(concat_rows, a.whole, b.whole, a.type.channels, joined)
        return Rows.within(self.output, a.steps, *joined)
