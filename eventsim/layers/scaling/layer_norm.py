"""Layer normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from eventsim.context import Context
from eventsim.facts import Entailed, Role, Words, arriving, merged
from eventsim.kernels.layer_norm import normalise
from eventsim.layers.dense import Memory, in_shape, tokens
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.listing import every_channel
from eventsim.layers.synapses.gathering import report_inputs
from eventsim.signals import Dense, FloatArray, Rows, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class LayerNorm(Layer):
    r"""Normalisation over the channels of each pixel or token (Ba et al., 2016), as PyTorch's ``LayerNorm`` defines it.

    .. math:: y_c = \frac{x_c - \mu}{\sqrt{\sigma^2 + \epsilon}}\, w_c + b_c

    with the mean and the (biased) variance of the channels, in float32. Counted are two multiply-accumulates per value
    - its square, and scale with shift - one addition, for the mean, and one division; for each row a square root, and
    the divisions of both means. Papers count none, so `dense_macs` is 0.

    Parameters
    ----------
    weight : float32 array (channels,)
    bias : float32 array (channels,), optional
    eps : float
    """

    weight: FloatArray
    bias: FloatArray | None = None
    eps: float = 1e-5

    role: ClassVar[Role] = "scaling"

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return dense real values at the same positions."""
        (source,) = inputs
        for name, array in (("weight", self.weight), ("bias", self.bias)):
            if array is not None and array.shape != (source.channels,):
                raise LayerError(f"{name} of shape {array.shape} found; expected ({source.channels},)")
        if not self.eps >= 0:
            raise LayerError(f"eps {self.eps} found; expected at least 0")
        return replace(source, kind="real", dense=True)

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the normalised values, computed in float64."""
        (x,) = inputs
        rows = tokens(x).astype(np.float64)
        centred = rows - rows.mean(axis=2, keepdims=True)
        scaled = centred / np.sqrt(np.square(centred).mean(axis=2, keepdims=True) + np.float32(self.eps)) * self.weight
        return in_shape(scaled if self.bias is None else scaled + self.bias, x.shape[1:])

    def terms(self, inputs: tuple[FloatArray, ...], output: FloatArray, memory: Memory) -> FloatArray:
        """Return what value and mean are to the deviation: large where the mean is, which is taken off."""
        (x,) = inputs
        rows = tokens(x).astype(np.float64)
        mean = np.abs(rows).mean(axis=2, keepdims=True)
        deviation = np.sqrt(rows.var(axis=2, keepdims=True) + np.float32(self.eps))
        lost = 1 + mean / deviation  # of the variance, relatively
        largest = (np.abs(rows) + mean) / deviation * lost * np.abs(self.weight)
        return in_shape(largest if self.bias is None else largest + np.abs(self.bias), x.shape[1:])

    def words(self, *inputs: SignalType) -> Mapping[str, Words]:
        """Return weights, biases, and both sums of each row."""
        return {**super().words(*inputs), "sum": Words(2 * inputs[0].positions)}

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return what goes with a value, which is added to a mean once, and what with a row, which has a square root.

        A value is read and added to two sums, divided once, and meets its weight and bias; a row divides both sums.
        """
        biased = {} if self.bias is None else {"bias_reads": 1}
        value = {"divisions": 1, "weight_reads": 1, "sum_reads": 2, "sum_writes": 2, "value_writes": 1, **biased}
        return merged(arriving(*inputs), {"additions": value, "square_roots": {"divisions": 2}})

    def op(self, *inputs: SignalType) -> Op:
        """Return the op."""
        return LayerNormOp(self, self.output_type(*inputs))


class LayerNormOp(Op):
    """Normalises each row on its own."""

    kernel = "layer_norm"
    state_names = ()
    looks_ahead = False
    once_if_static = True
    plays = True

    def __init__(self, layer: LayerNorm, output: SignalType) -> None:
        bias = np.zeros(output.channels, np.float32) if layer.bias is None else layer.bias
        self.weight, self.bias = (np.ascontiguousarray(array, np.float32) for array in (layer.weight, bias))
        self.eps = np.float32(layer.eps)
        self.output = output

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Dense:
        """Normalise one chunk."""
        signal = inputs[0]
        size = signal.steps * self.output.positions
        data = context.buffers.floats(size * self.output.channels).reshape(size, self.output.channels)
        context.call(normalise, every_channel(signal, context), self.weight, self.bias, self.eps, data)
        report_inputs(signal, context)
        context.rows.add("macs", 2 * self.output.size)
        context.rows.add("additions", self.output.size)
        context.rows.add("square_roots", self.output.positions)
        return Dense(self.output, signal.steps, data)
