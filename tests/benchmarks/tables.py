"""What the terminal shows of a comparison."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from measure import MORE_THAN_ONE_CORE

OURS = "eventsim"


def comparison(title: str, result: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of one workload at one batch size; a ratio is the engine's median over that of ours."""
    engines = result["engines"]
    ours = [name for name in engines if name.startswith(OURS)]
    yield f"\n{title}, batch {result['batch']}: milliseconds for one sample"
    heads = "".join(f"{'/ ' + name:>15}" for name in ours)
    told = f"{'as PyTorch':>11}{'right':>7}{'difference':>11}"
    yield f"{'engine':<20}{told}{'median':>10}{'min':>10}{'CPU':>10}{'n':>5}{'cores':>6}{heads}"
    for name, row in engines.items():
        told = row["check"]
        agree = f"{told['same_prediction']} of {told['samples']}"
        right = f"{told['accuracy']:.0%}" if "accuracy" in told else ""
        ratios = "".join(f"{row['median_ms'] / engines[other]['median_ms']:>14.2f}x" for other in ours)
        yield (
            f"{name:<20}{agree:>11}{right:>7}{told['largest_difference']:>11.1e}{row['median_ms']:>10.3f}{row['min_ms']:>10.3f}"
            f"{row['cpu_ms']:>10.3f}{row['n']:>5}{row['cores']:>6.2f}{ratios}"
        )
    for name, row in engines.items():
        if row["cores"] > MORE_THAN_ONE_CORE:
            yield f"{name}: {row['cores']:.2f} cores found; expected one thread: this row is not comparable"
    for name, reason in result["left_out"].items():
        yield f"{name}: {reason}"
    for name, value in result.get("facts", {}).items():
        yield f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}"
