"""Real-valued primitives against the reference: sums of real numbers within a tolerance, everything else exactly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from plain_rows import check, chunks, execute, main, signal_type
from reference.activation import activation
from reference.layer_norm import layer_norm
from reference.neurons import pliaf
from reference.softmax_attention import attention_pool, softmax_attention
from strategies import activity, constants, randoms, thresholds, weights

from eventsim import InputError, NetworkBuilder, Simulator
from eventsim.layers import (
    PLIAF,
    Activation,
    AttentionPool,
    Flatten,
    Input,
    Layer,
    LayerError,
    LayerNorm,
    PositionEncoding,
    Readout,
    SoftmaxAttention,
)
from eventsim.ledger import Counts
from eventsim.signals import SignalType

F = np.float32
INPUTS = ("binary", "graded", "real", "sparse real")
inputs = pytest.mark.parametrize("kind", INPUTS)


def shapes(*channels: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Maps, tokens and vectors of one of these numbers of channels."""
    channels, positions = st.sampled_from(channels or range(1, 21)), st.integers(1, 5)
    return st.tuples(channels, positions, positions) | st.tuples(positions, channels) | st.tuples(channels)


@st.composite
def frames_of(draw, kind, shape):
    """The type, and one to five frames."""
    return signal_type(kind, shape), draw(activity(kind.removeprefix("sparse "), draw(st.integers(1, 5)), *shape))


@st.composite
def reals(draw, *shape: int) -> np.ndarray:
    return draw(randoms()).normal(size=shape).astype(F)


def as_tokens(frames: np.ndarray) -> np.ndarray:
    """(T, C, H, W), (T, N, C) or (T, C) as (T, N, C)."""
    last = np.moveaxis(frames, 1, -1) if frames.ndim == 4 else frames
    return last.reshape(len(last), -1, last.shape[-1])


def as_frames(tokens: np.ndarray, source: SignalType) -> np.ndarray:
    """(T, N, C) as frames on the grid of a type."""
    last = tokens.reshape(len(tokens), *source.grid, tokens.shape[-1])
    return np.moveaxis(last, -1, 1) if len(source.grid) == 2 else last


def check_close(
    layer: Layer,
    given: Sequence[tuple[SignalType, np.ndarray]],
    expected: np.ndarray,
    rtol: float = 1e-5,
    **counts: int,
) -> None:
    """Compare frames within a tolerance, and frames and counts of all chunk sizes exactly."""
    steps = len(given[0][1])
    ahead = layer.op(*(kind for kind, _ in given)).looks_ahead
    done = [execute(layer, given, chunk) for chunk in ((steps,) if ahead else chunks(steps))]
    assert_allclose(done[0].frames, expected, rtol=rtol, atol=2e-6)
    for other in done:
        assert_array_equal(other.frames, done[0].frames)
        assert main(other.counts) == Counts(**counts)


# --- activation functions


@inputs
@given(data=st.data())
def test_relu(kind, data):
    source, x = data.draw(frames_of(kind, data.draw(shapes())))
    comparisons = x.size if source.dense else np.count_nonzero(x)
    check(Activation("relu"), [(source, x)], activation(x, "relu"), comparisons=comparisons)
    assert Activation("relu").output_type(source) == source


@inputs
@given(data=st.data())
def test_clamp(kind, data):
    """Rows stay rows where zeros stay zeros, integers integers where the limits are whole."""
    source, x = data.draw(frames_of(kind, data.draw(shapes())))
    values = st.sampled_from([None, -1.0, -0.25, 0.0, 0.25, 1.0, 2.0])
    least, most = data.draw(st.tuples(values, values).filter(lambda pair: pair != (None, None)))
    if None not in (least, most) and least > most:
        least, most = most, least
    layer = Activation("clamp", least, most)
    emitted = layer.output_type(source)
    kept = (least is None or least <= 0) and (most is None or most >= 0)
    assert emitted.dense == (source.dense or not kept)
    whole = all(limit is None or limit == round(limit) for limit in (least, most))
    if source.kind != "real":
        below_one = most is not None and most < 1
        spikes = source.kind == "binary" and kept and not below_one
        assert emitted.kind == ("binary" if spikes else "graded" if whole and kept else "real")
    looked_at = (least is not None) + (most is not None)
    comparisons = looked_at * (x.size if emitted.dense else np.count_nonzero(x))
    check(layer, [(source, x)], activation(x, "clamp", least, most), comparisons=comparisons)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (Activation("clamp"), "limits None and None found; expected one or two for clamp, else none"),
        (Activation("relu", 0.0), "limits 0.0 and None found; expected one or two for clamp, else none"),
        (Activation("clamp", 1.0, 0.5), "limits 1.0 and 0.5 found; expected finite ones in their order"),
        (Activation("clamp", np.nan), "limits nan and None found; expected finite ones"),
    ],
)
def test_limits_that_are_none_are_refused(layer, words):
    with pytest.raises(LayerError, match=words):
        layer.output_type(signal_type("real", (2,)))


@pytest.mark.parametrize("function", ["sigmoid", "softmax"])
@inputs
@given(data=st.data())
def test_sigmoid_and_softmax(kind, function, data):
    source, x = data.draw(frames_of(kind, data.draw(shapes())))
    if kind == "real":
        x = x * data.draw(st.sampled_from([F(1), F(100)])) + data.draw(reals(*x.shape))
    expected = as_frames(activation(as_tokens(x), function), source)
    check_close(Activation(function), [(source, x)], expected)


def test_an_activation_function_that_is_none_is_refused():
    with pytest.raises(
        LayerError, match=r"^function 'gelu' found; expected one of \('relu', 'clamp', 'sigmoid', 'softmax'\)$"
    ):
        Activation("gelu").output_type(signal_type("real", (3,)))


# --- position encoding


@inputs
@given(data=st.data())
def test_position_encoding(kind, data):
    source, x = data.draw(frames_of(kind, data.draw(shapes())))
    axes = [
        data.draw(st.sampled_from(sizes)) for sizes in ((1, len(x), 6), (1, source.channels), (1, source.positions))
    ]
    encoding = data.draw(weights(*axes))
    added = as_tokens(x) + (encoding if len(encoding) == 1 else encoding[: len(x)]).swapaxes(1, 2)
    check(PositionEncoding(encoding), [(source, x)], as_frames(added, source), additions=x.size)


def test_position_encoding_begins_anew_with_every_sample():
    layer = PositionEncoding(np.arange(3, dtype=F).reshape(3, 1, 1))
    network = network_of(Input((2, 1, 1)), layer)
    simulator = Simulator(network, chunk=1, record=["layer"])
    frames = np.zeros((3, 2, 1, 1))
    for sample in (frames, frames[:2], frames):
        recorded = simulator.run(sample).recorded["layer"]
        assert_array_equal(recorded[:, 0, 0, 0], np.arange(len(sample)))
    static = Simulator(network, record=["layer"]).run(frames[0], 3).recorded["layer"]
    assert_array_equal(static[:, 0, 0, 0], [0, 1, 2])
    for step in range(3):
        assert simulator.step(frames[0]).recorded["layer"][0].tolist() == [[[step]], [[step]]]


def test_more_steps_than_the_encoding_has_are_refused():
    network = network_of(Input((2, 1, 1)), PositionEncoding(np.zeros((3, 1, 1), F)))
    with pytest.raises(
        InputError, match=r"^layer layer: 4 time steps found; the encoding has 3, import it for more st"
    ):
        Simulator(network, chunk=3).run(np.zeros((4, 2, 1, 1)))


def network_of(*layers: Layer):
    """Layers in a chain; the last is named "layer"."""
    build = NetworkBuilder("one layer")
    x = ""
    for index, layer in enumerate(layers):
        name = "layer" if index == len(layers) - 1 else f"before{index}"
        x = build.add(name, layer, *([x] if index else []))
    build.add("readout", Readout(), build.add("flat", Flatten(), x))
    return build.build(time_steps=3)


# --- neurons with analog output


@inputs
@given(data=st.data())
def test_pliaf(kind, data):
    source, x = data.draw(frames_of(kind, data.draw(shapes())))
    given, expected = data.draw(constants(thresholds(), source.shape))
    w, w_expected = data.draw(constants(st.sampled_from([0.0, 0.7, -1.3]), source.shape))
    reset, strict = data.draw(st.sampled_from(["zero", "subtract"])), data.draw(st.booleans())
    layer = PLIAF(v_threshold=given, reset=reset, strict=strict, w=w)
    k = (1 / (1 + np.exp(-np.float64(w_expected)))).astype(F)
    analog, _ = pliaf(x, k, expected, reset, strict)
    check(layer, [(source, x)], analog, neuron_updates=x.size)
    assert layer.neurons(source) == source.size
    assert layer.output_type(source) == SignalType("real", source.channels, source.grid, dense=False)


# --- layer normalisation


@inputs
@given(data=st.data())
def test_layer_norm(kind, data):
    source, x = data.draw(frames_of(kind, data.draw(shapes(*range(2, 41)))))
    if kind == "real":
        x = data.draw(reals(*x.shape)) * F(3) + F(1)
    weight, bias = data.draw(reals(source.channels)), data.draw(st.none() | reals(source.channels))
    eps = data.draw(st.sampled_from([1e-6, 1e-5, 0.5]))
    y = layer_norm(as_tokens(x), weight, bias, eps)
    offered = {"inputs": x.size, "nonzero_inputs": np.count_nonzero(x)}
    check_close(
        LayerNorm(weight, bias, eps), [(source, x)], as_frames(y, source), **offered, macs=2 * x.size, additions=x.size
    )
    assert LayerNorm(weight, bias).dense_macs(source) == 0


# --- attention


@inputs
@pytest.mark.parametrize("axis", ["space", "time"])
@given(data=st.data())
def test_softmax_attention(axis, kind, data):
    heads, size = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 7))
    source, x = data.draw(frames_of(kind, data.draw(shapes(3 * heads * size))))
    if kind == "real":
        x = data.draw(reals(*x.shape))
    steps, positions = len(x), source.positions
    scale = data.draw(st.sampled_from([None, 0.125, 1.0]))
    layer = SoftmaxAttention(heads, axis, steps if axis == "time" else None, scale)
    y = softmax_attention(as_tokens(x), heads, axis, scale)
    # a score is rounded by 2^-24 of itself, which the exponential makes an error of its weight
    largest = size * float(np.abs(x).max()) ** 2 * (size**-0.5 if scale is None else scale)
    rtol = 1e-5 + 4 * 2**-24 * largest
    pairs = steps * positions**2 if axis == "space" else positions * steps**2
    macs = 2 * pairs * heads * size
    offered = {"inputs": x.size, "nonzero_inputs": np.count_nonzero(x)}
    check_close(layer, [(source, x)], as_frames(y, source), rtol, **offered, macs=macs)
    assert layer.dense_macs(source) * steps == macs
    assert layer.op(source).looks_ahead == (axis == "time")


def test_large_scores_do_not_overflow():
    x = np.zeros((1, 2, 3), F)
    x[0, 0] = [1e4, 1e4, 1]
    x[0, 1] = [-1e4, 0, 2]
    given = [(signal_type("real", (2, 3)), x)]
    assert_array_equal(execute(SoftmaxAttention(1), given, 1).frames[0, :, 0], [1, 2])
    assert_array_equal(execute(AttentionPool(np.array([1, 0, 0], F)), given, 1).frames, x[:, 0])


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_attention_over_time_takes_the_steps_it_was_made_for(steps):
    network = network_of(Input((2, 3), "real"), SoftmaxAttention(1, "time", 3))
    with pytest.raises(
        InputError, match=f"^layer layer: {steps} time steps found; expected 3, or import it for {steps}$"
    ):
        Simulator(network).run(np.zeros((steps, 2, 3)))


def test_attention_over_time_needs_the_whole_sample_at_once():
    network = network_of(Input((2, 3), "real"), SoftmaxAttention(1, "time", 3))
    with pytest.raises(InputError, match=r"layer layer: looks ahead in time.*chunk 2 found"):
        Simulator(network, chunk=2).run(np.zeros((3, 2, 3)))
    with pytest.raises(InputError, match=r"layer layer: looks ahead in time.*a single step found"):
        Simulator(network).step(np.zeros((2, 3)))
    assert Simulator(network).warm_up() > 0
    static = Simulator(network).run(np.ones((2, 3)), 3)
    (profile,) = (layer for layer in static.profile if layer.name == "layer")
    assert profile.dense_macs == profile.counts.macs == 2 * 2 * 3 * 3


@inputs
@given(data=st.data())
def test_attention_pool(kind, data):
    source, x = data.draw(frames_of(kind, data.draw(shapes())))
    weight = data.draw(reals(source.channels)) / F(8)
    y = attention_pool(as_tokens(x), weight)
    layer = AttentionPool(weight)
    offered = {"inputs": x.size, "nonzero_inputs": np.count_nonzero(x)}
    check_close(layer, [(source, x)], y, **offered, macs=2 * x.size)
    assert layer.dense_macs(source) * len(x) == 2 * x.size
    so_far = execute(layer, [(source, x)], 1, always_final=True).frames  # a stream: every step might be the last
    expected = [attention_pool(as_tokens(x[: step + 1]), weight)[0] for step in range(len(x))]
    assert_allclose(so_far, expected, rtol=1e-5, atol=2e-6)


# --- the reference itself


def test_the_reference_is_that_of_torch():
    functional = pytest.importorskip("torch").nn.functional
    tensor = pytest.importorskip("torch").tensor
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.normal(size=shape).astype(F) for shape in ((4, 5, 12), 12, 12))
    expected = functional.layer_norm(tensor(x), (12,), tensor(weight), tensor(bias), 1e-6)
    assert_allclose(layer_norm(x, weight, bias, 1e-6), expected.numpy(), atol=1e-6)
    q, k, v = tensor(x).unflatten(2, (3, 2, 2)).permute(2, 0, 3, 1, 4)  # steps, heads, positions, channels
    expected = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    assert_allclose(softmax_attention(x, 2, "space"), expected.numpy(), atol=1e-6)
    swapped = np.ascontiguousarray(x.swapaxes(0, 1))
    assert_array_equal(softmax_attention(swapped, 2, "time").swapaxes(0, 1), softmax_attention(x, 2, "space"))
    with pytest.raises(ValueError, match="one of space, time"):
        softmax_attention(x, 2, "both")


# --- what does not fit


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (PositionEncoding(np.zeros((1, 5, 1), F)), r"encoding of shape \(1, 5, 1\) found; expected .*6 or 1, 4 or 1"),
        (PositionEncoding(np.zeros((1, 6, 3), F)), r"encoding of shape \(1, 6, 3\) found"),
        (PositionEncoding(np.zeros((0, 6, 4), F)), r"encoding of shape \(0, 6, 4\) found"),
        (PositionEncoding(np.zeros((6, 4), F)), r"encoding of shape \(6, 4\) found"),
        (LayerNorm(np.ones(4, F)), r"weight of shape \(4,\) found; expected \(6,\)"),
        (LayerNorm(np.ones(6, F), np.ones(1, F)), r"bias of shape \(1,\) found; expected \(6,\)"),
        (LayerNorm(np.ones(6, F), eps=-1.0), "eps -1.0 found; expected at least 0"),
        (AttentionPool(np.ones((1, 6), F)), r"weight of shape \(1, 6\) found; expected \(6,\)"),
        (SoftmaxAttention(4), "4 heads found; expected 3 x heads to divide the 6 channels"),
        (SoftmaxAttention(0), "0 heads found"),
        (SoftmaxAttention(1, "both"), "axis 'both' found; expected 'space' or 'time'"),
        (SoftmaxAttention(1, "time"), "time_steps None found; attention over time expects at least 1"),
        (SoftmaxAttention(1, "time", 0), "time_steps 0 found"),
        (SoftmaxAttention(1, "space", 4), "time_steps 4 found; expected none for attention over space"),
        (PLIAF(w=np.zeros(5, F)), r"time constant of shape \(5,\) found"),
        (PLIAF(reset="none"), "reset 'none' found"),
    ],
)
def test_what_does_not_fit_is_named(layer, words):
    with pytest.raises(LayerError, match=words):
        layer.output_type(signal_type("real", (4, 6)))
