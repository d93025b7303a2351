"""Convolutions and normalisations without neurons between them: one convolution, bit for bit, borders included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from torch_between import C, F, H, T, W, compared, nn
from torch_oracle import make_dyadic, make_lively, neuron, torch

from eventsim import Network, Simulator, from_torch
from eventsim.layers import Conv2d, Linear, Residual


class BNAndPad(nn.Module):
    """A normalisation, and around it what it makes of zero, as Meta-SpikeFormer's RepConv has it."""

    def __init__(self, channels: int, pad: int = 1, of_zero: float = 1.0) -> None:
        super().__init__()
        self.bn, self.pad, self.of_zero = nn.BatchNorm2d(channels), pad, of_zero

    def forward(self, x: Any) -> Any:
        bn, pad = self.bn, self.pad
        y = F.pad(bn(x), [pad] * 4)
        zero = bn.bias.detach() - bn.running_mean * bn.weight.detach() / torch.sqrt(bn.running_var + bn.eps)
        zero = (zero * self.of_zero).view(1, -1, 1, 1)
        y[:, :, :pad, :], y[:, :, -pad:, :] = zero, zero
        y[:, :, :, :pad], y[:, :, :, -pad:] = zero, zero
        return y


class RepConv(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int = 3, of_zero: float = 1.0) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, inputs, 1, bias=False),
            BNAndPad(inputs, kernel // 2, of_zero),
            nn.Sequential(
                nn.Conv2d(inputs, inputs, kernel, groups=inputs, bias=False),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            ),
        )

    def forward(self, x: Any) -> Any:
        return self.body(x)


class RepVGG(nn.Module):
    """A convolution 3 x 3, one of 1 x 1, and the input, each with its normalisation."""

    def __init__(self, channels: int, stride: int = 1, identity: bool = True) -> None:
        super().__init__()
        self.wide, self.wide_bn = nn.Conv2d(channels, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels)
        self.thin, self.thin_bn = nn.Conv2d(channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
        self.bn = nn.BatchNorm2d(channels) if identity else None

    def forward(self, x: Any) -> Any:
        y = self.wide_bn(self.wide(x)) + self.thin_bn(self.thin(x))
        return y if self.bn is None else y + self.bn(x)


def steps(m: Any, s: Any, *_: Any) -> Any:
    return m.part(s.flatten(0, 1)).unflatten(0, (T, 1))


def convolutions(network: Network) -> list[str]:
    """Everything between the first neurons and the head."""
    return [name for name in network.layers if name not in ("input", "one", "two", "head.flatten", "head", "readout")]


FOLDED: dict[str, tuple[Any, str]] = {
    "RepConv": (RepConv(C, 6), "part.body"),
    "RepConv of 5 x 5": (RepConv(C, 3, 5), "part.body"),
    "RepVGG": (RepVGG(C), "part"),
    "RepVGG with a stride": (RepVGG(C, 2, False), "part"),
    "a normalisation before": (nn.Sequential(nn.BatchNorm2d(C), nn.Conv2d(C, 5, 2)), "part"),
    "no border": (nn.Sequential(nn.Conv2d(C, 6, 3, padding=1), nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4)), "part"),
    "zeros of no bias": (nn.Sequential(nn.Conv2d(C, 6, 1, bias=False), nn.Conv2d(6, 4, 3, padding=1)), "part"),
    "in groups": (
        nn.Sequential(nn.Conv2d(C, 12, (3, 1), 1, 2, groups=4), nn.Conv2d(12, 6, (2, 2), (2, 1), groups=6)), "part"
    ),
    "dilated": (nn.Sequential(nn.Conv2d(C, 6, 2, 2, 3, dilation=(2, 1)), nn.Conv2d(6, 3, 2, 1, 0, (1, 2))), "part"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDED)
def test_one_convolution_is_left(name: str) -> None:
    part, found = FOLDED[name]
    network = compared(steps, part=part)
    assert convolutions(network) == [found]
    assert isinstance(network.layers[found], Conv2d)
    kept = compared(steps, part=part, fold_bn=False)
    assert len(convolutions(kept)) > 1


def test_what_repconv_is() -> None:
    """A kernel 3 x 3 with padding 1 and a bias, whatever it is made of; spikes are served by it alone."""
    network = compared(steps, part=RepConv(C, 6))
    layer = network.layers["part.body"]
    assert layer.weight.shape == (6, C, 3, 3)
    assert (layer.padding, layer.stride, layer.groups, layer.dilation) == ((1, 1), (1, 1), 1, (1, 1))
    result = Simulator(network, record=["one"]).run(np.ones((T, C, H, W), np.float32))
    spikes = torch.from_numpy(result.recorded["one"])
    reached = F.conv2d(spikes, torch.ones(6, C, 3, 3), padding=1)
    counts = {each.name: each.counts for each in result.profile}["part.body"]
    assert counts.acs == int(reached.sum()) > 0
    assert counts.macs == 0


KEPT: dict[str, tuple[Any, set[str]]] = {
    "zeros around a bias": (
        nn.Sequential(nn.Conv2d(C, 6, 1), nn.Conv2d(6, 4, 3, padding=1)), {"part.0", "part.1"}
    ),
    "zeros around 3 x 3": (
        nn.Sequential(nn.Conv2d(C, 6, 3, padding=1, bias=False), nn.Conv2d(6, 4, 3, padding=1)), {"part.0", "part.1"}
    ),
    "another border": (
        RepConv(C, 6, of_zero=0.5), {"part.body.0", "part.body.1.arranged", "part.body.1.border", "part.body.2"}
    ),
    "a border of the first, 3 x 3": (
        nn.Sequential(nn.Conv2d(C, 6, 3, padding=1, bias=False), BNAndPad(6), nn.Conv2d(6, 4, 3, padding=0)),
        {"part.0", "part.1.arranged", "part.1.border", "part.2"},
    ),
    "the input itself": (nn.ModuleList([nn.Conv2d(C, C, 1)]), {"part.0", "part_add"}),
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_what_would_be_wrong_at_the_borders_is_not_folded(name: str) -> None:
    part, expected = KEPT[name]
    work = (lambda m, s, t: steps_of(m.part[0], s) + s) if name == "the input itself" else steps
    network = compared(work, part=part)
    assert set(convolutions(network)) == expected


def steps_of(module: Any, x: Any) -> Any:
    return module(x.flatten(0, 1)).unflatten(0, (T, 1))


def test_that_what_something_else_reads_is_not_folded() -> None:
    def work(m: Any, s: Any, t: Any) -> Any:
        x = steps_of(m.first, s)
        return steps_of(m.second, x) + x

    network = compared(work, first=nn.Conv2d(C, C, 1), second=nn.Conv2d(C, C, 1))
    assert convolutions(network) == ["first", "second", "second_add"]

    def read_twice(m: Any, s: Any, t: Any) -> Any:
        x = steps_of(m.first, s)
        return (x + steps_of(m.second, s)) * 0.5 + x

    def of_two(m: Any, s: Any, t: Any) -> Any:
        return steps_of(m.first, s) + steps_of(m.second, t)

    for work, joins in ((read_twice, 2), (of_two, 1)):
        network = compared(work, first=nn.Conv2d(C, C, 1), second=nn.Conv2d(C, C, 3, padding=1))
        assert sum(isinstance(layer, Residual) for layer in network.layers.values()) == joins


def test_a_factor_before_a_convolution_leaves_it_its_name() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fire, self.conv, self.out = (
                neuron.IFNode(step_mode="m"),
                nn.Conv2d(C, 3, 3, padding=1),
                neuron.IFNode(step_mode="m"),
            )

        def forward(self, x: Any) -> Any:
            return self.out(self.conv((0.25 * self.fire(x)).flatten(0, 1)).unflatten(0, (T, 1))).mean((3, 4))

    module = make_dyadic(Scaled(), 0)
    x = torch.arange(T * C * H * W).reshape(T, 1, C, H, W) % 3 / 1.0
    network = from_torch(module, x, readout="mean")
    assert isinstance(network.layers["conv"], Conv2d)
    assert_array_equal(network.layers["conv"].weight, module.conv.weight.detach().numpy() / 4)


@settings(max_examples=15)
@given(st.data())
def test_any_two_convolutions(data: st.DataObject) -> None:
    """Behind each other or beside each other; what cannot be one stays two."""
    draw = data.draw

    def conv(inputs: int, outputs: int) -> Any:
        size = draw(st.tuples(st.integers(1, 3), st.integers(1, 2)))
        padding = draw(st.sampled_from(((0, 0), (1, 0), (2, 2))))
        dilation = draw(st.sampled_from((1, (1, 2), (2, 1))))
        groups = draw(st.sampled_from((1, 2, 4)))
        stride = draw(st.sampled_from((1, 1, (2, 1))))
        return nn.Conv2d(inputs, outputs, size, stride, padding, dilation, groups, bias=draw(st.booleans()))

    chain = draw(st.booleans())
    first, second = conv(C, 8), conv(8 if chain else C, 4 if chain else 8)
    with torch.no_grad():
        try:
            shapes = [each(torch.zeros(1, C, H, W)).shape for each in (first, second)] if not chain else []
            _ = second(first(torch.zeros(1, C, H, W))) if chain else None
        except RuntimeError:
            return
    if len(set(shapes)) > 1:
        return

    def work(m: Any, s: Any, t: Any) -> Any:
        return steps_of(m.second, steps_of(m.first, s)) if chain else steps_of(m.first, s) + steps_of(m.second, s)

    compared(work, first=first, second=second, seed=draw(st.integers(0, 99)))


class Net(nn.Module):
    """RepConv and RepVGG, with neurons between."""

    def __init__(self) -> None:
        super().__init__()
        self.part, self.fire = RepConv(2, 8), neuron.LIFNode(step_mode="m")
        self.other, self.again = RepVGG(8), neuron.LIFNode(step_mode="m")
        self.head = nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        x = self.fire(self.part(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
        x = self.again(self.other(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
        return self.head(x.mean((3, 4)).mean(0))


@pytest.mark.parametrize("seed", range(3))
def test_trained_weights_are_folded_in_float64_and_verified(seed: int) -> None:
    """Spikes are compared under the rule of rounding, with the terms of every step of the fold."""
    torch.manual_seed(seed)
    module = make_lively(Net(), seed)
    x = torch.poisson(torch.rand(4, 1, 2, 12, 12, generator=torch.Generator().manual_seed(seed)))
    network = from_torch(module, x)
    assert [name for name, layer in network.layers.items() if isinstance(layer, Conv2d | Linear)] == [
        "part.body", "other", "head"
    ]  # fmt: skip
    rep = module.part.double()
    kernel = network.layers["part.body"]
    given = torch.rand(1, 2, 6, 5, dtype=torch.float64)
    with torch.no_grad():
        expected = rep(given)
    found = F.conv2d(given, torch.from_numpy(kernel.weight).double(), torch.from_numpy(kernel.bias).double(), padding=1)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=1e-6)


def test_a_fold_keeps_the_delay_of_what_it_hears() -> None:
    """A recurrent loop through two convolutions."""

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(2, 2, 3, padding=1, bias=False), nn.Conv2d(2, 2, 1)
            self.fire, self.head = neuron.IFNode(), nn.Linear(2, 3)

        def forward(self, x: Any) -> Any:
            spikes, total = torch.zeros_like(x[0]), 0
            for frame in x:
                spikes = self.fire(frame + self.two(self.one(spikes)))
                total = total + self.head(spikes.mean((2, 3)))
            return total

    module = make_dyadic(Loop(), 0)
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (4, 1, 2, 4, 4)).astype(np.float32) / 2)
    network = from_torch(module, x, readout="sum")
    assert len([layer for layer in network.layers.values() if isinstance(layer, Conv2d)]) == 1
    assert [edge.delay for edge in network.edges if isinstance(network.layers[edge.target], Conv2d)] == [1]
    module.fire.reset()
    with torch.no_grad():
        expected = module(x)
    assert_array_equal(Simulator(network).run(x[:, 0].numpy()).logits, expected[0].numpy())
