"""``eventsim quantise``: from a model file to one in integers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from eventsim.cli.arguments import (
    Arguments,
    add_frame_options,
    add_model,
    at_least_one,
    check_output,
    preparation_of,
    whole,
)
from eventsim.cli.inputs import tell_time_steps
from eventsim.cli.printing import complain, console, print_json, progress
from eventsim.dvs import Defects
from eventsim.dvs.defects import DefectsOfMany
from eventsim.errors import InputError
from eventsim.modelfile import load, save
from eventsim.quantising import FLOAT32, INTEGER, quantise
from eventsim.report import document

SCALES = {"exact": "exact", "power-of-two": "power_of_two"}


def add(parser: argparse.ArgumentParser) -> None:
    """Say the arguments of ``quantise``."""
    parser.set_defaults(command=quantise_model)
    add_model(parser)
    parser.add_argument("-o", "--output", metavar="INT8.h5", required=True, help="the model file to write")
    parser.add_argument(
        "--calibrate",
        metavar="DATA",
        nargs="+",
        required=True,
        help="recordings, frames or images of the training data, or folders of them: every layer must fire on them",
    )
    parser.add_argument(
        "--samples", metavar="N", type=at_least_one, default=100, help="of them, spread evenly; default 100"
    )
    parser.add_argument("--scales", choices=tuple(SCALES), default="exact", help="of weights, for each output channel")
    parser.add_argument(
        "--fraction", metavar="BITS", type=whole, default=12, help="behind the point of potentials, 0 to 16; default 12"
    )
    add_frame_options(parser)


def quantise_model(args: Arguments) -> int:
    """Quantise a network, and write it."""
    check_output(args.output, args.model)
    network = load(args.model)
    preparation = preparation_of(args, network)
    files = spread_files(args.calibrate, args.samples)
    met = DefectsOfMany()
    told: list[Path] = []  # of many files alike, one complaint
    with progress() as bar:
        task = bar.add_task("calibrate", total=len(files))

        def frames() -> Iterator[Any]:
            for file in files:
                defects = Defects()
                frames = preparation.frames(str(file), network, defects)
                stream, taken = isinstance(frames, Iterator), count()
                yield (frame for frame, _ in zip(frames, taken, strict=False)) if stream else frames
                image = isinstance(frames, np.ndarray) and frames.ndim == len(network.input.shape)
                if not (told or image):
                    steps = len(frames) if isinstance(frames, np.ndarray) else next(taken)
                    told.extend([file] * tell_time_steps(steps, preparation, network, str(file)))
                met.take(str(file), defects)

        integer = quantise(
            network,
            frames(),
            preparation.time_steps,
            scales=SCALES[args.scales],  # type: ignore[arg-type]
            fraction=args.fraction,
            on_progress=lambda done: bar.update(task, completed=done),
        )
    for sentence in met.sentences():
        complain(sentence)
    save(integer, args.output)
    if args.json:
        print_json(document.network_document(args.output, integer))
        return 0
    screen = console()
    for setting in integer.settings:
        if setting.option == INTEGER:
            screen.print(f"{setting.sentence}", markup=False)
        elif setting.option == FLOAT32:
            screen.print(f"stays float32: {setting.shown}: {setting.note}", markup=False)
    screen.print(f"wrote {args.output}", markup=False)
    return 0


def spread_files(given: list[str], most: int) -> list[Path]:
    """Return files, those below folders in order, and of more than `most` so many, spread evenly."""
    found: list[Path] = []
    for text in given:
        path = Path(text)
        if not path.is_dir():
            found.append(path)
            continue
        below = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        if not below:
            raise InputError(f"{text}: no file below it found; expected recordings, frames or images")
        found += below
    return [found[index * len(found) // most] for index in range(most)] if len(found) > most else found
