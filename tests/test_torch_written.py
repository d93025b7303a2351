"""Neurons that modules write out as tensor operations, as networks: many ways of writing, one network each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from torch_oracle import torch

from eventsim import InputError, Network, Simulator, from_torch
from eventsim.layers import IF, LIF, PLIF, AdaptiveLIF, DecayLIF, LeakyIntegrator, Threshold

nn, F = torch.nn, torch.nn.functional
T = 5


def dyadic(shape: tuple[int, ...], seed: int = 0) -> Any:
    return torch.from_numpy((np.random.default_rng(seed).integers(-4, 13, shape) / 4).astype(np.float32))


def filled(module: Any, seed: int = 0) -> Any:
    """Give every parameter few bits."""
    rng = np.random.default_rng(seed)
    for each in module.parameters():
        each.data = torch.from_numpy((rng.integers(-4, 6, each.shape) / 16).astype(np.float32))
    return module.eval()


class Strict(torch.autograd.Function):
    """A surrogate as many write it: fires above its threshold only."""

    @staticmethod
    def forward(ctx: Any, x: Any, threshold: float = 0.0) -> Any:
        ctx.save_for_backward(x)
        return (x > threshold).float()

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        (x,) = ctx.saved_tensors
        return grad / (1 + x.abs()) ** 2, None


class Inclusive(torch.autograd.Function):
    """The same, that fires at 0 too."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return torch.heaviside(x, torch.ones(()))

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return grad


Fire = Callable[[Any, Any], tuple[Any, Any]]
"""``(x, state) -> (spikes, state)``: one step of neurons; state is None or 0 before the first."""


def tutorial(x: Any, mem: Any) -> tuple[Any, Any]:
    mem = 0.5 * mem + x
    spk = (mem > 1).float()
    return spk, mem - spk


def tutorial_hard(x: Any, mem: Any) -> tuple[Any, Any]:
    mem = mem * 0.75 + x
    spk = torch.ge(mem, 1.0).to(x.dtype)
    return spk, mem * (1.0 - spk)


def integrate(x: Any, mem: Any) -> tuple[Any, Any]:
    mem = mem + x
    spk = Strict.apply(mem, 1.5)
    return spk, torch.where(spk > 0, torch.zeros_like(mem), mem)


def euler(x: Any, v: Any) -> tuple[Any, Any]:
    v = v + (x - v) / 2.0
    spk = Inclusive.apply(v - 0.5)
    return spk, v - 0.5 * spk


def euler_free(x: Any, v: Any) -> tuple[Any, Any]:
    v = v - v / 4 + x
    spk = torch.heaviside(v / 0.5 - 1, torch.zeros(()))
    return spk, v.masked_fill(spk.bool(), 0.0)


def euler_free_alpha(x: Any, v: Any) -> tuple[Any, Any]:
    v = torch.add(x, v, alpha=0.25)
    silent = v < 1
    return (~silent).float(), v * silent


def spikes_first(x: Any, state: Any) -> tuple[Any, Any]:
    """Spatio-temporal backpropagation keeps the potential as it was, and resets it in the next charge."""
    mem, spk = state or (0.0, 0.0)
    mem = mem * 0.25 * (1 - spk) + x
    spk = Strict.apply(mem - 0.5)
    return spk, (mem, spk)


def late(x: Any, mem: Any) -> tuple[Any, Any]:
    """As snnTorch has it: the reset is subtracted one step later."""
    reset = Strict.apply(mem - 1) if isinstance(mem, torch.Tensor) else 0.0
    mem = 0.5 * mem + x - reset * 1
    return Strict.apply(mem - 1), mem


def late_zero(x: Any, mem: Any) -> tuple[Any, Any]:
    reset = (mem > 1).float() if isinstance(mem, torch.Tensor) else 0.0
    mem = (0.5 * mem + x) * (1 - reset)
    return (mem > 1).float(), mem


def in_place(x: Any, mem: Any) -> tuple[Any, Any]:
    mem = mem * 0.5
    mem += x
    spk = mem.ge(1).float()
    left = mem.clone()
    left[spk.bool()] = 0
    return spk, left


def never_reset(x: Any, mem: Any) -> tuple[Any, Any]:
    mem = mem * 0.5 + x
    return (mem >= 1).float(), mem


def started(x: Any, mem: Any) -> tuple[Any, Any]:
    mem = torch.full_like(x, 0.75) if isinstance(mem, float) else mem
    mem = 0.5 * mem + x
    spk = (mem > 1).float()
    return spk, mem - spk


def fed_back(x: Any, state: Any) -> tuple[Any, Any]:
    """An input of two terms, of which no operation makes the sum."""
    mem, spk = state or (torch.zeros_like(x), torch.zeros_like(x))
    mem = 0.5 * mem + x + spk.roll(0) * 0.25
    spk = (mem >= 1).float()
    return spk, (mem * (1 - spk), spk)


WAYS: dict[str, tuple[Fire, type, dict[str, Any]]] = {
    "tutorial": (tutorial, DecayLIF, {"decay": 0.5, "reset": "subtract", "strict": True, "v_threshold": 1.0}),
    "tutorial, hard": (tutorial_hard, DecayLIF, {"decay": 0.75, "reset": "zero", "strict": False}),
    "integrate": (integrate, IF, {"reset": "zero", "strict": True, "v_threshold": 1.5}),
    "euler": (euler, LIF, {"tau": 2.0, "decay_input": True, "reset": "subtract", "strict": False, "v_threshold": 0.5}),
    "euler, free input": (
        euler_free, LIF, {"tau": 4.0, "decay_input": False, "reset": "zero", "strict": True, "v_threshold": 0.5},
    ),
    "alpha, silence": (euler_free_alpha, DecayLIF, {"decay": 0.25, "reset": "zero", "strict": False}),
    "spikes first": (spikes_first, DecayLIF, {"decay": 0.25, "reset": "zero", "strict": True, "v_threshold": 0.5}),
    "late": (late, DecayLIF, {"decay": 0.5, "reset": "subtract_late", "strict": True}),
    "late zero": (late_zero, DecayLIF, {"decay": 0.5, "reset": "zero_late", "strict": True}),
    "in place": (in_place, DecayLIF, {"decay": 0.5, "reset": "zero", "strict": False}),
    "never reset": (never_reset, Threshold, {"threshold": 1.0, "strict": False}),
    "started": (started, DecayLIF, {"decay": 0.5, "reset": "subtract", "start": 0.75}),
}  # fmt: skip


class Looped(nn.Module):
    """A loop over time in the network itself, with everything in one function."""

    def __init__(self, fire: Fire) -> None:
        super().__init__()
        self.fire = fire
        self.conv, self.fc = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(4 * 16, 3)

    def forward(self, x: Any) -> Any:
        first, second, out = 0.0, 0.0, []
        if self.fire in (spikes_first, fed_back):
            first = second = None  # type: ignore[assignment]
        for t in range(len(x)):
            spikes, first = self.fire(self.conv(x[t]), first)
            spikes, second = self.fire(self.fc(spikes.flatten(1)), second)
            out.append(spikes)
        return torch.stack(out).sum(0)


class Node(nn.Module):
    """Neurons that keep their state, and are called once for each step."""

    def __init__(self, fire: Fire) -> None:
        super().__init__()
        self.fire = fire
        self.state: Any = None if fire in (spikes_first, fed_back) else 0.0

    def forward(self, x: Any) -> Any:
        spikes, self.state = self.fire(x, self.state)
        return spikes


class ByModule(nn.Module):
    """A loop over time around modules."""

    def __init__(self, fire: Fire) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(4 * 16, 3)
        self.lif1, self.lif2 = Node(fire), Node(fire)

    def forward(self, x: Any) -> Any:
        return sum(self.lif2(self.fc(self.lif1(self.conv(x[t])).flatten(1))) for t in range(len(x)))


class Multi(nn.Module):
    """Neurons that loop over time themselves."""

    def __init__(self, fire: Fire) -> None:
        super().__init__()
        self.fire = fire

    def forward(self, x: Any) -> Any:
        state: Any = None if self.fire in (spikes_first, fed_back) else 0.0
        out = []
        for now in x:
            spikes, state = self.fire(now, state)
            out.append(spikes)
        return torch.stack(out)


class LayerByLayer(nn.Module):
    """Layers that take all time steps."""

    def __init__(self, fire: Fire) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(4 * 16, 3)
        self.lif1, self.lif2 = Multi(fire), Multi(fire)

    def forward(self, x: Any) -> Any:
        y = self.conv(x.flatten(0, 1))
        y = self.lif1(y.view(len(x), 1, *y.shape[1:]))
        return self.lif2(self.fc(y.flatten(2))).sum(0)


FORMS: dict[str, tuple[Callable[[Fire], Any], list[str]]] = {
    "one function": (Looped, ["spikes", "spikes1"]),
    "modules with a state": (ByModule, ["lif1", "lif2"]),
    "layer by layer": (LayerByLayer, ["lif1", "lif2"]),
}


def check(make: Callable[[], Any], x: Any, **options: Any) -> Network:
    """Compare logits bit for bit on the example and on two other inputs; the module has no state left over."""
    network = from_torch(make(), x, **options)
    for given in (x, x.flip(-1), x.roll(1, 0) * 0.5):
        with torch.no_grad():
            expected = make()(given)[0].numpy()
        frames = np.ascontiguousarray(given[:, 0].numpy())
        for chunk in (1, 3):
            assert_array_equal(Simulator(network, chunk=chunk).run(frames).logits, expected)
        assert 0 < expected.sum() < T * expected.size
    return network


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", WAYS)
def test_ways_of_writing(way: str, form: str) -> None:
    """Each is the one layer that it means, under the name of its module, whatever runs the loop."""
    fire, kind, fields = WAYS[way]
    make, names = FORMS[form]
    network = check(lambda: filled(make(fire)), dyadic((T, 1, 2, 4, 4)))
    for name in names:
        layer = network.layers[name]
        assert type(layer) is kind
        for field, value in fields.items():
            assert getattr(layer, field) == value, field
    (verified,) = (str(each.value) for each in network.settings if each.option == "verified")
    assert " spikes of 2 layers, 0 that rounding moved" in verified
