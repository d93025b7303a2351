"""What ``verify`` prints: a document, or tables."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from eventsim.network import Network
from eventsim.report.document import failures, headed


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


def print_verification(console: Console, sample: dict[str, Any]) -> None:
    """Print how every layer compares, and the verdict."""
    table = Table(header_style="bold")
    table.add_column("layer", overflow="fold", min_width=16)
    table.add_column("kind")
    for heading in (
        "compared",
        "emitted",
        "differ",
        "outside\nmargin",
        "from\nthreshold",
        "largest\ndifference",
        "of the\nmargin",
        "differ\nend to end",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in sample["layers"]:
        share = layer["largest_ratio"] / layer["allowed"] if layer["largest_ratio"] is not None else None
        table.add_row(
            Text(layer["name"]),
            layer["kind"],
            _number(layer["compared"]),
            _number(layer["emitted"]),
            _number(layer["differing"]),
            _number(layer["outside"]),
            _real(layer["largest_distance"]),
            _real(layer["largest_difference"]),
            _real(share),
            _number(layer["end_to_end_differing"]),
        )
    console.print(table)
    said = Text.assemble((sample["verdict"], "bold green" if sample["holds"] else "bold red"))
    said.append(f"  {sample['input']}: {sample['time_steps']} time steps")
    console.print(said, soft_wrap=True)


def _number(value: int) -> str:
    return f"{value:,}" if value else ""


def _real(value: float | None) -> str:
    if value is None:
        return "not finite"
    return f"{value:.2g}" if value else ""
