"""The nodes of NIR that need more than one layer, a delay or another shape, each against its definition in NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
from reference.over_time import delay_each
from reference.synapses import conv2d
from test_nir import (
    Array,
    affine,
    chain,
    conv,
    counts,
    dyadic,
    flatten,
    imported,
    integrate,
    lif,
    positive,
    refuse,
    write,
)

from eventsim import Simulator, import_checkpoint
from eventsim.layers import DelayEach, LeakyIntegrator

F = np.float32
DT = 2.0**-10


def record(folder: Path, graph: nir.NIRGraph, frames: Array, *names: str, **options: Any) -> tuple[list[Array], Array]:
    network = imported(folder, graph, **options)
    result = Simulator(network, record=names, chunk=2).run(frames)
    return [result.recorded[name] for name in names], result.logits


# --- neurons that hold a current, or never fire


def leaked(x: Array, tau: Array | float, r: Array | float, v_leak: Array | float) -> Array:
    """One step of Euler's method after the other, in float64."""
    v, potentials = np.zeros(x.shape[1:]), np.zeros(x.shape)
    for t, arriving in enumerate(x.astype(float)):
        v = potentials[t] = v + DT / np.asarray(tau, float) * (v_leak - v + np.asarray(r, float) * arriving)
    return potentials


@pytest.mark.parametrize("v_leak", [0.0, 0.5])
@pytest.mark.parametrize("r", [1.0, 2.0, 0.5])
def test_integrators_that_never_fire(tmp_path: Path, v_leak: float, r: float) -> None:
    tau = (DT * 2.0 ** (np.arange(7) % 3)).astype(F)
    node = nir.LI(tau, np.full(7, r, F), np.full(7, v_leak, F))
    (seen,), logits = record(tmp_path, chain({"li": node}, 7, out=(7,)), counts(7), "li")
    np.testing.assert_array_equal(seen, leaked(counts(7), tau, r, v_leak))
    np.testing.assert_array_equal(logits, seen.sum(axis=0))
    (seen,), _ = record(tmp_path, chain({"i": nir.I(positive(7) * F(r))}, 7, out=(7,)), counts(7), "i")
    np.testing.assert_array_equal(seen, np.cumsum(counts(7) * positive(7) * r, axis=0))


def test_current_based_neurons(tmp_path: Path) -> None:
    """The current follows its own equation; the potential hears it in the same step."""
    tau_syn, tau_mem = np.full(7, 2 * DT, F), np.full(7, 4 * DT, F)
    shared = {"tau_syn": tau_syn, "tau_mem": tau_mem, "r": np.full(7, 2, F), "v_leak": np.full(7, 0.25, F)}
    expected = leaked(leaked(counts(7), tau_syn, positive(7), 0), tau_mem, 2, 0.25)
    node = nir.CubaLI(**shared, w_in=positive(7))
    (seen,), _ = record(tmp_path, chain({"li": node}, 7, out=(7,)), counts(7), "li")
    np.testing.assert_array_equal(seen, expected)
    node = nir.CubaLIF(**shared, v_threshold=np.full(7, 100, F), v_reset=np.zeros(7, F), w_in=positive(7))
    graph = chain({"lif": node, "fc": affine(3, 7)}, 7, out=(3,))
    network = imported(tmp_path, graph)
    assert [name for name in network.layers if name.startswith("lif")] == [
        "lif.input",
        "lif.synapse",
        "lif.current",
        "lif",
    ]
    assert isinstance(network.layers["lif.synapse"], LeakyIntegrator)
    current = leaked(counts(7), tau_syn, positive(7), 0)
    node = nir.CubaLIF(**shared, v_threshold=np.full(7, 0.5, F), v_reset=np.zeros(7, F), w_in=positive(7))
    (seen,), _ = record(tmp_path, chain({"lif": node}, 7, out=(7,)), counts(7), "lif")
    v = np.zeros(7)
    for t in range(len(seen)):
        h = v + 0.25 * (0.25 - v + 2 * current[t])
        np.testing.assert_array_equal(seen[t], h > 0.5)
        v = np.where(h > 0.5, 0, h)
    assert 0.1 < seen.mean() < 0.9


# --- delays


@pytest.mark.parametrize("shape", [(7,), (2, 3, 4)])
def test_equal_delays_belong_to_the_edge(tmp_path: Path, shape: tuple[int, ...]) -> None:
    delays = {"d1": nir.Delay(np.full(shape, 2 * DT)), "d2": nir.Delay(np.full(shape, DT, F))}
    graph = chain(
        {"scale": nir.Scale(positive(*shape)), **delays, "again": nir.Scale(np.ones(shape, F))}, *shape, out=shape
    )
    network = imported(tmp_path, graph)
    assert [name for name in network.layers if "flatten" not in name] == ["input", "scale", "again", "output"]
    assert [edge.delay for edge in network.edges if edge.target == "again"] == [3]
    (seen,), _ = record(tmp_path, graph, counts(*shape), "again")
    np.testing.assert_array_equal(seen, delay_each(counts(*shape) * positive(*shape), np.full(shape, 3)))


def test_unequal_delays_are_kept_neuron_by_neuron(tmp_path: Path) -> None:
    steps = np.random.default_rng(0).integers(1, 5, (2, 3, 4))
    graph = chain({"delay": nir.Delay((steps * DT).astype(F))}, 2, 3, 4, out=(2, 3, 4))
    network = imported(tmp_path, graph, input_kind="binary")
    assert isinstance(network.layers["delay"], DelayEach)
    assert network.types["delay"].kind == "binary"
    frames = (counts(2, 3, 4, steps=8) > 0).astype(F)
    (seen,), _ = record(tmp_path, graph, frames, "delay", input_kind="binary")
    np.testing.assert_array_equal(seen, delay_each(frames, steps))


@pytest.mark.parametrize(
    ("delay", "words"),
    [
        (np.full(7, 1.5 * DT), r"node delay \(Delay\): delay 0\.00146484 found; expected a whole number of time steps"),
        (np.full(7, -DT), r"node delay \(Delay\): delay -0\.000976562 found"),
        (np.full(6, DT) * np.arange(6), r"node.nodes.delay.delay \(6\) found; expected \(7\)"),
        (np.full(7, np.nan), "node.nodes.delay.delay holds NaN"),
    ],
)
def test_delays_that_make_no_sense_are_named(tmp_path: Path, delay: Array, words: str) -> None:
    refuse(write(tmp_path, chain({"delay": nir.Delay(delay)}, 7, out=(7,))), words, dt=DT)


def test_a_delay_breaks_a_cycle(tmp_path: Path) -> None:
    """The neuron hears itself two steps later, through a convolution; no framework is needed."""
    nodes = {
        "input": nir.Input(np.array([2, 3, 4])),
        "if": integrate(2, 3, 4, v_threshold=2),
        "delay": nir.Delay(np.full((2, 3, 4), 2 * DT)),
        "back": conv(2, 2, 3, 3, padding=1),
        "output": nir.Output(np.array([2, 3, 4])),
    }
    edges = [("input", "if"), ("if", "delay"), ("delay", "back"), ("back", "if"), ("if", "output")]
    (seen,), _ = record(tmp_path, nir.NIRGraph(nodes, edges, type_check=False), counts(2, 3, 4, steps=9), "if")
    v, fired = np.zeros((2, 3, 4)), np.zeros((11, 2, 3, 4), F)
    for t, arriving in enumerate(counts(2, 3, 4, steps=9)):
        h = v + arriving + conv2d(fired[t][None], nodes["back"].weight, nodes["back"].bias, padding=(1, 1))[0]
        fired[t + 2] = h > 2
        v = np.where(h > 2, 0, h)
    np.testing.assert_array_equal(seen, fired[2:])
    assert 0.02 < seen.mean() < 0.98


def test_recurrent_neurons_on_maps_may_state_their_channels_alone(tmp_path: Path) -> None:
    """As snnTorch writes its RLeaky with a convolution: shapes and parameters of channels, and names that tell it."""
    threshold = np.array([0.5, 1.5], F)
    inner = nir.NIRGraph(
        {
            "input": nir.Input(np.array([2])),
            "lif": nir.LIF(*(np.full(2, v, F) for v in (4e-4, 4, 0)), threshold, np.zeros(2, F)),
            "w_rec": conv(2, 2, 3, 3, padding=1),
            "output": nir.Output(np.array([2])),
        },
        [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")],
        type_check=False,
    )
    graph = chain({"rnn": inner}, 2, 3, 4, out=(2, 3, 4))
    frames = counts(2, 3, 4, steps=12) / 2
    (seen,), _ = record(tmp_path, graph, frames, "rnn.lif", dt=None, input_kind="real")
    v, fired, node = np.zeros((2, 3, 4), F), np.zeros((13, 2, 3, 4), F), inner.nodes["w_rec"]
    for t, arriving in enumerate(frames):
        late = (v > threshold.reshape(2, 1, 1)).astype(F)
        current = arriving + conv2d(fired[t][None], node.weight, node.bias, padding=(1, 1))[0]
        v = F(0.75) * v + current - late * threshold.reshape(2, 1, 1)
        fired[t + 1] = v > threshold.reshape(2, 1, 1)
    np.testing.assert_array_equal(seen, fired[1:])
    assert 0.02 < seen.mean() < 0.98


def test_delays_alone_make_no_cycle(tmp_path: Path) -> None:
    graph = chain({"fc": affine(7, 7), "delay": nir.Delay(np.full(7, DT))}, 7, out=(7,))
    graph.edges.append(("delay", "delay"))
    refuse(write(tmp_path, graph), "recurrent edges delay -> delay found; expected a neuron in it", dt=DT)
    graph = chain({"fc": affine(7, 7)}, 7)
    graph.nodes["delay"] = nir.Delay(np.full(7, DT))
    graph.edges.append(("fc", "delay"))
    refuse(write(tmp_path, graph), r"node delay \(Delay\): output that nothing reads", dt=DT)


# --- weights and shapes


@pytest.mark.parametrize(("dilation", "padding"), [((1, 2), (0, 1)), (2, 1), ((2, 1), "same"), ((3, 1), "valid")])
def test_dilated_convolutions(tmp_path: Path, dilation: Any, padding: Any) -> None:
    node = conv(3, 2, 3, 3, dilation=dilation, padding=padding)
    pair = tuple(int(d) for d in np.broadcast_to(dilation, 2))
    pixels = {"same": pair, "valid": (0, 0)}[padding] if isinstance(padding, str) else np.broadcast_to(padding, 2)
    frames = counts(2, 9, 8)
    expected = conv2d(frames, node.weight, node.bias, padding=tuple(map(int, pixels)), dilation=pair)
    (seen,), _ = record(tmp_path, chain({"conv": node}, 2, 9, 8, out=expected.shape[1:]), frames, "conv")
    np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize(
    "fields", [{}, {"stride": 2, "padding": 1}, {"dilation": 2}, {"padding": "same"}, {"groups": 2}, {"input_shape": 9}]
)
def test_convolutions_of_sequences(tmp_path: Path, fields: dict[str, Any]) -> None:
    given = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "input_shape": None, **fields}
    weight, bias = dyadic(6, 4 // given["groups"], 3), dyadic(6, seed=1)
    padding = 1 if given["padding"] == "same" else given["padding"]
    frames = counts(4, 9)
    options = {"stride": (1, given["stride"]), "padding": (0, padding), "dilation": (1, given["dilation"])}
    expected = conv2d(frames[:, :, None], weight[:, :, None], bias, groups=given["groups"], **options)[:, :, 0]
    node = nir.Conv1d(**given, weight=weight, bias=bias)
    threshold = integrate(6, v_threshold=0.5)  # one for each channel of the convolution
    graph = chain({"conv": node, "if": threshold, "flatten": nir.Flatten(None, 0, -1)}, 4, 9, out=(expected[0].size,))
    graph.nodes["flatten"].input_type = {"input": np.array(expected.shape[1:])}
    names = ("conv", "if")
    (seen, spikes), _ = record(tmp_path, graph, frames, *names)
    np.testing.assert_array_equal(seen, expected)
    assert spikes.shape == expected.shape


def test_sequences_that_do_not_fit(tmp_path: Path) -> None:
    node = nir.Conv1d(None, dyadic(6, 4, 3), 1, 0, 1, 1, dyadic(6))
    refuse(
        write(tmp_path, chain({"bad": node}, 4, 9, 2, out=(6,))), r"node bad \(Conv1d\): input .* expected a sequence"
    )
    refuse(
        write(tmp_path, chain({"bad": node}, 4, 2, out=(6,))), r"node bad \(Conv1d\): kernel \(1, 3\).* does not fit"
    )


@pytest.mark.parametrize("shape", [(7,), (4, 7), (2, 3, 7)])
def test_matrices_multiply_the_last_axis(tmp_path: Path, shape: tuple[int, ...]) -> None:
    frames = counts(*shape)
    expected = frames @ affine(5, 7).weight.T + affine(5, 7).bias
    (seen,), _ = record(tmp_path, chain({"fc": affine(5, 7)}, *shape, out=expected.shape[1:]), frames, "fc")
    np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize(("start", "end"), [(0, 1), (1, 2), (1, -1), (-2, -1), (0, -1), (2, 2)])
def test_flatten_some_axes(tmp_path: Path, start: int, end: int) -> None:
    shapes = {(0, 1): (6, 4), (2, 2): (2, 3, 4), (0, -1): (24,)}
    shape = shapes.get((start, end), (2, 12))
    node = nir.Flatten(np.array([2, 3, 4]), start, end)
    (seen,), _ = record(tmp_path, chain({"flatten": node}, 2, 3, 4, out=shape), counts(2, 3, 4), "flatten")
    np.testing.assert_array_equal(seen, counts(2, 3, 4).reshape(-1, *shape))


@pytest.mark.parametrize("stored", [(4,), (4, 1, 1), (1, 4, 4, 3), (1, 4, 1, 1), (4, 4, 3)])
def test_parameters_of_channels_and_batches(tmp_path: Path, stored: tuple[int, ...]) -> None:
    threshold = np.broadcast_to(positive(4).reshape(-1, 1, 1), (4, 4, 3)) if stored[-1] == 3 else positive(4)
    node = nir.IF(*(np.reshape(np.broadcast_to(F(v), threshold.shape), stored).copy() for v in (1, threshold, 0)))
    graph = chain({"conv": conv(4, 2, 3, 3), "if": node}, 2, 6, 5, out=(4, 4, 3))
    whole = chain(
        {"conv": conv(4, 2, 3, 3), "if": integrate(4, 4, 3, v_threshold=positive(4).reshape(-1, 1, 1))},
        2,
        6,
        5,
        out=(4, 4, 3),
    )
    frames = counts(2, 6, 5)
    (seen,), _ = record(tmp_path, graph, frames, "if")
    (expected,), _ = record(tmp_path, whole, frames, "if")
    np.testing.assert_array_equal(seen, expected)


def test_a_batch_axis_of_one_is_left_out(tmp_path: Path) -> None:
    nodes = {
        "conv": conv(4, 2, 3, 3),
        "flatten": nir.Flatten(np.array([1, 4, 4, 3]), 1, -1),
        "fc": affine(5, 48),
        "if": integrate(1, 5),
    }
    graph = chain(nodes, 1, 2, 6, 5, out=(1, 5))
    plain = chain({**nodes, "flatten": flatten(4, 4, 3), "if": integrate(5)}, 2, 6, 5)
    network = imported(tmp_path, graph)
    assert network.input.shape == (2, 6, 5)
    assert any(setting.option == "input" and setting.source == "inferred" for setting in network.settings)
    (seen,), _ = record(tmp_path, graph, counts(2, 6, 5), "if")
    (expected,), _ = record(tmp_path, plain, counts(2, 6, 5), "if")
    np.testing.assert_array_equal(seen, expected)
    assert imported(tmp_path, chain({"fc": affine(5, 7)}, 1, 7, out=(1, 5))).input.shape == (7,)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float16, np.float64])
def test_weights_of_other_types(tmp_path: Path, dtype: type) -> None:
    node = affine(5, 7)
    node.weight, node.bias = (8 * node.weight).astype(dtype), (8 * node.bias).astype(dtype)
    (seen,), _ = record(tmp_path, chain({"fc": node}, 7), counts(7), "fc")
    np.testing.assert_array_equal(seen, counts(7) @ node.weight.T.astype(F) + node.bias.astype(F))


# --- outputs and inputs


def two_outputs() -> nir.NIRGraph:
    graph = chain({"fc": affine(5, 7), "lif": lif(5)}, 7)
    graph.nodes |= {"side": affine(3, 5), "second": nir.Output(np.array([3]))}
    graph.edges += [("fc", "side"), ("side", "second")]
    return graph


def test_one_of_several_outputs(tmp_path: Path) -> None:
    path = write(tmp_path, two_outputs())
    refuse(path, "2 Output nodes found; expected one, or output= one of output, second")
    refuse(path, "output=third found; expected one, or output= one of output, second", output="third")
    assert list(import_checkpoint(path, output="second").layers) == ["input", "fc", "side", "second"]
    assert list(import_checkpoint(path, output="output").layers) == ["input", "fc", "lif", "output"]


def test_inputs_that_are_two_are_named(tmp_path: Path) -> None:
    graph = chain({"fc": affine(5, 7)}, 7)
    graph.nodes["other"] = nir.Input(np.array([7]))
    graph.edges.append(("other", "fc"))
    refuse(write(tmp_path, graph), "Input nodes input, other found; expected one")


def test_logits_are_the_sum_or_the_last(tmp_path: Path) -> None:
    graph = chain({"fc": affine(5, 7)}, 7)
    expected = counts(7) @ affine(5, 7).weight.T + affine(5, 7).bias
    _, logits = record(tmp_path, graph, counts(7))
    np.testing.assert_array_equal(logits, expected.sum(axis=0))
    _, logits = record(tmp_path, graph, counts(7), readout="last")
    np.testing.assert_array_equal(logits, expected[-1])


def test_an_edge_list_may_name_nodes_that_are_missing(tmp_path: Path) -> None:
    path = write(tmp_path, chain({"fc": affine(5, 7)}, 7))
    with h5py.File(path, "r+") as file:
        del file["node/nodes/fc"]
    refuse(path, "node/edges name 'fc' found; expected the name of a node")
