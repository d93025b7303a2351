"""Moving values from list to list."""

from __future__ import annotations

from dataclasses import replace

from eventsim.context import Context
from eventsim.kernels.moving import move_rows
from eventsim.layers.listing import room_for
from eventsim.signals import CountArray, Rows, SignalType


def moved_rows(
    signal: Rows, output: SignalType, lists: tuple[CountArray, CountArray], context: Context, together: bool = True
) -> Rows:
    """Move every value to its places in the rows of the same time step, or, not `together`, of the same row.

    `lists` is that of `eventsim.kernels.moving.move_rows`.
    """
    source = signal.type
    grid = (source.positions, source.channels) if together else (1, source.channels)
    out_grid = (output.positions, output.channels) if together else (1, output.channels)
    moved = room_for(replace(output, kind="real"), signal.steps, context)
    context.call(move_rows, signal.whole, grid, out_grid, lists, moved)
    return Rows.within(output, signal.steps, *moved)
