"""Where the logits leave the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from eventsim.context import Context
from eventsim.facts import Entailed, Role, Words
from eventsim.kernels.filling import copy, fill
from eventsim.kernels.values_of_channels import add_up_rows
from eventsim.layers.dense import Memory
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.listing import every_channel
from eventsim.signals import Dense, FloatArray, Rows, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class Readout(Layer):
    """The logits of the sample: the last vector that arrived, or the sum over time (spike counts).

    Parameters
    ----------
    reduce : {"last", "sum"}
    """

    reduce: Literal["last", "sum"] = "last"

    role: ClassVar[Role] = "readout"

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return one real vector."""
        (source,) = inputs
        if self.reduce not in ("last", "sum"):
            raise LayerError(f"reduce {self.reduce!r} found; expected 'last' or 'sum'")
        if source.grid:
            raise LayerError(f"input {source} found; expected one vector of logits")
        return replace(source, kind="real", dense=True)

    def words(self, *inputs: SignalType) -> Mapping[str, Words]:
        """Return one sum for each logit, where they are added up."""
        return {"sum": Words(inputs[0].size)} if self.reduce == "sum" else {}

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return the sum that an addition reads and writes."""
        return {"additions": {"sum_reads": 1, "sum_writes": 1}}

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the vectors, or their sums over time, in float64."""
        (x,) = inputs
        if self.reduce == "last":
            return x
        sums = np.cumsum(np.concatenate([memory.kept.get("sum", np.zeros((1, x.shape[1]))), x]), axis=0)
        memory.kept["sum"] = sums[-1:]
        return np.asarray(sums[1:], np.float32)

    def absolute(self) -> Layer:
        """Return the layer itself: it moves values, and adds them up without weights."""
        return self

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        return ReadoutOp(self, inputs[0], self.output_type(*inputs))


class ReadoutOp(Op):
    """Holds the logits so far."""

    kernel = "readout"
    looks_ahead = False
    plays = True

    def __init__(self, layer: Readout, source: SignalType, output: SignalType) -> None:
        self.reduce = layer.reduce
        self.once_if_static = layer.reduce == "last"
        self.state_names = () if self.once_if_static else ("logits", "steps")
        self.output = output
        self.reset()

    def reset(self) -> None:
        """Forget the steps seen."""
        self.logits = np.zeros(self.output.channels, np.float32)
        self.steps = 0

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Dense:
        """Take in one chunk and emit the logits after each of its steps."""
        signal = inputs[0]
        so_far = context.buffers.floats(signal.steps * self.output.channels).reshape(-1, self.output.channels)
        if self.reduce == "last":
            context.call(copy, every_channel(signal, context), so_far)
            return Dense(self.output, signal.steps, so_far)
        if self.steps == 0:
            context.call(fill, self.logits, np.float32(0))
        self.steps += signal.steps
        context.call(add_up_rows, every_channel(signal, context), self.logits, so_far)
        context.rows.add("additions", context.by_step(signal))
        return Dense(self.output, signal.steps, so_far)
