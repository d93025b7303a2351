"""From the nodes of a NIR graph to the layers of a network."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np

from eventsim.errors import InputError
from eventsim.layers import DelayEach, Flatten, Input, Readout, Residual, Threshold
from eventsim.network import Delayed, Network, NetworkBuilder, in_order
from eventsim.preparation_options import PREPARED
from eventsim.settings import Setting
from eventsim.signals import Kind, SignalType
from eventsim_importers.nir import maps
from eventsim_importers.nir.conventions import Conventions
from eventsim_importers.nir.fields import Fields, Heard, as_reals, simplest
from eventsim_importers.nir.graph import NEURONS, Graph, Node, Wires, cycles, delay_cycles, in_loops
from eventsim_importers.nir.neurons import Neurons
from eventsim_importers.reading.checkpoint import Checkpoint

METADATA = r"node\.(?:.*\.)?metadata\..*"
"""What files carry beside the graph, as a regular expression."""

KNOWN = (
    "framework", "dt", "reset", "reset_delay", "strict", "start", "multiple_spikes", "v_min", "decay", "decay_input",
    "cycle_delay", "input_kind", "readout", "time_steps", "plif_w", *PREPARED,
)  # fmt: skip
"""Names in the metadata that are read."""

KNOWN_OF_NEURONS = ("reset", "reset_delay", "strict", "start", "multiple_spikes", "v_min", "decay", "plif_w")
"""Those that a neuron's own node may hold."""

VERSIONS = re.compile(r"(0\.\d|1\.0)(\..*)?")

WHOLE = 1e-3
"""By how much of a time step a delay may miss a whole number of them."""

TRIES = 4


class Reader:
    """Reads one file.

    Parameters
    ----------
    checkpoint : Checkpoint
    options : dataclass instance
    """

    def __init__(self, checkpoint: Checkpoint, options: Any) -> None:
        self.checkpoint = checkpoint
        self.graph = Graph(checkpoint)
        self._lift_metadata()
        as_reals(checkpoint)
        self.conventions = Conventions(checkpoint, options, self.graph)
        self.choose = self.conventions.choose

    def _lift_metadata(self) -> None:
        """Take what the root node says as what the file says."""
        for name in KNOWN:
            key = f"node.metadata.{name}"
            if key in self.checkpoint.metadata:
                self.checkpoint.metadata.setdefault(name, self.checkpoint.metadata[key])
            elif key in self.checkpoint.tensors and self.checkpoint.tensors[key].size == 1:
                value = self.graph.exact.get(key, self.checkpoint.tensors[key])
                self.checkpoint.metadata.setdefault(name, str(value.item()))

    def network(self) -> Network:
        """Read everything, and refuse what is left over."""
        self._say_version()
        nodes = self._nodes()
        delays, split = self._delays(nodes)
        wires = self.graph.wires([path for path in nodes if path not in delays], delays)
        wires = {path: [w._replace(delay=w.delay + split.get(path, 0)) for w in into] for path, into in wires.items()}
        build = self._build(wires)
        self._say_metadata()
        self.checkpoint.ignore(METADATA)
        self.checkpoint.finish()
        return build.build(self._time_steps(), tuple(self.checkpoint.settings))

    def _time_steps(self) -> int | None:
        stored = self.checkpoint.metadata.get("time_steps")
        if stored is None:
            return None
        if not stored.isdecimal() or int(stored) < 1:
            raise InputError(f"{self.checkpoint.path}: metadata time_steps={stored!r} found; expected a whole number")
        self.checkpoint.say(Setting("time_steps", int(stored), "metadata"))
        return int(stored)

    def _say_version(self) -> None:
        version = self.graph.version
        if version is not None and not VERSIONS.fullmatch(version):
            self.checkpoint.assume("version", version, "a version of NIR that is not known, read as 1.0")

    def _say_metadata(self) -> None:
        """Say which metadata nobody reads."""
        found = {*self.checkpoint.matching(METADATA), *filter(re.compile(METADATA).fullmatch, self.checkpoint.metadata)}
        names = [name.removeprefix("node.").replace("nodes.", "") for name in sorted(found)]
        unread = tuple(name for name in names if not self._reads(name))
        if unread:
            self.checkpoint.say(Setting("metadata", unread, "metadata", "not used"))

    def _reads(self, name: str) -> bool:
        """Tell whether metadata are read: the file's, of the root node, or a neuron's own."""
        node, _, last = name.rpartition("metadata.")
        if not node:
            return last in KNOWN
        type_name = self.checkpoint.metadata.get(f"node.nodes.{node[:-1].replace('.', '.nodes.')}.type", "")
        return type_name in NEURONS and last in KNOWN_OF_NEURONS

    def _nodes(self) -> dict[str, Node]:
        """Return the nodes that lead to the one output."""
        nodes = {path: node for path, node in self.graph.nodes.items() if node.type != "NIRGraph"}
        for node in nodes.values():
            if node.type not in TYPES:
                raise self._error(node, f"node type not supported; expected one of {', '.join(TYPES)}")
        nodes = self._towards_output(nodes)
        inputs = [node.name for node in nodes.values() if node.type == "Input" and not node.nested]
        if len(inputs) > 1:
            raise InputError(f"{self.checkpoint.path}: Input nodes {', '.join(inputs)} found; expected one")
        return nodes

    def _towards_output(self, nodes: dict[str, Node]) -> dict[str, Node]:
        """Leave out what does not lead to the output asked for."""
        outputs = {node.name: path for path, node in nodes.items() if node.type == "Output" and not node.nested}
        name = self.choose.stated("output")
        if name is None and len(outputs) <= 1:
            return nodes
        if name not in outputs:
            found = f"{len(outputs)} Output nodes" if name is None else f"output={name}"
            raise InputError(
                f"{self.checkpoint.path}: {found} found; expected one, or output= one of {', '.join(outputs)}"
            )
        kept = self.graph.leading_to(outputs[name])
        for path, node in nodes.items():
            if path not in kept:
                self.checkpoint.ignore(re.escape(node.key) + r"\..*")
        return {path: node for path, node in nodes.items() if path in kept}

    def _delays(self, nodes: dict[str, Node]) -> tuple[dict[str, int], dict[str, int]]:
        """Return the time steps of delays that are the same for all values, and the least of the others."""
        same, least = {}, {}
        for path, node in nodes.items():
            if node.type != "Delay":
                continue
            steps = self._steps(node)
            if (steps == steps.flat[0]).all():
                same[path] = int(steps.flat[0])
                self._check_delay_is_heard(path, node)
            else:
                least[path] = int(steps.min())
        return same, least

    def _check_delay_is_heard(self, path: str, node: Node) -> None:
        if not any(path in sources for sources in self.graph.sources.values()):
            raise self._error(node, "output that nothing reads found; expected an edge from it")

    def _steps(self, node: Node) -> Any:
        """Return the delays of a node in time steps."""
        key = f"{node.key}.delay"
        stored = self.checkpoint.tensors.get(key)
        if stored is None:
            raise self._error(node, "delay missing; expected it in the file")
        delay = self.checkpoint.take(key, *stored.shape)
        exact = self.graph.exact.get(key)
        seconds = np.asarray(delay if exact is None or exact.shape != delay.shape else exact, np.float64)
        if not delay.size or not delay.any():
            return np.zeros(max(delay.size, 1), np.int64).reshape(delay.shape or (1,))
        steps = seconds / self.conventions.dt
        if (delay < 0).any() or (np.abs(steps - np.rint(steps)) > WHOLE).any() or steps.max() > 2**31:
            off = seconds[(delay < 0) | (np.abs(steps - np.rint(steps)) > WHOLE)]
            found = off.flat[0] if off.size else seconds.max()
            raise self._error(
                node,
                f"delay {found:g} found; expected a whole number of time steps of dt = {self.conventions.dt:g}; "
                "set another dt",
            )
        return np.rint(steps).astype(np.int64)

    def _build(self, wires: Wires) -> NetworkBuilder:
        """Add all layers; twice where there is feedback, which needs to be told what it will hear."""
        loops = cycles(wires)
        if not loops:
            return _Layers(self, wires, wires, {}, {}).build
        nodes = self.graph.nodes
        if any(not wire.delay for path, into in wires.items() for wire in into) and cycles(
            {path: [wire for wire in into if not wire.delay] for path, into in wires.items()}
        ):
            delay = self._cycle_delay(wires)
            wires = delay_cycles(wires, delay, lambda path: nodes[path].type in NEURONS)
        closing = {cycle[-2:] for cycle in loops}
        onward = {path: [wire for wire in into if (wire.source, path) not in closing] for path, into in wires.items()}
        draft = _Layers(self, onward, onward, {}, {}, in_loops(wires))
        for _ in range(TRIES):
            types, names = dict(draft.build.types), draft.names
            looped = in_loops(wires)
            ordered = {
                path: [wire for wire in into if not (wire.delay and path in looped and wire.source in looped)]
                for path, into in wires.items()
            }
            whole = _Layers(self, ordered, wires, types, names, looped)
            if all(whole.build.types[name] == kind for name, kind in whole.promised.items()):
                return whole.build
            draft = whole
        raise InputError(f"{self.checkpoint.path}: feedback whose kind of signal does not settle found")

    def _cycle_delay(self, wires: Wires) -> int:
        undelayed = {path: [wire for wire in into if not wire.delay] for path, into in wires.items()}
        cycle = cycles(undelayed)[0]
        known = self.choose.stated("cycle_delay") is not None or self.conventions.framework != "nir"
        if not known:
            raise self.graph.cycle_error(
                cycle,
                "expected a feed-forward graph, or a Delay in it; framework or cycle_delay says how long it takes",
            )
        delay = int(self.conventions.value("cycle_delay"))
        if delay < 1:
            raise self.graph.cycle_error(cycle, f"cycle_delay={delay}; expected a delay of 1 time step at least")
        return delay

    def _error(self, node: Node, message: str) -> InputError:
        return InputError(f"{self.checkpoint.path}: node {node.name} ({node.type}): {message}")


class _Layers:
    """One network, built node by node.

    Parameters
    ----------
    reader : Reader
    order : Wires
        What each node must come after.
    wires : Wires
        What it hears.
    types : mapping of str to SignalType
        What layers emit that are heard before they are added.
    names : mapping of str to str
        Their names, by the path of the node.
    looped : set of str
        Paths of nodes that hear themselves.
    """

    def __init__(
        self,
        reader: Reader,
        order: Wires,
        wires: Wires,
        types: Mapping[str, SignalType],
        names: Mapping[str, str],
        looped: set[str] | None = None,
    ) -> None:
        self.reader = reader
        nodes = reader.graph.nodes
        self.build = NetworkBuilder(f"NIR graph {reader.checkpoint.path.name}")
        self.fields = Fields(reader.checkpoint, reader.graph, self.build)
        self.neurons = Neurons(self.fields, reader.conventions, {nodes[path] for path in looped or ()})
        self.names: dict[str, str] = {}
        self.promised: dict[str, SignalType] = {}
        for path in in_order({path: [wire.source for wire in into] for path, into in order.items()}):
            heard: list[Heard] = []
            for wire in wires[path]:
                name = self.names.get(wire.source)
                if name is None:
                    name = names[wire.source]
                    self.promised[name] = types[name]
                    heard.append(Delayed(name, wire.delay, types[name]))
                else:
                    heard.append(Delayed(name, wire.delay) if wire.delay else name)
            node = nodes[path]
            self.names[path] = self._layer(node, self._sum(node, heard))

    def _layer(self, node: Node, heard: Heard) -> str:
        if node.type in STATELESS:
            return STATELESS[node.type](self.fields, node, heard)
        return TYPES[node.type](self, node, heard)

    def _sum(self, node: Node, heard: list[Heard]) -> Heard:
        """Add up what arrives at a node and return the layer that holds it; nothing arrives at the graph's input."""
        expected = "none" if node.type == "Input" and not node.nested else "at least one"
        if (expected == "none") == bool(heard):
            raise self.fields.error(node, f"{len(heard)} edges into it found; expected {expected}")
        total = heard[0] if heard else ""
        for index, source in enumerate(heard[1:]):
            total = self.fields.add(node, Residual("add"), total, source, suffix=f".sum{index or ''}")
        return total

    def input(self, node: Node, heard: Heard) -> str:
        """Map the Input of the graph, and pass through that of a nested one."""
        if node.nested:
            return self._passed(node, heard)
        shape = self.fields.integers(node, "shape")
        sequences = self.reader.graph.of_type("Conv1d")
        if shape[:1] == (1,) and (len(shape) == 4 or (len(shape) == 2 and not sequences)):
            self.reader.checkpoint.say(Setting("input", shape[1:], "inferred", f"shape {shape} with a batch axis of 1"))
            shape = shape[1:]
        kind = cast(Kind, self.reader.choose("input_kind", "graded"))
        return self.fields.add(node, Input(shape, kind))

    def output(self, node: Node, heard: Heard) -> str:
        """Map the Output of the graph to a readout of all its values, and pass through that of a nested one."""
        if node.nested:
            return self._passed(node, heard)
        arriving = self.fields.type(heard)
        self.fields.expect(node, "shape", arriving.shape)
        if arriving.grid:
            heard = self.fields.add(node, Flatten(), heard, suffix=".flatten")
        return self.fields.add(node, Readout(cast(Any, self.reader.choose("readout", "sum"))), heard)

    def _passed(self, node: Node, heard: Heard) -> str:
        """Return the layer heard; a delay on the way needs a layer to wait at.

        snnTorch writes the channels alone of recurrent neurons on maps.
        """
        arriving = self.fields.type(heard)
        of_channels = self.fields.has(node, "shape") and self.fields.integers(node, "shape") == (arriving.channels,)
        if not (len(arriving.grid) == 2 and of_channels):
            self.fields.expect(node, "shape", arriving.shape)
        if isinstance(heard, str):
            return heard
        none = np.zeros(arriving.channels, np.int64)
        return self.fields.add(node, DelayEach(none), heard)

    def threshold(self, node: Node, heard: Heard) -> str:
        """Map the Threshold."""
        values = self.fields.per_neuron(node, "threshold", self.fields.type(heard))
        strict = bool(self.reader.conventions.value("strict", node))
        return self.fields.add(node, Threshold(simplest(values), strict), heard)

    def delay(self, node: Node, heard: Heard) -> str:
        """Map a Delay that differs from neuron to neuron; what all of them wait is on the edge before it."""
        steps = self.reader._steps(node)
        arriving = self.fields.type(heard)
        whole = self.fields.per_neuron(node, "delay", arriving)  # refused where its shape does not fit
        steps = np.rint(whole / self.reader.conventions.dt).astype(np.int64) - steps.min()
        return self.fields.add(node, DelayEach(steps), heard)


STATELESS: Mapping[str, Callable[[Fields, Node, Heard], str]] = {
    "Conv1d": maps.conv1d,
    "Conv2d": maps.conv2d,
    "Linear": maps.affine,
    "Affine": maps.affine,
    "Scale": maps.scale,
    "SumPool2d": maps.sum_pool2d,
    "AvgPool2d": maps.avg_pool2d,
    "Flatten": maps.flatten,
}

TYPES: Mapping[str, Callable[[_Layers, Node, Heard], str]] = {
    "Input": _Layers.input,
    "Output": _Layers.output,
    **dict.fromkeys(STATELESS, _Layers._layer),
    "Threshold": _Layers.threshold,
    "Delay": _Layers.delay,
    "I": lambda layers, node, heard: layers.neurons.integrator(node, heard),
    "IF": lambda layers, node, heard: layers.neurons.integrate_and_fire(node, heard),
    "LI": lambda layers, node, heard: layers.neurons.leaky_integrator(node, heard),
    "LIF": lambda layers, node, heard: layers.neurons.leaky_integrate_and_fire(node, heard),
    "CubaLI": lambda layers, node, heard: layers.neurons.current_based_integrator(node, heard),
    "CubaLIF": lambda layers, node, heard: layers.neurons.current_based(node, heard),
}
"""The nodes of NIR, but for the graph itself."""
