"""The nodes and edges of a NIR graph."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from eventsim import layers
from eventsim.errors import InputError
from eventsim.exporting.nodes import NODES, Fields, NoNodeError, Place, only_integrates
from eventsim.layers import Layer
from eventsim.network import Edge, Network
from eventsim.preparation_options import PREPARED

DT = 1e-4
"""Time step in seconds where the network knows none: that of snnTorch, SpikingJelly and Lava."""

COMMON = ("reset", "reset_delay", "strict", "multiple_spikes", "v_min", "decay")
"""What every neuron says, and the graph as well if all of them say the same."""

CONVOLUTION = (layers.Conv2d,)

MATRICES = (layers.Linear, layers.SparseLinear)


class Heard(NamedTuple):
    """A node that is heard, and how many time steps later."""

    node: str
    delay: int


class Graph:
    """Nodes and edges of one network.

    Parameters
    ----------
    network : Network
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.dt = _dt(network)
        self.nodes: dict[str, Fields] = {}
        self.edges: list[tuple[str, str]] = []
        self.chains = {name: self._chain(name) for name in network.layers}
        absorbed = {each for chain in self.chains.values() for each in chain}
        self.passed = self._passed()
        for name in network.order:
            self._check_name(name)
            if name not in absorbed and name not in self.passed:
                self.nodes[name] = self._node(name)
        for name in list(self.nodes):
            self._connect(name)

    def fields(self) -> Fields:
        """Return what the file holds under its root."""
        metadata: Fields = {"framework": "nir", "dt": repr(self.dt), "input_kind": self.network.input.kind}
        said = [node["metadata"] for node in self.nodes.values() if "metadata" in node]
        for key in COMMON:
            values = {each[key] for each in said if isinstance(each.get(key), str)}
            if len(values) == 1 and not any(isinstance(each.get(key), np.ndarray) for each in said):
                metadata[key] = values.pop()
        if self.network.time_steps is not None:
            metadata["time_steps"] = str(self.network.time_steps)
        for layer in self.network.layers.values():
            if isinstance(layer, layers.Readout):
                metadata["readout"] = layer.reduce
        for setting in self.network.settings:  # what was assumed is not made a fact by writing it down
            if setting.option in PREPARED and setting.source != "assumed":
                metadata[setting.option] = setting.shown
        return {"type": "NIRGraph", "nodes": self.nodes, "edges": self.edges, "metadata": metadata}

    def _check_name(self, name: str) -> None:
        if not name or "/" in name or name in (".", ".."):
            raise InputError(f"layer {name}: name that a NIR file cannot hold found; expected one without /")

    def _only_target(self, name: str) -> str | None:
        """Return the one layer that hears another, without delay."""
        edges = [edge for edge in self.network.edges if edge.source == name]
        return edges[0].target if len(edges) == 1 and not edges[0].delay else None

    def _chain(self, name: str) -> tuple[str, ...]:
        """Return the layers that are in one node with a layer: those that the importer puts before it, by name."""
        layer = self.network.layers[name]
        if type(layer) is layers.Reshape:
            for first, last, kinds in ((".map", ".conv", CONVOLUTION), (".lines", ".product", MATRICES)):
                work = self._before(name, last, name, *kinds)
                lined_up = work and self._before(name, first, work, layers.Reshape)
                if work and lined_up and self._fits(lined_up, work, name):
                    return lined_up, work
        leaks = type(layer) in (layers.DecayLIF, layers.LeakyIntegrator, layers.LIF) and not _never_leaks(layer)
        chain: list[str] = []
        scaling = self._before(name, ".current", name, layers.Affine)
        if scaling and self._is_resistance(self.network.layers[scaling], layer, leaks):
            chain.append(scaling)
        synapse = self._before(name, ".synapse", [*chain, name][0], layers.LeakyIntegrator)
        if leaks and synapse and self._is_current(self.network.layers[synapse]):
            chain.insert(0, synapse)
            weight = self._before(name, ".input", synapse, layers.Affine)
            if weight and getattr(self.network.layers[weight], "shift", None) is None:
                chain.insert(0, weight)
        return tuple(chain)

    def _before(self, name: str, suffix: str, follower: str, *kinds: type[Layer]) -> str | None:
        """Return the layer of this name if it is of one of some types and nothing but `follower` hears it."""
        before = name + suffix
        known = type(self.network.layers.get(before)) in kinds and self._only_target(before) == follower
        return before if known and self.network.layers[follower].arguments == 1 else None

    def _fits(self, lined_up: str, work: str, name: str) -> bool:
        """Tell whether a change of shape, work and another change of shape are one node."""
        before = self.network.input_types(lined_up)[0].shape
        middle, after = self.network.types[lined_up].shape, self.network.types[name].shape
        layer = self.network.layers[work]
        if isinstance(layer, layers.Conv2d):
            flat = layer.weight.shape[2] == 1 and layer.padding[0] == 0
            made = self.network.types[work].shape
            return flat and len(before) == 2 and middle == (before[0], 1, before[1]) and after == (made[0], made[2])
        return len(before) == 3 and middle == (prod(before[:2]), before[2]) and after[:2] == before[:2]

    @staticmethod
    def _is_resistance(scaling: Any, layer: Any, leaks: bool) -> bool:
        if type(layer) is layers.LIF:
            return bool(layer.decay_input)
        integrates = type(layer) is layers.IF or (type(layer) is layers.LeakyIntegrator and only_integrates(layer))
        return leaks or (integrates and scaling.shift is None)

    @staticmethod
    def _is_current(synapse: Any) -> bool:
        decay = np.asarray(synapse.decay)
        return bool((decay >= 0).all() and (decay < 1).all() and not np.any(synapse.start))

    def _passed(self) -> set[str]:
        """Return the sums that are edges into another node: heard once, and its first argument if that is a sum too."""
        passed = set()
        for name, layer in self.network.layers.items():
            if not isinstance(layer, layers.Residual) or layer.mode != "add":
                continue
            edges = [edge for edge in self.network.edges if edge.source == name]
            if len(edges) != 1 or edges[0].target == name:
                continue
            target = edges[0].target
            inputs = self.network.inputs[target]
            if isinstance(self.network.layers[target], layers.Residual) and inputs[0] != edges[0]:
                continue
            passed.add(name)
        return passed - {name for name in passed if self._only_sums(name, passed)}

    def _only_sums(self, name: str, passed: set[str]) -> bool:
        """Tell whether a sum hears itself over nothing but sums."""
        seen, left = set(), [name]
        while left:
            for edge in self.network.inputs[left.pop()]:
                if edge.source == name:
                    return True
                if edge.source in passed and edge.source not in seen:
                    seen.add(edge.source)
                    left.append(edge.source)
        return False

    def _heard_at(self, name: str, passed: set[str]) -> list[Heard]:
        """Return the nodes that a layer hears, through sums and what was merged into a node after it."""

        def through(edge: Edge, waited: int) -> list[Heard]:
            if edge.source not in passed:
                return [Heard(edge.source, waited + edge.delay)]
            return [heard for each in self.network.inputs[edge.source] for heard in through(each, waited + edge.delay)]

        start = (*self.chains[name], name)[0]
        return [heard for edge in self.network.inputs[start] for heard in through(edge, 0)]

    def _connect(self, name: str) -> None:
        """Add the edges into a node, over Delay nodes where they wait."""
        heard_before: dict[Heard, int] = {}
        for heard in self._heard_at(name, self.passed):
            times = heard_before[heard] = heard_before.get(heard, 0) + 1
            waits = heard.delay or times > 1  # NIR has no edge twice: the second one leads over a node without a delay
            self.edges.append((self._delayed(heard, times) if waits else heard.node, name))

    def _delayed(self, heard: Heard, times: int) -> str:
        name = f"{heard.node}.delay{heard.delay}" + (f".{times}" if times > 1 else "")
        if name in self.network.layers:
            raise InputError(f"layer {name}: name found that a delay needs; expected another")
        if name not in self.nodes:
            shape = self.network.types[heard.node].shape
            self.nodes[name] = {"type": "Delay", "delay": np.full(shape, heard.delay * self.dt)}
            self.edges.append((heard.node, name))
        return name

    def _node(self, name: str) -> Fields:
        layer, types = self.network.layers[name], self.network.input_types(name)
        write = NODES.get(type(layer))
        if write is None:
            raise InputError(f"layer {name}: {type(layer).__name__} has no node in NIR; expected a network without it")
        try:
            return write(Place(self, name, layer, types, self.network.types[name]))
        except NoNodeError as error:
            raise InputError(f"layer {name}: {error}, which NIR cannot express") from None


def _dt(network: Network) -> float:
    """Return the time step that the network was imported with."""
    for setting in network.settings:
        if setting.option == "dt" and isinstance(setting.value, (int, float)) and setting.value > 0:
            return float(setting.value)
    return DT


def _never_leaks(layer: Layer) -> bool:
    return isinstance(layer, (layers.DecayLIF, layers.LeakyIntegrator)) and bool((np.asarray(layer.decay) >= 1).any())
