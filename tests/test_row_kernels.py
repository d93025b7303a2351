"""Kernels that change the values of rows or move them, against plain NumPy; `nojit` runs them uncompiled, too."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from plain_rows import csr

from eventsim.kernels.filling import add, divide_by_row, increase, repeat
from eventsim.kernels.moving import concat_channels, concat_rows, flatten_tokens, move_rows, take_values
from eventsim.kernels.rows import unlist
from eventsim.kernels.values_of_channels import (
    add_neighbours,
    add_up_rows,
    gate_channels,
    limit,
    list_above,
    scale_and_shift,
)
from eventsim.kernels.values_of_rows import add_up_steps, divide_rows, gate_by_values, limit_rows, scale_rows

pytestmark = [pytest.mark.kernels, pytest.mark.nojit]

F = np.float32
SPIKES = np.array([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1], [1, 1, 1, 1]], F)
VALUES = SPIKES * np.array([[1.5, 1, -2, 3], [1, 1, 1, 1], [1, 0.25, 1, -1], [5, 6, 7, 8]], F)
BOTH = pytest.mark.parametrize("data", [SPIKES, VALUES], ids=["spikes", "values"])


def rows_of(data: np.ndarray) -> tuple[np.ndarray, ...]:
    """Rows in arrays with room for more, in which lies something else."""
    indptr, indices, values = csr(data, data is SPIKES)
    more = np.full(3, 9, np.int32)
    return indptr, np.append(indices, more), np.append(values, more.astype(F)) if data is not SPIKES else values


def room(rows: int, count: int) -> tuple[np.ndarray, ...]:
    return np.full(rows + 1, -7), np.full(count + 1, -7, np.int32), np.full(count + 1, -7, F)


def check_rows(found: tuple[np.ndarray, ...], expected: np.ndarray) -> None:
    indptr, indices, values = csr(expected)
    assert_array_equal(found[0], indptr)
    assert_array_equal(found[1][: indptr[-1]], indices)
    assert_array_equal(found[2][: indptr[-1]], values)


@BOTH
def test_every_channel_is_written(data):
    out = np.full_like(data, -7)
    unlist(*rows_of(data), out)
    assert_array_equal(out, data)


@pytest.mark.parametrize("divisors", [[3], [3, 4]])
def test_rows_are_divided_by_those_of_their_position(divisors):
    rows = rows_of(VALUES)
    divide_rows(*rows, np.array(divisors, F))
    check_rows(rows, VALUES / np.resize(np.array(divisors, F), 4)[:, None])


@pytest.mark.parametrize("divisors", [[4], [4, 1]])
def test_what_a_division_makes_0_is_dropped(divisors):
    """The least number above 0 has no quarter."""
    data = VALUES.copy()
    data[0, 0], data[2, 3], data[3, 1] = 1e-45, -1e-45, 1e-45
    expected = data / np.resize(np.array(divisors, F), 4)[:, None]
    assert np.count_nonzero(expected) == np.count_nonzero(data) - (3 if len(divisors) == 1 else 2)
    rows = rows_of(data)
    divide_rows(*rows, np.array(divisors, F))
    check_rows(rows, expected)


@BOTH
@pytest.mark.parametrize("scale", [[[2, 0.5, 0, -1]], [[2, 0.5, 0, -1], [0, 0, 3, 0.1]]])
def test_a_scale_of_0_silences(data, scale):
    scale, scaled = np.array(scale, F), room(4, 16)
    scale_rows(rows_of(data), scale, scaled)
    check_rows(scaled, data * np.resize(scale, data.shape))


@BOTH
@pytest.mark.parametrize(("least", "most"), [(0, np.inf), (-1.5, 0.5), (-np.inf, 0)])
def test_rows_within_limits(data, least, most):
    limited = room(4, 16)
    limit_rows(rows_of(data), F(least), F(most), limited)
    check_rows(limited, np.clip(data, F(least), F(most)))
    out = np.full_like(data, -7)
    limit(data, F(least), F(most), out)
    assert_array_equal(out, np.clip(data, F(least), F(most)))


@BOTH
def test_gates_with_values(data):
    """One row of gates for two rows, one gate for two channels."""
    gate = np.array([[2, 0], [-0.5, 3]], F)
    expected, gated = data * np.repeat(np.repeat(gate, 2, axis=0), 2, axis=1), room(4, 16)
    gate_by_values(gate, rows_of(data), 2, 2, gated)
    check_rows(gated, expected)
    out = np.full_like(data, -7)
    gate_channels(gate, data, 2, 2, out)
    assert_array_equal(out, expected)


def test_values_of_each_step_are_added_up():
    counts = SPIKES[::-1] * F(3)
    indptr, _, values = rows_of(counts)
    sums = np.full(2, -7)
    add_up_steps(indptr, values, 2, sums)
    assert sums.tolist() == [18, 9]


@BOTH
@pytest.mark.parametrize("other", [SPIKES, VALUES], ids=["spikes", "values"])
def test_rows_one_behind_the_other(data, other):
    b = other[::-1].copy() if other is VALUES else SPIKES
    joined = room(4, 32)
    concat_rows(rows_of(data), rows_of(b), 4, joined)
    check_rows(joined, np.concatenate([data, b], axis=1))
    out = np.full((4, 8), -7, F)
    concat_channels(data, b, out)
    assert_array_equal(out, np.concatenate([data, b], axis=1))


def test_spikes_one_behind_the_other_have_no_values():
    indptr, indices, _ = room(4, 32)
    concat_rows(rows_of(SPIKES), rows_of(SPIKES), 4, (indptr, indices, np.empty(0, F)))
    expected = csr(np.concatenate([SPIKES, SPIKES], axis=1))
    assert_array_equal(indptr, expected[0])
    assert_array_equal(indices[: indptr[-1]], expected[1])


@BOTH
def test_moving_to_several_places_and_to_none(data):
    """Two rows of 4 become three of 3; what is at place 1 goes nowhere, what is at 2 to two places."""
    taken = np.array([7, 2, -1, 2, 0, 3, 4, 5, 6])
    filled = np.flatnonzero(taken >= 0)
    places = filled[np.argsort(taken[filled], kind="stable")]
    begins = np.concatenate([[0], np.cumsum(np.bincount(taken[filled], minlength=8))])
    given = data.reshape(2, 8)
    expected = np.where(taken < 0, F(0), given[:, taken])
    moved = room(6, 18)
    move_rows(rows_of(data), (2, 4), (3, 3), (begins, places), moved)
    check_rows(moved, expected.reshape(6, 3))
    out = np.full((2, 9), -7, F)
    take_values(given, taken, out)
    assert_array_equal(out, expected)


@BOTH
def test_tokens_become_one_row(data):
    rows, (indptr, flat, _) = rows_of(data), room(2, 16)
    flatten_tokens(rows, 2, 4, indptr, flat)
    expected = csr(data.reshape(2, 8))
    assert_array_equal(indptr, expected[0])
    assert_array_equal(flat[: indptr[-1]], expected[1])


@pytest.mark.parametrize("positions", [1, 2])
def test_scaled_and_shifted(positions):
    scale, shift = np.arange(1, 4 * positions + 1, dtype=F).reshape(positions, 4), np.array([[1, -1, 0.5, 0]], F)
    out = np.full_like(VALUES, -7)
    scale_and_shift(VALUES, scale, shift, out)
    assert_array_equal(out, VALUES * np.resize(scale, VALUES.shape) + shift)
    scale_and_shift(VALUES, scale, np.empty((0, 4), F), out)
    assert_array_equal(out, VALUES * np.resize(scale, VALUES.shape))


@pytest.mark.parametrize("strict", [True, False])
def test_what_is_above_a_threshold_is_listed(strict):
    threshold = np.array([[1.5, 0, -2, 3], [0, 0.25, 1, -2]], F)
    indptr, indices, _ = room(4, 16)
    list_above(VALUES, threshold, strict, indptr, indices)
    least = np.resize(threshold, VALUES.shape)
    expected = csr((least < VALUES if strict else least <= VALUES).astype(F))
    assert_array_equal(indptr, expected[0])
    assert_array_equal(indices[: indptr[-1]], expected[1])


def test_sums_of_neighbours_and_so_far():
    sums = np.full((4, 2), -7, F)
    add_neighbours(VALUES, 2, sums)
    assert_array_equal(sums, VALUES.reshape(4, 2, 2).sum(axis=2))
    total, so_far = np.array([1, 2, 3, 4], F), np.full_like(VALUES, -7)
    expected = np.cumsum(VALUES, axis=0) + total
    add_up_rows(VALUES, total, so_far)
    assert_array_equal(so_far, expected)
    assert_array_equal(total, expected[-1])


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_what_has_fewer_elements_is_repeated(rows):
    term = VALUES[:rows].copy()
    whole = np.resize(term, VALUES.shape)
    out = np.full_like(VALUES, -7)
    repeat(term, out)
    assert_array_equal(out, whole)
    add(SPIKES, term, out)
    assert_array_equal(out, SPIKES + whole)
    increase(out, term)
    assert_array_equal(out, SPIKES + whole + whole)
    divide_by_row(out, np.arange(1, rows + 1, dtype=F))
    assert_array_equal(out, (SPIKES + whole + whole) / np.resize(np.arange(1, rows + 1, dtype=F), 4)[:, None])


def test_nothing_is_repeated_for_no_steps():
    nothing = np.empty((0, 4), F)
    repeat(nothing, nothing)
    add(nothing, nothing, nothing)
    increase(nothing, nothing)
    divide_rows(np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, F), np.ones(1, F))
