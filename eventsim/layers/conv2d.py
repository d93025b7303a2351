"""Two-dimensional convolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.synapses import SynapsesOp
from eventsim.layers.window import output_grid, slide
from eventsim.signals import FloatArray, SignalType


@dataclass(frozen=True, eq=False)
class Conv2d(Layer):
    r"""Convolution over a map, event-driven: each active input pixel adds its weight rows to the pixels it reaches.

    .. math:: I_{o,y,x} = b_o + \sum_{i,k_y,k_x} W_{o,i,k_y,k_x}\, s_{i,y',x'},
              \quad y' = y\,stride + k_y - pad,\; x' = x\,stride + k_x - pad

    Parameters
    ----------
    weight : float32 array (C_out, C_in / groups, kernel height, kernel width)
    bias : float32 array (C_out,), optional
    stride, padding : (int, int)
        Vertical and horizontal; padding is with zeros.
    groups : int
        Channels are split into this many groups that do not see each other.
    """

    weight: FloatArray
    bias: FloatArray | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return real values on the output grid."""
        (source,) = inputs
        if len(source.grid) != 2:
            raise LayerError(f"input {source} found; expected a map C x H x W")
        if self.weight.ndim != 4:
            raise LayerError(f"weight of shape {self.weight.shape} found; expected (C_out, C_in/groups, kH, kW)")
        outputs, group_inputs = self.weight.shape[:2]
        if self.groups < 1 or outputs % self.groups or group_inputs * self.groups != source.channels:
            raise LayerError(
                f"weight of shape {self.weight.shape} with {self.groups} groups found; "
                f"expected it to fit {source.channels} input channels"
            )
        if self.bias is not None and self.bias.shape != (outputs,):
            raise LayerError(f"bias of shape {self.bias.shape} found; expected ({outputs},)")
        kernel = (self.weight.shape[2], self.weight.shape[3])
        return SignalType("real", outputs, output_grid(source.grid, kernel, self.stride, self.padding), dense=True)

    def dense_macs(self, *inputs: SignalType) -> int:
        """Return the whole kernel at every output pixel."""
        return self.output_type(*inputs).positions * int(self.weight.size)

    def op(self, *inputs: SignalType) -> Op:
        """Return the op, with weights packed tap by tap, input channel by input channel."""
        (source,) = inputs
        output = self.output_type(source)
        packed = np.moveaxis(self.weight, (2, 3), (0, 1))  # kH, kW, C_out, C_in/groups
        kernel_height, kernel_width, outputs, group_inputs = packed.shape
        packed = packed.reshape(kernel_height * kernel_width, self.groups, outputs // self.groups, group_inputs)
        packed = packed.swapaxes(2, 3).reshape(len(packed), source.channels, outputs // self.groups)
        window = slide(source, output, (kernel_height, kernel_width), self.stride, self.padding)
        return SynapsesOp(source, output, packed, self.bias, window, self.groups)
