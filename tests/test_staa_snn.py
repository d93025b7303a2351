"""STAA-SNN: the import equals the PyTorch definition in every reading of the paper, spikes and counts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from assumptions import of_the_network
from numpy.testing import assert_allclose, assert_array_equal
from staa_snn_torch import (
    CHANGES,
    EXACT,
    EXAMPLES,
    FIXED,
    PAIRS,
    READINGS,
    REAL,
    TOLD,
    Seen,
    T,
    awake,
    build,
    definition,
    export,
    frames_for,
    imported,
    learned,
    make_dyadic,
    make_lively,
    reading_of,
    save_file,
    torch,
)
from state_dicts import spikformer_state

from eventsim import InputError, Network, Result, Simulator, import_checkpoint, open_recording
from eventsim.accounting.energy import models
from eventsim.datasets import labelled_files
from eventsim.dvs import frames_by_count
from eventsim.layers import LIF, AdaptiveLIF, Affine, Conv2d, GlobalContext, Linear, PositionEncoding
from eventsim.ledger import Counts
from eventsim_importers import staa_snn
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.container import Contents


@pytest.mark.parametrize(("backbone", "name"), EXACT)
def test_every_reading_equals_pytorch_bit_for_bit(tmp_path: Path, backbone: str, name: str) -> None:
    """Without layer normalisation; the stem of ImageNet averages nine values, which is not dyadic either."""
    model = build(backbone, {"gc_layer_norm": False, **READINGS[name]})
    frames = frames_for(model)
    seen = awake(make_dyadic, model, frames, seed=1)
    for fold_bn in (True, False):
        network = imported(model, tmp_path, fold_bn=fold_bn, bn_eps=0.0)
        assert any(isinstance(layer, Affine) for layer in network.layers.values()) != fold_bn
        for chunk in range(1, T + 1) if fold_bn else (T,):
            result = Simulator(network, chunk=chunk, record=seen.spikes).run(frames)
            for each, spikes in seen.spikes.items():
                assert_array_equal(result.recorded[each], spikes, err_msg=each)
            assert_array_equal(result.logits, seen.logits)
            check_counts(result, model, network, seen)
    assert set(seen.spikes) == {each for each, layer in network.layers.items() if isinstance(layer, AdaptiveLIF | LIF)}


def check_counts(result: Result, model: Any, network: Network, seen: Seen) -> None:
    """Compare with the synapses that PyTorch's own convolutions reach, enumerated by weights that are all 1.

    A context or an encoding before the synapses makes their inputs real and dense; the shortcut has neither.
    """
    modules = dict(model.named_modules())
    reading = model.reading
    enhanced = ("gc" in reading.modules and reading.gc_at == "input") or (
        "pe" in reading.modules and reading.pe_at == "input"
    )
    convs = [name for name, layer in network.layers.items() if isinstance(layer, Conv2d)]
    assert convs == [
        name for name, module in modules.items() if isinstance(getattr(module, "pool", 0), torch.nn.Conv2d)
    ]
    for layer in result.profile:
        counts = layer.counts
        if layer.name in convs:
            x, module = torch.from_numpy(np.abs(seen.inputs[layer.name])).double(), modules[layer.name].pool
            ones = torch.ones_like(module.weight).double()
            pairs, units, every = (
                int(torch.nn.functional.conv2d(given, ones, None, module.stride, module.padding).sum().item())
                for given in ((x != 0).double(), x, torch.ones_like(x))
            )
            first = layer.name in ("conv1", "conv1.0", "features.0")
            binary = bool(((x == 0) | (x == 1)).all())
            averaged = network.types[network.sources[layer.name][0]].kind == "real"
            if enhanced and "downsample" not in layer.name:
                expected = (0, 0, 0, every)
            else:
                assert first or averaged or binary, layer.name
                expected = (0, pairs, units, 0) if first else (0, 0, 0, pairs) if averaged else (pairs, 0, 0, 0)
            assert (counts.acs, counts.graded_macs, counts.graded_acs, counts.macs) == expected, layer.name
        elif layer.kind in ("AdaptiveLIF", "LIF"):
            assert counts.spikes == seen.spikes[layer.name].sum()
            assert counts.neuron_updates == seen.spikes[layer.name].size == layer.neurons * T
            assert (counts.acs, counts.graded_macs) == (0, 0)
    assert result.totals.spikes == sum(int(spikes.sum()) for spikes in seen.spikes.values())


@pytest.mark.parametrize(("backbone", "name"), REAL)
def test_real_weights_differ_by_rounding_only(tmp_path: Path, backbone: str, name: str) -> None:
    """With layer normalisation, and sizes that are odd somewhere: the last average of a shortcut has fewer values."""
    model = build(backbone, (READINGS | FIXED)[name], size=(22, 17))
    frames = frames_for(model, seed=3)
    seen = awake(make_lively, model, frames, seed=2)
    network = imported(model, tmp_path)
    result = Simulator(network, record=seen.spikes).run(frames)
    if not check_spikes(result, seen):
        assert_allclose(result.logits, seen.logits, atol=1e-4)
    for chunk in (1, 3):
        again = Simulator(network, chunk=chunk).run(frames)
        assert_array_equal(again.logits, result.logits)
        assert again.totals == result.totals


def check_spikes(result: Result, seen: Seen) -> bool:
    """Check that the first spikes that differ, if any, were within 1e-4 of the threshold; return whether any did."""
    for name, spikes in seen.spikes.items():
        assert spikes.any(), name
        differ = result.recorded[name] != spikes
        for potential, wrong in zip(seen.potentials[name], differ, strict=True):
            if wrong.any():
                assert (np.abs(potential[wrong] - 1) < 1e-4).all(), name
                return True
    return False


REFUSED: dict[tuple[str, str], str] = {
    **{("no PE", f"pe_at={place}"): "without tensor relu.P found" for place in ("current", "input", "past", "both")},
    ("no PE", "pe_at=potential"): "pe_at=potential without tensor relu.P found",
    **{
        ("no GC", option): f"{option} without tensor relu.gc.key.weight found; expected it left out"
        for option in ("gc_at=input", "gc_norm=sigmoid", "gc_combine=gated")
    },
    **{
        ("no SA", option): f"{option} without tensor relu.sa.reduce.weight found; expected it left out"
        for option in ("sa_gates=scalar", "sa_mode=sum", "sa_inputs=features")
    },
    **{("plain", option): f"{option} without tensor relu.gc.key" for option in ("gc_at=input", "gc_norm=sigmoid")},
    ("plain", "gc_combine=gated"): "gc_combine=gated without tensor relu.gc.key.weight found",
    **{("plain", f"pe_at={place}"): "without tensor relu.P found" for place in ("current", "input", "past", "both")},
    ("plain", "pe_at=potential"): "pe_at=potential without tensor relu.P found",
    **{("plain", f"pe_fixed={c}"): f"pe_fixed={c} for plain neurons found" for c in ("time", "space", "both")},
    **{
        ("plain", option): f"{option} without tensor relu.sa.reduce.weight found"
        for option in ("sa_gates=scalar", "sa_mode=sum", "sa_inputs=features")
    },
}
"""The first as tensors, the second as an option that does not fit them."""


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_readings_in_pairs_equal_pytorch_or_are_refused(tmp_path: Path, first: str, second: str) -> None:
    """Fixed encodings are not dyadic, so there the first spikes that differ must have been near the threshold."""
    sizes = {"widths": (4, 8), "blocks": (1, 1)}
    if (first, second) in REFUSED:
        model = build("one", reading_of(first), **sizes)
        with pytest.raises(InputError, match=REFUSED[first, second]) as caught:
            imported(model, tmp_path, **{k: v for k, v in CHANGES[second].items() if k != "without"})
        assert "\n" not in str(caught.value)
        return
    model = build("one", {"gc_layer_norm": False, **reading_of(first, second)}, **sizes)
    frames = frames_for(model)
    fixed = "pe" in model.reading.modules and model.reading.pe_fixed != "none"
    seen = awake(make_lively if fixed else make_dyadic, model, frames, seed=1)
    network = imported(model, tmp_path, bn_eps=1e-5 if fixed else 0.0)
    assert not of_the_network(network)
    results = [Simulator(network, chunk=chunk, record=seen.spikes).run(frames) for chunk in (1, 3, T)]
    if not fixed:
        for each, spikes in seen.spikes.items():
            assert_array_equal(results[0].recorded[each], spikes, err_msg=each)
        assert_array_equal(results[0].logits, seen.logits)
        check_counts(results[0], model, network, seen)
    elif not check_spikes(results[0], seen):
        assert_allclose(results[0].logits, seen.logits, atol=1e-4)
    for result in results[1:]:
        assert_array_equal(result.logits, results[0].logits)
        assert result.totals == results[0].totals


@pytest.mark.parametrize("counted", ["time", "space", "both"])
def test_fixed_encodings_are_sines_and_cosines_of_the_positions(tmp_path: Path, counted: str) -> None:
    network = imported(build("three", {"pe_fixed": counted, "pe_at": "input"}, size=(6, 4)), tmp_path)
    layer = network.layers["conv1.5.P"]
    assert isinstance(layer, PositionEncoding)
    sizes = {"time": (T, 1), "space": (1, 24), "both": (T, 24)}[counted]
    assert layer.encoding.shape == (sizes[0], 4, sizes[1])
    position = 0
    for t in range(sizes[0]):
        for n in range(sizes[1]):
            slow = position / 100  # 10000 to the power 2 / 4
            angles = [math.sin(position), math.cos(position), math.sin(slow), math.cos(slow)]
            assert_allclose(layer.encoding[t, :, n], angles, atol=1e-6)
            position += 1


def test_a_fixed_encoding_that_the_file_does_not_name_is_an_assumption_and_an_option(tmp_path: Path) -> None:
    """No tensor tells it: its checkpoint is that of a network without encodings."""
    model = make_lively(build("one", {"pe_fixed": "both", "pe_at": "past"}), seed=3)
    frames = frames_for(model)
    np.savez(tmp_path / "c.npz", **{name: value.numpy() for name, value in model.state_dict().items()})
    sizes = {"height": 8, "width": 8, "time_steps": T}
    without = import_checkpoint(tmp_path / "c.npz", **sizes)
    assert "pe_fixed = none: not found in the checkpoint, the default" in without.assumptions
    network = import_checkpoint(tmp_path / "c.npz", **sizes, pe_fixed="both", pe_at="past")
    seen = Seen(model, frames)
    if not check_spikes(Simulator(network, record=seen.spikes).run(frames), seen):
        assert_allclose(Simulator(network).run(frames).logits, seen.logits, atol=1e-4)
    with pytest.raises(InputError, match=r"layer relu.P: encoding of 1000000000000 time steps, 4 channels and 64 pos"):
        import_checkpoint(tmp_path / "c.npz", **{**sizes, "time_steps": 10**12}, pe_fixed="both", pe_at="past")


def test_two_channels_do_not_tell_a_gate_per_channel_from_scalar_ones(tmp_path: Path) -> None:
    model = make_lively(build("one", {"sa_gates": "scalar"}, widths=(2, 4), blocks=(1, 1)), seed=4)
    np.savez(tmp_path / "c.npz", **{name: value.numpy() for name, value in model.state_dict().items()})
    with pytest.raises(InputError, match=r"layer2.0.relu1.sa.expand.weight \(2, 2, 1, 1\) found; expected \(4, 2"):
        import_checkpoint(tmp_path / "c.npz")  # the wider layers tell, and do not fit what was assumed
    network = import_checkpoint(tmp_path / "c.npz", sa_mode="each")
    settings = {setting.option: (setting.value, setting.source) for setting in network.settings}
    assert (settings["sa_mode"], settings["sa_gates"]) == (("each", "option"), ("scalar", "inferred"))


@pytest.mark.parametrize(
    ("given", "other"),
    [
        ({"pe_at": "past"}, {"pe_at": "current"}),
        ({"pe_fixed": "time", "pe_at": "current"}, {"pe_fixed": "space"}),
        ({"neurons": "plain", "modules": ()}, {"tau": 3.0}),
        ({"neurons": "plain", "modules": ()}, {"decay_input": True}),
        ({"gc_norm": "sigmoid"}, {"gc_norm": "softmax"}),
        ({"gc_combine": "gated"}, {"gc_combine": "additive"}),
        ({"sa_inputs": "features"}, {"sa_inputs": "terms"}),
        ({"sa_scale": 1.0}, {"sa_scale": 2.0}),
        ({}, {"v_threshold": 1.5}),
        ({}, {"bn_eps": 0.1}),
        ({}, {"ln_eps": 0.5}),
        ({}, {"reset": "subtract"}),
    ],
)
def test_options_change_the_result_and_metadata_answers_first(tmp_path: Path, given: Any, other: Any) -> None:
    model = make_lively(build("three", given), seed=4)
    frames = frames_for(model)
    logits, changed, asked = (
        Simulator(import_checkpoint(export(model, tmp_path), **options)).run(frames).logits
        for options in ({}, other, {name: str(value) for name, value in given.items() if name not in TOLD})
    )
    assert (logits != changed).any()
    assert_array_equal(logits, asked)


def test_images_are_shown_in_every_step(tmp_path: Path) -> None:
    model = make_dyadic(build("three", {"gc_layer_norm": False}, in_channels=3), seed=5)
    image = frames_for(model, steps=1)[0]
    seen = Seen(model, np.stack([image] * T))
    network = imported(model, tmp_path, bn_eps=0.0)
    assert network.input.kind == "real"
    result = Simulator(network).run(image)
    assert_array_equal(result.logits, seen.logits)
    assert_array_equal(model(torch.from_numpy(image)[None]).detach().numpy()[0], seen.logits)
    first = next(layer for layer in result.profile if layer.name == "conv1.0")
    assert first.counts.macs == 3 * 4 * (3 * 16 - 2) ** 2  # computed once; each pixel of a border has fewer taps
    assert first.dense_macs == T * 3 * 4 * 9 * 16**2
    constant = make_dyadic(
        build("three", {"pe_axes": ("height", "width"), "gc_layer_norm": False}, in_channels=3), seed=5
    )
    result = Simulator(imported(constant, tmp_path, bn_eps=0.0)).run(image)
    assert_array_equal(result.logits, Seen(constant, np.stack([image] * T)).logits)
    context = next(layer for layer in result.profile if layer.name == "conv1.2.gc")
    assert context.counts.macs == context.dense_macs / T  # as P, which is the same in every step, lets it


def test_fewer_time_steps_meet_the_beginning_of_what_depends_on_time(tmp_path: Path) -> None:
    model = make_dyadic(build("three", {"gc_layer_norm": False, **READINGS["gates of each step"]}), seed=6)
    frames = frames_for(model, steps=2)
    network = imported(model, tmp_path, bn_eps=0.0, time_steps=2)
    assert_array_equal(Simulator(network).run(frames).logits, Seen(model, frames).logits)
    with pytest.raises(InputError, match=r"^layer conv1\.2\.P: 5 time steps found; the encoding has 4"):
        Simulator(network).run(frames_for(model, steps=5))


def test_plain_aggregation_replaces_the_modules_in_training_only() -> None:
    torch.manual_seed(0)
    with_modules, without = (
        definition.STAALIF((4, 6, 6), T, definition.Reading(tsrd=1.0, modules=modules))
        for modules in (("pe", "gc", "sa"), ())
    )
    for parameter in (with_modules.P, with_modules.gc.query.weight):
        torch.nn.init.normal_(parameter)
    x = torch.randn(T, 3, 4, 6, 6) * 2
    assert_array_equal(with_modules.train()(x).detach(), without(x).detach())
    assert (with_modules.eval()(x) != without(x)).any()


@pytest.mark.parametrize("gc_at", ["current", "input"])
@pytest.mark.parametrize("pe_at", ["current", "input", "past", "both", "potential"])
def test_plain_aggregation_drops_what_is_before_the_synapses_too(gc_at: str, pe_at: str) -> None:
    """A layer's steps are drawn once: what its synapses see and what its neuron does belong together."""
    reading = definition.Reading(tsrd=0.5, gc_at=gc_at, pe_at=pe_at, sa_scale=1.0)
    torch.manual_seed(1)
    neuron = definition.STAALIF((4, 6, 6), 16, reading, (3, 6, 6)).train()
    for parameter in (*learned(neuron), neuron.gc.query.bias):
        torch.nn.init.normal_(parameter)
    x = torch.randn(16, 2, 3, 6, 6)
    seen = neuron.prepare(x)
    dropped = list(neuron.dropped)
    assert 0 < sum(dropped) < 16
    changed = [bool((seen[t] != x[t]).any()) for t in range(16)]
    assert changed == [not drop and "input" in (gc_at, pe_at) for drop in dropped]
    aggregated = []
    neuron.aggregate = lambda t, past, present, before, now: aggregated.append(t) or past + present
    neuron(torch.randn(16, 2, 4, 6, 6))
    assert aggregated == [t for t, drop in enumerate(dropped) if not drop]


@pytest.mark.parametrize("ablation", definition.ABLATIONS)
def test_the_rows_of_table_4_as_models_for_nmnist(tmp_path: Path, ablation: str) -> None:
    model = make_lively(definition.nmnist_model(ablation), seed=7).eval()
    tensors = " ".join(model.state_dict())
    has = {"plain": "", "gc": "M gc", "gc_pe": "M gc P", "gc_pe_tsrd": "M gc P"}.get(ablation, "M gc P sa").split()
    assert [part for part in ("M", "gc", "P", "sa") if f"features.2.{part}" in tensors] == has
    assert (model.reading.tsrd > 0) == (ablation in ("gc_pe_tsrd", "all"))
    network = imported(model, tmp_path)
    assert not of_the_network(network)
    frames = frames_for(model, steps=5)
    seen = Seen(model, frames)
    result = Simulator(network, record=seen.spikes).run(frames)
    if not check_spikes(result, seen):
        assert_allclose(result.logits, seen.logits, atol=1e-4)


def test_the_model_for_nmnist_is_the_last_row_and_others_are_named() -> None:
    assert definition.nmnist_model().reading == definition.nmnist_model("all").reading
    with pytest.raises(ValueError, match=r"ablation 'none' found; expected one of \('plain', 'gc', 'gc_pe'"):
        definition.nmnist_model("none")
    with pytest.raises(ValueError, match=r"plain neurons with modules \('pe', 'gc', 'sa'\) found; expected modules"):
        definition.Reading(neurons="plain")


TRAINED: dict[str, dict[str, Any]] = {
    "plain": {"neurons": "plain", "modules": ()},
    "context on the input, encodings at both ports, scalar gates": {
        "gc_at": "input",
        "pe_at": "both",
        "sa_gates": "scalar",
    },
    "encoding of the potential": {"pe_at": "potential"},
}


@pytest.mark.parametrize("name", TRAINED)
def test_gradients_reach_every_parameter(name: str) -> None:
    """The second step of training, as contexts begin without effect."""
    reading = {**TRAINED[name], "tsrd": 0.0, "gc_ratio": 1}  # a bottleneck of one channel is constant behind its LN
    model = build("one", reading, widths=(8, 8), blocks=(1, 1)).train()
    x, labels = torch.from_numpy(np.stack([frames_for(model, seed) for seed in range(8)], 1)), torch.arange(8) % 5
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    losses = []
    for _ in range(6):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    silent = [key for key, each in model.named_parameters() if each.grad is None or not each.grad.any()]
    assert [key for key in silent if not key.endswith("gc.key.bias")] == []  # softmax does not see it


# --- published sizes


def shapes_of(make: Any, *sizes: int, **options: Any) -> Any:
    with torch.device("meta"):
        return make(*sizes, **options)


def backbone_parameters(model: Any) -> int:
    return sum(p.numel() for name, p in model.named_parameters() if name.rsplit(".", 1)[-1] not in "MNP")


@pytest.mark.parametrize(
    ("make", "classes", "expected"),
    [
        ("resnet20", 10, 11_247_946),
        ("resnet20", 100, 11_294_116),
        ("resnet19", 10, 12_569_226),
        ("resnet19", 100, 12_615_396),
        ("resnet18", 1000, 11_689_512),
        ("resnet34", 1000, 21_797_672),
    ],
)
def test_parameters_of_the_backbones(make: str, classes: int, expected: int) -> None:
    model = shapes_of(getattr(definition, make), classes, reading=definition.Reading(modules=()))
    assert backbone_parameters(model) == expected


MATRICES = {"mn_axes": ("channel", "height", "width"), "sa_gates": "scalar"}


@pytest.mark.parametrize(
    ("reading", "expected"),
    [
        ({}, 12_393_027),
        ({"pe_axes": ("channel", "height", "width")}, 12_694_787),
        ({**MATRICES, "sa_ratio": 128}, 12_686_934),
        ({**MATRICES, "pe_axes": ("time",), "gc_at": "input"}, 12_690_684),
        ({**MATRICES, "modules": ("pe", "gc")}, 12_664_391),
        ({"neurons": "plain", "modules": ()}, 11_294_116),
    ],
)
def test_parameters_of_readings_beside_the_12_69_m_that_the_paper_states(
    reading: dict[str, Any], expected: int
) -> None:
    """Those from the second to the fourth round to it; in the last two of these the encoding depends on time."""
    model = shapes_of(definition.resnet20, 100, reading=definition.Reading(**reading))
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters == expected
    rounds = {12_694_787, 12_686_934, 12_690_684}
    assert (round(parameters / 1e6, 2) == 12.69) == (expected in rounds)


def network_of(model: Any, **options: Any) -> Network:
    """Import tensors of the shapes of a model, each a single value that is never copied."""
    state = {name: np.broadcast_to(np.float32(1), tuple(value.shape)) for name, value in model.state_dict().items()}
    checkpoint = Checkpoint(Path("published"), "npz", Contents(state, definition.metadata(model)))
    return staa_snn.read(checkpoint, staa_snn.Options(fold_bn=False, **options))


def dense_macs(network: Network, *kinds: type, source: str | None = None) -> int:
    """Of one time step, over layers of some types, that read a kind of signal."""
    return sum(
        layer.dense_macs(*network.input_types(name))
        for name, layer in network.layers.items()
        if isinstance(layer, kinds) and source in (None, network.input_types(name)[0].kind)
    )


def test_published_figures_of_resnet20() -> None:
    network = network_of(shapes_of(definition.resnet20, 100))
    steps, giga = network.time_steps, 1e9
    assert steps == 4
    backbone, context = dense_macs(network, Conv2d, Linear), dense_macs(network, GlobalContext)
    assert backbone == 215_730_176
    assert round(steps * backbone / giga, 4) == 0.8629
    assert round(steps * (backbone + context) / giga, 4) == 0.8683
    real = dense_macs(network, Conv2d, Linear, source="real")
    assert round(steps * real / giga, 4) == 0.0513
    assert round(steps * (real + context) / giga, 4) == 0.0567
    assert sum(isinstance(layer, GlobalContext) for layer in network.layers.values()) == 19
    energy = models()["45nm_mac"].millijoules(Counts(acs=100_000_000, macs=60_000_000))
    assert round(energy, 3) == 0.366


def test_a_context_on_the_input_leaves_no_synapse_the_spikes_that_the_paper_counts() -> None:
    """0.10 G ACs and 0.06 G MACs are stated: the synapses behind a context would be 0.84 G MACs."""
    network = network_of(shapes_of(definition.resnet20, 100, reading=definition.Reading(gc_at="input")))
    steps, giga = network.time_steps, 1e9
    spiking = dense_macs(network, Conv2d, source="binary")
    real = dense_macs(network, Conv2d, Linear, source="real")
    assert spiking == 0
    assert round(steps * real / giga, 2) == 0.86


PUBLISHED = {
    "resnet20": ("modified ResNet", "layer4.1.output_act", (512, 2, 2)),
    "resnet19": ("ResNet", "layer3.1.output_act", (512, 8, 8)),
    "resnet18": ("ImageNet ResNet", "layer4.1.output_act", (512, 7, 7)),
    "resnet34": ("ImageNet ResNet", "layer4.2.output_act", (512, 7, 7)),
    "vgg13": ("VGG", "features.34", (512, 1, 1)),
}


@pytest.mark.parametrize("make", PUBLISHED)
def test_published_backbones_are_told_apart(make: str) -> None:
    layout, last, shape = PUBLISHED[make]
    model = shapes_of(getattr(definition, make))
    network = network_of(model)
    assert network.name == f"STAA-SNN {layout}"
    assert network.types[last].shape == shape
    assert network.time_steps == model.time_steps
    spiking = sum(isinstance(layer, AdaptiveLIF) for layer in network.layers.values())
    assert spiking == sum(isinstance(module, definition.STAALIF) for module in model.modules())


# --- checkpoints


def test_shapes_tell_sizes_and_the_rest_is_said(tmp_path: Path) -> None:
    model = build("three", {"pe_axes": ("time", "channel"), "sa_mode": "sum"})
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    np.savez(tmp_path / "c.npz", **state)
    network = import_checkpoint(tmp_path / "c.npz")
    assert network.time_steps == T
    said = " ".join(network.assumptions)
    for words in ("height = 48", "width = 48", "gc_norm = softmax", "gc_combine = additive", "sa_inputs = terms"):
        assert words in said
    assert "sa_scale = 2.0" in said
    assert "sa_mode" not in said
    for words in ("reset = zero", "v_reset = 0.0", "strict = false"):
        assert words in said
    settings = {setting.option: (setting.value, setting.source, setting.note) for setting in network.settings}
    assert settings["sa_mode"] == ("sum", "inferred", "outputs of conv1.2.sa.expand")
    static = {name: value.numpy() for name, value in build("one", READINGS["P for pixels"]).state_dict().items()}
    np.savez(tmp_path / "p.npz", **static)
    sized = import_checkpoint(tmp_path / "p.npz", input_kind="graded")
    assert sized.input.shape == (2, 8, 8)
    assert sized.time_steps == 16


def test_what_a_checkpoint_without_metadata_leaves_open(tmp_path: Path) -> None:
    plain, enhanced = build("three", {"neurons": "plain", "modules": ()}), build("three", {"gc_at": "input"})
    networks = []
    for model in (plain, enhanced):
        np.savez(tmp_path / "c.npz", **{name: value.numpy() for name, value in model.state_dict().items()})
        networks.append(import_checkpoint(tmp_path / "c.npz", height=16, width=16))
    assert {"tau = 2.0", "decay_input = false"} < {said.partition(":")[0] for said in networks[0].assumptions}
    settings = {setting.option: (setting.value, setting.source) for setting in networks[1].settings}
    assert settings["gc_at"] == ("input", "inferred")
    assert settings["pe_at"] == ("input", "assumed")  # right before the context
    assert settings["pe_fixed"] == ("none", "inferred")


@pytest.mark.parametrize("gc_at", ["current", "input"])
def test_where_a_context_acts_is_said_where_channels_do_not_tell(tmp_path: Path, gc_at: str) -> None:
    """The first layer makes two channels of two."""
    model = build("one", {"gc_at": gc_at, "gc_layer_norm": False}, widths=(2, 4), blocks=(1, 1))
    frames = frames_for(model)
    seen = awake(make_dyadic, model, frames, seed=1)
    network = imported(model, tmp_path, bn_eps=0.0)
    assert_array_equal(Simulator(network).run(frames).logits, seen.logits)
    assert ("relu.gc", "conv1") in [edge[:2] for edge in network.edges] or gc_at == "current"
    np.savez(tmp_path / "c.npz", **{name: value.numpy() for name, value in model.state_dict().items()})
    if gc_at == "current":
        assert "gc_at = current" in " ".join(import_checkpoint(tmp_path / "c.npz").assumptions)
    else:
        with pytest.raises(InputError, match=r"layer2.0.relu1.(P|gc.*) \("):  # the first layer of other sizes
            import_checkpoint(tmp_path / "c.npz")


@pytest.mark.parametrize("prefix", ["model.", "module.model.", ""])
def test_prefixes_of_wrappers(tmp_path: Path, prefix: str) -> None:
    state = {f"{prefix}{name}": value for name, value in build("one").state_dict().items()}
    torch.save(state, tmp_path / "c.pth")
    assert import_checkpoint(tmp_path / "c.pth").name == "STAA-SNN ResNet"


@pytest.mark.parametrize("shape", [(), (1,), (4,), (4, 1, 1), (1, 16, 1), (1, 1, 1, 16), (4, 4, 16, 16)])
def test_coefficients_of_fewer_axes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """One number, (channels,), three axes and four mean what their repetition to four axes means."""
    model = make_dyadic(build("three", {"gc_layer_norm": False, **READINGS["M, N for all"]}), seed=8)
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    few = np.random.default_rng(0).choice([0.5, 1, 2], shape).astype(np.float32)
    whole = np.broadcast_to(few[:, None, None] if few.ndim == 1 else few, (T, 4, 16, 16))
    logits = []
    for array in (few, whole):
        np.savez(tmp_path / "c.npz", **{**state, "conv1.2.M": array, "conv1.5.N": array, "conv1.8.P": array})
        network = import_checkpoint(tmp_path / "c.npz", bn_eps=0.0)
        logits.append(Simulator(network).run(frames_for(model)).logits)
    assert_array_equal(*logits)


def test_other_checkpoints_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", **spikformer_state("dvs"))
    words = (
        r"c.npz: no STAA-SNN found; expected one of conv1.0.pool.weight with conv1.2.M, conv1.pool.weight with relu.M"
    )
    with pytest.raises(InputError, match=words):
        import_checkpoint(tmp_path / "c.npz", "staa_snn")
    state = {name: value.numpy() for name, value in build("one").state_dict().items() if ".M" not in name}
    np.savez(tmp_path / "c.npz", **state)  # the baseline, whose neurons are others
    with pytest.raises(InputError, match=r"looks like a checkpoint of ResNet with normalised .* which is not read"):
        import_checkpoint(tmp_path / "c.npz")


Z = np.zeros
BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "P in all neurons but the first": ({"conv1.2.P": None}, {}, r"conv1.5.P \(4, 1, 16, 16\) and 7 more left over"),
    "extra": ({"layer1.0.relu1.bn.weight": Z(4)}, {}, r"layer1.0.relu1.bn.weight \(4\) left over"),
    "conv": ({"conv1.3.pool.weight": Z((4, 4, 5, 5))}, {}, r"weight \(4, 4, 5, 5\) found; expected \(any, 4, 3, 3\)"),
    "gc": ({"conv1.2.gc.value.bias": Z(2)}, {}, r"conv1.2.gc.value.bias \(2\) found; expected \(1\)"),
    "P": ({"conv1.8.P": Z((4, 3, 16, 16))}, {}, r"P \(4, 3, 16, 16\) found; expected .*repeats to \(4, 4, 16, 16\)"),
    "M axes": ({"conv1.8.M": Z((4, 4))}, {}, r"conv1.8.M \(4, 4\) found; expected a shape that repeats"),
    "M length": ({"conv1.8.M": Z((2, 1, 1, 1))}, {}, "time_steps=4 found; expected at most 2, .* of tensor conv1.8.M"),
    "integers": ({"conv1.8.M": Z(4, np.int64)}, {}, "conv1.8.M of type int64 found; expected floating point"),
    "size": ({}, {"height": 20}, r"conv1.2.P \(4, 1, 16, 16\) found; .* \(4, 4, 20, 16\): time steps, channels"),
    "no size": ({}, {"height": 0}, r"layer input: shape \(2, 0, 16\) found"),
    "steps": ({}, {"time_steps": 5}, "time_steps=5 found; expected at most 4, the number of tensor conv1.2.P"),
    "no steps": ({}, {"time_steps": 0}, "0 time steps found; expected a whole number"),
    "reset value": (
        {},
        {"v_reset": 0.3},
        r"c.npz: v_reset=0.3 found; expected 0, as conv1.2.M multiplies the potential",
    ),
    "last pool": ({}, {"last_pool": True}, r"c.npz: last_pool=True for a modified ResNet found; expected it left out"),
    "eps": ({}, {"ln_eps": -1.0}, r"c.npz: ln_eps=-1 found; expected more than 0"),
    "threshold": ({}, {"v_threshold": -1.0}, r"c.npz: v_threshold=-1 found; expected more than v_reset=0"),
    "scale": ({}, {"sa_scale": 0.0}, r"c.npz: sa_scale=0 found; expected more than 0"),
    "overflow": (
        {},
        {"sa_scale": 1e39},
        r"option sa_scale=1e\+39 found; expected a finite number, at most 3.40282e\+38",
    ),
    "mode": ({}, {"sa_mode": "sum"}, "sa_mode=sum with 8 outputs of conv1.2.sa.expand found; expected 4 or 1"),
    "gates": (
        {},
        {"sa_gates": "scalar", "sa_mode": "each"},
        "sa_mode=each, sa_gates=scalar with 8 outputs of conv1.2.sa.expand found; expected 2",
    ),
    "place of the context": (
        {},
        {"gc_at": "input"},
        r"gc_at=input with tensor conv1.2.gc.key.weight \(1, 4, 1, 1\) found; expected current",
    ),
    "context of another width": (
        {"conv1.2.gc.key.weight": Z((1, 2, 1, 1))},
        {},
        r"conv1.2.gc.value.weight \(1, 4, 1, 1\) found; expected \(any, 2, 1, 1\)",
    ),
    "one port": ({}, {"pe_at": "both"}, "tensor conv1.2.P_H missing"),
    "both ports": (
        {f"{name}.P_H": Z(()) for name in ("conv1.2", "conv1.5")},
        {"pe_at": "past"},
        "pe_at=past with tensor conv1.2.P_H found; expected both",
    ),
    "both ports of some": ({"conv1.2.P_H": Z(())}, {}, "tensor conv1.5.P_H missing"),
    "both ports but of the first": ({"conv1.5.P_H": Z(())}, {}, r"conv1.5.P_H \(\) left over"),
    "learned and fixed": ({}, {"pe_fixed": "time"}, "pe_fixed=time with tensor conv1.2.P found; expected none"),
    "constants": ({}, {"tau": 3.0}, "tau=3.0 with tensor conv1.2.M found; expected it left out, as M and N say it"),
    "no gain": ({"conv1.2.N": None}, {}, "tensor conv1.2.N missing"),
}


PLAIN_BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "tau": ({}, {"tau": 0.5}, "tau=0.5 found; expected at least 1 time step"),
    "normalised potentials": ({"layer1.0.relu1.bn.weight": Z(4)}, {}, r"ResNet with normalised .* which is not read"),
    "some have coefficients": ({"layer1.0.relu1.M": Z(())}, {"format": "staa_snn"}, "no STAA-SNN found; .* conv1.2.M"),
    "context": ({}, {"gc_norm": "softmax"}, "gc_norm=softmax without tensor conv1.2.gc.key.weight found; expected it"),
    "normalisation": ({}, {"ln_eps": 0.5}, "ln_eps=0.5 without tensor conv1.2.gc.norm.weight found; expected it left"),
    "head": ({"fc.conv.weight": None}, {"format": "staa_snn"}, r"no STAA-SNN found; .* with fc.conv.weight or"),
}


@pytest.mark.parametrize("name", PLAIN_BAD)
def test_bad_plain_networks_are_named_in_one_line(tmp_path: Path, name: str) -> None:
    changes, options, words = PLAIN_BAD[name]
    model = build("three", {"neurons": "plain", "modules": ()})
    state = {key: value.numpy() for key, value in model.state_dict().items()} | changes
    np.savez(tmp_path / "c.npz", **{key: np.float32(value) for key, value in state.items() if value is not None})
    with pytest.raises(InputError, match=words) as caught:
        import_checkpoint(tmp_path / "c.npz", **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_in_one_line(tmp_path: Path, name: str) -> None:
    changes, options, words = BAD[name]
    model = build("three")
    state = {name: value.numpy() for name, value in model.state_dict().items()} | changes
    state = {
        key: value if value is None or value.dtype.kind == "i" else np.float32(value) for key, value in state.items()
    }
    np.savez(tmp_path / "c.npz", **{key: value for key, value in state.items() if value is not None})
    with pytest.raises(InputError, match=words) as caught:
        import_checkpoint(tmp_path / "c.npz", **options)
    assert "\n" not in str(caught.value)


def test_bad_metadata_is_named(tmp_path: Path) -> None:
    model = build("three")
    save_file(model.state_dict(), tmp_path / "c.safetensors", {**definition.metadata(model), "ln_eps": "1e39"})
    with pytest.raises(InputError, match=r"c.safetensors: metadata ln_eps='1e39' found; expected a finite number, at"):
        import_checkpoint(tmp_path / "c.safetensors")
    stripped = {name: value for name, value in model.state_dict().items() if ".gc." not in name}
    save_file(stripped, tmp_path / "c.safetensors", definition.metadata(model))
    with pytest.raises(InputError, match=r"gc_at=current without tensor conv1.2.gc.key.weight found; expected it left"):
        import_checkpoint(tmp_path / "c.safetensors")
    save_file(model.state_dict(), tmp_path / "c.safetensors", {**definition.metadata(model), "sa_mode": "none"})
    with pytest.raises(InputError, match=r"metadata sa_mode='none' found; expected one of each, sum"):
        import_checkpoint(tmp_path / "c.safetensors")


@pytest.mark.parametrize("as_metadata", [False, True])
def test_neurons_fire_and_reset_as_said(tmp_path: Path, as_metadata: bool) -> None:
    model, path, said = build("three"), tmp_path / "c.safetensors", {"reset": "subtract", "strict": "true"}
    save_file(model.state_dict(), path, definition.metadata(model) | (said if as_metadata else {}))
    network = import_checkpoint(path, **({} if as_metadata else said))
    layers = [layer for layer in network.layers.values() if isinstance(layer, AdaptiveLIF)]
    assert layers
    assert all((layer.reset, layer.strict) == ("subtract", True) for layer in layers)


def test_the_last_pooling_of_a_vgg_is_said(tmp_path: Path) -> None:
    """No tensor tells it; of a map of 3 x 3 it leaves out the last row and column."""
    model = make_lively(build("vgg", size=24), seed=2)
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    np.savez(tmp_path / "c.npz", **state)
    options = {"height": 24, "width": 24}
    network = import_checkpoint(tmp_path / "c.npz", **options)
    assert "last_pool = true" in " ".join(network.assumptions)
    without = import_checkpoint(tmp_path / "c.npz", **options, last_pool=False)
    assert set(network.layers) - set(without.layers) == {"features.14"}
    assert network.types["features.14"].grid == (3, 3)


def test_attention_for_too_few_steps_is_refused(tmp_path: Path) -> None:
    model = build("three", {"sa_per_step": True, "pe_axes": ()})
    with pytest.raises(InputError, match=r"time_steps=5 found; expected at most 4, the number of .* conv1\.2\.sa"):
        imported(model, tmp_path, time_steps=5)


def test_a_gap_in_a_vgg_is_refused(tmp_path: Path) -> None:
    state = {name: value.numpy() for name, value in build("vgg").state_dict().items()}
    moved = {name.replace("features.7.", "features.9."): value for name, value in state.items()}
    np.savez(tmp_path / "c.npz", **moved)
    with pytest.raises(InputError, match=r"features.3 followed by features.9 found; expected a convolution"):
        import_checkpoint(tmp_path / "c.npz")


# --- trained weights


def test_trained_weights_predict_the_same_and_well(shared: Path) -> None:
    path = EXAMPLES / "weights" / "nmnist_staa_snn.safetensors"
    network = import_checkpoint(path)
    assert not network.assumptions
    model = definition.nmnist_model()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in Checkpoint.open(path).tensors.items()})
    model.eval()
    samples = labelled_files(shared / "nmnist" / "Test")
    frames = [frames_by_count(open_recording(sample.name), network.time_steps).astype(np.float32) for sample in samples]
    with torch.no_grad():
        expected = model(torch.from_numpy(np.stack(frames, 1))).numpy()
    simulator = Simulator(network)
    logits = np.stack([simulator.run(each).logits for each in frames])
    assert_array_equal(logits.argmax(1), expected.argmax(1))
    assert np.mean(logits.argmax(1) == [int(sample.label) for sample in samples]) >= 0.85
    for each in frames[::10]:
        seen = Seen(model, each)
        if not check_spikes(Simulator(network, record=seen.spikes).run(each), seen):
            assert_allclose(simulator.run(each).logits, seen.logits, atol=1e-4)
