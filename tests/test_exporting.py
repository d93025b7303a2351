"""Networks as NIR files: what goes out comes back bit for bit, and what NIR cannot express is refused by name."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
from assumptions import of_the_network
from hypothesis import given
from hypothesis import strategies as st
from strategies import Drawn, activity, constants, networks, randoms, recurrent_networks, thresholds, weights

from eventsim import Delayed, InputError, Network, NetworkBuilder, Simulator, import_checkpoint, load, save, to_nir
from eventsim.cli import main
from eventsim.layers import (
    IF,
    LIF,
    PLIAF,
    PLIF,
    Activation,
    Affine,
    AvgPool2d,
    Conv2d,
    CropOverTime,
    DecayLIF,
    DelayEach,
    Flatten,
    Input,
    Layer,
    LeakyIntegrator,
    Linear,
    MaxPool2d,
    MeanOverTime,
    Readout,
    Rearrange,
    Reshape,
    Residual,
    SparseLinear,
    SumPool2d,
    Threshold,
)
from eventsim.preparation_options import PREPARED
from eventsim.signals import SignalType
from eventsim_importers.reading.synapses import linear

F = np.float32


def there_and_back(network: Network) -> Network:
    with tempfile.TemporaryDirectory() as folder:
        to_nir(network, Path(folder) / "graph.nir")
        nir.read(Path(folder) / "graph.nir", type_check=False)
        return import_checkpoint(Path(folder) / "graph.nir")


def assert_comes_back(network: Network, frames: np.ndarray) -> Network:
    """The same logits and outputs of the layers that both have, bit for bit; and no value is assumed."""
    back = there_and_back(network)
    assert of_the_network(back) == ()
    assert back.time_steps == network.time_steps
    assert back.input.kind == network.input.kind
    common = [name for name in network.layers if name in back.layers]
    assert {"input", *(name for name, layer in network.layers.items() if hasattr(layer, "v_threshold"))} <= set(common)
    sent, came = Simulator(network, record=common).run(frames), Simulator(back, record=common).run(frames)
    for name in common:
        np.testing.assert_array_equal(came.recorded[name], sent.recorded[name], err_msg=name)
    np.testing.assert_array_equal(came.logits, sent.logits)
    return back


@given(drawn=recurrent_networks())
def test_recurrent_networks_come_back(drawn: Drawn) -> None:
    assert_comes_back(drawn.network, drawn.frames)


@given(drawn=networks(integers=False))
def test_attention_is_refused_by_name(drawn: Drawn) -> None:
    with pytest.raises(InputError, match=r"^layer \w+: (a join by|\w+ has no node in NIR|an average|a shift)"):
        there_and_back(drawn.network)


@st.composite
def neurons(draw: st.DrawFn, shape: tuple[int, ...]) -> Layer:
    """Any neuron that NIR has a node for."""

    def drawn(*values: float) -> Any:
        return draw(constants(st.sampled_from(values), shape))[0]

    kind = draw(st.sampled_from(["IF", "LIF", "PLIF", "DecayLIF", "LeakyIntegrator", "Threshold"]))
    start = drawn(0.0, 0.125, -0.5) if draw(st.booleans()) else 0.0
    if kind == "LeakyIntegrator":
        return LeakyIntegrator(drawn(0.0, 0.5, 1.0), start)  # its values are added up later, and sums are to be exact
    threshold = draw(constants(thresholds(), shape))[0]
    if kind == "Threshold":
        return Threshold(threshold, draw(st.booleans()))
    multiple = draw(st.booleans())
    resets = ["zero", "subtract"] if multiple else ["zero", "subtract", "subtract_late", "subtract_once", "zero_late"]
    fields = {
        "v_threshold": threshold,
        "reset": draw(st.sampled_from(resets)),
        "strict": not multiple and draw(st.booleans()),
        "multiple_spikes": multiple,
        "start": start,
        "v_min": drawn(-0.25, -1.0) if draw(st.booleans()) else None,
    }
    if kind == "IF":
        return IF(**fields)
    if kind == "LIF":
        return LIF(tau=drawn(1.3, 2.0, 3.0), decay_input=draw(st.booleans()), **fields)
    if kind == "PLIF":
        return PLIF(w=drawn(0.0, 0.7, -1.3), decay_input=draw(st.booleans()), **fields)
    return DecayLIF(decay=drawn(0.0, 0.1, 0.75, 0.9, 1.0), **fields)


@st.composite
def expressible(draw: st.DrawFn) -> tuple[Network, np.ndarray]:
    """A network of everything that NIR has a node for, with delays, sums and feedback."""
    build = NetworkBuilder("expressible")
    kind, steps = draw(st.sampled_from(["binary", "graded", "real"])), draw(st.integers(1, 7))
    shape = draw(st.sampled_from([(2, 5, 4), (3, 5, 5), (4, 6), (7,)]))
    x: str | Delayed = build.add("input", Input(shape, kind))

    def add(layer: Layer, *sources: str | Delayed, name: str = "") -> str:
        return build.add(name or f"{len(build.layers)}.{type(layer).__name__}", layer, *sources)

    def heard(source: str) -> str | Delayed:
        return Delayed(source, draw(st.integers(1, 3))) if draw(st.integers(0, 3)) == 0 else source

    for _ in range(draw(st.integers(1, 4))):
        source = build.types[str(x)]
        shape = source.shape
        choices = ["scale", "neuron", "neuron", "neuron behind", "delay", "sum", "linear", "loop"]
        choices += ["conv", "rows", "shift", "lines"] if len(shape) == 3 else []
        choices += ["pool"] if len(shape) == 3 and min(shape[1:]) > 1 else []
        choices += ["conv1d"] if len(shape) == 2 else []
        what = draw(st.sampled_from(choices))
        arrives = heard(x)
        if what == "scale":
            x = add(Affine(np.asarray(draw(constants(st.sampled_from([0.5, -1.0, 0.0, 2.0]), shape))[0], F)), arrives)
        elif what == "shift":
            x = add(Affine(draw(weights(shape[0])), draw(weights(shape[0]))), arrives)
        elif what == "neuron":
            x = add(draw(neurons(shape)), arrives)
        elif what == "neuron behind":
            name, neuron = f"{len(build.layers)}.neuron", draw(neurons(shape))
            if draw(st.booleans()):
                arrives = add(Affine(draw(weights(1, zeros=False))), arrives, name=f"{name}.input")
                arrives = add(LeakyIntegrator(draw(st.sampled_from([0.0, 0.5]))), arrives, name=f"{name}.synapse")
            shift = draw(weights(1)) if draw(st.booleans()) else None
            arrives = add(Affine(draw(weights(1, zeros=False)), shift), arrives, name=f"{name}.current")
            x = add(neuron, arrives, name=name)
        elif what == "delay":
            x = add(DelayEach(draw(randoms()).integers(0, 3, shape)), arrives)
        elif what == "sum":
            y = add(Affine(draw(weights(1, zeros=False))), x)
            z = add(Affine(draw(weights(1, zeros=False))), arrives)
            total = add(Residual("add"), *draw(st.permutations([y, z])))
            x = add(Residual("add"), *draw(st.permutations([total, heard(x)])))
        elif what == "linear":
            weight, bias = draw(weights(5, shape[0 if len(shape) == 3 else -1])), draw(st.none() | weights(5))
            weight = weight * draw(activity("binary", *weight.shape))
            x = add(Linear(weight, bias) if len(shape) == 3 else linear(weight, bias), arrives)
        elif what == "loop":
            name = f"{len(build.layers)}.loop"
            back = Delayed(name, draw(st.integers(1, 3)), SignalType("binary", source.channels, source.grid))
            if draw(st.booleans()):
                back = add(Affine(draw(weights(1))), back)
            x = add(IF(0.5), add(Residual("add"), arrives, back), name=name)
        elif what == "conv":
            groups = shape[0] if draw(st.booleans()) else 1
            weight = draw(weights(2 * shape[0], shape[0] // groups, 2, 3))
            stride, dilation = (draw(st.tuples(st.integers(1, 2), st.integers(1, 2))) for _ in range(2))
            x = add(Conv2d(weight, draw(st.none() | weights(len(weight))), stride, (2, 2), groups, dilation), arrives)
        elif what == "pool":
            x = add(draw(st.sampled_from([SumPool2d, AvgPool2d]))((2, 2), (1, 2), (1, 0)), arrives)
        elif what == "rows":
            start = draw(st.integers(0, 1))
            x = add(Reshape((shape[0], shape[1] * shape[2]) if start else (shape[0] * shape[1], shape[2])), arrives)
        elif what == "lines":
            name = f"{len(build.layers)}.lines"
            y = add(Reshape((shape[0] * shape[1], shape[2])), arrives, name=f"{name}.lines")
            y = add(Linear(draw(weights(3, shape[2])), draw(st.none() | weights(3))), y, name=f"{name}.product")
            x = add(Reshape((*shape[:2], 3)), y, name=name)
        else:
            name = f"{len(build.layers)}.conv1d"
            y = add(Reshape((shape[0], 1, shape[1])), arrives, name=f"{name}.map")
            weight = draw(weights(3, shape[0], 1, 2))
            y = add(Conv2d(weight, None, (1, 2), (0, 1), 1, (1, 2)), y, name=f"{name}.conv")
            x = add(Reshape((3, build.types[y].shape[2])), y, name=name)
    if build.types[x].grid:
        x = add(Flatten(), x)
    build.add("readout", Readout(draw(st.sampled_from(["sum", "last"]))), heard(x))
    network = build.build(draw(st.none() | st.just(steps)))
    return network, draw(activity(kind, steps, *network.input.shape))


@given(case=expressible())
def test_whatever_nir_can_express_comes_back(case: tuple[Network, np.ndarray]) -> None:
    network, frames = case
    back = assert_comes_back(network, frames)
    assert_comes_back(back, frames)


@given(data=st.data())
def test_every_number_of_a_neuron_comes_back(data: st.DataObject) -> None:
    """Decays and time constants too, which the file has as seconds."""

    def numbers(low: float, high: float) -> np.ndarray:
        return data.draw(randoms()).uniform(low, high, 9).astype(F)

    shared = {"v_threshold": numbers(0.1, 3), "start": numbers(-1, 1), "v_min": numbers(-2, -1)}
    stages: list[tuple[str, Layer]] = [
        ("lif.current", Affine(numbers(-2, 2), numbers(-2, 2))),
        ("lif", LIF(tau=numbers(1, 50), **shared)),
        ("free", LIF(tau=numbers(1, 50), decay_input=False, **shared)),
        ("plif", PLIF(w=numbers(-3, 3), **shared)),
        ("free plif", PLIF(w=numbers(-3, 3), decay_input=False, **shared)),
        ("decay.input", Affine(numbers(-2, 2))),
        ("decay.synapse", LeakyIntegrator(numbers(0, 1))),
        ("decay.current", Affine(numbers(-2, 2), numbers(-2, 2))),
        ("decay", DecayLIF(decay=numbers(0, 1), **shared)),
        ("integrator", LeakyIntegrator(numbers(0, 1), numbers(-1, 1))),
        ("threshold", Threshold(numbers(-1, 1))),
    ]
    back = there_and_back(small(*stages, shape=(9,)))
    for name, layer in stages:
        assert type(back.layers[name]) is type(layer)
        for field, value in vars(layer).items():
            np.testing.assert_array_equal(getattr(back.layers[name], field), value, err_msg=f"{name}.{field}")


def test_lists_of_synapses_become_matrices() -> None:
    """As convolutions of single pixels on a map; a matrix that is mostly zero comes back as lists."""
    weight = np.eye(5, 2, dtype=F) / 8
    for shape, kind in (((2, 4, 4), Conv2d), ((3, 2), SparseLinear)):
        network = small(("synapses", SparseLinear.from_matrix(weight, np.ones(5, F))), shape=shape)
        assert type(there_and_back(network).layers["synapses"]) is kind
        assert_comes_back(network, np.ones((3, *shape), F))


def small(*stages: tuple[str, Layer], shape: tuple[int, ...] = (2, 4, 4)) -> Network:
    build = NetworkBuilder("small")
    x = build.add("input", Input(shape))
    for name, layer in stages:
        x = build.add(name, layer, x)
    if build.types[x].grid:
        x = build.add("flatten", Flatten(), x)
    build.add("readout", Readout("sum"), x)
    return build.build()


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (MaxPool2d((2, 2), (2, 2)), "MaxPool2d has no node in NIR"),
        (MeanOverTime(), "MeanOverTime has no node in NIR"),
        (PLIAF(), "PLIAF has no node in NIR"),
        (CropOverTime(0), "CropOverTime has no node in NIR"),
        (Rearrange(np.arange(32), (8, 2, 2)), "Rearrange has no node in NIR"),
        (Activation("clamp", 0, 1), "Activation has no node in NIR"),
        (LIF(emits="potential"), "emits='potential', while neurons there emit spikes, which NIR cannot express"),
        (PLIF(w=100.0, decay_input=False), "decay_input=False with w so high that nothing is kept"),
        (AvgPool2d((2, 2), (2, 2), (1, 1), count_include_pad=False), "an average over windows .* NIR cannot express"),
        (Reshape((4, 8)), r"shape \(2, 4, 4\) as \(4, 8\), which NIR cannot express"),
        (DecayLIF(decay=1.5), "decay outside 0 to 1, which NIR cannot express"),
        (Affine(np.ones(2, F), np.ones((2, 4, 4), F)), "a shift that differs from position to position"),
    ],
)
def test_what_nir_cannot_express_is_refused_by_name(tmp_path: Path, layer: Layer, words: str) -> None:
    with pytest.raises(InputError, match=f"^layer odd: {words}") as caught:
        to_nir(small(("odd", layer)), tmp_path / "graph.nir")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_names_that_a_file_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^layer a/b: name that a NIR file cannot hold"):
        to_nir(small(("a/b", IF())), tmp_path / "graph.nir")


def test_the_layout_is_that_of_nir_write(tmp_path: Path) -> None:
    """The same names, shapes and types of data as ``nir.write`` makes of what ``nir.read`` reads."""
    stages = [
        ("conv", Conv2d(np.ones((3, 2, 3, 3), F), padding=(1, 1))),
        ("lif", LIF(tau=3.0, strict=True)),
        ("pool", SumPool2d((2, 2), (2, 2))),
        ("flatten", Flatten()),
        ("fc", Linear(np.ones((5, 12), F), np.ones(5, F))),
        ("if", IF()),
    ]
    to_nir(small(*stages), tmp_path / "ours.nir")
    graph = nir.read(tmp_path / "ours.nir")
    assert [type(node).__name__ for node in graph.nodes.values()] == [
        "Conv2d", "Affine", "Flatten", "IF", "Input", "LIF", "SumPool2d", "Output",
    ]  # fmt: skip
    assert graph.metadata["dt"] == "0.0001"
    assert graph.metadata["reset"] == graph.nodes["lif"].metadata["reset"] == "zero"
    assert (graph.nodes["lif"].metadata["strict"], graph.nodes["if"].metadata["strict"]) == ("true", "false")
    nir.write(tmp_path / "theirs.nir", graph)

    def described(path: Path) -> dict[str, Any]:
        found = {}
        with h5py.File(path) as file:
            file.visititems(lambda name, item: found.update({name: getattr(item, "dtype", None)}))
        return found

    theirs = described(tmp_path / "theirs.nir")
    assert described(tmp_path / "ours.nir") == {name: each for name, each in theirs.items() if "v_reset" not in name}
    with h5py.File(tmp_path / "ours.nir") as file:
        assert file["version"][()] == b"1.0.8"


def test_a_file_is_replaced_when_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "graph.nir"
    path.write_text("old")
    with pytest.raises(InputError, match="MeanOverTime"):
        to_nir(small(("mean", MeanOverTime())), path)
    assert path.read_text() == "old"
    to_nir(small(("if", IF())), path)
    assert [each.name for each in tmp_path.iterdir()] == ["graph.nir"]
    with pytest.raises(InputError, match=r"absent.graph\.nir: cannot be written"):
        to_nir(small(("if", IF())), tmp_path / "absent" / "graph.nir")


def test_the_preparation_goes_along_where_somebody_said_it(tmp_path: Path) -> None:
    build = NetworkBuilder("small")
    x = build.add("if", IF(), build.add("input", Input((2, 4, 4))))
    build.add("readout", Readout("sum"), build.add("flat", Flatten(), x))
    network = build.build(time_steps=3)
    to_nir(network, tmp_path / "plain.nir")
    said = {"window": "time", "binary": True, "flip_x": True, "fit": "crop"}
    prepared = import_checkpoint(tmp_path / "plain.nir", **said)
    to_nir(prepared, tmp_path / "said.nir")
    back = import_checkpoint(tmp_path / "said.nir")
    found = {each.option: (each.value, each.source) for each in back.settings if each.option in PREPARED}
    assert {name: found[name] for name in said} == {name: (value, "metadata") for name, value in said.items()}
    assert {source for name, (_, source) in found.items() if name not in said} == {"assumed"}
    assert not [each for each in back.settings if each.option == "metadata"], "all of it is read"


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(small(("if", IF())), tmp_path / "model.h5")
    assert main(["export", str(tmp_path / "model.h5"), "-o", str(tmp_path / "graph.nir")]) == 0
    assert "wrote" in capsys.readouterr().out
    assert main(["import", str(tmp_path / "graph.nir"), "-o", str(tmp_path / "back.h5")]) == 0
    assert of_the_network(load(tmp_path / "back.h5")) == ()
    save(small(("mean", MeanOverTime())), tmp_path / "model.h5")
    assert main(["export", str(tmp_path / "model.h5"), "-o", str(tmp_path / "graph.nir")]) == 2
    assert "layer mean: MeanOverTime has no node in NIR" in capsys.readouterr().err
