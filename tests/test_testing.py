"""The public test tools: strategies draw what they say, and `check_equivalent` finds what differs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_rows import one_call
from reference.synapses import linear

from eventsim import Network, NetworkBuilder, Simulator
from eventsim.layers import IF, Input, Linear, Readout
from eventsim.testing import check_equivalent, check_layer
from eventsim.testing import strategies as drawn

F = np.float32
WEIGHT = (np.arange(12).reshape(3, 4) - 5).astype(F) / 8


def network_of(weight: np.ndarray = WEIGHT, **options: object) -> Network:
    build = NetworkBuilder("linear")
    x = build.add("input", Input((4,), **options))
    x = build.add("fc", Linear(weight), x)
    build.add("readout", Readout("sum"), x)
    return build.build()


def dense(frames: np.ndarray) -> dict[str, np.ndarray]:
    currents = linear(frames, WEIGHT, None)
    return {"fc": currents, "readout": currents.sum(axis=0)}


def test_equal_networks_are_equivalent() -> None:
    check_equivalent(network_of(), dense)
    check_equivalent(network_of(kind="real"), lambda frames: dense(frames)["readout"])
    check_equivalent(network_of(), dense, [np.ones((2, 4), F), np.zeros((1, 4), F)])


def test_what_differs_is_named() -> None:
    other = WEIGHT.copy()
    other[2, 1] += 0.25
    with pytest.raises(
        AssertionError, match=r"^network linear: layer fc, sample 0: .* differ by more than 0, the most"
    ):
        check_equivalent(network_of(other), dense)
    check_equivalent(network_of(other), dense, [np.eye(1, 4, dtype=F)], tolerance=0.0)  # does not meet that synapse
    with pytest.raises(AssertionError, match=r"1 of 3 values differ by more than 0\.1"):
        check_equivalent(network_of(other), dense, [np.ones((1, 4), F)], tolerance=0.1)
    check_equivalent(network_of(other), dense, [np.ones((1, 4), F)], tolerance=0.25)
    with pytest.raises(AssertionError, match="layer fd of the reference is not in network linear"):
        check_equivalent(network_of(), lambda frames: {"fd": frames})
    with pytest.raises(AssertionError, match=r"shape \(3,\) found; \(4,\) expected"):
        check_equivalent(network_of(), lambda frames: frames.sum(axis=0))
    with pytest.raises(AssertionError, match="differ"):
        check_equivalent(network_of(), lambda frames: np.full(3, np.nan))


@given(data=st.data())
def test_signals_are_of_their_type(data: st.DataObject) -> None:
    kind = data.draw(drawn.signal_types())
    signal = data.draw(drawn.signals(kind, 3))
    assert (signal.type, signal.steps) == (kind, 3)
    values = signal.to_array()
    assert values.shape == (3 * kind.positions, kind.channels)
    if kind.kind == "binary":
        assert set(np.unique(values)) <= {0, 1}
    elif kind.kind == "graded":
        assert (values == np.abs(np.rint(values))).all()
    else:
        assert (values * 8 == np.rint(values * 8)).all()


@given(data=st.data())
def test_layers_run_on_the_signals_drawn_for_them(data: st.DataObject) -> None:
    layer, sources = data.draw(drawn.layers())
    given_signals = tuple(data.draw(drawn.signals(source, 2)) for source in sources)
    output = layer.op(*sources).advance(given_signals, one_call(2)[0])
    assert output.type == layer.output_type(*sources)
    assert np.isfinite(output.to_array()).all()


@given(data=st.data())
def test_networks_run(data: st.DataObject) -> None:
    network = data.draw(drawn.networks())
    frames = data.draw(drawn.frames(network))
    results = [Simulator(network, chunk=chunk).run(frames) for chunk in (None, 1)]
    np.testing.assert_array_equal(results[0].logits, results[1].logits)
    assert results[0].totals == results[1].totals


def test_some_networks_have_feedback_and_some_have_not() -> None:
    found = set()

    @settings(max_examples=60, database=None)
    @given(network=drawn.networks())
    def collect(network: Network) -> None:
        found.add(any(edge.delay for edge in network.edges))

    collect()
    assert found == {True, False}


def test_only_the_strategies_need_hypothesis() -> None:
    code = "import sys, eventsim, eventsim.testing; print('hypothesis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_layer_with_too_few_sources_is_refused() -> None:
    with pytest.raises(AssertionError, match="IF: 0 sources for its arguments given"):
        check_layer(IF())
