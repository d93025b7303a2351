"""Comparisons with a threshold, in any spelling, and what is really compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from eventsim_importers.torch_program.one_step import ADDS, DIVIDES, MULTIPLIES, SUBTRACTS
from eventsim_importers.torch_program.operations.synapses import MATMULS
from eventsim_importers.torch_program.operations.tables import is_function_of_scores
from eventsim_importers.torch_program.recorder import FIRE, Node, Ref
from eventsim_importers.torch_program.written.expressions import NotFollowed, Reals, number, sides

COMPARISONS = {
    **dict.fromkeys(("gt", "__gt__", "greater"), (True, False)),
    **dict.fromkeys(("ge", "__ge__", "greater_equal"), (False, False)),
    **dict.fromkeys(("lt", "__lt__", "less"), (False, True)),
    **dict.fromkeys(("le", "__le__", "less_equal"), (True, True)),
}
"""Whether spikes come above the threshold only, and whether the result is 1 less the spikes."""


def compared(node: Node) -> tuple[Ref, Reals, bool, bool] | None:
    """Return what an operation compares with a threshold, which, if strictly, and if spikes are what is left."""
    if node.operation == FIRE:
        ref, threshold, strict = node.arguments
        return ref, plain(threshold), strict, False
    if node.operation == "heaviside" and len(node.arguments) == 2:
        ref, at_zero = node.arguments
        if isinstance(ref, Ref) and isinstance(at_zero, torch.Tensor) and at_zero.unique().tolist() in ([0], [1]):
            return ref, np.zeros(()), not bool(at_zero.any()), False
    if node.operation not in COMPARISONS or len(node.arguments) != 2:
        return None
    one, other = node.arguments
    strict, rest = COMPARISONS[node.operation]
    if not isinstance(one, Ref):  # a threshold before the potential
        one, other, strict, rest = other, one, not strict, not rest
    threshold = number(other)
    if not isinstance(one, Ref) or threshold is None:
        return None
    return one, plain(threshold), strict, rest


def potential_of(nodes: list[Node], ref: Ref, threshold: Reals) -> tuple[Ref, Reals]:
    """Return what is really compared: ``v`` with theta for ``v - theta`` with 0, or ``v / theta`` with 1."""
    shifted = False
    while True:
        node = nodes[ref.node]
        try:
            one, other = sides(node)
        except (NotFollowed, TypeError):
            return ref, threshold
        by = number(other)
        if not isinstance(one, Ref) or by is None or node.keywords or len(node.arguments) > 2:
            return ref, threshold
        if node.operation in (*ADDS, *SUBTRACTS) and not threshold.any() and not shifted:
            threshold, shifted = plain(threshold + (by if node.operation in SUBTRACTS else -by)), True
        elif node.operation in (*MULTIPLIES, *DIVIDES) and (by > 0).all():
            threshold = plain(threshold * by if node.operation in DIVIDES else threshold / by)
        else:
            return ref, threshold
        ref = one


def of_scores(nodes: list[Node], ref: Ref) -> bool:
    """Tell whether what is compared may be attention scores: products of signals, and functions of each alone."""
    waiting, seen = [ref], set()
    while waiting:
        node = nodes[waiting.pop().node]
        if node.operation in MATMULS and len(node.refs) > 1:
            return True
        if node.number not in seen and is_function_of_scores(node.operation):
            seen.add(node.number)
            waiting.extend(node.refs)
    return False


def plain(threshold: Any) -> Reals:
    """Return a threshold with which float32 compares."""
    array = number(threshold) if not isinstance(threshold, np.ndarray) else threshold
    return np.asarray(np.asarray(array, np.float32), np.float64)
