"""Recordings are streamed: what is in memory does not grow with the file."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "benchmarks"))
from decoding_memory import measured

FILE_BYTES = 64_000_000
MOST_BYTES = 64 << 20


def test_streaming_takes_64_mib_more_than_the_import_whatever_the_format(tmp_path: Path) -> None:
    """As events and as frames by every kind of window, of which equal times hold up to a million and a half events."""
    found = {name: (events, more) for name, events, more in measured(tmp_path, FILE_BYTES)}
    assert len(found) == 15
    assert all(events > FILE_BYTES // 40 for events, _ in found.values())
    over = {name: f"{more >> 20} MiB" for name, (_, more) in found.items() if more > MOST_BYTES}
    assert not over
