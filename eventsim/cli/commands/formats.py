"""``eventsim formats``: what can be read."""

from __future__ import annotations

from eventsim import dvs
from eventsim.cli.arguments import Arguments
from eventsim.cli.printing import console, print_json
from eventsim.importing import formats
from eventsim.report import document
from eventsim.report.provenance import machine


def list_formats(args: Arguments) -> int:
    """List the checkpoint and event-file formats."""
    checkpoints = {name: importer.description for name, importer in formats().items()}
    readable = dvs.event_formats().items()
    events = {name: f"{entry.description} ({' '.join(entry.extensions)})" for name, entry in readable}
    if args.json:
        print_json({"schema": document.SCHEMA, "checkpoints": checkpoints, "events": events, "provenance": machine()})
        return 0
    screen = console()
    for heading, entries in (("checkpoints", checkpoints), ("event files", events)):
        screen.print(heading, style="bold")
        for name, description in entries.items():
            screen.print(f"  {name:14s} {description}", markup=False, soft_wrap=True)
    return 0
