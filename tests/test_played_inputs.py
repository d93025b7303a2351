"""Samples that are played, of every kind and shape of input and readout, against each run on its own."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from eventsim import InputError, Network, NetworkBuilder, Simulator
from eventsim.layers import LIF, Flatten, Input, Linear, Readout
from eventsim.tape import TAKES_TAPES

pytestmark = pytest.mark.kernels

F = np.float32
SHAPES = ((3, 4, 2), (5, 6), (7,))
KINDS = ("binary", "graded", "real")


def network_of(shape: tuple[int, ...], kind: str, reduce: str) -> Network:
    """A layer of neurons behind the input, both of which may be rows or dense; a linear layer for graded counts."""
    build = NetworkBuilder("played")
    flat = build.add("flat", Flatten(), build.add("input", Input(shape, kind)))
    weight = np.random.default_rng(0).integers(-8, 9, (4, int(np.prod(shape)))).astype(F) / F(8)
    spikes = build.add("neurons", LIF(v_threshold=0.25), build.add("linear", Linear(weight), flat))
    build.add("readout", Readout(reduce), spikes)
    return build.build(time_steps=3)


def samples_of(shape: tuple[int, ...], kind: str) -> list[np.ndarray]:
    """Ordinary ones, silence, and one without a zero, in this order: calls are written down with the second."""
    rng = np.random.default_rng(1)
    values = rng.integers(-4, 9, (4, 3, *shape)).astype(F) / F(8)
    if kind != "real":
        values = rng.integers(0, 2 if kind == "binary" else 5, values.shape).astype(F)
    return [*values, np.zeros((3, *shape), F), np.ones((3, *shape), F), values[0]]


@pytest.mark.parametrize("reduce", ["last", "sum"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=["map", "tokens", "vector"])
def test_samples_of_any_input_are_played(shape: tuple[int, ...], kind: str, reduce: str) -> None:
    network = network_of(shape, kind, reduce)
    simulator = Simulator(network)
    for frames in samples_of(shape, kind):
        played, alone = simulator.run(frames), Simulator(network).run(frames)
        assert_array_equal(played.logits, alone.logits)
        assert_array_equal(played.step_logits, alone.step_logits)
        for mine, its in zip(played.profile, alone.profile, strict=True):
            assert (mine.name, mine.steps, mine.values) == (its.name, its.steps, its.values)
            assert mine.columns.keys() == its.columns.keys()
            for operation, column in its.columns.items():
                assert_array_equal(mine.columns[operation], column)
    assert (simulator._idle[-1]._tape is not None) == TAKES_TAPES


STRANGE = {"binary": (2, -1, 0.5, np.nan), "graded": (-1, 0.5, np.inf, np.nan), "real": (np.inf, -np.inf, np.nan)}


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind in KINDS for value in STRANGE[kind]])
@pytest.mark.parametrize("place", [0, -1])
def test_what_is_strange_in_a_sample_is_told_though_others_were_played(kind: str, value: float, place: int) -> None:
    """In the words of a first sample; those that follow are played on."""
    network = network_of((3, 4, 2), kind, "last")
    simulator, good = Simulator(network), samples_of((3, 4, 2), kind)
    results = [simulator.run(frames) for frames in good]
    frames = good[0].copy()
    frames.reshape(-1)[place] = value
    with pytest.raises(InputError) as alone:
        Simulator(network).run(frames, name="odd")
    with pytest.raises(InputError) as played:
        simulator.run(frames, name="odd")
    assert str(played.value) == str(alone.value)
    assert str(played.value).startswith("odd: ")
    for frames, result in zip(good, results, strict=True):
        assert_array_equal(simulator.run(frames).logits, result.logits)


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param(np.ones((4, 3, 4, 2), F), id="other time steps"),
        pytest.param(np.ones((3, 3, 4, 2)), id="other type"),
        pytest.param(np.ones((3, 4, 2), F), id="an image"),
        pytest.param(np.ones((3, 3, 4, 4), F)[..., ::2], id="with gaps"),
        pytest.param([[[[1.0] * 2] * 4] * 3] * 3, id="lists"),
    ],
)
def test_a_sample_that_is_not_like_those_before_is_run_for_itself(frames: np.ndarray) -> None:
    network = network_of((3, 4, 2), "graded", "last")
    simulator = Simulator(network)
    for sample in samples_of((3, 4, 2), "graded"):
        simulator.run(sample)
    assert_array_equal(simulator.run(frames).logits, Simulator(network).run(frames).logits)
    with pytest.raises(InputError, match="3 frames found; 5 time steps were asked for"):
        simulator.run(np.ones((3, 3, 4, 2), F), time_steps=5)


def test_the_time_steps_asked_for_tell_images_apart() -> None:
    network = network_of((3, 4, 2), "graded", "sum")
    simulator, image = Simulator(network), np.ones((3, 4, 2), F)
    logits = {steps: Simulator(network).run(image, steps).logits for steps in (None, 1, 3, 4)}
    for _ in range(3):
        for steps, expected in logits.items():
            for _ in range(4):
                assert_array_equal(simulator.run(image, steps).logits, expected)


def test_a_chunk_chosen_between_samples_is_minded() -> None:
    simulator, frames = Simulator(network_of((3, 4, 2), "graded", "last")), np.ones((3, 3, 4, 2), F)
    results = [simulator.run(frames) for _ in range(4)]
    simulator.chunk = 1
    assert [len(result.step_latency_s) for result in (*results, simulator.run(frames))] == [1, 1, 1, 1, 3]


def test_time_steps_that_are_no_number_of_steps_are_refused_though_their_number_was_played() -> None:
    simulator, image = Simulator(network_of((3, 4, 2), "graded", "sum")), np.ones((3, 4, 2), F)
    for _ in range(4):
        simulator.run(image, 3)
    with pytest.raises(TypeError):
        simulator.run(image, 3.0)  # type: ignore[arg-type]


def test_pixels_of_bytes_are_refused_though_floats_were_played() -> None:
    simulator = Simulator(network_of((3, 4, 2), "real", "last"))
    for sample in samples_of((3, 4, 2), "real"):
        simulator.run(sample)
    with pytest.raises(InputError, match="pixels of type uint8 found"):
        simulator.run(np.ones((3, 3, 4, 2), np.uint8))
