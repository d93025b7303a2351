"""Profiles as CSV: one row for each sample and layer."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from eventsim.errors import InputError


def write_rows(path: str | Path, samples: Iterable[dict[str, Any]]) -> None:
    """Write the layers of sample documents; the columns are the sample and the keys of a layer.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    rows = [{"input": sample["input"], **layer} for sample in samples for layer in sample["layers"]]
    try:
        with Path(path).open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.DictWriter(file, list(rows[0]) if rows else ["input"])
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
