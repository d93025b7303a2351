"""What integer convolutions and linear layers share: one op that serves int8 weights of the active inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from eventsim.context import Context
from eventsim.kernels.gather_integer import gather_integer
from eventsim.kernels.gather_quads import (
    ENTRY,
    Pairs,
    gather_quads,
    lines_of,
    list_pairs,
    reach_of,
    room_for_pairs,
    tiles_of,
)
from eventsim.kernels.integer_tiles import tiles_of as plain_tiles_of
from eventsim.kernels.values import largest
from eventsim.kernels.window import Window, is_flat
from eventsim.layers.layer import LayerError
from eventsim.layers.synapses.gathering import Given, SynapsesOp
from eventsim.layers.synapses.integer_weights import PackedBytes
from eventsim.ledger import LedgerRows
from eventsim.signals import Dense, Rows, SignalType

PRODUCT_NS = 0.02
"""What a product takes, about."""
EVENT_NS = 0.5
"""What it takes, about, to list a value."""


class IntegerSynapsesOp(SynapsesOp):
    """Convolution (a linear layer is the one with a single tap) of rows with int8 weights.

    Channels in groups and few input channels are served by the kernel of float32, exactly, as no sum leaves
    `LARGEST_SUM`.

    Parameters
    ----------
    source, output : SignalType
    held : PackedBytes
    part : int
        Which part of it is served.
    largest_input : int
        What the proof of the width takes for granted, and the op checks.
    window : Window
    groups : int
    """

    def __init__(
        self,
        source: SignalType,
        output: SignalType,
        held: PackedBytes,
        part: int,
        largest_input: int,
        window: Window,
        groups: int = 1,
    ) -> None:
        weight: Any = held.parts[part]
        super().__init__(source, output, weight, None, window, groups, held.fans[part])
        self.largest_input, self.form = largest_input, held.form
        if self.form == "quads":
            self.reach = reach_of(window, source.channels, output.channels)
            self.kernel, self.tiles = "gather_int8_quads", tiles_of(output.channels)
        elif self.form == "plain":
            width = held.widths[part]
            self.kernel, self.tiles = f"gather_int8_sum{width.lane}", plain_tiles_of(output.channels)
            self.room, self.wide = width.room, width.lane == 32
        if self.form != "floats":
            self.product_ns = PRODUCT_NS

    def serve(self, signal: Rows | Dense, rows: LedgerRows, context: Context) -> Dense:
        """Serve one chunk and report the products alone."""
        assert isinstance(signal, Rows)
        most = self._largest_of(signal, context)
        if most > self.largest_input:
            raise LayerError(
                f"input {most:g} found; expected at most {self.largest_input}, for which the width of the sums was "
                "proven"
            )
        return self._serve_rows(signal, rows, context)

    def _given(self, signal: Rows, context: Context) -> tuple[Callable[..., None], Given]:
        """Return the kernel that serves, and what makes its arguments."""
        if self.form == "floats":
            return super()._given(signal, context)
        if self.form == "quads":
            pairs, channels = self._pairs_of(signal, context), self.source.channels
            return gather_quads, lambda out, window, part: (pairs, self.weight, out, window, channels, self.reach, part)
        return gather_integer, lambda out, window, part: (
            signal.whole,
            self.weight,
            self.room,
            self.wide,
            out,
            window,
            part,
        )

    def _largest_of(self, signal: Rows, context: Context) -> np.float32:
        """Return the largest value of a signal; kept with it, as several layers may hear it."""
        kept: dict[int, np.float32] = signal.__dict__.setdefault("_largest", {})
        if self.largest_input not in kept:
            indptr, _, values = signal.whole
            found = np.float32(1) if signal.values is None else context.call(largest, indptr, values, holds=self._fits)
            kept[self.largest_input] = found
        return kept[self.largest_input]

    def _pairs_of(self, signal: Rows, context: Context) -> Pairs:
        """Return the pairs of a signal; kept with it, too."""
        w, numbered = self.window, self.reach > 1
        distance = 0 if is_flat(w) else w.stride_width
        key = (w.width if distance else 0, distance, numbered)
        kept: dict[Any, Pairs] = signal.__dict__.setdefault("_pairs", {})
        if key not in kept:
            lines, pairs = lines_of(w, signal.steps)
            parts = context.ranges(lines, EVENT_NS * len(signal.indices))
            begins = [0, *np.cumsum([room_for_pairs(b - a, pairs, signal.type.channels) for a, b in parts]).tolist()]
            entries = context.buffers.indices(ENTRY * begins[-1]).reshape(ENTRY, begins[-1])
            kept[key] = np.empty((lines, pairs + 1), np.int64), entries
            given = signal.whole, w.width, distance, signal.type.channels, numbered, kept[key]
            context.share(
                list_pairs, [(*given, (*part, begin)) for part, begin in zip(parts, begins[:-1], strict=True)]
            )
        return kept[key]

    def _fits(self, most: np.float32) -> bool:
        return bool(most <= self.largest_input)
