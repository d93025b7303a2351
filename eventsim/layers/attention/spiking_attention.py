"""Spiking self-attention."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from eventsim.context import Context
from eventsim.kernels.attention import attend_context_first, attend_scores_first
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.synapses.gathering import report_inputs
from eventsim.signals import FLOAT32_MAX, Dense, Rows, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class SpikingAttention(Layer):
    r"""Softmax-free self-attention on spikes (Spikformer), inputs q, k, v in this order.

    .. math:: y = scale \cdot (q k^\top)\, v = scale \cdot q\, (k^\top v)

    per head and time step; channel c belongs to head ``c // d`` with ``d = channels / heads``. Both orders are exact
    integer arithmetic and give the same result; they differ in the operations executed.

    Parameters
    ----------
    heads : int
    scale : float
    order : {"scores_first", "context_first"}
        ``(q k^T) v``: q and k meet channel by channel, then each non-zero score is added for each spike of v.
        ``q (k^T v)``: k and v meet token by token, then each spike of q adds the non-zero entries of its context row.
    """

    heads: int
    scale: float = 0.125
    order: Literal["scores_first", "context_first"] = "scores_first"

    arguments: ClassVar[int] = 3

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return real values: integers times the scale."""
        q, k, v = inputs
        if self.order not in ("scores_first", "context_first"):
            raise LayerError(f"order {self.order!r} found; expected 'scores_first' or 'context_first'")
        if not q.shape == k.shape == v.shape or {q.kind, k.kind, v.kind} != {"binary"}:
            raise LayerError(f"q {q}, k {k}, v {v} found; expected spikes of equal shape")
        if not 0 < self.scale < FLOAT32_MAX:
            raise LayerError(f"scale {self.scale} found; expected a positive float32")
        if self.heads < 1 or q.channels % self.heads:
            raise LayerError(f"{self.heads} heads found; expected a divisor of the {q.channels} channels")
        return replace(q, kind="real", dense=True)

    def dense_macs(self, *inputs: SignalType) -> int:
        """Return 2 N^2 D: both products over all tokens."""
        return 2 * inputs[0].positions ** 2 * inputs[0].channels

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        return SpikingAttentionOp(self, self.output_type(*inputs))


class SpikingAttentionOp(Op):
    """Multiplies spikes with spikes."""

    state_names = ()
    looks_ahead = False
    once_if_static = True

    def __init__(self, layer: SpikingAttention, output: SignalType) -> None:
        self.output = output
        self.heads = layer.heads
        self.scale = np.float32(layer.scale)
        self.attend = attend_scores_first if layer.order == "scores_first" else attend_context_first
        self.kernel = f"attend_{layer.order}"

    def advance(self, inputs: tuple[Rows, Rows, Rows], context: Context) -> Dense:
        """Attend within each step of one chunk."""
        q, k, v = inputs
        out = np.empty((q.steps * self.output.positions, self.output.channels), np.float32)
        pairs = [(rows.indptr, rows.indices) for rows in inputs]
        additions = np.empty(q.steps, np.int64)
        self.attend(pairs[0], pairs[1], pairs[2], self.output.positions, self.heads, self.scale, out, additions)
        for part in (q, k, v):
            report_inputs(part, context.rows)
        context.rows.add("acs", additions)
        return Dense(self.output, q.steps, out)
