"""From the operations of a program to the layers of a network.

`Translation` follows every tensor by its axes (`axes`) and adds a layer for each operation that computes something. An
operation has a method here, found by its name in `OPERATIONS`; one that has none is refused with the module that did it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch

from eventsim.errors import InputError
from eventsim.layers import (
    Activation,
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    Affine,
    AvgPool2d,
    Concat,
    Conv2d,
    Conv3d,
    Flatten,
    Gate,
    Input,
    Layer,
    LayerNorm,
    Linear,
    MaxPool2d,
    MeanOverPositions,
    MeanOverTime,
    PositionEncoding,
    Readout,
    Reshape,
    Residual,
    SelectChannels,
    SliceOverTime,
    SoftmaxAttention,
    SpikingAttention,
    SumOverChannels,
    SumOverPositions,
)
from eventsim.network import Delayed, Network, NetworkBuilder
from eventsim.settings import Setting
from eventsim.signals import FloatArray, Kind, SignalType
from eventsim_importers.reading.checkpoint import BatchNorm
from eventsim_importers.reading.synapses import fold, normalisation
from eventsim_importers.torch_program.axes import (
    Atom,
    AxesError,
    Dim,
    Dims,
    broadcast,
    find,
    grid_axes,
    joined,
    reshaped,
    same,
    size_of,
    whole,
)
from eventsim_importers.torch_program.recorder import NEURON, Node, Program, Ref, leaves
from eventsim_importers.torch_program.unrolled import LAST, STACK, STEP, SUM, Earlier
from eventsim_importers.torch_program.values import Contexts, Held, Padded, Scores, Value


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
        self.readers: dict[int, list[Node]] = {}
        for node in program.nodes:
            for ref in node.refs:
                self.readers.setdefault(ref.node, []).append(node)
        self.skipped: set[int] = set()  # normalisations that were folded
        self.neurons: dict[str, Node] = {}
        self.emitted: dict[str, Value] = {}
        self.terms: dict[str, FloatArray] = {}  # of biases that normalisations were folded into
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
        for node in self.program.nodes[1:]:
            if node.number in needed:
                self._translate(node)
        logits = self._value(output, self.nodes[output.node])
        return self._finish(logits, readout, settings)

    def _needed(self, output: Ref) -> set[int]:
        needed, waiting = set(), [output.node]
        while waiting:
            number = waiting.pop()
            if number not in needed:
                needed.add(number)
                waiting.extend(ref.node for ref in self.nodes[number].refs)
        return needed

    def _translate(self, node: Node) -> None:
        if node.number in self.skipped:
            self.held[Ref(node.number)] = self.held[node.refs[0]]
            return
        method = OPERATIONS.get(node.operation)
        if method is None:
            shapes = ", ".join(str(self.nodes[ref.node].shapes[ref.result]) for ref in node.refs)
            raise self.error(node, f"operation {node.operation} on {shapes} found; expected one that has a layer here")
        try:
            made = method(self, node)
        except AxesError as error:
            raise self.error(node, f"{node.operation}: {error}") from None
        for index, held in enumerate(made if isinstance(made, list) else [made]):
            self.held[Ref(node.number, index)] = held

    def error(self, node: Node, words: str) -> InputError:
        """Return an error that names the module of an operation."""
        return InputError(f"module {node.path or 'itself'}: {words}")

    def _finish(self, logits: Value, readout: str | None, settings: Sequence[Setting]) -> Network:
        kind = self.kind(logits)
        if kind.grid:
            raise InputError(f"output {kind} found; expected one vector of logits: choose another output")
        timed = bool(find(logits.dims, "time"))
        if timed and readout is None:
            raise InputError(
                f"output of {self.time_steps} time steps found; expected readout=mean, sum or last to say how they "
                "become the logits of the sample"
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
        return self._value(given, node)

    def _value(self, ref: Ref, node: Node) -> Value:
        if isinstance(ref, Earlier):
            return self._earlier(ref, node)
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
        self.build_promised[source.path] = kind
        dims = ((), whole("channel", shape[0]), *grid_axes(shape[1:]))
        return Value(source.path, dims, ref.steps)

    @property
    def build_promised(self) -> dict[str, SignalType]:
        """What neurons will emit that are read before they are added."""
        return self.__dict__.setdefault("_build_promised", {})

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
        return self.build.types[value.layer] if value.layer in self.build.types else self.build_promised[value.layer]

    # --- what a node becomes

    def add(self, name: str, layer: Layer, *sources: Value) -> str:
        """Add a layer under a name that is not taken."""
        free, number = name, 1
        while free in self.build.layers:
            free, number = f"{name}.{number}", number + 1
        heard = [self._heard(source) for source in sources]
        return self.build.add(free, layer, *heard)

    def _heard(self, value: Value) -> str | Delayed:
        if value.complement:
            raise InputError(f"layer {value.layer}: 1 less its output found; expected a product with spikes behind it")
        if not value.delay:
            return value.layer
        return Delayed(value.layer, value.delay, self.kind(value) if value.layer not in self.build.types else None)

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

    # --- axes only

    def reshape(self, node: Node) -> Held:
        """View, reshape, flatten, unflatten, squeeze, unsqueeze: the recorded shape says what became of the axes."""
        held = self.held[node.refs[0]] if not isinstance(node.refs[0], Earlier) else self._value(node.refs[0], node)
        if not isinstance(held, Value):
            raise AxesError("attention scores in another shape found; expected them as they are")
        return held.along(reshaped(held.dims, node.shapes[0]))

    def permute(self, node: Node) -> Held:
        """Permute, transpose and their kin."""
        held = self.held[node.refs[0]]
        order = self._order(node, len(held.dims))
        dims = tuple(held.dims[axis] for axis in order)
        if isinstance(held, Value):
            return held.along(dims)
        raise AxesError("attention scores with axes exchanged found; expected them as they are")

    def _order(self, node: Node, rank: int) -> list[int]:
        given = node.arguments[1:]
        axes = list(range(rank))
        if node.operation in ("T", "mT", "H", "mH", "t", "adjoint"):
            given = (-2, -1) if rank > 1 else (0, 0)
        if node.operation == "permute":
            return [int(axis) % rank for axis in leaves(given or node.keywords["dims"])]
        if node.operation in ("movedim", "moveaxis"):
            sources, targets = (list(leaves(each)) for each in given)
            return cast(
                list[int], np.moveaxis(np.empty((0,) * rank), sources, targets).ndim and _moved(rank, sources, targets)
            )
        first, second = (int(axis) % rank for axis in (given or (node.keywords["dim0"], node.keywords["dim1"])))
        axes[first], axes[second] = axes[second], axes[first]
        return axes

    def repeat(self, node: Node) -> Held:
        """Repeat or expand: an axis of size 1 in front becomes time; a gate is repeated where it is used."""
        value = self.value(node)
        shape = node.shapes[0]
        dims = list(broadcast(value.dims, len(shape)))
        for axis, (dim, size) in enumerate(zip(dims, shape, strict=True)):
            found = size_of(dim)
            if found == size:
                continue
            if found > 1:
                raise AxesError(f"an axis of {found} repeated to {size} found; expected one of size 1")
            if size == self.time_steps and not find(value.dims, "time") and axis == 0 and self._is_static(value):
                dims[axis] = whole("time", size)
            else:
                raise AxesError(f"axis {axis} repeated {size} times found; expected time, of {self.time_steps} steps")
        return value.along(tuple(dims))

    def _is_static(self, value: Value) -> bool:
        return not find(self.held[Ref(0)].dims, "time")

    def same(self, node: Node) -> Held:
        """Nothing: dropout in evaluation, identity."""
        if node.operation.startswith(("dropout", "feature_dropout", "alpha_dropout")) and self.plain(
            node, 2, "training", False
        ):
            raise self.error(node, "dropout in training mode found; expected module.eval()")
        return self.held[node.refs[0]]

    def pick(self, node: Node) -> Held | list[Held]:
        """Index, select, narrow, chunk, split, unbind: parts of the channels, or of time."""
        value = self.value(node)
        if node.operation == "__getitem__":
            return self._indexed(node, value)
        axis = int(self.plain(node, 2 if node.operation in ("chunk", "split") else 1, "dim", 0)) % len(value.dims)
        if node.operation == "select":
            index = int(self.plain(node, 2, "index", 0))
            return self._one(node, value, axis, index)
        if node.operation == "unbind":
            return [self._one(node, value, axis, index) for index in range(len(node.shapes))]
        if node.operation == "narrow":
            start = int(self.plain(node, 2, "start", 0))
            return self._part(node, value, axis, start, start + int(self.plain(node, 3, "length", 0)))
        parts, start = [], 0
        for shape in node.shapes:
            parts.append(self._part(node, value, axis, start, start + shape[axis]))
            start += shape[axis]
        return parts

    def _indexed(self, node: Node, value: Value) -> Held:
        index = node.arguments[1]
        given = list(index) if isinstance(index, tuple) else [index]
        if any(isinstance(each, (torch.Tensor, Ref)) for each in given):
            raise AxesError("an index that is a tensor found; expected numbers and slices")
        if Ellipsis in given:
            at = given.index(Ellipsis)
            named = sum(each is not None and each is not Ellipsis for each in given)
            given[at : at + 1] = [slice(None)] * (len(value.dims) - named)
        axis = 0
        for each in given:
            if each is None:
                value = value.along((*value.dims[:axis], (), *value.dims[axis:]))
                axis += 1
            elif isinstance(each, slice):
                start, stop, step = each.indices(size_of(value.dims[axis]))
                if step != 1:
                    raise AxesError(f"every {step}th of an axis found; expected neighbours")
                value = self._part(node, value, axis, start, stop)
                axis += 1
            else:
                value = self._one(node, value, axis, int(each))
        return value

    def _one(self, node: Node, value: Value, axis: int, index: int) -> Value:
        size = size_of(value.dims[axis])
        part = self._part(node, value, axis, index % size, index % size + 1)
        return part.along((*part.dims[:axis], *part.dims[axis + 1 :]))

    def _part(self, node: Node, value: Value, axis: int, start: int, stop: int) -> Value:
        """Return a part of an axis."""
        dim = joined(value.dims[axis])
        size = size_of(dim)
        if (start, stop) == (0, size):
            return value
        if len(dim) != 1 or dim[0].of == "position":
            raise AxesError(f"a part {start}:{stop} of {size} found; expected a part of the channels or of time")
        if dim[0].of == "time":
            return self._steps(node, value, axis, start, stop)
        (atom,) = dim
        kind = self.kind(value)
        coordinate = np.arange(kind.channels) // atom.stride % atom.size
        chosen = np.flatnonzero((coordinate >= start) & (coordinate < stop))
        layer = self.add(self._named(node, "part"), SelectChannels(chosen.astype(np.int32)), value)
        outer = atom.stride * atom.size

        def kept(each: Atom) -> Atom:
            if each.of != "channel" or each.stride < outer:
                return each
            return Atom(each.of, each.stride // atom.size * (stop - start), each.size)

        dims = tuple(tuple(kept(each) for each in other) for other in value.dims)
        left = (Atom("channel", atom.stride, stop - start),) if stop - start > 1 else ()
        return Value(layer, (*dims[:axis], left, *dims[axis + 1 :]))

    def _steps(self, node: Node, value: Value, axis: int, start: int, stop: int) -> Value:
        size, length = size_of(value.dims[axis]), stop - start
        if size != self.time_steps or size % length or start % length:
            raise AxesError(f"time steps {start}:{stop} of {size} found; expected one of equal parts")
        layer = self.add(self._named(node, "steps"), SliceOverTime(start // length, size // length), value)
        dims = (*value.dims[:axis], whole("time", length), *value.dims[axis + 1 :])
        return Value(layer, dims)

    def step(self, node: Node) -> Held:
        """What one step of a loop reads of a signal with an axis of time."""
        source, axis = node.arguments
        value = self._value(source, node)
        axis %= len(value.dims)
        if joined(value.dims[axis]) != joined(whole("time", self.time_steps)):
            raise AxesError("a loop over another axis than time found; expected time")
        return value.along((*value.dims[:axis], *value.dims[axis + 1 :]))

    def stack(self, node: Node) -> Held:
        """All steps of a loop along a new axis."""
        source, operation, dim = node.arguments
        value = self._value(source, node)
        if operation == "cat":  # of an axis of size 1
            axis = dim % len(value.dims)
            if value.dims[axis]:
                raise AxesError("steps put side by side along an axis that is not of size 1 found; expected a new axis")
            dims = (*value.dims[:axis], whole("time", self.time_steps), *value.dims[axis + 1 :])
        else:
            axis = dim % (len(value.dims) + 1)
            dims = (*value.dims[:axis], whole("time", self.time_steps), *value.dims[axis:])
        return value.along(dims)

    def summed_steps(self, node: Node) -> Held:
        """The sum over a loop: the mean times the number of steps."""
        value = self._value(node.refs[0], node)
        return self._sum_over_time(node, value)

    def _sum_over_time(self, node: Node, value: Value) -> Value:
        mean = self.add("mean_over_time", MeanOverTime(), value)
        steps = np.full(self.kind(value).channels, self.time_steps, np.float32)
        return Value(self.add("sum_over_time", Affine(steps), Value(mean, value.dims)), value.dims)

    def last_step(self, node: Node) -> Held:
        """The last step of a loop."""
        value = self._value(node.refs[0], node)
        steps = self.time_steps
        if steps == 1:
            return value
        return Value(self.add(self._named(node, "last"), SliceOverTime(steps - 1, steps), value), value.dims)

    # --- synapses

    def conv2d(self, node: Node) -> Held:
        """A convolution over a map."""
        weight = self.constant(node, 1, "weight")
        assert weight is not None
        stride, padding, dilation = (
            _pair(self.plain(node, index, word, default))
            for index, word, default in ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1))
        )
        if isinstance(padding[0], str):
            padding = self._padding(node, padding[0], weight.shape[2:], dilation)
        groups = int(self.plain(node, 6, "groups", 1))
        value = self.value(node)
        kind = self.kind(value)
        tokens = (whole("channel", kind.channels), whole("position", kind.positions))
        of_each = weight.shape[2:] == (1, 1) and groups == 1 and (stride, padding) == ((1, 1), (0, 0))
        if (
            of_each
            and same((value.dims[-3], joined(*value.dims[-2:])), tokens)
            and not same(value.dims[-2:], grid_axes(kind.grid))
        ):
            self.check_front(node, value.dims[:-3])
            made = self._synapses(node, value, weight[:, :, 0, 0], Linear, ("channel", "position", "one"))
            return made.along((*made.dims[:-3], made.dims[-3], *value.dims[-2:]))
        value = self._map(node)
        make = partial(Conv2d, stride=stride, padding=padding, groups=groups, dilation=dilation)
        return self._synapses(node, value, weight, make, ("channel", "grid"))

    def pad(self, node: Node) -> Held:
        """Zeros before or behind time, which only a convolution over time may read."""
        value = self.value(node)
        given = [int(each) for each in leaves(self.plain(node, 1, "pad", ()))]
        if self.plain(node, 2, "mode", "constant") != "constant" or self.plain(node, 3, "value", 0) not in (0, None):
            raise AxesError("padding with other values than zeros found; expected zeros")
        if not any(given):
            return value
        pairs = {len(value.dims) - 1 - at // 2: (given[at], given[at + 1]) for at in range(0, len(given), 2)}
        changed = [axis for axis, pair in pairs.items() if any(pair)]
        if len(changed) != 1 or joined(value.dims[changed[0]]) != joined(whole("time", self.time_steps)):
            raise AxesError("padding of another axis than time found; expected it in the convolution itself")
        return Padded(value, *pairs[changed[0]])

    def conv3d(self, node: Node) -> Held:
        """A convolution over time and a map."""
        held = self.held[node.refs[0]]
        before, after = (held.before, held.after) if isinstance(held, Padded) else (0, 0)
        value = held.value if isinstance(held, Padded) else self.value(node)
        kind = self.kind(value)
        expected = (whole("channel", kind.channels), whole("time", self.time_steps), *grid_axes(kind.grid))
        if len(kind.grid) != 2 or not same(value.dims[-4:], expected) or any(value.dims[:-4]):
            raise AxesError(f"axes of {kind} in another order found; expected channels, time, height, width")
        weight = self.constant(node, 1, "weight")
        assert weight is not None
        stride, padding, dilation = (
            _three(self.plain(node, index, word, default))
            for index, word, default in ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1))
        )
        size, before, after = weight.shape[2], before + padding[0], after + padding[0]
        ways = {((size - 1) // 2, (size - 1) // 2): "centred", (size - 1, 0): "causal"}
        if before + after != size - 1 or (before, after) not in ways or stride[0] != 1 or dilation != (1, 1, 1):
            raise AxesError(
                f"{before} steps before and {after} behind a kernel of {size} found; expected as many on both sides, or "
                "all before"
            )
        make = partial(
            Conv3d,
            stride=stride[1:],
            padding=padding[1:],
            groups=int(self.plain(node, 6, "groups", 1)),
            time_padding=ways[before, after],
        )
        made = self._synapses(node, value, weight, make, ("channel", "grid"))
        return made.along((*value.dims[:-4], made.dims[-3], value.dims[-3], *made.dims[-2:]))

    def _padding(self, node: Node, word: str, kernel: Sequence[int], dilation: Sequence[int]) -> tuple[int, int]:
        if word == "valid":
            return (0, 0)
        total = [step * (size - 1) for size, step in zip(kernel, dilation, strict=True)]
        if any(each % 2 for each in total):
            raise self.error(node, f"padding 'same' of a kernel {tuple(kernel)} found; expected an odd one")
        return (total[0] // 2, total[1] // 2)

    def conv1d(self, node: Node) -> Held:
        """A convolution over a line, or a linear layer of each token."""
        weight = self.constant(node, 1, "weight")
        assert weight is not None
        value = self.value(node)
        kind = self.kind(value)
        first = [_one(self.plain(node, *each)) for each in ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1))]
        groups = int(self.plain(node, 6, "groups", 1))
        self.check_front(node, value.dims[:-2])
        channels = len(value.dims) >= 2 and same(
            value.dims[-2:], (whole("channel", kind.channels), whole("position", kind.positions))
        )
        if not channels:
            raise AxesError("axes other than channels and positions found; expected those")
        if weight.shape[2] == 1 and groups == 1 and first[:2] == [1, 0]:
            return self._synapses(node, value, weight[:, :, 0], Linear, ("channel", "position"))
        if len(kind.grid) != 2 or kind.grid[0] != 1:
            raise AxesError(f"a kernel of {weight.shape[2]} over {kind} found; expected a line of positions")
        stride, padding, dilation = first
        make = partial(Conv2d, stride=(1, stride), padding=(0, padding), groups=groups, dilation=(1, dilation))
        return self._synapses(node, value, weight[:, :, None], make, ("channel", "position"))

    def _map(self, node: Node) -> Value:
        """Return the argument after checking that it is (..., C, H, W)."""
        value = self.value(node)
        kind = self.kind(value)
        self.check_front(node, value.dims[:-3])
        expected = (whole("channel", kind.channels), *grid_axes(kind.grid))
        if len(kind.grid) != 2 or not same(value.dims[-3:], expected):
            raise AxesError(f"axes of {kind} in another order found; expected channels, height, width")
        return value

    def linear(self, node: Node) -> Held:
        """A linear layer of the last axis: at each position, or of a flattened map."""
        value = self.value(node)
        weight = self.constant(node, 1, "weight")
        assert weight is not None
        kind = self.kind(value)
        last = joined(value.dims[-1])
        if last == joined(whole("channel", kind.channels)):
            return self._synapses(node, value, weight, Linear, None)
        self.check_front(node, value.dims[:-1])
        flat = (
            joined(whole("channel", kind.channels), *grid_axes(kind.grid))
            if len(kind.grid) == 2
            else joined(*grid_axes(kind.grid), whole("channel", kind.channels))
        )
        if last != flat:
            raise AxesError(
                f"a linear layer of axes of {kind} in another order found; expected channels, or all flattened"
            )
        flattened = self.add(self._named(node, "flatten"), Flatten(), value)
        size = self.build.types[flattened].channels
        return self._synapses(node, Value(flattened, (*value.dims[:-1], whole("channel", size))), weight, Linear, None)

    def _synapses(
        self,
        node: Node,
        value: Value,
        weight: FloatArray,
        make: Callable[..., Layer],
        last: Sequence[str] | None,
    ) -> Value:
        """Add synapses, with the normalisation behind them folded in."""
        bias = self.constant(node, 2, "bias")
        weight = np.ascontiguousarray(weight)
        name = node.path or node.operation
        norm = self._normalised_by(node)
        if norm is not None and self.fold_bn:
            arrays, eps = self._batch_norm(norm)
            layer = self.add(name, make(*fold(weight, bias, arrays, eps)), value)
            share = np.abs(arrays.weight / np.sqrt(arrays.variance + np.float32(eps)))
            mean = np.abs(arrays.mean) + (0 if bias is None else np.abs(bias))
            self.terms[layer] = np.asarray(np.abs(arrays.bias) + mean * share, np.float32)
            self.skipped.add(norm.number)
        else:
            layer = self.add(name, make(weight, bias), value)
        if last is None:
            return Value(layer, (*value.dims[:-1], whole("channel", self.build.types[layer].channels)))
        return self.standard(layer, value.dims, last)

    def _normalised_by(self, node: Node) -> Node | None:
        """Return the batch normalisation that alone reads a result, if one does."""
        readers = self.readers.get(node.number, [])
        while len(readers) == 1 and OPERATIONS.get(readers[0].operation) in (Translation.reshape, Translation.permute):
            readers = self.readers.get(readers[0].number, [])
        if len(readers) != 1 or readers[0].operation != "batch_norm":
            return None
        arrays = self.constant(readers[0], 1, "running_mean")
        weight = self.constant(node, 1, "weight")
        return readers[0] if arrays is not None and weight is not None and len(arrays) == len(weight) else None

    def _batch_norm(self, node: Node) -> tuple[BatchNorm, float]:
        mean, variance = self.constant(node, 1, "running_mean"), self.constant(node, 2, "running_var")
        if mean is None or variance is None:
            raise self.error(node, "batch normalisation without statistics found; expected track_running_stats")
        if self.plain(node, 5, "training", False):
            raise self.error(node, "batch normalisation in training mode found; expected module.eval()")
        weight, bias = self.constant(node, 3, "weight"), self.constant(node, 4, "bias")
        ones, zeros = np.ones_like(mean), np.zeros_like(mean)
        arrays = BatchNorm(ones if weight is None else weight, zeros if bias is None else bias, mean, variance)
        return arrays, float(self.plain(node, 7, "eps", 1e-5))

    def batch_norm(self, node: Node) -> Held:
        """A normalisation that stands alone."""
        value = self.value(node)
        kind = self.kind(value)
        if len(value.dims) < 2 or joined(value.dims[1]) != joined(whole("channel", kind.channels)):
            raise AxesError(f"normalisation of another axis than the channels of {kind} found; expected channels")
        arrays, eps = self._batch_norm(node)
        return value.along(value.dims) and Value(
            self.add(node.path or "norm", normalisation(arrays, eps), value), value.dims
        )

    def layer_norm(self, node: Node) -> Held:
        """A normalisation over channels."""
        value = self.value(node)
        kind = self.kind(value)
        if (
            joined(value.dims[-1]) != joined(whole("channel", kind.channels))
            or len(tuple(leaves(node.arguments[1]))) != 1
        ):
            raise AxesError(f"normalisation of another axis than the channels of {kind} found; expected channels")
        weight, bias = self.constant(node, 2, "weight"), self.constant(node, 3, "bias")
        weight = np.ones(kind.channels, np.float32) if weight is None else weight
        layer = LayerNorm(weight, bias, float(self.plain(node, 4, "eps", 1e-5)))
        return Value(self.add(node.path or "norm", layer, value), value.dims)

    # --- pools and reductions

    def pool2d(self, node: Node) -> Held:
        """A maximum or average over windows."""
        value = self._map(node)
        kernel = _pair(self.plain(node, 1, "kernel_size", 1))
        given = self.plain(node, 2, "stride", None)
        stride = kernel if given is None or given == () else _pair(given)
        padding = _pair(self.plain(node, 3, "padding", 0))
        if node.operation == "max_pool2d":
            dilation = _pair(self.plain(node, 4, "dilation", 1))
            ceil = bool(self.plain(node, 5, "ceil_mode", False))
            layer: Layer = MaxPool2d(kernel, stride, padding, dilation=dilation, ceil_mode=ceil)
        else:
            ceil, count = (
                bool(self.plain(node, 4, "ceil_mode", False)),
                bool(self.plain(node, 5, "count_include_pad", True)),
            )
            if self.plain(node, 6, "divisor_override", None) is not None:
                raise AxesError("divisor_override found; expected the size of the window")
            layer = AvgPool2d(kernel, stride, padding, count_include_pad=count, ceil_mode=ceil)
        return self.standard(self.add(node.path or node.operation, layer, value), value.dims, ("channel", "grid"))

    def avg_pool1d(self, node: Node) -> Held:
        """The mean of neighbouring channels, as voting layers take it."""
        value = self.value(node)
        kind = self.kind(value)
        size = _one(self.plain(node, 1, "kernel_size", 1))
        given = self.plain(node, 2, "stride", None)
        stride = size if given in (None, ()) else _one(given)
        if joined(value.dims[-1]) != joined(whole("channel", kind.channels)) or stride != size or kind.channels % size:
            raise AxesError(f"windows of {size} every {stride} over {kind} found; expected equal groups of channels")
        if _one(self.plain(node, 3, "padding", 0)):
            raise AxesError("padding found; expected none")
        groups = kind.channels // size
        summed = Value(self.add(self._named(node, "sum"), SumOverChannels(groups), value), value.dims)
        layer = self.add(node.path or "vote", Affine(np.full(groups, 1 / size, np.float32)), summed)
        return Value(layer, (*value.dims[:-1], whole("channel", groups)))

    def adaptive_pool2d(self, node: Node) -> Held:
        """A maximum or average over windows that cover the map."""
        value = self._map(node)
        grid = self.kind(value).grid
        size = tuple(
            g if s is None else int(s) for g, s in zip(grid, _pair(self.plain(node, 1, "output_size", 1)), strict=True)
        )
        if node.operation == "adaptive_avg_pool2d" and size == (1, 1):
            return self._vector(value, self.add(node.path or "mean_over_positions", MeanOverPositions(), value))
        layer = AdaptiveAvgPool2d(size) if node.operation == "adaptive_avg_pool2d" else AdaptiveMaxPool2d(size)
        return self.standard(self.add(node.path or node.operation, layer, value), value.dims, ("channel", "grid"))

    def _vector(self, value: Value, layer: str) -> Value:
        """Return a value whose positions are gone, with axes of size 1 in their place."""
        dims = tuple(tuple(atom for atom in dim if atom.of != "position") for dim in value.dims)
        return Value(layer, dims)

    def reduce(self, node: Node) -> Held:
        """A mean or sum over positions, time, or the channels of each head."""
        value = self.value(node)
        rank = len(value.dims)
        given = self.plain(node, 1, "dim", None)
        axes = [axis % rank for axis in (leaves(given) if given is not None else range(rank))]
        keep = bool(self.plain(node, 2, "keepdim", False))
        reduced = joined(*(value.dims[axis] for axis in axes))
        mean = node.operation == "mean"
        dims = [() if axis in axes else dim for axis, dim in enumerate(value.dims)]
        kept = tuple(dim for axis, dim in enumerate(dims) if keep or axis not in axes)
        for of in ("position", "channel", "time"):
            atoms = [atom for axis in axes for atom in joined(value.dims[axis]) if atom.of == of]
            if atoms:
                value = self._reduced(node, value, of, atoms, mean)
        if not reduced:
            return value.along(kept)
        channels = self.kind(value).channels
        moved = (
            tuple(self._renumbered(dim, channels) for dim in kept) if any(a.of == "channel" for a in reduced) else kept
        )
        return Value(value.layer, moved)

    def _renumbered(self, dim: Dim, channels: int) -> Dim:
        return (
            tuple(atom if atom.of != "channel" else Atom("channel", 1, channels) for atom in dim)
            if channels > 1
            else tuple(atom for atom in dim if atom.of != "channel")
        )

    def _reduced(self, node: Node, value: Value, of: str, atoms: list[Atom], mean: bool) -> Value:
        kind = self.kind(value)
        size = math.prod(atom.size for atom in atoms)
        if of == "position":
            if size != kind.positions:
                raise AxesError(f"{node.operation} over {size} of {kind.positions} positions found; expected all")
            layer: Layer = MeanOverPositions() if mean else SumOverPositions()
            return Value(self.add(self._named(node, f"{node.operation}_over_positions"), layer, value), value.dims)
        if of == "time":
            if size != self.time_steps:
                raise AxesError(f"{node.operation} over {size} of {self.time_steps} time steps found; expected all")
            if mean:
                return Value(self.add("mean_over_time", MeanOverTime(), value), value.dims)
            return self._sum_over_time(node, value)
        if len(atoms) != 1 or atoms[0].stride != 1:
            raise AxesError(f"{node.operation} over channels that are no neighbours found; expected those of each head")
        layer = SumOverChannels(kind.channels // size)
        summed = Value(self.add(self._named(node, "sum_over_channels"), layer, value), value.dims)
        if not mean:
            return summed
        factor = np.full(kind.channels // size, 1 / size, np.float32)
        return Value(self.add(self._named(node, "mean_over_channels"), Affine(factor), summed), value.dims)

    # --- joins

    def plus(self, node: Node) -> Held:
        """A sum of two signals, or with numbers of the module's own."""
        a, b = self._operands(node)
        if node.operation in SUBTRACTS:
            return self._minus(node, a, b)
        if self.plain(node, 2, "alpha", node.keywords.get("alpha", 1)) != 1:
            raise AxesError("a factor alpha found; expected 1")
        if isinstance(a, Value) and isinstance(b, Value):
            return self._join(node, Residual("add"), a, b)
        value, number = (a, b) if isinstance(a, Value) else (b, a)
        return self._shifted(node, cast(Value, value), number, 1.0)

    def _minus(self, node: Node, a: Any, b: Any) -> Held:
        if isinstance(a, Value) and isinstance(b, Value):
            negative = self.add(self._named(node, "minus"), Affine(np.full(self.kind(b).channels, -1, np.float32)), b)
            return self._join(node, Residual("add"), a, Value(negative, b.dims))
        if isinstance(a, Value):
            return self._shifted(node, a, -b, 1.0)
        value = cast(Value, b)
        if _is_one(a) and self.kind(value).kind == "binary":
            return Value(value.layer, value.dims, value.delay, not value.complement)
        return self._shifted(node, value, a, -1.0)

    def _shifted(self, node: Node, value: Value, number: Any, factor: float) -> Value:
        """Add an array of the module's own."""
        kind = self.kind(value)
        array = self._spread(node, value, number)
        if array is not None and array.shape[0] > 1:
            if factor != 1:
                raise AxesError("a signal subtracted from an array that differs in time found; expected a sum")
            layer: Layer = PositionEncoding(np.ascontiguousarray(array.swapaxes(1, 2)))
        else:
            shift = np.zeros(kind.channels, np.float32) if array is None else _per_step(array[0], kind)
            layer = Affine(np.full(np.shape(shift), factor, np.float32), shift)
        return Value(self.add(self._named(node, "shift"), layer, value), value.dims)

    def _spread(self, node: Node, value: Value, number: Any) -> FloatArray | None:
        """Return numbers of the module's own as (T or 1, positions or 1, channels), by the axes of a value."""
        kind = self.kind(value)
        array = number.detach().float().cpu().numpy() if isinstance(number, torch.Tensor) else np.float32(number)
        if np.ndim(array) > len(value.dims):
            raise AxesError(f"an array of {np.ndim(array)} axes with {len(value.dims)} found; expected at most as many")
        array = np.asarray(array).reshape((1,) * (len(value.dims) - np.ndim(array)) + np.shape(array))
        sizes = {"time": self.time_steps, "position": kind.positions, "channel": kind.channels}
        fine, order = [], []
        for axis, dim in enumerate(value.dims):
            if array.shape[axis] not in (1, size_of(dim)):
                raise AxesError(f"an array of shape {array.shape} found; expected sizes of the signal or 1")
            parts = [atom.size if array.shape[axis] > 1 else 1 for atom in dim]
            fine.extend(parts)
            order.extend(dim)
        array = array.reshape(fine)
        ranked = sorted(
            range(len(order)), key=lambda at: (("time", "position", "channel").index(order[at].of), -order[at].stride)
        )
        array = array.transpose(ranked)
        shape = []
        for of in ("time", "position", "channel"):
            here = [array.shape[place] for place, at in enumerate(ranked) if order[at].of == of]
            whole_size = math.prod(order[at].size for at in ranked if order[at].of == of)
            full = [order[at].size for at in ranked if order[at].of == of]
            if 1 < math.prod(here) < math.prod(full):
                array = np.broadcast_to(
                    array,
                    [order[at].size if order[at].of == of else array.shape[place] for place, at in enumerate(ranked)],
                )
                here = full
            shape.append(math.prod(here))
            if whole_size not in (1, sizes[of]):
                raise AxesError(f"an array for {whole_size} of {sizes[of]} along {of} found; expected all")
        return np.ascontiguousarray(array.reshape(shape), np.float32)

    def times(self, node: Node) -> Held:
        """A product with a number, an array, spikes or a gate."""
        a, b = self._operands(node, scores=True)
        divides = node.operation in DIVIDES
        if isinstance(a, (Scores, Contexts)) or isinstance(b, (Scores, Contexts)):
            held, number = (a, b) if isinstance(a, (Scores, Contexts)) else (b, a)
            if isinstance(number, (Value, Scores, Contexts)):
                raise AxesError("attention scores times a signal found; expected a number")
            factor = _number(number)
            return _scaled(held, 1 / factor if divides else factor)
        if isinstance(a, Value) and isinstance(b, Value):
            if divides:
                raise AxesError("a signal divided by a signal found; expected a product")
            return self._product(node, a, b)
        value, number = (a, b) if isinstance(a, Value) else (b, a)
        if divides and value is b:
            raise AxesError("a number divided by a signal found; expected the signal over a number")
        return self._factor(node, cast(Value, value), 1 / number if divides else number)

    def _factor(self, node: Node, value: Value, number: Any) -> Value:
        kind = self.kind(value)
        if _is_one(number):
            return value
        array = self._spread(node, value, number)
        assert array is not None
        if array.shape[0] > 1:
            raise AxesError("factors that differ in time found; expected the same in every step")
        return Value(self.add(self._named(node, "scale"), Affine(_per_step(array[0], kind)), value), value.dims)

    def _product(self, node: Node, a: Value, b: Value) -> Held:
        if a.complement != b.complement:
            branch, shortcut = (a, b) if a.complement else (b, a)
            return self._join(node, Residual("iand"), shortcut, Value(branch.layer, branch.dims, branch.delay))
        if self.kind(a).shape == self.kind(b).shape and same(*_level(a, b)):
            both = {self.kind(a).kind, self.kind(b).kind} == {"binary"}
            return self._join(node, Residual("and") if both else Gate(), a, b)
        gate, source = (a, b) if self.kind(a).size < self.kind(b).size else (b, a)
        self._check_gate(gate, source)
        one, other = _level(gate, source)
        del one
        return Value(self.add(self._named(node, "gate"), Gate(), gate, source), other)

    def _check_gate(self, gate: Value, source: Value) -> None:
        """Check that a smaller signal meets a larger one as `Gate` repeats it."""
        small, large = self.kind(gate), self.kind(source)
        one, other = _level(gate, source)
        share = large.channels // max(small.channels, 1)
        for mine, theirs in zip(one, other, strict=True):
            meant = tuple(
                Atom(atom.of, atom.stride * share if atom.of == "channel" else atom.stride, atom.size) for atom in mine
            )
            there = tuple(atom for atom in joined(theirs) if any(atom.of == each.of for each in meant))
            if mine and (joined(meant) != there or there != joined(theirs)):
                raise AxesError(
                    f"a product of {small} and {large} along different axes found; expected the same channels and positions"
                )
        if large.channels % small.channels or small.positions not in (1, large.positions):
            raise AxesError(f"a product of {small} and {large} found; expected a gate for channels, heads or tokens")

    def _join(self, node: Node, layer: Layer, a: Value, b: Value) -> Held:
        one, other = _level(a, b)
        if not same(one, other):
            raise AxesError(f"{self.kind(a)} and {self.kind(b)} along different axes found; expected the same")
        return Value(self.add(self._joint_name(node, b), layer, a, b), one)

    def _joint_name(self, node: Node, branch: Value) -> str:
        """Name a join for the child module that its branch comes from: ``block.0.attn_add``."""
        prefix = f"{node.path}." if node.path else ""
        word = {"add_": "add", "__iadd__": "add", "__add__": "add", "__radd__": "add"}.get(
            node.operation, node.operation
        ).strip("_")
        if branch.layer.startswith(prefix):
            child = branch.layer.removeprefix(prefix).split(".")[0]
            return f"{prefix}{child}_{word}"
        return f"{prefix}{word}"

    def concat(self, node: Node) -> Held:
        """Channels side by side."""
        refs = node.arguments[0]
        axis = int(self.plain(node, 1, "dim", 0))
        values = [self._value(ref, node) for ref in refs if isinstance(ref, Ref)]
        if len(values) != len(refs):
            raise AxesError("a signal beside an array found; expected signals alone")
        rank = len(values[0].dims)
        axis %= rank
        joint, channels = values[0], self.kind(values[0]).channels
        for other in values:
            if joined(other.dims[axis]) != joined(whole("channel", self.kind(other).channels)):
                raise AxesError("another axis than the channels found; expected channels side by side")
        for other in values[1:]:
            rest = [each.dims[:axis] + each.dims[axis + 1 :] for each in (joint, other)]
            if not same(*rest):
                raise AxesError("signals along different axes found; expected the same")
            channels += self.kind(other).channels
            layer = self.add(self._named(node, "concat"), Concat(), joint, other)
            joint = Value(layer, (*joint.dims[:axis], whole("channel", channels), *joint.dims[axis + 1 :]))
        return joint

    def _operands(self, node: Node, scores: bool = False) -> tuple[Any, Any]:
        given = [node.arguments[0], node.arguments[1] if len(node.arguments) > 1 else node.keywords["other"]]
        if node.operation in REVERSED:
            given.reverse()
        found = []
        for each in given:
            if isinstance(each, Ref):
                held = self.held.get(each) if not isinstance(each, Earlier) else None
                found.append(held if scores and isinstance(held, (Scores, Contexts)) else self._value(each, node))
            else:
                found.append(each)
        return found[0], found[1]

    # --- attention

    def matmul(self, node: Node) -> Held:
        """Queries with keys, then values; or keys with values, then queries; any of them transposed."""
        a, b = self._operands(node, scores=True)
        if isinstance(a, Scores) and isinstance(b, Value):
            return self._attended(node, a, b)
        if isinstance(a, Value) and isinstance(b, Scores):  # values and scores transposed: keys come first in them
            turned = (*b.dims[:-2], b.dims[-1], b.dims[-2])
            upright = (*a.dims[:-2], a.dims[-1], a.dims[-2])
            if b.softmax:
                raise AxesError("a softmax over queries found; expected one over keys")
            found = self._attended(node, Scores(b.k, b.q, turned, b.heads, b.scale), a.along(upright))
            return found.along((*found.dims[:-2], found.dims[-1], found.dims[-2]))
        if isinstance(a, Value) and isinstance(b, Contexts):
            return self._asked(node, a, b.k, b.v, b)
        if isinstance(a, Contexts) and isinstance(b, Value):  # transposed
            found = self._asked(node, b.along((*b.dims[:-2], b.dims[-1], b.dims[-2])), a.v, a.k, a)
            return found.along((*found.dims[:-2], found.dims[-1], found.dims[-2]))
        if not (isinstance(a, Value) and isinstance(b, Value)):
            raise AxesError("a product of two matrices of scores found; expected scores and values")
        (heads_a, d_a, p_a), (heads_b, d_b, p_b) = self._head_axes(a), self._head_axes(b)
        last = len(a.dims) - 1
        if heads_a != heads_b or not same(a.dims[:-2], b.dims[:-2]):
            raise AxesError("matrices of different heads found; expected the same")
        if (p_a, d_a) == (last - 1, last) and (d_b, p_b) == (last - 1, last):
            return Scores(a, b, (*a.dims[:-1], b.dims[-1]), heads_a)
        if (d_a, p_a) == (last - 1, last) and (p_b, d_b) == (last - 1, last):
            return Contexts(a, b, (*a.dims[:-1], b.dims[-1]), heads_a)
        raise AxesError("a product of matrices along other axes found; expected queries, keys and values of heads")

    def _asked(self, node: Node, q: Value, k: Value, v: Value, contexts: Contexts) -> Value:
        """Add the attention of queries to a context; axes of the result are tokens, channels of a head."""
        heads, d, token = self._head_axes(q)
        last = len(q.dims) - 1
        if (token, d) != (last - 1, last) or heads != contexts.heads or not same(q.dims[:-2], contexts.dims[:-2]):
            raise AxesError("queries with other axes than the context found; expected tokens, channels of a head")
        layer = SpikingAttention(heads, contexts.scale, "context_first")
        _, d_v, _ = self._head_axes(v)
        return Value(self.add(node.path or "attention", layer, q, k, v), (*q.dims[:-1], v.dims[d_v]))

    def _head_axes(self, value: Value) -> tuple[int, int, int]:
        """Return the number of heads, and which axes hold the channels of a head and the positions."""
        kind = self.kind(value)
        last = range(len(value.dims) - 2, len(value.dims))
        channels = [axis for axis in last if any(atom.of == "channel" for atom in value.dims[axis])]
        d = channels[0] if channels else last[1]
        inner, (token,) = joined(value.dims[d]), [axis for axis in last if axis != d]
        tokens = (whole("position", kind.positions), whole("time", self.time_steps))
        if len(channels) > 1 or joined(value.dims[token]) not in map(joined, tokens):
            raise AxesError(f"axes of {kind} found; expected heads, tokens and the channels of each head")
        size = size_of(inner)
        if inner != joined(whole("channel", size)):
            raise AxesError(f"channels of {kind} in another order found; expected neighbours in each head")
        before = joined(
            *(tuple(atom for atom in dim if atom.of == "channel") for dim in value.dims[: len(value.dims) - 2])
        )
        heads = kind.channels // size
        if before != (joined((Atom("channel", size, heads),)) if heads > 1 else ()):
            raise AxesError(f"heads of {kind} in another order found; expected one behind the other")
        return heads, d, token

    def _of_values(self, dims: Dims, v: Value) -> Dims:
        """Return the axes of queries with the channels of values."""
        return (*v.dims[:-2], dims[-2], v.dims[-1])

    def _attended(self, node: Node, scores: Scores, v: Value) -> Value:
        heads, d, position = self._head_axes(v)
        if (
            (position, d) != (len(v.dims) - 2, len(v.dims) - 1)
            or heads != scores.heads
            or not same(v.dims[:-2], scores.dims[:-2])
        ):
            raise AxesError("values with other axes than the scores found; expected tokens, channels of a head")
        name = node.path or "attention"
        if scores.softmax:
            return Value(self._softmax(name, scores, v), self._of_values(scores.q.dims, v))
        if find((v.dims[-2],), "time"):
            raise AxesError("attention among time steps without softmax found; expected tokens")
        layer = self.add(name, SpikingAttention(heads, scores.scale, "scores_first"), scores.q, scores.k, v)
        return Value(layer, self._of_values(scores.q.dims, v))

    def _softmax(self, name: str, scores: Scores, v: Value) -> str:
        three = scores.q
        for index, each in enumerate((scores.k, v)):
            joint = self.add(f"{name}.qkv{index}", Concat(), three, each)
            three = Value(joint, v.dims)
        over_time = bool(find((v.dims[-2],), "time"))
        layer = SoftmaxAttention(
            scores.heads, "time" if over_time else "space", self.time_steps if over_time else None, scores.scale
        )
        return self.add(name, layer, three)

    def softmax(self, node: Node) -> Held:
        """The softmax of attention scores, or of one score for each position."""
        held = self.held[node.refs[0]]
        dim = self.plain(node, 1, "dim", -1)
        if isinstance(held, Value):
            return self._softmax_of_positions(node, held, dim % len(held.dims))
        if not isinstance(held, Scores) or dim % len(held.dims) != len(held.dims) - 1:
            raise AxesError("a softmax that is not of attention scores, over keys, found; expected that")
        return Scores(held.q, held.k, held.dims, held.heads, held.scale, softmax=True)

    def _softmax_of_positions(self, node: Node, value: Value, axis: int) -> Value:
        kind = self.kind(value)
        if kind.channels == 1 and joined(value.dims[axis]) == joined(whole("position", kind.positions)):
            name = self._named(node, "softmax")
            vector = self.add(f"{name}.flatten", Flatten(), value)
            weights = self.add(name, Activation("softmax"), Value(vector, ()))
            shape = (1, *kind.grid) if len(kind.grid) == 2 else (*kind.grid, 1)
            return Value(self.add(f"{name}.reshape", Reshape(shape), Value(weights, ())), value.dims)
        if joined(value.dims[axis]) == joined(whole("channel", kind.channels)):
            return Value(self.add(self._named(node, "softmax"), Activation("softmax"), value), value.dims)
        raise AxesError(
            f"a softmax over an axis of {kind} found; expected keys, positions of one score each, or channels"
        )

    def activation(self, node: Node) -> Held:
        """ReLU or sigmoid of every value."""
        value = self.value(node)
        word = node.operation.strip("_")
        return Value(self.add(self._named(node, word), Activation(word), value), value.dims)

    def scaled_dot_product_attention(self, node: Node) -> Held:
        """PyTorch's own attention."""
        q, k, v = (self.value(node, index, word) for index, word in enumerate(("query", "key", "value")))
        if self.plain(node, 3, "attn_mask", None) is not None or self.plain(node, 5, "is_causal", False):
            raise AxesError("a mask found; expected attention among all")
        heads, d, _ = self._head_axes(q)
        scale = self.plain(node, 6, "scale", node.keywords.get("scale"))
        factor = size_of(q.dims[d]) ** -0.5 if scale is None else float(scale)
        swapped = (*k.dims[:-2], k.dims[-1], k.dims[-2])
        scores = Scores(q, k.along(swapped), (*q.dims[:-1], k.dims[-2]), heads, factor, softmax=True)
        return self._attended(node, scores, v)

    # --- neurons

    def neuron(self, node: Node) -> list[Held]:
        """A call of a neuron."""
        neuron = node.neuron
        assert neuron is not None
        value = self._value(node.refs[0], node)
        times = find(value.dims, "time")
        if neuron.time_axis is not None and self.time_steps > 1 and times != [neuron.time_axis]:
            raise AxesError(
                f"time in axis {', '.join(map(str, times)) or 'none'} found; expected axis {neuron.time_axis}"
            )
        if neuron.time_axis is None and times:
            raise AxesError("several time steps in one call found; expected a multi-step neuron, or a loop over time")
        if node.path in self.neurons:
            raise AxesError("neurons called twice in a time step found; expected a module of its own for each call")
        self.neurons[node.path] = node
        names = [node.path] * len(neuron.layers)
        names[:-1] = [f"{node.path}.current{index or ''}" for index in range(len(names) - 1)]
        for name, layer in zip(names, self._fitted(node, value), strict=True):
            value = Value(self.build.add(name, layer, self._heard(value)), value.dims)
        promised = self.build_promised.get(node.path)
        if promised is not None and promised != self.build.types[node.path]:
            raise AxesError(
                f"{self.build.types[node.path]} found; {promised} was expected where it is read a step later"
            )
        self.emitted[node.path] = value
        return [value]

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

    def _fitted(self, node: Node, value: Value) -> tuple[Layer, ...]:
        """Return the layers of a neuron with their arrays along the signal's axes."""
        neuron = node.neuron
        assert neuron is not None
        kind = self.kind(value)
        axes = [axis for axis in range(len(value.dims)) if axis != neuron.time_axis][1:]  # without the batch
        dims = tuple(value.dims[axis] for axis in axes)
        whole_channels = [
            axis for axis, dim in enumerate(dims) if joined(dim) == joined(whole("channel", kind.channels))
        ]
        arrays = [array for layer in neuron.layers for array in layer.arrays().values() if np.size(array) > 1]
        if not arrays:
            return neuron.layers
        if not whole_channels:
            raise AxesError(
                "constants that differ among neurons of channels cut or joined found; expected whole channels"
            )
        shape = tuple(map(size_of, dims))
        fitted = neuron.fitted(shape, whole_channels[0])
        spread = any(np.ndim(array) > 1 for layer in fitted for array in layer.arrays().values())
        if spread and shape != kind.shape:
            raise AxesError(f"constants of shape {shape} found; expected them along the axes of {kind}")
        return fitted

    def _named(self, node: Node, word: str) -> str:
        return f"{node.path}.{word}" if node.path else word


def _moved(rank: int, sources: list[Any], targets: list[Any]) -> list[int]:
    order = [axis for axis in range(rank) if axis not in [s % rank for s in sources]]
    for target, source in sorted(zip([t % rank for t in targets], [s % rank for s in sources], strict=True)):
        order.insert(target, source)
    return order


def _pair(value: Any) -> tuple[Any, Any]:
    if isinstance(value, (tuple, list)):
        return (value[0], value[-1])
    return (value, value)


def _three(value: Any) -> tuple[int, int, int]:
    first, second, third = value if isinstance(value, (tuple, list)) else (value,) * 3
    return int(first), int(second), int(third)


def _one(value: Any) -> int:
    return int(value[0] if isinstance(value, (tuple, list)) else value)


def _number(value: Any) -> float:
    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise AxesError(f"attention scores times an array of shape {tuple(value.shape)} found; expected one number")
        return float(value)
    return float(value)


def _is_one(value: Any) -> bool:
    return not isinstance(value, Value) and bool(
        np.all(np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value) == 1)
    )


def _scaled(held: Scores | Contexts, factor: float) -> Scores | Contexts:
    if isinstance(held, Scores):
        if held.softmax:
            raise AxesError("a factor behind the softmax found; expected it before")
        return Scores(held.q, held.k, held.dims, held.heads, held.scale * factor)
    return Contexts(held.k, held.v, held.dims, held.heads, held.scale * factor)


def _level(a: Value, b: Value) -> tuple[Dims, Dims]:
    """Return the axes of two values of which one may have fewer."""
    rank = max(len(a.dims), len(b.dims))
    return broadcast(a.dims, rank), broadcast(b.dims, rank)


def _per_step(array: FloatArray, kind: SignalType) -> FloatArray:
    """Return (positions or 1, channels or 1) as (channels,) or of the shape of one time step."""
    if array.shape[0] == 1:
        return np.ascontiguousarray(np.broadcast_to(array[0], (kind.channels,)))
    spread = np.broadcast_to(array, (kind.positions, kind.channels))
    return np.ascontiguousarray(spread.T if len(kind.grid) == 2 else spread).reshape(kind.shape)


SUBTRACTS = ("sub", "sub_", "__sub__", "__isub__", "rsub", "__rsub__", "subtract")
DIVIDES = ("div", "div_", "__truediv__", "__itruediv__", "true_divide", "divide", "__rtruediv__", "__rdiv__")
REVERSED = ("rsub", "__rsub__", "__rtruediv__", "__rdiv__")
OPERATIONS: dict[str, Callable[[Translation, Node], Held | list[Held]]] = {
    **dict.fromkeys(
        (
            "view",
            "reshape",
            "flatten",
            "unflatten",
            "squeeze",
            "squeeze_",
            "unsqueeze",
            "unsqueeze_",
            "view_as",
            "reshape_as",
            "_unsafe_view",
            "ravel",
            "atleast_1d",
        ),
        Translation.reshape,
    ),
    **dict.fromkeys(
        ("permute", "transpose", "transpose_", "swapaxes", "swapdims", "T", "mT", "t", "movedim", "moveaxis"),
        Translation.permute,
    ),
    **dict.fromkeys(("repeat", "expand", "expand_as", "broadcast_to", "tile"), Translation.repeat),
    **dict.fromkeys(
        (
            "dropout",
            "dropout1d",
            "dropout2d",
            "dropout3d",
            "feature_dropout",
            "alpha_dropout",
            "data",
            "identity",
            "real",
        ),
        Translation.same,
    ),
    **dict.fromkeys(
        ("__getitem__", "select", "unbind", "narrow", "chunk", "split", "tensor_split", "split_with_sizes"),
        Translation.pick,
    ),
    **dict.fromkeys(("add", "add_", "__add__", "__radd__", "__iadd__", *SUBTRACTS), Translation.plus),
    **dict.fromkeys(("mul", "mul_", "__mul__", "__rmul__", "__imul__", "multiply", *DIVIDES), Translation.times),
    **dict.fromkeys(("matmul", "__matmul__", "bmm", "baddbmm"), Translation.matmul),
    **dict.fromkeys(("cat", "concat", "concatenate", "hstack"), Translation.concat),
    **dict.fromkeys(("mean", "sum"), Translation.reduce),
    **dict.fromkeys(("max_pool2d", "avg_pool2d"), Translation.pool2d),
    **dict.fromkeys(("adaptive_avg_pool2d", "adaptive_max_pool2d"), Translation.adaptive_pool2d),
    "avg_pool1d": Translation.avg_pool1d,
    "conv2d": Translation.conv2d,
    "conv1d": Translation.conv1d,
    "conv3d": Translation.conv3d,
    "pad": Translation.pad,
    "linear": Translation.linear,
    "batch_norm": Translation.batch_norm,
    "layer_norm": Translation.layer_norm,
    "softmax": Translation.softmax,
    **dict.fromkeys(("relu", "relu_", "sigmoid", "sigmoid_"), Translation.activation),
    "scaled_dot_product_attention": Translation.scaled_dot_product_attention,
    NEURON: Translation.neuron,
    STEP: Translation.step,
    STACK: Translation.stack,
    SUM: Translation.summed_steps,
    LAST: Translation.last_step,
}
"""By PyTorch's name of a function or method."""
