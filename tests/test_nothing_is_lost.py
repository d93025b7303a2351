"""What was computed reaches its reader, whatever the numbers and names are, and whatever fails behind it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eventsim import EventsimError, NetworkBuilder, Simulator, save
from eventsim.cli import main
from eventsim.layers import Input, Linear, Readout

F = np.float32
NO_TEXT = os.fsdecode(b"\xff.npy")
"""A name of a file that no encoding reads."""


def write_network(path: Path, weight: float = 1.0, layer: str = "linear") -> Path:
    """Two inputs, two outputs."""
    build = NetworkBuilder("two")
    x = build.add(layer, Linear(np.full((2, 2), weight, F)), build.add("input", Input((2,), "real")))
    build.add("readout", Readout("sum"), x)
    save(build.build(), path)
    return path


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return write_network(tmp_path / "two.h5")


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    np.save(tmp_path / "frames.npy", np.ones((3, 2), F))
    return tmp_path / "frames.npy"


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch):
    """Let the second simulation fail."""

    def fail(error: BaseException | type[BaseException]) -> None:
        run, calls = Simulator.run, []

        def failing_run(self, *args, **options):
            calls.append(1)
            if len(calls) == 2:
                raise error
            return run(self, *args, **options)

        monkeypatch.setattr(Simulator, "run", failing_run)

    return fail


# --- numbers


@pytest.mark.parametrize("command", ["run", "profile"])
def test_logits_that_are_not_finite_are_null_and_told(command: str, tmp_path: Path, frames: Path, capsys) -> None:
    network, page = write_network(tmp_path / "large.h5", 3e38), tmp_path / "page.html"
    report = ["--report", str(page)] if command == "profile" else []
    assert main([command, str(network), str(frames), "--json", *report]) == 0
    out, err = capsys.readouterr()
    (sample,) = json.loads(out)["samples"]
    assert sample["logits"] == [None, None]
    assert err == f"eventsim: {frames}: NaN or infinite logits found; the prediction means nothing\n"
    if report:
        text = page.read_text(encoding="utf-8")
        assert "means nothing: NaN or infinite logits" in text
        assert not re.search(r"points=.*,-?(nan|inf)\b", text)


# --- failures


FAILURES = [
    (KeyboardInterrupt, 130, "interrupted after 1 of 3 inputs"),
    (MemoryError, 1, "not enough memory"),
    (EventsimError("layer a: failed"), 1, "layer a: failed"),
]


@pytest.mark.parametrize("command", ["run", "profile", "verify"])
@pytest.mark.parametrize(("error", "code", "said"), FAILURES)
def test_inputs_before_a_failure_are_in_the_document(
    command: str, error, code: int, said: str, network: Path, frames: Path, failing, capsys
) -> None:
    failing(error)
    assert main([command, str(network), *[str(frames)] * 3, "--json"]) == code
    out, err = capsys.readouterr()
    document = json.loads(out)
    stopped = code == 130
    assert len(document["samples"]) == (1 if stopped else 2)
    assert len(document["failed"]) == (0 if stopped else 1)
    assert said in err and err.count("\n") == 1
    assert all(said in failure["error"] for failure in document["failed"])


def test_bad_input_is_told_from_work_that_failed(network: Path, frames: Path, failing, capsys) -> None:
    failing(MemoryError)
    assert main(["run", str(network), str(frames), str(frames), "nothing.npy"]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_a_sample_that_does_not_fit_loses_no_evaluation(network: Path, frames: Path, failing, capsys) -> None:
    folder = frames.parent / "set" / "0"
    folder.mkdir(parents=True)
    for name in "abc":
        (folder / f"{name}.npy").write_bytes(frames.read_bytes())
    failing(MemoryError)
    assert main(["evaluate", str(network), str(folder.parent), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["samples"] == 2
    assert "b.npy: not enough memory" in document["failed"][0]["error"]


def test_a_verification_that_is_stopped_leaves_the_numbers(network: Path, frames: Path, failing, capsys) -> None:
    failing(KeyboardInterrupt)
    assert main(["profile", str(network), str(frames), "--verify", "--json"]) == 130
    (sample,) = json.loads(capsys.readouterr().out)["samples"]
    assert "verification" not in sample


def test_a_document_says_what_changes_its_counts(network: Path, frames: Path, capsys) -> None:
    assert main(["profile", str(network), str(frames), "--maps", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["provenance"]["options"] == {"threads": 1, "maps": True}


# --- names and places


def test_names_that_are_no_text_are_written_all_the_same(network: Path, frames: Path, tmp_path: Path) -> None:
    odd = tmp_path / NO_TEXT
    odd.write_bytes(frames.read_bytes())
    rows, page = tmp_path / "rows.csv", tmp_path / "page.html"
    assert main(["profile", str(network), str(odd), "--rows", str(rows), "--report", str(page)]) == 0
    assert r"\udcff.npy" in page.read_text(encoding="utf-8")
    with rows.open(encoding="utf-8", newline="") as file:
        assert {Path(row["input"]).name for row in csv.DictReader(file)} == {r"\udcff.npy"}


def test_a_terminal_without_a_letter_gets_its_number(tmp_path: Path, frames: Path, monkeypatch) -> None:
    network = write_network(tmp_path / "two.h5", layer="schön")
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(["profile", str(network), str(frames)]) == 0
    screen.seek(0)
    assert r"sch\xf6n" in screen.read()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["formats"], ["formats", "--json"]])
def test_results_that_cannot_be_written_are_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "eventsim", *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("eventsim: results cannot be written (")


def test_recording_nothing_is_refused(network: Path, frames: Path, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["run", str(network), str(frames), "--record", ",", "-o", "out.npz"])
    assert stopped.value.code == 2
    assert "expected names of layers" in capsys.readouterr().err
