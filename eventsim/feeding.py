"""From what a caller hands over to chunks of checked frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from eventsim.errors import InputError
from eventsim.layers.input import Frames, Input
from eventsim.masked import refuse_masked

MOST_STEPS = 100_000
"""Time steps that an image may be shown for: every one of them has its counts."""

STREAM_CHUNK = 64
"""Time steps gathered from a stream where no chunk size was chosen."""


@dataclass(frozen=True)
class Chunk:
    """Consecutive time steps, ready for the network.

    Attributes
    ----------
    frames : Frames
    steps : int
        Time steps that they stand for: an image shown in every step is one frame.
    final : bool
        Whether the sample ends here.
    """

    frames: Frames
    steps: int
    final: bool


@dataclass(frozen=True)
class Feed:
    """A sample cut into chunks.

    Attributes
    ----------
    time_steps : int or None
        Steps of the sample; None where only its end will tell.
    chunks : iterator of Chunk
    """

    time_steps: int | None
    chunks: Iterator[Chunk]


def feed(
    layer: Input,
    frames: npt.ArrayLike | Iterator[npt.ArrayLike],
    *,
    name: str,
    chunk: int | None,
    asked: int | None,
    default: int | None,
) -> Feed:
    """Check a sample and cut it.

    Parameters
    ----------
    layer : Input
    frames : array (T, *input shape), (*input shape) for one image shown in every step, or an iterator of time steps
    name : str
        Names the sample in errors.
    chunk : int or None
        Time steps of a chunk; None takes all of them, or `STREAM_CHUNK` of a stream.
    asked, default : int or None
        Time steps that the caller asks for, and that an image is shown for otherwise.

    Raises
    ------
    InputError
        If the frames do not fit the network; those of a stream, as they come.
    """
    if isinstance(frames, Iterator):
        if asked is not None:
            raise InputError(f"{name}: a stream found; its length says how many time steps, {asked} asked for")
        return Feed(None, _chunks_of_stream(layer, frames, chunk or STREAM_CHUNK, name))
    array, static = _checked(layer, frames, name)
    if static:
        total = default if asked is None else asked
        if total is None or total < 1:
            raise InputError(f"{name}: {total} time steps found; an image needs a number of at least 1")
        if total > MOST_STEPS:
            raise InputError(f"{name}: {total} time steps found; expected at most {MOST_STEPS} for an image")
    elif asked is not None and asked != len(array):
        raise InputError(f"{name}: {len(array)} frames found; {asked} time steps were asked for")
    elif asked is None and layer.takes_images and default not in (None, len(array)):
        # images in a batch look like frames: each would become one time step
        size = " x ".join(map(str, layer.shape))
        raise InputError(
            f"{name}: {len(array)} x {size} found, the model takes {default} time steps; one image is {size}; images "
            f"of a batch are told by --batch (run_many), frames by --time-steps {len(array)} (time_steps)"
        )
    else:
        total = len(array)
    return Feed(total, _chunks_of_array(array, static, total, chunk or total))


def one_step(layer: Input, frame: npt.ArrayLike, name: str) -> Chunk:
    """Check and copy one time step of a stream: its owner may write the next one into it.

    Raises
    ------
    InputError
        If it does not fit the network.
    """
    array, single = _checked(layer, frame, name)
    if not single:
        raise InputError(f"{name}: {len(array)} frames found; a step takes one, use run for more")
    return Chunk(Frames(array.copy(), static=False), 1, final=True)


def _chunks_of_array(array: npt.NDArray[Any], static: bool, total: int, chunk: int) -> Iterator[Chunk]:
    for start in range(0, total, chunk):
        stop = min(start + chunk, total)
        yield Chunk(Frames(array if static else array[start:stop], static), stop - start, stop == total)


def _chunks_of_stream(layer: Input, frames: Iterator[npt.ArrayLike], chunk: int, name: str) -> Iterator[Chunk]:
    """Gather time steps as they come, one chunk ahead so that the last is known."""
    held: Frames | None = None
    while batch := [one_step(layer, frame, name).frames.array for frame in islice(frames, chunk)]:
        if held is not None:
            yield Chunk(held, held.steps, final=False)
        held = Frames(np.concatenate(batch), static=False)
    if held is None:
        raise InputError(f"{name}: no time steps found; the model needs at least one")
    yield Chunk(held, held.steps, final=True)


def _checked(layer: Input, frames: npt.ArrayLike, name: str) -> tuple[npt.NDArray[Any], bool]:
    """Return frames (T, *shape) that fit the network, and whether they are one image."""
    refuse_masked(frames, name)
    array = np.asarray(frames)
    if array.dtype.kind not in "buif":
        raise InputError(f"{name}: values of type {array.dtype} found; expected numbers")
    if layer.takes_images and array.dtype.kind == "u":  # as they come from a picture, and as no model was trained
        raise InputError(
            f"{name}: pixels of type {array.dtype} found; the model takes them scaled, as Preparation().frames(image, "
            "network) makes them, or as floats"
        )
    if array.dtype != np.int32:  # as windows of recordings come; kernels know these two types
        array = array.astype(np.float32, copy=False)
    if array.ndim == len(layer.shape) + 2 and array.shape[2:] == layer.shape:
        found = " x ".join(map(str, array.shape))
        raise InputError(
            f"{name}: {found} found, a batch of samples with time steps; they go one by one, pass --batch (run_many)"
        )
    static = array.ndim == len(layer.shape)
    if static:
        array = array[None]
    layer.check(array, name)
    return array, static
