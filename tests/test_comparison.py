"""`compare_layers` on cases made by hand: what rounding explains, and what it does not."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from eventsim import InputError, Network, NetworkBuilder, Simulator
from eventsim.layers import (
    IF,
    LIF,
    Affine,
    Conv2d,
    DecayLIF,
    Input,
    LeakyIntegrator,
    Linear,
    MeanOverPositions,
    Readout,
    Threshold,
)
from eventsim.layers.neurons.spiking import RESETS
from eventsim.margin import ALLOWED, EPSILON
from eventsim.testing import compare_layers

F = np.float32
T, N = 12, 40
Run = tuple[np.ndarray, int, np.ndarray]


def network_of(neuron: Any, weight: np.ndarray | None = None, bias: np.ndarray | None = None) -> Network:
    """Inputs, synapses, neurons, a head."""
    build = NetworkBuilder("compared")
    weight = np.eye(N, dtype=F) if weight is None else weight
    x = build.add("input", Input((weight.shape[1],), "real"))
    x = build.add("synapses", Linear(weight, bias), x)
    x = build.add("fire", neuron, x)
    x = build.add("second", IF(2.0), build.add("more", Linear(np.eye(len(weight), dtype=F)), x))
    build.add("readout", Readout("sum"), build.add("head", Linear(np.ones((2, len(weight)), F)), x))
    return build.build(time_steps=T)


def recorded(network: Network, frames: np.ndarray, *names: str) -> dict[str, np.ndarray]:
    result = Simulator(network, record=names).run(frames)
    return {name: np.array(result.recorded[name]) for name in names}


def fired(frames: np.ndarray, reset: str, strict: bool, threshold: float, keep: float = 1) -> Run:
    """Step through neurons in Python.

    Return spikes, how often a charge was exactly the threshold, and where a potential between steps was: whether the
    next step finds that one late, no spike tells.
    """
    v, spikes, ties, untold = np.zeros(N, F), [], 0, np.zeros(N, bool)
    delayed = reset.endswith(("late", "once"))

    def above(x: np.ndarray) -> np.ndarray:
        return x > threshold if strict else x >= threshold

    for x in frames:
        late = above(v) & delayed
        h = v * F(keep) + x
        if reset == "zero_late":
            h = np.where(late, F(0), h)
        elif delayed:
            h = h - late * F(threshold)
        s = above(h)
        ties += int((h == threshold).sum())
        v = {
            "zero": np.where(s, F(0), h),
            "subtract": h - s * F(threshold),
            "subtract_once": h - (s.astype(F) - late) * F(threshold),
        }.get(reset, h)
        untold |= (v == threshold) & (h != v)
        spikes.append(s)
    return np.array(spikes, F), ties, untold


def eighths(seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).integers(-2, 7, (T, N)) / 8).astype(F)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("reset", RESETS)
def test_that_ties_may_fall_to_either_side(reset: Any, strict: bool) -> None:
    """What follows a tie is compared on the other's side, for every reset."""
    for keep, seed in itertools.product((1.0, 0.5), range(3)):
        frames = eighths(seed)
        neuron = IF(0.5, reset, strict) if keep == 1 else DecayLIF(0.5, reset, strict, decay=0.5)
        network = network_of(neuron)
        if reset == "subtract_once":
            frames[:, fired(frames, reset, strict, 0.5, keep)[2] | fired(frames, reset, not strict, 0.5, keep)[2]] = 0
        ours, *_ = fired(frames, reset, strict, 0.5, keep)
        assert_array_equal(recorded(network, frames, "fire")["fire"], ours)
        theirs, ties, _ = fired(frames, reset, not strict, 0.5, keep)
        (layer,) = compare_layers(network, frames, {"fire": theirs})
        assert layer.name == "fire"
        assert layer.spikes == theirs.sum()
        assert (layer.outside, layer.largest_ratio) == (0, 0)
        if reset in ("zero", "subtract"):
            assert layer.differing == ties
        assert 3 <= layer.differing <= ties


@pytest.mark.parametrize("reset", RESETS)
def test_that_a_spike_away_from_the_threshold_is_found(reset: Any) -> None:
    frames = eighths()
    network = network_of(IF(0.537, reset))  # no sum of eighths meets it
    theirs, ties, _ = fired(frames, reset, False, 0.537)
    assert not ties
    (layer,) = compare_layers(network, frames, {"fire": theirs})
    assert (layer.differing, layer.outside, layer.largest_ratio) == (0, 0, 0)
    wrong = theirs.copy()
    wrong[-1, 7] = 1 - wrong[-1, 7]
    (layer,) = compare_layers(network, frames, {"fire": wrong})
    assert (layer.differing, layer.outside) == (1, 1)
    assert layer.largest_ratio > 1e4


@pytest.mark.parametrize("distance", [0.25, 0.9, 1.1, 4])
def test_the_margin_is_that_of_the_terms(distance: float) -> None:
    """Of 2 + 1 - 2, a bias of 1 / 2 and a threshold near that sum."""
    sum_, bias = 1.0, 0.5
    terms = 5 + bias + 2 * (sum_ + bias)
    threshold = F(sum_ + bias + distance * ALLOWED * EPSILON * terms)
    network = network_of(IF(float(threshold)), np.array([[2, 1, -2]], F), np.array([bias], F))
    frames = np.zeros((1, 3), F)
    frames[:] = 1
    (layer,) = compare_layers(network, frames, {"fire": np.ones((1, 1), F)})
    assert (layer.differing, layer.outside) == (1, int(distance > 1))
    assert layer.largest_ratio == pytest.approx(distance * ALLOWED, rel=0.1)


def test_that_terms_of_a_folded_bias_widen_the_margin() -> None:
    """A bias of 1 / 2 that is 100.5 - 100."""
    threshold = float(F(1.0 + 40 * EPSILON * 8))
    network = network_of(IF(threshold), np.array([[0.5]], F), np.array([0.5], F))
    frames, theirs = np.ones((1, 1), F), {"fire": np.ones((1, 1), F)}
    assert compare_layers(network, frames, theirs)[0].outside == 1
    assert compare_layers(network, frames, theirs, {"synapses": {"bias": np.array([200.5], F)}})[0].outside == 0


def test_that_a_reset_to_zero_ends_the_terms() -> None:
    """A large sum before a spike is none of the neurons' after it, but stays one where the threshold is subtracted."""
    frames = np.array([[4096], [0.75]], F)
    for reset, outside in (("zero", 1), ("subtract", 0)):
        threshold = 4096.0 if reset == "subtract" else 0.751
        frames[1] = 0.75 if reset == "zero" else 4096 - 7 / 1024
        network = network_of(IF(threshold, reset), np.eye(1, dtype=F))  # type: ignore[arg-type]
        (layer,) = compare_layers(network, frames, {"fire": np.ones((2, 1), F)})
        assert (layer.differing, layer.outside) == (1, outside), reset


@pytest.mark.parametrize("emits", ["charge", "potential"])
@pytest.mark.parametrize("reset", RESETS)
def test_potentials(reset: Any, emits: Any) -> None:
    """Where a charge meets the threshold it may be reset or not; what differs elsewhere is found."""
    frames = eighths()
    strict, loose = (network_of(DecayLIF(0.5, reset, each, decay=0.5, emits=emits)) for each in (True, False))
    ours, theirs = (recorded(each, frames, "fire") for each in (strict, loose))
    (layer,) = compare_layers(strict, frames, ours)
    assert (layer.differing, layer.outside, layer.largest_ratio) == (0, 0, 0)
    (layer,) = compare_layers(strict, frames, theirs)
    if emits == "potential" and reset in ("zero", "subtract"):
        assert layer.differing >= 3
        assert (layer.outside, layer.largest_ratio) == (0, 0)
    wrong = ours["fire"].copy()
    wrong[-1, 7] += 0.125 + (abs(wrong[-1, 7] + 0.125) == 0.5)
    (layer,) = compare_layers(strict, frames, {"fire": wrong})
    assert layer.differing == 1
    assert layer.outside == 1 or emits == "potential"
    wrong[3] += 0.0625
    (layer,) = compare_layers(strict, frames, {"fire": wrong})
    assert layer.outside > 20


@pytest.mark.parametrize("emits", ["charge", "potential"])
@pytest.mark.parametrize("reset", RESETS)
def test_that_each_step_goes_on_from_the_potential_of_the_other(reset: Any, emits: Any) -> None:
    """One step heard something else; the steps after do not differ for it."""
    if (reset, emits) == ("subtract_once", "charge"):
        return  # of which a charge does not tell the potential
    frames, other = eighths(), eighths()
    other[3] += F(1 / 16)
    network = network_of(DecayLIF(0.53, reset, decay=0.5, emits=emits))
    (layer,) = compare_layers(network, frames, recorded(network, other, "fire"))
    assert 0 < layer.differing == layer.outside <= N


@pytest.mark.parametrize("decay", [1.0, -1.0])
def test_that_a_leaky_integrator_keeps_the_terms(decay: float) -> None:
    """Of 8, 8 - 8 and 0.5 the terms are larger than the values."""
    build = NetworkBuilder("compared")
    x = build.add("input", Input((1,), "real"))
    x = build.add("current", LeakyIntegrator(decay), x)
    x = build.add("fire", IF(float(F(8.5) + F(8 * 40 * EPSILON))), x)
    build.add("readout", Readout("sum"), x)
    frames = np.array([[8], [-8 * decay], [0.5]], F)
    (layer,) = compare_layers(build.build(3), frames, {"fire": np.array([[0], [0], [1]], F)})
    assert (layer.differing, layer.outside) == (1, 0)


def test_several_spikes_in_a_step() -> None:
    network = network_of(IF(0.5, "subtract", multiple_spikes=True), np.eye(1, dtype=F))
    frames = np.array([[1.0], [0.25]], F)
    expected = recorded(network, frames, "fire")["fire"]
    assert expected.ravel().tolist() == [2, 0]
    for theirs, differing, outside in (([2, 0], 0, 0), ([1, 1], 1, 0), ([0, 2], 1, 1), ([3, 0], 1, 1)):
        (layer,) = compare_layers(network, frames, {"fire": np.array(theirs, F)[:, None]})
        assert (layer.differing, layer.outside) == (differing, outside), theirs


def test_that_each_layer_hears_what_the_other_emitted() -> None:
    """The second layer is compared on the first's spikes as given, not as they are here."""
    network = network_of(IF(1.0))
    frames = eighths()
    first = (np.random.default_rng(1).random((T, N)) < 0.5).astype(F)
    v, expected = np.zeros(N, F), []
    for x in first:
        v = v + x
        expected.append((v >= 2).astype(F))
        v = np.where(v >= 2, F(0), v)
    one, two = compare_layers(network, frames, {"fire": first, "second": np.array(expected)})
    assert one.outside > 0
    assert (two.name, two.differing, two.outside) == ("second", 0, 0)


def test_a_floor_and_arrays_of_thresholds() -> None:
    threshold = np.linspace(0.25, 2, N, dtype=F) // F(0.125) * F(0.125)
    frames = eighths() - F(0.25)
    for floor, strict in itertools.product((-0.125, 0.125), (False, True)):
        ours = network_of(IF(threshold, "subtract", strict, v_min=floor))
        theirs = network_of(IF(threshold, "subtract", not strict, v_min=floor))
        (layer,) = compare_layers(ours, frames, recorded(theirs, frames, "fire"))
        assert layer.differing > 0
        assert (layer.outside, layer.largest_ratio) == (0, 0)


@pytest.mark.parametrize("reset", ["subtract_late", "subtract_once", "zero_late"])
def test_a_reset_that_follows_a_tie(reset: Any) -> None:
    """A tie that both sides see alike, and one behind it that they do not."""
    network = network_of(IF(0.5, reset), np.eye(1, dtype=F))
    frames = np.array([[0.5], [0.5], [0.5], [0.5]], F)
    ours = recorded(network, frames, "fire")["fire"]
    again = 1 + int(np.flatnonzero(ours[1:])[0])
    theirs = ours.copy()
    theirs[again:] = 0
    (layer,) = compare_layers(network, frames[: again + 1], {"fire": theirs[: again + 1]})
    assert (layer.differing, layer.outside, layer.largest_ratio) == (1, 0, 0)


def test_real_values_and_thresholds_behind_them() -> None:
    """Potentials that are passed on differ by rounding, and a threshold of them may fall to either side."""
    build = NetworkBuilder("read out")
    x = build.add("input", Input((4,), "real"))
    x = build.add("leak", LeakyIntegrator(0.5), x)
    x = build.add("spikes", Threshold(0.5), x)
    build.add("readout", Readout("sum"), x)
    network = build.build(time_steps=3)
    frames = np.full((3, 4), 0.25, F)
    frames[:, 1] = 0.5
    theirs = recorded(network, frames, "leak", "spikes")
    assert [layer.differing for layer in compare_layers(network, frames, theirs)] == [0, 0]
    near = {**theirs, "leak": theirs["leak"] * (1 + F(2e-7))}
    assert compare_layers(network, frames, near)[0].differing > 0
    assert compare_layers(network, frames, near)[0].outside == 0
    far = {**theirs, "leak": theirs["leak"] * F(1.001)}
    assert compare_layers(network, frames, far)[0].outside > 0
    tie = {"spikes": theirs["spikes"].copy()}
    assert theirs["leak"][0, 1] == 0.5
    tie["spikes"][0, 1] = 1 - tie["spikes"][0, 1]
    (layer,) = compare_layers(network, frames, tie)
    assert (layer.differing, layer.outside) == (1, 0)
    tie["spikes"][0, 2] = 1
    (layer,) = compare_layers(network, frames, tie)
    assert (layer.differing, layer.outside) == (2, 1)


def test_maps_arrive_channels_first() -> None:
    rng = np.random.default_rng(0)
    build = NetworkBuilder("map")
    x = build.add("input", Input((2, 3, 4)))
    x = build.add("conv", Conv2d((rng.integers(-4, 9, (5, 2, 3, 3)) / 8).astype(F), padding=(1, 1)), x)
    x = build.add("fire", LIF(), build.add("scale", Affine(np.full(5, 0.75, F)), x))
    x = build.add("mean", MeanOverPositions(), x)
    build.add("readout", Readout("sum"), x)
    network = build.build(time_steps=4)
    frames = (rng.random((4, 2, 3, 4)) < 0.5).astype(F)
    theirs = recorded(network, frames, "fire")
    assert compare_layers(network, frames, theirs)[0].differing == 0
    flipped = {"fire": np.ascontiguousarray(theirs["fire"][..., ::-1])}
    assert compare_layers(network, frames, flipped)[0].outside > 0


@pytest.mark.parametrize(
    ("emitted", "words"),
    [
        ({"other": np.zeros((T, N), F)}, "layer other: not in network compared; expected one of its layers"),
        ({"fire": np.zeros((T, N + 1), F)}, r"layer fire: array \(12, 41\) found; expected \(12, 40\)"),
        ({"fire": np.zeros((N,), F)}, r"layer fire: array \(40,\) found; expected \(12, 40\)"),
    ],
)
def test_bad_input(emitted: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(InputError, match=f"^{words}$"):
        compare_layers(network_of(IF()), eighths(), emitted)
