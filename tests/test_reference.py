"""The reference itself: against PyTorch, and against examples worked out by hand."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from reference import counts, dense_macs, network
from reference.attention import spiking_attention
from reference.neurons import if_neuron, lif, plif, plif_factor
from reference.normalization import affine, batch_norm
from reference.pooling import adaptive_avg_pool2d, adaptive_max_pool2d, avgpool2d, maxpool2d, sumpool2d
from reference.reshaping import (
    channels_from_tokens,
    flatten,
    mean_over_positions,
    mean_over_time,
    sum_over_positions,
    sum_over_time,
    tokens_from_map,
)
from reference.residual import residual
from reference.synapses import conv2d, linear

F = np.float32


def dyadic(seed: int, *shape: int) -> np.ndarray:
    return (np.random.default_rng(seed).integers(-16, 17, shape) / 16).astype(F)


def spikes(seed: int, *shape: int) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape) < 0.4).astype(F)


def column(*values: float) -> np.ndarray:
    """One neuron over time."""
    return np.array(values, F)[:, None]


def only(**given: int) -> dict[str, int]:
    return {"acs": 0, "graded_macs": 0, "graded_acs": 0, "macs": 0, **given}


def test_imports_only_numpy_and_the_standard_library():
    program = (
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import reference.network, reference.counts, reference.dense_macs\n"
        "print(sorted(set(sys.modules) & {'eventsim', 'eventsim_importers', 'torch', 'scipy', 'numba'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- against PyTorch


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [((3, 3), (1, 1), (1, 1)), ((2, 3), (2, 1), (0, 2)), ((1, 1), (1, 3), (0, 0)), ((4, 2), (3, 2), (2, 0))],
)
def test_conv2d_is_that_of_torch(kernel, stride, padding, groups):
    torch = pytest.importorskip("torch")
    x, weight, bias = dyadic(0, 2, 4, 6, 7), dyadic(1, 8, 4 // groups, *kernel), dyadic(2, 8)
    for b in (bias, None):
        expected = torch.nn.functional.conv2d(
            torch.tensor(x), torch.tensor(weight), None if b is None else torch.tensor(b), stride, padding, 1, groups
        )
        y = conv2d(x, weight, b, stride, padding, groups)
        assert y.dtype == F
        assert_array_equal(y, expected.numpy())


@pytest.mark.parametrize("shape", [(3, 5), (3, 4, 5)])
def test_linear_is_that_of_torch(shape):
    torch = pytest.importorskip("torch")
    x, weight, bias = dyadic(0, *shape), dyadic(1, 7, 5), dyadic(2, 7)
    for b in (bias, None):
        expected = torch.nn.functional.linear(
            torch.tensor(x), torch.tensor(weight), None if b is None else torch.tensor(b)
        )
        y = linear(x, weight, b)
        assert y.dtype == F
        assert_array_equal(y, expected.numpy())


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        ((3, 3), (2, 2), (1, 1)),
        ((2, 2), (2, 2), (0, 0)),
        ((2, 3), (1, 2), (1, 0)),
        ((3, 2), (3, 1), (1, 1)),
        ((3, 3), (4, 4), (0, 1)),
    ],
)
def test_pooling_is_that_of_torch(kernel, stride, padding):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    x = dyadic(0, 2, 3, 7, 8) - F(2)  # all negative: a border of 0 would be the largest
    dense = torch.tensor(x)
    assert_array_equal(maxpool2d(x, kernel, stride, padding), functional.max_pool2d(dense, kernel, stride, padding))
    summed = functional.avg_pool2d(dense, kernel, stride, padding, divisor_override=1)
    assert_array_equal(sumpool2d(x, kernel, stride, padding), summed)
    for include, ceil in itertools.product((True, False), repeat=2):
        expected = functional.avg_pool2d(dense, kernel, stride, padding, ceil, include)
        y = avgpool2d(x, kernel, stride, padding, include, ceil)
        assert y.dtype == F
        assert_allclose(y, expected, rtol=1e-6)
    for dilation, ceil in itertools.product(((1, 1), (2, 1), (1, 2), (3, 2)), (True, False)):
        if all(d * (k - 1) + 1 <= n + 2 * p for d, k, n, p in zip(dilation, kernel, (7, 8), padding, strict=True)):
            expected = functional.max_pool2d(dense, kernel, stride, padding, dilation, ceil)
            assert_array_equal(maxpool2d(x, kernel, stride, padding, dilation, ceil), expected)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 8), (2, 11), (10, 4), (14, 16)])
def test_adaptive_pooling_is_that_of_torch(size):
    torch = pytest.importorskip("torch")
    x = dyadic(0, 2, 3, 7, 8)
    dense = torch.tensor(x)
    assert_allclose(adaptive_avg_pool2d(x, size), torch.nn.functional.adaptive_avg_pool2d(dense, size), rtol=1e-6)
    assert_array_equal(adaptive_max_pool2d(x, size), torch.nn.functional.adaptive_max_pool2d(dense, size))


@pytest.mark.parametrize(("shape", "axis"), [((2, 5, 3, 4), None), ((6, 5), None), ((2, 6, 5), None), ((2, 5, 6), 1)])
def test_batch_norm_is_that_of_torch(shape, axis):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape).astype(F)
    gamma, beta, mean, var = (rng.uniform(0.5, 2, 5).astype(F) for _ in range(4))
    tokens = len(shape) == 3 and axis is None
    given = torch.tensor(x.swapaxes(1, 2).copy() if tokens else x)
    mean_t, var_t, gamma_t, beta_t = (torch.tensor(a) for a in (mean, var, gamma, beta))
    expected = torch.nn.functional.batch_norm(given, mean_t, var_t, gamma_t, beta_t, eps=1e-5).numpy()
    y = batch_norm(x, gamma, beta, mean, var, 1e-5, axis)
    assert y.dtype == F
    assert_allclose(y, expected.swapaxes(1, 2) if tokens else expected, rtol=1e-5, atol=1e-6)


def test_affine_scales_then_shifts():
    x = column(1, -2, 0)
    assert_array_equal(affine(x, 0.5), column(0.5, -1, 0))
    assert_array_equal(affine(x, F(0.5), np.array([4], F)), column(4.5, 3, 4))
    assert affine(x, 0.5).dtype == F


def test_attention_is_that_of_torch():
    torch = pytest.importorskip("torch")
    heads, (steps, tokens, dim) = 2, (2, 5, 6)
    q, k, v = (spikes(seed, steps, tokens, dim) for seed in range(3))
    split = [torch.tensor(a).reshape(steps, tokens, heads, dim // heads).transpose(1, 2) for a in (q, k, v)]
    y = (split[0] @ split[1].transpose(-2, -1)) @ split[2] * 0.125
    expected = y.transpose(1, 2).reshape(steps, tokens, dim)
    assert_array_equal(spiking_attention(q, k, v, heads, 0.125), expected)


def test_reshaping_is_that_of_torch():
    torch = pytest.importorskip("torch")
    x = dyadic(0, 2, 3, 4, 5)
    assert_array_equal(flatten(x), torch.flatten(torch.tensor(x), 1))
    assert_array_equal(tokens_from_map(x), torch.tensor(x).flatten(2).transpose(1, 2))
    assert_array_equal(channels_from_tokens(tokens_from_map(x)), torch.tensor(x).flatten(2))


# --- worked out by hand


def test_lif_with_input_decay():
    # h: 0 + 1/2; .5 + 1.5/2 = 1.25 fires -> 0; 0 + 2/2 = 1 fires (>=) -> 0; 0 - 1/2
    fired, h = lif(column(1, 2, 2, -1), tau=2.0, v_threshold=1.0)
    assert_array_equal(h, column(0.5, 1.25, 1, -0.5))
    assert_array_equal(fired, column(0, 1, 1, 0))
    assert fired.dtype == h.dtype == F


def test_lif_without_input_decay():
    # h: 1; fires -> 0; .75; .75 - .375 + .5 = .875; .875 - .4375 = .4375
    fired, h = lif(column(1, 0.75, 0.5, 0), tau=2.0, decay_input=False)
    assert_array_equal(h, column(1, 0.75, 0.875, 0.4375))
    assert_array_equal(fired, column(1, 0, 0, 0))


def test_strict_threshold_does_not_fire_at_equality():
    # h: 1, not above 1; 1 + 1/2 - 1/2 = 1; then 1 + (2 - 1)/2 = 1.5 fires -> 0
    fired, h = lif(column(2, 1, 2, 0), strict=True)
    assert_array_equal(h, column(1, 1, 1.5, 0))
    assert_array_equal(fired, column(0, 0, 1, 0))


def test_soft_reset_keeps_the_rest():
    # v: 2.5 - 1 = 1.5; h 1.5 -> .5; h .5 - 1 = -.5; h -.5 + 1.5 = 1 -> 0
    fired, h = if_neuron(column(2.5, 0, -1, 1.5), reset="subtract")
    assert_array_equal(h, column(2.5, 1.5, -0.5, 1))
    assert_array_equal(fired, column(1, 1, 0, 1))


def test_if_neuron_with_hard_reset():
    fired, h = if_neuron(column(0.25, 0.5, 0.5, 0), v_threshold=0.75)
    assert_array_equal(h, column(0.25, 0.75, 0.5, 0.5))
    assert_array_equal(fired, column(0, 1, 0, 0))


def test_plif_charges_by_its_factor():
    # k = 1/4: h = 1; fires -> 0; 2/4 = .5; .5 + (2.5 - .5)/4 = 1 fires
    fired, h = plif(column(4, 2, 2.5), k=0.25)
    assert_array_equal(h, column(1, 0.5, 1))
    assert_array_equal(fired, column(1, 0, 1))
    assert plif_factor(0.0) == F(0.5)
    assert plif_factor(0.7) == F(0.6681877721681662)


def test_decay_is_rounded_in_the_stated_order():
    """v + (x - v) / tau, each operation in float32."""
    x = np.random.default_rng(0).normal(size=(3, 50)).astype(F)
    fired, h = lif(x, tau=1.75, v_threshold=100.0)
    v = F(0) + (x[0] - F(0)) / F(1.75)
    assert_array_equal(h[0], v)
    v = v + (x[1] - v) / F(1.75)
    assert_array_equal(h[1], v)
    assert_array_equal(h[2], v + (x[2] - v) / F(1.75))
    assert not fired.any()


def test_tau_and_threshold_per_neuron():
    x = np.array([[4.0, 4.0], [4.0, 4.0]], F)
    tau, threshold = np.array([2.0, 4.0], F), np.array([3.0, 1.0], F)
    fired, h = lif(x, tau, threshold)
    assert_array_equal(h, [[2, 1], [3, 1]])
    assert_array_equal(fired, [[0, 1], [1, 1]])


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match="one of zero, subtract"):
        lif(column(1), reset="none")
    with pytest.raises(ValueError, match="one of add, iand, and"):
        residual(column(1), column(1), "or")
    with pytest.raises(ValueError, match="one of binary, graded, real"):
        counts.linear_counts(column(1), (1, 1), "integer")
    with pytest.raises(ValueError, match="in a binary input"):
        counts.linear_counts(column(2), (1, 1), "binary")


def test_maxpool_of_binary_is_or():
    x = np.zeros((1, 1, 4, 4), F)
    x[0, 0, 1, 2] = 1
    assert_array_equal(maxpool2d(x, (2, 2), (2, 2))[0, 0], [[0, 1], [0, 0]])
    assert_array_equal(maxpool2d(x, (3, 3), (2, 2), (1, 1))[0, 0], [[0, 1], [0, 1]])


def test_residual():
    a, b = column(0, 0, 1, 1), column(0, 1, 0, 1)
    assert_array_equal(residual(a, b, "add"), column(0, 1, 1, 2))
    assert_array_equal(residual(a, b, "iand"), column(0, 0, 1, 0))
    assert_array_equal(residual(a, b, "and"), column(0, 0, 0, 1))


def test_attention_by_hand():
    # one head: A = q k^T = [[2, 1], [0, 0]], A v = [[2 + 1, 1], [0, 0]]
    q, k = np.array([[[1, 1], [0, 0]]], F), np.array([[[1, 1], [0, 1]]], F)
    v = np.array([[[1, 0], [1, 1]]], F)
    assert_array_equal(spiking_attention(q, k, v, 1, 0.25), [[[0.75, 0.25], [0, 0]]])
    # two heads of one channel: c = 0: A = [[1, 0], [0, 0]], v = (1, 1); c = 1: A = [[1, 1], [0, 0]], v = (0, 1)
    assert_array_equal(spiking_attention(q, k, v, 2, 1.0), [[[1, 1], [0, 0]]])


def test_sums_and_means():
    x = np.arange(16, dtype=F).reshape(2, 2, 2, 2)
    assert_array_equal(sum_over_positions(x), [[6, 22], [38, 54]])
    assert_array_equal(mean_over_positions(x), [[1.5, 5.5], [9.5, 13.5]])
    assert_array_equal(mean_over_positions(tokens_from_map(x)), [[1.5, 5.5], [9.5, 13.5]])
    assert_array_equal(sum_over_time(sum_over_positions(x)), [[44, 76]])
    assert_array_equal(mean_over_time(mean_over_positions(x)), [[5.5, 9.5]])


# --- counts


def test_conv2d_counts_at_borders():
    x = np.zeros((1, 1, 3, 3), F)
    x[0, 0, 0, 0] = x[0, 0, 1, 1] = 1  # under 3x3 with padding 1 a corner has 4 taps, the centre 9
    assert counts.conv2d_counts(x, (2, 1, 3, 3), padding=(1, 1)) == only(acs=2 * (4 + 9))
    x[0, 0, 1, 1] = 5
    graded = counts.conv2d_counts(x, (2, 1, 3, 3), padding=(1, 1), kind="graded")
    assert graded == only(graded_macs=2 * (4 + 9), graded_acs=2 * (4 + 5 * 9))
    assert counts.conv2d_counts(x, (2, 1, 3, 3), padding=(1, 1), kind="real") == only(macs=2 * (4 + 9))
    every = counts.conv2d_counts(x, (2, 1, 3, 3), padding=(1, 1), kind="real", dense=True)
    assert every == only(macs=2 * (4 * 4 + 4 * 6 + 9))


def test_conv2d_counts_with_stride():
    x = np.ones((1, 1, 4, 4), F)
    x[0, 0, 3, 3] = 0
    # 2x2 kernel, stride 3: the windows start at 0 and at 3 (padded by 1: rows -1..0 and 2..3)
    assert counts.conv2d_counts(x, (1, 1, 2, 2), stride=(3, 3), padding=(1, 1)) == only(acs=1 + 2 + 2 + 3)


def test_conv2d_counts_with_groups():
    x = np.ones((3, 4, 1, 1), F)
    x[0, 0] = 0  # 11 spikes, each to the 6 / 2 outputs of its group
    assert counts.conv2d_counts(x, (6, 2, 1, 1), groups=2) == only(acs=33)


def test_conv2d_counts_equal_a_convolution_of_ones():
    x = spikes(0, 2, 4, 5, 6)
    for groups in (1, 2):
        ones = np.ones((6, 4 // groups, 3, 2), F)
        served = conv2d(x, ones, None, (2, 1), (1, 1), groups).sum()
        assert counts.conv2d_counts(x, ones.shape, (2, 1), (1, 1), groups)["acs"] == served


def test_linear_counts():
    x = np.array([[0, 2, -1], [3, 0, 0]], F)
    assert counts.linear_counts(x, (4, 3), "graded") == only(graded_macs=3 * 4, graded_acs=6 * 4)
    assert counts.linear_counts(x, (4, 3), "real") == only(macs=12)
    assert counts.linear_counts(x, (4, 3), "real", dense=True) == only(macs=24)
    assert counts.linear_counts((x != 0).astype(F)[None], (4, 3)) == only(acs=12)


def test_sparse_linear_counts():
    x = np.array([[1, 1, 0], [0, 1, 0]], F)
    weight = np.array([[0, 0.5, 1], [2, 0.25, 0], [0, 0, 0]], F)  # fan-out 1, 2, 1
    assert counts.sparse_linear_counts(x, weight) == only(acs=1 + 2 + 2)
    assert counts.sparse_linear_counts(3 * x, weight, "graded") == only(graded_macs=5, graded_acs=15)
    assert counts.sparse_linear_counts(x, weight, "real", dense=True) == only(macs=8)


def test_attention_counts():
    q, k = np.array([[[1, 1], [0, 0]]], F), np.array([[[1, 1], [0, 1]]], F)
    v = np.array([[[1, 0], [1, 1]]], F)
    # A = [[2, 1], [0, 0]]: 3 coincidences; v[0] has 1 channel, v[1] has 2
    assert counts.attention_counts(q, k, v, 1, "qk_v") == only(acs=3 + 1 + 2)
    # outer products 2 * 1 + 1 * 2; k^T v = [[1, 0], [2, 1]]: q[0] reads row 0 (1 entry) and row 1 (2 entries)
    assert counts.attention_counts(q, k, v, 1, "kv_q") == only(acs=4 + 1 + 2)
    # two heads, c = 0: A = [[1, 0], [0, 0]]; c = 1: A = [[1, 1], [0, 0]], v = (0, 1)
    assert counts.attention_counts(q, k, v, 2, "qk_v") == only(acs=(1 + 1) + (2 + 1))
    # c = 0: k.v = 1 coincidence, entry 1 read by q[0]; c = 1: 1 coincidence, entry 1 read by q[0]
    assert counts.attention_counts(q, k, v, 2, "kv_q") == only(acs=(1 + 1) + (1 + 1))


def test_other_counts():
    assert counts.neuron_updates(np.zeros((3, 2, 4, 5), F)) == 120
    x = np.zeros((1, 1, 4, 4), F)
    x[0, 0, 1, 2] = x[0, 0, 0, 0] = 1
    # windows of 3x3, stride 2, padding 1 begin at -1 and 1: row 1 is in both, column 2 in the second; (0, 0) in one
    assert counts.pooled_values(x, (3, 3), (2, 2), (1, 1), (2, 2)) == 2 + 1
    assert counts.pooled_values(x, (3, 3), (2, 2), (1, 1), (2, 2), dense=True) == 5 * 5  # 2 and 3 rows of 4
    assert counts.residual_add_coincidences(column(0, 1, 2, 1), column(1, 0, 1, 3)) == 2


def test_dense_macs():
    assert dense_macs.conv2d((32, 32), (48, 3, 3, 3), padding=(1, 1)) == 32 * 32 * 48 * 27
    assert dense_macs.conv2d((7, 8), (4, 1, 3, 2), (2, 1), (1, 0)) == 4 * 7 * 4 * 6
    assert dense_macs.linear((10, 384)) == 3840
    assert dense_macs.linear((384, 384), 64) == 64 * 384 * 384
    assert dense_macs.attention(64, 384) == 2 * 64 * 64 * 384


# --- the interpreter


def test_network_runs_in_order_of_its_edges():
    weight = np.array([[1.0, -1.0]], F)
    layers = {
        "difference": ("linear", {"weight": weight}),
        "iand": ("residual", {"op": "iand"}),  # named before its second input
        "swapped": ("residual", {"op": "iand"}),
        "lif": ("lif", {"tau": 1.0, "v_threshold": 0.5}),
        "wide": ("linear", {"weight": np.ones((2, 1), F)}),
    }
    edges = [
        ("input", "iand"),
        ("wide", "iand"),
        ("wide", "swapped"),
        ("input", "swapped"),
        ("input", "difference"),
        ("difference", "lif"),
        ("lif", "wide"),
    ]
    frames = np.array([[1, 0], [1, 1], [0, 1]])
    outputs = network.run(layers, edges, frames)
    assert set(outputs) == {"input", *layers}
    assert all(y.dtype == F for y in outputs.values())
    assert_array_equal(outputs["lif"], [[1], [0], [0]])
    assert_array_equal(outputs["iand"], [[0, 0], [1, 1], [0, 1]])
    assert_array_equal(outputs["swapped"], [[0, 1], [0, 0], [0, 0]])


def test_network_knows_every_kind_on_maps_and_tokens():
    weight = dyadic(0, 4, 2, 3, 3)
    norm = {"gamma": dyadic(1, 4), "beta": dyadic(2, 4), "mean": dyadic(3, 4), "var": np.full(4, 0.25, F), "eps": 0.0}
    pool = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0)}
    chain = [
        ("conv2d", {"weight": weight, "bias": None, "stride": (1, 1), "padding": (1, 1), "groups": 1}),
        ("batch_norm", norm),
        ("lif", {"decay_input": False}),
        ("maxpool2d", pool),
        ("sumpool2d", pool),
        ("avgpool2d", pool),
        ("tokens_from_map", {}),
        ("linear", {"weight": dyadic(4, 6, 4), "bias": dyadic(5, 6)}),
        ("if_neuron", {"reset": "subtract"}),
        ("mean_over_positions", {}),
        ("plif", {"k": plif_factor(0.0)}),
        ("mean_over_time", {}),
        ("flatten", {}),
    ]
    layers = {kind: (kind, parameters) for kind, parameters in chain}
    names = ["input", *layers]
    layers["spiking_attention"] = ("spiking_attention", {"heads": 2, "scale": 0.125})
    edges = [*itertools.pairwise(names), *[("if_neuron", "spiking_attention")] * 3]
    outputs = network.run(layers, edges, spikes(1, 4, 2, 16, 8))
    assert outputs["maxpool2d"].shape == (4, 4, 8, 4)
    assert outputs["spiking_attention"].shape == outputs["linear"].shape == (4, 2, 6)
    assert outputs["flatten"].shape == (1, 6)
    assert outputs["spiking_attention"].any()


def test_network_refuses_a_missing_input():
    with pytest.raises(ValueError, match="without all their inputs"):
        network.run({"a": ("flatten", {})}, [("b", "a")], np.zeros((1, 1), F))
