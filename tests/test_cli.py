"""The commands, as a new user tries them: results on stdout, one line and an exit code for what goes wrong."""

from __future__ import annotations

import csv
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from state_dicts import spikformer_state

from eventsim import Simulator, dvs
from eventsim.cli import main
from eventsim.datasets import Outcome, evaluate
from eventsim.operations import OPERATIONS

COUNTS = ("acs", "graded_macs", "graded_acs", "macs", "neuron_updates", "table_lookups", "spikes", "dense_macs")


def write_recording(path: Path, seed: int = 0, events: int = 600) -> Path:
    """A structured event array as Tonic's, 34 x 34 pixels."""
    rng = np.random.default_rng(seed)
    array = np.zeros(events, dvs.EVENT_DTYPE)
    array["x"], array["y"] = rng.integers(0, 34, (2, events))
    array["x"][0] = array["y"][0] = 33
    array["t"] = np.sort(rng.integers(0, 300_000, events))
    array["p"] = rng.integers(0, 2, events)
    np.save(path, array)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    state = {name: np.ascontiguousarray(value) for name, value in spikformer_state("dvs", dim=16, depth=1).items()}
    save_file(state, folder / "c.safetensors", metadata={"height": "34", "width": "34", "time_steps": "4"})
    assert main(["import", str(folder / "c.safetensors"), "-o", str(folder / "m.h5"), "--set", "heads=2"]) == 0
    for label in range(3):
        (folder / "data" / str(label)).mkdir(parents=True)
        for index in range(2):
            write_recording(folder / "data" / str(label) / f"{index}.npy", seed=10 * label + index)
    write_recording(folder / "r.npy")
    return folder


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refused(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 2) -> str:
    """Return the one line of an error."""
    found, out, err = call(capsys, *arguments)
    assert found == code
    assert out == ""
    lines = [line for line in err.splitlines() if "not as the model says" not in line]
    assert len(lines) == 1
    assert lines[0].startswith("eventsim: ")
    return lines[0]


def test_demo_is_right_about_what_it_ships(capsys) -> None:
    code, out, _ = call(capsys, "demo", "--json")
    (sample,) = json.loads(out)["samples"]
    assert code == 0
    assert sample["prediction"] == sample["label"]
    assert sample["totals"]["acs"] > 0
    assert sample["latency"]["first_correct_step"] is None  # the mean over time leaves no logits of each step
    code, out, _ = call(capsys, "demo")
    assert code == 0
    assert "patch_embed.proj_conv" in out
    assert "prediction" in out
    assert "label" in out


def test_formats_lists_every_reader(capsys) -> None:
    document = json.loads(call(capsys, "formats", "--json")[1])
    assert {"spikformer", "nir"} <= set(document["checkpoints"])
    assert {"nmnist", "aedat2", "aedat3", "aedat4", "npy"} <= set(document["events"])
    assert "nmnist" in call(capsys, "formats")[1]


def test_formats_explains_every_reader(capsys) -> None:
    for name in json.loads(call(capsys, "formats", "--json")[1])["events"]:
        document = json.loads(call(capsys, "formats", name, "--json")[1])
        code, out, _ = call(capsys, "formats", name)
        assert code == 0
        assert out.startswith(f"{name}: {document['description']}\n")
        assert " ".join(document["flags"]) in out
    assert json.loads(call(capsys, "formats", "matlab", "--json")[1])["flags"] == ["--first-pixel", "--time-unit"]


def test_import_says_what_it_assumed(capsys, folder: Path) -> None:
    code, out, _ = call(capsys, "import", folder / "c.safetensors", "-o", folder / "again.h5")
    assert code == 0
    assert "recognised Spikformer dvs 1-16" in out
    assert "assumed: heads = 1" in out
    assert "assumed: height" not in out


def test_info_shows_layers_and_macs(capsys, folder: Path) -> None:
    document = json.loads(call(capsys, "info", folder / "m.h5", "--json")[1])
    by_name = {layer["name"]: layer for layer in document["layers"]}
    assert by_name["patch_embed.proj_conv"]["dense_macs_per_step"] == 34 * 34 * 2 * 2 * 9
    assert document["dense_macs_per_step"] == sum(layer["dense_macs_per_step"] for layer in document["layers"])
    assert "patch_embed.proj_conv" in call(capsys, "info", folder / "m.h5")[1]


def test_profile_document_keeps_the_contract(capsys, folder: Path) -> None:
    code, out, _ = call(capsys, "profile", folder / "m.h5", folder / "r.npy", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["schema"] == 2
    (sample,) = document["samples"]
    assert {"input", "time_steps", "logits", "prediction", "latency_s", "step_latency_s", "totals"} <= set(sample)
    for layer in [*sample["layers"], sample["totals"]]:
        assert {"name", "kind", "kernel", "neurons", "firing_rate", "input_density", *COUNTS} <= set(layer)
    for key in COUNTS:
        assert sample["totals"][key] == sum(layer[key] for layer in sample["layers"])


def test_counts_are_the_same_for_every_chunk(capsys, folder: Path) -> None:
    samples = []
    for chunk in ([], ["--chunk", 1], ["--chunk", 3]):
        document = json.loads(call(capsys, "run", folder / "m.h5", folder / "r.npy", "--json", *chunk)[1])
        (sample,) = document["samples"]
        counts = [[layer[key] for key in COUNTS] for layer in sample["layers"]]
        samples.append((sample["logits"], counts))
    assert samples[0] == samples[1] == samples[2]


def test_several_inputs_and_windows(capsys, folder: Path) -> None:
    for options in (["--window", "time"], ["--bin-us", 50_000], ["--binary"], ["--time-steps", 7], ["--chunk", 2]):
        code, out, _ = call(capsys, "run", folder / "m.h5", folder / "r.npy", folder / "r.npy", *options)
        assert code == 0
        assert out.count("prediction") == 2


def test_bins_of_fixed_duration_are_streamed(capsys, folder: Path) -> None:
    samples = []
    for chunk in ([], ["--chunk", 1], ["--chunk", 7], ["--chunk", 1000]):
        options = ["--bin-us", 3000, "--json", *chunk]
        (sample,) = json.loads(call(capsys, "run", folder / "m.h5", folder / "r.npy", *options)[1])["samples"]
        samples.append((sample["logits"], [[layer[key] for key in COUNTS] for layer in sample["layers"]]))
        assert sample["time_steps"] == 100
    assert all(sample == samples[0] for sample in samples)


def test_one_bad_input_does_not_lose_the_others(capsys, folder: Path) -> None:
    inputs = [folder / "r.npy", folder / "absent.bin", folder / "r.npy"]
    code, out, err = call(capsys, "run", folder / "m.h5", *inputs, "--json")
    document = json.loads(out)
    assert code == 2
    assert [sample["input"] for sample in document["samples"]] == [str(inputs[0]), str(inputs[2])]
    assert [entry["input"] for entry in document["failed"]] == [str(inputs[1])]
    assert err.count("\n") == 1
    code, out, err = call(capsys, "run", folder / "m.h5", *inputs)
    assert (code, out.count("prediction"), err.count("absent.bin")) == (2, 2, 1)


INTERRUPTED_IMPORT = """
import atexit, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
atexit.register(os.kill, os.getpid(), signal.SIGINT)  # again, while Python ends
class Finder:
    def find_spec(name, *_):
        if name == "eventsim.cli.main":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder)
import eventsim.cli
"""


def test_an_interruption_while_commands_are_imported_is_one_line() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_IMPORT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "eventsim: interrupted\n")


@pytest.mark.parametrize("inputs", [1, 2])
def test_kernels_of_every_input_are_ready_before_the_first(capsys, inputs: int, folder: Path, monkeypatch) -> None:
    """With several, those that play what was written down, too; they are no latency of any sample."""
    asked: list[bool] = []
    warm_up = Simulator.warm_up
    monkeypatch.setattr(Simulator, "warm_up", lambda me, many=False: asked.append(many) or warm_up(me, many=many))
    recordings = [folder / "data" / "0" / f"{index}.npy" for index in range(inputs)]
    assert call(capsys, "run", folder / "m.h5", *recordings, "--sensor", "34x34", "--json")[0] == 0
    assert asked == [inputs > 1]


def test_an_interrupted_evaluation_prints_what_it_has(capsys, folder: Path, monkeypatch) -> None:
    def interrupted(*arguments: object) -> Iterator[Outcome]:
        yield from itertools.islice(evaluate(*arguments), 3)
        raise KeyboardInterrupt

    monkeypatch.setattr("eventsim.cli.commands.evaluating.evaluate", interrupted)
    code, out, err = call(capsys, "evaluate", folder / "m.h5", folder / "data", "--json")
    assert code == 130
    assert json.loads(out)["samples"] == 3
    assert "interrupted after 3 of 6" in err


def test_frames_and_images(capsys, folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "frames.npy", rng.integers(0, 4, (3, 2, 34, 34)))
    np.save(tmp_path / "image.npy", rng.integers(0, 4, (2, 34, 34)))
    for name, options, steps in (("frames.npy", [], 3), ("image.npy", [], 4), ("image.npy", ["--time-steps", 2], 2)):
        document = json.loads(call(capsys, "run", folder / "m.h5", tmp_path / name, "--json", *options)[1])
        assert document["samples"][0]["time_steps"] == steps


def test_evaluate_survives_a_bad_file(capsys, folder: Path) -> None:
    code, out, _ = call(capsys, "evaluate", folder / "m.h5", folder / "data", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["samples"] == 6
    assert {"mean", "p50", "p90", "p99"} <= set(document["latency_s"])
    bad = folder / "data" / "1" / "bad.npy"
    bad.write_bytes(b"nothing")
    for threads in (1, 2):
        code, out, _ = call(capsys, "evaluate", folder / "m.h5", folder / "data", "--json", "--threads", threads)
        with_bad = json.loads(out)
        assert code == 1
        assert with_bad["samples"] == 6
        assert with_bad["correct"] == document["correct"]
        assert with_bad["totals"] == document["totals"]
        assert [entry["input"] for entry in with_bad["failed"]] == [str(bad)]
        assert "bad.npy" in with_bad["failed"][0]["error"]
    code, out, err = call(capsys, "evaluate", folder / "m.h5", folder / "data")
    assert code == 1
    assert "accuracy" in out
    assert "bad.npy" in err
    bad.unlink()


def test_events_describes_a_recording(capsys, folder: Path) -> None:
    document = json.loads(call(capsys, "events", folder / "r.npy", "--json")[1])
    assert document["events"] == 600
    assert (document["width"], document["height"]) == (34, 34)
    assert "events" in call(capsys, "events", folder / "r.npy")[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], "required: MODEL.h5"),
        (["fly"], "no command; expected one of"),
        (["run", "m.h5", "absent.bin"], "absent.bin"),
        (["run", "absent.h5", "r.npy"], "absent.h5: no such file"),
        (["run", "m.h5", "m.h5"], "m.h5"),
        (["run", "r.npy", "r.npy"], "r.npy"),
        (["run", "m.h5", "r.npy", "--time-steps", "0"], "at least 1"),
        (["run", "m.h5", "r.npy", "--chunk", "-1"], "at least 1"),
        (["run", "m.h5", "r.npy", "--time-steps", "601"], "601"),
        (["run", "m.h5", "r.npy", "--bin-us", "1000", "--time-steps", "5"], "expected --bin-us alone"),
        (["evaluate", "m.h5", "labels"], "label 77 found; network Spikformer dvs 1-16 has 10 classes"),
        (["run", "m.h5", "frames.npy", "--time-steps", "5"], "frames found; 5 time steps were asked for"),
        (["run", "m.h5", "wrong.npy"], "2 x 30 x 34 found; the model takes 2 x 34 x 34"),
        (["run", "m.h5", "real.npy"], "negative or not whole"),
        (["run", "m.h5", "nan.npy"], "NaN"),
        (["run", "m.h5", "none.npy"], "no time steps"),
        (["run", "m.h5", "text.npy"], "text.npy"),
        (["run", "m.h5", "picture.png"], "takes 2 x 34 x 34, no image"),
        (["run", "m.h5", "large.npy"], "large.npy"),
        (["evaluate", "m.h5", "absent"], "absent: no such folder"),
        (["evaluate", "m.h5", "tonic:NMNIST"], "no --root found"),
        (["evaluate", "m.h5", "tonic:NMNIST", "--root", "."], "NMNIST"),
        (["evaluate", "m.h5", "tonic:Nothing", "--root", "."], "Nothing"),
        (["evaluate", "m.h5", "tonic:nmnist", "--root", "."], "; did you mean NMNIST?"),
        (["import", "c.safetensors", "-o", "x.h5", "--set", "heads"], "expected key=value"),
        (["import", "c.safetensors", "-o", "x.h5", "--set", "heads=3"], "heads=3 found; expected a divisor"),
        (["import", "c.safetensors", "-o", "absent/x.h5"], "cannot be written"),
        (["import", "r.npy", "-o", "x.h5"], "r.npy: not a checkpoint"),
        (["events", "m.h5"], "m.h5"),
        (["events", "r.npy", "--sensor", "34"], "WIDTHxHEIGHT"),
        (["events", "r.npy", "--sensor", "10x10"], "10"),
    ],
)
def test_wrong_usage_and_bad_input(capsys, folder: Path, monkeypatch, arguments: list[str], words: str) -> None:
    monkeypatch.chdir(folder)
    np.save("frames.npy", np.zeros((3, 2, 34, 34)))
    np.save("wrong.npy", np.zeros((3, 2, 30, 34)))
    np.save("real.npy", np.full((3, 2, 34, 34), 0.5))
    np.save("nan.npy", np.full((3, 2, 34, 34), np.nan))
    np.save("none.npy", np.zeros((0, 2, 34, 34)))
    np.save("text.npy", np.asarray(["a", "b"]))
    Path("picture.png").write_bytes(b"\x89PNG broken")
    Path("labels/77").mkdir(parents=True, exist_ok=True)
    Path("labels/77/a.bin").write_bytes(bytes(5))
    large = np.load("r.npy")
    large["x"][-1] = 99
    np.save("large.npy", large)
    assert words in refused(capsys, *arguments)


def test_messages_do_not_reach_stdout_and_markup_is_not_read(capsys, folder: Path) -> None:
    odd = folder / "[red]odd[bold].npy"
    write_recording(odd)
    code, out, _ = call(capsys, "run", folder / "m.h5", odd)
    assert code == 0
    assert "[red]odd[bold].npy" in out


def test_rows_of_all_inputs_and_layers_as_csv(capsys, folder: Path, tmp_path: Path) -> None:
    recordings = sorted((folder / "data").glob("*/*"))[:2]
    rows_file = tmp_path / "rows.csv"
    code, out, _ = call(capsys, "profile", folder / "m.h5", *recordings, "--json", "--rows", rows_file)
    samples = json.loads(out)["samples"]
    with rows_file.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert code == 0
    assert [(row["input"], row["name"]) for row in rows] == [
        (sample["input"], layer["name"]) for sample in samples for layer in sample["layers"]
    ]
    assert rows[0].keys() == {"input", *samples[0]["layers"][0]}
    for operation in OPERATIONS:
        assert sum(int(row[operation]) for row in rows) == sum(sample["totals"][operation] for sample in samples)
    err = refused(capsys, "run", folder / "m.h5", recordings[0], "--rows", "rows.txt")
    assert "rows.txt found, expected a name that ends in .csv" in err
    code, out, err = call(capsys, "run", folder / "m.h5", recordings[0], "--rows", tmp_path / "no" / "rows.csv")
    assert code == 2
    assert "prediction" in out
    assert "rows.csv: cannot be written (No such file or directory)" in err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["run", "absent.h5", "x.bin"], "absent.h5: no such file"),
        (["info", "absent.h5"], "absent.h5: no such file"),
        (["import", "absent.pth", "-o", "m.h5"], "absent.pth"),
        (["evaluate", "absent.h5", "."], "absent.h5: no such file"),
        (["events", "absent.bin"], "absent.bin: no such file"),
    ],
)
def test_a_machine_gets_one_document_where_everything_failed(capsys, arguments: list[str], reason: str) -> None:
    code, out, err = call(capsys, *arguments, "--json")
    assert code == 2
    document = json.loads(out)
    assert document.keys() == {"schema", "error"}
    assert reason in document["error"]
    assert err.count("\n") == 1
    assert document["error"] in err


def test_inputs_that_all_fail_are_listed(capsys, folder: Path) -> None:
    code, out, err = call(capsys, "run", folder / "m.h5", "a.bin", "b.bin", "--json")
    document = json.loads(out)
    assert code == 2
    assert document["samples"] == []
    assert [failure["input"] for failure in document["failed"]] == ["a.bin", "b.bin"]
    assert err.count("\n") == 2


def test_a_broken_plug_in_is_one_line_on_stderr(capsys, install: Any) -> None:
    install("broken", "import nothing_of_this_name")
    code, out, err = call(capsys, "formats")
    assert code == 0
    assert "spikformer" in out
    assert err.count("\n") == 1
    assert (
        "eventsim: plug-in broken = plugin_broken:IMPORTER of package plugin_broken (eventsim.importers) is left" in err
    )
