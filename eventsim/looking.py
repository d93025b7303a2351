"""A look at the values that reach a layer, for counting rules that ask about them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eventsim.context import Context
from eventsim.kernels.values import TOLD, look
from eventsim.signals import CountArray, Dense, Rows
from eventsim.values import MOST_LEVELS, Looked, Values

NO_ROWS: CountArray = np.empty(0, np.int64)


def look_at(signal: Rows | Dense, context: Context) -> Looked:
    """Look at the values of a signal that is not binary, once for all the layers that hear it."""
    kept: Looked | None = signal.__dict__.get("_looked")
    if kept is not None:
        return kept
    if isinstance(signal, Dense):
        values, indptr, rows = signal.data.reshape(-1), NO_ROWS, signal.type.size
    else:
        (indptr, _, values), rows = signal.whole, signal.type.positions
    levels = context.counts(MOST_LEVELS, np.float32)
    sums = context.counts(2 + signal.steps, np.float64)
    counted = context.counts(TOLD + 2 * signal.steps, np.int64)
    context.call(look, values, indptr, rows, levels, sums, counted)
    if isinstance(signal, Dense):
        signal.__dict__["_by_step"] = counted[TOLD + signal.steps :]  # is asked for next
    found = Looked(levels, sums, counted)
    signal.__dict__["_looked"] = found
    return found


def watch(seen: Sequence[Values], given: Sequence[Rows | Dense], context: Context, multiplies: bool) -> None:
    """Look at what a layer was given in a chunk.

    Parameters
    ----------
    seen : sequence of Values
        One for each input; added to.
    given : sequence of Rows or Dense
    context : Context
        Of the layer; ``valued_inputs`` are reported to its rows, of a layer that multiplies.
    multiplies : bool
    """
    for place, (values, signal) in enumerate(zip(seen, given, strict=True)):
        kind, steps = signal.type, signal.steps
        if kind.kind == "binary":
            values.take_spikes(kind, steps, signal.nonzeros)
            if context.tape is not None:
                context.tape.spikes_seen(place, kind, context.by_step(signal))
            continue
        looked = look_at(signal, context)
        values.take(kind, steps, looked.read())
        if context.tape is not None:
            context.tape.values_seen(place, kind, looked)
        if multiplies:
            context.rows.add("valued_inputs", looked.valued(steps))
