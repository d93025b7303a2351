"""From a sample's document to one HTML file: what the page says, and the numbers of its charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from eventsim.accounting.conventions import CONVENTIONS
from eventsim.accounting.energy import MAIN, Energy, models
from eventsim.operations import OPERATIONS, synaptic_operations
from eventsim.report.html.watching import Watched
from eventsim.report.tables import share
from eventsim.whole_file import whole_file

WITH_MEMORY = "lemaire2022"
"""The energy model of the layers' bars: one that prices data movement by the size of a layer's memory."""
LEAST = 0.005
"""A layer with a smaller share of the operations and of the energy is folded away."""


def write_report(
    path: str | Path,
    document: Mapping[str, Any],
    sample: Mapping[str, Any],
    energies: Mapping[str, Energy],
    watched: Watched,
    *,
    shown: Sequence[str] = MAIN,
) -> None:
    """Write the page of one sample.

    Parameters
    ----------
    path : path
    document, sample : mapping
        Of ``profile --json``, and its entry of the sample.
    energies : mapping of str to Energy
        By every model.
    watched : Watched
    shown : sequence of str
        Energy models that are in front; the others are folded away.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("eventsim.report.html", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": _count, "short": _short, "percent": _percent, "mj": _mj, "ms": _ms}
    text = environment.get_template("page.html.j2").render(
        document=document,
        sample=sample,
        totals=sample["totals"],
        share=share(sample["totals"]),
        synaptic=synaptic_operations(sample["totals"]),
        headline=headline(sample, {name: energies[name] for name in shown}),
        layers=layer_rows(sample, energies[WITH_MEMORY], watched.seconds),
        runs=watched.runs,
        memory_model=WITH_MEMORY,
        energies=energy_rows(energies, shown),
        conventions=convention_rows(sample),
        watched=watched,
        prediction=prediction(sample, watched),
        rates=heat({name: np.asarray(rates) for name, rates in watched.rates.items()}, "spikes per neuron", 100, "%"),
        seconds=heat(_slowest(watched), "milliseconds", 1e3, "ms"),
        verification=sample.get("verification"),
        operations=OPERATIONS,
    )
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


# --- what costs most


def headline(sample: Mapping[str, Any], energies: Mapping[str, Energy]) -> dict[str, Any]:
    """Say which layer executes most and why, and which takes most energy by each model that is shown."""
    layers = [layer for layer in sample["layers"] if synaptic_operations(layer)]
    total = max(synaptic_operations(sample["totals"]), 1)
    if not layers:
        return {"name": None, "said": "Nothing was executed that multiplies.", "why": "", "energies": []}
    top = max(layers, key=synaptic_operations)
    executed = synaptic_operations(top)
    per_input = executed / max(top["nonzero_inputs"], 1)
    why = (
        f"{_count(executed)} of {_count(total)} synaptic operations. {_percent(top['input_density'])} of its "
        f"{_count(top['inputs'])} inputs were not zero, and each of these was served by {per_input:,.0f} synapses on "
        f"average; a dense machine would take {_count(top['dense_macs'])} multiply-accumulates."
    )
    return {
        "name": top["name"],
        "said": f"executes most: {_percent(executed / total)} of the synaptic operations.",
        "why": why,
        "energies": [_dearest(energy) for energy in energies.values() if energy.total_mj],
    }


def _dearest(energy: Energy) -> dict[str, str]:
    """Say which layer takes most energy by one model, and for what."""
    by_layer = energy.by_layer
    name = max(by_layer, key=lambda layer: by_layer[layer])
    said = f"{_mj(by_layer[name])}, {_percent(by_layer[name] / energy.total_mj)} of {_mj(energy.total_mj)}"
    parts = {**energy.compute.get(name, {})}
    for operation, value in energy.memory.get(name, {}).items():
        parts[operation] = parts.get(operation, 0.0) + value
    largest = sorted(parts, key=lambda operation: -parts[operation])[:3]
    why = ", ".join(
        f"{operation.replace('_', ' ')} {_percent(parts[operation] / by_layer[name])}" for operation in largest
    )
    return {"model": energy.model, "name": name, "said": said, "why": why}


def layer_rows(sample: Mapping[str, Any], energy: Energy, seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return a row for each layer that did something, with the widths of its bars in percent."""
    totals, layers = sample["totals"], sample["layers"]
    all_operations = max(synaptic_operations(totals), 1)
    first = next((layer["name"] for layer in layers if layer["dense_macs"]), None)
    by_layer = energy.by_layer
    most = {
        "executed": max(map(synaptic_operations, layers), default=1) or 1,
        "energy": max(by_layer.values(), default=1.0) or 1.0,
    }
    rows = []
    for number, layer in enumerate(layers):
        executed, energy_mj = synaptic_operations(layer), by_layer.get(layer["name"], 0.0)
        compute = sum(energy.compute.get(layer["name"], {}).values())
        shares = (executed / all_operations, energy_mj / max(energy.total_mj, 1e-30))
        rows.append(
            {
                **layer,
                "number": number,
                "executed": executed,
                "executed_width": 100 * executed / most["executed"],
                "of_dense": executed / layer["dense_macs"] if layer["dense_macs"] else None,
                "share": shares[0],
                "energy_mj": energy_mj,
                "energy_share": shares[1],
                "compute_width": 100 * compute / most["energy"],
                "memory_width": 100 * (energy_mj - compute) / most["energy"],
                "seconds": seconds.get(layer["name"], layer["seconds"]),
                "top": executed == most["executed"],
                "dearest": energy_mj == most["energy"],
                "small": max(shares) < LEAST and layer["name"] != first,
                "counts": [(name, layer[name]) for name in OPERATIONS if layer[name]],
            }
        )
    return rows


# --- energy and conventions


def energy_rows(energies: Mapping[str, Energy], shown: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each energy model, those shown first in front."""
    known = models()
    names = [*shown, *(name for name in energies if name not in shown)]
    scales = {
        among: max((energies[name].total_mj for name in names if (name in shown) == among), default=1.0) or 1.0
        for among in (True, False)
    }
    return [
        {
            "name": name,
            "source": known[name].source if name in known else "a file of prices",
            "shown": name in shown,
            "included": name in known and "sum_reads" in known[name].included,
            "total": energies[name].total_mj,
            "compute": energies[name].compute_mj,
            "memory": energies[name].memory_mj,
            "compute_width": 100 * energies[name].compute_mj / scales[name in shown],
            "memory_width": 100 * energies[name].memory_mj / scales[name in shown],
            "unpriced": sorted(energies[name].unpriced.items(), key=lambda item: -item[1]),
        }
        for name in names
    ]


def convention_rows(sample: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each convention, some of them with open reasons."""
    found = sample["conventions"]
    seen: dict[tuple[str, ...], str] = {}
    executed = next(iter(found.values()))["energy_mj"] if found else 0.0
    most = max((each["energy_mj"] for each in found.values()), default=1.0) or 1.0
    rows: list[dict[str, Any]] = [
        {
            "open": False,
            "name": name,
            "what": CONVENTIONS[name].what,
            "acs": each["acs"],
            "macs": each["macs"],
            "energy": each["energy_mj"],
            "ratio": each["energy_mj"] / executed if executed else None,
            "width": 100 * each["energy_mj"] / most,
            "reasons": each["reasons"],
            "same": seen.setdefault(tuple(each["reasons"]), name),
        }
        for name, each in found.items()
    ]
    told = [row for row in rows if row["reasons"]]
    for row in {id(row): row for row in (*told[:2], *sorted(told, key=lambda row: float(row["energy"]))[-1:])}.values():
        row["open"] = True  # integers read in two ways, the first formula of a paper, and the largest number
    return rows


# --- over time


def prediction(sample: Mapping[str, Any], watched: Watched) -> dict[str, Any]:
    """Return the outcome: the classes with the largest logits, their margin, and both after every time step."""
    logits = np.asarray(sample["logits"], float)  # null becomes NaN
    finite = bool(np.isfinite(logits).all())
    ranked = np.argsort(-logits, kind="stable")[:20].tolist()
    found: dict[str, Any] = {
        "ranked": [(index, float(logits[index])) for index in ranked],
        "more": len(logits) - len(ranked),
        "margin": float(logits[ranked[0]] - logits[ranked[1]]) if finite and len(ranked) > 1 else None,
        "finite": finite,
        "steps": [],
        "lines": [],
        "why_not": watched.no_steps,
    }
    if watched.steps is None:
        return found
    over_time = np.asarray(watched.steps.logits)
    if not np.isfinite(over_time).all():
        return found | {"why_not": "NaN or infinite logits found"}
    for step, row in enumerate(over_time):
        first, *rest = np.argsort(-row, kind="stable")[:2].tolist()
        margin = float(row[first] - row[rest[0]]) if rest else None
        found["steps"].append({"step": step, "prediction": first, "margin": margin})
    leaders = [step["prediction"] for step in found["steps"]]
    other = [step for step, leader in enumerate(leaders) if leader != leaders[-1]]
    found["decided"] = other[-1] + 1 if other else 0
    drawn = list(dict.fromkeys((*ranked[:3], *leaders)))[:8]
    found["lines"] = _lines(over_time[:, drawn], drawn)
    found["range"] = float(over_time[:, drawn].min()), float(over_time[:, drawn].max())
    return found


def _lines(values: np.ndarray[Any, Any], names: Sequence[int]) -> list[dict[str, Any]]:
    """Return a polyline (600 x 160) for each column."""
    low, high = float(values.min()), float(values.max())
    span, last = max(high - low, 1e-12), max(len(values) - 1, 1)
    lines = []
    for column, name in enumerate(names):
        points = [
            (round(600 * step / last, 1), round(150 - 140 * (float(value) - low) / span, 1))
            for step, value in enumerate(values[:, column])
        ]
        lines.append({"name": name, "points": points, "last": float(values[-1, column])})
    return lines


def _slowest(watched: Watched) -> dict[str, np.ndarray[Any, Any]]:
    """Return the seconds of each step, of the layers that take most, in order of execution."""
    if watched.steps is None:
        return {}
    seconds = {name: np.asarray(values) for name, values in watched.steps.seconds.items()}
    slowest = sorted(seconds, key=lambda name: -seconds[name].sum())[:25]
    return {name: values for name, values in seconds.items() if name in slowest}


def heat(rows: Mapping[str, np.ndarray[Any, Any]], what: str, times: float, unit: str) -> dict[str, Any]:
    """Return a table of shades: each row by name, at most 64 columns, neighbours averaged."""
    if not rows:
        return {"rows": [], "what": what, "unit": unit, "steps": 0, "most": 0.0}
    steps = len(next(iter(rows.values())))
    groups = np.array_split(np.arange(steps), min(steps, 64))
    most = max(float(values.max()) for values in rows.values()) or 1.0
    return {
        "what": what,
        "unit": unit,
        "steps": steps,
        "most": most * times,
        "rows": [
            {
                "name": name,
                "cells": [
                    {
                        "from": int(group[0]),
                        "to": int(group[-1]),
                        "value": float(values[group].mean()) * times,
                        "shade": round(float(values[group].mean() / most) ** 0.5, 3),
                    }
                    for group in groups
                ],
                "mean": float(values.mean()) * times,
            }
            for name, values in rows.items()
        ],
    }


# --- numbers in words


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _short(value: float) -> str:
    """Return a count with three digits and the letter of its thousands."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:,.0f}"


def _percent(value: float) -> str:
    percent = 100 * value
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.1f} %" if percent >= 0.05 or not percent else "< 0.1 %"


def _mj(value: float) -> str:
    """Return an energy in the unit that suits it."""
    for size, unit in ((1.0, "mJ"), (1e-3, "µJ"), (1e-6, "nJ")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e9:.3g} pJ" if value else "0"


def _ms(value: float) -> str:
    return f"{value * 1e3:.3g} ms"
