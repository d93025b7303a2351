"""Data sets in Tonic's layout, complete or not; nothing may be downloaded."""

import json
import socket
from pathlib import Path

import numpy as np
import pytest

from eventsim import Preparation, save
from eventsim.cli import main
from eventsim.dvs import open_recording
from eventsim.errors import InputError
from eventsim.settings import Setting

pytest.importorskip("tonic")
from eventsim.dvs.tonic_dataset import open_tonic_dataset

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        pytest.fail("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def partial_nmnist(tmp_path):
    for digit in (3, 7):
        folder = tmp_path / "NMNIST" / "Test" / str(digit)
        folder.mkdir(parents=True)
        for index in range(2):
            (folder / f"0000{index}.bin").write_bytes(bytes([digit, index, 128, 0, 5, 33, 33, 0, 0, 9]))
    return tmp_path


def test_partial_nmnist(partial_nmnist):
    dataset = open_tonic_dataset("NMNIST", partial_nmnist)
    assert len(dataset) == 4 and dataset.labels == [3, 3, 7, 7]
    recording, label = dataset[1]
    assert label == 3 and (recording.height, recording.width) == (34, 34)
    assert "NMNIST[1]" in recording.path
    assert next(recording.chunks()).tolist() == [(3, 1, 5, True), (33, 33, 9, False)]
    assert [label for _, label in dataset] == [3, 3, 7, 7]
    with pytest.raises(IndexError):
        dataset[4]


@pytest.mark.skipif(not DATA.is_dir(), reason="recordings (../shared/data) are not on this machine")
def test_real_partial_nmnist_equals_our_reader(tmp_path):
    (tmp_path / "NMNIST").symlink_to(DATA / "nmnist")
    for split, samples in (("test", 50), ("train", 1000)):
        dataset = open_tonic_dataset("NMNIST", tmp_path, split=split)
        assert len(dataset) == samples
    files = sorted((DATA / "nmnist" / "Test").glob("*/*.bin"))
    dataset = open_tonic_dataset("NMNIST", tmp_path, split="test")
    for (recording, label), file in zip(dataset, files, strict=True):
        assert label == int(file.parent.name)
        ours = open_recording(file).chunks()
        np.testing.assert_array_equal(np.concatenate(list(recording.chunks())), np.concatenate(list(ours)))


def test_gestures_in_tonic_layout(tmp_path):
    folder = tmp_path / "DVSGesture" / "ibmGestureTest" / "user24_fluorescent"
    folder.mkdir(parents=True)
    np.save(folder / "4.npy", np.array([[5, 6, 1, 1.0], [7, 8, 0, 2.5]]))
    ((recording, label),) = open_tonic_dataset("DVSGesture", tmp_path)
    assert label == 4 and next(recording.chunks()).tolist() == [(5, 6, 1000, True), (7, 8, 2500, False)]


def test_options_of_tonic(partial_nmnist):
    assert len(open_tonic_dataset("NMNIST", partial_nmnist, first_saccade_only=True)) == 4
    with pytest.raises(InputError, match="no option colour"):
        open_tonic_dataset("NMNIST", partial_nmnist, colour=True)


def test_missing_data_is_an_error_that_names_the_place(tmp_path, partial_nmnist):
    with pytest.raises(InputError, match=r"NMNIST.Train: holds no recordings"):
        open_tonic_dataset("NMNIST", partial_nmnist, split="train")
    for name in ("CIFAR10DVS", "DVSGesture", "NCALTECH101"):
        with pytest.raises(InputError, match=f"{name}.*holds no recordings"):
            open_tonic_dataset(name, tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_wrong_names(tmp_path):
    with pytest.raises(InputError, match="NMNIST"):
        open_tonic_dataset("SHD", tmp_path)
    with pytest.raises(InputError, match="not divided"):
        open_tonic_dataset("CIFAR10DVS", tmp_path, split="test")
    with pytest.raises(InputError, match="expected 'train' or 'test'"):
        open_tonic_dataset("NMNIST", tmp_path, split="valid")


def test_a_sensor_that_is_told_needs_no_guess(tmp_path, small_network, capsys):
    """By an option or the model, of N-Caltech101, whose recordings have sizes of their own; also with an outlier."""
    folder = tmp_path / "NCALTECH101" / "Caltech101"
    events = b"".join(bytes([x % 5, x % 4, 0, 0, x]) for x in range(200))
    for name, rest in (("ant", b""), ("bass", bytes([200, 0, 0, 0, 250]))):
        (folder / name).mkdir(parents=True)
        (folder / name / "image_0001.bin").write_bytes(events + rest)
    save(small_network, tmp_path / "m.h5")
    save(small_network.with_settings(Setting("sensor", "6x6", "option")), tmp_path / "sized.h5")
    with pytest.raises(InputError, match=r"events reach 5 x 4 pixels .* pass sensor_size"):
        Preparation().frames(open_tonic_dataset("NCALTECH101", tmp_path)[0][0], small_network)
    said = {}
    large = ["--sensor", "240x180", "--fit", "crop"]
    for model, flags in (("m.h5", ["--sensor", "6x6"]), ("sized.h5", []), ("m.h5", large)):
        capsys.readouterr()
        command = ["evaluate", str(tmp_path / model), "tonic:NCALTECH101", "--root", str(tmp_path), "--json", *flags]
        main(command)
        document = json.loads(capsys.readouterr().out)
        said[model, *flags] = (document["samples"], [each["error"] for each in document["failed"]])
    small, sized, cropped = said.values()
    assert small == sized
    assert small[0] == 1
    assert "x = 200, outside" in small[1][0] and "guessed" not in small[1][0]
    assert cropped == (2, [])
