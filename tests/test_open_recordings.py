"""What is said of a recording that is open already means what it means for the file; nothing is left out silently."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from eventsim import InputError, Network, Preparation, open_recording, stream
from eventsim.cli import main
from eventsim.dvs import EVENT_DTYPE, Orientation, Recording
from eventsim.dvs.events_array import ArrayRecording
from eventsim.settings import Setting

SIDE = 6
TURNS = [Orientation(**{name: True}) for name in ("transpose", "flip_x", "flip_y", "flip_polarity")]
OTHER = Orientation(transpose=True, flip_y=True)


@pytest.fixture
def events() -> np.ndarray:
    """Events that differ from their mirror images, and reach every border but the last column."""
    rng = np.random.default_rng(7)
    found = np.zeros(80, EVENT_DTYPE)
    found["x"], found["y"] = rng.integers(0, SIDE - 1, 80), rng.integers(0, SIDE, 80) ** 2 // SIDE
    found["y"][0], found["t"], found["p"] = SIDE - 1, np.arange(80) * 10, rng.random(80) < 0.2
    return found


@pytest.fixture
def file(events: np.ndarray, tmp_path: Path) -> Path:
    np.save(tmp_path / "r.npy", events)
    return tmp_path / "r.npy"


def saying(network: Network, **values: Any) -> Network:
    return network.with_settings(*(Setting(name, value, "option") for name, value in values.items()))


def binned(source: Any, network: Network, **options: Any) -> np.ndarray:
    """Return the logits of every bin of a stream, which differ for pictures that differ."""
    return np.stack([each.logits for each in stream(network, source, bin_us=100, restart_every=1, **options)])


def opened(file: Path) -> Recording:
    return open_recording(file, sensor_size=(SIDE, SIDE))


@pytest.mark.parametrize("turn", [*TURNS, OTHER], ids=str)
@pytest.mark.parametrize("by", ["options", "model"])
def test_an_open_recording_is_turned_as_its_file_is(
    file: Path, events: np.ndarray, small_network: Network, turn: Orientation, by: str
) -> None:
    names = ("transpose", "flip_x", "flip_y", "flip_polarity")
    network = saying(small_network, **{name: getattr(turn, name) for name in names}) if by == "model" else small_network
    said = {} if by == "model" else {"orientation": turn}
    sized = Preparation(sensor_size=(SIDE, SIDE), **said)
    expected = sized.frames(file, network)
    assert not np.array_equal(expected, replace(sized, orientation=Orientation()).frames(file, network))
    recording = opened(file)
    assert_array_equal(Preparation(**said).frames(recording, network), expected)
    assert recording.summary() == opened(file).summary()  # it stays as it was
    assert_array_equal(Preparation(orientation=Orientation()).frames(recording, small_network),
                       Preparation(sensor_size=(SIDE, SIDE)).frames(file, small_network))  # fmt: skip
    bins = binned([events], network, sensor_size=(SIDE, SIDE), **said)
    assert_array_equal(binned(recording, network, **said), bins)


@pytest.mark.parametrize("turn", [Orientation(flip_x=True), Orientation()], ids=str)
def test_what_a_recording_was_opened_with_holds(file: Path, small_network: Network, turn: Orientation) -> None:
    """Also where that is to leave the picture as it is; other options are refused."""
    network = saying(small_network, transpose=True)
    recording = open_recording(file, sensor_size=(SIDE, SIDE), orientation=turn)
    expected = Preparation(sensor_size=(SIDE, SIDE), orientation=turn).frames(file, network)
    assert_array_equal(Preparation().frames(recording, network), expected)
    assert_array_equal(Preparation(orientation=turn).frames(recording, network), expected)
    for ask in (lambda: Preparation(orientation=OTHER).frames(recording, network),
                lambda: binned(recording, network, orientation=OTHER)):  # fmt: skip
        with pytest.raises(InputError, match=r"r\.npy: Orientation.* open already with Orientation") as caught:
            ask()
        assert "\n" not in str(caught.value)


def test_a_size_that_is_told_takes_the_place_of_a_guess(file: Path, events: np.ndarray, small_network: Network) -> None:
    """Frames of a network of 6 x 6 of a recording whose events reach 5 x 6, as of Tonic's N-Caltech101."""
    expected = Preparation(sensor_size=(SIDE, SIDE)).frames(file, small_network)
    mirrored = Preparation(sensor_size=(SIDE, SIDE), orientation=Orientation(flip_x=True)).frames(file, small_network)
    for recording in (open_recording(file), open_recording(events), ArrayRecording(events)):
        assert (recording.size_source, recording.width) == ("guessed", SIDE - 1)
        told = Preparation(sensor_size=(SIDE, SIDE))
        assert_array_equal(told.frames(recording, small_network), expected)
        assert_array_equal(Preparation().frames(recording, saying(small_network, sensor="6x6")), expected)
        turned = replace(told, orientation=Orientation(flip_x=True))
        assert_array_equal(turned.frames(recording, small_network), mirrored)
        assert_array_equal(binned(recording, small_network, sensor_size=(SIDE, SIDE)),
                           binned([events], small_network, sensor_size=(SIDE, SIDE)))  # fmt: skip
        with pytest.raises(InputError, match="outside"):
            Preparation(sensor_size=(4, 4), fit="pad").frames(recording, small_network)


def test_a_size_that_is_known_is_not_replaced(tmp_path: Path, file: Path, small_network: Network) -> None:
    recording = opened(file)
    same = Preparation(sensor_size=(SIDE, SIDE)).frames(recording, small_network)
    assert_array_equal(Preparation().frames(recording, saying(small_network, sensor="9x9")), same)
    with pytest.raises(InputError, match=r"sensor_size=\(9, 9\) found; a recording that is open already, of 6 x 6"):
        Preparation(sensor_size=(9, 9), fit="crop").frames(recording, small_network)
    with pytest.raises(InputError, match=r"sensor_size=\(9, 9\) found"):
        binned(recording, small_network, sensor_size=(9, 9))


def test_the_custom_of_a_format_gives_way_within_its_limits(tmp_path: Path, small_network: Network) -> None:
    (tmp_path / "a.bin").write_bytes(bytes([3, 1, 128, 0, 5, 4, 2, 0, 0, 9]))
    recording = open_recording(tmp_path / "a.bin")
    told = recording.retold(sensor_size=(180, 240))
    assert (told.width, told.height, told.size_source) == (240, 180, "given")
    assert (recording.width, recording.size_source) == (34, "format")
    with pytest.raises(InputError, match="sensor height 241, expected at most 240"):
        recording.retold(sensor_size=(241, 240))
    (tmp_path / "a.aedat").write_bytes(b"#!AER-DAT2.0\r\n" + bytes(8))
    with pytest.raises(InputError, match="opened without a camera found, the model says davis; open it with camera"):
        Preparation().frames(open_recording(tmp_path / "a.aedat"), saying(small_network, camera="davis"))


@pytest.mark.parametrize("axis", ["flip_x", "flip_y"])
def test_nothing_is_mirrored_by_a_guess(file: Path, events: np.ndarray, axis: str) -> None:
    """By whichever door the events are read; other turns need no size, and one that is told is good."""
    turn = Orientation(transpose=True, **{axis: True})
    for source in (file, events):
        recording = open_recording(source, orientation=turn)
        for read in (recording.summary, recording.chunks, recording.blocks):
            with pytest.raises(InputError, match=r"events reach 6 x 5 pixels .* pass sensor_size=\(height, width\)"):
                read()
        assert recording.count("drop") == 80
        told = recording.retold(sensor_size=(SIDE, SIDE)).summary()
        assert told == open_recording(source, orientation=turn, sensor_size=(SIDE, SIDE)).summary()
        assert open_recording(source, orientation=Orientation(transpose=True)).summary().events == 80


@pytest.mark.parametrize("flag", ["--flip-x", "--flip-y"])
def test_events_mirrors_nothing_by_a_guess(file: Path, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["events", str(file), flag]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "pass --sensor WIDTHxHEIGHT" in said
    assert main(["events", str(file), flag, "--sensor", "6x6"]) == 0
    assert main(["events", str(file), "--transpose", "--flip-polarity"]) == 0
