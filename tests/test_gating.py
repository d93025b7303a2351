"""Chosen channels, sums and gates: bit for bit against the reference, counts by brute force, and what they compose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from plain_rows import check, execute, signal_type
from reference.gating import gate, gate_counts
from reference.neurons import lif
from reference.pooling import maxpool2d
from reference.reshaping import rearrange, select_channels, sum_over_channels, sum_over_positions
from strategies import activity, randoms

from eventsim import NetworkBuilder, Simulator, load, save
from eventsim.layers import (
    LIF,
    Flatten,
    Gate,
    Input,
    IntegerActivation,
    LayerError,
    MaxPool2d,
    Readout,
    Rearrange,
    Reshape,
    SelectChannels,
    SpikingAttention,
    SumOverChannels,
    SumOverPositions,
)

pytestmark = pytest.mark.kernels

F = np.float32
INPUTS = ("binary", "graded", "real", "sparse real")
inputs = pytest.mark.parametrize("kind", INPUTS)


def shapes(channels: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[int, ...]]:
    """Maps, tokens and vectors."""
    size = st.integers(1, 5)
    return st.tuples(channels, size, size) | st.tuples(st.integers(1, 6), channels) | st.tuples(channels)


@st.composite
def frames_of(draw, kind, shape, steps=None):
    """The type, and one to four frames."""
    steps = steps or draw(st.integers(1, 4))
    return signal_type(kind, shape), draw(activity(kind.removeprefix("sparse "), steps, *shape))


def as_tokens(frames: np.ndarray) -> np.ndarray:
    """(T, C, H, W), (T, N, C) or (T, C) as (T, N, C)."""
    last = np.moveaxis(frames, 1, -1) if frames.ndim == 4 else frames
    return last.reshape(len(last), -1, last.shape[-1])


# --- channels


@inputs
@given(data=st.data())
def test_select_channels(kind, data):
    """Slices, permutations, repetitions and whatever else, in any order."""
    source, x = data.draw(frames_of(kind, data.draw(shapes(st.integers(1, 12)))))
    rng, channels = data.draw(randoms()), source.channels
    indices = {
        "slice": np.arange(data.draw(st.integers(0, channels - 1)), channels, data.draw(st.integers(1, 3))),
        "permutation": rng.permutation(channels),
        "any": rng.integers(0, channels, data.draw(st.integers(1, 20))),
    }[data.draw(st.sampled_from(["slice", "permutation", "any"]))]
    layer = SelectChannels(indices.astype(data.draw(st.sampled_from([np.int32, np.int64, np.uint8]))))
    check(layer, [(source, x)], select_channels(x, indices))
    assert layer.output_type(source).kind == source.kind
    assert layer.parameters == layer.dense_macs(source) == 0


@inputs
@given(data=st.data())
def test_rearrange(kind, data):
    """Values anywhere, several times or not at all, in a shape of any number of axes, with zeros between them."""
    source, x = data.draw(frames_of(kind, data.draw(shapes(st.integers(1, 6)))))
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    size, rng = int(np.prod(shape)), data.draw(randoms())
    indices = {
        "permutation": rng.permutation(source.size),
        "any": rng.integers(-1, source.size, size),
        "zeros": np.full(size, -1),
    }[data.draw(st.sampled_from(["permutation", "any", "any", "zeros"]))]
    shape = shape if len(indices) == size else (len(indices),)
    layer = Rearrange(indices.astype(data.draw(st.sampled_from([np.int32, np.int64]))), shape)
    check(layer, [(source, x)], rearrange(x, indices, shape))
    assert (layer.output_type(source).kind, layer.output_type(source).dense) == (source.kind, source.dense)
    assert layer.parameters == layer.dense_macs(source) == 0


@inputs
@given(data=st.data())
def test_sum_over_channels(kind, data):
    groups, size = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    source, x = data.draw(frames_of(kind, data.draw(shapes(st.just(groups * size)))))
    additions = x.size if source.dense else np.count_nonzero(x)
    check(SumOverChannels(groups), [(source, x)], sum_over_channels(x, groups), additions=additions)
    assert SumOverChannels(groups).output_type(source).kind == ("real" if source.kind == "real" else "graded")


@inputs
@given(data=st.data())
def test_sum_over_positions(kind, data):
    source, x = data.draw(frames_of(kind, data.draw(shapes(st.integers(1, 12)))))
    additions = x.size if source.dense else np.count_nonzero(x)
    check(SumOverPositions(), [(source, x)], sum_over_positions(as_tokens(x)), additions=additions)
    assert SumOverPositions().output_type(source).kind == ("real" if source.kind == "real" else "graded")


def test_sums_do_not_depend_on_the_chunk():
    """Of values that are no short binary fractions: the order of additions is one and the same."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 9, 12)).astype(F)
    for kind in ("real", "sparse real"):
        for layer in (SumOverChannels(1), SumOverChannels(3), SumOverPositions()):
            whole, *parts = (execute(layer, [(signal_type(kind, (9, 12)), x)], chunk).frames for chunk in (4, 1, 3))
            for part in parts:
                assert_array_equal(part, whole)


# --- gates


@inputs
@pytest.mark.parametrize("gate_kind", INPUTS)
@given(data=st.data())
def test_gate(kind, gate_kind, data):
    """Equal shapes, a gate for each head, token, channel, or for all."""
    gates, size = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    shape = data.draw(shapes(st.just(gates * size)))
    source, x = data.draw(frames_of(kind, shape))
    gate_shape = (gates, *shape[1:]) if len(shape) == 3 else (*shape[:-1], gates)
    if data.draw(st.booleans()):
        gate_shape = data.draw(st.sampled_from([(gates,), (1, gates), (gates, 1, 1)]))
    gate_source, g = data.draw(frames_of(gate_kind, gate_shape, len(x)))
    y = gate(as_tokens(g), as_tokens(x))
    last = np.moveaxis(x, 1, -1).shape if x.ndim == 4 else x.shape
    expected = np.moveaxis(y.reshape(last), -1, 1) if x.ndim == 4 else y.reshape(last)
    kinds, dense = (gate_source.kind, source.kind), (gate_source.dense, source.dense)
    counted = gate_counts(as_tokens(g), as_tokens(x), kinds, dense)
    check(Gate(), [(gate_source, g), (source, x)], expected, **counted)
    declared = Gate().output_type(gate_source, source)
    assert declared.dense == all(dense)
    assert declared.kind == ("binary" if set(kinds) == {"binary"} else "real" if "real" in kinds else "graded")


def test_gates_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(
        LayerError, match=r"^gate binary 5x4 for binary 5x6 found; expected a divisor of the 6 channels"
    ):
        Gate().output_type(signal_type("binary", (5, 4)), signal_type("binary", (5, 6)))


def test_products_too_small_for_float32_are_not_listed():
    tiny, kind = np.full((1, 2), 1e-30, F), signal_type("sparse real", (2,))
    assert not execute(Gate(), [(kind, tiny), (kind, tiny)], 1).frames.any()
    assert not execute(Gate(), [(signal_type("real", (2,)), tiny), (kind, tiny)], 1).frames.any()


# --- what they compose


@given(data=st.data())
def test_channel_shuffle_and_heads(data):
    """(3, head, d) and (head, 3, d): q, k and v of one projection, whichever order it has."""
    heads, d, tokens = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    source, x = data.draw(frames_of("binary", (tokens, 3 * heads * d)))
    places = np.arange(3 * heads * d)
    for which in range(3):
        ordered = execute(SelectChannels(places.reshape(3, -1)[which]), [(source, x)], 2).frames
        assert_array_equal(ordered, x.reshape(len(x), tokens, 3, heads, d)[:, :, which].reshape(len(x), tokens, -1))
        interleaved = SelectChannels(places.reshape(heads, 3, d)[:, which].ravel())
        expected = x.reshape(len(x), tokens, heads, 3, d)[:, :, :, which].reshape(len(x), tokens, -1)
        assert_array_equal(execute(interleaved, [(source, x)], 2).frames, expected)


@given(data=st.data())
def test_spike_driven_self_attention(data):
    """q AND LIF(sum over tokens of k AND v), of Spike-driven Transformer V1."""
    steps, tokens, channels = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6)), data.draw(st.integers(1, 9))
    qkv = data.draw(activity("binary", steps, tokens, 3 * channels))
    build = NetworkBuilder("sdsa")
    x = build.add("input", Input((tokens, 3 * channels), "binary"))
    parts = np.split(np.arange(3 * channels), 3)
    q, k, v = (build.add(name, SelectChannels(part), x) for name, part in zip("qkv", parts, strict=True))
    kv = build.add("sum", SumOverPositions(), build.add("and", Gate(), k, v))
    y = build.add("gated", Gate(), build.add("lif", LIF(v_threshold=0.5), kv), q)
    build.add("readout", Readout(), build.add("flat", Flatten(), y))
    network = build.build()
    a, b, c = np.split(qkv, 3, axis=-1)
    fired, _ = lif((b * c).sum(axis=1), v_threshold=0.5)
    for chunk in (1, steps):
        result = Simulator(network, chunk=chunk, record=["gated"]).run(qkv)
        assert_array_equal(result.recorded["gated"], a * fired[:, None])
    comparisons = np.count_nonzero(b * c) + np.count_nonzero(a * fired[:, None])
    assert (result.totals.comparisons, result.totals.additions) == (comparisons, np.count_nonzero(b * c))


@given(data=st.data())
def test_token_mask_of_qkformer(data):
    """LIF(sum of q over the channels of a head) masks the tokens of k, head by head."""
    steps, tokens, heads, d = (data.draw(st.integers(1, 4)) for _ in range(4))
    kind = signal_type("binary", (tokens, heads * d))
    q, k = (data.draw(activity("binary", steps, tokens, heads * d)) for _ in range(2))
    summed = execute(SumOverChannels(heads), [(kind, q)], 1).frames
    fired, _ = lif(summed, v_threshold=0.5)
    masked = execute(Gate(), [(signal_type("binary", (tokens, heads)), fired), (kind, k)], 1).frames
    per_head = k.reshape(steps, tokens, heads, d) * fired[..., None]
    assert_array_equal(masked, per_head.reshape(k.shape))


@given(data=st.data())
def test_maximum_over_tokens_and_channels_of_a_head(data):
    """A permutation of a flattened signal brings any axes side by side: here maps of tokens x d, one for each head."""
    heads, tokens, d = (data.draw(st.integers(1, 4)) for _ in range(3))
    x = data.draw(activity("binary", 2, tokens, heads * d))
    places = np.arange(tokens * heads * d).reshape(tokens, heads, d).transpose(1, 0, 2)
    build = NetworkBuilder("pool")
    y = build.add("flat", Flatten(), build.add("input", Input((tokens, heads * d), "binary")))
    y = build.add("maps", Reshape((heads, tokens, d)), build.add("permuted", SelectChannels(places.ravel()), y))
    y = build.add("pool", MaxPool2d((3, 3), (1, 1), (1, 1)), y)
    y = build.add("back", SelectChannels(np.argsort(places.ravel())), build.add("flat_again", Flatten(), y))
    y = build.add("tokens", Reshape((tokens, heads * d)), y)
    build.add("readout", Readout(), build.add("end", Flatten(), y))
    recorded = Simulator(build.build(), record=["tokens"]).run(x).recorded["tokens"]
    maps = x.reshape(2, tokens, heads, d).transpose(0, 2, 1, 3)
    expected = maxpool2d(maps, (3, 3), (1, 1), (1, 1)).transpose(0, 2, 1, 3).reshape(x.shape)
    assert_array_equal(recorded, expected)


def test_a_network_of_them_is_saved_and_loaded(tmp_path: Path):
    build = NetworkBuilder("small")
    x = build.add("input", Input((5, 12), "real"))
    x = build.add("integers", IntegerActivation(2, "up"), x)
    q, k, v = (
        build.add(name, SelectChannels(np.arange(start, stop, dtype=np.int32)), x)
        for name, start, stop in (("q", 0, 2), ("k", 2, 4), ("v", 4, 12))
    )
    y = build.add("attention", SpikingAttention(2, 0.25), q, k, v)
    y = build.add("gated", Gate(), build.add("sums", SumOverChannels(2), k), y)
    build.add("readout", Readout(), build.add("sum", SumOverPositions(), y))
    network = build.build()
    save(network, tmp_path / "model.h5")
    loaded = load(tmp_path / "model.h5")
    frames = np.random.default_rng(0).normal(1, 1, (3, 5, 12)).astype(F)
    expected, result = Simulator(network).run(frames), Simulator(loaded).run(frames)
    assert expected.logits.any()
    assert_array_equal(result.logits, expected.logits)
    assert result.totals == expected.totals
    assert [repr(layer) for layer in loaded.layers.values()] == [repr(layer) for layer in network.layers.values()]
