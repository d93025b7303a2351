"""How recordings and images become frames belongs to the model: stored with it, followed, and overridden aloud."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from safetensors.numpy import save_file
from state_dicts import spikformer_state

from eventsim import import_checkpoint, load, save
from eventsim.cli import main
from eventsim.datasets import Sample, evaluate
from eventsim.dvs import EVENT_DTYPE, Orientation, frames_by_count, frames_by_duration, frames_by_time, open_recording
from eventsim.errors import InputError
from eventsim.network import Network
from eventsim.preparation import PREPARED, Preparation
from eventsim.simulator import Simulator

SIZES = {"heads": 2, "height": 34, "width": 34, "time_steps": 4}
TURNED = {"transpose": True, "flip_x": False, "flip_y": True, "flip_polarity": True}
DVS = {"window": "time", "binary": True, "fit": "crop"} | TURNED
RGB = {"fit": "downscale", "mean": "0.5,0.25,0.125", "std": "0.5,0.25,2"}


def checkpoint(folder: Path, variant: str = "dvs", metadata: dict[str, Any] | None = None) -> Path:
    path = folder / f"{variant}.safetensors"
    state = spikformer_state(variant, dim=16, depth=1, channels=2 if variant == "dvs" else 3)
    arrays = {name: np.ascontiguousarray(value) for name, value in state.items()}
    save_file(arrays, path, {name: str(value) for name, value in (metadata or {}).items()})
    return path


def through_a_file(network: Network, folder: Path) -> Network:
    save(network, folder / "m.h5")
    return load(folder / "m.h5")


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Events that are neither evenly spread in time nor symmetric in space or polarity."""
    rng = np.random.default_rng(3)
    events = np.zeros(900, EVENT_DTYPE)
    events["x"], events["y"] = rng.integers(0, 40, 900), rng.integers(0, 20, 900)
    events["x"][0], events["y"][0] = 39, 39
    events["t"] = np.sort((rng.random(900) ** 3 * 100_000).astype(int))
    events["p"] = rng.random(900) < 0.2
    np.save(tmp_path / "r.npy", events)
    return tmp_path / "r.npy"


def sources(network: Network) -> dict[str, tuple[Any, str]]:
    return {each.option: (each.value, each.source) for each in network.settings if each.option in PREPARED}


@pytest.mark.parametrize("door", ["option", "metadata"])
@pytest.mark.parametrize(("variant", "values"), [("dvs", DVS), ("cifar", RGB)])
def test_every_value_is_kept_with_its_source(tmp_path: Path, variant: str, values: dict[str, Any], door: str) -> None:
    texts = {name: str(value).lower() for name, value in values.items()}
    if door == "option":
        network = import_checkpoint(checkpoint(tmp_path, variant), **SIZES, **values)
    else:
        network = import_checkpoint(checkpoint(tmp_path, variant, SIZES | texts))
    assert sources(network) == {name: (value, door) for name, value in values.items()}
    assert sources(through_a_file(network, tmp_path)) == sources(network)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("dvs", {"window": "count", "binary": False, "fit": "none"} | dict.fromkeys(TURNED, False)),
        ("cifar", {"fit": "none", "mean": "0,0,0", "std": "1,1,1"}),
    ],
)
def test_what_nobody_says_is_listed(tmp_path: Path, variant: str, expected: dict[str, Any]) -> None:
    network = import_checkpoint(checkpoint(tmp_path, variant), **SIZES)
    assert sources(network) == {name: (value, "assumed") for name, value in expected.items()}
    assert {sentence.split(" ")[0] for sentence in network.assumptions} >= set(expected)


def test_an_input_of_spikes_says_that_frames_are_binary(tmp_path: Path) -> None:
    network = import_checkpoint(checkpoint(tmp_path), **SIZES, input_kind="binary")
    assert sources(network)["binary"] == (True, "inferred")


def test_frames_are_as_the_model_says(tmp_path: Path, recording: Path) -> None:
    from eventsim.dvs import Fit

    network = through_a_file(import_checkpoint(checkpoint(tmp_path), **SIZES, **DVS), tmp_path)
    opened = open_recording(recording, orientation=Orientation(**TURNED))
    expected = frames_by_time(opened, 4, fit=Fit((34, 34), "crop"), binary=True)
    found = Preparation().frames(recording, network)
    assert_array_equal(found, expected)
    assert expected.max() == 1 and expected.sum() > 100
    other = frames_by_count(open_recording(recording), 4, fit=Fit((34, 34), "crop"))
    assert not np.array_equal(found, other)
    mine = Preparation(window="count", binary=False, orientation=Orientation()).frames(recording, network)
    assert_array_equal(mine, other)


def test_bins_of_the_model_are_streamed(tmp_path: Path, recording: Path) -> None:
    from eventsim.dvs import Fit

    options = {"bin_us": 7000, "fit": "crop"}
    network = through_a_file(import_checkpoint(checkpoint(tmp_path), **SIZES, **options), tmp_path)
    found = list(Preparation().frames(recording, network))
    expected = list(frames_by_duration(open_recording(recording), 7000, fit=Fit((34, 34), "crop")))
    assert_array_equal(np.stack([np.asarray(f) for f in found]), np.stack([np.asarray(f) for f in expected]))


def test_an_image_is_normalised_as_the_model_says(tmp_path: Path) -> None:
    network = through_a_file(import_checkpoint(checkpoint(tmp_path, "cifar"), **SIZES, **RGB), tmp_path)
    pixels = np.random.default_rng(1).integers(0, 256, (34, 34, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "i.png")
    found = Preparation().frames(tmp_path / "i.png", network)
    expected = (pixels / np.float32(255) - np.array([0.5, 0.25, 0.125], np.float32)) / np.array([0.5, 0.25, 2], "f4")
    assert_array_equal(found, np.moveaxis(expected, -1, 0).astype(np.float32))


def test_every_command_follows_the_model_and_says_what_it_does_not(
    tmp_path: Path, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = import_checkpoint(checkpoint(tmp_path), **SIZES, **DVS)
    save(network, tmp_path / "m.h5")
    logits = Simulator(network).run(Preparation().frames(recording, network)).logits
    other = Simulator(network).run(Preparation(window="count", binary=False).frames(recording, network)).logits
    assert not np.array_equal(logits, other)
    for command in ("run", "profile"):
        capsys.readouterr()
        assert main([command, str(tmp_path / "m.h5"), str(recording), "--json"]) == 0
        said = capsys.readouterr()
        (sample,) = json.loads(said.out)["samples"]
        assert_array_equal(np.asarray(sample["logits"], np.float32), logits)
        assert said.err == ""
    (outcome,) = evaluate(Simulator(network), [Sample("r.npy", 1, str(recording))], Preparation())
    assert outcome.prediction == logits.argmax()
    flags = ["--window", "count", "--no-binary", "--no-flip-y", "--time-steps", "4", "--fit", "crop"]
    assert main(["run", str(tmp_path / "m.h5"), str(recording), *flags]) == 0
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if "not as the model says" in line] == [
        "eventsim: window is not as the model says: window = time",
        "eventsim: binary is not as the model says: binary = true",
        "eventsim: orientation is not as the model says: transpose = true, flip_x = false, flip_y = true, "
        "flip_polarity = true",
    ]
    assert main(["run", str(tmp_path / "m.h5"), str(recording), "--time-steps", "3"]) == 0
    assert "eventsim: time_steps is not as the model says: time_steps = 4" in capsys.readouterr().err


def test_one_flag_of_the_orientation_leaves_the_others(
    tmp_path: Path, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = import_checkpoint(checkpoint(tmp_path), **SIZES, **DVS)
    save(network, tmp_path / "m.h5")
    turned = Orientation(**TURNED | {"flip_y": False})
    expected = Simulator(network).run(Preparation(orientation=turned).frames(recording, network)).logits
    capsys.readouterr()
    assert main(["run", str(tmp_path / "m.h5"), str(recording), "--no-flip-y", "--json"]) == 0
    (sample,) = json.loads(capsys.readouterr().out)["samples"]
    assert_array_equal(np.asarray(sample["logits"], np.float32), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": "frames"}, "option window=frames found; expected one of count, time, duration"),
        ({"window": "duration"}, "expected bin_us with duration alone"),
        ({"sensor": "34"}, "option sensor=34 found; expected WIDTHxHEIGHT"),
        ({"binary": "maybe"}, "option binary=maybe found; expected true or false"),
    ],
)
def test_values_that_make_no_sense_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        import_checkpoint(checkpoint(tmp_path), **SIZES, **options)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=next(iter(options))):
        import_checkpoint(checkpoint(tmp_path, metadata=SIZES | options))


@pytest.mark.parametrize(
    ("variant", "options", "message"),
    [
        ("dvs", {"window": "count", "bin_us": 5}, "expected bin_us with duration alone"),
        ("dvs", {"mean": "0,0"}, "option mean found; expected none for graded input of 2 x 34 x 34"),
        ("cifar", {"mean": "a,b"}, "option mean=a,b found; expected numbers separated by commas"),
        ("cifar", {"binary": True}, "option binary found; expected none for real input of 3 x 34 x 34"),
    ],
)
def test_an_option_that_does_not_fit_is_refused(
    tmp_path: Path, variant: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        import_checkpoint(checkpoint(tmp_path, variant), **SIZES, **options)


def test_images_of_a_batch_are_no_time_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = import_checkpoint(checkpoint(tmp_path, "cifar"), **SIZES)
    save(network, tmp_path / "m.h5")
    simulator = Simulator(network)
    image = np.random.default_rng(0).random((3, 34, 34), np.float32)
    for count in (1, 2, 5):
        batch = np.stack([image] * count)
        with pytest.raises(
            InputError, match=rf"{count} x 3 x 34 x 34 found, the model takes 4 time steps; one image is"
        ):
            simulator.run(batch)
        assert simulator.run(batch, time_steps=count).time_steps == count
        np.save(tmp_path / "batch.npy", batch)
        assert main(["run", str(tmp_path / "m.h5"), str(tmp_path / "batch.npy")]) == 2
        assert f"--time-steps {count} (time_steps)" in capsys.readouterr().err
    assert_array_equal(simulator.run(image).logits, simulator.run(np.stack([image] * 4)).logits)
