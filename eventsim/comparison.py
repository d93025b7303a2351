"""A network against the spikes of another simulator, layer by layer, each from equal inputs.

With real weights the order of float32 additions differs, so that a neuron near its threshold may flip, and one flip
travels on. Each layer of neurons is therefore given what the other simulator's layers emitted, and a spike may differ
only where the potential is as near to the threshold as additions in another order can make it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from eventsim.adaptive_comparison import differing_spikes
from eventsim.context import Context
from eventsim.delay import Delay
from eventsim.errors import InputError
from eventsim.layers import (
    AdaptiveLIF,
    Affine,
    Concat,
    Flatten,
    GlobalContext,
    Input,
    Layer,
    PositionEncoding,
    Reshape,
    Residual,
    SelectChannels,
    Threshold,
)
from eventsim.layers.input import Frames
from eventsim.layers.listing import rows_from_dense
from eventsim.layers.neurons.spiking import Neuron, rows_of
from eventsim.ledger import Ledger
from eventsim.network import Network
from eventsim.plan import Node, plan
from eventsim.signals import FLOAT32_MAX, Dense, FloatArray, Signal, SignalType

ALLOWED = 8
"""Largest ratio of a difference to what rounding makes of the terms of a sum."""
EPSILON = float(np.finfo(np.float32).eps) / 2
LATE = ("subtract_late", "subtract_once", "zero_late")
KEEP_BOUNDS = (Concat, Flatten, Reshape, Residual, SelectChannels)

Reals = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LayerComparison:
    """How a layer of neurons compares.

    Attributes
    ----------
    name : str
    spikes : int
        That the other simulator's layer emitted.
    differing : int
        Values of the layer's output that differ.
    outside : int
        Of those, the ones that rounding does not explain.
    largest_ratio : float
        Of the distance from the threshold to eps times the sum of the absolute terms, where spikes differ; up to 8 is
        explained.
    """

    name: str
    spikes: int
    differing: int
    outside: int
    largest_ratio: float


def compare_layers(
    network: Network,
    frames: FloatArray,
    emitted: Mapping[str, FloatArray],
    terms: Mapping[str, FloatArray] | None = None,
) -> list[LayerComparison]:
    r"""Compare layers of neurons, each from equal inputs.

    A spike may differ only where

    .. math:: |v - \theta| \le 8\, \epsilon \Big(\sum |w x| + |bias| + |v|\Big), \qquad \epsilon = 2^{-24}

    over the inputs of that neuron since its last reset to a value.

    Parameters
    ----------
    network : Network
    frames : float32 array (T, *input shape)
    emitted : mapping of str to array (T, C, H, W), (T, N, C) or (T, C)
        What the other simulator's layers emitted, by the names of layers.
    terms : mapping of str to float32 array (channels,), optional
        Absolute values of the terms of a layer's bias, where it is a sum itself, as of a normalisation folded in.

    Returns
    -------
    list of LayerComparison
        In the order of execution.

    Raises
    ------
    InputError
        If a layer is not there or of another shape.

    Examples
    --------
    The first neuron gets 0.1 + 0.9, its threshold but for rounding, so that it may fire or not; the second gets 0.75:

    >>> from eventsim import NetworkBuilder
    >>> from eventsim.layers import IF, Input, Linear, Readout
    >>> build = NetworkBuilder("two neurons")
    >>> x = build.add("input", Input((2,), "real"))
    >>> x = build.add("synapses", Linear(np.array([[0.1, 0.9], [0.5, 0.25]], np.float32)), x)
    >>> x = build.add("fire", IF(), x)
    >>> x = build.add("readout", Readout("sum"), x)
    >>> network, frames = build.build(time_steps=1), np.ones((1, 2), np.float32)
    >>> compare_layers(network, frames, {"fire": np.array([[0, 0]])})
    [LayerComparison(name='fire', spikes=0, differing=1, outside=0, largest_ratio=0.0)]
    >>> (layer,) = compare_layers(network, frames, {"fire": np.array([[0, 1]])})
    >>> layer.differing, layer.outside
    (2, 1)
    """
    return _Comparison(network, frames, emitted, terms or {}).layers()


class _Comparison:
    def __init__(
        self, network: Network, frames: FloatArray, emitted: Mapping[str, FloatArray], terms: Mapping[str, FloatArray]
    ) -> None:
        self.network, self.steps, self.terms = network, len(frames), terms
        self.nodes = {node.name: node for node in plan(network).nodes}
        self.ledger = Ledger(self.nodes, self.steps)
        self.frames = frames
        self.signals: dict[str, Signal] = {}
        self.bounds: dict[str, FloatArray] = {}
        self.theirs = {name: self._rows(name, np.asarray(array, np.float32)) for name, array in emitted.items()}
        for name, array in self.theirs.items():
            kind = network.types[name]
            data = array.reshape(-1, kind.channels)
            self.signals[name] = (
                Dense(kind, self.steps, data) if kind.dense else rows_from_dense(kind, self.steps, data)
            )

    def _rows(self, name: str, array: FloatArray) -> FloatArray:
        """Return an array as (T, positions, channels)."""
        if name not in self.nodes:
            raise InputError(f"layer {name}: not in network {self.network.name}; expected one of its layers")
        kind = self.network.types[name]
        if array.shape != (self.steps, *kind.shape):
            raise InputError(f"layer {name}: array {array.shape} found; expected {(self.steps, *kind.shape)}")
        if len(kind.grid) == 2:
            array = np.moveaxis(array, 1, -1)
        return np.ascontiguousarray(array).reshape(self.steps, kind.positions, kind.channels)

    def layers(self) -> list[LayerComparison]:
        return [self._compare(name) for name in self.network.order if name in self.theirs]

    def _arriving(self, node: Node) -> list[Signal]:
        arriving = []
        for edge in node.inputs:
            signal = self._signal(edge.source)
            arriving.append(Delay(signal.type, edge.delay).shift(signal) if edge.delay else signal)
        return arriving

    def _signal(self, name: str) -> Signal:
        """Return what a layer emits where those before it emit what the other simulator's did."""
        if name not in self.signals:
            node = self.nodes[name]
            op = node.op.fork()
            if isinstance(self.network.layers[name], Input):
                self.signals[name] = op.advance((Frames(self.frames, False),), self._context(node))
            else:
                self.signals[name] = op.advance(tuple(self._arriving(node)), self._context(node))
        return self.signals[name]

    def _context(self, node: Node) -> Context:
        return Context(True, self.ledger.rows(node.name, 0, self.steps))

    def _compare(self, name: str) -> LayerComparison:
        node, layer = self.nodes[name], self.network.layers[name]
        theirs = self.theirs[name]
        spikes = int(np.count_nonzero(theirs))
        op = node.op.fork()
        arriving = self._arriving(node)
        ours = op.advance(tuple(arriving), self._context(node)).to_array().reshape(theirs.shape)
        if np.array_equal(ours, theirs):
            return LayerComparison(name, spikes, 0, 0, 0.0)
        terms = sum(self._bound(edge.source).astype(np.float64) for edge in node.inputs)
        if isinstance(layer, Neuron):
            return _fired(name, layer, arriving[0], theirs, np.asarray(terms))
        if isinstance(layer, AdaptiveLIF):
            differing, ratios = differing_spikes(layer, arriving[0], theirs, np.asarray(terms))
            outside = int((ratios > ALLOWED).sum())
            return LayerComparison(name, spikes, differing, outside, float(ratios.max(initial=0)))
        if isinstance(layer, Threshold):
            return _above(name, layer, arriving[0], ours, theirs, np.asarray(terms))
        allowed = np.cumsum(np.asarray(terms), axis=0) + np.abs(theirs)
        difference = np.abs(ours.astype(np.float64) - theirs)
        ratio = difference / (EPSILON * np.maximum(allowed, np.finfo(np.float32).tiny))
        return LayerComparison(
            name, spikes, int((difference > 0).sum()), int((ratio > ALLOWED).sum()), float(ratio.max(initial=0))
        )

    def _bound(self, name: str) -> FloatArray:
        """Return the sum of the absolute values of the terms that a layer adds up, (T, positions, channels)."""
        if name not in self.bounds:
            kind = self.network.types[name]
            self.bounds[name] = self._bounded(name).reshape(self.steps, kind.positions, kind.channels)
        return self.bounds[name]

    def _bounded(self, name: str) -> FloatArray:
        layer, node = self.network.layers[name], self.nodes[name]
        arrays = layer.arrays()
        if isinstance(layer, GlobalContext) and name not in self.theirs:
            (edge,) = node.inputs
            return np.array(self._bound(edge.source).reshape(-1) + np.abs(self._signal(name).to_array()).reshape(-1))
        sums = isinstance(layer, Affine | PositionEncoding) or (
            "weight" in arrays and arrays.keys() <= {"weight", "bias"}
        )
        if name in self.theirs or not (sums or isinstance(layer, KEEP_BOUNDS)):
            return np.abs(self._signal(name).to_array())
        changed = {field: np.abs(array) for field, array in arrays.items() if field != "indices"}
        if name in self.terms:
            changed["shift" if isinstance(layer, Affine) else "bias"] = self.terms[name]
        given = []
        for edge in node.inputs:
            bound, kind = self._bound(edge.source), self.network.types[edge.source]
            dense = SignalType("real", kind.channels, kind.grid, dense=True)
            signal = Dense(dense, self.steps, np.ascontiguousarray(bound.reshape(-1, kind.channels)))
            given.append(Delay(dense, edge.delay).shift(signal) if edge.delay else signal)
        absolute: Layer = replace(layer, **changed)
        output = absolute.op(*(signal.type for signal in given)).advance(tuple(given), self._context(node))
        return np.array(output.to_array())


def _fired(name: str, layer: Neuron, signal: Signal, theirs: FloatArray, terms: Reals) -> LayerComparison:
    """Step through neurons, and take the other's side where a spike differs."""
    kind, steps = signal.type, signal.steps
    current = np.array(signal.to_array()).reshape(steps, kind.positions, kind.channels)
    dense = SignalType("real", kind.channels, kind.grid, dense=True)
    op = layer.op(dense)
    never = replace(layer, v_threshold=FLOAT32_MAX / 4, reset="zero", multiple_spikes=False, v_min=None).op(dense)
    threshold = rows_of(layer.v_threshold, "v_threshold", kind)
    floor = None if layer.v_min is None else rows_of(layer.v_min, "v_min", kind)
    ledger = Ledger({name: op}, 1)
    context = Context(True, ledger.rows(name, 0, 1))
    sums: Reals = np.zeros(current.shape[1:])
    differing = outside = 0
    largest = 0.0
    for x, fired, added in zip(current, theirs, terms, strict=True):
        given = (Dense(dense, 1, np.ascontiguousarray(x)),)
        before = np.array(op.state()["potential"])
        never.restore({"potential": before})
        never.advance(given, context)
        charged = np.array(never.state()["potential"]).reshape(x.shape)
        late = np.zeros(x.shape, np.bool_)
        if layer.reset in LATE:
            above = np.greater if layer.strict else np.greater_equal
            late = above(before.reshape(x.shape), threshold)
            charged = np.where(late, 0, charged) if layer.reset == "zero_late" else charged - late * threshold
        ours = op.advance(given, context).to_array().reshape(x.shape)
        sums += added
        wrong = ours != fired
        if wrong.any():
            # every threshold between the two numbers of spikes
            ends = threshold * (np.minimum(ours, fired) + 1), threshold * np.maximum(ours, fired)
            distance = np.maximum(*(np.abs(charged.astype(np.float64) - end) for end in ends))
            ratio = (distance / (EPSILON * (sums + np.abs(charged) + np.abs(threshold))))[wrong]
            differing += int(wrong.sum())
            outside += int((ratio > ALLOWED).sum())
            largest = max(largest, float(ratio.max()))
            after = np.array(op.state()["potential"])
            corrected = _after(layer, charged, fired, threshold, late)
            if floor is not None:
                corrected = np.maximum(corrected, floor)
            after.reshape(x.shape)[wrong] = corrected[wrong]
            op.restore({"potential": after})
        if layer.reset == "zero":
            sums[fired != 0] = 0
    return LayerComparison(name, int(np.count_nonzero(theirs)), differing, outside, largest)


def _after(
    layer: Neuron, charged: FloatArray, fired: FloatArray, threshold: FloatArray, late: npt.NDArray[np.bool_]
) -> FloatArray:
    """Return the potentials that the other simulator's spikes leave, where it took the other side of the threshold."""
    if layer.reset == "zero":
        return np.where(fired != 0, 0, charged).astype(np.float32)
    if layer.reset == "subtract":
        return (charged - fired * threshold).astype(np.float32)
    # of a reset that is to come, the potential itself tells whether there was a spike
    above = np.nextafter(threshold, np.float32(np.inf)) if layer.strict else threshold
    below = threshold if layer.strict else np.nextafter(threshold, -np.float32(np.inf))
    beside = np.where(fired != 0, above, below)
    if layer.reset == "subtract_once":
        return np.where(late == (fired != 0), beside, charged - (fired - late) * threshold).astype(np.float32)
    return beside.astype(np.float32)


def _above(
    name: str, layer: Threshold, signal: Signal, ours: FloatArray, theirs: FloatArray, terms: Reals
) -> LayerComparison:
    """Compare spikes of a threshold without memory."""
    x = np.array(signal.to_array(), np.float64).reshape(theirs.shape)
    threshold = rows_of(layer.threshold, "threshold", signal.type)
    wrong = ours != theirs
    allowed = EPSILON * (np.cumsum(terms, axis=0) + np.abs(threshold))
    ratio = (np.abs(x - threshold) / np.maximum(allowed, np.finfo(np.float32).tiny))[wrong]
    return LayerComparison(
        name, int(np.count_nonzero(theirs)), int(wrong.sum()), int((ratio > ALLOWED).sum()), float(ratio.max(initial=0))
    )
