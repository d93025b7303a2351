"""``eventsim run MODEL -``: events from standard input as they come, a line for every bin."""

from __future__ import annotations

import sys
import time

import numpy as np

from eventsim.accounting.energy import choose, fitting
from eventsim.cli.arguments import Arguments, preparation_of
from eventsim.cli.attempts import Attempts
from eventsim.cli.inputs import STANDARD_INPUT, tell_defects
from eventsim.cli.printing import complain, console, say
from eventsim.dvs.arriving import arriving_file
from eventsim.errors import INTERRUPTED, InputError
from eventsim.held_interrupts import ending, held_interrupts
from eventsim.modelfile import load
from eventsim.report import document, tables
from eventsim.report.live import Course, begin_document, bin_entry, end_document
from eventsim.report.provenance import provenance
from eventsim.simulator import Simulator
from eventsim.streaming import Streaming

UNUSABLE = ("batch", "rows", "record", "output", "conventions", "time_steps")
"""Options that need a whole input."""


def follow(args: Arguments) -> int:
    """Simulate what comes, and print every bin as soon as it is done."""
    _refuse_unusable(args)
    models, shown = choose(args.energy)
    began = time.perf_counter()
    network = load(args.model)
    simulator = Simulator(network, threads=args.threads)
    shown = fitting(
        models, shown, {node.name: node.facts for node in simulator.schedule.nodes}, chosen=bool(args.energy)
    )
    load_s = time.perf_counter() - began
    preparation = preparation_of(args, network)
    compile_s = simulator.warm_up()
    if sys.stdin is None:
        raise InputError(f"{STANDARD_INPUT}: no standard input found; expected events, as of a pipe")
    streaming = Streaming(simulator, arriving_file(sys.stdin.buffer, STANDARD_INPUT), preparation, args.restart_every)
    if args.restart_every is None and network.time_steps is None:
        complain(
            f"{STANDARD_INPUT}: the model says no time steps, so there is one sample; --restart-every N begins new ones"
        )
    course = Course(network, streaming.bin_us, streaming.restart_every)
    if args.json:
        options = {"threads": args.threads, "restart_every": args.restart_every, "energy": args.energy}
        whence = provenance(args.model, network, preparation, options)
        head = document.headed(args.model, preparation.noted(network), whence)
        head |= {"load_s": load_s, "compile_s": compile_s, "input": STANDARD_INPUT, "bin_us": streaming.bin_us}
        head |= {"restart_every": streaming.restart_every}

    def take_all() -> None:
        finite = True
        for each in streaming:
            with held_interrupts():  # no bin is printed by half
                say(bin_entry(each, network, first=not course.bins) if args.json else course.line(each))
                for sentence in course.take(each):
                    complain(f"{STANDARD_INPUT}: {sentence}")
                if finite and not np.isfinite(each.logits).all():
                    finite = False
                    complain(
                        f"{STANDARD_INPUT}: NaN or infinite logits found in bin {each.index}; predictions mean nothing"
                    )

    tried = Attempts()
    begun = False
    try:
        with held_interrupts():
            if args.json:
                say(begin_document(head))
            begun = True
        tried.attempt(STANDARD_INPUT, take_all)
        ending()
    except KeyboardInterrupt:
        ending()
        if not begun:
            raise
        complain(f"interrupted after {course.bins} bins")
        tried.code = INTERRUPTED
    tell_defects(streaming.defects, STANDARD_INPUT)
    if course.told_behind:
        complain(f"{STANDARD_INPUT}: {course.pace()}")
    if args.json:
        say(end_document(course, models, streaming.defects.to_dict(), tried.failed))
    else:
        for line in course.lines(models, shown):
            say(line)
        if course.bins:
            tables.print_assumed(console(), network)
    return tried.code


def _refuse_unusable(args: Arguments) -> None:
    if len(args.inputs) > 1:
        raise InputError(f"{STANDARD_INPUT}: {len(args.inputs)} inputs found; expected standard input alone")
    given = [name for name in UNUSABLE if getattr(args, name) not in (None, False)]
    if given:
        flag = "-o" if given[0] == "output" else f"--{given[0].replace('_', '-')}"
        instead = (
            "; --restart-every says the bins of a sample" if given[0] == "time_steps" else ", or save it to a file"
        )
        raise InputError(f"{STANDARD_INPUT}: {flag} found, which standard input has no use for; leave it out{instead}")
    if args.chunk not in (None, 1):
        raise InputError(f"{STANDARD_INPUT}: --chunk {args.chunk} found; expected 1, a stream goes on bin by bin")
