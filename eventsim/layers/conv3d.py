"""Convolution over time and space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from eventsim.counts import Counts
from eventsim.layers.conv2d import Conv2d
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.steps import join_steps, take_steps
from eventsim.signals import Dense, FloatArray, Rows, Signal, SignalType


@dataclass(frozen=True, eq=False)
class Conv3d(Layer):
    r"""Convolution over time and a map, event-driven: an active input adds its weight rows to what it reaches.

    .. math:: I_{o,t,y,x} = b_o + \sum_{k_t,i,k_y,k_x} W_{o,i,k_t,k_y,k_x}\, s_{i,\,t + k_t - before,\,y',x'}

    with y' and x' as in `Conv2d`, and before = (kernel time - 1) / 2 if centred, kernel time - 1 if causal. The output
    has as many time steps as the input; steps before the first and after the last are silent.

    Parameters
    ----------
    weight : float32 array (C_out, C_in / groups, kernel time, kernel height, kernel width)
    bias : float32 array (C_out,), optional
    stride, padding : (int, int)
        Vertical and horizontal; padding is with zeros.
    groups : int
        Channels are split into this many groups that do not see each other.
    time_padding : {"centred", "causal"}
        ``"centred"``: as many steps before as after (an odd kernel), which looks ahead, so that all steps must be in
        one chunk. ``"causal"``: the step itself and those before it, which are kept from chunk to chunk.
    """

    weight: FloatArray
    bias: FloatArray | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1
    time_padding: Literal["centred", "causal"] = "centred"

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return real values on the output grid."""
        if self.weight.ndim != 5 or self.weight.shape[2] < 1:
            raise LayerError(f"weight of shape {self.weight.shape} found; expected (C_out, C_in/groups, kT, kH, kW)")
        if self.time_padding not in ("centred", "causal"):
            raise LayerError(f"time_padding {self.time_padding!r} found; expected 'centred' or 'causal'")
        kernel_time = self.weight.shape[2]
        if self.time_padding == "centred" and kernel_time % 2 == 0:
            raise LayerError(f"centred kernel of {kernel_time} time steps found; expected an odd number")
        return self._tap(0, self.bias).output_type(*inputs)

    def dense_macs(self, *inputs: SignalType) -> int:
        """Return the whole kernel at every output pixel."""
        return self.output_type(*inputs).positions * int(self.weight.size)

    def op(self, *inputs: SignalType) -> Op:
        """Return the op: one convolution of a map for each time step of the kernel."""
        (source,) = inputs
        kernel_time = self.weight.shape[2]
        output = self.output_type(source)
        taps = [self._tap(tap, None).op(source) for tap in range(kernel_time)]
        before = kernel_time - 1 if self.time_padding == "causal" else kernel_time // 2
        bias = np.zeros(output.channels, np.float32) if self.bias is None else self.bias
        return Conv3dOp(output, taps, bias, before)

    def _tap(self, tap: int, bias: FloatArray | None) -> Conv2d:
        """Return what the kernel does with one time step."""
        return Conv2d(self.weight[:, :, tap], bias, self.stride, self.padding, self.groups)


class Conv3dOp(Op):
    """Adds up the kernel's time steps, the earliest first: one order for every chunk size."""

    def __init__(self, output: SignalType, taps: list[Op], bias: FloatArray, before: int) -> None:
        self.output = output
        self.taps = taps
        self.bias = bias
        self.before = before
        self.stateless = len(taps) == 1
        self.causal = before == len(taps) - 1
        self.kernel = taps[0].kernel
        self.reset()

    def reset(self) -> None:
        """Forget the steps seen; take taps whose buffers no other fork writes."""
        self.taps = [tap.fork() for tap in self.taps]
        self._history: Signal | None = None

    def advance(self, inputs: tuple[Rows | Dense], final: bool) -> tuple[Dense, Counts]:
        """Serve one chunk."""
        signal = inputs[0]
        seen = signal if self._history is None else join_steps(self._history, signal)
        old = seen.steps - signal.steps
        out = np.empty((signal.steps, self.output.positions, self.output.channels), np.float32)
        out[:] = self.bias
        counts = Counts()
        for tap, synapses in enumerate(self.taps):
            shift = old + tap - self.before  # output step t reads step t + shift of what was seen
            start, stop = max(0, -shift), min(signal.steps, seen.steps - shift)
            if start >= stop:
                continue
            part, executed = synapses.advance((take_steps(seen, start + shift, stop + shift),), final)
            out[start:stop] += part.to_array().reshape(stop - start, *out.shape[1:])
            counts.add(executed)
        counts.inputs, counts.nonzero_inputs = signal.steps * signal.type.size, signal.nonzeros
        if self.causal and self.before:
            self._history = join_steps(take_steps(seen, max(0, seen.steps - self.before), seen.steps))
        return Dense(self.output, signal.steps, out.reshape(-1, self.output.channels)), counts
