"""The operations of all time steps, and which of them are the same operation of a step, time after time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from eventsim_importers.torch_program.frames_taken import hashable
from eventsim_importers.torch_program.one_step import STEP
from eventsim_importers.torch_program.recorder import Node, Ref, leaves


@dataclass
class Group:
    """The same operation in every step.

    Attributes
    ----------
    path, operation : str
    by_step : dict of int to Node
    first : int
        The step from which on it is done: there may be steps before of which nothing is read.
    """

    path: str
    operation: str
    by_step: dict[int, Node] = field(default_factory=dict)
    first: int = 0

    @property
    def last(self) -> int:
        """The last step in which it is done."""
        return max(self.by_step)

    @property
    def template(self) -> Node:
        """The operation of the last step."""
        return self.by_step[self.last]

    @property
    def what(self) -> str:
        """Name it in errors."""
        return f"module {self.path or 'itself'}: {self.operation}"


class Steps:
    """What belongs to which time step.

    Attributes
    ----------
    number : int
        Of time steps.
    nodes : dict of int to Node
    step_of : dict of Ref to int or None
        None of what is outside the loop.
    group_of : dict of int to Group
        By the number of an operation, of those in the loop.
    """

    def __init__(self, number: int, nodes: dict[int, Node]) -> None:
        self.number = number
        self.nodes = nodes
        self._free = max(nodes) + 1
        self.step_of: dict[Ref, int | None] = {}
        self.group_of: dict[int, Group] = {}

    def add(self, node: Node, step: int | None) -> Node:
        """Give a new operation a number and a step."""
        node = replace(node, number=self._free)
        self._free += 1
        self.nodes[node.number] = node
        for index in range(len(node.shapes)):
            self.step_of[Ref(node.number, index)] = step
        return node


def grouped(inside: Sequence[Node], steps: Steps) -> list[Group]:
    """Find the operations that are the same in several steps, by module, operation and order.

    Where a step has fewer of them than others, those are the same that have the same to work on.
    """
    listed: dict[tuple[str, str], dict[int, list[Node]]] = defaultdict(lambda: defaultdict(list))
    for node in inside:
        step = steps.step_of[Ref(node.number)]
        assert step is not None
        listed[node.path, node.operation][step].append(node)
    groups = []
    for (path, operation), by_step in listed.items():
        most = max(map(len, by_step.values()))
        longest = by_step[max(step for step, nodes in by_step.items() if len(nodes) == most)]
        made = [Group(path, operation) for _ in longest]
        for step, nodes in by_step.items():
            for place, node in zip(_places(nodes, longest, steps), nodes, strict=True):
                made[place].by_step[step] = node
                steps.group_of[node.number] = made[place]
        groups.extend(made)
    return sorted(groups, key=lambda group: group.template.number)


def _places(nodes: list[Node], longest: list[Node], steps: Steps) -> list[int]:
    """Return of each operation of a step its place among those of a step that has all of them."""
    if len(nodes) == len(longest):
        return list(range(len(nodes)))
    expected = [_work(node, steps) for node in longest]
    places: list[int] = []
    for index, node in enumerate(nodes):
        free = range(places[-1] + 1 if places else 0, len(longest) - (len(nodes) - index) + 1)
        work = _work(node, steps)
        alike = [place for place in free if expected[place] == work]
        alike += [place for place in free if expected[place][1] == work[1]]  # of sums that the first step lacks
        places.append([*alike, free[-1]][0])
    return places


def _work(node: Node, steps: Steps) -> tuple[Any, Any]:
    """Return what an operation has to work on in its own step: results of which operations, and numbers."""
    own = steps.step_of[Ref(node.number)]
    made = []
    for ref in node.refs:
        source = steps.nodes[ref.node]
        if steps.step_of[ref] == own or node.operation == STEP:
            made.append((source.path, source.operation, ref.result))
    plain = [
        hashable(each)
        for each in leaves((node.arguments, node.keywords))
        if not isinstance(each, (Ref, torch.Tensor, type(None))) and each is not False and each != 0
    ]
    return sorted(made), plain
