"""A network against the spikes of another simulator, layer by layer, each from equal inputs.

With real weights the order of float32 additions differs, so that a neuron near its threshold may flip, and one flip
travels on. Each layer of neurons is therefore given what the other simulator's layers emitted, and a spike may differ
only where the potential is as near to the threshold as additions in another order can make it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from eventsim.context import Context
from eventsim.delay import Delay
from eventsim.errors import InputError
from eventsim.layers import PLIAF, AdaptiveLIF, GlobalContext, Input, Threshold
from eventsim.layers.dense import Memory, Reals, in_shape, tokens
from eventsim.layers.input import Frames
from eventsim.layers.listing import rows_from_dense
from eventsim.layers.neurons.spiking import LATE, DenseStep, Neuron, rows_of
from eventsim.ledger import Ledger
from eventsim.margin import Differences, Firing, Holding
from eventsim.network import Network
from eventsim.plan import Node, plan
from eventsim.signals import FLOAT32_MAX, Dense, FloatArray, Signal, SignalType


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
    terms: Mapping[str, Mapping[str, FloatArray]] | None = None,
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
    terms : mapping of str to mapping of str to float32 array, optional
        By layer and field, such as ``"bias"``: sums of absolute values, where the field's numbers are sums themselves,
        as of a normalisation or a convolution folded in.

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
        self,
        network: Network,
        frames: FloatArray,
        emitted: Mapping[str, FloatArray],
        terms: Mapping[str, Mapping[str, FloatArray]],
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
        terms = np.asarray(sum(self._bound(edge.source).astype(np.float64) for edge in node.inputs))
        found = Differences()
        if isinstance(layer, Neuron) and not isinstance(layer, PLIAF):
            _fire(layer, arriving[0], theirs, terms, found)
        elif isinstance(layer, AdaptiveLIF):
            _fire_adaptive(layer, arriving[0], theirs, terms, found)
        elif isinstance(layer, Threshold):
            x = np.array(arriving[0].to_array(), np.float64).reshape(theirs.shape)
            threshold = rows_of(layer.threshold, "threshold", arriving[0].type)
            found.take_spikes(
                ours != theirs, np.abs(x - threshold), np.cumsum(terms, axis=0) + np.abs(threshold).astype(np.float64)
            )
        else:
            found.take_values(ours, theirs, np.cumsum(terms, axis=0))
        return LayerComparison(name, spikes, found.differing, found.outside, found.largest_ratio)

    def _bound(self, name: str) -> FloatArray:
        """Return the sum of the absolute values of the terms that a layer adds up, (T, positions, channels)."""
        if name not in self.bounds:
            kind = self.network.types[name]
            self.bounds[name] = self._bounded(name).reshape(self.steps, kind.positions, kind.channels)
        return self.bounds[name]

    def _bounded(self, name: str) -> FloatArray:
        layer, node = self.network.layers[name], self.nodes[name]
        absolute = layer.absolute()
        if isinstance(layer, GlobalContext) and name not in self.theirs:
            (edge,) = node.inputs
            return np.asarray(self._bound(edge.source).ravel() + np.abs(self._signal(name).to_array()).ravel())
        if name in self.theirs or absolute is None:
            return np.abs(self._signal(name).to_array())
        absolute = replace(absolute, **self.terms.get(name, {}))
        given = []
        for edge in node.inputs:
            bound, kind = self._bound(edge.source), self.network.types[edge.source]
            dense = SignalType("real", kind.channels, kind.grid, dense=True)
            signal = Dense(dense, self.steps, np.ascontiguousarray(bound.reshape(-1, kind.channels)))
            given.append(Delay(dense, edge.delay).shift(signal) if edge.delay else signal)
        output = absolute.op(*(signal.type for signal in given)).advance(tuple(given), self._context(node))
        return np.array(output.to_array())


def _fire(layer: Neuron, signal: Signal, theirs: FloatArray, terms: Reals, found: Differences) -> None:
    """Step through neurons by the op of those that spike."""
    kind, steps = signal.type, signal.steps
    beside = Firing if layer.emits == "spikes" else Holding
    spiking = replace(layer, emits="spikes")
    dense = SignalType("real", kind.channels, kind.grid, dense=True)
    op = spiking.op(dense)
    never = replace(spiking, v_threshold=FLOAT32_MAX / 4, reset="zero", multiple_spikes=False, v_min=None).op(dense)
    threshold = rows_of(layer.v_threshold, "v_threshold", kind)
    floor = None if layer.v_min is None else rows_of(layer.v_min, "v_min", kind)
    ledger = Ledger({"": op}, 1)
    context = Context(True, ledger.rows("", 0, 1))

    def step(v: FloatArray, x: FloatArray) -> tuple[DenseStep, FloatArray]:
        given = (Dense(dense, 1, np.ascontiguousarray(x)),)
        never.restore({"potential": v})
        never.advance(given, context)
        charged = np.array(never.state()["potential"])
        late = np.zeros(x.shape, np.bool_)
        if layer.reset in LATE:
            late = v > threshold if layer.strict else v >= threshold
            charged = np.where(late, 0, charged) if layer.reset == "zero_late" else charged - late * threshold
        op.restore({"potential": v})
        spikes = op.advance(given, context).to_array().reshape(x.shape)
        return DenseStep(charged, late, spikes), np.array(op.state()["potential"])

    current = np.array(signal.to_array()).reshape(steps, kind.positions, kind.channels)
    beside(layer, threshold, floor, step, np.array(op.state()["potential"])).take(current, theirs, terms, found)


def _fire_adaptive(layer: AdaptiveLIF, signal: Signal, theirs: FloatArray, terms: Reals, found: Differences) -> None:
    """Step through neurons with coefficients of their own by their op; the dense form tells the terms of a charge."""
    kind, memory = signal.type, Memory()
    dense = SignalType("real", kind.channels, kind.grid, dense=True)
    op, never = layer.op(dense), replace(layer, v_threshold=FLOAT32_MAX / 4, reset="zero").op(dense)
    context = Context(True, Ledger({"": op}, 1).rows("", 0, 1))

    def step(v: FloatArray, x: FloatArray) -> tuple[DenseStep, FloatArray]:
        given, before = (Dense(dense, 1, np.ascontiguousarray(x)),), {**op.state(), "potential": v}
        never.restore(before)
        never.advance(given, context)
        op.restore(before)
        spikes = op.advance(given, context).to_array().reshape(x.shape)
        one, other = (in_shape(each[None], kind.shape)[0] for each in (v, x))
        happened = layer.step(one, other, memory)
        assert happened.terms is not None
        charged = np.array(never.state()["potential"])
        return DenseStep(charged, np.zeros(x.shape, np.bool_), spikes, tokens(happened.terms[None])[0]), np.array(
            op.state()["potential"]
        )

    current = np.array(signal.to_array()).reshape(signal.steps, kind.positions, kind.channels)
    threshold = np.asarray(layer.v_threshold, np.float32)
    Firing(layer, threshold, None, step, np.array(op.state()["potential"])).take(current, theirs, terms, found)
