"""Samples that are played: what they emit and count is what it would be if each were the first."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from eventsim import InputError, Network, Simulator, import_checkpoint
from eventsim.context import Context
from eventsim.layers import Conv2d, Input, IntegerLIF, Linear, MeanOverPositions, Readout
from eventsim.layers.synapses.gathering import SynapsesOp
from eventsim.network import NetworkBuilder
from eventsim.result import Result
from eventsim.signals import Dense, Rows, SignalType, as_static
from eventsim.tape import TAKES_TAPES, Tape
from eventsim.testing import strategies
from eventsim.workers import Workers

pytestmark = [
    pytest.mark.kernels,
    pytest.mark.skipif(not TAKES_TAPES, reason="kernels are not compiled, or look at every index"),
]
WEIGHTS = Path(__file__).parent.parent / "examples" / "weights"


def same(found: Result, expected: Result) -> None:
    assert_array_equal(found.logits, expected.logits)
    assert_array_equal(found.step_logits, expected.step_logits)
    assert found.time_steps == expected.time_steps
    for layer, alone in zip(found.profile, expected.profile, strict=True):
        assert (layer.name, layer.steps, layer.kernel) == (alone.name, alone.steps, alone.kernel)
        assert layer.values == alone.values, layer.name
        assert layer.columns.keys() == alone.columns.keys(), layer.name
        for operation, column in alone.columns.items():
            assert_array_equal(layer.columns[operation], column, err_msg=f"{layer.name} {operation}")


def tape_of(simulator: Simulator) -> Tape | None:
    tape: Tape | None = simulator._idle[-1]._tape
    return tape


@given(st.data(), strategies.networks(feedback=False), st.booleans(), st.booleans())
def test_a_played_sample_is_as_if_it_were_alone(
    data: st.DataObject, network: Network, together: bool, static: bool
) -> None:
    """Whatever the network, the number of threads, and the samples before; read late, too."""
    first = data.draw(strategies.frames(network))
    samples = [first, *(data.draw(strategies.frames(network, len(first))) for _ in range(3))]
    if static:
        samples = [sample[0] for sample in samples]
    simulator = Simulator(network, threads=2 if together else 1)
    simulator._workers = Workers(simulator.threads, shortest_ns=0)
    results = [simulator.run(sample, len(first) if static else None) for sample in [*samples, *samples]]
    for result, sample in zip(results, [*samples, *samples], strict=True):
        same(result, Simulator(network).run(sample, len(first) if static else None))


def classifier(largest: int = 200) -> Network:
    rng = np.random.default_rng(0)
    build = NetworkBuilder("classifier")
    x = build.add("input", Input((2, 6, 6), "binary"))
    x = build.add("conv", Conv2d(rng.integers(-8, 9, (33, 2, 3, 3)).astype(np.float32), padding=(1, 1)), x)
    x = build.add("neurons", IntegerLIF(v_threshold=3 << 12, largest_input=largest), x)
    x = build.add("mean", MeanOverPositions(), x)
    x = build.add("head", Linear(rng.integers(-8, 9, (4, 33)).astype(np.float32) / 8), x)
    build.add("logits", Readout(), x)
    return build.build(time_steps=3)


def frames(seed: int, steps: int = 3, density: float = 0.3) -> np.ndarray:
    return (np.random.default_rng(seed).random((steps, 2, 6, 6)) < density).astype(np.float32)


def test_the_third_sample_of_a_shape_is_played() -> None:
    simulator = Simulator(classifier())
    simulator.run(frames(0))
    assert tape_of(simulator) is None
    simulator.run(frames(1))
    assert tape_of(simulator) is not None
    made = [simulator.run(frames(seed)) for seed in range(2, 5)]
    for seed, result in enumerate(made, 2):
        same(result, Simulator(classifier()).run(frames(seed)))
        same(pickle.loads(pickle.dumps(result)), result)
        spent = [layer.seconds for layer in result.profile]
        assert min(spent) >= 0
        assert 0 < sum(spent) <= result.latency_s
        assert result.step_latency_s == [result.latency_s]


def test_samples_of_other_shapes_come_in_between() -> None:
    simulator = Simulator(classifier())
    for seed, steps in enumerate([3, 3, 3, 2, 3, 2, 2, 2, 3]):
        same(simulator.run(frames(seed, steps)), Simulator(classifier()).run(frames(seed, steps)))
        integers = frames(seed, steps).astype(np.int32)
        same(simulator.run(integers), Simulator(classifier()).run(integers))


def test_the_memory_of_a_caller_is_read_anew_in_each_sample() -> None:
    simulator, array = Simulator(classifier()), frames(0)
    for seed in range(4):
        array[:] = frames(seed)
        same(simulator.run(array), Simulator(classifier()).run(array))


@pytest.mark.parametrize(
    "options", [{"chunk": 1}, {"record": ["neurons"]}, {"potentials": ["neurons"]}, {"observers": [None]}]
)
def test_who_looks_inside_gets_every_layer(options: dict[str, Any]) -> None:
    class Observer:
        def __init__(self) -> None:
            self.seen: list[str] = []

        def on_layer(self, node: Any, inputs: Any, output: Any, rows: Any) -> None:
            self.seen.append(node.name)

    observer = Observer()
    if "observers" in options:
        options = {"observers": [observer]}
    simulator = Simulator(classifier(), **options)
    for seed in range(4):
        result = simulator.run(frames(seed))
        same(result, Simulator(classifier()).run(frames(seed))) if "chunk" not in options else None
        assert result.recorded.keys() == set(options.get("record", ()))
        assert result.potentials.keys() == set(options.get("potentials", ()))
    assert tape_of(simulator) is None
    assert len(observer.seen) == (24 if "observers" in options else 0)


def test_an_input_beyond_what_was_proven_is_refused_in_a_played_sample_too() -> None:
    """And the next sample goes on."""
    simulator = Simulator(classifier(largest=20))
    quiet = np.zeros((3, 2, 6, 6), np.float32)
    for _ in range(3):
        simulator.run(quiet)
    assert tape_of(simulator) is not None
    with pytest.raises(InputError, match=r"layer neurons: sum [0-9]+ found; expected at most 20, as proven"):
        simulator.run(frames(0, density=0.9))
    same(simulator.run(quiet), Simulator(classifier(largest=20)).run(quiet))


def test_an_op_that_reports_an_array_of_its_own_does_not_play(monkeypatch: pytest.MonkeyPatch) -> None:
    def report(self: SynapsesOp, signal: Any, rows: Any, context: Context) -> None:
        rows.add("acs", np.array(signal.nonzeros_by_step) * self.output.channels)

    monkeypatch.setattr(SynapsesOp, "report", report)
    simulator = Simulator(classifier())
    simulator.run(frames(0))
    with pytest.raises(InputError, match="layer conv: acs reported as an array of its own"):
        simulator.run(frames(1))


def test_several_threads_play_samples_of_their_own() -> None:
    samples = [frames(seed) for seed in range(24)]
    for result, sample in zip(Simulator(classifier(), threads=3).run_many(samples), samples, strict=True):
        same(result, Simulator(classifier()).run(sample))


@pytest.mark.parametrize("path", sorted(WEIGHTS.glob("*.safetensors")), ids=lambda path: path.stem)
def test_every_shipped_network_plays(path: Path) -> None:
    network = import_checkpoint(path)
    rng = np.random.default_rng(0)
    simulator = Simulator(network)
    steps = network.time_steps or 4
    for _ in range(4):
        events = (rng.random((steps, *network.input.shape)) < rng.choice([0.0, 0.05, 0.3])).astype(np.int32)
        same(simulator.run(events), Simulator(network).run(events))
    assert tape_of(simulator) is not None


def test_static_rows_are_not_played_and_right() -> None:
    """How many values an image repeated over time has is not known before."""
    simulator = Simulator(classifier())
    for seed in range(4):
        image = frames(seed)[0]
        same(simulator.run(image), Simulator(classifier()).run(image))


def test_static_rows_keep_the_room_of_their_arrays() -> None:
    """Another image may have more values than the one whose calls were written down."""
    indices, values = np.zeros(5, np.int32), np.ones(5, np.float32)
    rows = Rows.within(SignalType("graded", 5), 1, np.array([0, 1]), indices, values)
    static = as_static(rows)
    assert static.static and not rows.static
    assert static.whole[1] is indices
    assert static.whole[2] is values


def test_dense_signals_hold_their_counts() -> None:
    dense = Dense(classifier().types["head"], 2, np.array([[0, 1, 2, 0], [0, 0, 0, 3]], np.float32))
    assert dense.nonzeros_by_step.tolist() == [2, 1]
