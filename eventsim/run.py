"""The chunk loop: one sample, or one stream, on its way through the network."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from operator import attrgetter
from typing import Any

import numpy as np

from eventsim.buffers import Buffers
from eventsim.context import Context, Observer
from eventsim.delay import Delay
from eventsim.errors import InputError, LayerError
from eventsim.feeding import Chunk
from eventsim.layers.time.steps import join_steps, take_steps
from eventsim.ledger import Ledger
from eventsim.network import Edge
from eventsim.plan import Loop, Node, Schedule
from eventsim.profile import LayerProfile
from eventsim.recorder import Recorder
from eventsim.result import Result
from eventsim.signals import Dense, FloatArray, Rows, Signal, as_static
from eventsim.traffic import report_traffic
from eventsim.untrusted import blame
from eventsim.values import Values, watch
from eventsim.workers import ALONE, Workers

Signals = dict[str, Signal]
STATIC = attrgetter("static")
WATCHED = ("pool", "join")
"""Roles of layers whose inputs are looked at, besides those of layers that multiply."""


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
        self._nodes = {node.name: replace(node, op=node.op.fork()) for node in schedule.nodes}
        self._recorder = Recorder(record, potentials)
        self._observers = (*observers, self._recorder) if record else tuple(observers)
        self._potentials = frozenset(potentials)
        self._buffers = Buffers()
        self.begin(None)

    def begin(self, time_steps: int | None) -> None:
        """Forget everything; a sample of so many time steps follows, or, with None, a stream."""
        for node in self._nodes.values():
            node.op.reset()
        self._delays = {edge: Delay(kind, edge.delay) for edge, kind in self._schedule.delays.items()}
        self._ledger = Ledger(self._nodes, time_steps)
        self._values = {
            name: tuple(Values() for _ in node.inputs)
            for name, node in self._nodes.items()
            if node.facts.dense_macs or node.facts.role in WATCHED
        }
        self._seen = dict.fromkeys(self._nodes, 0)
        self._seconds = dict.fromkeys(self._nodes, 0.0)
        self._static: Signals = {}
        self._recorder.take()
        self._latency_s = 0.0
        self._latencies: list[float] = []
        self._step_logits: list[FloatArray] = []
        self.steps = 0
        self.logits: FloatArray = np.empty(0, np.float32)

    def advance(self, chunk: Chunk) -> None:
        """Take the next time steps through every layer."""
        began = time.perf_counter()
        signals: Signals = {}
        for part, done in zip(self._schedule.parts, self._schedule.done_after, strict=True):
            if isinstance(part, Loop):
                self._run_loop(part, signals, chunk)
            else:
                self._run_node(self._nodes[part.name], signals, chunk)
            if self._schedule.output in done and signals[self._schedule.output].steps:
                if self._ledger.time_steps is None:  # of a stream, nothing that grows
                    self._step_logits.clear()
                self._step_logits.append(signals[self._schedule.output].to_array().copy())
                self.logits = self._step_logits[-1][-1]
            for name in done:
                signals.pop(name, None)
        self.steps += chunk.steps
        if self._ledger.time_steps is None or not chunk.final:
            self._ledger.settle()
        self._latencies.append(time.perf_counter() - began)
        self._latency_s += self._latencies[-1]

    def _run_node(self, node: Node, signals: Signals, chunk: Chunk) -> None:
        """Run one layer; once per sample, where nothing changes from one time step to the next."""
        given: tuple[Any, ...] = (chunk.frames,)
        if node.delayed:
            heard = {edge: self._heard(edge, signals, chunk) for edge in dict.fromkeys(node.inputs)}
            given = tuple(map(heard.__getitem__, node.inputs))
        elif node.sources:
            given = tuple(map(signals.__getitem__, node.sources))
        static = list(map(STATIC, given))  # of a few layers; `map`, as Python's own steps are what a small layer takes
        if node.op.once_if_static and False not in static:
            if node.name not in self._static:
                self._static[node.name] = as_static(self._execute(node, given, self.steps, 1, chunk))
            signals[node.name] = self._static.pop(node.name) if chunk.final else self._static[node.name]
            self._seen[node.name] += chunk.steps
            steps = chunk.steps
        else:
            if node.sources and True in static:
                given = tuple(self._expanded(signal, chunk.steps) for signal in given)
            steps = given[0].steps  # fewer than the chunk's, behind a mean over time: the last of them
            at = self.steps + chunk.steps - steps
            execute = self._execute_each if node.name in self._potentials and steps > 1 else self._execute
            signals[node.name] = execute(node, given, at, steps, chunk)
            self._seen[node.name] += steps
        if self._observers:
            self._tell(node, given, signals[node.name], self.steps + chunk.steps - steps, steps)

    def _expanded(self, signal: Signal, steps: int) -> Signal:
        """Repeat a static signal, in memory used before."""
        if not (signal.static and isinstance(signal, Dense)):
            return signal.expand(steps)
        repeated = self._buffers.floats(steps * signal.data.size).reshape(steps, *signal.data.shape)
        repeated[:] = signal.data
        return Dense(signal.type, steps, repeated.reshape(-1, signal.type.channels))

    def _heard(self, edge: Edge, signals: Signals, chunk: Chunk) -> Signal:
        """Return what arrives over an edge whose source has run."""
        if not edge.delay:
            return signals[edge.source]
        return self._delays[edge].shift(signals[edge.source].expand(chunk.steps))

    def _run_loop(self, loop: Loop, signals: Signals, chunk: Chunk) -> None:
        """Run the layers of a cycle one time step after the other."""
        inside = {node.name: self._nodes[node.name] for node in loop.nodes}
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
            for name, node in inside.items():
                given = tuple(arriving[edge] if edge in arriving else emitted[edge.source] for edge in node.inputs)
                output = emitted[name] = self._execute(node, given, self.steps + step, 1, last)
                if output.steps != 1:
                    raise InputError(f"layer {name}: emits {output.steps} time steps for one; expected 1 in a loop")
                self._seen[name] += 1
                self._tell(node, given, output, self.steps + step, 1)
            for edge, delay in waiting.items():
                delay.take(emitted[edge.source])
            for name, steps in leaving.items():
                steps.append(join_steps(emitted[name]))  # a copy: the op reuses its buffers in the next step
        for name, steps in leaving.items():
            signals[name] = join_steps(*steps)

    def _execute_each(self, node: Node, given: tuple[Any, ...], start: int, steps: int, chunk: Chunk) -> Signal:
        """Run a layer one time step after the other, whatever the chunk, so that there is a potential after each."""
        emitted = []
        for step in range(steps):
            one = tuple(take_steps(signal, step, step + 1) for signal in given)
            last = replace(chunk, steps=1, final=chunk.final and step == steps - 1)
            emitted.append(join_steps(self._execute(node, one, start + step, 1, last)))
        return join_steps(*emitted)

    def _execute(self, node: Node, given: tuple[Any, ...], start: int, steps: int, chunk: Chunk) -> Signal:
        began = time.perf_counter()
        context = Context(
            chunk.final, self._ledger.rows(node.name, start, steps), self.workers, self._observers, self._buffers
        )
        try:
            if seen := self._values.get(node.name):  # first: what was emitted last is still in the caches
                watch(seen, given, context.rows if node.facts.dense_macs else None)
            output = node.op.advance(given, context)
            if not isinstance(output, (Rows, Dense)):
                raise LayerError(f"emits {type(output).__name__}; expected Rows or Dense")
            if steps == 1 and node.name in self._potentials:
                self._recorder.on_step(node, output.type)
            report_traffic(given, output, node.facts, context.rows)
            return output
        except Exception as error:  # noqa: BLE001 - raised again, with the layer it is about
            blame(error, node.name, node.op)
        finally:
            self._seconds[node.name] += time.perf_counter() - began

    def _tell(self, node: Node, given: tuple[Any, ...], output: Signal, start: int, steps: int) -> None:
        for observer in self._observers:
            observer.on_layer(node, given, output, self._ledger.rows(node.name, start, steps))

    def result(self) -> Result:
        """Return what has been computed so far; of a stream, recorded outputs and latencies of the steps since."""
        profile = [
            LayerProfile(
                node.name,
                node.kind,
                node.op.kernel,
                node.facts,
                self._seen[node.name],
                self._seconds[node.name],
                self._ledger.columns(node.name),
                self._ledger.time_steps is not None,
                self._values_of(node.name),
                node.sources,
            )
            for node in self._nodes.values()
        ]
        latencies, self._latencies = self._latencies, []
        step_logits, self._step_logits = self._step_logits, []
        recorded, potentials = self._recorder.take()
        return Result(
            self.logits.copy(),
            self.steps,
            profile,
            latencies,
            recorded,
            self._latency_s,
            np.concatenate(step_logits) if step_logits else self.logits[None],
            potentials,
        )

    def _values_of(self, layer: str) -> tuple[Values, ...]:
        """Return what is known of a layer's inputs; of a stream, which goes on, as it is now."""
        values = self._values.get(layer, ())
        return values if self._ledger.time_steps is not None else tuple([each.copy() for each in values])

    def state(self) -> dict[str, Any]:
        """Return everything that the next time step depends on, and the sums so far, as plain data."""
        return {
            "ops": {name: node.op.state() for name, node in self._nodes.items()},
            "delays": {tuple(edge): delay.held for edge, delay in self._delays.items()},
            "ledger": self._ledger.state(),
            "values": {name: tuple(map(asdict, values)) for name, values in self._values.items()},
            "seen": dict(self._seen),
            "seconds": dict(self._seconds),
            "latency_s": self._latency_s,
            "steps": self.steps,
            "logits": self.logits.copy(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken: of a run of the same schedule, between two time steps of a stream."""
        state = copy.deepcopy(state)
        self.begin(None)
        for name, node in self._nodes.items():
            node.op.restore(state["ops"][name])
        for edge, delay in self._delays.items():
            delay.held = state["delays"][tuple(edge)]
        self._ledger.restore(state["ledger"])
        self._values = {name: tuple(Values(**values) for values in inputs) for name, inputs in state["values"].items()}
        self._seen, self._seconds = state["seen"], state["seconds"]
        self._latency_s, self.steps, self.logits = state["latency_s"], state["steps"], state["logits"]
