"""Where frames enter the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eventsim.counts import Counts
from eventsim.errors import InputError
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.nonzeros import rows_from_dense
from eventsim.signals import Dense, FloatArray, Kind, Rows, SignalType


@dataclass(frozen=True)
class Frames:
    """Consecutive time steps of one sample; `static` when one image stands for every step."""

    array: FloatArray
    static: bool

    @property
    def steps(self) -> int:
        """Time steps held."""
        return len(self.array)


@dataclass(frozen=True, eq=False)
class Input(Layer):
    """Frames of a recording, or an image shown in every time step.

    Parameters
    ----------
    shape : tuple of int
        One time step: ``(C, H, W)``, ``(N, C)`` or ``(C,)``.
    kind : {"binary", "graded", "real"}
        Zeros and ones; non-negative integers such as event counts; or real values such as pixels, which are passed
        on densely.
    """

    shape: tuple[int, ...]
    kind: Kind = "graded"

    arguments: ClassVar[int] = 0

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return the type of the frames."""
        if not 1 <= len(self.shape) <= 3 or min(self.shape) < 1:
            raise LayerError(f"shape {self.shape} found; expected (C, H, W), (N, C) or (C,), all positive")
        if self.kind not in ("binary", "graded", "real"):
            raise LayerError(f"kind {self.kind!r} found; expected 'binary', 'graded' or 'real'")
        if len(self.shape) == 3:
            return SignalType(self.kind, self.shape[0], self.shape[1:], dense=self.kind == "real")
        return SignalType(self.kind, self.shape[-1], self.shape[:-1], dense=self.kind == "real")

    def check(self, frames: FloatArray, name: str) -> None:
        """Refuse frames ``(T, *shape)`` that are not of the declared shape and kind.

        Raises
        ------
        InputError
            Names the sample, what was found and what was expected.
        """
        expected = " x ".join(map(str, self.shape))
        if frames.shape[1:] != self.shape:
            found = " x ".join(map(str, frames.shape[1:]))
            raise InputError(f"{name}: a time step of shape {found} found; the model takes {expected}")
        if len(frames) == 0:
            raise InputError(f"{name}: no time steps found; the model needs at least one")
        if not np.isfinite(frames).all():
            raise InputError(f"{name}: NaN or infinite values found; the model takes finite ones")
        if self.kind == "binary" and not ((frames == 0) | (frames == 1)).all():
            raise InputError(f"{name}: values other than 0 and 1 found; the model takes binary input")
        if self.kind == "graded" and ((frames < 0).any() or (frames != np.floor(frames)).any()):
            raise InputError(
                f"{name}: values that are negative or not whole found; the model takes event counts "
                "(an input of kind real takes others)"
            )

    def op(self, *inputs: SignalType) -> Op:
        """Return the op that lists the non-zero values of frames."""
        return InputOp(self.output_type())


class InputOp(Op):
    """Turns frames into rows, or into dense rows for real input."""

    kernel = "list_nonzeros"

    def __init__(self, output: SignalType) -> None:
        self.output = output

    def advance(self, inputs: tuple[Frames], final: bool) -> tuple[Rows | Dense, Counts]:
        """Encode one chunk of frames; nothing is counted, the input is given."""
        array = inputs[0].array
        steps = len(array)
        if len(self.output.grid) == 2:
            array = np.moveaxis(array, 1, -1)
        data = np.ascontiguousarray(array, np.float32).reshape(steps * self.output.positions, self.output.channels)
        if self.output.dense:
            return Dense(self.output, steps, data), Counts()
        return rows_from_dense(self.output, steps, data), Counts()
