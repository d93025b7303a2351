"""Fully connected layer of integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import ClassVar

import numpy as np

from eventsim.facts import Entailed, Role, Words
from eventsim.kernels.window import flat
from eventsim.layers.dense import Memory
from eventsim.layers.layer import Layer, Op
from eventsim.layers.synapses.integer_gathering import IntegerSynapsesOp
from eventsim.layers.synapses.integer_weights import (
    ByteWeight,
    Width,
    check_integers,
    packed_bytes,
    width_of,
    words_of_integers,
)
from eventsim.layers.synapses.linear import matrix_product, matrix_type
from eventsim.layers.synapses.weights import serving, shape_of
from eventsim.signals import FloatArray, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class IntegerLinear(Layer):
    r"""Linear map of spikes or small integers with int8 weights: sums of integers, in units of a scale.

    .. math:: S_o = \sum_i q_{o,i}\, s_i, \qquad I_o \approx scale_o\, S_o

    The width of the sums is proven from the positive and the negative weights of each channel and the largest
    input; inputs beyond that are refused. What is emitted are the integers S, in float32, where they are exact.

    Parameters
    ----------
    weight : int8 array (C_out, C_in)
        From -127 to 127.
    scale : float32 array (C_out,)
        What a unit of the sums is worth; nothing is multiplied by it here.
    largest_input : int
        Inputs are 0 to this; 1 for spikes.
    """

    weight: ByteWeight = ByteWeight()  # noqa: RUF009 - a descriptor, no default
    scale: FloatArray  # type: ignore[misc]  # to mypy, a descriptor is a default
    largest_input: int = 1

    role: ClassVar[Role] = "linear"

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return prod(shape_of(self))

    @cached_property
    def width(self) -> Width:
        """What is proven of the sums."""
        return width_of(self.weight, self.largest_input)

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return real values, which are integers, at the same positions."""
        check_integers(self, inputs[0])
        output = matrix_type(inputs[0], shape_of(self), None)
        _ = self.width
        return output

    def dense_macs(self, *inputs: SignalType) -> int:
        """Return the whole matrix at every position."""
        return inputs[0].positions * prod(shape_of(self))

    def words(self, *inputs: SignalType) -> Mapping[str, Words]:
        """Return weights and sums, of the widths that they have."""
        return words_of_integers(self, self.output_type(*inputs).size)

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return the words that a product reads and writes, and the input that is read."""
        return serving(inputs[0], biased=False)

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the matrix product, in float64: integers that it holds exactly."""
        return matrix_product(inputs[0], self.weight.astype(np.float32), None)

    def absolute(self) -> Layer:
        """Return the layer of absolute weights."""
        return replace(self, weight=np.abs(self.weight))

    def op(self, *inputs: SignalType) -> Op:
        """Return the op, with its weights in tiles."""
        return integer_matrix_op(self, inputs[0])


def integer_matrix_op(layer: Layer, source: SignalType) -> IntegerSynapsesOp:
    """Return the op that multiplies by the field ``weight`` (C_out, C_in) of a layer of integers."""
    held = packed_bytes(layer)
    output = matrix_type(source, shape_of(layer), None)
    return IntegerSynapsesOp(source, output, held, 0, layer.largest_input, flat(source.positions))  # type: ignore[attr-defined]
