"""``eventsim info``: what a model file holds."""

from __future__ import annotations

import argparse

from eventsim.cli.arguments import Arguments, add_model, add_wide
from eventsim.cli.printing import console, print_json
from eventsim.modelfile import load
from eventsim.report import document, tables


def add(parser: argparse.ArgumentParser) -> None:
    """Say the arguments of ``info``."""
    parser.set_defaults(command=info)
    add_model(parser)
    add_wide(parser)


def info(args: Arguments) -> int:
    """Describe a model file."""
    description = document.network_document(args.model, load(args.model))
    if args.json:
        print_json(description)
    else:
        tables.print_network(console(), description, args.wide)
    return 0
