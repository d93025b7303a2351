"""``eventsim demo``: what the package ships."""

from __future__ import annotations

import argparse
import time
from importlib import resources

from eventsim.cli.arguments import Arguments
from eventsim.cli.commands.simulating import simulated
from eventsim.cli.printing import console, print_json
from eventsim.importing import import_checkpoint
from eventsim.preparation import Preparation
from eventsim.report import document, tables
from eventsim.report.provenance import provenance
from eventsim.simulator import Simulator


def add(parser: argparse.ArgumentParser) -> None:
    """Say that ``demo`` has no arguments."""
    parser.set_defaults(command=demo)


def demo(args: Arguments) -> int:
    """Import the shipped checkpoint, simulate the shipped recording."""
    with resources.as_file(resources.files("eventsim") / "demo") as folder:
        checkpoint = folder / "digits.safetensors"
        recording = min(folder.glob("digit_*.bin"))
        label = int(recording.stem.rpartition("_")[2])
        began = time.perf_counter()
        network = import_checkpoint(checkpoint)
        simulator = Simulator(network)
        load_s = time.perf_counter() - began
        compile_s = simulator.warm_up()
        _, sample = simulated(simulator, Preparation(), str(recording), label=label)
        sample |= {"input": recording.name, "label": label}
        whence = provenance(checkpoint, network, Preparation(), {}) if args.json else None
    if whence is not None:
        print_json(document.run_document(checkpoint.name, network, whence, load_s, compile_s, [sample], []))
        return 0
    screen = console()
    screen.print(
        f"{network.name} ({network.parameters:,} parameters, {checkpoint.name}) sees {recording.name}, "
        "a handwritten digit before a simulated event camera\n",
        soft_wrap=True,
    )
    tables.print_sample(screen, sample, detail=True)
    screen.print(f"label      {label}\ncompiled kernels in {compile_s:.1f} s (once; later runs load them)")
    return 0
