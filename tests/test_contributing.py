"""The pages for contributors, tried as a reader would: their files written, their package installed, their code run."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from eventsim import plugins
from eventsim.dvs import event_formats
from eventsim.importing import formats
from eventsim.modelfile import layer_type
from eventsim.operations import OPERATIONS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs" / "contributing").glob("*.md"))
FENCED = re.compile(r"^```(python|toml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FOUND_BY = {
    plugins.LAYERS: layer_type,
    plugins.IMPORTERS: lambda name: formats().get(name),
    plugins.EVENT_FORMATS: lambda name: event_formats().get(name),
}


class Block(NamedTuple):
    """A file of a page: its first line names it."""

    language: str
    path: str
    line: int
    text: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = []
    for match in FENCED.finditer(text):
        named = re.match(r"# ([\w/]+\.(?:py|toml))\n", match[2])
        line = text.count("\n", 0, match.start(2))
        assert named, f"{page.name}:{line + 1}: first line of the block found; expected a comment with its file"
        found.append(Block(match[1], named[1], line, match[2]))
    return found


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget the package of a page, and the operations that it registered."""
    operations, modules = dict(OPERATIONS), set(sys.modules)
    plugins._load.cache_clear()
    yield
    plugins._load.cache_clear()
    OPERATIONS.clear()
    OPERATIONS.update(operations)
    for name in set(sys.modules) - modules:
        if name.partition(".")[0] == "my_package":
            del sys.modules[name]


def write_package(folder: Path, found: list[Block], monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, str]]:
    """Write the files, and what pip leaves of the entry points; return those by group."""
    for block in found:
        path = folder / block.path
        path.parent.mkdir(exist_ok=True)
        path.write_text(block.text)
    (folder / "my_package" / "__init__.py").touch()
    (project,) = (tomllib.loads(block.text)["project"] for block in found if block.language == "toml")
    points: dict[str, dict[str, str]] = project["entry-points"]
    info = folder / "my_package-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in named.items()) for group, named in points.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(folder)
    return points


def run(block: Block, page: Path, namespace: dict[str, Any], folder: Path) -> int:
    """Run one block in the namespace of its page; return how many tests it held."""
    if block.path.startswith("my_package/"):
        module = importlib.import_module(block.path.removesuffix(".py").replace("/", "."))
        namespace.update({name: value for name, value in vars(module).items() if not name.startswith("__")})
        return 0
    before = set(namespace)
    exec(compile("\n" * block.line + block.text, str(page), "exec", dont_inherit=True), namespace)
    tests = [name for name in namespace if name.startswith("test_") and name not in before]
    for name in tests:
        given = {}
        if "tmp_path" in inspect.signature(namespace[name]).parameters:
            given["tmp_path"] = folder / name
            given["tmp_path"].mkdir()
        namespace[name](**given)
    return len(tests)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.usefixtures("clean")
def test_a_page_runs_as_it_stands(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = blocks(page)
    points = write_package(tmp_path, found, monkeypatch)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": page.stem}
    tests = [run(block, page, namespace, tmp_path) for block in found if block.language == "python"]
    assert any(tests), "no test found; expected one on every page"
    for group, named in points.items():
        for name, target in named.items():
            module, _, attribute = target.partition(":")
            part = getattr(importlib.import_module(module), attribute)
            assert FOUND_BY[group](name) == part, f"{group}: {name} not found; expected {target}"


def test_every_page_is_linked_from_the_index() -> None:
    index = (ROOT / "CONTRIBUTING.md").read_text()
    assert [page.name for page in PAGES if f"docs/contributing/{page.name}" not in index] == []
    assert len(PAGES) == 4
