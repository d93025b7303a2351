"""Start-up in CPU seconds, as ratios to importing Numba in the same rounds."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

STARTS = {
    "import numba": ["-c", "import numba"],
    "import eventsim": ["-c", "import eventsim"],
    "Simulator and load": ["-c", "from eventsim import Simulator, load"],
    "eventsim demo, warm": ["-c", "from eventsim.cli import main; raise SystemExit(main(['demo']))"],
}
ROUNDS, QUICK = 7, 2


def section(quick: bool) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield a line, a name and numbers for each command; all in turn, each once before, so that caches are warm."""
    rounds = QUICK if quick else ROUNDS
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    seconds: dict[str, list[float]] = {name: [] for name in STARTS}
    for number in range(rounds + 1):
        for name, words in STARTS.items():
            before = _children()
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            subprocess.run([sys.executable, *words], check=True, env=environment, **quiet)  # as pip installs it
            if number:
                seconds[name].append(_children() - before)
    base = statistics.median(seconds["import numba"])
    for name, found in seconds.items():
        median = statistics.median(found)
        numbers = {"cpu_s": median, "min_s": min(found), "n": len(found), "of_import_numba": median / base}
        yield f"{name:<20} {median:.3f} CPU s, {median / base:.2f} times import numba (n {len(found)})", name, numbers


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
