"""Signals written and read with plain NumPy, and one layer executed on its own, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.testing import assert_array_equal

from eventsim.context import Context
from eventsim.layers import Layer, Op
from eventsim.ledger import Counts, Ledger
from eventsim.signals import Dense, Rows, Signal, SignalType

Triple = tuple[np.ndarray, np.ndarray, np.ndarray]
NO_VALUES = np.empty(0, np.float32)


def signal_type(kind: str, shape: tuple[int, ...]) -> SignalType:
    """The type of frames (T, *shape); kind "sparse real" is "real" held in rows."""
    channels, grid = (shape[0], shape[1:]) if len(shape) == 3 else (shape[-1], shape[:-1])
    return SignalType(kind.removeprefix("sparse "), channels, grid, dense=kind == "real")


def rows_of_frames(frames: np.ndarray) -> np.ndarray:
    """Frames (T, C, H, W), (T, N, C) or (T, C) as (rows, C)."""
    last = frames.transpose(0, 2, 3, 1) if frames.ndim == 4 else frames
    return np.ascontiguousarray(last).reshape(-1, last.shape[-1])


def csr(dense: np.ndarray, binary: bool = False) -> Triple:
    """List what is not 0 in (rows, channels), row by row; values are left out where all are 1."""
    indptr, indices, values = [0], [], []
    for row in dense:
        for c, value in enumerate(row):
            if value != 0:
                indices.append(c)
                values.append(value)
        indptr.append(len(indices))
    listed = NO_VALUES if binary else np.array(values, np.float32)
    return np.array(indptr, np.int64), np.array(indices, np.int32), listed


def encode(kind: SignalType, frames: np.ndarray) -> Signal:
    """Frames as the signal that a layer receives."""
    rows = rows_of_frames(frames)
    if kind.dense:
        return Dense(kind, len(frames), rows.copy())
    indptr, indices, values = csr(rows)
    return Rows(kind, len(frames), indptr, indices, None if kind.kind == "binary" else values)


def decode(signal: Signal) -> np.ndarray:
    """Frames of a signal that keeps what rows promise."""
    kind = signal.type
    dense = np.zeros((signal.steps * kind.positions, kind.channels), np.float32)
    if isinstance(signal, Dense):
        assert kind.dense
        assert signal.data.dtype == np.float32
        assert signal.data.shape == dense.shape
        dense[:] = signal.data
    else:
        assert not kind.dense
        assert (signal.indptr.dtype, signal.indices.dtype) == (np.int64, np.int32)
        assert len(signal.indptr) == len(dense) + 1
        assert signal.indptr[0] == 0
        assert signal.indptr[-1] == len(signal.indices) == signal.nonzeros
        assert (signal.values is None) == (kind.kind == "binary")
        for row, (start, stop) in enumerate(zip(signal.indptr[:-1], signal.indptr[1:], strict=True)):
            channels = signal.indices[start:stop]
            assert start <= stop
            assert (np.diff(channels) > 0).all(), "channels of a row ascend"
            dense[row, channels] = 1 if signal.values is None else signal.values[start:stop]
        if signal.values is not None:
            assert signal.values.dtype == np.float32
            assert signal.values.all(), "rows hold what is not 0"
    last = dense.reshape(signal.steps, *kind.grid, kind.channels)
    return np.moveaxis(last, -1, 1) if len(kind.grid) == 2 else last


@dataclass(frozen=True)
class Execution:
    """What a layer emitted, what it counted, and its op as it was left."""

    frames: np.ndarray
    counts: Counts
    op: Op


def execute(
    layer: Layer, inputs: Sequence[tuple[SignalType, np.ndarray]], chunk: int, always_final: bool = False
) -> Execution:
    """Run a layer on frames, in chunks. Its input is overwritten after each chunk: no op may hold on to it."""
    types = [kind for kind, _ in inputs]
    declared = layer.output_type(*types)
    op = layer.op(*types).fork()
    steps = len(inputs[0][1])
    emitted, ledger = [], Ledger(["layer"], None)
    for start in range(0, steps, chunk):
        given = tuple(encode(kind, frames[start : start + chunk]) for kind, frames in inputs)
        rows = ledger.rows("layer", start, given[0].steps)
        signal = op.advance(given, Context(always_final or start + chunk >= steps, rows))
        assert signal.type == declared
        emitted.append(decode(signal).copy())
        for signal in given:
            _overwrite(signal)
    return Execution(np.concatenate(emitted), sums(ledger), op)


def one_call(steps: int, final: bool = True) -> tuple[Context, Callable[[], Counts]]:
    """A context for one call of an op, and what it executed."""
    ledger = Ledger(["layer"], None)
    return Context(final, ledger.rows("layer", 0, steps)), lambda: sums(ledger)


MAIN = (
    "inputs", "nonzero_inputs", "spikes", "acs", "graded_macs", "graded_acs", "macs", "neuron_updates",
    "table_lookups", "additions", "comparisons", "window_products", "scores", "nonzero_scores", "kept_scores",
)  # fmt: skip
"""The operations that every test counts; `test_accounting` has the others."""


def main(counts: Counts) -> Counts:
    """The main operations alone."""
    return Counts({name: counts[name] for name in MAIN})


def sums(ledger: Ledger) -> Counts:
    """What the one layer of a ledger executed."""
    return Counts({operation: int(column.sum()) for operation, column in ledger.columns("layer").items()})


def _overwrite(signal: Signal) -> None:
    if isinstance(signal, Dense):
        signal.data[:] = np.nan
        return
    signal.indptr[:] = -1
    signal.indices[:] = -1
    if signal.values is not None:
        signal.values[:] = np.nan


def chunks(steps: int) -> Iterator[int]:
    """One step at a time, two, and all at once."""
    yield from sorted({1, min(2, steps), steps})


def check(
    layer: Layer, signals: Sequence[tuple[SignalType, np.ndarray]], expected: np.ndarray, /, **counts: int
) -> Execution:
    """Compare frames bit for bit, and every count, in chunks of every size; counts not given are 0."""
    for chunk in chunks(len(signals[0][1])):
        done = execute(layer, signals, chunk)
        assert_array_equal(done.frames, expected)
        assert main(done.counts) == Counts(**counts), f"chunk {chunk}"
    return done
