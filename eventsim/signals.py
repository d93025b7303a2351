"""The activity that flows between layers: rows of active channels.

There is one row per (time step, position), time-major; a position is a pixel of a grid (row-major) or a token, and a
row lists what its channels carry. Layers declare what they emit with a `SignalType`; while the simulator runs, a
signal is either `Rows` (CSR: only the non-zero channels) or `Dense` (every channel, float32).
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Kind: TypeAlias = Literal["binary", "graded", "real"]
FloatArray: TypeAlias = npt.NDArray[np.float32]
IntArray: TypeAlias = npt.NDArray[np.int32]
CountArray: TypeAlias = npt.NDArray[np.int64]
BitArray: TypeAlias = npt.NDArray[np.uint32]

UNLISTED = "no channels are listed, as nobody was to hear more than the bits"
NO_VALUES: FloatArray = np.empty(0, np.float32)
FLOAT32_MAX = float(np.finfo(np.float32).max)
"""The layers compute in float32."""


@dataclass(frozen=True)
class SignalType:
    """What a layer emits in every time step.

    Parameters
    ----------
    kind : {"binary", "graded", "real"}
        Spikes; non-negative small integers (residual sums, event counts); or float32 values.
    channels : int
        Channels of a row.
    grid : tuple of int
        Positions of one time step: ``(H, W)`` for a map, ``(N,)`` for tokens, ``()`` for one vector.
    dense : bool
        Whether every channel is stored. Binary and graded signals are always rows of non-zeros.
    """

    kind: Kind
    channels: int
    grid: tuple[int, ...] = ()
    dense: bool = False

    @cached_property
    def positions(self) -> int:
        """Rows per time step."""
        return prod(self.grid)

    @cached_property
    def size(self) -> int:
        """Values per time step."""
        return self.positions * self.channels

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one time step as PyTorch orders it: ``(C, H, W)``, ``(N, C)`` or ``(C,)``."""
        return (self.channels, *self.grid) if len(self.grid) == 2 else (*self.grid, self.channels)

    def __str__(self) -> str:
        return f"{self.kind} {'x'.join(map(str, self.shape))}"


@dataclass(eq=False)  # not frozen, which takes four times as long to make, of every layer in every chunk
class Rows:
    """Active channels of ``steps * positions`` rows in CSR form, channels ascending within a row.

    Attributes
    ----------
    type : SignalType
    steps : int
        Time steps held. A static signal holds one step that stands for all.
    indptr : int64 array (steps * positions + 1,)
    indices : int32 array (non-zeros,)
        Channels; none of spikes that only those hear who read the bits (`Op.lists_channels`).
    values : float32 array (non-zeros,), or None
        ``None`` for binary signals; graded ones hold integers, exact in float32 below 2**24.
    static : bool
        The same in every time step of the sample.
    bits : uint32 array (steps, words), or None
        Of a binary signal that comes from neurons, what they left: a bit for each channel, row after row of each step,
        and at least 64 behind them.
    """

    type: SignalType
    steps: int
    indptr: CountArray
    indices: IntArray
    values: FloatArray | None = None
    static: bool = False
    bits: BitArray | None = None

    @property
    def nonzeros(self) -> int:
        """Non-zero values held."""
        return int(self.indptr[-1] - self.indptr[0])

    @property
    def nonzeros_by_step(self) -> CountArray:
        """Non-zero values of each time step, int64 ``(steps,)``."""
        kept: CountArray | None = self.__dict__.get("_by_step")  # a cached_property takes a lock in Python 3.11
        if kept is None:
            ends = self.indptr[:: self.type.positions]
            self.__dict__["_by_step"] = kept = ends[1:] - ends[:-1]
        return kept

    @property
    def triple(self) -> tuple[CountArray, IntArray, FloatArray]:
        """The arrays, where all values are 1 with an empty one of values."""
        assert len(self.indices) or not self.nonzeros, UNLISTED
        return self.indptr, self.indices, NO_VALUES if self.values is None else self.values

    @property
    def whole(self) -> tuple[CountArray, IntArray, FloatArray]:
        """The same for kernels, which learn from `indptr` how many there are: the arrays may have room for more."""
        kept: tuple[CountArray, IntArray, FloatArray] | None = self.__dict__.get("_whole")
        if kept is None:
            return self.triple
        assert len(kept[1]) or not self.nonzeros, UNLISTED
        return kept

    @classmethod
    def within(
        cls,
        kind: SignalType,
        steps: int,
        indptr: CountArray,
        indices: IntArray,
        values: FloatArray,
        bits: BitArray | None = None,
    ) -> Rows:
        """Return rows that take up the first part of arrays, `values` empty where all are 1."""
        count = indptr[-1]
        rows = cls(kind, steps, indptr, indices[:count], None if kind.kind == "binary" else values[:count], bits=bits)
        rows.__dict__["_whole"] = indptr, indices, values[:0] if kind.kind == "binary" else values
        return rows

    def to_array(self) -> FloatArray:
        """Every value, float32 ``(steps * positions, channels)``."""
        array = np.zeros((self.steps * self.type.positions, self.type.channels), np.float32)
        row = np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr))
        array[row, self.indices] = 1 if self.values is None else self.values
        return array

    def expand(self, steps: int) -> Rows:
        """Repeat a static signal over `steps` time steps; any other signal is returned as it is."""
        if not self.static:
            return self
        starts = self.indptr[:-1][None, :] + (np.arange(steps) * self.nonzeros)[:, None]
        indptr = np.append(starts.ravel(), steps * self.nonzeros).astype(np.int64)
        values = None if self.values is None else np.tile(self.values, steps)
        return Rows(self.type, steps, indptr, np.tile(self.indices, steps), values)


@dataclass(eq=False)
class Dense:
    """Every channel of ``steps * positions`` rows.

    Attributes
    ----------
    type : SignalType
    steps : int
        Time steps held. A static signal holds one step that stands for all.
    data : float32 array (steps * positions, channels)
    static : bool
        The same in every time step of the sample.
    """

    type: SignalType
    steps: int
    data: FloatArray
    static: bool = False

    @property
    def nonzeros(self) -> int:
        """Non-zero values held."""
        return int(np.count_nonzero(self.data))

    @property
    def nonzeros_by_step(self) -> CountArray:
        """Non-zero values of each time step, int64 ``(steps,)``."""
        kept: CountArray | None = self.__dict__.get("_by_step")
        if kept is None:
            n = self.type.positions
            active = self.data != 0  # NumPy counts truths five times as fast as numbers
            counted = [np.count_nonzero(active[step * n : (step + 1) * n]) for step in range(self.steps)]
            self.__dict__["_by_step"] = kept = np.array(counted, np.int64)
        return kept

    def to_array(self) -> FloatArray:
        """Every value, float32 ``(steps * positions, channels)``; no copy."""
        return self.data

    def expand(self, steps: int) -> Dense:
        """Repeat a static signal over `steps` time steps; any other signal is returned as it is."""
        return Dense(self.type, steps, np.tile(self.data, (steps, 1))) if self.static else self


Signal: TypeAlias = Rows | Dense


def as_static(signal: Signal) -> Signal:
    """Mark a signal of one step as the same in every step of the sample."""
    static = copy(signal)  # the room of its arrays, too
    static.static = True
    return static


def zeros(kind: SignalType, steps: int) -> Signal:
    """Return silence."""
    if kind.dense:
        return Dense(kind, steps, np.zeros((steps * kind.positions, kind.channels), np.float32))
    values = None if kind.kind == "binary" else np.empty(0, np.float32)
    return Rows(kind, steps, np.zeros(steps * kind.positions + 1, np.int64), np.empty(0, np.int32), values)


def to_frames(signal: Signal) -> FloatArray:
    """Every value in PyTorch's order: ``(steps, C, H, W)``, ``(steps, N, C)`` or ``(steps, C)``."""
    rows = signal.to_array().reshape(signal.steps, *signal.type.grid, signal.type.channels)
    return np.ascontiguousarray(np.moveaxis(rows, -1, 1)) if len(signal.type.grid) == 2 else rows
