"""What stands behind the names of inputs: files, or the samples of arrays; and what is to be said of each."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from eventsim.cli.attempts import Attempts
from eventsim.cli.printing import complain
from eventsim.dvs import Defects
from eventsim.errors import InputError
from eventsim.network import Network
from eventsim.preparation import Preparation, Source, is_npy, plain_array

STANDARD_INPUT = "-"


def add_batch_option(parser: argparse.ArgumentParser) -> None:
    """Say that arrays hold several samples."""
    parser.add_argument("--batch", action="store_true", help="the first axis of an array (.npy) is samples, not time")


def sources(names: Sequence[str], batch: bool, tried: Attempts, network: Network) -> dict[str, Source]:
    """Return what is to be simulated, by name.

    Parameters
    ----------
    names : sequence of str
        Inputs as given.
    batch : bool
        Whether each is an array of samples, called ``NAME[0]`` and so on.
    tried : Attempts
        Takes what cannot be opened.
    network : Network
        What they are simulated by.
    """
    if not batch:
        return {name: name for name in names}
    found: dict[str, Source] = {}

    def take(name: str) -> None:
        array = plain_array(Path(name)) if is_npy(Path(name)) else None
        if array is None or array.ndim < 2:
            raise InputError(f"{name}: --batch found; expected an array of samples in .npy, leave it out for others")
        one = network.input.shape
        axes = array.ndim - 1
        fits = network.input.takes_images or array.shape[array.ndim - len(one) :] == one
        if array.shape == one and one[0] > 1:
            raise InputError(
                f"{name}: an array of {' x '.join(map(str, one))} with --batch found, which is one sample; leave "
                "--batch out"
            )
        if not array.size or not fits or axes not in (len(one) - 1, len(one), len(one) + 1):
            size = " x ".join(map(str, one))
            raise InputError(
                f"{name}: an array of {' x '.join(map(str, array.shape))} with --batch found; expected samples along "
                f"the first axis, each {size}, or T x {size}"
            )
        found.update({f"{name}[{index}]": sample for index, sample in enumerate(array)})

    for name in names:
        tried.attempt(name, lambda name=name: take(name))  # type: ignore[misc]
    return found


def file_of(name: str, source: Source) -> str:
    """Return the file that an input lies in."""
    return name if isinstance(source, str) else name.rpartition("[")[0]


def tell_time_steps(steps: int, preparation: Preparation, network: Network, name: str) -> bool:
    """Say where an array, or windows of a recording, had other time steps than the model; return whether that was said.

    Flags that say so were told about before.
    """
    other = preparation.time_steps is None and network.time_steps not in (None, steps)
    if other:
        complain(f"{name}: {steps} time steps found, the model says time_steps = {network.time_steps}")
    return other


def tell_defects(defects: Defects, name: str) -> None:
    """Say what was met in a recording and done about it."""
    for sentence in defects.sentences(name):
        complain(sentence)
