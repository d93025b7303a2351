"""What the program of one time step has besides PyTorch's operations: earlier results, and ways out of a loop."""

from __future__ import annotations

from dataclasses import dataclass

from eventsim_importers.torch_program.recorder import Ref

STEP = "one time step"
"""Of a signal that has an axis of time, what a loop reads in each step; that axis has size 1 then."""
STACK, LAST = "stack over time", "last step"
"""Behind a loop: the results of all its steps along a new axis, or that of the last."""
SUM, TRACE = "sum over time", "leaky sum"
"""A result that the next step adds to: read behind the loop alone, or in every step, multiplied by a factor."""
PART = "some time steps"
"""The results of the steps from one on, or up to another."""

ADDS = ("add", "add_", "__add__", "__radd__", "__iadd__")
SUBTRACTS = ("sub", "sub_", "__sub__", "__isub__", "rsub", "__rsub__", "subtract")
MULTIPLIES = ("mul", "mul_", "__mul__", "__rmul__", "__imul__", "multiply")
DIVIDES = ("div", "div_", "__truediv__", "__itruediv__", "true_divide", "divide", "__rtruediv__", "__rdiv__")
NEGATES = ("neg", "negative", "__neg__")
REVERSED = ("rsub", "__rsub__", "__rtruediv__", "__rdiv__")
"""Operations that are methods of their second operand."""


@dataclass(frozen=True)
class Earlier(Ref):
    """A result of one or more time steps before; zeros before the first."""

    steps: int = 1
