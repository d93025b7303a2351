"""Softmax attention on real values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from eventsim.context import Context
from eventsim.facts import Entailed, Role, Words, arriving, merged
from eventsim.kernels.softmax_attention import attend_softly
from eventsim.layers.attention.spiking_attention import ATTENDING
from eventsim.layers.dense import Memory, blocks, by_head, heads_together, in_shape, tokens
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.listing import every_channel
from eventsim.layers.synapses.gathering import report_inputs
from eventsim.signals import Dense, FloatArray, Rows, SignalType

PAIR_NS = 0.05
"""What a pair of tokens takes for each channel, about."""


@dataclass(frozen=True, eq=False, repr=False)
class SoftmaxAttention(Layer):
    r"""Multi-head self-attention (Vaswani et al., 2017) over space or over time, on q, k and v side by side.

    .. math:: y = \mathrm{softmax}\big(scale \cdot q k^\top\big)\, v

    per head. The input has the channels ``[q | k | v]``, D of each, as one linear layer makes them; channel c of the D
    belongs to head ``c // d`` with ``d = D / heads``. Over space, the positions of one time step attend to each other;
    over time, the steps of one position do, later ones included: together the two are the divided space-time attention
    of TimeSformer (Bertasius et al., 2021). All is float32. A score is one exponential and one division, and one
    multiplication by the scale unless that is 1; the largest score and the sum of a row are not counted. The
    sum divides the weighted values instead of every weight, and a weight below exp(-87) of the largest is 0.

    Parameters
    ----------
    heads : int
    axis : {"space", "time"}
    time_steps : int, optional
        T, for ``"time"`` only: the steps that a sample must have.
    scale : float, optional
        Default is ``d ** -0.5``.
    """

    heads: int
    axis: Literal["space", "time"] = "space"
    time_steps: int | None = None
    scale: float | None = None

    role: ClassVar[Role] = "attention"

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return dense real values, D channels."""
        (source,) = inputs
        if self.axis not in ("space", "time"):
            raise LayerError(f"axis {self.axis!r} found; expected 'space' or 'time'")
        if self.heads < 1 or source.channels % (3 * self.heads):
            raise LayerError(f"{self.heads} heads found; expected 3 x heads to divide the {source.channels} channels")
        if self.axis == "space" and self.time_steps is not None:
            raise LayerError(f"time_steps {self.time_steps} found; expected none for attention over space")
        if self.axis == "time" and (self.time_steps is None or self.time_steps < 1):
            raise LayerError(f"time_steps {self.time_steps} found; attention over time expects at least 1")
        return replace(source, kind="real", channels=source.channels // 3, dense=True)

    def dense_macs(self, *inputs: SignalType) -> int:
        """Return two products over all pairs: 2 N^2 D over space, 2 T N D in each of the T steps over time."""
        output = self.output_type(*inputs)
        return 2 * output.size * (self.time_steps or output.positions)

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return ``softmax(scale q k^T) v`` in float64, over blocks of queries."""
        return self._attended(inputs[0], False)

    def terms(self, inputs: tuple[FloatArray, ...], output: FloatArray, memory: Memory) -> FloatArray:
        """Return the weighted absolute values, times one and the sum of absolute terms of the largest score."""
        return self._attended(inputs[0], True)

    def _attended(self, x: FloatArray, absolute: bool) -> FloatArray:
        rows = tokens(x).astype(np.float64)
        if self.axis == "time":  # the steps of one position attend to each other
            rows = rows.swapaxes(0, 1)
        q, k, v = (by_head(part, self.heads) for part in np.split(rows, 3, axis=2))
        scale = np.float32(q.shape[3] ** -0.5 if self.scale is None else self.scale)
        out = np.empty(q.shape)
        for step, block in blocks(q, k):
            for head in range(self.heads):
                some, keys, values = q[step, head, block], k[step, head], v[step, head]
                scores = float(scale) * (some @ keys.T)
                weights = np.exp(scores - scores.max(axis=1, keepdims=True))
                weights /= weights.sum(axis=1, keepdims=True)
                if absolute:
                    largest = (np.abs(some) @ np.abs(keys).T).max(axis=1, keepdims=True) * abs(float(scale))
                    out[step, head, block] = (weights @ np.abs(values)) * (1 + 2 * largest)
                else:
                    out[step, head, block] = weights @ values
        attended = heads_together(out)
        return in_shape(attended.swapaxes(0, 1) if self.axis == "time" else attended, x.shape[1:])

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        return SoftmaxAttentionOp(self, self.output_type(*inputs))

    def words(self, *inputs: SignalType) -> Mapping[str, Words]:
        """Return the map of one head and the outputs, over time those of all steps."""
        output = self.output_type(*inputs)
        tokens = self.time_steps or output.positions
        return {"sum": Words(tokens**2 + output.size * (self.time_steps or 1))}

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return the sums that both products read and write, and what the softmax does with a score."""
        scaled = {} if self.factor(self.output_type(*inputs)) == 1 else {"scale_multiplications": 1}
        return merged(ATTENDING, arriving(*inputs), {"exponentials": {"divisions": 1, **scaled}})

    def factor(self, output: SignalType) -> np.float32:
        """Return the scale, the default where none is given."""
        return np.float32((output.channels // self.heads) ** -0.5 if self.scale is None else self.scale)


class SoftmaxAttentionOp(Op):
    """Compares all pairs; sums have an order that depends on the tokens of a group alone."""

    state_names = ()
    plays = True

    def __init__(self, layer: SoftmaxAttention, output: SignalType) -> None:
        self.output = output
        self.heads = layer.heads
        self.time_steps = layer.time_steps
        self.scale = layer.factor(output)
        self.looks_ahead = layer.axis == "time"
        self.once_if_static = not self.looks_ahead
        self.kernel = f"softmax_over_{layer.axis}"

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Dense:
        """Attend within each step of one chunk, or among all steps."""
        signal = inputs[0]
        steps, positions, channels = signal.steps, self.output.positions, self.output.channels
        if self.time_steps not in (None, steps):
            raise LayerError(f"{steps} time steps found; expected {self.time_steps}, or import it for {steps}")
        rows = steps * positions
        tokens, groups, pitches = positions, steps, (positions, 1)
        if self.time_steps is not None:  # the steps of one position attend to each other
            tokens, groups, pitches = steps, positions, (1, positions)
        pairs = positions * tokens
        qkv = every_channel(signal, context)
        out = context.buffers.floats(rows * channels).reshape(rows, channels)
        parts = context.ranges(groups, PAIR_NS * groups * tokens**2 * channels)
        given = [(qkv, self.heads, part, pitches, tokens, self.scale, out) for part in parts]
        context.share(attend_softly, given)
        report_inputs(signal, context)
        context.rows.add("macs", 2 * pairs * channels)
        context.rows.add("coincidences", pairs * channels)
        context.rows.add("value_additions", pairs * channels)
        context.rows.add("exponentials", pairs * self.heads)
        return Dense(self.output, steps, out)
