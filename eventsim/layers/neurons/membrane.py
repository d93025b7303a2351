"""The membrane potential of a population, and its one way through time: charge, fire, reset."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from eventsim.banded import Band, Banded
from eventsim.context import Context
from eventsim.kernels.bits import words
from eventsim.kernels.dynamics import Dynamics, aligned, faster, repeated
from eventsim.kernels.fire import Constants, add_up, advance_part, fire, stretch_of
from eventsim.kernels.values_of_rows import add_up_steps
from eventsim.layers.listing import list_spikes
from eventsim.signals import NO_VALUES, BitArray, CountArray, FloatArray, IntArray, Rows, SignalType

UPDATE_NS = 0.5
"""What an update takes, about."""
NOT_KEPT = np.empty((0, 0), np.float32)
NO_INDICES: IntArray = np.empty(0, np.int32)
NO_BITS: BitArray = np.empty((0, 0), np.uint32)


class Membrane:
    """Constants of a population and buffers for its spikes; the potential belongs to the op that uses it.

    Parameters
    ----------
    output : SignalType
        What the population emits.
    constant, threshold : float32 arrays (1 or positions, channels)
        The k of `Dynamics`, and the firing threshold.
    dynamics : Dynamics
    start : float32 array (1 or positions, channels), optional
        The potential at the beginning of a sample; 0.
    floor : float32 array (1 or positions, channels), optional
        The potential does not stay below it.
    """

    def __init__(
        self,
        output: SignalType,
        constant: FloatArray,
        threshold: FloatArray,
        dynamics: Dynamics,
        start: FloatArray | None = None,
        floor: FloatArray | None = None,
    ) -> None:
        self.output = output
        charge, constant = faster(dynamics.charge, constant)
        self.dynamics = dynamics._replace(charge=charge)
        floor = np.empty((0, output.channels), np.float32) if floor is None else floor
        start = np.zeros((1, output.channels), np.float32) if start is None else start
        constants = [repeated(array, output.positions) for array in (constant, threshold, floor, start)]
        self._constants: dict[bool, Constants] = {
            False: (constants[0], constants[1], constants[2], NO_VALUES),
            True: (constants[0], constants[1], constants[2], constants[3]),
        }  # whether the sample begins with these steps
        self._indices, self._values, self._fired = NO_INDICES, NO_VALUES, NO_BITS
        self._active: CountArray = np.empty((0, 2), np.int64)

    def own(self) -> Membrane:
        """Return a membrane of the same constants with buffers of its own."""
        return copy.copy(self)  # a chunk's are taken anew by `begin`

    def at_rest(self) -> FloatArray:
        """Return the potential at the beginning of a sample, ``(positions, channels)``."""
        potential = aligned(self.output.size)
        start = self._constants[True][-1]
        potential[:] = np.resize(start, len(potential)) if start.any() else 0
        return potential.reshape(self.output.positions, self.output.channels)

    def begin(self, steps: int, context: Context, lists: bool = True) -> None:
        """Take room for the spikes of a chunk, and for a list of them."""
        buffers = context.buffers
        self._indices = buffers.indices(steps * self.output.size) if lists else NO_INDICES
        self._values = buffers.floats(len(self._indices)) if self.dynamics.multiple else NO_VALUES
        self._indptr = np.empty(steps * self.output.positions + 1, np.int64)
        self._indptr[0] = 0
        width, together = words(self.output.size), 1 if self.dynamics.multiple else steps
        self._fired = buffers.bits(together, width)
        self._active = context.counts((steps, 2))

    def fire(
        self,
        start: int,
        current: FloatArray,
        potential: FloatArray,
        charged: FloatArray,
        first: bool,
        context: Context,
    ) -> None:
        """Charge, fire and reset in one step or several.

        Parameters
        ----------
        start : int
            First of these steps within the chunk; those before it have fired.
        current : float32 array (steps * positions, channels)
            Input.
        potential : float32 array (positions, channels)
            Changed in place.
        charged : float32 array (steps * positions, channels), or `NOT_KEPT`
            Written: the potential after the charge, before any reset.
        first : bool
            The sample begins with these steps, whatever the potential is.
        context : Context
            Whose workers share the neurons.
        """
        row, constants = start * self.output.positions, self._constants[first]
        indptr = self._indptr[row : row + len(current) + 1]
        steps = len(current) // self.output.positions
        active = self._active[start : start + steps]
        fired = self._fired if self.dynamics.multiple else self._fired[start : start + steps]
        if context.worth(UPDATE_NS * current.size) and not self.dynamics.multiple:
            self._fire_together(current, potential, constants, indptr, fired, charged, active, context)
            return
        listed = indptr, self._indices, self._values
        context.call(fire, current, potential, constants, self.dynamics, listed, fired, charged, active)

    def _fire_together(
        self,
        current: FloatArray,
        potential: FloatArray,
        constants: Constants,
        indptr: CountArray,
        fired: BitArray,
        charged: FloatArray,
        active: CountArray,
        context: Context,
    ) -> None:
        """Do what the kernel `fire` does, each worker with neurons of its own."""
        size = self.output.size
        parts = context.workers.ranges(size, stretch_of(constants, size))
        counted = np.empty((len(parts), *active.shape), np.int64)
        given = current, potential, constants, self.dynamics, fired, charged
        context.share(advance_part, [(*given, counts, *part) for counts, part in zip(counted, parts, strict=True)])
        context.call(add_up, counted, active)
        list_spikes(fired, self.output, indptr, self._indices, context)

    def fire_in_bands(self, signal: Banded, potential: FloatArray, first: bool, context: Context) -> None:
        """Do what `fire` does with all steps of a chunk, one band of its sums after the other."""
        constants, fired = self._constants[first], self._fired

        def given(band: Band, counts: CountArray) -> tuple[Any, ...]:
            return band.sums, potential, constants, self.dynamics, fired, NOT_KEPT, counts, band.first, band.last

        counted = signal.share(advance_part, given, self._active.shape, context)
        context.call(add_up, counted, self._active)
        list_spikes(fired, self.output, self._indptr, self._indices, context)

    def spikes(self, steps: int) -> Rows:
        """Hand over the spikes of the chunk, graded where there may be several in a step, and the room they take."""
        bits = None if self.dynamics.multiple else self._fired
        rows = Rows.within(self.output, steps, self._indptr, self._indices, self._values, bits)
        self._indices, self._values, self._fired = NO_INDICES, NO_VALUES, NO_BITS
        return rows

    @property
    def active(self) -> CountArray:
        """The neurons with an input, and those whose charge changed the potential, in each step: ``(steps, 2)``."""
        return self._active

    def spikes_by_step(self, spikes: Rows, context: Context) -> CountArray:
        """Return the number of spikes in each time step."""
        if spikes.values is None:
            return context.by_step(spikes)
        counted = context.counts(spikes.steps)
        context.call(add_up_steps, spikes.indptr, spikes.whole[2], spikes.type.positions, counted)
        return counted
