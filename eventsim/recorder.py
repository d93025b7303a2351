"""Recording: an observer that keeps what some layers emit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from eventsim.context import Observed
from eventsim.ledger import LedgerRows
from eventsim.signals import FloatArray, to_frames


class Recorder:
    """Keeps the outputs of layers until they are taken.

    Parameters
    ----------
    layers : iterable of str
    """

    def __init__(self, layers: Iterable[str]) -> None:
        self._kept: dict[str, list[FloatArray]] = {name: [] for name in layers}

    def on_layer(self, node: Observed, inputs: Sequence[Any], output: Any, rows: LedgerRows) -> None:
        """Copy the output of a layer that is recorded."""
        if node.name in self._kept:
            self._kept[node.name].append(to_frames(output.expand(rows.steps)).copy())

    def take(self) -> dict[str, FloatArray]:
        """Return what was recorded, over time, and forget it."""
        recorded = {name: np.concatenate(chunks) for name, chunks in self._kept.items() if chunks}
        self._kept = {name: [] for name in self._kept}
        return recorded
