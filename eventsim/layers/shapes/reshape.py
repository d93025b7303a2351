"""The same values in another shape."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from eventsim.context import Context
from eventsim.layers.dense import Memory
from eventsim.layers.layer import LayerError, Op
from eventsim.layers.routing import Routing
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

    def __init__(self, source: SignalType, output: SignalType) -> None:
        self.output = output
        self.taken = places_of(source)  # by place in PyTorch's order: where the value is in rows
        self.place = np.empty(source.size, np.int32)  # by place in the source's rows: where it is in the output's
        self.place[self.taken[_inverse(places_of(output))]] = np.arange(source.size, dtype=np.int32)

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Rows | Dense:
        """Reshape each step of one chunk."""
        signal, output = inputs[0], self.output
        if isinstance(signal, Dense):
            data = np.empty((signal.steps, output.size), np.float32)
            data[:, self.place] = signal.data.reshape(signal.steps, output.size)
            return Dense(output, signal.steps, data.reshape(-1, output.channels))
        row = np.repeat(np.arange(len(signal.indptr) - 1), np.diff(signal.indptr))
        step, position = np.divmod(row, signal.type.positions)
        place = step * output.size + self.place[position * signal.type.channels + signal.indices]
        order = np.argsort(place)
        new_row, channel = np.divmod(place[order], output.channels)
        counts = np.bincount(new_row, minlength=signal.steps * output.positions)
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]).astype(np.int64)
        values = None if signal.values is None else signal.values[order]
        return Rows(output, signal.steps, indptr, channel.astype(np.int32), values)


def places_of(kind: SignalType) -> IntArray:
    """Return, by place in PyTorch's order, the place in the rows of one step."""
    places = np.arange(kind.size, dtype=np.int32).reshape(kind.positions, kind.channels)
    return np.ascontiguousarray(places.T if len(kind.grid) == 2 else places).ravel()


def _inverse(order: IntArray) -> IntArray:
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order), dtype=np.int32)
    return inverse
