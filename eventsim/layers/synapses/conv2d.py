"""Two-dimensional convolution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

import numpy as np

from eventsim.facts import Entailed, Role, Words
from eventsim.layers.dense import Memory, Reals
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.synapses.gathering import SynapsesOp, multiplies
from eventsim.layers.synapses.weights import Weight, packed, serving, shape_of, words_of
from eventsim.layers.window import output_grid, slide, taps_inside, taps_over
from eventsim.signals import FloatArray, SignalType


@dataclass(frozen=True, eq=False, repr=False)
class Conv2d(Layer):
    r"""Convolution over a map, event-driven: each active input pixel adds its weight rows to the pixels it reaches.

    .. math:: I_{o,y,x} = b_o + \sum_{i,k_y,k_x} W_{o,i,k_y,k_x}\, s_{i,y',x'},
              \quad y' = y\,stride + k_y\,dilation - pad,\; x' = x\,stride + k_x\,dilation - pad

    Parameters
    ----------
    weight : float32 array (C_out, C_in / groups, kernel height, kernel width)
    bias : float32 array (C_out,), optional
    stride, padding : (int, int)
        Vertical and horizontal; padding is with zeros.
    groups : int
        Channels are split into this many groups that do not see each other.
    dilation : (int, int)
        Pixels from one tap of the kernel to the next.
    """

    weight: Weight = Weight()  # noqa: RUF009 - a descriptor, no default
    bias: FloatArray | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1
    dilation: tuple[int, int] = (1, 1)

    role: ClassVar[Role] = "convolution"

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return real values on the output grid."""
        (source,), weight = inputs, shape_of(self)
        if len(self.dilation) != 2 or min(self.dilation) < 1:
            raise LayerError(f"dilation {self.dilation} found; expected two numbers, 1 or more")
        reach = weight if len(weight) != 4 else (*weight[:2], *self._reach(weight))
        return map_type(source, reach, self.bias, self.stride, self.padding, self.groups)

    def _reach(self, weight: tuple[int, ...]) -> tuple[int, int]:
        """Return the pixels that a kernel extends over, those between its taps included."""
        height, width = (d * (size - 1) + 1 for d, size in zip(self.dilation, weight[2:], strict=True))
        return height, width

    def dense_macs(self, *inputs: SignalType) -> int:
        """Return the whole kernel at every output pixel."""
        return self.output_type(*inputs).positions * prod(shape_of(self))

    def inner_macs(self, *inputs: SignalType) -> int:
        """Return the taps that lie on the map, at every output pixel."""
        (source,), (outputs, group_inputs, *kernel) = inputs, shape_of(self)
        grid = self.output_type(source).grid
        axes = zip(source.grid, grid, kernel, self.stride, self.padding, self.dilation, strict=True)
        return prod(taps_inside(*axis) for axis in axes) * outputs * group_inputs

    def words(self, *inputs: SignalType) -> Mapping[str, Words]:
        """Return weights, biases and partial sums."""
        return words_of(self, self.output_type(*inputs).size)

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return the words that a product and a bias read and write, and the input that is read."""
        return serving(inputs[0], biased=self.bias is not None)

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the convolution, tap by tap, in float64."""
        out = convolved(inputs[0], self.weight, self.stride, self.padding, self.groups, self.dilation)
        return np.asarray(out if self.bias is None else out + self.bias[:, None, None], np.float32)

    def absolute(self) -> Layer:
        """Return the layer of absolute weights."""
        return replace(self, weight=np.abs(self.weight), bias=None if self.bias is None else np.abs(self.bias))

    def op(self, *inputs: SignalType) -> Op:
        """Return the op, with weights packed tap by tap, input channel by input channel."""
        (source,) = inputs
        output, shape, groups = self.output_type(source), shape_of(self), self.groups
        window = slide(source, output, (shape[2], shape[3]), self.stride, self.padding, self.dilation)
        held = packed(
            self,
            lambda weight: taps_of(weight, groups),
            lambda taps: weight_of(taps, shape, groups),
            tiled=not multiplies(source, output, window, groups),
            groups=groups,
        )
        return SynapsesOp(source, output, held.parts[0], self.bias, window, groups, held.fans[0])


def map_type(
    source: SignalType,
    weight: tuple[int, ...],
    bias: FloatArray | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    groups: int,
) -> SignalType:
    """Return what a convolution with a weight of this shape makes of a map.

    Raises
    ------
    LayerError
        If weight, bias or groups do not fit the map or each other.
    """
    if len(source.grid) != 2:
        raise LayerError(f"input {source} found; expected a map C x H x W")
    if len(weight) != 4:
        raise LayerError(f"weight of shape {weight} found; expected (C_out, C_in/groups, kH, kW)")
    outputs, group_inputs, height, width = weight
    if groups < 1 or outputs % groups or group_inputs * groups != source.channels:
        raise LayerError(
            f"weight of shape {weight} with {groups} groups found; expected it to fit {source.channels} input channels"
        )
    if bias is not None and bias.shape != (outputs,):
        raise LayerError(f"bias of shape {bias.shape} found; expected ({outputs},)")
    return SignalType("real", outputs, output_grid(source.grid, (height, width), stride, padding), dense=True)


def convolved(
    x: FloatArray,
    weight: FloatArray,
    stride: tuple[int, int],
    padding: tuple[int, int],
    groups: int,
    dilation: tuple[int, int] = (1, 1),
) -> Reals:
    """Return the convolution of maps (T, C, H, W) without bias, float64: one matrix product for each tap."""
    outputs, group_inputs, *kernel = weight.shape
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    height, width = output_grid(x.shape[2:], (reach[0], reach[1]), stride, padding)
    blocks = weight.reshape(groups, outputs // groups, group_inputs, *kernel).astype(np.float64)
    out = np.zeros((len(x), groups, outputs // groups, height * width))
    taps = taps_over(x.astype(np.float64), tuple(kernel), stride, padding, (height, width), dilation)
    for (row, column), reached in taps:
        out += blocks[..., row, column] @ reached.reshape(len(x), groups, group_inputs, height * width)
    return out.reshape(len(x), outputs, height, width)


def taps_of(weight: FloatArray, groups: int) -> FloatArray:
    """Arrange a weight (C_out, C_in / groups, kH, kW) as (taps, C_in, C_out / groups)."""
    outputs, group_inputs, height, width = weight.shape
    grouped = np.moveaxis(weight, (2, 3), (0, 1)).reshape(height * width, groups, outputs // groups, group_inputs)
    return grouped.swapaxes(2, 3).reshape(height * width, groups * group_inputs, outputs // groups)


def weight_of(taps: FloatArray, shape: tuple[int, ...], groups: int) -> FloatArray:
    """Undo `taps_of`."""
    outputs, group_inputs, height, width = shape
    grouped = taps.reshape(height, width, groups, group_inputs, outputs // groups).swapaxes(3, 4)
    return np.moveaxis(grouped.reshape(height, width, outputs, group_inputs), (0, 1), (2, 3))
