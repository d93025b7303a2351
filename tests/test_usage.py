"""Wrong usage: what a machine gets, and what is asked about names that are nearly right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from state_dicts import spikformer_state

from eventsim import Network, save
from eventsim.cli import main
from eventsim.datasets import Evaluation


@pytest.mark.parametrize(
    "arguments",
    [["run", "m.h5", "a.npy", "--bogus"], ["run"], ["evlauate"], ["run", "m.h5", "a.npy", "--chunk", "0"], []],
)
def test_a_machine_gets_a_document_of_wrong_usage_too(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--json"])
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert err == f"eventsim: {document['error']}; see {err.rpartition('; see ')[2]}"
    with pytest.raises(SystemExit):
        main(arguments)
    assert capsys.readouterr() == ("", err)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["import", "c.npz", "-o", "x.h5", "--format", "spikfromer"], "; did you mean spikformer?"),
        (
            ["import", "c.npz", "-o", "x.h5", "--set", "haeds=4"],
            "; did you mean heads?",
        ),
        (["run", "m.h5", "a.npy", "--energy", "lemaire"], ", or a price file .toml; did you mean lemaire2022?"),
        (["run", "m.h5", "a.npy", "--energy", "zzz"], ", or a price file .toml"),
    ],
)
def test_names_that_are_nearly_right_are_asked_about(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    small_network: Network,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    save(small_network, "m.h5")
    np.savez("c.npz", **spikformer_state("cifar", depth=1))
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.endswith(f"{said}\n")
    assert "found; expected one of" in err


def test_an_evaluation_says_how_many_samples_have_other_time_steps(
    tmp_path: Path, small_network: Network, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save(small_network, "m.h5")
    Path("data/1").mkdir(parents=True)
    for index, steps in enumerate((3, 4, 5, 5)):
        np.save(f"data/1/{index}.npy", np.ones((steps, 2, 6, 6), np.int32))

    def said(*arguments: str) -> str:
        assert main(["evaluate", "m.h5", "data", "--json", *arguments]) == 0
        return capsys.readouterr().err

    told = (
        "eventsim: 3 of 4 samples have other time steps than the model says, time_steps = 4: 3 (1 samples), 5 (2 "
        "samples)\n"
    )
    assert said("--rows", "r.csv") == told
    assert said("--rows", "r.csv", "--resume") == told
    Path("data/1/0.npy").unlink()
    Path("data/1/2.npy").unlink()
    Path("data/1/3.npy").unlink()
    assert said() == ""


def events(count: int) -> npt.NDArray[Any]:
    """Return events a millisecond apart."""
    made = np.zeros(count, [("x", "i2"), ("y", "i2"), ("t", "i8"), ("p", "?")])
    made["t"] = 1000 * np.arange(count)
    return made


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        (["--bin-us", "4000"], 5),
        (["--bin-us", "5000"], 4),
        (["--bin-us", "4000", "--window", "tonic-duration", "--overlap", "1000"], 6),
        (["--bin-events", "6", "--overlap", "2"], 4),
        (["--bin-events", "5", "--overlap", "2"], 6),
        (["--window", "spikingjelly-duration", "--bin-us", "2000"], 7),
        (["--window", "time"], 4),
        (["--window", "count", "--time-steps", "4"], 4),
    ],
)
@pytest.mark.parametrize("command", ["run", "verify", "evaluate", "quantise"])
def test_windows_that_make_other_time_steps_are_told(
    command: str,
    options: list[str],
    steps: int,
    tmp_path: Path,
    small_network: Network,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    save(small_network, "m.h5")
    Path("data/1").mkdir(parents=True)
    for name in "ab":
        np.save(f"data/1/{name}.npy", events(20))
    file = "data/1/a.npy"
    inputs = {"evaluate": ["data"], "quantise": ["--calibrate", "data", "-o", "i.h5"]}.get(command, [file])
    assert main([command, "m.h5", *inputs, *options, "--sensor", "6x6", "--json"]) == 0
    told = f"eventsim: {file}: {steps} time steps found, the model says time_steps = 4\n"
    if command == "evaluate":
        told = (
            f"eventsim: 2 of 2 samples have other time steps than the model says, time_steps = 4: {steps} (2 samples)\n"
        )
    assert capsys.readouterr().err == (told if steps != 4 else "")


def test_time_steps_of_evaluations_merge() -> None:
    one, two = Evaluation(frames_given={3: 1, 4: 2}), Evaluation(frames_given={4: 5, 6: 1})
    one.merge(two)
    assert one.frames_given == {3: 1, 4: 7, 6: 1}
    plain: dict[str, Any] = vars(two)
    assert plain["frames_given"] == {4: 5, 6: 1}
