"""Every primitive against the dense reference, bit for bit, and every count against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from plain_rows import check, chunks, decode, encode, execute, main, one_call, signal_type
from reference import counts, dense_macs
from reference.attention import spiking_attention
from reference.neurons import if_neuron, lif, plif
from reference.normalization import affine
from reference.pooling import adaptive_avg_pool2d, adaptive_max_pool2d, avgpool2d, maxpool2d, sumpool2d
from reference.reshaping import flatten, mean_over_positions, mean_over_time
from reference.residual import residual
from reference.synapses import conv2d, linear
from scipy.sparse import csr_array
from strategies import OUTPUTS, activity, constants, neurons, slidings, weights

from eventsim import InputError, Network
from eventsim.layers import (
    IF,
    LIF,
    PLIF,
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    Affine,
    AvgPool2d,
    Conv2d,
    Flatten,
    Gate,
    Input,
    IntegerActivation,
    LayerError,
    Linear,
    MaxPool2d,
    MeanOverPositions,
    MeanOverTime,
    Readout,
    Rearrange,
    Residual,
    SelectChannels,
    SparseLinear,
    SpikingAttention,
    SumOverChannels,
    SumOverPositions,
    SumPool2d,
)
from eventsim.layers.input import Frames
from eventsim.ledger import Counts

pytestmark = pytest.mark.kernels

F = np.float32
INPUTS = ("binary", "graded", "real", "sparse real")
inputs = pytest.mark.parametrize("kind", INPUTS)


def maps() -> st.SearchStrategy[tuple[int, int, int]]:
    return st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))


def shapes() -> st.SearchStrategy[tuple[int, ...]]:
    """Maps, tokens and vectors."""
    return maps() | st.tuples(st.integers(1, 6), st.integers(1, 20)) | st.tuples(st.integers(1, 40))


@st.composite
def frames_of(draw, kind, shape):
    """The type, and one to four frames."""
    return signal_type(kind, shape), draw(activity(kind.removeprefix("sparse "), draw(st.integers(1, 4)), *shape))


def channel_last(frames: np.ndarray) -> np.ndarray:
    return np.moveaxis(frames, 1, -1) if frames.ndim == 4 else frames


def as_tokens(frames: np.ndarray) -> np.ndarray:
    """(T, C, H, W), (T, N, C) or (T, C) as (T, N, C)."""
    last = channel_last(frames)
    return last.reshape(len(last), -1, last.shape[-1])


def offered(*arrays: np.ndarray) -> dict[str, int]:
    return {"inputs": sum(a.size for a in arrays), "nonzero_inputs": sum(np.count_nonzero(a) for a in arrays)}


# --- synapses


@inputs
@given(data=st.data())
def test_conv2d(kind, data):
    groups = data.draw(st.sampled_from([1, 1, 2, 3]))
    channels, height, width = data.draw(maps())
    channels *= groups
    outputs = groups * data.draw(st.sampled_from(OUTPUTS))
    window = data.draw(slidings((height, width), widest=3))
    weight = data.draw(weights(outputs, channels // groups, *window.kernel))
    bias = data.draw(st.none() | weights(outputs))
    source, x = data.draw(frames_of(kind, (channels, height, width)))
    layer = Conv2d(weight, bias, window.stride, window.padding, groups)
    check(
        layer,
        [(source, x)],
        conv2d(x, weight, bias, window.stride, window.padding, groups),
        **offered(x),
        **counts.conv2d_counts(x, weight, window.stride, window.padding, groups, source.kind, source.dense),
    )
    expected = dense_macs.conv2d((height, width), weight.shape, window.stride, window.padding)
    assert layer.dense_macs(source) == expected
    assert layer.output_type(source).shape == (outputs, *window.size)
    assert layer.parameters == weight.size + (0 if bias is None else outputs)


@inputs
@given(data=st.data())
def test_linear(kind, data):
    source, x = data.draw(frames_of(kind, data.draw(shapes())))
    weight = data.draw(weights(data.draw(st.sampled_from(OUTPUTS)), source.channels))
    bias = data.draw(st.none() | weights(len(weight)))
    y = linear(channel_last(x), weight, bias)
    check(
        Linear(weight, bias),
        [(source, x)],
        np.moveaxis(y, -1, 1) if x.ndim == 4 else y,
        **offered(x),
        **counts.linear_counts(channel_last(x), weight, source.kind, source.dense),
    )
    assert Linear(weight, bias).dense_macs(source) == dense_macs.linear(weight.shape, source.positions)


@inputs
@given(data=st.data())
def test_sparse_linear(kind, data):
    source, x = data.draw(frames_of(kind, data.draw(shapes())))
    weight = data.draw(weights(data.draw(st.sampled_from(OUTPUTS)), source.channels))
    weight *= data.draw(activity("binary", *weight.shape))  # of any density, so that some neurons have no synapse
    bias = data.draw(st.none() | weights(len(weight)))
    layer = SparseLinear.from_matrix(data.draw(st.sampled_from([weight, csr_array(weight)])), bias)
    y = linear(channel_last(x), weight, bias)
    check(  # zeros are listed away before, so a dense input counts like a sparse one
        layer,
        [(source, x)],
        np.moveaxis(y, -1, 1) if x.ndim == 4 else y,
        **offered(x),
        **counts.sparse_linear_counts(channel_last(x), weight, source.kind),
    )
    assert len(layer.weights) == np.count_nonzero(weight)
    assert layer.weights.all()
    assert layer.dense_macs(source) == dense_macs.linear(weight.shape, source.positions)


def test_sparse_linear_drops_what_is_zero_in_float32():
    matrix = np.array([[0.5, 1e-60], [0.0, -1.0]])
    layer = SparseLinear.from_matrix(matrix)
    assert_array_equal(layer.weights, np.array([0.5, -1.0], F))
    assert_array_equal(layer.targets, [0, 1])


def test_sparse_linear_adds_up_entries_of_one_synapse():
    twice = csr_array((np.array([1, -1, 2, 3], F), np.array([0, 0, 1, 1]), np.array([0, 2, 4])), shape=(2, 2))
    layer = SparseLinear.from_matrix(twice)
    assert_array_equal(layer.weights, np.array([5], F))
    assert_array_equal(layer.targets, [1])
    assert_array_equal(layer.indptr, [0, 0, 1])


@inputs
@given(data=st.data())
def test_silent_input_serves_no_synapse(kind, data):
    """A dense real input is the one that is multiplied whatever it holds."""
    shape = (2, *data.draw(st.tuples(st.integers(2, 5), st.integers(2, 5))))
    x = np.zeros((data.draw(st.integers(1, 3)), *shape), F)
    source = signal_type(kind, shape)
    fan = data.draw(st.sampled_from(OUTPUTS))
    layers = [
        Conv2d(data.draw(weights(fan, 2, 2, 2)), padding=(1, 1)),
        Conv2d(data.draw(weights(2 * fan, 1, 2, 2)), groups=2),
        Linear(data.draw(weights(fan, 2))),
        SparseLinear.from_matrix(data.draw(weights(fan, 2, zeros=False))),
    ]
    for layer in layers:
        done = execute(layer, [(source, x)], len(x))
        assert not done.frames.any()
        served = done.counts.acs + done.counts.graded_macs + done.counts.graded_acs + done.counts.macs
        if source.dense and not isinstance(layer, SparseLinear):
            assert served > 0
        else:
            assert served == 0
        assert done.counts.nonzero_inputs == 0
    if kind == "binary":
        for order in ("scores_first", "context_first"):
            done = execute(SpikingAttention(1, 1.0, order), [(source, x)] * 3, len(x))
            assert not done.frames.any()
            assert done.counts.acs == 0


# --- neurons


@inputs
@given(data=st.data())
def test_neuron(kind, data):
    source, x = data.draw(frames_of(kind, data.draw(shapes())))
    layer, name, parameters = data.draw(neurons(source.shape))
    fired, h = {"lif": lif, "if_neuron": if_neuron, "plif": plif}[name](x, **parameters)
    done = check(layer, [(source, x)], fired, spikes=np.count_nonzero(fired), neuron_updates=counts.neuron_updates(x))
    rest = np.zeros_like(h) if layer.reset == "zero" else h - np.asarray(parameters["v_threshold"], F)
    potential = np.where(fired, rest, h)[-1:]
    assert_array_equal(done.op.potential, as_tokens(potential)[0])
    assert layer.neurons(source) == source.size
    assert layer.parameters == layer.dense_macs(source) == 0


@given(data=st.data())
def test_neuron_on_any_current(data):
    """Currents that are not dyadic: the operations are rounded in the order in which the equations are written."""
    source = signal_type("real", (3, 4, 5))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    x = rng.normal(1, 2, (4, 3, 4, 5)).astype(F)
    tau, threshold = rng.uniform(1, 5, (3, 4, 5)).astype(F), rng.uniform(-0.2, 2, 3).astype(F)
    w, dynamics = rng.normal(size=3).astype(F), {"reset": data.draw(st.sampled_from(["zero", "subtract"]))}
    k = (1 / (1 + np.exp(-w.astype(np.float64)))).astype(F)
    theirs = {"v_threshold": threshold[:, None, None], **dynamics}
    ours = {"v_threshold": threshold, **dynamics}
    for decay in (True, False):
        fired, _ = lif(x, tau, decay_input=decay, **theirs)
        done = execute(LIF(tau=tau, decay_input=decay, **ours), [(source, x)], 2)
        assert_array_equal(done.frames, fired)
    assert_array_equal(execute(PLIF(w=w, **ours), [(source, x)], 2).frames, plif(x, k[:, None, None], **theirs)[0])
    assert_array_equal(execute(IF(**ours), [(source, x)], 2).frames, if_neuron(x, **theirs)[0])


@pytest.mark.parametrize("threshold", [0.0, -1.0])
def test_neuron_may_fire_without_input(threshold):
    source, x = signal_type("binary", (3, 2, 2)), np.zeros((3, 3, 2, 2), F)
    check(LIF(v_threshold=threshold), [(source, x)], np.ones_like(x), spikes=x.size, neuron_updates=x.size)
    silent = threshold == 0
    done = execute(LIF(v_threshold=threshold, strict=True), [(source, x)], 2)
    assert_array_equal(done.frames, np.full_like(x, not silent))


# --- pooling


@inputs
@given(data=st.data())
def test_max_pool2d(kind, data):
    source, x = data.draw(frames_of(kind, data.draw(maps())))
    window = data.draw(slidings(source.grid))
    options = {"dilation": data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3))), "ceil_mode": False}
    if any(d * (k - 1) >= n for d, k, n in zip(options["dilation"], window.kernel, source.grid, strict=True)):
        options["dilation"] = (1, 1)
    options["ceil_mode"] = data.draw(st.booleans())
    expected = maxpool2d(x, **window.parameters, **options)
    layer = MaxPool2d(window.kernel, window.stride, window.padding, **options)
    if np.isneginf(expected).any():  # every so many-th pixel, and none of them in the map
        with pytest.raises(LayerError, match="a window is padding alone"):
            layer.output_type(source)
        return
    shared = {"windows": expected.shape[2:], "dense": source.kind == "real", "dilation": options["dilation"]}
    comparisons = counts.pooled_values(x, **window.parameters, **shared)
    check(layer, [(source, x)], expected, comparisons=comparisons)


@inputs
@given(data=st.data())
def test_adaptive_pooling(kind, data):
    source, x = data.draw(frames_of(kind, data.draw(maps())))
    size = data.draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    added = counts.adaptively_pooled_values(x, size, source.dense)
    check(AdaptiveAvgPool2d(size), [(source, x)], adaptive_avg_pool2d(x, size), additions=added)
    compared = counts.adaptively_pooled_values(x, size, source.kind == "real")
    check(AdaptiveMaxPool2d(size), [(source, x)], adaptive_max_pool2d(x, size), comparisons=compared)


@inputs
@given(data=st.data())
def test_sum_pool2d(kind, data):
    source, x = data.draw(frames_of(kind, data.draw(maps())))
    window = data.draw(slidings(source.grid, widest=3))
    layer = SumPool2d(window.kernel, window.stride, window.padding)
    check(
        layer,
        [(source, x)],
        sumpool2d(x, **window.parameters),
        additions=counts.pooled_values(x, **window.parameters, windows=window.size, dense=source.dense),
    )
    assert layer.output_type(source).kind == ("real" if "real" in kind else "graded")


@inputs
@given(data=st.data())
def test_avg_pool2d(kind, data):
    source, x = data.draw(frames_of(kind, data.draw(maps())))
    window = data.draw(slidings(source.grid))
    options = {"count_include_pad": data.draw(st.booleans()), "ceil_mode": data.draw(st.booleans())}
    expected = avgpool2d(x, **window.parameters, **options)
    check(
        AvgPool2d(window.kernel, window.stride, window.padding, **options),
        [(source, x)],
        expected,
        additions=counts.pooled_values(x, **window.parameters, windows=expected.shape[2:], dense=source.dense),
    )


def test_max_pool2d_of_negative_values_is_negative():
    """Neither the padding nor, in sparse rows, a channel that is not listed may win by mistake."""
    x = np.full((1, 1, 3, 3), -0.5, F)
    for kind in ("real", "sparse real"):
        done = execute(MaxPool2d((3, 3), (2, 2), (1, 1)), [(signal_type(kind, (1, 3, 3)), x)], 1)
        assert_array_equal(done.frames, np.full((1, 1, 2, 2), -0.5, F))
    x[0, 0, 1, 1] = 0  # not listed, and the largest
    done = execute(MaxPool2d((3, 3), (3, 3)), [(signal_type("sparse real", (1, 3, 3)), x)], 1)
    assert_array_equal(done.frames, np.zeros((1, 1, 1, 1), F))


# --- joins and attention


@inputs
@given(data=st.data())
def test_residual_add(kind, data):
    shape, other = data.draw(shapes()), data.draw(st.sampled_from(INPUTS))
    a, x = data.draw(frames_of(kind, shape))
    b, y = signal_type(other, shape), data.draw(activity(other.removeprefix("sparse "), *x.shape))
    dense = a.dense or b.dense
    additions = x.size if dense else counts.residual_add_coincidences(x, y)
    check(Residual("add"), [(a, x), (b, y)], residual(x, y, "add"), additions=additions)


@pytest.mark.parametrize("mode", ["iand", "and"])
@given(data=st.data())
def test_residual_of_spikes(mode, data):
    a, x = data.draw(frames_of("binary", data.draw(shapes())))
    y = data.draw(activity("binary", *x.shape))
    meetings = counts.residual_add_coincidences(x, y)
    check(Residual(mode), [(a, x), (a, y)], residual(x, y, mode), comparisons=meetings)


@pytest.mark.parametrize(
    ("order", "size", "kernel"),
    [
        ("scores_first", 6, "attend_masked"),
        ("scores_first", 7, "attend_scores_first"),
        ("context_first", 7, "attend_context_first"),
    ],
)
def test_narrow_heads_are_attended_through_masks(order, size, kernel):
    """Up to two channels a head for each token; the wider ones score by score. Both are exact."""
    rng = np.random.default_rng(0)
    x = (rng.random((2, 3, 2 * size)) < 0.5).astype(np.float32)
    layer, source = SpikingAttention(2, 0.5, order), signal_type("binary", x.shape[1:])
    assert layer.op(source, source, source).kernel == kernel
    done = execute(layer, [(source, x)] * 3, len(x))
    assert_array_equal(done.frames, spiking_attention(x, x, x, 2, 0.5))


@pytest.mark.parametrize(("order", "product"), [("scores_first", "qk_v"), ("context_first", "kv_q")])
@given(data=st.data())
def test_spiking_attention(order, product, data):
    heads, dim = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9))
    shape = data.draw(
        st.tuples(st.integers(1, 9), st.just(heads * dim))
        | st.tuples(st.just(heads * dim), st.integers(1, 3), st.integers(1, 3))
        | st.tuples(st.just(heads * dim))
    )
    source, q = data.draw(frames_of("binary", shape))
    k, v = (data.draw(activity("binary", *q.shape)) for _ in range(2))
    scale = data.draw(st.sampled_from([0.125, 0.25, 1.0, 0.1]))
    y = spiking_attention(as_tokens(q), as_tokens(k), as_tokens(v), heads, scale)
    channel_last_shape = channel_last(q).shape
    expected = y.reshape(channel_last_shape)
    layer = SpikingAttention(heads, scale, order)
    check(
        layer,
        [(source, q), (source, k), (source, v)],
        np.moveaxis(expected, -1, 1) if q.ndim == 4 else expected,
        **offered(q, k, v),
        **counts.attention_counts(as_tokens(q), as_tokens(k), as_tokens(v), heads, product),
    )
    assert layer.dense_macs(source, source, source) == dense_macs.attention(source.positions, source.channels)


# --- element-wise, reshaping, means


@inputs
@given(data=st.data())
def test_affine(kind, data):
    source, x = data.draw(frames_of(kind, data.draw(shapes())))
    factors = st.sampled_from([0.0, -0.5, 0.25, 1.5])
    scale, expected_scale = data.draw(constants(factors, source.shape))
    shift, expected_shift = data.draw(st.just((None, None)) | constants(factors, source.shape))
    layer = Affine(np.asarray(scale, F), None if shift is None else np.asarray(shift, F))
    dense = source.dense or shift is not None
    check(
        layer,
        [(source, x)],
        affine(x, expected_scale, expected_shift),
        **offered(x),
        macs=x.size if dense else np.count_nonzero(x),
    )
    assert layer.output_type(source).dense == dense


@inputs
@given(data=st.data())
def test_flatten(kind, data):
    source, x = data.draw(frames_of(kind, data.draw(shapes())))
    check(Flatten(), [(source, x)], flatten(x))
    assert Flatten().output_type(source).kind == source.kind


@inputs
@given(data=st.data())
def test_mean_over_positions(kind, data):
    source, x = data.draw(frames_of(kind, data.draw(shapes())))
    expected = mean_over_positions(as_tokens(x))
    check(MeanOverPositions(), [(source, x)], expected, additions=x.size if source.dense else np.count_nonzero(x))


@inputs
@given(data=st.data())
def test_mean_over_time(kind, data):
    source, x = data.draw(frames_of(kind, data.draw(shapes())))
    check(MeanOverTime(), [(source, x)], mean_over_time(x), additions=np.count_nonzero(x))
    so_far = np.concatenate([mean_over_time(x[:stop]) for stop in range(1, len(x) + 1)])
    assert_array_equal(execute(MeanOverTime(), [(source, x)], 1, always_final=True).frames, so_far)


@inputs
@pytest.mark.parametrize("reduce", ["last", "sum"])
@given(data=st.data())
def test_readout(kind, reduce, data):
    source, x = data.draw(frames_of(kind, data.draw(st.tuples(st.integers(1, 10)))))
    expected = x[-1:] if reduce == "last" else x.sum(axis=0, keepdims=True)
    for chunk in chunks(len(x)):
        done = execute(Readout(reduce), [(source, x)], chunk)
        assert_array_equal(done.frames[-1:], expected)
        assert done.counts.additions == (np.count_nonzero(x) if reduce == "sum" else 0)


@pytest.mark.parametrize("kind", ["binary", "graded", "real"])
@given(data=st.data())
def test_input(kind, data):
    shape = data.draw(shapes())
    _, x = data.draw(frames_of(kind, shape))
    layer = Input(shape, kind)
    context, executed = one_call(len(x))
    signal = layer.op().advance((Frames(x, static=False),), context)
    assert signal.type == layer.output_type() == signal_type(kind, shape)
    assert_array_equal(decode(signal), x)
    assert main(executed()) == Counts()


# --- what every op promises

LAYERS = [
    Conv2d(np.ones((3, 2, 2, 2), F)),
    Conv2d(np.ones((4, 1, 2, 2), F), groups=2),
    Linear(np.ones((3, 2), F)),
    SparseLinear.from_matrix(np.ones((3, 2), F)),
    *(LIF(), IF(), PLIF()),
    *(pool((2, 2), (2, 2)) for pool in (MaxPool2d, SumPool2d, AvgPool2d)),
    Affine(np.full(2, 0.5, F)),
    Affine(np.full(2, 0.5, F), np.ones(2, F)),
    *(Flatten(), MeanOverPositions(), MeanOverTime(), Residual("add")),
    *(AdaptiveAvgPool2d((3, 1)), AdaptiveMaxPool2d((3, 5)), MaxPool2d((2, 2), (1, 1), dilation=(2, 1))),
    Rearrange(np.array([-1, 0, 31, 4]), (1, 2, 2)),
    *(Gate(), IntegerActivation(), SelectChannels(np.array([1, 0, 1])), SumOverChannels(2), SumOverPositions()),
]
each_layer = pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)


@inputs
@each_layer
def test_a_layer_has_nothing_to_do_in_no_steps(kind, layer):
    """In all chunks but the last a mean over time emits nothing for the layers after it."""
    source = signal_type(kind, (2, 4, 4))
    arguments = [source] * layer.arguments
    given = tuple(encode(source, np.zeros((0, 2, 4, 4), F)) for _ in arguments)
    context, executed = one_call(0, final=False)
    signal = layer.op(*arguments).advance(given, context)
    assert decode(signal).shape == (0, *layer.output_type(*arguments).shape)
    assert main(executed()) == Counts()


@inputs
@each_layer
def test_a_fork_has_a_state_of_its_own(kind, layer):
    source = signal_type(kind, (2, 4, 4))
    arguments = [source] * layer.arguments
    full, sparse = np.ones((3, 2, 4, 4), F), np.zeros((3, 2, 4, 4), F)
    sparse[1:, 0, 1, 1] = 1
    op = layer.op(*arguments)
    emitted = op.advance(tuple(encode(source, full) for _ in arguments), one_call(3)[0])
    before = decode(emitted).copy()
    fork = op.fork()
    ours = fork.advance(tuple(encode(source, sparse) for _ in arguments), one_call(3)[0])
    assert_array_equal(decode(emitted), before, err_msg="the fork wrote into the original")
    expected = execute(layer, [(source, sparse)] * layer.arguments, 3).frames
    assert_array_equal(decode(ours), expected, err_msg="the fork began with the state of the original")
    fork.reset()
    again = fork.advance(tuple(encode(source, sparse) for _ in arguments), one_call(3)[0])
    assert_array_equal(decode(again), expected, err_msg="reset did not forget the sample")


# --- what does not fit


MAP, TOKENS, VECTOR = Input((4, 6, 6), "binary"), Input((6, 4), "binary"), Input((4,), "binary")


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, F)


def synapses(indptr=(0, 1, 1, 1, 2), targets=(0, 2), count=2, bias=None) -> SparseLinear:
    """Fan-out lists for 4 inputs and 3 outputs, unless something is wrong with them."""
    return SparseLinear(np.array(indptr, np.int64), np.array(targets, np.int32), ones(count), 3, bias)


def test_the_fan_out_lists_that_are_spoilt_below_are_good():
    assert synapses(bias=ones(3)).output_type(VECTOR.output_type()).channels == 3


@pytest.mark.parametrize(
    ("layer", "source", "message"),
    [
        (Conv2d(ones(2, 4, 3, 3)), TOKENS, "input binary 6x4 found; expected a map"),
        (Conv2d(ones(2, 4)), MAP, r"weight of shape \(2, 4\) found; expected \(C_out"),
        (Conv2d(ones(2, 3, 3, 3)), MAP, "1 groups found; expected it to fit 4 input channels"),
        (Conv2d(ones(2, 4, 3, 3), groups=0), MAP, "with 0 groups found"),
        (Conv2d(ones(3, 2, 3, 3), groups=2), MAP, "with 2 groups found"),
        (Conv2d(ones(2, 4, 3, 3), ones(3)), MAP, r"bias of shape \(3,\) found; expected \(2,\)"),
        (Conv2d(ones(2, 4, 3, 3), stride=(0, 1)), MAP, r"stride \(0, 1\).*expected positive"),
        (Conv2d(ones(2, 4, 3, 3), padding=(0, -1)), MAP, r"padding \(0, -1\) found; expected positive"),
        (Conv2d(ones(2, 4, 0, 3)), MAP, r"kernel \(0, 3\).*expected positive"),
        (Conv2d(ones(2, 4, 3, 9), padding=(1, 1)), MAP, "does not fit into a 6x6 map"),
        (Linear(ones(2, 3)), TOKENS, r"weight of shape \(2, 3\) found; expected \(C_out, 4\)"),
        (Linear(ones(4)), TOKENS, r"weight of shape \(4,\) found"),
        (Linear(ones(2, 4), ones(2, 1)), TOKENS, r"bias of shape \(2, 1\) found; expected \(2,\)"),
        (synapses(indptr=(0, 1, 2)), VECTOR, "2 fan-out lists found; expected 4"),
        (synapses(indptr=(1, 1, 1, 1, 2)), VECTOR, "do not cover the 2 synapses"),
        (synapses(indptr=(0, 2, 1, 1, 2)), VECTOR, "do not cover the 2 synapses"),
        (synapses(indptr=(0, 1, 1, 1, 1)), VECTOR, "do not cover the 2 synapses"),
        (synapses(count=3), VECTOR, "3 weights found; expected one for each of 2 synapses"),
        (synapses(targets=(0, 3)), VECTOR, r"outside 0\.\.2 found"),
        (synapses(targets=(-1, 2)), VECTOR, r"outside 0\.\.2 found"),
        (synapses(bias=ones(4)), VECTOR, r"bias of shape \(4,\) found; expected \(3,\)"),
        (LIF(reset="soft"), MAP, "reset 'soft' found; expected 'zero' or 'subtract'"),
        (LIF(tau=0.5), MAP, "tau 0.5 found; expected at least 1"),
        (LIF(tau=np.array([2, 0.5, 3, 1], F)), MAP, "tau 0.5 found"),
        (LIF(tau=float("inf")), MAP, "time constant that is NaN or infinite found"),
        (LIF(tau=float("nan")), MAP, "time constant that is NaN or infinite found"),
        (LIF(tau=ones(3)), MAP, r"time constant of shape \(3,\) found; expected one number, \(4,\) or \(4, 6, 6\)"),
        (LIF(v_threshold=float("nan")), MAP, "v_threshold that is NaN or infinite found"),
        (IF(v_threshold=ones(6, 6, 4)), MAP, r"v_threshold of shape \(6, 6, 4\) found"),
        (PLIF(w=ones(6)), TOKENS, r"time constant of shape \(6,\) found; expected one number, \(4,\) or \(6, 4\)"),
        (MaxPool2d((2, 2), (2, 2)), TOKENS, "input binary 6x4 found; expected a map"),
        (MaxPool2d((2, 3), (1, 1), (1, 2)), MAP, r"padding \(1, 2\) found; expected at most half the kernel"),
        (MaxPool2d((2, 2), (0, 2)), MAP, "expected positive"),
        (MaxPool2d((2, 2), (2, 2), dilation=(0, 1)), MAP, r"dilation \(0, 1\) found; expected two numbers, 1 or more"),
        (MaxPool2d((3, 2), (2, 2), dilation=(3, 1)), MAP, r"kernel \(7, 2\) .*does not fit into a 6x6 map"),
        (AdaptiveAvgPool2d((2, 2)), TOKENS, "input binary 6x4 found; expected a map"),
        (AdaptiveAvgPool2d((2, 0)), MAP, r"output_size \(2, 0\) found; expected two numbers"),
        (AdaptiveMaxPool2d((2,)), MAP, r"output_size \(2,\) found; expected two numbers"),
        (SelectChannels(np.array([0, 4])), TOKENS, "indices from 0 to 4 found; expected 0 to 3"),
        (SelectChannels(np.array([-1, 2])), TOKENS, "indices from -1 to 2 found; expected 0 to 3"),
        (SelectChannels(ones(2)), TOKENS, r"indices float32 of shape \(2,\) found; expected one list of integers"),
        (SelectChannels(np.zeros(0, np.int32)), TOKENS, r"shape \(0,\) found; expected one list"),
        (Rearrange(np.array([0, 24]), (2,)), TOKENS, "indices from 0 to 24 found; expected -1, for a zero, to 23"),
        (Rearrange(np.array([-2, 2]), (2,)), TOKENS, "indices from -2 to 2 found; expected -1, for a zero, to 23"),
        (Rearrange(np.array([0, 2]), (3,)), TOKENS, r"indices int64 of shape \(2,\) found; expected 3 integers"),
        (Rearrange(ones(2), (2,)), TOKENS, r"indices float32 of shape \(2,\) found; expected 2 integers"),
        (Rearrange(np.array([0, 2]), (1, 1, 1, 2)), TOKENS, r"shape \(1, 1, 1, 2\) found; expected 1 to 3 axes"),
        (SumOverChannels(3), TOKENS, "3 groups found; expected a divisor of the 4 channels"),
        (SumOverChannels(0), MAP, "0 groups found"),
        (IntegerActivation(0), MAP, "maximum 0 found; expected 1 to 16777216"),
        (IntegerActivation(4, "odd"), MAP, "ties 'odd' found; expected 'even' or 'up'"),
        (SumPool2d((2, 2), (2, 2)), VECTOR, "input binary 4 found; expected a map"),
        (SumPool2d((7, 2), (2, 2)), MAP, "does not fit into a 6x6 map"),
        (AvgPool2d((2, 2), (2, 2)), TOKENS, "input binary 6x4 found; expected a map"),
        (AvgPool2d((2, 2), (2, 2), (2, 0)), MAP, r"padding \(2, 0\) found; expected at most half the kernel"),
        (Residual("or"), MAP, "mode 'or' found; expected one of"),
        (Residual("iand"), Input((4,), "graded"), "expects spikes on both sides"),
        (Residual("and"), Input((4,), "real"), "expects spikes on both sides"),
        (SpikingAttention(2, order="any"), TOKENS, "order 'any' found; expected 'scores_first'"),
        (SpikingAttention(2), Input((6, 4), "real"), "expected spikes or graded values"),
        (SpikingAttention(3), TOKENS, "3 heads found; expected a divisor of the 4 channels"),
        (SpikingAttention(0), TOKENS, "0 heads found"),
        (Affine(ones(6)), TOKENS, r"scale of shape \(6,\) found"),
        (Affine(ones(4), ones(6)), TOKENS, r"shift of shape \(6,\) found"),
        (Affine(np.array([1, 2, np.nan, 4], F)), TOKENS, "scale that is NaN or infinite found"),
        (Affine(ones(1), np.array([np.inf], F)), TOKENS, "shift that is NaN or infinite found"),
        (Readout("first"), VECTOR, "reduce 'first' found; expected 'last' or 'sum'"),
        (Readout(), TOKENS, "input binary 6x4 found; expected one vector"),
    ],
)
def test_a_layer_that_does_not_fit_is_refused_by_name(layer, source, message):
    layers = {"input": source, "block.0.odd": layer}
    edges = [("input", "block.0.odd")] * layer.arguments
    if not isinstance(layer, Readout):
        layers["head"] = Readout()
        edges.append(("block.0.odd", "head"))
    with pytest.raises(InputError, match=rf"^layer block\.0\.odd: .*{message}") as caught:
        Network("odd", layers, tuple(edges)).validate()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "kind", "message"),
    [
        ((), "binary", r"shape \(\) found"),
        ((1, 2, 3, 4), "binary", r"shape \(1, 2, 3, 4\) found; expected \(C, H, W\)"),
        ((2, 0), "binary", "all positive"),
        ((4,), "spikes", "kind 'spikes' found; expected 'binary'"),
    ],
)
def test_an_input_that_makes_no_sense_is_refused_by_name(shape, kind, message):
    network = Network("odd", {"frames": Input(shape, kind), "head": Readout()}, (("frames", "head"),))
    with pytest.raises(InputError, match=rf"^layer frames: .*{message}"):
        network.validate()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Residual("add"), "inputs binary 4x6x6 and binary 4x3x3 found; expected equal shapes"),
        (Gate(), "gate binary 4x6x6 for binary 4x3x3 found; expected one position, or the same ones"),
    ],
)
def test_inputs_of_different_shapes_are_refused_by_name(layer, message):
    layers = {"input": MAP, "pool": MaxPool2d((2, 2), (2, 2)), "join": layer, "head": Readout()}
    joined = [("input", "join"), *[("pool", "join")] * (layer.arguments - 1)]
    network = Network("odd", layers, (("input", "pool"), *joined, ("join", "head")))
    with pytest.raises(InputError, match=f"^layer join: {message}"):
        network.validate()


@pytest.mark.parametrize(
    ("q", "k", "v", "message"),
    [
        ((6, 4), (6, 2), (6, 4), "expected channels of q as of k, positions of k as of v"),
        ((6, 4), (5, 4), (6, 4), "expected channels of q as of k, positions of k as of v"),
        ((6, 4), (6, 4), (6, 3), "2 heads found; expected a divisor of the 3 channels"),
    ],
)
def test_attention_of_signals_that_do_not_meet_is_refused(q, k, v, message):
    with pytest.raises(LayerError, match=message):
        SpikingAttention(2).output_type(*(signal_type("graded", shape) for shape in (q, k, v)))


def test_a_layer_with_an_input_too_few_is_refused_by_name():
    network = Network(
        "odd", {"in": VECTOR, "join": Residual("add"), "out": Readout()}, (("in", "join"), ("join", "out"))
    )
    with pytest.raises(InputError, match=r"^layer join: 1 inputs found; expected 2"):
        network.validate()
