"""The command line: parse, call, print."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import eventsim
from eventsim import dvs
from eventsim.datasets import Evaluation, Sample, evaluate, labelled_files, labelled_tonic
from eventsim.errors import EventsimError, InputError
from eventsim.exporting import to_nir
from eventsim.from_module import import_with_module
from eventsim.importing import formats, import_checkpoint, refuse_assumptions
from eventsim.modelfile import load, save
from eventsim.network import Network
from eventsim.plugins import PluginWarning
from eventsim.preparation import ORIENTATION, Preparation, numbers_of, size_of
from eventsim.report import document, tables
from eventsim.report.rows import write_rows
from eventsim.simulator import Simulator
from eventsim.verify_command import Door, verify_inputs

Arguments = argparse.Namespace
INTERRUPTED = 130
YES_OR_NO = argparse.BooleanOptionalAction


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with 2 and one line that says where help is."""
        self.exit(2, f"eventsim: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 (ok), 1 (the work failed), 2 (wrong usage or bad input) or 130 (interrupted)."""
    args = _parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        warnings.simplefilter("ignore")  # what is to be said is said in words of this door
        warnings.simplefilter("always", PluginWarning)
        return _run_command(args)


def _run_command(args: Arguments) -> int:
    try:
        return int(args.command(args))
    except EventsimError as error:
        return _fail(args, error, 2 if isinstance(error, InputError) else 1)
    except MemoryError:
        return _fail(args, "not enough memory; use a smaller --chunk, fewer --threads or fewer --time-steps", 1)
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        return _fail(args, "interrupted", INTERRUPTED)


def _fail(args: Arguments, error: object, code: int) -> int:
    """Say in one line why a command failed as a whole; a machine gets its document all the same."""
    _complain(error)
    if args.json:
        _print_json(document.error_document(" ".join(str(error).split())))
    return code


def _complain(error: object) -> None:
    print("eventsim:", " ".join(str(error).split()), file=sys.stderr)


def _show_warning(message: Warning | str, *_: Any) -> None:
    _complain(message)


def _demo(args: Arguments) -> int:
    """Import the shipped checkpoint, simulate the shipped recording."""
    with resources.as_file(resources.files("eventsim") / "demo") as folder:
        checkpoint = folder / "digits.safetensors"
        recording = min(folder.glob("digit_*.bin"))
        label = int(recording.stem.rpartition("_")[2])
        network = import_checkpoint(checkpoint)
        simulator = Simulator(network)
        compile_s = simulator.warm_up()
        sample = {**_simulate(simulator, Preparation(), str(recording)), "input": recording.name, "label": label}
    if args.json:
        _print_json(document.run_document(checkpoint.name, network, compile_s, [sample], []))
        return 0
    console = _console()
    console.print(
        f"{network.name} ({network.parameters:,} parameters, {checkpoint.name}) sees {recording.name}, "
        "a handwritten digit before a simulated event camera\n",
        soft_wrap=True,
    )
    tables.print_sample(console, sample, detail=True)
    console.print(f"label      {label}\ncompiled kernels in {compile_s:.1f} s (once; later runs load them)")
    return 0


def _formats(args: Arguments) -> int:
    """List the checkpoint and event-file formats."""
    checkpoints = {name: importer.description for name, importer in formats().items()}
    readable = dvs.event_formats().items()
    events = {name: f"{entry.description} ({' '.join(entry.extensions)})" for name, entry in readable}
    if args.json:
        _print_json({"schema": document.SCHEMA, "checkpoints": checkpoints, "events": events})
        return 0
    console = _console()
    for heading, entries in (("checkpoints", checkpoints), ("event files", events)):
        console.print(heading, style="bold")
        for name, description in entries.items():
            console.print(f"  {name:14s} {description}", markup=False, soft_wrap=True)
    return 0


def _import(args: Arguments) -> int:
    """Import a checkpoint into a model file."""
    given = [_key_value(text) for text in args.set]
    options = dict(given)
    if len(options) < len(given):
        twice = next(key for key, _ in given if sum(key == other for other, _ in given) > 1)
        raise InputError(f"--set {twice} given more than once; expected one value")
    if args.ignore:
        options["ignore"] = ",".join(filter(None, (options.get("ignore"), *args.ignore)))
    _check_output(args.output, args.checkpoint)
    if args.module is None:
        if args.example or args.example_steps:
            raise InputError("--example without --module found; expected --module package.module:function with it")
        network = import_checkpoint(args.checkpoint, args.format, assume=not args.strict, **options)
    else:
        network = _import_module(args, options)
    save(network, args.output)
    description = document.network_document(args.output, network)
    if args.json:
        _print_json(description)
        return 0
    console = _console()
    counted = tables.parameters(description)
    console.print(f"recognised {network.name}: {len(network.layers)} layers, parameters: {counted}", markup=False)
    tables.print_settings(console, description)
    console.print(f"wrote {args.output}", markup=False)
    return 0


def _import_module(args: Arguments, options: dict[str, str]) -> Network:
    """Import the weights of a module that the user's own code makes."""
    if args.format is not None:
        raise InputError(f"--format {args.format} beside --module found; expected one of them")
    if not args.example:
        raise InputError("--module without --example found; expected the shape of a time step, as --example 3x32x32")
    network = import_with_module(args.checkpoint, args.module, args.example, args.example_steps, **options)
    if args.strict:
        refuse_assumptions(args.checkpoint, network)
    return network


def _check_output(output: str, source: str) -> None:
    """Refuse to write over what is read."""
    if Path(output).exists() and Path(source).exists() and Path(output).samefile(source):
        raise InputError(f"{output}: -o names the file that is read; expected another name")


def _key_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InputError(f"--set {text} found; expected key=value")
    if key in ("path", "format", "assume"):
        raise InputError(f"--set {text} found; expected an option of the format; --format and --strict say the rest")
    return key, value


def _info(args: Arguments) -> int:
    """Describe a model file."""
    description = document.network_document(args.model, load(args.model))
    if args.json:
        _print_json(description)
    else:
        tables.print_network(_console(), description)
    return 0


def _export(args: Arguments) -> int:
    """Write a model file as a NIR graph."""
    _check_output(args.output, args.model)
    network = load(args.model)
    to_nir(network, args.output)
    if args.json:
        _print_json(document.network_document(args.model, network))
    else:
        _console().print(f"wrote {args.output}: {network.name}, {len(network.layers)} layers", markup=False)
    return 0


def _run(args: Arguments) -> int:
    """Simulate recordings and print predictions (run), or every layer's counts (profile)."""
    simulator = Simulator(load(args.model), chunk=args.chunk)
    preparation = _preparation(args, simulator.network)
    compile_s = simulator.warm_up()
    samples: list[dict[str, Any]] = []
    failed: list[tuple[str, str]] = []
    for source in args.inputs:
        try:
            samples.append(_simulate(simulator, preparation, source))
        except InputError as error:  # the others are still simulated
            failed.append((source, str(error)))
            _complain(error)
            continue
        if not args.json:
            tables.print_sample(_console(), samples[-1], detail=args.detail)
    if args.rows is not None:
        try:
            write_rows(args.rows, samples)
        except InputError as error:  # what was computed is still printed
            failed.append((str(args.rows), str(error)))
            _complain(error)
    if args.json:
        noted = preparation.noted(simulator.network)
        _print_json(document.run_document(args.model, noted, compile_s, samples, failed))
    elif samples:
        tables.print_assumed(_console(), simulator.network)
    return 2 if failed else 0


def _simulate(simulator: Simulator, preparation: Preparation, source: str) -> dict[str, Any]:
    frames = preparation.frames(source, simulator.network)
    with _progress() as progress:
        task = progress.add_task(Path(source).name, total=None)
        result = simulator.run(
            frames,
            preparation.time_steps,
            source,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    return document.sample_document(source, simulator.network, result)


def _verify(args: Arguments) -> int:
    """Compare a network with its dense form, layer by layer."""
    network = load(args.model)
    door = Door(None if args.json else _console(), _progress, _complain, _print_json)
    return verify_inputs(args.model, network, _preparation(args, network), args.inputs, door)


def _evaluate(args: Arguments) -> int:
    """Measure accuracy over a data set."""
    simulator = Simulator(load(args.model), chunk=args.chunk, threads=args.threads)
    samples = _labelled(args)
    preparation = _preparation(args, simulator.network)
    compile_s = simulator.warm_up()
    evaluation = Evaluation()
    interrupted = False
    with _progress() as progress:
        task = progress.add_task("evaluate", total=len(samples))
        try:
            for outcome in evaluate(simulator, samples, preparation):
                evaluation.take(outcome)
                progress.update(task, advance=1, description=f"evaluate, accuracy {evaluation.accuracy:.1%}")
        except KeyboardInterrupt:  # what was computed is still printed
            interrupted = True
    noted = preparation.noted(simulator.network)
    description = document.evaluation_document(args.model, noted, compile_s, evaluation)
    if args.json:
        _print_json(description)
    else:
        tables.print_evaluation(_console(), description)
        tables.print_assumed(_console(), simulator.network)
    if interrupted:
        _complain(f"interrupted after {evaluation.samples + len(evaluation.failed)} of {len(samples)} samples")
        return INTERRUPTED
    return 1 if evaluation.failed else 0


def _labelled(args: Arguments) -> list[Sample]:
    if not args.dataset.startswith("tonic:"):
        return labelled_files(args.dataset)
    if args.root is None:
        raise InputError(f"{args.dataset}: no --root found; expected the folder that holds the data set")
    return labelled_tonic(args.dataset.removeprefix("tonic:"), args.root, args.split)


def _events(args: Arguments) -> int:
    """Describe a recording."""
    recording = _preparation(args).recording(Path(args.file))
    summary = recording.summary()
    description = {"schema": document.SCHEMA, "file": args.file, "format": recording.format, **vars(summary)}
    if args.json:
        _print_json(description)
        return 0
    console = _console()
    for key, value in description.items():
        if key != "schema":
            console.print(f"{key:12s} {value:,}" if isinstance(value, int) else f"{key:12s} {value}", markup=False)
    return 0


def _preparation(args: Arguments, network: Network | None = None) -> Preparation:
    """Return what the flags say; a flag of the orientation leaves the others as the model says."""
    turns = {name: getattr(args, name) for name in ORIENTATION}
    orientation = None
    if any(value is not None for value in turns.values()):
        model = (Preparation() if network is None else Preparation().of(network)).orientation or dvs.Orientation()
        orientation = replace(model, **{name: value for name, value in turns.items() if value is not None})
    preparation = Preparation(
        time_steps=getattr(args, "time_steps", None),
        window=getattr(args, "window", None),
        bin_us=getattr(args, "bin_us", None),
        binary=getattr(args, "binary", None),
        fit=getattr(args, "fit", None),
        sensor_size=args.sensor,
        camera=args.camera,
        orientation=orientation,
        mean=getattr(args, "mean", None),
        std=getattr(args, "std", None),
    )
    if network is not None:
        for sentence in preparation.overridden(network):
            _complain(sentence)
    return preparation


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else 180)


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _print_json(description: dict[str, Any]) -> None:
    print(json.dumps(description, indent=1, allow_nan=False))


def _at_least_one(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} found, expected a whole number of at least 1")
    return value


def _csv_name(text: str) -> Path:
    if Path(text).suffix != ".csv":
        raise argparse.ArgumentTypeError(f"{text} found, expected a name that ends in .csv")
    return Path(text)


def _size(text: str) -> tuple[int, int]:
    try:
        return size_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} found, expected {error}") from None


def _shape(text: str) -> tuple[int, ...]:
    parts = text.lower().split("x")
    if not 1 <= len(parts) <= 3 or not all(part.isdecimal() and 0 < int(part) < 1 << 31 for part in parts):
        raise argparse.ArgumentTypeError(f"{text} found, expected a shape such as 3x32x32")
    return tuple(map(int, parts))


def _floats(text: str) -> tuple[float, ...]:
    try:
        return numbers_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} found, expected {error}") from None


def _parser() -> Parser:
    parser = Parser(prog="eventsim", description="Event-driven simulator for spiking transformers.")
    parser.add_argument("--version", action="version", version=f"eventsim {eventsim.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, function: Any, help_text: str) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = commands.add_parser(name, help=help_text, description=help_text)
        sub.set_defaults(command=function)
        sub.add_argument("--json", action="store_true", help="print one JSON document")
        return sub

    command("demo", _demo, "run what the package ships: a trained checkpoint sees a recording")
    command("formats", _formats, "list the checkpoint and event-file formats")

    importing = command("import", _import, "import a trained checkpoint")
    importing.add_argument("checkpoint", metavar="CHECKPOINT")
    importing.add_argument("-o", "--output", metavar="MODEL.h5", required=True)
    importing.add_argument("--format", metavar="NAME", help="see eventsim formats; default: recognised by its keys")
    importing.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="an option of the format")
    importing.add_argument(
        "--ignore",
        metavar="PATTERN",
        action="append",
        default=[],
        help="tensors that enter no forward pass, such as 'criterion.*'; may repeat",
    )
    importing.add_argument(
        "--module", metavar="PACKAGE.MODULE:FUNCTION", help="code of yours that makes the network, in place of a format"
    )
    importing.add_argument("--example", type=_shape, metavar="CxHxW", help="shape of a time step that it takes")
    importing.add_argument("--example-steps", type=_at_least_one, metavar="T", help="frames instead of an image")
    importing.add_argument("--strict", action="store_true", help="refuse a network of which any value is assumed")

    info = command("info", _info, "show layers, shapes, parameters and dense MACs per step")
    info.add_argument("model", metavar="MODEL.h5")

    export = command("export", _export, "write a network as a NIR graph, where every layer has a node there")
    export.add_argument("model", metavar="MODEL.h5")
    export.add_argument("-o", "--output", metavar="FILE.nir", required=True)

    for name, detail, help_text in (
        ("run", False, "simulate recordings, frames or images; print predictions"),
        ("profile", True, "the same, with counts, density and time of every layer"),
    ):
        run = command(name, _run, help_text)
        run.set_defaults(detail=detail)
        run.add_argument("model", metavar="MODEL.h5")
        run.add_argument("inputs", metavar="INPUT", nargs="+")
        run.add_argument("--rows", type=_csv_name, metavar="FILE.csv", help="write one row for each input and layer")
        _add_input_options(run)

    verifying = command("verify", _verify, "compare every layer with its dense form on recordings, frames or images")
    verifying.add_argument("model", metavar="MODEL.h5")
    verifying.add_argument("inputs", metavar="INPUT", nargs="+")
    _add_frame_options(verifying)

    evaluating = command("evaluate", _evaluate, "accuracy, latency and counts over FOLDER/<label>/* or tonic:NAME")
    evaluating.add_argument("model", metavar="MODEL.h5")
    evaluating.add_argument("dataset", metavar="DATASET")
    evaluating.add_argument("--root", metavar="DIR", help="where a tonic data set lies on disk")
    evaluating.add_argument("--split", choices=("train", "test"), help="part of a tonic data set that is divided")
    evaluating.add_argument("--threads", type=_at_least_one, default=1, help="samples simulated at the same time")
    _add_input_options(evaluating)

    events = command("events", _events, "show what a recording holds")
    events.add_argument("file", metavar="FILE")
    _add_recording_options(events)
    return parser


def _add_input_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--chunk", type=_at_least_one, help="time steps per pass; 1 is clock-stepped, default all")
    _add_frame_options(parser)


def _add_frame_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--time-steps", type=_at_least_one, metavar="T", help="default: the model's")
    parser.add_argument(
        "--window",
        choices=("count", "time"),
        help="T frames of equally many events, or equal time; default: the model's",
    )
    parser.add_argument("--bin-us", type=_at_least_one, metavar="US", help="bins of fixed duration instead")
    parser.add_argument("--binary", action=YES_OR_NO, help="clip event counts to 1; default: the model's")
    parser.add_argument(
        "--fit", choices=("none", "crop", "pad", "downscale"), help="to the model; default: the model's"
    )
    parser.add_argument("--mean", type=_floats, metavar="R,G,B", help="image normalisation; default: the model's")
    parser.add_argument("--std", type=_floats, metavar="R,G,B", help="image normalisation; default: the model's")
    _add_recording_options(parser)


def _add_recording_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sensor", type=_size, metavar="WxH", help="sensor size, for formats that do not tell")
    parser.add_argument("--camera", choices=("dvs128", "davis"), help="address layout of AEDAT 2.0")
    for name in ("flip-x", "flip-y", "transpose", "flip-polarity"):
        parser.add_argument(f"--{name}", action=YES_OR_NO, help="orientation of the events; default: the model's")
