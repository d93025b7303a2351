"""What convolution and linear layers share: one op that serves the synapses of the active inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from eventsim.banded import Banded, in_bands
from eventsim.context import Context
from eventsim.kernels.filling import increase
from eventsim.kernels.gather import gather, tiles_of
from eventsim.kernels.products import count_products, count_pruned
from eventsim.kernels.vectors import LANES
from eventsim.kernels.window import Window, flat, is_flat
from eventsim.layers.layer import Op
from eventsim.layers.listing import every_channel
from eventsim.layers.window import windows_inside
from eventsim.ledger import LedgerRows
from eventsim.signals import CountArray, Dense, FloatArray, Rows, SignalType

PRODUCT_NS = 0.1
"""What a product takes, about."""
LITTLE = 1 << 17
"""Products of a time step that take no longer than it takes to call a library."""
NEAR_WEIGHTS = 1 << 18
"""Bytes of weights that a near cache holds beside a band of sums."""
NO_UNITS: CountArray = np.empty(0, np.int64)

Part: TypeAlias = tuple[int, int, int, int]
"""First and last tile, first and last row of the output; the last ones are excluded."""
Given: TypeAlias = Callable[[FloatArray, Window, Part], tuple[Any, ...]]


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
        How often there are so many products, and units.
    """
    if kind.kind == "binary":
        rows.add("acs", products, times)
    elif kind.kind == "graded":
        rows.add("graded_macs", products, times)
        rows.add("graded_acs", units, times)
    else:
        rows.add("macs", products, times)


class SynapsesOp(Op):
    """Convolution (a linear layer is the one with a single tap) from rows, or from dense real values.

    Parameters
    ----------
    source, output : SignalType
    weight : float32 array
        As `eventsim.kernels.packing.pack` arranges it; where the op `multiplies`, (taps, input channels, outputs).
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
        self.tiles, self.product_ns = tiles_of(output.channels // groups), PRODUCT_NS
        self.once = is_flat(window)
        self.multiplies = multiplies(source, output, window, groups)
        self.kernel = "dense_matmul" if self.multiplies else _kernel_of(source, output, groups)
        if source.dense:
            self.products = _products_of_every(output.channels // groups, source.channels, window, fan)
        if source.dense and not self.multiplies:
            channels = np.tile(np.arange(source.channels, dtype=np.int32), source.positions)
            self.every = np.arange(source.positions + 1) * source.channels, channels

    def advance(self, inputs: tuple[Rows | Dense], context: Context) -> Dense:
        """Serve one chunk."""
        report_inputs(inputs[0], context)
        if self.biased:
            context.rows.add("bias_additions", self.output.size)
        return self.serve(inputs[0], context.rows, context)

    def serve(self, signal: Rows | Dense, rows: LedgerRows, context: Context) -> Dense:
        """Serve one chunk and report the products alone, to rows that need not be those of the context."""
        if isinstance(signal, Rows):
            return self._serve_rows(signal, rows, context)
        out = self._room(signal.steps, context)
        serve = self._multiply if self.multiplies else self._serve_every
        serve(signal, out, context)
        report_products(signal.type, self.products, NO_UNITS, rows)
        return Dense(self.output, signal.steps, out)

    def _serve_rows(self, signal: Rows, rows: LedgerRows, context: Context) -> Dense:
        """Serve one chunk, now or, where only neurons hear it that take bands, when they ask."""
        kernel, given = self._given(signal, context)
        if self.emits_bands and not signal.static and self._near() and in_bands(signal.steps, self.output, context):
            self.report(signal, rows, context)
            tiles = self.tiles

            def of_band(out: FloatArray, window: Window, size: int) -> tuple[Any, ...]:
                return given(out, window, (0, tiles, 0, size))

            return Banded(self.output, signal.steps, self.window, kernel, of_band, context)
        out = self._room(signal.steps, context)
        parts = self._parts(len(signal.indices), len(out), context)
        context.share(kernel, [given(out, self.window, part) for part in parts])
        self.report(signal, rows, context)
        return Dense(self.output, signal.steps, out)

    def _given(self, signal: Rows, context: Context) -> tuple[Callable[..., None], Given]:
        """Return the kernel that serves, and what makes its arguments: for an array, its window, and a part."""

        def given(out: FloatArray, window: Window, part: Part) -> tuple[Any, ...]:
            return signal.whole, self.weight, self.bias, out, window, self.groups, part

        return gather, given

    def _near(self) -> bool:
        """Say whether the weights stay in a near cache beside a band, and there is more than one line."""
        return self.weight.nbytes <= NEAR_WEIGHTS and self.window.out_height > 1 and not self.once

    def _room(self, steps: int, context: Context) -> FloatArray:
        size = steps * self.output.positions
        return context.buffers.floats(size * self.output.channels).reshape(size, self.output.channels)

    def _parts(self, events: int, size: int, context: Context) -> list[Part]:
        """Divide the tiles, whose weights stay with one worker then, or, where they are too few, the output rows."""
        fan = self.output.channels // self.groups
        tiles, taps = self.tiles, self.window.kernel_height * self.window.kernel_width
        workers = context.workers
        if not context.worth(self.product_ns * events * taps * fan):
            return [(0, tiles, 0, size)]
        if tiles >= workers.number:
            return [(*part, 0, size) for part in workers.ranges(tiles)]
        return [(0, tiles, *part) for part in workers.ranges(size, 2)]  # some kernels serve rows in pairs

    def _serve_every(self, signal: Dense, out: FloatArray, context: Context) -> None:
        """Serve dense values, whether 0 or not; step by step, so that all have one list of channels."""
        data, rows = every_channel(signal, context), self.source.positions
        sums = self.output.positions
        for step in range(signal.steps):
            values = data[step * rows : (step + 1) * rows].reshape(-1)
            given = (*self.every, values), self.weight, self.bias, out[step * sums : (step + 1) * sums]
            parts = self._parts(len(values), sums, context)
            context.share(gather, [(*given, self.window, self.groups, part) for part in parts])

    def _multiply(self, signal: Dense, out: FloatArray, context: Context) -> None:
        """Let NumPy's library multiply, which takes a stack of matrices one by one: equal shapes for every chunk."""
        rows = signal.data.reshape(signal.steps, self.source.positions, self.source.channels)
        sums = out.reshape(signal.steps, self.output.positions, self.output.channels)
        context.call(np.matmul, rows, self.weight[0], sums)
        if self.biased:
            context.call(increase, sums, self.bias)

    def report(self, signal: Rows, rows: LedgerRows, context: Context) -> None:
        """Report the products of each step and, of graded inputs, their units."""
        reached = self.output.channels // self.groups
        all_alike = self.once and self.fan is None  # each input reaches all outputs of its group
        if all_alike:
            units = _units_by_step(signal, context) if signal.type.kind == "graded" else NO_UNITS
            report_products(signal.type, context.by_step(signal), units, rows, reached)
        else:
            products, units = context.counts((2, signal.steps))
            if self.fan is None:
                context.call(count_products, signal.whole, self.window, reached, products, units)
            else:
                context.call(count_pruned, signal.whole, self.window, self.fan, products, units)
            report_products(signal.type, products, units, rows)


def _units_by_step(signal: Rows, context: Context) -> CountArray:
    """Return the sum of the magnitudes in each time step, counted once for all the layers that hear a signal."""
    kept: CountArray | None = signal.__dict__.get("_units")
    if kept is None:
        products, kept = context.counts((2, signal.steps))
        context.call(count_products, signal.whole, flat(signal.type.positions), 1, products, kept)
        signal.__dict__["_units"] = kept
    return kept


def multiplies(source: SignalType, output: SignalType, window: Window, groups: int) -> bool:
    """Say whether a library multiplies: every value of a position by one matrix, where that is worth a call."""
    products = source.size * output.channels
    return source.dense and is_flat(window) and groups == 1 and products > LITTLE


def _kernel_of(source: SignalType, output: SignalType, groups: int) -> str:
    """Name what serves inputs of this type; where each group has one input, silent ones may be looked at too."""
    alone = groups > 1 and groups == source.channels and output.channels < LANES * groups
    return "gather_channels" if alone else "gather"


def _products_of_every(outputs: int, inputs: int, w: Window, fan: CountArray | None) -> int:
    """Return the products of a time step where every input counts, each of which reaches so many outputs by a tap."""
    rows = windows_inside(w.height, w.out_height, w.kernel_height, w.stride_height, w.pad_height, w.dilation_height)
    columns = windows_inside(w.width, w.out_width, w.kernel_width, w.stride_width, w.pad_width, w.dilation_width)
    of_tap = np.full(len(rows) * len(columns), inputs * outputs) if fan is None else fan.sum(axis=1)
    return int(np.outer(rows, columns).ravel() @ of_tap)
