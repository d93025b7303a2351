"""The dense form of every layer against the dense definitions of tests/reference, with options drawn at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from reference import (
    activation,
    adaptive_lif,
    attention,
    gating,
    global_context,
    integers,
    layer_norm,
    neurons,
    normalization,
    over_time,
    pooling,
    reshaping,
    residual,
    softmax_attention,
    synapses,
    table_attention,
    windowed_linear,
)

from eventsim import layers
from eventsim.layers import Layer
from eventsim.layers.dense import Memory
from eventsim.layers.neurons.spiking import EMITTED, RESETS
from eventsim.signals import SignalType, to_frames
from eventsim.testing.samples import random_signal

F = np.float32
Rng = np.random.Generator
Case = tuple[Layer, tuple[SignalType, ...], Callable[..., np.ndarray]]


def some(rng: Rng, *shape: int) -> np.ndarray:
    """Multiples of 1/16 between -1 and 1."""
    return (rng.integers(-16, 17, shape) / 16).astype(F)


def source(rng: Rng, *axes: int, kind: str = "real", channels: int | None = None) -> SignalType:
    grid = tuple(int(n) for n in rng.integers(3, 7, rng.choice(axes or (0, 1, 2))))
    return SignalType(kind, channels or int(rng.choice([2, 6])), grid, dense=kind == "real")


def as_tokens(x: np.ndarray) -> np.ndarray:
    return reshaping.tokens_from_map(x) if x.ndim == 4 else x if x.ndim == 3 else x[:, None]


def like(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Tokens y as the map, tokens or vector that x is, with the channels of y."""
    if x.ndim == 4:
        return y.swapaxes(1, 2).reshape(len(y), y.shape[2], *x.shape[2:])
    return y if x.ndim == 3 else y[:, 0]


def on_tokens(function: Callable[..., np.ndarray], **options: Any) -> Callable[..., np.ndarray]:
    return lambda x, *more: like(x, function(as_tokens(x), *map(as_tokens, more), **options))


def two(rng: Rng, low: int, high: int) -> tuple[int, int]:
    first, second = (int(n) for n in rng.integers(low, high, 2))
    return first, second


def conv2d(rng: Rng) -> Case:
    kind, groups = source(rng, 2), int(rng.choice([1, 2]))
    weight, bias = some(rng, 4, kind.channels // groups, *two(rng, 1, 3)), some(rng, 4)
    options = {"stride": two(rng, 1, 4), "padding": two(rng, 1, 3), "groups": groups, "dilation": two(rng, 1, 3)}
    layer = layers.Conv2d(weight, bias, **options)
    return layer, (kind,), lambda x: synapses.conv2d(x, weight, bias, **options)


def conv3d(rng: Rng) -> Case:
    kind, causal = source(rng, 2), bool(rng.integers(2))
    weight, bias = some(rng, 4, kind.channels // 2, 3, *two(rng, 1, 3)), some(rng, 4)
    options = {"stride": two(rng, 1, 3), "padding": two(rng, 0, 2), "groups": 2}
    layer = layers.Conv3d(weight, bias, time_padding="causal" if causal else "centred", **options)
    return layer, (kind,), lambda x: over_time.conv3d(x, weight, bias, causal=causal, **options)


def linear(rng: Rng) -> Case:
    kind = source(rng)
    weight, bias = some(rng, 5, kind.channels), some(rng, 5) if rng.integers(2) else None
    weight[rng.random(weight.shape) < 0.3] = 0
    layer = layers.Linear(weight, bias) if rng.integers(2) else layers.SparseLinear.from_matrix(weight, bias)
    return layer, (kind,), on_tokens(synapses.linear, weight=weight, bias=bias)


def windowed(rng: Rng) -> Case:
    kind = source(rng)
    weight, bias = some(rng, 6, kind.channels), some(rng, 6)
    options = {
        "window": (1, 4, 2) if rng.integers(2) else int(rng.integers(1, 5)),
        "exponent": (0, 2, 1) if rng.integers(2) else int(rng.integers(0, 3)),
        "decay": str(rng.choice(["geometric", "constant"])),
    }
    layer = layers.WindowedLinear(weight, bias, **options)
    return layer, (kind,), on_tokens(windowed_linear.windowed_linear, weight=weight, bias=bias, **options)


def neuron(rng: Rng) -> Case:
    kind = source(rng)
    threshold, other = rng.choice(np.array([0.25, 0.5, 1], F), kind.channels), some(rng, kind.channels)
    strict = bool(rng.integers(2))
    shared = {"reset": str(rng.choice(["zero", "subtract"])), "strict": strict}
    which = rng.integers(6)
    ours, theirs = {"v_threshold": threshold, **shared}, {"v_threshold": threshold, **shared}
    if which == 0:
        return layers.IF(**ours), (kind,), on_tokens(lambda x: neurons.if_neuron(x, **theirs)[0])
    if which == 1:
        more = {"tau": rng.choice(np.array([1, 1.7, 2, 3], F), kind.channels), "decay_input": bool(rng.integers(2))}
        return layers.LIF(**ours, **more), (kind,), on_tokens(lambda x: neurons.lif(x, **theirs, **more)[0])
    if which == 2:
        k = neurons.plif_factor(other)
        return layers.PLIF(w=other, **ours), (kind,), on_tokens(lambda x: neurons.plif(x, k, **theirs)[0])
    if which == 3:
        k = neurons.plif_factor(other)
        return layers.PLIAF(w=other, **ours), (kind,), on_tokens(lambda x: neurons.pliaf(x, k, **theirs)[0])
    more = {"start": np.abs(other), "v_min": some(rng, kind.channels) - 1}
    if which == 4:
        ours["strict"] = theirs["strict"] = False
        layer = layers.DecayLIF(decay=other, multiple_spikes=True, **ours, **more)
        return (
            layer,
            (kind,),
            on_tokens(lambda x: neurons.decay_lif(x, other, multiple_spikes=True, **theirs, **more)[0]),
        )
    ours["reset"] = theirs["reset"] = str(rng.choice(RESETS))
    return (
        layers.DecayLIF(decay=other, **ours, **more),
        (kind,),
        on_tokens(lambda x: neurons.decay_lif(x, other, **theirs, **more)[0]),
    )


def integer_conv2d(rng: Rng) -> Case:
    kind, groups = source(rng, 2, kind="graded"), int(rng.choice([1, 2]))
    weight = rng.integers(-127, 128, (4, kind.channels // groups, *two(rng, 1, 3))).astype(np.int8)
    options = {"stride": two(rng, 1, 4), "padding": two(rng, 1, 3), "groups": groups, "dilation": two(rng, 1, 3)}
    layer = layers.IntegerConv2d(weight, np.ones(4, F), 17, **options)
    return layer, (kind,), lambda x: integers.conv2d(x, weight, **options).astype(F)


def integer_linear(rng: Rng) -> Case:
    kind = source(rng, kind="graded")
    weight = rng.integers(-127, 128, (5, kind.channels)).astype(np.int8)
    return layers.IntegerLinear(weight, np.ones(5, F), 17), (kind,), on_tokens(integers.linear, weight=weight)


def integer_conv3d(rng: Rng) -> Case:
    kind, groups, causal = source(rng, 2, kind="graded"), int(rng.choice([1, 2])), bool(rng.integers(2))
    weight = rng.integers(-127, 128, (4, kind.channels // groups, 3, *two(rng, 1, 3))).astype(np.int8)
    options = {"stride": two(rng, 1, 4), "padding": two(rng, 1, 3), "groups": groups}
    layer = layers.IntegerConv3d(weight, np.ones(4, F), 17, **options, time_padding="causal" if causal else "centred")
    return layer, (kind,), lambda x: integers.conv3d(x, weight, causal=causal, **options).astype(F)


def integer_windowed(rng: Rng) -> Case:
    kind, decay = source(rng, kind="graded"), str(rng.choice(["geometric", "constant"]))
    weight = rng.integers(-127, 128, (6, kind.channels)).astype(np.int8)
    window, exponent = (tuple(int(n) for n in rng.integers(low, 4, int(rng.choice([1, 2, 3])))) for low in (1, 0))
    layer = layers.IntegerWindowedLinear(weight, np.ones(6, F), 17, window, exponent, decay)  # type: ignore[arg-type]
    of_each = [[int(n) for n in np.repeat(values, 6 // len(values))] for values in (window, exponent)]
    expected = on_tokens(lambda x: integers.windowed_linear(x, weight, of_each[0], of_each[1], decay).astype(F))
    return layer, (kind,), expected


def integer_residual(rng: Rng) -> Case:
    kind = source(rng, kind="graded")
    factors = rng.integers(1, 500, (2, kind.channels))
    return (
        layers.IntegerResidual(factors),
        (kind, kind),
        on_tokens(lambda a, b: integers.joined(a, b, factors).astype(F)),
    )


def integer_neuron(rng: Rng) -> Case:
    kind = source(rng)
    threshold, bias = rng.integers(0, 40, kind.channels), rng.integers(-9, 10, kind.channels)
    leak = int(rng.choice([0, 1 << 14, 1 << 13, 9999])) if rng.integers(2) else rng.integers(1, 32769, kind.channels)
    shared = {
        "input_leaks": bool(rng.integers(2)),
        "fraction": int(rng.integers(0, 9)),
        "strict": bool(rng.integers(2)),
    }
    subtract = bool(rng.integers(2))
    reset = "subtract" if subtract else "zero"
    layer = layers.IntegerLIF(threshold, 99, bias=bias, leak=leak, reset=reset, **shared)
    return (
        layer,
        (kind,),
        on_tokens(lambda x: integers.lif(np.rint(x), threshold, bias, leak, subtract=subtract, **shared)[0].astype(F)),
    )


def potentials(rng: Rng) -> Case:
    kind, emits = source(rng), int(rng.integers(1, 3))
    decay, threshold = some(rng, kind.channels), rng.choice(np.array([0.25, 0.5, 1], F), kind.channels)
    reset, floor = str(rng.choice(RESETS)), some(rng, kind.channels) - 1
    layer = layers.DecayLIF(threshold, reset, decay=decay, v_min=floor, emits=EMITTED[emits])

    def expected(x: np.ndarray) -> np.ndarray:
        return neurons.neuron_states(x, lambda v, x_t: v * decay + x_t, threshold, reset, False, v_min=floor)[emits]

    return layer, (kind,), on_tokens(expected)


def adaptive(rng: Rng) -> Case:
    kind = source(rng, 1, 2)
    c = kind.channels
    steps, per_term = int(rng.choice([1, 5])), int(rng.choice([1, c]))
    retention, gain = some(rng, steps, c, 1), some(rng, 1, 1, kind.positions)
    encodings = {"past_encoding": some(rng, 5, c, 1), "potential_encoding": some(rng, 1, c, kind.positions)}
    gates = per_term * int(rng.choice([1, 2]))
    arrays = some(rng, steps, 3, 2 * c), some(rng, steps, 3), some(rng, steps, gates, 3), some(rng, steps, gates)
    attend = None if rng.integers(2) else adaptive_lif.StepAttention(*arrays)
    shared = {
        "reset": str(rng.choice(["zero", "subtract"])),
        "strict": bool(rng.integers(2)),
        "v_threshold": 0.3,
        "gate_inputs": str(rng.choice(["terms", "features"])),
    }
    scalar = attend is not None and per_term == 1
    layer = layers.AdaptiveLIF(
        retention, gain, *(arrays if attend else ()), **shared, **encodings, gate_scale=2.0, scalar_gates=scalar
    )
    turned = {name: array.swapaxes(1, 2) for name, array in encodings.items()}
    m, n = retention.swapaxes(1, 2), gain.swapaxes(1, 2)
    return (
        layer,
        (kind,),
        on_tokens(lambda x: adaptive_lif.adaptive_lif(x, m, n, attend, scalar=scalar, **shared, **turned)[0]),
    )


def leaky_integrator(rng: Rng) -> Case:
    kind = source(rng)
    decay, start = some(rng, kind.channels), some(rng, kind.channels)
    return (
        layers.LeakyIntegrator(decay, start),
        (kind,),
        on_tokens(lambda x: neurons.leaky_integrator(x, decay, start)),
    )


def without_memory(rng: Rng) -> Case:
    kind = source(rng)
    if rng.integers(2):
        maximum, ties = int(rng.integers(1, 4)), str(rng.choice(["even", "up"]))
        layer: Layer = layers.IntegerActivation(maximum, ties)
        return layer, (kind,), lambda x: neurons.integer_activation(x, maximum, ties)
    if rng.integers(2):
        least, most = sorted(some(rng, 2).tolist())
        limits = [(least, None), (None, most), (least, most)][rng.integers(3)]
        layer = layers.Activation("clamp", *limits)
        return layer, (kind,), lambda x: activation.activation(x, "clamp", *limits)
    threshold = some(rng, *kind.shape)
    strict = bool(rng.integers(2))
    compare = np.greater if strict else np.greater_equal
    return layers.Threshold(threshold, strict), (kind,), lambda x: compare(x, threshold).astype(F)


def max_pool(rng: Rng) -> Case:
    kernel, dilation, ceil = two(rng, 1, 4), two(rng, 1, 3), bool(rng.integers(2))
    padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
    stride, kind = two(rng, 1, 3), SignalType("real", 3, (7, 8), dense=True)
    layer = layers.MaxPool2d(kernel, stride, padding, dilation, ceil)
    return layer, (kind,), lambda x: pooling.maxpool2d(x, kernel, stride, padding, dilation, ceil)


def pool(rng: Rng) -> Case:
    kernel, stride = two(rng, 1, 4), two(rng, 1, 4)
    padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
    kind = SignalType("real", 3, (6, 7), dense=True)
    if rng.integers(2):
        return (
            layers.SumPool2d(kernel, stride, padding),
            (kind,),
            lambda x: pooling.sumpool2d(x, kernel, stride, padding),
        )
    options = {"count_include_pad": bool(rng.integers(2)), "ceil_mode": bool(rng.integers(2))}
    layer = layers.AvgPool2d(kernel, stride, padding, **options)
    return layer, (kind,), lambda x: pooling.avgpool2d(x, kernel, stride, padding, **options)


def adaptive_pool(rng: Rng) -> Case:
    kind, size = source(rng, 2), two(rng, 1, 8)
    if rng.integers(2):
        return layers.AdaptiveMaxPool2d(size), (kind,), lambda x: pooling.adaptive_max_pool2d(x, size)
    return layers.AdaptiveAvgPool2d(size), (kind,), lambda x: pooling.adaptive_avg_pool2d(x, size)


def sums(rng: Rng) -> Case:
    kind = source(rng)
    groups = int(rng.choice([1, 2]))
    on_grid = source(rng, 1, 2)
    cases: list[Case] = [
        (layers.SumOverChannels(groups), (kind,), on_tokens(reshaping.sum_over_channels, groups=groups)),
        (layers.SumOverPositions(), (on_grid,), reshaping.sum_over_positions),
        (layers.MeanOverPositions(), (on_grid,), reshaping.mean_over_positions),
        (layers.MeanOverTime(), (kind,), reshaping.mean_over_time),
        (layers.Readout("sum"), (source(rng, 0),), lambda x: np.cumsum(x, axis=0)),
        (layers.Readout(), (source(rng, 0),), lambda x: x),
    ]
    return cases[rng.integers(len(cases))]


def attention_pool(rng: Rng) -> Case:
    kind = source(rng, 1, 2)
    weight = some(rng, kind.channels)
    return layers.AttentionPool(weight), (kind,), lambda x: softmax_attention.attention_pool(as_tokens(x), weight)


def spiking(rng: Rng) -> Case:
    heads, kind = int(rng.choice([1, 2])), source(rng, 1, 2, kind=str(rng.choice(["binary", "graded"])), channels=6)
    if rng.integers(2):
        kind = SignalType("binary", 6, kind.grid)
        table = np.concatenate([np.zeros((heads, 1)), rng.integers(-3, 9, (heads, 6 // heads))], 1).astype(np.int32)
        expected = on_tokens(table_attention.table_attention, table=table, scale=0.25)
        return layers.TableAttention(table, 0.25), (kind,) * 3, expected
    order = str(rng.choice(["scores_first", "context_first"]))
    expected = on_tokens(attention.spiking_attention, heads=heads, scale=0.25)
    return layers.SpikingAttention(heads, 0.25, order), (kind,) * 3, expected


def softmax(rng: Rng) -> Case:
    heads, axis = int(rng.choice([1, 2])), str(rng.choice(["space", "time"]))
    kind, scale = source(rng, 1, 2, channels=12), [None, 0.3][rng.integers(2)]
    layer = layers.SoftmaxAttention(heads, axis, 5 if axis == "time" else None, scale)
    return layer, (kind,), on_tokens(softmax_attention.softmax_attention, heads=heads, axis=axis, scale=scale)


def context(rng: Rng) -> Case:
    kind = source(rng, 1, 2)
    c = kind.channels
    pairs = (some(rng, c), some(rng, 1)), (some(rng, 3, c), some(rng, 3)), (some(rng, c, 3), some(rng, c))
    norm = (some(rng, 3), some(rng, 3)) if rng.integers(2) else None
    options = {
        "normalisation": str(rng.choice(["softmax", "sigmoid"])),
        "combination": str(rng.choice(["additive", "gated"])),
    }
    layer = layers.GlobalContext(*pairs[0], *pairs[1], *pairs[2], *(norm or ()), **options)
    return layer, (kind,), on_tokens(lambda x: global_context.global_context(x, *pairs, norm, **options))


def scaling(rng: Rng) -> Case:
    kind = source(rng)
    c = kind.channels
    scale, shift, weight = some(rng, c), some(rng, c), some(rng, c)
    function = str(rng.choice(["relu", "sigmoid", "softmax"]))
    encoding = some(rng, int(rng.choice([1, 7])), c, 1)
    cases: list[Case] = [
        (
            layers.Affine(scale, shift),
            (kind,),
            on_tokens(lambda x: normalization.affine(x, scale, shift)),
        ),
        (layers.LayerNorm(weight, shift), (kind,), on_tokens(lambda x: layer_norm.layer_norm(x, weight, shift))),
        (layers.Activation(function), (kind,), on_tokens(lambda x: activation.activation(x, function))),
        (
            layers.PositionEncoding(encoding),
            (kind,),
            on_tokens(lambda x: x + np.broadcast_to(encoding, (7, c, 1))[: len(x)].swapaxes(1, 2)),
        ),
    ]
    return cases[rng.integers(len(cases))]


def joins(rng: Rng) -> Case:
    kind = source(rng, 1, 2, channels=6)
    mode = str(rng.choice(["iand", "and"]))
    spikes = SignalType("binary", 6, kind.grid)
    gate = SignalType("real", int(rng.choice([1, 2, 6])), (), dense=True)
    per_token = SignalType("real", int(rng.choice([1, 3, 6])), kind.grid, dense=True)
    gated = lambda g, x: like(x, gating.gate(as_tokens(g), as_tokens(x)))  # noqa: E731 - one line of a table
    cases: list[Case] = [
        (layers.Residual("add"), (kind, kind), lambda a, b: residual.residual(a, b, "add")),
        (layers.Residual(mode), (spikes, spikes), lambda a, b: residual.residual(a, b, mode)),
        (layers.Concat(), (kind, spikes), lambda a, b: like(a, np.concatenate([as_tokens(a), as_tokens(b)], axis=2))),
        (layers.Gate(), (gate, kind), gated),
        (layers.Gate(), (per_token, kind), gated),
    ]
    return cases[rng.integers(len(cases))]


def shapes(rng: Rng) -> Case:
    kind = source(rng, 1, 2, channels=6)
    indices = rng.integers(0, 6, 9)
    shape = (kind.size // 2, 2) if rng.integers(2) else (2, 3, kind.size // 6)
    places = rng.integers(-1, kind.size, 12)
    cases: list[Case] = [
        (layers.Flatten(), (kind,), reshaping.flatten),
        (layers.Rearrange(places, (2, 3, 2)), (kind,), lambda x: reshaping.rearrange(x, places, (2, 3, 2))),
        (layers.Rearrange(places, (4, 3)), (kind,), lambda x: reshaping.rearrange(x, places, (4, 3))),
        (layers.Reshape(shape), (kind,), lambda x: reshaping.flatten(x).reshape(len(x), *shape)),
        (layers.SelectChannels(indices), (kind,), on_tokens(reshaping.select_channels, indices=indices)),
    ]
    return cases[rng.integers(len(cases))]


def times(rng: Rng) -> Case:
    kind = source(rng)
    index, parts = two(rng, 0, 3)[0], 3
    steps = rng.integers(0, 4, kind.shape)
    cases: list[Case] = [
        (layers.DelayEach(steps), (kind,), lambda x: over_time.delay_each(x, steps)),
        (layers.SliceOverTime(index, parts), (kind,), lambda x: over_time.slice_over_time(x, index, parts)),
        (layers.CropOverTime(index, index + parts), (kind,), lambda x: over_time.crop_over_time(x, index, index + 3)),
        (layers.CropOverTime(index), (kind,), lambda x: over_time.crop_over_time(x, index, None)),
        (layers.JoinOverTime(), (kind,) * 3, lambda a, b, _: over_time.join_over_time(a, b)),
        (layers.TileOverTime(), (kind,) * 2, lambda a, b: over_time.tile_over_time(a, len(b))),
    ]
    return cases[rng.integers(len(cases))]


EXACT = (conv2d, conv3d, linear, windowed, neuron, leaky_integrator, without_memory, max_pool, pool, adaptive_pool)
EXACT += (
    integer_conv2d,
    integer_linear,
    integer_conv3d,
    integer_windowed,
    integer_residual,
    integer_neuron,
    potentials,
    sums,
    spiking,
    joins,
    shapes,
    times,
)
ROUNDED = (adaptive, attention_pool, softmax, context, scaling)


@pytest.mark.parametrize("case", [*EXACT, *ROUNDED], ids=lambda case: case.__name__)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_dense_form_equals_the_reference(case: Callable[[Rng], Case], seed: int) -> None:
    rng = np.random.default_rng(seed)
    layer, sources, expected = case(rng)
    sample = [to_frames(random_signal(kind, 5, rng)) for kind in sources]
    wanted = expected(*sample)
    found = layer.dense(tuple(sample), Memory())
    assert found.dtype == np.float32
    if case in EXACT:
        assert_array_equal(found, wanted)
    else:
        assert_allclose(found, wanted, rtol=2e-6, atol=2e-6)


def test_every_layer_is_compared() -> None:
    drawn = {type(case(np.random.default_rng(seed))[0]) for case in (*EXACT, *ROUNDED) for seed in range(60)}
    exported = {value for name in layers.__all__ if isinstance(value := getattr(layers, name), type)}
    assert {kind for kind in exported if issubclass(kind, Layer)} - drawn == {Layer, layers.Input}
