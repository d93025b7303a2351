"""Chosen channels, in a chosen order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eventsim.context import Context
from eventsim.kernels.moving import take_values
from eventsim.layers.dense import Memory, channel_axis
from eventsim.layers.layer import LayerError, Op
from eventsim.layers.listing import every_channel
from eventsim.layers.routing import Routing
from eventsim.layers.shapes.moved_rows import moved_rows
from eventsim.signals import CountArray, Dense, FloatArray, IntArray, Rows, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class SelectChannels(Routing):
    r"""The channels named by `indices`, in this order, at every position.

    .. math:: y_{p,c} = x_{p,\, indices_c}

    A slice (q, k or v of one projection), a permutation (a channel shuffle, heads interleaved otherwise), a repetition:
    a channel may be chosen several times, or not at all. Behind a `Flatten` it moves values between positions too.

    Parameters
    ----------
    indices : int array (channels of the output,)
    """

    indices: IntArray | CountArray

    @property
    def parameters(self) -> int:
        """Return 0: indices are not weights."""
        return 0

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return the same kind with the chosen channels."""
        (source,) = inputs
        indices = self.indices
        if indices.ndim != 1 or not len(indices) or indices.dtype.kind not in "iu":
            raise LayerError(f"indices {indices.dtype} of shape {indices.shape} found; expected one list of integers")
        if indices.min() < 0 or indices.max() >= source.channels:
            raise LayerError(
                f"indices from {indices.min()} to {indices.max()} found; expected 0 to {source.channels - 1}"
            )
        return replace(source, channels=len(indices))

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the chosen channels."""
        (x,) = inputs
        return np.take(x, self.indices, axis=channel_axis(x))

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        (source,) = inputs
        return SelectChannelsOp(self.output_type(source), self.indices.astype(np.int64), source.channels)


class SelectChannelsOp(Op):
    """Copies; nothing is computed."""

    state_names = ()
    looks_ahead = False
    once_if_static = True
    plays = True

    def __init__(self, output: SignalType, indices: CountArray, channels: int) -> None:
        self.output = output
        self.indices = indices.astype(np.int64)
        # the places in the output that each channel of the input goes to, one list after the other
        begins = np.concatenate([[0], np.cumsum(np.bincount(indices, minlength=channels))])
        self.lists = begins, np.argsort(indices, kind="stable")
        self.kernel = "select_dense" if output.dense else "select_rows"

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Rows | Dense:
        """Select from one chunk."""
        signal, output = inputs[0], self.output
        if isinstance(signal, Dense):
            data = context.buffers.floats(signal.steps * output.size).reshape(-1, output.channels)
            context.call(take_values, every_channel(signal, context), self.indices, data)
            return Dense(output, signal.steps, data)
        return moved_rows(signal, output, self.lists, context, together=False)
