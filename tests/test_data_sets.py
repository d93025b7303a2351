"""Data sets as ``evaluate`` finds them: folders of files, and Tonic's layouts; which sample is of which class."""

from __future__ import annotations

import json
import socket

import numpy as np
import pytest

from eventsim import NetworkBuilder, save
from eventsim.cli import main
from eventsim.layers import Flatten, Input, Linear, Readout


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was touched"))


@pytest.fixture
def model(tmp_path):
    """Save a network that sees class k where there is an ON event in column k of row 0."""

    def write(classes, height, width):
        weight = np.zeros((classes, 2, height, width), np.float32)
        weight[range(classes), 1, 0, range(classes)] = 1
        build = NetworkBuilder("column")
        x = build.add("flatten", Flatten(), build.add("input", Input((2, height, width))))
        build.add("readout", Readout(), build.add("head", Linear(weight.reshape(classes, -1)), x))
        save(build.build(time_steps=1), tmp_path / "m.h5")
        return tmp_path / "m.h5"

    return write


@pytest.fixture
def evaluated(capsys):
    """Return (end of the name, label, prediction) of every sample, and the document."""

    def run(*arguments, code=0):
        capsys.readouterr()
        assert main(["evaluate", *map(str, arguments), "--json"]) == code
        document = json.loads(capsys.readouterr().out)
        found = [(row["input"].split("/")[-1], row["label"], row["prediction"]) for row in document["predictions"]]
        return found, document

    return run


def nmnist(file, *pixels):
    """Write events (x, y, polarity) in N-MNIST's format, one each microsecond."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"".join(bytes([x, y, 128 * p, 0, t]) for t, (x, y, p) in enumerate(pixels)))


def test_folders_whose_names_are_numbers_are_classes(model, evaluated, tmp_path):
    for name in ("10", "2", "007"):
        nmnist(tmp_path / "data" / name / "a.bin", (int(name), 0, 1))
    nmnist(tmp_path / "data" / "2" / "b.bin", (5, 0, 1))
    nmnist(tmp_path / "data" / "2" / ".hidden.bin", (2, 0, 1))
    nmnist(tmp_path / "data" / ".cache" / "a.bin", (2, 0, 1))
    (tmp_path / "data" / "2" / "folder").mkdir()
    (tmp_path / "data" / "README").write_text("no sample")
    found, document = evaluated(model(11, 34, 34), tmp_path / "data")
    assert found == [("a.bin", 7, 7), ("a.bin", 10, 10), ("a.bin", 2, 2), ("b.bin", 2, 5)]
    assert (document["samples"], document["correct"], document["accuracy"]) == (4, 3, 0.75)


def test_folders_with_names_are_numbered_in_sorted_order(model, evaluated, tmp_path):
    for name, column in (("crab", 2), ("ant", 0), ("bee", 1), ("1", 0)):
        nmnist(tmp_path / "data" / name / "a.bin", (column, 0, 1))
    found, document = evaluated(model(4, 34, 34), tmp_path / "data")
    assert found == [("a.bin", 0, 0), ("a.bin", 1, 0), ("a.bin", 2, 1), ("a.bin", 3, 2)]
    assert document["correct"] == 1


def test_a_folder_without_samples_is_refused(model, capsys, tmp_path):
    (tmp_path / "data" / "0").mkdir(parents=True)
    assert main(["evaluate", str(model(2, 34, 34)), str(tmp_path / "data")]) == 2
    assert "data: no recordings found; expected FOLDER/<label>/<recording>" in capsys.readouterr().err


def test_nmnist_in_tonics_layout(model, evaluated, tmp_path):
    pytest.importorskip("tonic")
    nmnist(tmp_path / "NMNIST" / "Test" / "3" / "00000.bin", (3, 0, 1), (33, 33, 0))
    nmnist(tmp_path / "NMNIST" / "Test" / "7" / "00000.bin", (7, 0, 1), (33, 33, 0))
    nmnist(tmp_path / "NMNIST" / "Test" / "7" / "00001.bin", (2, 0, 1), (33, 33, 0))
    nmnist(tmp_path / "NMNIST" / "Train" / "1" / "00000.bin", (1, 0, 1), (33, 33, 0))
    network = model(10, 34, 34)
    for split in ([], ["--split", "test"]):
        found, document = evaluated(network, "tonic:NMNIST", "--root", tmp_path, *split)
        assert found == [("NMNIST[0]", 3, 3), ("NMNIST[1]", 7, 7), ("NMNIST[2]", 7, 2)]
        assert (document["correct"], document["failed"]) == (2, [])
    found, _ = evaluated(network, "tonic:NMNIST", "--root", tmp_path, "--split", "train", "--threads", 2)
    assert found == [("NMNIST[0]", 1, 1)]


def test_classes_that_have_names_are_numbered_in_sorted_order(model, evaluated, tmp_path):
    pytest.importorskip("tonic")
    # Tonic moves the first pixels to the upper left corner, and the last ones make the size
    for name, column in (("crab", 2), ("ant", 0), ("bee", 0)):
        file = tmp_path / "NCALTECH101" / "Caltech101" / name / "image_0001.bin"
        nmnist(file, (10, 20, 0), (10 + column, 20, 1), (13, 21, 0))
    found, document = evaluated(model(3, 2, 4), "tonic:NCALTECH101", "--root", tmp_path)
    assert found == [("NCALTECH101[0]", 0, 0), ("NCALTECH101[1]", 1, 0), ("NCALTECH101[2]", 2, 2)]
    assert document["correct"] == 2


def test_labels_beyond_the_classes_are_refused(model, capsys, tmp_path):
    nmnist(tmp_path / "data" / "2" / "a.bin", (0, 0, 1))
    network = model(2, 34, 34)
    assert main(["evaluate", str(network), str(tmp_path / "data")]) == 2
    assert "label 2 found; network column has 2 classes" in capsys.readouterr().err
    (tmp_path / "data" / "2").rename(tmp_path / "data" / "1")
    assert main(["evaluate", str(network), str(tmp_path / "data")]) == 0
