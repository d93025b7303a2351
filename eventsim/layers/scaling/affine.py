"""Element-wise scale and shift."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from eventsim.context import Context
from eventsim.facts import Entailed, Role, Words, arriving, merged
from eventsim.kernels.values_of_channels import scale_and_shift
from eventsim.kernels.values_of_rows import scale_rows
from eventsim.layers.dense import Memory, spread
from eventsim.layers.layer import Layer, Op
from eventsim.layers.listing import every_channel, room_for
from eventsim.layers.neurons.spiking import rows_of
from eventsim.layers.synapses.gathering import report_inputs
from eventsim.signals import Dense, FloatArray, Rows, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class Affine(Layer):
    """Scale and shift ``y = x * scale + shift``: a batch normalisation that was not folded, or a NIR ``Scale``.

    Each product and each sum is rounded to float32, as PyTorch's batch normalisation does in evaluation.

    Parameters
    ----------
    scale : float32 array (channels,) or of the per-step shape
    shift : float32 array (channels,) or of the per-step shape, optional
        Without it, zeros stay zeros and rows stay sparse.
    """

    scale: FloatArray
    shift: FloatArray | None = None

    role: ClassVar[Role] = "scaling"

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return real values at the same positions."""
        (source,) = inputs
        rows_of(self.scale, "scale", source)
        if self.shift is not None:
            rows_of(self.shift, "shift", source)
        return replace(source, kind="real", dense=source.dense or self.shift is not None)

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return the scale, and the shift, that a product reads."""
        shift = {} if self.shift is None else {"bias_reads": 1}
        return merged(arriving(*inputs), {"macs": {"weight_reads": 1, **shift}})

    def words(self, *inputs: SignalType) -> Mapping[str, Words]:
        """Return scales, and shifts as biases."""
        words = {"weight": Words(self.scale.size)}
        return words if self.shift is None else {**words, "bias": Words(self.shift.size)}

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return product and sum, each rounded to float32."""
        (x,) = inputs
        scaled = x * spread(self.scale, x.shape[1:])
        return scaled if self.shift is None else scaled + spread(self.shift, x.shape[1:])

    def absolute(self) -> Layer:
        """Return the layer of absolute scale and shift."""
        return replace(self, scale=np.abs(self.scale), shift=None if self.shift is None else np.abs(self.shift))

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        (source,) = inputs
        scale = rows_of(self.scale, "scale", source)
        shift = None if self.shift is None else rows_of(self.shift, "shift", source)
        return AffineOp(self.output_type(source), scale, shift)


class AffineOp(Op):
    """Multiplies and adds."""

    state_names = ()
    looks_ahead = False
    once_if_static = True
    plays = True

    def __init__(self, output: SignalType, scale: FloatArray, shift: FloatArray | None) -> None:
        self.output = output
        self.scale = scale
        self.shift = np.empty((0, output.channels), np.float32) if shift is None else shift
        self.kernel = "affine_dense" if output.dense else "affine_rows"

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Rows | Dense:
        """Transform one chunk."""
        signal = inputs[0]
        report_inputs(signal, context)
        if not self.output.dense:
            assert isinstance(signal, Rows)
            context.rows.add("macs", context.by_step(signal))
            scaled = room_for(self.output, signal.steps, context)
            context.call(scale_rows, signal.whole, self.scale, scaled)
            return Rows.within(self.output, signal.steps, *scaled)
        context.rows.add("macs", self.output.size)
        size = signal.steps * self.output.positions
        data = context.buffers.floats(size * self.output.channels).reshape(size, self.output.channels)
        context.call(scale_and_shift, every_channel(signal, context), self.scale, self.shift, data)
        return Dense(self.output, signal.steps, data)
