"""Recording: what some layers emit, seen as an observer, and what neurons hold after each time step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np

from eventsim.context import Observed
from eventsim.ledger import LedgerRows
from eventsim.signals import Dense, FloatArray, SignalType, to_frames

Kept: TypeAlias = dict[str, list[FloatArray]]


class Recorder:
    """Keeps the outputs of layers, and what neurons hold after each time step, until they are taken.

    Parameters
    ----------
    layers : iterable of str
        Whose outputs are kept.
    potentials : iterable of str
        Layers of neurons whose membrane potential is kept, after the reset.
    """

    def __init__(self, layers: Iterable[str], potentials: Iterable[str] = ()) -> None:
        self._outputs: Kept = {name: [] for name in layers}
        self._potentials: Kept = {name: [] for name in potentials}

    def on_layer(self, node: Observed, inputs: Sequence[Any], output: Any, rows: LedgerRows) -> None:
        """Copy what is to be kept of a layer."""
        if node.name in self._outputs:
            self._outputs[node.name].append(to_frames(output.expand(rows.steps)).copy())

    def on_step(self, node: Observed, kind: SignalType) -> None:
        """Copy what neurons that emit `kind` hold after a single time step."""
        if node.name in self._potentials:
            held = Dense(kind, 1, np.array(node.op.potential, np.float32))
            self._potentials[node.name].append(to_frames(held).copy())

    def take(self) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        """Return outputs and potentials over time, and forget them."""
        taken = _joined(self._outputs), _joined(self._potentials)
        for kept in (self._outputs, self._potentials):
            for chunks in kept.values():
                chunks.clear()
        return taken


def _joined(kept: Kept) -> dict[str, FloatArray]:
    return {name: np.concatenate(chunks) for name, chunks in kept.items() if chunks}
