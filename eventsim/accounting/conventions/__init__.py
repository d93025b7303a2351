"""How papers and tools would have counted a run, side by side, from the same facts and the same ledger.

A convention (`CONVENTIONS`, one file for each family) charges every layer with accumulates and multiply-accumulates by
its rule; at 0.9 and 4.6 pJ that is its energy. One that means nothing for a network is left out. ``exact_unary`` is
what was executed; `compare` says in words why the others differ from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from eventsim.accounting.conventions.convention import AC_PJ, MAC_PJ, Convention
from eventsim.accounting.conventions.dampfhoffer import DAMPFHOFFER
from eventsim.accounting.conventions.exact import EXACT_MACS, EXACT_UNARY
from eventsim.accounting.conventions.neurobench import NEUROBENCH
from eventsim.accounting.conventions.papers import (
    ATTENTION_SNN,
    FIRST_CONVOLUTION_ONCE,
    SPIKFORMER_ICLR,
    SPIKFORMER_V2,
    STFORMER,
)
from eventsim.accounting.conventions.reasons import reasons
from eventsim.accounting.conventions.seen import Seen, seen
from eventsim.accounting.conventions.spikingjelly import SPIKINGJELLY, SPIKINGJELLY_SYNOPS
from eventsim.accounting.conventions.syops import SPIKINGFORMER_TOOL, SPIKINGFORMER_TOOL_30, SYOPS
from eventsim.errors import InputError
from eventsim.ledger import Counts
from eventsim.profile import LayerProfile

__all__ = ["CONVENTIONS", "Convention", "Estimate", "Seen", "compare", "energy_mj", "estimate", "estimates", "seen"]

CONVENTIONS: Mapping[str, Convention] = MappingProxyType(
    {
        convention.name: convention
        for convention in (
            EXACT_UNARY,
            EXACT_MACS,
            SPIKFORMER_ICLR,
            SPIKFORMER_V2,
            FIRST_CONVOLUTION_ONCE,
            ATTENTION_SNN,
            STFORMER,
            SYOPS,
            SPIKINGFORMER_TOOL,
            SPIKINGFORMER_TOOL_30,
            SPIKINGJELLY,
            SPIKINGJELLY_SYNOPS,
            NEUROBENCH,
            DAMPFHOFFER,
        )
    }
)
"""By name, in the order of documents; the first is what was executed."""


@dataclass(frozen=True)
class Estimate:
    """What one convention makes of a run.

    Attributes
    ----------
    acs, macs : int
    energy_mj : float
        At 45 nm.
    more : mapping of str to float
        Further numbers of the convention.
    reasons : tuple of str
        Why it differs from what was executed, the largest reason first.
    """

    acs: int
    macs: int
    energy_mj: float
    more: Mapping[str, float]
    reasons: tuple[str, ...]

    @property
    def numbers(self) -> dict[str, float]:
        """``acs``, ``macs``, ``energy_mj`` and what there is more; over samples they add up."""
        return {"acs": self.acs, "macs": self.macs, "energy_mj": self.energy_mj, **self.more}

    def to_dict(self) -> dict[str, float | list[str]]:
        """Return everything as plain data."""
        return {**self.numbers, "reasons": list(self.reasons)}


def energy_mj(counts: Counts) -> float:
    """Return the energy of accumulates and multiply-accumulates in millijoules, at 45 nm."""
    return (AC_PJ * counts.acs + MAC_PJ * counts.macs) * 1e-9


def estimate(profile: Sequence[LayerProfile], name: str) -> Estimate:
    """Return what one convention would have counted for a run.

    Parameters
    ----------
    profile : sequence of LayerProfile
        What a simulation returned.
    name : str
        One of `CONVENTIONS`.

    Raises
    ------
    InputError
        If there is no such convention, or it means nothing for this network.
    """
    if name not in CONVENTIONS:
        raise InputError(f"convention {name!r} found; expected one of {', '.join(CONVENTIONS)}")
    layers = seen(profile)
    if refused := CONVENTIONS[name].refuses(layers):
        raise InputError(f"convention {name}: {refused}")
    return _estimate(CONVENTIONS[name], layers)


def compare(profile: Sequence[LayerProfile]) -> dict[str, Estimate]:
    """Return what each convention that means something for a network would have counted for a run, by its name."""
    layers = seen(profile)
    return {name: _estimate(each, layers) for name, each in CONVENTIONS.items() if each.refuses(layers) is None}


def estimates(profile: Sequence[LayerProfile]) -> dict[str, dict[str, float]]:
    """Return the numbers of `compare` alone: ``acs``, ``macs``, ``energy_mj`` and more, by the convention's name.

    Reasons take several times as long as the numbers.
    """
    layers = seen(profile)
    meaning = {name: each for name, each in CONVENTIONS.items() if each.refuses(layers) is None}
    return {name: _estimate(each, layers, ()).numbers for name, each in meaning.items()}


def _estimate(convention: Convention, layers: Sequence[Seen], said: Sequence[str] | None = None) -> Estimate:
    counts = convention(layers)
    if said is None:
        said = reasons(layers, convention.charge(layers), EXACT_UNARY.charge(layers))
    return Estimate(counts.acs, counts.macs, energy_mj(counts), convention.more(layers), tuple(said))
