"""The document of ``evaluate`` as tables for people."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from eventsim.accounting.energy import MAIN
from eventsim.operations import synaptic_operations
from eventsim.report.energy import energy_line
from eventsim.report.fitting import Column, print_table
from eventsim.report.tables import columns as operations
from eventsim.report.tables import share

MATRIX = 20
"""Classes up to which confusions are a matrix; of more, the most frequent are listed."""
LISTED = 10
VARYING = re.compile(r"""(?<!\w)b?'(?:[^'\\]|\\.)*'|(?<!\w)b?"(?:[^"\\]|\\.)*"|\d+""")
"""What is of one file alone: bytes and texts that it holds, places and sizes."""


def print_evaluation(
    console: Console, document: Mapping[str, Any], energies: Sequence[str] = MAIN, wide: bool = False
) -> None:
    """Print accuracy, margins, times and operations, then confusions, layers, energies and conventions.

    `wide` prints every column, also where the terminal is narrower.
    """
    if not document["samples"]:
        console.print("no sample could be simulated")
        return
    console.print(_summary(document, energies))
    for title, columns in (_confusions(document), _layers(document), _energies(document), _conventions(document)):
        print_table(console, columns, title=title, everything=wide)


def alike(failed: Sequence[Mapping[str, str]]) -> list[str]:
    """Return each error once, with the number of those that differ in names of samples, numbers and quoted bytes alone.

    A hundred recordings that were cut are one complaint, wherever each ends; the document and the rows have every one.
    """
    found: dict[str, list[str]] = {}
    for failure in failed:
        without_name = failure["error"].replace(failure["input"], "\0")
        found.setdefault(VARYING.sub("#", without_name), []).append(failure["error"])
    return [same[0] + (f" (and {len(same) - 1:,} more alike)" if len(same) > 1 else "") for same in found.values()]


def _summary(document: Mapping[str, Any], energies: Sequence[str]) -> Table:
    n = document["samples"]
    table = Table(show_header=False)
    table.add_row("accuracy", f"{document['accuracy']:.2%} ({document['correct']} of {n})")
    table.add_row("failed", f"{len(document['failed']):,}")
    if (margin := document["margin"])["samples"]:
        sides = [
            f"{side} {margin[f'{side}_mean']:.4g}" for side in ("right", "wrong") if margin[f"{side}_mean"] is not None
        ]
        table.add_row(
            "lead of the largest logit",
            f"mean {margin['mean']:.4g} +- {margin['std']:.4g}, {', '.join(sides)}, smallest {margin['smallest']:.4g}",
        )
    mixed = "" if document["latency_comparable"] else " (of a cluster: not comparable)"
    table.add_row("latency", _times(document["latency_s"]) + mixed)
    table.add_row("binning", _times(document["binning_s"]) + mixed)
    table.add_row("reading per sample", f"{document['reading_s'] * 1e3:.1f} ms")
    if (first := document["first_correct"])["samples"]:
        table.add_row("first right", f"in step {first['step']:.2f} on average, of {first['samples']:,} samples")
    if (decided := document["decided"])["samples"]:
        table.add_row("decided", f"in step {decided['step']:.2f} on average")
    by_step = ", ".join(f"{each:.1%}" for each in document["step_accuracy"])
    table.add_row("accuracy by step", by_step or "none: the network answers once, behind its last step")
    executed = {**document["totals"], "dense_macs": document["dense_macs"] * n}
    table.add_row("dense MACs per sample", f"{document['dense_macs']:,.0f}")
    table.add_row("executed per sample", f"{document['synaptic_operations']:,.0f} ({share(executed)})")
    for name in operations(document["totals"]):
        table.add_row(f"{name.replace('_', ' ')} per sample", f"{document['totals'][name] / n:,.0f}")
    for name in energies:
        table.add_row(f"energy, {name}", energy_line(document["energy"][name]))
    return table


def _times(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value * 1e3:.1f} ms" for name, value in seconds.items())


def _confusions(document: Mapping[str, Any]) -> tuple[str, list[Column]]:
    """Return labels against predictions, or the most frequent confusions of many classes."""
    found = {each["label"]: {int(p): n for p, n in each["predicted"].items()} for each in document["confusion"]}
    classes = sorted({*found, *(prediction for of in found.values() for prediction in of)})
    if len(classes) > MATRIX:
        wrong = sorted(
            (
                (n, label, prediction)
                for label, of in found.items()
                for prediction, n in of.items()
                if prediction != label
            ),
            key=lambda each: (-each[0], *each[1:]),
        )[:LISTED]
        return "most frequent confusions", [
            Column("label", cells=[str(label) for _, label, _ in wrong]),
            Column("predicted", cells=[str(prediction) for _, _, prediction in wrong]),
            Column("times", cells=[f"{n:,}" for n, _, _ in wrong]),
        ]
    rights = [f"{of.get(label, 0) / sum(of.values()):.1%}" for label, of in found.items()]
    return "predictions by label", [
        Column("label", cells=[str(label) for label in found]),
        *(
            Column(str(each), rank, cells=[f"{of[each]:,}" if each in of else "" for of in found.values()])
            for rank, each in enumerate(classes, 1)
        ),
        Column("right", cells=rights),
    ]


def _layers(document: Mapping[str, Any]) -> tuple[str, list[Column]]:
    layers = document["layers"]
    done = [synaptic_operations(layer) for layer in layers]
    rates = [f"{layer['firing_rate']:.2%}" if layer["neuron_updates"] else "" for layer in layers]
    densities = [f"{layer['input_density']:.2%}" if layer["inputs"] else "" for layer in layers]
    dense = [f"{layer['dense_macs']:,.0f}" if layer["dense_macs"] else "" for layer in layers]
    return "layers, means per sample", [
        Column("layer", right=False, cells=[layer["name"] for layer in layers]),
        Column("rate", 2, cells=rates),
        Column("density", 3, cells=densities),
        Column("dense MACs", 4, cells=dense),
        Column("executed", 1, cells=[f"{each:,.0f}" if each else "" for each in done]),
        Column("of dense", 5, cells=[share(layer) if layer["dense_macs"] else "" for layer in layers]),
    ]


def _energies(document: Mapping[str, Any]) -> tuple[str, list[Column]]:
    energies = document["energy"]

    def millijoules(key: str) -> list[str]:
        return [f"{each[key]:.4g}" for each in energies.values()]

    return "energies, means per sample", [
        Column("model", right=False, cells=list(energies)),
        Column("mJ", cells=millijoules("total_mj")),
        Column("+-", 1, cells=millijoules("std_mj")),
        Column("compute", 3, cells=millijoules("compute_mj")),
        Column("memory", 2, cells=millijoules("memory_mj")),
        Column("unpriced", 4, cells=[f"{sum(each['unpriced'].values()):,.0f}" for each in energies.values()]),
    ]


def _conventions(document: Mapping[str, Any]) -> tuple[str, list[Column]]:
    counted = document["conventions"]
    return "conventions, means per sample", [
        Column("convention", right=False, cells=list(counted)),
        Column("ACs", 2, cells=[f"{each['acs']:,.0f}" for each in counted.values()]),
        Column("MACs", 3, cells=[f"{each['macs']:,.0f}" for each in counted.values()]),
        Column("mJ at 45 nm", cells=[f"{each['energy_mj']:.4g}" for each in counted.values()]),
        Column("+-", 1, cells=[f"{each['std_mj']:.4g}" for each in counted.values()]),
    ]
