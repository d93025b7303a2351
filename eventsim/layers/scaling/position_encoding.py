"""Learned encoding of where and when a value is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from eventsim.context import Context
from eventsim.facts import Entailed, Role
from eventsim.kernels.filling import add, repeat
from eventsim.kernels.rows import sum_rows
from eventsim.layers.dense import Memory, in_shape, tokens
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.listing import every_channel
from eventsim.signals import Dense, FloatArray, Rows, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class PositionEncoding(Layer):
    r"""Add a learned array to every time step.

    .. math:: y_{t,c,n} = x_{t,c,n} + p_{t,c,n}

    An axis of size 1 is repeated: ``(1, C, N)`` tells positions apart, ``(T, C, 1)`` time steps, ``(T, C, N)`` both.
    A sample shorter than the encoding meets its beginning; a longer one is refused.

    Parameters
    ----------
    encoding : float32 array (T or 1, channels or 1, positions or 1)
        The p above. Positions of a map are its pixels, row by row.
    """

    encoding: FloatArray

    role: ClassVar[Role] = "scaling"

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return dense real values at the same positions."""
        (source,) = inputs
        channels, positions = source.channels, source.positions
        shape = self.encoding.shape
        if len(shape) != 3 or shape[0] < 1 or shape[1] not in (1, channels) or shape[2] not in (1, positions):
            raise LayerError(
                f"encoding of shape {shape} found; expected (time steps or 1, {channels} or 1, {positions} or 1)"
            )
        return replace(source, kind="real", dense=True)

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return the entry of the encoding that an addition reads."""
        return {"additions": {"weight_reads": 1}}

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the sums, in float32."""
        (x,) = inputs
        first = memory.kept.get("step", 0) if len(self.encoding) > 1 else 0
        memory.kept["step"] = first + len(x)
        if len(self.encoding) > 1 and first + len(x) > len(self.encoding):
            raise LayerError(f"{first + len(x)} time steps found; the encoding has {len(self.encoding)}")
        encoding = self.encoding[first : first + len(x)] if len(self.encoding) > 1 else self.encoding
        return in_shape(tokens(x) + encoding.swapaxes(1, 2), x.shape[1:])

    def absolute(self) -> Layer:
        """Return the layer of the absolute encoding."""
        return replace(self, encoding=np.abs(self.encoding))

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        return PositionEncodingOp(self.encoding, self.output_type(*inputs))


class PositionEncodingOp(Op):
    """Holds the index of the next time step."""

    kernel = "dense_add"
    looks_ahead = False
    plays = True

    def __init__(self, encoding: FloatArray, output: SignalType) -> None:
        steps = np.broadcast_to(encoding.swapaxes(1, 2), (len(encoding), output.positions, output.channels))
        self.encoding = np.ascontiguousarray(
            steps, np.float32
        )  # of every value: numbers side by side are added fastest
        self.output = output
        self.once_if_static = len(encoding) == 1
        self.state_names = () if self.once_if_static else ("step",)
        self.reset()

    def reset(self) -> None:
        """Begin at the first time step."""
        self.step = 0

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Dense:
        """Add the encoding to one chunk."""
        signal = inputs[0]
        encoding = self.encoding
        if self.state_names:
            stop = self.step + signal.steps
            if stop > len(encoding):
                raise LayerError(f"{stop} time steps found; the encoding has {len(encoding)}, import it for more steps")
            encoding = encoding[self.step : stop]
            self.step = stop
        data = context.buffers.floats(signal.steps * self.output.size).reshape(-1, self.output.channels)
        if isinstance(signal, Dense):
            context.call(add, every_channel(signal, context), encoding, data)
        else:
            context.call(repeat, encoding, data)
            context.call(sum_rows, *signal.whole, 1, data)
        context.rows.add("additions", self.output.size)
        return Dense(self.output, signal.steps, data)
