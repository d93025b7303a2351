r"""Global context written out: attention over the positions of a map, summed up in one vector for all of them.

.. math::
    a_p = k^\top x_p + b_k, \qquad c = \sum_p \mathrm{softmax}(a)_p\, x_p \text{ or } \sum_p \sigma(a_p)\, x_p, \qquad
    y_p = x_p + g(c) \text{ or } x_p\, \sigma(g(c))

where g is a convolution of one position, a layer normalisation or none, ReLU, and another convolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from eventsim_importers.torch_program.arguments import pair
from eventsim_importers.torch_program.one_step import ADDS, MULTIPLIES
from eventsim_importers.torch_program.operations.attention import MATMULS
from eventsim_importers.torch_program.operations.shapes import PERMUTES, RESHAPES
from eventsim_importers.torch_program.recorder import CONTEXT, Node, Ref

Shape = tuple[int, ...]


def with_contexts(nodes: list[Node]) -> list[Node]:
    """Return operations of which the last one of each global context stands for all of it; the others are left."""
    return [_context(nodes, node) or node for node in nodes]


@dataclass(frozen=True)
class _Context:
    """Walks back through operations; a method returns None where another operation stands."""

    nodes: list[Node]

    def made(self, value: Any, *operations: str) -> Node | None:
        """Return the operation that made a value, if it is one of these."""
        if not isinstance(value, Ref) or value.result:
            return None
        node = self.nodes[value.node]
        return node if node.operation in operations else None

    def shape(self, ref: Ref) -> Shape:
        """Return the shape of a result."""
        return self.nodes[ref.node].shapes[ref.result]

    def unshaped(self, value: Any, stop: Ref | None = None) -> Any:
        """Return what views of the same values in another shape are of."""
        while value != stop and (node := self.view(value)) is not None:
            value = node.arguments[0]
        return value

    def view(self, value: Any) -> Node | None:
        """Return an operation that gives another shape to the same values; an index of new axes alone is one."""
        node = self.made(value, *RESHAPES, "__getitem__")
        if node is None or node.operation != "__getitem__":
            return node
        index = node.arguments[1] if isinstance(node.arguments[1], tuple) else (node.arguments[1],)
        whole = all(each is None or each is Ellipsis or each == slice(None) for each in index)
        return node if whole else None

    def convolution(self, value: Any) -> Node | None:
        """Return a convolution of single positions."""
        node = self.made(value, "conv2d")
        if node is None or len(node.arguments) < 2 or not isinstance(node.arguments[1], torch.Tensor):
            return None
        moves = (*node.arguments[3:6], *(node.keywords.get(word) for word in ("stride", "padding", "dilation")))
        still = all(each is None or pair(each) in ((1, 1), (0, 0)) for each in moves)
        groups = node.arguments[6] if len(node.arguments) > 6 else node.keywords.get("groups", 1)
        return node if node.arguments[1].shape[2:] == (1, 1) and still and groups == 1 else None

    def of(self, node: Node, x: Any, gain: Any, combination: str) -> Node | None:
        """Return a context of `x`, if `gain` is made of it so."""
        query = self.convolution(gain)
        rectified = None if query is None else self.made(query.arguments[0], "relu", "relu_")
        if query is None or rectified is None or not isinstance(x, Ref) or len(self.shape(x)) != 4:
            return None
        normed = rectified.arguments[0]
        norm = self.made(normed, "layer_norm")
        value = self.convolution(normed if norm is None else norm.arguments[0])
        if value is None or (norm is not None and not self._is_of_channels(norm)):
            return None
        weights = self._weights(self.unshaped(value.arguments[0]), x)
        if weights is None:
            return None
        normalisation, key = weights
        arrays = {"key": key, "value": value, "query": query}
        given: dict[str, Any] = {"normalisation": normalisation, "combination": combination, "eps": 1e-5}
        for name, conv in arrays.items():
            given[f"{name}_weight"] = conv.arguments[1]
            given[f"{name}_bias"] = conv.arguments[2] if len(conv.arguments) > 2 else conv.keywords.get("bias")
        if norm is not None:
            words = ("normalized_shape", "weight", "bias", "eps")
            told = dict(zip(words, norm.arguments[1:], strict=False)) | norm.keywords
            hidden = value.arguments[1].shape[0]
            given["norm_weight"] = _or(told.get("weight"), torch.ones(hidden))
            given["norm_bias"] = _or(told.get("bias"), torch.zeros(hidden))
            given["eps"] = told.get("eps", 1e-5)
        return replace(node, operation=CONTEXT, arguments=(x,), keywords=given)

    def _is_of_channels(self, norm: Node) -> bool:
        """Tell whether a normalisation is over all channels of the one position."""
        given = norm.arguments[1] if len(norm.arguments) > 1 else norm.keywords.get("normalized_shape")
        return isinstance(given, tuple) and given == (*self.shape(norm.refs[0])[1:],)

    def _weights(self, context: Any, x: Ref) -> tuple[str, Node] | None:
        """Return how the positions of `x` are weighed in a sum over them, and by which convolution."""
        weights = self._by_product(context, x) or self._by_sum(context, x)
        if weights is None:
            return None
        while True:  # one weight for each position: neither a view nor another order of axes changes which is which
            node = self.view(weights) or self.made(weights, *PERMUTES)
            if node is None:
                break
            weights = node.arguments[0]
        _, _, height, width = self.shape(x)
        softmax, sigmoid = self.made(weights, "softmax"), self.made(weights, "sigmoid")
        found = softmax or sigmoid
        if found is None:
            return None
        if softmax is not None:
            axis = softmax.arguments[1] if len(softmax.arguments) > 1 else softmax.keywords.get("dim")
            if not isinstance(axis, int) or softmax.shapes[0][axis] != height * width:
                return None
        key = self.convolution(self.unshaped(found.arguments[0]))
        if key is None or key.arguments[0] != x or key.arguments[1].shape[0] != 1:
            return None
        return ("sigmoid" if softmax is None else "softmax"), key

    def _by_product(self, context: Any, x: Ref) -> Ref | None:
        """Return the weights of a product of matrices: channels by positions, positions by one."""
        node = self.made(context, *MATMULS)
        if node is None or not all(isinstance(each, Ref) for each in node.arguments[:2]):
            return None
        maps, weights = node.arguments[:2]
        batch, channels, height, width = self.shape(x)
        sizes = (self.shape(maps), self.shape(weights))
        matrices = ((channels, height * width), (height * width, 1))
        fits = all(
            size[-2:] == matrix and math.prod(size[:-2]) == batch for size, matrix in zip(sizes, matrices, strict=True)
        )
        return weights if fits and self.unshaped(maps, x) == x else None

    def _by_sum(self, context: Any, x: Ref) -> Ref | None:
        """Return the weights, one for each position of a map, of a product that is summed over the map."""
        node = self.made(context, "sum")
        product = None if node is None else self.made(node.arguments[0], *MULTIPLIES)
        if node is None or product is None or x not in product.arguments:
            return None
        given = node.arguments[1] if len(node.arguments) > 1 else node.keywords.get("dim")
        one, other = product.arguments[:2]
        weights = other if one == x else one
        batch, _, height, width = self.shape(x)
        over = isinstance(given, tuple) and sorted(axis % 4 for axis in given) == [2, 3]
        fits = isinstance(weights, Ref) and self.shape(weights) == (batch, 1, height, width)
        return weights if over and fits else None


def _context(nodes: list[Node], node: Node) -> Node | None:
    """Return the context that an operation ends, if it ends one."""
    if node.operation not in (*ADDS, *MULTIPLIES) or len(node.arguments) != 2 or node.keywords:
        return None
    at = _Context(nodes)
    for x, gain in (node.arguments, node.arguments[::-1]):
        if node.operation in ADDS:
            found = at.of(node, x, gain, "additive")
        else:
            gate = at.made(gain, "sigmoid")
            found = None if gate is None else at.of(node, x, gate.arguments[0], "gated")
        if found is not None:
            return found
    return None


def _or(value: Any, default: torch.Tensor) -> Any:
    return default if value is None else value
