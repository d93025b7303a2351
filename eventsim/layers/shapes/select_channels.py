"""Chosen channels, in a chosen order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eventsim.context import Context
from eventsim.layers.dense import Memory, channel_axis
from eventsim.layers.layer import LayerError, Op
from eventsim.layers.routing import Routing
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

    def __init__(self, output: SignalType, indices: CountArray, channels: int) -> None:
        self.output = output
        self.indices = indices
        self.ascending = bool((np.diff(indices) > 0).all())
        # the places in the output that each channel of the input goes to, one list after the other
        self.places = np.argsort(indices, kind="stable")
        self.copies = np.bincount(indices, minlength=channels)
        self.first = np.cumsum(self.copies) - self.copies
        self.kernel = "select_dense" if output.dense else "select_rows"

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Rows | Dense:
        """Select from one chunk."""
        signal, output = inputs[0], self.output
        if isinstance(signal, Dense):
            return Dense(output, signal.steps, np.take(signal.data, self.indices, axis=1))
        rows = len(signal.indptr) - 1
        copies = self.copies[signal.indices]
        event = np.repeat(np.arange(signal.nonzeros), copies)
        nth = np.arange(len(event)) - (np.cumsum(copies) - copies)[event]
        row = np.repeat(np.arange(rows), np.diff(signal.indptr))[event]
        channel = self.places[self.first[signal.indices[event]] + nth]
        if not self.ascending:
            order = np.argsort(row * output.channels + channel)
            event, channel = event[order], channel[order]  # rows stay in order
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(row, minlength=rows))])
        values = None if signal.values is None else signal.values[event]
        return Rows(output, signal.steps, indptr, channel.astype(np.int32), values)
