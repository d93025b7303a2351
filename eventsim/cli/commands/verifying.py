"""``eventsim verify``: a network against its own dense form."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from eventsim.cli.arguments import Arguments, add_frame_options, add_inputs, add_model, add_wide, preparation_of
from eventsim.cli.attempts import Attempts
from eventsim.cli.inputs import add_batch_option, file_of, sources, tell_defects, tell_time_steps
from eventsim.cli.printing import console, print_json, progress
from eventsim.dvs import Defects
from eventsim.hashes import sha256
from eventsim.modelfile import load
from eventsim.network import Network
from eventsim.preparation import Preparation, Source
from eventsim.report.provenance import provenance
from eventsim.report.verification import print_verification, verification_document
from eventsim.verification import verify
from eventsim.verified import Verification


def add(parser: argparse.ArgumentParser) -> None:
    """Say the arguments of ``verify``."""
    parser.set_defaults(command=verify_inputs)
    add_model(parser)
    add_inputs(parser)
    add_batch_option(parser)
    add_wide(parser)
    add_frame_options(parser)


def verify_inputs(args: Arguments) -> int:
    """Verify a network on every input; one that fails stops no other.

    Returns
    -------
    int
        As `Attempts.code` where an input could not be verified, else 1 if the network differs from its dense form.
    """
    network = load(args.model)
    preparation = preparation_of(args, network)
    samples: list[dict[str, Any]] = []
    tried = Attempts()

    found = sources(args.inputs, args.batch, tried, network)

    def take(name: str) -> None:
        defects = Defects()
        seen = verified(network, preparation, name, found[name], defects)
        tell_defects(defects, name)
        whence = {"input": name, "input_sha256": sha256(file_of(name, found[name]))}
        met = {"recording": defects.to_dict()} if defects.events else {}
        samples.append({**whence, **met, **seen.to_dict()})
        if not args.json:
            print_verification(console(), samples[-1], args.wide)

    tried.each(list(found) if args.batch else args.inputs, take)
    if args.json:
        whence = provenance(args.model, network, preparation, {"threads": 1})
        print_json(verification_document(args.model, preparation.noted(network), whence, samples, tried.failed))
    return tried.code or int(not all(sample["holds"] for sample in samples))


def verified(
    network: Network, preparation: Preparation, name: str, source: Source, defects: Defects | None = None
) -> Verification:
    """Verify a network on one input, with a bar on the way; who takes `defects` has not told about the input before."""
    frames = preparation.frames(source, network, defects)
    with progress() as bar:
        task = bar.add_task(f"verify {Path(name).name}", total=None)
        found = verify(
            network,
            frames,
            preparation.time_steps,
            name=name,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if defects is not None:
        tell_time_steps(found.time_steps, preparation, network, name)
    return found
