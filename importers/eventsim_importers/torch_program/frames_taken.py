"""Where a loop takes the time steps of a signal, one by one: ``x[t]``, ``x[:, t]``, ``x[t : t + 1]``, ``x.unbind(0)``.

Which of several axes and numbers mean time is told by all such operations together: those that differ in one place
alone, and take every time step there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from eventsim_importers.torch_program.recorder import Node, Program, Ref

SPLITS = ("unbind", "split", "chunk", "tensor_split")
"""Operations that return all parts of an axis at once."""
TIME = "the place of time"


@dataclass(frozen=True)
class Taken:
    """One time step of a signal.

    Attributes
    ----------
    axis : int
        Of time.
    step : int
    rest : tuple or None
        What else an index does, to the signal whose axis of time is of size 1; None for nothing.
    """

    axis: int
    step: int
    rest: tuple[Any, ...] | None


class FramesTaken:
    """The operations of a program that take one time step.

    Parameters
    ----------
    program : Program
    steps : int
        Of the loop.
    """

    def __init__(self, program: Program, steps: int) -> None:
        self.program, self.steps = program, steps
        self._first: dict[int, int] = {}  # of operations that do the same to the same, the first
        self._numbers: dict[Any, int] = {}
        self._found: dict[Any, set[int]] = defaultdict(set)
        for node in program.nodes:
            key = (node.path, node.operation, hashable((node.arguments, node.keywords), self._known))
            self._first[node.number] = self._numbers.setdefault(key, node.number)
            for way, each in self._ways(node):
                self._found[way].add(each.step)

    def of(self, node: Node) -> list[Taken]:
        """Return the time steps that the results of an operation are, nothing if they are none."""
        if node.operation in SPLITS:
            axis = self._split_axis(node)
            if len(node.shapes) != self.steps or self._shape(node)[axis] != self.steps:
                return []
            rest = (*[slice(None)] * axis, 0) if node.operation == "unbind" else None
            return [Taken(axis, step, rest) for step in range(self.steps)]
        return [each for way, each in self._ways(node) if self._found[way] == set(range(self.steps))][:1]

    def _known(self, ref: Ref) -> Ref:
        return Ref(self._first.get(ref.node, ref.node), ref.result)

    def _shape(self, node: Node) -> tuple[int, ...]:
        (ref, *_) = node.refs
        return self.program.nodes[ref.node].shapes[ref.result]

    def _split_axis(self, node: Node) -> int:
        place = 1 if node.operation == "unbind" else 2
        axis = node.arguments[place] if len(node.arguments) > place else node.keywords.get("dim", 0)
        return int(axis) % len(self._shape(node))

    def _ways(self, node: Node) -> Iterator[tuple[Any, Taken]]:
        """Yield each place of an index that may be time, with what it has in common with those of other steps."""
        index = self._index(node)
        if index is None:
            return
        axis = -1
        for place, each in enumerate(index):
            if each is None:
                continue
            axis += 1
            size = self._shape(node)[axis]
            start = self._start(each, size)
            if start is None or size != self.steps:
                continue
            one: Any = 0 if isinstance(each, int) else slice(None)
            rest = (*index[:place], one, *index[place + 1 :])
            plain = all(other == slice(None) for other in rest)
            way = (self._known(node.refs[0]), place, hashable((*index[:place], (TIME, repr(one)), *index[place + 1 :])))
            yield way, Taken(axis, start, None if plain else rest)

    def _index(self, node: Node) -> tuple[Any, ...] | None:
        """Return an index with a place for every axis up to the last that it names."""
        if not node.refs or node.operation not in ("__getitem__", "select", "narrow"):
            return None
        rank = len(self._shape(node))
        if node.operation != "__getitem__":
            given = [*node.arguments[1:], *(node.keywords[key] for key in ("dim", "index", "start", "length")
                                            if key in node.keywords)]  # fmt: skip
            axis, start = int(given[0]) % rank, int(given[1])
            if node.operation == "select":
                return (*[slice(None)] * axis, start)
            return (*[slice(None)] * axis, slice(start, start + int(given[2])))
        index = node.arguments[1] if isinstance(node.arguments[1], tuple) else (node.arguments[1],)
        if not all(each is None or each is Ellipsis or isinstance(each, (int, slice)) for each in index):
            return None
        if Ellipsis in index:
            dots = index.index(Ellipsis)
            named = sum(each is not None and each is not Ellipsis for each in index)
            index = (*index[:dots], *[slice(None)] * (rank - named), *index[dots + 1 :])
        return index

    def _start(self, each: Any, size: int) -> int | None:
        """Return the one step that a place of an index takes."""
        if isinstance(each, slice):
            start, stop, by = each.indices(size)
            return start if stop - start == 1 and by == 1 else None
        return None if isinstance(each, bool) else int(each) % size


def hashable(value: Any, known: Any = lambda ref: ref) -> Any:
    """Return arguments of an operation as something to look up; tensors by their identity."""
    if isinstance(value, torch.Tensor):
        return ("tensor", id(value))
    if isinstance(value, (tuple, list)):
        return tuple(hashable(each, known) for each in value)
    if isinstance(value, dict):
        return tuple((key, hashable(each, known)) for key, each in value.items())
    return known(value) if isinstance(value, Ref) else repr(value)
