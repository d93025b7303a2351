"""Recordings are streamed: what is in memory does not grow with the file."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "benchmarks"))
from decoding_memory import measured

FILE_BYTES = 64_000_000
MOST_BYTES = 48 << 20


def test_no_format_is_held_in_memory(tmp_path: Path) -> None:
    """As events and as frames by every kind of window, of which equal times hold up to two million events."""
    _, found = measured(tmp_path, FILE_BYTES)
    assert len(found) == 15
    for name, (events, more) in found.items():
        assert events > FILE_BYTES // 40, name
        assert more < MOST_BYTES, f"{name}: {more >> 20} MiB"
