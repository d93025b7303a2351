"""Profiles as CSV: one row for each sample and layer."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from eventsim.whole_file import whole_file


def write_rows(path: str | Path, samples: Iterable[dict[str, Any]]) -> None:
    """Write the layers of sample documents; the columns are the sample and the keys of a layer.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    rows = [{"input": sample["input"], **layer} for sample in samples for layer in sample["layers"]]
    with (
        whole_file(path) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["input"])
        writer.writeheader()
        writer.writerows(rows)
