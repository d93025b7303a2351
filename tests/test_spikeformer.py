"""Spikeformer: the import equals the PyTorch definition - the tokenizer bit for bit, the rest within rounding."""

from __future__ import annotations

import importlib
import re
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from assumptions import of_the_network
from numpy.testing import assert_allclose, assert_array_equal
from reference import counts as reference_counts
from reference.neurons import plif, plif_factor
from state_dicts import spikformer_state

from eventsim import InputError, Network, Result, Simulator, import_checkpoint, open_recording
from eventsim.datasets import labelled_files
from eventsim.dvs import frames_by_count
from eventsim.layers import PLIAF, PLIF, Affine

torch = pytest.importorskip("torch", reason="needs PyTorch")
save_file = pytest.importorskip("safetensors.torch").save_file
EXAMPLES = Path(__file__).parents[1] / "examples"
with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
    warnings.simplefilter("ignore")  # SpikingJelly uses torch.jit
    pytest.importorskip("spikingjelly.activation_based.neuron", reason="needs SpikingJelly")
    patch.syspath_prepend(EXAMPLES)
    definition = importlib.import_module("spikeformer")

T = 4
TOKENIZER = "patch_embed.conv_layers"
SIZES = {
    "kernel": 3,
    "stages": 2,
    "blocks_per_stage": 2,
    "width": 16,
    "depth": 2,
    "heads": 2,
    "mlp_ratio": 2,
    "neuron": "plif",
    "classes": 5,
    "in_channels": 2,
    "size": (8, 8),
    "time_steps": T,
}
IMAGES = {"neuron": "pliaf", "in_channels": 3}


def build(*, seed: int = 0, **sizes: Any) -> Any:
    """A small model of 4 tokens, with embeddings that are not 0 and neurons that fire now and then."""
    torch.manual_seed(seed)
    model = definition.Spikeformer(definition.Configuration(**SIZES | sizes)).eval()
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if hasattr(module, "running_var"):
            for tensor, low, high in (
                (module.weight.data, 1.0, 2.0),
                (module.bias.data, 0.2, 1.6),
                (module.running_mean, -0.1, 0.1),
                (module.running_var, 0.1, 0.5),
            ):
                tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))
        elif isinstance(module, definition.PLIF):
            module.w.data.copy_(torch.randn((), generator=generator) / 2)
        elif isinstance(module, torch.nn.LayerNorm):
            module.weight.data.copy_(0.5 + torch.rand(module.weight.shape, generator=generator))
            module.bias.data.copy_(torch.randn(module.bias.shape, generator=generator) / 4)
    for block in model.blocks:
        block.mlp.mlp[0][0].weight.data *= 4  # else hardly a hidden neuron fires
    for embedding in (model.pos_embed, model.time_embed):
        embedding.data.copy_(torch.randn(embedding.shape, generator=generator))
    return model


def make_dyadic(model: Any, seed: int) -> Any:
    """Give the tokenizer and the embeddings few bits and decays of a half: all their sums become exact."""
    rng = np.random.default_rng(seed)

    def fill(tensor: Any, values: np.ndarray) -> None:
        tensor.data = torch.from_numpy(np.broadcast_to(values, tensor.shape).astype(np.float32).copy())

    for module in model.patch_embed.modules():
        if hasattr(module, "running_var"):
            module.eps = 0.0
            fill(module.weight, rng.choice([1, 2], module.weight.shape))
            fill(module.bias, rng.integers(-2, 7, module.bias.shape) / 8)
            fill(module.running_mean, rng.integers(-2, 3, module.bias.shape) / 8)
            fill(module.running_var, rng.choice([0.25, 1], module.bias.shape))
        elif isinstance(module, torch.nn.Conv2d):
            fill(module.weight, rng.integers(-4, 6, module.weight.shape) / 16)
        elif isinstance(module, definition.PLIF):
            fill(module.w, np.zeros(()))
    for embedding in (model.pos_embed, model.time_embed):
        fill(embedding, rng.integers(-8, 9, embedding.shape) / 16)
    return model


def frames_for(model: Any, seed: int = 0, steps: int = T, size: tuple[int, int] | None = None) -> np.ndarray:
    rng = np.random.default_rng(seed)
    channels = model.sizes.in_channels
    shape = (steps, channels, *(size or model.sizes.size))
    return (rng.poisson(0.7, shape) if channels == 2 else rng.integers(0, 16, shape) / 16).astype(np.float32)


def export(model: Any, folder: Path) -> Path:
    save_file(model.state_dict(), folder / "c.safetensors", definition.metadata(model))
    return folder / "c.safetensors"


def imported(model: Any, folder: Path, **options: Any) -> Network:
    return import_checkpoint(export(model, folder), **options)


@torch.no_grad()
def torch_run(model: Any, frames: np.ndarray) -> tuple[np.ndarray, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Logits, and what goes into and comes out of every module, of one sample without its batch axis."""
    seen: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def record(name: str) -> Any:
        return lambda module, inputs, output: seen.__setitem__(name, (inputs[0].numpy(), output.numpy()))

    hooks = [module.register_forward_hook(record(name)) for name, module in model.named_modules() if name]
    logits = model(torch.from_numpy(frames)[:, None])[0].numpy()
    for hook in hooks:
        hook.remove()
    return logits, seen


def neurons_of(network: Network) -> list[str]:
    return [name for name, layer in network.layers.items() if isinstance(layer, PLIF)]


def as_tokens(frames: np.ndarray) -> np.ndarray:
    """(T, C, H, W) or (T, C) as (T, N, C)."""
    return np.moveaxis(frames.reshape(*frames.shape[:2], -1), 1, 2)


def emitted(name: str, array: np.ndarray) -> np.ndarray:
    """What PyTorch's neurons emit, as eventsim records it on the grid of tokens: (T, C, N)."""
    sample = array[:, 0]
    return sample.reshape(*sample.shape[:2], -1) if name.startswith(TOKENIZER) else sample.swapaxes(1, 2)


def recorded(result: Result, name: str) -> np.ndarray:
    array = result.recorded[name]
    return array.reshape(*array.shape[:2], -1)


# --- the published sizes

PUBLISHED = {
    "DVS_CIFAR10": (8_792_993, 4, 128, 4, PLIF, "graded"),
    "DVS_GESTURE": (9_279_900, 16, 128, 4, PLIF, "graded"),
    "IMAGENET": (39_320_836, 4, 224, 8, PLIAF, "real"),
}
DENSE_GMACS = {  # tokenizer, its first layers, linear layers of blocks, mlp.2, attention over space, over time, total
    "DVS_CIFAR10": (6.1279, 0.0210, 6.1069, 0.9395, 0.9395, 0.0147, 13.1893),
    "DVS_GESTURE": (27.3301, 0.2181, 24.4276, 3.7581, 3.7581, 0.2349, 55.7517),
    "IMAGENET": (25.3754, 0.0963, 21.5797, 4.3159, 1.1015, 0.0225, 48.0800),
}


def published(name: str) -> Any:
    with torch.device("meta"):
        return definition.Spikeformer(getattr(definition, name))


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts(name: str) -> None:
    assert sum(parameter.numel() for parameter in published(name).parameters()) == PUBLISHED[name][0]


@pytest.mark.parametrize("name", PUBLISHED)
def test_dense_macs_and_defaults_of_the_published_sizes(tmp_path: Path, name: str) -> None:
    state = {f"model.{key}": torch.ones(value.shape) for key, value in published(name).state_dict().items()}
    save_file(state, tmp_path / "c.safetensors")
    network = import_checkpoint(tmp_path / "c.safetensors")
    _, steps, size, heads, neuron, kind = PUBLISHED[name]
    assert network.time_steps == steps
    assert (network.input.shape[1:], network.input.kind) == ((size, size), kind)
    assert {type(network.layers[each]) for each in neurons_of(network)} == {neuron}
    assert {
        network.layers[f"blocks.{index}.{attn}"].heads for index in range(7) for attn in ("attn", "temporal_attn")
    } == {heads}

    macs = {key: steps * layer.dense_macs(*network.input_types(key)) for key, layer in network.layers.items()}
    total = sum(macs.values()) - (steps - 1) * macs["head"] // steps  # the head sees one vector
    first = macs[f"{TOKENIZER}.0.residual_function.0.0.0"] + macs[f"{TOKENIZER}.0.shortcut.1.0.0"]
    groups = {
        "tokenizer": sum(value for key, value in macs.items() if key.startswith(TOKENIZER)),
        "first layers": first,
        "linear": sum(value for key, value in macs.items() if key.startswith("blocks") and not key.endswith("attn")),
        "mlp.2": sum(value for key, value in macs.items() if key.endswith("mlp.mlp.2.0")),
        "over space": sum(value for key, value in macs.items() if key.endswith(".attn")),
        "over time": sum(value for key, value in macs.items() if key.endswith(".temporal_attn")),
        "total": total - macs["attention_pool"] // 2,  # the published total leaves the sum that the pool weights out
    }
    assert tuple(round(value / 1e9, 4) for value in groups.values()) == DENSE_GMACS[name], groups


# --- the tokenizer, bit for bit

VARIANTS: dict[str, dict[str, Any]] = {
    "3x2x2": {},
    "5x1x2": {"kernel": 5, "blocks_per_stage": 1},
    "1x2x1, oblong": {"kernel": 1, "stages": 1, "size": (4, 6)},
    "images": {"in_channels": 3},
    "analog images": {**IMAGES, "stages": 1, "blocks_per_stage": 1, "size": (4, 4), "time_steps": 2},
}


@pytest.mark.parametrize("fold_bn", [True, False])
@pytest.mark.parametrize("name", VARIANTS)
def test_the_tokenizer_equals_pytorch_bit_for_bit(tmp_path: Path, name: str, fold_bn: bool) -> None:
    model = make_dyadic(build(**VARIANTS[name]), seed=1)
    frames = frames_for(model, steps=model.sizes.time_steps)
    _, seen = torch_run(model, frames)
    network = imported(model, tmp_path, fold_bn=fold_bn, bn_eps=0.0)
    assert (not any(isinstance(layer, Affine) for layer in network.layers.values())) == fold_bn
    neurons = [each for each in neurons_of(network) if each.startswith(TOKENIZER)]
    joins = {
        each: each.rpartition(".")[0] for each in network.layers if re.fullmatch(TOKENIZER + r"\.\d+\.\w+_add", each)
    }
    assert len(joins) == model.sizes.stages * model.sizes.blocks_per_stage
    result = Simulator(network, record=[*neurons, *joins, "time_embed"]).run(frames)
    for each in [*neurons, *joins]:
        output = seen[joins.get(each, each)][1]
        assert_array_equal(recorded(result, each), emitted(each, output), err_msg=each)
        assert 0 < np.count_nonzero(output) < output.size, each
    positions, times = (embedding.detach().numpy() for embedding in (model.pos_embed, model.time_embed))
    tokens = as_tokens(seen["patch_embed"][1][:, 0]) + positions + times.swapaxes(0, 1)
    assert_array_equal(as_tokens(result.recorded["time_embed"]), tokens)


@pytest.mark.parametrize("name", ["3x2x2", "analog images"])
def test_an_input_that_does_not_decay_equals_spikingjelly(tmp_path: Path, name: str) -> None:
    model = make_dyadic(build(**VARIANTS[name]), seed=1)
    for module in model.modules():
        if isinstance(module, definition.PLIF):
            module.decay_input = False
    frames = frames_for(model, steps=model.sizes.time_steps)
    _, seen = torch_run(model, frames)
    network = imported(model, tmp_path, bn_eps=0.0, decay_input=False)
    neurons = [each for each in neurons_of(network) if each.startswith(TOKENIZER)]
    result = Simulator(network, record=neurons).run(frames)
    for each in neurons:
        assert_array_equal(recorded(result, each), emitted(each, seen[each][1]), err_msg=each)
    given = Simulator(imported(model, tmp_path, bn_eps=0.0), record=neurons).run(frames)
    assert any((given.recorded[each] != result.recorded[each]).any() for each in neurons)


# --- the whole network, within rounding


def differing(result: Result, seen: dict[str, Any], network: Network, margin: float = 1e-4) -> bool:
    """Check that the first spikes that differ, if any, were near the threshold; return whether any did."""
    for name in neurons_of(network):
        current, output = (emitted(name, array) for array in seen[name])
        layer = network.layers[name]
        spikes, h = plif(current, plif_factor(layer.w), layer.v_threshold)
        assert 0 < spikes.mean() < 1, name
        differ = ~np.isclose(recorded(result, name), output, rtol=0, atol=margin)
        if differ.any():
            first = np.argmax(differ.any(axis=(1, 2)))
            assert (np.abs(h[first][differ[first]] - layer.v_threshold) < margin).all(), name
            return True
    return False


@pytest.mark.parametrize("fold_bn", [True, False])
@pytest.mark.parametrize(
    "sizes",
    [
        {"size": (16, 16)},
        {"kernel": 5, "stages": 3, "blocks_per_stage": 1, "size": (24, 16), "width": 32, "time_steps": 6},
        {**IMAGES, "mlp_ratio": 3, "heads": 4, "size": (16, 16)},
        {"in_channels": 3, "depth": 1, "size": (8, 16)},
    ],
    ids=["3x2x2", "5x1x3", "analog images", "images"],
)
def test_real_weights_differ_by_rounding_only(tmp_path: Path, sizes: dict[str, Any], fold_bn: bool) -> None:
    alike = 0
    for seed in (1, 2):
        model = build(seed=seed, **sizes)
        frames = frames_for(model, seed, model.sizes.time_steps)
        logits, seen = torch_run(model, frames)
        network = imported(model, tmp_path, fold_bn=fold_bn)
        result = Simulator(network, record=neurons_of(network)).run(frames)
        if not differing(result, seen, network):
            assert_allclose(result.logits, logits, atol=1e-4, err_msg=f"seed {seed}")
            alike += 1
    assert alike, "all samples met a neuron within rounding of its threshold"


def test_images_are_shown_in_every_step(tmp_path: Path) -> None:
    model = build(**IMAGES)
    image = frames_for(model, steps=1)[0]
    logits, seen = torch_run(model, np.stack([image] * T))
    assert_array_equal(model(torch.from_numpy(image)[None]).detach().numpy()[0], logits)
    network = imported(model, tmp_path)
    result = Simulator(network, record=neurons_of(network)).run(image)
    assert not differing(result, seen, network)
    assert_allclose(result.logits, logits, atol=1e-4)
    profile = {layer.name: layer for layer in result.profile}
    first = profile[f"{TOKENIZER}.0.residual_function.0.0.0"]
    assert first.counts.macs == 8 * 3 * (3 * 4) ** 2 - 8 * 3 * (
        12 + 11
    )  # once; the top row and left column are padding
    assert first.dense_macs == T * 4 * 4 * 8 * 27


def test_a_sample_is_one_chunk(tmp_path: Path) -> None:
    model = build()
    network = imported(model, tmp_path)
    frames = frames_for(model)
    for chunk in range(1, T):
        with pytest.raises(InputError, match=rf"layer blocks\.0\.temporal_attn: looks ahead in time.*chunk {chunk} "):
            Simulator(network, chunk=chunk).run(frames)
    with pytest.raises(InputError, match=r"layer blocks\.0\.temporal_attn: looks ahead in time.*single step"):
        Simulator(network).step(frames[0])
    for steps in (1, T - 1, T + 1):
        with pytest.raises(InputError, match=rf"^layer \w+\S*: {steps} time steps found"):
            Simulator(network).run(frames_for(model, steps=steps))
    result = Simulator(network).run(frames)
    for chunk in (T, T + 1):
        assert_array_equal(Simulator(network, chunk=chunk).run(frames).logits, result.logits)
    simulator = Simulator(network, threads=2)
    assert simulator.warm_up() > 0
    for again in simulator.run_many([frames] * 3):
        assert_array_equal(again.logits, result.logits)
        assert again.totals == result.totals


# --- counts


@pytest.mark.parametrize("sizes", [{}, IMAGES, {"kernel": 5, "stages": 1}], ids=["spikes", "analog", "kernel 5"])
def test_counts_are_those_of_brute_force(tmp_path: Path, sizes: dict[str, Any]) -> None:
    model = build(depth=1, **sizes)
    network = imported(model, tmp_path)
    tokens, width, heads = model.pos_embed.shape[1], model.sizes.width, T * model.pos_embed.shape[1]
    result = Simulator(network, record=network.layers).run(frames_for(model))
    macs_of = {
        "blocks.0.attn": 2 * T * tokens**2 * width,
        "blocks.0.temporal_attn": 2 * tokens * T**2 * width,
        "attention_pool": 2 * T * tokens * width,
        **{f"blocks.0.{name}": 2 * heads * width for name in ("norm1", "norm2", "temporal_norm1")},
        "norm": 2 * heads * width,
    }
    checked = set()
    for layer in result.profile:
        description, counts = network.layers[layer.name], layer.counts
        if not network.sources[layer.name]:
            continue
        source = network.types[network.sources[layer.name][0]]
        x = result.recorded[network.sources[layer.name][0]]
        work = {"acs": 0, "graded_macs": 0, "graded_acs": 0, "macs": 0}
        if layer.kind == "Conv2d":
            window = (description.stride, description.padding, description.groups)
            work = reference_counts.conv2d_counts(x, description.weight, *window, source.kind, source.dense)
        elif layer.kind == "Linear":
            rows = as_tokens(x) if x.ndim > 2 else x
            work = reference_counts.linear_counts(rows, description.weight, source.kind, source.dense)
        elif layer.name in macs_of:
            work["macs"] = macs_of[layer.name]
        checked.add((layer.kind, source.kind, source.dense))
        assert {name: getattr(counts, name) for name in work} == work, layer.name
        assert counts.neuron_updates == (x.size if layer.kind in ("PLIF", "PLIAF") else 0)
        emits = result.recorded[layer.name].sum() if layer.kind == "PLIF" else 0
        assert counts.spikes == emits
        if layer.kind not in ("LayerNorm", "Affine"):
            assert counts.macs + counts.acs + counts.graded_macs <= layer.dense_macs
        if layer.kind in ("SoftmaxAttention", "AttentionPool"):
            assert counts.macs == layer.dense_macs
    if sizes == IMAGES:
        assert ("Conv2d", "real", False) in checked, "convolutions skip the zeros of analog neurons"
        assert ("Linear", "real", False) in checked
    else:
        assert {("Conv2d", "graded", False), ("Conv2d", "real", False), ("Linear", "binary", False)} <= checked


# --- options


def test_what_the_state_dict_cannot_tell_is_said(tmp_path: Path) -> None:
    model = build(width=128, size=(16, 16))
    save_file(model.state_dict(), tmp_path / "c.safetensors")
    network = import_checkpoint(tmp_path / "c.safetensors")
    assert network.name == "Spikeformer 2-128"
    said = {assumption.split(":")[0] for assumption in of_the_network(network)}
    expected = {"heads = 2", "time_steps = 4", "height = 16", "width = 16", "input_kind = graded", "neuron = plif"}
    expected |= {"v_threshold = 1.0", "reset = zero", "v_reset = 0.0", "strict = false", "residual_op = add"}
    expected |= {"decay_input = true"}
    assert said == expected | {"stride = 2", "bn_eps = 1e-05", "ln_eps = 1e-06"}
    assert {assumption.split(" ")[0] for assumption in said} == set(definition.metadata(model))
    assert of_the_network(imported(model, tmp_path)) == ()
    save_file(build(**IMAGES).state_dict(), tmp_path / "c.safetensors")
    said = {assumption.split(":")[0] for assumption in of_the_network(import_checkpoint(tmp_path / "c.safetensors"))}
    assert {"heads = 1", "input_kind = real", "neuron = pliaf"} <= said


@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ({"heads": 4}, {"heads": 8}),
        ({}, {"v_threshold": 0.5}),
        ({}, {"ln_eps": 0.25}),
        ({}, {"bn_eps": 0.25}),
        ({}, {"neuron": "pliaf"}),
        ({"in_channels": 3}, {"input_kind": "graded"}),
        ({"time_steps": 3}, {"time_steps": 5}),
        ({"time_steps": 5}, {"time_steps": 2}),
        ({}, {"height": 16, "width": 24}),
        ({"size": (16, 16)}, {"height": 4, "width": 12, "time_steps": 7}),
    ],
    ids=str,
)
def test_options_do_what_they_say(tmp_path: Path, sizes: dict[str, Any], options: dict[str, Any]) -> None:
    model = build(**sizes)
    frames_of = {"steps": options.get("time_steps", model.sizes.time_steps)}
    if "height" in options:
        frames_of["size"] = (options["height"], options["width"])
    frames = np.round(frames_for(model, **frames_of))
    network = imported(model, tmp_path, **{name: str(value) for name, value in options.items()})
    changed = build(**sizes | {name: options[name] for name in ("heads", "neuron") if name in options})
    for module in changed.modules():
        if isinstance(module, definition.PLIF):
            module.v_threshold = options.get("v_threshold", 1.0)
        elif isinstance(module, torch.nn.LayerNorm):
            module.eps = options.get("ln_eps", 1e-6)
        elif isinstance(module, torch.nn.BatchNorm2d):
            module.eps = options.get("bn_eps", 1e-5)
    logits, seen = torch_run(changed, frames)
    result = Simulator(network, record=neurons_of(network)).run(frames)
    assert not differing(result, seen, network)
    assert_allclose(result.logits, logits, atol=1e-4)
    assert network.input.kind == options.get("input_kind", "graded" if model.sizes.in_channels == 2 else "real")
    if sizes != {"in_channels": 3}:
        before = Simulator(imported(model, tmp_path)).run(frames_for(model, steps=model.sizes.time_steps))
        assert np.abs(before.logits - result.logits).max() > 1e-3, "the option made no difference"


def test_stride_is_that_of_the_blocks_with_a_shortcut(tmp_path: Path) -> None:
    model = build(stages=1, blocks_per_stage=2, size=(12, 12))
    conv, pool = (
        model.patch_embed.conv_layers[0].residual_function[0][0][0],
        model.patch_embed.conv_layers[0].shortcut[0][0],
    )
    conv.stride, pool.kernel_size, pool.stride = (3, 3), 3, 3
    model.pos_embed.data = torch.randn(1, 16, 16)
    frames = frames_for(model)
    logits, seen = torch_run(model, frames)
    network = imported(model, tmp_path, stride=3)
    result = Simulator(network, record=neurons_of(network)).run(frames)
    assert not differing(result, seen, network)
    assert_allclose(result.logits, logits, atol=1e-4)


@pytest.mark.parametrize(("known", "wanted"), [*product((1, 3, 4, 7, 16), (1, 2, 3, 5, 9)), (14, 46)])
def test_embeddings_are_interpolated_as_by_pytorch(tmp_path: Path, known: int, wanted: int) -> None:
    model = build(stages=1, blocks_per_stage=1, depth=1, size=(2 * known, 2 * known), time_steps=known)
    grid = (wanted, wanted + 2)
    options = {"height": 2 * grid[0], "width": 2 * grid[1], "time_steps": wanted}
    network = imported(model, tmp_path, **options)
    positions, times = model.embeddings(torch.Size(grid), wanted)
    assert_array_equal(network.layers["pos_embed"].encoding[0].T, positions[0].detach().numpy())
    assert_array_equal(network.layers["time_embed"].encoding[:, :, 0], times[0].detach().numpy())
    said = [each.option for each in network.settings if each.option.endswith("_embed") and each.source == "inferred"]
    other_grid = known**2 != grid[0] * grid[1]
    assert said == ["pos_embed"] * other_grid + ["time_embed"] * (known != wanted)


# --- names


def state_of(model: Any) -> dict[str, Any]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def shifted(state: dict[str, Any], by: int) -> dict[str, Any]:
    """Another index for every SEW block."""
    moved = {}
    for name, value in state.items():
        if name.startswith(TOKENIZER):
            index, rest = name.removeprefix(f"{TOKENIZER}.").split(".", 1)
            moved[f"{TOKENIZER}.{int(index) + by}.{rest}"] = value
        else:
            moved[name] = value
    return moved


def test_a_prefix_and_indices_from_1_are_accepted(tmp_path: Path) -> None:
    model = build(**IMAGES)
    frames = frames_for(model)
    expected = Simulator(imported(model, tmp_path)).run(frames).logits
    state = {f"model.{name}": value for name, value in shifted(state_of(model), 1).items()}
    save_file(state, tmp_path / "c.safetensors", definition.metadata(model))
    network = import_checkpoint(tmp_path / "c.safetensors")
    assert f"{TOKENIZER}.1.shortcut_add" in network.layers
    assert not any(name.startswith(f"{TOKENIZER}.0.") for name in network.layers)
    assert_array_equal(Simulator(network).run(frames).logits, expected)


def test_a_spikformer_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "v1.npz", **spikformer_state("dvs"))
    with pytest.raises(InputError, match=r"v1\.npz: no Spikeformer found; expected time_embed and attention_pool"):
        import_checkpoint(tmp_path / "v1.npz", format="spikeformer")


def broken(change: str) -> dict[str, Any]:
    state = state_of(build())
    name = "blocks.1.temporal_attn.qkv.weight"
    conv = f"{TOKENIZER}.2.residual_function.0.0.0.weight"
    if change == "shape":
        state[name] = state[name][:, :-1].clone()
    elif change == "per channel":
        state["blocks.0.mlp.mlp.1.w"] = torch.zeros(32)
    elif change == "variance":
        state[f"{TOKENIZER}.1.residual_function.1.0.1.running_var"][2] = -1
    elif change == "gap in the tokenizer":
        state = {key: value for key, value in state.items() if not key.startswith(f"{TOKENIZER}.1.")}
    elif change == "shift by 2":
        state = shifted(state, 2)
    elif change == "no tokenizer":
        state = {key: value for key, value in state.items() if not key.startswith(TOKENIZER)}
    elif change == "gap in the blocks":
        state = {key: value for key, value in state.items() if not key.startswith("blocks.0.")}
    elif change == "even kernel":
        state[conv] = state[conv][:, :, :2, :2].clone()
    elif change == "inputs":
        state[conv] = state[conv][:, 1:].clone()
    elif change == "positions":
        state["pos_embed"] = state["pos_embed"][:, :3].clone()
    elif change == "no positions":
        state["pos_embed"] = state["pos_embed"][:, :0].clone()
    elif change == "narrow":
        for name in ("pos_embed", "time_embed"):
            state[name] = state[name][:, :, :8].clone()
    return state


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("shape", r"tensor blocks\.1\.temporal_attn\.qkv\.weight \(48, 15\) found; expected \(48, 16\)"),
        ("per channel", r"tensor blocks\.0\.mlp\.mlp\.1\.w \(32\) found; expected \(\)"),
        ("variance", r"conv_layers\.1\.residual_function\.1\.0\.1\.running_var holds a negative variance"),
        (
            "gap in the tokenizer",
            r"patch_embed\.conv_layers with indices 0, 2, 3 found; expected all of 0, 1, \.\.\. or 1,",
        ),
        (
            "shift by 2",
            r"patch_embed\.conv_layers with indices 2, 3, 4, 5 found; expected all of 0, 1, \.\.\. or 1, 2, ",
        ),
        ("no tokenizer", r"patch_embed\.conv_layers with indices none found"),
        ("gap in the blocks", r"blocks with indices 1 found; expected all of 0, 1, \.\.\.$"),
        (
            "even kernel",
            r"conv_layers\.2\.residual_function\.0\.0\.0\.weight \(16, 8, 2, 2\) found; .*odd size",
        ),
        (
            "inputs",
            r"conv_layers\.2\.residual_function\.0\.0\.0\.weight \(16, 7, 3, 3\) found; expected \(any, 8, any, any",
        ),
        ("positions", r"pos_embed for 3 positions found; 8x8 pixels expect 2x2, or a square grid"),
        ("no positions", r"empty pos_embed or time_embed found"),
        ("narrow", r"conv_layers\.3 with 16 channels found; pos_embed expects 8"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, change: str, words: str) -> None:
    save_file(broken(change), tmp_path / "c.safetensors", definition.metadata(build()))
    with pytest.raises(InputError, match=words) as caught:
        import_checkpoint(tmp_path / "c.safetensors")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'c.safetensors'}: ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heads": 3}, "heads=3 found; expected a divisor of width 16"),
        ({"heads": 0}, "heads=0 found"),
        ({"time_steps": 0}, "time_steps=0 found; expected at least 1"),
        ({"time_steps": 10**12}, "an embedding of 64000000000000 bytes asked for by .*time_steps=1000000000000"),
        ({"height": 10}, "height=10 found; expected a multiple of 4"),
        ({"width": 0}, "width=0 found; expected a multiple of 4"),
        ({"height": 4 * 10**6, "width": 4 * 10**6}, "an embedding of 64000000000000 bytes asked for by height=4000000"),
        ({"stride": 0}, "stride=0 found; expected at least 1"),
        ({"ln_eps": 0.0}, "ln_eps=0 found; expected more than 0"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_named(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    path = export(build(), tmp_path)
    with pytest.raises(InputError, match=words) as caught:
        import_checkpoint(path, **options)
    assert "\n" not in str(caught.value)


def test_metadata_that_makes_no_sense_is_named(tmp_path: Path) -> None:
    model = build()
    save_file(model.state_dict(), tmp_path / "c.safetensors", definition.metadata(model) | {"time_steps": "-1"})
    with pytest.raises(InputError, match="time_steps=-1 found; expected at least 1"):
        import_checkpoint(tmp_path / "c.safetensors")


# --- trained weights


def test_trained_weights_see_what_pytorch_sees(shared: Path) -> None:
    path = EXAMPLES / "weights" / "nmnist_spikeformer.safetensors"
    network = import_checkpoint(path)
    assert network.assumptions == ()
    model = definition.nmnist_model().eval()
    model.load_state_dict(importlib.import_module("safetensors.torch").load_file(path))
    samples = labelled_files(shared / "nmnist" / "Test")
    frames = np.stack([frames_by_count(open_recording(sample.name), network.time_steps) for sample in samples])
    frames = frames.astype(np.float32)
    with torch.no_grad():
        logits = model(torch.from_numpy(frames).transpose(0, 1)).numpy()
    results = list(Simulator(network).run_many(frames))
    found = [result.prediction for result in results]
    assert_array_equal(found, logits.argmax(1))
    assert np.mean([label == sample.label for label, sample in zip(found, samples, strict=True)]) >= 0.85
