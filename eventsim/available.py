"""How much memory is left."""

from __future__ import annotations

from pathlib import Path

MEMORY = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int | None:
    """Return the bytes that can be allocated without swapping, on this machine and in this container.

    Returns
    -------
    int or None
        None where the system does not tell.
    """
    found = [limit for limit in (_of_the_machine(), _of_the_group()) if limit is not None]
    return min(found) if found else None


def _of_the_machine() -> int | None:
    try:
        fields = dict(line.split(":", 1) for line in MEMORY.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _of_the_group() -> int | None:
    """Return what a control group of version 2 leaves; file pages that can be dropped are free."""
    try:
        limit, used = ((GROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        droppable = dict(line.split() for line in (GROUP / "memory.stat").read_text().splitlines())
        return None if limit == "max" else max(int(limit) - int(used) + int(droppable["inactive_file"]), 0)
    except (OSError, KeyError, ValueError):
        return None
