"""``run --record``, latencies and provenance: what others compare with, and where a document comes from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_array_equal
from reference.neurons import lif
from strategies import Drawn, networks

import eventsim
from eventsim import InputError, Network, NetworkBuilder, Simulator, cli, save
from eventsim.dvs import EVENT_DTYPE
from eventsim.layers import LIF, Conv2d, Flatten, Input, Linear, MeanOverTime, Readout, SoftmaxAttention
from eventsim.report.latency import latency_document, latency_line, spread
from eventsim.stopwatch import Stopwatch

F = np.float32


def answering() -> Network:
    """Logits in every time step, which change."""
    build = NetworkBuilder("answering")
    build.add("input", Input((3,), "real"))
    build.add("lif", LIF(), "input")
    build.add("head", Linear(np.eye(3, dtype=F)), "lif")
    build.add("readout", Readout(reduce="sum"), "head")
    return build.build(time_steps=4)


FRAMES = np.array([[0, 9, 0], [9, 0, 0], [9, 0, 0], [0, 0, 0]], F)


def ran(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any], str]:
    code = cli.main([*map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out), err


# --- potentials


@given(drawn=networks())
def test_potentials_are_those_after_the_reset(drawn: Drawn) -> None:
    neurons = [
        name
        for name, layer in drawn.network.layers.items()
        if type(layer) is LIF and layer.reset == "zero" and np.ndim(layer.v_threshold) == np.ndim(layer.tau) == 0
    ]
    if any(isinstance(layer, MeanOverTime) for layer in drawn.network.layers.values()):
        neurons = []
    result = Simulator(drawn.network, record=drawn.network.layers, potentials=neurons).run(drawn.frames)
    for name in neurons:
        layer = drawn.network.layers[name]
        (source,) = drawn.network.sources[name]
        x = result.recorded[source]
        options = {"v_threshold": layer.v_threshold, "strict": layer.strict, "decay_input": layer.decay_input}
        spikes, h = lif(x, layer.tau, **options)
        assert_array_equal(result.recorded[name], spikes)
        assert_array_equal(result.potentials[name], np.where(spikes == 1, 0, h))


def test_potentials_are_kept_step_by_step() -> None:
    network = answering()
    simulator = Simulator(network, potentials=["lif"])
    result = simulator.run(np.ones((3, 3)) * [0.5, 1.0, 0])
    assert_array_equal(result.potentials["lif"][:, 0], F([0.25, 0.375, 0.4375]))
    again = simulator.run(np.zeros((2, 3)))
    assert again.potentials["lif"].shape == (2, 3), "nothing is left of the sample before"
    stream = [simulator.step(np.ones(3)).potentials["lif"] for _ in range(2)]
    assert_array_equal(np.concatenate(stream)[:, 0], F([0.5, 0.75]))


def test_potentials_beside_a_layer_that_looks_ahead() -> None:
    build = NetworkBuilder("ahead")
    x = build.add("lif", LIF(), build.add("input", Input((1, 3), "real")))
    x = build.add("attention", SoftmaxAttention(1, axis="time", time_steps=3), x)
    build.add("readout", Readout("sum"), build.add("flatten", Flatten(), x))
    network = build.build(time_steps=3)
    frames = np.ones((3, 1, 3), F) * F([0.5, 2, 0])
    result = Simulator(network, record=["lif"], potentials=["lif"]).run(frames)
    assert_array_equal(result.potentials["lif"][:, 0], F([[0.25, 0, 0], [0.375, 0, 0], [0.4375, 0, 0]]))
    assert_array_equal(result.recorded["lif"][:, 0], F([[0, 1, 0]] * 3))
    assert result.totals == Simulator(network).run(frames).totals


@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_potentials_behind_a_mean_over_time_are_those_of_its_step(chunk: int | None) -> None:
    build = NetworkBuilder("behind")
    x = build.add("mean", MeanOverTime(), build.add("input", Input((2,), "real")))
    build.add("readout", Readout("sum"), build.add("lif", LIF(), x))
    result = Simulator(build.build(), chunk=chunk, potentials=["lif"]).run(np.ones((3, 2), F) / 2)
    assert_array_equal(result.potentials["lif"], F([[0.25, 0.25]]))


def test_potentials_of_what_has_none_are_refused() -> None:
    with pytest.raises(InputError, match="layer 'head': no neurons found in network answering"):
        Simulator(answering(), potentials=["head"])
    with pytest.raises(InputError, match="layer 'nowhere': no neurons found"):
        Simulator(answering(), potentials=["nowhere"])


# --- the file


def test_record_writes_spikes_and_potentials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, frames, out = tmp_path / "m.h5", tmp_path / "x.npy", tmp_path / "out.npz"
    save(answering(), model)
    np.save(frames, FRAMES)
    code, document, _ = ran(capsys, "run", model, frames, "--record", "lif,head", "-o", out)
    assert code == 0
    expected = Simulator(answering(), record=["lif", "head"], potentials=["lif"]).run(FRAMES)
    with np.load(out) as written:
        assert set(written) == {"lif", "lif:potential", "head", ":logits", ":step_logits"}
        assert_array_equal(written["lif"], expected.recorded["lif"])
        assert written["lif"].any()
        assert_array_equal(written["lif:potential"], expected.potentials["lif"])
        assert_array_equal(written["head"], expected.recorded["head"])
        assert_array_equal(written[":logits"], document["samples"][0]["logits"])
        assert_array_equal(written[":step_logits"], expected.step_logits)


def test_record_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, frames = tmp_path / "m.h5", tmp_path / "x.npy"
    save(answering(), model)
    np.save(frames, FRAMES)
    for arguments, said in (
        (["--record", "lif"], "one of --record and -o found; expected both"),
        (["-o", tmp_path / "o.npz"], "one of --record and -o found; expected both"),
        (["--record", "none", "-o", tmp_path / "o.npz"], "layer 'none' to record not found in network answering"),
        ([frames, "--record", "lif", "-o", tmp_path / "o.npz"], "2 inputs with --record found; expected one"),
    ):
        code, document, err = ran(capsys, "run", model, frames, *arguments)
        assert code == 2
        assert said in err
        assert said in document["error"]
    code, document, err = ran(capsys, "run", model, frames, "--record", "lif", "-o", tmp_path / "no" / "o.npz")
    assert (code, document["samples"][0]["prediction"]) == (2, 0), "what was computed is printed"
    assert "cannot be written" in err


# --- over time


def test_the_step_that_decided() -> None:
    """One of class 1 first, then two of class 0: equal after two steps, where the first index wins."""
    result = Simulator(answering()).run(FRAMES)
    assert_array_equal(result.step_logits, [[0, 1, 0], [1, 1, 0], [2, 1, 0], [2, 1, 0]])
    assert (result.prediction, result.decided_step) == (0, 1)
    assert [result.first_step_of(label) for label in range(3)] == [1, 0, None]
    assert Simulator(answering()).run(FRAMES[1:]).decided_step == 0
    for chunk in (1, 3):
        assert_array_equal(Simulator(answering(), chunk=chunk).run(FRAMES).step_logits, result.step_logits)


def test_behind_a_mean_no_step_decides() -> None:
    build = NetworkBuilder("late")
    build.add("input", Input((3,), "real"))
    build.add("mean", MeanOverTime(), "input")
    build.add("readout", Readout(), "mean")
    result = Simulator(build.build(time_steps=4)).run(FRAMES)
    assert result.step_logits.shape == (1, 3)
    assert result.decided_step is None
    assert result.first_step_of(0) is None


def test_a_stream_keeps_the_logits_of_its_last_chunk() -> None:
    simulator = Simulator(answering(), chunk=3)
    assert len(simulator.run(iter(FRAMES)).step_logits) == 1, "4 steps, 3 in the first chunk"


# --- latency


def test_latencies_are_those_of_the_chunks() -> None:
    result = Simulator(answering(), chunk=1).run(FRAMES)
    result.step_latency_s, result.latency_s = [4.0, 1.0, 1.0, 2.0], 8.0
    document = latency_document(result, 1.5, 0.5, bin_us=500_000, label=1)
    assert (document["reading_s"], document["preparation_s"]) == (1.5, 0.5)
    assert document["simulation_s"] == 8
    assert document["first_chunk_s"] == 4
    assert document["chunk_s"] == spread([1, 1, 2, 4])
    assert document["chunk_s"] == {"median": 1.5, "p95": pytest.approx(3.7), "p99": pytest.approx(3.94), "worst": 4}
    assert (document["decided_step"], document["decided_s"]) == (1, 5)
    assert (document["first_correct_step"], document["first_correct_s"]) == (0, 4)
    assert document["real_time"] == {"step_s": 0.5, "factor": 0.2}
    assert spread([]) == {}
    assert latency_line(document) == (
        "latency: reading 1500.0 ms, simulation 8000.0 ms; first of 4 chunks 4000.0 ms, median 1500.0 ms, "
        "p95 3700.0 ms, p99 3940.0 ms, worst 4000.0 ms; decided in step 1, 5000.0 ms; "
        "0.2 times as fast as the recording: it does not keep up"
    )
    whole = latency_document(Simulator(answering()).run(FRAMES), 0.0, 0.0, None)
    assert ";" not in latency_line(whole | {"decided_step": None, "simulation_s": 0.0})


def test_a_stopwatch_takes_the_time_of_an_iterator_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr("eventsim.stopwatch.time.perf_counter", lambda: next(clock))
    watch = Stopwatch()
    with watch:
        pass
    assert list(watch.timed(iter("ab"))) == ["a", "b"]
    assert watch.seconds == 4, "one for the block, one for each step, one for the end"


def test_bins_are_compared_with_the_time_they_cover(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = next((Path(eventsim.__file__).parent / "demo").glob("*.bin"))
    build = NetworkBuilder("camera")
    x = build.add("flatten", Flatten(), build.add("input", Input((2, 34, 34), "graded")))
    build.add("readout", Readout("sum"), build.add("head", Linear(np.ones((2, 2312), F)), x))
    save(build.build(), tmp_path / "m.h5")
    _, document, _ = ran(capsys, "run", tmp_path / "m.h5", recording, "--bin-us", "20000", "--chunk", "1")
    (sample,) = document["samples"]
    latency = sample["latency"]
    assert latency["real_time"]["step_s"] == 0.02
    spent = (latency["simulation_s"] + latency["reading_s"] + latency["preparation_s"]) / sample["time_steps"]
    assert latency["real_time"]["factor"] == pytest.approx(0.02 / spent)
    assert latency["reading_s"] > 0
    assert latency["chunks"] == sample["time_steps"] > 5


# --- provenance


def test_documents_say_where_they_come_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    build = NetworkBuilder("maps")
    x = build.add("conv", Conv2d(rng.normal(size=(2, 2, 3, 3)).astype(F)), build.add("input", Input((2, 4, 4))))
    build.add("readout", Readout(), build.add("flatten", Flatten(), x))
    model, frames = tmp_path / "m.h5", tmp_path / "x.npy"
    save(build.build(time_steps=3), model)
    np.save(frames, np.ones(9, EVENT_DTYPE))
    flags = ["--chunk", "2", "--threads", "3", "--flip-x", "--time-steps", "3", "--sensor", "4x4"]
    _, document, _ = ran(capsys, "profile", model, frames, *flags)
    whence = document["provenance"]
    assert whence["eventsim"] == eventsim.__version__
    assert whence["network"] == "maps"
    assert whence["model_sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert document["samples"][0]["input_sha256"] == hashlib.sha256(frames.read_bytes()).hexdigest()
    assert whence["options"] == {"chunk": 2, "threads": 3}
    assert whence["preparation"]["flip_x"] is True
    assert whence["preparation"]["time_steps"] == 3
    assert whence["cpu"]
