"""``eventsim export``: from a model file to a NIR graph."""

from __future__ import annotations

import argparse

from eventsim.cli.arguments import Arguments, add_model, check_output
from eventsim.cli.printing import console, print_json
from eventsim.exporting import to_nir
from eventsim.modelfile import load
from eventsim.report import document


def add(parser: argparse.ArgumentParser) -> None:
    """Say the arguments of ``export``."""
    parser.set_defaults(command=export)
    add_model(parser)
    parser.add_argument("-o", "--output", metavar="FILE.nir", required=True, help="the graph to write")


def export(args: Arguments) -> int:
    """Write a model file as a NIR graph."""
    check_output(args.output, args.model)
    network = load(args.model)
    to_nir(network, args.output)
    if args.json:
        print_json(document.network_document(args.model, network))
    else:
        console().print(f"wrote {args.output}: {network.name}, {len(network.layers)} layers", markup=False)
    return 0
