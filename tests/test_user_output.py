"""What commands print and write, as users and their programs read it."""

from __future__ import annotations

import csv
import itertools
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from state_dicts import spikformer_state

from eventsim import InputError, NetworkBuilder, Simulator, import_checkpoint, load, save
from eventsim.cli import main
from eventsim.layers import IF, Flatten, Input, Linear, MeanOverTime, Readout, SoftmaxAttention
from eventsim.settings import Setting

F = np.float32


@pytest.fixture
def call(capsys):
    """Return exit code, stdout and stderr of a command."""

    def run(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def spiking(tmp_path):
    """Three inputs, four neurons that fire where at least one of the inputs does; and two steps of frames."""
    build = NetworkBuilder("spiking")
    x = build.add("input", Input((3,), "binary"))
    x = build.add("linear", Linear(np.ones((4, 3), F)), x)
    build.add("readout", Readout("sum"), build.add("neurons", IF(), x))
    save(build.build(), tmp_path / "spiking.h5")
    np.save(tmp_path / "frames.npy", np.array([[1, 0, 1], [0, 0, 0]], F))
    return tmp_path / "spiking.h5", tmp_path / "frames.npy"


@pytest.fixture
def coloured(tmp_path):
    """A network that takes one pixel; and a picture of one."""
    build = NetworkBuilder("coloured")
    x = build.add("input", Input((3, 1, 1), "real"))
    build.add("readout", Readout(), build.add("flatten", Flatten(), x))
    save(build.build(time_steps=1), tmp_path / "coloured.h5")
    Image.new("RGB", (1, 1)).save(tmp_path / "a.png")
    return tmp_path / "coloured.h5", tmp_path / "a.png"


def test_rows_are_one_line_for_each_input_and_layer(call, spiking, tmp_path):
    network, frames = spiking
    assert call("run", network, frames, frames, "--rows", tmp_path / "r.csv")[0] == 0
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["input"] for row in rows] == 8 * [str(frames)]
    assert [row["name"] for row in rows] == 2 * ["input", "linear", "neurons", "readout"]
    # two spikes, each served to four neurons
    assert [int(row["acs"]) for row in rows] == 2 * [0, 8, 0, 0]
    assert [int(row["spikes"]) for row in rows] == 2 * [0, 0, 4, 0]


def test_rows_that_cannot_be_written_lose_nothing_that_was_computed(call, spiking, tmp_path):
    code, out, err = call("run", *spiking, "--rows", tmp_path / "absent/r.csv", "--json")
    document = json.loads(out)
    assert code == 2
    assert len(document["samples"]) == 1
    assert [failure["input"] for failure in document["failed"]] == [str(tmp_path / "absent/r.csv")]
    assert err.count("\n") == 1 and "absent/r.csv: cannot be written" in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--std", "1,0,1"], "std of 1.0, 0.0, 1.0 found; expected numbers above 0"),
        (["--std", "1,1"], "std of 2 values found; the model takes 3 channels"),
        (["--mean", "1"], "mean of 1 values found; the model takes 3 channels"),
        (["--mean", "nan,0,0"], "expected finite numbers"),
    ],
)
def test_normalisation_that_makes_no_sense_is_one_line(call, coloured, options, words):
    code, out, err = call("run", *coloured, *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


def table(text):
    """Return the rows of a printed table by their first column; each maps headings to cells."""
    lines = [line.strip() for line in text.splitlines()]
    heads, rows = ([map(str.strip, line[1:-1].split(mark)) for line in lines if line[:1] == mark] for mark in "┃│")
    headings = [" ".join(filter(None, words)) for words in zip(*heads, strict=True)]
    return {name: dict(zip(headings[1:], values, strict=True)) for name, *values in rows}


@pytest.fixture
def clock(monkeypatch):
    """A clock of the simulation that is 1.25 ms later each time it is read."""
    reads = itertools.count()
    monkeypatch.setattr("eventsim.run.time", SimpleNamespace(perf_counter=lambda: next(reads) * 1.25e-3))


def test_the_table_of_a_profile(call, spiking, clock):
    # two spikes of six inputs, each served to four neurons; all of these fire in the first step and are added up
    code, out, _ = call("profile", *spiking)
    assert code == 0
    rows = table(out)
    nothing = dict.fromkeys(("rate", "density", "dense MACs", "acs", "neuron updates", "spikes", "additions"), "")
    assert rows == {
        "input": {**nothing, "kernel": "list_frames", "ms": "1.25"},
        "linear": {**nothing, "kernel": "gather", "density": "33.3%", "dense MACs": "24", "acs": "8", "ms": "1.25"},
        "neurons": {**nothing, "kernel": "fire", "rate": "50.0%", "neuron updates": "8", "spikes": "4", "ms": "1.25"},
        "readout": {**nothing, "kernel": "readout", "additions": "4", "ms": "1.25"},
        "total": {
            "kernel": "",
            "rate": "50.0%",
            "density": "33.3%",
            "dense MACs": "24",
            "acs": "8",
            "neuron updates": "8",
            "spikes": "4",
            "additions": "4",
            "ms": "5.00",
        },
    }
    # the clock is read before and after the chunk, and before and after each of four layers
    assert "prediction 0  " in out
    assert "2 time steps in 11.2 ms, 4 spikes, 8 synaptic operations (33.3 % of 24 dense MACs)" in out


def test_the_times_of_a_document(call, spiking, clock):
    (sample,) = json.loads(call("run", *spiking, "--chunk", 1, "--json")[1])["samples"]
    # in each step: nine intervals from the first to the last of ten readings
    assert sample["step_latency_s"] == pytest.approx([9 * 1.25e-3] * 2)
    assert sample["latency_s"] == pytest.approx(18 * 1.25e-3)
    assert [layer["seconds"] for layer in sample["layers"]] == pytest.approx([2 * 1.25e-3] * 4)
    assert sample["totals"]["seconds"] == pytest.approx(8 * 1.25e-3)
    assert (sample["totals"]["firing_rate"], sample["totals"]["neurons"]) == (0.5, 4)


def test_the_table_of_a_network(call, tmp_path):
    build = NetworkBuilder("large")
    x = build.add("input", Input((2, 3, 5), "graded"))
    x = build.add("flatten", Flatten(), x)
    x = build.add("linear", Linear(np.ones((100, 30), F), np.ones(100, F)), x)
    build.add("readout", Readout("sum"), build.add("neurons", IF(), x))
    network = build.build(time_steps=7, settings=(Setting("[bold]heads", 1, "assumed", "the default"),))
    save(network, tmp_path / "m.h5")
    code, out, _ = call("info", tmp_path / "m.h5")
    assert code == 0
    rows = table(out)
    assert [tuple(row.values()) for row in rows.values()] == [
        ("Input", "graded 2x3x5", "", "", ""),
        ("Flatten", "graded 30", "", "", ""),
        ("Linear", "real 100", "3,100", "", "3,000"),
        ("IF", "binary 100", "", "100", ""),
        ("Readout", "real 100", "", "", ""),
        ("", "", "3,100", "100", "3,000"),
    ]
    assert list(rows) == ["input", "flatten", "linear", "neurons", "readout", "total"]
    assert out.splitlines()[0].strip() == "large"
    assert out.splitlines()[-2:] == ["time steps: 7", "assumed: [bold]heads = 1: the default"]


def test_what_events_tells_in_words(call, tmp_path):
    events = np.zeros(1500, [("x", "<i2"), ("y", "<i2"), ("t", "<i8"), ("p", "?")])
    events["t"], events["x"], events["p"][:1200] = np.arange(1500) * 1000 + 2000, np.arange(1500) % 10, True
    np.save(tmp_path / "a.npy", events)
    code, out, _ = call("events", tmp_path / "a.npy")
    assert code == 0
    said = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert said == {
        "file": str(tmp_path / "a.npy"),
        "format": "npy",
        "events": "1,500",
        "on_events": "1,200",
        "off_events": "300",
        "first_us": "2,000",
        "last_us": "1,501,000",
        "duration_us": "1,499,000",
        "width": "10",
        "height": "1",
        "x_range": "(0, 9)",
        "y_range": "(0, 0)",
        "out_of_order": "0",
        "steps_back": "0",
        "largest_lag_us": "0",
        "wraps": "0",
        "damage": "None",
        "sensor": "guessed",
    }
    assert "events          1,500" in out  # one below the other


def test_an_evaluation_in_words(call, tmp_path, clock):
    build = NetworkBuilder("same")
    x = build.add("linear", Linear(np.ones((1000, 2), F) / 2), build.add("input", Input((2,), "binary")))
    build.add("readout", Readout(), x)
    save(build.build(), tmp_path / "m.h5")
    for label in (0, 0, 1):  # every logit is the same, so class 0 is predicted
        (tmp_path / "data" / str(label)).mkdir(parents=True, exist_ok=True)
        name = f"{len(list((tmp_path / 'data' / str(label)).iterdir()))}.npy"
        np.save(tmp_path / "data" / str(label) / name, np.ones((1, 2), F))
    code, out, _ = call("evaluate", tmp_path / "m.h5", tmp_path / "data")
    assert code == 0
    lines = [line.strip()[1:-1].split("│") for line in out.splitlines() if "│" in line]
    summary = lines[: next(n for n, cells in enumerate(lines) if len(cells) > 2)]
    found = {name.strip(): value.strip() for name, value in summary}
    assert re.fullmatch(r"-?[\d.]+ ms", found.pop("reading per sample"))  # what the faked clock leaves of it
    assert re.fullmatch(r"mean [\d.]+ ms, p50 [\d.]+ ms, p90 .* ms, worst [\d.]+ ms", found.pop("binning"))
    assert [[cell.strip() for cell in cells] for cells in lines if len(cells) == 4] == [
        ["0", "2", "", "100.0%"],
        ["1", "1", "", "0.0%"],
    ]
    linear = next(cells for cells in lines if cells[0].strip() == "linear")
    assert [cell.strip() for cell in linear] == ["linear", "", "100.00%", "2,000", "2,000", "100.0 %"]
    assert found == {
        "accuracy": "66.67% (2 of 3)",
        "failed": "0",
        # eight readings of the clock: seven intervals; the third sample is played, in one
        "latency": "mean 6.3 ms, p50 8.8 ms, p90 8.8 ms, p95 8.8 ms, p99 8.8 ms, worst 8.8 ms",
        "lead of the largest logit": "mean 0 +- 0, right 0, wrong 0, smallest 0",
        "first right": "in step 0.00 on average, of 2 samples",
        "decided": "in step 0.00 on average",
        "accuracy by step": "66.7%",
        "dense MACs per sample": "2,000",
        "executed per sample": "2,000 (100.0 %)",
        "acs per sample": "2,000",
        # 2,000 x 0.9 pJ
        "energy, 45nm_mac": "1.8e-06 mJ (compute 1.8e-06, memory 0); without a price: 2,000 weight reads, "
        "2,000 sum reads, 2,000 sum writes and 3 more",
        # 2,000 x 0.1 pJ; as much for addresses, and of 8,000 bytes 2,000 weights at 9.765625 pJ, of 4,000 bytes 4,000
        # sums and 2 addresses at 4.8828125 pJ
        "energy, lemaire2022": "3.95e-05 mJ (compute 2e-07, memory 3.93e-05)",
        # 2,000 x 23.6 pJ
        "energy, loihi_active": "4.72e-05 mJ (compute 4.72e-05, memory 0); without a price: 1,000 value writes, "
        "2 messages, 2 index reads",
    }
    (tmp_path / "data" / "1" / "0.npy").write_bytes(b"nothing")
    code, out, _ = call("evaluate", tmp_path / "m.h5", tmp_path / "data", "--json")
    assert code == 1
    document = json.loads(out)
    assert (document["samples"], document["correct"], document["accuracy"]) == (2, 2, 1)
    assert [layer["acs"] for layer in document["layers"]] == [0, 2000, 0]
    assert document["totals"]["acs"] == 4000


def test_a_result_in_one_line(tmp_path, clock):
    build = NetworkBuilder("large")
    x = build.add("linear", Linear(np.ones((2000, 1000), F)), build.add("input", Input((1000,), "binary")))
    build.add("readout", Readout("sum"), build.add("neurons", IF(), x))
    frames = np.array([[1] * 1000, [1] * 500 + [0] * 500], F)
    result = Simulator(build.build()).run(frames)
    words = "prediction 0, 2 time steps, 4,000 spikes, 3,000,000 of 4,000,000 dense MACs, 11.2 ms"
    assert repr(result) == f"Result({words})"


@pytest.mark.parametrize("shape", [(3,), (3, 1, 1), (1, 4)])
def test_recordings_need_two_polarities(call, tmp_path, shape):
    build = NetworkBuilder("odd")
    x = build.add("flatten", Flatten(), build.add("input", Input(shape, "real")))
    build.add("readout", Readout(), x)
    save(build.build(time_steps=1), tmp_path / "m.h5")
    events = np.zeros(5, [("x", "<i2"), ("y", "<i2"), ("t", "<i8"), ("p", "?")])
    np.save(tmp_path / "a.npy", events)
    code, out, err = call("run", tmp_path / "m.h5", tmp_path / "a.npy")
    assert (code, out) == (2, "")
    assert err == f"eventsim: network odd takes {shape}; recordings need an input of 2 x height x width\n"


def test_integers_of_a_checkpoint_have_32_bits(tmp_path):
    state = spikformer_state("cifar", depth=1)
    table = np.zeros((2, 17), np.int64)  # two heads of 16 channels
    windows = {f"block.0.attn.tasa.{part}.{name}": np.array(1) for part in "qkv" for name in ("d", "taw")}

    def imported(value):
        table[1, 3] = value
        np.savez(tmp_path / "c.npz", **state, **windows, **{"block.0.attn.nsad.table": table})
        return import_checkpoint(tmp_path / "c.npz", height=16, width=16)

    for value in (2**31 - 1, 1 - 2**31):
        save(imported(value), tmp_path / "m.h5")
        assert load(tmp_path / "m.h5").layers["block.0.attn"].table[1].tolist() == [0, 0, 0, value, *[0] * 13]
    for value in (2**31, -(2**31)):
        with pytest.raises(
            InputError, match=r"tensor block\.0\.attn\.nsad\.table .* expected integers of up to 32 bits"
        ):
            imported(value)


def test_attention_over_time_runs_where_the_model_does_not_say_how_many_steps(call, tmp_path):
    build = NetworkBuilder("ahead")
    x = build.add("attention", SoftmaxAttention(1, "time", 3), build.add("input", Input((1, 6), "real")))
    build.add("readout", Readout(), build.add("mean", MeanOverTime(), build.add("flatten", Flatten(), x)))
    save(build.build(time_steps=None), tmp_path / "m.h5")
    # q = k = 0, so that every step sees the mean of the values: (1, 2), (3, 4), (5, 6)
    np.save(tmp_path / "a.npy", np.array([[[0, 0, 0, 0, 1 + 2 * t, 2 + 2 * t]] for t in range(3)], F))
    code, out, _ = call("run", tmp_path / "m.h5", tmp_path / "a.npy", "--json")
    assert code == 0
    assert json.loads(out)["samples"][0]["logits"] == pytest.approx([3, 4])


def test_an_import_in_words(call, tmp_path):
    state = spikformer_state("cifar", dim=64, depth=1)
    np.savez(tmp_path / "c.npz", **state)
    model = tmp_path / "m.h5"
    options = ["--set", "heads=4", "--set", "height=32", "--set", "width=32", "--set", "time_steps=2"]
    code, out, _ = call("import", tmp_path / "c.npz", "-o", model, *options)
    assert code == 0
    # weights, and a bias for each of their outputs: its own, or that of the normalisation
    weights = [array for name, array in state.items() if re.search(r"(_conv\d?|_linear|head)\.weight$", name)]
    ours = sum(array.size + len(array) for array in weights)
    theirs = sum(array.size for name, array in state.items() if "running" not in name and "num_batches" not in name)
    assert min(ours, theirs) > 1000
    first, steps, *said, last = out.splitlines()
    layers = len(load(model).layers)
    words = f"{layers} layers, parameters: {ours:,} of {theirs:,} in the checkpoint"
    assert first == f"recognised Spikformer cifar 1-64: {words}"
    assert (steps, last) == ("time steps: 2", f"wrote {model}")
    assert {"option: heads = 4", "option: height = 32", "option: width = 32", "option: time_steps = 2"} <= set(said)
    assert "assumed: v_threshold = 1.0: not found in the checkpoint, the default" in said


@pytest.mark.parametrize("heads", [0, -1, 3])
def test_heads_that_do_not_divide_the_width_are_refused(call, tmp_path, heads):
    np.savez(tmp_path / "c.npz", **spikformer_state("cifar", dim=64, depth=1))
    code, out, err = call("import", tmp_path / "c.npz", "-o", tmp_path / "m.h5", "--set", f"heads={heads}")
    assert (code, out) == (2, "")
    assert err == f"eventsim: {tmp_path / 'c.npz'}: heads={heads} found; expected a divisor of width 64\n"
    assert not (tmp_path / "m.h5").exists()


@pytest.mark.parametrize("kind", ["int32", "int64", "uint8", "bool", "float16", "float32", "float64"])
def test_frames_of_any_type_arrive_as_one_of_two(kind):
    """Kernels are compiled for two types, and would be compiled again for others."""
    seen = []

    class Watching:
        def on_layer(self, node, inputs, output, rows):
            seen.append(inputs[0])

    build = NetworkBuilder("frames")
    build.add("readout", Readout("sum"), build.add("input", Input((3,), "binary")))
    frames = np.array([[1, 0, 1], [1, 0, 0]]).astype(kind)
    result = Simulator(build.build(), observers=[Watching()]).run(frames)
    assert result.logits.tolist() == [2, 0, 1]
    assert seen[0].array.dtype == ("int32" if kind == "int32" else "float32")
