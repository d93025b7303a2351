"""Neurons that modules write out as tensor operations, as networks: many ways of writing, one network each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from torch_oracle import torch

from eventsim import InputError, Network, Simulator, from_torch
from eventsim.layers import IF, LIF, PLIF, AdaptiveLIF, DecayLIF, Threshold

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
    reset = (mem > 0.5).float() if isinstance(mem, torch.Tensor) else 0.0
    mem = (0.5 * mem + x) * (1 - reset)
    return (mem > 0.5).float(), mem


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
    "late zero": (late_zero, DecayLIF, {"decay": 0.5, "reset": "zero_late", "strict": True, "v_threshold": 0.5}),
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
        first: Any = 0.0
        second: Any = 0.0
        out = []
        if self.fire is spikes_first:
            first = second = None
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
        self.state: Any = None if fire is spikes_first else 0.0

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
        state: Any = None if self.fire is spikes_first else 0.0
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
    assert " outputs of 2 layers of neurons, 0 that rounding moved" in verified


# --- what a loop may hold beside


class Recurrent(nn.Module):
    """Spikes come back through a layer, and two signals are added to the potential, one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.back, self.out = nn.Linear(32, 12), nn.Linear(12, 12), nn.Linear(12, 5)

    def forward(self, x: Any) -> Any:
        mem, spk, total = torch.zeros(1, 12), torch.zeros(1, 12), 0
        for frame in x.flatten(2):
            mem = 0.5 * mem + self.fc(frame) + self.back(spk)
            spk = Inclusive.apply(mem - 1)
            mem = mem * (1 - spk)
            total = total + self.out(spk)
        return total


def logits_equal(make: Callable[[], Any], x: Any, **options: Any) -> Network:
    network = from_torch(make(), x, **options)
    for given in (x, x.flip(-1)):
        with torch.no_grad():
            expected = make()(given).reshape(-1).numpy()
        frames = given[:, 0] if given.ndim == 5 else given.repeat(network.time_steps, 1, 1, 1)
        found = Simulator(network).run(np.ascontiguousarray(frames.numpy())).logits
        assert_array_equal(found, expected)
        assert len(np.unique(expected)) > 1
    return network


def test_signals_that_are_added_to_the_potential_one_by_one() -> None:
    """The bias of the layer that hears earlier spikes is there in the first step too."""
    network = logits_equal(lambda: filled(Recurrent()), dyadic((T, 1, 2, 4, 4)))
    assert {edge.delay for edge in network.edges} == {0, 1}


class Shown(nn.Module):
    """One image, charged into neurons again and again: the loop alone tells the time steps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(2, 4, 3), nn.Linear(16, 3)

    def forward(self, x: Any) -> Any:
        first, second, total = 0.0, 0.0, 0
        for _ in range(6):
            spikes, first = tutorial(self.conv(x), first)
            spikes, second = tutorial_hard(self.fc(spikes.flatten(1)), second)
            total = total + spikes
        return total


def test_an_image_in_a_loop_of_the_module() -> None:
    assert logits_equal(lambda: filled(Shown()), dyadic((1, 2, 4, 4), 5)).time_steps == 6


class Learned(nn.Module):
    """Thresholds, decays and gains of each channel, a coefficient of each step, and a reset by the threshold."""

    def __init__(self, gains: bool, steps: bool) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(2, 4, 3), nn.Linear(16, 3)
        self.decay = nn.Parameter(torch.tensor([0.25, 0.5, 0.75, 1.0])[:, None, None])
        self.gain = nn.Parameter(torch.tensor([0.5, 1.0, 2.0, 1.5])[:, None, None]) if gains else None
        self.step = nn.Parameter(torch.arange(1.0, T + 1) / 4) if steps else None
        self.threshold = 0.75 if gains or steps else nn.Parameter(torch.tensor([0.25, 0.5, 0.75, 1.0])[:, None, None])

    def forward(self, x: Any) -> Any:
        mem: Any = 0.0
        total = 0
        for t in range(T):
            mem = self.decay * mem * (1 if self.step is None else self.step[t])
            current = self.conv(x[t])
            mem = mem + (current if self.gain is None else self.gain * current)
            spikes = Strict.apply(mem, self.threshold)
            mem = mem - spikes * self.threshold
            total = total + self.fc(spikes.flatten(1))
        return total


def learned(gains: bool, steps: bool) -> Any:
    """Fill the layers alone."""
    module = Learned(gains, steps).eval()
    filled(module.conv)
    filled(module.fc)
    return module


@pytest.mark.parametrize("steps", [False, True])
@pytest.mark.parametrize("gains", [False, True])
def test_coefficients_that_are_parameters(gains: bool, steps: bool) -> None:
    """What differs between channels or steps is kept, with one layer where numbers do and another where they do not."""
    network = logits_equal(lambda: learned(gains, steps), dyadic((T, 1, 2, 4, 4)))
    layer = network.layers["spikes"]
    if not gains and not steps:
        assert isinstance(layer, DecayLIF)
        assert_array_equal(layer.decay, [0.25, 0.5, 0.75, 1.0])
        assert_array_equal(layer.v_threshold, [0.25, 0.5, 0.75, 1.0])
    else:
        assert isinstance(layer, AdaptiveLIF)
        assert layer.retention.shape == (T if steps else 1, 4, 1)
        assert layer.gain.shape == (1, 4 if gains else 1, 1)
        assert layer.reset == "subtract"


def parametric(x: Any, mem: Any) -> tuple[Any, Any]:
    mem = mem + (x - mem) * torch.sigmoid(torch.tensor(0.3))
    spk = Inclusive.apply(mem - 0.3)
    return spk, (1 - spk) * mem


def free(x: Any, mem: Any) -> tuple[Any, Any]:
    mem = mem * 0.9 + 0.1 * x
    spk = Inclusive.apply(mem - 0.1)
    return spk, mem - 0.1 * spk


@pytest.mark.parametrize("fire", [parametric, free])
def test_decays_that_are_not_dyadic(fire: Fire) -> None:
    """The input takes the share that the potential leaves, so both are one constant; rounding is as PyTorch's."""
    torch.manual_seed(0)
    module, x = Looped(fire).eval(), torch.rand(T, 1, 2, 4, 4) * 2
    network = from_torch(module, x)
    assert {type(network.layers[name]) for name in ("spikes", "spikes1")} == {PLIF}
    with torch.no_grad():
        assert_array_equal(Simulator(network).run(x[:, 0].numpy()).logits, module(x)[0].numpy())


class Stateless(nn.Module):
    """Spikes of this very step, all steps at once, and neurons behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif, self.out = nn.Linear(32, 8), Multi(tutorial), nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        y = torch.where(self.fc(x.flatten(2)) > 0.5, 1.0, 0.0)
        return self.lif(self.out((y > 0).float())).sum(0)


def test_thresholds_without_memory() -> None:
    network = logits_equal(lambda: filled(Stateless(), 4), dyadic((T, 1, 2, 4, 4)))
    (layer,) = (layer for layer in network.layers.values() if isinstance(layer, Threshold))
    assert (layer.threshold, layer.strict) == (0.5, True)


def test_a_state_left_over_is_that_of_the_copy() -> None:
    """Neurons that keep their state are read from rest, and those of the module are not touched."""
    module, x = filled(ByModule(tutorial)), dyadic((T, 1, 2, 4, 4))
    network = from_torch(module, x)
    assert module.lif1.state == 0.0
    with torch.no_grad():
        expected = module(x)[0].numpy()
    assert_array_equal(Simulator(network).run(x[:, 0].numpy()).logits, expected)


# --- what is refused


def reset_to(x: Any, mem: Any) -> tuple[Any, Any]:
    mem = 0.5 * mem + x
    spk = (mem > 1).float()
    return spk, torch.where(spk > 0, torch.full_like(mem, 0.25), mem)


def half_reset(x: Any, mem: Any) -> tuple[Any, Any]:
    mem = 0.5 * mem + x
    spk = (mem > 1).float()
    return spk, mem - 0.5 * spk


def two_thresholds(x: Any, mem: Any) -> tuple[Any, Any]:
    mem = 0.5 * mem + x
    return (mem > 1).float(), mem - (mem > 2).float()


def read_out(x: Any, mem: Any) -> tuple[Any, Any]:
    mem = 0.5 * mem + x
    spk = (mem > 1).float()
    return spk + 0.5 * mem, mem - spk


def squared(x: Any, mem: Any) -> tuple[Any, Any]:
    mem = 0.5 * mem * x + x
    spk = (mem > 1).float()
    return spk, mem - spk


class Ternary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return (x >= 1).float() - (x <= -1).float()


class Narrow(torch.autograd.Function):
    """A step, but for a window around 3."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return ((x >= 1) & ((x - 3).abs() > 1)).float()


class Mixed(torch.autograd.Function):
    """The largest fires."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return (x >= x.max()).float()


def of(function: Any) -> Fire:
    def fire(x: Any, mem: Any) -> tuple[Any, Any]:
        mem = 0.5 * mem + x
        spk = function.apply(mem)
        return spk, mem - spk

    return fire


OWN = (
    r"function \w+ with a gradient of its own found; expected spikes of neurons that are known, a function that is 1 .*"
)
REFUSED: dict[str, tuple[Fire, str]] = {
    "reset to a value": (reset_to, r"a reset to something else than zero, or by something else than .*; expected .*"),
    "reset by a half": (half_reset, r"a reset to something else than zero, or by something else than .*; expected .*"),
    "two thresholds": (two_thresholds, r"a potential compared with two thresholds found; expected one .*"),
    "potential read": (read_out, r"\w+ of the potential of neurons found; expected that only their spikes are read"),
    "product": (squared, r"a potential times a signal, and no gate of what arrives found, in time step 4; expected .*"),
    "ternary": (of(Ternary), OWN),
    "window": (of(Narrow), OWN),
    "mixed": (of(Mixed), OWN),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_neuron_is_refused(name: str, form: str) -> None:
    """One line, with the module, and no guess."""
    fire, words = REFUSED[name]
    make, _ = FORMS[form]
    with pytest.raises(InputError, match=rf"^module [\w.]+: {words}$") as caught:
        from_torch(filled(make(fire)), dyadic((T, 1, 2, 4, 4)))
    assert "\n" not in str(caught.value)
