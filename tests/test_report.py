"""The page: what it says equals the document, nothing of it is fetched, and a browser shows it without error."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import eventsim
from eventsim import Network, NetworkBuilder, Simulator, cli, import_checkpoint, save
from eventsim.accounting.energy import Energy
from eventsim.layers import LIF, Conv2d, Flatten, Input, Linear, Readout, TableAttention
from eventsim.report.document import sample_document
from eventsim.report.html.page import headline, heat, layer_rows, prediction
from eventsim.report.html.watching import Steps, Watched, watch

F = np.float32
DEMO = Path(eventsim.__file__).parent / "demo"
SECTIONS = (
    "layers", "energy", "conventions", "outcome", "activity", "latency", "right", "assumed", "whence", "words"
)  # fmt: skip
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--enable-logging=stderr", "--v=0",
)  # fmt: skip
VOID = {"meta", "img", "br", "link", "input", "hr", "wbr"}


class Page(HTMLParser):
    """Checks that tags close in order, and collects texts, ids and references."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.words: list[str] = []
        self.images = 0
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [given["id"] or ""] if "id" in given else []
        self.references += [given[name] or "" for name in ("src", "href", "action", "data") if name in given]
        self.images += tag == "img"
        if tag == "img":
            assert given.get("alt")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{tag} closed"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The page of the shipped network and recording, and its document."""
    folder = tmp_path_factory.mktemp("report")
    save(import_checkpoint(DEMO / "digits.safetensors"), folder / "m.h5")
    page, out = folder / "page.html", folder / "out.json"
    recording = min(DEMO.glob("*.bin"))
    with out.open("w") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", file)
        assert cli.main(["profile", str(folder / "m.h5"), str(recording), "--report", str(page), "--json"]) == 0
    return page, json.loads(out.read_text())


# --- what it says


def test_the_page_has_every_section_and_fetches_nothing(demo: tuple[Path, dict[str, Any]]) -> None:
    text = demo[0].read_text()
    page = Page(text)
    assert [name for name in page.ids if name in SECTIONS] == list(SECTIONS)
    assert len(page.ids) == len(set(page.ids))
    for reference in page.references:
        assert reference.startswith(("#", "data:image/png;base64,")), reference
        assert not reference.startswith("#") or reference[1:] in page.ids
    assert "http" not in re.sub(r'"data:[^"]*"', "", re.sub(r"<(abbr|dd)[^>]*>[^<]*", "", text))
    assert len(text) < 1_500_000
    assert "undefined" not in page.text.lower()


def test_the_page_says_what_the_document_says(demo: tuple[Path, dict[str, Any]]) -> None:
    text, document = Page(demo[0].read_text()).text, demo[1]
    (sample,) = document["samples"]
    executed = {layer["name"]: layer["acs"] + layer["graded_macs"] + layer["macs"] for layer in sample["layers"]}
    top = max(executed, key=lambda name: executed[name])
    total = sum(executed.values())
    assert f"executes most: {100 * executed[top] / total:.0f} % of the synaptic operations." in text
    assert top in text
    assert f"{executed[top]:,} of {total:,} synaptic operations." in text
    assert f"class {sample['prediction']}" in text
    for layer in sample["layers"]:
        assert layer["name"] in text.replace(". ", ".")  # a name may break behind a dot
    for name in sample["energy"]:
        assert name in text
    for name, convention in sample["conventions"].items():
        assert name in text
        for reason in convention["reasons"]:
            assert reason in text
    for setting in document["settings"]:
        assert setting["option"] in text
    assert document["provenance"]["model_sha256"] in text
    assert sample["input_sha256"] in text
    assert "Not checked in this run." in text
    for operation, count in sample["totals"].items():
        if operation in eventsim.operations.OPERATIONS and count:
            assert f": {count:,}" in text, operation


def test_the_page_says_which_layer_costs_most_and_why() -> None:
    def layer(name: str, executed: int, inputs: int, nonzero: int) -> dict[str, Any]:
        return {
            "name": name, "acs": executed, "graded_macs": 0, "macs": 0, "inputs": inputs, "nonzero_inputs": nonzero,
            "input_density": nonzero / inputs, "dense_macs": inputs * 10,
        }  # fmt: skip

    one = Energy("one", {"b": {"acs": 1.0}}, {"b": {"sum_reads": 2.0}, "a": {"sum_reads": 1.0}}, {})
    none = Energy("none", {}, {}, {"acs": 3})
    layers = [layer("a", 300, 100, 30), layer("b", 100, 200, 10)]
    said = headline({"layers": layers, "totals": layer("total", 400, 300, 40)}, {"one": one, "none": none})
    assert (said["name"], said["said"]) == ("a", "executes most: 75 % of the synaptic operations.")
    assert said["why"].startswith("300 of 400 synaptic operations. 30 % of its 100 inputs were not zero, and each")
    assert "served by 10 synapses on average; a dense machine would take 1,000 multiply-" in said["why"]
    assert said["energies"] == [
        {"model": "one", "name": "b", "said": "3 mJ, 75 % of 4 mJ", "why": "sum reads 67 %, acs 33 %"}
    ]
    silent = headline({"layers": [], "totals": layer("total", 0, 1, 0)}, {})
    assert silent["said"] == "Nothing was executed that multiplies."


def test_layers_are_folded_by_what_they_execute_and_never_the_first() -> None:
    network = network_of((3, 6, 6), "real")
    result = Simulator(network).run(np.ones((3, 6, 6)))
    sample = sample_document("x", network, result)
    energy = result.energy["lemaire2022"]
    rows = {row["name"]: row for row in layer_rows(sample, energy, {"conv": 0.5})}
    assert rows["conv"]["seconds"] == 0.5
    assert [name for name, row in rows.items() if not row["small"]] == ["conv", "<b>lif</b> & co", "head"]
    assert rows["conv"]["top"]
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1)
    assert sum(row["energy_share"] for row in rows.values()) == pytest.approx(1)
    assert max(row["compute_width"] + row["memory_width"] for row in rows.values()) == pytest.approx(100)
    little = dict(sample, layers=[{**layer, "acs": 0, "graded_macs": 0, "macs": 0} for layer in sample["layers"]])
    assert not {row["name"]: row for row in layer_rows(little, energy, {})}["conv"]["small"]


def test_steps_are_those_of_the_stream() -> None:
    watched = Watched(steps=Steps([[0.0, 2.0, 1.0], [5.0, 2.0, 1.0]], {"layer": [0.5, 1.5]}))
    found = prediction({"logits": [5.0, 2.0, 1.0]}, watched)
    assert [(step["prediction"], step["margin"]) for step in found["steps"]] == [(1, 1.0), (0, 3.0)]
    assert found["margin"] == 3
    assert found["decided"] == 1
    assert [line["name"] for line in found["lines"]] == [0, 1, 2], "those that lead at the end, and that ever did"
    (_, first), (_, last) = found["lines"][0]["points"]
    assert (first, last) == (150, 10), "from the least of all to the most of all"
    table = heat({"layer": np.arange(128.0)}, "what", 1.0, "s")
    (row,) = table["rows"]
    assert len(row["cells"]) == 64
    assert (row["cells"][1]["from"], row["cells"][1]["to"], row["cells"][1]["value"]) == (2, 3, 2.5)
    assert row["mean"] == 63.5


def test_maps_before_and_after_a_table() -> None:
    table = np.array([[0, 0, 3]])
    build = NetworkBuilder("maps")
    x = build.add("input", Input((2, 2), "binary"))
    x = build.add("attn", TableAttention(table, scale=1.0), x, x, x)
    build.add("readout", Readout(), build.add("flatten", Flatten(), x))
    network, frames = build.build(time_steps=2), np.array([[[1, 1], [0, 1]], [[1, 1], [0, 1]]])
    shown = watch(network, frames, Simulator(network).run(frames)).maps
    assert [picture.title for picture in shown] == [
        "attn, head 0 of 1, before its table: 100% of the entries are not 0",
        "attn, head 0 of 1, after its table: 25% of the entries are not 0",
    ]
    drawn = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.uri.partition(",")[2]))))[..., 3] for picture in shown
    ]
    assert drawn[0].tolist() == [[255, 180], [180, 180]], "scores 4, 2, 2 and 2 of both steps, as square roots"
    assert drawn[1].tolist() == [[255, 0], [0, 0]]


# --- odd inputs


def network_of(shape: tuple[int, ...], kind: str, name: str = "network") -> Network:
    build = NetworkBuilder(name)
    x = build.add("input", Input(shape, kind))
    if len(shape) == 3:
        x = build.add("conv", Conv2d(np.ones((2, shape[0], 3, 3), F) / 4, padding=(1, 1)), x)
        x = build.add("<b>lif</b> & co", LIF(v_threshold=0.5), x)
        x = build.add("flatten", Flatten(), x)
    size = build.types[x].channels
    x = build.add("head", Linear(np.arange(3 * size, dtype=F).reshape(3, -1) / 64), x)
    build.add("readout", Readout("sum"), x)
    return build.build(time_steps=3)


@pytest.mark.parametrize(
    ("shape", "kind", "frames"),
    [
        ((3, 6, 6), "real", np.random.default_rng(0).normal(size=(3, 6, 6))),
        ((1, 6, 6), "real", np.zeros((1, 6, 6))),
        ((2, 6, 6), "graded", np.random.default_rng(0).poisson(1, (3, 2, 6, 6))),
        ((2, 6, 6), "graded", np.zeros((3, 2, 6, 6))),
        ((7,), "binary", np.ones((300, 7))),
        ((5, 4), "graded", None),
    ],
    ids=["image", "black image", "events", "no events", "long", "tokens"],
)
def test_any_input_has_a_page(shape: tuple[int, ...], kind: str, frames: Any, tmp_path: Path) -> None:
    if frames is None:
        build = NetworkBuilder("tokens")
        x = build.add("flatten", Flatten(), build.add("input", Input(shape, kind)))
        build.add("readout", Readout(), build.add("head", Linear(np.ones((2, 20), F)), x))
        network, frames = build.build(time_steps=3), np.ones((3, *shape))
    else:
        network = network_of(shape, kind)
    model, source, page = tmp_path / "m.h5", tmp_path / "x.npy", tmp_path / "p.html"
    save(network, model)
    np.save(source, frames.astype(F))
    arguments = ["--time-steps", "300"] if len(frames) == 300 else []
    assert cli.main(["profile", str(model), str(source), "--report", str(page), *arguments]) == 0
    shown = Page(page.read_text())
    assert shown.images >= 1
    assert "<b>lif</b>" not in page.read_text(), "names are text"
    if len(shape) == 3 and "readout" in shown.text:
        assert html.escape("<b>lif</b> & co") in page.read_text()


def test_energy_models_that_are_asked_for_are_in_front(tmp_path: Path) -> None:
    save(network_of((3, 6, 6), "real"), tmp_path / "m.h5")
    np.save(tmp_path / "x.npy", np.ones((3, 6, 6), F))
    prices = tmp_path / "mine.toml"
    prices.write_text('name = "mine"\nsource = "a test"\nunit = "pJ"\ngraded = "mac"\n[compute]\nmacs = 1\n')
    page = tmp_path / "p.html"
    assert (
        cli.main(
            ["profile", str(tmp_path / "m.h5"), str(tmp_path / "x.npy"), "--report", str(page), "--energy", str(prices)]
        )
        == 0
    )
    front, folded = page.read_text().split("Energy by cited models", 1)[1].split("more models", 1)
    assert "mine" in front and "loihi_active" not in front
    assert "loihi_active" in folded.split("</details>", 1)[0]


def test_what_cannot_be_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, source = tmp_path / "m.h5", tmp_path / "x.npy"
    save(network_of((3, 6, 6), "real"), model)
    np.save(source, np.ones((3, 6, 6), F))
    assert cli.main(["profile", str(model), str(source), "--report", str(tmp_path / "no" / "p.html")]) == 2
    out, err = capsys.readouterr()
    assert "prediction" in out, "numbers still reach the terminal"
    assert "p.html: cannot be written (No such file or directory)" in err
    assert cli.main(["profile", str(model), str(source), str(source), "--report", str(tmp_path / "p.html")]) == 2
    assert "2 inputs with --report found; expected one" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["profile", str(model), str(source), "--report", "p.pdf"])
    assert "p.pdf found, expected a name that ends in .html" in capsys.readouterr().err


def test_more_bins_than_a_page_shows_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build = NetworkBuilder("camera")
    x = build.add("flatten", Flatten(), build.add("input", Input((2, 34, 34), "graded")))
    build.add("readout", Readout("sum"), build.add("head", Linear(np.ones((2, 2312), F)), x))
    save(build.build(), tmp_path / "m.h5")
    recording = min(DEMO.glob("*.bin"))
    page = tmp_path / "p.html"
    code = cli.main(["profile", str(tmp_path / "m.h5"), str(recording), "--bin-us", "100", "--report", str(page)])
    assert code == 2
    assert f"{recording}: more than 2000 bins found; a report shows at most so many" in capsys.readouterr().err
    code = cli.main(["profile", str(tmp_path / "m.h5"), str(recording), "--bin-us", "20000", "--report", str(page)])
    assert code == 0
    assert "times as fast as the recording" in Page(page.read_text()).text


# --- in a browser


def chromium(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Chromium; where there is none, skip, but fail where CI is set."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("chromium not found; expected it where CI is set, as .ci/run installs it")
        pytest.skip("chromium not found")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


PROBE = """<script>{
const rows = () => [...document.querySelectorAll("#layer-table tbody tr")];
const seen = {before: rows().map(r => +r.dataset.executed)};
seen.small = rows().filter(r => r.hidden).length;
document.querySelector('button[data-key="executed"]').click();
seen.sorted = rows().map(r => +r.dataset.executed);
document.querySelector('button[data-key="number"]').click();
seen.again = rows().map(r => +r.dataset.executed);
const fold = document.getElementById("fold");
fold.click(); seen.open = rows().filter(r => r.hidden).length;
fold.click(); seen.closed = rows().filter(r => r.hidden).length;
seen.broken = [...document.images].filter(i => !i.naturalWidth).length;
seen.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
document.body.dataset.seen = JSON.stringify(seen);
}</script></body>"""


def test_a_browser_shows_the_page_without_an_error(demo: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    probed = tmp_path / "probed.html"
    probed.write_text(demo[0].read_text().replace("</body>", PROBE))
    done = chromium(tmp_path, "--dump-dom", probed.as_uri())
    assert "CONSOLE" not in done.stderr, done.stderr
    seen = json.loads(html.unescape(re.search(r'data-seen="([^"]*)"', done.stdout).group(1)))  # type: ignore[union-attr]
    assert seen["sorted"] == sorted(seen["before"], reverse=True)
    assert seen["again"] == seen["before"]
    assert 0 < seen["small"] == seen["closed"] < len(seen["before"])
    assert seen["open"] == 0
    assert seen["broken"] == 0
    assert seen["wide"] <= 0, "wider than the window"


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_browser_shows_it_on_a_phone_and_on_a_desk_by_day_and_by_night(
    demo: tuple[Path, dict[str, Any]], tmp_path: Path, width: int, theme: str
) -> None:
    shot = tmp_path / "shot.png"
    dark = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if theme == "dark" else []
    chromium(tmp_path, f"--window-size={width},900", *dark, f"--screenshot={shot}", demo[0].as_uri())
    pixels = np.asarray(Image.open(shot).convert("L"))
    assert pixels.shape[1] >= width
    assert (np.median(pixels) < 60) == (theme == "dark")
    assert len(np.unique(pixels)) > 50, "text and bars"
