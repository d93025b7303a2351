"""From a map to one vector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eventsim.context import Context
from eventsim.kernels.rows import flatten_rows
from eventsim.layers.dense import Memory
from eventsim.layers.layer import Op
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

    def __init__(self, source: SignalType, output: SignalType) -> None:
        self.source = source
        self.output = output

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Rows | Dense:
        """Flatten each step of one chunk."""
        signal = inputs[0]
        positions, channels = self.source.positions, self.source.channels
        channel_major = len(self.source.grid) == 2
        if isinstance(signal, Dense):
            maps = signal.data.reshape(signal.steps, positions, channels)
            data = np.ascontiguousarray(maps.swapaxes(1, 2) if channel_major else maps)
            return Dense(self.output, signal.steps, data.reshape(signal.steps, self.output.channels))
        indptr = np.ascontiguousarray(signal.indptr[::positions])
        if not channel_major:
            row = np.repeat(np.arange(len(signal.indptr) - 1), np.diff(signal.indptr)) % positions
            flat = (row * channels + signal.indices).astype(np.int32)
            return Rows(self.output, signal.steps, indptr, flat, signal.values)
        order = np.empty(signal.nonzeros, np.int64)
        flat = np.empty(signal.nonzeros, np.int32)
        flatten_rows(signal.indptr, signal.indices, positions, channels, order, flat)
        values = None if signal.values is None else signal.values[order]
        return Rows(self.output, signal.steps, indptr, flat, values)
