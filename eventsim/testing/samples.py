"""Random signals without hypothesis, for checks that draw from a seed."""

from __future__ import annotations

import numpy as np

from eventsim.context import Context
from eventsim.kernels.bits import words
from eventsim.layers import Op
from eventsim.layers.listing import rows_from_dense
from eventsim.ledger import Ledger
from eventsim.signals import BitArray, CountArray, Dense, FloatArray, Rows, Signal, SignalType

DENSITY = 0.4


def random_signal(kind: SignalType, steps: int, rng: np.random.Generator, density: float = DENSITY) -> Signal:
    """Return spikes, small integers or multiples of 1/8, so many of them not zero; real ones of both signs.

    Spikes have their bits, as those of neurons do.
    """
    rows = random_rows(kind, steps * kind.positions, rng, density)
    if kind.dense:
        return Dense(kind, steps, rows)
    signal = rows_from_dense(kind, steps, rows)
    signal.bits = bits_of(signal) if kind.kind == "binary" else None
    return signal


def bits_of(signal: Rows) -> BitArray:
    """Return a binary signal as `Rows.bits` has it; what lies behind a step means nothing, and is all ones."""
    active = np.ones((signal.steps, 32 * words(signal.type.size)), np.bool_)
    active[:, : signal.type.size] = signal.to_array().reshape(signal.steps, -1) != 0
    return np.packbits(active, axis=1, bitorder="little").view(np.uint32)


def from_bits(bits: BitArray, kind: SignalType) -> FloatArray:
    """Return the values ``(rows, channels)`` of spikes by their bits."""
    unpacked = np.unpackbits(bits.view(np.uint8), axis=1, count=kind.size, bitorder="little")
    return unpacked.reshape(-1, kind.channels).astype(np.float32)


def random_rows(kind: SignalType, rows: int, rng: np.random.Generator, density: float = DENSITY) -> FloatArray:
    """Return the values ``(rows, channels)`` of a random signal."""
    shape = (rows, kind.channels)
    if kind.kind == "binary":
        values = np.ones(shape)
    elif kind.kind == "graded":
        values = rng.choice([1, 1, 2, 3, 17], shape)
    else:
        values = rng.integers(1, 17, shape) * rng.choice([-1, 1, 1], shape) / 8
    return np.where(rng.random(shape) < density, values, 0).astype(np.float32)


def executed(op: Op, sample: tuple[Signal, ...]) -> tuple[Signal, dict[str, list[int]]]:
    """Return what an op emits for all steps at once, and what it counts that is not 0."""
    steps = sample[0].steps
    ledger = Ledger(["layer"], steps)
    output = op.advance(sample, Context(True, ledger.rows("layer", 0, steps)))
    columns: dict[str, CountArray] = dict(ledger.columns("layer"))
    return output, {operation: column.tolist() for operation, column in columns.items() if column.any()}
