"""Nodes without a state: weights, pooling, and changes of shape.

NIR's shapes are PyTorch's without the batch axis: ``(C, H, W)`` for a map, ``(C, L)`` for a sequence in front of a
Conv1d, and a Linear or Affine acts on the last axis of any shape.
"""

from __future__ import annotations

from math import prod

from eventsim.layers import Affine, AvgPool2d, Conv2d, Flatten, Reshape, SumPool2d
from eventsim.signals import FloatArray
from eventsim_importers.nir.fields import Fields, Heard, Pair, least
from eventsim_importers.nir.graph import Node
from eventsim_importers.reading.synapses import linear


def conv2d(fields: Fields, node: Node, heard: Heard) -> str:
    """Map the Conv2d."""
    weight = fields.take(node, "weight", None, None, None, None)
    bias = fields.take(node, "bias", len(weight))
    stride, dilation = fields.pair(node, "stride"), fields.pair(node, "dilation")
    padding = _padding(fields, node, (weight.shape[2], weight.shape[3]), stride, dilation)
    fields.expect(node, "input_shape", fields.type(heard).grid)
    return fields.add(node, Conv2d(weight, bias, stride, padding, fields.integer(node, "groups"), dilation), heard)


def conv1d(fields: Fields, node: Node, heard: Heard) -> str:
    """Map the Conv1d: a Conv2d over a map of one row, ``node.conv``, between two changes of shape."""
    shape = fields.type(heard).shape
    if len(shape) != 2:
        raise fields.error(node, f"input {fields.type(heard)} found; expected a sequence C x L")
    weight = fields.take(node, "weight", None, None, None)
    bias = fields.take(node, "bias", len(weight))
    stride, dilation = fields.integer(node, "stride"), fields.integer(node, "dilation")
    padding = _padding(fields, node, (1, weight.shape[2]), (1, stride), (1, dilation))
    fields.expect(node, "input_shape", shape[1:])
    groups = fields.integer(node, "groups")
    on_map = fields.add(node, Reshape((shape[0], 1, shape[1])), heard, suffix=".map")
    layer = Conv2d(weight[:, :, None], bias, (1, stride), padding, groups, (1, dilation))
    convolved = fields.add(node, layer, on_map, suffix=".conv")
    channels, _, length = fields.type(convolved).shape
    return fields.add(node, Reshape((channels, length)), convolved)


def _padding(fields: Fields, node: Node, kernel: Pair, stride: Pair, dilation: Pair) -> Pair:
    """Return the padding in pixels; the file has pixels, or PyTorch's word for them."""
    word = fields.checkpoint.metadata.get(f"{node.key}.padding")
    if word is None:
        if node.type == "Conv1d":
            return (0, fields.integer(node, "padding"))
        return fields.pair(node, "padding")
    if word == "valid":
        return (0, 0)
    if word != "same":
        raise fields.error(node, f"padding {word!r} found; expected numbers, 'same' or 'valid'")
    vertical, horizontal = (d * (size - 1) for d, size in zip(dilation, kernel, strict=True))
    if stride != (1, 1) or vertical % 2 or horizontal % 2:
        raise fields.error(
            node, f"padding 'same' with kernel {kernel} and stride {stride} found; expected odd sizes and stride 1"
        )
    return (vertical // 2, horizontal // 2)


def affine(fields: Fields, node: Node, heard: Heard) -> str:
    """Map the Affine and the Linear."""
    arriving = fields.type(heard)
    shape = arriving.shape
    stored = fields.checkpoint.tensors.get(f"{node.key}.weight")
    if stored is not None and stored.ndim == 2 and stored.shape[1] == arriving.size != shape[-1]:
        raise fields.error(
            node, f"input {arriving} found; expected one vector of {arriving.size}, which a Flatten node makes"
        )
    weight: FloatArray = fields.take(node, "weight", None, shape[-1])
    bias = fields.take(node, "bias", len(weight)) if node.type == "Affine" else None
    layer = linear(weight, bias)
    if len(shape) < 3:
        return fields.add(node, layer, heard)
    lines = fields.add(node, Reshape((prod(shape[:2]), shape[2])), heard, suffix=".lines")
    product = fields.add(node, layer, lines, suffix=".product")
    return fields.add(node, Reshape((*shape[:2], len(weight))), product)


def scale(fields: Fields, node: Node, heard: Heard) -> str:
    """Map the Scale."""
    return fields.add(node, Affine(least(fields.per_neuron(node, "scale", fields.type(heard)))), heard)


def sum_pool2d(fields: Fields, node: Node, heard: Heard) -> str:
    """Map the SumPool2d."""
    return fields.add(node, SumPool2d(*_window(fields, node)), heard)


def avg_pool2d(fields: Fields, node: Node, heard: Heard) -> str:
    """Map the AvgPool2d, which counts its padding."""
    return fields.add(node, AvgPool2d(*_window(fields, node)), heard)


def _window(fields: Fields, node: Node) -> tuple[Pair, Pair, Pair]:
    return fields.pair(node, "kernel_size"), fields.pair(node, "stride"), fields.pair(node, "padding")


def flatten(fields: Fields, node: Node, heard: Heard) -> str:
    """Map the Flatten of all axes or of some; a batch axis of 1 in its input_type is not counted."""
    shape = fields.type(heard).shape
    stated = fields.expect(node, "input_type", shape)
    batch = len(stated) - len(shape)
    axes = []
    for field in ("start_dim", "end_dim"):
        axis = fields.integer(node, field)
        axes.append(axis + len(shape) if axis < 0 else max(axis - batch, 0))
    start, end = axes
    if not 0 <= start <= end < len(shape):
        raise fields.error(node, f"axes {start} to {end} of {shape} found; expected axes of the input, in order")
    new = (*shape[:start], prod(shape[start : end + 1]), *shape[end + 1 :])
    return fields.add(node, Flatten() if len(new) == 1 else Reshape(new), heard)
