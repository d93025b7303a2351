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
    CropOverTime,
    Flatten,
    Input,
    Layer,
    LeakyIntegrator,
    MeanOverTime,
    Readout,
    SliceOverTime,
)
from eventsim.network import Delayed, Network, NetworkBuilder
from eventsim.settings import Setting
from eventsim.signals import FloatArray, Kind, SignalType
from eventsim_importers.torch_program.arranging import bordered, rearranged
from eventsim_importers.torch_program.axes import (
    AxesError,
    Dim,
    Dims,
    find,
    grid_axes,
    same,
    whole,
)
from eventsim_importers.torch_program.folding import Kernel, kernel_of
from eventsim_importers.torch_program.one_step import REVERSED, TRACE, Earlier
from eventsim_importers.torch_program.operations import OPERATIONS, firing, tables, windows
from eventsim_importers.torch_program.operations.shapes import PERMUTES, RESHAPES
from eventsim_importers.torch_program.recorder import NEURON, Node, Program, Ref, needed
from eventsim_importers.torch_program.values import Bordered, Emitted, Held, OverTime, Padded, Value

OUTPUT = -1
"""In the place of an operation that reads a result: the output."""
BORDERS = ("pad", "__setitem__")
"""Operations that put a border around a map."""


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
        self.steps: dict[str, int] = {}  # of layers that emit less often than in every time step, how often
        self.neurons: dict[str, Node] = {}
        self.promised: dict[str, SignalType] = {}  # what neurons will emit that are read before they are added
        self.emitted: list[Emitted] = []
        self.terms: dict[str, dict[str, FloatArray]] = {}  # of what was folded, for the margin of rounding
        self.kernels: dict[str, Kernel] = {}  # of convolutions that something was folded into, before float32
        self.arranged: dict[tuple[Value, tuple[int, ...], bytes], str] = {}  # layers that rearrange, by what they do
        self.beside: dict[str, tuple[Value, ...]] = {}  # of each layer that puts channels side by side, of what
        self.read: set[tuple[int, int]] = set()  # the results that something needed reads
        self.sums: dict[Any, Value] = {}  # sums of time steps that have their layers
        self.traces = self._names_of_traces()
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
        led = needed(self.nodes, [output.node])
        for number in sorted(led):
            for ref in self.nodes[number].refs:
                self.readers.setdefault(ref.node, []).append(number)
        self.readers.setdefault(output.node, []).append(OUTPUT)
        refs = [ref for number in led for ref in self.nodes[number].refs]
        self.read = {(ref.node, ref.result) for ref in (*refs, output)}
        for node in self.program.nodes[1:]:
            if node.number in led:
                self._translate(node)
        self.logits = self.value_of(output, self.nodes[output.node])
        self.readout = readout
        return self._finish(self.logits, readout, settings)

    def _translate(self, node: Node) -> None:
        self.at_work = node
        method = tables.of_scores(self, node) or OPERATIONS.get(node.operation) or firing.comparing(node)
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
                f"output of {self.steps_of(logits)} time steps found; expected readout=mean, sum or last (--set "
                "readout=mean) to say how they become the logits of the sample"
            )
        last = self.heard(logits)
        if timed and readout == "mean":
            last = self.add("mean_over_time", MeanOverTime(), logits)
        self.build.add("readout", Readout("sum" if timed and readout == "sum" else "last"), last)
        self._leave_out_unheard()
        return self.build.build(self.time_steps, tuple(settings))

    def _leave_out_unheard(self) -> None:
        """Remove layers that nothing reads: scales that became part of a window, or what comes to be times 0."""
        build = self.build
        while unheard := build.layers.keys() - {edge.source for edge in build.edges} - {"readout", "input"}:
            for name in unheard:
                del build.layers[name], build.types[name]
                self.neurons.pop(name, None)
            self.emitted = [each for each in self.emitted if each.value.layer not in unheard]
            build.edges[:] = [edge for edge in build.edges if edge.target not in unheard]

    # --- what a node reads

    def value(self, node: Node, index: int = 0, keyword: str = "input") -> Value:
        """Return an argument as what a layer emits."""
        return self.settled(self.given(node, index, keyword))

    def given(self, node: Node, index: int = 0, keyword: str = "input") -> Value | OverTime:
        """Return an argument as what a layer emits, or as a sum of time steps that has no layers yet."""
        given = node.arguments[index] if len(node.arguments) > index else node.keywords.get(keyword)
        if not isinstance(given, Ref):
            raise self.error(
                node, f"{node.operation} of {type(given).__name__} found; expected what depends on the example"
            )
        return self.loose(given, node)

    def settled(self, held: Value | OverTime) -> Value:
        """Return what a layer emits; a sum of time steps gets its layers."""
        return windows.settled(self, held) if isinstance(held, OverTime) else held

    def value_of(self, ref: Ref, node: Node) -> Value:
        """Return a result of another operation, as what a layer emits."""
        return self.settled(self.loose(ref, node))

    def loose(self, ref: Ref, node: Node) -> Value | OverTime:
        """Return a result of another operation, as what a layer emits or as a sum of time steps."""
        if isinstance(ref, Earlier):
            return self._earlier(ref, node)
        if ref.result and self.nodes[ref.node].operation == NEURON and ref not in self.held:
            path = self.nodes[ref.node].path
            raise self.error(node, f"{node.operation} of the state of {path} found; expected what its neurons emit")
        held = self.held[ref]
        if isinstance(held, Padded):
            raise self.error(node, f"{node.operation} of padded time found; expected a convolution over time")
        if isinstance(held, Bordered):
            self.held[ref] = held = bordered(self, self.nodes[ref.node], held)
        if not isinstance(held, Value | OverTime):
            raise self.error(
                node, f"{node.operation} of attention scores found; expected scale, softmax or a table, and values"
            )
        return held

    def _earlier(self, ref: Earlier, node: Node) -> Value:
        held = self.held.get(Ref(ref.node, ref.result))
        if isinstance(held, Value):
            return Value(held.layer, held.dims, held.delay + ref.steps, held.complement)
        source = self.nodes[ref.node]
        shape = source.shapes[ref.result][1:]
        if source.operation == TRACE:
            name, kind = self.traces[source.number], SignalType("real", shape[0], shape[1:], dense=True)
        elif source.operation == NEURON and source.neuron and not ref.result:
            multiple = getattr(source.neuron.layers[-1], "multiple_spikes", False)
            name, kind = source.path, SignalType("graded" if multiple else "binary", shape[0], shape[1:])
            if isinstance(source.neuron.layers[-1], LeakyIntegrator):
                kind = SignalType("real", shape[0], shape[1:], dense=True)
        elif source.operation == NEURON and source.neuron and source.neuron.passes_on(ref.result - 1):
            name, kind = self.name_of_potential(source), SignalType("real", shape[0], shape[1:], dense=True)
        else:
            raise self.error(
                node,
                f"{node.operation} of a state that the loop hands on outside of neurons found; expected neurons, or a "
                "sum that leaks: state = factor * state + signal",
            )
        self.promised[name] = kind
        return Value(name, ((), whole("channel", shape[0]), *grid_axes(shape[1:])), ref.steps)

    def name_of_potential(self, node: Node) -> str:
        """Return the name of the layer that emits the potential of neurons: their own, if no spike of them is read."""
        return f"{node.path}.potential" if (node.number, 0) in self.read else node.path

    def check_promise(self, name: str) -> None:
        """Check that a layer emits what those that read it a step later were told."""
        promised = self.promised.get(name)
        if promised is not None and promised != self.build.types[name]:
            raise AxesError(f"{self.build.types[name]} found; {promised} was expected where it is read a step later")

    def _names_of_traces(self) -> dict[int, str]:
        """Return names for the leaky sums, which may be read before they are added."""
        names: dict[int, str] = {}
        for node in self.program.nodes:
            if node.operation == TRACE:
                name = self.named(node, "trace")
                count = sum(other == name or other.startswith(f"{name}.") for other in names.values())
                names[node.number] = f"{name}.{count}" if count else name
        return names

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

    def kind(self, value: Value | OverTime) -> SignalType:
        """Return the type of the signal that a value is of."""
        if isinstance(value, OverTime):
            return self.build.types[next(iter(value.terms))]
        return self.build.types[value.layer] if value.layer in self.build.types else self.promised[value.layer]

    # --- what a node becomes

    def add(self, name: str, layer: Layer, *sources: Value) -> str:
        """Add a layer under a name that is not taken."""
        free, number = name, 1
        while free in self.build.layers:
            free, number = f"{name}.{number}", number + 1
        heard = [self.heard(source) for source in sources]
        found = sorted({self.steps_of(source) for source in sources})
        if len(found) > 1:
            times = " and ".join("once" if each == 1 else f"in {each} time steps" for each in found)
            raise AxesError(f"what is there {times} together found; expected the same steps")
        self.maker[free] = self.at_work.number
        steps = _left(layer, found[0])
        if steps != self.time_steps or isinstance(layer, MeanOverTime | AttentionPool):
            self.steps[free] = steps
        return self.build.add(free, layer, *heard)

    def steps_of(self, value: Value | OverTime) -> int:
        """Return how many time steps there are of a value."""
        return value.steps if isinstance(value, OverTime) else self.steps.get(value.layer, self.time_steps)

    def alone(self, number: int, value: Value, argument: int = 0) -> bool:
        """Tell whether an operation alone reads what a layer emits, and nothing between changes values.

        Parameters
        ----------
        number : int
            Of the operation.
        value : Value
        argument : int
            Which of the tensors that the operation reads.
        """
        if value.delay or value.complement or value.layer not in self.build.layers:
            return False
        ref = self.nodes[number].refs[argument]
        while len(self.readers[ref.node]) == 1:
            if ref.node == self.maker.get(value.layer):
                return True
            if self.nodes[ref.node].operation not in (*RESHAPES, *PERMUTES, *BORDERS):
                return False
            ref = self.nodes[ref.node].refs[0]
        return False

    def kernel(self, value: Value) -> Kernel | None:
        """Return the layer of a value as a convolution in float64, if it is one."""
        return self.kernels.get(value.layer) or kernel_of(self.build.layers[value.layer])

    def folded(self, name: str, kernel: Kernel, node: Node, *values: Value) -> str:
        """Put one convolution in the place of the layers of values, which hear the same and nothing else reads."""
        sources = [self.take_back(value)[1] for value in values]
        for value in values:
            self.kernels.pop(value.layer, None)
            self.terms.pop(value.layer, None)
        steps = self.steps_of(values[0])
        free, number = name, 1
        while free in self.build.layers:
            free, number = f"{name}.{number}", number + 1
        self.build.add(free, kernel.layer(), sources[0])
        if values[0].layer in self.steps:
            self.steps[free] = steps
        self.maker[free] = node.number
        self.kernels[free], self.terms[free] = kernel, kernel.absolute()
        return free

    def source_of(self, name: str) -> tuple[str, int]:
        """Return what a layer of one input hears, and how many time steps later."""
        (edge,) = (edge for edge in self.build.edges if edge.target == name)
        return edge.source, edge.delay

    def heard(self, value: Value) -> str | Delayed:
        """Return what a layer that reads a value is told to listen to."""
        value = self.plainly(value)
        if not value.delay:
            return value.layer
        return Delayed(value.layer, value.delay, self.kind(value) if value.layer not in self.build.types else None)

    def plainly(self, value: Value) -> Value:
        """Return a value that is no complement; one that is gets a layer."""
        if not value.complement:
            return value
        shift = np.ones(self.kind(value).channels, np.float32)
        layer = self.add(f"{value.layer}.complement", Affine(-shift, shift), replace(value, complement=False))
        return Value(layer, value.dims)

    def take_back(self, value: Value) -> tuple[Layer, str | Delayed]:
        """Remove the layer of a value that nothing reads yet; return it and what it heard."""
        layer = self.build.layers.pop(value.layer)
        self.build.types.pop(value.layer)
        (edge,) = (edge for edge in self.build.edges if edge.target == value.layer)
        self.build.edges.remove(edge)
        if not edge.delay:
            return layer, edge.source
        return layer, Delayed(edge.source, edge.delay, self.promised.get(edge.source))

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
        steps = np.full(self.kind(value).channels, self.steps_of(value), np.float32)
        return Value(self.add("sum_over_time", Affine(steps), Value(mean, value.dims)), value.dims)

    def map_of(self, node: Node) -> Value:
        """Return the argument after checking that it is (..., C, H, W)."""
        value = self.value(node)
        kind = self.kind(value)
        self.check_front(node, value.dims[:-3])
        expected = (whole("channel", kind.channels), *grid_axes(kind.grid))
        if len(kind.grid) != 2 or not same(value.dims[-3:], expected):
            return rearranged(self, node, value, (-3,), (-2, -1))
        return value

    def line_of(self, node: Node, value: Value) -> Value:
        """Return a value whose axes end in channels and a line of positions, as a map of one row."""
        kind = self.kind(value)
        expected = (whole("channel", kind.channels), whole("position", kind.positions))
        if len(kind.grid) == 2 and kind.grid[0] == 1 and same(value.dims[-2:], expected):
            return value
        spread = value.along((*value.dims[:-1], (), value.dims[-1]))
        made = rearranged(self, node, spread, (-3,), (-2, -1))
        return made.along((*made.dims[:-2], made.dims[-1]))

    def operands(self, node: Node, *kept: type) -> tuple[Any, Any]:
        """Return both sides of an operation, in their order: values, or numbers of the module's own.

        What is of the types `kept` is returned as it is.
        """
        given = [node.arguments[0], node.arguments[1] if len(node.arguments) > 1 else node.keywords["other"]]
        if node.operation in REVERSED:
            given.reverse()
        found = []
        for each in given:
            if isinstance(each, Ref):
                held = None if isinstance(each, Earlier) else self.held.get(each)
                found.append(held if kept and isinstance(held, kept) else self.value_of(each, node))
            else:
                found.append(each)
        return found[0], found[1]

    def owner(self, node: Node, weight: Any) -> str:
        """Return the module that an operation with weights is of: the one that does it, or that they belong to."""
        owners = []
        if isinstance(weight, torch.Tensor):
            owners = self.program.owners.get(weight.untyped_storage().data_ptr(), [])
        return node.path if node.path in owners or not owners else owners[0] or node.path

    def named(self, node: Node, word: str, array: Any = None) -> str:
        """Name a layer for the module's own tensor that it takes a view of, else for what it does in a module."""
        if isinstance(array, torch.Tensor) and (place := array.untyped_storage().data_ptr()) in self.program.tensors:
            return self.program.tensors[place]
        return f"{node.path}.{word}" if node.path else word


def _left(layer: Layer, steps: int) -> int:
    """Return how many of so many time steps a layer emits."""
    if isinstance(layer, MeanOverTime | AttentionPool):
        return 1
    if isinstance(layer, SliceOverTime):
        return steps // layer.parts
    if isinstance(layer, CropOverTime):
        return (steps if layer.stop is None else layer.stop) - layer.start
    return steps
