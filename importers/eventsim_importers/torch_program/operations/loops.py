"""What lies between a loop over time and the rest: one step, all, their sum, the last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventsim.layers import (
    SliceOverTime,
)
from eventsim_importers.torch_program.axes import (
    AxesError,
    joined,
    whole,
)
from eventsim_importers.torch_program.recorder import Node
from eventsim_importers.torch_program.unrolled import LAST, STACK, STEP, SUM
from eventsim_importers.torch_program.values import Held, Value

if TYPE_CHECKING:
    from eventsim_importers.torch_program.translation import Translation


def step(at: Translation, node: Node) -> Held:
    """Take what one step of a loop reads of a signal with an axis of time."""
    source, axis = node.arguments
    value = at.value_of(source, node)
    axis %= len(value.dims)
    if joined(value.dims[axis]) != joined(whole("time", at.time_steps)):
        raise AxesError("a loop over another axis than time found; expected time")
    return value.along((*value.dims[:axis], *value.dims[axis + 1 :]))


def stack(at: Translation, node: Node) -> Held:
    """Add all steps of a loop along a new axis."""
    source, operation, dim = node.arguments
    value = at.value_of(source, node)
    if operation == "cat":  # of an axis of size 1
        axis = dim % len(value.dims)
        if value.dims[axis]:
            raise AxesError("steps put side by side along an axis that is not of size 1 found; expected a new axis")
        dims = (*value.dims[:axis], whole("time", at.time_steps), *value.dims[axis + 1 :])
    else:
        axis = dim % (len(value.dims) + 1)
        dims = (*value.dims[:axis], whole("time", at.time_steps), *value.dims[axis:])
    return value.along(dims)


def summed_steps(at: Translation, node: Node) -> Held:
    """Add the sum over a loop: the mean times the number of steps."""
    value = at.value_of(node.refs[0], node)
    return at.sum_over_time(value)


def last_step(at: Translation, node: Node) -> Held:
    """Add the last step of a loop."""
    value = at.value_of(node.refs[0], node)
    steps = at.time_steps
    if steps == 1:
        return value
    return Value(at.add(at.named(node, "last"), SliceOverTime(steps - 1, steps), value), value.dims)


OPERATIONS = {STEP: step, STACK: stack, SUM: summed_steps, LAST: last_step}
