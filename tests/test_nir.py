"""NIR files: every node against the definition of NIR in plain NumPy, what is refused, and a trained network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
from reference.pooling import avgpool2d, sumpool2d
from reference.synapses import conv2d, linear

from eventsim import InputError, Network, NetworkBuilder, Simulator, import_checkpoint, load, save
from eventsim.datasets import Sample, evaluate, labelled_files, open_sample
from eventsim.layers import IF, LIF, Affine, Flatten, Input, Readout, SparseLinear, Threshold
from eventsim.preparation import Preparation

F = np.float32
DT = 2.0**-10
MARGIN = 1e-5

Array = np.ndarray[Any, Any]


# --- dense definition -------------------------------------------------------------------------------------------------


def neuron(
    x: Array, node: nir.IF | nir.LIF, dt: float, reset: str = "zero", strict: bool = True
) -> tuple[Array, Array]:
    """Spikes, and potentials before the reset; in float64, starting at v_reset."""
    v_reset, threshold = np.asarray(node.v_reset, float), np.asarray(node.v_threshold, float)
    v = np.broadcast_to(v_reset, x.shape[1:])
    spikes, potentials = np.zeros_like(x), np.zeros(x.shape)
    for t, current in enumerate(np.asarray(node.r, float) * x):
        h = v + current if isinstance(node, nir.IF) else v + dt / node.tau * (node.v_leak - v + current)
        fired = h > threshold if strict else h >= threshold
        v = np.where(fired, v_reset if reset == "zero" else h - (threshold - v_reset), h)
        spikes[t], potentials[t] = fired, h
    return spikes, potentials


def convolve(x: Array, node: nir.Conv2d) -> Array:
    kernel = np.asarray(node.weight.shape[2:])
    padding = (
        {"same": kernel // 2, "valid": np.zeros(2)}[node.padding] if isinstance(node.padding, str) else node.padding
    )
    return conv2d(x, node.weight, node.bias, pair(node.stride), pair(padding), int(node.groups))


def pair(value: Any) -> tuple[int, int]:
    vertical, horizontal = np.broadcast_to(np.asarray(value, int), (2,))
    return int(vertical), int(horizontal)


def dense(graph: nir.NIRGraph, x: Array, dt: float = DT, **fire: Any) -> dict[str, Array]:
    """Output of every node by name; those of a nested graph are called graph.node."""
    definitions: dict[type, Callable[[Array, Any], Array]] = {
        nir.Output: lambda x, node: x,
        nir.Conv2d: convolve,
        nir.Linear: lambda x, node: linear(x, node.weight),
        nir.Affine: lambda x, node: linear(x, node.weight, node.bias),
        nir.Scale: lambda x, node: (x * node.scale).astype(F),
        nir.SumPool2d: lambda x, node: sumpool2d(x, *(pair(p) for p in (node.kernel_size, node.stride, node.padding))),
        nir.AvgPool2d: lambda x, node: avgpool2d(x, *(pair(p) for p in (node.kernel_size, node.stride, node.padding))),
        nir.Flatten: lambda x, node: x.reshape(len(x), -1),
        nir.Threshold: lambda x, node: (x > node.threshold).astype(F),
        nir.IF: lambda x, node: neuron(x, node, dt, **fire)[0],
        nir.LIF: lambda x, node: neuron(x, node, dt, **fire)[0],
    }
    outputs: dict[str, Array] = {}
    pending = dict(graph.nodes)
    while pending:
        for name in list(pending):
            sources = [source for source, target in graph.edges if target == name]
            if not all(source in outputs for source in sources):
                continue
            node = pending.pop(name)
            arriving = np.sum([outputs[source] for source in sources], axis=0, dtype=F) if sources else x
            if isinstance(node, nir.NIRGraph):
                inner = dense(node, arriving, dt, **fire)
                outputs.update({f"{name}.{key}": value for key, value in inner.items()})
                outputs[name] = inner[next(iter(node.outputs))]
            else:
                outputs[name] = arriving if isinstance(node, nir.Input) else definitions[type(node)](arriving, node)
    return outputs


# --- graphs -----------------------------------------------------------------------------------------------------------


def dyadic(*shape: int, seed: int = 0) -> Array:
    """Multiples of 1/8 between -1 and 1."""
    return np.random.default_rng(seed).integers(-8, 9, shape).astype(F) / 8


def positive(*shape: int, seed: int = 0) -> Array:
    """1/4, 1/2, ... 2."""
    return np.random.default_rng(seed).integers(1, 9, shape).astype(F) / 4


def counts(*shape: int, steps: int = 6, seed: int = 0) -> Array:
    """Event counts, two thirds of them zero."""
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 4, (steps, *shape)) * (rng.random((steps, *shape)) < 0.33)).astype(F)


def chain(nodes: Mapping[str, nir.NIRNode], *shape: int, out: tuple[int, ...] | None = None) -> nir.NIRGraph:
    """One node after the other; the shape of the output is computed unless given."""
    names = ["input", *nodes]
    edges = list(zip(names, [*nodes, "output"], strict=True))
    inner = nir.NIRGraph({"input": nir.Input(np.array(shape)), **nodes}, edges[:-1], type_check=False)
    out = dense(inner, np.zeros((1, *shape), F))[names[-1]].shape[1:] if out is None else out
    return nir.NIRGraph({**inner.nodes, "output": nir.Output(np.array(out))}, edges, type_check=False)


def conv(*shape: int, padding: Any = (0, 0), stride: Any = (1, 1), groups: int = 1, **fields: Any) -> nir.Conv2d:
    given = {"input_shape": None, "dilation": (1, 1), "weight": dyadic(*shape), "bias": dyadic(shape[0], seed=1)}
    return nir.Conv2d(**{**given, "padding": padding, "stride": stride, "groups": groups, **fields})


def lif(*shape: int, **fields: Any) -> nir.LIF:
    given = {"tau": 2 * DT, "r": 1, "v_leak": 0, "v_threshold": 0.5, "v_reset": 0}
    return nir.LIF(**{name: np.broadcast_to(F(fields.get(name, given[name])), shape).copy() for name in given})


def integrate(*shape: int, **fields: Any) -> nir.IF:
    given = {"r": 1, "v_threshold": 1, "v_reset": 0}
    return nir.IF(**{name: np.broadcast_to(F(fields.get(name, given[name])), shape).copy() for name in given})


def pool(kind: type, kernel: Any, stride: Any, padding: Any) -> Any:
    return kind(*(np.array(value) for value in (kernel, stride, padding)))


def affine(outputs: int, inputs: int) -> nir.Affine:
    return nir.Affine(dyadic(outputs, inputs), dyadic(outputs, seed=1))


def flatten(*shape: int) -> nir.Flatten:
    return nir.Flatten(np.array(shape), 0, -1)


def write(folder: Path, graph: nir.NIRNode) -> Path:
    """Write a graph, around two of nir.write's stumbling blocks: no input_shape, and arrays without axes."""
    path = folder / "graph.nir"
    for node in every_node(graph):
        for field, value in vars(node).items():
            if field == "input_shape" and value is None:
                setattr(node, field, "unknown")
            elif isinstance(value, np.ndarray) and value.shape == ():
                setattr(node, field, value[()])
    nir.write(path, graph)
    with h5py.File(path, "r+") as file:
        unknown: list[str] = []
        file.visititems(lambda name, item: unknown.append(name) if name.endswith("input_shape") else None)
        for name in unknown:
            if file[name].dtype.kind == "O":
                del file[name]
    return path


def every_node(graph: nir.NIRNode) -> Iterator[nir.NIRNode]:
    yield graph
    for node in getattr(graph, "nodes", {}).values():
        yield from every_node(node)


def imported(folder: Path, graph: nir.NIRNode, **options: Any) -> Network:
    return import_checkpoint(write(folder, graph), **{"dt": DT, **options})


def assert_same(network: Network, graph: nir.NIRGraph, frames: Array, **fire: Any) -> None:
    """Every layer bit for bit, and the logits."""
    expected = dense(graph, frames, **fire)
    for name, node in graph.nodes.items():
        if isinstance(node, (nir.IF, nir.LIF, nir.Threshold)):
            assert 0.02 < expected[name].mean() < 0.98, f"{name} hardly fires, or always"
    layers = [name for name in expected if name in network.layers and name != "output"]
    result = Simulator(network, record=layers).run(frames)
    for name in layers:
        np.testing.assert_array_equal(result.recorded[name], expected[name], err_msg=name)
    np.testing.assert_array_equal(result.logits, expected["output"].sum(axis=0))


# --- nodes ------------------------------------------------------------------------------------------------------------

MAPS = {
    "conv": {"conv": conv(4, 2, 3, 3)},
    "conv of 17 channels": {"conv": conv(17, 2, 3, 3, padding=1)},
    "conv stride padding": {"conv": conv(3, 2, 3, 3, stride=(2, 1), padding=(1, 2))},
    "conv one number": {"conv": conv(3, 2, 3, 3, stride=2, padding=1)},
    "conv rectangular": {"conv": conv(3, 2, 3, 1, padding=(1, 0))},
    "conv same": {"conv": conv(3, 2, 5, 3, padding="same")},
    "conv valid": {"conv": conv(3, 2, 3, 3, padding="valid")},
    "conv groups": {"conv": conv(4, 1, 3, 3, groups=2)},
    "conv input_shape": {"conv": conv(4, 2, 3, 3, input_shape=(6, 5))},
    "sum pool": {"pool": pool(nir.SumPool2d, (2, 3), (2, 1), (1, 0)), "conv": conv(4, 2, 1, 1)},
    "average pool": {"pool": pool(nir.AvgPool2d, (2, 2), (2, 1), (1, 1)), "conv": conv(4, 2, 1, 1)},
    "average pool of one number": {"pool": pool(nir.AvgPool2d, 2, 1, 0)},
    "scale": {"scale": nir.Scale(dyadic(2, 6, 5)), "conv": conv(4, 2, 3, 3)},
    "scale of one number": {"scale": nir.Scale(dyadic(1)), "conv": conv(4, 2, 3, 3)},
    "threshold": {"conv": conv(4, 2, 3, 3), "threshold": nir.Threshold(dyadic(4, 4, 3, seed=2))},
    "threshold of counts": {"threshold": nir.Threshold(np.ones(1, F)), "conv": conv(4, 2, 3, 3)},
    "if": {"conv": conv(4, 2, 3, 3), "if": integrate(4, 4, 3)},
    "if of one number": {"conv": conv(4, 2, 3, 3), "if": integrate()},
    "if per neuron": {"conv": conv(4, 2, 3, 3), "if": integrate(4, 4, 3, v_threshold=positive(4, 4, 3))},
    "if resistance": {"conv": conv(4, 2, 3, 3), "if": integrate(4, 4, 3, r=positive(4, 4, 3))},
    "if v_reset": {"conv": conv(4, 2, 3, 3), "if": integrate(4, 4, 3, v_reset=dyadic(4, 4, 3), v_threshold=1.5)},
    "if on the input": {"if": integrate(2, 6, 5, v_threshold=2.5)},
    "lif": {"conv": conv(4, 2, 3, 3), "lif": lif(4, 4, 3)},
    "lif of one number": {"conv": conv(4, 2, 3, 3), "lif": lif()},
    "lif per neuron": {
        "conv": conv(4, 2, 3, 3),
        "lif": lif(4, 4, 3, tau=DT * 2.0 ** (np.arange(48).reshape(4, 4, 3) % 3), v_threshold=positive(4, 4, 3)),
    },
    "lif resistance": {"conv": conv(4, 2, 3, 3), "lif": lif(4, 4, 3, r=positive(4, 4, 3))},
    "lif resistance tau": {"conv": conv(4, 2, 3, 3), "lif": lif(4, 4, 3, r=2)},
    "lif v_leak": {"conv": conv(4, 2, 3, 3), "lif": lif(4, 4, 3, v_leak=dyadic(4, 4, 3))},
    "lif biophysical": {
        "conv": conv(4, 2, 3, 3),
        "lif": lif(4, 4, 3, v_leak=-65, v_reset=-70, v_threshold=-66, r=2),
    },
}


@pytest.mark.parametrize("case", MAPS)
def test_nodes_of_maps_follow_their_definition(tmp_path: Path, case: str) -> None:
    nodes = dict(MAPS[case])
    shape = dense(chain(nodes, 2, 6, 5), np.zeros((1, 2, 6, 5), F))["output"].shape[1:]
    graph = chain({**nodes, "flatten": flatten(*shape), "head": affine(3, int(np.prod(shape)))}, 2, 6, 5)
    network = imported(tmp_path, graph)
    assert [name for name in network.layers if not name.endswith(".current")] == list(graph.nodes)
    assert_same(network, graph, counts(2, 6, 5))


VECTORS = {
    "affine": {"fc": affine(5, 7)},
    "linear": {"fc": nir.Linear(dyadic(5, 7))},
    "scale": {"fc": affine(5, 7), "scale": nir.Scale(dyadic(5))},
    "threshold": {"fc": affine(5, 7), "threshold": nir.Threshold(dyadic(5, seed=3))},
    "if": {"fc": affine(5, 7), "if": integrate(5, v_threshold=positive(5)), "head": nir.Linear(dyadic(3, 5))},
    "lif": {"fc": affine(5, 7), "lif": lif(5, v_threshold=positive(5)), "head": nir.Linear(dyadic(3, 5))},
    "flatten": {"flatten": flatten(7), "fc": affine(5, 7)},
    "spikes": {"fc": affine(5, 7), "if": integrate(5)},
}


@pytest.mark.parametrize("case", VECTORS)
def test_nodes_of_vectors_follow_their_definition(tmp_path: Path, case: str) -> None:
    graph = chain(VECTORS[case], 7)
    assert_same(imported(tmp_path, graph), graph, counts(7))


SPIKING = {
    "conv": conv(4, 2, 3, 3, padding=1),
    "lif": lif(4, 6, 5, v_reset=0.25, v_threshold=positive(4, 6, 5)),
    "pool": pool(nir.SumPool2d, 2, 2, 0),
    "flatten": flatten(4, 3, 2),
    "fc": affine(5, 24),
    "if": integrate(5, v_reset=-0.5),
}


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("strict", [True, False])
def test_reset_and_comparison_can_be_chosen(tmp_path: Path, reset: str, strict: bool) -> None:
    graph, frames = chain(SPIKING, 2, 6, 5), counts(2, 6, 5)
    network = imported(tmp_path, graph, reset=reset, strict=strict)
    assert_same(network, graph, frames, reset=reset, strict=strict)
    others = dense(graph, frames, reset="subtract" if reset == "zero" else "zero", strict=strict)
    assert (others["lif"] != dense(graph, frames, reset=reset, strict=strict)["lif"]).any()
    opposite = dense(graph, frames, reset=reset, strict=not strict)
    assert (opposite["lif"] != dense(graph, frames, reset=reset, strict=strict)["lif"]).any()


def test_written_networks_stay_the_same(tmp_path: Path) -> None:
    nodes = {**SPIKING, "threshold": nir.Threshold(dyadic(5))}
    graph = chain(nodes, 2, 6, 5)
    network = imported(tmp_path, graph)
    save(network, tmp_path / "model.h5")
    assert_same(load(tmp_path / "model.h5"), graph, counts(2, 6, 5))


def test_conventions_for_the_resistance_need_no_layer(tmp_path: Path) -> None:
    dt, beta = 1e-4, F(0.95)
    tau = dt / (1 - beta)
    conventions = {
        "snnTorch": nir.LIF(tau=np.asarray(tau), r=np.asarray(tau / dt), v_leak=np.zeros(()), v_threshold=np.ones(())),
        "Norse": lif(5, tau=0.02),
        "SpikingJelly": integrate(5, r=1 / dt),
        "sinabs": integrate(5),
    }
    for name, node in conventions.items():
        network = import_checkpoint(write(tmp_path, chain({"fc": affine(5, 7), "spikes": node}, 7)))
        assert list(network.layers) == ["input", "fc", "spikes", "output"]
        spikes = network.layers["spikes"]
        assert spikes.v_threshold == 1 if name != "Norse" else spikes.v_threshold == 0.5
        if isinstance(spikes, LIF):
            assert spikes.tau == pytest.approx(200 if name == "Norse" else 20, rel=1e-6)
            assert spikes.decay_input == (name == "Norse")
        else:
            assert isinstance(spikes, IF)


def test_other_resistances_become_a_layer(tmp_path: Path) -> None:
    network = imported(tmp_path, chain({"fc": affine(5, 7), "spikes": lif(5, r=3)}, 7))
    assert list(network.layers) == ["input", "fc", "spikes.current", "spikes", "output"]
    assert isinstance(network.layers["spikes.current"], Affine)


def test_mostly_zero_weights_become_synapse_lists(tmp_path: Path) -> None:
    weight = dyadic(40, 30)
    weight[np.random.default_rng(5).random(weight.shape) < 0.8] = 0
    nodes = {"fc": nir.Affine(weight, dyadic(40, seed=1)), "if": integrate(40), "head": nir.Linear(weight.T.copy())}
    graph = chain(nodes, 30)
    network = imported(tmp_path, graph)
    for name in ("fc", "head"):
        assert isinstance(network.layers[name], SparseLinear)
        assert len(network.layers[name].weights) == np.count_nonzero(weight)
    assert_same(network, graph, counts(30))


# --- graphs within graphs, branches -----------------------------------------------------------------------------------


def test_nested_graphs_are_joined_by_dots(tmp_path: Path) -> None:
    innermost = chain({"if": integrate(4, 6, 5), "pool": pool(nir.AvgPool2d, 2, 2, 0)}, 4, 6, 5)
    block = chain({"conv": conv(4, 1, 3, 3, padding=1, groups=2, input_shape=(6, 5))}, 2, 6, 5, out=(4, 3, 2))
    block.nodes["deep"] = innermost
    block.edges = [("input", "conv"), ("conv", "deep"), ("deep", "output")]
    graph = chain({"block": block, "flatten": flatten(4, 3, 2), "head": affine(3, 24)}, 2, 6, 5, out=(3,))
    network = imported(tmp_path, graph)
    assert list(network.layers) == [
        "input",
        "block.conv",
        "block.deep.if",
        "block.deep.pool",
        "flatten",
        "head",
        "output",
    ]
    assert_same(network, graph, counts(2, 6, 5))


def test_edges_into_one_node_add_up(tmp_path: Path) -> None:
    nodes = {
        "input": nir.Input(np.array([7])),
        "fc1": affine(5, 7),
        "spikes": integrate(5),
        "fc2": nir.Linear(dyadic(5, 5, seed=4)),
        "fc3": nir.Linear(dyadic(5, 5, seed=5)),
        "last": integrate(5),
        "output": nir.Output(np.array([5])),
    }
    edges = [("input", "fc1"), ("fc1", "spikes"), ("spikes", "fc2"), ("spikes", "fc3"), ("spikes", "last")]
    edges += [("fc2", "last"), ("fc3", "last"), ("last", "output")]
    graph = nir.NIRGraph(nodes, edges, type_check=False)
    network = imported(tmp_path, graph)
    assert {"last.sum", "last.sum1"} <= set(network.layers)
    assert_same(network, graph, counts(7))


def test_names_with_dots_and_brackets(tmp_path: Path) -> None:
    nodes = {"layers.0": conv(4, 2, 3, 3), "layers[1]": pool(nir.SumPool2d, 2, 2, 0), "*": flatten(4, 2, 1)}
    graph = chain({**nodes, "?": affine(3, 8)}, 2, 6, 5)
    network = imported(tmp_path, graph)
    assert list(network.layers) == ["input", "layers.0", "layers[1]", "*", "?", "output"]
    assert_same(network, graph, counts(2, 6, 5))


def test_metadata_is_no_weight(tmp_path: Path) -> None:
    graph = chain({"fc": affine(5, 7)}, 7)
    graph.metadata = {"author": "somebody", "scores": np.ones(3)}
    graph.nodes["fc"].metadata = {"fan_in": 7, "history": np.ones((2, 2))}
    assert_same(imported(tmp_path, graph), graph, counts(7))


# --- what is said -----------------------------------------------------------------------------------------------------


def test_what_was_assumed_is_said(tmp_path: Path) -> None:
    said = " ".join(import_checkpoint(write(tmp_path, chain({"fc": affine(5, 7), "lif": lif(5)}, 7))).assumptions)
    for words in ("input_kind = graded", "dt = 0.0001", "reset = zero", "strict = true"):
        assert words in said
    assert "v_reset" not in said
    path = write(tmp_path, chain({"fc": affine(5, 7), "a": integrate(5), "b": integrate(5)}, 7))
    assert " dt " not in " ".join(import_checkpoint(path).assumptions)
    with h5py.File(path, "r+") as file:
        del file["node/nodes/a/v_reset"], file["node/nodes/b/v_reset"]
    network = import_checkpoint(path, reset="subtract", strict="false", input_kind="binary")
    said = {sentence.partition(" = ")[0] for sentence in network.assumptions}
    assert said == {"framework", "v_reset", "reset_delay", "multiple_spikes", "v_min", "readout"}
    assert "v_reset = 0: not in the checkpoint, NIR's default" in network.assumptions
    assert network.layers["a"].reset == "subtract"
    assert not network.layers["a"].strict
    assert network.input.kind == "binary"
    network = imported(tmp_path, chain({"fc": affine(5, 7), "if": integrate(5, v_reset=0.5)}, 7))
    assert any("start = v_reset" in assumption for assumption in network.assumptions)


def test_static_images_are_taken(tmp_path: Path) -> None:
    nodes = {"threshold": nir.Threshold(np.full((2, 6, 5), 0.5, F)), "flatten": flatten(2, 6, 5), "fc": affine(3, 60)}
    graph = chain({**nodes, "if": integrate(3)}, 2, 6, 5)
    network = imported(tmp_path, graph, input_kind="real")
    image = dyadic(2, 6, 5, seed=8)
    result = Simulator(network).run(image, time_steps=7)
    np.testing.assert_array_equal(result.logits, dense(graph, np.stack([image] * 7))["output"].sum(axis=0))


# --- what is refused --------------------------------------------------------------------------------------------------


def refuse(path: Path, words: str, **options: Any) -> None:
    with pytest.raises(InputError, match=words) as caught:
        import_checkpoint(path, **options)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


def test_other_nodes_are_named_with_their_type(tmp_path: Path) -> None:
    path = write(tmp_path, chain({"fc": affine(5, 7)}, 7))
    with h5py.File(path, "r+") as file:
        del file["node/nodes/fc/type"]
        file["node/nodes/fc/type"] = "Softmax"
    refuse(path, r"node fc \(Softmax\): node type not supported; expected one of Input, Output, Conv")


def test_unknown_types_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, chain({"fc": affine(5, 7)}, 7))
    with h5py.File(path, "r+") as file:
        del file["node/nodes/fc/type"]
    refuse(path, r"node fc \(\): node type not supported")


def test_feedback_is_named(tmp_path: Path) -> None:
    graph = chain({"fc": affine(5, 7), "lif": lif(5)}, 7)
    graph.nodes["back"] = affine(5, 5)
    graph.edges += [("lif", "back"), ("back", "lif")]
    refuse(write(tmp_path, graph), r"recurrent edges (lif -> back -> lif|back -> lif -> back) found; expected a feed-")
    inner = chain({"lif": lif(5)}, 5)
    inner.edges += [("lif", "lif")]
    refuse(
        write(tmp_path, chain({"fc": affine(5, 7), "rnn": inner}, 7, out=(5,))),
        r"recurrent edges rnn.lif -> rnn.lif found",
    )


def wrong(case: str) -> nir.NIRGraph:
    maps: dict[str, Any] = {
        "channels": conv(4, 3, 3, 3),
        "groups": conv(4, 2, 3, 3, groups=0),
        "too large a kernel": conv(4, 2, 9, 3),
        "dilation": conv(4, 2, 3, 3, dilation=(1, 0)),
        "even same": conv(4, 2, 2, 3, padding="same"),
        "strided same": conv(4, 2, 3, 3, padding="same", stride=2),
        "three strides": conv(4, 2, 3, 3, stride=(1, 1, 1)),
        "no stride": conv(4, 2, 3, 3, stride=0),
        "bias": conv(4, 2, 3, 3, bias=dyadic(3)),
        "input_shape": conv(4, 2, 3, 3, input_shape=(7, 5)),
        "linear on a map": nir.Linear(dyadic(3, 60)),
        "neurons": integrate(2, 6, 4),
        "neurons of an axis": integrate(6),
        "resistances": lif(2, 5, 6),
        "scale": nir.Scale(dyadic(6, 5)),
        "threshold": nir.Threshold(dyadic(2, 6)),
        "flatten of an axis": nir.Flatten(np.array([2, 6, 5]), 1, 3),
        "flatten of another shape": flatten(2, 5, 6),
        "pool": pool(nir.SumPool2d, (9, 2), 1, 0),
    }
    vectors: dict[str, Any] = {
        "weights": affine(5, 6),
        "three axes": nir.Linear(dyadic(2, 5, 7)),
        "conv of a vector": conv(4, 7, 3, 3),
    }
    if case == "output":
        return chain({"bad": affine(5, 7)}, 7, out=(6,))
    if case in maps:
        return chain({"bad": maps[case]}, 2, 6, 5, out=(3,))
    return chain({"bad": vectors[case]}, 7, out=(5,))


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("channels", r"node bad \(Conv2d\): weight of shape \(4, 3, 3, 3\).*to fit 2 input channels"),
        ("groups", r"node bad \(Conv2d\): .*0 groups"),
        ("too large a kernel", r"node bad \(Conv2d\): kernel \(9, 3\).* does not fit into a 6x5 map"),
        ("dilation", r"node bad \(Conv2d\): dilation \(1, 0\) found; expected two numbers"),
        ("even same", r"node bad \(Conv2d\): padding 'same' with kernel \(2, 3\)"),
        ("strided same", r"node bad \(Conv2d\): padding 'same' with kernel \(3, 3\) and stride \(2, 2\)"),
        ("three strides", r"node bad \(Conv2d\): stride \(1, 1, 1\) found"),
        ("no stride", r"node bad \(Conv2d\): .*stride \(0, 0\)"),
        ("bias", r"node.nodes.bad.bias \(3\) found; expected \(4\)"),
        ("input_shape", r"node bad \(Conv2d\): input_shape \(7, 5\) found; expected \(6, 5\), which is what arrives"),
        ("linear on a map", r"node bad \(Linear\): input graded 2x6x5 found; expected one vector"),
        ("neurons", r"node.nodes.bad.r \(2, 6, 4\) found; expected \(2, 6, 5\)"),
        ("neurons of an axis", r"node.nodes.bad.r \(6\) found; expected \(2, 6, 5\)"),
        ("resistances", r"node.nodes.bad.tau \(2, 5, 6\) found; expected \(2, 6, 5\)"),
        ("scale", r"node.nodes.bad.scale \(6, 5\) found"),
        ("threshold", r"node.nodes.bad.threshold \(2, 6\) found"),
        ("flatten of an axis", r"node bad \(Flatten\): axes 1 to 3 of \(2, 6, 5\) found; expected axes"),
        ("flatten of another shape", r"node bad \(Flatten\): input_type \(2, 5, 6\) found; expected \(2, 6, 5\)"),
        ("pool", r"node bad \(SumPool2d\): kernel \(9, 2\)"),
        ("weights", r"node.nodes.bad.weight \(5, 6\) found; expected \(any, 7\)"),
        ("three axes", r"node.nodes.bad.weight \(2, 5, 7\) found"),
        ("conv of a vector", r"node bad \(Conv2d\): input graded 7 found; expected a map"),
        ("output", r"node output \(Output\): shape \(6\,\) found; expected \(5,\)"),
    ],
)
def test_shapes_that_do_not_fit_name_the_node(tmp_path: Path, case: str, words: str) -> None:
    refuse(write(tmp_path, wrong(case)), words)


def test_maps_at_the_output_are_flattened(tmp_path: Path) -> None:
    graph, frames = chain({"conv": conv(4, 2, 3, 3)}, 2, 6, 5), counts(2, 6, 5)
    network = imported(tmp_path, graph)
    assert list(network.layers) == ["input", "conv", "output.flatten", "output"]
    expected = dense(graph, frames)["output"].sum(axis=0)
    np.testing.assert_array_equal(Simulator(network).run(frames).logits, expected.ravel())


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("fc/weight", np.full((5, 7), np.nan, F), "node.nodes.fc.weight holds NaN"),
        ("fc/bias", np.full(5, np.inf, F), "node.nodes.fc.bias holds NaN or infinite"),
        ("fc/weight", np.full((5, 7), 2**25), "node.nodes.fc.weight of type int64"),
        ("fc/weight", None, "node.nodes.fc.weight missing"),
        ("fc/gain", np.ones(5, F), "node.nodes.fc.gain .*left over"),
        ("if/v_threshold", np.full(5, np.nan, F), "node.nodes.if.v_threshold holds NaN"),
        ("if/r", None, "node.nodes.if.r missing"),
        ("input/shape", None, r"node input \(Input\): shape missing"),
        ("input/shape", np.array([7.0]), r"node input \(Input\): shape of type float32"),
        ("input/shape", np.array([0]), r"node input \(Input\): shape \(0,\) found"),
        ("input/shape", np.array([[7]]), r"node input \(Input\): shape of type int64 and shape \(1, 1\)"),
        ("output/type", None, r"node output \(\): node type not supported"),
        ("../edges", np.ones((2, 2)), "node/edges of type float64"),
        ("../edges", np.array([[b"input", b"fc", b"if"]]), r"node/edges of type .S5 and shape \(1, 3\)"),
        ("../edges", np.array([[b"input", b"gone"]]), "node/edges name 'gone' found"),
        ("../edges", np.array([[b"input", b"fc"], [b"input", b"fc"]]), "edge input -> fc found twice in node"),
        ("../edges", np.array([[b"input", b"fc"], [b"if", b"output"]]), r"node if \(IF\): 0 edges into it found"),
        ("../edges", np.array([[b"fc", b"input"]]), r"node (fc|input) \((Affine|Input)\): [01] edges into it found"),
    ],
)
def test_damaged_fields_are_named(tmp_path: Path, field: str, value: Array | None, words: str) -> None:
    path = write(tmp_path, chain({"fc": affine(5, 7), "if": integrate(5)}, 7))
    name = f"node/nodes/{field}" if not field.startswith("..") else "node/edges"
    with h5py.File(path, "r+") as file:
        if name in file:
            del file[name]
        if value is not None:
            file[name] = value
    refuse(path, words)


@pytest.mark.parametrize("ends", [0, 2])
def test_graphs_with_other_than_one_input_and_output(tmp_path: Path, ends: int) -> None:
    graph = chain({"fc": affine(5, 7)}, 7)
    inner = chain({"if": integrate(5)}, 5)
    if ends == 0:
        del inner.nodes["output"]
        inner.edges.pop()
    else:
        inner.nodes["second"] = nir.Output(np.array([5]))
        inner.edges.append(("if", "second"))
    graph.nodes["inner"] = inner
    graph.edges = [("input", "fc"), ("fc", "inner"), ("inner", "output")]
    refuse(write(tmp_path, graph), rf"node inner \(NIRGraph\): {ends} Output nodes found; expected one")


def test_dead_ends_and_second_outputs_are_named(tmp_path: Path) -> None:
    graph = chain({"fc": affine(5, 7)}, 7)
    graph.nodes["dead"] = affine(3, 5)
    graph.edges.append(("fc", "dead"))
    with pytest.raises(InputError, match="layer dead: output that nothing reads found"):
        imported(tmp_path, graph)
    graph.nodes["second"] = nir.Output(np.array([3]))
    graph.edges.append(("dead", "second"))
    refuse(write(tmp_path, graph), "2 Output nodes found; expected one, or output= one of output, second")
    del graph.nodes["output"], graph.nodes["second"]
    graph.edges = [("input", "fc"), ("fc", "dead")]
    refuse(write(tmp_path, graph), "0 Readout layers found; expected one")


def test_files_that_are_damaged_or_no_graph(tmp_path: Path) -> None:
    path = write(tmp_path, chain({"conv": conv(16, 2, 5, 5), "if": integrate(16, 30, 30)}, 2, 34, 34))
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        refuse(path, r"graph\.nir: damaged or truncated")
    nir.write(path, lif(5))
    refuse(path, "LIF found at the root of the NIR file; expected NIRGraph")
    with h5py.File(path, "w") as file:
        file["weight"] = np.ones(3, F)
    refuse(path, "no known format found")
    refuse(path, "no NIR graph found; expected an HDF5 file with a root node", format="nir")


def test_links_out_of_the_file_and_loops_are_not_followed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["weight"] = dyadic(5, 7)
    path = write(tmp_path, chain({"fc": affine(5, 7)}, 7))
    with h5py.File(path, "r+") as file:
        file["node/nodes/fc/metadata"] = file["node"]
    assert list(import_checkpoint(path).layers) == ["input", "fc", "output"]
    with h5py.File(path, "r+") as file:
        del file["node/nodes/fc/weight"]
        file["node/nodes/fc/weight"] = h5py.ExternalLink("other.h5", "weight")
    refuse(path, "node.nodes.fc.weight missing")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dt": 0}, "dt=0.0 found; expected a time step longer than 0"),
        ({"dt": -1.0}, "dt=-1.0 found"),
        ({"dt": 1}, r"node lif \(LIF\): tau 0.00195312 found; expected at least dt = 1; set a smaller dt"),
    ],
)
def test_time_steps_that_make_no_sense(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    refuse(write(tmp_path, chain({"fc": affine(5, 7), "lif": lif(5)}, 7)), words, **options)


# --- the Threshold layer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["binary", "graded", "real"])
@pytest.mark.parametrize("threshold", ["one", "none", "negative", "per channel", "per neuron"])
@pytest.mark.parametrize("strict", [True, False])
def test_thresholds_compare_every_value(kind: str, threshold: str, strict: bool) -> None:
    values = {"one": 1.0, "none": 0.0, "negative": -0.25}
    arrays = {"per channel": dyadic(2, seed=6) * 2, "per neuron": dyadic(2, 6, 5, seed=6) * 2}
    at = values.get(threshold, arrays.get(threshold))
    frames = {"binary": counts(2, 6, 5) > 0, "graded": counts(2, 6, 5), "real": dyadic(4, 2, 6, 5)}[kind].astype(F)
    build = NetworkBuilder("threshold")
    x = build.add("input", Input((2, 6, 5), kind))
    x = build.add("threshold", Threshold(at, strict), x)
    x = build.add("flatten", Flatten(), x)
    build.add("readout", Readout("sum"), x)
    result = Simulator(build.build(), record=["threshold"], chunk=2).run(frames)
    limit = at.reshape(2, 1, 1) if threshold == "per channel" else at
    np.testing.assert_array_equal(result.recorded["threshold"], frames > limit if strict else frames >= limit)
    (profile,) = (layer for layer in result.profile if layer.name == "threshold")
    assert profile.counts.comparisons == frames.size
    assert profile.neurons == profile.counts.spikes == profile.counts.neuron_updates == 0


@pytest.mark.parametrize("threshold", [np.nan, np.ones(3, F), np.ones((6, 5), F)])
def test_thresholds_that_do_not_fit(threshold: Any) -> None:
    build = NetworkBuilder("threshold")
    x = build.add("input", Input((2, 6, 5)))
    with pytest.raises(InputError, match="layer threshold: threshold"):
        build.add("threshold", Threshold(threshold), x)


# --- a trained network ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(shared: Path) -> Network:
    return import_checkpoint(shared / "checkpoints" / "nir_scnn_nmnist" / "cnn_sinabs.nir")


@pytest.fixture(scope="module")
def recordings(shared: Path) -> list[Sample]:
    return labelled_files(shared / "nmnist" / "Test")


BINS = Preparation(window="duration", bin_us=1000)


def frames_of(recording: Sample, network: Network) -> Array:
    chunks = BINS.frames(open_sample(recording), network)
    return np.concatenate([np.asarray(chunk).reshape(-1, *network.input.shape) for chunk in chunks]).astype(F)


def test_trained_network_is_complete_and_says_what_it_assumed(trained: Network) -> None:
    assert trained.input.shape == (2, 34, 34)
    assert list(trained.layers) == ["input", *map(str, range(13)), "output"]
    said = " ".join(trained.assumptions)
    assert all(words in said for words in ("reset = zero", "strict = true", "v_reset = 0", "input_kind = graded"))
    assert "dt =" not in said


def test_trained_network_classifies_recordings(trained: Network, recordings: list[Sample]) -> None:
    outcomes = list(evaluate(Simulator(trained), recordings, BINS))
    assert len(outcomes) == 50
    assert [outcome.error for outcome in outcomes] == [None] * 50
    right = sum(outcome.prediction == outcome.sample.label for outcome in outcomes)
    assert right >= 49


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_trained_network_fires_as_the_dense_one(shared: Path, recordings: list[Sample], reset: str) -> None:
    """Each node on what the event-driven one before it emitted: spikes may differ only within the margin."""
    path = shared / "checkpoints" / "nir_scnn_nmnist" / "cnn_sinabs.nir"
    graph, network = nir.read(path), import_checkpoint(path, reset=reset)
    frames = frames_of(recordings[7], network)
    names = [str(index) for index in range(13)]
    result = Simulator(network, record=names).run(frames)
    arriving = {"0": frames, **{after: result.recorded[name] for name, after in pairwise(names)}}
    emitted = 0
    for name in names:
        node, ours = graph.nodes[name], result.recorded[name]
        if not isinstance(node, nir.IF):
            single = nir.NIRGraph({"input": nir.Input(np.ones(1)), name: node}, [("input", name)], type_check=False)
            np.testing.assert_allclose(ours, dense(single, arriving[name])[name], rtol=1e-5, atol=MARGIN)
            continue
        spikes, potentials = neuron(arriving[name], node, DT, reset)
        differ = ours != spikes
        first = differ & (np.cumsum(differ, axis=0) == 1)  # afterwards this neuron's potential is another
        assert (abs(potentials - node.v_threshold)[first] < MARGIN).all()
        assert differ.mean() < 1e-5
        emitted += int(spikes.sum())
    assert emitted > 5000
    np.testing.assert_array_equal(result.logits, result.recorded["12"].sum(axis=0))
