"""What every command says, and where: results to stdout, messages and progress to stderr."""

from __future__ import annotations

import io
import json
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rich.console import Console

from eventsim.cli.words import in_flags
from eventsim.held_interrupts import ending

if TYPE_CHECKING:
    from rich.progress import Progress


def complain(error: object) -> None:
    """Say in one line on stderr what went wrong."""
    with suppress(OSError):  # of a disk that is full
        print("eventsim:", in_flags(" ".join(str(error).split())), file=sys.stderr)


def console() -> Console:
    """Return where results go: as wide as the terminal; in a pipe nothing is folded or left out."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 100_000)


def progress() -> Progress:
    """Return a bar on stderr, which only a terminal shows."""
    from rich.progress import (  # noqa: PLC0415 - takes long to import, and short work has no bar
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def print_json(description: dict[str, Any]) -> None:
    """Print the one document of a command on stdout, to its end."""
    ending()
    say(json.dumps(description, indent=1, allow_nan=False))


def say(text: str) -> None:
    """Print results on stdout now, and all of them."""
    raw = getattr(sys.stdout, "buffer", None)
    if not isinstance(raw, io.RawIOBase):
        print(text, flush=True)
        return
    data = f"{text}\n".encode(sys.stdout.encoding, sys.stdout.errors or "strict")
    while data:  # without a buffer, as by PYTHONUNBUFFERED, what a signal cuts short is not gone on with
        data = data[raw.write(data) or 0 :]
