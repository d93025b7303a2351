"""Where a residual branch joins its shortcut."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from eventsim.context import Context
from eventsim.facts import Entailed, Role
from eventsim.kernels.filling import add, copy
from eventsim.kernels.nonzeros import SPARE
from eventsim.kernels.rows import join_rows, sum_rows
from eventsim.layers.dense import Memory
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.listing import every_channel, room_for
from eventsim.signals import Dense, FloatArray, Rows, SignalType

MODES = ("add", "iand", "and")


@dataclass(frozen=True, eq=False, repr=False)
class Residual(Layer):
    """Join of a shortcut ``a`` (first input) and a branch ``b`` (second input), element by element.

    ``"add"``: a + b, graded unless an input is real, and rows of non-zeros unless an input is dense. ``"iand"``:
    a (1 - b) and ``"and"``: a b, binary, on spikes only. The three element-wise functions of SEW-ResNet.

    Parameters
    ----------
    mode : {"add", "iand", "and"}
    """

    mode: Literal["add", "iand", "and"] = "add"

    arguments: ClassVar[int] = 2
    role: ClassVar[Role] = "join"

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return the type of the join."""
        a, b = inputs
        if self.mode not in MODES:
            raise LayerError(f"mode {self.mode!r} found; expected one of {MODES}")
        if a.shape != b.shape:
            raise LayerError(f"inputs {a} and {b} found; expected equal shapes")
        if self.mode != "add":
            if a.kind != "binary" or b.kind != "binary":
                raise LayerError(f"inputs {a} and {b} found; {self.mode!r} expects spikes on both sides")
            return a
        return replace(a, kind="real" if "real" in (a.kind, b.kind) else "graded", dense=a.dense or b.dense)

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return that its additions are residual ones."""
        return {"additions": {"residual_additions": 1}}

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the join of every two values, in float32."""
        a, b = inputs
        if self.mode == "add":
            return a + b
        return a * (1 - b) if self.mode == "iand" else a * b

    def absolute(self) -> Layer | None:
        """Return the layer itself where it adds."""
        return self if self.mode == "add" else None

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        return ResidualOp(self.output_type(*inputs), MODES.index(self.mode))


class ResidualOp(Op):
    """Merges rows, or adds dense rows."""

    state_names = ()
    looks_ahead = False
    once_if_static = True
    plays = True

    def __init__(self, output: SignalType, mode: int) -> None:
        self.output = output
        self.mode = mode
        self.kernel = "dense_add" if output.dense else "join_rows"

    def advance(self, inputs: tuple[Rows | Dense, Rows | Dense], context: Context) -> Rows | Dense:
        """Join one chunk."""
        a, b = inputs
        if self.output.dense:
            context.rows.add("additions", self.output.size)
            return Dense(self.output, a.steps, self._added(a, b, context))
        assert isinstance(a, Rows)
        assert isinstance(b, Rows)
        joined = room_for(replace(self.output, kind="real"), a.steps, context, SPARE)
        meetings = context.counts(a.steps)
        context.call(join_rows, a.whole, b.whole, self.output.channels, self.mode, *joined, meetings)
        context.rows.add("additions" if MODES[self.mode] == "add" else "comparisons", meetings)
        return Rows.within(self.output, a.steps, *joined)

    def _added(self, a: Rows | Dense, b: Rows | Dense, context: Context) -> FloatArray:
        """Return the sum of two signals, of which one at least is dense."""
        size = a.steps * self.output.positions
        added = context.buffers.floats(size * self.output.channels).reshape(size, self.output.channels)
        if isinstance(a, Dense) and isinstance(b, Dense):
            context.call(add, every_channel(a, context), every_channel(b, context), added)
            return added
        dense, rows = (b, a) if isinstance(a, Rows) else (a, b)
        assert isinstance(dense, Dense)
        assert isinstance(rows, Rows)
        context.call(copy, every_channel(dense, context), added)
        context.call(sum_rows, *rows.whole, 1, added)
        return added
