"""The contract of layers that hear sums in bands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eventsim.banded import Banded, whole_map
from eventsim.context import Context
from eventsim.kernels.window import Window
from eventsim.layers import Layer
from eventsim.ledger import Ledger
from eventsim.signals import FloatArray, Signal, SignalType
from eventsim.testing.samples import executed


def check_bands(layer: Layer, sources: Sequence[SignalType], sample: tuple[Signal, ...]) -> None:
    """Compare what a layer that declares `hears_bands` makes of sums in bands, and of all at once.

    Raises
    ------
    AssertionError
        Says what is not as promised.
    """
    op = layer.op(*sources)
    if not op.hears_bands or sample[0].steps == 0:
        return
    output, counts = executed(op, sample)
    expected = output.to_array().copy()
    for most in (1, 4 * sample[0].type.size * sample[0].steps // 2):
        output, counted = executed(layer.op(*sources), (_in_bands(sample[0], most),))
        if not np.array_equal(output.to_array(), expected) or counted != counts:
            name = type(layer).__name__
            raise AssertionError(f"{name}: gives other outputs or counts for bands, though it declares hears_bands")


def _in_bands(signal: Signal, most: int) -> Banded:
    """Return a signal whose lines, or tokens, come in bands of so many bytes."""
    steps, whole = signal.steps, whole_map(signal.type)
    lines = signal.to_array().reshape(steps, whole.height, -1)

    def write(out: FloatArray, window: Window) -> None:
        first = -window.pad_height
        out[:] = lines[:, first : first + window.out_height].reshape(out.shape)

    context = Context(True, Ledger(["sums"], steps).rows("sums", 0, steps))
    return Banded(signal.type, steps, whole, write, lambda out, window, _: (out, window), context, most)
