"""``eventsim formats``: what can be read, and with which options."""

from __future__ import annotations

import argparse
import re
from difflib import get_close_matches

from rich.padding import Padding
from rich.text import Text

from eventsim import dvs
from eventsim.cli.arguments import Arguments
from eventsim.cli.printing import console, print_json
from eventsim.cli.words import FLAGS
from eventsim.dvs.event_format import EventFormat
from eventsim.errors import InputError
from eventsim.importing import formats
from eventsim.preparation_options import PreparationOptions
from eventsim.report import document
from eventsim.report.provenance import machine
from eventsim_importers.reading.options import explained

WRAPPINGS = {
    "weights": (
        "str",
        "Which entry of a training checkpoint to take, such as state_dict_ema; needed where several fit.",
    ),
    "ignore": ("str", "Shell-like patterns of tensors that enter no forward pass, with commas between them."),
}


def add(parser: argparse.ArgumentParser) -> None:
    """Say the arguments of ``formats``."""
    parser.set_defaults(command=list_formats)
    parser.add_argument("name", metavar="NAME", nargs="?", help="a format, to explain its options")


def list_formats(args: Arguments) -> int:
    """List the checkpoint and event-file formats, or explain the options of one."""
    if args.name is not None:
        return _explain(args)
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


def _explain(args: Arguments) -> int:
    known, recordings = formats(), dvs.event_formats()
    if args.name in recordings and args.name not in known:
        return _explain_recording(args, recordings[args.name])
    if args.name not in known:
        names = [*known, *recordings]
        near = "".join(f", did you mean {name}?" for name in get_close_matches(args.name, names, 1))
        raise InputError(f"format {args.name!r} found{near or '; expected one of ' + ', '.join(names)}")
    own = explained(known[args.name].options)
    common = {**WRAPPINGS, **explained(PreparationOptions)}
    if args.json:
        told = {name: {"type": kind, "text": text} for name, (kind, text) in {**own, **common}.items()}
        print_json(
            {
                "schema": document.SCHEMA,
                "format": args.name,
                "description": known[args.name].description,
                "options": told,
                "provenance": machine(),
            }
        )
        return 0
    screen = console()
    screen.print(f"{args.name}: {known[args.name].description}", markup=False, soft_wrap=True)
    for heading, entries in (("options, as --set NAME=VALUE", own), ("options of every format", common)):
        screen.print(heading, style="bold")
        for name, (kind, text) in entries.items():
            screen.print(f"  {name} : {kind}", markup=False, soft_wrap=True)
            if text:
                screen.print(Padding(Text(text), (0, 0, 0, 6), expand=False))
    screen.print(
        f"for example: eventsim import FILE -o MODEL.h5 --format {args.name} --set {_example(own)}", markup=False
    )
    return 0


def _explain_recording(args: Arguments, entry: EventFormat) -> int:
    """Tell which flags an event-file format takes beside those that every one takes, `--salvage` among them."""
    own = sorted(f"--{FLAGS[option]}" if option in FLAGS else option for option in entry.options - {"salvage"})
    if args.json:
        told = {"description": entry.description, "extensions": list(entry.extensions), "flags": own}
        print_json({"schema": document.SCHEMA, "format": args.name, **told, "provenance": machine()})
        return 0
    screen = console()
    for line in (
        f"{args.name}: {entry.description}",
        f"usual endings: {' '.join(entry.extensions) or 'none'}",
        f"flags of its own: {' '.join(own) or 'none'}; eventsim events --help explains them and those of every format",
        f"for example: eventsim events RECORDING{next(iter(entry.extensions), '')} --format {args.name}",
    ):
        screen.print(line, markup=False, soft_wrap=True)
    return 0


def _example(options: dict[str, tuple[str, str]]) -> str:
    """Return one option with a value that it takes."""
    words = {name: re.findall(r'"(\w+)"', kind) for name, (kind, _) in options.items()}
    name = next((name for name, found in words.items() if found), None)
    return f"{name}={words[name][-1]}" if name is not None else f"{next(iter(options))}=VALUE"
