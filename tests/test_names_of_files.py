"""Names of files: suffixes in capitals or none, on every way in and out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eventsim import Network, load, save
from eventsim.cli import main

Call = Callable[..., tuple[int, Any, str]]
DEMO = resources.files("eventsim") / "demo"


@pytest.fixture
def place(tmp_path: Path, small_network: Network, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save(small_network, "M.H5")
    frames = np.random.default_rng(1).integers(0, 2, (4, 2, 6, 6)).astype(np.int32)
    np.save("a.npy", frames)
    np.savez("a.npz", frames=frames)
    return tmp_path


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: object) -> tuple[int, Any, str]:
        capsys.readouterr()
        code = main([*map(str, arguments), "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out), err

    return run


@pytest.mark.parametrize("command", ["run", "verify"])
@pytest.mark.parametrize("name", ["A.NPY", "A.NPZ", "frames"])
def test_frames_in_capitals_or_without_a_suffix(command: str, name: str, place: Path, call: Call) -> None:
    shutil.copy("a.npz" if name == "A.NPZ" else "a.npy", name)
    (right,) = call(command, "M.H5", "a.npy")[1]["samples"]
    code, document, err = call(command, "M.H5", name)
    assert (code, err) == (0, "")
    (sample,) = document["samples"]
    key = "logits" if command == "run" else "layers"
    assert sample[key] == right[key]


def test_samples_of_an_array_without_a_suffix(place: Path, call: Call) -> None:
    np.save("all.npy", np.ones((2, 4, 2, 6, 6), np.int32))
    Path("all.npy").rename("all")
    code, document, _ = call("run", "M.H5", "all", "--batch")
    assert (code, [sample["input"] for sample in document["samples"]]) == (0, ["all[0]", "all[1]"])


def test_an_evaluation_in_capitals(place: Path, call: Call) -> None:
    np.save("ALL.npy", np.ones((2, 4, 2, 6, 6), np.int32))
    np.save("LABELS.npy", np.arange(2))
    Path("ALL.npy").rename("ALL.NPY")
    Path("LABELS.npy").rename("LABELS.NPY")
    for rows in ("R.CSV", "R.JSONL"):
        code, document, err = call("evaluate", "M.H5", "ALL.NPY", "--labels", "LABELS.NPY", "--rows", rows)
        assert (code, document["samples"], err) == (0, 2, "")
        assert len(Path(rows).read_text().splitlines()) == (3 if rows == "R.CSV" else 2)
        assert call("evaluate", "M.H5", "ALL.NPY", "--labels", "LABELS.NPY", "--rows", rows, "--resume")[0] == 0


def test_tables_of_labels_in_capitals(place: Path, call: Call) -> None:
    Path("tables").mkdir()
    Path("recordings").mkdir()
    shutil.copy("a.npy", "recordings/A.NPY")
    Path("tables/A_LABELS.CSV").write_text("label\n1\n")
    code, document, err = call("evaluate", "M.H5", "recordings", "--labels", "tables")
    assert (code, document["samples"], err) == (0, 1, "")


@pytest.mark.parametrize("suffix", [".SAFETENSORS", ".NPZ", ".H5", ""])
def test_checkpoints_in_capitals_or_without_a_suffix(suffix: str, place: Path, call: Call) -> None:
    from safetensors.numpy import load_file

    with resources.as_file(DEMO / "digits.safetensors") as path:
        state = load_file(path)
        shutil.copy(path, "C.SAFETENSORS")
        shutil.copy(path, "C")
    np.savez("c.npz", **state)
    Path("c.npz").rename("C.NPZ")
    if suffix == ".H5":
        import h5py

        with h5py.File("C.H5", "w") as file:
            for name, array in state.items():
                file[name] = array
    code, document, err = call("import", f"C{suffix}", "-o", "OUT")
    assert (code, err) == (0, "")
    assert load("OUT").parameters == document["parameters"] == 250_294


@pytest.mark.parametrize("name", ["O.H5", "O"])
def test_models_are_written_under_any_name(name: str, place: Path, call: Call) -> None:
    assert call("quantise", "M.H5", "--calibrate", "a.npy", "-o", name)[0] == 0
    assert call("run", name, "a.npy")[0] == 0


def test_prices_in_capitals(place: Path, call: Call) -> None:
    prices = next(each for each in (resources.files("eventsim") / "accounting" / "prices").iterdir())
    Path("P.TOML").write_text(prices.read_text().replace('name = "', 'name = "mine_', 1))
    assert call("run", "M.H5", "a.npy", "--energy", "P.TOML")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("import", "a.npz", "-o", ""), "-o '' found; expected the name of a file to write"),
        (("import", "a.npz", "-o", "."), ".: a folder found; expected the name of a file to write"),
        (("quantise", "M.H5", "--calibrate", "a.npy", "-o", "."), ".: a folder found; expected the name of a file"),
        (("export", "M.H5", "-o", "."), ".: a folder found; expected the name of a file to write"),
        (("info", "."), ".: is a folder; expected a model written by eventsim import"),
    ],
)
def test_a_folder_in_the_place_of_a_file(
    arguments: tuple[str, ...], said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"eventsim: {said}")
