"""Price files: what may stand in them, and how the command line takes them."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventsim import InputError, NetworkBuilder, save
from eventsim.accounting.energy import MAIN, choose, load_prices, models
from eventsim.accounting.energy_model import Access, EnergyModel
from eventsim.accounting.price_file import parse_prices, read_prices
from eventsim.cli import main
from eventsim.facts import ROLES
from eventsim.layers import IF, Input, Linear, Readout
from eventsim.operations import OPERATIONS

HEAD = """\
name = "own"
source = "a data sheet"
unit = "pJ"
graded = "mac"
"""
WHOLE = (
    HEAD
    + """
note = "all that there may be"
included = ["spikes"]

[compute]
acs = 1
neuron_updates = 2.5

[memory]
messages = 3.0

[roles.linear]
included = ["index_reads"]

[roles.linear.compute]
acs = 4.0

[words]
weight_reads = "sram"
index_reads = { table = "sram", bytes = 64 }
potential_reads = "dram"

[tables.sram]
8 = [[0, 0.0], [1024, 5.0]]
32 = [[0, 1.0]]

[tables.dram]
per_bit = 20.0
"""
)


def test_a_price_file_is_read() -> None:
    model = parse_prices("own.toml", WHOLE.encode())
    assert (model.name, model.source, model.graded) == ("own", "a data sheet", "mac")
    assert (model.note, model.included) == ("all that there may be", {"spikes"})
    assert (model.compute, model.memory) == ({"acs": 1, "neuron_updates": 2.5}, {"messages": 3})
    assert model.section("compute", "linear") == {"acs": 4, "neuron_updates": 2.5}
    assert model.roles["linear"].included == {"index_reads"}
    points = {8: ((0, 0), (1024, 5)), 32: ((0, 1),)}
    assert model.words == {
        "weight_reads": Access(points),
        "index_reads": Access(points, size=64),
        "potential_reads": Access(per_bit=20),
    }


OPERATION = "an operation of eventsim.operations"
REFUSED = {
    "empty": ("", "no name found; expected name = a text"),
    "no source": (HEAD.replace("source", "# "), "no source found; expected source = a text"),
    "no unit": (HEAD.replace("unit", "# "), "no unit found; expected unit = 'pJ'"),
    "no reading": (HEAD.replace("graded", "# "), "no graded found; expected graded = a text"),
    "another unit": (HEAD.replace('"pJ"', '"nJ"'), "unit: 'nJ' found; expected 'pJ'"),
    "no bits": (
        "sum_bits = -1\n" + HEAD,
        "sum_bits: '-1' found; expected bits of the widest integer sum that is priced",
    ),
    "bits that are none": ("sum_bits = true\n" + HEAD, "sum_bits: 'True' found; expected bits"),
    "another reading": (HEAD.replace('"mac"', '"both"'), "graded: 'both' found; expected 'unary' or 'mac'"),
    "empty name": (HEAD.replace('"own"', '" "'), "name: ' ' found; expected a text"),
    "bad name": (HEAD.replace('"own"', '"my own"'), "name: 'my own' found; expected letters, digits, '_', '.' and '-'"),
    "no text": (HEAD.replace('"own"', "7"), "name: '7' found; expected a text"),
    "unknown key": (
        "prices = 1\n" + HEAD,
        "'prices' found; expected one of name, source, unit, graded, note, sum_bits, included, compute, memory, words",
    ),
    "negative": (HEAD + "compute.acs = -0.1", "compute.acs: '-0.1' found; expected picojoules from 0 to 1e+12"),
    "a joule and more": (
        HEAD + "memory.acs = 2e12",
        "memory.acs: '2000000000000.0' found; expected picojoules from 0 to",
    ),
    "not a number": (HEAD + "compute.acs = nan", "compute.acs: 'nan' found; expected a finite number"),
    "infinite": (HEAD + "compute.acs = -inf", "compute.acs: '-inf' found; expected a finite number"),
    "past all floats": (HEAD + f"compute.acs = 1{'0' * 400}", "compute.acs: '1000"),
    "a text": (HEAD + 'compute.acs = "0.9"', "compute.acs: '0.9' found; expected a number"),
    "a truth value": (HEAD + "compute.acs = true", "compute.acs: 'True' found; expected a number"),
    "no table": (HEAD + "compute = 1", "compute: '1' found; expected a table"),
    "unknown operation": (HEAD + "compute.mac = 1", f"compute: 'mac' found; expected {OPERATION}"),
    "an input": (
        HEAD + "compute.inputs = 1",
        "compute: 'inputs' found; expected work; that is what is offered, or what",
    ),
    "an alternative": (HEAD + "compute.window_products = 1", "compute: 'window_products' found; expected work; "),
    "the other reading": (
        HEAD + "compute.graded_acs = 1",
        "compute: 'graded_acs' found; expected graded_macs, as graded =",
    ),
    "charged twice": (
        HEAD + "compute.acs = 1\ncompute.coincidences = 1",
        "compute: prices of acs and coincidences found; expected one of them, as the work is the same",
    ),
    "charged twice in a role": (
        HEAD + "compute.neuron_updates = 1\nroles.neurons.compute.resets = 1",
        "roles.neurons.compute: prices of neuron_updates and resets found; expected one of them, as the work is the sa",
    ),
    "priced and included": (
        HEAD + 'included = ["acs"]\ncompute.acs = 1',
        "included: 'acs' found; expected operations without a price of their own",
    ),
    "the same in a role": (
        HEAD + 'roles.pool.included = ["acs"]\nroles.pool.memory.acs = 1',
        "roles.pool.included: 'acs' found; expected operations without a price of their own there",
    ),
    "included is no list": (HEAD + 'included = "acs"', "included: 'acs' found; expected a list of operations"),
    "included is unknown": (HEAD + "included = [1]", f"included: '1' found; expected {OPERATION}"),
    "unknown role": (HEAD + "roles.conv.compute.acs = 1", f"roles: 'conv' found; expected one of {', '.join(ROLES)}"),
    "a role is no table": (HEAD + "roles.pool = 1", "roles.pool: '1' found; expected a table"),
    "unknown part": (
        HEAD + "roles.pool.words.a = 1",
        "roles.pool: 'words' found; expected compute, memory or included",
    ),
    "no word": (HEAD + 'words.acs = "a"', "words: 'acs' found; expected one of weight_reads, bias_reads, sum_reads, "),
    "no such table": (
        HEAD + 'words.sum_reads = "a"',
        "words.sum_reads: 'a' found; expected a table under tables: there",
    ),
    "no size": (
        HEAD + 'words.sum_reads = { table = "a", size = 3 }',
        "words.sum_reads: 'size' found; expected table and bytes",
    ),
    "half a byte": (
        HEAD + 'words.sum_reads = { table = "a", bytes = 0.5 }\ntables.a.per_bit = 1',
        "words.sum_reads.bytes: '0.5' found; expected a whole number of bytes",
    ),
    "without bytes": (
        HEAD + 'words.sum_reads = { table = "a" }\ntables.a.per_bit = 1',
        "words.sum_reads.bytes: 'None' found; expected a number",
    ),
    "name of a table": (
        HEAD + 'tables."a\\nb".per_bit = 1',
        "tables: 'a\\nb' found; expected letters, digits, '_', '.'",
    ),
    "unused table": (
        HEAD + "tables.a.per_bit = 1",
        "tables: 'a' found; expected a table that an operation under words",
    ),
    "no access": (HEAD + "tables.a = {}", "tables.a: '{}' found; expected per_bit, or points by bits of an access"),
    "both": (HEAD + "tables.a = { per_bit = 1, 8 = [] }", "tables.a: 'per_bit, 8' found; expected per_bit alone"),
    "no width": (HEAD + "tables.a.wide = []", "tables.a: 'wide' found; expected bits of an access, or per_bit"),
    "no points": (HEAD + "tables.a.8 = []", "tables.a.8: '[]' found; expected a list of [bytes, picojoules]"),
    "no point": (HEAD + "tables.a.8 = [1]", "tables.a.8: '1' found; expected [bytes, picojoules]"),
    "no order": (
        HEAD + "tables.a.8 = [[0, 1], [0, 2]]",
        "tables.a.8: '[0, 2]' found; expected whole bytes from 0 on that ascend",
    ),
    "falling": (
        HEAD + "tables.a.8 = [[0, 2], [9, 1]]",
        "tables.a.8: '[9, 1]' found; expected whole bytes from 0 on that ascend",
    ),
    "steeper than a byte": (
        HEAD + "tables.a.8 = [[0, 0], [0.5, 1]]",
        "tables.a.8: '[0.5, 1]' found; expected whole bytes",
    ),
    "before nothing": (
        HEAD + "tables.a.8 = [[-1, 2]]",
        "tables.a.8: '[-1, 2]' found; expected whole bytes from 0 on that",
    ),
    "no TOML": ("name = ", "no TOML (Invalid value (at end of document)); expected a price file"),
    "deep": ("a = " + "[" * 100_000, "no TOML ("),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_price_file_is_refused_in_one_line(case: str) -> None:
    content, said = REFUSED[case]
    with pytest.raises(InputError) as caught:
        parse_prices("own.toml", content.encode())
    assert str(caught.value).startswith(f"own.toml: {said}")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent.toml: cannot be read \(No such file or directory\)$"):
        load_prices(tmp_path / "absent.toml")
    with pytest.raises(InputError, match=r"^a\x00.toml: cannot be read \(embedded null byte\)$"):
        load_prices("a\0.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(
        InputError, match=r"latin.toml: no TOML \('utf-8' codec can't decode byte 0xe9 .*expected a price"
    ):
        load_prices(tmp_path / "latin.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(InputError, match=r"large.toml: more than 1,048,576 bytes found; expected a price file$"):
        load_prices(tmp_path / "large.toml")


# --- whatever stands in a file, it is a model or one line

anything: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(list(OPERATIONS)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
SHIPPED = [file.read_bytes() for file in (resources.files("eventsim.accounting") / "prices").iterdir()]
VALID = [file.decode() for file in SHIPPED if b"name" in file]


def model_or_line(read: Any) -> None:
    try:
        model = read()
    except InputError as error:
        assert str(error).startswith("own.toml: ")
        assert "\n" not in str(error)
    else:
        assert isinstance(model, EnergyModel)
        assert all(0 <= price <= 1e12 for price in (*model.compute.values(), *model.memory.values()))


@given(st.sampled_from(VALID), st.data())
def test_damaged_files(content: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(content)))
    cut = data.draw(st.integers(0, 9))
    damaged = content[:at] + data.draw(st.text(max_size=9)) + content[at + cut :]
    model_or_line(lambda: parse_prices("own.toml", damaged.encode("utf-8", "surrogatepass")))


@given(st.binary(max_size=60))
def test_files_of_any_bytes(content: bytes) -> None:
    model_or_line(lambda: parse_prices("own.toml", content))


@given(st.data())
def test_tables_of_anything(data: st.DataObject) -> None:
    """One value anywhere in a document is anything that TOML, or more, can hold."""
    document: dict[str, Any] = {
        "name": "own", "source": "x", "unit": "pJ", "graded": "unary", "note": "", "included": ["spikes"],
        "compute": {"acs": 1}, "memory": {"acs": 1},
        "words": {"sum_reads": "a", "bias_reads": {"table": "a", "bytes": 1}},
        "tables": {"a": {"8": [[0, 1], [2, 3]]}}, "roles": {"linear": {"compute": {"acs": 1}, "included": ["spikes"]}},
    }  # fmt: skip
    read_prices("own.toml", document)
    inner: Any = document
    while True:
        key = data.draw(st.sampled_from(list(inner) if isinstance(inner, dict) else range(len(inner))))
        if not isinstance(inner[key], dict | list) or data.draw(st.booleans()):
            inner[key] = data.draw(anything)
            break
        inner = inner[key]
    model_or_line(lambda: read_prices("own.toml", document))


# --- the command line


@pytest.fixture
def network(tmp_path: Path) -> tuple[Path, Path]:
    """A model of two synapses that get one spike, and a recording of one step."""
    build = NetworkBuilder("small")
    x = build.add("linear", Linear(np.ones((2, 2), np.float32)), build.add("input", Input((2,), "binary")))
    build.add("readout", Readout(), build.add("neurons", IF(), x))
    save(build.build(), tmp_path / "m.h5")
    (tmp_path / "data" / "0").mkdir(parents=True)
    np.save(tmp_path / "data" / "0" / "a.npy", np.array([[1.0, 0.0]], np.float32))
    return tmp_path / "m.h5", tmp_path / "data" / "0" / "a.npy"


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(list(map(str, arguments)))
    return code, *capsys.readouterr()


def own(tmp_path: Path) -> Path:
    (tmp_path / "own.toml").write_text(HEAD + "compute.acs = 1000\nmemory.messages = 500\n")
    return tmp_path / "own.toml"


def energy_lines(out: str) -> dict[str, str]:
    lines = [line.strip("│ ").replace("│", ":") for line in out.splitlines()]
    told = [line.removeprefix("energy, ").split(":", 1) for line in lines if line.startswith("energy, ")]
    return {name.strip(): said.strip() for name, said in told}


@pytest.mark.parametrize("command", ["profile", "evaluate"])
def test_models_are_shown_as_chosen(
    command: str, network: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, recording = network
    source = recording if command == "profile" else recording.parents[1]
    assert tuple(energy_lines(call(capsys, command, model, source)[1])) == MAIN
    code, out, _ = call(capsys, command, model, source, "--energy", own(tmp_path), "--energy", "odin")
    assert code == 0
    shown = energy_lines(out)
    assert list(shown) == ["own", "odin"]
    # two synapses at 1000 pJ; the spike reaches the linear layer, and two spikes no layer that reads them
    assert shown["own"].startswith(
        "2.5e-06 mJ (compute 2e-06, memory 5e-07); without a price: 2 spikes, 2 neuron updates, "
    )
    assert shown["odin"].startswith("2.54e-08 mJ (compute 2.54e-08, memory 0); without a price:")


@pytest.mark.parametrize("command", ["run", "profile", "evaluate"])
def test_documents_hold_every_model_and_those_of_files(
    command: str, network: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, recording = network
    source = recording.parents[1] if command == "evaluate" else recording
    for flags, more in (((), set()), (("--energy", "odin"), set()), (("--energy", own(tmp_path)), {"own"})):
        document = json.loads(call(capsys, command, model, source, *flags, "--json")[1])
        document = document if command == "evaluate" else document["samples"][0]
        assert set(document["energy"]) == set(document["energy_mj"]) == set(models()) | more
    assert document["energy_mj"]["own"] == pytest.approx(2.5e-6)
    assert document["energy"]["own"]["by_operation"] == pytest.approx({"acs": 2e-6, "messages": 5e-7})
    assert document["energy"]["own"]["by_layer"] == pytest.approx({"linear": 2.5e-6})
    assert document["energy"]["own"]["unpriced"]["neuron_updates"] == 2


@pytest.mark.parametrize("command", ["run", "profile", "evaluate"])
def test_bad_prices_are_refused_before_anything_is_simulated(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.toml"
    for case in ("no unit", "negative", "not a number", "unknown operation", "no TOML"):
        content, said = REFUSED[case]
        bad.write_text(content)
        code, out, complaint = call(capsys, command, "absent.h5", "absent.npy", "--energy", bad)
        assert (code, out) == (2, "")
        assert complaint.startswith(f"eventsim: {bad}: {said}")
        assert complaint.count("\n") == 1
    code, _, complaint = call(capsys, command, "absent.h5", "absent.npy", "--energy", "45mn")
    assert code == 2
    names = ", ".join(models())
    assert complaint == f"eventsim: energy model '45mn' found; expected one of {names}, or a price file .toml\n"


def test_a_file_takes_no_name_that_there_is(tmp_path: Path) -> None:
    taken = tmp_path / "a.toml"
    taken.write_text(HEAD.replace('"own"', '"odin"'))
    said = rf"^{taken}: name 'odin' is taken; expected one that no other energy model has$"
    with pytest.raises(InputError, match=said):
        choose([str(taken)])
    one, other = own(tmp_path), tmp_path / "b.toml"
    other.write_text(one.read_text())
    with pytest.raises(InputError, match=r"b.toml: name 'own' is taken"):
        choose([str(one), str(other)])
    known, shown = choose([str(one), "odin", str(one), "odin"])
    assert shown == ("own", "odin")
    assert list(known) == [*models(), "own"]
    assert choose([]) == (dict(models()), MAIN)


def test_a_line_of_endless_keys_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text("a." * 400_000 + "b = 1\n")
    with pytest.raises(InputError, match=r"p\.toml: a line with 400,000 dots found; expected a price file"):
        load_prices(tmp_path / "p.toml")
