"""``eventsim evaluate``: accuracy and operations over a data set."""

from __future__ import annotations

import argparse

from eventsim.accounting.energy import choose
from eventsim.cli.arguments import Arguments, add_energy_option, add_input_options, at_least_one, preparation_of
from eventsim.cli.printing import complain, console, print_json, progress
from eventsim.cli.words import in_flags
from eventsim.datasets import Evaluation, Sample, evaluate, labelled_files, labelled_parts, labelled_tonic
from eventsim.dvs.defects import DefectsOfMany
from eventsim.errors import INTERRUPTED, InputError
from eventsim.modelfile import load
from eventsim.report import document, tables
from eventsim.report.provenance import provenance
from eventsim.simulator import Simulator


def add(parser: argparse.ArgumentParser) -> None:
    """Say the arguments of ``evaluate``."""
    parser.add_argument("model", metavar="MODEL.h5")
    parser.add_argument("dataset", metavar="DATASET")
    parser.add_argument("--root", metavar="DIR", help="where a tonic data set lies on disk")
    parser.add_argument(
        "--labels",
        metavar="FILE.csv",
        help="table of classes in DATASET, a recording or a folder: label or class, startTime_usec, endTime_usec, file",
    )
    parser.add_argument("--split", choices=("train", "test"), help="part of a tonic data set that is divided")
    parser.add_argument("--threads", type=at_least_one, default=1, help="samples simulated at the same time")
    add_energy_option(parser)
    add_input_options(parser)


def measure(args: Arguments) -> int:
    """Measure accuracy over a data set."""
    models, shown = choose(args.energy)
    simulator = Simulator(load(args.model), chunk=args.chunk, threads=args.threads)
    samples = _labelled(args)
    preparation = preparation_of(args, simulator.network)
    compile_s = simulator.warm_up()
    evaluation = Evaluation()
    met = DefectsOfMany()
    interrupted = False
    with progress() as bar:
        task = bar.add_task("evaluate", total=len(samples))
        try:
            for outcome in evaluate(simulator, samples, preparation, models):
                evaluation.take(outcome)
                met.take(outcome.sample.name, outcome.defects)
                bar.update(task, advance=1, description=f"evaluate, accuracy {evaluation.accuracy:.1%}")
        except KeyboardInterrupt:  # what was computed is still printed
            interrupted = True
    evaluation.failed = [(name, in_flags(error)) for name, error in evaluation.failed]
    noted = preparation.noted(simulator.network)
    options = {
        "chunk": args.chunk,
        "threads": args.threads,
        "dataset": args.dataset,
        "split": args.split,
        "labels": args.labels,
        "energy": args.energy,
    }
    whence = provenance(args.model, simulator.network, preparation, options)
    description = document.evaluation_document(args.model, noted, whence, compile_s, evaluation, models)
    description["recordings"] = met.to_dict()
    for sentence in met.sentences():
        complain(sentence)
    if args.json:
        print_json(description)
    else:
        tables.print_evaluation(console(), description, shown)
        tables.print_assumed(console(), simulator.network)
    if interrupted:
        complain(f"interrupted after {evaluation.samples + len(evaluation.failed)} of {len(samples)} samples")
        return INTERRUPTED
    return 1 if evaluation.failed else 0


def _labelled(args: Arguments) -> list[Sample]:
    if args.labels is not None:
        if args.root is not None or args.split is not None or args.dataset.startswith("tonic:"):
            raise InputError(f"--labels {args.labels} with a tonic data set found; expected a recording or a folder")
        if args.start is not None or args.end is not None:
            raise InputError(
                f"--labels {args.labels} with --start or --end found; expected the times of the table alone"
            )
        return labelled_parts(args.dataset, args.labels)
    if not args.dataset.startswith("tonic:"):
        return labelled_files(args.dataset)
    if args.root is None:
        raise InputError(f"{args.dataset}: no --root found; expected the folder that holds the data set")
    return labelled_tonic(args.dataset.removeprefix("tonic:"), args.root, args.split)
