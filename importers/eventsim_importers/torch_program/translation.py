"""From the operations of a program to the layers of a network.

`Translation` walks through the operations and knows what each tensor stands for; what becomes of an operation is said
in `operations`. One that is not there is refused with the module that did it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch

from eventsim.errors import InputError
from eventsim.layers import (
    Affine,
    AttentionPool,
    Flatten,
    Input,
    Layer,
    MeanOverTime,
    Readout,
    SliceOverTime,
)
from eventsim.network import Delayed, Network, NetworkBuilder
from eventsim.settings import Setting
from eventsim.signals import FloatArray, Kind, SignalType
from eventsim_importers.torch_program.axes import (
    Atom,
    AxesError,
    Dim,
    Dims,
    find,
    grid_axes,
    same,
    whole,
)
from eventsim_importers.torch_program.operations import OPERATIONS
from eventsim_importers.torch_program.operations.shapes import PERMUTES, RESHAPES
from eventsim_importers.torch_program.recorder import NEURON, Node, Program, Ref
from eventsim_importers.torch_program.unrolled import Earlier
from eventsim_importers.torch_program.values import Contexts, Held, Padded, PoolWeights, Scores, Value

OUTPUT = -1
"""In the place of an operation that reads a result: the output."""
REVERSED = ("rsub", "__rsub__", "__rtruediv__", "__rdiv__")
"""Operations that are methods of their second operand."""


class Translation:
    """Builds the network of a program.

    Parameters
    ----------
    program : Program
        Of which a loop over time was folded.
    name : str
    dims : tuple
        Axes of the example.
    shape : tuple of int
        Of one time step of it.
    kind : {"binary", "graded", "real"}
    time_steps : int
    fold_bn : bool
    """

    def __init__(
        self,
        program: Program,
        name: str,
        dims: Dims,
        shape: tuple[int, ...],
        kind: Kind,
        time_steps: int,
        fold_bn: bool,
    ) -> None:
        self.program = program
        self.time_steps = time_steps
        self.fold_bn = fold_bn
        self.build = NetworkBuilder(name)
        self.held: dict[Ref, Held] = {}
        self.nodes = {node.number: node for node in program.nodes}
        self.readers: dict[int, list[int]] = {}
        self.maker: dict[str, int] = {}  # of each layer, the operation
        self.late: set[str] = set()  # layers that emit once, for the whole sample or a part of its time
        self.neurons: dict[str, Node] = {}
        self.promised: dict[str, SignalType] = {}  # what neurons will emit that are read before they are added
        self.emitted: dict[str, Value] = {}
        self.terms: dict[str, FloatArray] = {}  # of biases that normalisations were folded into
        self.read: set[tuple[int, int]] = set()  # the results that something needed reads
        self.static = not find(dims, "time")
        self.held[Ref(0)] = Value(self.build.add("input", Input(shape, kind)), dims)

    # --- the walk

    def network(self, output: Ref, readout: str | None, settings: Sequence[Setting]) -> Network:
        """Translate everything that leads to an output.

        Raises
        ------
        InputError
            If an operation has no layer, or axes are mixed; names the module.
        """
        needed = self._needed(output)
        for number in sorted(needed):
            for ref in self.nodes[number].refs:
                self.readers.setdefault(ref.node, []).append(number)
        self.readers.setdefault(output.node, []).append(OUTPUT)
        refs = [ref for number in needed for ref in self.nodes[number].refs]
        self.read = {(ref.node, ref.result) for ref in (*refs, output)}
        for node in self.program.nodes[1:]:
            if node.number in needed:
                self._translate(node)
        self.logits = self.value_of(output, self.nodes[output.node])
        self.readout = readout
        return self._finish(self.logits, readout, settings)

    def _needed(self, output: Ref) -> set[int]:
        needed, waiting = set(), [output.node]
        while waiting:
            number = waiting.pop()
            if number not in needed:
                needed.add(number)
                waiting.extend(ref.node for ref in self.nodes[number].refs)
        return needed

    def _translate(self, node: Node) -> None:
        self.at_work = node
        method = OPERATIONS.get(node.operation)
        if method is None:
            shapes = ", ".join(str(self.nodes[ref.node].shapes[ref.result]) for ref in node.refs)
            raise self.error(node, f"operation {node.operation} on {shapes} found; expected one that has a layer here")
        try:
            made = method(self, node)
        except AxesError as error:
            raise self.error(node, f"{node.operation}: {error}") from None
        for index, held in enumerate(made if isinstance(made, list) else [made]):
            if held is not None:
                self.held[Ref(node.number, index)] = held

    def error(self, node: Node, words: str) -> InputError:
        """Return an error that names the module of an operation."""
        return InputError(f"module {node.path or 'itself'}: {words}")

    def _finish(self, logits: Value, readout: str | None, settings: Sequence[Setting]) -> Network:
        kind = self.kind(logits)
        if kind.grid and kind.positions == 1:
            logits = Value(self.add("flatten", Flatten(), logits), logits.dims)
        elif kind.grid:
            raise InputError(f"output {kind} found; expected one vector of logits: choose another output")
        timed = bool(find(logits.dims, "time"))
        if timed and readout is None:
            raise InputError(
                f"output of {self.time_steps} time steps found; expected readout=mean, sum or last (--set "
                "readout=mean) to say how they become the logits of the sample"
            )
        last = logits.layer
        if timed and readout == "mean":
            last = self.add("mean_over_time", MeanOverTime(), logits)
        self.build.add("readout", Readout("sum" if timed and readout == "sum" else "last"), last)
        return self.build.build(self.time_steps, tuple(settings))

    # --- what a node reads

    def value(self, node: Node, index: int = 0, keyword: str = "input") -> Value:
        """Return an argument as what a layer emits."""
        given = node.arguments[index] if len(node.arguments) > index else node.keywords.get(keyword)
        if not isinstance(given, Ref):
            raise self.error(
                node, f"{node.operation} of {type(given).__name__} found; expected what depends on the example"
            )
        return self.value_of(given, node)

    def value_of(self, ref: Ref, node: Node) -> Value:
        """Return a result of another operation, as what a layer emits."""
        if isinstance(ref, Earlier):
            return self._earlier(ref, node)
        if ref.result and self.nodes[ref.node].operation == NEURON:
            path = self.nodes[ref.node].path
            raise self.error(node, f"{node.operation} of the state of {path} found; expected what its neurons emit")
        held = self.held[ref]
        if isinstance(held, Padded):
            raise self.error(node, f"{node.operation} of padded time found; expected a convolution over time")
        if not isinstance(held, Value):
            raise self.error(node, f"{node.operation} of attention scores found; expected scale, softmax and values")
        return held

    def _earlier(self, ref: Earlier, node: Node) -> Value:
        held = self.held.get(Ref(ref.node, ref.result))
        if isinstance(held, Value):
            return Value(held.layer, held.dims, held.delay + ref.steps, held.complement)
        source = self.nodes[ref.node]
        if source.operation != NEURON or not source.neuron:
            raise self.error(node, f"{node.operation} of a result of the step before found; expected that of a neuron")
        shape = source.shapes[ref.result][1:]
        kind = SignalType(
            "graded" if getattr(source.neuron.layers[-1], "multiple_spikes", False) else "binary", shape[0], shape[1:]
        )
        self.promised[source.path] = kind
        dims = ((), whole("channel", shape[0]), *grid_axes(shape[1:]))
        return Value(source.path, dims, ref.steps)

    def constant(self, node: Node, index: int, keyword: str) -> FloatArray | None:
        """Return an argument that is a tensor of the module's own."""
        given = node.arguments[index] if len(node.arguments) > index else node.keywords.get(keyword)
        if given is None:
            return None
        if isinstance(given, Ref):
            raise self.error(
                node, f"{node.operation} with a {keyword} that depends on the example found; expected weights"
            )
        return cast(FloatArray, given.detach().float().cpu().numpy())

    def plain(self, node: Node, index: int, keyword: str, default: Any) -> Any:
        """Return an argument that is a plain value."""
        return node.arguments[index] if len(node.arguments) > index else node.keywords.get(keyword, default)

    def kind(self, value: Value) -> SignalType:
        """Return the type of the signal that a value is of."""
        return self.build.types[value.layer] if value.layer in self.build.types else self.promised[value.layer]

    # --- what a node becomes

    def add(self, name: str, layer: Layer, *sources: Value) -> str:
        """Add a layer under a name that is not taken."""
        free, number = name, 1
        while free in self.build.layers:
            free, number = f"{name}.{number}", number + 1
        heard = [self.heard(source) for source in sources]
        once = {source.layer in self.late for source in sources}
        if len(once) > 1:
            raise AxesError("what is there in each time step with what is there once found; expected the same steps")
        self.maker[free] = self.at_work.number
        if once == {True} or isinstance(layer, MeanOverTime | AttentionPool | SliceOverTime):
            self.late.add(free)
        return self.build.add(free, layer, *heard)

    def alone(self, number: int, value: Value) -> bool:
        """Tell whether an operation alone reads what a layer emits, and nothing between changes values."""
        while len(self.readers[self.nodes[number].refs[0].node]) == 1:
            number = self.nodes[number].refs[0].node
            if number == self.maker.get(value.layer):
                return True
            if self.nodes[number].operation not in RESHAPES + PERMUTES:
                return False
        return False

    def heard(self, value: Value) -> str | Delayed:
        """Return what a layer that reads a value is told to listen to."""
        if value.complement:
            kind = self.kind(value)
            shift = np.ones(kind.channels, np.float32)
            value = Value(
                self.add(f"{value.layer}.complement", Affine(-shift, shift), replace(value, complement=False)), ()
            )
        if not value.delay:
            return value.layer
        return Delayed(value.layer, value.delay, self.kind(value) if value.layer not in self.build.types else None)

    def take_back(self, value: Value) -> tuple[Layer, str]:
        """Remove the layer of a value that nothing reads yet; return it and its source."""
        layer = self.build.layers.pop(value.layer)
        self.build.types.pop(value.layer)
        (edge,) = (edge for edge in self.build.edges if edge.target == value.layer)
        self.build.edges.remove(edge)
        return layer, edge.source

    def standard(self, layer: str, like: Dims, last: Sequence[str]) -> Value:
        """Return a new layer's value whose last axes are "channel", "position" or "grid"; those before hold time."""
        kind = self.build.types[layer]
        made: list[Dim] = []
        for each in last:
            if each == "channel":
                made.append(whole("channel", kind.channels))
            elif each == "one":
                made.append(())
            elif each == "position":
                made.append(whole("position", kind.positions))
            else:
                made.extend(grid_axes(kind.grid))
        front = like[: len(like) - (len(made))] if len(like) >= len(made) else ()
        return Value(layer, (*front, *made))

    def check_front(self, node: Node, dims: Dims) -> None:
        """Refuse axes that should hold time alone and hold more."""
        for dim in dims:
            if any(atom.of != "time" for atom in dim):
                raise AxesError("positions or channels in the place of time and batch found; expected those alone")

    def sum_over_time(self, value: Value) -> Value:
        """Add the sum over all time steps: their mean times their number."""
        mean = self.add("mean_over_time", MeanOverTime(), value)
        steps = np.full(self.kind(value).channels, self.time_steps, np.float32)
        return Value(self.add("sum_over_time", Affine(steps), Value(mean, value.dims)), value.dims)

    def map_of(self, node: Node) -> Value:
        """Return the argument after checking that it is (..., C, H, W)."""
        value = self.value(node)
        kind = self.kind(value)
        self.check_front(node, value.dims[:-3])
        expected = (whole("channel", kind.channels), *grid_axes(kind.grid))
        if len(kind.grid) != 2 or not same(value.dims[-3:], expected):
            raise AxesError(f"axes of {kind} in another order found; expected channels, height, width")
        return value

    def operands(self, node: Node, scores: bool = False) -> tuple[Any, Any]:
        """Return both sides of an operation, in their order: values, or numbers of the module's own."""
        given = [node.arguments[0], node.arguments[1] if len(node.arguments) > 1 else node.keywords["other"]]
        if node.operation in REVERSED:
            given.reverse()
        found = []
        for each in given:
            if isinstance(each, Ref):
                held = None if isinstance(each, Earlier) or not scores else self.held.get(each)
                found.append(held if isinstance(held, Scores | Contexts | PoolWeights) else self.value_of(each, node))
            else:
                found.append(each)
        return found[0], found[1]

    def as_signal(self, value: Value, array: FloatArray, loop: bool) -> FloatArray:
        """Return a tensor's values, of all time steps, as ``(T, *per-step shape)`` of the signal.

        Parameters
        ----------
        value : Value
            What the tensor is of.
        array : array
            With a first axis of time steps where calls were stacked.
        loop : bool
            Whether they were.
        """
        kind = self.kind(value)
        dims = (whole("time", self.time_steps), *value.dims) if loop else value.dims
        atoms = [atom for dim in dims for atom in dim]
        fine = np.asarray(array, np.float32).reshape([atom.size for atom in atoms])
        if not find(dims, "time"):
            fine, atoms = (
                np.broadcast_to(fine, (self.time_steps, *fine.shape)),
                [Atom("time", 1, self.time_steps), *atoms],
            )
        of = ("time", "channel", "position") if len(kind.grid) == 2 else ("time", "position", "channel")
        order = sorted(range(len(atoms)), key=lambda at: (of.index(atoms[at].of), -atoms[at].stride))
        return np.ascontiguousarray(fine.transpose(order).reshape(self.time_steps, *kind.shape))

    def as_logits(self, array: FloatArray) -> FloatArray:
        """Return the output of the module as the network reads it out."""
        steps = self.as_signal(self.logits, array, loop=False)
        if find(self.logits.dims, "time") and self.readout != "last":
            summed = steps.sum(axis=0, dtype=np.float64)
            steps = (summed / (len(steps) if self.readout == "mean" else 1))[None]
        return np.asarray(steps[-1], np.float32).reshape(-1)

    def named_for(self, node: Node, word: str, number: Any) -> str:
        """Name a layer for the module's own tensor that it takes a view of, else for what it does in a module."""
        if isinstance(number, torch.Tensor) and (place := number.untyped_storage().data_ptr()) in self.program.tensors:
            return self.program.tensors[place]
        return self.named(node, word)

    def named(self, node: Node, word: str) -> str:
        """Name a layer for what it does in a module."""
        return f"{node.path}.{word}" if node.path else word
