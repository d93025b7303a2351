"""``eventsim run`` and ``eventsim profile``: predictions, and what every layer executed."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from eventsim.accounting.energy import EnergyModel, choose, energies, fitting
from eventsim.attention_maps import AttentionMaps
from eventsim.cli.arguments import (
    Arguments,
    add_energy_option,
    add_input_options,
    add_inputs,
    add_model,
    add_wide,
    at_least_one,
    csv_name,
    html_name,
    layer_names,
    npz_name,
    preparation_of,
    zero_or_more,
)
from eventsim.cli.attempts import Attempts
from eventsim.cli.inputs import STANDARD_INPUT, add_batch_option, file_of, sources, tell_defects, tell_time_steps
from eventsim.cli.printing import complain, console, print_json, progress
from eventsim.dvs import Defects
from eventsim.errors import InputError
from eventsim.hashes import sha256
from eventsim.modelfile import load
from eventsim.network import Network
from eventsim.preparation import Preparation, Source
from eventsim.report import document, tables
from eventsim.report.latency import latency_document
from eventsim.report.provenance import provenance
from eventsim.report.recorded import write_recorded
from eventsim.report.rows import write_rows
from eventsim.result import Result
from eventsim.simulator import Simulator
from eventsim.stopwatch import Stopwatch


def add_run(parser: argparse.ArgumentParser) -> None:
    """Say the arguments of ``run``."""
    parser.set_defaults(command=simulate, detail=False, report=None, verify=False, maps=False)
    _add(parser, "; or - alone: events from standard input as they come, a line for every bin of --bin-us")
    parser.add_argument(
        "--restart-every",
        type=zero_or_more,
        metavar="N",
        help="with -: bins of a sample, the next one begins a new one; 0: never; default: the model's time steps",
    )


def add_profile(parser: argparse.ArgumentParser) -> None:
    """Say the arguments of ``profile``."""
    parser.set_defaults(command=simulate, detail=True, restart_every=None)
    _add(parser)
    parser.add_argument("--maps", action="store_true", help="count the attention maps of plain spiking attention, too")
    parser.add_argument("--verify", action="store_true", help="compare with the dense form, too; 1 where it differs")
    parser.add_argument(
        "--report", type=html_name, metavar="FILE.html", help="write everything as a page, of one input"
    )


def _add(parser: argparse.ArgumentParser, more: str = "") -> None:
    """Say the arguments of ``run`` and ``profile``; `more` of the inputs."""
    add_model(parser)
    add_inputs(parser, more)
    add_batch_option(parser)
    parser.add_argument("--rows", type=csv_name, metavar="FILE.csv", help="write one row for each input and layer")
    says = "what papers and tools would have counted, and why"
    parser.add_argument("--conventions", action="store_true", help=says)
    add_wide(parser, "every operation and column in the tables of profile, also where the terminal is narrower")
    parser.add_argument(
        "--record", type=layer_names, metavar="LAYER,...", help="layers whose spikes and potentials -o takes"
    )
    parser.add_argument("-o", "--output", type=npz_name, metavar="FILE.npz", help="where --record writes")
    parser.add_argument(
        "--threads",
        metavar="N",
        type=at_least_one,
        default=1,
        help="threads that share the work of every large layer; default: 1",
    )
    add_energy_option(parser)
    add_input_options(parser)


def simulate(args: Arguments) -> int:
    """Simulate recordings and print predictions (run), or every layer's counts (profile)."""
    if STANDARD_INPUT in args.inputs and not args.detail:
        from eventsim.cli.commands.live import follow  # noqa: PLC0415 - most commands read files

        return follow(args)
    if args.restart_every is not None:
        raise InputError(f"--restart-every {args.restart_every} found; expected it with - alone, standard input")
    models, shown = choose(args.energy)
    began = time.perf_counter()
    simulator = _simulator(args)
    facts = {node.name: node.facts for node in simulator.schedule.nodes}
    shown = fitting(models, shown, facts, chosen=bool(args.energy))
    load_s = time.perf_counter() - began
    preparation = preparation_of(args, simulator.network)
    tried = Attempts()
    found = sources(args.inputs, args.batch, tried, simulator.network)
    compile_s = simulator.warm_up(many=len(found) > 1)
    samples: list[dict[str, Any]] = []

    def whole() -> dict[str, Any]:
        options = {name: getattr(args, name) for name in ("chunk", "threads", "record", "energy")}
        options |= {name: True for name in ("maps", "verify") if getattr(args, name)}
        whence = provenance(args.model, simulator.network, preparation, options)
        noted = preparation.noted(simulator.network)
        return document.run_document(args.model, noted, whence, load_s, compile_s, samples, tried.failed)

    def take(name: str) -> None:
        source = found[name]
        result, sample = simulated(simulator, preparation, name, models, source=source)
        samples.append(sample)
        if not np.isfinite(result.logits).all():
            complain(f"{name}: NaN or infinite logits found; the prediction means nothing")
        if not args.json:
            extra = {"wide": args.wide, "conventions": args.conventions, "energies": shown}
            tables.print_sample(console(), sample, detail=args.detail, **extra)
        if args.output is not None:
            tried.attempt(str(args.output), lambda: write_recorded(args.output, result))
        if args.verify:
            tried.attempt(name, lambda: _verify(simulator.network, preparation, name, source, sample))
            if not args.json and "verification" in sample:
                console().print(f"verify: {sample['verification']['verdict']}", markup=False, soft_wrap=True)
        if args.report is not None:
            from eventsim.report.html.page import write_report  # noqa: PLC0415 - other commands need no templates
            from eventsim.report.html.watching import watch  # noqa: PLC0415

            frames = preparation.frames(source, simulator.network)
            priced = energies(result.profile, models)
            page = args.report, whole(), sample, priced
            seen = partial(watch, simulator.network, frames, result, name=name)
            tried.attempt(str(args.report), lambda: write_report(*page, seen(), shown=shown))

    tried.each(list(found) if args.batch else args.inputs, take)
    if args.rows is not None:
        tried.attempt(str(args.rows), lambda: write_rows(args.rows, samples))
    if args.json:
        print_json(whole())
    elif samples:
        tables.print_assumed(console(), simulator.network)
    differs = any(not sample["verification"]["holds"] for sample in samples if "verification" in sample)
    return tried.code or int(differs)


def _simulator(args: Arguments) -> Simulator:
    """Return what simulates the model, and records where that is asked for."""
    if args.report is not None and len(args.inputs) > 1:
        raise InputError(f"{args.report}: {len(args.inputs)} inputs with --report found; expected one")
    if args.batch and (args.report is not None or args.record is not None):
        raise InputError("--batch with --report or --record found; expected one input, a sample in a file of its own")
    network = load(args.model)
    observers = [AttentionMaps(network)] if args.maps else []
    if args.record is None and args.output is None:
        return Simulator(network, chunk=args.chunk, threads=args.threads, observers=observers)
    if args.record is None or args.output is None:
        raise InputError("one of --record and -o found; expected both, --record LAYER,... -o FILE.npz")
    if len(args.inputs) > 1:
        raise InputError(f"{args.output}: {len(args.inputs)} inputs with --record found; expected one")
    neurons = [name for name in args.record if name in network.layers and _has_potential(network, name)]
    return Simulator(
        network, chunk=args.chunk, threads=args.threads, record=args.record, potentials=neurons, observers=observers
    )


def _verify(network: Network, preparation: Preparation, name: str, source: Source, sample: dict[str, Any]) -> None:
    """Add to the document of an input what its dense form says."""
    from eventsim.cli.commands.verifying import verified  # noqa: PLC0415 - needs the dense forms, few ask for them

    sample["verification"] = verified(network, preparation, name, source).to_dict()


def _has_potential(network: Network, name: str) -> bool:
    return network.layers[name].neurons(*network.input_types(name)) > 0


def simulated(
    simulator: Simulator,
    preparation: Preparation,
    name: str,
    models: Mapping[str, EnergyModel] | None = None,
    label: int | None = None,
    source: Source | None = None,
) -> tuple[Result, dict[str, Any]]:
    """Return the result of one input, and its document.

    `label` is the right class, where it is known, and `source` what stands behind the name, where that is no file.
    """
    reading = Stopwatch()
    defects = Defects()
    source = name if source is None else source
    with reading:
        frames = preparation.frames(source, simulator.network, defects)
    if isinstance(frames, Iterator):
        frames = reading.timed(frames)
    before = reading.seconds
    running = Stopwatch()
    with progress() as bar, running:
        task = bar.add_task(Path(name).name, total=None)
        result = simulator.run(
            frames,
            preparation.time_steps,
            name,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    prepared_s = max(0.0, running.seconds - result.latency_s - (reading.seconds - before))
    whole = preparation.of(simulator.network)
    bin_us = None if whole.bin_us is None else whole.bin_us - (whole.overlap or 0)  # from one bin to the next
    tell_time_steps(result.time_steps, preparation, simulator.network, name)
    tell_defects(defects, name)
    return result, {
        **document.sample_document(name, simulator.network, result, models),
        "input_sha256": sha256(file_of(name, source)),
        **({"recording": defects.to_dict()} if defects.events else {}),
        "latency": latency_document(result, reading.seconds, prepared_s, bin_us, label),
    }
