"""Every operation that a PyTorch module may use, alone between neurons and a linear layer that tells all values apart.

There are as many tokens as channels, so that no size tells what an axis is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from torch_between import IMAGE, MAP, TOKENS, C, F, H, N, T, W, Work, compared, nn, operations_of, same
from torch_oracle import neuron, torch

from eventsim import InputError
from eventsim.layers import AttentionPool, SpikingAttention

from eventsim_importers.torch_program import axes  # isort: skip
from eventsim_importers.torch_program.operations import OPERATIONS  # isort: skip


# --- one entry of the table each

REARRANGED: dict[str, Work] = {
    "view": lambda m, s, t: s.view(T, 1, 2, 4, N).view(T, 1, C, N),
    "view_as": lambda m, s, t: s.view_as(torch.zeros(T, 1, C, N)),
    "reshape": lambda m, s, t: s.reshape(T, 1, 4, 2, H, W).transpose(2, 4).reshape(T, 1, 4, 2, C),
    "reshape_as": lambda m, s, t: s.transpose(2, 3).transpose(2, 3).reshape_as(torch.zeros(T, 1, C, N)),
    "flatten": lambda m, s, t: s.flatten(3),
    "unflatten": lambda m, s, t: s.unflatten(2, (2, -1)).flatten(2, 3),
    "ravel": lambda m, s, t: s.ravel().view(MAP),
    "squeeze": lambda m, s, t: s.squeeze(1).reshape(MAP),
    "squeeze_": lambda m, s, t: s.clone().squeeze_(1).reshape(MAP),
    "unsqueeze": lambda m, s, t: s.unsqueeze(2).flatten(2, 3),
    "unsqueeze_": lambda m, s, t: s.clone().unsqueeze_(-1).flatten(4),
    "atleast_1d": lambda m, s, t: torch.atleast_1d(s),
    "permute": lambda m, s, t: m.channels(s.permute(0, 1, 3, 4, 2)).permute(0, 1, 4, 2, 3),
    "transpose": lambda m, s, t: m.channels(s.flatten(3).transpose(2, 3)).mT,
    "transpose_": lambda m, s, t: m.channels(s.flatten(3).clone().transpose_(-1, -2)).mT,
    "swapaxes": lambda m, s, t: m.channels(s.flatten(3).swapaxes(2, 3)).mT,
    "swapdims": lambda m, s, t: m.channels(s.flatten(3).swapdims(-1, -2)).mT,
    "T": lambda m, s, t: s.reshape(T, C * N).T.T.reshape(MAP),
    "mT": lambda m, s, t: m.channels(s.flatten(3).mT).mT,
    "t": lambda m, s, t: s.reshape(T, C * N).t().t().reshape(MAP),
    "movedim": lambda m, s, t: m.channels(s.movedim(2, -1)).movedim(-1, 2),
    "moveaxis": lambda m, s, t: m.channels(torch.moveaxis(s, (3, 4), (2, 3))).moveaxis((2, 3), (-2, -1)),
    "data": lambda m, s, t: s.data,
    "real": lambda m, s, t: s.real,
    "dropout": lambda m, s, t: F.dropout(s, 0.5, False),
    "dropout1d": lambda m, s, t: F.dropout1d(s.reshape(T, C, N), 0.5, False).reshape(MAP),
    "dropout2d": lambda m, s, t: F.dropout2d(s.flatten(0, 1), 0.5, False).reshape(MAP),
    "dropout3d": lambda m, s, t: F.dropout3d(s, 0.5, False),
    "feature_dropout": lambda m, s, t: torch.feature_dropout(s, 0.5, False),
    "alpha_dropout": lambda m, s, t: F.alpha_dropout(s, 0.5, False),
}  # fmt: skip

PARTS: dict[str, Work] = {
    "__getitem__": lambda m, s, t: s[:, :, 2:7],
    "select": lambda m, s, t: s.unflatten(2, (2, 4)).select(3, 1),
    "unbind": lambda m, s, t: torch.cat(s.unflatten(2, (4, 2)).unbind(2)[::-1], 2),
    "narrow": lambda m, s, t: s.narrow(2, 3, 4),
    "chunk": lambda m, s, t: torch.cat(s.chunk(4, 2)[::-1], 2),
    "split": lambda m, s, t: s.split([3, 5], 2)[1],
    "tensor_split": lambda m, s, t: torch.cat(s.tensor_split(2, dim=2)[::-1], dim=2),
    "index_select": lambda m, s, t: s.index_select(3, torch.tensor([3, 0])),
    "roll": lambda m, s, t: torch.roll(s, (-1, 1), (3, 4)),
    "flip": lambda m, s, t: s.flip(3, 4),
    "pixel_shuffle": lambda m, s, t: F.pixel_shuffle(s, 2),
    "pixel_unshuffle": lambda m, s, t: F.pixel_unshuffle(s, 2),
    "interpolate": lambda m, s, t: each_step(s, F.interpolate, None, (2, 1)),
    "cat": lambda m, s, t: torch.cat((s, t, s[:, :, 1:3]), 2),
    "concat": lambda m, s, t: torch.concat((s.flatten(3), t.flatten(3)), dim=-2),
    "concatenate": lambda m, s, t: torch.concatenate((s.flatten(3).mT, t.flatten(3).mT), dim=-1).mT,
}

REPEATED: dict[str, Work] = {
    "repeat": lambda x: x.repeat(T, 1, 1, 1, 1),
    "expand": lambda x: x.unsqueeze(0).expand(T, -1, -1, -1, -1),
    "expand_as": lambda x: x.expand_as(torch.zeros(MAP)),
    "broadcast_to": lambda x: torch.broadcast_to(x, MAP),
    "tile": lambda x: x.tile((T, 1, 1, 1, 1)),
}

ARITHMETIC: dict[str, Work] = {
    "add": lambda m, s, t: torch.add(s, t),
    "add_": lambda m, s, t: s.clone().add_(t),
    "__add__": lambda m, s, t: s.__add__(t),
    "__radd__": lambda m, s, t: 2 + s,
    "__iadd__": lambda m, s, t: s.clone().__iadd__(t),
    "sub": lambda m, s, t: torch.sub(s, t),
    "sub_": lambda m, s, t: s.clone().sub_(t),
    "__sub__": lambda m, s, t: s.__sub__(0.25),
    "__isub__": lambda m, s, t: s.clone().__isub__(t),
    "rsub": lambda m, s, t: torch.rsub(s, 3),
    "__rsub__": lambda m, s, t: s * (1 - t),
    "subtract": lambda m, s, t: torch.subtract(s, t),
    "mul": lambda m, s, t: torch.mul(s, t),
    "mul_": lambda m, s, t: s.clone().mul_(t),
    "__mul__": lambda m, s, t: s.__mul__(0.5),
    "__rmul__": lambda m, s, t: 0.25 * s,
    "__imul__": lambda m, s, t: s.clone().__imul__(t),
    "multiply": lambda m, s, t: torch.multiply(s + t, t),
    "div": lambda m, s, t: torch.div(s, 4),
    "div_": lambda m, s, t: s.clone().div_(2),
    "__truediv__": lambda m, s, t: s.__truediv__(8),
    "__itruediv__": lambda m, s, t: s.clone().__itruediv__(torch.tensor(2.0)),
    "true_divide": lambda m, s, t: torch.true_divide(s, 2),
    "divide": lambda m, s, t: torch.divide(s, 0.5),
}


def turned_round(s: Any) -> Any:
    """The step before, and in the first step nothing."""
    y = torch.roll(s, 1, 0)
    y[0] = 0
    return y


STEPS: dict[str, Work] = {
    "roll": lambda m, s, t: s + turned_round(s),
    "__setitem__": lambda m, s, t: t + turned_round(s),
    "index_select": lambda m, s, t: torch.index_select(s, 0, torch.arange(T)) + t,
    "another type of float": lambda m, s, t: s.to(torch.float64).float() + t,
}

POOLS: dict[str, Work] = {
    "max_pool2d": lambda m, s, t: each_step(s + t, F.max_pool2d, 3, 2, 1),
    "avg_pool2d": lambda m, s, t: each_step(s, F.avg_pool2d, 2),
    "adaptive_avg_pool2d": lambda m, s, t: each_step(s, F.adaptive_avg_pool2d, (2, 1)),
    "adaptive_max_pool2d": lambda m, s, t: each_step(s + t, F.adaptive_max_pool2d, (2, None)),
    "avg_pool1d": lambda m, s, t: F.avg_pool1d(s.mean((3, 4)), 2),
    "mean": lambda m, s, t: s.mean((3, 4)),
    "sum": lambda m, s, t: s.flatten(3).sum(-1),
}

SYNAPSES: dict[str, tuple[Work, dict[str, Any]]] = {
    "conv1d": (lambda m, s, t: m.conv(s.reshape(T, C, N)).reshape(T, 1, 5, N), {"conv": nn.Conv1d(C, 5, 1)}),
    "conv2d": (lambda m, s, t: each_step(s, m.conv), {"conv": nn.Conv2d(C, 5, 3, padding=1)}),
    "conv3d": (
        lambda m, s, t: m.conv(s.permute(1, 2, 0, 3, 4)).permute(2, 0, 1, 3, 4),
        {"conv": nn.Conv3d(C, 5, 3, padding=1)},
    ),
    "pad": (
        lambda m, s, t: m.conv(F.pad(s.permute(1, 2, 0, 3, 4), (0, 0, 0, 0, 2, 0))).permute(2, 0, 1, 3, 4),
        {"conv": nn.Conv3d(C, 5, 3, padding=(0, 1, 1))},
    ),
    "linear": (lambda m, s, t: m.line(s.flatten(3).mT).mT, {"line": nn.Linear(C, 5)}),
    "batch_norm": (lambda m, s, t: each_step(s, m.norm), {"norm": nn.BatchNorm2d(C)}),
}


def each_step(x: Any, work: Work, *arguments: Any) -> Any:
    return work(x.flatten(0, 1), *arguments).unflatten(0, (T, 1))


SYNAPSES |= {
    "__setitem__": (lambda m, s, t: each_step(s, lambda x: m.conv(ringed(m.norm(x), m.ring))),
        {"conv": nn.Conv2d(C, 5, 3), "norm": nn.BatchNorm2d(C), "ring": torch.arange(C).view(C, 1, 1) / 8}),
    "instance_norm": (lambda m, s, t: each_step(s, m.norm),
        {"norm": nn.InstanceNorm2d(C, affine=True, track_running_stats=True)}),
}  # fmt: skip


def ringed(x: Any, values: Any) -> Any:
    """Return maps with a ring of numbers around them."""
    x = F.pad(x, (1, 1, 1, 1))
    x[:, :, 0], x[..., -1, :] = values[..., 0], values[..., 0]
    x[..., :1], x[..., -1] = values, values[..., 0]
    return x


LIMITED: dict[str, Work] = {
    "clamp": lambda x: x.clamp(-0.25, 0.5),
    "clamp_": lambda x: x.clamp_(max=0.5),
    "clip": lambda x: torch.clip(x, min=-0.25),
    "clip_": lambda x: x.clip_(0.125, 0.5),
    "clamp_min": lambda x: x.clamp_min(0.125),
    "clamp_min_": lambda x: x.clamp_min_(-0.125),
    "clamp_max": lambda x: x.clamp_max(0.125),
    "clamp_max_": lambda x: x.clamp_max_(-0.125),
    "relu6": lambda x: F.relu6(16 * x),
    "hardtanh": lambda x: F.hardtanh(4 * x) + F.hardtanh(x, -0.125, 0.25),
}

ROUNDED: dict[str, tuple[Work, dict[str, Any]]] = {
    "layer_norm": (lambda m, s, t: m.norm((s + t).flatten(3).mT).mT, {"norm": nn.LayerNorm(C)}),
    "relu": (lambda m, s, t: torch.relu(each_step(s, m.conv)), {"conv": nn.Conv2d(C, 5, 3)}),
    "relu_": (lambda m, s, t: each_step(s, m.conv).relu_(), {"conv": nn.Conv2d(C, 5, (3, 1))}),
    "sigmoid": (lambda m, s, t: torch.sigmoid(each_step(s, m.conv)), {"conv": nn.Conv2d(C, 5, 1)}),
    "sigmoid_": (lambda m, s, t: each_step(s, m.conv).sigmoid_(), {"conv": nn.Conv2d(C, 5, 1)}),
}
ROUNDED["relu"][1]["conv"] = nn.Conv2d(C, 5, (3, 2))


def heads(x: Any, count: int = 2) -> Any:
    """(T, 1, C, H, W) as (T, 1, heads, N, d)."""
    return x.flatten(3).unflatten(2, (count, -1)).mT


def merged(x: Any) -> Any:
    """And back as (T, 1, C, N)."""
    return x.mT.flatten(2, 3)


def sdpa(m: Any, s: Any, t: Any) -> Any:
    return merged(F.scaled_dot_product_attention(heads(s), heads(t), heads(s)))


def bmm(m: Any, s: Any, t: Any) -> Any:
    q, k = (x.reshape(T, C, N).mT for x in (s, t))
    return torch.bmm(torch.bmm(q, k.mT), q).mT.unsqueeze(1)


ATTENTION: dict[str, tuple[Work, bool]] = {
    "matmul": (lambda m, s, t: merged(torch.matmul(torch.matmul(heads(s), heads(t).mT), heads(t)) * 0.25), True),
    "__matmul__": (lambda m, s, t: merged(heads(s) @ (heads(t).mT @ heads(t))), True),
    "bmm": (bmm, True),
    "softmax": (lambda m, s, t: merged(torch.softmax(heads(s) @ heads(t).mT * 0.5, -1) @ heads(s)), False),
    "scaled_dot_product_attention": (sdpa, False),
}

CHANNELS = {"channels": nn.Linear(C, C)}
LINE = {"shape": (T, 1, C, 1, N)}
LINES: dict[str, Work] = {
    "max_pool1d": lambda m, s, t: on_lines(s, F.max_pool1d, 3, 2, 1),
    "avg_pool1d": lambda m, s, t: on_lines(s, F.avg_pool1d, 2),
    "adaptive_avg_pool1d": lambda m, s, t: on_lines(s, F.adaptive_avg_pool1d, 4),
    "adaptive_max_pool1d": lambda m, s, t: on_lines(s, F.adaptive_max_pool1d, 3),
}
NEGATIVE: dict[str, Work] = {"neg": torch.neg, "negative": torch.negative, "__neg__": lambda s: s.__neg__()}


def on_lines(x: Any, pool: Any, *arguments: int) -> Any:
    return pool(x.reshape(T, C, N), *arguments).unsqueeze(1)


def by_letters(s: Any, t: Any) -> Any:
    """Queries of s, keys and values of t, in two heads."""
    q, k, v = (x.unflatten(3, (2, 4)) for x in (s, t, t))  # [T, 1, N, 2, 4]
    scores = torch.einsum("tbihd,tbjhd->tbhij", q, k) * 0.25
    return torch.einsum("tbhij,tbjhd->tbihd", scores, v).flatten(3)


class Surrogate(torch.autograd.Function):
    """Fires above 0.25."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return (x > 0.25).float()


CASES: dict[str, dict[str, Any]] = {
    **{name: {"work": work, **CHANNELS} for name, work in REARRANGED.items()},
    **{name: {"work": work} for name, work in (PARTS | ARITHMETIC | STEPS | POOLS).items()},
    **{name: {"work": lambda m, s, t: s, "before": work, "shape": IMAGE} for name, work in REPEATED.items()},
    **{name: {"work": work, **parts} for name, (work, parts) in SYNAPSES.items()},
    **{name: {"work": work, "exact": False, **parts} for name, (work, parts) in ROUNDED.items()},
    **{name: {"work": work, "exact": exact} for name, (work, exact) in ATTENTION.items()},
    **{
        name: {"work": lambda m, s, t, way=way: way(each_step(s, m.conv)), "conv": nn.Conv2d(C, 5, 3, padding=1)}
        for name, way in LIMITED.items()
    },
    **{name: {"work": work, **LINE} for name, work in LINES.items()},
    **{name: {"work": lambda m, s, t, way=way: way(s) + 0.5 * t} for name, way in NEGATIVE.items()},
    "einsum": {"work": lambda m, s, t: by_letters(s, t), "shape": TOKENS},
    "stack": {"work": lambda m, s, t: s, "before": lambda x: torch.stack([x] * T), "shape": IMAGE},
    "neuron": {"work": lambda m, s, t: s},
    "fire": {"work": lambda m, s, t: Surrogate.apply(s - 0.5 * t)},
    "bool": {"work": lambda m, s, t: s.bool().float() + t},
    "__invert__": {"work": lambda m, s, t: (~(s + t > 1)).float()},
    "logical_not": {"work": lambda m, s, t: s.logical_not().float() * t},
}
SPELLED = {
    "__neg__": "neg", "__add__": "add", "__radd__": "add", "__iadd__": "add_", "__sub__": "sub", "__isub__": "sub_",
    "__mul__": "mul", "__rmul__": "mul", "__imul__": "mul_", "__truediv__": "div", "__itruediv__": "div_",
    "__matmul__": "matmul",
}  # fmt: skip
"""What PyTorch calls these operators; its releases differ."""
IN_LOOPS = {
    "one time step",
    "stack over time",
    "sum over time",
    "leaky sum",
    "last step",
    "some time steps",
}  # see test_torch_loops
WRITTEN = {"global context"}  # see test_torch_contexts
REFUSED: dict[str, Work] = {
    "__rtruediv__": lambda m, s, t: 1 / s,
    "__rdiv__": lambda m, s, t: s.__rdiv__(2),
    "group_norm": lambda m, s, t: F.group_norm(s[:, 0], 2),
}


def test_that_every_operation_has_a_case() -> None:
    assert OPERATIONS.keys() == CASES.keys() | IN_LOOPS | WRITTEN | REFUSED.keys()


@pytest.mark.parametrize("name", CASES)
def test_each_operation(name: str) -> None:
    case = dict(CASES[name])
    exact = case.pop("exact", True)
    work, shape, before = case.pop("work"), case.pop("shape", MAP), case.pop("before", same)
    assert operations_of(work, shape, before, case) & {name, SPELLED.get(name)}
    compared(work, shape, before=before, exact=exact, **case)


@pytest.mark.parametrize("name", REFUSED)
def test_operations_that_have_no_layer(name: str) -> None:
    with pytest.raises(InputError, match=r"^module itself: \S+: .* found; expected .*"):
        compared(REFUSED[name])


# --- their options


@settings(max_examples=10)
@given(st.data())
def test_convolutions(data: st.DataObject) -> None:
    draw = data.draw
    size = draw(st.tuples(st.integers(1, 3), st.integers(1, 2)))
    padding = draw(st.sampled_from(((0, 0), (1, 1), (2, 1), "same", "valid")))
    if padding == "same":
        size, stride = (3, 1), 1
    else:
        stride = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    groups = draw(st.sampled_from((1, 2, 8)))
    conv = nn.Conv2d(C, 8, size, stride, padding, draw(st.sampled_from((1, (2, 1)))), groups, bias=draw(st.booleans()))
    assume(padding == "same" or H + 2 * (padding[0] if padding != "valid" else 0) > conv.dilation[0] * (size[0] - 1))
    compared(lambda m, s, t: each_step(s, m.conv), conv=conv, seed=draw(st.integers(0, 99)))


@settings(max_examples=10)
@given(st.data())
def test_convolutions_over_a_line(data: st.DataObject) -> None:
    draw = data.draw
    size, stride, padding, dilation = (draw(st.integers(least, 2)) for least in (2, 1, 0, 1))
    conv = nn.Conv1d(6, 4, size, stride, padding, dilation, draw(st.sampled_from((1, 2))))
    compared(lambda m, s, t: m.conv(s[:, 0]).unsqueeze(1), (T, 1, 6, 8), conv=conv)


@settings(max_examples=10)
@given(st.data())
def test_pools(data: st.DataObject) -> None:
    draw = data.draw
    kernel = draw(st.sampled_from((2, (2, 1), (3, 2))))
    options: dict[str, Any] = {"padding": draw(st.sampled_from((0, 1) if kernel != (2, 1) else (0,)))}
    options["stride"] = draw(st.sampled_from((None, 1, (2, 1))))
    options["ceil_mode"] = draw(st.booleans())
    if draw(st.booleans()):
        pool = nn.MaxPool2d(kernel, **options)
    else:
        pool = nn.AvgPool2d(kernel, **options, count_include_pad=draw(st.booleans()))
    exact = isinstance(pool, nn.MaxPool2d)
    compared(lambda m, s, t: each_step(s + t, m.pool), exact=exact, pool=pool)


def with_eps(module: Any) -> Any:
    """Variance plus eps is 1."""
    for norm in module.modules():
        if hasattr(norm, "running_var"):
            norm.running_var.fill_(0.25)
            norm.eps = 0.75
    return module


NORMS: dict[str, tuple[Work, dict[str, Any], set[str]]] = {
    "convolution": (
        lambda m, s, t: m.norm(m.conv(s.flatten(0, 1))).unflatten(0, (T, 1)),
        {"conv": nn.Conv2d(C, 5, 3, padding=1), "norm": nn.BatchNorm2d(5)},
        {"norm"},
    ),
    "tokens": (
        lambda m, s, t: m.norm(m.line(s.flatten(3).mT).mT.flatten(0, 1)).unflatten(0, (T, 1)),
        {"line": nn.Linear(C, 5), "norm": nn.BatchNorm1d(5)},
        {"norm"},
    ),
    "pointwise": (
        lambda m, s, t: m.norm(m.conv(s.flatten(3)[:, 0])).unsqueeze(1),
        {"conv": nn.Conv1d(C, 5, 1, bias=False), "norm": nn.BatchNorm1d(5)},
        {"norm"},
    ),
    "no gain": (
        lambda m, s, t: m.norm(m.conv(s.flatten(0, 1))).unflatten(0, (T, 1)),
        {"conv": nn.Conv2d(C, 5, 1), "norm": nn.BatchNorm2d(5)},
        {"norm"},
    ),
    "read twice": (
        lambda m, s, t: (m.norm(y := m.conv(s.flatten(0, 1))) + y).unflatten(0, (T, 1)),
        {"conv": nn.Conv2d(C, 5, 1), "norm": nn.BatchNorm2d(5)},
        set(),
    ),
    "of spikes": (lambda m, s, t: each_step(s, m.norm), {"norm": nn.BatchNorm2d(C)}, set()),
}


@pytest.mark.parametrize("fold_bn", [True, False])
@pytest.mark.parametrize("name", NORMS)
def test_normalisations_are_folded_where_nothing_else_reads(name: str, fold_bn: bool) -> None:
    work, parts, folded = NORMS[name]

    def tune(module: Any) -> Any:
        if name == "no gain":
            module.norm.weight = module.norm.bias = None
        return with_eps(module)

    network = compared(work, fold_bn=fold_bn, tune=tune, **parts)
    assert {"norm"} - set(network.layers) == (folded if fold_bn else set())


# --- axes

ORDERS = ("3hd", "h3d", "hd3", "chunk", "select")


def three(x: Any, order: str, count: int) -> list[Any]:
    """Queries, keys and values (T, 1, heads, N, d) of (T, 1, N, 3 C)."""
    if order == "3hd":
        return list(x.reshape(T, 1, N, 3, count, -1).permute(3, 0, 1, 4, 2, 5))
    if order == "h3d":
        return [each.transpose(2, 3) for each in x.unflatten(3, (count, 3, -1)).unbind(4)]
    if order == "hd3":
        x = x.reshape(T, 1, N, count, C // count, 3).transpose(2, 3)
        return [x[..., 0], x[..., 1], x[..., 2]]
    if order == "chunk":
        return [each.unflatten(3, (count, -1)).transpose(2, 3) for each in x.chunk(3, dim=-1)]
    x = x.mT.unflatten(2, (3, count, -1))  # (T, 1, 3, heads, d, N)
    return [x.select(2, index).mT for index in range(3)]


FORMS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "scores first": lambda q, k, v: ((q @ k.mT) * 0.5) @ v,
    "context first": lambda q, k, v: q @ ((k.mT @ v) / 2),
    "scores transposed": lambda q, k, v: (v.mT @ ((k @ q.mT) * 0.5)).mT,
    "context transposed": lambda q, k, v: ((v.mT @ k * 0.5) @ q.mT).mT,
    "scaled behind": lambda q, k, v: (q @ k.mT) @ v * 0.5,
}


class Qkv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(C, 3 * C)
        self.fire = neuron.IFNode(step_mode="m")

    def forward(self, x: Any) -> Any:
        return self.fire(self.line(x))


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("order", ORDERS)
def test_heads_in_any_order(order: str, count: int) -> None:
    for form in FORMS.values():
        compared(
            lambda m, s, t, form=form: form(*three(m.qkv(s), order, count)).transpose(2, 3).flatten(3),
            TOKENS,
            qkv=Qkv(),
        )


@pytest.mark.parametrize("form", FORMS)
def test_attention_in_any_order(form: str) -> None:
    network = compared(lambda m, s, t: FORMS[form](*three(m.qkv(s), "3hd", 2)).mT, TOKENS, qkv=Qkv())
    (layer,) = (each for each in network.layers.values() if isinstance(each, SpikingAttention))
    assert layer.order == ("context_first" if "context" in form else "scores_first")
    assert layer.scale == 0.5


GATES: dict[str, Work] = {
    "channels": lambda m, s, t: m.fire(s.flatten(3).sum(-1, keepdim=True)) * t.flatten(3),
    "channels of a map": lambda m, s, t: t * m.fire(s.sum((3, 4), keepdim=True) * 0.25),
    "tokens": lambda m, s, t: m.fire(s.flatten(3).sum(2, keepdim=True) * 0.25) * t.flatten(3),
    "heads": lambda m, s, t: m.fire(heads(s).mT.sum(3, keepdim=True) * 0.5) * heads(t).mT,
    "key by value": lambda m, s, t: heads(s).mul(m.fire(heads(s).mul(heads(t)).sum(-2, keepdim=True))),
}


@pytest.mark.parametrize("name", GATES)
def test_gates(name: str) -> None:
    compared(GATES[name], fire=neuron.IFNode(step_mode="m"))


REDUCED: dict[str, Work] = {
    "map": lambda x: x.mean((3, 4)),
    "map kept": lambda x: x.sum((-1, -2), keepdim=True),
    "channels": lambda x: x.sum(2),
    "mean of channels": lambda x: x.mean(2, keepdim=True),
    "of heads": lambda x: x.unflatten(2, (2, 4)).sum(3),
    "mean of heads": lambda x: x.unflatten(2, (4, 2)).mean(3),
    "time": lambda x: x.mean(0),
    "sum of time": lambda x: x.sum(0),
    "time and map": lambda x: x.mean((0, 3, 4)),
    "channels and map": lambda x: x.sum((2, 3, 4), keepdim=True) * 1.5,
}


@pytest.mark.parametrize("name", [name for name in REDUCED if name != "channels and map"])
def test_reductions(name: str) -> None:
    compared(lambda m, s, t: REDUCED[name](s + t))


def rearranged(draw: Any, x: Any) -> list[tuple[str, Any]]:
    """Steps that rearrange (T, 1, ...) behind its first two axes, as a list that `follow` takes."""
    steps = []
    shape = list(x)
    for _ in range(draw(st.integers(1, 4))):
        word = draw(st.sampled_from(("permute", "split", "join", "flip")))
        if word == "permute":
            order = draw(st.permutations(range(len(shape))))
            steps.append(("permute", order))
            shape = [shape[axis] for axis in order]
        elif word == "split" and len(shape) < 5:
            axis = draw(st.integers(0, len(shape) - 1))
            if shape[axis] % 2 == 0:
                steps.append(("split", axis))
                shape[axis : axis + 1] = [2, shape[axis] // 2]
        elif word == "join" and len(shape) > 1:
            axis = draw(st.integers(0, len(shape) - 2))
            steps.append(("join", axis))
            shape[axis : axis + 2] = [shape[axis] * shape[axis + 1]]
        elif word == "flip":
            steps.append(("flip", draw(st.permutations(range(2)))))
    return steps


def follow(steps: list[tuple[str, Any]], x: Any) -> Any:
    for word, what in steps:
        if word == "permute":
            x = x.permute(0, 1, *(axis + 2 for axis in what))
        elif word == "split":
            x = x.unflatten(what + 2, (2, -1))
        elif word == "join":
            x = x.reshape(*x.shape[: what + 2], -1, *x.shape[what + 4 :])
        else:  # time and batch change places and back
            x = x.transpose(0, 1).transpose(*what)
    return x


@given(st.data())
def test_any_rearrangement_before_a_linear_layer(data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from((MAP, TOKENS, (T, 1, C))))
    steps = rearranged(data.draw, shape[2:])
    compared(lambda m, s, t: follow(steps, s), shape)


@given(st.data())
def test_a_reduction_of_any_rearrangement_is_right_or_refused(data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from((MAP, TOKENS)))
    steps = rearranged(data.draw, shape[2:])
    axes = data.draw(st.sets(st.integers(2, 4), min_size=1, max_size=2))
    word, keep = data.draw(st.sampled_from(("sum", "mean"))), data.draw(st.booleans())

    def work(m: Any, s: Any, t: Any) -> Any:
        x = follow(steps, s)
        return getattr(x, word)([axis for axis in axes if axis < x.ndim] or [x.ndim - 1], keepdim=keep)

    try:
        compared(work, shape)
    except InputError as error:
        assert re.fullmatch(r"module (itself|head): (sum|mean|linear): .* found; expected .*", str(error)), error


@given(st.data())
def test_a_part_of_any_rearrangement_is_right_or_refused(data: st.DataObject) -> None:
    steps = rearranged(data.draw, MAP[2:])
    axis, start = data.draw(st.integers(2, 6)), data.draw(st.integers(0, 3))
    stop = data.draw(st.integers(start + 1, 4))

    def work(m: Any, s: Any, t: Any) -> Any:
        x = follow(steps, s)
        at = min(axis, x.ndim - 1)
        return x[(slice(None),) * at + (slice(start % x.shape[at], stop),)] if stop > start % x.shape[at] else x

    try:
        compared(work)
    except InputError as error:
        assert re.fullmatch(r"module (itself|head): (__getitem__|linear): .* found; expected .*", str(error)), error


@given(st.data())
def test_a_sum_of_differently_arranged_signals_is_right_or_refused(data: st.DataObject) -> None:
    steps = rearranged(data.draw, MAP[2:])
    other = rearranged(data.draw, MAP[2:]) if data.draw(st.booleans()) else steps
    word = data.draw(st.sampled_from(("add", "mul", "sub")))

    def work(m: Any, s: Any, t: Any) -> Any:
        x, y = follow(steps, s), follow(other, t)
        y = y.reshape(x.shape) if y.numel() == x.numel() else y
        return getattr(x, word)(y)

    try:
        compared(work)
    except InputError as error:
        assert re.fullmatch(r"module itself: (add|mul|sub): .* found; expected .*", str(error)), error


@given(st.data())
def test_numbers_of_any_axes_are_added(data: st.DataObject) -> None:
    """Arrays that differ along some axes of a rearranged signal."""
    steps = rearranged(data.draw, MAP[2:])
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    word = data.draw(st.sampled_from(("add", "mul", "sub", "rsub")))
    shape = follow(steps, torch.zeros(MAP)).shape
    along = data.draw(st.lists(st.booleans(), min_size=len(shape) - 2, max_size=len(shape) - 2))
    shape = tuple(size if chosen else 1 for size, chosen in zip(shape[2:], along, strict=True))
    array = torch.from_numpy(rng.integers(1, 9, shape).astype(np.float32) / 8)
    array = array if word != "rsub" else array + 1

    def work(m: Any, s: Any, t: Any) -> Any:
        x = follow(steps, s)
        return m.array - x if word == "rsub" else getattr(x, word)(m.array)

    compared(work, array=array)


@pytest.mark.parametrize("shape", [(T, 1, C, H, W), (T, 1, 1, 1, W), (T, 1, C, 1, 1), (C, 1, 1)])
def test_numbers_that_differ_in_time_are_added(shape: tuple[int, ...]) -> None:
    array = torch.from_numpy(np.random.default_rng(0).integers(1, 9, shape).astype(np.float32) / 8)
    compared(lambda m, s, t: s + m.array, array=array)
    if shape[0] == T:
        with pytest.raises(InputError, match="module itself: mul: factors that differ in time found"):
            compared(lambda m, s, t: s * m.array, array=array)
    compared(lambda m, s, t: m.array - s, array=array)


def pooled(m: Any, s: Any, t: Any) -> Any:
    """Weights of all tokens of all time steps, by a softmax of a score each."""
    x = s.flatten(3).mT.squeeze(1).flatten(0, 1)  # (T N, C)
    return (m.score(x).softmax(0) * x).sum(0, keepdim=True)


def test_a_pool_by_a_softmax_over_positions_and_time() -> None:
    network = compared(pooled, exact=False, score=nn.Linear(C, 1))
    assert any(isinstance(layer, AttentionPool) for layer in network.layers.values())

    def other(m: Any, s: Any, t: Any) -> Any:
        return (m.score(s.flatten(3).mT.reshape(-1, C)).softmax(0) * t.flatten(3).mT.reshape(-1, C)).sum(0, True)

    with pytest.raises(InputError, match="times something else found; expected what it was made of"):
        compared(other, score=nn.Linear(C, 1))


def bmm_of(x: Any) -> Any:
    return merged((x @ x.mT) @ x)


def within(x: Any) -> Any:
    x[:, :, :, 1] = 2
    return x


BAD: dict[str, tuple[Work, str]] = {
    "uneven cut": (lambda m, s, t: s[:, :, :6].reshape(T, 1, 4, -1).flatten(2), "an axis of 6 cut into parts of 4"),
    "matrices": (lambda m, s, t: s.flatten(3) @ t.flatten(3), "module itself: matmul: a product of matrices along"),
    "scores alone": (lambda m, s, t: heads(s) @ heads(t).mT, "attention scores in another shape found"),
    "a factor behind softmax": (
        lambda m, s, t: ((heads(s) @ heads(t).mT).softmax(-1) * 2) @ heads(s), "a factor behind the softmax found"
    ),
    "softmax of queries": (lambda m, s, t: (heads(s) @ heads(t).mT).softmax(-2) @ heads(s), "over keys, found"),
    "half a pixel": (lambda m, s, t: each_step(s, F.interpolate, (6, 3)), r"a map of \(4, 2\) as \(6, 3\) found"),
    "bilinear": (lambda m, s, t: each_step(s, F.interpolate, None, 2, "bilinear"), "interpolation 'bilinear' found"),
    "own statistics": (
        lambda m, s, t: each_step(s, F.instance_norm), r"instance_norm: statistics of each input \(4, 8, 4, 2\) in"
    ),
    "inside of a map": (lambda m, s, t: within(F.pad(s, (1, 1))), "an assignment to the inside of a map found"),
    "assigned": (lambda m, s, t: within(s.clone()), "a part that is written into found"),
    "limits of arrays": (lambda m, s, t: s.clamp(torch.zeros(C, 1, 1), torch.ones(C, 1, 1)), "limits that are arrays"),
    "two lists": (lambda m, s, t: s[:, :, [0, 1], [1, 0]], "several indices that are tensors or lists found"),
    "index of spikes": (lambda m, s, t: s[:, :, t[0, 0, :2, 0, 0].long()], r"operation long on \(2,\) found"),
    "padded time and map": (lambda m, s, t: F.pad(s.movedim(0, -1), (1, 0, 1, 0)), "padding of time with other axes"),
    "time in a ring": (lambda m, s, t: F.pad(s[:, 0, :, 0].movedim(0, -1), (1, 1), "circular"), "padding of time with"),
    "tokens of ones": (lambda m, s, t: F.pad(s, (0, 0, 0, 0, 1, 1), value=1.0), "padding with 1.0 of another axis"),
    "rolled time and map": (lambda m, s, t: s.roll((1, 1), (0, 3)), "a part of time with positions or channels found"),
    "linear in time": (lambda m, s, t: F.linear(s.movedim(0, -1), torch.ones(T, T)), "a linear layer over time found"),
    "masked": (
        lambda m, s, t: F.scaled_dot_product_attention(heads(s), heads(t), heads(s), is_causal=True), "a mask found"
    ),
    "signal over signal": (lambda m, s, t: s / t, "a signal divided by a signal found"),
    "alpha": (lambda m, s, t: torch.add(s, t, alpha=2), "a factor alpha found"),
    "no operation": (lambda m, s, t: s.cumsum(0), r"operation cumsum on \(4, 1, 8, 4, 2\) found"),
    "padded time": (lambda m, s, t: F.pad(s.movedim(0, -1), (1, 0)).mean(0), "mean of padded time found"),
    "weights of three axes": (
        lambda m, s, t: s.flatten(3).mT @ torch.ones(1, C, 5), r"an array of shape \(1, 8, 5\) found; expected weights"
    ),
    "weights by letters": (
        lambda m, s, t: torch.einsum("tbchw,c->tbhw", s, torch.ones(C)), "of an array found; expected weights of two"
    ),
    "overlapping votes": (lambda m, s, t: F.avg_pool1d(s.mean((3, 4)), 4, 2), "windows of 4 every 2 over"),
    "group of a softmax": (lambda m, s, t: s.softmax(3), "a softmax over an axis of"),
}  # fmt: skip


def test_that_time_is_padded_on_both_sides_or_before() -> None:
    conv = nn.Conv3d(C, 5, 3, padding=(0, 1, 1))

    def behind(m: Any, s: Any, t: Any) -> Any:
        return m.conv(F.pad(s.permute(1, 2, 0, 3, 4), (0, 0, 0, 0, 0, 2))).permute(2, 0, 1, 3, 4)

    def both(m: Any, s: Any, t: Any) -> Any:
        return m.conv(F.pad(s.permute(1, 2, 0, 3, 4), (0, 0, 0, 0, 1, 1))).permute(2, 0, 1, 3, 4)

    compared(both, conv=conv)
    with pytest.raises(InputError, match=r"^module conv: conv3d: 0 steps before and 2 behind a kernel of 3 found; "):
        compared(behind, conv=conv)
    with pytest.raises(InputError, match=r"^module conv: conv3d: 1 steps before and 1 behind a kernel of 3 found; "):
        compared(
            lambda m, s, t: m.conv(s.permute(1, 2, 0, 3, 4)).permute(2, 0, 1, 3, 4),
            conv=nn.Conv3d(C, 5, 3, (2, 1, 1), 1),
        )


@pytest.mark.parametrize("name", BAD)
def test_what_has_no_layer_is_refused_by_name(name: str) -> None:
    work, words = BAD[name]
    with pytest.raises(InputError, match=words) as caught:
        compared(work)
    assert "\n" not in str(caught.value)
    assert "; expected " in str(caught.value)


# --- symbolic axes against an array that knows where each element lies

Axis = tuple[int, int, int]


def dims_of(time: int, positions: int, channels: int) -> axes.Dims:
    return (axes.whole("time", time), (), axes.whole("position", positions), axes.whole("channel", channels))


def places(dims: axes.Dims) -> np.ndarray:
    """Every element's time, position and channel."""
    found = np.zeros((*map(axes.size_of, dims), 3), int)
    for axis, dim in enumerate(dims):
        for which, of in enumerate(("time", "position", "channel")):
            steps = [atom.stride * np.arange(atom.size) * (atom.of == of) for atom in dim]
            along = sum(np.ix_(*steps), np.zeros((1,) * len(steps), int)).reshape(-1) if steps else np.zeros(1, int)
            found[..., which] += np.expand_dims(along, [at for at in range(len(dims)) if at != axis])
    return found


def factors(draw: Any, size: int) -> list[int]:
    shape = []
    while size > 1:
        part = draw(st.sampled_from([each for each in range(2, size + 1) if size % each == 0]))
        shape.append(part)
        size //= part
    for _ in range(draw(st.integers(0, 2))):
        shape.insert(draw(st.integers(0, len(shape))), 1)
    return shape


@given(st.data(), st.sampled_from(((4, 8, 16), (3, 6, 4), (1, 4, 6), (2, 1, 5))))
def test_symbolic_axes_follow_numpy(data: st.DataObject, sizes: Axis) -> None:
    dims = dims_of(*sizes)
    array = places(dims)
    assert array.reshape(-1, 3).max(0).tolist() == [size - 1 for size in sizes]
    for _ in range(data.draw(st.integers(1, 5))):
        if data.draw(st.booleans()):
            order = data.draw(st.permutations(range(len(dims))))
            dims = tuple(dims[axis] for axis in order)
            array = array.transpose(*order, len(order))
        else:
            shape = factors(data.draw, int(np.prod(array.shape[:-1])))
            try:
                dims = axes.reshaped(dims, shape)
            except axes.AxesError as error:
                assert sizes != (4, 8, 16), "powers of two always divide"
                assert "expected a divisor" in str(error)
                break
            array = array.reshape(*shape, 3)
        assert_array_equal(places(dims), array)
        for axis, dim in enumerate(dims):
            for which, of in enumerate(("time", "position", "channel")):
                first = array[(*(slice(None) if at == axis else 0 for at in range(len(dims))), which)]
                assert_array_equal(axes.index_along(dim, of), first)
            assert (axis in axes.find(dims, "channel")) == (np.ptp(array[..., 2], axis=axis).max() > 0)
    joint = axes.joined(*dims)
    assert_array_equal(places((joint,)).reshape(-1, 3), places(dims).reshape(-1, 3))


@given(st.data())
def test_axes_are_the_same_where_their_elements_are(data: st.DataObject) -> None:
    start = (*axes.grid_axes((2, 4)), axes.whole("channel", 4), axes.whole("time", 2))
    made = []
    for _ in range(2):
        order = data.draw(st.permutations(range(4)))
        dims = axes.reshaped(
            tuple(start[axis] for axis in order), data.draw(st.sampled_from(((8, 8), (4, 4, 4), (64,))))
        )
        made.append(axes.reshaped(dims, (8, 8)))
    assert axes.same(*made) == np.array_equal(*map(places, made))


def test_axes_of_a_grid() -> None:
    assert_array_equal(places(axes.grid_axes((3, 1, 4)))[..., 1], np.arange(12).reshape(3, 1, 4))
    with pytest.raises(axes.AxesError, match="expected as many values as there are"):
        axes.reshaped(axes.grid_axes((2, 2)), (2, 4))
