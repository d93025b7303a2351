"""Convolutions, linear layers, and the normalisations around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from eventsim.layers import (
    Affine,
    Conv2d,
    Conv3d,
    Flatten,
    Layer,
    LayerNorm,
    Linear,
    WindowedLinear,
)
from eventsim.signals import FloatArray
from eventsim_importers.reading.checkpoint import BatchNorm
from eventsim_importers.reading.synapses import fold, normalisation
from eventsim_importers.torch_program.arguments import first, pair
from eventsim_importers.torch_program.arranging import places, rearranged, vectors
from eventsim_importers.torch_program.axes import (
    AxesError,
    find,
    grid_axes,
    joined,
    same,
    whole,
)
from eventsim_importers.torch_program.folding import Kernel, behind, kernel_of
from eventsim_importers.torch_program.operations import borders, windows
from eventsim_importers.torch_program.recorder import Node, leaves
from eventsim_importers.torch_program.values import Bordered, Held, OverTime, Padded, Value

if TYPE_CHECKING:
    from eventsim_importers.torch_program.translation import Translation


MATMULS = ("matmul", "__matmul__", "__rmatmul__", "bmm", "einsum")
"""Products of matrices, which have no bias."""


def conv2d(at: Translation, node: Node) -> Held:
    """Add a convolution over a map."""
    weight = at.constant(node, 1, "weight")
    assert weight is not None
    stride, padding, dilation = (
        pair(at.plain(node, index, word, default))
        for index, word, default in ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1))
    )
    if isinstance(padding[0], str):
        padding = _padding(at, node, padding[0], weight.shape[2:], dilation)
    groups = int(at.plain(node, 6, "groups", 1))
    held = at.held.get(node.refs[0])
    if isinstance(held, Bordered):
        layer = Conv2d(weight, at.constant(node, 2, "bias"), stride, padding, groups, dilation)
        found = borders.convolved(at, node, held, layer)
        if isinstance(found, Kernel):
            name = at.folded(_shared(held.value.layer, node.path, held.value.layer), found, node, held.value)
            return at.standard(name, held.value.dims, ("channel", "grid"))
        if found is not None:
            return _convolved(at, node, *found)
    value = at.given(node)
    kind = at.kind(value)
    tokens = (whole("channel", kind.channels), whole("position", kind.positions))
    of_each = weight.shape[2:] == (1, 1) and groups == 1 and (stride, padding) == ((1, 1), (0, 0))
    if (
        of_each
        and same((value.dims[-3], joined(*value.dims[-2:])), tokens)
        and not same(value.dims[-2:], grid_axes(kind.grid))
    ):
        at.check_front(node, value.dims[:-3])
        made = _synapses(at, node, value, weight[:, :, 0, 0], Linear, ("channel", "position", "one"))
        return made.along((*made.dims[:-3], made.dims[-3], *value.dims[-2:]))
    value = at.map_of(node)
    return _convolved(at, node, value, Conv2d(weight, at.constant(node, 2, "bias"), stride, padding, groups, dilation))


def _convolved(at: Translation, node: Node, value: Value, layer: Conv2d) -> Value:
    """Add a convolution, folded into the one before it where it can be."""
    return _behind(at, node, value, layer) or at.standard(
        at.add(at.owner(node, at.plain(node, 1, "weight", None)) or node.operation, layer, value),
        value.dims,
        ("channel", "grid"),
    )


def _behind(at: Translation, node: Node, value: Value, layer: Conv2d) -> Value | None:
    """Fold a convolution into the one before it, or a normalisation, that it alone reads; None where that is wrong."""
    if not at.fold_bn or not at.alone(node.number, value):
        return None
    first, second = at.kernel(value), kernel_of(layer)
    kernel = behind(first, second) if first and second else None
    if kernel is None:
        return None
    scaled = isinstance(at.build.layers.get(value.layer), Affine)  # a factor, whose convolution this is
    owner = at.owner(node, at.plain(node, 1, "weight", None)) if scaled and isinstance(layer, Conv2d) else None
    folded = at.folded(_shared(value.layer, node.path, owner or value.layer), kernel, node, value)
    return at.standard(folded, value.dims, ("channel", "grid"))


def _shared(first: str, second: str, otherwise: str) -> str:
    """Return the module that holds two, or another name where none below the whole does."""
    pairs = zip(first.split("."), second.split("."), strict=False)
    shared = [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]
    return ".".join(shared) or otherwise


def conv3d(at: Translation, node: Node) -> Held:
    """Add a convolution over time and a map."""
    held = at.held[node.refs[0]]
    before, after = (held.before, held.after) if isinstance(held, Padded) else (0, 0)
    value = held.value if isinstance(held, Padded) else at.value(node)
    kind = at.kind(value)
    expected = (whole("channel", kind.channels), whole("time", at.time_steps), *grid_axes(kind.grid))
    if len(kind.grid) != 2 or not same(value.dims[-4:], expected) or any(value.dims[:-4]):
        raise AxesError(f"axes of {kind} in another order found; expected channels, time, height, width")
    weight = at.constant(node, 1, "weight")
    assert weight is not None
    stride, padding, dilation = (
        _three(at.plain(node, index, word, default))
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
        groups=int(at.plain(node, 6, "groups", 1)),
        time_padding=cast(Literal["centred", "causal"], ways[before, after]),
    )
    made = _synapses(at, node, value, weight, make, ("channel", "grid"))
    return made.along((*value.dims[:-4], made.dims[-3], value.dims[-3], *made.dims[-2:]))


def _padding(at: Translation, node: Node, word: str, kernel: Sequence[int], dilation: Sequence[int]) -> tuple[int, int]:
    if word == "valid":
        return (0, 0)
    total = [step * (size - 1) for size, step in zip(kernel, dilation, strict=True)]
    if any(each % 2 for each in total):
        raise at.error(node, f"padding 'same' of a kernel {tuple(kernel)} found; expected an odd one")
    return (total[0] // 2, total[1] // 2)


def conv1d(at: Translation, node: Node) -> Held:
    """Add a convolution over a line, or a linear layer of each token."""
    weight = at.constant(node, 1, "weight")
    assert weight is not None
    value = at.given(node)
    kind = at.kind(value)
    if isinstance(at.plain(node, 4, "padding", 0), str):
        raise AxesError("padding given by a word found; expected a number")
    moves = [first(at.plain(node, *each)) for each in ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1))]
    groups = int(at.plain(node, 6, "groups", 1))
    if not same(value.dims[-2:], (whole("channel", kind.channels), whole("position", kind.positions))):
        value = rearranged(at, node, at.settled(value), (-2,), (-1,))
    at.check_front(node, value.dims[:-2])
    if weight.shape[2] == 1 and groups == 1 and moves[:2] == [1, 0]:
        return _synapses(at, node, value, weight[:, :, 0], Linear, ("channel", "position"))
    value = at.line_of(node, at.settled(value))
    stride, padding, dilation = moves
    make = partial(Conv2d, stride=(1, stride), padding=(0, padding), groups=groups, dilation=(1, dilation))
    return _synapses(at, node, value, weight[:, :, None], make, ("channel", "position"))


def linear(at: Translation, node: Node) -> Held:
    """Add a linear layer of the last axis: at each position, or of all values in any order."""
    weight = at.constant(node, 1, "weight")
    assert weight is not None
    return weighted(at, node, at.given(node), weight, at.plain(node, 1, "weight", None))


def weighted(at: Translation, node: Node, value: Value | OverTime, weight: FloatArray, of: Any) -> Value:
    """Add a linear layer of weights (outputs, inputs), which are those of a tensor `of` the module."""
    kind = at.kind(value)
    last = value.dims[-1]
    if joined(last) == joined(whole("channel", kind.channels)):
        return _synapses(at, node, value, weight, Linear, None, of)
    value = at.settled(value)
    place = places(kind, last)
    if find((last,), "time"):
        raise AxesError("a linear layer over time found; expected channels or positions")
    if not np.array_equal(np.sort(place), np.arange(kind.size)):  # such as one over tokens
        return _synapses(at, node, rearranged(at, node, value, (-1,)), weight, Linear, None, of)
    weight = weight[:, np.argsort(place)]
    flattened = at.add(at.named(node, "flatten"), Flatten(), value)
    size = at.build.types[flattened].channels
    flat = Value(flattened, (*value.dims[:-1], whole("channel", size)))
    return _synapses(at, node, flat, weight, Linear, None, of)


def _synapses(
    at: Translation,
    node: Node,
    value: Value | OverTime,
    weight: FloatArray,
    make: Callable[..., Layer],
    last: Sequence[str] | None,
    of: Any = None,
) -> Value:
    """Add synapses, with the window of what they hear; a normalisation behind them is folded in when it is met."""
    bias = at.constant(node, 2, "bias") if node.operation not in MATMULS else None
    weight = np.ascontiguousarray(weight)
    if isinstance(value, OverTime):
        heard = windows.synapses_window(at, value) if make is Linear else None
        if heard is None:
            value = at.settled(value)
        else:
            value, (steps, exponent, decay) = heard
            make = partial(WindowedLinear, window=steps, exponent=exponent, decay=decay)
    name = at.owner(node, at.plain(node, 1, "weight", None) if of is None else of) or node.operation
    layer = at.add(name, make(weight, bias), value)
    if last is None:
        return Value(layer, (*value.dims[:-1], whole("channel", at.build.types[layer].channels)))
    return at.standard(layer, value.dims, last)


def _batch_norm(at: Translation, node: Node) -> tuple[BatchNorm, float]:
    mean, variance = at.constant(node, 1, "running_mean"), at.constant(node, 2, "running_var")
    if mean is None or variance is None:
        raise at.error(node, "batch normalisation without statistics found; expected track_running_stats")
    if at.plain(node, 5, "training", False):
        raise at.error(node, "batch normalisation in training mode found; expected module.eval()")
    weight, bias = at.constant(node, 3, "weight"), at.constant(node, 4, "bias")
    ones, zeros = np.ones_like(mean), np.zeros_like(mean)
    arrays = BatchNorm(ones if weight is None else weight, zeros if bias is None else bias, mean, variance)
    return arrays, float(at.plain(node, 7, "eps", 1e-5))


def batch_norm(at: Translation, node: Node) -> Held:
    """Fold a normalisation into the synapses that it alone reads, or add it."""
    value = at.value(node)
    kind = at.kind(value)
    if len(value.dims) < 2:
        raise AxesError(f"normalisation of {kind} without an axis of channels found; expected channels in axis 1")
    if joined(value.dims[1]) != joined(whole("channel", kind.channels)):
        value = rearranged(at, node, value, (1,))
    arrays, eps = _batch_norm(at, node)
    layer = at.build.layers.get(value.layer)
    wanted = at.fold_bn and at.alone(node.number, value)
    if wanted and isinstance(layer, Conv2d):
        kernel = at.kernel(value)
        assert kernel is not None
        kernel = at.kernels[value.layer] = kernel.normalised(arrays, eps)
        at.build.layers[value.layer], at.terms[value.layer] = kernel.layer(), kernel.absolute()
        at.maker[value.layer] = node.number  # another one behind it is folded in too
        return value
    if wanted and isinstance(layer, Linear | WindowedLinear | Conv3d):
        weight, bias = fold(layer.weight, layer.bias, arrays, eps)
        at.build.layers[value.layer] = replace(layer, weight=weight, bias=bias)
        share = np.abs(arrays.weight / np.sqrt(arrays.variance + np.float32(eps)))
        mean = np.abs(arrays.mean) + (0 if layer.bias is None else np.abs(layer.bias))
        at.terms[value.layer] = {"bias": np.asarray(np.abs(arrays.bias) + mean * share, np.float32)}
        at.maker[value.layer] = node.number
        return value
    return Value(at.add(node.path or "norm", normalisation(arrays, eps), value), value.dims)


def group_norm(at: Translation, node: Node) -> Held:
    """Refuse a normalisation by statistics of the very input, which no trained array holds."""
    raise AxesError(
        f"statistics of each input {node.shapes[0]} in evaluation too found; expected those of training, as "
        "batch_norm keeps them"
    )


def instance_norm(at: Translation, node: Node) -> Held:
    """Add a normalisation by running statistics, which is that of a batch."""
    if at.plain(node, 5, "use_input_stats", True):
        return group_norm(at, node)
    return batch_norm(at, node)


def layer_norm(at: Translation, node: Node) -> Held:
    """Add a normalisation over channels."""
    value = at.value(node)
    kind = at.kind(value)
    count = len(tuple(leaves(node.arguments[1])))
    if count != 1:
        raise AxesError(f"normalisation of the last {count} axes found; expected the last one")
    value = vectors(at, node, value, -1)
    kind = at.kind(value)
    weight, bias = at.constant(node, 2, "weight"), at.constant(node, 3, "bias")
    weight = np.ones(kind.channels, np.float32) if weight is None else weight
    layer = LayerNorm(weight, bias, float(at.plain(node, 4, "eps", 1e-5)))
    return Value(at.add(node.path or "norm", layer, value), value.dims)


def _three(value: Any) -> tuple[int, int, int]:
    first, second, third = value if isinstance(value, (tuple, list)) else (value,) * 3
    return int(first), int(second), int(third)


OPERATIONS = {
    "conv1d": conv1d, "conv2d": conv2d, "conv3d": conv3d, "linear": linear, "batch_norm": batch_norm,
    "layer_norm": layer_norm, "group_norm": group_norm, "instance_norm": instance_norm,
}  # fmt: skip
