"""Fully connected layer over the channels of each position."""

from __future__ import annotations

from dataclasses import dataclass, replace

from eventsim.kernels.window import Window
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.synapses import SynapsesOp
from eventsim.signals import FloatArray, SignalType


@dataclass(frozen=True, eq=False)
class Linear(Layer):
    r"""Linear map of each pixel or token, event-driven: each active channel adds its weight row.

    .. math:: I_o = b_o + \sum_i W_{o,i}\, s_i

    On a map it is the 1x1 convolution.

    Parameters
    ----------
    weight : float32 array (C_out, C_in)
    bias : float32 array (C_out,), optional
    """

    weight: FloatArray
    bias: FloatArray | None = None

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return real values at the same positions."""
        (source,) = inputs
        if self.weight.ndim != 2 or self.weight.shape[1] != source.channels:
            raise LayerError(f"weight of shape {self.weight.shape} found; expected (C_out, {source.channels})")
        outputs = self.weight.shape[0]
        if self.bias is not None and self.bias.shape != (outputs,):
            raise LayerError(f"bias of shape {self.bias.shape} found; expected ({outputs},)")
        return replace(source, kind="real", channels=outputs, dense=True)

    def dense_macs(self, *inputs: SignalType) -> int:
        """Return the whole matrix at every position."""
        return inputs[0].positions * int(self.weight.size)

    def op(self, *inputs: SignalType) -> Op:
        """Return the op, with the weight rows of the input channels side by side."""
        (source,) = inputs
        n = source.positions
        one_tap = Window(1, n, 1, n, 1, 1, 1, 1, 0, 0)
        return SynapsesOp(source, self.output_type(source), self.weight.T[None], self.bias, one_tap)
