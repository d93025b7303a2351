"""A loop over time that a module ran, folded back into one time step.

A module of single-step neurons is called once for each time step, by a loop of its own or of its user. What one step
does is found among the operations of all: those with the same operation in the same module, the same time after time.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from eventsim.errors import InputError
from eventsim_importers.torch_program.recorder import NEURON, Node, Program, Ref, leaves, mapped

STEP, STACK, SUM, LAST = "one time step", "stack over time", "sum over time", "last step"
"""What a loop reads of a signal that has an axis of time; and behind it all its steps along a new axis, their sum, or
the last of them."""
PICKS = ("__getitem__", "select")
ADDS = ("add", "add_", "__add__", "__radd__", "__iadd__")


@dataclass(frozen=True)
class Earlier(Ref):
    """A result of one or more time steps before; zeros before the first."""

    steps: int = 1


@dataclass
class _Group:
    """The same operation in every step."""

    key: tuple[Any, ...]
    by_step: dict[int, Node] = field(default_factory=dict)

    @property
    def what(self) -> str:
        path, operation, *_ = self.key
        return f"module {path or 'itself'}: {operation}"


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


def _loop_length(program: Program) -> int | None:
    """Return how often the neurons of single steps were called."""
    calls: dict[str, int] = defaultdict(int)
    for node in program.nodes:
        if node.operation == NEURON and node.neuron is not None and node.neuron.time_axis is None:
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
        self.program, self.steps = program, steps
        self.step_of: dict[Ref, int | None] = {}
        self.group_of: dict[int, _Group] = {}
        self.groups: list[_Group] = []
        self.outside: list[Node] = []
        self.same: dict[int, int] = {}
        self.picked: dict[Ref, set[int]] = defaultdict(set)  # of each signal, the steps that indices take
        self._lasts: list[tuple[int, Node]] = []
        self._sort()

    def _sort(self) -> None:
        """Tell which operations belong to which step; what every step does alike to the same signal is done once."""
        groups: dict[tuple[Any, ...], _Group] = {}
        seen: dict[tuple[Any, ...], int] = defaultdict(int)
        once: dict[Any, int] = {}
        for node in self.program.nodes:
            if node.operation in PICKS and (picked := self._picked(node)) is not None:
                self.picked[node.refs[0]].add(picked)
        for node in self.program.nodes:
            node.arguments, node.keywords = self._merged((node.arguments, node.keywords))
            step = self._step(node)
            for index in range(len(node.shapes)):
                one = index if node.operation == "unbind" and self._takes_steps(node) else step
                self.step_of[Ref(node.number, index)] = one
            if step is None:
                key = (node.path, node.operation, _hashable((node.arguments, node.keywords)))
                first = once.setdefault(key, node.number)
                if first == node.number:
                    self.outside.append(node)
                else:
                    self.same[node.number] = first
                continue
            occurrence = seen[node.path, node.operation, step]
            seen[node.path, node.operation, step] += 1
            key = (node.path, node.operation, occurrence)
            group = groups.setdefault(key, _Group(key))
            group.by_step[step] = node
            self.group_of[node.number] = group
        self.program.output = self._merged(self.program.output)
        self.groups = list(groups.values())

    def _merged(self, value: Any) -> Any:
        return mapped(
            value,
            lambda tensor: tensor,
            lambda ref: Ref(self.same[ref.node], ref.result) if ref.node in self.same else ref,
        )

    def _step(self, node: Node) -> int | None:
        if node.operation == NEURON and node.neuron is not None and node.neuron.time_axis is None:
            return node.call
        if self._picks(node):
            return self._picked(node)
        steps = [step for ref in node.refs if (step := self.step_of[ref]) is not None]
        if node.operation in ("stack", "cat") and sorted(set(steps)) == list(range(self.steps)) == steps:
            return None
        if node.operation == "unbind" and self._takes_steps(node):
            return None
        return max(steps, default=None)

    def _takes_steps(self, node: Node) -> bool:
        return len(node.shapes) == self.steps and self.step_of[node.refs[0]] is None

    def _picked(self, node: Node) -> int | None:
        """Return the one step that an index takes."""
        if node.operation == "select":
            index = node.arguments[2] if len(node.arguments) > 2 else node.keywords.get("index")
        else:
            index = node.arguments[1]
        whole = [each for each in (index if isinstance(index, tuple) else (index,)) if isinstance(each, int)]
        if len(whole) != 1 or isinstance(whole[0], bool):
            return None
        (ref, *_) = node.refs
        size = self.program.nodes[ref.node].shapes[ref.result][_picked_axis(node)]
        return whole[0] % self.steps if size == self.steps else None

    def folded(self) -> Program:
        """Return the program of one step."""
        last = self.steps - 1
        whole, final = [], []
        for group in self.groups:
            found = set(group.by_step)
            begins = 0 in found or self._is_sum(group) or self._hears_earlier(group)
            if (begins and found >= set(range(1, self.steps))) or found == set(range(self.steps - 1)):
                whole.append(group)
            elif found == {last}:
                final.append(group)
            else:
                missing = next(step for step in range(self.steps) if step not in found)
                raise InputError(
                    f"{group.what} found in time step {min(found)} and not in step {missing}; expected the same in "
                    "every step"
                )
        made: list[tuple[int, Node]] = [(node.number, self._outside(node)) for node in self.outside]
        sums = [group for group in whole if self._is_sum(group)]
        fills = [group for group in whole if self._is_filling(group)]
        for group in whole:
            if group in sums or group in fills:
                continue
            made.append(self._one_step(group))
        made.extend(self._sum(group) for group in sums)
        made.extend(self._filled(group) for group in fills)
        made.extend((node.number, self._outside(node)) for node in (group.by_step[last] for group in final))
        output = self._renamed(self.program.output)
        made.extend(self._lasts)  # those that the output reads, too
        nodes = [node for _, node in sorted(made, key=lambda pair: pair[0])]
        return replace(self.program, nodes=_in_order(_retimed(nodes, output)), output=output)

    # --- one group

    def _picks(self, node: Node) -> bool:
        """Tell whether an index takes a time step: one of as many of the same signal as there are steps."""
        if node.operation not in PICKS or self.step_of[node.refs[0]] is not None or self._picked(node) is None:
            return False
        return self.picked[node.refs[0]] == set(range(self.steps))

    def _template(self, group: _Group) -> Node:
        return group.by_step[max(group.by_step)]

    def _is_sum(self, group: _Group) -> bool:
        """Tell whether an addition adds to its own result of the step before, which nothing else in the loop reads."""
        node = group.by_step.get(self.steps - 1)
        if node is None or node.operation not in ADDS or self.steps < 2:
            return False
        refs = node.refs
        before = group.by_step.get(self.steps - 2)
        own = [ref for ref in refs if before is not None and ref == Ref(before.number)]
        if self.steps == 2 and not own:  # the first step's is no addition yet
            groups = [self.group_of.get(ref.node) for ref in refs]
            return len(refs) == 2 and groups[0] is groups[1] and refs[0] != refs[1] and 0 not in group.by_step
        return len(refs) == 2 and len(own) == 1

    def _check_sum(self, group: _Group) -> None:
        """Refuse a running sum that does not begin with nothing, or of which a part is read."""
        added = None
        for step in range(self.steps - 1, -1, -1):
            node = group.by_step.get(step)
            if node is None:  # the first result itself
                if step != 0:
                    raise InputError(f"{group.what} of a part of the time steps found; expected every step")
                continue
            before = group.by_step.get(step - 1)
            others = [ref for ref in node.refs if before is None or ref.node != before.number]
            if before is None and step == 1 and len(others) == 2:  # of the first two steps
                others.sort(key=lambda ref: self.step_of[ref] or 0)
                if self.step_of[others[0]] != 0 or self.group_of.get(others[0].node) is not self.group_of.get(
                    others[1].node
                ):
                    raise InputError(f"{group.what} of different results found; expected the same in every step")
                others = others[1:]
            key = self.group_of[others[-1].node].key if len(others) == 1 and others[-1].node in self.group_of else None
            added = added or key
            start = [each for each in leaves(node.arguments[:2]) if not isinstance(each, Ref)]
            begins = step > 0 or all(bool(torch.as_tensor(each).eq(0).all()) for each in start)
            if key is None or key != added or self.step_of[others[0]] != step or not begins or node.keywords:
                raise InputError(
                    f"{group.what} found that sums up more than one result of every time step; expected a sum that "
                    "begins with 0"
                )
        numbers = {node.number for node in group.by_step.values()}
        for other in self.program.nodes:
            if any(ref.node in numbers for ref in other.refs) and self.group_of.get(other.number) is not group:
                read = {self.step_of[ref] for ref in other.refs if ref.node in numbers}
                if read != {self.steps - 1}:
                    raise InputError(f"{group.what}: a part of a sum over time is read; expected the whole sum alone")

    def _sum(self, group: _Group) -> tuple[int, Node]:
        self._check_sum(group)
        node = group.by_step[self.steps - 1]
        before = group.by_step.get(self.steps - 2)
        (added,) = [
            ref
            for ref in node.refs
            if (before is None or ref.node != before.number) and self.step_of[ref] == self.steps - 1
        ]
        source = self._template(self.group_of[added.node])
        return node.number, replace(node, operation=SUM, arguments=(Ref(source.number, added.result),), keywords={})

    def _hears_earlier(self, group: _Group) -> bool:
        """Tell whether an operation reads what the step before made, so that the first step may lack it."""
        relative = self._relative(self._template(group), max(group.by_step))
        return any(isinstance(each, Earlier) for each in leaves(relative))

    def _is_filling(self, group: _Group) -> bool:
        """Tell whether each step writes its result into its place of one tensor."""
        return group.key[1] == "__setitem__" and set(group.by_step) == set(range(self.steps))

    def _filled(self, group: _Group) -> tuple[int, Node]:
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
            made = isinstance(value, Ref) and self.step_of[value] == step and value.node in self.group_of
            if not (plain and made and (own or (step == 0 and not isinstance(base, Ref)))):
                raise InputError(f"{group.what} found; expected out[t] = result in each time step t, in their order")
            axes.add(axis or 0)
            keys.add((self.group_of[value.node].key, value.result))
        if len(axes) != 1 or len(keys) != 1 or group.by_step[0].shapes[0][min(axes)] != self.steps:
            raise InputError(f"{group.what} found; expected the same result of every time step, one for each")
        node = group.by_step[self.steps - 1]
        value = node.arguments[2]
        source = Ref(self._template(self.group_of[value.node]).number, value.result)
        return node.number, replace(node, operation=STACK, arguments=(source, "stack", min(axes)), keywords={})

    def _one_step(self, group: _Group) -> tuple[int, Node]:
        """Return what the operation does in a step, after comparing every step with the last."""
        template = self._template(group)
        at = max(group.by_step)
        expected = self._relative(template, at)
        if self._picks(template):
            template = replace(template, operation=STEP)
        for step, node in group.by_step.items():
            found = self._relative(node, step)
            alike = self._alike(found, expected, step)
            if not alike and not (step == 0 and self._alike(found, self._without_earlier(expected), step)):
                raise InputError(
                    f"{group.what} of time step {step} found that differs from that of step {at}; expected the same in "
                    "every step"
                )
        arguments, keywords = expected
        return template.number, replace(template, arguments=arguments, keywords=keywords)

    def _alike(self, found: Any, expected: Any, step: int) -> bool:
        """Compare arguments; in the first steps zeros stand for what neurons have not emitted yet."""
        if isinstance(expected, Earlier) and step < expected.steps:
            if isinstance(found, torch.Tensor):  # what is made of silence, such as a bias, need not be nothing
                return bool((found == 0).all()) or self.program.nodes[expected.node].operation != NEURON
            return found is None or (isinstance(found, (int, float)) and not found)
        if step == 0 and found is None and isinstance(expected, tuple) and expected:
            return all(isinstance(each, Earlier) for each in leaves(expected))
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

    def _without_earlier(self, expected: Any) -> Any:
        """Return arguments without sums that only later steps have: nothing is fed back into the first."""

        def direct(ref: Ref) -> Ref:
            group = next((each for each in self.groups if self._template(each).number == ref.node), None)
            if group is None or 0 in group.by_step or group.key[1] not in ADDS:
                return ref
            given = leaves(self._relative(self._template(group), max(group.by_step))[0])
            now = [each for each in given if isinstance(each, Ref) and not isinstance(each, Earlier)]
            return now[0] if len(now) == 1 else ref

        return mapped(expected, lambda tensor: tensor, direct)

    def _relative(self, node: Node, step: int) -> tuple[Any, Any]:
        """Return the arguments of a node in terms of the operations of one step."""

        def relative(ref: Ref) -> Ref:
            found = self.step_of[ref]
            group = self.group_of.get(ref.node)
            if found is None:
                return ref
            if group is None:  # one result of an unbinding
                return Ref(ref.node, 0)
            number = self._template(group).number
            return Ref(number, ref.result) if found == step else Earlier(number, ref.result, step - found)

        if self._picks(node):
            return (node.refs[0], _picked_axis(node)), {}
        if node.operation == NEURON:
            return (relative(self._heard(node, step)),), {}
        arguments, keywords = mapped((node.arguments, node.keywords), lambda tensor: tensor, relative)
        return arguments, keywords

    def _heard(self, node: Node, step: int) -> Ref:
        """Return what a neuron hears, after checking that its state is its own of the step before."""
        heard, *states = node.refs
        group = self.group_of[node.number]
        for ref in states:
            if self.group_of.get(ref.node) is not group or self.step_of[ref] != step - 1:
                raise InputError(
                    f"module {node.path}: a state that is not its own of the step before found; expected that"
                )
        return heard

    # --- what lies around the loop

    def _outside(self, node: Node) -> Node:
        if node.operation == "unbind" and self._takes_steps(node):
            axis = node.arguments[1] if len(node.arguments) > 1 else node.keywords.get("dim", 0)
            return replace(node, operation=STEP, arguments=(node.refs[0], axis), keywords={}, shapes=node.shapes[:1])
        if node.operation in ("stack", "cat") and any(self.step_of[ref] is not None for ref in node.refs):
            first = node.refs[-1]
            groups = [self.group_of.get(ref.node) for ref in node.refs]
            steps = [self.step_of[ref] for ref in node.refs]
            group = groups[-1]
            listed = node.arguments[0] if isinstance(node.arguments[0], tuple) else ()
            whole = (
                len(listed) == len(node.refs) and steps == list(range(self.steps)) and len(set(map(id, groups))) == 1
            )
            if group is None or not whole or self._is_sum(group):
                raise InputError(
                    f"module {node.path or 'itself'}: {node.operation} of some time steps, or of different results, "
                    "found; expected the same result of every step, in their order"
                )
            source = self._template(group)
            dim = node.arguments[1] if len(node.arguments) > 1 else node.keywords.get("dim", 0)
            return replace(
                node, operation=STACK, arguments=(Ref(source.number, first.result), node.operation, dim), keywords={}
            )
        return replace(
            node,
            arguments=self._renamed(node.arguments),
            keywords=self._renamed(node.keywords),
        )

    def _renamed(self, value: Any) -> Any:
        """Refer to the operations of one step; behind the loop, to the last step's results or to sums."""

        def renamed(ref: Ref) -> Ref:
            group = self.group_of.get(ref.node)
            if group is None or self.step_of[ref] is None or len(group.by_step) == 1:
                return ref
            if self._is_sum(group) or self._is_filling(group):
                return Ref(group.by_step[self.steps - 1].number)
            return self._last(group, ref)

        return mapped(value, lambda tensor: tensor, renamed)

    def _last(self, group: _Group, ref: Ref) -> Ref:
        """Return the result of the last step."""
        if self.step_of[ref] != self.steps - 1:
            raise InputError(
                f"{group.what}: the result of time step {self.step_of[ref]} alone is used behind the loop; expected "
                "that of the last step, or of all"
            )
        number = -1 - len(self._lasts)
        source = self._template(group)
        node = replace(source, number=number, operation=LAST, arguments=(Ref(source.number, ref.result),), keywords={},
                       shapes=[source.shapes[ref.result]], neuron=None)  # fmt: skip
        self._lasts.append((source.number, node))
        return Ref(number)


def _picked_axis(node: Node) -> int:
    """Return the axis of which an index takes one step."""
    if node.operation == "select":
        return int(node.arguments[1])
    index = node.arguments[1]
    given = index if isinstance(index, tuple) else (index,)
    return next(axis for axis, each in enumerate(given) if isinstance(each, int))


def _hashable(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return ("tensor", id(value))
    if isinstance(value, (tuple, list)):
        return tuple(map(_hashable, value))
    if isinstance(value, dict):
        return tuple((key, _hashable(each)) for key, each in value.items())
    return value if isinstance(value, Ref) else repr(value)


def _retimed(nodes: list[Node], output: Ref) -> list[Node]:
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


def _in_order(nodes: list[Node]) -> list[Node]:
    """Return nodes such that each reads, but for earlier steps, only what stands before it."""
    left, done, ordered = {node.number: node for node in nodes}, set(), []
    while left:
        ready = [
            node
            for node in left.values()
            if all(isinstance(ref, Earlier) or ref.node in done or ref.node not in left for ref in node.refs)
        ]
        if not ready:
            node = next(iter(left.values()))
            raise InputError(f"module {node.path or 'itself'}: {node.operation} found that reads its own result")
        for node in ready:
            ordered.append(left.pop(node.number))
            done.add(node.number)
    return ordered
