"""The chunk loop, and what it returns."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import numpy.typing as npt

from eventsim.counts import Counts
from eventsim.errors import InputError
from eventsim.layers import LayerError
from eventsim.layers.input import Frames
from eventsim.network import Network
from eventsim.ordered import map_in_order
from eventsim.plan import Node, plan
from eventsim.signals import FloatArray, Signal, as_static, to_frames

STREAM_CHUNK = 64
"""Time steps gathered from a stream where no chunk size was chosen."""


@dataclass
class LayerProfile:
    """What one layer executed over the time steps of a sample.

    Attributes
    ----------
    name, kind, kernel : str
        Layer, its primitive, and what did the work.
    neurons : int
    steps : int
        Time steps that the layer saw; a layer after the mean over time sees one.
    dense_macs : int
        Multiply-accumulates of a machine that skips nothing.
    counts : Counts
    seconds : float
        Time spent, compilation aside.
    """

    name: str
    kind: str
    kernel: str
    neurons: int
    steps: int = 0
    dense_macs: int = 0
    counts: Counts = field(default_factory=Counts)
    seconds: float = 0.0

    @property
    def firing_rate(self) -> float:
        """Spikes per neuron and time step."""
        return self.counts.spikes / max(self.neurons * self.steps, 1)

    @property
    def input_density(self) -> float:
        """Non-zero inputs per input."""
        return self.counts.nonzero_inputs / max(self.counts.inputs, 1)


@dataclass
class Result:
    """Outcome of one sample.

    Attributes
    ----------
    logits : float32 array (classes,)
    time_steps : int
    profile : list of LayerProfile
        In order of execution.
    step_latency_s : list of float
        Seconds of each chunk (each time step where the chunk is 1).
    recorded : dict of str to float32 array
        Output of the layers asked for, ``(T, C, H, W)``, ``(T, N, C)`` or ``(T, C)``.
    """

    logits: FloatArray
    time_steps: int
    profile: list[LayerProfile]
    step_latency_s: list[float]
    recorded: dict[str, FloatArray]

    @property
    def prediction(self) -> int:
        """Index of the largest logit."""
        return int(np.argmax(self.logits))

    @property
    def latency_s(self) -> float:
        """Seconds from the first frame to the logits."""
        return sum(self.step_latency_s)

    @property
    def totals(self) -> Counts:
        """Counts over all layers."""
        totals = Counts()
        for layer in self.profile:
            totals.add(layer.counts)
        return totals


class Run:
    """State of one sample on its way through the network: forks of the ops, and what they executed so far."""

    def __init__(self, nodes: Sequence[Node], record: Iterable[str] = ()) -> None:
        self.nodes = [replace(node, op=node.op.fork()) for node in nodes]
        self.record = frozenset(record)
        self.reset()

    def reset(self) -> None:
        """Forget the sample."""
        for node in self.nodes:
            node.op.reset()
        self.profile = [LayerProfile(node.name, node.kind, node.op.kernel, node.neurons) for node in self.nodes]
        self.recorded: dict[str, list[FloatArray]] = {name: [] for name in self.record}
        self.step_latency_s: list[float] = []
        self.steps = 0
        self._static: dict[str, Signal] = {}
        self.logits: FloatArray = np.empty(0, np.float32)

    def advance(self, frames: Frames, steps: int, final: bool) -> None:
        """Take the next `steps` time steps through every layer."""
        began = time.perf_counter()
        signals: dict[str, Signal] = {}
        for node, profile in zip(self.nodes, self.profile, strict=True):
            start = time.perf_counter()
            inputs: tuple[Signal, ...] = tuple(signals[source] for source in node.sources)
            given: tuple[Signal | Frames, ...] = inputs or (frames,)
            if node.op.stateless and all(signal.static for signal in given):
                if node.name not in self._static:  # the same in every step: computed once per sample
                    signal, counts = _advance(node, given, final)
                    self._static[node.name] = as_static(signal)
                    profile.counts.add(counts)
                signals[node.name] = self._static[node.name]
                seen = steps
            else:
                given = tuple(signal.expand(steps) for signal in inputs) or (frames,)
                signals[node.name], counts = _advance(node, given, final)
                profile.counts.add(counts)
                seen = given[0].steps
            profile.steps += seen
            profile.dense_macs += seen * node.dense_macs
            profile.seconds += time.perf_counter() - start
            if node.name in self.record:
                self.recorded[node.name].append(to_frames(signals[node.name].expand(steps)).copy())
            for name in node.last_use_of:
                del signals[name]
        ((_, output),) = signals.items()
        if output.steps:  # none before a mean over time is complete
            self.logits = output.to_array()[-1].copy()
        self.steps += steps
        self.step_latency_s.append(time.perf_counter() - began)

    def result(self) -> Result:
        """Return what has been computed so far."""
        recorded = {name: np.concatenate(chunks) for name, chunks in self.recorded.items()}
        profile = [replace(layer, counts=replace(layer.counts)) for layer in self.profile]  # a stream goes on
        return Result(self.logits, self.steps, profile, list(self.step_latency_s), recorded)


def _advance(node: Node, given: tuple[Signal | Frames, ...], final: bool) -> tuple[Signal, Counts]:
    try:
        return node.op.advance(given, final)
    except LayerError as error:
        raise InputError(f"layer {node.name}: {error}") from None


class Simulator:
    """Runs a network event by event, in chunks of time steps.

    Results and counts do not depend on `chunk` or `threads`.

    Parameters
    ----------
    network : Network
    chunk : int, optional
        Time steps that a layer processes at once: 1 is the clock-stepped machine (streaming), all of them (the
        default) is layer by layer.
    threads : int
        Samples that `run_many` simulates at the same time.
    record : iterable of str
        Layers whose outputs are kept in the result.

    Raises
    ------
    InputError
        If the network is not valid, or an option makes no sense for it.
    """

    def __init__(
        self, network: Network, *, chunk: int | None = None, threads: int = 1, record: Iterable[str] = ()
    ) -> None:
        if chunk is not None and chunk < 1:
            raise InputError(f"chunk {chunk} found; expected at least 1 time step")
        if threads < 1:
            raise InputError(f"threads {threads} found; expected at least 1")
        self.network = network
        self.chunk = chunk
        self.threads = threads
        self.record = tuple(record)
        for name in self.record:
            if name not in network.layers:
                raise InputError(f"layer {name!r} to record not found in network {network.name}")
        self.nodes = plan(network)
        self._local = threading.local()
        self._stream: Run | None = None

    def run(
        self,
        frames: npt.ArrayLike | Iterator[npt.ArrayLike],
        time_steps: int | None = None,
        name: str = "input",
        on_progress: Callable[[int, int | None], None] | None = None,
    ) -> Result:
        """Simulate one sample.

        Parameters
        ----------
        frames : array (T, *input shape), (*input shape) for one image shown in every step, or an iterator
            An iterator yields the time steps one by one, each (*input shape): recordings of any length run in bounded
            memory, `chunk` steps at a time (64 where no chunk was chosen).
        time_steps : int, optional
            For an image: how often it is shown; default is the network's. For frames it must be their number.
        name : str
            Names the sample in errors.
        on_progress : callable, optional
            Called after each chunk with the time steps done and their total, None where that is not known.

        Raises
        ------
        InputError
            If the frames do not fit the network.
        """
        if isinstance(frames, Iterator):
            if time_steps is not None:
                raise InputError(f"{name}: a stream found; its length says how many time steps, {time_steps} asked for")
            total, chunks = None, self._chunks_of_stream(frames, name)
        else:
            array, static = self._sample(frames, name)
            total = self._time_steps(len(array), static, time_steps, name)
            chunks = self._chunks_of_array(array, static, total)
        run = self._thread_run()
        run.reset()
        for chunk, steps, final in chunks:
            run.advance(chunk, steps, final)
            if on_progress is not None:
                on_progress(run.steps, total)
        return run.result()

    def run_many(self, samples: Iterable[npt.ArrayLike], time_steps: int | None = None) -> Iterator[Result]:
        """Simulate samples one after the other, `threads` at a time; results come in the order of the samples."""
        return map_in_order(lambda sample: self.run(sample, time_steps), samples, self.threads)

    def warm_up(self) -> float:
        """Compile every kernel that this network needs, or load it from the cache; return the seconds it took."""
        began = time.perf_counter()
        causal = all(node.op.causal for node in self.nodes)
        steps = 1 if causal or self.network.time_steps is None else self.network.time_steps
        frames = np.zeros((steps, *self.network.input.shape), np.float32)
        Run(self.nodes).advance(Frames(frames, static=False), steps, final=True)
        return time.perf_counter() - began

    def step(self, frame: npt.ArrayLike) -> Result:
        """Take one time step of a stream and return the result so far.

        Every step might be the last: the mean over time is that of the steps seen, and the layers after it run in
        every step; a neuron or a summing readout there takes in one value per step, where `run` gives it one in all.
        `restart` begins a new sample.

        Parameters
        ----------
        frame : array (*input shape)
        """
        if self._stream is None:
            self._refuse_look_ahead("all steps in one chunk; a single step found, use run")
            self._stream = Run(self.nodes, self.record)
        self._stream.advance(Frames(self._frame(frame, "input"), static=False), 1, final=True)
        return self._stream.result()

    def restart(self) -> None:
        """Begin a new stream: the next `step` is the first of a new sample."""
        self._stream = None

    def _chunks_of_array(self, array: FloatArray, static: bool, total: int) -> Iterator[tuple[Frames, int, bool]]:
        """Cut the frames of one sample; yield them with their number of steps and whether they are the last."""
        chunk = self.chunk or total
        if chunk < total:
            self._refuse_look_ahead(f"all {total} steps in one chunk; chunk {chunk} found, leave it out")
        for start in range(0, total, chunk):
            stop = min(start + chunk, total)
            yield Frames(array if static else array[start:stop], static), stop - start, stop == total

    def _chunks_of_stream(self, frames: Iterator[npt.ArrayLike], name: str) -> Iterator[tuple[Frames, int, bool]]:
        """Gather time steps as they come, one chunk ahead so that the last is known."""
        self._refuse_look_ahead("a known number of steps in one chunk; a stream found, cut it into T frames")
        held: FloatArray | None = None
        while batch := [self._frame(frame, name) for frame in islice(frames, self.chunk or STREAM_CHUNK)]:
            if held is not None:
                yield Frames(held, False), len(held), False
            held = np.concatenate(batch)
        if held is None:
            raise InputError(f"{name}: no time steps found; the model needs at least one")
        yield Frames(held, False), len(held), True

    def _refuse_look_ahead(self, needs: str) -> None:
        for node in self.nodes:
            if not node.op.causal:
                raise InputError(f"layer {node.name}: looks ahead in time, so it needs {needs}")

    def _frame(self, frame: npt.ArrayLike, name: str) -> FloatArray:
        """Check and copy one time step, ``(1, *input shape)``: its owner may write the next one into it."""
        array, single = self._sample(frame, name)
        if not single:
            raise InputError(f"{name}: {len(array)} frames found; a step takes one, use run for more")
        return array.copy()

    def _sample(self, frames: npt.ArrayLike, name: str) -> tuple[FloatArray, bool]:
        array = np.asarray(frames)
        if array.dtype.kind not in "buif":
            raise InputError(f"{name}: values of type {array.dtype} found; expected numbers")
        array = array.astype(np.float32, copy=False)
        static = array.ndim == len(self.network.input.shape)
        if static:
            array = array[None]
        self.network.input.check(array, name)
        return array, static

    def _time_steps(self, frames: int, static: bool, asked: int | None, name: str) -> int:
        if static:
            steps = self.network.time_steps if asked is None else asked
            if steps is None or steps < 1:
                raise InputError(f"{name}: {steps} time steps found; an image needs a number of at least 1")
            return steps
        if asked is not None and asked != frames:
            raise InputError(f"{name}: {frames} frames found; {asked} time steps were asked for")
        return frames

    def _thread_run(self) -> Run:
        """Ops of the calling thread, made once and reset for each sample."""
        if not hasattr(self._local, "run"):
            self._local.run = Run(self.nodes, self.record)
        run: Run = self._local.run
        return run
