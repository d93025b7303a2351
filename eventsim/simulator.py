"""Running a network: samples, streams and threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from difflib import get_close_matches
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from eventsim.context import Observer
from eventsim.errors import InputError
from eventsim.feeding import Chunk, feed, one_step
from eventsim.layers.input import Frames
from eventsim.network import Network
from eventsim.ordered import map_in_order
from eventsim.plan import plan
from eventsim.result import Result
from eventsim.run import Run
from eventsim.workers import ALONE, Workers

ALL_WAYS = 3
"""Samples of one shape after which a run has run, written down and played one."""


class Simulator:
    """Runs a network event by event, in chunks of time steps.

    Results and counts do not depend on `chunk` or `threads`. The matrix products of real-valued layers are not among
    what `threads` divides: NumPy's library divides them as it likes; ``threadpoolctl.threadpool_limits(1)`` holds it to
    one thread, as the command line does. A simulator can be pickled: its network and options are, the stream and the
    observers are not.

    Parameters
    ----------
    network : Network
    chunk : int, optional
        Time steps that a layer processes at once: 1 is the clock-stepped machine (streaming), all of them (the
        default) is layer by layer. Layers of a loop take one step after the other in any case.
    threads : int
        Samples that `run_many` simulates at the same time, each on one thread; in `run` and `step`, threads that share
        the work of every large layer.
    record : iterable of str
        Layers whose outputs are kept in the result.
    potentials : iterable of str
        Layers of neurons whose membrane potentials, after the reset, are kept in the result; these take one step after
        the other in any case.
    observers : sequence of Observer
        Told about every layer right after it has run; see `eventsim.context.Observer`.

    Raises
    ------
    InputError
        If the network is not valid, or an option makes no sense for it.
    """

    def __init__(
        self,
        network: Network,
        *,
        chunk: int | None = None,
        threads: int = 1,
        record: Iterable[str] = (),
        potentials: Iterable[str] = (),
        observers: Sequence[Observer] = (),
    ) -> None:
        if chunk is not None and chunk < 1:
            raise InputError(f"chunk {chunk} found; expected at least 1 time step")
        if threads < 1:
            raise InputError(f"threads {threads} found; expected at least 1")
        self.network = network
        self.chunk = chunk
        self.threads = threads
        self.record = tuple(record)
        self.potentials = tuple(potentials)
        self.observers = tuple(observers)
        for name in self.record:
            if name not in network.layers:
                near = "".join(f"; did you mean {each}?" for each in get_close_matches(name, network.layers, 1))
                raise InputError(
                    f"layer {name!r} to record not found in network {network.name}; expected one of its layers, as "
                    f"eventsim info lists them{near}"
                )
        self.schedule = plan(network)
        self._check_potentials()
        self._workers = Workers(threads)
        self._idle: list[Run] = []  # what one sample leaves, the next one of any thread goes on with
        self._stream: Run | None = None

    def __repr__(self) -> str:
        return f"Simulator({self.network!r}, chunk={self.chunk}, threads={self.threads})"

    def __getstate__(self) -> dict[str, Any]:
        names = ("network", "chunk", "threads", "record", "potentials")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, options: dict[str, Any]) -> None:
        self.__init__(**options)  # type: ignore[misc]

    def run(
        self,
        frames: npt.ArrayLike | Iterator[npt.ArrayLike],
        time_steps: int | None = None,
        name: str = "input",
        on_progress: Callable[[int, int | None], None] | None = None,
        alone: bool = False,
    ) -> Result:
        """Simulate one sample.

        Parameters
        ----------
        frames : array (T, *input shape), (*input shape) for one image shown in every step, or an iterator
            An iterator yields the time steps one by one, each (*input shape): recordings of any length run in bounded
            memory, `chunk` steps at a time (64 where no chunk was chosen), and counts are kept as sums.
        time_steps : int, optional
            For an image: how often it is shown; default is the network's. For frames it must be their number.
        name : str
            Names the sample in errors.
        on_progress : callable, optional
            Called after each chunk with the time steps done and their total, None where that is not known.
        alone : bool
            Whether the calling thread does all the work, as in `run_many`: for callers that simulate several samples
            at the same time.

        Raises
        ------
        InputError
            If the frames do not fit the network.
        """
        return self._run(frames, time_steps, name, on_progress, ALONE if alone else self._workers)

    def _run(
        self,
        frames: npt.ArrayLike | Iterator[npt.ArrayLike],
        time_steps: int | None,
        name: str,
        on_progress: Callable[[int, int | None], None] | None,
        workers: Workers,
    ) -> Result:
        run = self._idle_run()
        run.workers = workers
        try:
            result = run.again(frames, time_steps, self.chunk)
            if result is None:
                result = self._run_as_fed(run, frames, time_steps, name, on_progress)
            elif on_progress is not None:
                on_progress(result.time_steps, result.time_steps)
            return result
        finally:
            self._idle.append(run)

    def _run_as_fed(
        self,
        run: Run,
        frames: npt.ArrayLike | Iterator[npt.ArrayLike],
        time_steps: int | None,
        name: str,
        on_progress: Callable[[int, int | None], None] | None,
    ) -> Result:
        layer, default = self.network.input, self.network.time_steps
        fed = feed(layer, frames, name=name, chunk=self.chunk, asked=time_steps, default=default)
        if fed.time_steps is None:
            self._refuse_look_ahead("a known number of steps in one chunk; a stream found, cut it into T frames")
        elif (self.chunk or fed.time_steps) < fed.time_steps:
            needs = f"all {fed.time_steps} steps in one chunk; chunk {self.chunk} found, leave it out"
            self._refuse_look_ahead(needs)
        first = next(fed.chunks)
        if first.final and fed.time_steps is not None:
            result = run.whole(first, time_steps)
            if on_progress is not None:
                on_progress(first.steps, fed.time_steps)
            return result
        run.begin(fed.time_steps)
        for chunk in chain([first], fed.chunks):
            run.advance(chunk)
            if on_progress is not None:
                on_progress(run.steps, fed.time_steps)
        return run.result()

    def run_many(self, samples: Iterable[npt.ArrayLike], time_steps: int | None = None) -> Iterator[Result]:
        """Simulate samples one after the other, `threads` at a time; results come in the order of the samples."""
        return map_in_order(lambda sample: self._run(sample, time_steps, "input", None, ALONE), samples, self.threads)

    def warm_up(self, *, many: bool = False) -> float:
        """Compile every kernel that this network needs, or load it from the cache; return the seconds it took.

        Parameters
        ----------
        many : bool
            Whether many samples follow, of which all but the first two are played.
        """
        began = time.perf_counter()
        ahead = any(node.op.looks_ahead for node in self.schedule.nodes)
        steps = (self.network.time_steps or 1) if ahead else 1
        # windows of recordings are int32, arrays that a caller makes become float32
        shape = (steps, *self.network.input.shape)
        # where a network does not say how many steps there are, a layer that looks ahead may refuse a single one
        refused = (InputError,) if ahead and self.network.time_steps is None else ()
        for frames in (np.zeros(shape, np.int32), np.zeros(shape, np.float32)):
            run = Run(self.schedule)
            with suppress(*refused):
                for _ in range(ALL_WAYS if many else 1):
                    run.whole(Chunk(Frames(frames, static=False), steps, final=True))
        return time.perf_counter() - began

    def step(self, frame: npt.ArrayLike) -> Result:
        """Take one time step of a stream and return the result so far: sums, and the outputs recorded in this step.

        The sums are of everything executed in the sample, or since `count_anew`.

        Every step might be the last: the mean over time is that of the steps seen, and the layers after it run in
        every step; a neuron or a summing readout there takes in one value per step, where `run` gives it one in all.
        `restart` begins a new sample. A step costs the same however many came before.

        Parameters
        ----------
        frame : array (*input shape)

        Raises
        ------
        InputError
            If the frame does not fit the network, or a layer looks ahead in time.
        """
        chunk = one_step(self.network.input, frame, "input")
        stream = self._streaming()
        stream.advance(chunk)
        return stream.result()

    def restart(self) -> None:
        """Begin a new stream: the next `step` is the first of a new sample."""
        if self._stream is not None:
            self._stream.begin(None)

    def count_anew(self) -> None:
        """Begin the sums anew: the next `step` returns what was executed from here on; the sample goes on.

        Raises
        ------
        InputError
            A layer looks ahead in time.
        """
        self._streaming().begin_sums()

    def state(self) -> dict[str, Any]:
        """Return where the stream stands, as plain data that can be pickled and given to `restore`."""
        return self._streaming().state()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with a stream where `state` was taken, in this or in another simulator of the same network.

        Raises
        ------
        InputError
            If the state is of another network.
        """
        stream = self._streaming()
        if list(state.get("ops", ())) != [node.name for node in self.schedule.nodes]:
            raise InputError(
                f"network {self.network.name}: the state of another network found; expected one of its own"
            )
        stream.restore(state)

    def _check_potentials(self) -> None:
        nodes = {node.name: node for node in self.schedule.nodes}
        for name in self.potentials:
            if name not in nodes or "potential" not in nodes[name].op.state_names:
                raise InputError(f"layer {name!r}: no neurons found in network {self.network.name}; expected some")

    def _streaming(self) -> Run:
        if self._stream is None:
            self._refuse_look_ahead("all steps in one chunk; a single step found, use run")
            self._stream = Run(self.schedule, self.record, self.observers, self.potentials, self._workers)
        return self._stream

    def _refuse_look_ahead(self, needs: str) -> None:
        for node in self.schedule.nodes:
            if node.op.looks_ahead:
                raise InputError(f"layer {node.name}: looks ahead in time, so it needs {needs}")

    def _idle_run(self) -> Run:
        """Return a run that nobody uses; there are as many as samples were ever simulated at the same time."""
        try:
            return self._idle.pop()
        except IndexError:
            return Run(self.schedule, self.record, self.observers, self.potentials)
