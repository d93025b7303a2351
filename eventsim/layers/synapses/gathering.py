"""What convolution and linear layers share: one op that serves the synapses of the active inputs."""

from __future__ import annotations

import numpy as np

from eventsim.context import Context
from eventsim.kernels.filling import increase, repeat
from eventsim.kernels.gather import gather, tiles_of
from eventsim.kernels.products import count_products, count_pruned
from eventsim.kernels.vectors import LANES
from eventsim.kernels.window import Window
from eventsim.layers.layer import Op
from eventsim.ledger import LedgerRows
from eventsim.signals import CountArray, Dense, FloatArray, Rows, SignalType

PRODUCT_NS = 0.1
"""What a product takes, about."""
NO_UNITS: CountArray = np.empty(0, np.int64)


def report_inputs(signal: Rows | Dense, context: Context) -> None:
    """Report the values offered to a layer that multiplies, and those that are not zero."""
    context.rows.add("inputs", signal.type.size)
    context.rows.add("nonzero_inputs", context.by_step(signal))


def report_products(
    kind: SignalType, products: CountArray | int, units: CountArray, rows: LedgerRows, times: int = 1
) -> None:
    """Sort executed products under the operation of the input's kind.

    Parameters
    ----------
    kind : SignalType
        Of the input served.
    products : int64 array (steps,), or int
        Non-zero inputs times their synapses.
    units : int64 array (steps,)
        The same, each weighted by the magnitude of the input; of graded inputs.
    rows : LedgerRows
    times : int
        How often there are so many products; the units are all.
    """
    if kind.kind == "binary":
        rows.add("acs", products, times)
    elif kind.kind == "graded":
        rows.add("graded_macs", products, times)
        rows.add("graded_acs", units)
    else:
        rows.add("macs", products, times)


class SynapsesOp(Op):
    """Convolution (a linear layer is the one with a single tap) from rows, or from dense real values.

    Parameters
    ----------
    source, output : SignalType
    weight : float32 array
        As `eventsim.kernels.packing.pack` arranges it where it meets rows, else (taps, input channels, output channels
        / groups).
    bias : float32 array (output channels,) or None
    window : Window
    groups : int
    fan : int64 array (taps, input channels), optional
        Of a pruned weight: the synapses of each tap and input, those counted.
    """

    state_names = ()
    looks_ahead = False
    once_if_static = True
    plays = True

    def __init__(
        self,
        source: SignalType,
        output: SignalType,
        weight: FloatArray,
        bias: FloatArray | None,
        window: Window,
        groups: int = 1,
        fan: CountArray | None = None,
    ) -> None:
        self.source = source
        self.output = output
        self.weight = weight
        self.biased = bias is not None
        self.bias = np.zeros(output.channels, np.float32) if bias is None else np.array(bias, np.float32)
        self.window = window
        self.groups = groups
        self.fan = fan
        w = window
        self.once = (w.kernel_height, w.kernel_width, w.stride_height, w.stride_width) == (1, 1, 1, 1)
        self.once &= (w.pad_height, w.pad_width) == (0, 0)
        self.kernel = _kernel_of(source, output, groups)

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Dense:
        """Serve one chunk."""
        report_inputs(inputs[0], context)
        if self.biased:
            context.rows.add("bias_additions", self.output.size)
        return self.serve(inputs[0], context.rows, context)

    def serve(self, signal: Rows | Dense, rows: LedgerRows, context: Context) -> Dense:
        """Serve one chunk and report the products alone, to rows that need not be those of the context."""
        size = signal.steps * self.output.positions
        out = context.buffers.floats(size * self.output.channels).reshape(size, self.output.channels)
        if isinstance(signal, Dense):
            report_products(signal.type, self._multiply_dense(signal, out, context), NO_UNITS, rows)
        else:
            given = signal.whole, self.weight, self.bias, out, self.window, self.groups
            parts = self._parts(signal, size, context)
            context.share(gather, [(*given, part) for part in parts])
            self.report(signal, rows, context)
        return Dense(self.output, signal.steps, out)

    def _parts(self, signal: Rows, size: int, context: Context) -> list[tuple[int, int, int, int]]:
        """Divide the tiles, whose weights stay with one worker then, or, where they are too few, the output rows."""
        fan = self.output.channels // self.groups
        tiles, taps = tiles_of(fan), self.window.kernel_height * self.window.kernel_width
        workers = context.workers
        if not context.worth(PRODUCT_NS * len(signal.indices) * taps * fan):
            return [(0, tiles, 0, size)]
        if tiles >= workers.number:
            return [(*part, 0, size) for part in workers.ranges(tiles)]
        return [(0, tiles, *part) for part in workers.ranges(size)]

    def _multiply_dense(self, signal: Dense, out: FloatArray, context: Context) -> int:
        """Multiply tap by tap and step by step (equal shapes for every chunk size); return the products of a step."""
        w, groups = self.window, self.groups
        if len(self.weight) == groups == w.stride_height == w.stride_width == 1 and w.pad_height == w.pad_width == 0:
            rows = signal.data.reshape(signal.steps, self.source.positions, self.source.channels)
            sums = out.reshape(signal.steps, self.output.positions, self.output.channels)
            context.call(np.matmul, rows, self.weight[0], sums)  # NumPy multiplies a stack of matrices one by one
            if self.biased:
                context.call(increase, sums, self.bias)
            fan = self.source.channels * self.output.channels if self.fan is None else int(self.fan.sum())
            return self.source.positions * fan
        context.call(repeat, self.bias, out)
        group_inputs, fan = self.source.channels // groups, self.weight.shape[2]
        maps = signal.data.reshape(signal.steps, w.height, w.width, groups, group_inputs)
        sums = out.reshape(signal.steps, w.out_height, w.out_width, groups, fan)
        products = 0
        for tap, tap_weight in enumerate(self.weight):
            (ys, source_ys), (xs, source_xs) = _tap_ranges(w, tap)
            pixels = len(range(ys.start, ys.stop)) * len(range(xs.start, xs.stop))
            products += pixels * (self.source.channels * fan if self.fan is None else int(self.fan[tap].sum()))
            for step in range(signal.steps):
                for group in range(groups):
                    block = tap_weight[group * group_inputs : (group + 1) * group_inputs]
                    reached, read = sums[step, ys, xs, group], maps[step, source_ys, source_xs, group]
                    context.call(_add_product, reached, read, block)
        return products

    def report(self, signal: Rows, rows: LedgerRows, context: Context) -> None:
        """Report the products of each step and, of graded inputs, their units."""
        reached = self.output.channels // self.groups
        all_alike = self.once and self.fan is None  # each input reaches all outputs of its group
        if all_alike and signal.type.kind != "graded":
            report_products(signal.type, context.by_step(signal), NO_UNITS, rows, reached)
        else:
            products, units = context.counts((2, signal.steps))
            if self.fan is None:
                context.call(count_products, signal.whole, self.window, reached, products, units)
            else:
                context.call(count_pruned, signal.whole, self.window, self.fan, products, units)
            report_products(signal.type, products, units, rows)


def _kernel_of(source: SignalType, output: SignalType, groups: int) -> str:
    """Name what serves inputs of this type; where each group has one input, silent ones may be looked at too."""
    if source.dense:
        return "dense_matmul"
    alone = groups > 1 and groups == source.channels and output.channels < LANES * groups
    return "gather_channels" if alone else "gather"


def _add_product(sums: FloatArray, rows: FloatArray, weight: FloatArray) -> None:
    sums += rows @ weight


def _tap_ranges(w: Window, tap: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return `_tap_range` of both axes."""
    dy = tap // w.kernel_width * w.dilation_height - w.pad_height
    dx = tap % w.kernel_width * w.dilation_width - w.pad_width
    return (
        _tap_range(dy, w.stride_height, w.height, w.out_height),
        _tap_range(dx, w.stride_width, w.width, w.out_width),
    )


def _tap_range(offset: int, stride: int, size: int, out_size: int) -> tuple[slice, slice]:
    """Output pixels that a tap serves along one axis, and the input pixels they read."""
    first = max(0, -(offset // stride))
    last = min(out_size - 1, (size - 1 - offset) // stride)
    if last < first:
        return slice(0, 0), slice(0, 0)
    start = first * stride + offset
    return slice(first, last + 1), slice(start, start + (last - first) * stride + 1, stride)
