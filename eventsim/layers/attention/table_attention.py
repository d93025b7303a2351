"""Spiking self-attention whose scores go through a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from eventsim.context import Context
from eventsim.facts import Entailed, Role, Words, arriving, merged
from eventsim.kernels.attention import attend_through_table
from eventsim.layers.attention.spiking_attention import ATTENDING, attend_by_step, report_attention
from eventsim.layers.dense import Memory, blocks, by_head, heads_together, in_shape
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.synapses.gathering import report_inputs
from eventsim.signals import FLOAT32_MAX, Dense, FloatArray, IntArray, Rows, SignalType

LARGEST_ENTRY = 2**31 - 1


@dataclass(frozen=True, eq=False, repr=False)
class TableAttention(Layer):
    r"""Softmax-free self-attention on spikes with a lookup table per head on the scores, inputs q, k, v in this order.

    .. math:: y = scale \cdot table_h\big[q k^\top\big]\, v

    per head h and time step; channel c belongs to head ``c // d`` with ``d = channels / heads``. A score counts the
    coincidences of q and k, an integer from 0 to d, and the table makes it another integer, of either sign: the
    nonlinear spiking attention denoiser of DS2TA (arXiv 2409.15375, eqs. 6 and 7). The table acts on ``q k^T``, so that
    product comes first. With the identity table, ``table[h, a] = a``, this is `SpikingAttention`.

    Only scores that are not zero are looked up, and an entry of zero costs nothing more. Counted as accumulates: the
    coincidences, and for each non-zero entry the spikes of v in its token and head, as each of them adds one stored
    integer; so the identity table counts what `SpikingAttention` counts.

    Parameters
    ----------
    table : integer array (heads, d + 1)
        The first column is 0, so that silence stays silent.
    scale : float
    """

    table: IntArray
    scale: float = 0.125

    arguments: ClassVar[int] = 3
    role: ClassVar[Role] = "attention"

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return real values: integers times the scale."""
        q, k, v = inputs
        if not q.shape == k.shape == v.shape or {q.kind, k.kind, v.kind} != {"binary"}:
            raise LayerError(f"q {q}, k {k}, v {v} found; expected spikes of equal shape")
        if self.table.ndim != 2 or self.table.dtype.kind != "i":
            raise LayerError(
                f"table of {self.table.dtype} {self.table.shape} found; expected integers (heads, channels / heads + 1)"
            )
        if not 0 < self.scale < FLOAT32_MAX:
            raise LayerError(f"scale {self.scale} found; expected a positive float32")
        heads, entries = self.table.shape
        if heads < 1 or q.channels % heads:
            raise LayerError(f"table for {heads} heads found; expected a divisor of the {q.channels} channels")
        if entries != q.channels // heads + 1:
            raise LayerError(
                f"table of {entries} entries per head found; expected {q.channels // heads + 1}, "
                f"one for each score from 0 to {q.channels // heads}"
            )
        if self.table[:, 0].any():
            raise LayerError(f"table entry {self.table[:, 0][self.table[:, 0] != 0][0]} for score 0 found; expected 0")
        if np.abs(self.table.astype(np.float64)).max() > LARGEST_ENTRY:
            raise LayerError(f"table entry beyond {LARGEST_ENTRY} found; expected 32-bit integers")
        return replace(q, kind="real", dense=True)

    def dense_macs(self, *inputs: SignalType) -> int:
        """Return 2 N^2 D: both products over all tokens."""
        return 2 * inputs[0].positions ** 2 * inputs[0].channels

    def words(self, *inputs: SignalType) -> Mapping[str, Words]:
        """Return the tables, and the map of one head with the outputs."""
        source = inputs[0]
        return {"table": Words(self.table.size), "sum": Words(source.positions**2 + source.size)}

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return the sums that are read and written, the score and the entry that a lookup reads, and the input."""
        return merged(ATTENDING, arriving(*inputs), {"table_lookups": {"table_reads": 1, "sum_reads": 1}})

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return ``scale f(q k^T) v`` over blocks of queries: integers, exact in float64."""
        heads = len(self.table)
        q, k, v = (by_head(x, heads) for x in inputs)
        out = np.empty(q.shape)
        for step, block in blocks(q, k):
            for head, table in enumerate(self.table):
                scores = q[step, head, block].astype(np.float64) @ k[step, head].T
                out[step, head, block] = table[scores.astype(np.int64)].astype(np.float64) @ v[step, head]
        return in_shape(heads_together(out), inputs[0].shape[1:]) * np.float32(self.scale)

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        return TableAttentionOp(self, self.output_type(*inputs))


class TableAttentionOp(Op):
    """Multiplies spikes with spikes, looks up, multiplies with spikes."""

    kernel = "attend_through_table"
    state_names = ()
    looks_ahead = False
    once_if_static = True
    plays = True

    def __init__(self, layer: TableAttention, output: SignalType) -> None:
        self.output = output
        self.table = np.ascontiguousarray(layer.table, np.int32)
        self.scale = np.float32(layer.scale)

    def advance(self, inputs: tuple[Rows, Rows, Rows], context: Context) -> Dense:
        """Attend within each step of one chunk."""
        q, k, v = inputs
        rows, executed = context.rows, context.counts((q.steps, 5))
        given = self.table, self.scale
        attended = attend_by_step(attend_through_table, inputs, self.output, given, executed, context)
        lookups, kept = executed[:, 3], executed[:, 4]
        for part in (q, k, v):
            report_inputs(part, context)
        report_attention(executed[:, :3], "acs", self.scale, rows)
        rows.add("table_lookups", lookups)
        rows.add("scores", len(self.table) * self.output.positions**2)
        rows.add("nonzero_scores", lookups)
        rows.add("kept_scores", kept)
        rows.add("removed_scores", lookups)
        rows.add("removed_scores", kept, times=-1)
        return attended
