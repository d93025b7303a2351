"""Samples, outcomes and evaluations as plain data that can be sent elsewhere and added up."""

from __future__ import annotations

import io
import json
import pickle
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from eventsim import InputError, Network, NetworkBuilder, Preparation, Simulator, save
from eventsim.accounting.conventions import CONVENTIONS, estimates
from eventsim.accounting.energy import models
from eventsim.cli import main
from eventsim.datasets import Evaluation, Outcome, Sample, evaluate, labelled_files
from eventsim.layers import Input, Linear, Readout
from eventsim.report.evaluation import evaluation_document
from eventsim.report.evaluation_tables import _confusions, print_evaluation

F = np.float32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Frames of three classes, one file of them damaged."""
    rng = np.random.default_rng(0)
    for label in range(3):
        (tmp_path / str(label)).mkdir()
        for index in range(3):
            np.save(tmp_path / str(label) / f"{index}.npy", rng.integers(0, 3, (4, 2, 6, 6)))
    (tmp_path / "1" / "bad.npy").write_bytes(b"nothing")
    return tmp_path


def evaluated(network: Network, samples: list[Sample], threads: int = 1) -> tuple[list[Outcome], Evaluation]:
    outcomes = list(evaluate(Simulator(network, threads=threads), samples, Preparation()))
    evaluation = Evaluation()
    for outcome in outcomes:
        evaluation.take(outcome)
    return outcomes, evaluation


def without_times(network: Network, evaluation: Evaluation) -> dict:
    document = evaluation_document("m.h5", network, {}, 0.0, evaluation)
    assert len(evaluation.latencies_s) == len(evaluation.readings_s) == evaluation.samples
    return {key: value for key, value in document.items() if key not in ("latency_s", "binning_s", "reading_s")}


def test_parts_of_a_data_set_add_up(small_network: Network, folder: Path) -> None:
    samples = labelled_files(folder)
    _, whole = evaluated(small_network, samples)
    assert (whole.samples, len(whole.failed)) == (9, 1)
    for cut in (0, 1, 5, 10):
        merged = Evaluation()
        for part in (samples[:cut], samples[cut:]):
            merged.merge(pickle.loads(pickle.dumps(evaluated(small_network, part, threads=2)[1])))
        assert without_times(small_network, merged) == without_times(small_network, whole)


def test_samples_and_outcomes_are_plain_data(small_network: Network, folder: Path) -> None:
    samples = labelled_files(folder)
    assert pickle.loads(pickle.dumps(samples)) == samples
    assert json.dumps([asdict(sample) for sample in samples])
    outcomes, _ = evaluated(small_network, samples)
    again = Evaluation()
    for outcome in pickle.loads(pickle.dumps(outcomes)):
        again.take(outcome)
    assert again.totals.spikes > 0
    (failed,) = (outcome for outcome in outcomes if outcome.error)
    assert failed.sample.name.endswith("bad.npy")
    assert failed.prediction == -1
    assert not failed.layers


def test_means_over_the_samples(small_network: Network, folder: Path) -> None:
    """Layers, energies and conventions are means, totals are sums; derived from the single results."""
    samples = [sample for sample in labelled_files(folder) if "bad" not in sample.name]
    results = [Simulator(small_network).run(np.load(sample.name)) for sample in samples]
    document = evaluation_document("m.h5", small_network, {}, 0.0, evaluated(small_network, samples)[1])
    n = len(samples)
    assert document["correct"] == sum(r.prediction == s.label for r, s in zip(results, samples, strict=True))
    assert document["totals"]["graded_macs"] == sum(result.totals.graded_macs for result in results)
    lif = next(layer for layer in document["layers"] if layer["name"] == "lif")
    spikes = sum(result.totals.spikes for result in results)
    assert lif["spikes"] == spikes / n
    assert lif["firing_rate"] == pytest.approx(spikes / (n * 4 * 144))
    conv = next(layer for layer in document["layers"] if layer["name"] == "conv")
    assert conv["dense_macs"] == 4 * 36 * 4 * 2 * 9
    density = np.mean([np.count_nonzero(np.load(sample.name)) for sample in samples]) / (4 * 2 * 36)
    assert conv["input_density"] == pytest.approx(density)
    for name, model in models().items():
        each = [model.of(result.profile) for result in results]
        assert document["energy_mj"][name] == pytest.approx(np.mean([energy.total_mj for energy in each]))
        detailed = document["energy"][name]
        assert detailed["total_mj"] == document["energy_mj"][name]
        assert detailed["std_mj"] == pytest.approx(np.std([energy.total_mj for energy in each]))
        for part in ("compute_mj", "memory_mj"):
            assert detailed[part] == pytest.approx(np.mean([getattr(energy, part) for energy in each]))
        whole = sum(each[1:], each[0])
        assert detailed["by_layer"] == pytest.approx({layer: mj / n for layer, mj in whole.by_layer.items()})
        assert detailed["by_operation"] == pytest.approx({name: mj / n for name, mj in whole.by_operation.items()})
        assert detailed["unpriced"] == {name: executed / n for name, executed in whole.unpriced.items()}
    assert document["energy"]["45nm_unary"]["std_mj"] > 0
    counted = [estimates(result.profile) for result in results]
    assert document["conventions"].keys() == counted[0].keys() == CONVENTIONS.keys() - {"stformer"}
    for name, found in document["conventions"].items():
        assert found.pop("std_mj") == pytest.approx(np.std([each[name]["energy_mj"] for each in counted]))
        assert found == {key: pytest.approx(np.mean([each[name][key] for each in counted])) for key in found}
        assert found.keys() == counted[0][name].keys()


def test_a_label_that_is_no_class_is_refused(small_network: Network) -> None:
    with pytest.raises(InputError, match=r"^x: label 3 found; network small has 3 classes$"):
        list(evaluate(Simulator(small_network), [Sample("x", 3, "x")], Preparation()))


def test_the_first_step_that_was_right(tmp_path: Path) -> None:
    """Counts of spikes: class 1 leads after step 0, class 0 from step 1 on, class 2 never."""
    build = NetworkBuilder("counts")
    build.add("readout", Readout("sum"), build.add("head", Linear(np.eye(3, dtype=F)), build.add("input", Input((3,)))))
    network = build.build(time_steps=3)
    np.save(tmp_path / "x.npy", F([[0, 1, 0], [2, 0, 0], [0, 0, 0]]))
    samples = [Sample(f"{tmp_path}/x.npy", label, f"{tmp_path}/x.npy") for label in (0, 1, 2)]
    outcomes, evaluation = evaluated(network, samples)
    assert [outcome.first_correct_step for outcome in outcomes] == [1, 0, None]
    document = evaluation_document("m.h5", network, {}, 0.0, evaluation)
    assert document["first_correct"] == {"samples": 2, "step": 0.5}
    assert document["decided"] == {"samples": 3, "step": 1.0}
    assert document["step_accuracy"] == [1 / 3, 1 / 3, 1 / 3]
    assert document["reading_s"] == pytest.approx(np.mean([outcome.reading_s for outcome in outcomes]))
    assert all(outcome.reading_s > 0 for outcome in outcomes)


def test_confusions_margins_and_steps_of_known_logits(tmp_path: Path) -> None:
    """Logits are the sums of the frames so far; samples of one, two and three steps."""
    build = NetworkBuilder("sums")
    build.add("readout", Readout("sum"), build.add("head", Linear(np.eye(3, dtype=F)), build.add("input", Input((3,)))))
    network = build.build()
    given = [  # label, frames
        (0, [[5, 2, 0]]),  # right, leads by 3
        (0, [[0, 1, 0], [4, 0, 0]]),  # wrong, then right by 3
        (2, [[0, 0, 1], [0, 3, 0], [0, 0, 1]]),  # right, then wrong twice: 3 against 2
        (1, [[2, 2, 0], [0, 4, 0]]),  # equal logits are the first class: wrong, then right by 4
    ]
    samples = []
    for index, (label, frames) in enumerate(given):
        np.save(tmp_path / f"{index}.npy", F(frames))
        samples.append(Sample(f"{tmp_path}/{index}.npy", label, f"{tmp_path}/{index}.npy", index))
    outcomes, evaluation = evaluated(network, samples)
    assert [outcome.step_predictions for outcome in outcomes] == [(0,), (1, 0), (2, 1, 1), (0, 1)]
    assert [outcome.margin for outcome in outcomes] == [3, 3, 1, 4]
    assert [outcome.label_margin for outcome in outcomes] == [3, 3, -1, 4]
    assert [outcome.decided_step for outcome in outcomes] == [0, 1, 1, 1]
    document = evaluation_document("m.h5", network, {}, 0.0, evaluation)
    assert document["confusion"] == [
        {"label": 0, "samples": 2, "correct": 2, "predicted": {"0": 2}},
        {"label": 1, "samples": 1, "correct": 1, "predicted": {"1": 1}},
        {"label": 2, "samples": 1, "correct": 0, "predicted": {"1": 1}},
    ]
    assert document["step_accuracy"] == [2 / 4, 2 / 3, 0]  # of the samples that have the step
    assert document["margin"] == {
        "samples": 4, "mean": 2.75, "std": np.std([3, 3, 1, 4]), "smallest": 1, "right_mean": 10 / 3, "wrong_mean": 1,
        "label_mean": 9 / 4,
    }  # fmt: skip
    assert document["dense_macs"] == 9 * 8 / 4
    assert document["synaptic_operations"] == 10 / 4  # ten values that are not 0, and one weight of each that is not
    assert document["not_finite"] == 0


def test_binning_is_told_apart_from_simulation(small_network: Network, tmp_path: Path, monkeypatch: Any) -> None:
    """Reading that takes 50 ms, at once or bin by bin, is no simulation."""
    np.save(tmp_path / "x.npy", np.ones((4, 2, 6, 6), np.int32))
    frames = np.ones((4, 2, 6, 6), np.int32)

    def slow_stream(*_: Any) -> Iterator[Any]:
        for frame in frames:
            time.sleep(0.0125)
            yield frame

    def slow(*_: Any) -> Any:
        time.sleep(0.05)
        return frames

    for reading in (slow, slow_stream):
        monkeypatch.setattr(Preparation, "frames", reading)
        (outcome,), evaluation = evaluated(small_network, [Sample("x", 0, f"{tmp_path}/x.npy")])
        assert 0.05 <= outcome.binning_s <= outcome.reading_s
        document = evaluation_document("m.h5", small_network, {}, 0.0, evaluation)
        assert document["binning_s"]["p50"] == outcome.binning_s
        assert document["latency_s"]["worst"] == outcome.latency_s
        assert document["latency_comparable"]


def test_no_sample_waits_for_what_is_loaded_once(small_network: Network, tmp_path: Path, monkeypatch: Any) -> None:
    np.save(tmp_path / "x.npy", np.ones((4, 2, 6, 6), np.int32))
    called = []

    def slow_at_first(*_: Any) -> Iterator[Any]:
        called.append(1)
        for step in range(4):
            time.sleep(0.1 if len(called) == 1 and step == 3 else 0)
            yield np.ones((2, 6, 6), np.int32)

    monkeypatch.setattr(Preparation, "frames", slow_at_first)
    (outcome,), _ = evaluated(small_network, [Sample("x", 0, f"{tmp_path}/x.npy")])
    assert outcome.binning_s < 0.05


def test_logits_that_are_not_finite_are_counted_once(tmp_path: Path, capsys: Any) -> None:
    build = NetworkBuilder("huge")
    x = build.add("head", Linear(np.full((2, 2), 3e38, F)), build.add("input", Input((2,), "real")))
    build.add("readout", Readout("sum"), x)
    save(build.build(), tmp_path / "m.h5")
    (tmp_path / "data" / "0").mkdir(parents=True)
    for name in "abc":
        np.save(tmp_path / "data" / "0" / f"{name}.npy", F([[1 if name == "a" else 3, 0]]))
    assert main(["evaluate", str(tmp_path / "m.h5"), str(tmp_path / "data"), "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert (document["not_finite"], document["margin"]["samples"]) == (2, 1)
    assert err == "eventsim: NaN or infinite logits found in 2 samples; their predictions mean nothing\n"


def test_samples_at_the_same_time_are_simulated_on_one_thread_each(small_network: Network, folder: Path) -> None:
    """The threads of a simulator are those of samples, not of layers; what is done first comes first."""
    threads = set()
    simulator = Simulator(small_network, threads=3)
    share = simulator._workers.share
    simulator._workers.share = lambda *given: (threads.add(1), share(*given))[1]  # type: ignore[method-assign]
    simulator._workers.worth = lambda *_: True  # type: ignore[method-assign]
    samples = labelled_files(folder)
    outcomes = list(evaluate(simulator, samples, Preparation()))
    assert not threads
    assert sorted(outcome.sample.index for outcome in outcomes) == list(range(10))


def test_many_classes_are_listed_by_their_confusions() -> None:
    confusion = [
        {"label": label, "samples": 3, "correct": 1, "predicted": {str(label): 1, str((label + 7) % 30): 2}}
        for label in range(30)
    ]
    _, columns = _confusions({"confusion": confusion})
    assert [column.heading for column in columns] == ["label", "predicted", "times"]
    assert [column.cells[:3] for column in columns] == [["0", "1", "2"], ["7", "8", "9"], ["2"] * 3]
    assert {len(column.cells) for column in columns} == {10}


def test_tables_fit_the_terminal_unless_everything_is_asked_for(small_network: Network, folder: Path) -> None:
    document = evaluation_document("m.h5", small_network, {}, 0.0, evaluated(small_network, labelled_files(folder))[1])

    def printed(wide: bool) -> list[str]:
        console = Console(file=io.StringIO(), width=50, color_system=None)
        print_evaluation(console, document, wide=wide)
        return console.file.getvalue().splitlines()  # type: ignore[attr-defined]

    narrow, whole = printed(False), printed(True)
    drawn = [line for line in narrow if line and line[0] in "│┃┏┡├└"]
    assert max(map(len, drawn)) <= 50
    assert sum(line.startswith("no room for: ") for line in narrow) >= 2
    assert not any("no room" in line for line in whole)
    assert any(" conv " in line for line in narrow) and any("unpriced" in line and "compute" in line for line in whole)


def test_full_counters_of_recordings_are_told(tmp_path: Path, small_network: Network, capsys: Any) -> None:
    """As `run` tells it of one, `evaluate` tells it of all: in words, and in the document."""
    save(small_network, tmp_path / "m.h5")
    (tmp_path / "data" / "1").mkdir(parents=True)
    half, full = 0x3FFFFF, 0x7FFFFF
    for name, times in (("a.bin", [half, full, 3, 9]), ("b.bin", [full, 3, half, full, 4]), ("c.bin", [1, 2, 3, 4])):
        events = [bytes([index % 6, 5, *at.to_bytes(3, "big")]) for index, at in enumerate(times)]
        (tmp_path / "data" / "1" / name).write_bytes(b"".join(events))
    capsys.readouterr()
    command = ["evaluate", str(tmp_path / "m.h5"), str(tmp_path / "data"), "--sensor", "6x6", "--json"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert err == (
        "eventsim: 2 of 3 recordings in which the counter of the time was full, 3 times in all; the time goes on "
        "behind it\n"
    )
    recordings = json.loads(out)["recordings"]
    assert (recordings["wraps"], recordings["wrapped"]) == (3, 2)
