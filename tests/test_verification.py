"""`verify`: equal where arithmetic is exact, within the margin where it rounds, and what a fault looks like."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from strategies import Drawn, networks, recurrent_networks
from test_contract import EXAMPLES, STEPS, SumOp, WithoutDenseForm
from test_networks import simulate

import eventsim
from eventsim import Delayed, EventsimError, InputError, Network, NetworkBuilder, Verification, verify
from eventsim.layers import (
    IF,
    LIF,
    AdaptiveLIF,
    Affine,
    Conv2d,
    Conv3d,
    DecayLIF,
    Flatten,
    Input,
    JoinOverTime,
    Layer,
    LayerNorm,
    Linear,
    MeanOverPositions,
    MeanOverTime,
    Readout,
    Residual,
    SelectChannels,
    SliceOverTime,
    SoftmaxAttention,
    Threshold,
    TileOverTime,
)
from eventsim.layers.neurons.spiking import RESETS, PotentialOp
from eventsim.margin import ALLOWED, EPSILON, Differences, allowed_for
from eventsim.signals import Dense, Rows, SignalType
from eventsim.testing.samples import random_rows

pytestmark = pytest.mark.kernels

F = np.float32


# --- exact arithmetic


@given(data=st.data())
@pytest.mark.parametrize("strategy", [networks, recurrent_networks])
def test_dyadic_networks_are_equal_bit_for_bit_in_pieces_of_any_size(strategy: Any, data: st.DataObject) -> None:
    drawn: Drawn = data.draw(strategy())
    result, steps = simulate(drawn), len(drawn.frames)
    for frames in (drawn.frames, drawn.frames[0], iter(drawn.frames)):
        piece = data.draw(st.integers(1, steps))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("eventsim.verification.piece_of", lambda *_, piece=piece: piece)
            found = verify(drawn.network, frames, None if isinstance(frames, Iterator) else steps)
        assert found.equal, (found, found.rows())
        assert found.verdict.startswith("equal (bit for bit: ")
        assert found.time_steps == steps
        assert_array_equal(found.logits, found.dense_logits)
        if frames is drawn.frames:
            assert_array_equal(found.logits, result.logits)
            spikes = {layer.name: layer.counts.spikes for layer in result.profile if layer.neurons}
            assert {layer.name: layer.emitted for layer in found.layers if layer.name in spikes} == spikes
            size = {name: kind.size for name, kind in drawn.network.types.items()}
            assert all(layer.compared == steps * size[layer.name] for layer in found.layers if layer.fires)


# --- every layer, and a fault in it


def around(layer: Layer, source: SignalType) -> Network:
    """A network of one layer; what it hears beside the input is the input with its channels turned."""
    build = NetworkBuilder("around")
    x = build.add("input", Input(source.shape, source.kind))
    heard = [x]
    for index in range(1, layer.arguments):
        turned = SelectChannels(np.roll(np.arange(source.channels), index))
        heard.append(build.add(f"turned{index}", turned, x))
    x = build.add("layer", layer, *heard)
    if build.types[x].grid:
        x = build.add("flat", Flatten(), x)
    if not isinstance(layer, Readout):
        build.add("readout", Readout(), x)
    return build.build()


def frames_for(network: Network, steps: int = STEPS, seed: int = 0) -> np.ndarray:
    kind = network.input.output_type()
    rows = random_rows(kind, steps * kind.positions, np.random.default_rng(seed))
    maps = rows.reshape(steps, *kind.grid, kind.channels)
    return np.moveaxis(maps, -1, 1) if len(kind.grid) == 2 else maps


def spoil(monkeypatch: pytest.MonkeyPatch, op: type, change: Callable[[Any], Any]) -> None:
    """Change what ops of a type emit."""
    original = op.advance

    def faulty(self: Any, inputs: Any, context: Any) -> Any:
        return change(original(self, inputs, context))

    monkeypatch.setattr(op, "advance", faulty)


def one_less(output: Any) -> Any:
    """Leave out one spike or value, or make one a hundredth larger."""
    if isinstance(output, Dense):
        data = output.data.copy()
        data.flat[np.argmax(np.abs(data))] *= F(1.01)
        return replace(output, data=data)
    if not len(output.indices):
        return output
    indptr = np.minimum(output.indptr, output.nonzeros - 1)
    return replace(
        output, indptr=indptr, indices=output.indices[:-1], values=None if output.values is None else output.values[:-1]
    )


ALL = [
    *(
        example for example in EXAMPLES if not (isinstance(example[0], Threshold) and example[0].threshold == 1)
    ),  # silent
    (Threshold(0.5), SignalType("binary", 6, (4, 4))),
    (TileOverTime(), SignalType("binary", 6, (4, 4))),
    (SliceOverTime(1, 2), SignalType("real", 6, (), dense=True)),
]


@pytest.mark.parametrize(("layer", "source"), ALL, ids=[type(layer).__name__ for layer, _ in ALL])
def test_a_fault_in_any_layer_is_found(layer: Layer, source: SignalType, monkeypatch: pytest.MonkeyPatch) -> None:
    network = around(layer, source)
    frames = frames_for(network)
    assert verify(network, frames).holds
    spoil(monkeypatch, type(layer.op(*[network.types["input"]] * layer.arguments)), one_less)
    found = verify(network, frames)
    assert not found.holds
    assert found.verdict.startswith("differs (first layer layer: 1 of "), found.verdict
    assert next(row for row in found.layers if row.name == "layer").outside == 1


def test_a_fault_in_parts_of_a_sample_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    build = NetworkBuilder("parts")
    x = build.add("input", Input((3,), "real"))
    parts = [build.add(f"part{index}", SliceOverTime(index, 2), x) for index in range(2)]
    joined = build.add("joined", JoinOverTime(), *parts, x)
    build.add("readout", Readout("sum"), joined)
    network = build.build()
    frames = frames_for(network, 5)
    assert verify(network, frames).equal
    spoil(monkeypatch, type(JoinOverTime().op()), one_less)
    assert verify(network, frames).verdict.startswith("differs (first layer joined: ")


def test_a_gather_that_loses_a_spike_is_found(monkeypatch: pytest.MonkeyPatch, small_network: Network) -> None:
    from eventsim.layers.synapses import gathering

    original = gathering.gather

    def leaky(triple: Any, *more: Any) -> Any:
        indptr, indices, values = triple
        most = indptr[-1] - 1
        return original((np.minimum(indptr, most), indices[:most], values[:most]), *more)

    frames = frames_for(small_network)
    assert verify(small_network, frames).equal
    monkeypatch.setattr(gathering, "gather", leaky)
    assert verify(small_network, frames).verdict.startswith("differs (first layer conv: ")


def test_a_delay_that_comes_late_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dense side has delays of its own, in loops and outside."""
    build = NetworkBuilder("late")
    x = build.add("input", Input((2,), "real"))
    x = build.add("sum", Residual("add"), x, Delayed("fire", 2, SignalType("binary", 2)))
    x = build.add("fire", IF(0.5), x)
    x = build.add("more", Linear(np.eye(2, dtype=F)), Delayed(x, 1))
    build.add("readout", Readout("sum"), x)
    network = build.build()
    frames = np.abs(frames_for(network, 9))
    assert verify(network, frames).equal
    from eventsim.delay import Delay

    once = Delay.shift
    monkeypatch.setattr(Delay, "shift", lambda self, signal: once(self, once(self, signal)))
    assert verify(network, frames).verdict.startswith("differs (first layer more: ")


def test_an_op_that_emits_too_few_steps_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from eventsim.layers.time.steps import take_steps

    network = around(IF(), SignalType("real", 3, dense=True))
    spoil(monkeypatch, type(IF().op(network.types["input"])), lambda output: take_steps(output, 0, output.steps - 1))
    with pytest.raises(
        EventsimError, match=r"^layer layer: float32 \(4, 3\) of its dense form found; the event-driven"
    ):
        verify(network, frames_for(network))


def test_nan_is_no_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    network = around(Affine(np.ones(3, F), np.ones(3, F)), SignalType("real", 3, dense=True))
    op = type(Affine(np.ones(3, F)).op(network.types["input"]))
    spoil(monkeypatch, op, lambda output: replace(output, data=output.data * F(np.nan)))
    found = verify(network, frames_for(network))
    assert not found.holds
    assert found.layers[1].to_dict()["largest_ratio"] is None
    assert found.to_dict()["logit_difference"] is None


# --- rounding


def near_the_threshold(inputs: int = 400) -> tuple[Network, np.ndarray]:
    """A neuron whose threshold lies between a sum in one order and the exact one, and a layer that hears it."""
    rng = np.random.default_rng(1)
    weight = rng.normal(0.1, 1, (1, inputs)).astype(F)
    one_by_one = F(0)
    for w in weight[0]:
        one_by_one += w
    exact = F(weight.sum(dtype=np.float64))
    assert one_by_one != exact
    build = NetworkBuilder("near")
    x = build.add("input", Input((inputs,), "binary"))
    x = build.add("synapses", Linear(weight), x)
    x = build.add("fire", IF(float(max(one_by_one, exact))), x)
    x = build.add("later", IF(0.5), build.add("more", Linear(np.ones((2, 1), F)), x))
    build.add("readout", Readout("sum"), x)
    return build.build(), np.ones((1, inputs), F)


def test_a_flip_at_the_threshold_is_told_from_what_follows_it() -> None:
    network, frames = near_the_threshold()
    found = verify(network, frames)
    layers = {layer.name: layer for layer in found.layers}
    fire, later = layers["fire"], layers["later"]
    assert (fire.differing, fire.outside, fire.end_to_end_differing) == (1, 0, 1)
    assert 0 <= fire.largest_distance < 1e-4
    assert 0 < layers["synapses"].largest_ratio <= layers["synapses"].allowed
    assert (later.differing, later.end_to_end_differing) == (0, 2), "it hears what was really emitted"
    assert (found.holds, found.equal, found.differing, found.end_to_end_differing) == (True, False, 1, 3)
    assert found.logit_difference == 1
    assert found.verdict.startswith("differs only within the rounding margin (1 of 3 spikes in 1 layer, at most ")
    assert found.verdict.endswith("; end to end 3 spikes and 1 in a logit, prediction 0 on both sides)")


def test_a_spike_further_from_the_threshold_is_none_of_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    network, frames = near_the_threshold()
    weight, threshold = network.layers["synapses"].weight, network.layers["fire"].v_threshold
    margin = ALLOWED * EPSILON * (np.abs(weight.astype(float)).sum() + 2 * abs(threshold))
    for share, holds in ((0.8, True), (1.2, False)):
        build = NetworkBuilder("moved")
        x = build.add("input", Input((len(weight[0]),), "binary"))
        x = build.add("synapses", Linear(weight), x)
        x = build.add("fire", IF(float(threshold + share * margin)), x)
        build.add("readout", Readout("sum"), x)
        with monkeypatch.context() as patch:
            all_fire = lambda out: Rows(out.type, 1, np.array([0, 1]), np.zeros(1, np.int32))  # noqa: E731
            spoil(patch, type(IF().op(SignalType("real", 1, dense=True))), all_fire)
            found = verify(build.build(), frames)
        assert found.holds == holds, found
        assert found.margin == pytest.approx(share, rel=0.05)
        assert found.layers[2].largest_distance == pytest.approx(share * margin, rel=0.05)


def test_after_a_flip_the_other_side_is_followed() -> None:
    """Half a threshold more fires a neuron that did not, and none that did, if its reset is the other's."""
    network, frames = near_the_threshold()
    weight, threshold = network.layers["synapses"].weight, network.layers["fire"].v_threshold
    half = frames * (np.arange(len(weight[0])) <= np.argmin(np.abs(np.cumsum(weight[0]) - threshold / 2)))
    for reset in ("zero", "subtract", "subtract_late", "zero_late"):
        build = NetworkBuilder("on")
        x = build.add("input", Input((frames.shape[1],), "binary"))
        x = build.add("synapses", Linear(weight), x)
        x = build.add("fire", IF(threshold, reset), x)
        build.add("readout", Readout("sum"), x)
        found = verify(build.build(), np.concatenate([frames, half, 0 * half]))
        assert found.holds, (reset, found)
        assert found.layers[2].differing == 1


def test_end_to_end_a_flip_ends_what_was_shared_and_forgets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventsim.verification.PIECE_BYTES", 1)
    network, frames = near_the_threshold()
    more = frames * (network.layers["synapses"].weight > 0)
    found = verify(network, np.concatenate([more, frames]))
    assert found.differing == 1
    assert found.logits.sum() + found.dense_logits.sum() == 6, "two spikes each, and two more on one side"
    assert found.logit_difference == 1


@pytest.mark.parametrize("seed", range(4))
def test_networks_with_real_weights_hold(seed: int) -> None:
    """Sums of hundreds of terms, norms, softmax, gates and means of many steps: every margin has room."""
    rng = np.random.default_rng(seed)

    def weight(*shape: int) -> np.ndarray:
        return (rng.normal(0.05, 1, shape) / np.sqrt(np.prod(shape[1:]))).astype(F)

    build = NetworkBuilder("real")
    x = build.add("input", Input((3, 12, 12), "real"))
    x = build.add("conv", Conv2d(weight(24, 3, 3, 3), weight(24), padding=(1, 1)), x)
    x = build.add("scale", Affine(weight(24), weight(24)), x)
    x = build.add("lif", LIF(tau=1.7, v_threshold=0.1), x)
    x = build.add("conv2", Conv3d(weight(48, 24, 3, 3, 3), padding=(1, 1)), x)
    x = build.add("fire", Threshold(0.1), x)
    y = build.add("qkv", Linear(weight(48 * 3, 48)), x)
    y = build.add("attention", SoftmaxAttention(4), y)
    y = build.add("norm", LayerNorm(weight(48), weight(48)), build.add("sum", Residual("add"), x, y))
    gates = weight(1, 6, 96), weight(1, 6), weight(1, 96, 6), weight(1, 96)
    x = build.add("adaptive", AdaptiveLIF(weight(1, 48, 1), weight(1, 48, 1), *gates, 0.05), y)
    x = build.add("mean", MeanOverTime(), build.add("pooled", MeanOverPositions(), x))
    build.add("readout", Readout(), build.add("head", Linear(weight(10, 48)), x))
    found = verify(build.build(), rng.normal(0.3, 1, (30, 3, 12, 12)).astype(F))
    assert found.holds, found
    assert 0.01 < found.margin < 0.7, found
    assert found.prediction == found.dense_prediction


@pytest.mark.parametrize("emits", ["charge", "potential"])
@pytest.mark.parametrize("reset", RESETS)
def test_potentials_hold_with_real_weights(reset: Any, emits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step goes on from the potential that was emitted, so that one that is wrong is one difference."""
    rng = np.random.default_rng(0)
    build = NetworkBuilder("potentials")
    x = build.add("input", Input((400,), "real"))
    x = build.add("synapses", Linear(rng.normal(size=(30, 400)).astype(F)), x)
    x = build.add("held", DecayLIF(3.0, reset, decay=0.9, v_min=-9.0, emits=emits), x)
    build.add("readout", Readout("sum"), x)
    network, frames = build.build(8), rng.normal(size=(8, 400)).astype(F)
    found = {layer.name: layer for layer in verify(network, frames).layers}["held"]
    assert found.differing > 0 == found.outside
    assert not found.fires

    def wrong(output: Any) -> Any:
        output.data.reshape(-1)[2 * 30 + 7] += F(0.01)
        return output

    spoil(monkeypatch, PotentialOp, wrong)
    found = {layer.name: layer for layer in verify(network, frames).layers}["held"]
    assert found.outside in (1, 2)


def test_a_sum_of_many_terms_of_one_sign_holds() -> None:
    """Added one by one, fifty thousand equal terms are off by more than 8 times what eps makes of them."""
    build = NetworkBuilder("many")
    x = build.add("input", Input((1, 1), "real"))
    build.add("readout", Readout("sum"), build.add("flat", Flatten(), x))
    network = build.build()
    frames = np.full((50_000, 1, 1), 0.1, F)
    found = verify(network, frames)
    readout = found.layers[-1]
    assert readout.largest_ratio > 1000
    assert readout.allowed == allowed_for(0, 50_000)
    assert found.holds


def test_a_difference_too_small_for_digits_is_none() -> None:
    found = Differences()
    tiny = np.array([1e-40], F)
    found.take_values(tiny, 0 * tiny, np.zeros(1))
    assert (found.differing, found.outside) == (1, 0)


# --- what it refuses, and what it returns


def test_a_layer_of_another_package_without_a_dense_form_is_named() -> None:
    network = around(WithoutDenseForm(), SignalType("real", 3, dense=True))
    with pytest.raises(
        InputError, match=r"^layer layer: WithoutDenseForm of test_contract has no dense form, so it can"
    ):
        verify(network, frames_for(network))


class Broken(WithoutDenseForm):
    def dense(self, inputs: Any, memory: Any) -> Any:
        raise ZeroDivisionError("out of order\nin two lines")


def test_a_dense_form_of_another_package_that_fails_is_named() -> None:
    network = around(Broken(), SignalType("real", 3, dense=True))
    assert issubclass(SumOp, eventsim.layers.Op)
    with pytest.raises(
        EventsimError,
        match=r"^layer layer: the dense form of Broken of test_verification failed \(ZeroDivisionError: out of order",
    ):
        verify(network, frames_for(network))


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (np.ones((4, 3, 6, 6)), "input: a time step of shape 3 x 6 x 6 found; the model takes 2 x 6 x 6"),
        (np.full((4, 2, 6, 6), 0.5), "input: values that are negative or not whole found"),
        (np.ones((0, 2, 6, 6)), "input: no time steps found"),
        (np.float32(1), "input: a time step of shape  found; the model takes 2 x 6 x 6"),
        (iter(()), "input: no time steps found"),
    ],
)
def test_frames_that_do_not_fit(small_network: Network, frames: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=f"^{words}"):
        verify(small_network, frames)


def test_what_it_returns_is_plain(small_network: Network) -> None:
    seen: list[tuple[int, int | None]] = []
    found = verify(small_network, frames_for(small_network), on_progress=lambda *done: seen.append(done))
    document = found.to_dict()
    assert [row["name"] for row in document["layers"]] == list(small_network.order)
    assert found.rows() == document["layers"]
    assert repr(found) == f"Verification('small', 4 time steps: {found.verdict})"
    assert document["verdict"] == found.verdict
    assert isinstance(pickle.loads(pickle.dumps(found)), Verification)
    done, total = zip(*seen, strict=True)
    assert set(total) == {4 * len(small_network.layers)}
    assert list(done) == sorted(done)
    assert done[-1] == total[-1] - 3, "behind the mean there is one step"


# --- a trained network at its published size


def test_the_trained_spikformer_of_cifar10_holds(shared: Path) -> None:
    """On an image on which, here, one spike flips and 61,358 follow it."""
    folder = shared / "checkpoints" / "spikformer_cifar10"
    if not folder.is_dir():
        pytest.skip("../shared/data/checkpoints/spikformer_cifar10 is absent")
    network = eventsim.import_checkpoint(folder / "spikformer_4_384_cifar10.safetensors")
    pixels = np.moveaxis(np.load(folder / "test_images.npz")["x"][4], -1, 0).astype(F) / F(255)
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    image = (pixels - np.array(mean, F)[:, None, None]) / np.array(std, F)[:, None, None]
    found = verify(network, image)
    assert found.holds, found
    assert not found.equal
    assert found.compared == 5_799_936
    assert found.differing <= 5
    assert (found.end_to_end_differing > 0) == (found.differing > 0)
    assert found.margin < 0.5
    assert found.prediction == found.dense_prediction
