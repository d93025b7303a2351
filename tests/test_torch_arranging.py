"""Tensors whose axes are other than a layer has them: windows, rows, tokens as channels, borders, parts, any order."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from torch_between import MAP, TOKENS, C, F, H, N, T, W, Work, compared, nn
from torch_oracle import neuron, torch

from eventsim import InputError, Network, Simulator
from eventsim.layers import Conv2d, Linear, Rearrange, Residual, SoftmaxAttention, SpikingAttention


def of_type(network: Network, kind: type) -> dict[str, Any]:
    return {name: layer for name, layer in network.layers.items() if isinstance(layer, kind)}


def each_step(x: Any, work: Work, *arguments: Any, **options: Any) -> Any:
    return work(x.flatten(0, 1), *arguments, **options).unflatten(0, (T, 1))


def fire(x: Any = 1.0) -> Any:
    return neuron.IFNode(x, step_mode="m")


# --- windows and rows


def windows(x: Any, height: int, width: int) -> Any:
    """(T, 1, C, H, W) as (T * windows, tokens, C), as Swin partitions a map."""
    steps, _, channels, rows, columns = x.shape
    x = x.flatten(0, 1).permute(0, 2, 3, 1)
    x = x.view(steps, rows // height, height, columns // width, width, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height * width, channels)


def merged(x: Any, rows: int, columns: int, height: int, width: int) -> Any:
    """And back."""
    x = x.view(T, rows // height, columns // width, height, width, x.shape[-1])
    return x.permute(0, 5, 1, 3, 2, 4).reshape(T, 1, x.shape[-1], rows, columns)


def in_heads(x: Any, heads: int) -> Any:
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


ORDERS: dict[str, Work] = {
    "scores first": lambda q, k, v: (q @ k.mT * 0.25) @ v,
    "context first": lambda q, k, v: q @ (k.mT @ v) * 0.25,
    "softmax": lambda q, k, v: torch.softmax(q @ k.mT * 0.5, -1) @ v,
    "pytorch's": F.scaled_dot_product_attention,
}


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("height", "width", "heads"), [(2, 2, 2), (2, 1, 4), (4, 2, 1), (1, 2, 2)])
def test_attention_within_windows(height: int, width: int, heads: int, order: str, shift: int) -> None:
    """Windows are heads; the map may be rolled before, and back behind."""

    def work(m: Any, s: Any, t: Any) -> Any:
        q, k, v = (in_heads(windows(x.roll((-shift, -shift), (3, 4)), height, width), heads) for x in (s, t, s))
        y = merged(ORDERS[order](q, k, v).transpose(1, 2).flatten(2), H, W, height, width)
        return each_step(y.roll((shift, shift), (3, 4)), m.conv)

    network = compared(work, exact=order in ("scores first", "context first"), conv=nn.Conv2d(C, 5, 3, padding=1))
    (layer,) = {**of_type(network, SpikingAttention), **of_type(network, SoftmaxAttention)}.values()
    assert layer.heads == heads * (H // height) * (W // width)


def test_attention_within_windows_counts_what_meets_there() -> None:
    """Spikes of one window alone: those of queries and keys that share a channel, then each score for each value."""

    def work(m: Any, s: Any, t: Any) -> Any:
        q, k, v = (windows(x, 2, 2) for x in (s, t, s))
        return merged((q @ k.mT) @ v, H, W, 2, 2)

    network = compared(work)
    ((name, layer),) = of_type(network, SpikingAttention).items()
    assert network.types[name].positions == 4
    assert layer.dense_macs(*network.input_types(name)) == 2 * 4 * 4 * C * (N // 4)
    frames = np.random.default_rng(3).integers(0, 3, (T, C, H, W)).astype(np.float32)
    result = Simulator(network, record=["one", "two"]).run(frames)
    expected = 0
    for s, t in zip(result.recorded["one"], result.recorded["two"], strict=True):
        for top in range(0, H, 2):
            for left in range(0, W, 2):
                q, k = (x[:, top : top + 2, left : left + 2].reshape(C, 4).T for x in (s, t))
                scores = q @ k.T
                expected += int(scores.sum()) + int(((scores != 0).astype(int) @ q).sum())
    assert {each.name: each.counts.acs for each in result.profile}[name] == expected > 0


ROWS: dict[str, Work] = {
    "rows": lambda s, t: rowwise(s.permute(0, 1, 3, 4, 2), t.permute(0, 1, 3, 4, 2)).permute(0, 1, 4, 2, 3),
    "columns": lambda s, t: rowwise(s.permute(0, 1, 4, 3, 2), t.permute(0, 1, 4, 3, 2)).permute(0, 1, 4, 3, 2),
    "rows in heads": lambda s, t: (
        rowwise(*(x.squeeze(1).permute(0, 2, 3, 1).flatten(0, 1).unflatten(2, (2, 4)).transpose(1, 2) for x in (s, t)))
        .transpose(1, 2).flatten(2).unflatten(0, (T, H)).permute(0, 3, 1, 2).unsqueeze(1)
    ),
}  # fmt: skip


def rowwise(q: Any, k: Any) -> Any:
    return (q @ k.mT) @ k


@pytest.mark.parametrize("name", ROWS)
def test_attention_within_rows(name: str) -> None:
    network = compared(lambda m, s, t: ROWS[name](s, t))
    assert len(of_type(network, SpikingAttention)) == 1


HEADS: dict[str, Work] = {
    "heads between each other": lambda x: x.flatten(3).unflatten(2, (4, 2)).movedim(3, 2).mT,
    "heads in another order": lambda x: x.flatten(3).unflatten(2, (2, 2, 2)).transpose(2, 3).flatten(2, 3).mT,
}


@pytest.mark.parametrize("name", HEADS)
def test_heads_of_channels_that_are_no_neighbours(name: str) -> None:
    def work(m: Any, s: Any, t: Any) -> Any:
        q, k = HEADS[name](s), HEADS[name](t)
        return ((q @ k.mT) @ k).mT.flatten(2)

    compared(work)


# --- tokens as channels


class Mixer(nn.Module):
    """One block of an MLP-Mixer with spikes: over tokens, then over channels."""

    def __init__(self, tokens: int, channels: int, norm: bool) -> None:
        super().__init__()
        self.over_tokens, self.fire = nn.Linear(tokens, tokens), fire()
        self.back, self.then = nn.Linear(channels, 2 * channels), fire()
        self.out = nn.Linear(2 * channels, channels)
        self.norm = nn.BatchNorm1d(tokens) if norm else None

    def forward(self, x: Any) -> Any:
        y = self.over_tokens(x.mT)
        y = y if self.norm is None else self.norm(y.mT.flatten(0, 1)).unflatten(0, (T, 1)).mT
        x = x + self.fire(y).mT
        return x + self.out(self.then(self.back(x)))


@pytest.mark.parametrize("norm", [False, True])
def test_an_mlp_mixer(norm: bool) -> None:
    network = compared(lambda m, s, t: m.mixer(s), TOKENS, mixer=Mixer(N, C, norm))
    layer = network.layers["mixer.over_tokens"]
    assert isinstance(layer, Linear)
    assert layer.weight.shape == (N, N)
    assert {"mixer.fire_add", "mixer.out_add"} <= of_type(network, Residual).keys()
    result = Simulator(network, record=["one"]).run(np.ones((T, N, C), np.float32))
    counts = {each.name: each.counts for each in result.profile}
    assert counts["mixer.over_tokens"].acs == N * np.count_nonzero(result.recorded["one"]) > 0
    assert counts["mixer.over_tokens"].macs == 0


MIXED: dict[str, tuple[Work, dict[str, Any]]] = {
    "linear over tokens": (lambda m, s, t: m.line(s.flatten(3)), {"line": nn.Linear(N, 5)}),
    "linear over rows": (lambda m, s, t: m.line(s.mT), {"line": nn.Linear(H, 5)}),
    "linear over columns": (lambda m, s, t: m.line(s).mT, {"line": nn.Linear(W, 5)}),
    "weights over tokens": (lambda m, s, t: s.flatten(3) @ torch.eye(N)[:, [2, 0, 1]] * 0.5, {}),
    "pointwise over tokens": (
        lambda m, s, t: m.norm(m.conv(s.flatten(3).mT[:, 0])).unsqueeze(1),
        {"conv": nn.Conv1d(N, 5, 1), "norm": nn.BatchNorm1d(5)},
    ),
    "a line of tokens": (lambda m, s, t: m.conv(s.flatten(3)[:, 0]).unsqueeze(1), {"conv": nn.Conv1d(C, 5, 3, 2, 1)}),
    "a line of channels": (lambda m, s, t: m.conv(s.flatten(3).mT[:, 0]).unsqueeze(1), {"conv": nn.Conv1d(N, 5, 3)}),
    "channels by height": (lambda m, s, t: each_step(s.transpose(2, 3), m.conv), {"conv": nn.Conv2d(H, 5, (3, 1))}),
    "tokens by channels of a head": (
        lambda m, s, t: each_step(s.flatten(3).unflatten(2, (2, 4)).mT, F.max_pool2d, (2, 2)), {}
    ),
    "norm of rows": (lambda m, s, t: m.norm(s.transpose(2, 3)[:, 0]), {"norm": nn.BatchNorm2d(H)}),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXED)
def test_other_axes_as_channels(name: str) -> None:
    work, parts = MIXED[name]
    assert of_type(compared(work, **parts), Rearrange)


def test_a_layer_norm_over_tokens() -> None:
    compared(lambda m, s, t: m.norm((s + t).flatten(3)), exact=False, norm=nn.LayerNorm(N))


# --- borders, parts, more and fewer pixels

CONV = {"conv": nn.Conv2d(C, 5, 3)}
BORDERS: dict[str, tuple[Work, dict[str, Any]]] = {
    "zeros": (lambda m, s, t: each_step(s, lambda x: m.conv(F.pad(x, (1, 1, 2, 2)))), CONV),
    "module": (lambda m, s, t: each_step(s, lambda x: m.conv(m.pad(x))), {**CONV, "pad": nn.ZeroPad2d(2)}),
    "more zeros": (
        lambda m, s, t: each_step(s, lambda x: m.conv(F.pad(x, (2, 2, 0, 0)))),
        {"conv": nn.Conv2d(C, 5, 3, padding=(1, 0))},
    ),
}
LAID: dict[str, tuple[Work, dict[str, Any]]] = {
    "one side": (lambda m, s, t: each_step(s, lambda x: m.conv(F.pad(x, (1, 0, 2, 1)))), CONV),
    "ones": (lambda m, s, t: each_step(s, lambda x: m.conv(F.pad(x, (1, 1, 1, 1), value=1.0))), CONV),
    "twice": (lambda m, s, t: each_step(s, lambda x: m.conv(F.pad(F.pad(x, (1, 1), value=2.0), (1, 1, 1, 1)))), CONV),
    "before a pool": (lambda m, s, t: each_step(s, lambda x: F.max_pool2d(F.pad(x, (0, 1, 1, 0)), 2)), {}),
    "reflected": (lambda m, s, t: each_step(s, F.pad, (1, 1, 2, 3), mode="reflect"), {}),
    "replicated": (lambda m, s, t: each_step(s, F.pad, (1, 2, 2, 0), mode="replicate"), {}),
    "circular": (lambda m, s, t: each_step(s, F.pad, (1, 1, 2, 0), mode="circular"), {}),
    "cut": (lambda m, s, t: each_step(s, F.pad, (0, -1, -1, 2)), {}),
    "channels": (lambda m, s, t: each_step(s, F.pad, (0, 0, 0, 0, 1, 2)), {}),
    "tokens": (lambda m, s, t: F.pad(s.flatten(3).mT, (0, 0, 1, 2)), {}),
    "larger": (lambda m, s, t: each_step(s, m.up), {"up": nn.Upsample(scale_factor=(2, 3))}),
    "of a size": (lambda m, s, t: each_step(s, F.interpolate, (8, 2), mode="nearest-exact"), {}),
    "shuffled": (lambda m, s, t: each_step(F.pixel_shuffle(s, 2), m.conv), {"conv": nn.Conv2d(2, 5, 3)}),
    "unshuffled": (lambda m, s, t: each_step(F.pixel_unshuffle(s, 2), m.conv), {"conv": nn.Conv2d(4 * C, 5, 1)}),
    "part of a map": (lambda m, s, t: each_step(s[..., 1:3, :], m.conv), {"conv": nn.Conv2d(C, 5, 2)}),
    "every second": (lambda m, s, t: s[:, :, ::2, 1::2], {}),
    "tensor index": (lambda m, s, t: s[:, :, torch.tensor([1, 0, -1, 1])], {}),
    "list index": (lambda m, s, t: s[..., [3, 0], :], {}),
    "choice": (lambda m, s, t: s[:, :, torch.tensor([True, False, True, True] * 2)], {}),
    "first token": (lambda m, s, t: s.flatten(3).mT[:, :, 0], {}),
    "tokens side by side": (lambda m, s, t: m.line(torch.cat((s, t), 3).mT).mT, {"line": nn.Linear(2 * H, 3)}),
    "repeated": (lambda m, s, t: s.mean((3, 4), keepdim=True).repeat(1, 1, 1, 2, 3), {}),
    "repeated in turn": (lambda m, s, t: s.repeat(1, 1, 2, 1, 1), {}),
    "expanded gate": (lambda m, s, t: s * m.fire(t.sum((3, 4), keepdim=True)).expand_as(s), {"fire": fire()}),
    "spread sum": (lambda m, s, t: s + t.sum((3, 4), keepdim=True), {}),
    "spread difference": (lambda m, s, t: t.sum(2, keepdim=True) - s, {}),
    "mean of rows": (lambda m, s, t: s.mean(3), {}),
    "sum of rows and channels": (lambda m, s, t: (s + t).sum((2, 4)), {}),
    "turned": (lambda m, s, t: s + t.mT.reshape(MAP), {}),
    "one minus": (lambda m, s, t: s * (1 - t).flip(3), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", BORDERS)
def test_zeros_are_the_padding_of_a_convolution(name: str) -> None:
    work, parts = BORDERS[name]
    network = compared(work, **parts)
    assert not of_type(network, Rearrange)
    assert len(of_type(network, Conv2d)) == 1


@pytest.mark.parametrize("name", LAID)
def test_values_in_other_places(name: str) -> None:
    work, parts = LAID[name]
    network = compared(work, **parts)
    assert of_type(network, Rearrange)
    result = Simulator(network).run(np.ones((T, C, H, W), np.float32))
    assert not any(layer.counts.acs or layer.counts.macs for layer in result.profile if "arranged" in layer.name)


REFUSED: dict[str, tuple[Work, str]] = {
    "a map of each window": (
        lambda m, s, t: m.conv(windows(s, 2, 2).mT.unflatten(2, (2, 2))),
        "conv2d: positions or channels in the place",
    ),
    "a line of each row": (
        lambda m, s, t: m.line(s[:, 0].transpose(1, 2).flatten(0, 1)),
        "conv1d: positions or channels in the place",
    ),
    "time beside height": (lambda m, s, t: s + t.transpose(0, 3), "add: .* along different axes of time found"),
    "time in a part": (
        lambda m, s, t: s.permute(1, 2, 0, 3, 4).flatten(1, 2)[:, 1:5],
        "__getitem__: a part of time with",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_mixes_time_or_a_batch_is_refused(name: str) -> None:
    work, words = REFUSED[name]
    with pytest.raises(InputError, match=rf"^module (itself|conv|line): {words}.*; expected ") as caught:
        compared(work, conv=nn.Conv2d(C, C, 2), line=nn.Conv1d(C, C, 2))
    assert "\n" not in str(caught.value)


def test_the_same_arrangement_is_made_once() -> None:
    two = compared(lambda m, s, t: m.a(s.flip(3)) + s.roll(1, 3), a=nn.Linear(W, W))
    assert len(of_type(two, Rearrange)) > 2
    network = compared(lambda m, s, t: m.a(s.flatten(3)) + m.b(s.flatten(3)), a=nn.Linear(N, 3), b=nn.Linear(N, 3))
    assert list(of_type(network, Rearrange)) == ["a.arranged"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_any_axes_as_windows_and_tokens(order: tuple[int, ...]) -> None:
    """Of the last two, one must be channels: these tell what is summed over for each pair of tokens."""

    def work(m: Any, s: Any, t: Any) -> Any:
        q, k = (x.permute(0, 1, *(axis + 2 for axis in order)) for x in (s, t))
        return (q @ k.mT) @ k

    if order[0] != 0:
        assert len(of_type(compared(work), SpikingAttention)) == 1
        return
    with pytest.raises(InputError, match=r"^module itself: matmul: .* found; expected .*"):
        compared(work)
