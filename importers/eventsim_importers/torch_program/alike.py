"""Whether every time step of a loop does the same, the first ones too, in which there is nothing from steps before."""

from __future__ import annotations

from typing import Any

import torch

from eventsim.errors import InputError
from eventsim_importers.torch_program.groups import Group, Steps
from eventsim_importers.torch_program.one_step import ADDS, Earlier
from eventsim_importers.torch_program.recorder import NEURON, Node, Ref, leaves, mapped

NOTHING = "nothing"
"""What comes from before the first step."""


class Likeness:
    """Compares the steps of a loop.

    Parameters
    ----------
    steps : Steps
    groups : list of Group

    Attributes
    ----------
    starts : list of tuple (int, tensor)
        Operations in whose place the first steps had other values than zeros, and these.
    """

    def __init__(self, steps: Steps, groups: list[Group]) -> None:
        self.all = steps
        self.by_template = {group.template.number: group for group in groups}
        self.starts: list[tuple[int, torch.Tensor]] = []

    def check(self, group: Group) -> None:
        """Compare an operation in every step with that in the last.

        Raises
        ------
        InputError
            If it differs; names the module.
        """
        for step, node in group.by_step.items():
            if not self._does_the_same(node, group, step):
                raise InputError(
                    f"{group.what} of time step {step} found that differs from that of step {group.last}; expected "
                    "the same in every step"
                )

    def hears_earlier(self, group: Group) -> bool:
        """Tell whether an operation reads what a step before made, so that the first steps may lack it."""
        return any(isinstance(each, Earlier) for each in leaves(self.relative(group.template, group.last)))

    def continues(self, group: Group) -> bool:
        """Tell whether the first of these operations goes on from what earlier steps made: no sum begins there."""
        first = min(group.by_step)
        return any((self.all.step_of[ref] or 0) < first for ref in group.by_step[first].refs)

    def relative(self, node: Node, step: int) -> tuple[Any, Any]:
        """Return the arguments of a node in terms of the operations of one step."""

        def relative(ref: Ref) -> Ref:
            found = self.all.step_of[ref]
            if found is None:
                return ref
            number = self.all.group_of[ref.node].template.number
            return Ref(number, ref.result) if found == step else Earlier(number, ref.result, step - found)

        if node.operation == NEURON:
            return (relative(self._heard(node, step)),), {}
        arguments, keywords = mapped((node.arguments, node.keywords), lambda tensor: tensor, relative)
        return arguments, keywords

    def _heard(self, node: Node, step: int) -> Ref:
        """Return what a neuron hears, after checking that its state is its own of the step before."""
        heard, *states = node.refs
        group = self.all.group_of[node.number]
        for ref in states:
            if self.all.group_of.get(ref.node) is not group or self.all.step_of[ref] != step - 1:
                raise InputError(
                    f"module {node.path}: a state that is not its own of the step before found; expected that"
                )
        return heard

    # --- comparing

    def _does_the_same(self, node: Node, group: Group, step: int) -> bool:
        expected = self.relative(group.template, group.last)
        found = (node.refs[:1], {}) if node.operation == NEURON else (node.arguments, node.keywords)
        starts = list(self.starts)
        if self._alike(found, expected, step):
            return True
        self.starts = starts
        if node.operation not in ADDS or step == group.last:
            return False
        # a sum with nothing, in any order
        there = [each for each in expected[0] if not isinstance(each, Ref) or self._worth(each, step) != NOTHING]
        given = [each for each in node.arguments if not _is_nothing(each)]
        return len(there) < len(expected[0]) and self._alike((given, node.keywords), (there, expected[1]), step)

    def _worth(self, ref: Ref, step: int) -> Any:
        """Return which result of all steps an argument of one step is, sums with nothing left out."""
        if isinstance(ref, Earlier):
            return self._worth(Ref(ref.node, ref.result), step - ref.steps)
        group = self.by_template.get(ref.node)
        if group is None:
            return ref
        if step < group.first or step < 0:
            return NOTHING
        if step in group.by_step:
            return self._found(Ref(group.by_step[step].number, ref.result))
        if group.operation in ADDS:
            given = leaves(self.relative(group.template, group.last)[0])
            there = [worth for each in given if isinstance(each, Ref) and (worth := self._worth(each, step)) != NOTHING]
            if len(there) == 1:
                return there[0]
        return None

    def _found(self, ref: Ref) -> Ref:
        node = self.all.nodes[ref.node]
        if node.operation in ADDS and len(node.refs) == 1 and any(map(_is_nothing, node.arguments)):
            return self._found(node.refs[0])
        return ref

    def _alike(self, found: Any, expected: Any, step: int) -> bool:
        """Compare arguments; in the first steps zeros stand for what has not been emitted yet."""
        if isinstance(expected, Ref):
            worth = self._worth(expected, step)
            if isinstance(found, Ref):
                return bool(self._found(found) == worth)
            if worth != NOTHING:
                return False
            if isinstance(found, torch.Tensor) and not _is_nothing(found):
                # what is made of silence, such as a bias, need not be nothing
                self.starts.append((expected.node, found))
                return self.all.nodes[expected.node].operation != NEURON
            return found is None or _is_nothing(found)
        if found is None and isinstance(expected, tuple) and expected:
            return all(isinstance(each, Ref) and self._worth(each, step) == NOTHING for each in leaves(expected))
        if isinstance(expected, torch.Tensor) or isinstance(found, torch.Tensor):
            same = isinstance(expected, torch.Tensor) and isinstance(found, torch.Tensor)
            return same and (found is expected or (found.shape == expected.shape and torch.equal(found, expected)))
        if isinstance(expected, (tuple, list)) and isinstance(found, (tuple, list)):
            pairs = zip(found, expected, strict=False)
            return len(found) == len(expected) and all(self._alike(one, other, step) for one, other in pairs)
        if isinstance(expected, dict) and isinstance(found, dict):
            return found.keys() == expected.keys() and all(
                self._alike(found[key], expected[key], step) for key in expected
            )
        return bool(found == expected)


def _is_nothing(value: Any) -> bool:
    """Tell whether a value is zeros alone."""
    if isinstance(value, torch.Tensor):
        return bool((value == 0).all())
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not value
