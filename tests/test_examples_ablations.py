"""The ablations of the examples, from recordings to the tables: trained, imported, and predicted as PyTorch does."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_oracle

from eventsim import Preparation, Simulator, import_checkpoint
from eventsim.datasets import Evaluation, evaluate, labelled_files
from eventsim.ledger import Counts

ablations = torch_oracle.example("ablations")
event_camera = torch_oracle.example("event_camera")
train_nmnist = torch_oracle.example("train_nmnist")

EXPECTED = [
    "STFormer",
    "STFormer, without sga",
    "STFormer, without temporal core",
    "STFormer, without st core",
    "STFormer, spatial core",
    "STFormer, temporal core",
    "STFormer, baseline",
    "DS2TA",
    "DS2TA, nsad alone",
    "DS2TA, tasa alone",
    "STAA-SNN",
    "STAA-SNN, plain",
]


@dataclass
class Run:
    """One run of the script.

    Attributes
    ----------
    data, output : folders of recordings, and of the trained weights
    found : what was measured
    printed : standard output
    """

    data: Path
    output: Path
    found: list[Any]
    printed: str


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as of N-MNIST, of a bar at another place for each of four labels."""
    folder = tmp_path_factory.mktemp("data")
    camera = event_camera.EventCamera()
    for part, count in (("Train", 6), ("Test", 2)):
        for label in (0, 2, 5, 9):
            (folder / part / str(label)).mkdir(parents=True)
            for index in range(count):
                picture = np.zeros((10, 10))
                picture[label, index:] = 1
                events = camera.record(picture, seed=10 * index + label)
                event_camera.write_nmnist(folder / part / str(label) / f"{index}.bin", events)
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """An epoch of two batches for every network, whose normalisations let spikes pass from the beginning."""
    output = tmp_path_factory.mktemp("output")
    found: list[Any] = []
    measure = ablations.measure
    lively = [
        replace(case, make=lambda case=case: torch_oracle.make_lively(case.make(), 0)) for case in ablations.cases()
    ]

    def keep(*args: Any, **options: Any) -> Any:
        found.append(measure(*args, **options))
        return found[-1]

    arguments = ["ablations.py", "--data", str(data), "--output", str(output), "--epochs", "1", "--recordings", "20"]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.setattr("sys.argv", arguments)
        patch.setattr(ablations, "measure", keep)
        patch.setattr(ablations, "cases", lambda: lively)
        ablations.main()
    yield Run(data, output, found, printed.getvalue())


def test_every_network_runs_and_predicts_as_pytorch(run: Run) -> None:
    assert [one.case.name for one in run.found] == EXPECTED
    for one in run.found:
        assert one.agree == one.samples == 8, one.case.name
        assert one.difference < 1e-4, one.case.name


def test_the_tables_have_a_row_for_every_network(run: Run) -> None:
    first, second = run.printed.rstrip("\n").split("\n\n")
    assert [line.split(" | ")[0].removeprefix("| ") for line in first.splitlines()[2:]] == EXPECTED
    ablated = [name for name in EXPECTED if name not in ("STFormer", "DS2TA", "STAA-SNN")]
    assert [line.split(" | ")[0].removeprefix("| ") for line in second.splitlines()[2:]] == ablated
    assert "nan" not in run.printed
    for part in (first, second):
        assert len({line.count("|") for line in part.splitlines()}) == 1


@pytest.mark.parametrize("name", EXPECTED)
def test_counts_and_accuracy_are_those_of_an_evaluation(run: Run, name: str) -> None:
    """The exported file, imported and evaluated on its own."""
    one = run.found[EXPECTED.index(name)]
    network = import_checkpoint(run.output / f"{name.replace(', ', '_').replace(' ', '_')}.safetensors", assume=False)
    assert not network.assumptions
    evaluation = Evaluation()
    for outcome in evaluate(Simulator(network), labelled_files(run.data / "Test"), Preparation()):
        evaluation.take(outcome)
    assert not evaluation.failed
    assert one.counts == evaluation.totals
    assert (one.right, one.samples) == (evaluation.correct, evaluation.samples)
    assert one.energy_mj == pytest.approx(sum(evaluation.energies_mj["45nm_mac"]))
    assert [name for name, layer in evaluation.layers.items() if layer.neuron_steps and not layer.counts.spikes] == []


def test_what_is_taken_away_is_not_executed(run: Run) -> None:
    found = dict(zip(EXPECTED, run.found, strict=True))
    assert found["DS2TA"].counts.scores == found["DS2TA, nsad alone"].counts.scores > 0
    assert found["DS2TA, tasa alone"].counts.scores == 0
    assert found["DS2TA"].counts.additions > 2 * found["DS2TA, nsad alone"].counts.additions
    assert found["STAA-SNN"].counts.macs > found["STAA-SNN, plain"].counts.macs  # average poolings make these of both
    assert found["STAA-SNN"].counts.additions > 10 * found["STAA-SNN, plain"].counts.additions
    for name, fewer in (("without sga", 7_008), ("without temporal core", 14_016), ("baseline", 38_208)):
        assert found["STFormer"].parameters - found[f"STFormer, {name}"].parameters == fewer


def test_the_page_shows_the_tables_of_all_networks(run: Run) -> None:
    """Head and names; the numbers are those of a run with third-party recordings."""
    lines = (torch_oracle.EXAMPLES.parent / "docs" / "papers" / "ablations.md").read_text().splitlines()
    for part in run.printed.rstrip("\n").split("\n\n"):
        printed = part.splitlines()
        start = lines.index(printed[0])
        shown = lines[start : start + len(printed) + 1]
        assert [line.split(" | ")[0] for line in shown] == [line.split(" | ")[0] for line in printed] + [""]


def test_the_cells() -> None:
    full, ablated = (case for case in ablations.cases() if case.name in ("STAA-SNN", "STAA-SNN, plain"))
    whole = ablations.Measured(
        full, 2_000, 4, 3, 4, 2e-6, Counts(spikes=800, acs=8_000, graded_macs=1_000, macs=3_000), 0.004
    )
    part = ablations.Measured(ablated, 1_500, 4, 1, 3, 0.5, Counts(spikes=1_000, acs=2_000, graded_macs=1_000), 0.001)
    first, second = ablations.of_all([whole, part]), ablations.of_differences([whole, part])
    assert first.splitlines()[2:] == [
        "| STAA-SNN | 2,000 | 75% | 4 of 4 | 2e-06 | 0.2 | 2.0 | 0.2 | 0.8 | 0.0 | 0.0 | 0.0 | 6 | 4.0 |",
        "| STAA-SNN, plain | 1,500 | 25% | 3 of 4 | 5e-01 | 0.2 | 0.5 | 0.2 | 0.0 | 0.0 | 0.0 | 0.0 | 2 | 1.0 |",
    ]
    # 0.9 x 8 + 4.6 x 4 = 25.6, and 0.9 x 2 + 4.6 = 6.4
    assert second.splitlines()[2:] == ["| STAA-SNN, plain | -500 | -50 | 125 % | 25 % | 25 % | 25 % | 25 % |"]


def test_a_prediction_that_is_not_that_of_pytorch_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data: Path
) -> None:
    counts = Counts(spikes=1, acs=1, macs=1)

    def measure(case: Any, *_: Any, **__: Any) -> Any:
        one = ablations.Measured(case, 1, 8, 8, 8, 0.0, counts, 0.001)
        return replace(one, agree=7) if case.ablation in ("baseline", "plain") else one

    monkeypatch.setattr(ablations, "measure", measure)
    monkeypatch.setattr(ablations, "latencies", lambda checkpoints, _: [0.001 for _ in checkpoints])
    monkeypatch.setattr("sys.argv", ["ablations.py", "--data", str(data)])
    with pytest.raises(SystemExit, match=r"^not every prediction is PyTorch's: STFormer, baseline; STAA-SNN, plain$"):
        ablations.main()
    assert "| STFormer, baseline |" in capsys.readouterr().out


def test_fewer_recordings_are_spread_over_all_labels(data: Path) -> None:
    frames, labels = train_nmnist.load(data / "Train", 2)
    assert labels.tolist() == [0] * 6 + [2] * 6 + [5] * 6 + [9] * 6
    for most in (4, 10, 24, 100):
        some, of_some = train_nmnist.load(data / "Train", 2, most)
        chosen = [index * 24 // min(most, 24) for index in range(min(most, 24))]
        assert of_some.tolist() == labels[chosen].tolist()
        assert torch_oracle.torch.equal(some, frames[chosen])
        assert set(of_some.tolist()) == {0, 2, 5, 9}
