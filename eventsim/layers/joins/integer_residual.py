"""Where sums of integers join others, or spikes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from eventsim.context import Context
from eventsim.facts import Entailed, Role, merged
from eventsim.kernels.filling import fill
from eventsim.kernels.rows import add_dense, add_rows
from eventsim.layers.dense import Memory, spread
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.signals import Dense, FloatArray, IntArray, Rows, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class IntegerResidual(Layer):
    """Sum of two inputs, each counted in a unit of its own: ``factors[0] a + factors[1] b``, integers.

    Sums of integer layers have a factor of 1, and spikes or graded values the number of units of such a sum that they
    are worth. What is emitted are integers, in float32, where they are exact up to 2^24; who puts the network together
    sees to that.

    Parameters
    ----------
    factors : int32 array (2, channels)
        From 1 on.
    """

    factors: IntArray

    arguments: ClassVar[int] = 2
    role: ClassVar[Role] = "join"

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return real values, which are integers."""
        a, b = inputs
        if a.shape != b.shape:
            raise LayerError(f"inputs {a} and {b} found; expected equal shapes")
        if self.factors.dtype.kind != "i" or self.factors.shape != (2, a.channels) or self.factors.min(initial=1) < 1:
            raise LayerError(
                f"factors of {self.factors.dtype} {self.factors.shape} from {self.factors.min(initial=1)} on found; "
                f"expected integers (2, {a.channels}) from 1 on"
            )
        return replace(a, kind="real", dense=True)

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return that its additions are residual ones, and that a factor is a weight."""
        return merged({"additions": {"residual_additions": 1}, "scale_multiplications": {"weight_reads": 1}})

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the sum of every two values."""
        a, b = (x * spread(f.astype(np.float32), x.shape[1:]) for x, f in zip(inputs, self.factors, strict=True))
        return np.asarray(a + b, np.float32)

    def absolute(self) -> Layer:
        """Return the layer itself: it has no negative factor."""
        return self

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        return IntegerResidualOp(self, self.output_type(*inputs))


class IntegerResidualOp(Op):
    """Adds dense rows, one of which may be listed."""

    state_names = ()
    looks_ahead = False
    once_if_static = True
    plays = True
    kernel = "dense_add"

    def __init__(self, layer: IntegerResidual, output: SignalType) -> None:
        self.output = output
        self.factors = layer.factors.astype(np.float32)

    def advance(self, inputs: tuple[Rows | Dense, Rows | Dense], context: Context) -> Dense:
        """Join one chunk."""
        size = inputs[0].steps * self.output.positions
        out = context.buffers.floats(size * self.output.channels).reshape(size, self.output.channels)
        context.call(fill, out, 0.0)
        for signal, factors in zip(inputs, self.factors, strict=True):
            if isinstance(signal, Dense):
                context.call(add_dense, signal.data, factors, out)
            else:
                context.call(add_rows, signal.whole, factors, out)
            if (factors != 1).any():
                context.rows.add("scale_multiplications", context.by_step(signal))
        context.rows.add("additions", self.output.size)
        return Dense(self.output, inputs[0].steps, out)
