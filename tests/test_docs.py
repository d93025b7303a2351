"""What the documentation says is so: its code runs, its lists are those of the code, its links lead somewhere."""

from __future__ import annotations

import csv
import doctest
import importlib
import inspect
import io
import json
import pydoc
import re
import shutil
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import eventsim
import eventsim.testing
from eventsim import Network, NetworkBuilder, modelfile, operations, save
from eventsim.accounting import energy
from eventsim.accounting.conventions import CONVENTIONS
from eventsim.accounting.price_file import parse_prices
from eventsim.cli import main
from eventsim.layers import Input, Linear, Readout

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (ROOT, ROOT / "importers")
CHECKPOINT = ROOT / "examples" / "weights" / "nmnist_spikformer.safetensors"
RECORDINGS = sorted((ROOT / "eventsim" / "demo").glob("digit_*.bin"))
PAGES = [*ROOT.glob("*.md"), *(ROOT / "examples").glob("*.md"), *(ROOT / "docs").rglob("*.md")]
README = (ROOT / "README.md").read_text()


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def fenced(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


# --- code


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the examples name."""
    shutil.copy(CHECKPOINT, tmp_path / "checkpoint.safetensors")
    shutil.copy(RECORDINGS[0], tmp_path / "recording.bin")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_the_code_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    _, block = fenced("python", README)
    namespace: dict[str, Any] = {}
    exec(block, namespace)
    printed = capsys.readouterr().out.splitlines()
    assert int(printed[0].split()[0]) == namespace["result"].prediction
    assert len(printed) == 1 + len(namespace["network"].layers) + 1
    memory, syops = map(float, printed[-1].split())
    assert 0 < syops < memory


@pytest.mark.usefixtures("folder")
def test_the_code_of_the_page_of_conventions_runs(capsys: pytest.CaptureFixture[str]) -> None:
    _, before = fenced("python", README)
    (block,) = fenced("python", page("conventions.md"))
    namespace: dict[str, Any] = {}
    exec(before, namespace)
    capsys.readouterr()
    exec(block, namespace)
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line in CONVENTIONS] == list(CONVENTIONS)
    found = namespace["estimate"](namespace["result"].profile, "syops")
    assert f"syops {found.acs}" in " ".join(printed).replace("    ", "")


@pytest.mark.usefixtures("folder")
def test_the_code_of_the_readme_for_a_network_of_ones_own_runs() -> None:
    pytest.importorskip("torch", reason="needs PyTorch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SpikingJelly uses torch.jit
        pytest.importorskip("spikingjelly.activation_based", reason="needs SpikingJelly")
        block, _ = fenced("python", README)
        namespace: dict[str, Any] = {}
        exec(block, namespace)
    network = eventsim.load("model.h5")
    assert list(network.layers) == list(namespace["network"].layers)
    assert network.time_steps == 5


def test_the_code_of_the_page_of_streams_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["import", "checkpoint.safetensors", "-o", str(folder / "model.h5")])
    capsys.readouterr()
    (block,) = fenced("python", page("live.md"))
    exec(block, {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 15
    assert sum(int(line.split()[1]) for line in lines) == len(RECORDINGS[0].read_bytes()) // 5


@pytest.mark.usefixtures("folder")
def test_the_code_of_the_package_docstring_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"::\n\n((?:    .*\n)+)", inspect.getdoc(eventsim) or "")
    exec(textwrap.dedent(block), {"eventsim": eventsim})
    assert capsys.readouterr().out


def test_the_set_up_blocks_of_the_readme() -> None:
    """CI runs them as they stand."""
    assert fenced("sh", README) == ["pip install . && eventsim demo\n", "pip install nox && nox -s tests\n"]


def modules_with_examples() -> list[str]:
    return sorted(
        ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__")
        for source, package in zip(SOURCES, ("eventsim", "eventsim_importers"), strict=True)
        for path in (source / package).rglob("*.py")
        if ">>> " in path.read_text()
    )


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_of_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.attempted
    assert not result.failed


# --- names


@pytest.mark.parametrize("module", [eventsim, eventsim.testing])
def test_help_names_every_public_name(module: Any) -> None:
    shown = pydoc.render_doc(module, renderer=pydoc.plaintext)
    for name in module.__all__:
        assert re.search(rf"\b{name}\b", shown), name
        assert module is not eventsim or f"`{name}`" in (eventsim.__doc__ or ""), name


@pytest.mark.parametrize(
    "part", [getattr(module, name) for module in (eventsim, eventsim.testing) for name in module.__all__]
)
def test_every_public_name_has_a_docstring(part: Any) -> None:
    own = part.__doc__ or ""
    assert own
    assert not own.startswith(f"{part.__name__}("), "a dataclass says its fields; expected a docstring"


# --- lists


def test_the_list_of_operations_is_the_table() -> None:
    path = "docs/counts.md"
    listed = re.findall(r"<!-- operations -->\n(.*)\n<!-- /operations -->", (ROOT / path).read_text(), re.DOTALL)
    expected = "print the right one with: python -c 'from eventsim import operations; print(operations.markdown())'"
    assert listed == [operations.markdown()], expected


def rows(text: str, heading: str) -> dict[str, list[str]]:
    """Return the rows of the tables under a heading that begin with code, by that code."""
    section = re.split(r"^##+ ", text, flags=re.MULTILINE)
    (found,) = (part for part in section if part.startswith(heading))
    cells = (line.strip("| ").split("|") for line in found.splitlines() if line.startswith("| `"))
    return {first.strip(" `"): [cell.strip() for cell in rest] for first, *rest in cells}


def test_the_energy_models_are_those_of_the_code() -> None:
    listed = re.findall(r"<!-- energies -->\n(.*)\n<!-- /energies -->", page("energy.md"), re.DOTALL)
    expected = "print the right one with: python -c 'from eventsim.accounting import energy; print(energy.markdown())'"
    assert listed == [energy.markdown()], expected


def test_the_price_file_that_is_shown_is_one() -> None:
    (shown,) = fenced("toml", page("energy.md"))
    model = parse_prices("shown", shown.encode())
    assert model.section("compute", "convolution")["acs"] == 0.6
    assert model.words["index_reads"].size == 4096


def test_the_conventions_are_those_of_the_code() -> None:
    listed = rows(page("conventions.md"), "The conventions")
    assert {name: cells[0] for name, cells in listed.items()} == {name: c.what for name, c in CONVENTIONS.items()}


# --- documents

PLACES = {
    "energy_mj": "<energy model>",
    "energy": "<energy model>",
    "by_layer": "<layer>",
    "by_operation": "<operation>",
    "unpriced": "<operation>",
    "conventions": "<convention>",
    "predicted": "<class>",
    "checkpoints": "<format>",
    "events": "<format>",
    "options": "<name>",
    "preparation": "<name>",
}
TYPES = {
    "bool": bool,
    "int": int,
    "float": (int, float),
    "string": str,
    "list": list,
    "object": dict,
    "null": type(None),
}


def values(value: Any, at: str = "", parent: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of a document with its path as the page writes it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            counted = key in operations.OPERATIONS and parent in ("layers", "totals")
            counted &= not isinstance(inner, list)  # `inputs` of info are layers
            name = "<operation>" if counted else PLACES.get(parent, key)
            path = f"{at}.{name}" if at else name
            yield path, inner
            yield from values(inner, path, key)
    elif isinstance(value, list):
        for inner in value:
            yield from values(inner, f"{at}[]", parent)


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    main([*map(str, arguments), "--json"])
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


@pytest.fixture
def documents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> dict[str, list[dict[str, Any]]]:
    """Documents by the heading of their section."""
    streaming, frames = tmp_path / "streaming.h5", tmp_path / "frames.npy"
    build = NetworkBuilder("answers in every step")
    build.add("input", Input((4,)))
    build.add("head", Linear(np.eye(3, 4, dtype=np.float32)), "input")
    build.add("readout", Readout(), "head")
    save(build.build(time_steps=2), streaming)
    np.save(frames, np.ones((2, 4), np.float32))
    model = tmp_path / "model.h5"
    for label, recording in enumerate(RECORDINGS):
        (tmp_path / "data" / str(label)).mkdir(parents=True)
        shutil.copy(recording, tmp_path / "data" / str(label))
    (tmp_path / "data" / "0" / "bad.bin").write_bytes(b"no event")
    (tmp_path / "data" / "0" / "cut.bin").write_bytes(RECORDINGS[0].read_bytes()[:-2])
    told = "%geometry:30,30\n" + "".join(f"1,2,1,{t}\n" for t in range(12))
    (tmp_path / "data" / "0" / "told.csv").write_text(told)
    given = ("--salvage", "--sensor", "34x34")
    imported = printed(capsys, "import", CHECKPOINT, "-o", model)
    inputs = (RECORDINGS[0], tmp_path / "absent.bin")

    def piped(data: bytes, *flags: object) -> dict[str, Any]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        return printed(capsys, "run", model, "-", "--bin-us", 100_000, "--format", "nmnist", *flags)

    cut = RECORDINGS[0].read_bytes()[:-2]
    return {
        "`import`": [imported, printed(capsys, "info", model)],
        "`run`": [
            printed(capsys, "demo"),
            *(printed(capsys, name, model, *inputs) for name in ("run", "profile")),
            printed(capsys, "run", streaming, frames, "--chunk", 1),
            printed(capsys, "run", model, RECORDINGS[0], "--bin-us", 100_000),
            printed(capsys, "profile", streaming, frames, "--verify"),
        ],
        "Standard input": [piped(cut), piped(cut, "--salvage")],
        "`verify`": [printed(capsys, "verify", model, *inputs)],
        "`evaluate`": [printed(capsys, "evaluate", model, tmp_path / "data", *flags) for flags in ((), given)],
        "`events`": [printed(capsys, "events", RECORDINGS[0])],
        "`formats`": [printed(capsys, "formats")],
        "`formats NAME`": [printed(capsys, "formats", name) for name in ("spikformer", "aedat2")],
        "A command that failed": [printed(capsys, "info", tmp_path / "absent.h5")],
    }


def test_documents_have_the_keys_that_the_page_names(documents: dict[str, list[dict[str, Any]]]) -> None:
    for document in documents["`run`"]:
        for sample in document["samples"]:
            for layer in sample["layers"]:
                assert list(layer) == list(sample["totals"])
            sample["totals"] = {"<key of a layer>": None}
            if "verification" in sample:
                sample["verification"] = {"<key of verify>": None}
    for heading, given in documents.items():
        said = {key: cells[0] for key, cells in rows(page("json.md"), heading).items()}
        found = [pair for document in given for pair in values(document)]
        assert {path for path, _ in found} == set(said), heading
        for path, value in found:
            expected = [word for word in TYPES if re.search(rf"^{word}\b|\bor {word}\b", said[path])]
            expected += ["list"] if said[path].startswith("[") else []
            fits = any(isinstance(value, TYPES[word]) for word in expected) or not said[path]
            assert fits, f"{heading}: {path} is {value!r}; expected {said[path]}"
        assert all(document["schema"] == 2 for document in given)


def test_commands_that_the_page_names_print_the_same_document(documents: dict[str, list[dict[str, Any]]]) -> None:
    run, profile = (dict(values(document)) for document in documents["`run`"][1:3])
    assert list(run) == list(profile)
    imported, shown = documents["`import`"]
    for each in (imported, shown):
        del each["provenance"]["date"]
    assert imported == shown


def test_rows_have_the_keys_of_a_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["import", str(CHECKPOINT), "-o", str(tmp_path / "model.h5")])
    arguments = ("profile", tmp_path / "model.h5", *RECORDINGS[:2], "--rows", tmp_path / "rows.csv")
    samples = printed(capsys, *arguments)["samples"]
    with (tmp_path / "rows.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["input", *samples[0]["layers"][0]]
    assert len(lines) == 2 * len(samples[0]["layers"])


def test_rows_of_samples_have_the_keys_that_the_page_names(
    tmp_path: Path, small_network: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    save(small_network, tmp_path / "model.h5")
    (tmp_path / "data" / "0").mkdir(parents=True)
    np.save(tmp_path / "data" / "0" / "a.npy", np.ones((4, 2, 6, 6), np.int32))
    (tmp_path / "data" / "0" / "bad.npy").write_bytes(b"nothing")
    printed(capsys, "evaluate", tmp_path / "model.h5", tmp_path / "data", "--rows", tmp_path / "rows.jsonl")
    good, bad = map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())
    said = {key: cells[0] for key, cells in rows(page("json.md"), "Rows").items()}
    assert list(good) == list(bad) == [key for key in said if "." not in key]
    assert set(good["totals"]) == set(operations.OPERATIONS)
    for row in (good, bad):
        for key, value in row.items():
            assert any(isinstance(value, TYPES[word]) for word in re.findall(r"\w+", said[key]) if word in TYPES), key
    assert {key for key, value in bad.items() if value is not None and value not in ([], {})} == {
        "index", "input", "label", "error", "latency_comparable", "run",
    }  # fmt: skip


@pytest.mark.usefixtures("folder")
def test_the_code_of_the_page_of_data_sets_runs(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """On a cluster of this machine, in the place of one that is elsewhere."""
    distributed = pytest.importorskip("distributed", reason="needs distributed: pip install 'eventsim[cluster]'")
    main(["import", "checkpoint.safetensors", "-o", "model.h5"])
    Path("data", "0").mkdir(parents=True)
    shutil.copy("recording.bin", Path("data", "0"))
    (block,) = fenced("python", page("datasets.md"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        started = distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)
        with started, monkeypatch.context() as patch:
            of_here = distributed.Client
            patch.setattr(distributed, "Client", lambda _: of_here(started))
            capsys.readouterr()
            exec(block, {})
    accuracy, acs = capsys.readouterr().out.split()
    assert float(accuracy) in (0, 1) and int(acs) > 0


# --- model files


def test_a_model_file_holds_what_the_page_says(tmp_path: Path, small_network: Network) -> None:
    save(small_network, tmp_path / "model.h5")
    assert f"## Format {modelfile.FORMAT}\n" in page("model-file.md")
    with h5py.File(tmp_path / "model.h5") as file:
        assert set(file.attrs) == {"eventsim_schema"}
        assert set(json.loads(file["network"][()])) == set(rows(page("model-file.md"), "Format 2"))
        assert set(file) == {"network", "layers"}
        group = file["layers/00001"]
        assert set(json.loads(group.attrs["layer"])) == {"name", "type", "fields"}
        assert list(group) == ["weight"]


# --- links

LINK = re.compile(r"\]\(([^)\s#]*)(?:#([^)\s]*))?\)")
FILE = re.compile(r"`([\w./-]+\.(?:py|md|toml))`")


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target, anchor in LINK.findall(path.read_text()):
        if target.startswith(("http:", "https:")):
            continue
        there = path.parent / target if target else path
        assert there.exists(), target
        assert not anchor or anchor in anchors(there.read_text()), f"{target}#{anchor}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_are_there(path: Path) -> None:
    for name in FILE.findall(path.read_text()):
        if not re.search(r"\bmy_", name):
            roots = (path.parent, ROOT, ROOT / "eventsim", ROOT / "importers")
            assert any((root / name).exists() for root in roots), name
