"""Spiking attention through a table: against the dense reference, its work pair by pair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from plain_rows import check, execute, signal_type
from reference import dense_macs
from reference.attention import spiking_attention
from reference.table_attention import table_attention, table_attention_counts
from strategies import activity, randoms

from eventsim import InputError, NetworkBuilder
from eventsim.layers import Input, SpikingAttention, TableAttention

F = np.float32
pytestmark = [pytest.mark.nojit, pytest.mark.kernels]


@st.composite
def cases(draw):
    """A table, the type of q, k and v, and one to four frames of each."""
    heads, dim = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    source = signal_type("binary", (draw(st.integers(1, 9)), heads * dim))
    steps = draw(st.integers(1, 4))
    frames = [draw(activity("binary", steps, *source.shape)) for _ in range(3)]
    rng, largest = draw(randoms()), draw(st.sampled_from([1, 3, 40]))
    table = rng.integers(-largest, largest + 1, (heads, dim + 1)).astype(draw(st.sampled_from([np.int32, np.int64])))
    table[:, 0] = 0
    return table, source, frames


@given(case=cases(), scale=st.sampled_from([0.125, 0.25, 1.0, 0.1]))
def test_table_attention(case, scale):
    table, source, (q, k, v) = case
    layer = TableAttention(table, scale)
    check(
        layer,
        [(source, q), (source, k), (source, v)],
        table_attention(q, k, v, table, scale),
        inputs=q.size * 3,
        nonzero_inputs=sum(np.count_nonzero(x) for x in (q, k, v)),
        **table_attention_counts(q, k, v, table),
    )
    assert layer.dense_macs(source, source, source) == dense_macs.attention(source.positions, source.channels)


@given(case=cases())
def test_identity_table_is_plain_attention(case):
    table, source, frames = case
    heads, entries = table.shape
    identity = np.tile(np.arange(entries, dtype=np.int32), (heads, 1))
    inputs = [(source, x) for x in frames]
    plain = execute(SpikingAttention(heads, 0.25), inputs, 2)
    done = execute(TableAttention(identity, 0.25), inputs, 2)
    assert_array_equal(done.frames, plain.frames)
    assert_array_equal(done.frames, spiking_attention(*frames, heads, 0.25))
    assert done.counts.acs == plain.counts.acs
    assert done.counts.kept_scores == done.counts.nonzero_scores == done.counts.table_lookups


def test_sums_beyond_32_bits_are_exact():
    ones = np.ones((1, 8, 4), F)
    source = signal_type("binary", (8, 4))
    table = np.array([[0, 0, 0, 0, 2**30]], np.int32)
    done = execute(TableAttention(table, 1.0), [(source, ones)] * 3, 1)
    assert_array_equal(done.frames, np.full((1, 8, 4), F(2.0**33)))


def test_denoised_scores_cost_nothing_more():
    """Half of the map is noise of one coincidence: it is formed and looked up, but meets no spike of v."""
    q = np.array([[[1, 0], [1, 1]]], F)
    k = v = np.ones((1, 2, 2), F)
    source = signal_type("binary", (2, 2))
    done = execute(TableAttention(np.array([[0, 0, 5]], np.int32), 1.0), [(source, q), (source, k), (source, v)], 1)
    assert_array_equal(done.frames, np.array([[[0, 0], [10, 10]]], F))
    assert (done.counts.scores, done.counts.nonzero_scores, done.counts.kept_scores) == (4, 4, 2)
    assert done.counts.removed_scores == 2
    assert done.counts.acs == 6 + 2 * 2


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.zeros((2, 4), np.int32), "table of 4 entries per head found; expected 3, one for each score from 0 to 2"),
        (np.zeros((3, 2), np.int32), "table for 3 heads found; expected a divisor of the 4 channels"),
        (np.zeros((0, 5), np.int32), "table for 0 heads found"),
        (np.array([[0, 1, 2], [-7, 1, 2]]), "table entry -7 for score 0 found; expected 0"),
        (np.zeros((2, 3), F), r"table of float32 \(2, 3\) found; expected integers"),
        (np.zeros(3, np.int32), r"table of int32 \(3,\) found; expected integers"),
        (np.array([[0, 1, 2**31]]), "table of 3 entries"),
        (np.array([[0, 1, 2, 3, 2**31]]), "table entry beyond 2147483647 found; expected 32-bit integers"),
    ],
)
def test_bad_tables_are_refused(table, message):
    build = NetworkBuilder("bad")
    x = build.add("input", Input((5, 4), "binary"))
    with pytest.raises(InputError, match=f"^layer attn: {message}"):
        build.add("attn", TableAttention(table), x, x, x)


def test_only_spikes_attend():
    build = NetworkBuilder("bad")
    x = build.add("input", Input((5, 4), "graded"))
    with pytest.raises(InputError, match="layer attn: q graded 5x4, k graded 5x4, v graded 5x4 found; expected spikes"):
        build.add("attn", TableAttention(np.zeros((1, 5), np.int32)), x, x, x)
