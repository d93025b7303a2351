"""A module that needs all that `from_torch` knows at once: each part hands another what that did not see alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from torch_oracle import make_dyadic, torch

from eventsim import Simulator, from_torch
from eventsim.layers import (
    IF,
    LIF,
    Conv2d,
    CropOverTime,
    DecayLIF,
    LeakyIntegrator,
    Rearrange,
    SpikingAttention,
    TableAttention,
)

nn, F = torch.nn, torch.nn.functional
T = 4


class Written(nn.Module):
    """Neurons written out, attention within the rows of a map, a layer over tokens, a trace, a warm-up left out.

    Parameters
    ----------
    tabled : bool
        Whether what the attention has of each score is a comparison, which neurons written out have, too.
    """

    def __init__(self, tabled: bool) -> None:
        super().__init__()
        self.tabled = tabled
        self.first, self.second = nn.Conv2d(2, 8, 1, bias=False), nn.Conv2d(8, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.qkv, self.mix, self.head = nn.Linear(16, 48), nn.Linear(64, 64), nn.Linear(16, 10)

    def forward(self, x: Any) -> Any:
        v, u, w, trace, out = 0, 0, 0, 0, []
        for step, frame in enumerate(x):
            v = 0.5 * v + self.norm(self.second(self.first(frame)))  # two convolutions that are one
            spikes = (v > 0.5).float()
            v = v * (1 - spikes)
            rows = F.max_pool2d(spikes, 4).permute(0, 2, 3, 1)
            u = u + self.qkv(rows)
            spikes = (u > 0.25).float()
            u = u - 0.25 * spikes
            q, k, values = spikes.chunk(3, -1)
            scores = q @ k.mT
            if self.tabled:
                scores = (scores > 2).float() + 2 * (scores >= 5).float()
            tokens = self.mix((scores @ values * 0.25).flatten(1, 2).mT).mT
            w = w + (tokens - w) / 2
            fired = (w >= 0.25).float()
            w = w * (1 - fired)
            trace = 0.75 * trace + fired
            if step >= 1:
                out.append(self.head(trace.mean(1)))
        return torch.stack(out).sum(0)


@pytest.mark.parametrize("tabled", [False, True], ids=["scores", "table"])
def test_all_at_once(tabled: bool) -> None:
    """Logits are PyTorch's bit for bit; a step, a row or a comparison taken for something else shows in them."""
    torch.manual_seed(0)
    model = make_dyadic(Written(tabled), 0).eval()
    frames = torch.poisson(3 * torch.rand(T, 1, 2, 32, 32, generator=torch.Generator().manual_seed(0)))
    network = from_torch(model, frames)
    kinds = [type(layer) for layer in network.layers.values()]
    attention = TableAttention if tabled else SpikingAttention
    for kind in (DecayLIF, IF, LIF, LeakyIntegrator, CropOverTime, Rearrange, attention):
        assert kind in kinds, kind.__name__
    assert kinds.count(Conv2d) == 1
    for seed in range(3):
        frames = torch.poisson(3 * torch.rand(T, 1, 2, 32, 32, generator=torch.Generator().manual_seed(seed)))
        with torch.no_grad():
            expected = model(frames)[0].numpy()
        assert len(np.unique(expected)) == 10
        assert_array_equal(Simulator(network).run(frames[:, 0].numpy()).logits, expected)
