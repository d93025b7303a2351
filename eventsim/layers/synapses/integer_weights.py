"""Integer synapses: int8 weights, and the proof that their sums fit.

Inputs are not negative. So whatever is active, and in whatever order it is added, no sum of a channel exceeds that of
its positive weights times the largest input, or falls below that of its negative ones. From these bounds follow the
width of the sums and the spans in which `eventsim.kernels.gather_integer` takes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from eventsim.buffers import Buffers
from eventsim.context import Context
from eventsim.facts import Words
from eventsim.kernels.gather_integer import Span, by_rows, gather_integer, pack_integers
from eventsim.kernels.gather_integer import tiles_of as plain_tiles_of
from eventsim.kernels.gather_quads import (
    LARGEST_VALUE,
    SERVED,
    Pairs,
    gather_quads,
    is_flat,
    list_pairs,
    pack_quads,
    reach_of,
    room_of,
    tiles_of,
)
from eventsim.kernels.packing import pack
from eventsim.kernels.window import Window
from eventsim.layers.layer import LayerError
from eventsim.layers.synapses.conv2d import taps_of
from eventsim.layers.synapses.gathering import SynapsesOp, report_products
from eventsim.layers.synapses.weights import fan_of, is_pruned
from eventsim.ledger import LedgerRows
from eventsim.signals import Dense, FloatArray, Rows, SignalType
from eventsim.workers import Workers

ByteArray = npt.NDArray[np.int8]

LARGEST_WEIGHT = 127
"""Weights are symmetric, so that no channel has one more of one sign."""
LARGEST_SUM = 2**24
"""Between layers values are float32, in which integers are exact up to here."""
NARROW_SUM = 2**15 - 1
QUAD_NS = 0.02
"""What a product takes, about."""


class Width(NamedTuple):
    """What is proven of the sums of a layer.

    Attributes
    ----------
    largest : int
        No sum has a larger magnitude.
    lane : int
        Bits of a sum within a span.
    spans : tuple of Span
    """

    largest: int
    lane: int
    spans: tuple[Span, ...]

    @property
    def bits(self) -> int:
        """Bits of a whole sum: those of the lane, or 32 where several spans are added up."""
        return 32 if sum(span.ends for span in self.spans) > 1 else self.lane


def width_of(weight: ByteArray, largest_input: int, groups: int = 1) -> Width:
    """Prove a width from a weight ``(C_out, C_in / groups, ...)`` and the largest input.

    Sums take 16 bits where these hold every sum of a span, of which there may be several; 32 where a single product
    needs them, and in groups, which are served in float32.

    Raises
    ------
    LayerError
        If the sums fit no width.
    """
    flat = weight.reshape(len(weight), -1)
    highest, lowest = (part.sum(1, dtype=np.int64) for part in (np.maximum(flat, 0), np.minimum(flat, 0)))
    largest = int(max(highest.max(initial=0), -lowest.min(initial=0))) * largest_input
    if largest > LARGEST_SUM:
        raise LayerError(
            f"sums up to {largest} found (weights times inputs up to {largest_input}); expected at most {LARGEST_SUM}, "
            "leave the layer in float32"
        )
    taps = integer_taps(weight, groups)
    product = int(max(flat.max(initial=0), -int(flat.min(initial=0)))) * largest_input
    if groups > 1 or product > NARROW_SUM:
        count, inputs, _ = taps.shape
        return Width(largest, 32, tuple(Span(tap, 0, inputs, tap == 0, tap == count - 1) for tap in range(count)))
    return Width(largest, 16, _spans(taps, NARROW_SUM // largest_input))


def _spans(taps: ByteArray, room: int) -> tuple[Span, ...]:
    """Divide ``(taps, inputs, outputs)`` such that nothing of one sign adds up to more than `room` in a span."""
    count, inputs, outputs = taps.shape
    pieces: list[tuple[int, int, int]] = []
    begins: list[int] = [0]
    held = np.zeros((2, outputs), np.int64)
    for tap in range(count):
        sides = np.stack([np.maximum(taps[tap], 0), np.maximum(-taps[tap], 0)], axis=1)  # no weight is -128
        low = 0
        while low < inputs:
            whole = held + sides[low:].sum(0, dtype=np.int64)
            if (whole <= room).all():
                pieces.append((tap, low, inputs))
                held, low = whole, inputs
            elif held.any():
                begins.append(len(pieces))  # a whole tap in the next span, before one is cut in two
                held = np.zeros((2, outputs), np.int64)
            else:
                fits = (np.cumsum(sides[low:], axis=0, dtype=np.int64) <= room).all((1, 2))
                high = low + int(np.count_nonzero(fits))
                pieces.append((tap, low, high))
                held, low = sides[low:high].sum(0, dtype=np.int64), high
    ends = {*(begin - 1 for begin in begins[1:]), len(pieces) - 1}
    return tuple(Span(*piece, n in begins, n in ends) for n, piece in enumerate(pieces))


def check_integers(weight: Any, scale: FloatArray, largest_input: int, source: SignalType) -> None:
    """Refuse what integer synapses cannot be made of.

    Raises
    ------
    LayerError
        If the weights are no int8 from -127 to 127, the scales do not fit them, or the input has values that are not
        counted in units.
    """
    if weight.dtype != np.int8 or (weight.size and weight.min() < -LARGEST_WEIGHT):
        raise LayerError(f"weight of {weight.dtype} from {weight.min()} on found; expected int8 from -127 to 127")
    if scale.shape != weight.shape[:1] or not (np.isfinite(scale).all() and (scale > 0).all()):
        raise LayerError(f"scale of shape {scale.shape} found; expected {weight.shape[:1]} finite numbers above 0")
    if source.kind == "real":
        raise LayerError(f"input {source} found; expected spikes or graded values")
    if not 1 <= largest_input <= LARGEST_SUM or (source.kind == "binary" and largest_input != 1):
        raise LayerError(
            f"largest input {largest_input} of {source} found; expected 1 for spikes, else 1 to {LARGEST_SUM}"
        )


def words_of_integers(weight: ByteArray, width: Width, outputs: int) -> Mapping[str, Words]:
    """Return the memory of integer synapses of so many outputs a time step."""
    return {"weight": Words(weight.size, 8), "sum": Words(outputs, width.bits)}


class IntegerSynapsesOp(SynapsesOp):
    """Convolution (a linear layer is the one with a single tap) of rows with int8 weights.

    Channels in groups are served by the kernel of float32, exactly, as no sum leaves `LARGEST_SUM`.

    Parameters
    ----------
    source, output : SignalType
    weight : int8 array (C_out, C_in / groups, kernel height, kernel width)
    largest_input : int
        What the proof of the width takes for granted, and the op checks.
    window : Window
    groups : int
    """

    def __init__(
        self,
        source: SignalType,
        output: SignalType,
        weight: ByteArray,
        largest_input: int,
        window: Window,
        groups: int = 1,
    ) -> None:
        taps = integer_taps(weight, groups)
        fan = fan_of(taps) if is_pruned(weight) else None  # type: ignore[arg-type]
        super().__init__(source, output, np.empty(0, np.float32), None, window, groups, fan)
        width = width_of(weight, largest_input, groups)
        self.largest_input = largest_input
        if groups > 1:
            self.weight = pack(taps.astype(np.float32), groups)
            return
        self.in_quads = SERVED and largest_input <= LARGEST_VALUE
        if self.in_quads:
            self.reach = reach_of(window, source.channels, output.channels)
            self.kernel, self.packed, self.tiles = "gather_int8_quads", pack_quads(taps), tiles_of(output.channels)
            return
        self.kernel, self.packed = f"gather_int8_sum{width.lane}", pack_integers(taps)
        spans, self.reach = by_rows(width.spans, window)
        self.spans, self.tiles = np.array(spans, np.int64).reshape(-1, 5), plain_tiles_of(output.channels)
        self.lane = np.empty(0, f"int{width.lane}")

    def serve(self, signal: Rows | Dense, rows: LedgerRows, context: Context) -> Dense:
        """Serve one chunk and report the products alone."""
        assert isinstance(signal, Rows)
        if self.groups == 1 and self.in_quads:
            pairs, most = self._pairs_of(signal, context.buffers)
        else:
            most = 0 if signal.values is None else signal.values.max(initial=0)
        if most > self.largest_input:
            raise LayerError(
                f"input {most:g} found; expected at most {self.largest_input}, for which the width of the sums was "
                "proven"
            )
        if self.groups > 1:
            return super().serve(signal, rows, context)
        size = signal.steps * self.output.positions
        out = context.buffers.floats(size * self.output.channels).reshape(size, self.output.channels)
        parts = self._parts(signal, size, context.workers)
        if self.in_quads:
            quads = pairs, self.packed, out, self.window, self.source.channels, self.reach
            context.workers.share(gather_quads, [(*quads, part) for part in parts])
        else:
            plain = signal.triple, self.packed, self.spans, self.reach, self.lane, out, self.window
            context.workers.share(gather_integer, [(*plain, part) for part in parts])
        products, units = self._count(signal)
        report_products(signal.type, products, units, rows)
        return Dense(self.output, signal.steps, out)

    def _parts(self, signal: Rows, size: int, workers: Workers) -> list[tuple[int, int, int, int]]:
        if self.groups > 1:
            return super()._parts(signal, size, workers)
        tiles, taps = self.tiles, self.window.kernel_height * self.window.kernel_width
        if not workers.worth(QUAD_NS * len(signal.indices) * taps * self.output.channels):
            return [(0, tiles, 0, size)]
        if tiles >= workers.number:
            return [(*part, 0, size) for part in workers.ranges(tiles)]
        return [(0, tiles, *part) for part in workers.ranges(size, 2)]

    def _pairs_of(self, signal: Rows, buffers: Buffers) -> tuple[Pairs, float]:
        """Return the pairs of a signal, and its largest value; kept with it, as several layers may hear it."""
        w, numbered = self.window, self.reach > 1
        distance = 0 if is_flat(w) else w.stride_width
        key = (w.width if distance else 0, distance, numbered)
        kept: dict[Any, tuple[Pairs, float]] = signal.__dict__.setdefault("_pairs", {})
        if key not in kept:
            lines, channels = signal.steps * w.height, signal.type.channels
            ends, room = room_of(w, lines, channels, signal.nonzeros)
            pairs = np.empty(ends, np.int64), buffers.indices(room)
            kept[key] = pairs, list_pairs(signal.triple, w.width, distance, channels, numbered, pairs)
        return kept[key]


def integer_taps(weight: ByteArray, groups: int = 1) -> ByteArray:
    """Return a weight ``(C_out, C_in / groups[, kT][, kH, kW])`` as ``(taps, C_in, C_out / groups)``, time outermost."""
    if weight.ndim == 5:
        return np.concatenate([integer_taps(weight[:, :, t], groups) for t in range(weight.shape[2])])
    maps: Any = weight if weight.ndim == 4 else weight[:, :, None, None]
    return np.ascontiguousarray(taps_of(maps, groups), np.int8)
