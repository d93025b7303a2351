"""The ledger: counts by layer, time step and operation; observers; what results say of themselves."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_array_equal
from strategies import Drawn, networks, recurrent_networks
from test_networks import simulate

from eventsim import InputError, Network, NetworkBuilder, Simulator, operations
from eventsim.accounting.conventions import estimates
from eventsim.accounting.energy import models
from eventsim.context import Observed
from eventsim.errors import LayerError
from eventsim.layers import LIF, Conv2d, Flatten, Input, Linear, MeanOverTime, Readout
from eventsim.ledger import Counts, Ledger, LedgerRows
from eventsim.operations import OPERATIONS, Operation
from eventsim.signals import to_frames

F = np.float32


# --- counts


def test_counts_add_up() -> None:
    counts = Counts(acs=3, spikes=2) + Counts({"acs": 4})
    assert (counts.acs, counts["acs"], counts.spikes, counts.macs) == (7, 7, 2, 0)
    assert counts == Counts(spikes=2, acs=7) == Counts.total([counts, Counts()])
    assert counts != Counts(acs=7)
    assert dict(counts).keys() == OPERATIONS.keys() == set(counts)
    assert repr(counts) == "Counts(spikes=2, acs=7)"
    assert pickle.loads(pickle.dumps(counts)) == counts
    assert Counts(acs=2**70).acs + 1 == 2**70 + 1


def test_counts_know_the_operations_of_the_table_only() -> None:
    with pytest.raises(LayerError, match="operation 'guesses' found; expected one registered"):
        Counts(guesses=1)
    with pytest.raises(AttributeError, match="'Counts' has no operation 'guesses'"):
        _ = Counts().guesses
    with pytest.raises(KeyError):
        _ = Counts()["guesses"]


def test_an_operation_of_another_package_is_counted_like_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "OPERATIONS", OPERATIONS)
    new = Operation("swaps", "swaps", "a swap", "joins", "a test")
    try:
        operations.register(new)
        operations.register(new)  # the module that does so may be imported again
        assert (Counts(swaps=2) + Counts(swaps=3)).swaps == 5
        with pytest.raises(InputError, match="operation swaps found twice; expected a name of its own"):
            operations.register(Operation("swaps", "swaps", "another one", "joins", "a test"))
        with pytest.raises(InputError, match="expected a name that can be an attribute"):
            operations.register(Operation("two words", "", "", "joins", ""))
    finally:
        del OPERATIONS["swaps"]


def test_every_operation_says_what_it_is() -> None:
    for name, operation in OPERATIONS.items():
        assert name == operation.name
        assert operation.what
        assert operation.unit
        assert operation.source
        assert f"| `{name}` | {operation.group} | {operation.what} |" in operations.markdown()


@pytest.mark.parametrize(
    ("executed", "found"),
    [
        (np.ones(3), r"acs reported as float64 \(3,\); expected a whole number, or whole numbers \(3,\)"),
        (1.5, "acs reported as 1.5; expected a whole number"),
        (None, "acs reported as None"),
        ([1, 2, 3], r"acs reported as \[1, 2, 3\]"),
        (np.ones(2, np.int64), r"acs reported as int64 \(2,\)"),
        (np.ones((3, 1), np.int64), r"acs reported as int64 \(3, 1\)"),
    ],
)
@pytest.mark.parametrize("time_steps", [None, 5])
def test_rows_take_whole_numbers_for_each_step(executed: np.ndarray, found: str, time_steps: int | None) -> None:
    rows = Ledger(["conv"], time_steps).rows("conv", 0, 3)
    with pytest.raises(LayerError, match=found):
        rows.add("acs", executed)


def test_rows_lie_where_their_steps_are() -> None:
    ledger = Ledger(["a", "b"], 6)
    rows = ledger.rows("a", 2, 3)
    rows.add("acs", np.array([1, 2, 3]))
    rows.add("acs", np.int64(10))
    rows.part(1, 3).add("spikes", np.array([5, 6]))
    assert ledger.columns("a")["acs"].tolist() == [0, 0, 11, 12, 13, 0]
    assert ledger.columns("a")["spikes"].tolist() == [0, 0, 0, 5, 6, 0]
    assert ledger.columns("b") == {}
    sums = Ledger(["a"], None)
    rows = sums.rows("a", 70_000, 3)
    rows.add("acs", np.array([1, 2, 3]))
    rows.add("acs", 10)
    assert sums.columns("a")["acs"].tolist() == [36]


# --- by time step


@given(drawn=networks() | recurrent_networks())
def test_the_counts_of_the_steps_are_those_of_the_steps_alone(drawn: Drawn) -> None:
    """What a step executed is what one more step adds to a stream; a mean over time is executed in the last."""
    result = simulate(drawn)
    stream = Simulator(drawn.network)
    waits = any(isinstance(layer, MeanOverTime) for layer in drawn.network.layers.values())
    before: dict[str, Counts] = {layer.name: Counts() for layer in result.profile}
    for step, frame in enumerate(drawn.frames):
        streamed = stream.step(frame)
        for layer, whole in zip(streamed.profile, result.profile, strict=True):
            assert whole.by_step is not None
            assert all(len(column) == len(drawn.frames) for column in whole.by_step.values())
            if not waits:
                now = {name: int(column[step]) for name, column in whole.by_step.items()}
                assert before[layer.name] + Counts(now) == layer.counts, (layer.name, step)
            before[layer.name] = layer.counts
    for whole in result.profile:
        assert Counts({name: int(column.sum()) for name, column in whole.by_step.items()}) == whole.counts


def small(*, mean: bool = True) -> Network:
    rng = np.random.default_rng(0)
    build = NetworkBuilder("small")
    x = build.add("input", Input((2, 6, 6)))
    x = build.add("conv", Conv2d(rng.integers(-8, 9, (4, 2, 3, 3)).astype(F) / 8, padding=(1, 1)), x)
    x = build.add("lif", LIF(), x)
    x = build.add("flatten", Flatten(), x)
    if mean:
        x = build.add("mean", MeanOverTime(), x)
    x = build.add("head", Linear(rng.integers(-8, 9, (3, 144)).astype(F) / 8), x)
    build.add("readout", Readout(), x)
    return build.build(time_steps=4)


@pytest.mark.parametrize("chunk", [None, 1, 2, 3])
def test_where_counts_of_odd_layers_lie(chunk: int | None) -> None:
    """A layer behind a mean over time works in the last step; what an image drives, in the first."""
    frames = np.random.default_rng(1).integers(0, 2, (5, 2, 6, 6))
    profile = {layer.name: layer.by_step for layer in Simulator(small(), chunk=chunk).run(frames).profile}
    assert profile["head"]["macs"][:4].tolist() == [0] * 4
    assert profile["head"]["macs"][4] == 3 * 144
    assert profile["mean"]["additions"].tolist() == profile["lif"]["spikes"].tolist()
    offered = [int(np.count_nonzero(frame)) for frame in frames]
    assert profile["conv"]["nonzero_inputs"].tolist() == offered
    shown = {layer.name: layer.by_step for layer in Simulator(small(), chunk=chunk).run(frames[0]).profile}
    assert shown["conv"]["nonzero_inputs"].tolist() == [offered[0], 0, 0, 0]
    assert (shown["lif"]["neuron_updates"] == 144).all()


# --- observers


class Watcher:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int, np.ndarray]] = []
        self.spikes = 0

    def on_layer(self, node: Observed, inputs: Sequence[Any], output: Any, rows: LedgerRows) -> None:
        self.seen.append((node.name, rows.start, rows.steps, to_frames(output.expand(rows.steps)).copy()))
        assert len(inputs) == 1
        if rows.columns.get("spikes") is not None:
            self.spikes = int(rows.columns["spikes"].sum())


@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_observers_see_every_layer_in_every_chunk(chunk: int | None) -> None:
    network, watcher = small(mean=False), Watcher()
    frames = np.random.default_rng(1).integers(0, 3, (5, 2, 6, 6))
    result = Simulator(network, chunk=chunk, record=network.layers, observers=[watcher]).run(frames)
    starts = range(0, 5, chunk or 5)
    assert [(name, start) for name, start, _, _ in watcher.seen] == [(n, s) for s in starts for n in network.order]
    for name, output in result.recorded.items():
        seen = [frames for layer, _, _, frames in watcher.seen if layer == name]
        assert_array_equal(np.concatenate(seen), output)
    assert watcher.spikes == result.totals.spikes > 0


def test_observers_see_what_an_image_drives_in_every_chunk() -> None:
    network, watcher = small(mean=False), Watcher()
    Simulator(network, chunk=2, observers=[watcher]).run(np.ones((2, 6, 6)), 5)
    conv = [(start, steps) for name, start, steps, _ in watcher.seen if name == "conv"]
    assert conv == [(0, 2), (2, 2), (4, 1)]


def test_observers_see_streams_and_loops(small_network: Network) -> None:
    watcher = Watcher()
    simulator = Simulator(small_network, observers=[watcher])
    for _ in range(3):
        simulator.step(np.ones((2, 6, 6)))
    assert [start for name, start, _, _ in watcher.seen if name == "conv"] == [0, 1, 2]


# --- what results and networks say of themselves


def test_reprs_are_short(small_network: Network) -> None:
    result = Simulator(small_network).run(np.ones((4, 2, 6, 6)))
    shown = repr(result)
    assert shown.startswith(f"Result(prediction {result.prediction}, 4 time steps, {result.totals.spikes} spikes, ")
    assert len(shown) < 120
    assert repr(small_network) == "Network('small', 7 layers, 504 parameters)"
    assert repr(Simulator(small_network)) == f"Simulator({small_network!r}, chunk=None, threads=1)"
    assert repr(small_network.layers["conv"]).startswith("Conv2d(weight: float32 4x2x3x3, stride=(1, 1)")
    assert max(len(repr(layer)) for layer in small_network.layers.values()) < 200


def test_results_are_plain_data_on_demand(small_network: Network) -> None:
    result = Simulator(small_network).run(np.ones((4, 2, 6, 6)))
    rows = result.rows()
    assert [row["name"] for row in rows] == list(small_network.order)
    assert rows[1].keys() >= OPERATIONS.keys()
    assert rows[1]["graded_macs"] == result.profile[1].counts.graded_macs > 0
    plain = result.to_dict()
    assert plain["totals"]["spikes"] == result.totals.spikes
    assert plain["prediction"] == result.prediction
    again = pickle.loads(pickle.dumps(result))
    assert again.to_dict() == plain


def test_results_hold_energy_and_conventions(small_network: Network) -> None:
    result = Simulator(small_network).run(np.ones((4, 2, 6, 6)))
    for name, model in models().items():
        assert result.energy[name].total_mj == model.of(result.profile).total_mj
    assert result.energy["45nm_mac"].total_mj > 0
    assert {name: each.numbers for name, each in result.conventions.items()} == estimates(result.profile)
    assert result.conventions["exact_macs"].macs == result.totals.graded_macs + result.totals.macs
    again = pickle.loads(pickle.dumps(result))
    assert not {"energy", "conventions"} & vars(again).keys(), "computed anew, not carried"
    assert again.energy.keys() == result.energy.keys()


def test_results_have_the_names_of_neurobench(small_network: Network) -> None:
    """One step of ones: 36 x 2 inputs, 144 neurons that all fire or none; by hand."""
    result = Simulator(small_network).run(np.ones((4, 2, 6, 6)))
    found = result.neurobench()
    assert found.keys() == {
        "Effective_ACs", "Effective_MACs", "Dense", "ActivationSparsity", "MembraneUpdates", "Footprint"
    }  # fmt: skip
    assert found["Effective_ACs"] == result.totals.acs + result.totals.graded_macs, "all inputs are 0 or 1"
    assert found["Effective_MACs"] == 0
    assert found["ActivationSparsity"] == 1 - result.totals.spikes / (4 * 144)
    assert found["Footprint"] == 4 * small_network.parameters
    build = NetworkBuilder("nothing")
    build.add("readout", Readout(), build.add("input", Input((3,), "real")))
    assert Simulator(build.build(time_steps=1)).run(np.ones((1, 3))).neurobench() == {}


def test_a_notebook_shows_the_layers_that_executed_most(small_network: Network) -> None:
    build = NetworkBuilder("hostile")
    x = build.add("<script>", Linear(np.ones((2, 3), F)), build.add("input", Input((3,))))
    build.add("readout", Readout(), x)
    shown = Simulator(build.build(time_steps=1)).run(np.ones((1, 3)))._repr_html_()
    assert "<script>" not in shown
    assert "<td>&lt;script&gt;</td><td>6</td><td>100.0%</td><td>100.0%</td>" in shown
    assert "<td>conv</td>" in Simulator(small_network).run(np.ones((4, 2, 6, 6)))._repr_html_()
