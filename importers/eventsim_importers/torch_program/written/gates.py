r"""Step attention written out: gates of the two terms of a charge, made of their means over positions.

.. math:: g = scale \cdot \sigma(E\, \mathrm{ReLU}(R\, [\bar a; \bar b] + r) + e)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from eventsim.signals import FloatArray
from eventsim_importers.torch_program.arguments import pair
from eventsim_importers.torch_program.one_step import MULTIPLIES
from eventsim_importers.torch_program.recorder import Node, Ref, leaves
from eventsim_importers.torch_program.written.expressions import Expressions, equal

if TYPE_CHECKING:
    from eventsim_importers.torch_program.written.charges import Step

SPLITS = ("chunk", "split", "tensor_split")


@dataclass(frozen=True)
class StepAttention:
    """Arrays and fields as of `eventsim.layers.AdaptiveLIF`."""

    reduce_weight: FloatArray
    reduce_bias: FloatArray
    expand_weight: FloatArray
    expand_bias: FloatArray
    scale: float
    inputs: Literal["terms", "features"]
    scalar: bool


def attention_of(sums: Expressions, steps: Sequence[Step]) -> StepAttention | str:
    """Return the step attention of charges with gates, or what is found in its place."""
    read = [_Gates(sums, step) for step in steps]
    for each in read:
        if each.wrong:
            return each.wrong
    kinds: list[set[str]] = []
    for at, (each, step) in enumerate(zip(read, steps, strict=True)):
        kinds.append(each.pools(step, steps[at - 1] if at else None))
    common = set.intersection(*kinds)
    if not common or len({each.scale for each in read}) > 1:
        return "gates made of something else than the means of both terms, or of what arrives in two steps,"
    last = read[-1]
    channels = last.reduce[0].shape[1] // 2
    terms = 1 if last.sum else 2
    gates = last.expand[0].shape[0]
    if gates not in (terms, terms * channels):
        return f"{gates} gates of {channels} channels"
    return StepAttention(
        _alike([each.reduce[0] for each in read]),
        _alike([each.reduce[1] for each in read]),
        _alike([each.expand[0] for each in read]),
        _alike([each.expand[1] for each in read]),
        last.scale,
        "terms" if "terms" in common else "features",
        gates == terms and channels > 1,
    )


def _alike(arrays: list[FloatArray]) -> FloatArray:
    """Stack the arrays of all steps, one for all if they are the same."""
    if all(np.array_equal(each, arrays[0]) for each in arrays):
        arrays = arrays[:1]
    return np.ascontiguousarray(np.stack(arrays))


class _Gates:
    """What makes the gates of one step, from the gates back."""

    def __init__(self, sums: Expressions, step: Step) -> None:
        self.sums = sums
        self.wrong = ""
        self.scale = 1.0
        self.pooled: tuple[Any, Any] = (None, None)
        self.reduce: tuple[FloatArray, FloatArray]
        self.expand: tuple[FloatArray, FloatArray]
        gate = step.gates[1]
        assert gate is not None
        self.sum = step.gates[0] == gate or (step.gates[0] is None and sums.nodes[gate.number].operation not in SPLITS)
        try:
            self._read(step)
        except _OtherwiseError as error:
            self.wrong = str(error)

    def _read(self, step: Step) -> None:
        gate = step.gates[1]
        assert gate is not None
        node = self.sums.nodes[gate.number]
        if not self.sum:
            if node.operation not in SPLITS or len(node.shapes) != 2 or gate.result != 1:
                raise _OtherwiseError("gates that are no halves of one result, the first for what is left,")
            if node.shapes[0] != node.shapes[1]:
                raise _OtherwiseError("gates of different sizes")
            node = self._node(node.arguments[0])
        if node.operation in MULTIPLIES:
            one, other = node.arguments
            one, other = (one, other) if isinstance(one, Ref) else (other, one)
            self.scale = float(other) if not isinstance(other, torch.Tensor) or other.numel() == 1 else np.nan
            node = self._node(one)
        node = self._read_back(node, "sigmoid")
        self.expand = self._weights(node)
        node = self._read_back(self._node(node.arguments[0]), "relu")
        self.reduce = self._weights(node)
        node = self._node(node.arguments[0])
        if node.operation not in ("cat", "concat") or len(node.arguments[0]) != 2:
            raise _OtherwiseError(f"gates made by {node.operation}, not of two means side by side,")
        self.pooled = node.arguments[0]

    def _node(self, value: Any) -> Node:
        if not isinstance(value, Ref):
            raise _OtherwiseError("gates that do not depend on the example")
        return self.sums.nodes[value.node]

    def _read_back(self, node: Node, operation: str) -> Node:
        if node.operation.strip("_") != operation:
            raise _OtherwiseError(f"gates made by {node.operation}, not {operation},")
        return self._node(node.arguments[0])

    def _weights(self, node: Node) -> tuple[FloatArray, FloatArray]:
        weight = node.arguments[1] if len(node.arguments) > 1 else None
        bias = node.arguments[2] if len(node.arguments) > 2 else node.keywords.get("bias")
        moves = (*node.arguments[3:5], *(node.keywords.get(word) for word in ("stride", "padding")))
        plain = all(each is None or pair(each) in ((1, 1), (0, 0)) for each in moves)
        if (
            node.operation != "conv2d"
            or not isinstance(weight, torch.Tensor)
            or weight.shape[2:] != (1, 1)
            or not plain
        ):
            raise _OtherwiseError(f"gates made by {node.operation}, not a convolution of single positions,")
        matrix = np.ascontiguousarray(weight.detach().float().numpy()[:, :, 0, 0])
        if isinstance(bias, torch.Tensor):
            return matrix, np.ascontiguousarray(bias.detach().float().numpy())
        return matrix, np.zeros(len(matrix), np.float32)

    def pools(self, step: Step, before: Step | None) -> set[str]:
        """Tell what the means are of: "terms", "features", or both could be."""
        found = set()
        left, arrived = (self._pooled(each) for each in self.pooled)
        if isinstance(arrived, Ref):
            if equal(self.sums.of(arrived), step.given) and self._is_left(left, step):
                found.add("terms")
            silent = before is None and isinstance(left, torch.Tensor) and not bool(left.any())
            if arrived == step.source and (silent or (before is not None and left == before.source)):
                found.add("features")
        return found

    def _is_left(self, left: Any, step: Step) -> bool:
        if isinstance(left, Ref):
            return equal(self.sums.of(left), step.left)
        mean = step.past.mean(axis=(-2, -1), keepdims=True) if step.past.ndim > 1 else step.past
        return isinstance(left, torch.Tensor) and np.allclose(left.numpy(), mean, rtol=1e-5, atol=1e-6)

    def _pooled(self, value: Any) -> Any:
        """Return what a mean over positions is of; a constant one as it is."""
        if not isinstance(value, Ref):
            return value
        node = self.sums.nodes[value.node]
        given = (
            node.arguments[1] if len(node.arguments) > 1 else node.keywords.get("dim", node.keywords.get("output_size"))
        )
        rank = len(self.sums.nodes[node.refs[0].node].shapes[node.refs[0].result])
        whole = node.operation == "mean" and sorted(axis % rank for axis in leaves(given)) == [rank - 2, rank - 1]
        if not whole and not (node.operation == "adaptive_avg_pool2d" and pair(given) == (1, 1)):
            return None
        return node.arguments[0]


class _OtherwiseError(ValueError):
    """An operation that is not where it should be."""
