"""What is known of the values that reached a layer, and of its synapses, against the arrays themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from reference.counts import conv2d_counts

from eventsim import Network, Simulator
from eventsim.context import Context
from eventsim.layers import Conv2d, Conv3d, Linear
from eventsim.layers.listing import rows_from_dense
from eventsim.ledger import Ledger
from eventsim.looking import look_at, watch
from eventsim.signals import Dense, Signal, SignalType
from eventsim.testing import strategies
from eventsim.values import MOST_LEVELS, Values

pytestmark = pytest.mark.kernels
KINDS = [SignalType("binary", 3, (2,)), SignalType("graded", 3, (2,)), SignalType("real", 3, (2,))]
KINDS += [SignalType("real", 3, (2,), dense=True)]


@given(st.data(), st.sampled_from(KINDS), st.integers(0, 3))
def test_values_are_those_of_the_array(data: st.DataObject, kind: SignalType, chunks: int) -> None:
    taken, arrays = Values(), [np.empty(0, np.float32)]
    for _ in range(chunks):
        signal = data.draw(strategies.signals(kind))
        take(taken, signal)
        arrays.append(signal.to_array().ravel())
    check(taken, np.concatenate(arrays))


@pytest.mark.nojit
@pytest.mark.parametrize(
    "values",
    [
        np.arange(31), np.arange(32), np.arange(31) / 2, np.arange(32) / 2, [30, 30], [31, 31], [-1, 0], [0.3, 0],
        [1] * 300, np.arange(300) % 31, np.arange(300) % 32, [*[0] * 290, *range(10)], [*[5] * 290, *range(10)],
        [1, 1], [2, 1], np.arange(3000) % 7 / 2, [*[0.5] * 2100, *range(3, 12)], [*[0.5] * 1500, -2, 0, 40],
        np.arange(2500) / 4 - 300, [*[2] * 1030, 0.5, *[7] * 1100, 31], [2.5] * 1040,
    ],
)  # fmt: skip
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("parts", [1, 2])
def test_the_limits_of_the_levels(values: Any, dense: bool, parts: int) -> None:
    """The longest list that is kept, values that are looked at in part first, and lists that grow by a chunk."""
    array, taken = np.asarray(values, np.float32), Values()
    for part in np.array_split(array, parts):
        kind = SignalType("real", 1, (len(part),), dense)
        column = part[:, None]
        take(taken, Dense(kind, 1, column) if dense else rows_from_dense(kind, 1, column))
    check(taken, array)
    assert taken.levels is None or len(taken.levels) <= MOST_LEVELS


def test_values_of_a_step_are_added_up_in_one_order_whatever_came_before() -> None:
    """Sums of float64 that are rounded: 2**30 and 0.3 by turns, behind nothing, few levels, and many."""
    values = np.tile(np.array([2.0**30, 0.3], np.float32), 1200)
    sums = []
    for before in (np.zeros(2400), np.arange(2400) % 5 / 2, np.arange(2400) / 8):
        column = np.concatenate([before, values]).astype(np.float32)[:, None]
        signal = Dense(SignalType("real", 1, (2400,), dense=True), 2, column)
        sums.append(look_at(signal, context_of(signal)).read().rest[1])
    assert sums[0] == sums[1] == sums[2]


def context_of(signal: Signal) -> Context:
    return Context(True, Ledger(["layer"], signal.steps).rows("layer", 0, signal.steps))


def take(taken: Values, signal: Signal) -> None:
    watch([taken], [signal], context_of(signal), multiplies=False)


def check(taken: Values, array: np.ndarray) -> None:
    assert (taken.elements, taken.nonzero) == (array.size, np.count_nonzero(array))
    assert taken.others == np.count_nonzero((array != 0) & (array != 1))
    assert taken.total == pytest.approx(array.sum(dtype=float))
    assert taken.spikes == bool(np.isin(array, (0, 1)).all())
    if array.size:
        assert (taken.low, taken.high) == (array.min(), array.max())
        assert taken.density == np.count_nonzero(array) / array.size
    levels = set(array.tolist())
    few = len(levels) <= 31 and all(0 <= level <= 30 for level in levels)
    assert taken.levels == (levels if few else None)


@pytest.mark.nojit
@pytest.mark.parametrize("dense", [False, True])
def test_a_signal_is_looked_at_once(dense: bool) -> None:
    """Whoever hears it shares what was found; values that are not small integers begin within a block of them."""
    column = np.array([[2], [0], *[[1]] * 1030, [-1], [0.5], [3]], np.float32)
    kind = SignalType("real", 1, (len(column),), dense)
    signal = Dense(kind, 1, column) if dense else rows_from_dense(kind, 1, column)
    looked = look_at(signal, context_of(signal))
    assert look_at(signal, context_of(signal)) is looked
    found = looked.read()
    assert (found.ones, found.others, found.low, found.high, found.levels) == (1030, 4, -1, 3, None)
    assert found.rest == [4.5]
    assert looked.valued(1).tolist() == [3]
    assert signal.nonzeros_by_step.tolist() == [1034]
    first, second = Values(), Values()
    for values in (first, second):
        take(values, signal)
    assert first == second


@given(st.data(), strategies.networks())
def test_layers_know_the_values_that_reached_them(data: st.DataObject, network: Network) -> None:
    """Whatever the chunk, and in a stream that was carried elsewhere; by time step in the ledger."""
    frames = data.draw(strategies.frames(network))
    whole = Simulator(network, record=network.layers).run(frames)
    single = Simulator(network, chunk=1).run(frames)
    stream = Simulator(network)
    for frame in frames[:-1]:
        stream.step(frame)
    elsewhere = Simulator(network)
    if len(frames) > 1:
        elsewhere.restore(stream.state())
    streamed = elsewhere.step(frames[-1])
    watched = 0
    for layer, alone, last in zip(whole.profile, single.profile, streamed.profile, strict=True):
        inputs = [whole.recorded[edge.source] for edge in network.inputs[layer.name] if not edge.delay]
        if layer.values and len(inputs) == len(layer.values) and layer.steps == len(frames):
            watched += 1
            for values, array in zip(layer.values, inputs, strict=True):
                check(values, array.ravel())
            if layer.dense_macs:
                valued = sum(np.count_nonzero((x != 0) & (abs(x) != 1), axis=tuple(range(1, x.ndim))) for x in inputs)
                assert layer.by_step is not None
                assert_array_equal(layer.by_step.get("valued_inputs", np.zeros(len(frames))), valued)
        assert layer.values == alone.values
        assert not layer.values or layer.steps != len(frames) or layer.values == last.values
        assert bool(layer.values) == bool(layer.dense_macs or layer.facts.role in ("pool", "join"))
    assert watched


# --- what a layer is


@given(st.data())
def test_dense_work_inside_of_the_map(data: st.DataObject) -> None:
    source = SignalType("binary", 2, (data.draw(st.integers(4, 6)), data.draw(st.integers(4, 6))))
    pair = st.tuples(st.integers(1, 2), st.integers(1, 2))
    stride, padding, groups = data.draw(pair), data.draw(st.tuples(*[st.integers(0, 3)] * 2)), data.draw(pair)[0]
    shape = (4, 2 // groups, *data.draw(st.tuples(*[st.integers(1, 3)] * 2)))
    ones = np.ones((1, *source.shape), np.float32)
    weight = np.ones(shape, np.float32)
    for dilation in ((1, 1), (2, 1)) if shape[2] < 3 else ((1, 1),):
        layer = Conv2d(weight, None, stride, padding, groups, dilation)
        inside = conv2d_counts(ones, shape, stride, padding, groups, dilation=dilation)["acs"]
        assert layer.facts(source).inner_macs == inside
        assert inside == layer.dense_macs(source) if padding == (0, 0) else inside <= layer.dense_macs(source)
    over_time = Conv3d(np.stack([weight] * 3, axis=2), None, stride, padding, groups=groups)
    assert over_time.facts(source).inner_macs == 3 * conv2d_counts(ones, shape, stride, padding, groups)["acs"]


@pytest.mark.parametrize("packed", [False, True])
def test_weights_of_zero_are_counted_packed_or_not(packed: bool) -> None:
    source, weight = SignalType("binary", 4), np.eye(4, 4, dtype=np.float32)[:3]
    layer = Linear(weight)
    if packed:
        layer.op(source)
    assert (layer.facts(source).zero_weights, layer.facts(source).inner_macs) == (9, 12)
