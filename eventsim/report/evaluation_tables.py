"""The document of ``evaluate`` as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from eventsim.accounting.energy import MAIN
from eventsim.operations import synaptic_operations
from eventsim.report.energy import energy_line
from eventsim.report.tables import columns, share

MATRIX = 20
"""Classes up to which confusions are a matrix; of more, the most frequent are listed."""
LISTED = 10


def print_evaluation(console: Console, document: Mapping[str, Any], energies: Sequence[str] = MAIN) -> None:
    """Print what failed, accuracy, margins, times and operations, then confusions, layers, energies and conventions."""
    for error in alike(document["failed"]):
        console.print(Text(f"failed: {error}"), soft_wrap=True)
    if not document["samples"]:
        console.print("no sample could be simulated")
        return
    console.print(_summary(document, energies))
    console.print(_confusions(document))
    console.print(_layers(document))
    console.print(_energies(document))
    console.print(_conventions(document))


def alike(failed: Sequence[Mapping[str, str]]) -> list[str]:
    """Return each error once, those that differ in the name of the sample alone with their number."""
    found: dict[str, list[str]] = {}
    for failure in failed:
        found.setdefault(failure["error"].replace(failure["input"], "\0"), []).append(failure["error"])
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
        table.add_row("accuracy by step", ", ".join(f"{each:.1%}" for each in document["step_accuracy"]))
    executed = {**document["totals"], "dense_macs": document["dense_macs"] * n}
    table.add_row("dense MACs per sample", f"{document['dense_macs']:,.0f}")
    table.add_row("executed per sample", f"{document['synaptic_operations']:,.0f} ({share(executed)})")
    for name in columns(document["totals"]):
        table.add_row(f"{name.replace('_', ' ')} per sample", f"{document['totals'][name] / n:,.0f}")
    for name in energies:
        table.add_row(f"energy, {name}", energy_line(document["energy"][name]))
    return table


def _times(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value * 1e3:.1f} ms" for name, value in seconds.items())


def _confusions(document: Mapping[str, Any]) -> Table:
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
        )
        table = _table("most frequent confusions", "label", "predicted", "times")
        for n, label, prediction in wrong[:LISTED]:
            table.add_row(str(label), str(prediction), f"{n:,}")
        return table
    table = _table("predictions by label", "label", *map(str, classes), "right")
    for label, of in found.items():
        right = of.get(label, 0) / sum(of.values())
        table.add_row(str(label), *(f"{of[each]:,}" if each in of else "" for each in classes), f"{right:.1%}")
    return table


def _layers(document: Mapping[str, Any]) -> Table:
    table = _table("layers, means per sample", "layer", "rate", "density", "dense MACs", "executed", "of dense")
    for layer in document["layers"]:
        done = synaptic_operations(layer)
        table.add_row(
            Text(layer["name"]),
            f"{layer['firing_rate']:.2%}" if layer["neuron_updates"] else "",
            f"{layer['input_density']:.2%}" if layer["inputs"] else "",
            f"{layer['dense_macs']:,.0f}" if layer["dense_macs"] else "",
            f"{done:,.0f}" if done else "",
            share(layer) if layer["dense_macs"] else "",
        )
    return table


def _energies(document: Mapping[str, Any]) -> Table:
    table = _table("energies, means per sample", "model", "mJ", "+-", "compute", "memory", "unpriced")
    for name, each in document["energy"].items():
        millijoules = (f"{each[key]:.4g}" for key in ("total_mj", "std_mj", "compute_mj", "memory_mj"))
        table.add_row(name, *millijoules, f"{sum(each['unpriced'].values()):,.0f}")
    return table


def _conventions(document: Mapping[str, Any]) -> Table:
    table = _table("conventions, means per sample", "convention", "ACs", "MACs", "mJ at 45 nm", "+-")
    for name, each in document["conventions"].items():
        energy = (f"{each[key]:.4g}" for key in ("energy_mj", "std_mj"))
        table.add_row(name, f"{each['acs']:,.0f}", f"{each['macs']:,.0f}", *energy)
    return table


def _table(title: str, first: str, *numbers: str) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column(first, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
