"""The benchmark suite runs, checks outputs before it times anything, and keeps what it measured."""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from eventsim import NetworkBuilder
from eventsim.layers import Input, Linear, Readout

pytest.importorskip("torch", reason="the suite compares with PyTorch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # SpikingJelly uses torch.jit
    pytest.importorskip("spikingjelly.activation_based.functional", reason="the suite runs the examples' definitions")
BENCHMARKS = Path(__file__).parent / "benchmarks"


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The runner, in a process whose settings it leaves as they were."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    machine = importlib.import_module("machine")
    monkeypatch.setattr(machine, "hold_to_one_thread", lambda: None)
    run = importlib.import_module("run")
    monkeypatch.setattr(run, "one_thread", lambda: None)
    monkeypatch.setattr(machine, "more_than_one_thread", list)
    return run


def tiny(measure: ModuleType) -> object:
    """A linear layer, twice: four samples of two steps, of which the last is read out."""
    import torch

    weight = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)

    class Last(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[-1] @ torch.from_numpy(weight).T

    build = NetworkBuilder("tiny")
    build.add(
        "readout", Readout(), build.add("layer", Linear(weight.copy()), build.add("input", Input((6,), "binary")))
    )
    samples = list(np.random.default_rng(1).integers(0, 2, (4, 2, 6)).astype(np.float32))
    return measure.Workload("tiny", build.build(time_steps=2), Last(), samples, samples, labels=[0, 1, 2, 3])


def planted(measure: ModuleType, name: str, exact: bool, error: float, calls: list[str]) -> object:
    """An engine that gives the right outputs of `tiny` plus an error, and says when it is called."""

    def load(workload: object, batches: list[list[int]]) -> list:
        right = measure.reference(workload)

        def job(batch: list[int]) -> tuple[np.ndarray, float]:
            calls.append(name)
            return right[batch] + error * np.array([1, 0, 0, 0], np.float32), 1.0

        return [lambda batch=batch: job(batch) for batch in batches]

    return measure.Engine(name, exact, load)


def test_the_suite_runs_and_times_no_engine_whose_outputs_are_wrong(
    suite: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A float32 engine that is off is said to be, and never called again; of int8 engines the difference is told."""
    measure, ours = (importlib.import_module(name) for name in ("measure", "engine_eventsim"))
    calls: list[str] = []

    def missing(*_: object) -> list:
        raise measure.MissingEngine("not here")

    engines = [
        *ours.ENGINES,
        planted(measure, "right f32", True, 0.0, calls),
        planted(measure, "wrong f32", True, 2.0, calls),
        planted(measure, "coarse int8", False, 2.0, calls),
        measure.Engine("absent", True, missing),
    ]
    monkeypatch.setattr(suite, "engines", lambda: engines)
    monkeypatch.setattr(suite, "WORKLOADS", {"tiny": "tiny_workload"})
    monkeypatch.setattr(suite, "SECTIONS", {})
    module = SimpleNamespace(workloads=lambda quick: iter([tiny(measure)]))
    monkeypatch.setitem(sys.modules, "tiny_workload", module)
    path = suite.main(["--quick", "--rounds", "3", "--batches", "1", "2", "--history", str(tmp_path)])

    document = json.loads(path.read_text())
    assert path.parent == tmp_path
    for size, count in ((1, 12), (2, 6)):
        found = document["results"]["tiny"][f"batch {size}"]
        assert set(found["engines"]) == {"eventsim f32", "right f32", "coarse int8"}
        assert found["left_out"]["absent"] == "not here"
        assert found["left_out"]["wrong f32"].startswith("not timed: outputs differ by ")
        assert found["engines"]["right f32"]["n"] == count
        assert found["engines"]["right f32"]["median_ms"] == 1000 / size
        assert found["engines"]["coarse int8"]["check"]["largest_difference"] == pytest.approx(2, rel=1e-6)
        assert found["engines"]["eventsim f32"]["check"]["same_prediction"] == 4
    assert calls.count("wrong f32") == 4 + 2, "checked once with each batch, never timed"
    assert {"cpu", "flags", "versions", "load_average", "threads"} <= set(document["machine"])
    said = capsys.readouterr().out
    assert "wrong f32: not timed" in said
    assert "absent: not here" in said


def test_a_pool_of_threads_ends_the_run_before_anything_is_timed(
    suite: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, machine = (importlib.import_module(name) for name in ("measure", "machine"))
    monkeypatch.setattr(machine, "more_than_one_thread", lambda: ["openblas 2"])
    calls: list[str] = []
    with pytest.raises(SystemExit, match=r"^tiny: pools of threads \['openblas 2'\] found; expected one thread each$"):
        measure.measure(tiny(measure), 1, [planted(measure, "right f32", True, 0.0, calls)], 3)
    assert calls == ["right f32"] * 4, "checked with each batch, never timed"


def test_a_run_is_compared_with_the_last_one(suite: ModuleType, tmp_path: Path) -> None:
    """Ratios are then / now, and only what both measured is compared."""
    history = importlib.import_module("history")
    machine = {"cpu": "some"}
    before = {
        "date": "2026-01-01T00:00:00",
        "commit": "a",
        "machine": machine,
        "results": {"w": {"x": {"median_ms": 6.0}}},
    }
    now = before | {"date": "2026-01-02T00:00:00", "commit": "b", "results": {"w": {"x": {"median_ms": 2.0}}, "v": {}}}
    history.write(now, tmp_path)
    history.write(before, tmp_path)
    assert history.latest(tmp_path) == now
    (_, line) = history.compare(before, now)
    assert line.split()[-3:] == ["6.000", "2.000", "3.00x"]


@pytest.mark.parametrize("system", ["spikformer", "staa_snn"])
def test_what_dense_engines_are_given_equals_the_definition(suite: ModuleType, system: str) -> None:
    """Neurons replaced and batch norms folded, with statistics that are not those of a new network."""
    import torch

    dense, networks = (importlib.import_module(name) for name in ("dense", "networks"))
    torch.manual_seed(0)
    model = networks.definition(system).nmnist_model().eval()
    for module in model.modules():
        if isinstance(module, dense.Norm):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 3.0)
            torch.nn.init.uniform_(module.bias, -0.1, 0.5)
    frames = torch.poisson(torch.full((5, 2, 2, 34, 34), 0.5))
    with torch.inference_mode():
        ready = dense.prepared(model, frames)
        expected = model(frames)
        assert not any(isinstance(module, dense.Norm) for module in ready.modules())
        torch.testing.assert_close(ready(frames), expected, rtol=1e-4, atol=1e-4)
        assert float(expected.std()) > 0.01


def test_calibrated_neurons_fire_at_their_rate_and_dyadic_weights_are_exact(suite: ModuleType) -> None:
    import torch

    calibrate, dense, networks = (importlib.import_module(name) for name in ("calibrate", "dense", "networks"))
    spikformer = networks.definition("spikformer")
    torch.manual_seed(0)
    sizes = {"width": 32, "depth": 1, "heads": 2, "classes": 10, "in_channels": 2, "size": 32, "time_steps": 4}
    model = spikformer.Spikformer("cifar", **sizes)
    frames = torch.poisson(torch.full((4, 1, 2, 32, 32), 0.5))
    rates: dict[str, float] = {}

    def note(name: str) -> object:
        return lambda module, inputs, output: rates.__setitem__(name, float(output.mean()))

    wanted = calibrate.uniform(model, 0.2)
    calibrate.calibrate(model, frames, wanted)
    with torch.inference_mode():
        for name in wanted:
            model.get_submodule(name).register_forward_hook(note(name))
        model(frames)
        assert all(abs(rate - 0.2) < 0.02 for rate in rates.values()), rates
        calibrate.make_dyadic(model, frames)
        model(frames)
        assert all(abs(rate - 0.2) < 0.03 for rate in rates.values()), rates
        weights = [m.weight for name, m in model.named_modules() if isinstance(m, dense.SYNAPSES) and name != "head"]
        assert all(torch.equal(weight * 1024, (weight * 1024).round()) for weight in weights)
        ready = dense.prepared(model, frames)
        torch.testing.assert_close(ready(frames), model(frames), rtol=1e-6, atol=1e-6)


def test_what_grows_with_spikes_can_be_timed(suite: ModuleType) -> None:
    """The densest of the linear layers, which the suite of all parts meets first."""
    linearity = importlib.import_module("linearity")
    *_, (percent, job, executed) = linearity._spikes()
    outputs, seconds = job()
    assert (percent, len(outputs)) == (100 * max(linearity.DENSITIES), 1)
    assert executed > 0 < seconds
