"""``eventsim run`` and ``eventsim profile``: predictions, and what every layer executed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from eventsim.cli.arguments import Arguments, add_input_options, csv_name, preparation_of
from eventsim.cli.printing import complain, console, print_json, progress
from eventsim.errors import InputError
from eventsim.modelfile import load
from eventsim.preparation import Preparation
from eventsim.report import document, tables
from eventsim.report.rows import write_rows
from eventsim.simulator import Simulator


def add(parser: argparse.ArgumentParser) -> None:
    """Say the arguments of ``run`` and ``profile``."""
    parser.add_argument("model", metavar="MODEL.h5")
    parser.add_argument("inputs", metavar="INPUT", nargs="+")
    parser.add_argument("--rows", type=csv_name, metavar="FILE.csv", help="write one row for each input and layer")
    says = "what papers and tools would have counted, and why"
    parser.add_argument("--conventions", action="store_true", help=says)
    parser.add_argument("--wide", action="store_true", help="every operation, in the tables of profile")
    add_input_options(parser)


def simulate(args: Arguments) -> int:
    """Simulate recordings and print predictions (run), or every layer's counts (profile)."""
    simulator = Simulator(load(args.model), chunk=args.chunk)
    preparation = preparation_of(args, simulator.network)
    compile_s = simulator.warm_up()
    samples: list[dict[str, Any]] = []
    failed: list[tuple[str, str]] = []
    for source in args.inputs:
        try:
            samples.append(simulated(simulator, preparation, source))
        except InputError as error:  # the others are still simulated
            failed.append((source, str(error)))
            complain(error)
            continue
        if not args.json:
            tables.print_sample(
                console(), samples[-1], detail=args.detail, wide=args.wide, conventions=args.conventions
            )
    if args.rows is not None:
        try:
            write_rows(args.rows, samples)
        except InputError as error:  # what was computed is still printed
            failed.append((str(args.rows), str(error)))
            complain(error)
    if args.json:
        noted = preparation.noted(simulator.network)
        print_json(document.run_document(args.model, noted, compile_s, samples, failed))
    elif samples:
        tables.print_assumed(console(), simulator.network)
    return 2 if failed else 0


def simulated(simulator: Simulator, preparation: Preparation, source: str) -> dict[str, Any]:
    """Return the document of one input."""
    frames = preparation.frames(source, simulator.network)
    with progress() as bar:
        task = bar.add_task(Path(source).name, total=None)
        result = simulator.run(
            frames,
            preparation.time_steps,
            source,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    return document.sample_document(source, simulator.network, result)
