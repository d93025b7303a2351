"""Two-dimensional convolution of integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, ClassVar

import numpy as np

from eventsim.facts import Entailed, Role, Words
from eventsim.layers.dense import Memory
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.synapses.conv2d import convolved, map_type
from eventsim.layers.synapses.integer_gathering import IntegerSynapsesOp
from eventsim.layers.synapses.integer_weights import (
    ByteWeight,
    Width,
    check_integers,
    packed_bytes,
    width_of,
    words_of_integers,
)
from eventsim.layers.synapses.weights import serving, shape_of
from eventsim.layers.window import slide, taps_inside
from eventsim.signals import FloatArray, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class IntegerConv2d(Layer):
    r"""Convolution of spikes or small integers with int8 weights: sums of integers, in units of a scale.

    .. math:: S_{o,y,x} = \sum_{i,k_y,k_x} q_{o,i,k_y,k_x}\, s_{i,y',x'}, \qquad I_o \approx scale_o\, S_o

    with the indices of `eventsim.layers.Conv2d`. The width of the sums is proven from the positive and the negative
    weights of each channel and the largest input; inputs beyond that are refused. What is emitted are the integers S,
    in float32, where they are exact.

    Parameters
    ----------
    weight : int8 array (C_out, C_in / groups, kernel height, kernel width)
        From -127 to 127.
    scale : float32 array (C_out,)
        What a unit of the sums is worth; nothing is multiplied by it here.
    largest_input : int
        Inputs are 0 to this; 1 for spikes.
    stride, padding, groups, dilation
        Of `eventsim.layers.Conv2d`.
    """

    weight: ByteWeight = ByteWeight()  # noqa: RUF009 - a descriptor, no default
    scale: FloatArray  # type: ignore[misc]  # to mypy, a descriptor is a default
    largest_input: int = 1
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1
    dilation: tuple[int, int] = (1, 1)

    role: ClassVar[Role] = "convolution"

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return prod(shape_of(self))

    @cached_property
    def width(self) -> Width:
        """What is proven of the sums."""
        return width_of(self.weight, self.largest_input, self.groups)

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return real values, which are integers, on the output grid."""
        (source,), shape = inputs, shape_of(self)
        if len(self.dilation) != 2 or min(self.dilation) < 1:
            raise LayerError(f"dilation {self.dilation} found; expected two numbers, 1 or more")
        check_integers(self, source)
        reach = tuple(d * (size - 1) + 1 for d, size in zip(self.dilation, shape[2:], strict=False))
        output = map_type(source, (*shape[:2], *reach), None, self.stride, self.padding, self.groups)
        _ = self.width
        return output

    def dense_macs(self, *inputs: SignalType) -> int:
        """Return the whole kernel at every output pixel."""
        return self.output_type(*inputs).positions * prod(shape_of(self))

    def inner_macs(self, *inputs: SignalType) -> int:
        """Return the taps that lie on the map, at every output pixel."""
        (source,), (outputs, group_inputs, *kernel) = inputs, shape_of(self)
        grid = self.output_type(source).grid
        axes = zip(source.grid, grid, kernel, self.stride, self.padding, self.dilation, strict=True)
        return prod(taps_inside(*axis) for axis in axes) * int(outputs * group_inputs)

    def words(self, *inputs: SignalType) -> Mapping[str, Words]:
        """Return weights and sums, of the widths that they have."""
        return words_of_integers(self, self.output_type(*inputs).size)

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return the words that a product reads and writes, and the input that is read."""
        return serving(inputs[0], biased=False)

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the convolution, tap by tap, in float64: integers that it holds exactly."""
        weight = self.weight.astype(np.float32)
        out = convolved(inputs[0], weight, self.stride, self.padding, self.groups, self.dilation)
        return np.asarray(out, np.float32)

    def absolute(self) -> Layer:
        """Return the layer of absolute weights."""
        return replace(self, weight=np.abs(self.weight))

    def op(self, *inputs: SignalType) -> Op:
        """Return the op, with its weights in tiles."""
        (source,), kernel = inputs, shape_of(self)[2:]
        output = self.output_type(source)
        size: Any = kernel
        window = slide(source, output, size, self.stride, self.padding, self.dilation)
        return IntegerSynapsesOp(
            source, output, packed_bytes(self, self.groups), 0, self.largest_input, window, self.groups
        )
