"""Functions with gradients of their own whose values are those of a step: surrogates, told by running them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

FAR = 2.0**100
"""Between its negative and this a step is looked for."""
ROUNDS = 8
"""How often random values are tried."""


@dataclass(frozen=True)
class Step:
    """1 where a value is at the threshold or above, or above it only, else 0.

    Attributes
    ----------
    threshold : tensor
        One number, or one for each value.
    strict : bool
    """

    threshold: torch.Tensor
    strict: bool

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the spikes."""
        return (x > self.threshold if self.strict else x >= self.threshold).to(x.dtype)


def step_of(function: Callable[[torch.Tensor], torch.Tensor], like: torch.Tensor) -> Step | None:
    """Return the step that a function computes, None if it is none.

    The least value that fires and the next below it, which does not, are found by bisection among all float32, for each
    element by itself; the rounder of the two is the threshold. Random values, and those next to the threshold, are then
    tried in one call, so that a function that is no step, or mixes elements, is found out.

    Parameters
    ----------
    function : callable
        Of a tensor of the shape of `like`.
    like : float32 tensor
        Real values, which are tried too.
    """
    if like.dtype != torch.float32 or like.numel() == 0:
        return None
    low, high = (torch.full(like.shape, sign * FAR) for sign in (-1, 1))
    for end, spike in ((low, 0), (high, 1)):
        if not _gives(function, end, torch.full(like.shape, float(spike))):
            return None
    below, least = _ordered(low), _ordered(high)
    while bool((least - below > 1).any()):
        middle = (below + least) // 2
        fired = function(_value(middle)) > 0
        least, below = torch.where(fired, middle, least), torch.where(fired, below, middle)
    silent, firing = _value(below), _value(least)
    strict = _bits(silent) < _bits(firing)
    step = Step(silent if strict else firing, strict)
    if bool((step.threshold == step.threshold.reshape(-1)[0]).all()):
        step = Step(step.threshold.reshape(-1)[0], strict)
    tried = [like, silent, firing]
    generator = torch.Generator().manual_seed(0)
    for _ in range(ROUNDS):
        size = 10 ** (6 * torch.rand(like.shape, generator=generator) - 4)
        tried.append(torch.randn(like.shape, generator=generator) * size + step.threshold)
    return step if all(_gives(function, x, step(x)) for x in tried) else None


def _gives(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, expected: torch.Tensor) -> bool:
    found = function(x.clone())
    return isinstance(found, torch.Tensor) and found.shape == expected.shape and bool((found == expected).all())


def _ordered(x: torch.Tensor) -> torch.Tensor:
    """Return integers in the order of float32 values."""
    bits = x.view(torch.int32).to(torch.int64)
    return torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _value(ordered: torch.Tensor) -> torch.Tensor:
    """Return the float32 values of such integers."""
    magnitude = ordered.abs().to(torch.int32).view(torch.float32)
    return torch.where(ordered < 0, -magnitude, magnitude)


def _bits(x: torch.Tensor) -> int:
    """Return how many digits the values have, all together: the fewer, the rounder."""
    mantissa, _ = torch.frexp(x.double())
    digits = torch.zeros_like(mantissa)
    for places in range(24):
        digits += (mantissa * 2.0**places).frac() != 0
    # the least of all numbers has one digit, too, but nobody writes it
    return int(digits.sum()) + 24 * int(((x != 0) & (x.abs() < 1e-30)).sum())
