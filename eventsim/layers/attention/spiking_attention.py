"""Spiking self-attention, on integers too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from eventsim.context import Context
from eventsim.facts import Entailed, Role, Words, arriving, merged
from eventsim.kernels.attention import attend_context_first, attend_scores_first
from eventsim.kernels.attention_masked import attend_masked
from eventsim.layers.dense import Memory, by_head, heads_together, in_shape
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.synapses.gathering import report_inputs
from eventsim.ledger import LedgerRows
from eventsim.signals import FLOAT32_MAX, CountArray, Dense, FloatArray, IntArray, Rows, SignalType

Matrices: TypeAlias = npt.NDArray[np.float64]
Triple: TypeAlias = tuple[CountArray, IntArray, FloatArray]


@dataclass(frozen=True, eq=False, repr=False)
class SpikingAttention(Layer):
    r"""Softmax-free self-attention on spikes or small integers (Spikformer), inputs q, k, v in this order.

    .. math:: y = scale \cdot (q k^\top)\, v = scale \cdot q\, (k^\top v)

    per head and time step. q and k have equal channels, k and v equal positions; channel c of C belongs to head
    ``c // d`` with ``d = C / heads``, for v as for q and k. Both orders are exact integer arithmetic and give the same
    result; they differ in the operations executed.

    For spikes these are accumulates. With graded values in q, k or v, each pair of values that meet is one
    multiply-accumulate (``graded_macs``); in unary additions (``graded_acs``) integers that meet cost as much as their
    units would one by one, and a score, or an entry of the context, is added once for each unit that asks for it.

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
    role: ClassVar[Role] = "attention"

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return real values, integers times the scale, at the positions of q with the channels of v."""
        q, k, v = inputs
        if self.order not in ("scores_first", "context_first"):
            raise LayerError(f"order {self.order!r} found; expected 'scores_first' or 'context_first'")
        if "real" in (q.kind, k.kind, v.kind):
            raise LayerError(f"q {q}, k {k}, v {v} found; expected spikes or graded values")
        if q.channels != k.channels or k.grid != v.grid:
            raise LayerError(f"q {q}, k {k}, v {v} found; expected channels of q as of k, positions of k as of v")
        if not 0 < self.scale < FLOAT32_MAX:
            raise LayerError(f"scale {self.scale} found; expected a positive float32")
        for source in (q, v):
            if self.heads < 1 or source.channels % self.heads:
                raise LayerError(f"{self.heads} heads found; expected a divisor of the {source.channels} channels")
        return replace(q, kind="real", channels=v.channels, dense=True)

    def dense_macs(self, *inputs: SignalType) -> int:
        """Return both products over all pairs of tokens: 2 N^2 D for equal shapes."""
        q, k, v = inputs
        return q.positions * k.positions * (q.channels + v.channels)

    def words(self, *inputs: SignalType) -> Mapping[str, Words]:
        """Return the map of one head, or its context, and the outputs."""
        q, k, v = inputs
        entries = q.positions * k.positions if self.order == "scores_first" else q.channels * v.channels // self.heads
        held = entries if self.order == "scores_first" else entries // self.heads
        return {"sum": Words(held + q.positions * v.channels)}

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return the sums that are read and written, the entries of the map that are added, and the input."""
        return merged(ATTENDING, arriving(*inputs))

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return ``scale q (k^T v)``: integers, exact in float64, and one product in float32."""
        q, k, v = (by_head(x, self.heads) for x in inputs)
        context = k.astype(np.float64).swapaxes(2, 3) @ v
        return in_shape(heads_together(q @ context), inputs[0].shape[1:]) * np.float32(self.scale)

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        output = self.output_type(*inputs)
        spikes_alone = all(source.kind == "binary" and source.shape == inputs[0].shape for source in inputs)
        return SpikingAttentionOp(self, output) if spikes_alone else GradedAttentionOp(self, inputs, output)


ATTENDING: Entailed = {
    "coincidences": {"sum_reads": 1, "sum_writes": 1},
    "value_additions": {"sum_reads": 2, "sum_writes": 1},
}
"""An entry of the map is read before it is added to an output, which is read and written."""

OUTPUT_NS = 1.0
"""What an output takes, about."""

NARROW = 2
"""Channels of a head for each token up to which the context is taken for the result, whatever the order counted."""


class SpikingAttentionOp(Op):
    """Multiplies spikes with spikes of equal shape."""

    state_names = ()
    looks_ahead = False
    once_if_static = True
    plays = True

    def __init__(self, layer: SpikingAttention, output: SignalType) -> None:
        self.output = output
        self.heads = layer.heads
        self.scale = np.float32(layer.scale)
        if layer.order == "context_first":
            self.attend = attend_context_first
        elif output.channels // layer.heads <= NARROW * output.positions:
            self.attend = attend_masked
        else:
            self.attend = attend_scores_first
        self.kernel = self.attend.__name__

    def advance(self, inputs: tuple[Rows, Rows, Rows], context: Context) -> Dense:
        """Attend within each step of one chunk."""
        q, k, v = inputs
        executed = context.counts((q.steps, 3))
        attended = attend_by_step(self.attend, inputs, self.output, (self.heads, self.scale), executed, context)
        for part in (q, k, v):
            report_inputs(part, context)
        report_attention(executed, "acs", self.scale, context.rows)
        return attended


def attend_by_step(
    kernel: Callable[..., None],
    inputs: tuple[Rows, Rows, Rows],
    output: SignalType,
    given: tuple[Any, ...],
    executed: CountArray,
    context: Context,
) -> Dense:
    """Let a kernel attend within each time step; workers share the steps.

    Parameters
    ----------
    kernel : callable
        As `eventsim.kernels.attention.attend_scores_first`.
    inputs : tuple of Rows
        q, k and v.
    output : SignalType
    given : tuple
        What the kernel takes between the tokens and the output.
    executed : int64 array (steps, counts)
        Written.
    context : Context
    """
    steps, tokens = inputs[0].steps, output.positions
    out = context.buffers.floats(steps * output.size).reshape(steps * tokens, output.channels)
    parts = []
    for first, last in context.ranges(steps, OUTPUT_NS * out.size):
        rows = [(whole.whole[0][first * tokens : last * tokens + 1], whole.whole[1]) for whole in inputs]
        parts.append((*rows, tokens, *given, out[first * tokens : last * tokens], executed[first:last]))
    context.share(kernel, parts)
    return Dense(output, steps, out)


def report_attention(executed: CountArray, operation: str, scale: np.float32, rows: LedgerRows) -> None:
    """Report both products of an attention, and the outputs that are scaled, which none are by 1.

    Parameters
    ----------
    executed : int64 array (steps, 3)
        Additions into the map, additions into the output, and values of the output that are not zero.
    operation : str
        What the additions are, both together.
    scale : float32
    rows : LedgerRows
    """
    coincidences, additions, outputs = executed.T
    rows.add(operation, coincidences)
    rows.add(operation, additions)
    rows.add("coincidences", coincidences)
    rows.add("value_additions", additions)
    if scale != 1:
        rows.add("scale_multiplications", outputs)


class GradedAttentionOp(Op):
    """Multiplies integers by matrix products, exact in float64, and counts the values that meet."""

    kernel = "attend_matmul"
    state_names = ()
    looks_ahead = False
    once_if_static = True
    plays = True

    def __init__(self, layer: SpikingAttention, inputs: tuple[SignalType, ...], output: SignalType) -> None:
        self.inputs = inputs
        self.output = output
        self.heads = layer.heads
        self.scale = np.float32(layer.scale)
        self.multiply = _scores_first if layer.order == "scores_first" else _context_first
        self.graded = any(source.kind == "graded" for source in inputs)

    def advance(self, inputs: tuple[Rows, Rows, Rows], context: Context) -> Dense:
        """Attend within each step of one chunk."""
        steps = inputs[0].steps
        size = steps * self.output.positions
        out = context.buffers.floats(size * self.output.channels).reshape(size, self.output.channels)
        executed, units = context.counts((steps, 3)), context.counts(steps)
        context.call(self._attend, tuple(signal.whole for signal in inputs), out, executed, units)
        for signal in inputs:
            report_inputs(signal, context)
        report_attention(executed, "graded_macs" if self.graded else "acs", self.scale, context.rows)
        if self.graded:
            context.rows.add("graded_acs", units)
        return Dense(self.output, steps, out)

    def _attend(self, triples: tuple[Triple, ...], out: FloatArray, executed: CountArray, units: CountArray) -> None:
        """Write the output, and the counts of each step."""
        given = zip(self.inputs, triples, strict=True)
        parts = [self._by_head(Rows.within(kind, len(units), *triple)) for kind, triple in given]
        maps = out.reshape(len(units), self.output.positions, self.output.channels)
        for step, (q, k, v) in enumerate(zip(*parts, strict=True)):
            attended, executed[step, :2], units[step] = self.multiply(q, k, v)
            executed[step, 2] = np.count_nonzero(attended)
            maps[step] = attended.swapaxes(0, 1).reshape(maps[step].shape)
        np.multiply(out, self.scale, out)

    def _by_head(self, signal: Rows) -> Matrices:
        """Return every value ``(steps, heads, tokens, d)``."""
        kind = signal.type
        rows = signal.to_array().astype(np.float64)
        return rows.reshape(signal.steps, kind.positions, self.heads, kind.channels // self.heads).swapaxes(1, 2)


def _scores_first(q: Matrices, k: Matrices, v: Matrices) -> tuple[Matrices, tuple[int, int], int]:
    """Return (q k^T) v, how many values met in each product, and all in unary additions.

    All are ``(heads, tokens, d)``.
    """
    scores = q @ k.swapaxes(1, 2)
    asked = np.count_nonzero(scores, axis=1)  # by head and token of v: the scores that it is added for
    met = _met(q, k), int(np.sum(asked * np.count_nonzero(v, axis=2)))
    return scores @ v, met, int(scores.sum() + np.sum(asked * v.sum(axis=2)))


def _context_first(q: Matrices, k: Matrices, v: Matrices) -> tuple[Matrices, tuple[int, int], int]:
    """Return q (k^T v) and counts as `_scores_first` does."""
    entries = k.swapaxes(1, 2) @ v
    filled = np.count_nonzero(entries, axis=2)  # by head and channel of q
    met = _met(k.swapaxes(1, 2), v.swapaxes(1, 2)), int(np.sum(filled * np.count_nonzero(q, axis=1)))
    return q @ entries, met, int(entries.sum() + np.sum(filled * q.sum(axis=1)))


def _met(a: Matrices, b: Matrices) -> int:
    """Return how many pairs of non-zero values meet along the last axis in ``a b^T``, head by head."""
    return int(np.sum(np.count_nonzero(a, axis=1) * np.count_nonzero(b, axis=1)))
