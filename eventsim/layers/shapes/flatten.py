"""From a map to one vector."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eventsim.context import Context
from eventsim.kernels.moving import flatten_tokens
from eventsim.kernels.rows import flatten_rows
from eventsim.layers.dense import Memory
from eventsim.layers.layer import Op
from eventsim.layers.listing import room_for
from eventsim.layers.routing import Routing
from eventsim.signals import Dense, FloatArray, Rows, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class Flatten(Routing):
    """All positions of a time step as one vector, in PyTorch's order of the per-step shape.

    For a map ``(C, H, W)``: index = (c * H + y) * W + x; for tokens ``(N, C)``: index = n * C + c.
    """

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return one vector of the same kind."""
        (source,) = inputs
        return SignalType(source.kind, source.size, (), source.dense)

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return every time step as one vector."""
        (x,) = inputs
        return x.reshape(len(x), int(np.prod(x.shape[1:])))

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        (source,) = inputs
        return FlattenOp(source, self.output_type(source))


class FlattenOp(Op):
    """Renumbers channels; nothing is computed."""

    kernel = "flatten_rows"
    state_names = ()
    looks_ahead = False
    once_if_static = True
    plays = True

    def __init__(self, source: SignalType, output: SignalType) -> None:
        self.source = source
        self.output = output

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Rows | Dense:
        """Flatten each step of one chunk."""
        signal = inputs[0]
        positions, channels = self.source.positions, self.source.channels
        channel_major = len(self.source.grid) == 2
        if isinstance(signal, Dense):
            if not channel_major:
                return Dense(self.output, signal.steps, signal.data.reshape(signal.steps, self.output.channels))
            data = context.buffers.floats(signal.data.size).reshape(signal.steps, channels, positions)
            context.call(np.copyto, data, signal.data.reshape(signal.steps, positions, channels).swapaxes(1, 2))
            return Dense(self.output, signal.steps, data.reshape(signal.steps, self.output.channels))
        if channel_major:
            flat = room_for(self.output, signal.steps, context)
            context.call(flatten_rows, signal.whole, positions, channels, flat)
            return Rows.within(self.output, signal.steps, *flat)
        indptr, indices, _ = room_for(replace(self.output, kind="binary"), signal.steps, context)
        context.call(flatten_tokens, signal.whole, positions, channels, indptr, indices)
        return Rows.within(self.output, signal.steps, indptr, indices, signal.whole[2])
