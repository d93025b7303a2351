"""``eventsim events``: what a recording holds."""

from __future__ import annotations

import argparse
from pathlib import Path

from eventsim.cli.arguments import Arguments, add_recording_options, preparation_of
from eventsim.cli.printing import complain, console, print_json
from eventsim.hashes import sha256
from eventsim.report import document
from eventsim.report.provenance import machine


def add(parser: argparse.ArgumentParser) -> None:
    """Say the arguments of ``events``."""
    parser.set_defaults(command=describe)
    parser.add_argument("file", metavar="FILE", help="a recording; eventsim formats lists what is read")
    add_recording_options(parser)


def describe(args: Arguments) -> int:
    """Describe a recording."""
    recording = preparation_of(args).recording(Path(args.file))
    if recording.overruled_size is not None:
        complain(f"{args.file}: {recording.overruled_size}")
    summary = recording.summary()
    shown = {"file": args.file, "format": recording.format, **vars(summary), "sensor": recording.size_source}
    if args.json:
        whence = {"file_sha256": sha256(args.file), "provenance": machine()}
        print_json({"schema": document.SCHEMA, **shown, **whence})
        return 0
    screen = console()
    for key, value in shown.items():
        screen.print(f"{key:15s} {value:,}" if isinstance(value, int) else f"{key:15s} {value}", markup=False)
    return 0
