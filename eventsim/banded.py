"""Sums of a map made in bands, a few lines of all time steps at a time, while their neurons wait for them.

The sums of a large map are more than a near cache holds: written as a whole, they would be far away when their neurons
read them. A band stays near.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from itertools import pairwise
from math import gcd
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from eventsim.context import Context
from eventsim.kernels.dynamics import LANES
from eventsim.kernels.filling import repeat
from eventsim.kernels.window import Window, band
from eventsim.signals import CountArray, Dense, FloatArray, SignalType

BAND = 1 << 20
"""Bytes of sums that are made at a time: as much as a near cache holds."""
FAR = 1 << 24
"""Bytes of sums that leave every cache before they are read: where there are more, they are made in bands."""


class Band(NamedTuple):
    """Sums of some neurons.

    Attributes
    ----------
    first, last : int
        The neurons, numbered through, the last one excluded.
    sums : float32 array (steps * positions, channels)
        Of their positions in each time step.
    """

    first: int
    last: int
    sums: FloatArray


class Banded(Dense):
    """Sums that are not there yet.

    Whoever hears them (`Op.hears_bands`) takes them by `share`; all others find everything in `data`.

    Parameters
    ----------
    type : SignalType
    steps : int
    window : Window
        Whose lines they are.
    serve : callable
        A kernel that writes sums.
    given : callable
        Returns the arguments of `serve`: for an array, the window of which it is, and how many rows it has.
    context : Context
        Of the layer that makes them.
    most : int, optional
        Bytes of a band, of one line at least; `BAND`.

    Attributes
    ----------
    seconds : float
        Spent to make them, in the time of the layer that hears them.
    """

    def __init__(
        self,
        type: SignalType,
        steps: int,
        window: Window,
        serve: Callable[..., None],
        given: Callable[[FloatArray, Window, int], tuple[Any, ...]],
        context: Context,
        most: int | None = None,
    ) -> None:
        self.type, self.steps, self.static = type, steps, False
        self.seconds = 0.0
        self._window, self._serve, self._given, self._context = window, serve, given, context
        self._most = BAND if most is None else most
        self._layer = context.tape.layer if context.tape is not None else ""

    @cached_property
    def data(self) -> FloatArray:  # type: ignore[override]
        """Every channel of every row."""
        w = self._window
        rows = self.steps * w.out_height * w.out_width
        out = self._context.buffers.floats(rows * self.type.channels).reshape(rows, self.type.channels)
        self._make([self._given(out, w, rows)])
        return out

    def share(
        self,
        kernel: Callable[..., None],
        given: Callable[[Band, CountArray], tuple[Any, ...]],
        counts: tuple[int, ...],
        context: Context,
    ) -> CountArray:
        """Make the sums, and call a kernel for each band; workers take a band each.

        Parameters
        ----------
        kernel : callable
        given : callable
            Returns its arguments, for a band and an array that it writes counts to.
        counts : tuple of int
            Shape of that array.
        context : Context
            Of the layer that hears the sums.

        Returns
        -------
        int64 array (bands, *counts)
            What was written.
        """
        w, workers = self._window, context.workers.number
        line = w.out_width * self.type.channels
        whole = LANES // gcd(LANES, line)  # neurons of two bands do not share a word of bits
        lines = max(self._most // (4 * self.steps * line) // whole, 1) * whole
        spans = list(pairwise([*range(0, w.out_height, lines), w.out_height]))
        most = self.steps * min(lines, w.out_height) * line
        rooms = [context.buffers.floats(most) for _ in range(min(workers, len(spans)))]
        counted = np.empty((len(spans), *counts), np.int64)
        for begin in range(0, len(spans), workers):
            serving, hearing = [], []
            for number, (room, (first, last)) in enumerate(zip(rooms, spans[begin : begin + workers], strict=False)):
                sums = room[: self.steps * (last - first) * line].reshape(-1, self.type.channels)
                serving.append(self._given(sums, band(w, first, last), len(sums)))
                hearing.append(given(Band(first * line, last * line, sums), counted[begin + number]))
            self._make(serving)
            context.share(kernel, hearing)
        return counted

    def _make(self, parts: list[tuple[Any, ...]]) -> None:
        """Write sums, in the name of the layer that makes them."""
        began, tape = perf_counter(), self._context.tape
        hearer = ""
        if tape is not None:
            hearer, tape.layer = tape.layer, self._layer
        try:
            self._context.share(self._serve, parts)
        finally:
            if tape is not None:
                tape.layer = hearer
        self.seconds += perf_counter() - began


def repeated_in_bands(signal: Dense, steps: int, context: Context) -> Banded:
    """Return a static signal once for each of so many time steps."""
    window = whole_map(signal.type)

    def given(out: FloatArray, part: Window, _: int) -> tuple[Any, ...]:
        first = -part.pad_height * part.width
        return signal.data[first : first + part.out_height * part.width], out

    return Banded(signal.type, steps, window, repeat, given, context)


def whole_map(kind: SignalType) -> Window:
    """Return the window that reads every pixel of a map, or every token, and nothing else."""
    height, width = kind.grid if len(kind.grid) == 2 else (kind.positions, 1)
    return Window(height, width, height, width, 1, 1, 1, 1, 0, 0)


def in_bands(steps: int, output: SignalType, context: Context) -> bool:
    """Say whether sums of so many time steps are made in bands: far ones, unless threads would sleep between two bands.

    They stay awake where calls are written down.
    """
    together = context.workers.number == 1 or context.tape is not None
    return together and 4 * steps * output.size > FAR
