"""Convolution of integers over time and space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, ClassVar, Literal

import numpy as np

from eventsim.facts import Entailed, Role, Words
from eventsim.layers.dense import Memory
from eventsim.layers.layer import Layer, Op
from eventsim.layers.synapses.conv3d import Conv3d, Conv3dOp
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
from eventsim.layers.window import slide
from eventsim.signals import FloatArray, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class IntegerConv3d(Layer):
    r"""Convolution over time of spikes or small integers with int8 weights: sums of integers, in units of a scale.

    .. math:: S_{o,t,y,x} = \sum_{k_t,i,k_y,k_x} q_{o,i,k_t,k_y,k_x}\, s_{i,\,t + k_t - before,\,y',x'},
              \qquad I_o \approx scale_o\, S_o

    with the indices of `eventsim.layers.Conv3d`. The width of the sums is proven over all time steps of the kernel, as
    `eventsim.layers.IntegerConv2d` says.

    Parameters
    ----------
    weight : int8 array (C_out, C_in / groups, kernel time, kernel height, kernel width)
        From -127 to 127.
    scale : float32 array (C_out,)
        What a unit of the sums is worth; nothing is multiplied by it here.
    largest_input : int
        Inputs are 0 to this; 1 for spikes.
    stride, padding, groups, time_padding
        Of `eventsim.layers.Conv3d`.
    """

    weight: ByteWeight = ByteWeight()  # noqa: RUF009 - a descriptor, no default
    scale: FloatArray  # type: ignore[misc]  # to mypy, a descriptor is a default
    largest_input: int = 1
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1
    time_padding: Literal["centred", "causal"] = "centred"

    role: ClassVar[Role] = "convolution"

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return prod(shape_of(self))

    @cached_property
    def width(self) -> Width:
        """What is proven of the sums."""
        return width_of(self.weight, self.largest_input, self.groups)

    def _of(self, weight: FloatArray) -> Conv3d:
        """Return the convolution of float32 of some weights."""
        return Conv3d(weight, None, self.stride, self.padding, self.groups, self.time_padding)

    @property
    def _plain(self) -> Conv3d:
        """The convolution of float32, but for its weights."""
        return self._of(np.broadcast_to(np.float32(0), shape_of(self)))

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return real values, which are integers, on the output grid."""
        check_integers(self, inputs[0])
        output = self._plain.output_type(*inputs)
        _ = self.width
        return output

    def dense_macs(self, *inputs: SignalType) -> int:
        """Return the whole kernel at every output pixel."""
        return self.output_type(*inputs).positions * prod(shape_of(self))

    def inner_macs(self, *inputs: SignalType) -> int:
        """Return the taps that lie on the map, at every output pixel; every time step of the kernel counts."""
        return self._plain.inner_macs(*inputs)

    def words(self, *inputs: SignalType) -> Mapping[str, Words]:
        """Return weights and sums, of the widths that they have."""
        return words_of_integers(self, self.output_type(*inputs).size)

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return the words that a product reads and writes, and the input that is read."""
        return serving(inputs[0], biased=False)

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the convolution, in float64: integers that it holds exactly."""
        return self._of(self.weight.astype(np.float32)).dense(inputs, memory)

    def absolute(self) -> Layer:
        """Return the layer of absolute weights."""
        return replace(self, weight=np.abs(self.weight))

    def op(self, *inputs: SignalType) -> Op:
        """Return the op: one convolution of a map for each time step of the kernel."""
        (source,), (length, *kernel) = inputs, shape_of(self)[2:]
        output = self.output_type(source)
        size: Any = kernel
        window = slide(source, output, size, self.stride, self.padding)
        held = packed_bytes(self, self.groups)
        taps = [
            IntegerSynapsesOp(source, output, held, t, self.largest_input, window, self.groups) for t in range(length)
        ]
        return Conv3dOp(output, taps, None, length - 1 if self.time_padding == "causal" else length // 2)
