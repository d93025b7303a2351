"""Delayed edges while they run: each holds the last rows that it saw."""

from __future__ import annotations

from eventsim.layers.time.steps import join_steps, take_steps
from eventsim.signals import Signal, SignalType, zeros


class Delay:
    """What a layer emitted in the last `steps` time steps; zeros come first.

    Parameters
    ----------
    kind : SignalType
    steps : int
        Time steps to wait, at least 1.
    """

    def __init__(self, kind: SignalType, steps: int) -> None:
        self.steps = steps
        self.held: Signal = zeros(kind, steps)

    def shift(self, signal: Signal) -> Signal:
        """Return what is heard during a chunk in which `signal` is emitted."""
        seen = join_steps(self.held, signal)
        self.held = join_steps(take_steps(seen, signal.steps, seen.steps))
        return take_steps(seen, 0, signal.steps)

    def heard(self) -> Signal:
        """Return what is heard in the next time step; a loop reads it before the source emits."""
        return take_steps(self.held, 0, 1)

    def take(self, signal: Signal) -> None:
        """Take in one time step."""
        self.held = join_steps(take_steps(self.held, 1, self.steps), signal)
