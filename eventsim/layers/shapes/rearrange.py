"""Values of a time step in other places."""

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
from eventsim.layers.shapes.reshape import places_of
from eventsim.signals import CountArray, Dense, FloatArray, IntArray, Rows, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class Rearrange(Routing):
    r"""The values of a time step in other places of another shape, some left out, some repeated, zeros between them.

    .. math:: y_i = x_{indices_i} \text{ where } indices_i \ge 0, \text{ else } 0

    with places in PyTorch's order of the per-step shapes. Tokens and channels exchanged, windows of a map, a border of
    zeros, pixels repeated (nearest interpolation), pixel shuffle, a shift around the border and any part are such.
    Where nothing moves between positions `SelectChannels` does it, and `Reshape` where nothing moves at all.

    Parameters
    ----------
    indices : int array (values of a time step of the output,)
        From -1, which is a zero, to the values of a time step of the input, less one.
    shape : tuple of int
        ``(C, H, W)``, ``(N, C)`` or ``(C,)``.
    """

    indices: IntArray | CountArray
    shape: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """Return 0: indices are not weights."""
        return 0

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return the same kind in the new shape."""
        (source,), indices = inputs, self.indices
        if not 1 <= len(self.shape) <= 3 or min(self.shape) < 1:
            raise LayerError(f"shape {self.shape} found; expected 1 to 3 axes of 1 or more")
        if indices.shape != (prod(self.shape),) or indices.dtype.kind not in "iu":
            raise LayerError(
                f"indices {indices.dtype} of shape {indices.shape} found; expected {prod(self.shape)} integers"
            )
        if indices.min() < -1 or indices.max() >= source.size:
            raise LayerError(
                f"indices from {indices.min()} to {indices.max()} found; expected -1, for a zero, to {source.size - 1}"
            )
        if len(self.shape) == 3:
            return SignalType(source.kind, self.shape[0], self.shape[1:], source.dense)
        return SignalType(source.kind, self.shape[-1], self.shape[:-1], source.dense)

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the values in their new places, zeros where there is none."""
        (x,) = inputs
        values = x.reshape(len(x), prod(x.shape[1:]))[:, np.maximum(self.indices, 0)]
        values[:, self.indices < 0] = 0
        return values.reshape(len(x), *self.shape)

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        (source,) = inputs
        return RearrangeOp(source, self.output_type(source), self.indices.astype(np.int64))


class RearrangeOp(Op):
    """Copies; nothing is computed."""

    state_names = ()
    looks_ahead = False
    once_if_static = True
    plays = True

    def __init__(self, source: SignalType, output: SignalType, indices: CountArray) -> None:
        self.output = output
        self.source = source
        self.kernel = "rearrange_dense" if output.dense else "rearrange_rows"
        taken = np.full(output.size, -1, np.int64)  # by place in the rows of a step, the place in the input's
        taken[places_of(output)] = np.where(indices < 0, -1, places_of(source)[indices])
        self.taken = taken
        filled = np.flatnonzero(taken >= 0)
        # the places in the output that each value of the input goes to, one list after the other
        self.places = filled[np.argsort(taken[filled], kind="stable")]
        self.begins = np.concatenate([[0], np.cumsum(np.bincount(taken[filled], minlength=source.size))])

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Rows | Dense:
        """Move the values of one chunk."""
        signal, output = inputs[0], self.output
        if isinstance(signal, Dense):
            data = context.buffers.floats(signal.steps * output.size).reshape(signal.steps, output.size)
            given = every_channel(signal, context).reshape(signal.steps, self.source.size)
            context.call(take_values, given, self.taken, data)
            return Dense(output, signal.steps, data.reshape(-1, output.channels))
        return moved_rows(signal, output, (self.begins, self.places), context)
