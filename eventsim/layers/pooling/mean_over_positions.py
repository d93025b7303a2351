"""Mean over the positions of a time step."""

from __future__ import annotations

from dataclasses import dataclass

from eventsim.layers.pooling.sum_over_positions import SumOverPositions
from eventsim.signals import SignalType


@dataclass(frozen=True, eq=False, repr=False)
class MeanOverPositions(SumOverPositions):
    """Mean over the pixels or tokens of each time step (global average pooling)."""

    def output_type(self, *inputs: SignalType) -> SignalType:
        """Return one real vector."""
        return SignalType("real", inputs[0].channels, (), dense=True)

    def divisor(self, source: SignalType) -> int:
        """Return the number of positions."""
        return source.positions
