"""Pooling by learned attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eventsim.context import Context
from eventsim.facts import Entailed, Role, Words, arriving, merged
from eventsim.kernels.attention_pool import pool_by_attention
from eventsim.kernels.filling import fill
from eventsim.layers.dense import Memory, Reals, tokens
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.listing import every_channel
from eventsim.layers.synapses.gathering import report_inputs
from eventsim.signals import Dense, FloatArray, Rows, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class AttentionPool(Layer):
    r"""Weighted mean over all positions and time steps, emitted once, with the last step of the sample.

    .. math:: y = \sum_{t,n} a_{t,n}\, x_{t,n}, \qquad a = \mathrm{softmax}_{t,n}(w \cdot x_{t,n})

    A bias of the logits would cancel. The sums run step by step in float32, scaled to the largest logit so far
    (Milakov and Gimelshein, 2018), so nothing but one vector is kept and the result does not depend on the chunk size.
    That scaling is not counted.

    Parameters
    ----------
    weight : float32 array (channels,)
    """

    weight: FloatArray

    role: ClassVar[Role] = "pool"

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return one real vector."""
        (source,) = inputs
        if self.weight.shape != (source.channels,):
            raise LayerError(f"weight of shape {self.weight.shape} found; expected ({source.channels},)")
        return SignalType("real", source.channels, (), dense=True)

    def dense_macs(self, *inputs: SignalType) -> int:
        """Return 2 N D: the logits, and the sum that they weight."""
        return 2 * inputs[0].size

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the weighted mean in float64, with the last piece."""
        rows = tokens(inputs[0]).astype(np.float64)
        return self._pooled(rows, rows, memory)

    def terms(self, inputs: tuple[FloatArray, ...], output: FloatArray, memory: Memory) -> FloatArray:
        """Return the mean of absolute values, times one and the largest sum of absolute terms of a logit."""
        rows = tokens(inputs[0]).astype(np.float64)
        largest = (np.abs(rows) @ np.abs(self.weight)).max(initial=memory.kept.get("largest", 0.0))
        memory.kept["largest"] = largest
        return self._pooled(rows, np.abs(rows), memory) * np.float32(1 + 2 * largest)

    def _pooled(self, rows: Reals, values: Reals, memory: Memory) -> FloatArray:
        """Weight `values` by the softmax of the logits of `rows`, over all pieces."""
        peak, total, pooled = memory.kept.get("pooled", (-np.inf, 0.0, np.zeros(rows.shape[2])))
        logits = rows @ self.weight.astype(np.float64)
        if logits.size:
            higher = max(peak, float(logits.max()))
            kept, weights = np.exp(peak - higher), np.exp(logits - higher)
            total = total * kept + weights.sum()
            pooled = pooled * kept + np.einsum("tn,tnc->c", weights, values)
            peak = higher
        memory.kept["pooled"] = peak, total, pooled
        return np.asarray((pooled / total)[None] if memory.final else pooled[None][:0], np.float32)

    def words(self, *inputs: SignalType) -> Mapping[str, Words]:
        """Return the weights, and the sums of a logit, of the weights of rows and of the weighted rows."""
        return {"weight": Words(self.weight.size), "sum": Words(2 + inputs[0].channels)}

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return the sum that a product is added to, and the input that is read."""
        return merged(arriving(*inputs), {"macs": {"sum_reads": 1, "sum_writes": 1}})

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        return AttentionPoolOp(self.weight, self.output_type(*inputs))


class AttentionPoolOp(Op):
    """Holds the largest logit, and the sums of weights and of weighted rows."""

    kernel = "attention_pool"
    state_names = ("seen", "pooled", "steps")
    looks_ahead = False
    once_if_static = False
    plays = True

    def __init__(self, weight: FloatArray, output: SignalType) -> None:
        self.weight = np.ascontiguousarray(weight, np.float32)
        self.output = output
        self.reset()

    def reset(self) -> None:
        """Forget the steps seen."""
        self.seen = np.array([-np.inf, 0], np.float32)
        self.pooled = np.zeros(self.output.channels, np.float32)
        self.steps = 0

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Dense:
        """Add one chunk; emit the weighted mean if it is the final one, else nothing."""
        signal = inputs[0]
        shape = signal.steps, signal.type.positions, signal.type.channels
        rows = every_channel(signal, context).reshape(shape)
        if self.steps == 0:
            context.call(fill, self.seen[:1], np.float32(-np.inf))
            context.call(fill, self.seen[1:], np.float32(0))
            context.call(fill, self.pooled, np.float32(0))
        mean = context.buffers.floats(self.output.channels)
        context.call(pool_by_attention, rows, self.weight, self.seen, self.pooled, mean)
        self.steps += signal.steps
        report_inputs(signal, context)
        context.rows.add("macs", 2 * signal.type.size)
        context.rows.add("weight_reads", signal.type.size)
        context.rows.add("exponentials", signal.type.positions)
        if not context.final:
            return Dense(self.output, 0, mean[None][:0])
        context.rows.part(signal.steps - 1, signal.steps).add("divisions", self.output.channels)
        return Dense(self.output, 1, mean[None])
