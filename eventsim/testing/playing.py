"""Whether the calls of one sample, made again for another, do what the op itself would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from eventsim.context import Context
from eventsim.layers import Layer, Op
from eventsim.ledger import Ledger, LedgerRows
from eventsim.signals import CountArray, Dense, FloatArray, Rows, Signal, SignalType
from eventsim.tape import TAKES_TAPES, Tape
from eventsim.testing.samples import random_signal
from eventsim.workers import ALONE, Workers

NAME = "layer"


def check_playing(layer: Layer, sources: Sequence[SignalType], samples: Sequence[tuple[Signal, ...]]) -> None:
    """Compare, for an op that declares `plays`, what is played with what the op emits and counts.

    Calls are written down with each sample and made again for the others, for silence and for inputs without a zero, on
    one thread and on two.

    Raises
    ------
    AssertionError
        Says what differs.
    """
    if not (TAKES_TAPES and layer.op(*sources).plays):
        return
    steps, rng = samples[0][0].steps, np.random.default_rng(0)
    extremes = [tuple(random_signal(kind, steps, rng, density) for kind in sources) for density in (0.0, 1.0)]
    every = [*samples, *extremes]
    for first, workers in product(every, (ALONE, Workers(2, shortest_ns=0))):
        played = _Played(layer.op(*sources), first, workers)
        for sample in every:
            emitted, counts = _alone(layer.op(*sources), sample)
            again, counted = played.play(sample)
            if not np.array_equal(again, emitted):
                raise AssertionError(
                    f"{type(layer).__name__}: plays is declared, and another sample gives other outputs"
                )
            for name in counts.keys() | counted.keys():
                if not np.array_equal(counts.get(name, 0), counted.get(name, 0)):
                    raise AssertionError(
                        f"{type(layer).__name__}: plays is declared, and another sample gives other {name}"
                    )


def _alone(op: Op, sample: tuple[Signal, ...]) -> tuple[FloatArray, Mapping[str, CountArray]]:
    ledger = Ledger([NAME], sample[0].steps)
    output = op.advance(sample, Context(True, ledger.rows(NAME, 0, sample[0].steps)))
    return output.to_array().copy(), dict(ledger.columns(NAME))


class _Played:
    """The calls of an op for one sample, and where they read and write."""

    def __init__(self, op: Op, sample: tuple[Signal, ...], workers: Workers) -> None:
        steps = sample[0].steps
        self.tape = Tape(np.empty(0), steps, workers)
        self.tape.layer = NAME
        self.inputs = tuple(map(_with_room, sample))
        rows = LedgerRows(self.tape.columns(NAME), 0, steps)
        context = Context(True, rows, workers, buffers=self.tape.buffers, tape=self.tape)
        self.output: Signal = op.advance(self.inputs, context)
        self.tape.finish(np.empty((0, 0), np.float32), {})

    def play(self, sample: tuple[Signal, ...]) -> tuple[FloatArray, Mapping[str, CountArray]]:
        """Make the calls for other inputs."""
        for signal, other in zip(self.inputs, sample, strict=True):
            for mine, theirs in zip(_arrays(signal), _arrays(other), strict=True):
                mine[: len(theirs)] = theirs
        copy = self.tape.play(np.empty(0))
        if copy is None:
            raise AssertionError("plays is declared, and a call did not return what it has to")
        output = self.output
        if isinstance(output, Rows):
            output = Rows.within(output.type, output.steps, *output.whole, output.bits)
        return output.to_array(), dict(self.tape.columns_of(NAME, copy))


def _with_room(signal: Signal) -> Signal:
    """Return a copy with room for as many values as there can be."""
    if isinstance(signal, Dense):
        return Dense(signal.type, signal.steps, signal.data.copy())
    size = signal.steps * signal.type.size
    indices, values = np.zeros(size, np.int32), np.zeros(size, np.float32)
    indices[: signal.nonzeros] = signal.indices
    if signal.values is not None:
        values[: signal.nonzeros] = signal.values
    bits = None if signal.bits is None else signal.bits.copy()
    return Rows.within(signal.type, signal.steps, signal.indptr.copy(), indices, values, bits)


def _arrays(signal: Signal) -> tuple[np.ndarray[Any, Any], ...]:
    if isinstance(signal, Dense):
        return (signal.data,)
    return signal.whole if signal.bits is None else (*signal.whole, signal.bits)
