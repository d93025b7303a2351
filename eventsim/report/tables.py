"""The same documents as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from eventsim.accounting.energy import MAIN
from eventsim.network import Network
from eventsim.operations import OPERATIONS, synaptic_operations
from eventsim.report.conventions import print_conventions, spread
from eventsim.report.energy import energy_lines
from eventsim.report.latency import latency_line
from eventsim.settings import Setting

MAIN_GROUPS = ("synapses", "neurons", "joins")
OTHER_GROUPS = ("attention", "alternative")
"""Of operations that few layers execute: a table of their own. Inputs are told by the density."""
WIDE_GROUPS = ("arithmetic", "memory")


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


def print_network(console: Console, document: dict[str, Any]) -> None:
    """Print layers, shapes, parameters and dense MACs, then what was assumed."""
    table = Table(title=_line(document["network"]), title_justify="left", header_style="bold")
    for heading in ("layer", "kind"):
        table.add_column(heading, overflow="fold")
    table.add_column("emits")
    for heading in ("parameters", "neurons", "dense MACs/step"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in document["layers"]:
        shape = "x".join(map(str, layer["shape"]))
        numbers = (layer["parameters"], layer["neurons"], layer["dense_macs_per_step"])
        table.add_row(_line(layer["name"]), layer["kind"], f"{layer['signal']} {shape}", *map(_number, numbers))
    totals = (document["parameters"], document["neurons"], document["dense_macs_per_step"])
    table.add_section()
    table.add_row("total", "", "", *map(_number, totals))
    console.print(table)
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
        print_conventions(console, sample["conventions"])
    elif detail:
        console.print(spread(sample["conventions"]), soft_wrap=True)


def share(counts: dict[str, Any]) -> str:
    """Say the synapses served as a share of the dense multiply-accumulates."""
    return f"{100 * synaptic_operations(counts) / max(counts['dense_macs'], 1):.1f} %"


def _print_layers(console: Console, sample: dict[str, Any], wide: bool) -> None:
    """Print what every layer executed; operations that few layers execute in a second table, of those layers."""
    totals = sample["totals"]
    main = columns(totals, MAIN_GROUPS)
    table = Table(header_style="bold")
    table.add_column("layer", overflow="fold", min_width=16)
    table.add_column("kernel", overflow="fold")
    for heading in ("rate", "density", "dense\nMACs", *map(_heading, main), "ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = [*sample["layers"], totals]
    for layer in rows:
        if layer is totals:
            table.add_section()
        table.add_row(
            _line(layer["name"]),
            layer["kernel"],
            f"{layer['firing_rate']:.1%}" if layer["neurons"] else "",
            f"{layer['input_density']:.1%}" if layer["inputs"] else "",
            _number(layer["dense_macs"]),
            *(_number(layer[name]) for name in main),
            f"{layer['seconds'] * 1e3:.2f}",
        )
    console.print(table)
    _print_operations(console, rows, columns(totals, OTHER_GROUPS))
    if wide:
        for names in (_parts(totals), *(columns(totals, (group,)) for group in WIDE_GROUPS)):
            _print_operations(console, rows, names)


def _print_operations(console: Console, rows: list[dict[str, Any]], names: list[str]) -> None:
    """Print some operations of the layers that executed them; the last row is the total."""
    if not names:
        return
    table = Table(header_style="bold")
    table.add_column("layer", overflow="fold", min_width=16)
    for name in names:
        table.add_column(_heading(name), justify="right", no_wrap=True)
    for layer in rows:
        if layer is rows[-1]:
            table.add_section()
        if any(layer[name] for name in names):
            table.add_row(_line(layer["name"]), *(_number(layer[name]) for name in names))
    console.print(table)


def _heading(operation: str) -> str:
    return operation.replace("_", "\n")


def _number(value: int) -> str:
    return f"{value:,}" if value else ""


def _line(text: str) -> Text:
    """Text from a file, never read as markup."""
    return Text(text)
