"""Global context against the reference: exactly where the arithmetic is dyadic, else within a tolerance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from plain_rows import check, chunks, execute, main, signal_type
from reference.global_context import global_context
from strategies import activity, randoms, weights

from eventsim.layers import GlobalContext, LayerError
from eventsim.ledger import Counts

F = np.float32
INPUTS = ("binary", "graded", "real", "sparse real")
NORMALISATIONS = ("softmax", "sigmoid")
COMBINATIONS = ("additive", "gated")
inputs = pytest.mark.parametrize("kind", INPUTS)
normalisations = pytest.mark.parametrize("normalisation", NORMALISATIONS)
combinations = pytest.mark.parametrize("combination", COMBINATIONS)


def as_tokens(frames: np.ndarray) -> np.ndarray:
    """(T, C, H, W) as (T, N, C)."""
    return np.moveaxis(frames, 1, -1).reshape(len(frames), -1, frames.shape[1])


def as_maps(tokens: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.moveaxis(tokens.reshape(len(tokens), *shape[2:], shape[1]), -1, 1)


def counted(x: np.ndarray, hidden: int, norm: bool, gated: bool) -> dict[str, int]:
    """Products of the key, the sum over positions, value, query; of the normalisation; of the gates."""
    steps, channels = x.shape[:2]
    macs = 2 * x.size + steps * (2 * hidden * channels + 2 * hidden * norm) + x.size * gated
    offered = {"inputs": x.size, "nonzero_inputs": int(np.count_nonzero(x))}
    return {**offered, "macs": macs, "additions": 0 if gated else x.size}


@combinations
@normalisations
@inputs
@given(data=st.data())
def test_exact_where_weights_of_positions_and_gates_are_dyadic(kind, normalisation, combination, data):
    """Equal logits at 2**k positions weigh 1 / 2**k (softmax) or 1/2 (sigmoid); large ones open or shut a gate."""
    channels, hidden, steps = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
    grid = data.draw(st.sampled_from([(1, 1), (1, 2), (2, 2), (2, 4), (4, 4)]))
    x = data.draw(activity(kind.removeprefix("sparse "), steps, channels, *grid))
    zeros, anything = np.zeros(channels, F), data.draw(weights(1))
    key = (zeros, anything if normalisation == "softmax" else np.zeros(1, F))
    value = (data.draw(weights(hidden, channels)), data.draw(weights(hidden)))
    query = (data.draw(weights(channels, hidden)), data.draw(weights(channels)))
    if combination == "gated":
        query = (query[0] * F(2**20), data.draw(randoms()).choice(np.array([-256, 256], F), channels))
    layer = GlobalContext(*key, *value, *query, normalisation=normalisation, combination=combination)
    expected = global_context(as_tokens(x), key, value, query, None, normalisation, combination)
    source = signal_type(kind, x.shape[1:])
    gated = combination == "gated"
    check(layer, [(source, x)], as_maps(expected, x.shape), **counted(x, hidden, False, gated))
    assert layer.dense_macs(source) * steps == counted(x, hidden, False, False)["macs"]
    assert layer.parameters == 3 * channels + 1 + (2 * channels + 1) * hidden - channels


@combinations
@normalisations
@pytest.mark.parametrize("norm", [False, True])
@given(data=st.data())
def test_real_weights_agree_within_a_tolerance_and_exactly_for_every_chunk(norm, normalisation, combination, data):
    rng = data.draw(randoms())
    channels, hidden, steps = data.draw(st.integers(1, 20)), data.draw(st.integers(2, 6)), data.draw(st.integers(1, 4))
    x = rng.normal(size=(steps, channels, data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6)))).astype(F)
    key, value, query, scale = (
        (rng.normal(size=weight).astype(F), rng.normal(size=bias).astype(F))
        for weight, bias in ((channels, 1), ((hidden, channels), hidden), ((channels, hidden), channels), (hidden,) * 2)
    )
    eps = data.draw(st.sampled_from([1e-5, 0.5]))
    arrays = (*key, *value, *query, *(scale if norm else ()))
    layer = GlobalContext(*arrays, normalisation=normalisation, combination=combination, eps=eps)
    expected = global_context(as_tokens(x), key, value, query, scale if norm else None, normalisation, combination, eps)
    done = [execute(layer, [(signal_type("real", x.shape[1:]), x)], chunk) for chunk in chunks(steps)]
    near = 1e-3 if norm and eps < 0.1 else 1e-4  # a normalisation of nearly equal values enlarges their error
    assert_allclose(done[0].frames, as_maps(expected, x.shape), rtol=near, atol=near)
    for other in done:
        assert_array_equal(other.frames, done[0].frames)
        assert main(other.counts) == Counts(**counted(x, hidden, norm, combination == "gated"))


@normalisations
def test_large_logits_do_not_overflow(normalisation):
    x = np.zeros((1, 1, 1, 2), F)
    x[..., 0], x[..., 1] = 1, -1
    one, zero = np.ones((1, 1), F), np.zeros(1, F)
    layer = GlobalContext(F([1e4]), zero, one, zero, one, zero, normalisation=normalisation)
    done = execute(layer, [(signal_type("real", (1, 1, 2)), x)], 1)
    assert_array_equal(done.frames.ravel(), [2, 0])  # the first position weighs 1, the second 0


def test_a_static_image_is_attended_to_once():
    layer = GlobalContext(*(np.ones(shape, F) for shape in (2, 1, (1, 2), 1, (2, 1), 2)))
    assert layer.op(signal_type("real", (2, 3, 3))).once_if_static
    assert not layer.op(signal_type("real", (2, 3, 3))).looks_ahead


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"key_weight": np.ones(5, F)}, r"key_weight of shape \(5,\) found; expected \(6,\)"),
        ({"key_bias": np.ones(2, F)}, r"key_bias of shape \(2,\) found; expected \(1,\)"),
        ({"value_weight": np.ones((2, 5), F)}, r"value_weight of shape \(2, 5\) found; expected \(2, 6\)"),
        ({"value_bias": np.ones(3, F)}, r"value_bias of shape \(3,\) found; expected \(2,\)"),
        ({"query_weight": np.ones((6, 3), F)}, r"query_weight of shape \(6, 3\) found; expected \(6, 2\)"),
        ({"query_bias": np.ones(2, F)}, r"query_bias of shape \(2,\) found; expected \(6,\)"),
        ({"norm_bias": np.ones(3, F)}, r"norm_bias of shape \(3,\) found; expected \(2,\)"),
        ({"norm_weight": None}, "only one of norm_weight and norm_bias found; expected both or neither"),
        ({"normalisation": "max"}, r"normalisation 'max' found; expected one of \('softmax', 'sigmoid'\)"),
        ({"combination": "and"}, r"combination 'and' found; expected one of \('additive', 'gated'\)"),
    ],
)
def test_what_does_not_fit_is_named(change, words):
    shapes = {"key_weight": 6, "key_bias": 1, "value_weight": (2, 6), "value_bias": 2, "query_weight": (6, 2)}
    shapes |= {"query_bias": 6, "norm_weight": 2, "norm_bias": 2}
    fields = {name: np.ones(shape, F) for name, shape in shapes.items()}
    GlobalContext(**fields).output_type(signal_type("real", (6, 2, 2)))
    with pytest.raises(LayerError, match=words):
        GlobalContext(**{**fields, **change}).output_type(signal_type("real", (6, 2, 2)))
