"""Spikes whose channels nobody needs listed: those that only pools hear, who read the bits that neurons left."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from eventsim import Delayed, Network, NetworkBuilder, Result, Simulator
from eventsim.kernels.bits import list_bits, list_steps, words
from eventsim.layers import (
    IF,
    LIF,
    AvgPool2d,
    Conv2d,
    Flatten,
    Input,
    IntegerLIF,
    Layer,
    Linear,
    MaxPool2d,
    Readout,
    Residual,
)
from eventsim.plan import plan

F = np.float32
NEURONS = {
    "float": LIF(0.7),
    "integer": IntegerLIF(9, 99, fraction=3, leak=1 << 14),
    "several": IF(0.4, reset="subtract", multiple_spikes=True),
}
POOL = MaxPool2d((2, 2), (2, 2))


def network(neuron: Layer, *heard_by: str, delay: int = 0) -> Network:
    """Convolution, neurons, and who hears them: pools, another layer, neurons of their own."""
    rng = np.random.default_rng(3)
    weight = (rng.integers(-8, 9, (20, 2, 3, 3)) / (1 if isinstance(neuron, IntegerLIF) else 8)).astype(F)
    build = NetworkBuilder("heard")
    x = build.add("input", Input((2, 8, 8), "binary"))
    x = build.add("conv", Conv2d(weight, None, (1, 1), (1, 1)), x)
    fired = build.add("lif", neuron, x)
    ends = []
    for number, listener in enumerate(heard_by):
        layer = {"pool": POOL, "mean": AvgPool2d((2, 2), (2, 2))}[listener]
        x = build.add(f"{listener}{number}", layer, Delayed(fired, delay))
        ends.append(build.add(f"to{number}", Flatten(), x))
    if len(ends) == 2:
        ends = [build.add("both", Residual("add"), *ends)]
    matrix = (rng.integers(-8, 9, (5, 20 * 16)) / 8).astype(F)
    build.add("readout", Readout(), build.add("head", Linear(matrix, None), *ends))
    return build.build()


def contents(result: Result) -> tuple:
    """Logits and counts."""
    return result.step_logits.tolist(), [(p.name, p.steps, str(p.counts), p.values) for p in result.profile]


@pytest.mark.parametrize(
    ("built", "listed"),
    [
        (network(NEURONS["float"], "pool"), False),
        (network(NEURONS["float"], "pool", "pool"), False),
        (network(NEURONS["float"], "pool", "mean"), True),
        (network(NEURONS["float"], "mean"), True),
        (network(NEURONS["integer"], "pool"), False),
        (network(NEURONS["several"], "pool"), True),
        (network(NEURONS["float"], "pool", delay=1), True),
    ],
)
def test_who_lists_channels(built: Network, listed: bool) -> None:
    assert plan(built).unlisted == (set() if listed else {"lif"})


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", NEURONS)
def test_that_nobody_lists_them_changes_nothing(kind: str, threads: int) -> None:
    """Beside a run in which somebody looks at what the neurons emit, whatever the chunk, played or not."""
    built = network(NEURONS[kind], "pool")
    frames = (np.random.default_rng(0).random((5, 2, 8, 8)) < 0.4).astype(F)
    looked_at = Simulator(built, record=["lif"]).run(frames)
    assert looked_at.recorded["lif"].sum() > 20
    expected = contents(looked_at)
    simulator = Simulator(built, threads=threads)
    for _ in range(4):  # the third is played
        assert contents(simulator.run(frames)) == expected
    for chunk in (1, 2, 3):
        assert contents(Simulator(built, chunk=chunk, threads=threads).run(frames)) == expected
    assert contents(Simulator(built, potentials=["lif"]).run(frames)) == expected


@pytest.mark.nojit
@pytest.mark.parametrize("channels", [1, 3, 20, 32, 64, 70, 130])
def test_bits_are_counted_as_they_are_listed(channels: int) -> None:
    rng = np.random.default_rng(channels)
    rows = 9
    bits = rng.random((rows, channels)) < 0.3
    bits[4] = False
    packed = np.packbits(bits.ravel(), bitorder="little")
    fired = np.full(4 * words(rows * channels), 255, np.uint8)  # what lies behind means nothing
    fired[: len(packed)] = packed
    if rest := bits.size % 8:
        fired[len(packed) - 1] |= 256 - (1 << rest)
    listed, counted = np.full((2, rows + 1), 7, np.int64)
    list_bits(fired.view(np.uint64), channels, 7, listed[1:], np.empty(7 + bits.size, np.int32))
    list_bits(fired.view(np.uint64), channels, 7, counted[1:], np.empty(0, np.int32))
    assert_array_equal(counted, listed)
    assert_array_equal(np.diff(counted), bits.sum(1))


@pytest.mark.nojit
@pytest.mark.parametrize(("positions", "channels"), [(1, 1), (7, 3), (3, 32), (5, 64), (2, 70), (3, 130)])
@pytest.mark.parametrize("density", [0.0, 0.02, 0.3, 1.0])
def test_steps_are_listed_in_parts(positions: int, channels: int, density: float) -> None:
    """A part writes what is its own, and not one entry more, as the next one is written at the same time."""
    rng = np.random.default_rng(channels)
    active = rng.random((5, positions * channels)) < density
    bits = np.ones((5, 32 * words(active.shape[1])), bool)  # what lies behind means nothing
    bits[:, : active.shape[1]] = active
    fired = np.packbits(bits, axis=1, bitorder="little").view(np.uint32)
    rows = active.reshape(-1, channels)
    expected = np.concatenate([np.flatnonzero(row) for row in rows]) if active.any() else np.empty(0, np.int64)
    ends = 4 + np.concatenate([[0], np.cumsum(rows.sum(1))])
    for parts in ([(0, 5)], [(0, 2), (2, 5)], [(3, 5), (0, 1), (1, 3)]):
        indptr, indices = np.full(len(ends), -5, np.int64), np.full(4 + len(expected) + 70, -7, np.int32)
        indptr[0] = 4
        for first, last in parts:
            before = indptr.copy(), indices.copy()
            list_steps(fired, positions, channels, indptr, indices, first, last)
            a, b = first * positions, last * positions
            assert_array_equal(indptr[a + 1 : b + 1], ends[a + 1 : b + 1])
            assert_array_equal(indices[ends[a] : ends[b]], expected[ends[a] - 4 : ends[b] - 4])
            indptr[a + 1 : b + 1], before[0][a + 1 : b + 1] = -5, -5
            assert_array_equal(indptr, before[0])
            if last < 5:
                indices[ends[a] : ends[b]], before[1][ends[a] : ends[b]] = -7, -7
                assert_array_equal(indices, before[1])
