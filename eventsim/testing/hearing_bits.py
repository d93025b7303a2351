"""The contract of layers that hear or emit spikes as bits, beside the list of channels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from eventsim.errors import LayerError
from eventsim.layers import Layer
from eventsim.signals import NO_VALUES, Rows, Signal, SignalType
from eventsim.testing.samples import executed, from_bits


def check_bits(layer: Layer, sources: Sequence[SignalType], sample: tuple[Signal, ...]) -> None:
    """Compare what a layer makes of spikes with bits, without bits and, if it reads these alone, without a list.

    And where nobody needs the channels that it emits, whether it lists them or leaves their bits.

    Raises
    ------
    AssertionError
        Says what is not as promised.
    """
    name, op = type(layer).__name__, layer.op(*sources)
    emitted, counts = executed(op, sample)
    expected = emitted.to_array().copy()

    def require_same(given: tuple[Signal, ...], without: str) -> None:
        try:
            output, counted = executed(layer.op(*sources), given)
            same = np.array_equal(output.to_array(), expected) and counted == counts
        except (AssertionError, LayerError):
            same = False
        if not same:
            raise AssertionError(f"{name}: gives other outputs or counts without {without}")

    without_bits = [dataclasses.replace(each, bits=None) if isinstance(each, Rows) else each for each in sample]
    require_same(tuple(without_bits), "`Rows.bits`")
    if op.hears_bits:
        require_same(tuple(map(_without_list, sample)), "a list of channels, though it declares hears_bits")
    op = layer.op(*sources)
    op.lists_channels = False
    output, _ = executed(op, sample)
    if (
        isinstance(output, Rows)
        and len(output.indices) < output.nonzeros
        and (output.bits is None or not np.array_equal(from_bits(output.bits, output.type), expected))
    ):
        raise AssertionError(f"{name}: lists no channels where nobody needs them, and leaves no bits of them either")


def _without_list(signal: Signal) -> Signal:
    """Return spikes as neurons emit them where nobody needs their channels; other signals as they are."""
    if not isinstance(signal, Rows) or signal.bits is None:
        return signal
    return Rows.within(signal.type, signal.steps, signal.indptr, signal.indices[:0], NO_VALUES, signal.bits)
