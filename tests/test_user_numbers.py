"""Numbers where users meet them: on the command line, each expected one worked out by hand or from its definition."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from state_dicts import spikformer_state

from eventsim import NetworkBuilder, load, save
from eventsim.cli import main
from eventsim.datasets import evaluate
from eventsim.layers import (
    IF,
    AdaptiveLIF,
    AttentionPool,
    Conv2d,
    Conv3d,
    Flatten,
    GlobalContext,
    Input,
    Linear,
    MeanOverTime,
    Readout,
    SoftmaxAttention,
    SparseLinear,
    SpikingAttention,
    TableAttention,
    WindowedLinear,
)

F = np.float32


def ones(*shape):
    return np.ones(shape, F)


@pytest.fixture
def model(tmp_path):
    """Save a chain of layers; return the path of the model."""

    def write(*layers, time_steps=None):
        build = NetworkBuilder("chain")
        x = build.add("input", layers[0])
        for index, layer in enumerate(layers[1:]):
            x = build.add(f"layer{index}", layer, *[x] * layer.arguments)
        build.add("readout", Readout(), x)
        save(build.build(time_steps), tmp_path / "m.h5")
        return tmp_path / "m.h5"

    return write


@pytest.fixture
def file_of(tmp_path):
    """Save frames; return their path."""

    def write(frames, name="frames.npy"):
        np.save(tmp_path / name, np.asarray(frames, F))
        return tmp_path / name

    return write


@pytest.fixture
def told(capsys):
    """Return what a command prints on stdout."""

    def call(*arguments):
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 0
        return capsys.readouterr().out

    return call


@pytest.fixture
def document(told):
    return lambda *arguments: json.loads(told(*arguments, "--json"))


@pytest.fixture
def logits(document):
    """Return the logits of the one input of a run."""

    def run(*arguments):
        (sample,) = document("run", *arguments)["samples"]
        return sample["logits"]

    return run


# --- energy


PICOJOULES = [
    # two steps, three inputs, fan-out 4: three spikes are 12 additions, and 4 neurons are updated twice
    ("binary", [[1, 0, 1], [0, 1, 0]], {"45nm_unary": 12 * 0.9, "45nm_mac": 12 * 0.9, "loihi": 12 * 23.6 + 8 * 81}),
    # 3 + 1 + 2 units are 24 additions, or 12 multiply-accumulates of three values that are not zero
    ("graded", [[3, 0, 1], [0, 2, 0]], {"45nm_unary": 24 * 0.9, "45nm_mac": 12 * 4.6, "loihi": 24 * 23.6 + 8 * 81}),
    # real values are multiplied, zero or not: 24 multiply-accumulates
    ("real", [[3, 0, -1], [0, 2, 0]], {"45nm_unary": 24 * 4.6, "45nm_mac": 24 * 4.6, "loihi": 24 * 23.6 + 8 * 81}),
]


@pytest.mark.parametrize(("kind", "frames", "picojoules"), PICOJOULES, ids=[kind for kind, *_ in PICOJOULES])
def test_energy_of_each_model(model, file_of, document, tmp_path, kind, frames, picojoules):
    network = model(Input((3,), kind), Linear(ones(4, 3)), IF())
    (sample,) = document("profile", network, file_of(frames))["samples"]
    found = {name: sample["energy_mj"][name] for name in picojoules}
    assert found == pytest.approx({name: value * 1e-9 for name, value in picojoules.items()}, rel=1e-12)
    # a mean over samples: one of silence but for the neurons, or in real values one that costs the same
    (tmp_path / "data" / "0").mkdir(parents=True)
    file_of(frames, "data/0/a.npy")
    file_of(np.zeros((2, 3)), "data/0/b.npy")
    silent = picojoules if kind == "real" else {"45nm_unary": 0, "45nm_mac": 0, "loihi": 8 * 81}
    means = {name: (value + silent[name]) / 2 * 1e-9 for name, value in picojoules.items()}
    evaluation = document("evaluate", network, tmp_path / "data")
    assert {name: evaluation["energy_mj"][name] for name in means} == pytest.approx(means, rel=1e-12)
    spread = {name: abs(picojoules[name] - silent[name]) / 2 * 1e-9 for name in means}
    assert {name: evaluation["energy"][name]["std_mj"] for name in means} == pytest.approx(spread, rel=1e-9, abs=1e-24)


def test_energy_and_share_of_dense_work_in_words(model, file_of, told):
    # 2 steps of 1000 spikes, 500 in the second, times 1000 synapses; every neuron fires in both steps
    frames = ones(2, 1000)
    frames[1, 500:] = 0
    said = told("profile", model(Input((1000,), "binary"), Linear(ones(1000, 1000)), IF()), file_of(frames))
    assert "2,000 spikes, 1,500,000 synaptic operations (75.0 % of 2,000,000 dense MACs)" in said
    # 1.5 M x 0.9 pJ, and all memory of the layers without a price
    assert "energy, 45nm_mac: 0.001350 mJ (compute 0.001350, memory 0); without a price: 1,500,000 " in said
    # every update is active: 1.5 M x 23.6 pJ + 2000 x 81 pJ
    assert "energy, loihi_active: 0.035562 mJ (compute 0.035562, memory 0)" in said


def test_rates_of_an_evaluation_weigh_samples_by_their_length(model, file_of, document, tmp_path):
    (tmp_path / "data" / "0").mkdir(parents=True)
    file_of([[1, 1, 0]], "data/0/a.npy")
    file_of(np.zeros((3, 3)), "data/0/b.npy")
    network = model(Input((3,), "binary"), Linear(ones(4, 3)), IF())
    evaluation = document("evaluate", network, tmp_path / "data")
    _, linear, neurons, _ = evaluation["layers"]
    # two spikes of 3 + 9 inputs make 4 neurons fire in one of 1 + 3 steps; 12 and 36 dense products
    assert (linear["input_density"], neurons["firing_rate"]) == (2 / 12, 4 / 16)
    assert (linear["dense_macs"], linear["acs"], neurons["spikes"], neurons["neuron_updates"]) == (24, 4, 2, 8)
    assert (evaluation["totals"]["acs"], evaluation["totals"]["neuron_updates"]) == (8, 16)
    # the first layer is dense, or left out, or 12 x 2 / 3 in the first sample and nothing in the second
    found = evaluation["conventions"]
    # 0 and 36 dense products of the second sample; 8 x 0.9 pJ in the first and nothing in the second
    deviations = [found[name].pop("std_mj") for name in ("spikformer_iclr", "spikformer_v2", "spikingformer_tool")]
    assert deviations == pytest.approx([(36 - 12) / 2 * 4.6e-9, 0, 8 / 2 * 0.9e-9])
    assert {name: found[name] for name in ("spikformer_iclr", "spikformer_v2", "spikingformer_tool")} == {
        "spikformer_iclr": {"acs": 0, "macs": 24, "energy_mj": pytest.approx(24 * 4.6e-9)},
        "spikformer_v2": {"acs": 0, "macs": 0, "energy_mj": 0},
        "spikingformer_tool": {"acs": 4, "macs": 0, "energy_mj": pytest.approx(4 * 0.9e-9)},
    }


# --- images


def test_an_image_is_scaled_by_255_then_centred_then_divided(model, logits, tmp_path):
    # red, green, blue of two pixels
    Image.fromarray(np.array([[[0, 51, 255], [102, 204, 153]]], np.uint8)).save(tmp_path / "a.png")
    network = model(Input((3, 1, 2), "real"), Flatten(), Linear(np.eye(6, dtype=F)), MeanOverTime(), time_steps=2)
    # channel by channel: red, green, blue
    scaled = [0, 0.4, 0.2, 0.8, 1, 0.6]
    assert logits(network, tmp_path / "a.png") == pytest.approx(scaled, abs=1e-6)
    # (0 - 0.5) / 0.25, (0.4 - 0.5) / 0.25, (0.2 - 0.4) / 0.5, (0.8 - 0.4) / 0.5, 1 / 0.2, 0.6 / 0.2
    normalised = logits(network, tmp_path / "a.png", "--mean", "0.5,0.4,0", "--std", "0.25,0.5,0.2")
    assert normalised == pytest.approx([-2, -0.4, -0.4, 0.8, 5, 3], abs=1e-6)
    assert logits(network, tmp_path / "a.png", "--mean", "0.5,0.4,0") == pytest.approx(
        [-0.5, -0.1, -0.2, 0.4, 1, 0.6], abs=1e-6
    )
    assert logits(network, tmp_path / "a.png", "--std", "0.25,0.5,0.2") == pytest.approx(
        [0, 1.6, 0.4, 1.6, 5, 3], abs=1e-6
    )


def grey(path, rows):
    Image.fromarray(np.array(rows, np.uint8)).save(path)
    return path


@pytest.mark.parametrize(
    ("fit", "rows", "size", "expected"),
    [
        # three columns and rows too many: one goes on the left and at the top, the others on the right and below
        ("crop", [[10 * y + x for x in range(5)] for y in range(4)], (1, 2), [[11, 12]]),
        ("crop", [[10 * y + x for x in range(4)] for y in range(4)], (4, 2), [[1, 2], [11, 12], [21, 22], [31, 32]]),
        # the same that is missing
        ("pad", [[7, 8]], (4, 5), [[0] * 5, [0, 7, 8, 0, 0], [0] * 5, [0] * 5]),
        # triangles twice as wide as a pixel of the result: (3 a + 3 b + c) / 7 and (b + 3 c + 3 d) / 7 of four columns
        ("downscale", [[70, 0, 140, 210]] * 2, (1, 2), [[50, 150]]),
        ("downscale", [[70] * 4, [0] * 4, [140] * 4, [210] * 4], (2, 4), [[50] * 4, [150] * 4]),
        ("none", [[1, 2, 3]], (1, 3), [[1, 2, 3]]),
        ("crop", [[1, 2, 3]], (1, 3), [[1, 2, 3]]),
    ],
)
def test_fitting_an_image(model, logits, tmp_path, fit, rows, size, expected):
    pixels = size[0] * size[1]
    network = model(Input((1, *size), "real"), Flatten(), Linear(np.eye(pixels, dtype=F)), MeanOverTime(), time_steps=1)
    seen = logits(network, grey(tmp_path / "a.png", rows), "--fit", fit)
    np.testing.assert_allclose(np.reshape(seen, size) * 255, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("fit", "image", "size"),
    [
        ("none", (3, 2), (2, 2)),
        ("crop", (2, 2), (3, 2)),
        ("crop", (2, 3), (3, 2)),
        ("pad", (3, 2), (2, 2)),
        ("pad", (2, 3), (3, 2)),
        ("downscale", (2, 2), (2, 3)),
        ("downscale", (3, 2), (2, 3)),
    ],
)
def test_an_image_that_does_not_fit_is_refused(model, capsys, tmp_path, fit, image, size):
    (width, height), (model_width, model_height) = image, size
    network = model(Input((1, model_height, model_width), "real"), Flatten(), time_steps=1)
    file = grey(tmp_path / "a.png", [[0] * width] * height)
    assert main(["run", str(network), str(file), "--fit", fit]) == 2
    assert capsys.readouterr().err == (
        f"eventsim: {file}: an image of {width} x {height} found; the model takes {model_width} x {model_height}; "
        "choose --fit crop, pad or downscale\n"
    )


# --- latency


def test_latency_percentiles_are_those_of_the_samples(model, file_of, document, told, tmp_path, monkeypatch):
    squares = [81, 0, 25, 100, 4, 36, 1, 64, 9, 16, 49]  # milliseconds
    (tmp_path / "data" / "0").mkdir(parents=True)
    for index in range(len(squares)):
        file_of(ones(1, 2), f"data/0/{index:02d}.npy")

    def timed(*arguments):
        for outcome, milliseconds in zip(evaluate(*arguments), squares, strict=True):
            yield dataclasses.replace(outcome, latency_s=milliseconds / 1000)

    monkeypatch.setattr("eventsim.cli.commands.evaluating.evaluate", timed)
    arguments = ("evaluate", model(Input((2,), "binary"), Linear(ones(3, 2))), tmp_path / "data")
    # of 0, 1, 4 ... 100 in order: the sum is 385, number 5 is 25, number 9 is 81, 99 % of ten gaps is number 9.9
    expected = {"mean": 0.035, "p50": 0.025, "p90": 0.081, "p95": 0.0905, "p99": 0.0981, "worst": 0.1}
    assert document(*arguments)["latency_s"] == pytest.approx(expected, rel=1e-9)
    assert "mean 35.0 ms, p50 25.0 ms, p90 81.0 ms, p95 90.5 ms, p99 98.1 ms, worst 100.0 ms" in told(*arguments)


# --- batch normalisation


@pytest.mark.parametrize("eps", [None, 1e-3])
def test_batch_normalisation_adds_eps_below_the_root(told, tmp_path, eps):
    # sqrt(1e-6 + 1e-5) is 0.0033, sqrt(1e-6) + 1e-5 is 0.0010
    state = spikformer_state("dvs", dim=16, depth=1)
    norm = {part: state[f"patch_embed.proj_bn.{part}"] for part in ("weight", "bias", "running_mean", "running_var")}
    norm["running_var"][:] = 1e-6
    np.savez(tmp_path / "c.npz", **state)
    options = ["--set", "height=16", "--set", "width=16"] + ([] if eps is None else ["--set", f"bn_eps={eps}"])
    gain = norm["weight"].astype(float) / np.sqrt(norm["running_var"].astype(float) + (eps or 1e-5))
    shift = norm["bias"].astype(float) - norm["running_mean"] * gain
    told("import", tmp_path / "c.npz", "-o", tmp_path / "folded.h5", *options)
    convolution = load(tmp_path / "folded.h5").layers["patch_embed.proj_conv"]
    weight = state["patch_embed.proj_conv.weight"] * gain[:, None, None, None]
    np.testing.assert_allclose(convolution.weight, weight, rtol=1e-6)
    np.testing.assert_allclose(convolution.bias, shift, rtol=1e-6)
    told("import", tmp_path / "c.npz", "-o", tmp_path / "layer.h5", *options, "--set", "fold_bn=false")
    layer = load(tmp_path / "layer.h5").layers["patch_embed.proj_bn"]
    np.testing.assert_allclose(layer.scale, gain, rtol=1e-5)
    np.testing.assert_allclose(layer.shift, shift, rtol=1e-5)


# --- attention pooling


@pytest.mark.parametrize("chunk", [1, 2, 3])
@pytest.mark.parametrize(
    ("logits_of_steps", "weights"),
    [
        # e^500 is beyond float32; log 3 more is three times the weight
        ([500, 500 + np.log(3), 400], [1 / 4, 3 / 4, 0]),
        ([400, 500 + np.log(3), 500], [0, 3 / 4, 1 / 4]),
        # e^-500 is 0 in float32
        ([-500 + np.log(3), -500, -600], [3 / 4, 1 / 4, 0]),
        ([-600, -500, -500], [0, 1 / 2, 1 / 2]),
    ],
)
def test_attention_pooling_compares_with_the_largest_logit_so_far(
    model, file_of, logits, chunk, logits_of_steps, weights
):
    # channel 0 is the logit, channel 1 what is averaged, both in one token of each step
    frames = np.array([[[logit, value]] for logit, value in zip(logits_of_steps, (16, 4, 1), strict=True)])
    network = model(Input((1, 2), "real"), AttentionPool(np.array([1, 0], F)))
    assert logits(network, file_of(frames), "--chunk", chunk)[1] == pytest.approx(np.dot(weights, (16, 4, 1)), rel=1e-4)


# --- dense multiply-accumulates


def gates(outputs):
    """Step attention of 4 channels with 3 hidden ones."""
    return ones(1, 4, 1), ones(1, 4, 1), ones(1, 3, 8), ones(1, 3), ones(1, outputs, 3), ones(1, outputs)


DENSE_MACS = [
    # 5 tokens, each 4 outputs x 3 inputs
    (Linear(ones(4, 3)), (5, 3), "binary", 60),
    (SparseLinear.from_matrix(np.eye(4, 3, dtype=F)), (5, 3), "graded", 60),
    (WindowedLinear(ones(4, 3), window=3, exponent=1), (5, 3), "binary", 60),
    # 3 x 3 pixels, each 3 x 2 channels times 2 x 3 taps
    (Conv2d(ones(3, 2, 2, 3)), (2, 4, 5), "graded", 9 * 3 * 2 * 2 * 3),
    # 4 x 5 pixels with padding, each 4 channels times 3 x 3 taps of the one channel of their group
    (Conv2d(ones(4, 1, 3, 3), padding=(1, 1), groups=2), (2, 4, 5), "binary", 20 * 4 * 9),
    # 2 x 2 pixels, each 3 x 2 channels times 3 x 2 x 2 taps
    (Conv3d(ones(3, 2, 3, 2, 2)), (2, 3, 3), "binary", 4 * 3 * 2 * 3 * 2 * 2),
    # 6 x 6 pairs of tokens, 4 channels, two products; the heads share the channels
    (SpikingAttention(2), (6, 4), "binary", 2 * 36 * 4),
    (TableAttention(np.array([[0, 1, 2], [0, 3, 4]])), (6, 4), "binary", 2 * 36 * 4),
    # q, k and v of 2 channels; 5 x 5 pairs of tokens, or 4 x 4 pairs of steps for each of 5 tokens in 4 steps
    (SoftmaxAttention(1), (5, 6), "real", 2 * 25 * 2),
    (SoftmaxAttention(1, "time", 4), (5, 6), "real", 2 * 16 * 5 * 2 // 4),
    # a logit and a weighted sum of 5 tokens of 3 channels
    (AttentionPool(ones(3)), (5, 3), "real", 2 * 5 * 3),
    # the same of 6 tokens of 4 channels, and two matrices of 4 x 2
    (
        GlobalContext(ones(4), ones(1), ones(2, 4), ones(2), ones(4, 2), ones(4)),
        (6, 4),
        "real",
        2 * 6 * 4 + 2 * 4 * 2,
    ),
    # 3 x 8 and 8 x 3, or 3 x 8 and 4 x 3; 3 x 8 and 2 x 3
    (AdaptiveLIF(*gates(8)), (6, 4), "real", 48),
    (AdaptiveLIF(*gates(4)), (6, 4), "real", 36),
    (AdaptiveLIF(*gates(2), scalar_gates=True), (6, 4), "real", 30),
    (AdaptiveLIF(*gates(4)[:2]), (6, 4), "real", 0),
]


@pytest.mark.parametrize(
    ("layer", "shape", "kind", "macs"), DENSE_MACS, ids=[f"{type(layer).__name__}-{n}" for layer, *_, n in DENSE_MACS]
)
def test_dense_macs_of_every_layer(model, file_of, document, layer, shape, kind, macs):
    pooled = isinstance(layer, AttentionPool)
    network = model(Input(shape, kind), layer, *([] if pooled else [Flatten()]), time_steps=4)
    info = document("info", network)
    assert [row["dense_macs_per_step"] for row in info["layers"] if row["name"] == "layer0"] == [macs]
    assert info["dense_macs_per_step"] == macs
    (sample,) = document("profile", network, file_of(ones(4, *shape)))["samples"]
    assert [row["dense_macs"] for row in sample["layers"] if row["name"] == "layer0"] == [4 * macs]
    assert sample["totals"]["dense_macs"] == 4 * macs


# --- conventions


def test_conventions_side_by_side(model, file_of, told, document):
    # 3 of 4 inputs, one of them 2: 2 x 3 synapses of ones and 3 of a two, 12 dense products and no bias
    network = model(Input((4,), "graded"), Linear(ones(3, 4)), IF())
    source = file_of([[1, 1, 2, 0]])
    # 12 units x 0.9 pJ = 10.8 pJ; 9 MACs x 4.6 = 41.4; 12 x 4.6 = 55.2, and syops adds 3 neurons x 0.9
    assert (
        "conventions: 1.08e-08 mJ as executed, an integer as additions; others say 0 (spikformer_v2) to 5.79e-08 "
        "(syops); --conventions tells each, and why"
    ) in told("profile", network, source)
    said = told("profile", network, source, "--conventions")
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines()]
    rows = {row[0]: row[2:] for row in cells if len(row) == 6}
    assert rows["exact_unary"] == ["12", "0", "1.08e-08", "1.00"]
    assert rows["exact_macs"] == ["0", "9", "4.14e-08", "3.83"]
    assert rows["spikingjelly"] == ["0", "12", "5.52e-08", "5.11"]
    assert "attention_snn" not in rows  # which is about a first convolution
    assert "dampfhoffer: spikes_per_synapse 1, break_even_low 0.15, break_even_high 1.38" in said
    reason = (
        "+4.44e-08 mJ, 100% of the difference: one input that is neither 0 nor 1 makes a layer MACs, all of it, "
        "borders included; layer layer0 is 100% alone: 12 MACs where 12 ACs were executed (1 of its 4 inputs are "
        "integers above 1)"
    )
    assert f"spikingjelly: {reason}" in said
    found = document("profile", network, source)["samples"][0]["conventions"]["spikingjelly"]
    assert found == {"acs": 0, "macs": 12, "energy_mj": pytest.approx(55.2e-9), "reasons": [reason]}
    assert "exact_unary" in told("run", network, source, "--conventions")
