"""The ledger itself: what was executed, with integers counted in each of the two ways."""

from __future__ import annotations

from eventsim.accounting.conventions.convention import Charge, Convention, Layers


def _unary(layers: Layers) -> list[Charge]:
    """Charge an integer n as n additions of a weight."""
    return [
        Charge(c.acs + c.graded_acs, c.macs, "what was executed", f"{c.graded_acs:,} units of integers as additions")
        for c in (layer.counts for layer in layers)
    ]


def _as_macs(layers: Layers) -> list[Charge]:
    """Charge an integer as one multiplication with a weight."""
    return [
        Charge(
            c.acs,
            c.graded_macs + c.macs,
            "an integer input is a multiplication, not as many additions",
            f"{c.graded_macs:,} products of integers as MACs, {c.graded_acs:,} additions else",
        )
        for c in (layer.counts for layer in layers)
    ]


EXACT_UNARY = Convention(
    "exact_unary", "executed; an integer as that many additions", "the ledger: acs + graded_acs, macs", _unary
)
EXACT_MACS = Convention(
    "exact_macs", "executed; an integer as one MAC", "the ledger: acs, graded_macs + macs", _as_macs
)
