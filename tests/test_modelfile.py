"""Model files: what is saved is what is loaded; damaged, hostile and newer files are refused in one line."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from plain_rows import main
from strategies import networks

import eventsim
from eventsim import InputError, Network, NetworkBuilder, Simulator, load, plugins, save
from eventsim.layers import PLIF, Input, Readout
from eventsim.modelfile import seal
from eventsim.signals import SignalType
from eventsim.testing import check_layer

DATA = Path(__file__).parent / "data"


@contextmanager
def forged(path: Path) -> Iterator[Any]:
    """Change a model file as somebody would who knows how to seal it."""
    with h5py.File(path, "a") as file:
        yield file
    seal(path)


@pytest.fixture
def model(tmp_path: Path, small_network: Network) -> Path:
    path = tmp_path / "model.h5"
    save(small_network, path)
    return path


@given(drawn=networks())
def test_what_is_saved_is_what_is_loaded(drawn, tmp_path_factory) -> None:
    network, frames = drawn.network, drawn.frames
    path = tmp_path_factory.mktemp("models") / "model.h5"
    save(network, path)
    loaded = load(path)
    assert (loaded.name, loaded.edges, loaded.time_steps, loaded.assumptions) == (
        network.name,
        network.edges,
        network.time_steps,
        network.assumptions,
    )
    assert list(loaded.layers) == list(network.layers)
    for name, layer in network.layers.items():
        assert type(loaded.layers[name]) is type(layer)
        for field in fields(layer):
            np.testing.assert_array_equal(getattr(loaded.layers[name], field.name), getattr(layer, field.name))
    before, after = Simulator(network).run(frames), Simulator(loaded).run(frames)
    np.testing.assert_array_equal(before.logits, after.logits)
    assert before.totals == after.totals


def test_cut_files_are_refused(model: Path) -> None:
    content = model.read_bytes()
    for share in (0, 0.1, 0.5, 0.9, 0.99):
        model.write_bytes(content[: int(share * len(content))])
        with pytest.raises(InputError, match=r"model\.h5.*(truncated|damaged|not a model)") as caught:
            load(model)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", range(40))
def test_a_single_flipped_bit_is_refused(model: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    content = bytearray(model.read_bytes())
    content[rng.integers(512, len(content))] ^= 1 << rng.integers(0, 8)
    model.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.h5: damaged or truncated"):
        load(model)


def test_a_newer_format_is_refused(model: Path) -> None:
    with forged(model) as file:
        file.attrs["eventsim_schema"] = 99
    with pytest.raises(InputError, match="format 99 found; this eventsim reads up to 2, upgrade it"):
        load(model)


def change_layer(path: Path, name: str, **changes: object) -> None:
    with forged(path) as file:
        for group in file["layers"].values():
            plain = json.loads(group.attrs["layer"])
            if plain["name"] == name:
                group.attrs["layer"] = json.dumps(
                    {**plain, **changes.get("layer", {}), "fields": {**plain["fields"], **changes.get("fields", {})}}
                )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layer": {"type": "Teleport"}}, "layer conv: unknown type 'Teleport'"),
        ({"layer": {"type": "LayerError"}}, "layer conv: unknown type"),
        ({"layer": {"type": "Layer"}}, "layer conv: unknown type"),
        ({"fields": {"colour": "red"}}, "layer conv: unknown field 'colour'"),
        ({"fields": {"stride": [0, 1]}}, "layer conv: kernel"),
        ({"fields": {"stride": "ab"}}, "damaged model file"),
        ({"fields": {"groups": 3}}, "layer conv: weight of shape"),
    ],
)
def test_layers_that_make_no_sense_are_named(model: Path, changes: dict[str, object], words: str) -> None:
    change_layer(model, "conv", **changes)
    with pytest.raises(InputError, match=words):
        load(model)


def test_nan_weights_and_declared_sizes_are_refused(model: Path) -> None:
    with forged(model) as file:
        file["layers/00001/weight"][0, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match="layer conv: weight holds NaN"):
        load(model)
    with forged(model) as file:
        del file["layers/00001/weight"]
        file["layers/00001"].create_dataset("weight", shape=(1 << 40,), dtype="f4", chunks=(1024,))
    with pytest.raises(InputError, match=r"dataset conv\.weight declares"):
        load(model)


def test_data_in_other_files_is_not_followed(model: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(4096))
    with forged(model) as file:
        shape = file["layers/00001/weight"].shape
        del file["layers/00001/weight"]
        file["layers/00001"].create_dataset(
            "weight", shape=shape, dtype="f4", external=[(str(tmp_path / "secret"), 0, 4096)]
        )
    with pytest.raises(InputError, match="points into other files"):
        load(model)


def test_other_hdf5_files_and_missing_ones(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.ones(3)
    with pytest.raises(InputError, match="not a model file"):
        load(tmp_path / "other.h5")
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "absent.h5")


def test_an_existing_model_survives_a_failed_save(model: Path, small_network: Network) -> None:
    before = model.read_bytes()
    broken = Network("broken", {"input": small_network.layers["input"]}, ())
    with pytest.raises(InputError):
        save(broken, model)
    assert model.read_bytes() == before
    with pytest.raises(InputError, match="cannot be written"):
        save(small_network, model.parent / "absent" / "model.h5")


def test_public_names() -> None:
    assert eventsim.__version__
    assert all(hasattr(eventsim, name) for name in ("import_checkpoint", "save", "load", "open_recording", "Simulator"))


# --- format 1, written before edges could wait


def test_a_file_of_format_1_still_gives_the_same_result() -> None:
    """The file and what came out of it were kept from then; its weights are dyadic, so the logits are exact."""
    network = load(DATA / "format_1.h5")
    kept = json.loads((DATA / "format_1.json").read_text())
    frames = np.random.default_rng(1).integers(0, 3, (4, 2, 8, 8))
    result = Simulator(network).run(frames)
    assert result.logits.tolist() == kept["logits"]
    # what was counted then; other operations came later
    found = {
        layer.name: {name: count for name, count in main(layer.counts).items() if count} for layer in result.profile
    }
    assert found == kept["layers"]
    assert (network.name, network.time_steps) == ("written by format 1", 4)
    assert network.assumptions == ("tau = 2.0: not in the checkpoint, the default",)
    assert all(edge.delay == 0 for edge in network.edges)


def test_a_learned_time_constant_without_decay_input_is_one_that_decays(tmp_path: Path) -> None:
    """Files written before neurons of learned time constants had the choice."""
    build = NetworkBuilder("before")
    build.add("readout", Readout(), build.add("plif", PLIF(w=0.5), build.add("input", Input((3,), "binary"))))
    save(build.build(2), tmp_path / "m.h5")
    with forged(tmp_path / "m.h5") as file:
        group = file["layers/00001"]
        plain = json.loads(group.attrs["layer"])
        del plain["fields"]["decay_input"]
        group.attrs["layer"] = json.dumps(plain)
    layer = load(tmp_path / "m.h5").layers["plif"]
    assert vars(layer) == vars(PLIF(w=0.5))
    assert layer.decay_input


# --- delays


def test_a_file_with_a_cycle_of_no_delay_is_refused(model: Path) -> None:
    with forged(model) as file:
        description = json.loads(file["network"][()])
        description["edges"] = [*description["edges"][:-1], ["mean", "conv", 0], ["mean", "readout"]]
        description["edges"].remove(["input", "conv", 0])
        del file["network"]
        file["network"] = json.dumps(description)
    with pytest.raises(InputError, match=r"model\.h5: network small: cycle (\w+ -> )+\w+ of no delay found") as caught:
        load(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("delay", [-1, 0.5, "2", None, [1]])
def test_a_file_with_a_delay_that_makes_no_sense_is_refused(model: Path, delay: Any) -> None:
    with forged(model) as file:
        description = json.loads(file["network"][()])
        description["edges"][1] = [*description["edges"][1][:2], delay]
        del file["network"]
        file["network"] = json.dumps(description)
    with pytest.raises(InputError, match=r"model\.h5: .*edge conv -> lif with delay .* found") as caught:
        load(model)
    assert "\n" not in str(caught.value)


# --- layers of other packages

DOUBLE = """
from dataclasses import dataclass

from eventsim.layers import Layer, Op
from eventsim.signals import Dense


@dataclass(frozen=True, eq=False)
class Double(Layer):
    factor: float = 2.0

    def output_type(self, *inputs):
        return inputs[0]

    def dense(self, inputs, memory):
        return inputs[0] * self.factor

    def op(self, *inputs):
        return DoubleOp(self.factor)


class DoubleOp(Op):
    kernel = "double"
    state_names = ()
    looks_ahead = False
    once_if_static = True

    def __init__(self, factor):
        self.factor = factor

    def advance(self, inputs, context):
        (signal,) = inputs
        return Dense(signal.type, signal.steps, signal.data * self.factor)
"""


def doubling(layer: Any) -> Network:
    build = NetworkBuilder("doubling")
    x = build.add("input", Input((2,), "real"))
    build.add("readout", Readout(), build.add("double", layer, x))
    return build.build()


def test_a_layer_of_another_package_is_saved_and_loaded(tmp_path: Path, install: Any) -> None:
    install("Double", DOUBLE, ":Double", plugins.LAYERS)
    layer = importlib.import_module("plugin_Double").Double(factor=3.0)
    check_layer(layer, SignalType("real", 2, (), dense=True))
    save(doubling(layer), tmp_path / "m.h5")
    assert Simulator(load(tmp_path / "m.h5")).run([[1, 2]]).logits.tolist() == [3, 6]


def test_an_absent_layer_is_named(tmp_path: Path, install: Any) -> None:
    install("Double", DOUBLE, ":Double", plugins.LAYERS)
    layer = importlib.import_module("plugin_Double").Double()
    save(doubling(layer), tmp_path / "m.h5")
    plugins._load.cache_clear()
    shutil.rmtree(tmp_path / "plugin_Double")
    with pytest.raises(InputError, match=r"m\.h5: layer double: unknown type 'Double' found; .*install the one"):
        load(tmp_path / "m.h5")
    with pytest.raises(
        InputError, match=r"^layer double: type Double found; expected one that eventsim\.layers exports"
    ):
        save(doubling(layer), tmp_path / "again.h5")


@pytest.mark.parametrize(
    ("source", "attribute", "reason"),
    [
        ("import nothing_of_this_name", ":Broken", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("", ":Broken", "AttributeError: module 'plugin_Broken' has no attribute 'Broken'"),
        ("class Broken: pass", ":Broken", "found; expected a dataclass derived from eventsim.layers.Layer"),
        ("raise SystemError('out of order')", ":Broken", "SystemError: out of order"),
    ],
)
def test_a_broken_plug_in_is_reported_and_stops_nothing(
    model: Path, tmp_path: Path, install: Any, source: str, attribute: str, reason: str
) -> None:
    install("Double", DOUBLE, ":Double", plugins.LAYERS)
    save(doubling(importlib.import_module("plugin_Double").Double()), tmp_path / "m.h5")
    plugins._load.cache_clear()
    install("Broken", source, attribute, plugins.LAYERS)
    load(model)  # needs no layer of another package, so none is loaded
    with pytest.warns(
        plugins.PluginWarning, match=f"plug-in Broken = plugin_Broken{attribute} of package plugin_Broken"
    ):
        network = load(tmp_path / "m.h5")
    assert Simulator(network).run([[1, 2]]).logits.tolist() == [2, 4]
    plugins._load.cache_clear()
    with pytest.warns(plugins.PluginWarning) as caught:
        load(tmp_path / "m.h5")
    assert reason in str(caught[0].message)
    assert "\n" not in str(caught[0].message)
    assert len(caught) == 1


def test_our_layers_keep_their_names(tmp_path: Path, install: Any) -> None:
    install("LIF", DOUBLE.replace("Double", "LIF"), ":LIF", plugins.LAYERS)
    install("Double", DOUBLE, ":Double", plugins.LAYERS)
    with pytest.warns(plugins.PluginWarning, match="the name LIF is taken; expected one of its own"):
        save(doubling(importlib.import_module("plugin_Double").Double()), tmp_path / "m.h5")
