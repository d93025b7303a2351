"""What is read of a loop behind it: the results of all its steps, of some of them, or of the last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from eventsim.errors import InputError
from eventsim_importers.torch_program.groups import Group, Steps
from eventsim_importers.torch_program.one_step import LAST, STACK
from eventsim_importers.torch_program.recorder import Node, Ref, mapped

JOINS = ("stack", "cat", "concat", "concatenate")


class Collected:
    """Operations behind a loop, in terms of those of one step.

    Parameters
    ----------
    steps : Steps
    part : callable
        ``part(ref, start, stop)``: the results of an operation of one step, from a step on, up to another.

    Attributes
    ----------
    added : list of Node
        What was added besides.
    """

    def __init__(self, steps: Steps, part: Callable[[Ref, int, int | None], Ref]) -> None:
        self.all, self.part = steps, part
        self.added: list[Node] = []
        self._lasts: dict[Ref, Ref] = {}

    def outside(self, node: Node) -> Node:
        """Return an operation behind the loop, or before it."""
        if node.operation in JOINS and len({self.all.step_of[ref] for ref in node.refs} - {None}) > 1:
            return self._joined(node)
        return replace(node, arguments=self.read(node.arguments), keywords=self.read(node.keywords))

    def _joined(self, node: Node) -> Node:
        """Return the results of several steps side by side."""
        listed = node.arguments[0] if isinstance(node.arguments[0], tuple) else ()
        groups = [self.all.group_of.get(ref.node) for ref in node.refs]
        found = [self.all.step_of[ref] for ref in node.refs]
        group, start = groups[-1], found[0]
        alike = len({(id(group), ref.result) for group, ref in zip(groups, node.refs, strict=True)}) == 1
        if (
            group is None
            or start is None
            or len(listed) != len(node.refs)
            or not alike
            or found != list(range(start, start + len(found)))
            or start < group.first
        ):
            raise InputError(
                f"module {node.path or 'itself'}: {node.operation} of some time steps, or of different results, "
                "found; expected the same result of every step, in their order"
            )
        stop = start + len(found)
        source = Ref(group.template.number, node.refs[-1].result)
        source = self.part(source, start - group.first, None if stop == self.all.number else stop - group.first)
        dim = node.arguments[1] if len(node.arguments) > 1 else node.keywords.get("dim", 0)
        operation = "stack" if node.operation == "stack" else "cat"
        return replace(node, operation=STACK, arguments=(source, operation, dim), keywords={})

    def fills(self, group: Group) -> bool:
        """Tell whether each step writes its result into its place of one tensor."""
        return group.operation == "__setitem__" and len(group.by_step) == self.all.number

    def filled(self, group: Group) -> Node:
        """Return the stack of what was written."""
        axes: set[int] = set()
        keys = set()
        for step, node in group.by_step.items():
            base, index, value = node.arguments
            given = index if isinstance(index, tuple) else (index,)
            axis = next((axis for axis, each in enumerate(given) if isinstance(each, int)), None)
            rest = [each for at, each in enumerate(given) if at != axis]
            own = isinstance(base, Ref) and step > 0 and base == Ref(group.by_step[step - 1].number)
            plain = axis is not None and given[axis] == step and all(each == slice(None) for each in rest)
            made = isinstance(value, Ref) and self.all.step_of[value] == step and value.node in self.all.group_of
            if not (plain and made and (own or (step == 0 and not isinstance(base, Ref)))):
                raise InputError(f"{group.what} found; expected out[t] = result in each time step t, in their order")
            axes.add(axis or 0)
            keys.add((id(self.all.group_of[value.node]), value.result))
        if len(axes) != 1 or len(keys) != 1 or group.by_step[0].shapes[0][min(axes)] != self.all.number:
            raise InputError(f"{group.what} found; expected the same result of every time step, one for each")
        node = group.template
        value = node.arguments[2]
        source = Ref(self.all.group_of[value.node].template.number, value.result)
        return replace(node, operation=STACK, arguments=(source, "stack", min(axes)), keywords={})

    def read(self, value: Any) -> Any:
        """Refer to the operations of one step: behind the loop, to the last step's results."""

        def last(ref: Ref) -> Ref:
            group = self.all.group_of.get(ref.node)
            if group is None or self.all.step_of[ref] is None or len(group.by_step) == 1:
                return ref
            return Ref(group.template.number) if self.fills(group) else self._last(group, ref)

        return mapped(value, lambda tensor: tensor, last)

    def _last(self, group: Group, ref: Ref) -> Ref:
        """Return the result of the last step."""
        step = self.all.step_of[ref]
        if step != self.all.number - 1:
            raise InputError(
                f"{group.what}: the result of time step {step} alone is used behind the loop; expected that of the "
                "last step, or of all"
            )
        source = Ref(group.template.number, ref.result)
        if source not in self._lasts:
            node = group.template
            node = self.all.add(replace(node, operation=LAST, arguments=(source,), keywords={},
                                        shapes=[node.shapes[ref.result]], neuron=None), None)  # fmt: skip
            self.added.append(node)
            self._lasts[source] = Ref(node.number)
        return self._lasts[source]
