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
from eventsim.facts import Facts
from eventsim.untrusted import meant

__all__ = [
    "MAIN",
    "MAIN_OF_INTEGERS",
    "Energy",
    "EnergyModel",
    "choose",
    "energies",
    "fitting",
    "load_prices",
    "markdown",
    "models",
]

MAIN = ("45nm_mac", "lemaire2022", "loihi_active")
"""Shown where nobody chooses: what most papers quote, the same work with its memory, and a chip."""
MAIN_OF_INTEGERS = ("45nm_int8_sums32", *MAIN[1:])
"""The same for networks with layers of integers."""


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
        if text.lower().endswith(".toml"):
            model = load_prices(text)
            if model.name in known:
                raise InputError(f"{text}: name {model.name!r} is taken; expected one that no other energy model has")
            known[model.name] = model
            shown.append(model.name)
        elif text in models():
            shown.append(text)
        else:
            raise InputError(f"energy model {text!r} found{meant(text, models(), ', or a price file .toml')}")
    return known, tuple(shown) or MAIN


def fitting(
    known: Mapping[str, EnergyModel], shown: Sequence[str], layers: Mapping[str, Facts], *, chosen: bool
) -> tuple[str, ...]:
    """Return the models to show for a network: those of `choose`, in integers where nobody chose.

    Raises
    ------
    InputError
        If a chosen model has no price for the widths of a layer of integers; names both.
    """
    for model in shown:
        for name, facts in layers.items():
            if known[model].prices_integers(facts):
                continue
            if not chosen:
                return MAIN_OF_INTEGERS
            bits, priced = facts.words["sum"].bits, known[model].sum_bits
            of = f"integer sums of up to {priced} bits" if priced else "floating-point sums"
            raise InputError(
                f"layer {name}: integer sums of {bits} bits found; energy model {model} has prices of {of}, take "
                f"{MAIN_OF_INTEGERS[0]} or another one"
            )
    return tuple(shown)


def markdown() -> str:
    """Return the shipped models as the documentation shows them: prices in picojoules, and where they come from."""
    lines = ["| model | arithmetic | memory | source |", "|---|---|---|---|"]
    for model in models().values():
        parts = [_listed(model.compute), _listed(model.memory)]
        for role, own in model.roles.items():
            for index, prices in enumerate((own.compute, own.memory)):
                parts[index] += f"; {role}: {_listed(prices)}" if prices else ""
        parts[1] += "".join(f"; {each}" for each in _words(model))
        compute, memory = (part.removeprefix("; ") or "-" for part in parts)
        lines.append(f"| `{model.name}` | {compute} | {memory} | {model.source} |")
    return "\n".join(lines)


def _listed(prices: Mapping[str, float]) -> str:
    return ", ".join(f"`{operation}` {price:g}" for operation, price in prices.items())


def _words(model: EnergyModel) -> list[str]:
    """Say what words cost: operations with the same table together."""
    tables: dict[str, list[str]] = {}
    for operation, access in model.words.items():
        said = f"{access.per_bit:g} per bit"
        for bits, points in access.points.items():
            line = ", ".join(f"{price:g} at {size:g}" for size, price in points)
            said = f"a word of {bits} bits by the bytes of its memory ({line})"
        at = "" if access.size is None else f" (of {access.size} bytes)"
        tables.setdefault(said, []).append(f"`{operation}`{at}")
    return [f"{said}: {', '.join(operations)}" for said, operations in tables.items()]
