"""Evaluation on the workers of a Dask cluster.

The network goes to the workers as a plugin: Dask sends that once to each, to those that join later too, and keeps it
for them. A sample is a task without data of its own, which Dask gives to another worker where one dies.
"""

from __future__ import annotations

import asyncio
import fcntl
import getpass
import logging
import pickle
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, NamedTuple

from distributed import Client, Future, LocalCluster, Security, WorkerPlugin, as_completed, get_worker
from distributed.client import ClosedClientError
from distributed.comm import connect
from distributed.scheduler import KilledWorker
from distributed.utils import silence_logging_cmgr
from threadpoolctl import threadpool_limits

import eventsim
from eventsim.accounting.energy import EnergyModel
from eventsim.datasets.absent_workers import absence_told
from eventsim.datasets.outcome import Outcome, Row, outcome_of
from eventsim.datasets.running import outcome
from eventsim.datasets.samples import Sample, elsewhere
from eventsim.errors import EventsimError, InputError
from eventsim.held_interrupts import held_interrupts
from eventsim.preparation import Preparation
from eventsim.simulator import Simulator
from eventsim.untrusted import first_line

TASK_S = 0.1
"""Samples that take less share a task, which the scheduler needs about a millisecond for."""
MOST_SAMPLES = 64
AHEAD = 3
"""Tasks for each thread of a worker that are handed out before they can run."""
PATIENCE_S = 60.0
"""How long a cluster may be without workers before anything has run."""
QUIET = logging.CRITICAL + 1
"""Level of what Dask logs: what becomes of workers and scheduler is told by what becomes of the samples."""
EXAMPLE = "tcp://HOST:8786"


class Evaluator(WorkerPlugin):  # type: ignore[misc] # Dask has no types
    """What a worker needs for every sample; unpickled and compiled once, before the first.

    Parameters
    ----------
    simulator : Simulator
    preparation : Preparation
    by : mapping of str to EnergyModel
    """

    def __init__(self, simulator: Simulator, preparation: Preparation, by: Mapping[str, EnergyModel]) -> None:
        self.version = eventsim.__version__
        self.pickled = pickle.dumps((simulator, preparation, dict(by)))

    async def setup(self, worker: Any) -> None:
        """Make the simulator ready, while the worker goes on answering the scheduler."""
        self.lock = threading.Lock()
        self.address = worker.address
        with suppress(Exception):  # a worker that raises here is closed; the first sample raises it again
            await asyncio.to_thread(self.ready)

    def ready(self) -> tuple[Simulator, Preparation, Mapping[str, EnergyModel]]:
        """Return simulator, preparation and energy models.

        Raises
        ------
        InputError
            If the worker has another eventsim than the client.
        """
        if eventsim.__version__ != self.version:
            raise InputError(f"worker {self.address}: eventsim {eventsim.__version__} found; expected {self.version}")
        with self.lock:
            if self.pickled:
                threadpool_limits(1)
                self.parts: tuple[Simulator, Preparation, Mapping[str, EnergyModel]] = pickle.loads(self.pickled)
                with _one_of_this_machine():  # the others find the kernels in the cache
                    self.parts[0].warm_up(many=True)
                self.pickled = b""
        return self.parts


class Quiet(WorkerPlugin):  # type: ignore[misc]
    """Leaves what is said once to who started the worker."""

    def setup(self, worker: Any) -> None:
        """Say nothing but errors."""
        logging.getLogger("eventsim").setLevel(logging.ERROR)


@contextmanager
def connected(address: str, processes: int) -> Iterator[Client]:
    """Yield a client of the cluster at an address; ``"local"`` starts so many processes here, which end with it.

    Raises
    ------
    InputError
        If nobody answers there.
    """
    with _silence(), _of_here(processes) if address == "local" else _at(address) as client:
        yield client


@contextmanager
def _silence() -> Iterator[None]:
    """Keep from stderr what Dask logs, and asyncio of what Dask left when it was interrupted."""
    leftover = logging.getLogger("asyncio")
    before = leftover.level
    with silence_logging_cmgr(QUIET), silence_logging_cmgr(QUIET, root="tornado"):
        leftover.setLevel(QUIET)
        try:
            yield
        finally:
            leftover.setLevel(before)


@contextmanager
def _at(address: str) -> Iterator[Client]:
    try:
        asyncio.run(asyncio.wait_for(_reach(address), PATIENCE_S))
        client = Client(address, timeout=PATIENCE_S, set_as_default=False)
    except Exception as error:  # noqa: BLE001 - whatever Dask makes of what others than schedulers answer
        why = f"nothing in {PATIENCE_S:.0f} s" if isinstance(error, TimeoutError) else first_line(error)
        if address.startswith("inproc:"):
            why = "inproc is of one process"
        raise InputError(
            f"cluster {address}: no scheduler answers ({why}); expected the address of one, such as {EXAMPLE}"
        ) from None
    with client:
        yield client


@contextmanager
def _of_here(processes: int) -> Iterator[Client]:
    """Start a cluster and end it, both as a whole: what is interrupted at that prints tracebacks, and so do workers."""
    options: dict[str, Any] = {"n_workers": processes, "threads_per_worker": 1, "dashboard_address": None}

    def close(opened: Any) -> None:
        with held_interrupts():
            opened.close()

    with ExitStack() as stack:
        with held_interrupts(), _no_interrupts_below():
            cluster = LocalCluster(**options, processes=True, silence_logs=QUIET)
            stack.callback(close, cluster)
            client = Client(cluster, set_as_default=False)
            stack.callback(close, client)
            client.register_plugin(Quiet())
        yield client


@contextmanager
def _no_interrupts_below() -> Iterator[None]:
    """Keep Ctrl-C, which a terminal sends to all processes of a command, from those that are started in the block.

    Threads that are started in it, and all processes that these start later, inherit what is blocked.
    """
    resource_tracker.ensure_running()  # the first process of multiprocessing would start it, and block nothing any more
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def _reach(address: str) -> None:
    """Raise what is wrong with an address; a client made with it would print a traceback when Python ends.

    It waits for whoever listens there, but never answers.
    """
    comm = await connect(address, timeout=PATIENCE_S, **Security().get_connection_args("client"))
    await comm.close()


@contextmanager
def _one_of_this_machine() -> Iterator[None]:
    """Let one process of this machine and user in at a time."""
    with (Path(tempfile.gettempdir()) / f"eventsim-{getpass.getuser()}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Simulated(NamedTuple):
    """The rows of some samples, and the seconds that they took."""

    rows: list[Row]
    seconds: float


def simulate(name: str, samples: Sequence[Sample]) -> Simulated:
    """Simulate some samples on a worker."""
    began = time.perf_counter()
    simulator, preparation, by = get_worker().plugins[name].ready()
    rows = [outcome(simulator, sample, preparation, by).row() for sample in samples]
    return Simulated(rows, time.perf_counter() - began)


def evaluate_on(
    client: Client,
    simulator: Simulator,
    samples: Sequence[Sample],
    preparation: Preparation,
    by: Mapping[str, EnergyModel],
) -> Generator[Outcome, None, None]:
    """Simulate samples on the workers of a cluster, as `eventsim.datasets.evaluate` does here.

    Parameters
    ----------
    client : distributed.Client
    simulator, samples, preparation, by
        As there.

    Yields
    ------
    Outcome
        As they are done.

    Raises
    ------
    InputError
        If no worker is there, or one has another eventsim.
    EventsimError
        If the scheduler is lost.
    """
    name = f"eventsim-{uuid.uuid4().hex}"
    with absence_told(client, _address(client)):
        try:
            client.wait_for_workers(1, timeout=PATIENCE_S)
        except TimeoutError:
            raise InputError(
                f"cluster {_address(client)}: no workers found in {PATIENCE_S:.0f} s; start some"
            ) from None
        with _answering(client):
            client.register_plugin(Evaluator(simulator, preparation, by), name=name)
        try:
            for row, sample in _rows(client, name, samples):
                found = outcome_of(row, sample, simulator.schedule)
                yield replace(found, comparable=False)
        finally:
            with suppress(Exception):  # of a scheduler that is gone there is nothing to take back
                client.unregister_worker_plugin(name)


def _rows(client: Client, name: str, samples: Sequence[Sample]) -> Iterator[tuple[Row, Sample]]:
    """Hand out samples, never many more than can run, and yield what comes back."""
    tasks = Tasks(client, name, samples)
    try:
        tasks.hand_out()
        for future, result in tasks.running:
            batch = tasks.taken.pop(future.key)
            if isinstance(result, Simulated):  # the future is lost by now if its worker left after it was fetched
                rows = result.rows
                tasks.learn(len(batch), result.seconds)
            else:
                rows = tasks.failed(future, batch)
            future.release()
            tasks.hand_out()
            for row, sample in zip(rows, batch, strict=False):
                path = getattr(sample.reference, "path", sample.reference)
                if isinstance(path, str) and row["error"] is not None:
                    row["error"] = row["error"].replace(str(Path(path).absolute()), path)
                yield row, sample
    finally:
        tasks.cancel()


class Tasks:
    """Samples on their way to the workers.

    Attributes
    ----------
    running : iterator of (Future, object)
        Those that are done, as they are, with what they returned.
    taken : dict of str to list of Sample
        By the key of their task.
    """

    def __init__(self, client: Client, name: str, samples: Sequence[Sample]) -> None:
        self.client = client
        self.name = name
        self.running = as_completed(loop=client.loop, with_results=True, raise_errors=False)
        self.taken: dict[str, list[Sample]] = {}
        self._futures: dict[str, Future] = {}
        self._rest = list(reversed(samples))
        self._suspects: list[Sample] = []
        self._alone = False
        self._number = 0
        self._seconds, self._done = 0.0, 0
        self._asked = -1.0
        self._threads = 1

    def hand_out(self) -> None:
        """Give the workers as much as they can take."""
        while self._rest and len(self.taken) < AHEAD * self._workers():
            size = self._size()
            batch = [self._rest.pop() for _ in range(min(size, len(self._rest)))]
            self._submit(batch)
        if self._suspects and not self.taken:
            self._alone = True
            self._submit([self._suspects.pop()])

    def learn(self, samples: int, seconds: float) -> None:
        """Take note of how long samples took."""
        self._done += samples
        self._seconds += seconds

    def failed(self, future: Future, batch: list[Sample]) -> list[Row]:
        """Return the error of a sample that killed every worker that tried, also alone; before, keep it for the end.

        A worker that dies takes others with it, which waited there and are not to blame: at the end each suspect runs
        while no other is anywhere.
        """
        error = future.exception() if future.status == "error" else None
        if isinstance(error, KilledWorker):
            if not self._alone:
                self._suspects.extend(batch)
                return []
            said = f"{batch[0].name}: {2 * error.allowed_failures + 2} workers died of it; expected one to survive"
            return [Outcome(batch[0], said).row()]
        if error is not None:
            raise error
        raise _lost(self.client, future.status)

    def cancel(self) -> None:
        """Let go of everything that was handed out."""
        with suppress(Exception):  # of a scheduler that is gone there is nothing to cancel
            self.client.cancel([self._futures[key] for key in self.taken])

    def _submit(self, batch: list[Sample]) -> None:
        self._number += 1
        key = f"{self.name}-{self._number}"
        self.taken[key] = batch
        here = [elsewhere(sample) for sample in batch]
        with _answering(self.client):
            future = self._futures[key] = self.client.submit(simulate, self.name, here, key=key, pure=False)
        self.running.add(future)

    def _size(self) -> int:
        """Return how many samples a task takes: the last ones are divided among all."""
        if not self._done:
            return 1
        worth = int(TASK_S * self._done / max(self._seconds, 1e-9))
        fair = -(-len(self._rest) // (AHEAD * self._threads))
        return max(1, min(worth, fair, MOST_SAMPLES))

    def _workers(self) -> int:
        """Return how many samples run at a time, looked up once a second: workers come and go."""
        if time.monotonic() - self._asked > 1:
            with _answering(self.client):
                self._threads = max(1, sum(self.client.nthreads().values()))
            self._asked = time.monotonic()
        return self._threads


@contextmanager
def _answering(client: Client) -> Iterator[None]:
    """Say in our words that a scheduler does not answer."""
    try:
        yield
    except (OSError, ClosedClientError) as error:
        raise _lost(client, first_line(error)) from None


def _lost(client: Client, why: str) -> EventsimError:
    return EventsimError(f"cluster {_address(client)}: its scheduler is lost ({why}); start it again")


def _address(client: Client) -> str:
    return str(client.scheduler.address) if client.scheduler is not None else "of the client"
