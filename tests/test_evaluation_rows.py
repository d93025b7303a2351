"""``evaluate --rows``: rows that are enough to go on from, whatever stopped the run, and what they are held against."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eventsim import EventsimError, Network, Preparation, Simulator, save
from eventsim.cli import main
from eventsim.datasets import Evaluation, Outcome, RowsFile, Sample, evaluate, labelled_files, outcome_of, part
from eventsim.dvs import EVENT_DTYPE
from eventsim.hashes import sha256
from eventsim.operations import OPERATIONS
from eventsim.report.evaluation_tables import alike

TIMES = ("latency_s", "binning_s", "reading_s", "compile_s", "provenance")
MODULE = "eventsim.cli.commands.evaluating"
Call = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def place(small_network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, and frames of three classes, one file of them damaged; the working directory."""
    rng = np.random.default_rng(0)
    for label in range(3):
        (tmp_path / "data" / str(label)).mkdir(parents=True)
        for index in range(3):
            np.save(tmp_path / "data" / str(label) / f"{index}.npy", rng.integers(0, 3, (4, 2, 6, 6)))
    (tmp_path / "data" / "1" / 'bad, "x"\n.npy').write_bytes(b"nothing")
    save(small_network, tmp_path / "m.h5")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: object) -> tuple[int, dict[str, Any], str]:
        capsys.readouterr()
        code = main(["evaluate", "m.h5", *map(str, arguments), "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out), err

    return run


def without_times(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in TIMES}


def stopping(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    def interrupted(*arguments: Any, **options: Any) -> Iterator[Outcome]:
        yield from itertools.islice(evaluate(*arguments, **options), after)
        raise KeyboardInterrupt

    monkeypatch.setattr(f"{MODULE}.evaluate", interrupted)


def backwards(simulator: Simulator, samples: list[Sample], *arguments: Any, **options: Any) -> Iterator[Outcome]:
    """Yield eight outcomes, the last of the data set first."""
    yield from itertools.islice(evaluate(simulator, samples[::-1], *arguments, **options), 8)
    raise KeyboardInterrupt


def test_a_row_is_everything_there_is_to_an_outcome(small_network: Network, place: Path) -> None:
    """Each outcome, and what is summed over them, comes back from text."""
    simulator, samples = Simulator(small_network), labelled_files("data")
    outcomes = list(evaluate(simulator, samples, Preparation()))
    assert [sample.index for sample in samples] == list(range(10))
    assert sum(outcome.error is not None for outcome in outcomes) == 1
    for outcome in outcomes:
        row = json.loads(json.dumps(outcome.row(), allow_nan=False))
        assert outcome_of(row, outcome.sample, simulator.schedule) == outcome
        for key in OPERATIONS if outcome.error is None else ():
            assert row["totals"][key] == sum(layer.get(key, 0) for layer in row["layers"].values())


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_stopped_twice_equals_one_run(
    suffix: str, threads: int, place: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason="needs pyarrow")
    options = ("data", "--threads", threads)
    code, one, _ = call(*options)
    assert (code, one["samples"], len(one["failed"])) == (1, 9, 1)
    rows = f"rows.{suffix}"
    for number, taken in enumerate((4, 7), 1):
        with monkeypatch.context() as patch:
            stopping(patch, after=4 if number == 1 else 3)
            code, document, err = call(*options, "--rows", rows, "--resume")
        assert code == 130
        assert document["samples"] + len(document["failed"]) == taken
        *failed, interrupted = err.splitlines()
        assert interrupted == f"eventsim: interrupted after {taken} of 10 samples"
        assert len(failed) == len(document["failed"])
    code, resumed, _ = call(*options, "--rows", rows, "--resume")
    assert code == 1
    assert without_times(resumed) == without_times(one)
    assert resumed["provenance"]["options"]["resumed"] == 7
    monkeypatch.setattr(f"{MODULE}.evaluate", lambda *_, **__: pytest.fail("nothing was left to simulate"))
    code, again, _ = call(*options, "--rows", rows, "--resume")
    assert without_times(again) == without_times(one)
    assert again["latency_s"] == resumed["latency_s"]
    assert sorted(path.name for path in place.iterdir()) == sorted(["data", "m.h5", rows])


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("disorder", [("--disorder", "drop"), ("--salvage",)])
def test_what_was_met_in_recordings_is_told_after_a_stop(
    suffix: str, disorder: tuple[str, ...], place: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one run tells it, in the document and in words; in the order of the data set, whatever came first."""
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason="needs pyarrow")
    events = np.zeros(40, EVENT_DTYPE)
    events["t"], events["x"] = 10 * np.arange(40), np.arange(40) % 6
    for number in range(6):
        late = events.copy()
        late["t"][[20 + number, 30][: number % 3]] -= 15 + number
        np.save(place / "data" / str(number % 3) / f"events{number}.npy", late)
    options = ("data", "--sensor", "6x6", "--window", "time", *disorder)
    _, one, said = call(*options)
    met = one["recordings"]
    assert met["recordings"] == 6
    assert (met["disordered"], met["dropped"], len(met["damaged"])) == (
        (0, 0, 4) if "--salvage" in disorder else (4, 6, 0)
    )
    assert said.count("\n") == 3  # of events, of frames that are told to become frames, of a file that is cut
    with monkeypatch.context() as patch:
        patch.setattr(f"{MODULE}.evaluate", backwards)
        call(*options, "--rows", f"rows.{suffix}")
    _, resumed, again = call(*options, "--rows", f"rows.{suffix}", "--resume")
    assert without_times(resumed) == without_times(one)
    assert again == said


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_row_that_was_cut_is_simulated_again(suffix: str, place: Path, call: Call) -> None:
    """Wherever the last row, with a line break in a name, or the header was cut."""
    _, one, _ = call("data", "--rows", f"whole.{suffix}")
    whole = Path(f"whole.{suffix}").read_bytes()
    ends = [n + 1 for n, byte in enumerate(whole) if byte == ord("\n")]
    bad = whole.index(b"bad, ")
    cuts = [0, 1, ends[0] - 1, ends[0], ends[0] + 1, ends[1] - 1, bad, bad + 9, bad + 10, bad + 11, len(whole) - 1]
    for cut in (*cuts, *np.random.default_rng(0).integers(0, len(whole), 12)):
        Path(f"rows.{suffix}").write_bytes(whole[:cut])
        code, document, err = call("data", "--rows", f"rows.{suffix}", "--resume")
        assert (code, err.count("\n"), "bad, " in err) == (1, 1, True)
        assert without_times(document) == without_times(one), cut
        code, again, _ = call("data", "--rows", f"rows.{suffix}", "--resume")
        assert without_times(again) == without_times(one), cut


def test_a_table_is_one_row_a_sample(place: Path, call: Call) -> None:
    _, document, _ = call("data", "--rows", "rows.csv")
    with open("rows.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["input"] for row in rows] == [sample.name for sample in labelled_files("data")]
    assert [int(row["index"]) for row in rows] == list(range(10))
    (bad,) = (row for row in rows if row["error"])
    assert bad["error"] == document["failed"][0]["error"]
    assert bad["prediction"] == bad["spikes"] == bad["energy_mj.45nm_mac"] == ""
    good = [row for row in rows if not row["error"]]
    for key, value in document["totals"].items():
        assert sum(int(row[key]) for row in good) == value
    for name, mean in document["energy_mj"].items():
        assert math.fsum(float(row[f"energy_mj.{name}"]) for row in good) / 9 == pytest.approx(mean, rel=1e-12)
    for each, row in zip(document["predictions"], good, strict=True):
        assert (each["label"], each["prediction"]) == (int(row["label"]), int(row["prediction"]))
        assert each["input_sha256"] == row["input_sha256"]
    lif = next(layer for layer in document["layers"] if layer["name"] == "lif")
    assert sum(json.loads(row["layers"])["lif"]["spikes"] for row in good) / 9 == pytest.approx(lif["spikes"])


def test_rows_of_another_run_are_refused_by_what_differs(
    place: Path, call: Call, small_network: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    call("data", "--rows", "rows.csv", "--limit", 2)

    def refused(*arguments: object, model: str = "m.h5") -> str:
        capsys.readouterr()
        assert main(["evaluate", model, *map(str, arguments)]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1
        return err

    more = ("--rows", "rows.csv", "--resume")
    before = Path("rows.csv").read_bytes()
    assert "rows.csv: is there; expected --resume" in refused("data", "--rows", "rows.csv")
    assert "chunk null found, 2 expected; take another name" in refused("data", *more, "--chunk", 2)
    assert "threads 1 found, 3 expected; take" in refused("data", *more, "--threads", 3)
    assert "run: preparation.binary null found, true expected; take" in refused("data", *more, "--binary")
    assert "run: preparation.disorder null found, drop expected; take" in refused("data", *more, "--disorder", "drop")
    layers = {**small_network.layers}
    layers["head"] = type(layers["head"])(-layers["head"].weight)
    save(Network("other", layers, small_network.edges, 4), "other.h5")
    assert "rows of another run: model_sha256 " in refused("data", *more, model="other.h5")
    assert "index" not in refused("data", *more, "--shard", "2/2")
    assert "sample 0, data/0/0.npy of class 0 found; expected one of those asked for" in refused(
        "data", *more, "--shard", "2/2"
    )
    Path("data/2/new.npy").write_bytes(Path("data/2/0.npy").read_bytes())
    message = refused("data", *more)
    assert "samples 10 found, 11 expected; samples_sha256" in message
    Path("data/2/new.npy").unlink()
    assert Path("rows.csv").read_bytes() == before
    header, first, *_ = before.decode().splitlines(keepends=True)
    Path("rows.csv").write_text(header + first + first)
    assert "row 2: sample 0 found again" in refused("data", *more)
    Path("rows.csv").write_text(header + first.replace("0", "x", 1))
    assert "rows.csv: line 2: invalid literal" in refused("data", *more)
    Path("rows.csv").write_text("input,neurons\na,1\n")
    assert "columns of another run found" in refused("data", *more)
    Path("rows.jsonl").write_text('{"index": 0}\n')
    assert "row 1: no row of evaluate" in refused("data", "--rows", "rows.jsonl", "--resume")
    assert "rows.txt: rows in a file of no known kind; expected a name that ends in .csv, .jsonl, .parquet" in refused(
        "data", "--rows", "rows.txt"
    )
    assert "--resume without --rows" in refused("data", "--resume")
    Path("empty.csv").touch()  # of a run that was stopped before its first sample
    assert call("data", "--rows", "empty.csv", "--limit", 1)[0] == 0
    assert "absent/rows.csv: cannot be written" in refused("data", "--rows", "absent/rows.csv")


def test_an_empty_name_is_none(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It would be the name of the working directory."""
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", "m.h5", "data", "--rows", ""])
    assert "--rows: an empty name found, expected FILE.csv, FILE.jsonl or FILE.parquet" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_file_that_changed_under_its_row_is_refused(
    suffix: str, place: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its row would stand beside the content that is there now; one that is elsewhere now, or failed, is no change."""
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason="needs pyarrow")
    rows = ("data", "--rows", f"rows.{suffix}", "--resume")
    _, one, _ = call(*rows)
    before = Path(f"rows.{suffix}").read_bytes()
    first, second, third = (Path(f"data/{label}/1.npy") for label in range(3))
    was = second.read_bytes()
    second.write_bytes(first.read_bytes())
    third.write_bytes(b"broken since")
    assert main(["evaluate", "m.h5", *rows]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"eventsim: rows.{suffix}: 2 files found that changed since their rows were written, the first is {second} "
        "(row 5); expected them as before: put them back, or take another name for the rows\n"
    )
    assert Path(f"rows.{suffix}").read_bytes() == before
    second.write_bytes(was)
    third.unlink()
    third.symlink_to("absent")
    next(Path("data/1").glob("bad*")).write_bytes(b"nothing either")
    _, again, _ = call(*rows)
    assert without_times(again) == without_times(one)


def test_a_long_look_at_files_is_said(
    place: Path, call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call("data", "--rows", "rows.csv", "--limit", 2)
    monkeypatch.setattr(f"{MODULE}.SILENCE_S", 0.01)
    monkeypatch.setattr("eventsim.datasets.rows.sha256", lambda file: (time.sleep(0.1), sha256(file))[1])
    code, _, err = call("data", "--rows", "rows.csv", "--limit", 2, "--resume")
    assert (code, err) == (0, "eventsim: comparing files with the hashes in rows.csv\n")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_shards_are_a_whole(suffix: str, place: Path, call: Call) -> None:
    """Their rows, put together as the page says, are those of one run; a limit comes before the shard."""
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason="needs pyarrow")
    _, one, _ = call("data", "--limit", 7)
    shards = []
    for number in (3, 1, 2):
        shards.append(f"shard{number}.{suffix}")
        _, document, _ = call("data", "--limit", 7, "--shard", f"{number}/3", "--rows", shards[-1])
        assert document["samples"] + len(document["failed"]) == (3 if number == 1 else 2)
    if suffix == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
        parquet.write_table(parquet.read_table(shards), "all.parquet")
    else:
        Path(f"all.{suffix}").write_bytes(b"".join(Path(name).read_bytes() for name in shards))
    _, together, _ = call("data", "--limit", 7, "--rows", f"all.{suffix}", "--resume")
    assert without_times(together) == without_times(one)
    assert together["provenance"]["options"]["resumed"] == 7


def test_shards_below_their_headers_go_on(place: Path, call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    """With samples that no shard had, and the last row cut."""
    _, one, _ = call("data")
    for number in (1, 2):
        call("data", "--shard", f"{number}/3", "--rows", f"{number}.csv")
    text = Path("1.csv").read_bytes() + Path("2.csv").read_bytes()
    Path("all.csv").write_bytes(text[:-9])
    for resumed in (6, 10):  # of 7, one is cut
        _, together, _ = call("data", "--rows", "all.csv", "--resume")
        assert without_times(together) == without_times(one)
        assert together["provenance"]["options"]["resumed"] == resumed
    other = Path("2.csv").read_text().replace("spikes", "spykes", 1)
    Path("all.csv").write_text(Path("1.csv").read_text() + other)
    assert main(["evaluate", "m.h5", "data", "--rows", "all.csv", "--resume"]) == 2
    assert "all.csv: columns of another run found, spikes, spykes; take another" in capsys.readouterr().err


def test_a_limit_is_spread_over_the_classes() -> None:
    samples = [Sample(str(n), n // 10, str(n), n) for n in range(50)]
    assert [sample.label for sample in part(samples, 5)] == [0, 1, 2, 3, 4]
    assert part(samples, 50) == part(samples, 99) == part(samples) == samples
    for limit in range(1, 51):
        chosen = part(samples, limit)
        assert len({sample.index for sample in chosen}) == limit
        shards = [part(samples, limit, (number, 4)) for number in (1, 2, 3, 4)]
        assert sorted(sample.index for shard in shards for sample in shard) == [sample.index for sample in chosen]
        assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_ctrl_c_waits_for_the_row(place: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    write = RowsFile.append

    def interrupted(rows: RowsFile, outcome: Outcome) -> None:
        if outcome.sample.index == 3:
            os.kill(os.getpid(), signal.SIGINT)
        write(rows, outcome)

    monkeypatch.setattr(RowsFile, "append", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what runs in the background
    try:
        code, document, err = call("data", "--rows", "rows.jsonl")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert (code, document["samples"], err) == (130, 4, "eventsim: interrupted after 4 of 10 samples\n")
    assert Path("rows.jsonl").read_text().count("\n") == 4


def test_what_was_computed_before_the_disk_was_full_is_printed(
    place: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = RowsFile._write

    def full(rows: RowsFile, line: str) -> None:
        if "data/0/2.npy" in line:
            rows._file = Path("/dev/full").open("ab")  # noqa: SIM115
        write(rows, line)

    monkeypatch.setattr(RowsFile, "_write", full)
    code, document, err = call("data", "--rows", "rows.jsonl")
    assert (code, document["samples"]) == (2, 3)
    assert err == (
        "eventsim: rows.jsonl: cannot be written (No space left on device); results are those of 3 of 10 samples\n"
    )


@pytest.mark.parametrize(
    ("rows", "hint"),
    [((), ""), (("--rows", "rows.csv"), "; --resume goes on with the rows in rows.csv")],
)
def test_what_was_computed_before_a_cluster_was_lost_is_printed(
    rows: tuple[str, ...], hint: str, place: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*arguments: Any, **options: Any) -> Iterator[Outcome]:
        yield from itertools.islice(evaluate(*arguments, **options), 3)
        raise EventsimError("cluster x: its scheduler is lost (killed); start it again")

    monkeypatch.setattr(f"{MODULE}.evaluate", lost)
    code, document, err = call("data", *rows)
    assert (code, document["samples"]) == (1, 3)
    assert err == (
        "eventsim: cluster x: its scheduler is lost (killed); start it again; results are those of 3 of 10 samples"
        f"{hint}\n"
    )


@pytest.mark.parametrize(
    ("package", "arguments", "said"),
    [
        ("pyarrow", ("--rows", "r.parquet"), "r.parquet: pyarrow not found; expected it for Parquet: pip install 'eve"),
        ("distributed", ("--cluster", "local"), "--cluster: distributed not found; expected it for clusters: pip ins"),
    ],
)
def test_a_package_that_is_not_there_is_asked_for(
    package: str, arguments: tuple[str, ...], said: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "eventsim.datasets.cluster", raising=False)
    assert main(["evaluate", "m.h5", "data", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and said in err


def test_the_same_complaint_is_said_once_with_the_number(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(4):
        (place / "data" / "2" / f"bad{index}.npy").write_bytes(b"nothing")
    np.save(place / "data" / "2" / "shape.npy", np.zeros((4, 2, 5, 6), np.int32))
    for options in ((), ("--json",)):
        assert main(["evaluate", "m.h5", "data", *options]) == 1
        out, err = capsys.readouterr()
        failed = err.splitlines()
        assert len(failed) == 3  # a name with a line break is in one line of its own words
        assert sum("bad0.npy" in line and line.endswith("(and 3 more alike)") for line in failed) == 1
        assert sum("shape.npy" in line and "more alike" not in line for line in failed) == 1
        assert "more alike" not in out
    assert alike([{"input": "a", "error": "a: no"}, {"input": "b", "error": "c: no"}]) == ["a: no", "c: no"]


def test_complaints_that_differ_in_numbers_and_bytes_are_one() -> None:
    """Each recording of a copy that broke off ends elsewhere, and each of an unknown format begins otherwise."""
    said = [
        *(f"r{n}.bin: {n} bytes are left over at event {n * 7}; it is 'cut'" for n in range(50)),
        *(f"r{n}.xyz: begins with {bytes([39, n, 65 + n])!r}, of no format" for n in range(50)),
        "r0.bin: 1 byte is left",
    ]
    failed = [{"input": each.partition(":")[0], "error": each} for each in said]
    assert alike(failed) == [f"{said[0]} (and 49 more alike)", f"{said[50]} (and 49 more alike)", said[-1]]


def test_evaluations_of_resumed_rows_merge(small_network: Network, place: Path) -> None:
    """From Python: rows of a file, and the outcomes that are missing there."""
    simulator, samples = Simulator(small_network), labelled_files("data")
    whole = Evaluation()
    rows = RowsFile(Path("rows.jsonl"), {"run": 1}, [], resume=False)
    for outcome in evaluate(simulator, samples, Preparation()):
        whole.take(outcome)
        if outcome.sample.index % 2:
            rows.append(outcome)
    rows.finish(complete=False)
    again, rest = Evaluation(), Evaluation()
    for outcome in RowsFile(Path("rows.jsonl"), {"run": 1}, [], resume=True).outcomes(samples, simulator.schedule):
        again.take(outcome)
    for outcome in evaluate(simulator, samples[::2], Preparation()):
        rest.take(outcome)
    again.merge(rest)
    assert (again.totals, again.correct, again.confusion) == (whole.totals, whole.correct, whole.confusion)
    assert again.mean_energy_mj == whole.mean_energy_mj
    assert again.std_energy_mj == whole.std_energy_mj


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.jsonl", b"[" * 300_000 + b"\n", "line 1: no JSON (maximum recursion depth"),
        ("rows.jsonl", b"1" * 30_000 + b"\n", "line 1: no JSON (Exceeds the limit"),
        ("rows.csv", b"my own notes, of one line without an end", "columns of another run found"),
        ("rows.csv", b'index,"' + b"a" * 300_000, "no CSV (unexpected end of data)"),
    ],
)
def test_rows_that_are_none_are_refused_and_stay(
    name: str, content: bytes, said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(name).write_bytes(content)
    assert main(["evaluate", "m.h5", "data", "--rows", name, "--resume"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err
    assert Path(name).read_bytes() == content


@pytest.mark.parametrize("length", [0, 1, 7, 40])
def test_a_header_that_was_cut_is_written_again(length: int, place: Path, call: Call) -> None:
    code = call("data", "--rows", "whole.csv")[0]
    header = Path("whole.csv").read_bytes().partition(b"\n")[0] + b"\n"
    Path("rows.csv").write_bytes(header[: length or len(header)])
    assert call("data", "--rows", "rows.csv", "--resume")[0] == code
    assert Path("rows.csv").read_bytes().count(b"\n") == Path("whole.csv").read_bytes().count(b"\n")
    assert Path("rows.csv").read_bytes().startswith(header)
