"""Delayed edges and feedback: random recurrent networks against the dense reference, and how they are run and kept."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from plain_rows import main
from scipy.sparse.csgraph import connected_components
from strategies import Drawn, recurrent_networks
from test_networks import assert_same, counted, simulate

from eventsim import Delayed, InputError, Network, NetworkBuilder, Result, Simulator, load, save
from eventsim.layers import (
    IF,
    Conv3d,
    Input,
    Linear,
    MeanOverTime,
    PositionEncoding,
    Readout,
    Residual,
    SliceOverTime,
)
from eventsim.plan import Loop, plan
from eventsim.signals import SignalType

pytestmark = pytest.mark.kernels

F = np.float32


@given(drawn=recurrent_networks())
def test_every_layer_and_every_count_equals_the_reference_however_it_is_run(drawn: Drawn) -> None:
    expected = drawn.expected()
    first = simulate(drawn)
    for name in drawn.network.layers.keys() - {"readout"}:
        assert_array_equal(first.recorded[name], expected[name], err_msg=name)
    (source,) = (edge.source for edge in drawn.network.inputs["readout"])
    logits = expected[source]
    reduce = drawn.network.layers["readout"].reduce
    assert_array_equal(first.logits, logits[-1] if reduce == "last" else logits.sum(axis=0))
    profile = {layer.name: layer for layer in first.profile}
    for name in drawn.network.layers.keys() - {"input", "readout"}:
        assert main(profile[name].counts) == counted(drawn, expected, name), name
    for chunk in range(1, len(drawn.frames) + 1):
        assert_same(simulate(drawn, chunk=chunk), first)
        assert_same(simulate(drawn, iter(drawn.frames), chunk=chunk), first)


@given(data=st.data())
def test_streams_samples_and_threads_do_not_disturb_each_other(data: st.DataObject) -> None:
    drawn = data.draw(recurrent_networks())
    other = drawn.frames[::-1].copy()
    alone, reversed_alone = simulate(drawn), simulate(drawn, other)
    simulator = Simulator(drawn.network, threads=2, record=drawn.network.layers)
    for result, expected in zip(
        simulator.run_many([drawn.frames, other] * 3), [alone, reversed_alone] * 3, strict=True
    ):
        assert_same(result, expected)
    streamed = [simulator.step(frame) for frame in drawn.frames]
    assert_array_equal(streamed[-1].logits, alone.logits)
    assert [layer.counts for layer in streamed[-1].profile] == [layer.counts for layer in alone.profile]
    for name, output in alone.recorded.items():
        assert_array_equal(np.concatenate([result.recorded[name] for result in streamed]), output, err_msg=name)


@given(data=st.data())
def test_a_stream_goes_on_from_a_pickled_state(data: st.DataObject) -> None:
    drawn = data.draw(recurrent_networks())
    at = data.draw(st.integers(0, len(drawn.frames) - 1))
    simulator = Simulator(drawn.network, record=drawn.network.layers)
    for frame in drawn.frames[:at]:
        simulator.step(frame)
    state = pickle.dumps(simulator.state())
    expected = [simulator.step(frame) for frame in drawn.frames[at:]]
    elsewhere = pickle.loads(pickle.dumps(simulator))
    elsewhere.step(drawn.frames[0])
    for _ in range(2):
        elsewhere.restore(pickle.loads(state))
        for frame, result in zip(drawn.frames[at:], expected, strict=True):
            assert_same(elsewhere.step(frame), result)


@given(drawn=recurrent_networks())
def test_a_model_file_keeps_delays(drawn: Drawn, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("models") / "model.h5"
    save(drawn.network, path)
    loaded = load(path)
    assert loaded.edges == drawn.network.edges
    assert_same(Simulator(loaded, record=loaded.layers).run(drawn.frames), simulate(drawn))


@given(drawn=recurrent_networks())
def test_an_image_is_the_same_frame_in_every_step(drawn: Drawn) -> None:
    image, steps = drawn.frames[0], len(drawn.frames)
    shown, repeated = simulate(drawn, image), simulate(drawn, np.stack([image] * steps))
    assert_array_equal(shown.logits, repeated.logits)
    for name, output in repeated.recorded.items():
        assert_array_equal(shown.recorded[name], output, err_msg=name)


def ring(delay: int = 1, **options: object) -> Network:
    """A neuron that hears itself."""
    build = NetworkBuilder("ring")
    x = build.add("input", Input((2,), "binary"))
    x = build.add("fc", Linear(np.eye(2, dtype=F)), x)
    x = build.add("sum", Residual("add"), x, Delayed("if", delay, SignalType("binary", 2)))
    x = build.add("if", IF(), x)
    build.add("readout", Readout("sum"), x)
    return build.build(**options)


def test_a_spike_comes_back_after_its_delay() -> None:
    frames = np.zeros((9, 2), F)
    frames[0] = [1, 0]
    for delay in (1, 2, 3, 20):
        recorded = Simulator(ring(delay), record=["if"]).run(frames).recorded["if"]
        expected = np.zeros((9, 2), F)
        expected[::delay, 0] = 1
        assert_array_equal(recorded, expected)


def test_only_the_layers_of_a_cycle_run_step_by_step() -> None:
    schedule = plan(ring())
    assert [type(part).__name__ for part in schedule.parts] == ["Node", "Node", "Loop", "Node"]
    (loop,) = (part for part in schedule.parts if isinstance(part, Loop))
    assert [node.name for node in loop.nodes] == ["sum", "if"]
    assert loop.heard_outside == ("if",)


@given(data=st.data())
def test_loops_are_the_strongly_connected_components(data: st.DataObject) -> None:
    """As SciPy finds them, and in an order in which every part comes after those that it hears."""
    size, spikes = data.draw(st.integers(1, 12)), SignalType("binary", 2)
    names = ["input", *(f"and{index}" for index in range(size))]
    build = NetworkBuilder("tangle")
    build.add("input", Input((2,), "binary"))
    for index in range(size):
        first, second = data.draw(st.integers(0, index)), data.draw(st.integers(index, size) | st.integers(0, size))
        heard = names[second] if second <= index and data.draw(st.booleans()) else Delayed(names[second], 1, spikes)
        build.add(names[index + 1], Residual("and"), names[first], heard)
    unread = [name for name in names if name not in {edge.source for edge in build.edges}] or [names[-1]]
    x = unread[0]
    for index, name in enumerate(unread[1:]):
        x = build.add(f"total{index}", Residual("and"), x, name)
    build.add("readout", Readout("sum"), x)
    network = build.build()

    order = list(network.order)
    graph = np.zeros((len(order), len(order)))
    for edge in network.edges:
        graph[order.index(edge.source), order.index(edge.target)] = 1
    _, labels = connected_components(graph, connection="strong")
    expected = {tuple(np.array(order)[labels == label]) for label in labels}
    parts = [
        tuple(node.name for node in part.nodes) if isinstance(part, Loop) else (part.name,)
        for part in plan(network).parts
    ]
    assert len(parts) == len(expected)
    assert set(parts) == expected
    place = {name: index for index, part in enumerate(parts) for name in part}
    assert all(place[edge.source] <= place[edge.target] for edge in network.edges)


def test_a_delay_without_a_cycle_is_no_loop() -> None:
    build = NetworkBuilder("late")
    x = build.add("input", Input((2,)))
    x = build.add("sum", Residual("add"), x, Delayed("input", 2))
    build.add("readout", Readout("last"), x)
    network = build.build()
    assert not any(isinstance(part, Loop) for part in plan(network).parts)
    result = Simulator(network, chunk=2, record=["sum"]).run(np.arange(10).reshape(5, 2))
    assert_array_equal(result.recorded["sum"], [[0, 1], [2, 3], [4, 6], [8, 10], [12, 14]])


def test_one_layer_may_be_heard_twice_with_one_delay() -> None:
    build = NetworkBuilder("twice")
    x = build.add("input", Input((1,)))
    x = build.add("sum", Residual("add"), Delayed(x, 1), Delayed(x, 1))
    build.add("readout", Readout("last"), x)
    for chunk in (None, 1, 2):
        result = Simulator(build.build(), chunk=chunk, record=["sum"]).run([[1], [2], [3], [4]])
        assert_array_equal(result.recorded["sum"].ravel(), [0, 2, 4, 6])


def test_a_cycle_without_delay_is_refused_by_name() -> None:
    layers = {"in": Input((2,)), "a": Residual("add"), "b": IF(), "out": Readout()}
    edges = (("in", "a"), ("b", "a"), ("a", "b"), ("b", "out"))
    with pytest.raises(InputError, match=r"^network odd: cycle (a -> b -> a|b -> a -> b) of no delay found"):
        Network("odd", layers, edges).validate()
    build = NetworkBuilder("odd")
    build.add("in", Input((2,)))
    with pytest.raises(InputError, match=r"^layer a: source 'b' not found; expected a layer added before, or one with"):
        build.add("a", Residual("add"), "in", "b")


@pytest.mark.parametrize("delay", [-1, 0.5, 1.0, True, "1", None])
def test_a_delay_that_is_no_number_of_time_steps_is_refused_by_name(delay: object) -> None:
    build = NetworkBuilder("odd")
    build.add("in", Input((2,)))
    with pytest.raises(InputError, match=r"^network odd: edge in -> a with delay .* found; expected a whole number"):
        build.add("a", Residual("add"), "in", Delayed("in", delay))
    layers = {"in": Input((2,)), "a": Residual("add"), "out": Readout()}
    edges = (("in", "a"), ("in", "a", delay), ("a", "out"))
    with pytest.raises(InputError, match=r"^network odd: edge in -> a with delay .* found; expected a whole number"):
        Network("odd", layers, edges).validate()


def test_a_delay_that_would_fill_the_memory_is_refused() -> None:
    build = NetworkBuilder("odd")
    build.add("in", Input((2,)))
    with pytest.raises(InputError, match=r"^network odd: edge in -> a with delay 1000000000000 of 2 values found"):
        build.add("a", Residual("add"), "in", Delayed("in", 10**12))
    with pytest.raises(InputError, match=r"^network odd: edge b -> a with delay 1000000000 of 3 values found"):
        build.add("a", Residual("add"), "in", Delayed("b", 10**9, SignalType("binary", 3)))


def test_what_a_builder_takes() -> None:
    build = NetworkBuilder("odd")
    build.add("in", Input((2,), "binary"))
    build.add("a", Residual("add"), "in", Delayed("in", np.int64(2)))
    assert build.edges[-1].delay == 2
    assert type(build.edges[-1].delay) is int
    with pytest.raises(InputError, match=r"^layer b: source 'in' of type binary 2 found; real 2 was said$"):
        build.add("b", Residual("add"), "in", Delayed("in", 1, SignalType("real", 2)))
    for name, layer in ((5, IF()), ("", IF()), ("b", IF), ("b", 5)):
        with pytest.raises(InputError, match=r"^network odd: layer .* found; expected a name and a Layer$"):
            build.add(name, layer, "a")
    build.add("out", Readout(), "a")
    assert build.build(np.int64(3)).time_steps == 3
    for steps in (1.5, True, "3", 0):
        with pytest.raises(InputError, match="time steps found; expected a whole number of at least 1"):
            build.build(steps)
    with pytest.raises(InputError, match=r"edge \('in',\) found; expected"):
        Network("odd", {"in": Input((2,)), "out": Readout()}, (("in",),))


def test_promises_are_kept() -> None:
    build = NetworkBuilder("odd")
    build.add("in", Input((2,), "binary"))
    with pytest.raises(InputError, match=r"^layer a: source 'b' is not there yet; expected Delayed\(\.\.\., type\)"):
        build.add("a", Residual("add"), "in", Delayed("b"))
    build.add("a", Residual("add"), "in", Delayed("b", 1, SignalType("binary", 2)))
    with pytest.raises(InputError, match=r"^layer c: source 'b' of type binary 3 found; a expects binary 2$"):
        build.add("c", Residual("add"), "in", Delayed("b", 1, SignalType("binary", 3)))
    build.add("out", Readout(), "a")
    with pytest.raises(InputError, match=r"^layer a: source 'b' not found; expected a layer of this name$"):
        build.build()
    build.add("b", Linear(np.ones((2, 2), F)), "a")
    with pytest.raises(InputError, match=r"^layer a: source 'b' was said to emit binary 2, it emits real 2$"):
        build.build()


def test_a_layer_that_looks_ahead_is_refused_in_a_loop() -> None:
    build = NetworkBuilder("odd")
    x = build.add("input", Input((1, 2, 2), "binary"))
    spikes = SignalType("binary", 1, (2, 2))
    x = build.add("sum", Residual("add"), x, Delayed("if", 1, spikes))
    x = build.add("ahead", Conv3d(np.ones((1, 1, 3, 1, 1), F)), x)
    x = build.add("if", IF(), x)
    build.add("slice", SliceOverTime(0, 1), x)
    from eventsim.layers import Flatten

    build.add("readout", Readout(), build.add("flat", Flatten(), "slice"))
    with pytest.raises(InputError, match=r"^layer ahead: looks ahead in time and is in the loop sum -> ahead -> if"):
        Simulator(build.build())


def test_a_layer_that_keeps_back_its_output_is_refused_in_a_loop() -> None:
    build = NetworkBuilder("odd")
    x = build.add("input", Input((2,), "real"))
    x = build.add("sum", Residual("add"), x, Delayed("mean", 1, SignalType("real", 2, dense=True)))
    x = build.add("mean", MeanOverTime(), x)
    build.add("readout", Readout(), x)
    with pytest.raises(InputError, match=r"^layer mean: emits 0 time steps for one; expected 1 in a loop$"):
        Simulator(build.build()).run(np.ones((3, 2)))


def test_a_state_of_another_network_is_refused() -> None:
    build = NetworkBuilder("other")
    build.add("readout", Readout(), build.add("input", Input((2,))))
    state = Simulator(build.build()).state()
    with pytest.raises(InputError, match="network ring: the state of another network found; expected one of its own"):
        Simulator(ring()).restore(state)


def test_a_step_costs_the_same_however_many_came_before() -> None:
    """What a stream keeps does not grow, also while layers are recorded."""
    network = ring(2)
    simulator = Simulator(network, record=network.layers)
    sizes: list[int] = []
    result: Result | None = None
    for step in range(3000):
        result = simulator.step([step % 2, 1])
        if step in (10, 2999):
            sizes.append(len(pickle.dumps(simulator.state())) + len(pickle.dumps(result)))
    assert result is not None
    assert result.time_steps == 3000
    assert {name: len(output) for name, output in result.recorded.items()} == dict.fromkeys(network.layers, 1)
    assert len(result.step_latency_s) == 1
    assert all(layer.by_step is None for layer in result.profile)
    assert sizes[1] <= sizes[0] + 100, "numbers grow by digits, nothing else does"


def test_position_encodings_go_on_over_a_state() -> None:
    build = NetworkBuilder("encoded")
    x = build.add("input", Input((1,), "real"))
    x = build.add("encode", PositionEncoding(np.arange(5, dtype=F).reshape(5, 1, 1)), x)
    build.add("readout", Readout(), x)
    simulator = Simulator(build.build())
    for _ in range(3):
        simulator.step([0])
    state = simulator.state()
    assert simulator.step([0]).logits.tolist() == [3]
    simulator.restore(state)
    assert simulator.step([0]).logits.tolist() == [3]
