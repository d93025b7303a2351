"""Attention on small integers, and where they come from: bit for bit, counts by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from plain_rows import check, execute, signal_type
from reference import counts
from reference.attention import spiking_attention
from reference.neurons import integer_activation
from strategies import activity, randoms

from eventsim.layers import IntegerActivation, SpikingAttention

pytestmark = pytest.mark.kernels

F = np.float32
ORDERS = (("scores_first", "qk_v"), ("context_first", "kv_q"))
orders = pytest.mark.parametrize(("order", "product"), ORDERS)


@orders
@given(data=st.data())
def test_attention_on_integers(order, product, data):
    """Any of q, k and v of spikes or integers; v wider or narrower; more or fewer tokens in k and v."""
    heads, size, width = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5)), data.draw(st.integers(1, 6))
    steps, tokens, others = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    kinds = data.draw(st.tuples(*[st.sampled_from(["binary", "graded"])] * 3))
    shapes = ((tokens, heads * size), (others, heads * size), (others, heads * width))
    q, k, v = (data.draw(activity(kind, steps, *shape)) for kind, shape in zip(kinds, shapes, strict=True))
    sources = [signal_type(kind, shape) for kind, shape in zip(kinds, shapes, strict=True)]
    scale = data.draw(st.sampled_from([0.125, 1.0, 0.1]))
    executed = counts.graded_attention_counts(q, k, v, heads, product)
    if "graded" not in kinds:
        executed = {"acs": executed["graded_macs"]}
    layer = SpikingAttention(heads, scale, order)
    check(
        layer,
        list(zip(sources, (q, k, v), strict=True)),
        spiking_attention(q, k, v, heads, scale),
        **executed,
        inputs=q.size + k.size + v.size,
        nonzero_inputs=sum(np.count_nonzero(x) for x in (q, k, v)),
    )
    assert layer.dense_macs(*sources) == tokens * others * heads * (size + width)
    assert layer.output_type(*sources).shape == (tokens, heads * width)


@orders
@given(data=st.data())
def test_spikes_called_integers_cost_the_same(order, product, data):
    """Where every integer is 0 or 1, multiply-accumulates and unary additions are the accumulates of spikes."""
    heads, size, tokens = (data.draw(st.integers(1, 4)) for _ in range(3))
    shape = (tokens, heads * size)
    qkv = [data.draw(activity("binary", 2, *shape)) for _ in range(3)]
    done = {
        kind: execute(SpikingAttention(heads, 0.25, order), [(signal_type(kind, shape), x) for x in qkv], 1)
        for kind in ("binary", "graded")
    }
    assert_array_equal(done["graded"].frames, done["binary"].frames)
    acs = done["binary"].counts.acs
    assert acs == counts.attention_counts(*qkv, heads, product)["acs"]
    assert (done["graded"].counts.graded_macs, done["graded"].counts.graded_acs) == (acs, acs)
    assert done["graded"].counts.acs == 0


def test_attention_on_integers_by_hand():
    """One head, two tokens, one channel: q = (2, 1), k = (3, 0), v = (4, 5)."""
    q, k, v = (np.array(x, F).reshape(1, 2, 1) for x in ([2, 1], [3, 0], [4, 5]))
    kind = signal_type("graded", (2, 1))
    scores, context = (
        execute(SpikingAttention(1, 0.5, order), [(kind, x) for x in (q, k, v)], 1) for order, _ in ORDERS
    )
    assert scores.frames.ravel().tolist() == context.frames.ravel().tolist() == [12, 6]
    # scores 6 and 3 of two pairs; each is added for the 4 units of the first v
    assert (scores.counts.graded_macs, scores.counts.graded_acs) == (2 + 2, 6 + 3 + 4 + 4)
    # one entry 12 of one pair; it is added for the 2 units of the first q and the 1 of the second
    assert (context.counts.graded_macs, context.counts.graded_acs) == (1 + 2, 12 + 2 + 1)


@orders
def test_sums_beyond_what_float32_holds_are_rounded_once(order, product):
    rng = np.random.default_rng(0)
    q, k, v = (rng.integers(1, 256, (1, 40, 32)).astype(F) for _ in range(3))
    kind = signal_type("graded", (40, 32))
    done = execute(SpikingAttention(2, 0.1, order), [(kind, x) for x in (q, k, v)], 1)
    assert done.frames.max() > 2**26
    assert_array_equal(done.frames, spiking_attention(q, k, v, 2, 0.1))


@pytest.mark.parametrize("ties", ["even", "up"])
@pytest.mark.parametrize("kind", ["binary", "graded", "real", "sparse real"])
@given(data=st.data())
def test_integer_activation(kind, ties, data):
    shape = data.draw(st.sampled_from([(3, 2, 4), (5, 3), (7,)]))
    rng, maximum = data.draw(randoms()), data.draw(st.sampled_from([1, 2, 4, 15]))
    x = data.draw(activity(kind.removeprefix("sparse "), data.draw(st.integers(1, 4)), *shape))
    if "real" in kind:
        x *= rng.choice([F(1), F(4), F(20)], x.shape)  # halves between integers, and values above the maximum
    source = signal_type(kind, shape)
    layer = IntegerActivation(maximum, ties)
    comparisons = x.size if source.dense else np.count_nonzero(x)
    check(layer, [(source, x)], integer_activation(x, maximum, ties), comparisons=comparisons)
    assert layer.output_type(source) == signal_type("graded", shape)
    assert layer.neurons(source) == 0


def test_integer_activation_is_that_of_torch():
    torch = pytest.importorskip("torch")
    x = np.concatenate([np.arange(-24, 56) / 8, [0.49999997, 0.50000006, 1e30, -1e30]]).astype(F)
    given = [(signal_type("real", (len(x),)), x[None])]
    clamped = torch.clamp(torch.tensor(x), 0, 4)
    assert_array_equal(execute(IntegerActivation(), given, 1).frames[0], torch.round(clamped))
    assert_array_equal(execute(IntegerActivation(4, "up"), given, 1).frames[0], torch.floor(clamped + 0.5))
