"""What people meet at a terminal: tables that fit, words that are nearly right, and names that cannot be written."""

from __future__ import annotations

import io
import json
import os
import re
import stat
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from eventsim import Network, NetworkBuilder, Simulator, load, save
from eventsim.accounting.energy import choose
from eventsim.cli.main import COMMANDS, _parser, main
from eventsim.cli.words import in_flags
from eventsim.dvs import EVENT_DTYPE, event_formats
from eventsim.errors import InputError
from eventsim.importing import formats
from eventsim.layers import IF, Conv2d, Flatten, Input, Linear, Readout
from eventsim.preparation_options import WindowKind
from eventsim.report import document, tables
from eventsim.report.fitting import BORDER, Column, fitting, print_table

F = np.float32
LONG = "stage.0.block.1.attention.projection"


def printed(width: int, *columns: Column, **options: object) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_table(console, columns, **options)
    return console.file.getvalue().splitlines()


names = st.text("abcdef.", min_size=1, max_size=30)


@given(data=st.data())
def test_columns_leave_by_rank_and_names_never(data: st.DataObject) -> None:
    width = data.draw(st.integers(20, 120))
    cells = st.lists(names, min_size=3, max_size=3)
    columns = [Column("layer", cells=data.draw(cells))]
    ranks = data.draw(st.permutations(range(1, data.draw(st.integers(1, 8)) + 1)))
    columns += [Column(f"c{rank}", rank, cells=data.draw(cells)) for rank in ranks]
    staying, leaving = fitting(columns, width)
    assert staying[0] is columns[0]
    assert [column for column in columns if column in staying] == staying
    assert sorted(column.rank for column in leaving) == list(range(len(staying), len(columns)))
    taken = sum(column.width for column in staying) + BORDER
    assert taken <= width or len(staying) == 1
    if leaving:
        assert taken + min(leaving, key=lambda column: column.rank).width > width
    lines = printed(width, *columns)
    for column in staying:
        assert all(any(cell in line for line in lines) for cell in column.cells), "whole, in one line"
    table = [line for line in lines if not line.startswith("no room for")]
    assert len({len(line) for line in table}) == 1, "nothing is folded"
    assert len(table[0]) == taken
    assert (len(table) < len(lines)) == bool(leaving)


def test_cells_of_several_lines_do_not_move_those_of_other_rows() -> None:
    columns = Column("name", right=False), Column("kind", right=False)
    rows = (("first\nsecond", "Linear"), ("lif", "LIF\n\nor IF"), ("", ""), ("readout", "Readout"))
    for cells in rows:
        for column, cell in zip(columns, cells, strict=True):
            column.cells.append(cell)
    *_, one, two, three, four, five, line, empty, last, _ = printed(80, *columns, sections=[0, 2, 4, 9])
    assert [
        [part.strip() for part in text.split("│")[1:-1]] for text in (one, two, three, four, five, empty, last)
    ] == [
        ["first", "Linear"],
        ["second", ""],
        ["lif", "LIF"],
        ["", ""],
        ["", "or IF"],
        ["", ""],
        ["readout", "Readout"],
    ]
    assert line.startswith("├")


def test_what_has_no_room_is_said_and_printed_when_asked_for() -> None:
    columns = Column("layer", cells=[LONG]), Column("dense\nMACs", 2, cells=["1,000"]), Column("acs", 1, cells=["10"])
    narrow, wide = printed(50, *columns), printed(50, *columns, everything=True)
    assert narrow[-1] == "no room for: dense MACs (--wide prints them, --json too)"
    assert not any("1,000" in line for line in narrow)
    assert any(LONG in line and "1,000" in line and "10" in line for line in wide)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    build = NetworkBuilder("terminal")
    x = build.add("input", Input((2, 8, 8)))
    x = build.add(LONG, Conv2d(rng.normal(size=(6, 2, 3, 3)).astype(F)), x)
    x = build.add(f"{LONG}.lif", IF(v_threshold=0.5), x)
    x = build.add("head", Linear(rng.normal(size=(3, 216)).astype(F)), build.add("flatten", Flatten(), x))
    build.add("readout", Readout(), x)
    path = tmp_path / "m.h5"
    save(build.build(time_steps=3), path)
    np.save(tmp_path / "x.npy", np.ones((3, 2, 8, 8), F))
    return path


@pytest.mark.parametrize("width", [80, 120])
def test_the_tables_of_a_profile_fit(width: int, model: Path) -> None:
    network = load(model)
    result = Simulator(network).run(np.ones((3, 2, 8, 8), F))
    models, _ = choose([])
    sample = document.sample_document("x", network, result, models) | {"latency": {"simulation_s": 0.1}}
    console = Console(file=io.StringIO(), width=width, color_system=None)
    tables._print_layers(console, sample, wide=False)
    tables.print_network(console, document.network_document("m.h5", network))
    lines = console.file.getvalue().splitlines()
    drawn = [line for line in lines if line and line[0] in "│┃┏┡├└"]
    assert drawn
    assert max(map(len, drawn)) <= width
    assert sum(f" {LONG}.lif " in line for line in drawn) == 2


def test_nothing_is_folded_or_left_out_in_a_pipe(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", str(model), str(model.with_name("x.npy")), "--conventions"]) == 0
    out = capsys.readouterr().out
    assert "no room" not in out
    assert all(heading in out for heading in ("kernel", "convention", "x executed"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["profil"], "'profil' found, no command; did you mean profile?; see eventsim --help"),
        (["xyzzy"], "'xyzzy' found, no command; expected one of demo, formats, import, info, export, run, profile, "),
        (
            ["run", "m.h5", "x.npy", "--thraeds=2"],
            "--thraeds=2 found, no option; did you mean --threads?; see eventsim run",
        ),
        (["run", "m.h5", "x.npy", "--zzz"], "--zzz found, no option; see eventsim run --help"),
        # also where an argument is missing, as the value of the option that was meant is
        (
            ["import", "x.npz", "--ouput", "o.h5"],
            "--ouput found, no option; did you mean --output?; see eventsim import",
        ),
        (["export", "m.h5", "--outptu=a.nir"], "--outptu=a.nir found, no option; did you mean --output?; see eventsim"),
        (["quantise", "m.h5", "R", "--ouptut", "q.h5"], "--ouptut found, no option; did you mean --output?; see"),
        (["run", "m.h5", "--jason"], "--jason found, no option; did you mean --json?; see eventsim run --help"),
        (["import", "-om.h5"], "the following arguments are required: CHECKPOINT; see eventsim import --help"),
        (["run", "--chunk=1", "--", "--jason"], "the following arguments are required: INPUT; see eventsim run --help"),
        (["events", "--start", "-5"], "the following arguments are required: FILE; see eventsim events --help"),
        (["run", "m.h5", "x.npy", "--rows", ""], "argument --rows: '' found, expected a name that ends in .csv; see"),
        (
            ["run", "m.h5", "x.npy", "--chunk="],
            "argument --chunk: '' found, expected a whole number of at least 1; see",
        ),
        (["run", "m.h5", "x.npy", "--window", ""], "argument --window: '' found, expected one of count, time, "),
        (["--versoin"], "--versoin found, no option; did you mean --version?; see eventsim --help"),
        (["--zzz", "run"], "--zzz found, no option; see eventsim --help"),
        (
            ["verify", "m.h5", "x.npy", "--limit", "5"],
            "--limit found, no option; see eventsim verify --help",
        ),  # and not --time-unit
        (["info", "m.h5", "two"], "two found behind what eventsim info takes; see eventsim info --help"),
        (
            ["run", "m.h5", "x.npy", "--window", "cuont"],
            "argument --window: cuont found, expected one of count, time, duration, tonic-count, tonic-time, "
            "tonic-duration, tonic-event-count, spikingjelly-duration; did you mean count?; see eventsim run --help",
        ),
        (["evaluate", "m.h5", "x", "--resume=yes"], "argument --resume: 'yes' found, expected no value; see eventsim"),
        (["formats", "spikfomer"], "format 'spikfomer' found, did you mean spikformer?"),
        (["events", "a.bin", "--start", "1e3"], "argument --start: 1e3 found, expected a whole number; see eventsim"),
        (["formats", "aedat5"], "format 'aedat5' found, did you mean aedat4?"),
        (["formats", "zzz"], "format 'zzz' found; expected one of ds2ta, nir, "),
    ],
)
def test_words_that_are_nearly_right(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(arguments)
    except SystemExit as left:
        code = left.code
    out, err = capsys.readouterr()
    assert code == 2
    assert not out
    assert err.startswith(f"eventsim: {said}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_argument_and_shows_an_example(name: str) -> None:
    (action,) = (action for action in _parser([name])._actions if action.choices)
    parser = action.choices[name]
    assert [action.dest for action in parser._actions if not action.help] == []
    says = [action.help for action in parser._actions]
    assert sorted(set(says)) == sorted(says)  # each says what it does, and not what several do
    assert "for example:\n  eventsim " + name in parser.format_help()
    for example in COMMANDS[name].examples:
        _parser([name]).parse_args([name, *example.split()])  # leaves where an example is wrong


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_the_terminal(name: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    parser = _parser([name])
    (action,) = (action for action in parser._actions if action.choices)
    said = (action.choices[name] if name else parser).format_help()
    assert max(map(len, said.splitlines())) <= width
    examples = said.partition("for example:\n")[2].replace("\\\n", " ")
    written = [" ".join(line.split()) for line in examples.splitlines()]
    assert written == [f"eventsim {name} {each}".rstrip() for each in (COMMANDS[name].examples if name else ())]


def test_help_names_every_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    (action,) = (action for action in _parser(["run"])._actions if action.choices)
    said = " ".join(action.choices["run"].format_help().split())
    assert f"--window NAME {', '.join(get_args(WindowKind))}: T frames " in said  # none is folded at its hyphens


@pytest.mark.parametrize("name", formats())
def test_every_option_of_a_format_is_explained(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["formats", name, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["options"]
    assert {"weights", "ignore", "window", "mean"} < set(told)
    assert [option for option, said in told.items() if not said["text"]] == []
    assert main(["formats", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    for option, said in told.items():
        at = lines.index(f"  {option} : {said['type']}")
        assert lines[at + 1].strip() == said["text"]
    assert lines[-1].startswith(f"for example: eventsim import FILE -o MODEL.h5 --format {name} --set ")


def test_event_formats_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["formats"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in (*formats(), *event_formats()))


# --- names that cannot be written


def test_what_is_no_file_is_not_replaced(model: Path, tmp_path: Path) -> None:
    network = load(model)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, found in ((tmp_path, "a folder"), (fifo, "no regular file")):
        with pytest.raises(InputError, match=f"{found} found; expected the name of a file to write"):
            save(network, path)
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo", "m.h5", "x.npy"]


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["run", "m.h5", "x.npy", "--record", "head", "-o", "d.npz"], "-o/--output"),
        (["run", "m.h5", "x.npy", "--rows", "d.csv"], "--rows"),
        (["profile", "m.h5", "x.npy", "--report", "d.html"], "--report"),
        (["evaluate", "m.h5", ".", "--rows", "d.csv"], "--rows"),
        (["evaluate", "m.h5", ".", "--rows", "d.parquet"], "--rows"),
        (["evaluate", "m.h5", ".", "--rows", "d.jsonl", "--resume"], "--rows"),
    ],
)
def test_a_folder_to_write_is_refused_before_the_work(
    arguments: list[str], option: str, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(model.parent)
    name = next(each for each in arguments if each.startswith("d."))
    Path(name).mkdir()
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    said = f"argument {option}: {name} found, a folder; expected the name of a file to write"
    assert capsys.readouterr() == ("", f"eventsim: {said}; see eventsim {arguments[0]} --help\n")


def test_suffixes_may_be_in_capitals(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = model.with_name("R.CSV")
    assert main(["profile", str(model), str(model.with_name("x.npy")), "--rows", str(rows)]) == 0
    assert rows.read_text().count("\n") == 7


def test_a_recording_without_a_suffix_is_read_when_its_format_is_named(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some formats have no first bytes of their own; where the name is lost, the message says how to go on."""
    recording = tmp_path / "recording"
    recording.write_bytes(b"".join(bytes([x % 6, x % 6, 128, 0, x]) for x in range(40)))
    assert main(["events", str(recording), "--json"]) == 2
    err = capsys.readouterr().err
    assert "pass --format bs2 or --format nmnist or --format text if" in err and err.count("\n") == 1
    assert main(["events", str(recording), "--format", "nmnist", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["events"] == 40


# --- words of this door


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "pass camera='dvs128' or 'davis' and sensor_size=(height, width)",
            "--camera dvs128 or davis and --sensor WID",
        ),
        ("choose fit='crop' or 'downscale' for", "choose --fit crop or downscale for"),
        ("pass disorder='sort', 'drop' or 'refuse'", "pass --disorder sort, drop or refuse"),
        ("a.b/fit='crop' or 'pad'", "a.b/fit='crop' or 'pad'"),
        ("lower time_steps=N, or NAME=N", "lower --time-steps N, or NAME=N"),
    ],
)
def test_values_to_choose_from_are_named_as_they_are_typed(message: str, said: str) -> None:
    assert said in in_flags(message)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ("--bin-us", "1"),
            "at most 1,000,000 of them; the times are corrupt, or choose longer ones, --bin-us 4 or more",
        ),
        (("--window", "time", "--time-steps", "5"), "lower the number of time steps, or pass --window count"),
        (
            ("--window", "count", "--bin-us", "5"),
            "expected --bin-us N with --window duration, tonic-duration or spikin",
        ),
        (("--window", "time", "--bin-events", "5"), "expected --bin-events N with --window tonic-event-count alone"),
        (
            ("--window", "duration", "--overlap", "5"),
            "expected --overlap N with --window tonic-duration or tonic-event",
        ),
        (
            ("--overlap", "5"),
            "--window count with --overlap 5 found; expected --overlap N with --window tonic-duration",
        ),
        (("--bin-us", "5", "--time-steps", "3"), "expected --bin-us alone (bin_us)"),
    ],
)
def test_windows_that_do_not_fit_are_told_in_flags(
    flags: tuple[str, ...], said: str, tmp_path: Path, small_network: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    events = np.zeros(8, EVENT_DTYPE)
    events["t"] = [0, 0, 0, 0, 0, 0, 0, 3_000_000 if flags[0] == "--bin-us" else 4]
    np.save(tmp_path / "r.npy", events)
    save(small_network, tmp_path / "m.h5")
    capsys.readouterr()
    assert main(["run", str(tmp_path / "m.h5"), str(tmp_path / "r.npy"), "--sensor", "6x6", *flags]) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "not as the model says" not in line)
    assert said in line
    words = re.sub(r"\((?:time_steps, )?bin_us\)", "", line.replace(str(tmp_path), ""))
    assert not re.search(r"max_bins|include_incomplete|\b[a-z]+_(?:us|events|steps)\b|\b(?:window|overlap)=", words)
