"""Conventions side by side, as a table and in one line."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from eventsim.accounting.conventions import CONVENTIONS
from eventsim.report.fitting import Column, print_table

EXACT = next(iter(CONVENTIONS))
"""What the others are held against: what was executed."""


def spread(found: dict[str, dict[str, Any]]) -> str:
    """Say in one line how far apart conventions are, the least and the largest energy with their names."""
    ranked = sorted((each["energy_mj"], name) for name, each in found.items())
    (low, first), (high, last) = ranked[0], ranked[-1]
    return (
        f"conventions: {found[EXACT]['energy_mj']:.4g} mJ as executed, an integer as additions; others say {low:.4g} "
        f"({first}) to {high:.4g} ({last}); --conventions tells each, and why"
    )


def print_conventions(console: Console, found: dict[str, dict[str, Any]], wide: bool = False) -> None:
    """Print operations, energy and ratio to what was executed of each convention, then why they differ.

    Parameters
    ----------
    console : Console
    found : dict
        ``conventions`` of a sample's document.
    wide : bool
        Every column, also where the terminal is narrower.
    """
    executed = found[EXACT]["energy_mj"]
    columns = [
        Column("convention", right=False, cells=list(found)),
        Column("counts", 4, right=False, cells=[CONVENTIONS[name].what for name in found]),
        Column("ACs", 3, cells=[f"{each['acs']:,}" for each in found.values()]),
        Column("MACs", 2, cells=[f"{each['macs']:,}" for each in found.values()]),
        Column("mJ at 45 nm", cells=[f"{each['energy_mj']:.4g}" for each in found.values()]),
        Column(
            "x executed",
            1,
            cells=[f"{each['energy_mj'] / executed:.2f}" if executed else "" for each in found.values()],
        ),
    ]
    print_table(console, columns, title="conventions", everything=wide)
    for name, each in found.items():
        more = {key: value for key, value in each.items() if key not in ("acs", "macs", "energy_mj", "reasons")}
        if more:
            said = ", ".join(
                f"{key} {value:,.4g}" if value % 1 else f"{key} {value:,.0f}" for key, value in more.items()
            )
            console.print(Text(f"{name}: {said}"), soft_wrap=True)
    for name, each in found.items():
        for reason in each["reasons"]:
            console.print(Text(f"{name}: {reason}"), soft_wrap=True)
