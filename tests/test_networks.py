"""Whole random networks against the dense reference: every layer bit for bit, every count, however they are run."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from brute_force import brute_force
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from plain_rows import main
from reference import counts, network
from reference.gating import gate_counts
from strategies import KINDS, OUTPUTS, Drawn, activity, networks, slidings, weights

from eventsim import InputError, Network, NetworkBuilder, Result, Simulator, load, save
from eventsim.layers import (
    IF,
    Conv2d,
    Flatten,
    Input,
    Linear,
    MaxPool2d,
    MeanOverPositions,
    MeanOverTime,
    Readout,
    Residual,
    SparseLinear,
)
from eventsim.ledger import Counts

pytestmark = pytest.mark.kernels

F = np.float32


def simulate(drawn: Drawn, frames: Any = None, **options: Any) -> Result:
    simulator = Simulator(drawn.network, record=drawn.network.layers, **options)
    frames = drawn.frames if frames is None else frames
    several = isinstance(frames, np.ndarray) and frames.ndim > len(drawn.network.input.shape)
    return simulator.run(frames, len(frames) if several else None)


def assert_same(left: Result, right: Result) -> None:
    """Equal in every output of every layer, and in every count."""
    assert_array_equal(left.logits, right.logits)
    assert left.time_steps == right.time_steps
    assert left.recorded.keys() == right.recorded.keys()
    for name, output in left.recorded.items():
        assert_array_equal(output, right.recorded[name], err_msg=name)
    for a, b in zip(left.profile, right.profile, strict=True):
        assert (a.name, a.kind, a.kernel, a.neurons) == (b.name, b.kind, b.kernel, b.neurons)
        assert (a.steps, a.dense_macs, a.counts) == (b.steps, b.dense_macs, b.counts), a.name


def as_reference(output: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """A map whose pixels are tokens in the reference, as these tokens."""
    if output.ndim == 4 and expected.ndim == 3:
        return output.reshape(*output.shape[:2], -1).swapaxes(1, 2)
    return output


# --- against the reference


@given(drawn=networks())
def test_every_layer_equals_the_reference_in_every_chunk_size(drawn):
    expected = drawn.expected()
    layers, readout = drawn.network.layers, drawn.network.layers["readout"]
    assert set(layers) - {"readout"} <= set(expected)
    (source,) = drawn.network.sources["readout"]
    first = None
    for chunk in range(1, len(drawn.frames) + 1):
        result = simulate(drawn, chunk=chunk)
        for name in layers.keys() - {"readout"}:
            assert_array_equal(as_reference(result.recorded[name], expected[name]), expected[name], err_msg=name)
        logits = expected[source]
        assert_array_equal(result.logits, logits[-1] if readout.reduce == "last" else logits.sum(axis=0))
        first = first or result
        assert_same(result, first)
        assert_same(simulate(drawn, iter(drawn.frames), chunk=chunk), first)
        assert len(result.step_latency_s) == -(-len(drawn.frames) // chunk)


ORDERS = {"scores_first": "qk_v", "context_first": "kv_q"}


def counted(drawn: Drawn, outputs: dict[str, np.ndarray], name: str) -> Counts:
    """What a layer of the network must have counted, by brute force on the activity of the reference."""
    kind, parameters = drawn.layers[name]
    inputs = network.inputs_of(name, drawn.edges, outputs)
    types, layer = drawn.network.input_types(name), drawn.network.layers[name]
    x, dense = inputs[0], types[0].dense
    if kind in ("integer_conv3d", "integer_windowed_linear", "integer_residual"):
        columns = brute_force(layer, types, inputs, outputs[name])
        return main(Counts({operation: sum(column) for operation, column in columns.items()}))
    nonzero = sum(int(np.count_nonzero(a)) for a in inputs)
    offered = {"inputs": sum(a.size for a in inputs), "nonzero_inputs": nonzero}
    pool = {k: parameters.get(k) for k in ("kernel", "stride", "padding")}
    table: dict[str, Callable[[], dict[str, int]]] = {
        "conv2d": lambda: {
            **offered,
            **counts.conv2d_counts(
                x,
                parameters["weight"],
                *(parameters[k] for k in ("stride", "padding", "groups")),
                types[0].kind,
                dense,
            ),
        },
        "linear": lambda: {
            **offered,
            **(
                counts.sparse_linear_counts(x, parameters["weight"], types[0].kind)
                if isinstance(layer, SparseLinear)
                else counts.linear_counts(x, parameters["weight"], types[0].kind, dense)
            ),
        },
        "spiking_attention": lambda: {
            **offered,
            **counts.graded_attention_counts(*inputs, parameters["heads"], ORDERS[layer.order]),
        },
        "gate": lambda: gate_counts(*inputs, tuple(t.kind for t in types), tuple(t.dense for t in types)),
        "integer_activation": lambda: {"comparisons": x.size if dense else nonzero},
        "rearrange": dict,
        "select_channels": dict,
        "adaptive_max_pool2d": lambda: {
            "comparisons": counts.adaptively_pooled_values(x, parameters["size"], types[0].kind == "real")
        },
        "maxpool2d": lambda: {
            "comparisons": counts.pooled_values(
                x, **pool, windows=outputs[name].shape[2:], dense=types[0].kind == "real"
            )
        },
        "residual": lambda: {
            "additions" if parameters["op"] == "add" else "comparisons": (
                x.size if any(t.dense for t in types) else counts.residual_add_coincidences(*inputs)
            )
        },
        "affine": lambda: {**offered, "macs": x.size if dense or layer.shift is not None else nonzero},
        "flatten": dict,
        "mean_over_positions": lambda: {"additions": x.size if dense else nonzero},
        "mean_over_time": lambda: {"additions": nonzero},
    }
    table["batch_norm"] = table["affine"]
    table["sumpool2d"] = table["avgpool2d"] = lambda: {
        "additions": counts.pooled_values(x, **pool, windows=outputs[name].shape[2:], dense=dense)
    }
    table["integer_conv2d"], table["integer_linear"] = table["conv2d"], table["linear"]
    table["lif"] = table["plif"] = table["if_neuron"] = table["integer_lif"] = lambda: {
        "spikes": np.count_nonzero(outputs[name]),
        "neuron_updates": counts.neuron_updates(x),
    }
    table["sum_over_channels"] = table["sum_over_positions"] = table["mean_over_positions"]
    given = table[kind]()
    if kind == "spiking_attention" and all(t.kind == "binary" for t in types):
        given |= {"acs": given["graded_macs"], "graded_macs": 0, "graded_acs": 0}
    return Counts(**given)


@given(drawn=networks())
def test_every_count_equals_brute_force(drawn):
    outputs = drawn.expected()
    profile = {layer.name: layer for layer in simulate(drawn).profile}
    for name in drawn.network.layers.keys() - {"input", "readout"}:
        assert main(profile[name].counts) == counted(drawn, outputs, name), name
        if profile[name].neurons:
            assert profile[name].firing_rate == outputs[name].mean(dtype=float)
    assert profile["input"].counts == Counts()
    (source,) = drawn.network.sources["readout"]
    summed = drawn.network.layers["readout"].reduce == "sum"
    assert main(profile["readout"].counts) == Counts(additions=np.count_nonzero(outputs[source]) if summed else 0)


@given(drawn=networks(kinds=("binary", "graded"), biases=False))
def test_a_silent_sample_costs_no_synaptic_work(drawn):
    result = simulate(drawn, np.zeros_like(drawn.frames))
    assert not any(output.any() for output in result.recorded.values())
    for layer in result.profile:
        assert layer.counts.nonzero_inputs == layer.counts.spikes == 0
        assert layer.counts.acs == layer.counts.graded_macs == layer.counts.graded_acs == 0
        if not any(source.dense for source in drawn.network.input_types(layer.name)):
            assert layer.counts.macs == layer.counts.additions == 0
        assert layer.counts.neuron_updates == layer.neurons * layer.steps


# --- however they are run


@given(data=st.data())
def test_threads_change_nothing(data):
    drawn = data.draw(networks())
    kind, shape = drawn.network.input.kind, drawn.frames.shape
    samples = [drawn.frames, *(data.draw(activity(kind, *shape)) for _ in range(4)), drawn.frames]
    chunk = data.draw(st.none() | st.integers(1, len(drawn.frames)))
    alone = [simulate(drawn, frames, chunk=chunk) for frames in samples]
    simulator = Simulator(drawn.network, threads=2, chunk=chunk, record=drawn.network.layers)
    for threaded, expected in zip(simulator.run_many(samples), alone, strict=True):
        assert_same(threaded, expected)


def after_the_mean_over_time(drawn: Drawn) -> set[str]:
    """Layers that see one step of a sample that is run, and every step of a stream."""
    after: set[str] = set()
    for name in drawn.network.order:
        sources = drawn.network.sources[name]
        if any(s in after or isinstance(drawn.network.layers[s], MeanOverTime) for s in sources):
            after.add(name)
    return after


@given(drawn=networks())
def test_streaming_gives_what_running_gives(drawn):
    """After each step the result is that of the steps so far."""
    after = after_the_mean_over_time(drawn)
    assume(not ("readout" in after and drawn.network.layers["readout"].reduce == "sum"))
    simulator = Simulator(drawn.network, record=drawn.network.layers)
    for attempt in range(2):
        results = [simulator.step(frame) for frame in drawn.frames]
        for steps, streamed in enumerate(results, start=1):
            whole = simulate(drawn, drawn.frames[:steps])
            assert_array_equal(streamed.logits, whole.logits)
            assert streamed.time_steps == steps
            assert len(streamed.step_latency_s) == 1, "a stream keeps its last step"
            assert streamed.latency_s >= sum(streamed.step_latency_s)
            for name, output in whole.recorded.items():
                assert_array_equal(streamed.recorded[name], output[-1:], err_msg=f"{name} in try {attempt}")
            for ours, theirs in zip(streamed.profile, whole.profile, strict=True):
                if ours.kind == "MeanOverTime":  # emits, and divides, after every step of a stream
                    assert ours.counts.additions == theirs.counts.additions
                elif ours.name not in after:
                    assert (ours.steps, ours.counts, ours.dense_macs) == (
                        theirs.steps,
                        theirs.counts,
                        theirs.dense_macs,
                    )
        simulator.restart()


@given(data=st.data())
def test_a_simulator_remembers_no_sample(data):
    drawn = data.draw(networks())
    other = data.draw(activity(drawn.network.input.kind, *drawn.frames.shape))
    chunk = data.draw(st.none() | st.integers(1, len(drawn.frames)))
    simulator = Simulator(drawn.network, chunk=chunk, record=drawn.network.layers)
    first = simulator.run(drawn.frames, len(drawn.frames))
    streamed = simulator.step(drawn.frames[0])
    second = simulator.run(other, len(other))
    more = simulator.step(drawn.frames[-1])
    third = simulator.run(drawn.frames, len(drawn.frames))
    assert_same(first, third)
    assert_same(first, simulate(drawn, chunk=chunk))
    assert_same(second, simulate(drawn, other, chunk=chunk))
    fresh = Simulator(drawn.network, record=drawn.network.layers)
    assert_same(streamed, fresh.step(drawn.frames[0]))
    assert_same(more, fresh.step(drawn.frames[-1]))


@given(data=st.data())
def test_a_simulator_remembers_no_image(data):
    """What an image drives is computed once for the image, not once for the simulator."""
    drawn = data.draw(networks())
    images = [drawn.frames[0], *data.draw(activity(drawn.network.input.kind, 2, *drawn.network.input.shape))]
    chunk = data.draw(st.none() | st.integers(1, len(drawn.frames)))
    simulator = Simulator(drawn.network, chunk=chunk, record=drawn.network.layers)
    shown = [simulator.run(image) for image in images]
    between = simulator.run(drawn.frames, len(drawn.frames))
    for image, result in zip(images, shown, strict=True):
        assert_same(result, simulate(drawn, image))
        assert_same(result, simulator.run(image))
    assert_same(between, simulate(drawn))


def shown_once(drawn: Drawn) -> set[str]:
    """Layers that no neuron precedes: an image drives them the same way in every step."""
    once: set[str] = set()
    for name in drawn.network.order:
        kind, parameters = drawn.layers.get(name, (name, {}))
        stateful = kind in {"lif", "integer_lif", "plif", "if_neuron", "mean_over_time", "readout", "integer_conv3d"}
        stateful |= kind == "integer_windowed_linear" and max(parameters["windows"]) > 1
        if not stateful and all(source in once for source in drawn.network.sources[name]):
            once.add(name)
    return once


@given(data=st.data())
def test_an_image_is_the_same_frame_in_every_step(data):
    drawn = data.draw(networks())
    steps = len(drawn.frames)
    image = drawn.frames[data.draw(st.integers(0, steps - 1))]
    chunk = data.draw(st.none() | st.integers(1, steps))
    shown, repeated = simulate(drawn, image, chunk=chunk), simulate(drawn, np.stack([image] * steps))
    assert_array_equal(shown.logits, repeated.logits)
    for name, output in repeated.recorded.items():
        assert_array_equal(shown.recorded[name], output, err_msg=name)
    once = shown_once(drawn)
    remembering = {"integer_conv3d", "integer_windowed_linear"} & {kind for kind, _ in drawn.layers.values()}
    assert remembering or any(not name.endswith("input") for name in once), "at least the first synapses"
    for ours, theirs in zip(shown.profile, repeated.profile, strict=True):
        assert (ours.steps, ours.dense_macs) == (theirs.steps, theirs.dense_macs)
        total = Counts.total([ours.counts] * (steps if ours.name in once else 1))
        assert total == theirs.counts, ours.name


@given(drawn=networks())
def test_a_loaded_network_gives_identical_results(drawn, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.h5"
    save(drawn.network, path)
    loaded = Simulator(load(path), record=drawn.network.layers).run(drawn.frames, len(drawn.frames))
    assert_same(loaded, simulate(drawn))


# --- a convolution, unrolled


def unrolled(weight: np.ndarray, size: tuple[int, int], left: tuple[int, int], options: dict[str, Any]) -> np.ndarray:
    """The matrix (C_out * H_out * W_out, C_in * H * W) of a convolution, synapse by synapse."""
    outputs, per_group, kh, kw = weight.shape
    groups, (sh, sw), (ph, pw) = options["groups"], options["stride"], options["padding"]
    matrix = np.zeros((outputs, *left, per_group * groups, *size), F)
    for o in range(outputs):
        first = o // (outputs // groups) * per_group
        for i, j, a, b in np.ndindex(*left, kh, kw):
            y, x = i * sh + a - ph, j * sw + b - pw
            if 0 <= y < size[0] and 0 <= x < size[1]:
                matrix[o, i, j, first : first + per_group, y, x] = weight[o, :, a, b]
    return matrix.reshape(outputs * left[0] * left[1], -1)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_convolution_equals_its_synapses_one_by_one(kind, data):
    groups = data.draw(st.sampled_from([1, 1, 2]))
    size = data.draw(st.tuples(st.integers(2, 6), st.integers(2, 6)))
    channels, outputs = groups * data.draw(st.integers(1, 3)), groups * data.draw(st.sampled_from(OUTPUTS))
    window = data.draw(slidings(size, widest=2))
    weight = data.draw(weights(outputs, channels // groups, *window.kernel, zeros=False))
    bias = data.draw(weights(outputs))
    options = {"stride": window.stride, "padding": window.padding, "groups": groups}
    frames = data.draw(activity(kind, data.draw(st.integers(1, 3)), channels, *size))
    neuron = IF(v_threshold=0.25)

    build = NetworkBuilder("convolution")
    x = build.add("input", Input((channels, *size), kind))
    x = build.add("synapses", Conv2d(weight, bias, **options), x)
    x = build.add("flat", Flatten(), x)
    x = build.add("neuron", neuron, x)
    build.add("readout", Readout("sum"), x)
    convolution = Simulator(build.build(), record=["flat", "neuron"]).run(frames)

    matrix = unrolled(weight, size, window.size, options)
    build = NetworkBuilder("fan-out lists")
    x = build.add("input", Input((channels, *size), kind))
    x = build.add("flat", Flatten(), x)
    layer = SparseLinear.from_matrix(matrix, np.repeat(bias, window.size[0] * window.size[1]))
    x = build.add("synapses", layer, x)
    x = build.add("neuron", neuron, x)
    build.add("readout", Readout("sum"), x)
    lists = Simulator(build.build(), record=["synapses", "neuron"]).run(frames)

    assert_array_equal(convolution.recorded["flat"], lists.recorded["synapses"])
    assert_array_equal(convolution.recorded["neuron"], lists.recorded["neuron"])
    ours, theirs = (
        next(layer.counts for layer in result.profile if layer.name == "synapses") for result in (convolution, lists)
    )
    if kind == "real":  # pixels are multiplied densely by a convolution, while fan-out lists are of the non-zero ones
        assert theirs.macs == counts.sparse_linear_counts(frames.reshape(len(frames), -1), matrix, kind)["macs"]
        assert ours.macs == counts.conv2d_counts(frames, weight, **options, kind=kind, dense=True)["macs"]
    else:
        assert ours == theirs


@given(data=st.data())
def test_sparse_linear_touches_no_zero_synapse(data):
    """The lists hold the non-zero weights and nothing else, so a zero can neither be added nor counted."""
    weight = data.draw(weights(data.draw(st.sampled_from(OUTPUTS)), data.draw(st.integers(1, 20))))
    weight *= data.draw(activity("binary", *weight.shape))
    layer = SparseLinear.from_matrix(weight)
    source = np.repeat(np.arange(weight.shape[1]), np.diff(layer.indptr))
    assert sorted(zip(layer.targets, source, strict=True)) == list(zip(*np.nonzero(weight), strict=True))
    assert_array_equal(layer.weights, weight[layer.targets, source])
    network = Network(
        "pruned",
        {"in": Input(weight.shape[1:], "binary"), "fc": layer, "out": Readout()},
        (("in", "fc"), ("fc", "out")),
    )
    result = Simulator(network).run(np.ones((2, weight.shape[1]), F))
    assert result.totals.acs == 2 * np.count_nonzero(weight)


# --- shapes of networks


def test_one_current_may_have_many_readers():
    """The output buffer of synapses is read by a neuron, a mean and a join with itself, in every chunk."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-16, 17, (2, 2, 3, 3)).astype(F) / 16
    build = NetworkBuilder("readers")
    x = build.add("input", Input((2, 4, 4), "binary"))
    current = build.add("conv", Conv2d(weight, padding=(1, 1)), x)
    twice = build.add("twice", Residual("add"), current, current)
    spikes = build.add("if", IF(v_threshold=0.5), current)
    joined = build.add("join", Residual("add"), twice, spikes)
    pooled = build.add("pool", MaxPool2d((2, 2), (2, 2)), joined)
    mean = build.add("mean", MeanOverPositions(), pooled)
    build.add("readout", Readout("sum"), mean)
    frames = (rng.random((5, 2, 4, 4)) < 0.4).astype(F)
    layers = {
        "conv": ("conv2d", {"weight": weight, "padding": (1, 1)}),
        "twice": ("residual", {"op": "add"}),
        "if": ("if_neuron", {"v_threshold": 0.5}),
        "join": ("residual", {"op": "add"}),
        "pool": ("maxpool2d", {"kernel": (2, 2), "stride": (2, 2)}),
        "mean": ("mean_over_positions", {}),
    }
    built = build.build()
    expected = network.run(layers, [(edge.source, edge.target) for edge in built.edges][:-1], frames)
    for chunk in (1, 2, 3, 5):
        result = Simulator(built, chunk=chunk, record=layers).run(frames)
        for name in layers:
            assert_array_equal(result.recorded[name], expected[name], err_msg=name)
        assert_array_equal(result.logits, expected["mean"].sum(axis=0))


def chain(*layers: Any, edges: list[tuple[str, str]] | None = None, **options: Any) -> Network:
    """Layers named by letters, one after the other unless edges are given."""
    names = "abcdefg"[: len(layers)]
    joined = list(pairwise(names)) if edges is None else edges
    return Network("odd", dict(zip(names, layers, strict=True)), tuple(joined), **options)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (chain(Input((3,)), Linear(np.ones((2, 3), F))), "network odd: 0 Readout layers found; expected one"),
        (chain(Input((3,)), Readout(), Readout(), edges=[("a", "b"), ("a", "c")]), "2 Readout layers found"),
        (chain(IF(), Readout()), "network odd: 0 Input layers found; expected one"),
        (
            chain(Input((3,)), Readout(), time_steps=0),
            "network odd: 0 time steps found; expected a whole",
        ),
        (chain(Input((3,)), IF(), Readout(), edges=[("a", "c")]), "layer b: 0 inputs found; expected 1"),
        (chain(Input((3,)), IF(), Readout(), edges=[("a", "b"), ("a", "c")]), "layer b: output that nothing reads"),
        (chain(Input((3,)), Readout(), edges=[("a", "b"), ("a", "x")]), "edge a -> x names unknown layer 'x'"),
        (
            chain(Input((3,)), IF(), Readout(), edges=[("a", "b"), ("b", "c"), ("b", "a")]),
            "network odd: cycle a -> b -> a of no delay found; expected",
        ),
    ],
)
def test_a_network_that_makes_no_sense_is_refused(odd, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        odd.validate()
    assert "\n" not in str(caught.value)


def test_two_layers_of_one_name_are_refused():
    build = NetworkBuilder("twins")
    build.add("x", Input((3,)))
    with pytest.raises(InputError, match="network twins: two layers named 'x' found"):
        build.add("x", IF(), "x")


def test_layers_run_in_the_order_given_where_edges_allow():
    odd = chain(Residual("add"), Input((3,)), IF(), IF(), Readout(), edges=["bc", "bd", "ca", "da", "ae"])
    assert odd.order == ("b", "c", "d", "a", "e")
