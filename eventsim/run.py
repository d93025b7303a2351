"""The chunk loop: one sample, or one stream, on its way through the network."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from eventsim.banded import Banded, in_bands, repeated_in_bands
from eventsim.buffers import Buffers
from eventsim.context import Context, Observer
from eventsim.delay import Delay
from eventsim.errors import InputError, LayerError
from eventsim.feeding import Chunk
from eventsim.kernels.filling import repeat
from eventsim.layers.time.steps import join_steps, take_steps
from eventsim.ledger import Columns, Ledger, LedgerRows
from eventsim.looking import watch
from eventsim.network import Edge
from eventsim.plan import Loop, Node, Schedule
from eventsim.profile import LayerProfile
from eventsim.recorder import Recorder
from eventsim.result import Result
from eventsim.signals import Dense, FloatArray, Rows, Signal, as_static
from eventsim.tape import TAKES_TAPES, Copy, Tape
from eventsim.traffic import report_traffic
from eventsim.untrusted import blame
from eventsim.values import Values
from eventsim.workers import ALONE, Workers

Signals = dict[str, Signal]
Shape = tuple[int, bool, str, tuple[int, ...], int]
COPY_NS = 0.2
"""What it takes, about, to repeat a value."""
WATCHED = ("pool", "join")
"""Roles of layers whose inputs are looked at, besides those of layers that multiply."""


class Passage:
    """One layer on its way through a sample: a fork of its op, and what it did so far.

    Everything that a small layer's turn touches is here: what lies elsewhere is fetched from far caches each time, as
    the layers in between have filled the near ones.

    Parameters
    ----------
    node : Node
    schedule : Schedule
    watched : bool
        Somebody looks at what it emits, beside who hears it.

    Attributes
    ----------
    node : Node
        With an op of its own.
    columns : Columns
        What the op counted.
    values : tuple of Values
        Of each input, where they are looked at; empty elsewhere.
    seen : int
        Time steps.
    seconds : float
    takes_bands : bool
        It may be given sums in bands.
    static : Rows or Dense, optional
        What was emitted once for all steps, while there are more of these.
    """

    __slots__ = (
        "advance",
        "columns",
        "has_traffic",
        "multiplies",
        "node",
        "once",
        "seconds",
        "seen",
        "static",
        "takes_bands",
        "values",
    )

    def __init__(self, node: Node, schedule: Schedule, watched: bool) -> None:
        self.node = replace(node, op=node.op.fork())
        self.node.op.lists_channels = watched or node.name not in schedule.unlisted
        self.node.op.emits_bands = not watched and node.name in schedule.banded
        self.takes_bands = not watched and node.op.hears_bands
        self.advance = self.node.op.advance
        self.once = node.op.once_if_static
        self.multiplies = node.facts.dense_macs > 0
        self.has_traffic = bool(node.facts.reads or node.facts.writes)

    def begin(self, columns: Columns) -> None:
        """Forget everything; what is counted from now on belongs into these columns."""
        self.node.op.reset()
        self.static: Signal | None = None
        self.begin_sums(columns)

    def begin_sums(self, columns: Columns) -> None:
        """Forget what was executed; the sample goes on."""
        self.columns = columns
        looked_at = self.multiplies or self.node.facts.role in WATCHED
        self.values = tuple([Values() for _ in self.node.inputs]) if looked_at else ()
        self.seen, self.seconds = 0, 0.0


class Run:
    """Forks of the ops, and what they executed so far.

    Parameters
    ----------
    schedule : Schedule
    record : sequence of str
        Layers whose outputs are kept.
    observers : sequence of Observer
        Who else is told about every layer.
    potentials : sequence of str
        Layers whose membrane potentials are kept.
    workers : Workers
        Threads that the ops may share their work with.
    """

    def __init__(
        self,
        schedule: Schedule,
        record: Sequence[str] = (),
        observers: Sequence[Observer] = (),
        potentials: Sequence[str] = (),
        workers: Workers = ALONE,
    ) -> None:
        self._schedule = schedule
        self.workers = workers
        watched = bool(record or observers or potentials)
        self._layers = {node.name: Passage(node, schedule, watched) for node in schedule.nodes}
        self._parts = [
            (part if isinstance(part, Loop) else self._layers[part.name], done)
            for part, done in zip(schedule.parts, schedule.done_after, strict=True)
        ]
        self._recorder = Recorder(record, potentials)
        self._observers = (*observers, self._recorder) if record else tuple(observers)
        self._potentials = frozenset(potentials)
        self._buffers = Buffers()
        plays = all(isinstance(part, Node) and part.op.plays and not part.delayed for part in schedule.parts)
        self._plays = TAKES_TAPES and plays and not watched
        self._shape: Shape | None = None
        self._alike: tuple[tuple[int, ...], int | None, type, int] | None = None
        self._tape: Tape | None = None
        self._writing: Tape | None = None
        self.begin(None)

    def begin(self, time_steps: int | None) -> None:
        """Forget everything; a sample of so many time steps follows, or, with None, a stream."""
        self._ledger = Ledger(self._layers, time_steps)
        for name, layer in self._layers.items():
            layer.begin(self._ledger.columns(name))
        self._delays = {edge: Delay(kind, edge.delay) for edge, kind in self._schedule.delays.items()}
        self._recorder.take()
        self._latency_s = 0.0
        self._latencies: list[float] = []
        self._step_logits: list[FloatArray] = []
        self.steps = 0
        self.logits: FloatArray = np.empty(0, np.float32)

    def again(self, frames: Any, asked: int | None, chunk: int | None) -> Result | None:
        """Run a sample, if it is one chunk and differs from the one before in its values alone; see `whole`.

        Nothing has to be looked at but these, which is done while it is played. Returns None of any other sample, and
        of one that it finds something strange in.
        """
        tape = self._tape
        if (
            tape is None
            or type(frames) is not np.ndarray
            or (frames.shape, asked, type(asked), self.workers.number) != self._alike
            or frames.dtype != tape.frames.dtype
            or (chunk is not None and chunk < tape.length)
        ):
            return None
        return self._play(tape, frames)

    def whole(self, chunk: Chunk, asked: int | None = None) -> Result:
        """Run a sample that is one chunk, of which so many time steps were asked for.

        The second of the same shape is written down, and those that follow are played; see `eventsim.tape`.
        """
        if self._plays:
            array = chunk.frames.array
            self._alike = array.shape[chunk.frames.static :], asked, type(asked), self.workers.number
            shape = chunk.steps, chunk.frames.static, array.dtype.str, array.shape, self.workers.number
            if shape != self._shape:
                self._shape, self._tape = shape, None
            elif self._tape is None:
                return self._write(chunk)
            elif (played := self._play(self._tape, array)) is not None:
                return played
        self.begin(chunk.steps)
        self.advance(chunk)
        return self.result()

    def _write(self, chunk: Chunk) -> Result:
        """Run a sample, and keep what it called."""
        self.begin(chunk.steps)
        tape = self._writing = Tape(chunk.frames.array, chunk.steps, self.workers)
        buffers, self._buffers = self._buffers, tape.buffers
        try:
            for name, layer in self._layers.items():
                layer.columns = tape.columns(name)
            self.advance(replace(chunk, frames=replace(chunk.frames, array=tape.frames)))
        finally:
            self._writing, self._buffers = None, buffers
        if self._plays:
            tape.finish(self._emitted, {name: layer.seen for name, layer in self._layers.items()})
            self._tape, self._buffers = tape, Buffers()
        return self.result()

    def _play(self, tape: Tape, frames: npt.NDArray[Any]) -> Result | None:
        """Run a sample as another was; return None where it has to be run for itself."""
        began = time.perf_counter()
        copy = tape.play(frames)
        if copy is None:
            return None
        step_logits = tape.output.copy()
        took = time.perf_counter() - began
        profile = partial(self._profile_of, tape, copy)
        return Result(step_logits[-1].copy(), tape.length, profile, [took], {}, took, step_logits)

    def _profile_of(self, tape: Tape, copy: Copy) -> list[LayerProfile]:
        """Return what was executed in a sample that was played."""
        seconds = tape.seconds(copy)
        return [
            LayerProfile(
                node.name,
                node.kind,
                node.op.kernel,
                node.facts,
                tape.seen[node.name],
                seconds[node.name],
                tape.columns_of(node.name, copy),
                True,
                tape.values_of(node.name, len(node.inputs), copy),
                node.sources,
            )
            for node in self._schedule.nodes
        ]

    def begin_sums(self) -> None:
        """Forget what was executed and how long it took; the sample goes on."""
        self._ledger = Ledger(self._layers, self._ledger.time_steps)
        for name, layer in self._layers.items():
            layer.begin_sums(self._ledger.columns(name))
        self._latency_s, self._latencies = 0.0, []

    def advance(self, chunk: Chunk) -> None:
        """Take the next time steps through every layer."""
        began = time.perf_counter()
        signals: Signals = {}
        for part, done in self._parts:
            if isinstance(part, Passage):
                self._run_layer(part, signals, chunk)
            else:
                self._run_loop(part, signals, chunk)
            if self._schedule.output in done and signals[self._schedule.output].steps:
                if self._ledger.time_steps is None:  # of a stream, nothing that grows
                    self._step_logits.clear()
                self._step_logits.append(signals[self._schedule.output].to_array().copy())
                self.logits = self._step_logits[-1][-1]
                self._emitted = signals[self._schedule.output].to_array()
            for name in done:
                signals.pop(name, None)
        self.steps += chunk.steps
        if self._ledger.time_steps is None or not chunk.final:
            self._ledger.settle()
        self._latencies.append(time.perf_counter() - began)
        self._latency_s += self._latencies[-1]

    def _run_layer(self, layer: Passage, signals: Signals, chunk: Chunk) -> None:
        """Run one layer; once per sample, where nothing changes from one time step to the next."""
        node, given = layer.node, self._given(layer.node, signals, chunk)
        if self._writing is not None:
            self._writing.layer = node.name
        static = 0
        for signal in given:
            static += signal.static
        if static and layer.once and static == len(given):
            emitted = layer.static
            if emitted is None:
                emitted = as_static(self._execute(layer, given, self.steps, 1, chunk))
            layer.static = None if chunk.final else emitted
            steps = chunk.steps
        else:
            if static and node.inputs:
                given = tuple([self._expanded(layer, signal, chunk) for signal in given])
            steps = given[0].steps  # fewer than the chunk's, behind a mean over time: the last of them
            at = self.steps + chunk.steps - steps
            execute = self._execute_each if steps > 1 and node.name in self._potentials else self._execute
            emitted = execute(layer, given, at, steps, chunk)
        signals[node.name] = emitted
        layer.seen += steps
        for source, signal in zip(node.sources, given, strict=False):
            if isinstance(signal, Banded) and signal is signals.get(source):
                layer.seconds -= signal.seconds
                self._layers[source].seconds += signal.seconds
        if self._observers:
            self._tell(layer, given, emitted, self.steps + chunk.steps - steps, steps)

    def _given(self, node: Node, signals: Signals, chunk: Chunk) -> tuple[Any, ...]:
        """Return what a layer is given: frames, or what arrives over its edges."""
        if node.delayed:
            heard = {edge: self._heard(edge, signals, chunk) for edge in dict.fromkeys(node.inputs)}
            return tuple(map(heard.__getitem__, node.inputs))
        return tuple(map(signals.__getitem__, node.sources)) if node.sources else (chunk.frames,)

    def _expanded(self, layer: Passage, signal: Signal, chunk: Chunk) -> Signal:
        """Repeat a static signal, in memory used before, for a layer that hears it."""
        if not (signal.static and isinstance(signal, Dense)):
            self._plays &= not signal.static  # how many there are is not known before
            return signal.expand(chunk.steps)
        context = self._context(layer, self.steps, chunk.steps, chunk)
        if layer.takes_bands and in_bands(chunk.steps, signal.type, context):
            return repeated_in_bands(signal, chunk.steps, context)
        rows = len(signal.data)
        repeated = self._buffers.floats(chunk.steps * signal.data.size).reshape(-1, signal.type.channels)
        parts = context.ranges(chunk.steps, COPY_NS * repeated.size)
        context.share(repeat, [(signal.data, repeated[first * rows : last * rows]) for first, last in parts])
        return Dense(signal.type, chunk.steps, repeated)

    def _heard(self, edge: Edge, signals: Signals, chunk: Chunk) -> Signal:
        """Return what arrives over an edge whose source has run."""
        if not edge.delay:
            return signals[edge.source]
        return self._delays[edge].shift(signals[edge.source].expand(chunk.steps))

    def _run_loop(self, loop: Loop, signals: Signals, chunk: Chunk) -> None:
        """Run the layers of a cycle one time step after the other."""
        inside = {node.name: self._layers[node.name] for node in loop.nodes}
        edges = dict.fromkeys(edge for node in loop.nodes for edge in node.inputs)
        entering = {edge: self._heard(edge, signals, chunk) for edge in edges if edge.source not in inside}
        entering = {edge: signal.expand(chunk.steps) for edge, signal in entering.items()}
        waiting = {edge: self._delays[edge] for edge in edges if edge.source in inside and edge.delay}
        leaving: dict[str, list[Signal]] = {name: [] for name in loop.heard_outside}
        for step in range(chunk.steps):
            last = replace(chunk, steps=1, final=chunk.final and step == chunk.steps - 1)
            arriving = {edge: delay.heard() for edge, delay in waiting.items()}
            arriving |= {edge: take_steps(signal, step, step + 1) for edge, signal in entering.items()}
            emitted: Signals = {}
            for name, layer in inside.items():
                edges_in = layer.node.inputs
                given = tuple(arriving[edge] if edge in arriving else emitted[edge.source] for edge in edges_in)
                output = emitted[name] = self._execute(layer, given, self.steps + step, 1, last)
                if output.steps != 1:
                    raise InputError(f"layer {name}: emits {output.steps} time steps for one; expected 1 in a loop")
                layer.seen += 1
                self._tell(layer, given, output, self.steps + step, 1)
            for edge, delay in waiting.items():
                delay.take(emitted[edge.source])
            for name, steps in leaving.items():
                steps.append(join_steps(emitted[name]))  # a copy: the op reuses its buffers in the next step
        for name, steps in leaving.items():
            signals[name] = join_steps(*steps)

    def _execute_each(self, layer: Passage, given: tuple[Any, ...], start: int, steps: int, chunk: Chunk) -> Signal:
        """Run a layer one time step after the other, whatever the chunk, so that there is a potential after each."""
        emitted = []
        for step in range(steps):
            one = tuple(take_steps(signal, step, step + 1) for signal in given)
            last = replace(chunk, steps=1, final=chunk.final and step == steps - 1)
            emitted.append(join_steps(self._execute(layer, one, start + step, 1, last)))
        return join_steps(*emitted)

    def _execute(self, layer: Passage, given: tuple[Any, ...], start: int, steps: int, chunk: Chunk) -> Signal:
        began = time.perf_counter()
        context = self._context(layer, start, steps, chunk)
        try:
            if layer.values:  # first: what was emitted last is still in the caches
                watch(layer.values, given, context, layer.multiplies)
            output = layer.advance(given, context)
            if not isinstance(output, (Rows, Dense)):
                raise LayerError(f"emits {type(output).__name__}; expected Rows or Dense")
            if self._potentials and steps == 1:
                self._recorder.on_step(layer.node, output.type)
            if layer.has_traffic:
                report_traffic(given, output, layer.node.facts, context)
            return output
        except Exception as error:  # noqa: BLE001 - raised again, with the layer it is about
            blame(error, layer.node.name, layer.node.op)
        finally:
            layer.seconds += time.perf_counter() - began

    def _context(self, layer: Passage, start: int, steps: int, chunk: Chunk) -> Context:
        rows = LedgerRows(layer.columns, start, steps)
        return Context(chunk.final, rows, self.workers, self._observers, self._buffers, self._writing)

    def _tell(self, layer: Passage, given: tuple[Any, ...], output: Signal, start: int, steps: int) -> None:
        for observer in self._observers:
            observer.on_layer(layer.node, given, output, LedgerRows(layer.columns, start, steps))

    def result(self) -> Result:
        """Return what has been computed so far; of a stream, recorded outputs and latencies of the steps since."""
        whole = self._ledger.time_steps is not None  # of a stream, which goes on, what is known now
        profile = [
            LayerProfile(
                layer.node.name,
                layer.node.kind,
                layer.node.op.kernel,
                layer.node.facts,
                layer.seen,
                layer.seconds,
                layer.columns if whole else layer.columns.copy(),
                whole,
                layer.values if whole else tuple([each.copy() for each in layer.values]),
                layer.node.sources,
            )
            for layer in self._layers.values()
        ]
        latencies, self._latencies = self._latencies, []
        step_logits, self._step_logits = self._step_logits, []
        recorded, potentials = self._recorder.take()
        return Result(
            self.logits.copy(),
            self.steps,
            lambda: profile,
            latencies,
            recorded,
            self._latency_s,
            np.concatenate(step_logits) if step_logits else self.logits[None],
            potentials,
        )

    def state(self) -> dict[str, Any]:
        """Return everything that the next time step depends on, and the sums so far, as plain data."""
        return {
            "ops": {name: layer.node.op.state() for name, layer in self._layers.items()},
            "delays": {tuple(edge): delay.held for edge, delay in self._delays.items()},
            "ledger": self._ledger.state(),
            "values": {name: tuple(map(asdict, layer.values)) for name, layer in self._layers.items()},
            "seen": {name: layer.seen for name, layer in self._layers.items()},
            "seconds": {name: layer.seconds for name, layer in self._layers.items()},
            "latency_s": self._latency_s,
            "steps": self.steps,
            "logits": self.logits.copy(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken: of a run of the same schedule, between two time steps of a stream."""
        state = copy.deepcopy(state)
        self.begin(None)
        self._ledger.restore(state["ledger"])
        for name, layer in self._layers.items():
            layer.node.op.restore(state["ops"][name])
            layer.values = tuple(Values(**values) for values in state["values"][name])
            layer.seen, layer.seconds = state["seen"][name], state["seconds"][name]
        for edge, delay in self._delays.items():
            delay.held = state["delays"][tuple(edge)]
        self._latency_s, self.steps, self.logits = state["latency_s"], state["steps"], state["logits"]
