"""Data sets as ``evaluate`` finds them: folders of files, and Tonic's layouts; which sample is of which class."""

from __future__ import annotations

import json
import re
import shutil
import socket

import numpy as np
import pytest

from eventsim import InputError, NetworkBuilder, Preparation, Simulator, load, save
from eventsim.cli import main
from eventsim.datasets import evaluate, labelled_arrays, labelled_files
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


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--salvage"], "--salvage"),
        (["--window", "duration", "--bin-us", "5"], "--window duration, --bin-us 5"),
        (["--fit", "crop", "--disorder", "drop"], "--disorder drop, --fit crop"),
        (["--sensor", "34x34"], "--sensor 34x34"),
    ],
)
def test_flags_that_no_entry_of_an_array_can_use_are_refused_once(model, tmp_path, monkeypatch, capsys, flags, said):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.zeros((3, 1, 2, 34, 34), np.int32))
    np.save("y.npy", np.arange(3))
    command = ["evaluate", str(model(3, 34, 34)), "x.npy", "--labels", "y.npy", "--rows", "r.csv"]
    assert main([*command, *flags]) == 2
    told = f"eventsim: x.npy: {said} found; frames that are prepared already cannot use that: leave it out\n"
    assert capsys.readouterr() == ("", told)
    assert not (tmp_path / "r.csv").exists()


def test_folders_inside_those_of_labels_are_told(model, evaluated, tmp_path, monkeypatch, capsys):
    """They may hold recordings, which are no samples."""
    monkeypatch.chdir(tmp_path)
    for name in ("0/a", "0/sub/b", "1/c", "1/more/d", "1/sub/e", "1/.cache/f", "extra/g"):
        nmnist(tmp_path / "data" / f"{name}.bin", (0, 0, 1))
    where = "not looked into, such as {}, and what is in there is no sample; expected FOLDER/<label>/<recording>"
    told = "data: 3 folders inside of those of 2 labels are " + where.format("data/0/sub")
    m = model(3, 34, 34)
    assert main(["evaluate", str(m), "data", "--json"]) == 0
    assert capsys.readouterr().err.splitlines()[0] == f"eventsim: {told}"
    with pytest.warns(UserWarning, match=re.escape(told)):
        assert len(labelled_files("data")) == 3
    shutil.rmtree("data/1/sub")
    shutil.rmtree("data/1/more")
    with pytest.warns(
        UserWarning, match=re.escape("data: 1 folders inside of those of 1 labels are " + where.format("data/0/sub"))
    ):
        labelled_files("data")
    (tmp_path / "data/0/a.bin").unlink()
    found = "data/0: 1 folders and no recording found, such as data/0/sub; expected FOLDER/<label>/<recording>"
    assert main(["evaluate", str(m), "data"]) == 2
    assert capsys.readouterr() == ("", f"eventsim: {found}: move what is in there up, or leave the folder out\n")
    shutil.rmtree("data/0/sub")
    assert len(labelled_files("data")) == 2, "a class may have no sample"


def test_folders_with_names_are_numbered_in_sorted_order(model, evaluated, tmp_path):
    for name, column in (("crab", 2), ("ant", 0), ("bee", 1), ("1", 0)):
        nmnist(tmp_path / "data" / name / "a.bin", (column, 0, 1))
    found, document = evaluated(model(4, 34, 34), tmp_path / "data")
    assert found == [("a.bin", 0, 0), ("a.bin", 1, 0), ("a.bin", 2, 1), ("a.bin", 3, 2)]
    assert document["correct"] == 1


def said_about_classes(capsys, *arguments):
    capsys.readouterr()
    assert main(["evaluate", *map(str, arguments)]) == 0
    err = capsys.readouterr().err
    assert err.count("\n") <= 1
    return err


def test_numbers_of_classes_with_names_are_said(model, capsys, tmp_path):
    """A network that was trained with another order would be wrong without a word."""
    for name in ("crab", "ant"):
        nmnist(tmp_path / "data" / name / "a.bin", (0, 0, 1))
    nmnist(tmp_path / "numbers" / "1" / "a.bin", (0, 0, 1))
    (tmp_path / "l.csv").write_text("file,label\nant/a.bin,bee\ncrab/a.bin,asp\n")
    network = model(30, 34, 34)
    assert "numbered in sorted order: 0 ant, 1 crab; where" in said_about_classes(capsys, network, tmp_path / "data")
    tables = (network, tmp_path / "data", "--labels", tmp_path / "l.csv")
    assert "numbered in sorted order: 0 asp, 1 bee; where" in said_about_classes(capsys, *tables)
    assert said_about_classes(capsys, network, tmp_path / "numbers") == ""
    for index in range(21):
        nmnist(tmp_path / "data" / f"z{index:02}" / "a.bin", (0, 0, 1))
    assert ", 19 z17 and 3 more; where" in said_about_classes(capsys, network, tmp_path / "data")


def test_a_link_that_leads_nowhere_is_a_sample_with_an_error(model, evaluated, tmp_path):
    """As data sets have them whose files were not fetched: one sample fewer would be another accuracy."""
    nmnist(tmp_path / "data" / "1" / "a.bin", (1, 0, 1))
    (tmp_path / "data" / "1" / "b.bin").symlink_to("absent")
    (tmp_path / "data" / "1" / "c.bin").symlink_to("c.bin")
    (tmp_path / "data" / "1" / "d.bin").symlink_to("a.bin")
    (tmp_path / "data" / "1" / "e").symlink_to(tmp_path)
    (tmp_path / "data" / "2").symlink_to("absent")
    found, document = evaluated(model(3, 34, 34), tmp_path / "data", code=1)
    assert found == [("a.bin", 1, 1), ("d.bin", 1, 1)]
    assert [each["input"].rpartition("/")[2] for each in document["failed"]] == ["b.bin", "c.bin"]


def test_a_file_needs_labels(model, capsys, tmp_path):
    nmnist(tmp_path / "a.bin", (1, 0, 1))
    assert main(["evaluate", str(model(2, 34, 34)), str(tmp_path / "a.bin")]) == 2
    assert "a.bin: no --labels found with a file; expected FILE.csv" in capsys.readouterr().err


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


def test_labels_of_a_csv_file(model, evaluated, tmp_path):
    for number, column in enumerate((2, 0, 1)):
        nmnist(tmp_path / "data" / "part" / f"{number}.bin", (column, 0, 1))
    network = model(3, 34, 34)
    labels = tmp_path / "labels.csv"
    for text, expected in (
        ("part/0.bin,2\npart/1.bin,1\n", [2, 1]),
        ("label,file\n2,part/0.bin\n1,part/1.bin\n", [2, 1]),
        ("filename,target\npart/0.bin,2\npart/1.bin,1\n", [2, 1]),
        ("Target,PATH\n2,part/0.bin\n1,part/1.bin\n", [2, 1]),
        ("\ufeffFile , Label\n\npart/0.bin,crab\npart/1.bin,ant\npart/2.bin,ant\n", [1, 0, 0]),
    ):
        labels.write_text(text)
        found, _ = evaluated(network, tmp_path / "data", "--labels", labels)
        assert [label for _, label, _ in found] == expected
        assert [(name, prediction) for name, _, prediction in found] == [("0.bin", 2), ("1.bin", 0), ("2.bin", 1)][
            : len(expected)
        ]
    labels.write_text("part/0.bin,2\nabsent.bin,0\n")
    _, document = evaluated(network, tmp_path / "data", "--labels", labels, code=1)
    assert [failure["input"] for failure in document["failed"]] == [str(tmp_path / "data" / "absent.bin")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,label,start\na,1,2\n", "column 'start' found; expected file, label and no others without times"),
        ("a,1\nb\n", "line 2 has 1 values; expected 2, one for each column of line 1: a comma within a value needs"),
        ("a,1\nb,2,3\n", "line 2 has 3 values; expected 2, one for each column of line 1"),
        ("file,label\na,1\nb,2,\n", "line 2 below the names has 3 values; expected 2"),
        (
            "image,class_id\na,1\nb,2\n",
            "line 1 is 'image,class_id'; expected a file and the number of its class, or in ",
        ),
        ("image,kind\na,ant\nb,bee\n", "line 1 is 'image,kind'; expected a file and the number of its class, or in "),
        ("a,1\nb,bee\n", "line 2 is 'b,bee'; expected a file and the number of its class, or in line 1 the names of"),
        ("filename,class_id\na,1\nb,2\n", "columns filename, class_id found; expected 'label', with classes from 0"),
        ("image,target\na,1\nb,2\n", "column 'image' found; expected file, label and no others"),
        ("file,path,label\na,a,1\n", "2 columns file or filename or path found; expected one"),
        ("a,1\na,2\n", "line 2 has {folder}/a again; expected each file once"),
        ("file,label\n", "no lines below the names of the columns found"),
        ("a,1\nb,\n", "line 2 has no label; expected one"),
        ('a,"1\n', "not a table in csv"),
    ],
)
def test_labels_that_are_none(model, capsys, tmp_path, text, said):
    (tmp_path / "labels.csv").write_text(text)
    assert main(["evaluate", str(model(2, 34, 34)), str(tmp_path), "--labels", str(tmp_path / "labels.csv")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert f"labels.csv: {said}".replace("{folder}", str(tmp_path)) in err


def test_two_arrays(model, evaluated, tmp_path):
    """Files, and the same in memory; each entry is a sample of T frames, or an image."""
    network = model(3, 1, 3)
    frames = np.zeros((4, 1, 2, 1, 3), np.int32)
    frames[range(4), 0, 1, 0, [0, 1, 2, 2]] = 1
    labels = np.array([0, 1, 1, 2], np.uint8)
    np.save(tmp_path / "labels.npy", labels)
    for stored in (frames, frames[:, 0]):
        np.save(tmp_path / "x.npy", stored)
        found, document = evaluated(network, tmp_path / "x.npy", "--labels", tmp_path / "labels.npy")
        assert found == [("x.npy[0]", 0, 0), ("x.npy[1]", 1, 1), ("x.npy[2]", 1, 2), ("x.npy[3]", 2, 2)]
        assert [row["input_sha256"] for row in document["predictions"]] == [None] * 4
        outcomes = evaluate(Simulator(load(network)), labelled_arrays(stored, labels), Preparation())
        assert [outcome.prediction for outcome in outcomes] == [0, 1, 2, 2]


@pytest.mark.parametrize(
    ("frames", "labels", "said"),
    [
        (np.zeros((3, 2, 1, 3)), np.zeros(2, int), "float64 (3, 2, 1, 3) with 2 labels found"),
        (np.zeros(3), np.zeros(3, int), "float64 (3,) with 3 labels found"),
        (np.zeros((2, 2, 1, 3)), np.zeros(2), "float64 (2,) found; expected whole numbers, one for each sample"),
        (np.zeros((2, 2, 1, 3)), np.zeros((2, 3), int), "int64 (2, 3) found; expected whole numbers"),
    ],
)
def test_arrays_that_do_not_fit(model, capsys, tmp_path, frames, labels, said):
    np.save(tmp_path / "x.npy", frames)
    np.save(tmp_path / "y.npy", labels)
    arguments = ["evaluate", str(model(3, 1, 3)), str(tmp_path / "x.npy")]
    assert main([*arguments, "--labels", str(tmp_path / "y.npy")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and said in err
    with pytest.raises(InputError, match=re.escape(said)):
        labelled_arrays(frames, labels)
    assert main(arguments) == 2
    assert "no --labels found; expected LABELS.npy" in capsys.readouterr().err


def test_options_that_a_data_set_cannot_use_are_refused(model, capsys, tmp_path):
    nmnist(tmp_path / "data" / "0" / "a.bin", (0, 0, 1))
    for arguments, said in (
        (["data", "--split", "test"], "--split found; expected it with tonic:NAME alone"),
        (["data", "--root", "data"], "--root found; expected it with tonic:NAME alone"),
        (
            ["tonic:NMNIST", "--root", "data", "--labels", "x.csv"],
            "--labels x.csv with a tonic data set found; expected none, Tonic",
        ),
        (["data", "--labels", "x.npy"], "data found; expected FRAMES.npy with labels in .npy, or a table in csv"),
        (["data", "--shard", "2/2"], "no samples in shard 2/2 of 1"),
        (["data", "--cluster", "tcp://x:1", "--threads", "2"], "--threads 2 with --cluster tcp://x:1 found"),
    ):
        name = arguments[0] if arguments[0].startswith("tonic") else str(tmp_path / "data")
        assert main(["evaluate", str(model(2, 34, 34)), name, *arguments[1:]]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and said in err
    for wrong in ("0/2", "3/2", "1", "a/b", "1/2/3"):
        with pytest.raises(SystemExit) as stop:
            main(["evaluate", "m.h5", "data", "--shard", wrong])
        assert stop.value.code == 2
        assert f"{wrong} found, expected I/N with I from 1 to N" in capsys.readouterr().err
