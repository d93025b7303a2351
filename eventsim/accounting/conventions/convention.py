"""What a counting convention is: a rule that charges every layer, and the prices of its operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from eventsim.accounting.conventions.seen import Seen
from eventsim.ledger import Counts

AC_PJ, MAC_PJ = 0.9, 4.6
"""Picojoules at 45 nm, 32-bit floating point: an addition; a multiplication and an addition (Horowitz, ISSCC 2014)."""


@dataclass(frozen=True)
class Charge:
    """What a convention counts for one layer, and why.

    Attributes
    ----------
    acs, macs : float
    rule : str
        The rule that was applied, the same words for every layer that it was applied to.
    because : str
        What it found in this layer.
    """

    acs: float = 0.0
    macs: float = 0.0
    rule: str = ""
    because: str = ""

    @property
    def picojoules(self) -> float:
        """Energy at 45 nm."""
        return AC_PJ * self.acs + MAC_PJ * self.macs


Layers: TypeAlias = Sequence[Seen]
UNSEEN = "what this convention does not see"
"""The rule of layers that are left out."""


def unseen(what: str) -> Charge:
    """Return the charge of a layer that a convention leaves out, with what it is."""
    return Charge(rule=UNSEEN, because=f"{what} counted as nothing")


def _always(layers: Layers) -> None:
    """Refuse no network."""


def _no_more(layers: Layers) -> Mapping[str, float]:
    return {}


@dataclass(frozen=True)
class Convention:
    """A rule by which a paper or a tool counts.

    Attributes
    ----------
    name : str
        Key in documents.
    what : str
        The rule in one line.
    source : str
        The paper or tool, with its version.
    charge : callable
        Returns the charge of every layer, in order.
    refuses : callable
        Returns what a network lacks for the rule to mean anything; None where it has it.
    more : callable
        Returns further numbers of the convention, by name.
    """

    name: str
    what: str
    source: str
    charge: Callable[[Layers], list[Charge]]
    refuses: Callable[[Layers], str | None] = _always
    more: Callable[[Layers], Mapping[str, float]] = _no_more

    def __call__(self, layers: Layers) -> Counts:
        """Return the accumulates and multiply-accumulates of all layers, rounded once."""
        charges = self.charge(layers)
        return Counts(acs=round(sum(c.acs for c in charges)), macs=round(sum(c.macs for c in charges)))
