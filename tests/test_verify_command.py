"""`eventsim verify` as a user meets it: tables and documents, several inputs, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_cli import call, refused, write_recording
from test_verification import near_the_threshold, one_less, spoil

from eventsim import Network, save
from eventsim.layers.synapses.gathering import SynapsesOp


@pytest.fixture
def model(small_network: Network, tmp_path: Path) -> Path:
    save(small_network, tmp_path / "m.h5")
    for seed in range(2):
        rng = np.random.default_rng(seed)
        np.save(tmp_path / f"{seed}.npy", rng.integers(0, 3, (4, 2, 6, 6)).astype(np.float32))
    return tmp_path / "m.h5"


def test_tables_and_a_verdict_for_each_input(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    code, out, err = call(capsys, "verify", model, model.parent / "0.npy", model.parent / "1.npy")
    assert (code, err) == (0, "")
    assert out.count("Conv2d") == 2
    assert out.count("equal (bit for bit: 576 spikes compared in 1 layer, ") == 2
    assert f"{model.parent}/1.npy: 4 time steps" in out


def test_one_document_for_all_inputs(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    inputs = [model.parent / f"{seed}.npy" for seed in range(2)]
    code, out, _ = call(capsys, "verify", model, *inputs, "--json")
    document = json.loads(out)
    assert code == 0
    assert (document["schema"], document["model"], document["failed"]) == (2, str(model), [])
    assert [sample["input"] for sample in document["samples"]] == list(map(str, inputs))
    assert all(sample["equal"] and sample["holds"] for sample in document["samples"])
    assert [row["name"] for row in document["samples"][0]["layers"]][:3] == ["input", "conv", "lif"]


def test_a_network_that_differs_exits_with_1(
    capsys: pytest.CaptureFixture[str], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, SynapsesOp, one_less)
    code, out, err = call(capsys, "verify", model, model.parent / "0.npy")
    assert (code, err) == (1, "")
    assert "differs (first layer conv: 1 of 576 values that rounding does not explain, up to " in out
    code, out, _ = call(capsys, "verify", model, model.parent / "0.npy", "--json")
    assert code == 1
    assert json.loads(out)["samples"][0]["holds"] is False


def test_a_flip_within_the_margin_exits_with_0(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    network, frames = near_the_threshold()
    save(network, tmp_path / "near.h5")
    np.save(tmp_path / "frames.npy", frames)
    code, out, _ = call(capsys, "verify", tmp_path / "near.h5", tmp_path / "frames.npy")
    assert code == 0
    assert "differs only within the rounding margin (1 of 3 spikes in 1 layer, " in out


def test_a_bad_input_stops_no_other_and_exits_with_2(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    code, out, err = call(capsys, "verify", model, model.parent / "absent.npy", model.parent / "0.npy")
    assert code == 2
    assert err.startswith(f"eventsim: {model.parent}/absent.npy: ")
    assert err.count("\n") == 1
    assert "equal (bit for bit" in out
    code, out, _ = call(capsys, "verify", model, model.parent / "absent.npy", "--json")
    document = json.loads(out)
    assert (code, document["samples"], len(document["failed"])) == (2, [], 1)
    np.save(model.parent / "wrong.npy", np.zeros((4, 3, 6, 6), np.float32))
    assert "the model takes 2 x 6 x 6" in refused(capsys, "verify", model, model.parent / "wrong.npy")
    assert "absent.h5" in refused(capsys, "verify", model.parent / "absent.h5", model.parent / "0.npy")
    assert "required" in refused(capsys, "verify", model)


def test_a_recording_is_prepared_as_for_run(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    recording = write_recording(model.parent / "r.npy")
    options = ("--sensor", "34x34", "--fit", "downscale")
    ways = ((), ("--time-steps", "3"), ("--bin-us", "20000"), ("--flip-x",))
    for more in ways:
        code, out, err = call(capsys, "verify", model, recording, *options, *more, "--json")
        assert code == 0, err
        (sample,) = json.loads(out)["samples"]
        _, out, _ = call(capsys, "run", model, recording, *options, *more, "--json")
        (simulated,) = json.loads(out)["samples"]
        assert sample["time_steps"] == simulated["time_steps"]
        assert sample["prediction"] == simulated["prediction"]
        spikes = {row["name"]: row["spikes"] for row in simulated["layers"]}
        assert {row["name"]: row["emitted"] for row in sample["layers"]}["lif"] == spikes["lif"] > 0


def test_what_does_not_fit_in_memory_is_one_line(
    capsys: pytest.CaptureFixture[str], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventsim.verification.available_bytes", lambda: 1000)
    line = refused(capsys, "verify", model, model.parent / "0.npy")
    assert f"{model.parent}/0.npy: layer lif: " in line
    assert line.endswith("or on a larger machine")
