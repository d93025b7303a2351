"""One JSON file for each run, and what changed since another one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def write(document: dict[str, Any], folder: Path) -> Path:
    """Write a run, named by its date and commit; a run that goes on overwrites its file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{document['date'].replace(':', '')}_{document['commit']}.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def latest(folder: Path) -> dict[str, Any] | None:
    """Return the last run of a folder, None without any."""
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    return json.loads(files[-1].read_text()) if files else None


def compare(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Yield one line for each time that both runs have: then, now, and then / now."""
    yield f"{'':<58} {before['commit']:>12} {now['commit']:>12}  faster"
    if before["machine"]["cpu"] != now["machine"]["cpu"]:
        yield f"another processor then: {before['machine']['cpu']}; now {now['machine']['cpu']}"
    earlier, later = (dict(_times(run["results"])) for run in (before, now))
    for name, value in later.items():
        if name in earlier:
            yield f"{name:<58} {earlier[name]:12.3f} {value:12.3f} {earlier[name] / value:6.2f}x"


def _times(tree: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(tree, dict):
        if "median_ms" in tree:
            yield name, tree["median_ms"]
        for key, value in tree.items():
            yield from _times(value, f"{name} / {key}" if name else str(key))
