"""Neurons written out, drawn at random: any charge with any comparison and any reset, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from torch_oracle import torch

from eventsim import Simulator, from_torch
from eventsim.layers.neurons.spiking import Neuron

nn = torch.nn


class Fires(torch.autograd.Function):
    """A surrogate with arguments of its own."""

    @staticmethod
    def forward(ctx: Any, strict: bool, x: Any, threshold: Any) -> Any:
        return (x > threshold if strict else x >= threshold).to(x)


CHARGES: dict[str, Callable[[Any, Any, float], Any]] = {
    "decay": lambda v, x, a: a * v + x,
    "decay, in place": lambda v, x, a: v.mul(a).add_(x),
    "leak": lambda v, x, a: v - (1 - a) * v + x,
    "share": lambda v, x, a: v + (x - v) * (1 - a),
    "both shares": lambda v, x, a: v * a + (1 - a) * x,
    "tau": lambda v, x, a: v + (x - v) / (1 / (1 - a)),
    "leak by tau": lambda v, x, a: x + (v - v / (1 / (1 - a))),
    "no leak": lambda v, x, a: torch.add(v, x),
}
FIRES: dict[str, Callable[[Any, float], Any]] = {
    ">": lambda v, t: (v > t).float(),
    ">=": lambda v, t: (v >= t).type_as(v),
    "<": lambda v, t: 1 - (v < t).float(),
    "not <=": lambda v, t: torch.logical_not(v <= t).float(),
    "turned": lambda v, t: (torch.tensor(t) <= v).to(torch.float32),
    "heaviside": lambda v, t: torch.heaviside(v - t, torch.tensor(0.0)),
    "where": lambda v, t: torch.where(v - t >= 0, torch.ones(()), torch.zeros(())),
    "ratio": lambda v, t: (v / t > 1).float(),
    "surrogate": lambda v, t: Fires.apply(False, v, t),
    "surrogate of a difference": lambda v, t: Fires.apply(True, v - t, torch.zeros(())),
}
RESETS: dict[str, Callable[[Any, Any, float], Any]] = {
    "zero": lambda v, s, t: v * (1 - s),
    "zero, less": lambda v, s, t: v - v * s.detach(),
    "zero, where": lambda v, s, t: torch.where(s.bool(), 0.0, v),
    "zero, filled": lambda v, s, t: v.masked_fill(s > 0.5, 0),
    "zero, turned": lambda v, s, t: (1 - s.mul(1)).mul(v),
    "subtract": lambda v, s, t: v - t * s,
    "subtract, in place": lambda v, s, t: v.clone().sub_(s * t),
    "subtract, where": lambda v, s, t: torch.where(s > 0, v - t, v),
}


class Written(nn.Module):
    """Two layers of the same neurons in a loop; `late` resets before the charge instead of behind it."""

    def __init__(self, charge: Any, fire: Any, reset: Any, decay: float, threshold: float, late: bool) -> None:
        super().__init__()
        self.charge, self.fire, self.reset = charge, fire, reset
        self.decay, self.threshold, self.late = decay, threshold, late
        self.one, self.two = nn.Linear(6, 8), nn.Linear(8, 4)
        rng = np.random.default_rng(3)
        for parameter in self.parameters():
            parameter.data = torch.from_numpy((rng.integers(-3, 5, parameter.shape) / 4).astype(np.float32))

    def step(self, x: Any, state: Any) -> tuple[Any, Any]:
        v = torch.zeros_like(x) if state is None else self.reset(*state, self.threshold) if self.late else state
        v = self.charge(v, x, self.decay)
        spikes = self.fire(v, self.threshold)
        return spikes, (v, spikes) if self.late else self.reset(v, spikes, self.threshold)

    def forward(self, x: Any) -> Any:
        one, two, total = None, None, 0
        for frame in x:
            spikes, one = self.step(self.one(frame), one)
            spikes, two = self.step(self.two(spikes), two)
            total = total + spikes
        return total


@given(
    st.sampled_from(sorted(CHARGES)),
    st.sampled_from(sorted(FIRES)),
    st.sampled_from(sorted(RESETS)),
    st.sampled_from((0.25, 0.5, 0.75)),
    st.sampled_from((0.5, 1.0, 2.0)),
    st.booleans(),
    st.integers(2, 5),
    st.integers(0, 99),
)
def test_any_charge_any_comparison_any_reset(
    charge: str, fire: str, reset: str, decay: float, threshold: float, late: bool, steps: int, seed: int
) -> None:
    module = Written(CHARGES[charge], FIRES[fire], RESETS[reset], decay, threshold, late).eval()
    x = torch.from_numpy((np.random.default_rng(seed).integers(-2, 13, (steps, 1, 6)) / 2).astype(np.float32))
    network = from_torch(module, x, time_axis=0, verify=False)
    layers = [layer for layer in network.layers.values() if isinstance(layer, Neuron)]
    assert len(layers) == 2
    assert {layer.reset for layer in layers} == {reset.split(",", maxsplit=1)[0]}
    assert {layer.v_threshold for layer in layers} == {threshold}
    for given_ in (x, x.flip(-1), x.roll(1, 0)):
        with torch.no_grad():
            expected = module(given_)[0].numpy()
        assert_array_equal(Simulator(network).run(given_[:, 0].numpy()).logits, expected)
