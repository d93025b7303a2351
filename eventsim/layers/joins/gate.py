"""Values that pass where a gate lets them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from eventsim.context import Context
from eventsim.facts import Entailed, Role
from eventsim.kernels.rows import gate_rows
from eventsim.kernels.values_of_channels import gate_channels
from eventsim.kernels.values_of_rows import add_up_steps, gate_by_values
from eventsim.layers.dense import Memory, in_shape, tokens
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.listing import every_channel, listed, room_for
from eventsim.layers.synapses.gathering import report_inputs
from eventsim.signals import CountArray, Dense, FloatArray, Kind, Rows, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class Gate(Layer):
    r"""Element-wise product of a gate ``g`` (first input) and ``x`` (second input), the gate repeated where smaller.

    .. math:: y_{p,\, hD + d} = g_{p,h}\, x_{p,\, hD + d}, \qquad D = channels(x) / channels(g)

    With one position, g is for all positions of x. So a gate is for one value (equal shapes), for the channels of a
    head, for a whole token (one channel), for a channel of all tokens (a vector), or for everything. The result is
    binary for two inputs of spikes, real where an input is, else graded; it is sparse where an input is. A spike lets
    the value that it meets pass, which is a comparison as in an AND join; other values that meet are multiplied.
    """

    arguments: ClassVar[int] = 2
    role: ClassVar[Role] = "join"

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return the type of the product, in the shape of the second input."""
        g, x = inputs
        if g.positions != 1 and g.grid != x.grid:
            raise LayerError(f"gate {g} for {x} found; expected one position, or the same ones")
        if x.channels % g.channels:
            raise LayerError(f"gate {g} for {x} found; expected a divisor of the {x.channels} channels")
        kinds = {g.kind, x.kind}
        kind: Kind = "real" if "real" in kinds else "graded" if "graded" in kinds else "binary"
        return replace(x, kind=kind, dense=g.dense and x.dense)

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return that every value that meets its gate is a product with a gate."""
        return {operation: {"gate_products": 1} for operation in ("comparisons", "graded_macs", "macs")}

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the products, the gate repeated over positions and channels, in float32."""
        g, x = inputs
        rows, gates = tokens(x), tokens(g)
        return in_shape(np.repeat(gates, rows.shape[2] // gates.shape[2], axis=2) * rows, x.shape[1:])

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        g, x = inputs
        return GateOp(g, x, self.output_type(g, x))


class GateOp(Op):
    """Looks up the gate of every value that is not zero, or multiplies dense rows."""

    state_names = ()
    looks_ahead = False
    once_if_static = True
    plays = True

    def __init__(self, gate: SignalType, source: SignalType, output: SignalType) -> None:
        self.output = output
        self.passing = "binary" in (gate.kind, source.kind)
        self.shared = source.positions // gate.positions
        self.size = source.channels // gate.channels
        self.kernel = "gate_dense" if source.dense or gate.dense else "gate_rows"

    def advance(self, inputs: tuple[Rows | Dense, Rows | Dense], context: Context) -> Rows | Dense:
        """Gate one chunk."""
        g, x = inputs
        if isinstance(x, Dense):
            gated, meetings, times = self._dense(g, x, context)
        elif isinstance(g, Dense):
            products = room_for(replace(self.output, kind="real"), x.steps, context)
            context.call(gate_by_values, every_channel(g, context), x.whole, self.shared, self.size, products)
            gated, meetings, times = Rows.within(self.output, x.steps, *products), context.by_step(x), 1
        else:
            products, meetings, times = (
                room_for(replace(self.output, kind="real"), x.steps, context),
                context.counts(x.steps),
                1,
            )
            context.call(gate_rows, g.whole, x.whole, self.shared, self.size, products, meetings)
            gated = Rows.within(self.output, x.steps, *products)
        self._report(inputs, gated, (meetings, times), context)
        return gated

    def _dense(self, g: Rows | Dense, x: Dense, context: Context) -> tuple[Rows | Dense, CountArray | int, int]:
        """Multiply every value; a gate in rows says how many meet one, for each non-zero gate so many."""
        data = context.buffers.floats(x.data.size).reshape(x.data.shape)
        context.call(gate_channels, every_channel(g, context), every_channel(x, context), self.shared, self.size, data)
        if isinstance(g, Dense):
            return Dense(self.output, x.steps, data), self.output.size, 1
        return listed(self.output, x.steps, data, context), context.by_step(g), self.shared * self.size

    def _report(
        self,
        inputs: tuple[Rows | Dense, ...],
        gated: Rows | Dense,
        met: tuple[CountArray | int, int],
        context: Context,
    ) -> None:
        rows = context.rows
        if self.passing:
            rows.add("comparisons", *met)
            return
        for signal in inputs:
            report_inputs(signal, context)
        if self.output.kind == "real":
            rows.add("macs", *met)
            return
        assert isinstance(gated, Rows)
        units = context.counts(gated.steps)
        context.call(add_up_steps, gated.indptr, gated.whole[2], self.output.positions, units)
        rows.add("graded_macs", *met)
        rows.add("graded_acs", units)
