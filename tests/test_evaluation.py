"""Samples, outcomes and evaluations as plain data that can be sent elsewhere and added up."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from eventsim import InputError, Network, NetworkBuilder, Preparation, Simulator
from eventsim.accounting.conventions import CONVENTIONS, estimates
from eventsim.accounting.energy import models
from eventsim.datasets import Evaluation, Outcome, Sample, evaluate, labelled_files
from eventsim.layers import Input, Linear, Readout
from eventsim.report.evaluation import evaluation_document

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
    assert document["reading_s"] == pytest.approx(np.mean([outcome.reading_s for outcome in outcomes]))
    assert all(outcome.reading_s > 0 for outcome in outcomes)
