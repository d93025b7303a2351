"""The same documents as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from eventsim.accounting.energy import MAIN
from eventsim.network import Network
from eventsim.operations import OPERATIONS, synaptic_operations
from eventsim.report.conventions import print_conventions, spread
from eventsim.report.energy import energy_lines
from eventsim.report.fitting import Column, print_table
from eventsim.report.latency import latency_line
from eventsim.settings import Setting

MAIN_GROUPS = ("synapses", "neurons", "joins")
OTHER_GROUPS = ("attention", "alternative")
"""Of operations that few layers execute: a table of their own. Inputs are told by the density."""
WIDE_GROUPS = ("arithmetic", "memory")
STAYING = (
    "acs",
    "spikes",
    "ms",
    "density",
    "dense_macs",
    "macs",
    "graded_macs",
    "rate",
    "graded_acs",
    "neuron_updates",
)
"""Columns of the table of layers, the last of which leave first where there is no room; after all others."""
HEADINGS = {"dense_macs": "dense_MACs"}


def columns(totals: dict[str, Any], groups: tuple[str, ...] = (*MAIN_GROUPS, *OTHER_GROUPS)) -> list[str]:
    """Return the operations of some groups that have a column: those that occurred and are no part of others."""
    return [
        name
        for name, operation in OPERATIONS.items()
        if operation.group in groups and totals[name] and not operation.part_of
    ]


def _parts(totals: dict[str, Any]) -> list[str]:
    """Return the operations that tell more of others, those that occurred."""
    return [name for name, operation in OPERATIONS.items() if operation.part_of and totals[name]]


def print_network(console: Console, document: dict[str, Any], wide: bool = False) -> None:
    """Print layers, shapes, parameters and dense MACs, then what was assumed."""
    layers = document["layers"]
    emits = [f"{layer['signal']} {'x'.join(map(str, layer['shape']))}" for layer in layers]
    columns = [
        Column("layer", right=False, cells=[*(layer["name"] for layer in layers), "total"]),
        Column("kind", 2, right=False, cells=[*(layer["kind"] for layer in layers), ""]),
        Column("emits", 1, right=False, cells=[*emits, ""]),
    ]
    for heading, name, rank in (
        ("parameters", "parameters", 3),
        ("neurons", "neurons", 5),
        ("dense MACs/step", "dense_macs_per_step", 4),
    ):
        columns.append(Column(heading, rank, cells=[_number(each[name]) for each in (*layers, document)]))
    print_table(console, columns, title=document["network"], sections=[len(layers)], everything=wide)
    console.print(f"parameters: {parameters(document)}")
    print_settings(console, document)


def parameters(document: dict[str, Any]) -> str:
    """Say how many parameters there are, here and in the checkpoint."""
    theirs = document["checkpoint_parameters"]
    return f"{document['parameters']:,}" + ("" if theirs is None else f" of {theirs:,} in the checkpoint")


def print_settings(console: Console, document: dict[str, Any]) -> None:
    """Print the values that the weights do not tell, with their sources."""
    steps = document["time_steps"]
    console.print(f"time steps: {'given by the input' if steps is None else steps}")
    for setting in document["settings"]:
        stored = Setting(**setting)
        console.print(_line(f"{stored.source}: {stored.sentence}"), soft_wrap=True)


def print_assumed(console: Console, network: Network) -> None:
    """Print in one line what nobody said and the results rest on."""
    if assumed := [setting for setting in network.settings if setting.source == "assumed"]:
        said = ", ".join(each.option if each.value is None else f"{each.option} = {each.shown}" for each in assumed)
        console.print(_line(f"assumed, as nothing says it: {said} (`eventsim info` tells more)"), soft_wrap=True)


def print_sample(
    console: Console,
    sample: dict[str, Any],
    *,
    detail: bool,
    wide: bool = False,
    conventions: bool = False,
    energies: Sequence[str] = MAIN,
) -> None:
    """Print the prediction of one sample, and each layer and energies where `detail` asks for them.

    `wide` adds all counts, `conventions` those of papers and tools.
    """
    if detail:
        _print_layers(console, sample, wide)
    totals = sample["totals"]
    said = [("prediction ", "bold"), (str(sample["prediction"]), "bold green")]
    if sample["prediction"] is None:
        said = [(f"{len(sample['logits'])} features ", "bold"), ("of a network without a head, no prediction", "green")]
    console.print(
        Text.assemble(
            *said,
            f"  {sample['input']}: {sample['time_steps']} time steps in {sample['latency_s'] * 1e3:.1f} ms, "
            f"{totals['spikes']:,} spikes, {synaptic_operations(totals):,} synaptic operations "
            f"({share(totals)} of {totals['dense_macs']:,} dense MACs)",
        ),
        soft_wrap=True,
    )
    if detail:
        console.print(latency_line(sample["latency"]), soft_wrap=True)
        for line in energy_lines(sample, energies):
            console.print(line, markup=False, soft_wrap=True)
    if conventions:
        print_conventions(console, sample["conventions"], wide)
    elif detail:
        console.print(spread(sample["conventions"]), soft_wrap=True)


def share(counts: dict[str, Any]) -> str:
    """Say the synapses served as a share of the dense multiply-accumulates."""
    return f"{100 * synaptic_operations(counts) / max(counts['dense_macs'], 1):.1f} %"


def _print_layers(console: Console, sample: dict[str, Any], wide: bool) -> None:
    """Print what every layer executed; operations that few layers execute in a second table, of those layers."""
    totals = sample["totals"]
    rows = [*sample["layers"], totals]
    told = {
        "kernel": [layer["kernel"] for layer in rows],
        "rate": [f"{layer['firing_rate']:.1%}" if layer["neurons"] else "" for layer in rows],
        "density": [f"{layer['input_density']:.1%}" if layer["inputs"] else "" for layer in rows],
        "dense_macs": [_number(layer["dense_macs"]) for layer in rows],
        **{name: [_number(layer[name]) for layer in rows] for name in columns(totals, MAIN_GROUPS)},
        "ms": [f"{layer['seconds'] * 1e3:.2f}" for layer in rows],
    }
    shown = [Column(_heading(name), _rank(name), right=name != "kernel", cells=cells) for name, cells in told.items()]
    print_table(console, [_names(rows), *shown], sections=[len(rows) - 1], everything=wide)
    _print_operations(console, rows, columns(totals, OTHER_GROUPS), wide)
    if wide:
        for names in (_parts(totals), *(columns(totals, (group,)) for group in WIDE_GROUPS)):
            _print_operations(console, rows, names, wide)


def _print_operations(console: Console, rows: list[dict[str, Any]], names: list[str], wide: bool) -> None:
    """Print some operations of the layers that executed them; the last row is the total."""
    if not names:
        return
    some = [layer for layer in rows if layer is rows[-1] or any(layer[name] for name in names)]
    shown = [
        Column(_heading(name), rank, cells=[_number(layer[name]) for layer in some])
        for rank, name in enumerate(names, 1)
    ]
    print_table(console, [_names(some), *shown], sections=[len(some) - 1], everything=wide)


def _names(rows: list[dict[str, Any]]) -> Column:
    return Column("layer", right=False, cells=[layer["name"] for layer in rows])


def _rank(name: str) -> int:
    """Say how early the column of an operation, or of what is told beside them, leaves a narrow terminal."""
    return STAYING.index(name) + 1 if name in STAYING else len(STAYING) + 1 + (name == "kernel")


def _heading(operation: str) -> str:
    return HEADINGS.get(operation, operation).replace("_", "\n")


def _number(value: int) -> str:
    return f"{value:,}" if value else ""


def _line(text: str) -> Text:
    """Text from a file, never read as markup."""
    return Text(text)
