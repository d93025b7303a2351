"""A loop over time that a module ran, folded back into one time step.

A module of single-step neurons is called once for each time step, by a loop of its own or of its user. What one step
does is found among the operations of all: those with the same operation in the same module, the same time after time.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from typing import Any

from eventsim.errors import InputError
from eventsim_importers.torch_program.alike import Likeness
from eventsim_importers.torch_program.carried import carried
from eventsim_importers.torch_program.collected import JOINS, Collected
from eventsim_importers.torch_program.frames_taken import FramesTaken, hashable
from eventsim_importers.torch_program.groups import Group, Steps, grouped
from eventsim_importers.torch_program.one_step import ADDS, DIVIDES, MULTIPLIES, PART, REVERSED, STEP, SUBTRACTS
from eventsim_importers.torch_program.recorder import NEURON, Node, Program, Ref, mapped, needed
from eventsim_importers.torch_program.retimed import in_order, retimed


def folded(program: Program) -> tuple[Program, int | None]:
    """Return the program of one time step, and how many steps the loop had; as it is, and None, if there was none.

    Raises
    ------
    InputError
        If steps differ; names the module.
    """
    steps = _loop_length(program)
    if steps is None:
        return program, None
    return _Folding(program, steps).folded(), steps


def single_step(node: Node) -> bool:
    """Tell whether an operation is a call of neurons for one time step."""
    return node.operation == NEURON and node.neuron is not None and node.neuron.time_axis is None


def _loop_length(program: Program) -> int | None:
    """Return how often the neurons of single steps were called."""
    calls: dict[str, int] = defaultdict(int)
    for node in program.nodes:
        if single_step(node):
            calls[node.path] += 1
    if not calls or max(calls.values()) == 1:
        return None
    longest = max(calls.values())
    for path, count in calls.items():
        if count != longest:
            most = next(path for path, count in calls.items() if count == longest)
            raise InputError(
                f"module {path}: neurons called {count} times found, those of {most} {longest} times; expected one "
                "call in each time step"
            )
    return longest


class _Folding:
    def __init__(self, program: Program, steps: int) -> None:
        self.program, self.last = program, steps - 1
        self.all = Steps(steps, {node.number: node for node in program.nodes})
        self.outside: list[Node] = []
        self.renamed: dict[Ref, Ref] = {}
        self.once: dict[Any, int] = {}
        self.made: list[Node] = []
        frames = FramesTaken(program, steps)
        inside: list[Node] = []
        # how often each module puts so many results side by side: within a loop it does so in every step
        self.joining = Counter((node.path, node.operation, len(node.refs)) for node in program.nodes)
        for node in program.nodes:
            self._place(node, frames, inside)
        self.output = self._current(program.output)
        self.groups = grouped(inside, self.all)

    # --- which operations belong to which step

    def _place(self, node: Node, frames: FramesTaken, inside: list[Node]) -> None:
        """Tell which step an operation belongs to; what every step does alike to the same signal is done once."""
        arguments, keywords = self._current((node.arguments, node.keywords))
        node = _plain(replace(node, arguments=arguments, keywords=keywords))
        self.all.nodes[node.number] = node
        if node.refs and self.all.step_of[node.refs[0]] is None and (taken := frames.of(node)):
            for index, each in enumerate(taken):
                one = self._take(node, each.axis, each.step, inside)
                if each.rest is not None:
                    operation = "__getitem__"
                    rest = self.all.add(
                        replace(node, operation=operation, arguments=(one, each.rest), keywords={},
                                shapes=[node.shapes[index]]), each.step
                    )  # fmt: skip
                    inside.append(rest)
                    one = Ref(rest.number)
                self.renamed[Ref(node.number, index)] = one
            return
        step = self._step(node)
        for index in range(len(node.shapes)):
            self.all.step_of[Ref(node.number, index)] = step
        if step is not None:
            inside.append(node)
            return
        key = (node.path, node.operation, hashable((node.arguments, node.keywords)))
        first = self.once.setdefault(key, node.number)
        if first == node.number:
            self.outside.append(node)
        for index in range(len(node.shapes)):
            self.renamed[Ref(node.number, index)] = Ref(first, index)

    def _take(self, node: Node, axis: int, step: int, inside: list[Node]) -> Ref:
        """Add the taking of one time step."""
        (ref, *_) = node.refs
        shape = self.all.nodes[ref.node].shapes[ref.result]
        one = replace(
            node, operation=STEP, arguments=(ref, axis), keywords={}, shapes=[(*shape[:axis], 1, *shape[axis + 1 :])]
        )
        one = self.all.add(one, step)
        inside.append(one)
        return Ref(one.number)

    def _current(self, value: Any) -> Any:
        return mapped(value, lambda tensor: tensor, lambda ref: self.renamed.get(ref, ref))

    def _step(self, node: Node) -> int | None:
        if single_step(node):
            return node.call
        steps = [step for ref in node.refs if (step := self.all.step_of[ref]) is not None]
        if node.operation in JOINS and len(steps) > 1 and steps == list(range(steps[0], steps[-1] + 1)):
            seldom = self.joining[node.path, node.operation, len(node.refs)] < self.last
            if len(steps) == self.last + 1 or seldom:
                return None
        return max(steps, default=None)

    # --- the program of one step

    def folded(self) -> Program:
        """Return the program of one step."""
        likeness = Likeness(self.all, self.groups)
        whole, final = [], []
        for group in self.groups:
            if self._goes_on(group, likeness):
                whole.append(group)
            elif set(group.by_step) == {self.last}:
                final.append(group)
            else:
                found = set(group.by_step)
                missing = next(step for step in range(self.last + 1) if step not in found)
                raise InputError(
                    f"{group.what} found in time step {min(found)} and not in step {missing}; expected the same in "
                    "every step"
                )
        collected = Collected(self.all, self._part)
        self.made = []
        for group in whole:
            if not collected.fills(group):
                likeness.check(group)
                self.made.append(self._one_step(group, likeness))
        for group in whole:
            if collected.fills(group):
                self.made.append(collected.filled(group))
        behind = [collected.outside(node) for node in self.outside]
        behind += [collected.outside(group.by_step[self.last]) for group in final]
        output = collected.read(self.output)
        nodes = sorted(_needed([*self.made, *behind, *collected.added], output), key=lambda node: node.number)
        nodes = carried(retimed(nodes, output), self.all, likeness.starts)
        return replace(self.program, nodes=in_order(_needed(nodes, output)), output=output)

    def _goes_on(self, group: Group, likeness: Likeness) -> bool:
        """Tell whether an operation is done in every step, or in all from one on, and say from which."""
        found, last = sorted(group.by_step), self.last
        if found != list(range(found[0], found[-1] + 1)):
            return False
        if found[-1] < last and found[-1] < self._read_up_to(group):
            return False
        if found[0] == 0:
            return True
        if likeness.hears_earlier(group):
            group.first = 0 if likeness.continues(group) else found[0]
            return True
        if found == [last]:
            return False
        group.first = found[0]
        return True

    def _read_up_to(self, group: Group) -> int:
        """Return the last step of which the loop reads a result: where later steps alone read it, none of the last."""
        made = {node.number: step for step, node in group.by_step.items()}
        reach = [
            other.last - (step - made[ref.node])
            for other in self.groups
            for step, node in other.by_step.items()
            for ref in node.refs
            if ref.node in made
        ]
        return max(reach, default=self.last)

    def _one_step(self, group: Group, likeness: Likeness) -> Node:
        """Return what the operation does in a step, in terms of the operations of one step."""
        template = group.template
        arguments, keywords = likeness.relative(template, group.last)

        def begun(ref: Ref) -> Ref:
            source = self.all.group_of.get(ref.node)
            first = source.first if source is not None else 0
            if first > group.first:
                raise InputError(
                    f"{group.what} found from time step {group.first} on, of what is there from step {first} on; "
                    "expected the same in every step"
                )
            return self._part(ref, group.first - first, None)

        if group.first and template.operation == NEURON:
            raise InputError(f"{group.what} found from time step {group.first} on; expected a call in each time step")
        arguments, keywords = mapped((arguments, keywords), lambda tensor: tensor, begun)
        return replace(template, arguments=arguments, keywords=keywords)

    def _part(self, ref: Ref, start: int, stop: int | None) -> Ref:
        """Return the results from a step on, up to another."""
        if not start and stop is None:
            return ref
        source = self.all.nodes[ref.node]
        node = replace(source, operation=PART, arguments=(ref, start, stop), keywords={},
                       shapes=[source.shapes[ref.result]], neuron=None)  # fmt: skip
        same = (each for each in self.made if (each.operation, each.arguments) == (PART, node.arguments))
        made = next(same, None)
        if made is None:
            made = self.all.add(node, None)
            self.made.append(made)
        return Ref(made.number)


def _plain(node: Node) -> Node:
    """Return arithmetic under one name, in place or not: a sum that begins with a number is none in place at first."""
    for name, alike in (("add", ADDS), ("sub", SUBTRACTS), ("mul", MULTIPLIES), ("div", DIVIDES)):
        if node.operation in alike:
            given = node.arguments[:2]
            given = given[::-1] if node.operation in REVERSED else given
            return replace(node, operation=name, arguments=(*given, *node.arguments[2:]))
    return node


def _needed(nodes: list[Node], output: Ref) -> list[Node]:
    """Return the operations that an output depends on."""
    led = needed({node.number: node for node in nodes}, [output.node])
    return [node for node in nodes if node.number in led]
