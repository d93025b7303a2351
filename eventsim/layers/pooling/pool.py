"""What layers share that bring several values down to one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from eventsim.facts import Entailed, Role, Words
from eventsim.layers.layer import Layer
from eventsim.signals import SignalType


class Adding(Layer):
    """A pool that adds values up, whatever it does with the sums."""

    role: ClassVar[Role] = "pool"

    def words(self, *inputs: SignalType) -> Mapping[str, Words]:
        """Return one sum, or one largest value so far, for each value of the output."""
        return {"sum": Words(self.output_type(*inputs).size)}

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return the sum that an addition reads and writes."""
        return {"additions": {"sum_reads": 1, "sum_writes": 1}}

    def absolute(self) -> Layer:
        """Return the layer itself: it adds values up without weights."""
        return self


class Comparing(Adding):
    """A pool that keeps the largest value, off by no more than the values that it compares."""

    def entailed(self, *inputs: SignalType) -> Entailed:
        """Return the largest value so far, which a comparison reads and writes."""
        return {"comparisons": {"pool_comparisons": 1, "sum_reads": 1, "sum_writes": 1}}
