"""Disks that are full: one line, exit code 2, no half of a file, and what was there before stays."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from state_dicts import spikformer_state

from eventsim import Network, NetworkBuilder, save
from eventsim.cli import main
from eventsim.layers import IF, Input, Linear, Readout

LIMITED = """
import resource, sys
from eventsim.cli import main
limit, *arguments = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
sys.exit(main(arguments))
"""
"""A process whose files may not grow beyond a limit: writing fails as on a full disk, after some bytes."""


class Done(NamedTuple):
    code: int
    out: str
    err: str


def limited(limit: int, *arguments: object) -> Done:
    """Run a command whose files may take so many bytes."""
    command = [sys.executable, "-c", LIMITED, str(limit), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def place(tmp_path: Path, small_network: Network, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, one that NIR can hold, frames of three samples and their labels."""
    monkeypatch.chdir(tmp_path)
    save(small_network, "m.h5")
    build = NetworkBuilder("to export")
    x = build.add("linear", Linear(np.ones((64, 64), np.float32)), build.add("input", Input((64,), "real")))
    build.add("readout", Readout("sum"), build.add("neurons", IF(), x))
    save(build.build(time_steps=2), "neurons.h5")
    np.save("a.npy", np.ones((4, 2, 6, 6), np.int32))
    np.save("all.npy", np.ones((3, 4, 2, 6, 6), np.int32))
    np.save("labels.npy", np.arange(3))
    return tmp_path


OUTPUTS = [
    ("import", ("import", "m.npz", "--format", "spikformer", "-o", "new.h5"), "new.h5"),
    ("export", ("export", "neurons.h5", "-o", "new.nir"), "new.nir"),
    ("quantise", ("quantise", "m.h5", "--calibrate", "a.npy", "-o", "new.h5"), "new.h5"),
    ("rows", ("profile", "m.h5", "a.npy", "--rows", "new.csv"), "new.csv"),
    ("report", ("profile", "m.h5", "a.npy", "--report", "new.html"), "new.html"),
    ("record", ("run", "m.h5", "a.npy", "--record", "lif", "-o", "new.npz"), "new.npz"),
]


@pytest.mark.parametrize(("arguments", "name"), [each[1:] for each in OUTPUTS], ids=[each[0] for each in OUTPUTS])
def test_a_file_that_does_not_fit_leaves_what_was_there(
    place: Path, arguments: tuple[str, ...], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if arguments[0] == "import":
        np.savez("m.npz", **spikformer_state("cifar", depth=1))
        arguments = (*arguments, "--set", "height=16", "--set", "width=16")
    assert main(list(arguments)) == 0  # and kernels are compiled, which are kept in files, too
    assert Path(name).stat().st_size > 300
    Path(name).unlink()
    for before in (None, "good"):
        if before is not None:
            Path(name).write_text(before)
        there = sorted(each.name for each in place.iterdir())
        done = limited(300, *arguments)
        assert (done.code, done.err) == (2, f"eventsim: {name}: cannot be written (File too large)\n")
        assert sorted(each.name for each in place.iterdir()) == there
        if arguments[0] in ("run", "profile"):
            assert "prediction" in done.out, "what was computed is printed"
    assert Path(name).read_text() == "good"
    assert main(list(arguments)) == 0
    assert Path(name).stat().st_size > 300
    assert sorted(each.name for each in place.iterdir()) == there
    capsys.readouterr()


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_rows_are_kept_up_to_the_one_that_did_not_fit(place: Path, suffix: str) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason="needs pyarrow")
    command = ("evaluate", "m.h5", "all.npy", "--labels", "labels.npy", "--rows", f"rows.{suffix}", "--json")
    growing = Path("rows.parquet.jsonl" if suffix == "parquet" else f"rows.{suffix}")
    assert main([*command[:-2], "whole.csv" if suffix == "csv" else "whole.jsonl"]) == 0
    there = sorted(each.name for each in place.iterdir())
    # the first row does not fit: no file is left of it, and the sample that was simulated is printed
    done = limited(500, *command)
    partly = "results are those of 1 of 3 samples"
    assert (done.code, done.err) == (2, f"eventsim: rows.{suffix}: cannot be written (File too large); {partly}\n")
    assert json.loads(done.out)["samples"] == 1
    assert sorted(each.name for each in place.iterdir()) == there
    # the third does not fit
    lines = Path("whole.csv" if suffix == "csv" else "whole.jsonl").read_bytes().splitlines(keepends=True)
    done = limited(sum(map(len, lines[:-1])) + 200, *command)
    assert done.code == 2 and done.err.startswith(f"eventsim: rows.{suffix}: cannot be written (File too large)")
    assert done.err.count("\n") == 1
    assert ("its rows are in rows.parquet.jsonl" in done.err) == (suffix == "parquet")
    assert json.loads(done.out)["samples"] == 3
    kept = growing.read_bytes().splitlines(keepends=True)
    assert len(kept) == len(lines) - 1 and kept[-1].endswith(b"\n")
    done = limited(1 << 30, *command, "--resume")
    assert (done.code, json.loads(done.out)["samples"]) == (0, 3)


def test_parquet_that_does_not_fit_keeps_its_rows(place: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs pyarrow")
    command = ("evaluate", "m.h5", "all.npy", "--labels", "labels.npy", "--rows", "rows.parquet", "--json")
    code = "import eventsim.datasets.rows as rows, os\nwhole = rows.whole_file\n" + (
        "def full(path):\n    import resource\n    resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))\n"
        "    return whole(path)\nrows.whole_file = full\n"
    )
    process = [sys.executable, "-c", code + LIMITED, str(1 << 30), *command]
    done = subprocess.run(process, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("eventsim: rows.parquet: cannot be written (")
    assert done.stderr.count("\n") == 1 and "its rows are in rows.parquet.jsonl, and --resume goes on" in done.stderr
    assert json.loads(done.stdout)["samples"] == 3
    assert Path("rows.parquet.jsonl").read_text().count("\n") == 3
    assert sorted(each.name for each in place.glob("rows.*")) == ["rows.parquet.jsonl"]
    again = limited(1 << 30, *command, "--resume")
    assert (again.code, Path("rows.parquet.jsonl").exists()) == (0, False)


def test_a_link_to_a_file_stays_a_link(place: Path) -> None:
    Path("there.csv").write_text("old")
    Path("link.csv").symlink_to("there.csv")
    assert limited(1 << 30, "profile", "m.h5", "a.npy", "--rows", "link.csv").code == 0
    assert Path("link.csv").is_symlink()
    assert "neurons" in Path("there.csv").read_text()


@pytest.mark.parametrize("output", [".", "absent/new.h5"])
def test_a_name_that_cannot_be_written_is_refused_before_the_work(place: Path, output: str) -> None:
    done = limited(1 << 30, "quantise", "m.h5", "--calibrate", "absent.npy", "-o", output)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert done.err.startswith(f"eventsim: {output}: ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_messages_that_cannot_be_written_change_nothing(place: Path) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "eventsim", "run", "m.h5", "a.npy", "--time-steps", "3"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("asked", [["--help"], ["run", "--help"], ["--version"]])
def test_help_that_cannot_be_written_is_no_success(asked: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "eventsim", *asked]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "eventsim: results cannot be written (No space left on device)\n"
