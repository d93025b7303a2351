"""A module of two layers of spikes, work of any kind between them and a head: what from_torch makes of it is compared.

There are as many tokens as channels, so that no size tells what an axis is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from torch_oracle import make_dyadic, neuron, torch

from eventsim import Network, Simulator, from_torch

from eventsim_importers.torch_program.neurons import neuron_of  # isort: skip
from eventsim_importers.torch_program.recorder import record  # isort: skip

F = torch.nn.functional
nn = torch.nn
T, C, H, W = 4, 8, 4, 2
N = H * W
MAP, TOKENS, IMAGE = (T, 1, C, H, W), (T, 1, N, C), (1, C, H, W)

Work = Callable[..., Any]


def same(x: Any) -> Any:
    return x


class Between(nn.Module):
    """Two layers of spikes, an operation, and a head of everything that it returns."""

    def __init__(self, work: Work, shape: tuple[int, ...], before: Work, parts: dict[str, Any]) -> None:
        super().__init__()
        self.work, self.before = work, before
        self.one = neuron.IFNode(step_mode="m")
        self.two = neuron.IFNode(0.75, v_reset=None, step_mode="m")
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                self.add_module(name, copy.deepcopy(part))
            else:
                self.register_buffer(name, part)
        self.head = None
        self.eval()
        with torch.no_grad():
            y = self.worked(torch.zeros(shape))
        self.rest()
        self.head = nn.Linear(y.shape[-1], 24)

    def rest(self) -> Any:
        for module in self.modules():
            if hasattr(module, "v_threshold"):
                module.reset()
        return self

    def worked(self, x: Any) -> Any:
        x = self.before(x)
        y = self.work(self, self.one(x), self.two(x))
        self.timed = y.shape[0] == T
        return y.reshape(T if self.timed else 1, 1, -1)

    def forward(self, x: Any) -> Any:
        return self.head(self.worked(x))


def example_of(shape: tuple[int, ...], seed: int) -> Any:
    return torch.from_numpy(np.random.default_rng(seed).integers(-4, 13, shape).astype(np.float32) / 8)


def compared(
    work: Work,
    shape: tuple[int, ...] = MAP,
    *,
    before: Work = same,
    exact: bool = True,
    seed: int = 0,
    fold_bn: bool = True,
    tune: Work = same,
    **parts: Any,
) -> Network:
    """Return the network, after comparing its logits with PyTorch's, on two inputs that it has not seen too."""
    module = tune(make_dyadic(Between(work, shape, before, parts), seed))
    axis = 0 if shape[0] == T else -1
    readout = {"readout": "sum"} if module.timed else {}
    network = from_torch(module, example_of(shape, seed), time_axis=axis, fold_bn=fold_bn, **readout)
    for each in range(seed, seed + 3):
        x = example_of(shape, each)
        with torch.no_grad():
            expected = module.rest()(x)
        expected = (expected.sum(0) if module.timed else expected).reshape(-1).numpy()
        frames = x[:, 0].numpy() if axis == 0 else np.repeat(x.numpy(), T, axis=0)
        found = Simulator(network).run(frames.reshape(T, *network.input.shape)).logits
        if exact:
            assert_array_equal(found, expected)
        else:
            assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        assert len(np.unique(expected)) > 4
    return network


def operations_of(work: Work, shape: tuple[int, ...], before: Work, parts: dict[str, Any]) -> set[str]:
    module = Between(work, shape, before, parts).eval()
    with torch.no_grad():
        return {node.operation for node in record(module, example_of(shape, 0), neuron_of).nodes}
