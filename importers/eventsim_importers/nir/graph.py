"""The structure of a NIR file: nodes, and the edges between them with the delays on them.

It is read here and not with ``nir.read``, which follows links out of the file, refuses grouped convolutions and kernels
that are not square, and has errors that do not name the node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from eventsim.errors import InputError
from eventsim.hdf5_text import HeldText
from eventsim.untrusted import first_line
from eventsim_importers.reading.checkpoint import Checkpoint

NEURONS = ("IF", "LIF", "CubaLIF", "LI", "CubaLI", "I")
"""Types of node that hold a state."""


@dataclass(frozen=True)
class Node:
    """A node of the file: its type, its layer's name, where its tensors are, and whether a nested graph holds it."""

    type: str
    name: str
    key: str
    nested: bool


class Wire(NamedTuple):
    """What arrives at a node: the path of its source, and the time steps that it has waited."""

    source: str
    delay: int


Wires = dict[str, list[Wire]]


class Graph:
    """Nodes by their path in the file, such as ``node/nodes/block/nodes/conv``, and the edges between them.

    Parameters
    ----------
    checkpoint : Checkpoint

    Attributes
    ----------
    nodes : dict of str to Node
    sources : dict of str to list of str
        Paths of what leads into each node, in the order of the file.
    exact : dict of str to float64 array
        Tensors that the file holds with more than single precision.
    version : str or None
        Of NIR, as the file states it.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        import h5py  # noqa: PLC0415 - takes long to import, and every import of a checkpoint asks this format

        self.path = checkpoint.path
        self.nodes: dict[str, Node] = {}
        self.sources: dict[str, list[str]] = {}
        self.exact: dict[str, npt.NDArray[np.float64]] = {}
        self.version = checkpoint.metadata.get("version")
        edges: dict[str, Any] = {}

        def visit(path: str, item: Any) -> None:  # never sees soft or external links, and every object once
            parts = path.split("/")
            if parts[-1] == "edges" and isinstance(item, h5py.Dataset):
                edges["/".join(parts[:-1])] = item
            elif parts[0] == "node" and len(parts) % 2 == 1 and set(parts[1::2]) <= {"nodes"}:
                key = ".".join(parts)
                type_name = checkpoint.metadata.get(f"{key}.type", "")
                self.nodes[path] = Node(type_name, ".".join(parts[2::2]), key, nested=len(parts) > 3)
            elif isinstance(item, h5py.Dataset) and item.dtype == np.float64:
                self.exact[".".join(parts)] = np.asarray(item[()])

        try:
            with h5py.File(checkpoint.path, "r") as file:
                file.visititems(visit)
                for path, node in self.nodes.items():
                    if node.type == "NIRGraph" and path in edges:
                        self._read_edges(path, edges[path])
        except InputError:
            raise
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            raise InputError(f"{checkpoint.path}: damaged or truncated NIR file ({first_line(error)})") from None

    def of_type(self, *types: str) -> list[Node]:
        """Return the nodes of some types."""
        return [node for node in self.nodes.values() if node.type in types]

    def _read_edges(self, graph: str, pairs: Any) -> None:
        """Add the edges of one graph; those of a nested graph lead to its Input node and from its Output node."""
        import h5py  # noqa: PLC0415 - as above

        if h5py.check_string_dtype(pairs.dtype) is None or pairs.shape[1:] != (2,):
            if pairs.size == 0:
                return
            raise InputError(
                f"{self.path}: {graph}/edges of type {pairs.dtype} and shape {pairs.shape} found; "
                "expected pairs of node names"
            )
        HeldText(self.path).check_dataset(f"{graph}/edges", pairs)
        for pair in pairs:
            names = [name.decode(errors="replace") for name in pair]
            for name in names:
                if f"{graph}/nodes/{name}" not in self.nodes:
                    raise InputError(f"{self.path}: {graph}/edges name {name!r} found; expected the name of a node")
            source = self._port(f"{graph}/nodes/{names[0]}", "Output")
            sources = self.sources.setdefault(self._port(f"{graph}/nodes/{names[1]}", "Input"), [])
            if source in sources:
                raise InputError(f"{self.path}: edge {' -> '.join(names)} found twice in {graph}; expected it once")
            sources.append(source)

    def _port(self, path: str, type_name: str) -> str:
        """Return the one Input or Output node of a nested graph; any other node stands for itself."""
        if self.nodes[path].type != "NIRGraph":
            return path
        inner = [name for name in self.nodes if name.rpartition("/nodes/")[0] == path]
        ports = [name for name in inner if self.nodes[name].type == type_name]
        if len(ports) != 1:
            raise InputError(
                f"{self.path}: node {self.nodes[path].name} (NIRGraph): "
                f"{len(ports)} {type_name} nodes found; expected one"
            )
        return ports[0]

    def leading_to(self, path: str) -> set[str]:
        """Return the paths of a node and of all that leads to it."""
        found, left = {path}, [path]
        while left:
            for source in self.sources.get(left.pop(), []):
                if source not in found:
                    found.add(source)
                    left.append(source)
        return found

    def wires(self, nodes: Iterable[str], delays: Mapping[str, int]) -> Wires:
        """Return what arrives at each of some nodes, through nodes that only delay.

        Parameters
        ----------
        nodes : iterable of str
            Paths.
        delays : mapping of str to int
            Paths of nodes that are not among them and delay what arrives, and by how many time steps.
        """

        def through(source: str, waited: int, passed: tuple[str, ...]) -> list[Wire]:
            if source not in delays:
                return [Wire(source, waited)]
            if source in passed:
                raise self.cycle_error((*passed[passed.index(source) :], source), "expected a neuron in it")
            steps = waited + delays[source]
            before = self.sources.get(source, [])
            if not before:
                node = self.nodes[source]
                raise InputError(
                    f"{self.path}: node {node.name} ({node.type}): 0 edges into it found; expected at least one"
                )
            return [wire for each in before for wire in through(each, steps, (*passed, source))]

        return {
            path: [wire for source in self.sources.get(path, []) for wire in through(source, 0, ())] for path in nodes
        }

    def cycle_error(self, cycle: Iterable[str], expected: str) -> InputError:
        """Return an error that names the nodes of a cycle."""
        names = " -> ".join(self.nodes[path].name for path in cycle)
        return InputError(f"{self.path}: recurrent edges {names} found; {expected}")


def cycles(wires: Wires) -> list[tuple[str, ...]]:
    """Return a cycle for each wire that leads back, on the way from the input on: its nodes, the last one first again.

    Without these wires there is no cycle left.
    """
    targets: dict[str, list[str]] = {path: [] for path in wires}
    for path, into in wires.items():
        for wire in into:
            targets[wire.source].append(path)
    found: list[tuple[str, ...]] = []
    done: set[str] = set()
    for start in sorted(wires, key=lambda path: bool(wires[path])):  # those that hear nothing first
        trail = [start] if start not in done else []
        left = [iter(targets[start])]
        on_trail = set(trail)
        while trail:
            following = next(left[-1], None)
            if following is None:
                done.add(trail[-1])
                on_trail.discard(trail.pop())
                left.pop()
            elif following in on_trail:
                found.append((*trail[trail.index(following) :], following))
            elif following not in done:
                trail.append(following)
                on_trail.add(following)
                left.append(iter(targets[following]))
    return found


def delay_cycles(wires: Wires, delay: int, holds_state: Callable[[str], bool]) -> Wires:
    """Return the wires with a delay in each cycle that has none: on what a neuron emits where it can be had there."""
    undelayed = {path: [wire for wire in into if not wire.delay] for path, into in wires.items()}
    delayed = {path: list(into) for path, into in wires.items()}
    heard = [wire.source for into in wires.values() for wire in into]
    for cycle in cycles(undelayed):
        source, target = cycle[-2:]
        while not holds_state(source) and len(wires[source]) == 1 and heard.count(source) == 1 and source != cycle[0]:
            source, target = wires[source][0].source, source
        at = delayed[target].index(Wire(source, 0)) if Wire(source, 0) in delayed[target] else None
        if at is not None:
            delayed[target][at] = Wire(source, delay)
    return delayed


def in_loops(wires: Wires) -> set[str]:
    """Return the nodes that hear themselves, over other nodes or not."""
    sources = {path: {wire.source for wire in into} for path, into in wires.items()}

    def reached(path: str) -> set[str]:
        found: set[str] = set()
        left = [path]
        while left:
            new = sources[left.pop()] - found
            found |= new
            left.extend(new)
        return found

    closing = {path for cycle in cycles(wires) for path in cycle}
    return {path for path in wires if closing and path in reached(path)}
