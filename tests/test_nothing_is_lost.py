"""What was computed reaches its reader, whatever the numbers and names are, and whatever fails behind it."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

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


# --- Ctrl-C


@pytest.fixture
def pressed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Let Ctrl-C be pressed once a function is called."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what runs in the background

    def press(at: str) -> None:
        place, _, name = at.rpartition(".")
        call = getattr(resolve_name(place), name)

        def pressing(*given: Any, **options: Any) -> Any:
            os.kill(os.getpid(), signal.SIGINT)
            return call(*given, **options)

        monkeypatch.setattr(at, pressing)

    yield press
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(
    ("command", "module"), [("run", "simulating"), ("profile", "simulating"), ("verify", "verifying")]
)
def test_an_interruption_behind_the_work_loses_nothing(
    command: str, module: str, again: bool, network: Path, frames: Path, failing, pressed, capsys
) -> None:
    """The first one, and another behind one that stopped the work."""
    if again:
        failing(KeyboardInterrupt)
    pressed(f"eventsim.cli.commands.{module}.provenance")
    assert main([command, str(network), str(frames), str(frames), "--json"]) == 130
    out, err = capsys.readouterr()
    assert len(json.loads(out)["samples"]) == 2 - again
    assert err == f"eventsim: interrupted{' after 1 of 2 inputs' * again}\n"


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("place", ["provenance", "evaluation_document", "print_json"])
def test_an_interruption_behind_an_evaluation_loses_nothing(
    place: str, again: bool, network: Path, frames: Path, failing, pressed, capsys
) -> None:
    folder = frames.parent / "set" / "0"
    folder.mkdir(parents=True)
    for name in "ab":
        (folder / f"{name}.npy").write_bytes(frames.read_bytes())
    if again:
        failing(KeyboardInterrupt)
    pressed(f"eventsim.cli.commands.evaluating.{place}")
    assert main(["evaluate", str(network), str(folder.parent), "--json"]) == 130
    out, err = capsys.readouterr()
    assert json.loads(out)["samples"] == 2 - again
    assert err == f"eventsim: interrupted{' after 1 of 2 samples' * again}\n"


def test_one_interruption_that_is_sent_twice_stops_once(
    network: Path, frames: Path, pressed, monkeypatch, capsys
) -> None:
    """The second comes before the first is dealt with."""

    def stopping(*_: object, **__: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    pressed("eventsim.cli.attempts.complain")
    monkeypatch.setattr(Simulator, "run", stopping)
    assert main(["run", str(network), str(frames), "--json"]) == 130
    out, err = capsys.readouterr()
    assert json.loads(out)["samples"] == []
    assert err == "eventsim: interrupted after 0 of 1 inputs\n"


@contextmanager
def printing_slowly(*arguments: object, unbuffered: str = "") -> Iterator[tuple[subprocess.Popen[bytes], Any]]:
    """Start a command whose document waits for who reads it."""
    reads, writes = os.pipe()
    fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, 4096)
    process = subprocess.Popen(
        [sys.executable, "-m", "eventsim", *map(str, arguments), "--json"],
        stdout=writes,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 - no thread yet
    )
    os.close(writes)
    with open(reads, "rb", buffering=0) as results, process:
        try:
            yield process, results
        finally:
            process.kill()


def said(process: subprocess.Popen[bytes]) -> list[bytes]:
    """Return what a command complained about; the first one of all compiles kernels, and says that, too."""
    return [line for line in process.stderr.read().splitlines() if b"eventsim: compiling the kernels" not in line]


def press_twice(process: subprocess.Popen[bytes]) -> None:
    """Send Ctrl-C, and again before anything can be done about it."""
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["run", "formats"])
def test_a_document_that_was_begun_is_finished(command: str, unbuffered: str, network: Path, frames: Path) -> None:
    given = ["run", network, *[frames] * 50] if command == "run" else ["formats", "nir"]  # more than a pipe holds
    with printing_slowly(*given, unbuffered=unbuffered) as (process, results):
        first = results.read(1)
        press_twice(process)
        document = json.loads(first + results.readall())
        assert process.wait(60) == 130
        assert said(process) == [b"eventsim: interrupted"]
    assert len(document["samples" if command == "run" else "options"]) > 10


def test_a_document_that_waits_for_its_reader_can_be_ended(network: Path, frames: Path) -> None:
    """By SIGTERM, or a reader that is gone."""
    for gone, code in ((True, 1), (False, -signal.SIGTERM)):
        with printing_slowly("run", network, *[frames] * 50) as (process, results):
            results.read(1)
            press_twice(process)
            assert process.poll() is None
            results.close() if gone else process.terminate()
            assert process.wait(60) == code
            assert said(process) == []


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
