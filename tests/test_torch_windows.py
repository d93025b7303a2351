"""Windows over time as PyTorch authors write them: parts of time, put together and added, in many ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from test_torch_operations import each_step, heads, merged
from torch_between import MAP, C, F, H, T, W, Work, compared, nn
from torch_oracle import torch

from eventsim import InputError, Network
from eventsim.layers import (
    Affine,
    Concat,
    Conv2d,
    CropOverTime,
    Layer,
    Linear,
    MeanOverTime,
    PositionEncoding,
    Residual,
    SliceOverTime,
    SpikingAttention,
    WindowedLinear,
)

LINE = nn.Linear(C, 5)


def on_channels(m: Any, x: Any) -> Any:
    return m.line(x.flatten(3).mT).mT


def ago(x: Any, steps: int = 1) -> Any:
    """What was there some steps ago, and zeros before."""
    return torch.cat([torch.zeros_like(x[:steps]), x[:-steps]])


def padded(x: Any) -> Any:
    return F.pad(x.movedim(0, -1), (1, 0))[..., :T].movedim(-1, 0)


def cropped(x: Any, steps: int = 1) -> Any:
    """Padded and cropped at once."""
    return F.pad(x, (0, 0) * 4 + (steps, -steps))


def rolled(x: Any) -> Any:
    y = torch.roll(x, 1, 0)
    y[0] = 0
    return y


def masked(x: Any, turned: Any) -> Any:
    """Steps that came round, times 0."""
    return turned * (torch.arange(T) > 0).float().view(-1, 1, 1, 1, 1)


def in_place(x: Any) -> Any:
    y = x.clone()
    for steps in (1, 2):
        y[steps:] += 2.0**-steps * x[:-steps]
    return y


def filled(x: Any) -> Any:
    y = torch.zeros_like(x)
    y[0] = x[0]
    for step in range(1, T):
        y[step] = x[step] + 0.5 * x[step - 1]
    return y


def stacked(x: Any) -> Any:
    found = []
    for step in range(T):
        y = x[step]
        for age in range(1, min(3, step + 1)):
            y = y + x[step - age] * 0.5**age
        found.append(y)
    return torch.stack(found)


def fed_back(x: Any) -> Any:
    """Each sum adds to the one before."""
    y = x
    for _ in range(2):
        y = x + 0.5 * ago(y)
    return y


def constant(x: Any) -> Any:
    return x + 0.25 * (ago(x) + ago(x, 2))


LATEST = torch.arange(T) - 1
DECAY = torch.tensor([[0.5 ** (row - column) if row >= column else 0 for column in range(T)] for row in range(T)])
"""How much of each step is in each."""

WINDOWS: dict[str, tuple[Work, tuple[int, int, str]]] = {
    "cat": (lambda x: x + 0.25 * ago(x) + ago(x, 2) * 0.0625, (3, 2, "geometric")),
    "new zeros": (lambda x: x + torch.cat([x.new_zeros(1, *MAP[1:]), x.narrow(0, 0, T - 1)]), (2, 0, "geometric")),
    "pad": (lambda x: x + padded(x) / 4, (2, 2, "geometric")),
    "pad and crop": (lambda x: x + cropped(x) / 2, (2, 1, "geometric")),
    "pad a part": (lambda x: x + 0.5 * F.pad(x[:-1], (0, 0) * 4 + (1, 0)), (2, 1, "geometric")),
    "scaled first": (lambda x: x + ago(x * 0.5), (2, 1, "geometric")),
    "in place": (in_place, (3, 1, "geometric")),
    "step by step": (filled, (2, 1, "geometric")),
    "stack": (stacked, (3, 1, "geometric")),
    "fed back": (fed_back, (3, 1, "geometric")),
    "constant": (constant, (3, 2, "constant")),
    "roll": (lambda x: x + 0.5 * rolled(x), (2, 1, "geometric")),
    "roll and mask": (lambda x: x + 0.5 * masked(x, torch.roll(x, 1, 0)), (2, 1, "geometric")),
    "index": (lambda x: x + 0.25 * masked(x, x[LATEST.clamp(min=0)]), (2, 2, "geometric")),
    "list of steps": (lambda x: x + 0.25 * masked(x, x[[0, 0, 1, 2]]), (2, 2, "geometric")),
    "index_select": (lambda x: x + 0.25 * masked(x, x.index_select(0, LATEST % T)), (2, 2, "geometric")),
    "einsum": (lambda x: torch.einsum("st,tbchw->sbchw", DECAY, x), (4, 1, "geometric")),
    "matmul": (lambda x: (DECAY @ x.flatten(1)).view_as(x), (4, 1, "geometric")),
    "first step apart": (lambda x: torch.cat([x[:1], x[1:] + 0.5 * x[:-1]]), (2, 1, "geometric")),
    "longer than the sample": (
        lambda x: x + 0.5 * ago(x) + 0.25 * ago(x, 2) + 0.125 * ago(x, 3) + ago(x, 4) + ago(x, 5), (4, 1, "geometric"),
    ),
}  # fmt: skip


def made(network: Network) -> dict[str, Layer]:
    """The layers that an operation and the head behind it became."""
    around = ("input", "one", "two", "head", "head.flatten", "readout")
    return {name: layer for name, layer in network.layers.items() if name not in around}


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_before_synapses(name: str) -> None:
    """However it is written, it is one layer, and equals PyTorch bit for bit."""
    work, window = WINDOWS[name]
    (layer,) = made(compared(lambda m, s, t: on_channels(m, work(s)), line=LINE)).values()
    assert isinstance(layer, WindowedLinear)
    assert (layer.window, layer.exponent, layer.decay, layer.form) == (*window, "accumulate_once")


@pytest.mark.parametrize("fold_bn", [True, False])
def test_normalisations_behind_windows(fold_bn: bool) -> None:
    parts = {"line": nn.Conv1d(C, 6, 1, bias=False), "norm": nn.BatchNorm1d(6)}
    network = compared(
        lambda m, s, t: each_step((s + 0.5 * ago(s)).flatten(3), lambda x: m.norm(m.line(x))), fold_bn=fold_bn, **parts
    )
    assert [type(layer) for layer in made(network).values()] == [WindowedLinear, Affine][: 2 - fold_bn]


# --- of currents, each output or head through its own


def currents(m: Any, s: Any) -> Any:
    return torch.einsum("oi,tbin->tbon", m.line.weight, s.flatten(3))


def per_head(m: Any, s: Any) -> Any:
    """Two heads, of which the second hears for longer."""
    u = currents(m, s).unflatten(2, (2, -1))
    u = u + torch.tensor([0.5, 0.25]).view(2, 1, 1) * ago(u) + torch.tensor([0.0, 0.0625]).view(2, 1, 1) * ago(u, 2)
    return u.flatten(2, 3) + m.line.bias.view(-1, 1)


SIX = nn.Linear(C, 6)


def test_windows_of_each_head_behind_synapses() -> None:
    """The bias is added once, behind the window, and the layer has the name of its weights."""
    (name, layer), *more = made(compared(lambda m, s, t: per_head(m, s), line=SIX)).items()
    assert (name, more) == ("line", [])
    assert isinstance(layer, WindowedLinear)
    assert (layer.window, layer.exponent, layer.decay) == ((2, 3), (1, 2), "geometric")
    assert layer.bias is not None


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("read twice", [Linear, Affine, Residual, Concat]),
        ("bias within", [Linear, Affine, Residual]),
        ("no power of two", [Linear, Affine, Residual]),
    ],
)
def test_currents_that_have_no_windowed_layer(name: str, types: list[type]) -> None:
    """They wait on delayed edges instead."""

    def work(m: Any, s: Any, t: Any) -> Any:
        u = on_channels(m, s) if name == "bias within" else currents(m, s)
        y = u + (0.75 if name == "no power of two" else 0.5) * ago(u)
        return torch.cat([y, u], 2) if name == "read twice" else y

    network = compared(work, line=SIX)
    found = [type(layer) for layer in made(network).values()]
    assert found == types
    assert [edge.delay for edge in network.edges if edge.delay] == [1]


def test_that_a_bias_is_added_where_it_is_read() -> None:
    """Without it, the currents are read too."""

    def work(m: Any, s: Any, t: Any) -> Any:
        u = currents(m, s)
        return torch.cat([u + m.line.bias.view(-1, 1), u], 2)

    types = [type(layer) for layer in made(compared(work, line=SIX)).values()]
    assert types == [Linear, PositionEncoding, Concat]


# --- before other layers


def test_windows_of_other_layers_are_delayed_edges() -> None:
    conv = nn.Conv2d(C, 5, 3, padding=1)
    network = compared(lambda m, s, t: each_step(s + 0.5 * ago(s), m.conv), conv=conv)
    assert {name: type(layer) for name, layer in made(network).items()} == {
        "one.attenuate1": Affine,
        "one.sum1": Residual,
        "conv": Conv2d,
    }
    (delayed,) = [edge for edge in network.edges if edge.delay]
    assert (delayed.source, delayed.target, delayed.delay) == ("one", "one.attenuate1", 1)


@pytest.mark.parametrize(
    "work",
    [
        lambda m, s, t: on_channels(m, 0.75 * s + 0.375 * ago(s)),
        lambda m, s, t: on_channels(m, 0.5 * s + 0.25 * ago(s)),
        lambda m, s, t: on_channels(m, s - ago(s)),
        lambda m, s, t: on_channels(m, s + torch.tensor([1, 0.5] * 4).view(-1, 1, 1) * ago(s)),
        lambda m, s, t: s + ago(t),
        lambda m, s, t: 1 - ago(s),
        lambda m, s, t: ago(1 - s) + t,
        lambda m, s, t: s * ago(s),
        lambda m, s, t: each_step(ago(s) + s, F.max_pool2d, 2),
        lambda m, s, t: (s + 0.5 * ago(s)).mean(0),
        lambda m, s, t: s + 0.5 * ago(s) + torch.arange(8.0).view(8, 1, 1),
        lambda m, s, t: ago(s, 2),
    ],
)  # fmt: skip
def test_other_sums_of_time_steps(work: Work) -> None:
    compared(work, line=LINE)


def test_that_a_sum_read_twice_is_made_once() -> None:
    def twice(m: Any, s: Any, t: Any) -> Any:
        y = s + 0.5 * ago(s)
        return torch.cat([each_step(y, m.conv), y], 2)

    types = [type(layer) for layer in made(compared(twice, conv=nn.Conv2d(C, 4, 1))).values()]
    assert types.count(Residual) == 1


def test_that_a_scale_which_became_part_of_a_window_is_gone() -> None:
    def both(m: Any, s: Any, t: Any) -> Any:
        u = s * 0.5
        return on_channels(m, s + ago(u)).sum(-1) if not m.also else on_channels(m, s + ago(u)) + u[:, :, :5].flatten(3)

    alone = made(compared(both, line=LINE, also=torch.tensor(False)))
    assert [type(layer) for layer in alone.values()][:1] == [WindowedLinear]
    assert not any(isinstance(layer, Affine) for layer in alone.values())
    assert any(isinstance(layer, Affine) for layer in made(compared(both, line=LINE, also=torch.tensor(True))).values())


def test_parts_of_time_are_slices() -> None:
    network = compared(lambda m, s, t: (s[:2] + 0.5 * s[2:])[:1] + t[3:])
    assert sum(isinstance(layer, SliceOverTime) for layer in network.layers.values()) == 3


@pytest.mark.parametrize("work", [lambda s: (s[1:] + 0.5 * s[:3])[1:], lambda s: torch.relu(s[1:])[1:]])
def test_parts_that_are_not_equal(work: Any) -> None:
    network = compared(lambda m, s, t: (work(s) + t[2:]).sum(0, keepdim=True))
    assert {type(layer) for layer in made(network).values()} >= {CropOverTime, SliceOverTime, MeanOverTime}


# --- of values and products in attention


def test_windows_of_values_and_of_products() -> None:
    """An attention to a v that is delayed, and an attention delayed; a scale behind them is the attention's own."""

    def values(m: Any, s: Any, t: Any) -> Any:
        v = heads(t)
        return merged(heads(s) @ heads(t).mT @ (v + 0.5 * ago(v)) * 0.25)

    def product(m: Any, s: Any, t: Any) -> Any:
        y = heads(s) @ heads(t).mT @ heads(t)
        return merged((y + torch.tensor([0.5, 0.0]).view(2, 1, 1) * ago(y)) * 0.25)

    after = ["attention.attenuate1", "attention.sum1"]
    for work, names in ((values, ["attention", "attention.ago1", *after]), (product, ["attention", *after])):
        network = compared(work)
        assert list(made(network)) == names
        attention = network.layers["attention"]
        assert isinstance(attention, SpikingAttention)
        assert attention.scale == 0.25
    scale = network.layers["attention.attenuate1"].scale  # type: ignore[attr-defined]
    assert_array_equal(scale, np.repeat(np.float32([0.5, 0]), 4))


# --- what is refused

LATER = "time step 1 in the place of step 0 found; expected each step made of itself and earlier ones"
UNLIKE = r"other earlier steps in time step \d than in step \d found; expected the same constants in every step"
BAD: dict[str, tuple[Work, str]] = {
    "roll": (lambda s: s + torch.roll(s, 1, 0), "time step 3 in the place of step 0 found; expected each step made of"),
    "time turned round": (lambda s: s.flip(0), "time step 3 in the place of step 0 found"),
    "steps to come": (lambda s: s + torch.cat([s[1:], torch.zeros_like(s[:1])]), LATER),
    "first step repeated": (lambda s: s + torch.cat([s[:1], s[:-1]]), UNLIKE),
    "factors that change": (lambda s: s + 0.5 * ago(s) * torch.tensor([1.0, 1, 2, 1]).view(-1, 1, 1, 1, 1), UNLIKE),
    "ones before": (lambda s: torch.cat([torch.ones_like(s[:1]), s[:-1]]), "time steps beside an array found"),
    "part": (lambda s: torch.cat([s[:1] * 0, s[:2]]), "time steps -1:2 of 4 found; expected a part of them"),
    "parts of parts": (lambda s: torch.cat([torch.relu(s[:3]), s[3:]]), "parts of 3 time steps and of 4 found"),
    "nothing": (lambda s: torch.cat([torch.zeros_like(s), s[:0]]), "no time step that is not zero found"),
    "written channels": (lambda s: written(s, (slice(None), slice(None), 0)), "a part that is written into found"),
    "written numbers": (lambda s: written(s, 0, 1.0), "a part that is written into found"),
}  # fmt: skip


def written(x: Any, index: Any, value: Any = 0) -> Any:
    y = x.clone()
    y[index] = value
    return y


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_window_is_refused_by_name(name: str) -> None:
    work, words = BAD[name]
    with pytest.raises(InputError, match=rf"^module \S+: \S+: {words}|^module \S+: {words}") as caught:
        compared(lambda m, s, t: on_channels(m, work(s)), line=nn.LazyLinear(5))
    assert "\n" not in str(caught.value)
    assert "; expected " in str(caught.value)


def test_that_a_tensor_is_refused_whose_parts_were_changed_and_not_put_back() -> None:
    """``y[1:] += ...`` puts its part back; another part that was changed meanwhile is not seen."""

    def through_a_view(m: Any, s: Any, t: Any) -> Any:
        y = s.clone()
        first = y[0]
        first += t[0]
        y[1:] += t[:-1]
        return y

    def another_part(m: Any, s: Any, t: Any) -> Any:
        y = s.clone()
        rest = y[1:]
        rest += t[:-1]
        y[:1] = t[:1]
        return y

    for work in (through_a_view, another_part):
        with pytest.raises(InputError, match="of which a view was changed in place by"):
            compared(work)


# --- any arithmetic of time steps

FACTORS = st.sampled_from((1, 2, 0.5, 0.25, -1))


@st.composite
def programs(draw: Any) -> list[tuple[Any, ...]]:
    words = ("shift", "pad", "add", "sub", "scale", "write", "mix", "roll", "stack")
    return draw(st.lists(st.tuples(st.sampled_from(words), st.integers(0, T - 1), FACTORS), min_size=1, max_size=6))


def follow(x: Any, program: list[tuple[Any, ...]]) -> Any:
    y = x
    for word, steps, factor in program:
        if word == "shift":
            y = torch.cat([torch.zeros_like(y[:steps]), y[: T - steps]])
        elif word == "pad":
            y = cropped(y, steps)
        elif word == "add":
            y = y + factor * x
        elif word == "sub":
            y = x - y
        elif word == "scale":
            y = y * factor
        elif word == "write":
            y = y.clone()
            y[steps:] += factor * x[: T - steps]
        elif word == "mix":
            y = torch.einsum("ts,sbchw->tbchw", torch.eye(T) * factor, y)
        elif word == "roll":
            y = torch.roll(y, steps, 0)
            y[:steps] = 0
        else:
            y = torch.stack([y[step] * factor for step in range(T)])
    return y


@settings(max_examples=30)
@given(programs(), st.booleans())
def test_any_arithmetic_of_time_steps_is_right(program: list[tuple[Any, ...]], synapses: bool) -> None:
    """Each step hears itself and earlier ones alone, so that nothing is refused."""
    with torch.no_grad():
        silent = not follow(torch.eye(T).view(T, 1, T, 1, 1), program).any()
    work: Work = on_channels if synapses else lambda m, x: x
    assume(not silent)
    compared(lambda m, s, t: work(m, follow(s, program)), line=LINE)


def test_sizes() -> None:
    """No size tells what an axis is: there are as many time steps as rows, as many channels as positions."""
    assert (T, C) == (H, H * W)
