"""``eventsim evaluate``: accuracy and operations over a data set."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Timer
from typing import Any

import eventsim
from eventsim.accounting.energy import EnergyModel, choose, fitting
from eventsim.cli.arguments import (
    Arguments,
    add_energy_option,
    add_input_options,
    add_model,
    add_wide,
    at_least_one,
    file_to_write,
    preparation_of,
)
from eventsim.cli.printing import complain, console, print_json, progress
from eventsim.cli.words import in_flags
from eventsim.datasets import (
    ArrayReference,
    Evaluation,
    Outcome,
    RowsFile,
    Sample,
    evaluate,
    labelled_by,
    labelled_files,
    labelled_tonic,
    part,
)
from eventsim.datasets.label_list import refuse_absent
from eventsim.datasets.running import check_classes
from eventsim.dvs import RecordingPart
from eventsim.dvs.events_array import map_npy
from eventsim.errors import INTERRUPTED, EventsimError, InputError
from eventsim.hashes import sha256
from eventsim.held_interrupts import ending, held_interrupts
from eventsim.modelfile import load
from eventsim.preparation import Preparation
from eventsim.report import tables
from eventsim.report.evaluation import evaluation_document
from eventsim.report.evaluation_tables import alike, print_evaluation
from eventsim.report.provenance import prepared, provenance
from eventsim.simulator import Simulator
from eventsim.untrusted import printable

SILENCE_S = 5.0
"""How long nothing is said while a scheduler does not answer, or files are compared with their rows."""
CLASSES_SAID = 20
"""Names of classes that are said with their numbers."""


def add(parser: argparse.ArgumentParser) -> None:
    """Say the arguments of ``evaluate``."""
    parser.set_defaults(command=measure)
    add_model(parser)
    parser.add_argument(
        "dataset",
        metavar="DATASET",
        help="FOLDER, with a folder for each label, or tonic:NAME; with --labels a folder, a recording or FRAMES.npy",
    )
    parser.add_argument("--root", metavar="DIR", help="where a tonic data set lies on disk")
    parser.add_argument("--split", choices=("train", "test"), help="part of a tonic data set that is divided")
    parser.add_argument(
        "--labels",
        metavar="FILE.csv|FOLDER|FILE.npy",
        help="table of classes: label (from 0) or class (from 1), file in a folder, startTime_usec and endTime_usec of "
        "parts of a recording; or a folder of such tables; or one whole number for each entry of FRAMES.npy",
    )
    parser.add_argument("--limit", type=at_least_one, metavar="N", help="N samples, spread evenly over all")
    parser.add_argument("--shard", type=shard, metavar="I/N", help="every N-th sample from the I-th on, as 1/4 to 4/4")
    parser.add_argument(
        "--rows",
        type=file_name,
        metavar="FILE.csv|.jsonl|.parquet",
        help="append one row for each sample as it is done",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the rows that are there")
    parser.add_argument(
        "--threads", metavar="N", type=at_least_one, help="samples simulated at the same time; default: 1"
    )
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS|local",
        help="simulate on a Dask cluster, or on --threads processes here, by default one for each core",
    )
    add_wide(parser)
    add_energy_option(parser)
    add_input_options(parser)


def shard(text: str) -> tuple[int, int]:
    """Read I/N."""
    parts = text.split("/")
    if len(parts) != 2 or not all(each.isdecimal() for each in parts) or not 1 <= int(parts[0]) <= int(parts[1]):
        raise argparse.ArgumentTypeError(f"{text} found, expected I/N with I from 1 to N")
    return int(parts[0]), int(parts[1])


def file_name(text: str) -> Path:
    """Read a name, which an empty one is not: it would be the working directory."""
    if not text:
        raise argparse.ArgumentTypeError("an empty name found, expected FILE.csv, FILE.jsonl or FILE.parquet")
    return file_to_write(text)


def measure(args: Arguments) -> int:
    """Measure accuracy over a data set."""
    if args.resume and args.rows is None:
        raise InputError("--resume without --rows found; expected --rows FILE, whose rows it goes on with")
    if args.cluster not in (None, "local") and args.threads is not None:
        raise InputError(f"--threads {args.threads} with --cluster {args.cluster} found; expected one of them")
    models, shown = choose(args.energy)
    simulator = Simulator(load(args.model), chunk=args.chunk, threads=args.threads or 1)
    facts = {node.name: node.facts for node in simulator.schedule.nodes}
    shown = fitting(models, shown, facts, chosen=bool(args.energy))
    every = _labelled(args)
    samples = part(every, args.limit, args.shard)
    if not samples:
        raise InputError(f"{args.dataset}: no samples in shard {args.shard[0]}/{args.shard[1]} of {len(every)}")
    check_classes(simulator, samples)
    _tell_classes(every)
    preparation = preparation_of(args, simulator.network)
    _check_array(samples, preparation, simulator)
    evaluation = Evaluation()
    rows = None
    if args.rows is not None:
        run = _run(args, every, preparation.of(simulator.network), models)
        rows = RowsFile(args.rows, run, list(models), resume=args.resume)
        with _said_if_long(f"comparing files with the hashes in {args.rows}"):
            done = rows.outcomes(samples, simulator.schedule)
        for outcome in done:
            evaluation.take(outcome)
    kept = len(evaluation.predictions) + len(evaluation.failed)
    if args.labels is not None and args.cluster is None and kept < len(samples):  # workers may see other files
        try:
            refuse_absent(samples, args.labels)
        except InputError:
            if rows is not None:
                rows.finish(complete=False)  # as it was
            raise
    compile_s = simulator.warm_up(many=True)
    code = _simulate(args, simulator, samples, preparation, models, evaluation, rows)
    if rows is not None:
        complete = len(evaluation.predictions) + len(evaluation.failed) == len(samples)
        try:
            rows.finish(complete=complete)
        except InputError as error:
            complain(error)
            code = code or 2
    noted = preparation.noted(simulator.network)
    options = {name: getattr(args, name) for name in ("chunk", "dataset", "split", "energy", "labels", "limit")}
    options |= {"threads": simulator.threads, "shard": None if args.shard is None else "/".join(map(str, args.shard))}
    options |= {"cluster": args.cluster, "rows": None if args.rows is None else str(args.rows), "resumed": kept or None}
    whence = provenance(args.model, simulator.network, preparation, options)
    description = evaluation_document(args.model, noted, whence, compile_s, evaluation, models)
    for failure in alike(description["failed"]):
        complain(failure)
    for sentence in evaluation.defects.sentences():
        complain(sentence)
    _tell_time_steps(evaluation, preparation, simulator)
    if args.json:
        print_json(description)
    else:
        print_evaluation(console(), description, shown, args.wide)
        tables.print_assumed(console(), simulator.network)
    if evaluation.unsound:
        complain(f"NaN or infinite logits found in {evaluation.unsound} samples; their predictions mean nothing")
    if code == INTERRUPTED:
        complain(f"interrupted after {evaluation.samples + len(evaluation.failed)} of {len(samples)} samples")
    return code or (1 if evaluation.failed else 0)


def _simulate(
    args: Arguments,
    simulator: Simulator,
    samples: Sequence[Sample],
    preparation: Preparation,
    models: Mapping[str, EnergyModel],
    evaluation: Evaluation,
    rows: RowsFile | None,
) -> int:
    """Take the samples that are not among the rows yet; return the code to exit with, 0 or why it stopped."""
    done = {each.place for each in evaluation.predictions} | {each.place for each in evaluation.failed}
    rest = [sample for sample in samples if sample.index not in done]
    if not rest:
        ending()
        return 0
    with progress() as bar:
        task = bar.add_task("evaluate", total=len(samples), completed=len(done))
        try:
            with _client(args) as options, closing(evaluate(simulator, rest, preparation, models, **options)) as found:
                for outcome in map(_in_flags, found):
                    with held_interrupts():
                        evaluation.take(outcome)
                        if rows is not None:
                            rows.append(outcome)
                    bar.update(task, advance=1, description=f"evaluate, accuracy {evaluation.accuracy:.1%}")
            ending()
        except KeyboardInterrupt:  # what was computed is still printed
            ending()
            return INTERRUPTED
        except EventsimError as error:  # a full disk, a scheduler that is lost: what was computed is printed
            taken = len(evaluation.predictions) + len(evaluation.failed)
            if not taken:
                raise
            ending()
            said = [str(error)]
            if taken < len(samples):
                said.append(f"results are those of {taken:,} of {len(samples):,} samples")
            if rows is not None and not isinstance(error, InputError):
                said.append(f"--resume goes on with the rows in {args.rows}")
            complain("; ".join(said))
            return 2 if isinstance(error, InputError) else 1
    return 0


def _check_array(samples: Sequence[Sample], preparation: Preparation, simulator: Simulator) -> None:
    """Refuse at once, by its name, an array whose entries cannot be taken with the flags that were given."""
    at = samples[0].reference
    if isinstance(at, ArrayReference) and preparation.columns is None:  # else each is a list of events
        preparation.of_array(map_npy(at.path)[at.index], simulator.network, at.path)


def _tell_classes(samples: Sequence[Sample]) -> None:
    """Say which number each class has that has a name: the network knows numbers alone, maybe in another order."""
    names = {sample.label: sample.class_name for sample in samples if sample.class_name is not None}
    if names:
        said = [f"{label} {printable(name)}" for label, name in sorted(names.items())]
        more = f" and {len(said) - CLASSES_SAID} more" if len(said) > CLASSES_SAID else ""
        complain(
            f"classes with names are numbered in sorted order: {', '.join(said[:CLASSES_SAID])}{more}; where the "
            "network was trained with others, name folders or labels by their numbers"
        )


def _tell_time_steps(evaluation: Evaluation, preparation: Preparation, simulator: Simulator) -> None:
    """Say how many samples have other time steps than the model; flags that say so were told about before."""
    model = simulator.network.time_steps
    others = {steps: samples for steps, samples in sorted(evaluation.frames_given.items()) if steps != model}
    if model is not None and preparation.time_steps is None and others:
        found = ", ".join(f"{steps} ({samples:,} samples)" for steps, samples in others.items())
        complain(
            f"{sum(others.values()):,} of {evaluation.samples:,} samples have other time steps than the model says, "
            f"time_steps = {model}: {found}"
        )


def _in_flags(outcome: Outcome) -> Outcome:
    """Return an outcome whose error names options as they are said here."""
    return outcome if outcome.error is None else replace(outcome, error=in_flags(outcome.error))


def _labelled(args: Arguments) -> list[Sample]:
    if args.dataset == "-":
        raise InputError("-: standard input found, expected a data set; only run takes it: save recordings to files")
    if args.dataset.startswith("tonic:"):
        if args.labels is not None:
            raise InputError(f"--labels {args.labels} with a tonic data set found; expected none, Tonic tells them")
        if args.root is None:
            raise InputError(f"{args.dataset}: no --root found; expected the folder that holds the data set")
        return labelled_tonic(args.dataset.removeprefix("tonic:"), args.root, args.split)
    for name in ("root", "split"):
        if getattr(args, name) is not None:
            raise InputError(f"{args.dataset}: --{name} found; expected it with tonic:NAME alone")
    if args.labels is None:
        if Path(args.dataset).suffix.lower() == ".npy":
            raise InputError(f"{args.dataset}: no --labels found; expected LABELS.npy, one for each sample")
        if Path(args.dataset).is_file():
            raise InputError(f"{args.dataset}: no --labels found with a file; expected FILE.csv, a table of its parts")
        return labelled_files(args.dataset, tell=complain)
    samples = labelled_by(args.dataset, args.labels)
    timed = any(isinstance(sample.reference, RecordingPart) for sample in samples)
    if timed and (args.start is not None or args.end is not None):
        raise InputError(f"--labels {args.labels} with --start or --end found; expected the times of the table alone")
    return samples


def _run(
    args: Arguments, samples: Sequence[Sample], preparation: Preparation, models: Mapping[str, EnergyModel]
) -> dict[str, Any]:
    """Return what rows are of: what changes them is in here, and which part of the samples they are of is not."""
    listed = json.dumps([(sample.name, sample.label, *_times(sample)) for sample in samples])
    files = [each for each in args.energy if each.lower().endswith(".toml")]
    return {
        "eventsim": eventsim.__version__,
        "model_sha256": sha256(args.model),
        "dataset": args.dataset,
        "split": args.split,
        "samples": len(samples),
        "samples_sha256": hashlib.sha256(listed.encode()).hexdigest(),
        "preparation": prepared(preparation),
        "energy_files_sha256": [sha256(each) for each in files],
        "chunk": args.chunk,
        "threads": args.threads or 1,
        "cluster": args.cluster is not None,
    }


def _times(sample: Sample) -> tuple[int, ...]:
    at = sample.reference
    return (at.start_us, at.end_us) if isinstance(at, RecordingPart) else ()


@contextmanager
def _client(args: Arguments) -> Iterator[dict[str, Any]]:
    """Yield the client that `evaluate` takes, where a cluster was asked for."""
    if args.cluster is None:
        yield {}
        return
    try:
        from eventsim.datasets.cluster import connected  # noqa: PLC0415 - for --cluster alone
    except ImportError:
        raise InputError(
            "--cluster: distributed not found; expected it for clusters: pip install 'eventsim[cluster]'"
        ) from None
    with ExitStack() as stack:
        with _said_if_long(f"waiting for the cluster {args.cluster}"):
            client = stack.enter_context(connected(args.cluster, args.threads or len(os.sched_getaffinity(0))))
        yield {"client": client}


@contextmanager
def _said_if_long(sentence: str) -> Iterator[None]:
    """Say what is done where it takes long."""
    timer = Timer(SILENCE_S, complain, [sentence])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
