r"""What a chain of element-wise operations computes: a sum of products with constant factors.

.. math:: \sum_k c_k \prod_{a \in A_k} a

An atom *a* is a spike, a potential that was compared with a threshold, or a tensor that another operation made; *c* are
numbers or arrays that broadcast as PyTorch has them, in float64. As spikes are 0 or 1, so are their powers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from eventsim_importers.torch_program.one_step import ADDS, DIVIDES, MULTIPLIES, NEGATES, REVERSED, SUBTRACTS
from eventsim_importers.torch_program.recorder import RETYPED, Node, Ref

MOST = 32
"""Terms of a sum that is still followed."""
NOT = ("__invert__", "logical_not", "bitwise_not")
MASKED = ("masked_fill", "masked_fill_")

Reals = npt.NDArray[np.float64]


@dataclass(frozen=True, order=True)
class Atom:
    """The potential or the spikes of a comparison with a threshold, by its number; or an operation's result."""

    of: Literal["potential", "spike", "tensor"]
    number: int
    result: int = 0

    @property
    def ref(self) -> Ref:
        """The tensor."""
        return Ref(self.number, self.result)


Product = frozenset[Atom]
Sum = Mapping[Product, Reals]

ONE: Product = frozenset()


class NotFollowed(Exception):
    """An operation that is no sum or product of what is known."""


def number(value: Any) -> Reals | None:
    """Return a constant of the module's own as float32 arithmetic takes it, None of what is none."""
    if isinstance(value, torch.Tensor):
        return np.asarray(value.detach().float().cpu().numpy(), np.float64)
    if isinstance(value, (bool, int, float)):
        return np.asarray(np.float32(value), np.float64)
    return None


def added(a: Sum, b: Sum, factor: float = 1.0) -> Sum:
    """Return a sum of two; terms that vanish are left out."""
    found = dict(a)
    for product, each in b.items():
        total = each * factor if product not in found else found[product] + each * factor
        found[product] = total
    return {product: each for product, each in found.items() if each.any()}


def multiplied(a: Sum, b: Sum) -> Sum:
    """Return the product of two sums."""
    found: dict[Product, Reals] = {}
    for one, factor in a.items():
        for other, share in b.items():
            if any(atom.of != "spike" for atom in one & other):
                raise NotFollowed
            product = one | other
            found[product] = factor * share if product not in found else found[product] + factor * share
    if len(found) > MOST:
        raise NotFollowed
    return {product: each for product, each in found.items() if each.any()}


def equal(a: Sum, b: Sum) -> bool:
    """Tell whether two sums are the same, but for the rounding of their factors."""
    return a.keys() == b.keys() and all(np.allclose(a[key], b[key], rtol=1e-12, atol=0) for key in a)


class Expressions:
    """Follows results back through element-wise operations.

    Parameters
    ----------
    nodes : list of Node
        Of a program that nothing was folded in: each stands at its number.
    spikes : mapping
        Of comparisons with a threshold, by their operation: their number, and whether the result is 1 less the spikes.
    potentials : mapping
        Of what they compared: their number.
    """

    def __init__(
        self, nodes: list[Node], spikes: Mapping[int, tuple[int, bool]], potentials: Mapping[Ref, int]
    ) -> None:
        self.nodes, self.spikes, self.potentials = nodes, spikes, potentials
        self.known: dict[Ref, Sum] = {}

    def of(self, value: Any) -> Sum:
        """Return what a result or a constant is."""
        if not isinstance(value, Ref):
            constant = number(value)
            if constant is None:
                raise NotFollowed
            return {ONE: constant} if constant.any() else {}
        if value in self.potentials:
            return {frozenset([Atom("potential", self.potentials[value])]): np.ones(())}
        if value not in self.known:
            self.known[value] = self.made(value)
        return self.known[value]

    def made(self, ref: Ref) -> Sum:
        """Return what an operation makes of what it reads, though a threshold looks at its result."""
        node = self.nodes[ref.node]
        if ref.node in self.spikes:
            which, rest = self.spikes[ref.node]
            spike: Sum = {frozenset([Atom("spike", which)]): np.ones(())}
            return added({ONE: np.ones(())}, spike, -1) if rest else spike
        itself: Sum = {frozenset([Atom("tensor", ref.node, ref.result)]): np.ones(())}
        follow = FOLLOWED.get(node.operation)
        if follow is None or ref.result:
            return itself
        try:
            return follow(self, node)
        except NotFollowed:
            return itself


def sides(node: Node) -> tuple[Any, Any]:
    """Return both sides of an operation, in their order."""
    if len(node.arguments) < 2 or node.keywords.get("rounding_mode") is not None:
        raise NotFollowed
    a, b = node.arguments[:2]
    return (b, a) if node.operation in REVERSED else (a, b)


def _plus(at: Expressions, node: Node) -> Sum:
    a, b = sides(node)
    alpha = node.arguments[2] if len(node.arguments) > 2 else node.keywords.get("alpha", 1)
    if not isinstance(alpha, (int, float)) or (alpha != 1 and node.operation in REVERSED):
        raise NotFollowed
    return added(at.of(a), at.of(b), -alpha if node.operation in SUBTRACTS else alpha)


def _times(at: Expressions, node: Node) -> Sum:
    a, b = sides(node)
    if node.operation in DIVIDES:
        divisor = number(b)
        if divisor is None or not divisor.all():
            raise NotFollowed
        return multiplied(at.of(a), {ONE: 1 / divisor})
    gate = any(isinstance(each, Ref) and at.nodes[each.node].operation == "sigmoid" for each in (a, b))
    if gate and (number(a) is not None or number(b) is not None):
        raise NotFollowed  # the scale of a gate belongs to it
    return multiplied(at.of(a), at.of(b))


def _minus(at: Expressions, node: Node) -> Sum:
    return added({}, at.of(node.arguments[0]), -1)


def _not(at: Expressions, node: Node) -> Sum:
    return added({ONE: np.ones(())}, at.of(node.arguments[0]), -1)


def _itself(at: Expressions, node: Node) -> Sum:
    return at.of(node.arguments[0])


def _where(at: Expressions, node: Node) -> Sum:
    if len(node.arguments) != 3:
        raise NotFollowed
    return _chosen(at, node.arguments[0], node.arguments[1], node.arguments[2])


def _chosen(at: Expressions, mask: Any, there: Any, elsewhere: Any) -> Sum:
    chosen = at.of(mask)
    rest = added({ONE: np.ones(())}, chosen, -1)
    return added(multiplied(chosen, at.of(there)), multiplied(rest, at.of(elsewhere)))


def _masked(at: Expressions, node: Node) -> Sum:
    if len(node.arguments) != 3:
        raise NotFollowed
    source, mask, value = node.arguments
    return _chosen(at, mask, value, source)


def _set(at: Expressions, node: Node) -> Sum:
    """Follow ``v[spikes] = 0``."""
    source, mask, value = node.arguments
    constant = number(value)
    if not isinstance(mask, Ref) or constant is None or constant.ndim:
        raise NotFollowed
    return _chosen(at, mask, value, source)


FOLLOWED: dict[str, Callable[[Expressions, Node], Sum]] = {
    **dict.fromkeys((*ADDS, *SUBTRACTS), _plus),
    **dict.fromkeys((*MULTIPLIES, *DIVIDES), _times),
    **dict.fromkeys(NEGATES, _minus),
    **dict.fromkeys(NOT, _not),
    **dict.fromkeys(("bool", RETYPED), _itself),
    "where": _where,
    **dict.fromkeys(MASKED, _masked),
    "__setitem__": _set,
}
