"""Where frames enter the network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from eventsim.context import Context
from eventsim.errors import InputError
from eventsim.facts import Role
from eventsim.kernels.frames import are_counts, are_finite, put_channels_last
from eventsim.kernels.rows import list_frames
from eventsim.layers.dense import Memory
from eventsim.layers.layer import Layer, LayerError, Op
from eventsim.layers.listing import room_for
from eventsim.signals import FLOAT32_MAX, Dense, FloatArray, Kind, Rows, SignalType

LOOKED_AT: dict[Kind, tuple[Any, ...]] = {
    "binary": (are_counts, np.float32(1)),
    "graded": (are_counts, np.float32(FLOAT32_MAX)),
    "real": (are_finite,),
}
"""The kernel that looks whether frames are what a kind takes, and its arguments behind them."""


@dataclass(frozen=True)
class Frames:
    """Consecutive time steps of one sample; `static` when one image stands for every step."""

    array: npt.NDArray[Any]
    static: bool

    @property
    def steps(self) -> int:
        """Time steps held."""
        return len(self.array)


@dataclass(frozen=True, eq=False, repr=False)
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
    role: ClassVar[Role] = "input"

    @property
    def takes_recordings(self) -> bool:
        """Whether windows of a recording fit: maps of two polarities."""
        return len(self.shape) == 3 and self.shape[0] == 2

    @property
    def takes_images(self) -> bool:
        """Whether pixels fit: real maps of one channel or three."""
        return len(self.shape) == 3 and self.shape[0] in (1, 3) and self.kind == "real"

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return the type of the frames."""
        if not 1 <= len(self.shape) <= 3 or min(self.shape) < 1:
            raise LayerError(f"shape {self.shape} found; expected (C, H, W), (N, C) or (C,), all positive")
        if self.kind not in ("binary", "graded", "real"):
            raise LayerError(f"kind {self.kind!r} found; expected 'binary', 'graded' or 'real'")
        if len(self.shape) == 3:
            return SignalType(self.kind, self.shape[0], self.shape[1:], dense=self.kind == "real")
        return SignalType(self.kind, self.shape[-1], self.shape[:-1], dense=self.kind == "real")

    def check(self, frames: npt.NDArray[Any], name: str) -> None:
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
        look, *most = LOOKED_AT[self.kind]
        if look(np.ascontiguousarray(frames), *most):
            return
        if not np.isfinite(frames).all():
            raise InputError(f"{name}: NaN or infinite values found; the model takes finite ones")
        if self.kind == "binary":
            raise InputError(f"{name}: values other than 0 and 1 found; the model takes binary input")
        raise InputError(
            f"{name}: values that are negative or not whole found; the model takes event counts "
            "(an input of kind real takes others)"
        )

    def dense(self, inputs: tuple[FloatArray, ...], memory: Memory) -> FloatArray:
        """Return the frames."""
        return np.array(inputs[0], np.float32)

    def op(self, *inputs: SignalType) -> Op:
        """Return the op that lists the non-zero values of frames."""
        return InputOp(self.output_type())


class InputOp(Op):
    """Turns frames into rows, or into dense rows for real input."""

    kernel = "list_frames"
    state_names = ()
    looks_ahead = False
    once_if_static = True
    plays = True

    def __init__(self, output: SignalType) -> None:
        self.output = output

    def advance(self, inputs: tuple[Frames], context: Context) -> Rows | Dense:
        """Encode one chunk of frames; nothing is counted, the input is given."""
        maps, output = np.ascontiguousarray(inputs[0].array), self.output
        steps = len(maps)
        if context.tape is not None:  # samples that are played are looked at here alone
            look, *most = LOOKED_AT[output.kind]
            context.call(look, maps, *most, holds=bool)
        if len(output.grid) < 2:  # channels are the last axis, else they come before the map
            maps = maps.reshape(steps, output.positions, output.channels).swapaxes(1, 2)
        maps = maps.reshape(steps, output.channels, output.positions)
        if output.dense:
            data = context.buffers.floats(maps.size).reshape(-1, output.channels)
            context.call(put_channels_last, maps, data)
            return Dense(output, steps, data)
        listed = room_for(replace(output, kind="real"), steps, context)
        context.call(list_frames, maps, *listed)
        return Rows.within(output, steps, *listed)
