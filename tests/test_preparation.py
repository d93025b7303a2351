"""How recordings and images become frames belongs to the model: stored with it, followed, and overridden aloud."""

from __future__ import annotations

import json
import struct
import zlib
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
from eventsim.dvs import (
    EVENT_DTYPE,
    Fit,
    Orientation,
    frames_by_count,
    frames_by_duration,
    frames_by_time,
    frames_of_slices,
    open_recording,
)
from eventsim.errors import InputError
from eventsim.network import Network
from eventsim.preparation import Preparation
from eventsim.preparation_options import PREPARED
from eventsim.simulator import Simulator

SIZES = {"heads": 2, "height": 34, "width": 34, "time_steps": 4}
TURNED = {"transpose": True, "flip_x": False, "flip_y": True, "flip_polarity": True}
DVS = {"window": "time", "binary": True, "fit": "crop", "sensor": "40x40"} | TURNED
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
    network = through_a_file(import_checkpoint(checkpoint(tmp_path), **SIZES, **DVS), tmp_path)
    opened = open_recording(recording, sensor_size=(40, 40), orientation=Orientation(**TURNED))
    expected = frames_by_time(opened, 4, fit=Fit((34, 34), "crop"), binary=True)
    found = Preparation().frames(recording, network)
    assert_array_equal(found, expected)
    assert expected.max() == 1 and expected.sum() > 100
    other = frames_by_count(open_recording(recording, sensor_size=(40, 40)), 4, fit=Fit((34, 34), "crop"))
    assert not np.array_equal(found, other)
    mine = Preparation(window="count", binary=False, orientation=Orientation()).frames(recording, network)
    assert_array_equal(mine, other)


def test_a_list_of_events_is_no_array_of_frames(tmp_path: Path) -> None:
    """Where recordings are taken, who gives columns without names is told which option names them."""
    network = import_checkpoint(checkpoint(tmp_path))
    np.save(tmp_path / "list.npy", np.zeros((9, 4)))
    for source in (tmp_path / "list.npy", np.zeros((9, 4))):
        with pytest.raises(
            InputError, match=r"event list of shape \(9, 4\), whose columns have no names; pass columns="
        ):
            Preparation().frames(source, network)


def test_bins_of_the_model_are_streamed(tmp_path: Path, recording: Path) -> None:
    options = {"bin_us": 7000, "fit": "crop", "sensor": "40x40"}
    network = through_a_file(import_checkpoint(checkpoint(tmp_path), **SIZES, **options), tmp_path)
    found = list(Preparation().frames(recording, network))
    opened = open_recording(recording, sensor_size=(40, 40))
    expected = list(frames_by_duration(opened, 7000, fit=Fit((34, 34), "crop")))
    assert_array_equal(np.stack([np.asarray(f) for f in found]), np.stack([np.asarray(f) for f in expected]))


def test_bins_of_events_of_the_model_are_streamed(tmp_path: Path, recording: Path) -> None:
    options = {"window": "tonic-event-count", "bin_events": 700, "overlap": 300, "fit": "crop", "sensor": "40x40"}
    network = through_a_file(import_checkpoint(checkpoint(tmp_path), **SIZES, **options), tmp_path)
    opened = open_recording(recording, sensor_size=(40, 40))

    def same(found: Any, expected: Any) -> None:
        assert_array_equal(np.stack(list(found)), np.stack(list(expected)))

    fit = Fit((34, 34), "crop")
    same(Preparation().frames(recording, network), frames_of_slices(opened, events=700, overlap=300, fit=fit))
    # what is said otherwise is of other bins, which overlap as is said with them
    mine = Preparation(bin_events=900)
    same(mine.frames(recording, network), frames_of_slices(opened, events=900, fit=fit))
    assert [sentence.split(": ")[-1] for sentence in mine.overridden(network)] == ["bin_events = 700", "overlap = 300"]
    both = Preparation(bin_events=900, overlap=5).overridden(network)
    assert [sentence.split(": ")[-1] for sentence in both] == ["bin_events = 700", "overlap = 300"]
    (alone,) = Preparation(window="count").overridden(network)
    assert alone.endswith("window = tonic-event-count")
    same(Preparation(bin_us=7000).frames(recording, network), frames_by_duration(opened, 7000, fit=fit))
    assert len(list(Preparation(window="count", time_steps=4).frames(recording, network))) == 4
    noted = {setting.option: setting.value for setting in mine.noted(network).settings}
    assert (noted["bin_events"], noted["window"]) == (900, "tonic-event-count")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": "tonic-event-count"}, "bin_events"),
        ({"window": "count", "bin_events": 5}, "expected bin_events with tonic-event-count alone"),
        ({"window": "tonic-event-count", "bin_events": 0}, "bin_events=0 found; expected 1 or more"),
        ({"window": "count", "overlap": 5}, "expected overlap with tonic-duration and tonic-event-count alone"),
        ({"window": "tonic-event-count", "bin_events": 5, "overlap": 5}, "less than a bin"),
        ({"window": "tonic-duration", "bin_us": 5, "overlap": -1}, "less than a bin"),
    ],
)
def test_bins_of_events_that_make_no_sense_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        import_checkpoint(checkpoint(tmp_path), **SIZES, **options)
    assert "\n" not in str(caught.value)


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
        ({"window": "duration"}, "expected bin_us with duration, tonic-duration, spikingjelly-duration alone"),
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
        (
            "dvs",
            {"window": "count", "bin_us": 5},
            "expected bin_us with duration, tonic-duration, spikingjelly-duration alone",
        ),
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


def test_bytes_are_pixels_and_real_values_are_prepared_already(tmp_path: Path) -> None:
    network = import_checkpoint(checkpoint(tmp_path, "cifar"), **SIZES, **RGB)
    pixels = np.random.default_rng(1).integers(0, 256, (34, 34, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "i.png")
    expected = Preparation().frames(tmp_path / "i.png", network)
    channels_first = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    np.save(tmp_path / "i.npy", channels_first)
    np.save(tmp_path / "f.npy", expected)
    assert_array_equal(Preparation().frames(tmp_path / "i.npy", network), expected)
    assert_array_equal(Preparation().frames(np.stack([channels_first] * 4), network), np.stack([expected] * 4))
    assert_array_equal(Preparation().frames(tmp_path / "f.npy", network), expected)


def test_an_image_for_a_model_of_recordings_says_what_to_do(tmp_path: Path) -> None:
    network = import_checkpoint(checkpoint(tmp_path, "dvs"), **SIZES)
    Image.new("RGB", (34, 34)).save(tmp_path / "i.png")
    with pytest.raises(
        InputError,
        match=r"i\.png: an image found; network .* takes 2 x 34 x 34, no image; pass recordings or frames in \.npy, or",
    ):
        Preparation().frames(tmp_path / "i.png", network)


def test_sixteen_bits_of_grey_are_a_share_of_65535(tmp_path: Path) -> None:
    network = import_checkpoint(checkpoint(tmp_path, "cifar"), **SIZES)
    deep = np.random.default_rng(4).integers(0, 65536, (34, 34), np.uint16)
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(deep).save(tmp_path / name)
        found = Preparation().frames(tmp_path / name, network)
        assert_array_equal(found, np.stack([deep / np.float32(65535)] * 3).astype(np.float32))
    np.save(tmp_path / "deep.npy", np.stack([deep] * 3))
    assert_array_equal(Preparation().frames(tmp_path / "deep.npy", network), found)


def png_of_sixteen_bit_colours(path: Path) -> None:
    """Write 34 x 34 pixels of one colour, which Pillow cannot."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 34, 34, 16, 2, 0, 0, 0)
    lines = (b"\0" + struct.pack(">3H", 40_000, 1, 2) * 34) * 34
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    )


def test_pixels_of_which_the_lower_bits_would_be_lost_are_refused(tmp_path: Path) -> None:
    network = import_checkpoint(checkpoint(tmp_path, "cifar"), **SIZES)
    png_of_sixteen_bit_colours(tmp_path / "deep.png")
    with pytest.raises(
        InputError, match=r"deep\.png: pixels of mode RGB with 16 bits for each channel found; expected 8"
    ):
        Preparation().frames(tmp_path / "deep.png", network)
    Image.fromarray(np.ones((34, 34), np.float32)).save(tmp_path / "real.tif")
    with pytest.raises(InputError, match=r"real\.tif: pixels of mode F with 32 bits"):
        Preparation().frames(tmp_path / "real.tif", network)


def test_a_report_says_what_was_used(tmp_path: Path, recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = import_checkpoint(checkpoint(tmp_path), **SIZES, **DVS)
    save(network, tmp_path / "m.h5")
    (tmp_path / "data" / "0").mkdir(parents=True)
    (tmp_path / "data" / "0" / "r.npy").write_bytes(recording.read_bytes())
    for command, place in (("run", recording), ("profile", recording), ("evaluate", tmp_path / "data")):
        capsys.readouterr()
        assert main([command, str(tmp_path / "m.h5"), str(place), "--bin-us", "9000", "--no-flip-y", "--json"]) == 0
        settings = {each["option"]: each for each in json.loads(capsys.readouterr().out)["settings"]}
        for name, value in (("window", "duration"), ("bin_us", 9000), ("flip_y", False)):
            assert (settings[name]["value"], settings[name]["source"]) == (value, "option")
        assert settings["window"]["note"] == "said with the input, the model says time"
        assert (settings["fit"]["value"], settings["fit"]["note"]) == ("crop", "")


def test_what_results_rest_on_is_printed(tmp_path: Path, recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(import_checkpoint(checkpoint(tmp_path), **SIZES, **DVS), tmp_path / "m.h5")
    assert main(["run", str(tmp_path / "m.h5"), str(recording)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("assumed")]
    assert "tau = 2.0" in line
    assert "window" not in line, "it was said"


def test_bins_need_no_window_and_no_other_window(tmp_path: Path, recording: Path) -> None:
    assert Preparation(bin_us=7000).window == "duration"
    for wrong in ({"window": "count", "bin_us": 5}, {"window": "durations"}, {"bin_us": 0}, {"bin_us": 10**30}):
        with pytest.raises(InputError, match="window="):
            Preparation(**wrong)
    network = import_checkpoint(checkpoint(tmp_path, metadata=SIZES | {"bin_us": 7000, "fit": "crop"}))
    assert sources(network)["window"] == ("duration", "inferred")
    assert sources(network)["bin_us"] == (7000, "metadata")
    with pytest.raises(InputError, match="bin_us with window=count found"):
        import_checkpoint(checkpoint(tmp_path, metadata=SIZES | {"window": "count"}), bin_us=5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mean": "0.5"}, "mean of 1 values found; the model takes 3 channels"),
        ({"mean": "nan,0,0"}, "mean of nan, 0.0, 0.0 found; expected finite numbers"),
        ({"mean": "1e39,0,0"}, "expected finite numbers"),
        ({"std": "0,1,1"}, "std of 0.0, 1.0, 1.0 found; expected numbers above 0"),
        ({"std": "-1,1,1"}, "expected numbers above 0"),
        ({"sensor": "99999999999x1"}, "expected WIDTHxHEIGHT"),
    ],
)
@pytest.mark.parametrize("door", ["option", "metadata"])
def test_what_could_never_run_is_refused_by_the_import(
    tmp_path: Path, values: dict[str, Any], message: str, door: str
) -> None:
    given, stored = (values, {}) if door == "option" else ({}, values)
    with pytest.raises(InputError, match=message):
        import_checkpoint(checkpoint(tmp_path, "dvs" if "sensor" in values else "cifar", SIZES | stored), **given)


def test_the_sensor_of_the_model_stands_in_where_the_file_does_not_tell(tmp_path: Path, recording: Path) -> None:
    small = np.load(recording)[:300]
    small["x"] //= 2
    np.save(tmp_path / "small.npy", small)
    network = import_checkpoint(checkpoint(tmp_path), **SIZES, fit="downscale", sensor="80x60", camera="davis")
    expected = frames_by_count(open_recording(small, sensor_size=(60, 80)), 4, fit=Fit((34, 34), "downscale"))
    assert_array_equal(Preparation().frames(tmp_path / "small.npy", network), expected)
    mine = Preparation(sensor_size=(70, 70)).frames(tmp_path / "small.npy", network)
    other = frames_by_count(open_recording(small, sensor_size=(70, 70)), 4, fit=Fit((34, 34), "downscale"))
    assert_array_equal(mine, other)
    assert not np.array_equal(other, expected)


def test_a_file_that_tells_its_sensor_is_believed(tmp_path: Path) -> None:
    """The camera of an AEDAT 2.0 header against the sensor and camera of a model."""
    header = b"#!AER-DAT2.0\r\n# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128\r\n"
    x, y = np.arange(100) % 128, np.arange(100) // 2
    words = np.empty((100, 2), ">u4")
    words[:, 0], words[:, 1] = (y << 8) | (x << 1), np.arange(100) * 10
    (tmp_path / "told.aedat").write_bytes(header + words.tobytes())
    (tmp_path / "untold.aedat").write_bytes(b"#!AER-DAT2.0\r\n" + words.tobytes())
    network = import_checkpoint(checkpoint(tmp_path), **SIZES, fit="downscale", sensor="300x300", camera="dvs128")
    told = Preparation().frames(tmp_path / "told.aedat", network)
    untold = Preparation().frames(tmp_path / "untold.aedat", network)
    plain = Preparation(fit="downscale").frames(
        tmp_path / "told.aedat", import_checkpoint(checkpoint(tmp_path), **SIZES)
    )
    assert_array_equal(told, plain)
    assert not np.array_equal(untold, plain)


@pytest.mark.parametrize(("variant", "flag"), [("dvs", "--time-steps"), ("dvs", "--bin-us"), ("cifar", "--time-steps")])
def test_numbers_too_large_are_one_line(
    tmp_path: Path, recording: Path, capsys: pytest.CaptureFixture[str], variant: str, flag: str
) -> None:
    save(import_checkpoint(checkpoint(tmp_path, variant), **SIZES, fit="downscale"), tmp_path / "m.h5")
    Image.fromarray(np.zeros((34, 34, 3), np.uint8)).save(tmp_path / "i.png")
    source = recording if variant == "dvs" else tmp_path / "i.png"
    capsys.readouterr()
    assert main(["run", str(tmp_path / "m.h5"), str(source), flag, "9" * 24]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "not as the model says" not in line]
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("variant", "source", "flags", "said"),
    [
        ("dvs", "r.npy", ["--mean", "0,0"], "--mean 0.0,0.0 found; a model of recordings cannot use that"),
        ("cifar", "i.png", ["--flip-x", "--binary"], "--binary, --flip-x found; a model of images cannot use that"),
        ("cifar", "i.png", ["--no-binary"], "--no-binary found; a model of images cannot use that"),
        ("cifar", "i.png", ["--salvage"], "--salvage found; a model of images cannot use that"),
        ("dvs", "f.npy", ["--window", "time"], "f.npy: --window time found; frames that are prepared already cannot"),
        ("dvs", "f.npy", ["--fit", "crop"], "f.npy: --fit crop found; frames that are prepared already cannot"),
        ("dvs", "f.npy", ["--sensor", "40x30"], "f.npy: --sensor 40x30 found; frames that are prepared already"),
        ("cifar", "v.npy", ["--mean", "0,0,0"], "v.npy: --mean 0.0,0.0,0.0 found; frames that are prepared already"),
        ("dvs", "r.npy", ["--bin-us", "9000", "--window", "time"], "--window time with --bin-us 9000 found"),
        ("dvs", "r.npy", ["--lag", "5"], "--lag 5 without --disorder sort found"),
    ],
)
def test_options_that_an_input_cannot_use_are_refused(
    tmp_path: Path,
    recording: Path,
    capsys: pytest.CaptureFixture[str],
    variant: str,
    source: str,
    flags: list[str],
    said: str,
) -> None:
    options = {"fit": "crop", "sensor": "40x40"} if variant == "dvs" else {}
    save(import_checkpoint(checkpoint(tmp_path, variant), **SIZES, **options), tmp_path / "m.h5")
    Image.fromarray(np.zeros((34, 34, 3), np.uint8)).save(tmp_path / "i.png")
    np.save(tmp_path / "f.npy", np.zeros((4, 2, 34, 34), np.int32))
    np.save(tmp_path / "v.npy", np.zeros((3, 34, 34), np.float32))
    assert main(["run", str(tmp_path / "m.h5"), str(tmp_path / source)]) == 0
    capsys.readouterr()
    assert main(["run", str(tmp_path / "m.h5"), str(tmp_path / source), *flags]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert said in line
    if "--mean" not in flags and variant == "cifar":
        (tmp_path / "data" / "0").mkdir(parents=True)
        assert main(["evaluate", str(tmp_path / "m.h5"), str(tmp_path / "data"), *flags]) == 2


def test_images_of_a_batch_are_samples_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = import_checkpoint(checkpoint(tmp_path, "cifar"), **SIZES)
    save(network, tmp_path / "m.h5")
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 34, 34), np.uint8)
    np.save(tmp_path / "b.npy", images)
    for command in ("run", "verify"):
        capsys.readouterr()
        assert main([command, str(tmp_path / "m.h5"), str(tmp_path / "b.npy"), "--batch", "--json"]) == 0
        samples = json.loads(capsys.readouterr().out)["samples"]
        assert [sample["input"] for sample in samples] == [f"{tmp_path}/b.npy[{index}]" for index in range(3)]
        assert len({sample["input_sha256"] for sample in samples} - {None}) == 1
    assert main(["run", str(tmp_path / "m.h5"), str(tmp_path / "b.npy"), "--batch", "--json"]) == 0
    for image, sample in zip(images, json.loads(capsys.readouterr().out)["samples"], strict=True):
        expected = Simulator(network).run(Preparation().frames(image, network))
        assert_array_equal(np.asarray(sample["logits"], np.float32), expected.logits)
    np.save(tmp_path / "t.npy", np.zeros((2, 4, 3, 34, 34), np.float32))
    assert main(["run", str(tmp_path / "m.h5"), str(tmp_path / "t.npy")]) == 2
    assert "2 x 4 x 3 x 34 x 34 found, a batch of samples with time steps" in capsys.readouterr().err
    assert main(["run", str(tmp_path / "m.h5"), str(tmp_path / "t.npy"), "--batch", "--json"]) == 0
    assert [sample["time_steps"] for sample in json.loads(capsys.readouterr().out)["samples"]] == [4, 4]
    Image.fromarray(np.zeros((34, 34, 3), np.uint8)).save(tmp_path / "i.png")
    assert main(["run", str(tmp_path / "m.h5"), str(tmp_path / "i.png"), "--batch"]) == 2
    assert "i.png: --batch found; expected an array of samples" in capsys.readouterr().err


def test_other_time_steps_than_the_model_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(import_checkpoint(checkpoint(tmp_path), **SIZES), tmp_path / "m.h5")
    for steps, said in (
        (4, ""),
        (7, f"eventsim: {tmp_path}/f.npy: 7 time steps found, the model says time_steps = 4\n"),
    ):
        np.save(tmp_path / "f.npy", np.zeros((steps, 2, 34, 34), np.int32))
        capsys.readouterr()
        assert main(["run", str(tmp_path / "m.h5"), str(tmp_path / "f.npy")]) == 0
        assert capsys.readouterr().err == said
        for command in (["verify"], ["profile", "--verify"]):
            main([*command, str(tmp_path / "m.h5"), str(tmp_path / "f.npy")])
            assert capsys.readouterr().err == said


@pytest.mark.parametrize("fit", ["crop", "downscale", "pad"])
@pytest.mark.parametrize("channels", [1, 3])
def test_bytes_are_fitted_as_the_same_picture_in_a_file(tmp_path: Path, fit: str, channels: int) -> None:
    from eventsim import NetworkBuilder
    from eventsim.layers import Flatten, Input, Linear, MeanOverTime, Readout

    build = NetworkBuilder("sees")
    source = build.add("input", Input((channels, 20, 24), "real"))
    weight = np.zeros((2, channels * 480), np.float32)
    source = build.add("linear", Linear(weight), build.add("flatten", Flatten(), source))
    build.add("readout", Readout(), build.add("mean", MeanOverTime(), source))
    network = build.build(time_steps=2)
    size = (13, 17) if fit == "pad" else (41, 33)
    pixels = np.random.default_rng(2).integers(0, 256, (*size, channels), np.uint8)
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(tmp_path / "i.png")
    prepared = Preparation(fit=fit, mean=(0.5,) * channels, std=(0.25,) * channels)  # type: ignore[arg-type]
    expected = prepared.frames(tmp_path / "i.png", network)
    first = np.moveaxis(pixels, -1, 0)
    assert_array_equal(prepared.frames(first, network), expected)
    assert_array_equal(prepared.frames(np.stack([first, first]), network), np.stack([expected, expected]))
    if channels == 1:
        assert_array_equal(prepared.frames(first[0], network), expected)
    deep = prepared.frames(first.astype(np.uint16) * 257, network)
    np.testing.assert_allclose(deep, expected, atol=4 * 1.0 / 255)
    with pytest.raises(InputError, match=r"an image of .* found; the model takes 24 x 20"):
        Preparation().frames(first, network)
    with pytest.raises(
        InputError, match="move the axis of the channels to the front" if channels == 3 else "pixels of"
    ):
        prepared.frames(np.zeros((20, 24, channels + (channels == 1)), np.uint8), network)
    with pytest.raises(InputError, match="pixels of type int64 found; expected uint8 or uint16"):
        prepared.frames(first.astype(np.int64), network)


def test_an_input_refuses_in_python_what_it_cannot_use(tmp_path: Path, recording: Path) -> None:
    rgb = import_checkpoint(checkpoint(tmp_path, "cifar"), **SIZES)
    dvs = import_checkpoint(checkpoint(tmp_path), **SIZES, **DVS)
    Image.fromarray(np.zeros((34, 34, 3), np.uint8)).save(tmp_path / "i.png")
    opened = open_recording(recording, sensor_size=(40, 40))
    for preparation, source, network, said in (
        (Preparation(window="time"), tmp_path / "i.png", rgb, r"i\.png: window='time' found; an image cannot use that"),
        (
            Preparation(salvage=True),
            np.zeros((3, 34, 34), np.uint8),
            rgb,
            "array: salvage=True found; an array of pixels",
        ),
        (Preparation(mean=(0.5,)), recording, dvs, r"r\.npy: mean=\(0\.5,\) found; a recording cannot use that"),
        (Preparation(sensor_size=(9, 9)), opened, dvs, r"sensor_size=\(9, 9\) found; a recording that is open already"),
    ):
        with pytest.raises(InputError, match=said):
            preparation.frames(source, network)
