"""Convolution over time and space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar, Literal

import numpy as np

from eventsim.context import Context
from eventsim.facts import Entailed, Role, Words
from eventsim.kernels.filling import increase, repeat
from eventsim.layers.dense import Memory, with_past
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.synapses.conv2d import convolved, map_type, taps_of, weight_of
from eventsim.layers.synapses.gathering import SynapsesOp, multiplies, report_inputs
from eventsim.layers.synapses.weights import Weight, packed, serving, shape_of, words_of
from eventsim.layers.time.steps import join_steps, shared_steps, take_steps
from eventsim.layers.window import slide, taps_inside
from eventsim.signals import Dense, FloatArray, Rows, Signal, SignalType


@dataclass(frozen=True, eq=False, repr=False)
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

    weight: Weight = Weight()  # noqa: RUF009 - a descriptor, no default
    bias: FloatArray | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1
    time_padding: Literal["centred", "causal"] = "centred"

    role: ClassVar[Role] = "convolution"

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return real values on the output grid."""
        shape = shape_of(self)
        if len(shape) != 5 or shape[2] < 1:
            raise LayerError(f"weight of shape {shape} found; expected (C_out, C_in/groups, kT, kH, kW)")
        if self.time_padding not in ("centred", "causal"):
            raise LayerError(f"time_padding {self.time_padding!r} found; expected 'centred' or 'causal'")
        if self.time_padding == "centred" and shape[2] % 2 == 0:
            raise LayerError(f"centred kernel of {shape[2]} time steps found; expected an odd number")
        return map_type(inputs[0], shape[:2] + shape[3:], self.bias, self.stride, self.padding, self.groups)

    def dense_macs(self, *inputs: SignalType) -> int:
        """Return the whole kernel at every output pixel."""
        return self.output_type(*inputs).positions * prod(shape_of(self))

    def inner_macs(self, *inputs: SignalType) -> int:
        """Return the taps that lie on the map, at every output pixel; every time step of the kernel counts."""
        (source,), (outputs, group_inputs, kernel_time, *kernel) = inputs, shape_of(self)
        grid = self.output_type(source).grid
        axes = zip(source.grid, grid, kernel, self.stride, self.padding, strict=True)
        return prod(taps_inside(*axis) for axis in axes) * outputs * group_inputs * kernel_time

    def words(self, *inputs: SignalType) -> Mapping[str, Words]:
        """Return weights, biases and partial sums."""
        return words_of(self, self.output_type(*inputs).size)

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return the words that a product and a bias read and write, and the input that is read."""
        return serving(inputs[0], biased=self.bias is not None)

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the convolution, one of a map for each time step of the kernel, in float64."""
        (x,), weight = inputs, self.weight
        length, steps = weight.shape[2], len(x)
        if self.time_padding == "causal":
            seen, past = with_past(x, memory, length - 1)
            before = np.zeros((length - 1 - past, *x.shape[1:]), np.float32)
            padded = np.concatenate([before, seen])
        else:
            padded = np.pad(x, ((length // 2, length // 2), *((0, 0),) * 3))
        parts = (
            convolved(padded[tap : tap + steps], weight[:, :, tap], self.stride, self.padding, self.groups)
            for tap in range(length)
        )
        out = sum(parts, np.zeros(()))
        return np.asarray(out if self.bias is None else out + self.bias[:, None, None], np.float32)

    def absolute(self) -> Layer:
        """Return the layer of absolute weights."""
        return replace(self, weight=np.abs(self.weight), bias=None if self.bias is None else np.abs(self.bias))

    def op(self, *inputs: SignalType) -> Op:
        """Return the op: one convolution of a map for each time step of the kernel."""
        (source,) = inputs
        output, groups = self.output_type(source), self.groups
        outputs, group_inputs, kernel_time, *kernel = shape_of(self)
        map_shape = (outputs, group_inputs, *kernel)
        window = slide(source, output, (kernel[0], kernel[1]), self.stride, self.padding)
        held = packed(
            self,
            lambda weight: np.concatenate([taps_of(weight[:, :, t], groups) for t in range(kernel_time)]),
            lambda taps: np.stack([weight_of(part, map_shape, groups) for part in np.split(taps, kernel_time)], axis=2),
            tiled=not multiplies(source, output, window, groups),
            count=kernel_time,
            groups=groups,
        )
        taps = [
            SynapsesOp(source, output, part, None, window, groups, fan)
            for part, fan in zip(held.parts, held.fans, strict=True)
        ]
        before = kernel_time - 1 if self.time_padding == "causal" else kernel_time // 2
        return Conv3dOp(output, taps, self.bias, before)


class Conv3dOp(Op):
    """Adds up the kernel's time steps, the earliest first: one order for every chunk size."""

    def __init__(self, output: SignalType, taps: Sequence[SynapsesOp], bias: FloatArray | None, before: int) -> None:
        self.output = output
        self.taps = taps
        self.biased = bias is not None
        self.bias = np.zeros(output.channels, np.float32) if bias is None else bias
        self.before = before
        self.looks_ahead = before < len(taps) - 1
        self.once_if_static = len(taps) == 1
        self.state_names = () if self.looks_ahead or not before else ("history",)
        self.plays = all(synapses.plays for synapses in taps)
        self.kernel = taps[0].kernel
        self.reset()

    def reset(self) -> None:
        """Forget the steps seen."""
        self.history: Signal | None = None

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Dense:
        """Serve one chunk."""
        signal = inputs[0]
        seen = signal if self.history is None else join_steps(self.history, signal)
        old = seen.steps - signal.steps
        positions, channels = self.output.positions, self.output.channels
        out = context.buffers.floats(signal.steps * positions * channels).reshape(-1, channels)
        context.call(repeat, self.bias, out)
        report_inputs(signal, context)
        if self.biased:
            context.rows.add("bias_additions", self.output.size)
        for tap, synapses in enumerate(self.taps):
            shift = old + tap - self.before  # output step t reads step t + shift of what was seen
            start, stop = max(0, -shift), min(signal.steps, seen.steps - shift)
            if start >= stop:
                continue
            read, rows = shared_steps(seen, start + shift, stop + shift), context.rows.part(start, stop)
            part = synapses.serve(read, rows, context)
            context.call(increase, out[start * positions : stop * positions], part.data)
        if self.state_names:
            self.history = join_steps(take_steps(seen, max(0, seen.steps - self.before), seen.steps))
        return Dense(self.output, signal.steps, out)
