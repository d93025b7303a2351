"""Fully connected layer over the channels of each position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from eventsim.facts import Entailed, Role, Words
from eventsim.kernels.window import flat
from eventsim.layers.dense import Memory, in_shape, tokens
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.synapses.gathering import SynapsesOp, multiplies
from eventsim.layers.synapses.weights import Weight, packed, serving, shape_of, words_of
from eventsim.signals import FloatArray, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class Linear(Layer):
    r"""Linear map of each pixel or token, event-driven: each active channel adds its weight row.

    .. math:: I_o = b_o + \sum_i W_{o,i}\, s_i

    On a map it is the 1x1 convolution.

    Parameters
    ----------
    weight : float32 array (C_out, C_in)
    bias : float32 array (C_out,), optional
    """

    weight: Weight = Weight()  # noqa: RUF009 - a descriptor, no default
    bias: FloatArray | None = None

    role: ClassVar[Role] = "linear"

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return real values at the same positions."""
        return matrix_type(inputs[0], shape_of(self), self.bias)

    def dense_macs(self, *inputs: SignalType) -> int:
        """Return the whole matrix at every position."""
        outputs, channels = shape_of(self)
        return inputs[0].positions * outputs * channels

    def words(self, *inputs: SignalType) -> Mapping[str, Words]:
        """Return weights, biases and partial sums."""
        return words_of(self, self.output_type(*inputs).size)

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return the words that a product and a bias read and write, and the input that is read."""
        return serving(inputs[0], biased=self.bias is not None)

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the matrix product, in float64."""
        return matrix_product(inputs[0], self.weight, self.bias)

    def absolute(self) -> Layer:
        """Return the layer of absolute weights."""
        return replace(self, weight=np.abs(self.weight), bias=None if self.bias is None else np.abs(self.bias))

    def op(self, *inputs: SignalType) -> Op:
        """Return the op, with the weight rows of the input channels side by side."""
        return matrix_op(self, inputs[0], self.bias)


def matrix_type(source: SignalType, weight: tuple[int, ...], bias: FloatArray | None) -> SignalType:
    """Return what a matrix of this shape makes of each row.

    Raises
    ------
    LayerError
        If weight or bias do not fit the rows or each other.
    """
    if len(weight) != 2 or weight[1] != source.channels:
        raise LayerError(f"weight of shape {weight} found; expected (C_out, {source.channels})")
    if bias is not None and bias.shape != (weight[0],):
        raise LayerError(f"bias of shape {bias.shape} found; expected ({weight[0]},)")
    return replace(source, kind="real", channels=weight[0], dense=True)


def matrix_product(x: FloatArray, weight: FloatArray, bias: FloatArray | None) -> FloatArray:
    """Return ``W x + b`` at every position, added up in float64."""
    product = tokens(x).astype(np.float64) @ weight.T.astype(np.float64)
    return in_shape(product if bias is None else product + bias, x.shape[1:])


def matrix_op(layer: Layer, source: SignalType, bias: FloatArray | None) -> SynapsesOp:
    """Return the op that multiplies by the field ``weight`` (C_out, C_in) of a layer."""
    one_tap = flat(source.positions)
    output = matrix_type(source, shape_of(layer), bias)
    tiled = not multiplies(source, output, one_tap, groups=1)
    held = packed(layer, lambda weight: weight.T[None], lambda taps: taps[0].T, tiled)
    return SynapsesOp(source, output, held.parts[0], bias, one_tap, fan=held.fans[0])
