"""From a network to a NIR file, in the layout of ``nir.write``.

NIR has no field for dt, reset, comparison, start, several spikes in a step and a floor: they go out as metadata of the
graph and of each neuron, which `eventsim.import_checkpoint` reads. Potentials are measured from v_reset, which is left
out where it is 0: NIR 1.0.4, which sinabs asks for, does not know it. A delay of an edge becomes a Delay node, a sum
several edges into a node.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

from eventsim import layers
from eventsim.errors import InputError
from eventsim.layers import Layer
from eventsim.layers.neurons.spiking import PerNeuron
from eventsim.network import Edge, Network
from eventsim.preparation import PREPARED
from eventsim.signals import FloatArray, SignalType
from eventsim.untrusted import first_line

VERSION = "1.0.8"
"""Of NIR."""

DT = 1e-4
"""Time step in seconds where the network knows none: that of snnTorch, SpikingJelly and Lava."""

COMMON = ("reset", "reset_delay", "strict", "multiple_spikes", "v_min", "decay")
"""What every neuron says, and the graph as well if all of them say the same."""

CONVOLUTION = (layers.Conv2d,)
MATRICES = (layers.Linear, layers.SparseLinear)

LARGEST_DIAGONAL = 4096
"""Channels that a matrix may scale and shift one by one."""

Real = npt.NDArray[np.float64]
Fields = dict[str, Any]


class Heard(NamedTuple):
    """A node that is heard, and how many time steps later."""

    node: str
    delay: int


def to_nir(network: Network, path: str | Path) -> None:
    """Write a network as a NIR graph; an existing file is replaced only once the new one is complete.

    The file is that of ``nir.write``, and `eventsim.import_checkpoint` makes the same network of it: every number of a
    layer comes back bit for bit. The package ``nir`` is not needed.

    Parameters
    ----------
    network : Network
    path : str or Path
        Ends in ``.nir`` by convention.

    Raises
    ------
    InputError
        If a layer has no node in NIR, or the file cannot be written; names the layer, or the file.
    """
    network.validate()
    graph = _Graph(network)
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        with h5py.File(partial, "w") as file:
            file.create_dataset("version", data=VERSION, dtype=h5py.string_dtype())
            _write(file.create_group("node"), graph.fields())
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({first_line(error)})") from None
    finally:
        partial.unlink(missing_ok=True)


def _write(group: Any, fields: Fields) -> None:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            _write(group.create_group(name), dict(value))
        elif isinstance(value, str):
            group.create_dataset(name, data=value, dtype=h5py.string_dtype())
        elif isinstance(value, np.ndarray) and value.ndim:
            group.create_dataset(name, data=value, compression="gzip")
        else:
            group.create_dataset(name, data=value)


class _Graph:
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
        integrates = type(layer) is layers.IF or (type(layer) is layers.LeakyIntegrator and _only_integrates(layer))
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
            return write(_Place(self, name, layer, types, self.network.types[name]))
        except _NoNodeError as error:
            raise InputError(f"layer {name}: {error}, which NIR cannot express") from None


def _dt(network: Network) -> float:
    """Return the time step that the network was imported with."""
    for setting in network.settings:
        if setting.option == "dt" and isinstance(setting.value, (int, float)) and setting.value > 0:
            return float(setting.value)
    return DT


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _never_leaks(layer: Layer) -> bool:
    return isinstance(layer, (layers.DecayLIF, layers.LeakyIntegrator)) and bool((np.asarray(layer.decay) >= 1).any())


def _only_integrates(layer: layers.LeakyIntegrator) -> bool:
    """Tell whether it is NIR's I."""
    return bool((np.asarray(layer.decay) == 1).all()) and not np.any(layer.start)


class _NoNodeError(Exception):
    """Says what NIR has no place for."""


class _Place(NamedTuple):
    """A layer of a network, what arrives there and what leaves."""

    graph: _Graph
    name: str
    layer: Any
    inputs: tuple[SignalType, ...]
    output: SignalType

    @property
    def source(self) -> SignalType:
        """What arrives at the layer."""
        return self.inputs[0]

    @property
    def arriving(self) -> SignalType:
        """What arrives at the node: before the layers that are in it too."""
        return self.graph.network.input_types((*self.graph.chains[self.name], self.name)[0])[0]

    def part(self, suffix: str) -> Any:
        """Return one of the layers that are in the node too, or None."""
        name = self.name + suffix
        return self.graph.network.layers[name] if name in self.graph.chains[self.name] else None

    def spread(self, value: PerNeuron) -> Real:
        """Return a value for each neuron, in the shape of a time step."""
        shape = self.source.shape
        array = np.asarray(np.asarray(value, np.float32), np.float64)
        if len(shape) == 3 and array.shape == shape[:1]:
            array = array.reshape(-1, 1, 1)
        return np.array(np.broadcast_to(array.reshape(()) if array.size == 1 else array, shape))

    @property
    def scaling(self) -> tuple[Real, Real]:
        """Scale and shift of the layer before this one that is in the node too."""
        layer = self.part(".current")
        if layer is None:
            return self.spread(1.0), self.spread(0.0)
        return self.spread(layer.scale), self.spread(0.0 if layer.shift is None else layer.shift)

    def current_based(self, kind: str, fields: Fields) -> Fields:
        """Return a node of this type, or the one with a synaptic current where that is in the node too."""
        synapse, weight = self.part(".synapse"), self.part(".input")
        if synapse is None:
            return {"type": kind, **fields}
        steps = 1 / (1 - self.spread(synapse.decay))
        gain = self.spread(1.0 if weight is None else weight.scale)
        fields["tau_mem"] = fields.pop("tau")
        return {"type": f"Cuba{kind}", "tau_syn": steps * self.graph.dt, "w_in": gain * steps, **fields}


# --- neurons


def _firing(place: _Place, **metadata: Any) -> Fields:
    layer = place.layer
    said: Fields = {"reset": layer.reset, "strict": _text(layer.strict), **metadata}
    if layer.reset in ("zero", "subtract"):
        said["reset_delay"] = "false"
    said["multiple_spikes"] = _text(layer.multiple_spikes)
    if np.any(layer.start):
        said["start"] = place.spread(layer.start)
    said["v_min"] = "none" if layer.v_min is None else place.spread(layer.v_min)
    return {"v_threshold": place.spread(layer.v_threshold), "metadata": said}


def _integrate_and_fire(place: _Place) -> Fields:
    return {"type": "IF", "r": place.scaling[0], **_firing(place)}


def _leaky(place: _Place) -> Fields:
    layer = place.layer
    (scale, shift), steps = place.scaling, place.spread(layer.tau)
    if (steps < 1).any():
        raise _NoNodeError("tau below one time step")
    r = scale if layer.decay_input else steps
    fields = {"tau": steps * place.graph.dt, "r": r, "v_leak": shift, **_firing(place, decay="euler")}
    return place.current_based("LIF", fields)


def _parametric(place: _Place) -> Fields:
    share = place.spread(place.layer.share)
    if (share <= 0).any():
        raise _NoNodeError("w so low that nothing is taken in")
    if not place.layer.decay_input and (share == 1).all():
        raise _NoNodeError("decay_input=False with w so high that nothing is kept")
    metadata = {"decay": "euler", "plif_w": place.spread(place.layer.w)}
    return {
        "type": "LIF",
        "tau": place.graph.dt / share,
        "r": place.spread(1.0) if place.layer.decay_input else 1 / share,
        "v_leak": place.spread(0.0),
        **_firing(place, **metadata),
    }


def _leak(place: _Place) -> Fields:
    """Return tau, r and v_leak of ``v = decay v + scale x + shift``."""
    (scale, shift), decay = place.scaling, place.spread(place.layer.decay)
    if (decay < 0).any() or (decay > 1).any():
        raise _NoNodeError("decay outside 0 to 1")
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = 1 / (1 - decay)
        leak = np.where(shift == 0, 0, shift * steps)
    return {"tau": steps * place.graph.dt, "r": scale * steps, "v_leak": leak}


def _decaying(place: _Place) -> Fields:
    return place.current_based("LIF", {**_leak(place), **_firing(place, decay="multiply")})


def _integrator(place: _Place) -> Fields:
    layer = place.layer
    metadata: Fields = {"decay": "multiply"}
    if np.any(layer.start):
        metadata["start"] = place.spread(layer.start)
    if _only_integrates(layer):
        return {"type": "I", "r": place.scaling[0]}
    return place.current_based("LI", {**_leak(place), "metadata": metadata})


def _threshold(place: _Place) -> Fields:
    layer = place.layer
    threshold = place.spread(layer.threshold).astype(np.float32)
    return {"type": "Threshold", "threshold": threshold, "metadata": {"strict": _text(layer.strict)}}


# --- weights and shapes


def _input(place: _Place) -> Fields:
    return {"type": "Input", "shape": np.array(place.layer.shape)}


def _output(place: _Place) -> Fields:
    return {"type": "Output", "shape": np.array(place.source.shape)}


def _conv2d(place: _Place) -> Fields:
    layer = place.layer
    return _convolution(place, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def _convolution(
    place: _Place,
    weight: Any,
    bias: Any,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Fields:
    return {
        "type": "Conv2d",
        "input_shape": np.array(place.source.grid),
        "weight": weight,
        "stride": np.array(stride),
        "padding": np.array(padding),
        "dilation": np.array(dilation),
        "groups": groups,
        "bias": np.zeros(len(weight), np.float32) if bias is None else bias,
    }


def _linear(place: _Place) -> Fields:
    return _matrix(place, place.layer.weight, place.layer.bias)


def _sparse_linear(place: _Place) -> Fields:
    return _matrix(place, _matrix_of(place.layer), place.layer.bias)


def _matrix_of(layer: layers.SparseLinear) -> FloatArray:
    weight = np.zeros((layer.outputs, len(layer.indptr) - 1), np.float32)
    inputs = np.repeat(np.arange(len(layer.indptr) - 1), np.diff(layer.indptr))
    weight[layer.targets, inputs] = layer.weights
    return weight


def _matrix(place: _Place, weight: Any, bias: Any) -> Fields:
    """Multiply the last axis; on a map, where that is none of channels, it is a convolution of single pixels."""
    if len(place.source.grid) == 2:
        return _convolution(place, weight[:, :, None, None], bias)
    return {"type": "Linear", "weight": weight} | ({} if bias is None else {"type": "Affine", "bias": bias})


def _affine(place: _Place) -> Fields:
    """Scale; with a shift, by a matrix of its diagonal or a convolution of single pixels, channel by channel."""
    layer, source = place.layer, place.source
    if layer.shift is None:
        return {"type": "Scale", "scale": place.spread(layer.scale).astype(np.float32)}
    scale, shift = (np.asarray(each, np.float32) for each in (layer.scale, layer.shift))
    channels = source.channels
    if {scale.size, shift.size} <= {1, channels}:
        scale, shift = (np.array(np.broadcast_to(each.reshape(-1), channels)) for each in (scale, shift))
        if len(source.grid) == 2:
            return _convolution(place, scale.reshape(-1, 1, 1, 1), shift, groups=channels)
        if channels <= LARGEST_DIAGONAL:
            return {"type": "Affine", "weight": np.diag(scale), "bias": shift}
    raise _NoNodeError("a shift that differs from position to position")


def _sum_pool(place: _Place) -> Fields:
    return _pool(place, "SumPool2d")


def _avg_pool(place: _Place) -> Fields:
    layer = place.layer
    if layer.ceil_mode or (any(layer.padding) and not layer.count_include_pad):
        raise _NoNodeError("an average over windows that hang over, or without the padding")
    return _pool(place, "AvgPool2d")


def _pool(place: _Place, kind: str) -> Fields:
    layer = place.layer
    sizes = {name: np.array(getattr(layer, name)) for name in ("kernel_size", "stride", "padding")}
    return {"type": kind, **sizes}


def _flatten(place: _Place) -> Fields:
    return {"type": "Flatten", "input_type": np.array(place.source.shape), "start_dim": 0, "end_dim": -1}


def _reshape(place: _Place) -> Fields:
    """Return a Flatten of neighbouring axes, or the node whose work is done in another shape."""
    work = place.part(".conv")
    if work is not None:
        return {
            "type": "Conv1d",
            "input_shape": place.arriving.channels,
            "weight": work.weight[:, :, 0],
            "stride": work.stride[1],
            "padding": work.padding[1],
            "dilation": work.dilation[1],
            "groups": work.groups,
            "bias": np.zeros(len(work.weight), np.float32) if work.bias is None else work.bias,
        }
    work = place.part(".product")
    if work is not None:
        weight = work.weight if isinstance(work, layers.Linear) else _matrix_of(work)
        return {"type": "Linear", "weight": weight} | (
            {} if work.bias is None else {"type": "Affine", "bias": work.bias}
        )
    old, new = place.source.shape, place.layer.shape
    for start in range(len(old)):
        for end in range(start, len(old)):
            if (*old[:start], prod(old[start : end + 1]), *old[end + 1 :]) == tuple(new):
                return {"type": "Flatten", "input_type": np.array(old), "start_dim": start, "end_dim": end}
    raise _NoNodeError(f"shape {old} as {tuple(new)}")


def _sum(place: _Place) -> Fields:
    if place.layer.mode != "add":
        raise _NoNodeError(f"a join by {place.layer.mode}")
    return {"type": "Scale", "scale": np.ones(place.source.shape, np.float32)}


def _delay_each(place: _Place) -> Fields:
    return {"type": "Delay", "delay": place.spread(place.layer.steps) * place.graph.dt}


NODES: Mapping[type[Layer], Callable[[_Place], Fields]] = {
    layers.Input: _input,
    layers.Readout: _output,
    layers.Conv2d: _conv2d,
    layers.Linear: _linear,
    layers.SparseLinear: _sparse_linear,
    layers.Affine: _affine,
    layers.SumPool2d: _sum_pool,
    layers.AvgPool2d: _avg_pool,
    layers.Flatten: _flatten,
    layers.Reshape: _reshape,
    layers.Residual: _sum,
    layers.DelayEach: _delay_each,
    layers.IF: _integrate_and_fire,
    layers.LIF: _leaky,
    layers.PLIF: _parametric,
    layers.DecayLIF: _decaying,
    layers.LeakyIntegrator: _integrator,
    layers.Threshold: _threshold,
}
"""The layers that have a node, exactly of these types."""
