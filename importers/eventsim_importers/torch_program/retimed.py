"""The operations of one time step in an order that can be executed, waiting as late as they can."""

from __future__ import annotations

from dataclasses import replace

from eventsim.errors import InputError
from eventsim_importers.torch_program.one_step import TRACE, Earlier
from eventsim_importers.torch_program.recorder import NEURON, Node, Ref, mapped


def retimed(nodes: list[Node], output: Ref) -> list[Node]:
    """Let an operation of which only later steps read the result be done in those steps, on earlier inputs.

    So that what waits is what neurons emitted, as in a recurrent network.
    """
    while True:
        for node in nodes:
            lags = {
                ref.steps if isinstance(ref, Earlier) else 0
                for other in nodes
                for ref in other.refs
                if ref.node == node.number
            }
            if node.operation == NEURON or len(lags) != 1 or lags == {0} or node.number == output.node:
                continue
            if any(ref.node == node.number for ref in node.refs):  # its own result of the step before
                continue
            (lag,) = lags
            nodes = [_shifted(other, node.number, lag) for other in nodes]
            break
        else:
            return nodes


def _shifted(node: Node, number: int, lag: int) -> Node:
    """Return a node after operation `number` was moved by `lag` steps."""

    def renamed(ref: Ref) -> Ref:
        if node.number == number:
            return Earlier(ref.node, ref.result, lag + (ref.steps if isinstance(ref, Earlier) else 0))
        return Ref(ref.node, ref.result) if ref.node == number else ref

    arguments, keywords = mapped((node.arguments, node.keywords), lambda tensor: tensor, renamed)
    return replace(node, arguments=arguments, keywords=keywords)


def in_order(nodes: list[Node]) -> list[Node]:
    """Return nodes such that each reads, but for earlier steps of neurons and leaky sums, what stands before it.

    Raises
    ------
    InputError
        If one reads its own result; names the module.
    """
    left, done, ordered = {node.number: node for node in nodes}, set(), []
    late = {node.number for node in nodes if node.operation in (NEURON, TRACE)}

    def waits(ref: Ref, at_all: bool) -> bool:
        if isinstance(ref, Earlier) and (not at_all or ref.node in late):
            return False
        return ref.node not in done and ref.node in left

    while left:
        ready = [node for node in left.values() if not any(waits(ref, True) for ref in node.refs)]
        if not ready:  # in a circle that an earlier step closes
            ready = [node for node in left.values() if not any(waits(ref, False) for ref in node.refs)][:1]
        if not ready:
            node = next(iter(left.values()))
            raise InputError(f"module {node.path or 'itself'}: {node.operation} found that reads its own result")
        for node in ready:
            ordered.append(left.pop(node.number))
            done.add(node.number)
    return ordered
