"""One source that fails in a way nobody foresaw is an error of its own; the others are simulated all the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eventsim import InputError, Network, Preparation, Simulator, open_recording, save
from eventsim.cli import main
from eventsim.datasets import Sample, evaluate
from eventsim.dvs import EVENT_DTYPE
from eventsim.dvs.events_array import ArrayRecording

FRAMES = {"count": {}, "bins": {"bin_us": 10}}


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    events = np.zeros(40, EVENT_DTYPE)
    events["x"], events["y"], events["t"] = np.arange(40) % 6, np.arange(40) % 5, np.arange(40)
    names = [str(tmp_path / name) for name in ("a.npy", "bad.npy", "c.npy")]
    for name in names:
        np.save(name, events)
    return names


@pytest.fixture(params=[ValueError("of the library\nand more"), TypeError(), OSError(5, "no such block")], ids=repr)
def broken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have the reader of one file fail after its first events; return the kind of the error."""
    decode = ArrayRecording._decode

    def failing(recording: ArrayRecording, block_events: int) -> Iterator[Any]:
        for number, columns in enumerate(decode(recording, 7)):
            if number and "bad" in recording.path:
                raise request.param
            yield columns

    monkeypatch.setattr(ArrayRecording, "_decode", failing)
    monkeypatch.setattr("eventsim.dvs.formats.npy.NpyRecording._decode", failing)
    return type(request.param).__name__


@pytest.mark.parametrize("options", FRAMES.values(), ids=FRAMES)
def test_what_a_reader_raises_is_the_error_of_its_source(
    files: list[str], broken: str, options: dict[str, Any], small_network: Network
) -> None:
    preparation = Preparation(sensor_size=(6, 6), **options)
    for source in (files[1], open_recording(files[1], sensor_size=(6, 6))):
        with pytest.raises(InputError, match=rf"bad\.npy: cannot be read \({broken}: .*\)") as caught:
            list(preparation.frames(source, small_network))
        assert "\n" not in str(caught.value)
        assert type(caught.value.__cause__).__name__ == broken  # it can be found
    samples = [Sample(name, 1, name, index) for index, name in enumerate(files)]
    errors = [outcome.error for outcome in evaluate(Simulator(small_network), samples, preparation)]
    assert [error is None for error in errors] == [True, False, True]
    assert broken in (errors[1] or "")


def test_what_opening_a_sample_raises_is_its_error(
    files: list[str], small_network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(sample: Sample, *_: Any) -> Any:
        if "bad" in sample.name:
            raise TypeError("of the library")
        return sample.reference

    monkeypatch.setattr("eventsim.datasets.running.open_sample", failing)
    samples = [Sample(name, 1, name, index) for index, name in enumerate(reversed(files))]
    outcomes = list(evaluate(Simulator(small_network), samples, Preparation(sensor_size=(6, 6))))
    assert [outcome.error is None for outcome in outcomes] == [True, False, True]
    assert "bad.npy: cannot be read (TypeError: of the library)" in (outcomes[1].error or "")


@pytest.mark.parametrize("options", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_what_is_no_fault_of_the_source_stays(
    files: list[str], options: dict[str, Any], error: type[BaseException], small_network: Network, monkeypatch: Any
) -> None:
    def failing(recording: ArrayRecording, block_events: int) -> Iterator[Any]:
        raise error
        yield

    monkeypatch.setattr("eventsim.dvs.formats.npy.NpyRecording._decode", failing)
    with pytest.raises(error):
        list(Preparation(sensor_size=(6, 6), **options).frames(files[0], small_network))


@pytest.mark.parametrize("options", FRAMES.values(), ids=FRAMES)
def test_a_fault_of_the_simulation_is_seen(
    files: list[str], options: dict[str, Any], small_network: Network, monkeypatch: Any
) -> None:
    def failing(*_: Any) -> None:
        raise ZeroDivisionError

    simulator = Simulator(small_network)
    monkeypatch.setattr("eventsim.simulator.Run.advance", failing)
    monkeypatch.setattr("eventsim.simulator.Run.whole", failing)
    with pytest.raises(ZeroDivisionError):
        simulator.run(Preparation(sensor_size=(6, 6), **options).frames(files[0], small_network))


def test_the_others_are_simulated(
    files: list[str], broken: str, small_network: Network, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(small_network, tmp_path / "m.h5")
    capsys.readouterr()
    assert main(["run", str(tmp_path / "m.h5"), *files, "--sensor", "6x6", "--json"]) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert f"bad.npy: cannot be read ({broken}" in err
    assert [each["input"] for each in json.loads(out)["samples"]] == [files[0], files[2]]
    (tmp_path / "data" / "1").mkdir(parents=True)
    for name in files:
        shutil.copy(name, tmp_path / "data" / "1")
    assert main(["evaluate", str(tmp_path / "m.h5"), str(tmp_path / "data"), "--sensor", "6x6", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["samples"], len(document["failed"])) == (2, 1)
