r"""NIR: feed-forward graphs of the Neuromorphic Intermediate Representation, in the files that ``nir.write`` makes.

Nodes and their equations: Pedersen et al., "Neuromorphic intermediate representation: a unified instruction set for
interoperable brain-inspired computing" (Nature Communications 15, 2024), and github.com/neuromorphs/NIR.

NIR's neurons are differential equations. A time step of length dt is one step of Euler's method:

.. math::
    \text{LIF:}\quad h = v + \frac{dt}{\tau} \left(v_{leak} - v + r I\right) \qquad \text{IF:}\quad h = v + r I

The neuron fires where :math:`h > v_{threshold}` and is then at :math:`v_{reset}`. This LIF is the one of Norse
(``lif_box``), SpikingJelly (``nir_exchange``) and snnTorch (``import_nir``). In the IF, a spike is a pulse of unit
area: the weights are used as they are, as in Norse and sinabs. SpikingJelly writes r = 1 / dt for that same neuron,
and is understood. Left out: the several spikes per step and the floor under the membrane potential that sinabs gives
its IF, and the exponential decay of its LIF.

Membrane potentials are measured from v_reset, where they start, as in SpikingJelly. The logits are the sum over time
of what reaches the Output node: spike counts where the last layer spikes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError
from typing import Any, Literal, cast

import h5py
import numpy as np

from eventsim.errors import InputError
from eventsim.layers import (
    IF,
    LIF,
    Affine,
    AvgPool2d,
    Conv2d,
    Flatten,
    Input,
    Layer,
    Readout,
    Residual,
    SumPool2d,
    Threshold,
)
from eventsim.network import Network, NetworkBuilder, in_order
from eventsim.signals import FloatArray, Kind
from eventsim.untrusted import first_line
from eventsim_importers.protocol import Importer
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.options import Chooser
from eventsim_importers.reading.synapses import linear

Pair = tuple[int, int]

METADATA = r"node\..*metadata\..*"
"""What files carry beside the graph, as a regular expression."""

ROUNDING = 1e-6
"""Relative error by which a stored r may miss tau / dt: all of them were rounded to float32."""


@dataclass(frozen=True)
class Options:
    """What a NIR file does not tell; None takes the default, and the import says so.

    Attributes
    ----------
    dt : float, optional
        Length of a time step, in the unit of the file's time constants (by convention seconds). Default: 0.0001, with
        which snnTorch and SpikingJelly write their files; Norse's is 0.001, and sinabs counts in steps: 1. It matters
        to LIF nodes, and to IF nodes whose r is not 1.
    reset : {"zero", "subtract"}, optional
        Default: ``"zero"``, back to v_reset as NIR defines it. ``"subtract"`` takes v_threshold - v_reset off
        instead: frameworks whose neurons do that write the same file.
    strict : bool, optional
        Fire above the threshold only. Default: true, as NIR, Norse and snnTorch have it; neurons of SpikingJelly and
        sinabs fire at the threshold too.
    input_kind : {"binary", "graded", "real"}, optional
        Default: ``"graded"``, event counts.
    """

    dt: float | None = None
    reset: Literal["zero", "subtract"] | None = None
    strict: bool | None = None
    input_kind: Literal["binary", "graded", "real"] | None = None


def signature(checkpoint: Checkpoint) -> int:
    """Count the fields of the nodes of a NIR file, which the type of its root node tells."""
    if checkpoint.container != "hdf5" or "node.type" not in checkpoint.metadata:
        return 0
    return len(checkpoint.matching(r"node\..*"))


def read(checkpoint: Checkpoint, options: Options) -> Network:
    """Map every node to a layer of the same name; a node of a nested graph is called ``graph.node``.

    Where several edges lead into one node, a layer ``node.sum`` adds up what they carry. A resistance or leak
    potential that the neuron itself has no place for becomes a layer ``node.current`` before it.

    Raises
    ------
    InputError
        If the graph has feedback or a node of another type, if a node does not fit what arrives at it, or if anything
        in the file is left over; names the node.
    """
    if not signature(checkpoint):
        raise InputError(f"{checkpoint.path}: no NIR graph found; expected an HDF5 file with a root node")
    root = checkpoint.metadata["node.type"]
    if root != "NIRGraph":
        raise InputError(f"{checkpoint.path}: {root} found at the root of the NIR file; expected NIRGraph")
    return _Reader(checkpoint, options).network(_Graph(checkpoint))


@dataclass(frozen=True)
class _Node:
    """A node of the file: its type, its layer's name, where its tensors are, and whether a nested graph holds it."""

    type: str
    name: str
    key: str
    nested: bool


class _Graph:
    """Nodes by their path in the file, such as ``node/nodes/block/nodes/conv``, and the edges between them.

    The structure is read here and not with ``nir.read``, which follows links out of the file, refuses grouped
    convolutions and kernels that are not square, and has errors that do not name the node.

    Parameters
    ----------
    checkpoint : Checkpoint
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.path = checkpoint.path
        self.nodes: dict[str, _Node] = {}
        self.sources: dict[str, list[str]] = {}
        edges: dict[str, Any] = {}

        def visit(path: str, item: Any) -> None:  # never sees soft or external links, and every object once
            parts = path.split("/")
            if parts[-1] == "edges" and isinstance(item, h5py.Dataset):
                edges["/".join(parts[:-1])] = item
            elif parts[0] == "node" and len(parts) % 2 == 1 and set(parts[1::2]) <= {"nodes"}:
                key = ".".join(parts)
                type_name = checkpoint.metadata.get(f"{key}.type", "")
                self.nodes[path] = _Node(type_name, ".".join(parts[2::2]), key, nested=len(parts) > 3)

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

    def _read_edges(self, graph: str, pairs: Any) -> None:
        """Add the edges of one graph; those of a nested graph lead to its Input node and from its Output node."""
        if h5py.check_string_dtype(pairs.dtype) is None or pairs.shape[1:] != (2,):
            raise InputError(
                f"{self.path}: {graph}/edges of type {pairs.dtype} and shape {pairs.shape} found; "
                "expected pairs of node names"
            )
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

    def in_order(self) -> list[tuple[str, _Node]]:
        """Return every node that is not a graph, after all of its sources.

        Raises
        ------
        InputError
            If there is feedback; names the nodes of the cycle.
        """
        sources = {path: self.sources.get(path, []) for path, node in self.nodes.items() if node.type != "NIRGraph"}
        try:
            return [(path, self.nodes[path]) for path in in_order(sources)]
        except CycleError as error:
            cycle = " -> ".join(self.nodes[path].name for path in error.args[1])
            raise InputError(f"{self.path}: recurrent edges {cycle} found; expected a feed-forward graph") from None


class _Reader:
    """Turns nodes into layers, one after the other.

    Every method ``_<node type>`` takes the node and the layer that feeds it, and returns the name of the last layer
    that it added.
    """

    def __init__(self, checkpoint: Checkpoint, options: Options) -> None:
        self.checkpoint = checkpoint
        self.choose = Chooser(checkpoint, options)
        self.build = NetworkBuilder(f"NIR graph {checkpoint.path.name}")
        self.types = self.build.types

    def network(self, graph: _Graph) -> Network:
        """Read everything, and refuse what is left over."""
        layers: dict[str, str] = {}
        for path, node in graph.in_order():
            if node.type not in READERS:
                raise self._error(node, f"node type not supported; expected one of {', '.join(READERS)}")
            source = self._sum(node, [layers[source] for source in graph.sources.get(path, [])])
            layers[path] = READERS[node.type](self, node, source)
        self.checkpoint.ignore(METADATA)
        self.checkpoint.finish()
        return self.build.build(settings=tuple(self.checkpoint.settings))

    def _sum(self, node: _Node, sources: list[str]) -> str:
        """Add up what arrives at a node and return the layer that holds it; nothing arrives at the graph's input."""
        expected = "none" if node.type == "Input" and not node.nested else "at least one"
        if (expected == "none") == bool(sources):
            raise self._error(node, f"{len(sources)} edges into it found; expected {expected}")
        total = sources[0] if sources else ""
        for index, source in enumerate(sources[1:]):
            total = self._add(node, Residual("add"), total, source, suffix=f".sum{index or ''}")
        return total

    def _input(self, node: _Node, source: str) -> str:
        if node.nested:
            self._expect(node, "shape", self.types[source].shape)
            return source
        kind = cast(Kind, self.choose("input_kind", "graded"))
        return self._add(node, Input(self._integers(node, "shape"), kind))

    def _output(self, node: _Node, source: str) -> str:
        self._expect(node, "shape", self.types[source].shape)
        return source if node.nested else self._add(node, Readout("sum"), source)

    def _conv2d(self, node: _Node, source: str) -> str:
        weight = self._take(node, "weight", None, None, None, None)
        bias = self._take(node, "bias", len(weight))
        stride = self._pair(node, "stride")
        padding = self._padding(node, (weight.shape[2], weight.shape[3]), stride)
        if (dilation := self._pair(node, "dilation")) != (1, 1):
            raise self._error(node, f"dilation {dilation} found; expected (1, 1)")
        self._expect(node, "input_shape", self.types[source].grid)
        return self._add(node, Conv2d(weight, bias, stride, padding, self._integer(node, "groups")), source)

    def _padding(self, node: _Node, kernel: Pair, stride: Pair) -> Pair:
        """Return the padding in pixels; the file has pixels, or PyTorch's word for them."""
        word = self.checkpoint.metadata.get(f"{node.key}.padding")
        if word is None:
            return self._pair(node, "padding")
        if word == "valid":
            return (0, 0)
        if word != "same":
            raise self._error(node, f"padding {word!r} found; expected numbers, 'same' or 'valid'")
        if stride != (1, 1) or kernel[0] % 2 == 0 or kernel[1] % 2 == 0:
            raise self._error(
                node, f"padding 'same' with kernel {kernel} and stride {stride} found; expected odd sizes and stride 1"
            )
        return (kernel[0] // 2, kernel[1] // 2)

    def _affine(self, node: _Node, source: str) -> str:
        weight = self._matrix(node, source)
        return self._add(node, linear(weight, self._take(node, "bias", len(weight))), source)

    def _linear(self, node: _Node, source: str) -> str:
        return self._add(node, linear(self._matrix(node, source), None), source)

    def _matrix(self, node: _Node, source: str) -> FloatArray:
        """Take the weights that multiply a vector: NIR's linear maps have no other input."""
        arriving = self.types[source]
        if arriving.grid:
            raise self._error(node, f"input {arriving} found; expected one vector, which a Flatten node makes")
        return self._take(node, "weight", None, arriving.channels)

    def _scale(self, node: _Node, source: str) -> str:
        return self._add(node, Affine(self._per_neuron(node, "scale", source)), source)

    def _sum_pool2d(self, node: _Node, source: str) -> str:
        return self._add(node, SumPool2d(*self._window(node)), source)

    def _avg_pool2d(self, node: _Node, source: str) -> str:
        return self._add(node, AvgPool2d(*self._window(node)), source)

    def _window(self, node: _Node) -> tuple[Pair, Pair, Pair]:
        return self._pair(node, "kernel_size"), self._pair(node, "stride"), self._pair(node, "padding")

    def _flatten(self, node: _Node, source: str) -> str:
        shape = self.types[source].shape
        self._expect(node, "input_type", shape)
        start, end = self._integer(node, "start_dim"), self._integer(node, "end_dim")
        if start not in (0, -len(shape)) or end not in (-1, len(shape) - 1):
            raise self._error(
                node, f"axes {start} to {end} of {shape} found; expected all, 0 to -1 (NIR has no batch axis)"
            )
        return self._add(node, Flatten(), source)

    def _threshold(self, node: _Node, source: str) -> str:
        return self._add(node, Threshold(_simplest(self._per_neuron(node, "threshold", source)), self._strict), source)

    def _if(self, node: _Node, source: str) -> str:
        r = self._per_neuron(node, "r", source)
        if (r != 1).any() and not np.allclose(r * self._dt, 1, ROUNDING, 0):
            source = self._add(node, Affine(r), source, suffix=".current")
        threshold = self._per_neuron(node, "v_threshold", source) - self._v_reset(node, source)
        return self._add(node, IF(_simplest(threshold), self._reset, self._strict), source)

    def _lif(self, node: _Node, source: str) -> str:
        """Map the LIF: r of 1 and r of tau / dt are the two inputs that the neuron knows (decayed, and as it is)."""
        tau, r = self._per_neuron(node, "tau", source), self._per_neuron(node, "r", source)
        steps = (tau / self._dt).astype(np.float32)
        if (steps < 1).any():
            raise self._error(node, f"tau {tau.min():g} found; expected at least dt = {self._dt:g}; set a smaller dt")
        v_reset = self._v_reset(node, source)
        leak = self._per_neuron(node, "v_leak", source) - v_reset
        decay_input = bool(leak.any()) or not np.allclose(r, steps, ROUNDING, 0)
        if leak.any() or (decay_input and (r != 1).any()):
            source = self._add(node, Affine(r, leak if leak.any() else None), source, suffix=".current")
        threshold = self._per_neuron(node, "v_threshold", source) - v_reset
        neuron = LIF(_simplest(threshold), self._reset, self._strict, _simplest(steps), decay_input)
        return self._add(node, neuron, source)

    @cached_property
    def _dt(self) -> float:
        dt = self.choose("dt", 1e-4)
        if dt <= 0:
            raise InputError(f"{self.checkpoint.path}: dt={dt} found; expected a time step longer than 0")
        return dt

    @cached_property
    def _reset(self) -> Literal["zero", "subtract"]:
        return cast(Literal["zero", "subtract"], self.choose("reset", "zero"))

    @cached_property
    def _strict(self) -> bool:
        return self.choose("strict", True)

    def _v_reset(self, node: _Node, source: str) -> FloatArray:
        """Take the reset potential; files of NIR 0.2 have none and mean 0."""
        if f"{node.key}.v_reset" not in self.checkpoint.tensors:
            self.checkpoint.assume("v_reset", 0, "not in the checkpoint, NIR's default")
            return np.zeros(1, np.float32)
        v_reset = self._per_neuron(node, "v_reset", source)
        if v_reset.any():
            self.checkpoint.assume("start", "v_reset", "where membrane potentials start, NIR does not say")
        return v_reset

    def _take(self, node: _Node, field: str, *shape: int | None) -> FloatArray:
        return self.checkpoint.take(f"{node.key}.{field}", *shape)

    def _per_neuron(self, node: _Node, field: str, source: str) -> FloatArray:
        """Take a parameter: one value ``(1,)``, or one for each neuron ``(*shape of a time step,)``."""
        stored = self.checkpoint.tensors.get(f"{node.key}.{field}")
        if stored is not None and stored.size == 1:
            return self._take(node, field, *stored.shape).reshape(1)
        return self._take(node, field, *self.types[source].shape)

    def _integers(self, node: _Node, field: str) -> tuple[int, ...]:
        """Use one whole number or a list of them."""
        stored = self.checkpoint.tensors.get(f"{node.key}.{field}")
        if stored is None:
            raise self._error(node, f"{field} missing; expected it in the file")
        self.checkpoint.ignore(re.escape(f"{node.key}.{field}"))
        if stored.ndim > 1 or stored.dtype.kind not in "iu":
            raise self._error(
                node, f"{field} of type {stored.dtype} and shape {stored.shape} found; expected whole numbers"
            )
        return tuple(int(value) for value in stored.ravel())

    def _integer(self, node: _Node, field: str) -> int:
        values = self._integers(node, field)
        if len(values) != 1:
            raise self._error(node, f"{field} {values} found; expected one number")
        return values[0]

    def _pair(self, node: _Node, field: str) -> Pair:
        """Use (vertical, horizontal), or one number for both."""
        values = self._integers(node, field)
        if len(values) not in (1, 2):
            raise self._error(node, f"{field} {values} found; expected (vertical, horizontal)")
        return values[0], values[-1]

    def _expect(self, node: _Node, field: str, arriving: tuple[int, ...]) -> None:
        """Compare a shape that the file states with the one that the layers before give."""
        if f"{node.key}.{field}" in self.checkpoint.tensors and (stated := self._integers(node, field)) != arriving:
            raise self._error(node, f"{field} {stated} found; expected {arriving}, which is what arrives")

    def _add(self, node: _Node, layer: Layer, *sources: str, suffix: str = "") -> str:
        name = node.name + suffix
        try:
            return self.build.add(name, layer, *sources)
        except InputError as error:
            raise self._error(node, str(error).removeprefix(f"layer {name}: ")) from None

    def _error(self, node: _Node, message: str) -> InputError:
        return InputError(f"{self.checkpoint.path}: node {node.name} ({node.type}): {message}")


def _simplest(values: FloatArray) -> float | FloatArray:
    """Return one number where all values are the same."""
    return float(values.flat[0]) if (values == values.flat[0]).all() else values


READERS: Mapping[str, Callable[[_Reader, _Node, str], str]] = {
    "Input": _Reader._input,
    "Output": _Reader._output,
    "Conv2d": _Reader._conv2d,
    "Linear": _Reader._linear,
    "Affine": _Reader._affine,
    "Scale": _Reader._scale,
    "SumPool2d": _Reader._sum_pool2d,
    "AvgPool2d": _Reader._avg_pool2d,
    "Flatten": _Reader._flatten,
    "IF": _Reader._if,
    "LIF": _Reader._lif,
    "Threshold": _Reader._threshold,
}

IMPORTER = Importer(
    "NIR graph, feed-forward: Conv2d, Linear, Affine, Scale, SumPool2d, AvgPool2d, IF, LIF, Threshold",
    Options,
    signature,
    read,
)
