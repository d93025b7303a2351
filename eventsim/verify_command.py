"""The command ``verify``: several inputs, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from eventsim.errors import InputError
from eventsim.network import Network
from eventsim.preparation import Preparation
from eventsim.report.verification import print_verification, verification_document
from eventsim.verification import verify


@dataclass(frozen=True)
class Door:
    """Where a command says what.

    Attributes
    ----------
    console : Console or None
        For tables; None where one document is printed at the end.
    progress : callable
    complain : callable
        For one line on stderr.
    print_json : callable
        For the document.
    """

    console: Console | None
    progress: Callable[[], Progress]
    complain: Callable[[object], None]
    print_json: Callable[[dict[str, Any]], None]


def verify_inputs(model: str, network: Network, preparation: Preparation, inputs: Iterable[str], door: Door) -> int:
    """Verify a network on every input; one that cannot be read stops no other.

    Returns
    -------
    int
        2 if an input could not be verified, else 1 if the network differs from its dense form, else 0.
    """
    samples, failed, holds = [], [], True
    for source in inputs:
        try:
            frames = preparation.frames(source, network)
            with door.progress() as progress:
                task = progress.add_task(Path(source).name, total=None)

                def on_progress(done: int, total: int | None, task: Any = task, progress: Progress = progress) -> None:
                    progress.update(task, completed=done, total=total)

                found = verify(network, frames, preparation.time_steps, name=source, on_progress=on_progress)
        except InputError as error:  # the others are still verified
            failed.append((source, str(error)))
            door.complain(error)
            continue
        holds &= found.holds
        samples.append({"input": source, **found.to_dict()})
        if door.console is not None:
            print_verification(door.console, samples[-1])
    if door.console is None:
        door.print_json(verification_document(model, preparation.noted(network), samples, failed))
    if failed:
        return 2
    return 0 if holds else 1
