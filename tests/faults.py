"""Small faults drawn at random, each tried against the tests: those that nobody notices name a test that is missing.

::

    python tests/faults.py --seed 1 --draw 60          # list them
    python tests/faults.py --seed 1 --draw 60 --run    # try each, two at a time, as rows of a Markdown table
    python tests/faults.py --seed 1 --draw 60 --run --only 3,17

A fault changes one expression or removes one statement (`OPERATORS`). It is made in a temporary copy of the tracked
files, and the tests that `TESTS` maps its file to run first, the others only if it survives those. An operator is drawn
evenly; a part of the code (`PARTS`) by the square root of how many faults it has room for, so that small parts have
their turn. What survives is looked at by hand: some faults are equivalent. Wants what the tests want, and takes about
half a minute for each fault that is caught, some minutes for each that is not.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import queue
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = (
    "importers",
    "eventsim/dvs",
    "eventsim/datasets",
    "eventsim/report",
    "eventsim/preparation.py",
    "eventsim/cli",
    "eventsim/accounting/conventions",
    "eventsim/accounting",
    "eventsim/result.py",
    "eventsim/modelfile.py",
    "eventsim/feeding.py",
)
DOOR = ["test_user_numbers", "test_user_output", "test_cli", "test_dvs_command_line"]
TESTS = {
    "importers/eventsim_importers/reading": ["test_importing", "test_user_*", "test_importer_plugins"],
    "importers/eventsim_importers/torch_program": ["test_torch_loops", "test_torch_program", "test_torch_*"],
    "importers": ["test_importing", "test_importer_contract"],
    "eventsim/dvs": ["test_dvs_*", "test_user_output", "test_cli"],
    "eventsim/datasets": ["test_data_sets", *DOOR, "test_dvs_tonic"],
    "eventsim/report": [*DOOR, "test_conventions_said"],
    "eventsim/accounting/conventions": ["test_conventions", "test_conventions_said", "test_published_numbers", *DOOR],
    "eventsim/accounting": ["test_energy", "test_price_files"],
    "eventsim/result.py": [*DOOR, "test_simulator", "test_conventions"],
    "eventsim/modelfile.py": ["test_modelfile", "test_layer_plugins", *DOOR],
    "eventsim/feeding.py": ["test_simulator", *DOOR],
    "eventsim": DOOR,
}
"""Files or folders, the longest first that fits, and the tests to try first; an importer's own come before them."""
SECONDS = 900


@dataclass(frozen=True)
class Fault:
    """Bytes of a file and what to put in their place."""

    path: str
    line: int
    start: int
    end: int
    old: str
    new: str

    def __str__(self) -> str:
        old, new = (" ".join(text.split()) for text in (self.old, self.new))
        same = next((at for at, pair in enumerate(zip(old, new.lstrip("("), strict=False)) if len(set(pair)) > 1), 0)
        first = max(0, same - 40)
        old, new = (f"{'...' * bool(first)}{text[first : same + 50]}" for text in (old, new))
        return f"{self.path}:{self.line} `{old}` -> `{new}`".replace("|", "\\|")


Found = Iterator[tuple[ast.AST, str]]

COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}


def changed(node: ast.AST, **fields: object) -> str:
    """Return the source of a node with other fields; in brackets, so that it fits wherever the node stood."""
    twin = copy.copy(node)
    for name, value in fields.items():
        setattr(twin, name, value)
    return ast.unparse(twin) if isinstance(node, ast.stmt) else f"({ast.unparse(twin)})"


def comparison(node: ast.AST) -> Found:
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            ops = [*node.ops[:index], COMPARISONS[type(operator)](), *node.ops[index + 1 :]]
            yield node, changed(node, ops=ops)


def arithmetic(node: ast.AST) -> Found:
    if isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in ARITHMETIC:
        yield node, changed(node, op=ARITHMETIC[type(node.op)]())


def condition(node: ast.AST) -> Found:
    tests = [node.test] if isinstance(node, (ast.If, ast.While, ast.IfExp)) else []
    for test in tests + (node.ifs if isinstance(node, ast.comprehension) else []):
        yield test, f"(not ({ast.unparse(test)}))"


def boolean(node: ast.AST) -> Found:
    if isinstance(node, ast.BoolOp):
        yield node, changed(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node, f"({ast.unparse(node.operand)})"


def constant(node: ast.AST) -> Found:
    if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
        if isinstance(node.value, bool):
            yield node, str(not node.value)
        else:
            yield node, repr(node.value + 1)
            yield node, f"({node.value - 1!r})"


def default(node: ast.AST) -> Found:
    values: list[ast.expr | None] = []
    if isinstance(node, ast.arguments):
        values = [*node.defaults, *node.kw_defaults]
    if isinstance(node, ast.ClassDef):
        values = [item.value for item in node.body if isinstance(item, ast.AnnAssign)]
    for value in values:
        if value is not None:
            yield from constant(value)
            yield from text(value)


def statement(node: ast.AST) -> Found:
    removable = isinstance(node, (ast.Expr, ast.AugAssign, ast.Raise, ast.Continue, ast.Delete))
    if isinstance(node, ast.Assign):
        removable = isinstance(node.targets[0], (ast.Attribute, ast.Subscript))
    if removable:
        yield node, "pass"


def arguments(node: ast.AST) -> Found:
    if isinstance(node, ast.Call) and ast.unparse(node.func) not in ("isinstance", "issubclass", "max", "min"):
        for index, (first, second) in enumerate(zip(node.args, node.args[1:], strict=False)):
            starred = isinstance(first, ast.Starred) or isinstance(second, ast.Starred)
            if not starred and ast.dump(first) != ast.dump(second):
                yield node, changed(node, args=[*node.args[:index], second, first, *node.args[index + 2 :]])


def text(node: ast.AST) -> Found:
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
        yield node, repr(node.value + ("x" if isinstance(node.value, str) else b"x")) if node.value else repr("x")


def layout(node: ast.AST) -> Found:
    """What f-strings do with numbers: decimals, commas, and the factor before them."""
    if isinstance(node, ast.JoinedStr):
        source = ast.unparse(node)
        for found in re.finditer(r":\.\d|:,|\b1000\.0", source):
            other = {":,": ":", "1000.0": "100.0"}.get(found[0], found[0][:-1] + "9")
            yield node, source[: found.start()] + other + source[found.end() :]


OPERATORS: tuple[Callable[[ast.AST], Found], ...] = (
    comparison, arithmetic, condition, boolean, constant, default, statement, arguments, text, layout,
)  # fmt: skip


def left_alone(tree: ast.AST) -> set[int]:
    """Find annotations, decorators, docstrings, aliases of types, and what stands within an f-string."""
    alone: set[int] = set()

    def leave(*nodes: ast.AST | None) -> None:
        for node in nodes:
            alone.update(id(part) for part in ast.walk(node or ast.Pass()))

    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign):
            leave(node.annotation, node if ast.unparse(node.annotation) == "TypeAlias" else None)
        elif isinstance(node, ast.arg):
            leave(node.annotation)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            leave(getattr(node, "returns", None), *node.decorator_list)
        elif (
            (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
            or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__")
            or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        ):
            leave(node)
        elif isinstance(node, ast.JoinedStr):  # Python 3.11 does not know where these are
            leave(*ast.iter_child_nodes(node))
    return alone


def faults_of(path: str, operator: Callable[[ast.AST], Found]) -> Iterator[Fault]:
    """Yield all that an operator finds in a file, in order."""
    source = (ROOT / path).read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    tree = ast.parse(source)
    alone = left_alone(tree)
    for node in ast.walk(tree):
        if id(node) in alone:
            continue
        for target, new in operator(node):
            start = starts[target.lineno - 1] + target.col_offset
            end = starts[target.end_lineno - 1] + target.end_col_offset
            yield Fault(path, target.lineno, start, end, source[start:end].decode(), new)


def draw(number: int, seed: int) -> list[Fault]:
    """Draw faults, each at most once."""
    rng = random.Random(seed)
    tracked = git("ls-files", *PARTS)
    files = [path for path in tracked if path.endswith(".py")]
    room = {
        operator: {
            part: [fault for path in files if path.startswith(part) for fault in faults_of(path, operator)]
            for part in PARTS
        }
        for operator in OPERATORS
    }
    drawn: list[Fault] = []
    while len(drawn) < number:
        parts = room[rng.choice(OPERATORS)]
        (part,) = rng.choices(list(parts), [len(found) ** 0.5 for found in parts.values()])
        fault = rng.choice(parts[part])
        if fault not in drawn:
            drawn.append(fault)
    return drawn


def git(*arguments: str) -> list[str]:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def tests_for(tree: Path, fault: Fault) -> list[str]:
    """Return the tests to try first."""
    (first,) = [tests for key, tests in sorted(TESTS.items(), reverse=True) if fault.path.startswith(key)][:1]
    own = f"test_{Path(fault.path).stem}"
    found = [path for name in (own, *first) for path in sorted(tree.glob(f"tests/{name}.py"))]
    return list(dict.fromkeys(str(path.relative_to(tree)) for path in found))


def killer(tree: Path, tests: list[str]) -> str | None:
    """Run tests up to the first that fails; return its name, None if all pass."""
    env = {**os.environ, "PYTHONPATH": f"{tree}:{tree / 'importers'}", "PYTHONDONTWRITEBYTECODE": "1"}
    env = {"HYPOTHESIS_PROFILE": "quick", "OMP_NUM_THREADS": "1", **env}
    command = [sys.executable, "-m", "pytest", "-xq", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"no end within {SECONDS} s"
    if done.returncode == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return found[1] if found else f"exit code {done.returncode}"


def fate(tree: Path, fault: Fault) -> str:
    """Make a fault in a copy, and return what notices it."""
    file = tree / fault.path
    whole = file.read_bytes()
    file.write_bytes(whole[: fault.start] + fault.new.encode() + whole[fault.end :])
    try:
        first = tests_for(tree, fault)
        rest = sorted(str(path.relative_to(tree)) for path in tree.glob("tests/test_*.py"))
        noticed = killer(tree, first) or killer(tree, [test for test in rest if test not in first])
        return f"killed: {noticed.removeprefix('tests/')}" if noticed else "SURVIVED"
    finally:
        file.write_bytes(whole)
        shutil.rmtree(tree / ".hypothesis", ignore_errors=True)  # what failed for one fault is not tried on the next


def copied(folder: Path) -> Path:
    """Copy the tracked files, and compile the kernels once."""
    for path in git("ls-files"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, folder / path)
    if noticed := killer(folder, [f"tests/{name}.py" for name in DOOR]):
        raise SystemExit(f"without any fault, {noticed} fails")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--draw", type=int, default=60, metavar="N")
    parser.add_argument("--run", action="store_true", help="try them; else they are only listed")
    parser.add_argument("--only", default="", metavar="I,J,...", help="numbers of those to try")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    faults = dict(enumerate(draw(args.draw, args.seed), 1))
    if args.only:
        faults = {int(number): faults[int(number)] for number in args.only.split(",")}
    if not args.run:
        for number, fault in faults.items():
            print(f"| {number} | {fault} |")
        return
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.jobs) as pool:
        trees: queue.Queue[Path] = queue.Queue()
        for job in range(args.jobs):
            trees.put(copied(Path(folder) / str(job)))

        def attempt(number: int) -> None:
            tree = trees.get()
            print(f"| {number} | {faults[number]} | {fate(tree, faults[number])} |", flush=True)
            trees.put(tree)

        list(pool.map(attempt, faults))


if __name__ == "__main__":
    main()
