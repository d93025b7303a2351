"""The same values in another shape."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from eventsim.context import Context
from eventsim.kernels.moving import take_values
from eventsim.layers.dense import Memory
from eventsim.layers.layer import LayerError, Op
from eventsim.layers.listing import every_channel
from eventsim.layers.routing import Routing
from eventsim.layers.shapes.moved_rows import moved_rows
from eventsim.signals import Dense, FloatArray, IntArray, Rows, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class Reshape(Routing):
    """The values of a time step in another shape, in PyTorch's order: ``x.reshape(shape)``.

    `Flatten` is the one to a single axis.

    Parameters
    ----------
    shape : tuple of int
        ``(C, H, W)``, ``(N, C)`` or ``(C,)``.
    """

    shape: tuple[int, ...]

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return the same kind in the new shape."""
        (source,) = inputs
        if not 1 <= len(self.shape) <= 3 or prod(self.shape) != source.size or min(self.shape) < 1:
            raise LayerError(f"shape {self.shape} found; expected 1 to 3 axes of {source.size} values, as {source} has")
        if len(self.shape) == 3:
            return SignalType(source.kind, self.shape[0], self.shape[1:], source.dense)
        return SignalType(source.kind, self.shape[-1], self.shape[:-1], source.dense)

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return every time step in the new shape."""
        return inputs[0].reshape(len(inputs[0]), *self.shape)

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        (source,) = inputs
        return ReshapeOp(source, self.output_type(source))


class ReshapeOp(Op):
    """Renumbers rows and channels; nothing is computed."""

    kernel = "reshape_rows"
    state_names = ()
    looks_ahead = False
    once_if_static = True
    plays = True

    def __init__(self, source: SignalType, output: SignalType) -> None:
        self.output = output
        taken = places_of(source)  # by place in PyTorch's order: where the value is in rows
        place = np.empty(source.size, np.int64)  # by place in the source's rows: where it is in the output's
        place[taken[_inverse(places_of(output))]] = np.arange(source.size)
        self.lists = np.arange(source.size + 1), place
        self.source_of = np.argsort(place)

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Rows | Dense:
        """Reshape each step of one chunk."""
        signal, output = inputs[0], self.output
        if isinstance(signal, Dense):
            data = context.buffers.floats(signal.steps * output.size).reshape(signal.steps, output.size)
            given = every_channel(signal, context).reshape(signal.steps, output.size)
            context.call(take_values, given, self.source_of, data)
            return Dense(output, signal.steps, data.reshape(-1, output.channels))
        return moved_rows(signal, output, self.lists, context)


def places_of(kind: SignalType) -> IntArray:
    """Return, by place in PyTorch's order, the place in the rows of one step."""
    places = np.arange(kind.size, dtype=np.int32).reshape(kind.positions, kind.channels)
    return np.ascontiguousarray(places.T if len(kind.grid) == 2 else places).ravel()


def _inverse(order: IntArray) -> IntArray:
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order), dtype=np.int32)
    return inverse
