"""What lies between a loop over time and the rest: one step, all, some, their sum, one that leaks, the last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventsim.layers import (
    CropOverTime,
    LeakyIntegrator,
    SliceOverTime,
)
from eventsim_importers.torch_program.axes import (
    AxesError,
    joined,
    whole,
)
from eventsim_importers.torch_program.one_step import LAST, PART, STACK, STEP, SUM, TRACE
from eventsim_importers.torch_program.operations.joins import per_step, spread
from eventsim_importers.torch_program.recorder import Node
from eventsim_importers.torch_program.values import Held, Value

if TYPE_CHECKING:
    from eventsim_importers.torch_program.translation import Translation


def step(at: Translation, node: Node) -> Held:
    """Take what one step of a loop reads of a signal with an axis of time."""
    source, axis = node.arguments
    value = at.value_of(source, node)
    if joined(value.dims[axis]) != joined(whole("time", at.steps_of(value))):
        raise AxesError("a loop over another axis than time found; expected time")
    return value.along((*value.dims[:axis], (), *value.dims[axis + 1 :]))


def stack(at: Translation, node: Node) -> Held:
    """Add all steps of a loop along a new axis."""
    source, operation, dim = node.arguments
    value = at.value_of(source, node)
    time = whole("time", at.steps_of(value))
    if operation == "cat":  # of an axis of size 1
        axis = dim % len(value.dims)
        if value.dims[axis]:
            raise AxesError("steps put side by side along an axis that is not of size 1 found; expected a new axis")
        return value.along((*value.dims[:axis], time, *value.dims[axis + 1 :]))
    axis = dim % (len(value.dims) + 1)
    return value.along((*value.dims[:axis], time, *value.dims[axis:]))


def summed_steps(at: Translation, node: Node) -> Held:
    """Add the sum over a loop: the mean times the number of steps."""
    value = at.value_of(node.refs[0], node)
    return at.sum_over_time(value)


def leaky_sum(at: Translation, node: Node) -> Held:
    """Add a sum that leaks, as it is after each step."""
    source, factor = node.arguments
    value = at.value_of(source, node)
    decay = spread(at, node, value, factor)
    if decay.shape[0] > 1:
        raise AxesError("factors that differ in time found; expected the same in every step")
    one = decay.reshape(-1)
    given = float(one[0]) if (one == one[0]).all() else per_step(decay[0], at.kind(value))
    name = at.traces[node.number]
    made = Value(at.add(name, LeakyIntegrator(given), value), value.dims)
    at.check_promise(name)
    return made


def last_step(at: Translation, node: Node) -> Held:
    """Add the last step of a loop."""
    value = at.value_of(node.refs[0], node)
    steps = at.steps_of(value)
    if steps == 1:
        return value
    return Value(at.add(at.named(node, "last"), SliceOverTime(steps - 1, steps), value), value.dims)


def part(at: Translation, node: Node) -> Held:
    """Leave out steps at the beginning, or at the end."""
    source, start, stop = node.arguments
    value = at.value_of(source, node)
    return Value(at.add(at.named(node, "part"), CropOverTime(start, stop), value), value.dims)


OPERATIONS = {
    STEP: step, STACK: stack, SUM: summed_steps, TRACE: leaky_sum, LAST: last_step, PART: part,
}  # fmt: skip
