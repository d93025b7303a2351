"""Energy by cited models: those that are shipped, and those of price files.

Examples
--------
>>> from eventsim.ledger import Counts
>>> models()["45nm_mac"].millijoules(Counts(acs=1_000_000, macs=1_000))
0.0009046000000000001
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from types import MappingProxyType

from eventsim.accounting.energy_model import Energy, EnergyModel, energies
from eventsim.accounting.price_file import load_prices, parse_prices
from eventsim.errors import InputError

__all__ = ["MAIN", "Energy", "EnergyModel", "choose", "energies", "load_prices", "models"]

MAIN = ("45nm_mac", "lemaire2022", "loihi_active")
"""Shown where nobody chooses: what most papers quote, the same work with its memory, and a chip."""


@cache
def models() -> Mapping[str, EnergyModel]:
    """Return the energy models that are shipped, by name."""
    folder = resources.files("eventsim.accounting") / "prices"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    found = [parse_prices(file.name, file.read_bytes()) for file in files]
    return MappingProxyType({model.name: model for model in found})


def choose(given: Sequence[str]) -> tuple[dict[str, EnergyModel], tuple[str, ...]]:
    """Return every model there is, and the names of those to show.

    Parameters
    ----------
    given : sequence of str
        Names of shipped models and price files, whose names end in ``.toml``; if there are none, `MAIN` are shown.

    Raises
    ------
    InputError
        If a name is unknown, a file is no price file, or two models have one name.
    """
    known = dict(models())
    shown = []
    for text in dict.fromkeys(given):
        if text.endswith(".toml"):
            model = load_prices(text)
            if model.name in known:
                raise InputError(f"{text}: name {model.name!r} is taken; expected one that no other energy model has")
            known[model.name] = model
            shown.append(model.name)
        elif text in models():
            shown.append(text)
        else:
            raise InputError(
                f"energy model {text!r} found; expected one of {', '.join(models())}, or a price file .toml"
            )
    return known, tuple(shown) or MAIN
