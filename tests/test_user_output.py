"""What commands print and write, as users and their programs read it."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

from eventsim import NetworkBuilder, save
from eventsim.cli import main
from eventsim.layers import IF, Flatten, Input, Linear, Readout

F = np.float32


@pytest.fixture
def call(capsys):
    """Return exit code, stdout and stderr of a command."""

    def run(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def spiking(tmp_path):
    """Three inputs, four neurons that fire where at least one of the inputs does; and two steps of frames."""
    build = NetworkBuilder("spiking")
    x = build.add("input", Input((3,), "binary"))
    x = build.add("linear", Linear(np.ones((4, 3), F)), x)
    build.add("readout", Readout("sum"), build.add("neurons", IF(), x))
    save(build.build(), tmp_path / "spiking.h5")
    np.save(tmp_path / "frames.npy", np.array([[1, 0, 1], [0, 0, 0]], F))
    return tmp_path / "spiking.h5", tmp_path / "frames.npy"


@pytest.fixture
def coloured(tmp_path):
    """A network that takes one pixel; and a picture of one."""
    build = NetworkBuilder("coloured")
    x = build.add("input", Input((3, 1, 1), "real"))
    build.add("readout", Readout(), build.add("flatten", Flatten(), x))
    save(build.build(time_steps=1), tmp_path / "coloured.h5")
    Image.new("RGB", (1, 1)).save(tmp_path / "a.png")
    return tmp_path / "coloured.h5", tmp_path / "a.png"


def test_rows_are_one_line_for_each_input_and_layer(call, spiking, tmp_path):
    network, frames = spiking
    assert call("run", network, frames, frames, "--rows", tmp_path / "r.csv")[0] == 0
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["input"] for row in rows] == 8 * [str(frames)]
    assert [row["name"] for row in rows] == 2 * ["input", "linear", "neurons", "readout"]
    # two spikes, each served to four neurons
    assert [int(row["acs"]) for row in rows] == 2 * [0, 8, 0, 0]
    assert [int(row["spikes"]) for row in rows] == 2 * [0, 0, 4, 0]


@pytest.mark.parametrize("name", ["r.txt", "absent/r.csv"])
def test_rows_that_cannot_be_written_make_one_document(call, spiking, tmp_path, name):
    code, out, err = call("run", *spiking, "--rows", tmp_path / name, "--json")
    assert code == 2
    assert list(json.loads(out)) == ["schema", "error"]
    assert err.count("\n") == 1 and name in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--std", "1,0,1"], "std of 1.0, 0.0, 1.0 found; expected none that is 0"),
        (["--std", "1,1"], "std of 2 values found; the model takes 3 channels"),
        (["--mean", "1"], "mean of 1 values found; the model takes 3 channels"),
        (["--mean", "nan,0,0"], "NaN"),
    ],
)
def test_normalisation_that_makes_no_sense_is_one_line(call, coloured, options, words):
    code, out, err = call("run", *coloured, *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err
