"""`eventsim run MODEL -`: events by a real pipe, a line for every bin as it comes."""

from __future__ import annotations

import io
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import event_files
import numpy as np
import pytest

from eventsim import Network, Simulator, open_recording, save, stream
from eventsim.accounting.energy import energies, models
from eventsim.cli.commands import live
from eventsim.cli.main import main
from eventsim.ledger import Counts
from eventsim.report.live import Course
from eventsim.streaming import Bin

SECONDS = 120
HEAD = b"t,x,y,p\n"
TABLE = ("--sensor", "6x6", "--bin-us", "1000")


def lines_of(first: int, count: int, apart_us: int = 500) -> bytes:
    """Events of a table, two a bin."""
    return b"".join(b"%d,%d,%d,%d\n" % (t * apart_us, t % 6, t // 6 % 6, t % 2) for t in range(first, first + count))


@pytest.fixture
def model(small_network: Network, tmp_path: Path) -> Path:
    save(small_network, tmp_path / "model.h5")
    return tmp_path / "model.h5"


@contextmanager
def running(*arguments: object, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """Start the command line with pipes."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    process = subprocess.Popen(
        [sys.executable, "-m", "eventsim", "run", *map(str, arguments)], bufsize=0, env=environment, **pipes
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[bytes]) -> bytes:
    """Read one line of results, which has to come."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], SECONDS)
    assert ready, "no line came"
    return process.stdout.readline()


def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, data: bytes, *arguments: object):
    """Run in this process; return exit code, lines of results, and messages."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    capsys.readouterr()
    code = main(["run", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err.splitlines()


def test_a_bin_is_told_while_the_pipe_is_open(model: Path) -> None:
    with running(model, "-", *TABLE) as process:
        process.stdin.write(HEAD + lines_of(0, 3))
        assert line_of(process).startswith(b"bin 0  to 0.001000 s  2 events  prediction ")
        process.stdin.write(lines_of(3, 2))
        assert line_of(process).startswith(b"bin 1  to 0.002000 s  2 events  prediction ")
        out, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 0
        bin_2, summary, pace, *_ = out.decode().splitlines()
        assert bin_2.startswith("bin 2  to 0.003000 s  1 event  prediction ")
        assert summary.startswith("3 bins of 1,000 us in 1 sample, the last of 3 bins: 5 events, ")
        assert "behind real time" in pace


def test_who_writes_waits_where_nobody_reads(model: Path) -> None:
    """Results are not taken, so that no more is read than a piece, and the pipe is full."""
    with running(model, "-", *TABLE) as process:
        pipe = process.stdin.fileno()
        os.set_blocking(pipe, False)
        written, quiet = 0, time.monotonic()
        event = 0
        data = HEAD
        while time.monotonic() - quiet < 3:
            if len(data) < 1 << 16:
                data += lines_of(event, 8192)
                event += 8192
            try:
                taken = os.write(pipe, data)
                data, written, quiet = data[taken:], written + taken, time.monotonic()
            except BlockingIOError:
                # as long as it starts, nothing is read either
                if written <= 1 << 16:
                    quiet = time.monotonic()
                time.sleep(0.05)
            assert written < 1 << 20, "more was taken than pipes and a piece hold"
        assert process.poll() is None


def test_what_was_told_before_an_interruption_stays(model: Path) -> None:
    with running(model, "-", *TABLE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler)) as (
        process
    ):
        process.stdin.write(HEAD + lines_of(0, 5))
        first = [line_of(process), line_of(process)]
        process.send_signal(signal.SIGINT)
        process.wait(SECONDS)
        rest, messages = process.stdout.read().decode(), process.stderr.read().decode()
    assert [line.split()[:2] for line in first] == [[b"bin", b"0"], [b"bin", b"1"]]
    assert process.returncode == 130
    assert rest.startswith("2 bins of 1,000 us in 1 sample, the last of 2 bins: 4 events, ")
    assert messages.splitlines()[-1] == "eventsim: interrupted after 2 bins"


def test_an_interruption_ends_the_document(model: Path) -> None:
    with running(
        model, "-", *TABLE, "--json", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler)
    ) as process:
        process.stdin.write(HEAD + lines_of(0, 5))
        first = line_of(process) + line_of(process) + line_of(process)
        process.send_signal(signal.SIGINT)
        process.wait(SECONDS)
        document = json.loads(first + process.stdout.read())
    assert process.returncode == 130
    assert [each["index"] for each in document["bins"]] == [0, 1]
    assert document["summary"]["bins"] == 2


@pytest.mark.parametrize("at", ["begin_document", "bin_entry", "end_document"])
def test_an_interruption_tears_no_document(at: str, model: Path, capsys, monkeypatch) -> None:
    """However often it comes, wherever it comes."""
    call = getattr(live, at)

    def pressing(*given: object, **options: object) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return call(*given, **options)

    monkeypatch.setattr(live, at, pressing)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what runs in the background
    try:
        code, lines, messages = said(capsys, monkeypatch, HEAD + lines_of(0, 5), model, "-", *TABLE, "--json")
    finally:
        signal.signal(signal.SIGINT, before)
    document = json.loads("\n".join(lines))
    assert code == 130
    assert len(document["bins"]) == {"begin_document": 0, "bin_entry": 1, "end_document": 3}[at]
    assert messages[-1].startswith("eventsim: interrupted")


def test_a_reader_that_has_enough_ends_it_quietly(model: Path) -> None:
    with running(model, "-", *TABLE, "--window", "duration") as process:
        process.stdin.write(HEAD + lines_of(0, 3))
        line_of(process)
        process.stdout.close()
        process.stdin.write(lines_of(3, 40))
        process.wait(SECONDS)
        messages = process.stderr.read().decode()
    assert process.returncode == 1
    assert [line for line in messages.splitlines() if "not as the model says" not in line] == []


def test_one_document_is_printed_a_bin_a_line(
    model: Path, small_network: Network, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = HEAD + lines_of(0, 21)
    code, lines, _ = said(capsys, monkeypatch, data, model, "-", *TABLE, "--json", "--restart-every", 3)
    assert code == 0
    head, *bins, tail = lines
    document = json.loads("\n".join(lines))
    assert document["schema"] == 2 and document["input"] == "-" and document["failed"] == []
    assert (document["bin_us"], document["restart_every"]) == (1000, 3)
    assert json.loads(head + tail)["summary"] == document["summary"]
    assert [json.loads(line.removeprefix(",")) for line in bins] == document["bins"]
    recording = open_recording(io.BytesIO(data), sensor_size=(6, 6))
    expected = list(stream(small_network, recording, bin_us=1000, restart_every=3))
    timed = ("simulation_s", "took_s", "behind_s", "clock_lag_s")
    assert [{name: each[name] for name in each if name not in timed} for each in document["bins"]] == [
        {name: value for name, value in each.to_dict().items() if name not in timed} for each in expected
    ]
    summary = document["summary"]
    assert (summary["bins"], summary["samples"], summary["events"]) == (11, 4, 21)
    assert summary["totals"] == dict(Counts.total(each.counts for each in expected))
    assert summary["dense_macs"] == sum(layer.dense_macs for each in expected for layer in each.profile)
    assert summary["took_s"] == pytest.approx(sum(each["took_s"] for each in document["bins"]))
    for name in models():
        total = sum(energies(each.profile, models())[name].total_mj for each in expected)
        assert summary["energy_mj"][name] == pytest.approx(total)
    assert document["recording"]["events"] == 21


def test_a_recording_by_a_pipe_is_the_recording(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Totals and logits of `run FILE --bin-us`, where the sample never begins anew."""
    events = [(t % 6, t // 6 % 6, 700 * t, t % 2) for t in range(60)]
    (tmp_path / "file.es").write_bytes(event_files.es(events, 6, 6))
    bins = ("--bin-us", 1000, "--json")
    main(["run", str(model), str(tmp_path / "file.es"), *map(str, bins)])
    (sample,) = json.loads(capsys.readouterr().out)["samples"]
    code, lines, _ = said(
        capsys, monkeypatch, (tmp_path / "file.es").read_bytes(), model, "-", *bins, "--restart-every", 0
    )
    document = json.loads("\n".join(lines))
    assert code == 0
    assert document["bins"][-1]["logits"] == sample["logits"]
    assert document["summary"]["totals"]["spikes"] == sample["totals"]["spikes"]
    assert document["recording"] == sample["recording"]


def test_what_ends_within_an_event_is_told_behind_its_bins(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = event_files.es([(1, 2, 700 * t, 1) for t in range(9)], 6, 6)[:-2]
    bins = (model, "-", "--bin-us", 1000)
    code, lines, messages = said(capsys, monkeypatch, data, *bins)
    assert code == 2
    assert [line.split("  ")[0] for line in lines[:4]] == ["bin 0", "bin 1", "bin 2", "bin 3"]
    assert "4 bins" in lines[4]
    assert "left over after event 8, expected 5 bytes per event; its writer stopped there" in messages[-1]
    code, lines, messages = said(capsys, monkeypatch, data, *bins, "--json")
    document = json.loads("\n".join(lines))
    assert code == 2 and len(document["bins"]) == 4
    assert "its writer stopped there" in document["failed"][0]["error"]
    code, lines, messages = said(capsys, monkeypatch, data, *bins, "--salvage")
    assert code == 0
    assert lines[4].startswith("bin 4  ") and "5 bins" in lines[5]
    assert "8 events read, up to the damage" in messages[-1]


def test_another_size_than_the_file_says_is_told(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = event_files.es([(1, 2, 700 * t, 1) for t in range(9)], 9, 8)
    code, _, messages = said(capsys, monkeypatch, data, model, "-", "--bin-us", 1000, "--sensor", "6x6")
    assert code == 0
    assert [each for each in messages if "the file says 9 x 8 pixels: taken as given" in each]


def test_disorder_is_told_with_numbers(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = HEAD + lines_of(0, 9) + lines_of(7, 1) + lines_of(10, 3)
    code, _, messages = said(capsys, monkeypatch, data, model, "-", *TABLE, "--disorder", "drop")
    assert code == 0
    # on a machine that is busy, how far behind it was is told, too
    assert any("1 of 13 events out of order" in each for each in messages)
    code, _, messages = said(capsys, monkeypatch, data, model, "-", *TABLE)
    assert code == 2
    (refused,) = (each for each in messages if "event 9 has t = 3500 us after 4000 us" in each)
    assert "--disorder sort" in refused and "--window" not in refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-", "other.es"), "-: 2 inputs found; expected standard input alone"),
        (("-", *TABLE, "--batch"), "-: --batch found, which standard input has no use for"),
        (("-", *TABLE, "--rows", "a.csv"), "-: --rows found, which standard input has no use for"),
        (("-", *TABLE, "--record", "lif", "-o", "a.npz"), "-: --record found, which standard input has no use for"),
        (("-", *TABLE, "--conventions"), "-: --conventions found"),
        (("-", "--time-steps", 3), "-: --time-steps found.*--restart-every says the bins of a sample"),
        (("-", *TABLE, "--chunk", 4), "-: --chunk 4 found; expected 1"),
        (("-", *TABLE, "--mean", 1), "a model of recordings cannot use that"),
        (("-", *TABLE, "--end", 5), "-: --end 5 found; a stream ends with its events"),
        (("-", "--sensor", "6x6"), "-: windows of count found.*pass --bin-us 10000 or another number"),
        (("-", "--bin-us", 1000), "-: .*does not tell the size of the sensor.*pass --sensor WIDTHxHEIGHT"),
        (("-", "--bin-us", 1000, "--sensor", "9x6"), "-: sensor 9 x 6 and frames 6 x 6.*choose --fit crop"),
        (("-", *TABLE, "--format", "aedat4"), "-: AEDAT 4.0 comes by a pipe.*save it to a file"),
        (("-", *TABLE, "--format", "nothing"), "-: format 'nothing' was given, expected one of"),
        (("other.es", "--restart-every", 3), "--restart-every 3 found; expected it with - alone"),
    ],
)
def test_what_standard_input_cannot_use_is_refused(arguments, message, model, capsys, monkeypatch) -> None:
    code, lines, messages = said(capsys, monkeypatch, HEAD + lines_of(0, 9), model, *arguments)
    assert (code, lines) == (2, [])
    assert len([each for each in messages if "not as the model" not in each]) == 1
    assert re.search(message, messages[-1]), messages[-1]
    code, lines, _ = said(capsys, monkeypatch, HEAD + lines_of(0, 9), model, *arguments, "--json")
    assert code == 2 and set(json.loads("\n".join(lines))) == {"schema", "error"}


@pytest.mark.parametrize(
    "arguments",
    [("profile", "M", "-"), ("verify", "M", "-"), ("evaluate", "M", "-"), ("events", "-")],
    ids=lambda arguments: arguments[0],
)
def test_other_commands_take_no_standard_input(arguments, model, capsys) -> None:
    assert main([str(model) if each == "M" else each for each in arguments]) == 2
    assert "eventsim: -: standard input found, expected a " in capsys.readouterr().err


def test_no_events_are_an_error(model, capsys, monkeypatch) -> None:
    code, lines, messages = said(capsys, monkeypatch, b"", model, "-", *TABLE)
    assert (code, lines) == (2, [])
    assert messages[-1] == "eventsim: -: ended without a byte, expected events; see what its writer says"
    code, lines, messages = said(capsys, monkeypatch, event_files.es([], 6, 6) + b"\xff" * 30, model, "-", *TABLE)
    assert (code, lines) == (2, [])
    assert "holds no events" in messages[-1]


def test_it_is_said_once_that_it_falls_behind_and_once_that_it_caught_up(small_network: Network) -> None:
    result = Simulator(small_network).step(np.zeros((2, 6, 6), np.int32))
    course = Course(small_network, 10_000, 4)

    def say(index: int, behind_s: float) -> list[str]:
        times = {"took_s": 0.02, "behind_s": behind_s, "clock_lag_s": 0.0}
        return course.take(Bin(index, 0, 10_000, 5, 0, 0, False, result, **times))

    behind = [0, 0.05, 0.09, 0.11, 0.2, 0.3, 0.1, 0.0, 0.0, 0.4, 0.5, 0.0, 0.7, 0.25]
    told = [say(index, value) for index, value in enumerate(behind)]
    assert [index for index, sentences in enumerate(told) if sentences] == [3, 7]
    assert told[3][0].startswith(
        "behind real time by 110.0 ms at bin 3 (0.010000 s): the work on a bin takes 20.00 ms on"
    )
    assert told[7][0].startswith("caught up with real time at bin 7")
    assert course.pace().startswith("behind real time in 10 of 14 bins, by 700.0 ms at most and 250.0 ms at the end: ")
    assert course.told_behind


def test_a_network_without_time_steps_is_told_about(small_network, tmp_path, capsys, monkeypatch) -> None:
    save(replace(small_network, time_steps=None), tmp_path / "open.h5")
    code, lines, messages = said(capsys, monkeypatch, HEAD + lines_of(0, 21), tmp_path / "open.h5", "-", *TABLE)
    assert code == 0
    assert [each for each in messages if "time steps" in each] == [
        "eventsim: -: the model says no time steps, so there is one sample; --restart-every N begins new ones"
    ]
    assert "step 11  " in lines[10]


def test_a_prediction_of_nothing_finite_is_told_once(small_network, tmp_path, capsys, monkeypatch) -> None:
    weight = small_network.layers["head"].weight.copy()
    weight[0] = 3e38
    layers = {**small_network.layers, "head": replace(small_network.layers["head"], weight=weight)}
    save(replace(small_network, layers=layers), tmp_path / "inf.h5")
    data = HEAD + lines_of(0, 21, 100)
    code, lines, messages = said(capsys, monkeypatch, data, tmp_path / "inf.h5", "-", *TABLE, "--json")
    document = json.loads("\n".join(lines))
    assert code == 0
    assert None in document["bins"][-1]["logits"]
    assert len([each for each in messages if "NaN or infinite" in each]) == 1
