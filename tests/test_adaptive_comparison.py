"""Spikes of adaptive neurons that another order of additions may move, and others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from eventsim import Network, NetworkBuilder, Simulator
from eventsim.comparison import compare_layers
from eventsim.layers import AdaptiveLIF, Input, Linear, Readout

ONE = np.ones((1, 1, 1), np.float32)
RNG = np.random.default_rng(0)
GATES = {
    "reduce_weight": RNG.normal(0, 1, (1, 2, 8)).astype(np.float32),
    "reduce_bias": RNG.normal(0, 1, (1, 2)).astype(np.float32),
    "expand_weight": RNG.normal(0, 1, (1, 8, 2)).astype(np.float32),
    "expand_bias": RNG.normal(2, 1, (1, 8)).astype(np.float32),
}
LAYERS = {
    "no gates": AdaptiveLIF(ONE * np.float32(0.5), ONE),
    "gates": AdaptiveLIF(ONE * np.float32(0.5), ONE, **GATES),
    "gates of features": AdaptiveLIF(ONE * np.float32(0.5), ONE, **GATES, gate_inputs="features"),
    "subtract": AdaptiveLIF(ONE * np.float32(0.5), ONE, **GATES, reset="subtract"),
    "encodings": AdaptiveLIF(
        ONE * np.float32(0.5), ONE * np.float32(0.7), past_encoding=ONE * np.float32(0.2), potential_encoding=ONE * 0.3
    ),
}
FRAMES = [np.random.default_rng(seed).normal(0, 1, (6, 5)).astype(np.float32) for seed in range(40)]


def network_of(layer: AdaptiveLIF) -> Network:
    build = NetworkBuilder("adaptive")
    x = build.add("input", Input((5,), "real"))
    x = build.add("synapses", Linear(np.random.default_rng(1).normal(0.3, 1, (4, 5)).astype(np.float32)), x)
    x = build.add("fire", layer, x)
    build.add("readout", Readout("sum"), x)
    return build.build(time_steps=6)


def spikes_of(layer: AdaptiveLIF, frames: np.ndarray) -> np.ndarray:
    return Simulator(network_of(layer), record=("fire",)).run(frames).recorded["fire"]


def threshold_at_a_potential(layer: AdaptiveLIF, frames: np.ndarray) -> AdaptiveLIF:
    """Return a layer of which some neuron is charged to its threshold exactly."""
    low, high = np.float32(0.8), np.float32(3)
    before = spikes_of(replace(layer, v_threshold=float(low)), frames)
    while high - low > np.spacing(low):
        middle = np.float32((np.float64(low) + high) / 2)
        if (spikes_of(replace(layer, v_threshold=float(middle)), frames) == before).all():
            low = middle
        else:
            high = middle
    return replace(layer, v_threshold=float(low))


@pytest.mark.parametrize("name", LAYERS)
def test_a_spike_at_the_threshold_may_be_on_either_side(name: str) -> None:
    """A flip is explained by rounding where the potential is, and what follows from it is no further difference."""
    followed = 0
    for frames in FRAMES:  # in some of which other spikes follow from the one that flips
        layer = threshold_at_a_potential(LAYERS[name], frames)
        network, ours = network_of(layer), spikes_of(layer, frames)
        higher = float(np.nextafter(np.float32(layer.v_threshold), np.float32(9)))
        above = spikes_of(replace(layer, v_threshold=higher), frames)
        if (ours == above).all():  # none is charged so high
            continue
        followed += int((ours != above).sum()) - 1
        (same,) = compare_layers(network, frames, {"fire": ours})
        assert (same.differing, same.outside) == (0, 0)
        (found,) = compare_layers(network, frames, {"fire": above})
        assert (found.differing, found.outside) == (1, 0)
    assert followed > 0


@pytest.mark.parametrize("name", LAYERS)
def test_a_spike_that_rounding_does_not_explain_is_outside(name: str) -> None:
    """Of every neuron and step, as none is at its threshold."""
    layer, frames = LAYERS[name], FRAMES[0]
    network, ours = network_of(layer), spikes_of(layer, frames)
    for step in range(len(ours)):
        for channel in range(4):
            theirs = ours.copy()
            theirs[step, channel] = 1 - theirs[step, channel]
            (found,) = compare_layers(network, frames, {"fire": theirs})
            assert found.outside >= 1, (step, channel)
            assert found.largest_ratio > 100
