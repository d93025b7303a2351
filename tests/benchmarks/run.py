"""The benchmark suite: eventsim beside dense engines on the same networks and inputs, in one run, one thread each.

Run: ``python tests/benchmarks/run.py``, or ``nox -s bench``; ``--quick`` takes minutes. docs/benchmarks.md says what is
compared.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import machine

machine.hold_to_one_thread()  # before anything that reads it is imported

import history  # noqa: E402
import tables  # noqa: E402
import w4_nmnist  # noqa: E402
from measure import Engine, Workload, measure  # noqa: E402

HISTORY = machine.ROOT / "benchmark_history"
BATCHES = (1, 16)
ROUNDS = 5
SLOW = ("w3",)
"""Left out of `--quick` unless named."""
SECTIONS = {"ceilings": "ceilings", "linearity": "linearity", "start": "start_up", "memory": "memory"}
"""Modules with a `section`, which yields a line, a name and numbers."""
WORKLOADS = {"w0": "w0_layers", "w1": "w1_cifar", "w2": "w2_gesture", "w3": "w3_imagenet", "w4": "w4_nmnist"}
"""Modules with `workloads`. All of these take `--quick` as it was given, the last one the folder of N-MNIST too."""


def engines() -> list[Engine]:
    """Return every engine, ours first."""
    import engine_eventsim
    import engine_onnxruntime
    import engine_openvino
    import engine_pytorch

    files = (engine_eventsim, engine_pytorch, engine_onnxruntime, engine_openvino)
    return [engine for file in files for engine in file.ENGINES]


def compared(
    workload: Workload, options: argparse.Namespace, say: Callable[[str], None], ceiling: float | None
) -> dict[str, Any]:
    """Measure one workload at every batch size; of a layer, also the share of the ceiling, in G additions/s."""
    import engine_eventsim

    chosen = [engine for engine in engines() if wanted(engine.name, options)]
    facts = engine_eventsim.facts(workload) | workload.facts(workload)
    ours = engine_eventsim.ENGINES[0].name
    result: dict[str, Any] = {}
    for batch in options.batches:
        if workload.sizes and batch not in workload.sizes:
            continue
        result[f"batch {batch}"] = measured = measure(workload, batch, chosen, options.rounds)
        measured["facts"] = dict(facts)
        if workload.layer and ours in measured["engines"]:
            measured["facts"]["gsops"] = facts["executed_mops"] / measured["engines"][ours]["median_ms"]
            if ceiling:
                measured["facts"]["of_load_and_add_L2"] = measured["facts"]["gsops"] / ceiling
        for line in tables.comparison(workload.name, measured):
            say(line)
    return result


def wanted(engine: str, options: argparse.Namespace) -> bool:
    """Return whether an engine is timed: all are, but for those left out; compiling takes too long for --quick."""
    without = [*options.without, *(["compiled"] if options.quick else [])]
    return not any(words.lower() in engine.lower() for words in without)


def parsed(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*SECTIONS, *WORKLOADS]
    parser.add_argument("--quick", action="store_true", help="few samples and rounds, batch 1; no torch.compile, no w3")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--without", nargs="+", default=[], metavar="WORD", help="leave out engines of such names")
    parser.add_argument("--batches", nargs="+", type=int, metavar="B", help="default: 1 and 16")
    parser.add_argument("--nmnist", type=Path, metavar="FOLDER", help="holds Train and Test of N-MNIST")
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS}")
    parser.add_argument("--history", type=Path, default=HISTORY, metavar="FOLDER", help="where the JSON file goes")
    parser.add_argument("--compare", action="store_true", help="print ratios to the last run in that folder")
    options = parser.parse_args(words)
    options.only = options.only or [name for name in names if not (options.quick and name in SLOW)]
    options.batches = options.batches or ([1] if options.quick else list(BATCHES))
    options.rounds = options.rounds or (2 if options.quick else ROUNDS)
    return options


def main(words: list[str] | None = None) -> Path:
    """Run what was asked for; return the file that holds it."""
    options = parsed(words)
    before = history.latest(options.history)

    def say(line: str) -> None:
        print(line, flush=True)

    document: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": machine.commit(),
        "machine": machine.described(),
        "options": {"quick": options.quick, "rounds": options.rounds, "batches": options.batches},
        "results": {},
    }
    told = document["machine"]
    say(
        f"{told['cpu']}, one thread of {told['cores']}, load {told['load_average'][0]:.1f}, commit {document['commit']}"
    )
    if told["limits"]:
        say("kept to " + ", ".join(f"{name}={value}" for name, value in told["limits"].items()))
    one_thread()
    for name in options.only:
        if name in SECTIONS:
            say(f"\n{name}")
            document["results"][name] = numbers = {}
            for line, title, row in importlib.import_module(SECTIONS[name]).section(options.quick):
                say(line)
                numbers[title] = row
            history.write(document, options.history)
            continue
        found = False
        given = {"folder": options.nmnist} if name == "w4" else {}
        for workload in importlib.import_module(WORKLOADS[name]).workloads(options.quick, **given):
            found = True
            ceiling = document["results"].get("ceilings", {}).get("load and add L2", {}).get("median")
            document["results"][workload.name] = compared(workload, options, say, ceiling)
            history.write(document, options.history)  # after each, so that an interruption loses one
        if not found:
            say(f"\n{name} skipped: ../shared with its recordings is absent")
    for batch in options.batches:
        for line in w4_nmnist.over_all(document["results"], f"batch {batch}"):
            say(line)
    document["machine"]["load_average_after"] = machine.described()["load_average"]
    path = history.write(document, options.history)
    if options.compare:
        for line in history.compare(before, document) if before else ["nothing to compare with yet"]:
            say(line)
    say(f"\n{path}")
    return path


def one_thread() -> None:
    """Limit what takes no word from the environment."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    threadpool_limits(1)
    warnings.simplefilter("ignore")


if __name__ == "__main__":
    main(sys.argv[1:])
