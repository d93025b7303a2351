"""Which functions are steps: their thresholds, found by running them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch_oracle import torch

from eventsim_importers.torch_program.surrogates import step_of


def values() -> Any:
    return torch.from_numpy(np.random.default_rng(0).integers(-8, 13, (3, 4)).astype(np.float32) / 4)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.3, 1e-3, [0.25, 1.0, -2.0, 0.0]])
def test_the_step_of_a_function(threshold: Any, strict: bool) -> None:
    """Found among all float32, and equal on the values next to the threshold."""
    at = torch.tensor(threshold)

    def function(x: Any) -> Any:
        return (x > at if strict else x >= at).float()

    step = step_of(function, values())
    assert step is not None
    for way in (-np.inf, np.inf):
        beside = torch.nextafter(at, torch.tensor(way, dtype=torch.float32)).expand(3, 4)
        assert torch.equal(step(beside), function(beside))
    assert torch.equal(step(at.expand(3, 4)), function(at.expand(3, 4)))
    if threshold not in (-0.3, 1e-3):  # else which of two neighbours was written is not known
        assert step.strict == strict
        assert torch.equal(step.threshold.expand(3, 4), at.expand(3, 4))


@pytest.mark.parametrize(
    "function",
    [
        torch.sigmoid,
        torch.zeros_like,
        lambda x: (x < 0).float(),
        lambda x: (x > 0).float() * 2,
        lambda x: (x.abs() > 1).float(),
        lambda x: (x > x.mean()).float(),
        lambda x: (x.floor() % 2).float(),
        lambda x: (x > 0).float().sum(),
    ],
)
def test_functions_that_are_no_steps(function: Any) -> None:
    assert step_of(function, values()) is None
