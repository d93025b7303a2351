"""Layers of other packages: saved, loaded and run like ours, and left out where they are broken."""

from __future__ import annotations

import importlib
import json
import sys

import numpy as np
import pytest

from eventsim import InputError, NetworkBuilder, load, plugins, save
from eventsim.cli import main
from eventsim.layers import Input, Readout
from eventsim.plugins import PluginWarning

SCALED = """
from dataclasses import dataclass

import numpy as np

from eventsim.layers import Layer, Op
from eventsim.signals import Dense


@dataclass(frozen=True, eq=False)
class Scaled(Layer):
    factors: np.ndarray
    power: int = 1

    def output_type(self, *inputs):
        return inputs[0]

    def op(self, *inputs):
        return ScaledOp(self.factors**self.power)


class ScaledOp(Op):
    kernel, state_names, looks_ahead, once_if_static = "scale", (), False, True

    def __init__(self, factors):
        self.factors = factors

    def advance(self, inputs, context):
        return Dense(inputs[0].type, inputs[0].steps, inputs[0].data * self.factors)
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package that brings the layer Scaled; return its module."""

    def add(source=SCALED, point="Scaled = plugin_scaled:Scaled"):
        info = tmp_path / "site" / "plugin_scaled-1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin_scaled\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[eventsim.layers]\n{point}\n")
        (tmp_path / "site" / "plugin_scaled.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path / "site")
        plugins._load.cache_clear()
        return importlib.import_module("plugin_scaled")

    yield add
    plugins._load.cache_clear()
    sys.modules.pop("plugin_scaled", None)


def saved(module, path):
    build = NetworkBuilder("scaled")
    x = build.add("scaled", module.Scaled(np.array([2, 3, -1], np.float32), 2), build.add("input", Input((3,), "real")))
    build.add("readout", Readout(), x)
    save(build.build(), path)
    return path


def test_a_layer_of_another_package_is_saved_loaded_and_run(install, tmp_path, capsys):
    path = saved(install(), tmp_path / "m.h5")
    layer = load(path).layers["scaled"]
    assert (type(layer).__name__, layer.factors.tolist(), layer.power) == ("Scaled", [2, 3, -1], 2)
    np.save(tmp_path / "frames.npy", np.array([[1, 2, 4]], np.float32))
    assert main(["run", str(path), str(tmp_path / "frames.npy"), "--json"]) == 0
    (sample,) = json.loads(capsys.readouterr().out)["samples"]
    assert sample["logits"] == [4, 18, 4]
    assert [(row["name"], row["kind"], row["kernel"]) for row in sample["layers"]][1] == ("scaled", "Scaled", "scale")


def test_a_model_whose_layer_is_not_installed_says_so(install, tmp_path, capsys, monkeypatch):
    path = saved(install(), tmp_path / "m.h5")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(tmp_path / "site")])
    plugins._load.cache_clear()
    assert main(["info", str(path)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert f"{path}: layer scaled: unknown type 'Scaled' found; expected a layer of this eventsim, or of a" in err


def test_a_layer_that_nobody_could_load_is_not_saved(install, tmp_path):
    module = install(point="Other = plugin_scaled:Scaled")
    with pytest.raises(InputError, match=r"^layer scaled: type Scaled found; expected one that eventsim\.layers"):
        saved(module, tmp_path / "m.h5")
    assert list(tmp_path.glob("m.h5*")) == []


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        # a quote and 79 letters of what was found are 80 characters
        ("Scaled = plugin_scaled:WORDS", f"'{'x' * 79} found; expected a dataclass derived from eventsim.layers.Layer"),
        ("Scaled = plugin_scaled:ScaledOp", "<class 'plugin_scaled.ScaledOp'> found; expected a dataclass derived"),
        ("Scaled = plugin_scaled:Bare", "<class 'int'> found; expected a dataclass derived"),
        ("Linear = plugin_scaled:Scaled", "the name Linear is taken; expected one of its own"),
    ],
)
def test_a_broken_layer_is_left_out_and_named(install, tmp_path, point, reason):
    module = install(SCALED + "\nWORDS = 'x' * 200\nBare = int", point)
    with pytest.warns(PluginWarning) as caught, pytest.raises(InputError, match="layer scaled: type Scaled found"):
        saved(module, tmp_path / "m.h5")
    (warning,) = caught
    said = f"plug-in {point} of package plugin_scaled (eventsim.layers) is left out: {reason}"
    assert str(warning.message).startswith(said)
