"""Simulating the samples of a data set here, or on the machines of a cluster; one bad file does not lose the others."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import islice
from typing import Any, TypeVar

from eventsim.accounting.energy import EnergyModel, models
from eventsim.datasets.outcome import Outcome, measured
from eventsim.datasets.samples import Sample, open_sample
from eventsim.dvs import Defects
from eventsim.errors import OUT_OF_MEMORY, EventsimError, InputError
from eventsim.hashes import sha256
from eventsim.preparation import Preparation, Source
from eventsim.simulator import Simulator
from eventsim.stopwatch import Stopwatch
from eventsim.unforeseen import one_line

A = TypeVar("A")
B = TypeVar("B")


def evaluate(
    simulator: Simulator,
    samples: Sequence[Sample],
    preparation: Preparation,
    by: Mapping[str, EnergyModel] | None = None,
    *,
    client: Any = None,
) -> Generator[Outcome, None, None]:
    """Simulate every sample, `simulator.threads` at a time, or on a cluster; a bad sample yields its error.

    Parameters
    ----------
    simulator : Simulator
    samples : sequence of Sample
    preparation : Preparation
    by : mapping of str to EnergyModel, optional
        Energy models by name; those that are shipped where none are given.
    client : distributed.Client, optional
        Of a Dask cluster, whose workers take the samples: as many at a time as they have threads. The network travels
        once to each worker, and the samples of a worker that dies run again elsewhere. A sample is opened by the
        worker, which must find the file under the same name.

    Yields
    ------
    Outcome
        In the order of the samples where one is simulated at a time; otherwise as they are done, and the place of a
        sample is `Sample.index`. Outcomes do not depend on threads or client, but for the seconds.

    Raises
    ------
    InputError
        If the outputs are no scores of classes, or a label is not one of the classes, or the cluster has no workers.
    """
    by = models() if by is None else by
    check_classes(simulator, samples)
    if client is not None:
        from eventsim.datasets.cluster import evaluate_on  # noqa: PLC0415 - Dask is there where a client is

        return evaluate_on(client, simulator, samples, preparation, by)
    _read(samples[:1], simulator, preparation)
    return _as_done(lambda sample: outcome(simulator, sample, preparation, by), samples, simulator.threads)


def _read(samples: Iterable[Sample], simulator: Simulator, preparation: Preparation) -> None:
    """Read samples to no end but that the kernels of their format are loaded, which no sample's seconds are to hold."""
    for sample in samples:
        with suppress(EventsimError, MemoryError):  # the reading that counts says so
            frames: Any = preparation.frames(_opened(sample, simulator, preparation), simulator.network)
            if isinstance(frames, Iterator):
                deque(frames, maxlen=0)


def _opened(sample: Sample, simulator: Simulator, preparation: Preparation) -> Source:
    """Open a sample; what its library raises is its error, as while it is read."""
    with one_line(sample.name):
        return open_sample(sample, preparation.of(simulator.network).sensor_size)


def check_classes(simulator: Simulator, samples: Iterable[Sample]) -> None:
    """Refuse a network that knows no classes, and labels that are none of its classes.

    Raises
    ------
    InputError
    """
    network = simulator.network
    classes = network.types[simulator.schedule.output].channels
    if not network.classifies:
        raise InputError(
            f"network {network.name}: {classes} outputs without a head found; expected scores of classes, as of a "
            "model that was fine-tuned"
        )
    for sample in samples:
        if not 0 <= sample.label < classes:
            raise InputError(f"{sample.name}: label {sample.label} found; network {network.name} has {classes} classes")


def outcome(simulator: Simulator, sample: Sample, preparation: Preparation, by: Mapping[str, EnergyModel]) -> Outcome:
    """Simulate one sample on the calling thread."""
    began = time.perf_counter()
    binning = Stopwatch()
    defects = Defects()
    try:
        with binning:
            frames: Any = preparation.frames(_opened(sample, simulator, preparation), simulator.network, defects)
        if isinstance(frames, Iterator):
            frames = binning.timed(frames)
        result = simulator.run(frames, preparation.time_steps, sample.name, alone=True)
    except EventsimError as error:
        return Outcome(sample, " ".join(str(error).split()))
    except MemoryError:
        return Outcome(sample, f"{sample.name}: {OUT_OF_MEMORY}")
    reading_s = time.perf_counter() - began - result.latency_s
    file = sample.reference if isinstance(sample.reference, str) else None
    hashed = None if file is None else sha256(file)
    return measured(sample, result, by, binning.seconds, reading_s, hashed, defects)


def _as_done(function: Callable[[A], B], items: Sequence[A], threads: int) -> Generator[B, None, None]:
    """Apply `function` to each item, `threads` at a time; nothing that is done waits for what is not."""
    if threads == 1:
        yield from map(function, items)
        return
    rest = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        running: set[Future[B]] = {pool.submit(function, item) for item in islice(rest, 2 * threads)}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(function, item) for item in islice(rest, len(done))}
                for each in done:
                    yield each.result()
        finally:
            for each in running:
                each.cancel()
