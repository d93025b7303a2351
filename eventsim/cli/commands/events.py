"""``eventsim events``: what a recording holds."""

from __future__ import annotations

import argparse
from pathlib import Path

from eventsim.cli.arguments import Arguments, add_recording_options, preparation_of
from eventsim.cli.printing import console, print_json
from eventsim.report import document


def add(parser: argparse.ArgumentParser) -> None:
    """Say the arguments of ``events``."""
    parser.add_argument("file", metavar="FILE")
    add_recording_options(parser)


def describe(args: Arguments) -> int:
    """Describe a recording."""
    recording = preparation_of(args).recording(Path(args.file))
    summary = recording.summary()
    description = {"schema": document.SCHEMA, "file": args.file, "format": recording.format, **vars(summary)}
    if args.json:
        print_json(description)
        return 0
    screen = console()
    for key, value in description.items():
        if key != "schema":
            screen.print(f"{key:12s} {value:,}" if isinstance(value, int) else f"{key:12s} {value}", markup=False)
    return 0
