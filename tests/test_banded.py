"""Sums of large maps, made in bands while their neurons wait: nothing changes but the memory that they take."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
import pytest
import strategies as ours
from hypothesis import given
from hypothesis import strategies as st
from integer_strategies import SERVING, bytes_of, served_by
from numpy.testing import assert_array_equal

from eventsim import Delayed, Network, NetworkBuilder, Result, Simulator
from eventsim.banded import Banded
from eventsim.layers import (
    IF,
    LIF,
    PLIAF,
    AvgPool2d,
    Conv2d,
    Flatten,
    Input,
    IntegerConv2d,
    IntegerLIF,
    Layer,
    Linear,
    MaxPool2d,
    MeanOverPositions,
    Readout,
    Residual,
)
from eventsim.plan import plan
from eventsim.signals import SignalType
from eventsim.tape import TAKES_TAPES
from eventsim.workers import Workers

F = np.float32
pytestmark = pytest.mark.kernels


@contextlib.contextmanager
def all_banded(size: int = 1) -> Iterator[list[str]]:
    """Band all that can be, by so many bytes, at least one line at a time; who was, is listed."""
    made: list[str] = []
    begin = Banded.__init__

    def init(self: Banded, *arguments: object) -> None:
        made.append("banded")
        begin(self, *arguments)  # type: ignore[arg-type]

    with (
        patch("eventsim.banded.FAR", 0),
        patch("eventsim.banded.BAND", size),
        patch("eventsim.layers.synapses.gathering.NEAR_WEIGHTS", 1 << 40),
        patch.object(Banded, "__init__", init),
    ):
        yield made


def contents(result: Result) -> tuple:
    """Logits and counts."""
    return result.step_logits.tolist(), [(p.name, p.steps, str(p.counts), p.values) for p in result.profile]


def stage(layer: Layer, neuron: Layer, kind: str = "binary", size: tuple[int, int, int] = (2, 9, 8)) -> Network:
    """Synapses on a map, neurons, and what reads these."""
    build = NetworkBuilder("stage")
    x = build.add("input", Input(size, kind))
    x = build.add("lif", neuron, build.add("conv", layer, x))
    x = build.add("flatten", Flatten(), x)
    features = build.types[x].channels
    matrix = (np.random.default_rng(1).integers(-8, 9, (5, features)) / 8).astype(F)
    build.add("readout", Readout(), build.add("head", Linear(matrix, None), x))
    return build.build()


def weights(*shape: int) -> np.ndarray:
    return (np.random.default_rng(0).integers(-8, 9, shape) / 8).astype(F)


@given(data=st.data())
def test_any_network_is_as_if_nothing_were_banded(data: st.DataObject) -> None:
    """Whatever the chunk, the threads and the size of a band; the third sample is played."""
    drawn = data.draw(ours.networks())
    chunk = data.draw(st.none() | st.integers(1, len(drawn.frames)))
    expected = contents(Simulator(drawn.network, record=drawn.network.layers).run(drawn.frames))
    number = data.draw(st.sampled_from([1, 2, 3]))
    with all_banded(data.draw(st.sampled_from([1, 500, 5000]))):
        simulator = Simulator(drawn.network, chunk=chunk, threads=number)
        simulator._workers = Workers(number, shortest_ns=0)
        for _ in range(4):
            assert contents(simulator.run(drawn.frames)) == expected


@pytest.mark.parametrize("density", [0.002, 0.05, 0.6])
@pytest.mark.parametrize("kind", ["binary", "graded"])
@pytest.mark.parametrize(
    ("shape", "place"),
    [
        ((33, 2, 3, 3), {"padding": (1, 1)}),
        ((64, 2, 3, 3), {"stride": (2, 2), "padding": (1, 0)}),
        ((20, 2, 3, 2), {"stride": (3, 1), "padding": (3, 1)}),
        ((8, 2, 2, 3), {"padding": (2, 2), "dilation": (3, 1)}),
        ((8, 2, 1, 3), {"stride": (2, 1), "dilation": (1, 2)}),
        ((8, 2, 1, 1), {"padding": (3, 1)}),
        ((8, 2, 2, 1), {"padding": (4, 0)}),
        ((40, 1, 3, 3), {"padding": (1, 1), "groups": 2}),
        ((6, 1, 3, 3), {"padding": (1, 1), "groups": 2}),
        ((2, 1, 5, 1), {"padding": (2, 0), "groups": 2}),
    ],
)
def test_windows_of_every_kind_are_cut(
    shape: tuple[int, ...], place: dict[str, tuple[int, int]], kind: str, density: float
) -> None:
    rng = np.random.default_rng(2)
    frames = (rng.random((6, 2, 9, 8)) < density) * rng.integers(1, 5 if kind == "graded" else 2, (6, 2, 9, 8))
    network = stage(Conv2d(weights(*shape), weights(shape[0]), **place), LIF(0.6), kind)
    expected = contents(Simulator(network).run(frames))
    with all_banded() as made:
        simulator = Simulator(network)
        assert [contents(simulator.run(frames)) == expected for _ in range(4)] == [True] * 4
    assert made, "nothing was banded"


@pytest.mark.nojit
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(2, 9, 8), (7, 24), (40,)])
@pytest.mark.parametrize("neuron", [LIF(1.5), IntegerLIF(3, 99), PLIAF(1.5)])
def test_an_image_is_repeated_in_bands(neuron: Layer, shape: tuple[int, ...], threads: int) -> None:
    """What is the same in every step is held once: a map, tokens and a vector; chunk by chunk, too."""
    build = NetworkBuilder("shown")
    x = build.add("lif", neuron, build.add("input", Input(shape, "real")))
    x = x if len(shape) == 1 else build.add("flatten", Flatten(), x)
    build.add("readout", Readout(), build.add("head", Linear(weights(3, int(np.prod(shape))), None), x))
    network = build.build()
    images = np.random.default_rng(0).integers(-2, 5, (4, *shape)).astype(F)
    expected = [contents(Simulator(network).run(image, 5)) for image in images]
    assert expected[0] != expected[1]
    with all_banded() as made:
        simulator = Simulator(network, threads=threads)
        simulator._workers = Workers(threads, shortest_ns=0)
        assert [contents(simulator.run(image, 5)) for image in images] == expected
        if threads == 1:
            assert [contents(Simulator(network, chunk=2).run(image, 5)) for image in images] == expected
    if threads == 1:
        assert bool(made) != isinstance(neuron, PLIAF)


@pytest.mark.parametrize("kernel", SERVING)
@given(data=st.data())
def test_integers_are_banded_by_every_kernel(kernel: str, data: st.DataObject) -> None:
    outputs, largest = data.draw(st.sampled_from([5, 96, 130])), data.draw(st.sampled_from([1, 5]))
    kind, shape = "binary" if largest == 1 else "graded", (6, *data.draw(st.sampled_from([(9, 7), (5, 1), (2, 8)])))
    taps, padding = data.draw(st.sampled_from([((3, 3), (1, 1)), ((1, 1), (1, 0)), ((1, 1), (2, 1)), ((2, 1), (4, 0))]))
    conv = IntegerConv2d(data.draw(bytes_of(outputs, 6, *taps)), np.ones(outputs, F), largest, padding=padding)
    network = stage(conv, IntegerLIF(900, conv.width.largest, leak=1 << 14, fraction=2), kind, shape)
    frames = np.minimum(data.draw(ours.activity(kind, 4, *shape)), largest)
    with served_by(kernel):
        expected = contents(Simulator(network).run(frames))
        with all_banded() as made:
            number = data.draw(st.sampled_from([1, 2]))
            simulator = Simulator(network, threads=number)
            simulator._workers = Workers(number, shortest_ns=0)
            for _ in range(4):
                assert contents(simulator.run(frames)) == expected
    assert made or number == 2, "nothing was banded"  # by two threads only what is played


@pytest.mark.parametrize(
    ("neuron", "heard_by", "banded"),
    [
        (LIF(0.7), "one", True),
        (IntegerLIF(9, 99), "one", True),
        (IF(0.4, reset="subtract", multiple_spikes=True), "one", False),
        (PLIAF(0.7), "one", False),
        (AvgPool2d((2, 2), (2, 2)), "one", False),
        (LIF(0.7), "two", False),
        (LIF(0.7), "late", False),
        (LIF(0.7), "loop", False),
    ],
)
def test_who_is_heard_in_bands(neuron: Layer, heard_by: str, banded: bool) -> None:
    build = NetworkBuilder("heard")
    x = build.add("input", Input((2, 8, 8), "binary"))
    if heard_by == "loop":
        x = build.add("sum", Residual("add"), x, Delayed("lif", 1, SignalType("binary", 2, (8, 8))))
    conv = build.add("conv", Conv2d(weights(2, 2, 3, 3), None, (1, 1), (1, 1)), x)
    x = build.add("lif", neuron, Delayed(conv, 1 if heard_by == "late" else 0))
    if heard_by == "two":
        x = build.add("both", Residual("add"), x, build.add("other", LIF(0.5), conv))
    x = build.add("flatten", Flatten(), x)
    build.add("readout", Readout(), build.add("head", Linear(weights(3, build.types[x].channels), None), x))
    assert plan(build.build()).banded == ({"conv"} if banded else set())


def test_what_is_looked_at_is_not_banded() -> None:
    network = stage(Conv2d(weights(4, 2, 3, 3), None, (1, 1), (1, 1)), LIF(0.7))
    frames = (np.random.default_rng(0).random((5, 2, 9, 8)) < 0.4).astype(F)
    with all_banded() as made:
        recorded = Simulator(network, record=["conv"]).run(frames).recorded["conv"]
        potentials = Simulator(network, potentials=["lif"]).run(frames).potentials["lif"]
        assert not made
        assert recorded.any() and potentials.any()
        Simulator(network).run(frames)
    assert made


@pytest.mark.skipif(not TAKES_TAPES, reason="calls are not written down here")
def test_a_large_map_takes_the_memory_of_a_band() -> None:
    """Of 16 steps of 32 channels on 128 x 160 pixels, 42 MB of sums."""
    build = NetworkBuilder("large")
    x = build.add("input", Input((2, 128, 160), "binary"))
    x = build.add("lif", LIF(0.7), build.add("conv", Conv2d(weights(32, 2, 3, 3), None, (1, 1), (1, 1)), x))
    x = build.add("mean", MeanOverPositions(), build.add("pool", MaxPool2d((8, 8), (8, 8)), x))
    build.add("readout", Readout(), build.add("head", Linear(weights(3, 32), None), x))
    network = build.build()
    frames = (np.random.default_rng(0).random((16, 2, 128, 160)) < 0.02).astype(F)
    simulator = Simulator(network)
    results = [simulator.run(frames) for _ in range(3)]
    tape = simulator._idle[-1]._tape
    assert tape is not None
    with patch("eventsim.banded.FAR", 1 << 40):
        expected = contents(Simulator(network).run(frames))
    assert all(contents(result) == expected for result in results)
    assert max(block.nbytes for block in tape.buffers._blocks) < 3 << 20
    rooms = {call.arguments[0].nbytes for call in tape._calls if call.function.__name__ == "advance_part"}
    assert max(rooms) <= 1 << 20
    for result in results[1:]:  # time of the sums is that of the layer that makes them, written down or played
        spent = {layer.name: layer.seconds for layer in result.profile}
        assert spent["conv"] > 0.2 * spent["lif"] > 0


@pytest.mark.nojit
def test_sums_are_there_for_whoever_asks_for_all() -> None:
    network = stage(Conv2d(weights(4, 2, 3, 3), weights(4), (1, 1), (1, 1)), LIF(0.7))
    frames = (np.random.default_rng(0).random((5, 2, 9, 8)) < 0.4).astype(F)
    expected = Simulator(network, record=["conv"]).run(frames).recorded["conv"]
    seen: list[np.ndarray] = []

    def look(self: Banded, kernel: object, given: object, counts: tuple[int, ...], context: object) -> None:
        seen.append(self.to_array().copy())
        raise RuntimeError

    with all_banded(), patch.object(Banded, "share", look), pytest.raises(RuntimeError):
        Simulator(network).run(frames)
    assert_array_equal(seen[0].reshape(5, 9, 8, 4), np.moveaxis(expected.reshape(5, 4, 9, 8), 1, 3))
