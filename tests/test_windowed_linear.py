"""The linear layer over a temporal window: against the dense reference, its work against brute force."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from plain_rows import check, chunks, execute, main, signal_type
from reference import counts, dense_macs
from reference.windowed_linear import group_of, shifted_sums, window_products, windowed_linear
from strategies import OUTPUTS, activity, randoms, weights

from eventsim import InputError, NetworkBuilder, Simulator, load, save
from eventsim.layers import Input, Linear, MeanOverTime, Readout, WindowedLinear
from eventsim.ledger import Counts
from eventsim.signals import SignalType

pytestmark = pytest.mark.kernels

F = np.float32
KINDS = ("binary", "graded", "real", "sparse real")


@st.composite
def cases(draw, kind, grouped=False):
    """A layer with a window of at least 2, its input type, and one to six frames of tokens."""
    source = signal_type(kind, draw(st.tuples(st.integers(1, 5), st.integers(1, 12))))
    steps = draw(st.integers(1, 6))
    x = draw(activity(kind.removeprefix("sparse "), steps, *source.shape))
    weight = draw(weights(draw(st.sampled_from(OUTPUTS)), source.channels))
    if draw(st.booleans()):  # pruned
        weight[draw(randoms()).random(weight.shape) < 0.7] = 0
    bias = draw(st.none() | weights(len(weight)))
    decay, form = (
        draw(st.sampled_from(["geometric", "constant"])),
        draw(st.sampled_from(["accumulate_once", "reaccumulate"])),
    )
    window, exponent = draw(st.integers(2, 4)), draw(st.integers(0, 3))
    if grouped:
        groups = draw(st.sampled_from([n for n in range(1, len(weight) + 1) if len(weight) % n == 0]))
        window = (window, *draw(st.tuples(*[st.integers(1, 4)] * (groups - 1))))
        exponent = draw(st.just(exponent) | st.tuples(*[st.integers(0, 3)] * groups))
    return WindowedLinear(weight, bias, window, exponent, decay, form), source, x


def executed(layer, source, x):
    """Counts of synapses: of each step once, or of every step as often as a window holds it."""
    exists = counts.synapses_of(layer.weight).astype(F)
    outputs = len(exists)
    total: dict[str, int] = {}
    for output, t in product(range(outputs), range(len(x))):
        times = min(group_of(layer.window, output, outputs), len(x) - t) if layer.form == "reaccumulate" else 1
        for key, value in counts.sparse_linear_counts(
            x[t], exists[output : output + 1], source.kind, source.dense
        ).items():
            total[key] = total.get(key, 0) + times * value
    return total


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_currents_and_counts(kind, grouped, data):
    layer, source, x = data.draw(cases(kind, grouped))
    expected = windowed_linear(x, layer.weight, layer.bias, layer.window, layer.exponent, layer.decay)
    check(
        layer,
        [(source, x)],
        expected,
        inputs=x.size,
        nonzero_inputs=np.count_nonzero(x),
        **executed(layer, source, x),
        additions=shifted_sums(len(x), source.positions, len(layer.weight), layer.window),
        window_products=window_products(x, counts.synapses_of(layer.weight), layer.window, source.dense),
    )
    assert layer.dense_macs(source) == dense_macs.linear(layer.weight.shape, source.positions)
    assert layer.parameters == layer.weight.size + (0 if layer.bias is None else len(layer.bias))


@pytest.mark.parametrize("kind", KINDS)
def test_pruned_weights_are_no_synapses_at_any_age(kind):
    """An input that no output hears, where one output listens longer than the other."""
    weight = np.array([[0, 0, 0], [0, -0.375, -0.9375]], F)
    layer = WindowedLinear(weight, None, (2, 3), 0, "geometric", "reaccumulate")
    x = np.zeros((4, 1, 3), F)
    x[1, 0, 0] = 1
    done = execute(layer, [(SignalType(kind, 3, (1,)), x)], 2)
    assert main(done.counts) == Counts(inputs=12, nonzero_inputs=1, additions=8)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_both_forms_agree_on_any_weights(kind, data):
    layer, source, x = data.draw(cases(kind))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    weight, bias = rng.normal(size=layer.weight.shape).astype(F), rng.normal(size=len(layer.weight)).astype(F)
    forms = [
        WindowedLinear(weight, bias, layer.window, layer.exponent, layer.decay, form)
        for form in ("accumulate_once", "reaccumulate")
    ]
    once = execute(forms[0], [(source, x)], len(x))
    for chunk in chunks(len(x)):
        for form in forms:
            done = execute(form, [(source, x)], chunk)
            assert_array_equal(done.frames, once.frames)
            assert done.counts.window_products == once.counts.window_products
        served = done.counts.acs + done.counts.graded_macs + done.counts.macs
        assert served == once.counts.window_products


@given(data=st.data())
def test_both_forms_agree_on_windows_of_groups(data):
    """On rows, whatever the weights."""
    layer, source, x = data.draw(cases(data.draw(st.sampled_from(["binary", "graded"])), grouped=True))
    weight = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=layer.weight.shape).astype(F)
    once, again = (
        execute(WindowedLinear(weight, layer.bias, layer.window, layer.exponent, layer.decay, form), [(source, x)], 1)
        for form in ("accumulate_once", "reaccumulate")
    )
    assert_array_equal(once.frames, again.frames)
    assert once.counts.window_products == again.counts.acs + again.counts.graded_macs


def test_windows_of_groups_are_kept_in_a_model_file(tmp_path):
    layer = WindowedLinear(np.eye(4, 3, dtype=F), None, (1, 3), (0, 2))
    save(network(layer).network, tmp_path / "model.h5")
    found = load(tmp_path / "model.h5").layers["linear"]
    assert (found.window, found.exponent) == ((1, 3), (0, 2))
    ones = np.ones((4, 3), F)
    result = network(found).run(ones)
    assert_array_equal(result.recorded["linear"].T, [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1.25, 1.3125, 1.3125], [0] * 4])


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_window_of_one_is_a_linear_layer(kind, data):
    layer, source, x = data.draw(cases(kind))
    weight = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=layer.weight.shape).astype(F)
    plain = execute(Linear(weight, layer.bias), [(source, x)], len(x))
    done = execute(WindowedLinear(weight, layer.bias, 1, 5, layer.decay, layer.form), [(source, x)], len(x))
    assert_array_equal(done.frames, plain.frames)
    assert done.counts == plain.counts


def network(layer: WindowedLinear) -> Simulator:
    build = NetworkBuilder("window")
    x = build.add("input", Input((layer.weight.shape[1],), "graded"))
    x = build.add("linear", layer, x)
    x = build.add("mean", MeanOverTime(), x)
    build.add("readout", Readout(), x)
    return Simulator(build.build(time_steps=4), chunk=1, threads=2, record=["linear"])


def test_samples_do_not_see_each_other():
    simulator = network(WindowedLinear(np.eye(3, dtype=F), None, 4, 1))
    loud, silent = np.ones((4, 3), F), np.zeros((4, 3), F)
    first = simulator.run(loud)
    assert not simulator.run(silent).recorded["linear"].any()
    for result in simulator.run_many([loud] * 8):
        assert_array_equal(result.recorded["linear"], first.recorded["linear"])


def test_a_static_input_fills_the_window():
    """The current of an image grows until the window is full."""
    image = np.array([1, 2, 0], F)
    result = network(WindowedLinear(np.eye(3, dtype=F), None, 3, 1)).run(image)
    assert_array_equal(result.recorded["linear"], np.outer([1, 1.5, 1.75, 1.75], image).astype(F))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window 0 found; expected a whole number of time steps, at least 1"),
        ({"window": 2.0}, "window 2.0 found; expected a whole number of time steps, at least 1"),
        ({"exponent": -1}, "exponent -1 found; expected a whole number from 0 to 126"),
        ({"exponent": 0.5}, "exponent 0.5 found; expected a whole number from 0 to 126"),
        ({"exponent": 127}, "exponent 127 found"),
        ({"window": (2, 0)}, r"window \(2, 0\) found; expected a whole number of time steps, at least 1"),
        ({"window": (2, 2, 2)}, "window for 3 groups found; expected a divisor of the 2 outputs"),
        ({"window": ()}, "window for 0 groups found; expected a divisor of the 2 outputs"),
        ({"exponent": (1, 127)}, r"exponent \(1, 127\) found; expected a whole number from 0 to 126"),
        ({"exponent": (1, 1, 1)}, "exponent for 3 groups found; expected a divisor of the 2 outputs"),
        ({"decay": "linear"}, "decay 'linear' found; expected one of"),
        ({"form": "twice"}, "form 'twice' found; expected one of"),
        ({"weight": np.ones((2, 4), F)}, r"weight of shape \(2, 4\) found; expected \(C_out, 3\)"),
        ({"bias": np.ones(3, F)}, r"bias of shape \(3,\) found; expected \(2,\)"),
    ],
)
def test_bad_layers_are_refused(options, message):
    build = NetworkBuilder("bad")
    x = build.add("input", Input((3,), "graded"))
    with pytest.raises(InputError, match=f"^layer linear: {message}"):
        build.add("linear", WindowedLinear(**{"weight": np.ones((2, 3), F), **options}), x)
