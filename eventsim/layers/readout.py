"""Where the logits leave the network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from eventsim.counts import Counts
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.signals import Dense, Rows, SignalType


@dataclass(frozen=True, eq=False)
class Readout(Layer):
    """The logits of the sample: the last vector that arrived, or the sum over time (spike counts).

    Parameters
    ----------
    reduce : {"last", "sum"}
    """

    reduce: Literal["last", "sum"] = "last"

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return one real vector."""
        (source,) = inputs
        if self.reduce not in ("last", "sum"):
            raise LayerError(f"reduce {self.reduce!r} found; expected 'last' or 'sum'")
        if source.grid:
            raise LayerError(f"input {source} found; expected one vector of logits")
        return replace(source, kind="real", dense=True)

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        return ReadoutOp(self, self.output_type(*inputs))


class ReadoutOp(Op):
    """Holds the logits so far."""

    kernel = "readout"
    stateless = False

    def __init__(self, layer: Readout, output: SignalType) -> None:
        self.reduce = layer.reduce
        self.output = output
        self.reset()

    def reset(self) -> None:
        """Forget the steps seen."""
        self.logits = np.zeros(self.output.channels, np.float32)

    def advance(self, inputs: tuple[Rows | Dense], final: bool) -> tuple[Dense, Counts]:
        """Take in one chunk and emit the logits after each of its steps."""
        signal = inputs[0]
        so_far = np.empty((signal.steps, self.output.channels), np.float32)
        for step, row in enumerate(signal.to_array()):
            self.logits = row.copy() if self.reduce == "last" else self.logits + row
            so_far[step] = self.logits
        added = signal.nonzeros if self.reduce == "sum" else 0
        return Dense(self.output, signal.steps, so_far), Counts(additions=added)
