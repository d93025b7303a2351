"""Layers that mix time steps, and the join of channels, against the reference: bit for bit, counts included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from reference.over_time import (
    conv3d,
    conv3d_pairs,
    crop_over_time,
    join_over_time,
    slice_over_time,
    tile_over_time,
)
from strategies import KINDS, activity, weights

from eventsim import InputError, Network, NetworkBuilder, Result, Simulator, load, save
from eventsim.layers import (
    LIF,
    Concat,
    Conv3d,
    CropOverTime,
    Flatten,
    Input,
    JoinOverTime,
    Layer,
    MeanOverTime,
    Readout,
    Residual,
    SliceOverTime,
    TileOverTime,
)

pytestmark = pytest.mark.kernels

F = np.float32


def network_of(input_layer: Input, layer: Layer, *more: Layer) -> Network:
    """One layer fed by the input as often as it has arguments, then others in a chain."""
    build = NetworkBuilder("one layer")
    x = build.add("input", input_layer)
    x = build.add("layer", layer, *[x] * layer.arguments)
    for index, each in enumerate(more):
        x = build.add(f"more{index}", each, *([x] if each.arguments == 1 else [x, "input"]))
    build.add("readout", Readout(), build.add("flat", Flatten(), x))
    return build.build(time_steps=2)


def run(network: Network, frames: np.ndarray, chunk: int | None = None, record: str = "layer") -> Result:
    return Simulator(network, chunk=chunk, record=[record]).run(frames, len(frames))


@st.composite
def convolutions(draw: st.DrawFn, causal: bool) -> tuple[Network, dict, np.ndarray, str]:
    """A network that is one convolution, the parameters for the reference, and frames."""
    kind = draw(st.sampled_from(KINDS))
    height, width, steps = draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.integers(1, 6))
    kernel_time = draw(st.sampled_from([1, 2, 3, 4] if causal else [1, 3, 5]))
    padding = (draw(st.integers(0, 2)), draw(st.integers(0, 2)))
    kernel = tuple(draw(st.integers(1, min(3, n + 2 * p))) for n, p in zip((height, width), padding, strict=True))
    stride = (draw(st.integers(1, 2)), draw(st.integers(1, 3)))
    groups, group_inputs = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    out = groups * draw(st.sampled_from([1, 3, 16, 17]))
    weight = draw(weights(out, group_inputs, kernel_time, *kernel))
    bias = draw(st.none() | weights(out))
    layer = Conv3d(weight, bias, stride, padding, groups, "causal" if causal else "centred")
    network = network_of(Input((groups * group_inputs, height, width), kind), layer)
    parameters = {"weight": weight, "bias": bias, "stride": stride, "padding": padding, "groups": groups}
    return network, {**parameters, "causal": causal}, draw(activity(kind, steps, *network.input.shape)), kind


def check_convolution(result: Result, expected: np.ndarray, parameters: dict, frames: np.ndarray, kind: str) -> None:
    assert_array_equal(result.recorded["layer"], expected)
    (profile,) = (each for each in result.profile if each.name == "layer")
    counted = np.ones_like(frames) if kind == "real" else frames  # real maps are dense: zeros are multiplied too
    geometry = {name: value for name, value in parameters.items() if name not in ("weight", "bias")}
    pairs, units = conv3d_pairs(counted, parameters["weight"].shape, **geometry)
    counts = profile.counts
    found = (counts.acs, counts.graded_macs, counts.graded_acs, counts.macs)
    assert found == {"binary": (pairs, 0, 0, 0), "graded": (0, pairs, units, 0), "real": (0, 0, 0, pairs)}[kind]
    assert (counts.inputs, counts.nonzero_inputs) == (frames.size, np.count_nonzero(frames))
    positions = expected.shape[2] * expected.shape[3]
    assert profile.dense_macs == len(frames) * positions * parameters["weight"].size


@given(convolutions(causal=False))
def test_centred_convolution_is_the_references(drawn: tuple[Network, dict, np.ndarray, str]) -> None:
    network, parameters, frames, kind = drawn
    weight = parameters["weight"]
    check_convolution(run(network, frames), conv3d(frames, **parameters), parameters, frames, kind)
    looks_ahead = weight.shape[2] > 1
    if looks_ahead and len(frames) > 1:
        for chunk in range(1, len(frames)):
            with pytest.raises(InputError, match=rf"layer layer: looks ahead.*all {len(frames)} steps.*chunk {chunk} "):
                run(network, frames, chunk)
        with pytest.raises(InputError, match=r"layer layer: looks ahead.*single step"):
            Simulator(network).step(frames[0])


@given(convolutions(causal=True))
def test_causal_convolution_is_the_references_for_every_chunk(drawn: tuple[Network, dict, np.ndarray, str]) -> None:
    network, parameters, frames, kind = drawn
    expected = conv3d(frames, **parameters)
    for chunk in range(1, len(frames) + 1):
        check_convolution(run(network, frames, chunk), expected, parameters, frames, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_causal_convolution_of_real_weights_has_one_result_for_every_chunk(kind: str) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(20, 3, 4, 3, 3)).astype(F)
    frames = {"binary": rng.random((7, 3, 6, 5)) < 0.5, "graded": rng.integers(0, 4, (7, 3, 6, 5))}.get(
        kind, rng.normal(size=(7, 3, 6, 5))
    )
    network = network_of(Input((3, 6, 5), kind), Conv3d(weight, padding=(1, 1), time_padding="causal"))
    simulator = Simulator(network, record=["layer"])
    whole = simulator.run(frames, len(frames)).recorded["layer"]
    assert_allclose(whole, conv3d(frames.astype(F), weight, padding=(1, 1), causal=True), atol=1e-4)
    for chunk in range(1, 7):
        assert_array_equal(run(network, frames, chunk).recorded["layer"], whole)
    assert_array_equal(
        simulator.run(frames, len(frames)).recorded["layer"], whole
    )  # the sample before left nothing behind
    for frame, expected in zip(frames, whole, strict=True):
        assert_array_equal(simulator.step(frame).recorded["layer"][-1], expected)


def test_history_outlives_the_buffers_of_the_layer_before() -> None:
    rng = np.random.default_rng(4)
    build = NetworkBuilder("neurons, then a convolution")
    x = build.add("lif", LIF(v_threshold=0.5), build.add("input", Input((3, 5, 5))))
    x = build.add("layer", Conv3d(rng.normal(size=(4, 3, 4, 3, 3)).astype(F), time_padding="causal"), x)
    build.add("readout", Readout(), build.add("flat", Flatten(), x))
    network = build.build()
    frames = rng.integers(0, 2, (9, 3, 5, 5)) * rng.integers(0, 2, (9, 1, 1, 1))  # chunks with and without spikes
    whole = run(network, frames).recorded["layer"]
    for chunk in range(1, 9):
        assert_array_equal(run(network, frames, chunk).recorded["layer"], whole)


def test_threads_do_not_share_the_state_of_a_convolution() -> None:
    rng = np.random.default_rng(1)
    layer = Conv3d(rng.normal(size=(64, 8, 3, 3, 3)).astype(F), padding=(1, 1), time_padding="causal")
    network = network_of(Input((8, 16, 16)), layer)
    samples = [rng.integers(0, 3, (6, 8, 16, 16)) for _ in range(24)]
    expected = [run(network, sample).logits for sample in samples]
    found = Simulator(network, chunk=2, threads=4).run_many(samples)
    for a, b in zip(found, expected, strict=True):
        assert_array_equal(a.logits, b)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_reference_convolution_is_that_of_torch(causal: bool, groups: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    x = rng.integers(0, 3, (5, 4, 6, 7)).astype(F)
    weight, bias = (rng.integers(-8, 9, shape).astype(F) / 8 for shape in ((6, 4 // groups, 3, 3, 2), (6,)))
    before, after = (2, 0) if causal else (1, 1)
    padded = torch.nn.functional.pad(torch.from_numpy(x).swapaxes(0, 1)[None], (0, 0, 0, 0, before, after))
    expected = torch.nn.functional.conv3d(
        padded, torch.from_numpy(weight), torch.from_numpy(bias), (1, 2, 1), (0, 1, 0), 1, groups
    )
    assert_array_equal(conv3d(x, weight, bias, (2, 1), (1, 0), groups, causal), expected[0].swapaxes(0, 1).numpy())


def test_pairs_of_the_reference_by_hand() -> None:
    x = np.zeros((3, 1, 3, 3), F)
    x[0, 0, 0, 0] = 2  # first step, corner: 2 of 3 steps ahead and behind, 2 x 2 of 3 x 3 pixels
    assert conv3d_pairs(x, (5, 1, 3, 3, 3), padding=(1, 1)) == (2 * 4 * 5, 2.0 * 2 * 4 * 5)
    assert conv3d_pairs(x, (5, 1, 3, 3, 3), padding=(1, 1), causal=True)[0] == 3 * 4 * 5
    assert conv3d_pairs(x[::-1], (5, 1, 3, 3, 3), padding=(1, 1), causal=True)[0] == 1 * 4 * 5


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Conv3d(np.zeros((4, 2, 3, 3), F)), r"weight of shape \(4, 2, 3, 3\) found; expected \(C_out, C_in/groups, kT"),
        (Conv3d(np.zeros((4, 3, 1, 1, 1), F)), r"with 1 groups found; expected it to fit 2 input channels"),
        (Conv3d(np.zeros((4, 2, 2, 1, 1), F)), r"centred kernel of 2 time steps found; expected an odd number"),
        (Conv3d(np.zeros((4, 2, 0, 1, 1), F)), r"weight of shape \(4, 2, 0, 1, 1\) found"),
        (Conv3d(np.zeros((4, 2, 1, 1, 1), F), time_padding="same"), r"time_padding 'same' found; expected 'centred'"),
        (Conv3d(np.zeros((4, 2, 1, 5, 1), F)), r"kernel \(5, 1\) with padding \(0, 0\) does not fit into a 4x4 map"),
        (CropOverTime(-1), r"time steps -1: found; expected a start from 0 on, and a stop behind it"),
        (CropOverTime(2, 2), r"time steps 2:2 found; expected a start from 0 on, and a stop behind it"),
        (SliceOverTime(2, 2), r"part 2 of 2 found; expected one from 0 to 1"),
    ],
)
def test_layers_that_do_not_fit_are_named(layer: Layer, message: str) -> None:
    with pytest.raises(InputError, match="layer layer: .*" + message) as error:
        network_of(Input((2, 4, 4)), layer)
    assert "\n" not in str(error.value)


@given(st.data(), st.sampled_from(KINDS), st.integers(1, 7), st.integers(1, 4))
def test_parts_of_time_and_their_repetition(data: st.DataObject, kind: str, steps: int, parts: int) -> None:
    frames = data.draw(activity(kind, steps, 3, 2, 2))
    covered = []
    for index in range(parts):
        network = network_of(Input((3, 2, 2), kind), SliceOverTime(index, parts), TileOverTime())
        part = slice_over_time(frames, index, parts)
        assert_array_equal(run(network, frames).recorded["layer"], part)
        result = run(network, frames, record="more0")
        assert_array_equal(result.recorded["more0"], tile_over_time(part, steps))
        covered.append(part)
        if steps > 1:
            with pytest.raises(InputError, match=r"looks ahead"):
                run(network, frames, 1)
    if steps >= parts:
        assert_array_equal(np.concatenate(covered), frames)


@given(st.data(), st.sampled_from(KINDS), st.integers(2, 7))
def test_time_steps_left_out(data: st.DataObject, kind: str, steps: int) -> None:
    """What stands behind works for the steps that are left, and is counted in the last of the sample."""
    start = data.draw(st.integers(0, steps - 1))
    stop = data.draw(st.none() | st.integers(start + 1, steps))
    frames = data.draw(activity(kind, steps, 3, 2, 2))
    network = network_of(Input((3, 2, 2), kind), CropOverTime(start, stop), MeanOverTime())
    left = crop_over_time(frames, start, stop)
    result = run(network, frames)
    assert_array_equal(result.recorded["layer"], left)
    profile = {each.name: each for each in result.profile}
    assert not any(profile["layer"].counts.values())
    assert profile["more0"].counts.additions == np.count_nonzero(left)
    assert not profile["more0"].by_step["additions"][: steps - len(left)].any()
    for chunk in range(1, steps):
        with pytest.raises(InputError, match=r"looks ahead"):
            run(network, frames, chunk)


def test_a_sample_without_the_steps_that_are_left_is_refused() -> None:
    frames = np.ones((3, 3, 2, 2), F)
    for layer, words in ((CropOverTime(3), "3:"), (CropOverTime(1, 4), "1:4")):
        with pytest.raises(InputError, match=rf"^layer layer: 3 time steps found; expected those of {words}$"):
            run(network_of(Input((3, 2, 2), "real"), layer), frames)


def joined(kind: str, parts: int, order: list[int]) -> Network:
    """Parts of the sample, in any order, one after the other; each has gone through a layer."""
    build = NetworkBuilder("joined")
    sample, x = build.add("input", Input((3, 2, 2), kind)), ""
    for count, index in enumerate(order):
        part = build.add(f"part{count}", SliceOverTime(index, parts), sample)
        part = build.add(f"twice{count}", Residual("add"), part, part)
        x = build.add(f"join{count}", JoinOverTime(), x, part, sample) if count else part
    build.add("readout", Readout("sum"), build.add("flat", Flatten(), x))
    return build.build(time_steps=2)


@given(st.data(), st.sampled_from(KINDS), st.integers(1, 7), st.integers(2, 4))
def test_parts_of_time_one_after_the_other(data: st.DataObject, kind: str, steps: int, parts: int) -> None:
    frames = data.draw(activity(kind, steps, 3, 2, 2))
    order = data.draw(st.permutations(range(parts)))
    network, last = joined(kind, parts, order), f"join{parts - 1}"
    if steps < parts:
        with pytest.raises(
            InputError, match=rf"layer join\d: parts of \d and 1 time steps of a sample of {steps} found"
        ):
            run(network, frames, record=last)
        return
    expected = slice_over_time(frames, order[0], parts)
    for index in order[1:]:
        expected = join_over_time(expected, slice_over_time(frames, index, parts))
    result = run(network, frames, record=last)
    assert_array_equal(result.recorded[last], 2 * expected)
    counts = [each.counts for each in result.profile if each.name.startswith(("join", "part"))]
    assert not any(any(count.values()) for count in counts)  # nothing is computed
    for chunk in range(1, steps):
        with pytest.raises(InputError, match="looks ahead"):
            run(network, frames, chunk, record=last)


@given(st.data(), st.sampled_from(KINDS), st.sampled_from(KINDS))
def test_channels_side_by_side(data: st.DataObject, first: str, second: str) -> None:
    frames = data.draw(activity(first, 3, 2, 2, 3))
    build = NetworkBuilder("concat")
    a = build.add("input", Input((2, 2, 3), first))
    weight = data.draw(weights(5, 2, 1, 1, 1))
    b = build.add("other", Conv3d(np.abs(weight) if second != "real" else weight), a)
    if second != "real":  # integers or spikes from the convolution's currents
        b = build.add("spikes", LIF(v_threshold=0.25), b)
        if second == "graded":
            b = build.add("integers", Residual("add"), b, b)
    build.add("concat", Concat(), a, b)
    build.add("readout", Readout(), build.add("flat", Flatten(), "concat"))
    network = build.build()
    kinds = {first, second}
    expected_kind = "real" if "real" in kinds else "graded" if "graded" in kinds else "binary"
    assert network.types["concat"].kind == expected_kind
    assert network.types["concat"].channels == 7
    for chunk in (1, 3):
        recorded = Simulator(network, chunk=chunk, record=["input", b, "concat"]).run(frames, len(frames)).recorded
        assert_array_equal(recorded["concat"], np.concatenate([recorded["input"], recorded[b]], axis=1))


def test_parts_of_different_types_are_refused() -> None:
    build = NetworkBuilder("join")
    a = build.add("input", Input((2, 4, 4)))
    with pytest.raises(
        InputError, match=r"layer join: inputs graded 2x4x4 and graded 4x4x4 found; expected two of one"
    ):
        build.add("join", JoinOverTime(), a, build.add("wider", Concat(), a, a), a)


def test_channels_of_different_positions_are_refused() -> None:
    build = NetworkBuilder("concat")
    a = build.add("input", Input((2, 4, 4)))
    b = build.add("smaller", Conv3d(np.ones((1, 2, 1, 2, 2), F)), a)
    with pytest.raises(InputError, match=r"layer concat: inputs graded 2x4x4 and real 1x3x3 found; expected equal pos"):
        build.add("concat", Concat(), a, b)


def test_model_files_hold_these_layers(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    conv = Conv3d(rng.normal(size=(4, 1, 3, 3, 3)).astype(F), np.ones(4, F), (2, 1), (1, 1), 2)
    frames = rng.integers(0, 3, (5, 2, 6, 6))
    chains = ([conv, SliceOverTime(1, 2), TileOverTime()], [Concat()])
    for network in (*(network_of(Input((2, 6, 6)), *chain) for chain in chains), joined("graded", 2, [1, 0])):
        record = "layer" if "layer" in network.layers else "join1"
        frames = frames if record == "layer" else frames[:, :1, :2, :2].repeat(3, axis=1)
        save(network, tmp_path / "m.h5")
        found = Simulator(load(tmp_path / "m.h5"), record=[record]).run(frames, len(frames))
        expected = run(network, frames, record=record)
        assert_array_equal(found.recorded[record], expected.recorded[record])
        assert_array_equal(found.logits, expected.logits)
