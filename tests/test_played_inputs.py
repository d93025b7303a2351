"""Samples that are played, of every kind and shape of input and readout, against each run on its own."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from eventsim import Network, NetworkBuilder, Simulator
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
