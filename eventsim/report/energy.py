"""Energies in documents and on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eventsim.accounting.energy import Energy

TOLD = 3
"""Operations without a price that a line names; the document has all."""
SAME = 1e-9
"""Of a mean: samples that differ by less differ by rounding."""


def energy_document(energy: Energy, samples: int = 1) -> dict[str, Any]:
    """Return one energy as plain data, as a mean where it is that of several samples."""
    return {
        "total_mj": energy.total_mj / samples,
        "compute_mj": energy.compute_mj / samples,
        "memory_mj": energy.memory_mj / samples,
        "by_layer": {layer: value / samples for layer, value in energy.by_layer.items()},
        "by_operation": {operation: value / samples for operation, value in energy.by_operation.items()},
        "unpriced": {
            operation: executed if samples == 1 else executed / samples
            for operation, executed in energy.unpriced.items()
        },
    }


def energy_lines(document: Mapping[str, Any], shown: Sequence[str]) -> list[str]:
    """Return a line for each energy model that is shown: total, parts, and what has no price."""
    return [f"energy, {name}: {energy_line(document['energy'][name])}" for name in shown]


def energy_line(energy: Mapping[str, Any]) -> str:
    """Say one energy of a document."""
    said = f"{_number(energy['total_mj'])} mJ"
    if energy.get("std_mj", 0.0) > SAME * energy["total_mj"]:
        said += f" +- {_number(energy['std_mj'])}"
    said += f" (compute {_number(energy['compute_mj'])}, memory {_number(energy['memory_mj'])})"
    unpriced = sorted(energy["unpriced"].items(), key=lambda item: -item[1])
    if not unpriced:
        return said
    named = ", ".join(f"{executed:,.0f} {name.replace('_', ' ')}" for name, executed in unpriced[:TOLD])
    more = f" and {len(unpriced) - TOLD} more" if len(unpriced) > TOLD else ""
    return f"{said}; without a price: {named}{more}"


def _number(value: float) -> str:
    return f"{value:.6f}" if value >= 1e-3 else f"{value:.3g}"
