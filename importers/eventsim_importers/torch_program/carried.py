r"""States that a loop hands on outside of neurons: sums over time, and sums that leak.

.. math:: a_t = f\, a_{t-1} + u_t

However it is written, ``f * a + u``, ``a + (u - a) * f`` or ``a += u; a += w``, what a step makes of the state is read
off as a factor and a rest. A state of another form is refused by the operation that gives it that form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from eventsim.errors import InputError
from eventsim_importers.torch_program.groups import Steps
from eventsim_importers.torch_program.one_step import (
    ADDS,
    DIVIDES,
    LAST,
    MULTIPLIES,
    NEGATES,
    REVERSED,
    SUBTRACTS,
    SUM,
    TRACE,
    Earlier,
)
from eventsim_importers.torch_program.recorder import NEURON, Node, Ref

EXPECTED = "expected neurons, or a sum that leaks: state = factor * state + signal"


@dataclass(frozen=True)
class _Form:
    """``factor * state + rest``; of numbers, the rest is a number or an array of the module's own."""

    factor: Any
    rest: Any


Starts = Sequence[tuple[int, torch.Tensor]]


def carried(nodes: Sequence[Node], steps: Steps, starts: Starts) -> list[Node]:
    """Return the program of one step with its states as sums.

    Parameters
    ----------
    nodes : sequence of Node
        Of one step, and around it.
    steps : Steps
        Numbers for what is added.
    starts : sequence of tuple (int, tensor)
        Operations whose results before the first step are not zeros, and these.

    Raises
    ------
    InputError
        If a state is of another form; names the module and the operation.
    """
    found = list(nodes)
    read = {ref.node for node in nodes for ref in node.refs if isinstance(ref, Earlier)}
    for number in sorted(read):
        state = next((node for node in found if node.number == number), None)
        circle = _circle(found, state) if state is not None and state.operation != NEURON else []
        if state is not None and circle:
            found = _State(found, state, circle, steps, starts).rewritten()
    for node in found:
        if node.operation != NEURON and _hears_itself(found, node):
            raise _refusal(node, "and that depends on another such state", EXPECTED)
    return found


def _hears_itself(nodes: Sequence[Node], node: Node) -> bool:
    """Tell whether what an operation makes comes back to it some steps later, through no neurons."""
    by_number = {each.number: each for each in nodes}
    seen: set[int] = set()
    waiting = [ref.node for ref in node.refs]
    while waiting:
        number = waiting.pop()
        if number == node.number:
            return True
        if number not in seen and by_number[number].operation != NEURON:
            seen.add(number)
            waiting.extend(ref.node for ref in by_number[number].refs)
    return False


def _refusal(node: Node, what: str, expected: str) -> InputError:
    words = f"{what} " if what else ""
    return InputError(
        f"module {node.path or 'itself'}: {node.operation} of a state that the loop hands on outside of neurons "
        f"{words}found; {expected}"
    )


def _circle(nodes: Sequence[Node], state: Node) -> list[Node]:
    """Return the operations of a step from the state of the step before to its new one; none if it is no state."""
    by_number = {node.number: node for node in nodes}
    reached: dict[int, bool] = {}

    def reaches(number: int) -> bool:
        node = by_number[number]
        if number not in reached:
            reached[number] = False
            found = [
                ref.node == state.number if isinstance(ref, Earlier) else reaches(ref.node)
                for ref in node.refs
                if node.operation not in (NEURON, TRACE)
            ]
            reached[number] = any(found)
        return reached[number]

    if not reaches(state.number):
        return []
    behind, waiting = set(), [state.number]
    while waiting:
        number = waiting.pop()
        if number not in behind and reached.get(number):
            behind.add(number)
            waiting.extend(ref.node for ref in by_number[number].refs if not isinstance(ref, Earlier))
    return [node for node in nodes if node.number in behind]


class _State:
    """One state, and what a step makes of it."""

    def __init__(
        self, nodes: Sequence[Node], state: Node, circle: Sequence[Node], steps: Steps, starts: Starts
    ) -> None:
        self.nodes, self.state, self.steps = list(nodes), state, steps
        self.circle = {node.number: node for node in circle}
        self.forms: dict[int, _Form] = {}
        self.added: list[Node] = []
        self.starts = [(number, value) for number, value in starts if number in self.circle]

    def rewritten(self) -> list[Node]:
        """Return the program with the sum in the place of what made the state."""
        form = self._form(self.state)
        if not isinstance(form.rest, Ref):
            raise _refusal(self.state, "to which nothing is added", EXPECTED)
        if not all(self._begins_with(number, value) for number, value in self.starts):
            raise _refusal(self.state, "that begins with other values than zeros", "expected zeros, or nothing")
        readers = [
            node
            for node in self.nodes
            if node.number not in self.circle and any(ref.node in self.circle for ref in node.refs)
        ]
        behind = all(node.operation == LAST and node.refs == [Ref(self.state.number)] for node in readers)
        if behind and _is_one(form.factor):
            sums = {node.number: replace(node, operation=SUM, arguments=(form.rest,)) for node in readers}
            kept = [node for node in self.nodes if node.number not in self.circle]
            return [sums.get(node.number, node) for node in (*kept, *self.added)]
        trace = replace(self.state, operation=TRACE, arguments=(form.rest, form.factor), keywords={})
        rest = [trace if node is self.state else node for node in self.nodes]
        used = {ref.node for node in rest for ref in node.refs}
        unused = {number for number in self.circle if number != trace.number and number not in used}
        return [node for node in (*rest, *self.added) if node.number not in unused]

    def _begins_with(self, number: int, value: torch.Tensor) -> bool:
        """Tell whether a value before the first step is what an operation makes of a state of zeros."""
        rest = 0 if number == self.state.number else self._form(self.circle[number]).rest
        return not isinstance(rest, Ref) and bool((value == (0 if rest is None else rest)).all())

    def _form(self, node: Node) -> _Form:
        """Return what an operation makes of the state, from what its operands make of it."""
        if node.number in self.forms:
            return self.forms[node.number]
        operation = node.operation
        if operation in NEGATES:
            form = self._times(node, self._operand(node, node.arguments[0]), -1)
        elif operation not in ADDS + SUBTRACTS + MULTIPLIES + DIVIDES or set(node.keywords) - {"alpha"}:
            raise _refusal(node, "", EXPECTED)
        else:
            given = node.arguments[:2] if operation not in REVERSED else node.arguments[1::-1]
            one, other = (self._operand(node, each) for each in given)
            if operation in MULTIPLIES + DIVIDES:
                form = self._product(node, one, other)
            elif node.keywords.get("alpha", 1) != 1 or len(node.arguments) > 2:
                raise _refusal(node, "with a factor alpha", EXPECTED)
            else:
                form = self._sum(node, one, other)
        self.forms[node.number] = form
        return form

    def _operand(self, node: Node, given: Any) -> _Form:
        if isinstance(given, Earlier) and given.node == self.state.number:
            if given.steps != 1:
                raise _refusal(node, f"of {given.steps} steps before", EXPECTED)
            return _Form(1, None)
        if isinstance(given, Ref) and not isinstance(given, Earlier) and given.node in self.circle:
            return self._form(self.circle[given.node])
        return _Form(None, given)

    def _sum(self, node: Node, one: _Form, other: _Form) -> _Form:
        subtracts = node.operation in SUBTRACTS
        factors = [each.factor for each in (one, other)]
        if factors[1] is not None:
            factors[1] = -factors[1] if subtracts else factors[1]
        factor = sum(each for each in factors if each is not None)
        if other.rest is None:
            return _Form(factor, one.rest)
        if one.rest is None:
            return _Form(factor, self._negative(node, other.rest) if subtracts else other.rest)
        if one.factor is None or other.factor is None or isinstance(one.rest, Ref) or isinstance(other.rest, Ref):
            return _Form(factor, self._made(node, node.operation, one.rest, other.rest))
        return _Form(factor, one.rest - other.rest if subtracts else one.rest + other.rest)

    def _negative(self, node: Node, rest: Any) -> Any:
        return self._made(node, "neg", rest) if isinstance(rest, Ref) else -rest

    def _product(self, node: Node, one: _Form, other: _Form) -> _Form:
        state, number = (one, other) if one.factor is not None else (other, one)
        divides = node.operation in DIVIDES
        if number.factor is not None or isinstance(number.rest, Ref) or (divides and state is other):
            raise _refusal(node, "times what depends on the example" if not divides else "", EXPECTED)
        return self._times(node, state, 1 / number.rest if divides else number.rest)

    def _times(self, node: Node, form: _Form, number: Any) -> _Form:
        rest = form.rest
        if isinstance(rest, Ref):
            rest = self._made(node, "mul", rest, number)
        elif rest is not None:
            rest = rest * number
        return _Form(form.factor * number, rest)

    def _made(self, node: Node, operation: str, *arguments: Any) -> Ref:
        reverse = operation in REVERSED
        given = arguments[::-1] if reverse else arguments
        made = self.steps.add(replace(node, operation=operation, arguments=given, keywords={}), None)
        self.added.append(made)
        return Ref(made.number)


def _is_one(factor: Any) -> bool:
    return bool(torch.as_tensor(factor).eq(1).all())
