"""Global contexts written out as tensor operations: several ways of writing, one layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from numpy.testing import assert_allclose
from torch_oracle import neuron, torch

from eventsim import InputError, Network, Simulator, from_torch
from eventsim.layers import GlobalContext

nn = torch.nn
T, C, H, W = 3, 8, 4, 2  # as many positions as channels


class Context(nn.Module):
    """A context in the middle of a network; `pooled` writes the mean of weighed positions, (batch, C, 1, 1)."""

    def __init__(self, pooled: Callable[..., Any], norm: bool, combine: Callable[..., Any]) -> None:
        super().__init__()
        self.pooled, self.combine = pooled, combine
        self.key, self.value, self.query = nn.Conv2d(C, 1, 1), nn.Conv2d(C, 3, 1), nn.Conv2d(3, C, 1)
        self.norm = nn.LayerNorm([3, 1, 1]) if norm else nn.Identity()

    def forward(self, x: Any) -> Any:
        gain = self.query(torch.relu(self.norm(self.value(self.pooled(x, self.key(x))))))
        return self.combine(x, gain)


class Net(nn.Module):
    def __init__(self, context: Any) -> None:
        super().__init__()
        self.conv, self.context, self.lif = nn.Conv2d(2, C, 3, padding=1), context, neuron.LIFNode(step_mode="m")
        self.head = nn.Linear(C, 4)

    def forward(self, x: Any) -> Any:
        y = self.context(self.conv(x.flatten(0, 1)))
        return self.head(self.lif(y.view(T, 1, C, H, W)).mean((0, 3, 4)))


def product(x: Any, logits: Any) -> Any:
    weights = logits.flatten(2).softmax(-1)
    return (x.flatten(2) @ weights.transpose(1, 2)).unsqueeze(3)


def gcnet(x: Any, logits: Any) -> Any:
    """As GCNet has it: an axis of heads of size 1."""
    weights = torch.softmax(logits.view(len(x), 1, H * W), dim=2).unsqueeze(-1)
    context = torch.matmul(x.view(len(x), C, H * W).unsqueeze(1), weights)
    return context.view(len(x), C, 1, 1)


def batched(x: Any, logits: Any) -> Any:
    return torch.bmm(x.reshape(len(x), C, -1), logits.view(len(x), 1, -1).sigmoid().mT)[..., None]


def summed(x: Any, logits: Any) -> Any:
    return (x * torch.sigmoid(logits)).sum((2, 3), keepdim=True)


def summed_softmax(x: Any, logits: Any) -> Any:
    return (logits.flatten(1).softmax(1).view_as(logits) * x).sum(dim=(-1, -2), keepdim=True)


def added(x: Any, gain: Any) -> Any:
    return x + gain


def multiplied(x: Any, gain: Any) -> Any:
    return torch.sigmoid(gain) * x


WAYS = {"product": product, "GCNet": gcnet, "batched": batched, "summed": summed, "summed softmax": summed_softmax}


def built(pooled: Callable[..., Any], norm: bool, combine: Callable[..., Any]) -> Any:
    torch.manual_seed(0)
    module = Net(Context(pooled, norm, combine)).eval()
    with torch.no_grad():
        for parameter in module.context.parameters():
            parameter.copy_(torch.randn(parameter.shape))
        module.conv.weight *= 6
    return module


def read(module: Any, x: Any) -> Network:
    return from_torch(module, x)


@pytest.mark.parametrize("combine", [added, multiplied])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_ways_of_writing(way: str, norm: bool, combine: Callable[..., Any]) -> None:
    """Each is one layer with the module's name, and computes what the module does."""
    module, x = built(WAYS[way], norm, combine), 2 * torch.rand(T, 1, 2, H, W)
    network = read(module, x)
    layer = network.layers["context"]
    assert isinstance(layer, GlobalContext)
    assert (layer.norm_weight is not None) == norm
    assert layer.normalisation == ("sigmoid" if way in ("batched", "summed") else "softmax")
    assert layer.combination == ("additive" if combine is added else "gated")
    for seed in range(3):
        given = 2 * torch.rand(T, 1, 2, H, W, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            expected = module(given)[0].numpy()
        for each in module.modules():
            if isinstance(each, neuron.BaseNode):
                each.reset()
        assert_allclose(Simulator(network).run(given[:, 0].numpy()).logits, expected, atol=1e-5)


def of_another(x: Any, logits: Any) -> Any:
    """What is weighed is not what is scored."""
    return ((x * 2).flatten(2) @ logits.flatten(2).softmax(-1).transpose(1, 2)).unsqueeze(3)


def over_channels(x: Any, logits: Any) -> Any:
    """A softmax over the one score of each position is 1 everywhere."""
    return (x.flatten(2) @ logits.flatten(2).softmax(1).transpose(1, 2)).unsqueeze(3)


def of_a_part(x: Any, logits: Any) -> Any:
    return (x * torch.sigmoid(logits)).sum((1, 2), keepdim=True).expand(-1, C, -1, -1)[..., :1]


def test_a_part_of_a_context_is_read_by_other_layers() -> None:
    module, x = built(of_a_part, False, added), 2 * torch.rand(T, 1, 2, H, W)
    network = read(module, x)
    assert not any(isinstance(layer, GlobalContext) for layer in network.layers.values())
    with torch.no_grad():
        expected = module(x)[0].numpy()
    assert_allclose(Simulator(network).run(x[:, 0].numpy()).logits, expected, atol=1e-5)


@pytest.mark.parametrize("pooled", [of_another, over_channels])
def test_what_is_no_context_is_not_taken_for_one(pooled: Callable[..., Any]) -> None:
    """It is refused by the name of its module."""
    module, x = built(pooled, False, added), 2 * torch.rand(T, 1, 2, H, W)
    with pytest.raises(InputError, match=r"^module context[\w.]*: .* found; expected .*"):
        read(module, x)


class ScoredOtherwise(Context):
    """The scores are of another map than the one that is weighed."""

    def forward(self, x: Any) -> Any:
        return x + self.query(torch.relu(self.value(self.pooled(x, self.key(x * 2)))))


def test_scores_of_another_map_make_no_context() -> None:
    module, x = built(product, False, added), 2 * torch.rand(T, 1, 2, H, W)
    module.context.__class__ = ScoredOtherwise
    with pytest.raises(InputError, match=r"^module context[\w.]*: .* found; expected .*"):
        read(module, x)


def test_a_gain_of_another_signal_is_no_context() -> None:
    """The sum must be of the map that was pooled."""
    module, x = built(product, False, lambda x, gain: 2 * x + gain), 2 * torch.rand(T, 1, 2, H, W)
    with pytest.raises(InputError, match=r"^module context[\w.]*: .* found; expected .*"):
        read(module, x)
