"""Cutting signals into time steps and putting them together again."""

from __future__ import annotations

import numpy as np

from eventsim.signals import Dense, Rows, Signal


def take_steps(signal: Signal, start: int, stop: int) -> Signal:
    """Return the time steps ``start <= t < stop`` of a signal; they share its arrays."""
    first, last = start * signal.type.positions, stop * signal.type.positions
    if isinstance(signal, Dense):
        return Dense(signal.type, stop - start, signal.data[first:last], signal.static)
    events = slice(signal.indptr[first], signal.indptr[last])
    return Rows(
        signal.type,
        stop - start,
        signal.indptr[first : last + 1] - events.start,
        signal.indices[events],
        None if signal.values is None else signal.values[events],
        signal.static,
        None if signal.bits is None else signal.bits[start:stop],
    )


def shared_steps(signal: Signal, start: int, stop: int) -> Signal:
    """Return the time steps ``start <= t < stop`` for kernels to read, without a look at how many values they hold.

    The list of rows is not cut: `Rows.whole` and the counts of steps are those of the part, but `indices` and `values`
    begin with what lies before it.
    """
    if (start, stop) == (0, signal.steps):
        return signal
    if isinstance(signal, Dense):
        return take_steps(signal, start, stop)
    first, last = start * signal.type.positions, stop * signal.type.positions
    indptr, indices, values = signal.whole
    bits = None if signal.bits is None else signal.bits[start:stop]
    return Rows.within(signal.type, stop - start, indptr[first : last + 1], indices, values, bits)


def join_steps(*signals: Signal) -> Signal:
    """Return the time steps of signals of one type, one after the other, in arrays of their own."""
    head = signals[0]
    steps = sum(signal.steps for signal in signals)
    if isinstance(head, Dense):
        return Dense(head.type, steps, np.concatenate([signal.to_array() for signal in signals]), head.static)
    rows = [signal for signal in signals if isinstance(signal, Rows)]
    lengths = np.concatenate([np.diff(part.indptr) for part in rows])
    return Rows(
        head.type,
        steps,
        np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
        np.concatenate([part.indices for part in rows]),
        None if head.values is None else np.concatenate([part.values for part in rows if part.values is not None]),
        head.static,
    )
