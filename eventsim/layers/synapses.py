"""What convolution and linear layers share: one op that serves the synapses of the active inputs."""

from __future__ import annotations

import numpy as np

from eventsim.counts import Counts
from eventsim.kernels.gather import gather, gather_groups, pack
from eventsim.kernels.window import Window
from eventsim.layers.layer import Op
from eventsim.signals import Dense, FloatArray, Rows, SignalType


def synaptic_counts(signal: Rows | Dense, products: int, units: float) -> Counts:
    """Sort executed products under the column of the input's kind.

    Parameters
    ----------
    signal : Rows or Dense
        The input served.
    products : int
        Non-zero inputs times their synapses.
    units : float
        The same, each weighted by the magnitude of the input.
    """
    counts = Counts(inputs=signal.steps * signal.type.size, nonzero_inputs=signal.nonzeros)
    if signal.type.kind == "binary":
        counts.acs = products
    elif signal.type.kind == "graded":
        counts.graded_macs, counts.graded_acs = products, round(units)
    else:
        counts.macs = products
    return counts


class SynapsesOp(Op):
    """Convolution (a linear layer is the one with a single tap) from rows, or from dense real values.

    Parameters
    ----------
    source, output : SignalType
    weight : float32 array (taps, input channels, output channels / groups)
    bias : float32 array (output channels,) or None
    window : Window
    groups : int
    """

    def __init__(
        self,
        source: SignalType,
        output: SignalType,
        weight: FloatArray,
        bias: FloatArray | None,
        window: Window,
        groups: int = 1,
    ) -> None:
        self.source = source
        self.output = output
        self.weight = np.ascontiguousarray(weight, np.float32)
        self.bias = np.zeros(output.channels, np.float32) if bias is None else bias
        self.window = window
        self.groups = groups
        if source.dense:
            self.kernel = "dense_matmul"
        else:
            self.kernel = "gather" if groups == 1 else "gather_groups"
            self.packed = pack(self.weight) if groups == 1 else self.weight
        self.reset()

    def reset(self) -> None:
        """Drop the output buffer's tie to other forks."""
        self._buffer = np.empty((0, self.output.channels), np.float32)

    def advance(self, inputs: tuple[Rows | Dense], final: bool) -> tuple[Dense, Counts]:
        """Serve one chunk."""
        signal = inputs[0]
        rows = signal.steps * self.output.positions
        if len(self._buffer) < rows:
            self._buffer = np.empty((rows, self.output.channels), np.float32)
        out = self._buffer[:rows]
        out[:] = self.bias
        if isinstance(signal, Dense):
            return Dense(self.output, signal.steps, out), synaptic_counts(signal, self._multiply_dense(signal, out), 0)
        if self.groups == 1:
            products, units = gather(signal.triple, self.packed, self.source.channels, out, signal.steps, self.window)
        else:
            products, units = gather_groups(signal.triple, self.weight, out, signal.steps, self.window, self.groups)
        return Dense(self.output, signal.steps, out), synaptic_counts(signal, products, units)

    def _multiply_dense(self, signal: Dense, out: FloatArray) -> int:
        """Multiply tap by tap and step by step (equal shapes for every chunk size); return the products."""
        w = self.window
        groups = self.groups
        group_inputs, fan = self.source.channels // groups, self.weight.shape[2]
        maps = signal.data.reshape(signal.steps, w.height, w.width, groups, group_inputs)
        sums = out.reshape(signal.steps, w.out_height, w.out_width, groups, fan)
        pixels = 0
        for tap, tap_weight in enumerate(self.weight):
            ys, source_ys = _tap_range(tap // w.kernel_width - w.pad_height, w.stride_height, w.height, w.out_height)
            xs, source_xs = _tap_range(tap % w.kernel_width - w.pad_width, w.stride_width, w.width, w.out_width)
            pixels += len(range(ys.start, ys.stop)) * len(range(xs.start, xs.stop))
            for step in range(signal.steps):
                for group in range(groups):
                    block = tap_weight[group * group_inputs : (group + 1) * group_inputs]
                    sums[step, ys, xs, group] += maps[step, source_ys, source_xs, group] @ block
        return int(signal.steps * pixels * self.source.channels * fan)


def _tap_range(offset: int, stride: int, size: int, out_size: int) -> tuple[slice, slice]:
    """Output pixels that a tap serves along one axis, and the input pixels they read."""
    first = max(0, -(offset // stride))
    last = min(out_size - 1, (size - 1 - offset) // stride)
    if last < first:
        return slice(0, 0), slice(0, 0)
    start = first * stride + offset
    return slice(first, last + 1), slice(start, start + (last - first) * stride + 1, stride)
