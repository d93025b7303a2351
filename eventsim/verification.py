"""A network against its own dense form: layer by layer from equal inputs, and once end to end.

The simulator runs the network event by event, piece by piece of the time steps, and an observer runs the dense form of
every layer beside it. Three signals flow along each edge of the dense side:

- what the event-driven layer emitted;
- the same, but for sums of real values what their dense form makes of what the event-driven layers before emitted, so
  that neurons hear dense sums of the spikes that were really emitted; with it the sum of the absolute terms, of which
  rounding is a share;
- what a dense machine emits that hears nothing of the event-driven one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from eventsim.available import available_bytes
from eventsim.context import Observed
from eventsim.errors import EventsimError, InputError
from eventsim.feeding import STREAM_CHUNK
from eventsim.layers import PLIAF, AdaptiveLIF, Input, IntegerLIF, Layer, Readout, Threshold
from eventsim.layers.dense import Memory, spread, tokens
from eventsim.layers.input import Frames
from eventsim.layers.neurons.spiking import DenseStep, Neuron
from eventsim.ledger import LedgerRows
from eventsim.margin import Differences, Firing, Holding, allowed_by
from eventsim.network import Network
from eventsim.plan import Loop, Schedule
from eventsim.signals import Dense, FloatArray, Rows, SignalType, to_frames
from eventsim.simulator import Simulator
from eventsim.untrusted import blame
from eventsim.verified import LayerVerification, Verification

PIECE_BYTES = 2**30
"""So much memory a piece of the time steps may take."""
WAITING, WORKING = 24, 48
"""Bytes of a value while it waits for its listeners, and while a layer is at work on it (float64, terms, copies)."""
WEIGHT = 20
"""Bytes of a weight while its layer is at work: unpacked, absolute, float64."""


def verify(
    network: Network,
    frames: npt.ArrayLike | Iterator[npt.ArrayLike],
    time_steps: int | None = None,
    *,
    name: str = "input",
    on_progress: Callable[[int, int | None], None] | None = None,
) -> Verification:
    r"""Run a network event by event and densely, and compare every layer.

    Each layer is given what the event-driven layers before emitted, and must emit what its dense form does: exactly
    where arithmetic is exact, else within what rounding explains. A spike may differ only where

    .. math:: |v - \theta| \le 8\, \epsilon \Big(\sum |w x| + |bias| + |v|\Big), \qquad \epsilon = 2^{-24}

    over the inputs of that neuron since its last reset to a value (the rule of `eventsim.testing.compare_layers`), and
    a real value only by as much as the same makes of its terms, with more than 8 for sums of many terms
    (`eventsim.margin.allowed_for`). Once more everything runs densely end to end, which tells how far a flip travels.

    Parameters
    ----------
    network : Network
    frames : array (T, *input shape), (*input shape) for one image shown in every step, or an iterator of time steps
    time_steps : int, optional
        For an image: how often it is shown; default is the network's.
    name : str
        Names the sample in errors.
    on_progress : callable, optional
        Called after each layer with the layers done, each as often as it has time steps, and their total, None where
        that is not known.

    Returns
    -------
    Verification

    Raises
    ------
    InputError
        If the frames do not fit the network, a layer has no dense form, or the dense form does not fit in memory.

    Examples
    --------
    >>> from eventsim import NetworkBuilder
    >>> from eventsim.layers import IF, Input, Linear, Readout
    >>> build = NetworkBuilder("two neurons")
    >>> x = build.add("input", Input((2,), "real"))
    >>> x = build.add("synapses", Linear(np.array([[0.25, 0.5], [0.5, 1.0]], np.float32)), x)
    >>> x = build.add("fire", IF(), x)
    >>> x = build.add("readout", Readout("sum"), x)
    >>> verify(build.build(), np.ones((3, 2), np.float32)).verdict
    'equal (bit for bit: 6 spikes compared in 1 layer, 18 values in 3 others)'
    """
    for layer_name, layer in network.layers.items():
        if type(layer).dense is Layer.dense:
            raise InputError(
                f"layer {layer_name}: {type(layer).__name__} of {type(layer).__module__} has no dense form, so it "
                "cannot be verified; expected a method `dense`, which docs/contributing/add-a-layer.md describes"
            )
    length = _length(network, frames, time_steps)
    beside = _Beside(network, length, on_progress)
    simulator = Simulator(network, observers=[beside])
    simulator.chunk = piece_of(simulator.schedule, network, length, name)
    if isinstance(frames, Iterator):
        frames = beside.counted(frames)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        result = simulator.run(frames, time_steps, name)
    return Verification(
        network.name, name, result.time_steps, beside.verified(), result.logits, beside.logits, network.classifies
    )


def _length(network: Network, frames: Any, time_steps: int | None) -> int | None:
    """Return the time steps of a sample, None where only its end will tell; the simulator checks the rest."""
    if isinstance(frames, Iterator) or np.ndim(frames) == 0:
        return None
    if np.ndim(frames) == len(network.input.shape):
        return time_steps or network.time_steps
    return len(frames)


def piece_of(schedule: Schedule, network: Network, length: int | None, name: str) -> int | None:
    """Return how many time steps are taken at once: None, all of them, where a layer looks ahead.

    Raises
    ------
    InputError
        If the dense form of as few steps as possible does not fit in memory; names the layer that needs the most.
    """
    each, fixed, where = needed_bytes(schedule, network)
    ahead = any(node.op.looks_ahead for node in schedule.nodes)
    piece = (length or 1) if ahead else max(1, min(PIECE_BYTES // each, length or STREAM_CHUNK))
    needed, available = piece * each + fixed, available_bytes()
    if available is not None and needed > available:
        at_once = f"all {piece} time steps at once, as a layer looks ahead" if ahead else f"{piece} time steps at once"
        raise InputError(
            f"{name}: layer {where}: {needed} bytes for the dense form of {at_once}; expected at most the {available} "
            "bytes of memory that are available; verify fewer time steps, a smaller network, or on a larger machine"
        )
    return None if ahead else piece


def needed_bytes(schedule: Schedule, network: Network) -> tuple[int, int, str]:
    """Return the bytes that every time step takes, those that do not depend on the steps, and where the most are."""
    waiting: dict[str, int] = {}
    most, where = 0, ""
    for part, done in zip(schedule.parts, schedule.done_after, strict=True):
        for node in part.nodes if isinstance(part, Loop) else (part,):
            heard = sum(kind.size for kind in network.input_types(node.name))
            waiting[node.name] = WAITING * network.types[node.name].size
            held = sum(waiting.values()) + WORKING * (heard + network.types[node.name].size)
            if held > most:
                most, where = held, node.name
        for gone in done:
            waiting.pop(gone, None)
    delayed = sum(WAITING * edge.delay * kind.size for edge, kind in schedule.delays.items())
    weights = max(sum(array.size for array in layer.arrays().values()) for layer in network.layers.values())
    return most, delayed + WEIGHT * weights, where


class _Signals(NamedTuple):
    """What flows along an edge of the dense side, over some time steps; often these are one array."""

    emitted: FloatArray
    heard: FloatArray
    terms: FloatArray
    alone: FloatArray

    def steps(self, start: int, stop: int) -> _Signals:
        return _Signals(*(array[start:stop] for array in self))


class _Waiting:
    """What one edge holds until its target asks: whatever comes in however many pieces, delayed or not."""

    def __init__(self, kind: SignalType, delay: int) -> None:
        silence = np.zeros((delay, *kind.shape), np.float32)
        self.pieces = [_Signals(silence, silence, silence, silence)]

    def push(self, signals: _Signals) -> None:
        self.pieces.append(signals)

    def pop(self, steps: int) -> _Signals:
        kept, taken = [], []
        for piece in self.pieces:
            first = piece.steps(0, steps)
            taken.append(first)
            steps -= len(first.emitted)
            if len(first.emitted) < len(piece.emitted):
                kept.append(piece.steps(len(first.emitted), len(piece.emitted)))
        self.pieces = kept
        filled = [piece for piece in taken if len(piece.emitted)] or taken[:1]
        if len(filled) == 1:
            return filled[0]
        return _Signals(*(np.concatenate(arrays) for arrays in zip(*filled, strict=True)))


@dataclass
class _Layer:
    """One layer on the dense side.

    Attributes
    ----------
    layer : Layer
    kind : SignalType
    sources : list of _Waiting
    memory, terms_memory, alone_memory : Memory
    differences, alone : Differences
        From equal inputs, and end to end.
    emitted : int
        That the event-driven layer emitted.
    firing : Firing or Holding or None
    once : tuple, optional
        What was computed for an image shown in every step.
    is_sum : bool
        Whether it is a sum of real values, with an `absolute` layer.
    steps : int
        Time steps heard.
    before : list of _Layer
        The layers heard.
    apart : bool
        Whether the machine that is dense end to end has heard anything else.
    """

    layer: Layer
    kind: SignalType
    sources: list[_Waiting]
    memory: Memory = field(default_factory=Memory)
    terms_memory: Memory = field(default_factory=Memory)
    alone_memory: Memory = field(default_factory=Memory)
    differences: Differences = field(default_factory=Differences)
    alone: Differences = field(default_factory=Differences)
    emitted: int = 0
    firing: Firing | Holding | None = None
    once: _Signals | None = None
    is_sum: bool = False
    steps: int = 0
    before: list[_Layer] = field(default_factory=list)
    apart: bool = False


class _Beside:
    """Runs the dense form of every layer right after its op has run.

    Parameters
    ----------
    network : Network
    length : int or None
        Time steps of the sample.
    on_progress : callable or None
    """

    def __init__(
        self, network: Network, length: int | None, on_progress: Callable[[int, int | None], None] | None
    ) -> None:
        self.network = network
        self.length = length
        self.on_progress = on_progress
        self.done = 0
        self.logits: FloatArray = np.empty(0, np.float32)
        self.layers: dict[str, _Layer] = {}
        self.listeners: dict[str, list[_Waiting]] = {name: [] for name in network.layers}
        for name in network.order:
            sources = []
            for edge in network.inputs[name]:
                sources.append(_Waiting(network.types[edge.source], edge.delay))
                self.listeners[edge.source].append(sources[-1])
            layer, kind = network.layers[name], network.types[name]
            self.layers[name] = _Layer(layer, kind, sources)
            self.layers[name].is_sum = kind.kind == "real" and layer.absolute() is not None
        for name, here in self.layers.items():
            here.before = [self.layers[edge.source] for edge in network.inputs[name]]

    def counted(self, frames: Iterator[npt.ArrayLike]) -> Iterator[npt.ArrayLike]:
        """Pass on the frames of a stream; its end, which is read before the last chunk runs, tells the length."""
        count = 0
        for frame in frames:
            count += 1
            yield frame
        self.length = count

    def on_layer(self, node: Observed, inputs: Sequence[Any], output: Rows | Dense, rows: LedgerRows) -> None:
        """Run the dense form of one layer over the time steps that it has just seen."""
        here = self.layers[node.name]
        final = self.length is not None and rows.start + rows.steps == self.length
        for memory in (here.memory, here.terms_memory, here.alone_memory):
            memory.final = final
        given = [
            queue.pop(rows.steps if signal.static else signal.steps)
            for queue, signal in zip(here.sources, inputs if here.sources else (), strict=True)
        ]
        if output.static:  # the same in every step of the sample, and seen once
            if here.once is None:
                given = [signals.steps(0, 1) for signals in given]
                here.once = self._run(node, here, given, inputs, to_frames(output))
            emitted = _Signals(*(np.broadcast_to(array, (rows.steps, *array.shape[1:])) for array in here.once))
        else:
            emitted = self._run(node, here, given, inputs, to_frames(output))
        for queue in self.listeners[node.name]:
            queue.push(emitted)
        if isinstance(here.layer, Readout) and len(emitted.alone):
            self.logits = emitted.alone[-1].copy()
        self.done += rows.steps
        if self.on_progress is not None:
            self.on_progress(self.done, None if self.length is None else self.length * len(self.layers))

    def _run(
        self, node: Observed, here: _Layer, given: list[_Signals], inputs: Sequence[Any], emitted: FloatArray
    ) -> _Signals:
        try:
            return self._compare(node, here, given, inputs, emitted)
        except Exception as error:  # noqa: BLE001 - raised again, with the layer it is about
            blame(error, node.name, here.layer, "the dense form of ")

    def _compare(
        self, node: Observed, here: _Layer, given: list[_Signals], inputs: Sequence[Any], emitted: FloatArray
    ) -> _Signals:
        layer, found = here.layer, here.differences
        if here.kind.kind != "real":
            here.emitted += int(np.rint(emitted.sum(dtype=np.float64)))
        alone = tuple(signals.alone for signals in given)
        if isinstance(layer, Input):
            assert isinstance(inputs[0], Frames)
            alone = (inputs[0].array,)
        if isinstance(layer, (Neuron, AdaptiveLIF)) and not isinstance(layer, PLIAF):
            dense = self._checked(node.name, layer.dense(alone, here.alone_memory), emitted)
            if here.kind.kind == "real":  # potentials show the rounding of what they take in
                found.allowed = max(
                    found.allowed, *(each.differences.allowed for each in here.before if each.is_sum), 0
                )
            self._fire(node, here, given[0], emitted)
            here.alone.take_values(dense, emitted, None)
            return _Signals(emitted, emitted, np.abs(emitted), dense)
        sums = here.is_sum or isinstance(layer, Threshold)
        if here.kind.kind == "real":
            here.steps += max((len(signals.heard) for signals in given), default=0)
            found.allowed = max(
                found.allowed,
                allowed_by(
                    layer, self.network.input_types(node.name), here.kind, here.steps if node.op.state_names else 1
                ),
                *(source.differences.allowed for source in here.before if here.is_sum and source.is_sum),
            )
        heard = tuple(signals.heard if sums else signals.emitted for signals in given) if given else alone
        before = copy.copy(here.memory.kept)
        values = self._checked(node.name, layer.dense(heard, here.memory), emitted)
        terms = None
        if here.is_sum and (absolute := layer.absolute()) is not None:
            terms = absolute.dense(tuple(signals.terms for signals in given), here.terms_memory)
        elif here.kind.kind == "real":
            terms = layer.terms(heard, values, here.terms_memory)
        if isinstance(layer, Threshold):
            threshold = spread(layer.threshold, emitted.shape[1:])
            distance = np.abs(heard[0].astype(np.float64) - threshold)
            found.take_spikes(values != emitted, distance, given[0].terms.astype(np.float64) + np.abs(threshold))
        else:
            found.take_values(values, emitted, terms)
        if not here.apart and not all(a is b or np.array_equal(a, b) for a, b in zip(alone, heard, strict=True)):
            here.apart, here.alone_memory = True, Memory(before, here.memory.final)
        dense = self._checked(node.name, layer.dense(alone, here.alone_memory), emitted) if here.apart else values
        here.alone.take_values(dense, emitted, None)
        if terms is None or not here.is_sum:
            return _Signals(emitted, emitted, np.abs(emitted), dense)
        return _Signals(emitted, values, terms, dense)

    @staticmethod
    def _checked(name: str, dense: FloatArray, emitted: FloatArray) -> FloatArray:
        if dense.shape != emitted.shape or dense.dtype != np.float32:
            raise EventsimError(
                f"layer {name}: {dense.dtype} {dense.shape} of its dense form found; the event-driven layer emits "
                f"float32 {emitted.shape}, expected the same"
            )
        return dense

    def _fire(self, node: Observed, here: _Layer, given: _Signals, emitted: FloatArray) -> None:
        """Step through neurons beside the spikes that were emitted."""
        layer = cast(Neuron | AdaptiveLIF, here.layer)
        shape = emitted.shape[1:]
        if here.firing is None:
            floor = getattr(layer, "v_min", None)

            def step(v: FloatArray, x: FloatArray) -> tuple[DenseStep, FloatArray]:
                happened = layer.step(v, x, here.memory)
                return happened, layer.after(happened.charged, happened.late, happened.spikes)

            threshold = spread(layer.v_threshold, shape)
            floor = None if floor is None else spread(floor, shape)
            if isinstance(layer, Neuron) and layer.emits != "spikes":
                here.firing = Holding(layer, threshold, floor, step, layer.rest(shape))
            else:
                here.firing = Firing(layer, threshold, floor, step, layer.rest(shape))
        here.firing.take(given.heard, emitted, given.terms, here.differences)
        potential = getattr(node.op, "potential", None)
        if isinstance(potential, np.ndarray) and len(emitted):
            ours = tokens(here.firing.potential[None])[0]
            apart = float(np.abs(ours.astype(np.float64) - potential.reshape(ours.shape)).max(initial=0))
            here.differences.largest_difference = max(here.differences.largest_difference, apart)

    def verified(self) -> list[LayerVerification]:
        """Return how every layer compares, in order of execution."""
        return [
            LayerVerification(
                name,
                type(here.layer).__name__,
                isinstance(here.firing, Firing) or isinstance(here.layer, (IntegerLIF, Threshold)),
                here.differences.compared,
                here.emitted,
                here.differences.differing,
                here.differences.outside,
                here.differences.largest_distance,
                here.differences.largest_difference,
                here.differences.largest_ratio,
                here.differences.allowed,
                here.alone.differing,
                here.alone.largest_difference,
            )
            for name, here in self.layers.items()
        ]
