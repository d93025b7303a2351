"""Kernels of real values called directly, on awkward shapes and between guards, against sums in float64.

The vectors are LLVM intrinsics, of which bounds checks see nothing: their arrays lie between guards that turn a stray
read into NaN and show a stray write. Tests marked `nojit` also pass uncompiled, where plain loops stand in.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from reference.softmax_attention import softmax_attention
from strategies import randoms

from eventsim.kernels.attention_pool import pool_by_attention
from eventsim.kernels.exponentials import sigmoids, soften
from eventsim.kernels.layer_norm import normalise
from eventsim.kernels.softmax_attention import attend_softly
from eventsim.kernels.vectors import LANES, ROWS, product, transform, weigh

pytestmark = pytest.mark.kernels

F = np.float32
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 28, 31, 32, 33, 48, 63, 64, 77)
sizes = st.sampled_from(SIZES)
ULP = 2.0**-23


def guarded(array: np.ndarray, value: float = np.nan) -> tuple[np.ndarray, np.ndarray]:
    """A copy of an array inside a larger one filled with a value, and the larger one."""
    room = np.full(array.size + 256, value, array.dtype)
    inside = room[128 : 128 + array.size].reshape(array.shape)
    inside[...] = array
    return inside, room


def untouched(room: np.ndarray, value: float) -> bool:
    return bool((room[:128] == value).all() and (room[-128:] == value).all())


@st.composite
def normals(draw, *shape: int) -> np.ndarray:
    return draw(randoms()).normal(size=shape).astype(F)


def whole(size: int) -> int:
    """The size in whole vectors."""
    return -(-size // LANES) * LANES


@given(data=st.data(), depth=sizes, vectors=st.integers(1, 4), more=st.integers(0, 3))
def test_product(data, depth, vectors, more):
    """Rows of the first matrix may be longer than they are read."""
    a, b = data.draw(normals(ROWS, depth + more)), data.draw(normals(depth, vectors * LANES))
    a[:, depth:] = np.nan
    (a, _), (b, _), (c, room) = guarded(a), guarded(b), guarded(np.full((ROWS, vectors * LANES), 7, F), 12345)
    product(a, b, c, F(0.25))
    terms = np.abs(a[:, :depth]).astype(float) @ np.abs(b)
    assert (np.abs(c - 0.25 * (a[:, :depth].astype(float) @ b)) <= 0.25 * depth * ULP * terms).all()
    assert untouched(room, 12345)


@given(data=st.data(), rows=st.integers(1, 9), width=sizes, same=st.booleans())
def test_transform(data, rows, width, same):
    matrix, vector, bias = (data.draw(normals(*shape)) for shape in ((rows, width), (width,), (1 if same else rows,)))
    (matrix, _), (vector, _), (bias, _) = guarded(matrix), guarded(vector), guarded(bias)
    out, room = guarded(np.full(rows, 7, F), 12345)
    transform(matrix, vector, bias, out)
    terms = np.abs(matrix).astype(float) @ np.abs(vector) + np.abs(bias)
    assert (np.abs(out - (matrix.astype(float) @ vector + bias)) <= (width + 1) * ULP * terms).all()
    assert untouched(room, 12345)


@given(data=st.data(), rows=st.integers(1, 40), width=sizes)
def test_weigh(data, rows, width):
    (weights, _), (matrix, _) = guarded(data.draw(normals(rows))), guarded(data.draw(normals(rows, width)))
    out, room = guarded(np.full(width, 7, F), 12345)
    weigh(weights, matrix, out)
    terms = np.abs(weights).astype(float) @ np.abs(matrix)
    assert (np.abs(out - weights.astype(float) @ matrix) <= rows * ULP * terms).all()
    assert untouched(room, 12345)


@given(data=st.data(), rows=st.integers(1, 9), width=sizes, given_back=st.booleans())
def test_normalise(data, rows, width, given_back):
    """Also to where the rows are; rows on their own are those among others, whose sums have the same order."""
    x, weight, bias = (data.draw(normals(*shape)) for shape in ((rows, width), (width,), (width,)))
    expected = np.empty((rows, width))
    for row, values in enumerate(x.astype(float)):
        centred = values - values.mean()
        expected[row] = centred / np.sqrt(np.square(centred).mean() + 0.5) * weight + bias
    (given_, room), (weight, _), (bias, _) = guarded(x, 12345), guarded(weight), guarded(bias)
    out, room = (given_, room) if given_back else guarded(np.full((rows, width), 7, F), 12345)
    normalise(given_, weight, bias, F(0.5), out)
    assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
    assert untouched(room, 12345)
    alone = np.empty((1, width), F)
    for row in range(rows):
        normalise(x[row : row + 1], weight, bias, F(0.5), alone)
        assert_array_equal(alone[0], out[row])


@pytest.mark.parametrize("rows", [1, ROWS])
@given(data=st.data(), width=sizes, spread=st.sampled_from([1.0, 30.0, 1000.0]))
def test_soften(rows, data, width, spread):
    given_ = np.full((rows, whole(width)), np.nan, F)
    given_[:, :width] = data.draw(normals(rows, width)) * F(spread)
    softened, room = guarded(given_, 12345)
    totals, totals_room = guarded(np.full(rows, 7, F), 12345)
    soften(softened, width, totals)
    exponents = given_[:, :width] - given_[:, :width].max(axis=1, keepdims=True)  # as rounded to float32
    expected = np.exp(exponents.astype(float))
    assert (np.abs(softened[:, :width] - expected) <= 1.5 * ULP * expected + 2e-38).all()
    assert (softened[:, :width][exponents < -110] == 0).all()
    assert_allclose(totals, expected.sum(axis=1), rtol=1e-5)
    assert (softened[:, width:] == 0).all()
    assert untouched(room, 12345)
    assert untouched(totals_room, 12345)


@pytest.mark.nojit
def test_exponentials_by_steps_of_all_exponents():
    """Every binary exponent, with many fractions; uncompiled NumPy's are taken."""
    x = -np.geomspace(1e-9, 86.9, 1250 * LANES).astype(F)
    row = np.concatenate([x, np.zeros(LANES, F)])[None]
    totals = np.empty(1, F)
    softened = row.copy()
    soften(softened, row.shape[1], totals)
    expected = np.exp(row.astype(float))
    assert (np.abs(softened - expected) / expected).max() <= 1.5 * ULP
    assert softened[0, -1] == 1


@pytest.mark.nojit
def test_what_is_no_number_stays_none():
    row = np.zeros((1, LANES), F)
    row[0, 3] = np.nan
    totals = np.empty(1, F)
    soften(row, LANES, totals)
    assert np.isnan(row[0, 3])
    assert np.isnan(totals[0])


@pytest.mark.nojit
def test_sigmoids():
    row = np.array([0, 1, -1, 20, -20, 90, -90, 1e4, -1e4, 87, -87, 1e-9, 3, -3, 0.5, -0.5], F)
    expected = 1 / (1 + np.exp(-np.clip(row.astype(float), -700, 700)))
    sigmoids(row)
    assert_allclose(row, expected, rtol=4 * ULP, atol=1e-37)
    assert row[7] == 1
    assert row[8] == 0


@pytest.mark.parametrize("axis", ["space", "time"])
@given(data=st.data(), heads=st.integers(1, 3), size=st.sampled_from([1, 2, 5, 16, 17, 33]))
def test_attention(axis, data, heads, size):
    """Parts of the groups, each served on its own, write what all together do, and nothing else."""
    steps, positions = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 20))
    x = data.draw(normals(steps, positions, 3 * heads * size))
    tokens, groups, pitches = (
        (positions, steps, (positions, 1)) if axis == "space" else (steps, positions, (1, positions))
    )
    qkv, _ = guarded(x.reshape(steps * positions, -1))
    out, room = guarded(np.full((steps * positions, heads * size), 7, F), 12345)
    attend_softly(qkv, heads, (0, groups), pitches, tokens, F(size**-0.5), out)
    assert_allclose(out.reshape(steps, positions, -1), softmax_attention(x, heads, axis), rtol=1e-4, atol=1e-5)
    assert untouched(room, 12345)
    cut, parts = data.draw(st.integers(0, groups)), np.full_like(out, 7)
    attend_softly(qkv, heads, (cut, groups), pitches, tokens, F(size**-0.5), parts)
    by_group = parts.reshape(steps, positions, -1)
    assert ((by_group[:cut] if axis == "space" else by_group[:, :cut]) == 7).all()
    attend_softly(qkv, heads, (0, cut), pitches, tokens, F(size**-0.5), parts)
    assert_array_equal(parts, out)


@pytest.mark.nojit
def test_attention_where_one_token_is_all():
    """Scores so far apart that one weight is 1 and the others are 0."""
    x = np.zeros((2, 6), F)
    x[:, :2], x[0, 2:4], x[1, 2:4] = 10, 100, -100
    x[:, 4:] = [[1, 2], [3, 4]]
    out = np.empty((2, 2), F)
    attend_softly(x, 1, (0, 1), (2, 1), 2, F(1), out)
    assert_array_equal(out, [[1, 2], [1, 2]])


@pytest.mark.nojit
def test_a_pool_that_meets_the_largest_logit_last():
    """The first step's weight becomes nothing beside the second's; half of the third's equal logits are its own."""
    seen, pooled, mean = np.array([-np.inf, 0], F), np.zeros(2, F), np.empty(2, F)
    steps = F([[[1, 7]], [[1000, 5]], [[1000, 9]]])
    for step in steps:
        pool_by_attention(step[None], F([1, 0]), seen, pooled, mean)
    assert_array_equal(mean, [1000, 7])
    together, all_at_once = np.array([-np.inf, 0], F), np.zeros(2, F)
    pool_by_attention(steps, F([1, 0]), together, all_at_once, mean)
    assert_array_equal(mean, [1000, 7])
    assert_array_equal(all_at_once, pooled)
    assert_array_equal(together, seen)
