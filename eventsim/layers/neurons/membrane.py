"""The membrane potential of a population, and its one way through time: charge, fire, reset."""

from __future__ import annotations

import numpy as np

from eventsim.kernels.fire import Dynamics, fire
from eventsim.signals import FloatArray, Rows, SignalType

NOT_KEPT = np.empty((0, 0), np.float32)


class Membrane:
    """Constants of a population and buffers for its spikes; the potential belongs to the op that uses it.

    Parameters
    ----------
    output : SignalType
        What the population emits.
    constant, threshold : float32 arrays (1 or positions, channels)
        The k of `Dynamics`, and the firing threshold.
    dynamics : Dynamics
    """

    def __init__(self, output: SignalType, constant: FloatArray, threshold: FloatArray, dynamics: Dynamics) -> None:
        self.output = output
        self.constant = constant
        self.threshold = threshold
        self.dynamics = dynamics
        self._indices = np.empty(0, np.int32)

    def own(self) -> Membrane:
        """Return a membrane of the same constants with buffers of its own."""
        return Membrane(self.output, self.constant, self.threshold, self.dynamics)

    def at_rest(self) -> FloatArray:
        """Return the potential at the beginning of a sample, ``(positions, channels)``."""
        return np.zeros((self.output.positions, self.output.channels), np.float32)

    def begin(self, steps: int) -> None:
        """Make room for the spikes of a chunk."""
        if len(self._indices) <= steps * self.output.size:
            self._indices = np.empty(steps * self.output.size + 1, np.int32)
        self._indptr = np.zeros(steps * self.output.positions + 1, np.int64)

    def fire(self, start: int, current: FloatArray, potential: FloatArray, charged: FloatArray = NOT_KEPT) -> None:
        """Charge, fire and reset in one step or several.

        Parameters
        ----------
        start : int
            First of these steps within the chunk; those before it have fired.
        current : float32 array (steps * positions, channels)
            Input.
        potential : float32 array (positions, channels)
            Changed in place.
        charged : float32 array (steps * positions, channels), optional
            Written: the potential after the charge, before any reset.
        """
        first = start * self.output.positions
        indptr = self._indptr[first : first + len(current) + 1]
        fire(current, potential, self.constant, self.threshold, self.dynamics, indptr, self._indices, charged)

    def spikes(self, steps: int) -> Rows:
        """Return the spikes of the chunk; valid until the next `begin`."""
        return Rows(self.output, steps, self._indptr, self._indices[: self._indptr[-1]])
