"""What ``verify`` prints: a document, or tables."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from eventsim.network import Network
from eventsim.report.document import failures, headed
from eventsim.report.fitting import Column, print_table


def verification_document(
    model: str,
    network: Network,
    whence: dict[str, Any],
    samples: list[dict[str, Any]],
    failed: list[tuple[str, str]],
) -> dict[str, Any]:
    """Return the document of ``verify``; `failed` lists inputs and their errors."""
    return {
        **headed(model, network, whence),
        "samples": samples,
        "failed": failures(failed),
    }


def print_verification(console: Console, sample: dict[str, Any], wide: bool = False) -> None:
    """Print how every layer compares, and the verdict."""
    layers = sample["layers"]
    shares = [None if layer["largest_ratio"] is None else layer["largest_ratio"] / layer["allowed"] for layer in layers]
    columns = [
        Column("layer", right=False, cells=[layer["name"] for layer in layers]),
        Column("kind", 6, right=False, cells=[layer["kind"] for layer in layers]),
        Column("compared", 5, cells=[_number(layer["compared"]) for layer in layers]),
        Column("emitted", 8, cells=[_number(layer["emitted"]) for layer in layers]),
        Column("differ", 1, cells=[_number(layer["differing"]) for layer in layers]),
        Column("outside\nmargin", cells=[_number(layer["outside"]) for layer in layers]),
        Column("from\nthreshold", 4, cells=[_real(layer["largest_distance"]) for layer in layers]),
        Column("largest\ndifference", 2, cells=[_real(layer["largest_difference"]) for layer in layers]),
        Column("of the\nmargin", 3, cells=[_real(share) for share in shares]),
        Column("differ\nend to end", 7, cells=[_number(layer["end_to_end_differing"]) for layer in layers]),
    ]
    print_table(console, columns, everything=wide)
    said = Text.assemble((sample["verdict"], "bold green" if sample["holds"] else "bold red"))
    said.append(f"  {sample['input']}: {sample['time_steps']} time steps")
    console.print(said, soft_wrap=True)


def _number(value: int) -> str:
    return f"{value:,}" if value else ""


def _real(value: float | None) -> str:
    if value is None:
        return "not finite"
    return f"{value:.2g}" if value else ""
