"""STFormer: the import equals the PyTorch definition in every reading of the paper, spikes and counts.

What the definition computes is compared with `dense` below, written from the docstring of its options.
"""

from __future__ import annotations

import importlib
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from assumptions import of_the_network
from numpy.testing import assert_allclose, assert_array_equal
from reference.counts import attention_counts
from state_dicts import spikformer_state

from eventsim import InputError, Network, Result, Simulator, import_checkpoint, open_recording
from eventsim.datasets import labelled_files
from eventsim.dvs import frames_by_count
from eventsim.layers import Affine
from eventsim_importers.reading.checkpoint import Checkpoint

torch = pytest.importorskip("torch", reason="needs PyTorch")
save_file = pytest.importorskip("safetensors.torch").save_file
EXAMPLES = Path(__file__).parents[1] / "examples"
with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
    warnings.simplefilter("ignore")  # SpikingJelly uses torch.jit
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron", reason="needs SpikingJelly")
    patch.syspath_prepend(EXAMPLES)
    definition = importlib.import_module("stformer")
    spikingformer_torch = importlib.import_module("spikingformer_torch")

T = 4
QKV = ("q_bn", "k_bn", "v_bn")  # these must fire more than others, or no attention passes its threshold
READINGS: dict[str, dict[str, Any]] = {
    "proposed": {},
    "kernel 3x3x3": {"temporal_kernel": (3, 3, 3)},
    "causal": {"temporal_padding": "causal"},
    "causal 2x3x1": {"temporal_padding": "causal", "temporal_kernel": (2, 3, 1)},
    "depthwise": {"groups": 16},
    "four convolutions": {"convs": 4, "groups": 4},
    "eight convolutions": {"convs": 8},
    "tiled": {"time_split": "tiled"},
    "tiled, four convolutions": {"time_split": "tiled", "convs": 4, "temporal_padding": "causal"},
    "parts in time": {"time_split": "concatenated"},
    "parts in time, causal": {"time_split": "concatenated", "convs": 3, "temporal_padding": "causal"},
    "parts in time, groups": {"time_split": "concatenated", "convs": 4, "groups": 4},
    "parts in time, depthwise": {"time_split": "concatenated", "groups": 16, "key": "y", "core": "per_block"},
    "one part of time": {"time_split": "concatenated", "convs": 1},
    "core per block": {"core": "per_block"},
    "queries of X": {"query": "x"},
    "queries of X, core per block": {"query": "x", "core": "per_block", "attn_residual": "none"},
    "queries of Y": {"query": "y"},
    "keys of Y": {"key": "y"},
    "values of X, keys of Y": {"value": "x", "key": "y"},
    "values of X, queries of Y": {"value": "x", "query": "y", "core": "per_block"},
    "all of Y": {"query": "y", "key": "y"},
    "position after": {"rpe": "after"},
    "position after, queries of X": {"rpe": "after", "query": "x"},
    "position alone": {"rpe_residual": "none"},
    "position alone, after": {"rpe_residual": "none", "rpe": "after"},
    "input not decayed": {"lif_input": "undecayed"},
    "membrane shortcut": {"mlp_residual": "membrane"},
    "no attention shortcut": {"attn_residual": "none"},
    "neurons before the head": {"head_lif": True},
    "plain attention later": {"later_blocks": "ssa"},
    "small spatial kernel": {"kernel_size": 3},
    "large spatial kernel": {"kernel_size": 31},
    "large temporal kernel": {"temporal_kernel": (31, 1, 1)},
    "large temporal kernel, causal": {"temporal_kernel": (31, 1, 1), "temporal_padding": "causal"},
    "large in time and space": {"temporal_kernel": (31, 31, 31), "groups": 16},
    "without SGA, four convolutions": {"attention": "ssa", "convs": 4, "time_split": "tiled"},
    "without SGA, one convolution": {"attention": "ssa", "convs": 1},
    "without SGA, parts in time": {"attention": "ssa", "time_split": "concatenated", "core": "per_block"},
    **{ablation: fields for ablation, fields in definition.ABLATIONS.items() if ablation not in ("none", "baseline")},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "kernel_size": {"kernel_size": 3, "pools": "0011"},
    "convs=0": {"convs": 0},
    "convs": {"convs": 4},
    "temporal_kernel": {"temporal_kernel": (3, 3, 3)},
    "groups": {"groups": 4},
    "temporal_padding": {"temporal_padding": "causal"},
    "tiled": {"time_split": "tiled"},
    "concatenated": {"time_split": "concatenated"},
    "core": {"core": "per_block"},
    "attention": {"attention": "ssa"},
    "query=x": {"query": "x"},
    "query=y": {"query": "y"},
    "key": {"key": "y"},
    "value": {"value": "x", "query": "y"},  # alone it would leave nothing to read Y
    "rpe": {"rpe": "after"},
    "rpe_residual": {"rpe_residual": "none"},
    "lif_input": {"lif_input": "undecayed"},
    "tau": {"tau": 1.5},
    "mlp_residual": {"mlp_residual": "membrane"},
    "attn_residual": {"attn_residual": "none"},
    "later_blocks": {"later_blocks": "ssa"},
    "head_lif": {"head_lif": True},
}
"""Every option, another value than the default."""
NO_CORE = {
    ("convs=0", name): f"{name.partition('=')[0]}=.* needs convs above 0"
    for name in ("temporal_kernel", "groups", "temporal_padding", "core", "attention", "query=x", "query=y", "key")
}
REFUSED_PAIRS: dict[tuple[str, str], str] = {
    **NO_CORE,
    ("convs=0", "tiled"): "time_split='tiled' needs convs above 0",
    ("convs=0", "concatenated"): "time_split='concatenated' needs convs above 0",
    ("convs=0", "value"): "query='y' needs convs above 0",
    ("convs=0", "rpe"): "rpe='after' needs convs above 0",
    ("convs=0", "later_blocks"): "later_blocks='ssa' needs convs above 0",
    ("attention", "query=x"): "query='x' needs attention='sga'",
    ("attention", "query=y"): "query='y' needs attention='sga'",
    ("attention", "key"): "key='y' needs attention='sga'",
    ("attention", "value"): "query='y' needs attention='sga'",
    ("attention", "later_blocks"): "later_blocks='ssa' needs attention='sga'",
    ("core", "rpe"): "core='per_block' needs rpe='before'",
    ("core", "later_blocks"): "core='per_block' needs rpe='before' and later_blocks='sga'",
    ("key", "attn_residual"): "nothing would read X1",
}
"""Every pair of them that contradicts itself."""


def build(reading: dict[str, Any] | None = None, *, seed: int = 0, **sizes: Any) -> Any:
    """A small model: 16 channels, 2 blocks, 4 tokens; everything that is averaged is a power of two, tau too."""
    settings = {"width": 16, "depth": 2, "heads": 2, "classes": 5, "in_channels": 2, "size": 8, "time_steps": T}
    torch.manual_seed(seed)
    return definition.STFormer(**settings | sizes, reading=definition.Reading(**{"tau": 2.0} | (reading or {}))).eval()


def make_dyadic(model: Any, seed: int) -> Any:
    """Give every weight few bits, and every normalisation a gain that is a power of two: all sums become exact."""
    rng = np.random.default_rng(seed)

    def fill(tensor: Any, values: np.ndarray) -> None:
        tensor.data = torch.from_numpy(np.broadcast_to(values, tensor.shape).astype(np.float32).copy())

    for name, module in model.named_modules():
        if hasattr(module, "running_var"):
            module.eps = 0.0
            fill(module.weight, rng.choice([1, 2], module.weight.shape))
            least = 8 if name.endswith(QKV) else -2
            fill(module.bias, rng.integers(least, least + 9, module.bias.shape) / 8)
            fill(module.running_mean, rng.integers(-2, 3, module.bias.shape) / 8)
            fill(module.running_var, rng.choice([0.25, 1], module.bias.shape))
        elif hasattr(module, "weight"):
            fill(module.weight, rng.integers(-5, 6, module.weight.shape) / 16)
            if module.bias is not None:
                fill(module.bias, rng.integers(-4, 5, module.bias.shape) / 16)
    return model


def make_lively(model: Any, seed: int) -> Any:
    """Give the normalisations real statistics with which neurons fire now and then."""
    generator = torch.Generator().manual_seed(seed)
    for name, module in model.named_modules():
        if hasattr(module, "running_var"):
            least = 0.5 if name.endswith(QKV) else -0.2
            for tensor, low, high in (
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, least, least + 1.5),
                (module.running_mean, -0.1, 0.1),
                (module.running_var, 0.1, 0.5),
            ):
                tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))
    return model


def frames_for(model: Any, seed: int = 0, steps: int = T) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (steps, model.in_channels, *model.size)
    return (rng.poisson(0.7, shape) if model.in_channels == 2 else rng.integers(0, 16, shape) / 16).astype(np.float32)


def export(model: Any, folder: Path) -> Path:
    save_file(model.state_dict(), folder / "c.safetensors", definition.metadata(model))
    return folder / "c.safetensors"


def imported(model: Any, folder: Path, **options: Any) -> Network:
    return import_checkpoint(export(model, folder), **options)


@torch.no_grad()
def torch_run(model: Any, frames: np.ndarray) -> tuple[np.ndarray, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Logits, and what goes into and comes out of every leaf module that is used."""
    seen: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def record(name: str) -> Any:
        return lambda module, inputs, output: seen.__setitem__(name, (inputs[0].numpy(), output.numpy()))

    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    leaves += [(name, module) for name, module in model.named_modules() if isinstance(module, neuron.LIFNode)]
    hooks = [module.register_forward_hook(record(name)) for name, module in leaves]
    logits = model(torch.from_numpy(frames)[:, None])[0].numpy()
    for hook in hooks:
        hook.remove()
    return logits, seen


def spiking(model: Any, seen: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[str]:
    """Names of the neuron layers, in the order in which they fire."""
    neurons = {name for name, module in model.named_modules() if isinstance(module, neuron.LIFNode)}
    return [name for name in seen if name in neurons]


def looks_ahead(reading: dict[str, Any]) -> bool:
    if reading.get("convs") == 0:
        return False
    return reading.get("temporal_padding") != "causal" or (
        reading.get("time_split", "full") != "full" and reading.get("convs") != 1
    )


@pytest.mark.parametrize("fold_bn", [True, False])
@pytest.mark.parametrize("name", READINGS)
def test_every_reading_equals_pytorch_bit_for_bit(tmp_path: Path, name: str, fold_bn: bool) -> None:
    reading = READINGS[name]
    pools = "0011" if reading.get("kernel_size") == 3 else "0110"
    model = make_dyadic(build({"pools": pools, **reading}), seed=3)
    frames = frames_for(model)
    logits, seen = torch_run(model, frames)
    neurons = spiking(model, seen)
    network = imported(model, tmp_path, fold_bn=fold_bn, bn_eps=0.0)
    assert (not any(isinstance(layer, Affine) for layer in network.layers.values())) == fold_bn

    chunks = [None] if looks_ahead(reading) else range(1, T + 1)
    for chunk in chunks:
        result = Simulator(network, chunk=chunk, record=neurons).run(frames)
        for each in neurons:
            spikes = seen[each][1]
            assert_array_equal(result.recorded[each], spikes.reshape(result.recorded[each].shape), err_msg=each)
            assert 0 < spikes.mean() < 1, each
        assert_array_equal(result.logits, logits)
        check_counts(result, model, network, seen)
    assert set(neurons) == {each for each, layer in network.layers.items() if type(layer).__name__ == "LIF"}


def check_counts(result: Result, model: Any, network: Network, seen: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Compare with the synapses that PyTorch's own convolutions reach, enumerated by weights that are all 1."""
    modules = dict(model.named_modules())
    profile = {layer.name: layer for layer in result.profile}
    convolve = {3: torch.nn.functional.conv1d, 4: torch.nn.functional.conv2d, 5: torch.nn.functional.conv3d}
    layers = [name for name in seen if name.endswith("_conv") or ".conv." in name]
    known = {name for name, layer in network.layers.items() if type(layer).__name__ in CONVOLUTIONS} - {"head"}
    assert {name.removesuffix(".x1").removesuffix(".y") for name in known} == set(layers)
    for name in layers:
        x, module = torch.from_numpy(np.abs(seen[name][0])).double(), modules[name]
        ones = torch.ones_like(module.weight).double()
        pairs, units = (
            int(
                convolve[ones.ndim](given, ones, None, module.stride, module.padding, module.dilation, module.groups)
                .sum()
                .item()
            )
            for given in ((x != 0).double(), x)
        )
        parts = [profile[part].counts for part in (name, f"{name}.x1", f"{name}.y") if part in profile]
        found = tuple(
            sum(getattr(counts, each) for counts in parts) for each in ("acs", "graded_macs", "graded_acs", "macs")
        )
        graded = name == "patch_embed.proj_conv"
        assert found == ((0, pairs, units, 0) if graded else (pairs, 0, 0, 0)), name
    for index in range(len(model.block)):
        attn = f"block.{index}.attn"
        q, k, v = (seen[f"{attn}.{part}_lif"][1][:, 0].swapaxes(1, 2) for part in "qkv")
        assert profile[attn].counts.acs == attention_counts(q, k, v, model.heads, "qk_v")["acs"]
    assert profile["head"].counts.macs == model.head.weight.numel()
    assert result.totals.spikes == sum(int(seen[each][1].sum()) for each in spiking(model, seen))


CONVOLUTIONS = ("Conv2d", "Conv3d", "Linear", "SparseLinear")


def pairs_of_options() -> list[tuple[str, str]]:
    """Every two options that do not set the same field."""
    names = list(OPTIONS)
    return [
        (first, second)
        for index, first in enumerate(names)
        for second in names[index + 1 :]
        if not OPTIONS[first].keys() & OPTIONS[second].keys()
    ]


def test_every_option_is_tried() -> None:
    fields = set(definition.Reading.__dataclass_fields__)
    assert {field for option in OPTIONS.values() for field in option} == fields
    assert set(pairs_of_options()) >= set(REFUSED_PAIRS)


@pytest.mark.parametrize("pair", [pair for pair in pairs_of_options() if pair not in REFUSED_PAIRS], ids=" ".join)
def test_every_pair_of_options_equals_pytorch_bit_for_bit(tmp_path: Path, pair: tuple[str, str]) -> None:
    reading = OPTIONS[pair[0]] | OPTIONS[pair[1]]
    model = make_dyadic(build({"pools": "0110", **reading}), seed=3)
    frames = frames_for(model)
    logits, seen = torch_run(model, frames)
    neurons = spiking(model, seen)
    network = imported(model, tmp_path, bn_eps=0.0)
    assert of_the_network(network) == ()
    result = Simulator(network, record=neurons).run(frames)
    for each in neurons:
        spikes = seen[each][1]
        assert_array_equal(result.recorded[each], spikes.reshape(result.recorded[each].shape), err_msg=each)
        assert spikes.any(), each
    assert_array_equal(result.logits, logits)


IMPORTERS_NAMES = ("temporal_padding", "time_split", "attention", "query", "key", "value", "rpe", "later_blocks")


@pytest.mark.parametrize("pair", REFUSED_PAIRS, ids=" ".join)
def test_pairs_of_options_that_contradict_themselves_are_refused(tmp_path: Path, pair: tuple[str, str]) -> None:
    first, second = (OPTIONS[name] for name in pair)
    with pytest.raises(ValueError, match=REFUSED_PAIRS[pair]):
        definition.Reading(**first | second)
    options = {name: value for name, value in second.items() if name in (*IMPORTERS_NAMES, "attn_residual")}
    if options:
        path = export(build({"pools": "0110", **first}), tmp_path)
        with pytest.raises(InputError, match="|".join(options)) as error:
            import_checkpoint(path, format="stformer", **options)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [name for name in READINGS if looks_ahead(READINGS[name])])
def test_look_ahead_needs_all_steps_in_one_chunk(tmp_path: Path, name: str) -> None:
    model = build({"pools": "0110", **READINGS[name]})
    network = imported(model, tmp_path)
    for chunk in range(1, T):
        with pytest.raises(InputError, match=rf"layer \S*temporal_core\.\S+: looks ahead in time.*chunk {chunk} "):
            Simulator(network, chunk=chunk).run(frames_for(model))
    with pytest.raises(InputError, match=r"layer \S*temporal_core\.\S+: looks ahead in time.*single step"):
        Simulator(network).step(frames_for(model)[0])


def test_images_are_shown_in_every_step(tmp_path: Path) -> None:
    model = make_dyadic(build({"pools": "0110"}, in_channels=3), seed=5)
    image = frames_for(model, steps=1)[0]
    logits, _ = torch_run(model, np.stack([image] * T))
    network = imported(model, tmp_path, bn_eps=0.0)
    assert network.input.kind == "real"
    result = Simulator(network).run(image)
    assert_array_equal(result.logits, logits)
    assert_array_equal(model(torch.from_numpy(image)[None]).detach().numpy()[0], logits)
    first = next(layer for layer in result.profile if layer.name == "patch_embed.proj_conv")
    assert first.counts.macs == 3 * 2 * (3 * 8 - 2) ** 2  # computed once; each pixel of a border has fewer taps


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 7])
def test_parts_of_time_for_any_number_of_steps(tmp_path: Path, steps: int) -> None:
    model = make_dyadic(build({"pools": "0110", "time_split": "tiled", "convs": 4}), seed=6)
    frames = frames_for(model, steps=steps)
    logits, seen = torch_run(model, frames)
    neurons = spiking(model, seen)
    result = Simulator(imported(model, tmp_path, bn_eps=0.0), record=neurons).run(frames)
    for each in neurons:
        assert_array_equal(result.recorded[each], seen[each][1].reshape(result.recorded[each].shape), err_msg=each)
    assert_allclose(result.logits, logits, atol=1e-6)  # the mean over 3, 5 or 7 steps is not dyadic


@pytest.mark.parametrize("tau", [2.0, 1.75])
@pytest.mark.parametrize(
    "name",
    [
        "proposed",
        "causal",
        "position after, queries of X",
        "input not decayed",
        "keys of Y",
        "parts in time",
        "neurons before the head",
        "without_sga",
        "spatial_core",
    ],
)
def test_real_weights_differ_by_rounding_only(tmp_path: Path, name: str, tau: float) -> None:
    reading = {"pools": "1111", "tau": tau, **READINGS[name]}
    model = make_lively(build(reading, width=64, heads=4, size=34), seed=1)
    frames = frames_for(model, seed=2)
    logits, seen = torch_run(model, frames)
    neurons = spiking(model, seen)
    network = imported(model, tmp_path)
    result = Simulator(network, record=neurons).run(frames)
    if not check_spikes(result, seen, neurons, model):
        assert_allclose(result.logits, logits, atol=1e-4)
    if name == "causal":
        for chunk in (1, 3):
            again = Simulator(network, chunk=chunk, record=neurons).run(frames)
            assert_array_equal(again.logits, result.logits)
            assert again.totals == result.totals


def check_spikes(result: Result, seen: dict[str, Any], neurons: list[str], model: Any) -> bool:
    """Check that the first spikes that differ, if any, were within 1e-4 of the threshold; return whether any did."""
    modules = dict(model.named_modules())
    for name in neurons:
        current, spikes = (array[:, 0] for array in seen[name])
        assert spikes.any(), name
        differ = result.recorded[name].reshape(spikes.shape) != spikes
        if differ.any():
            node = modules[name]
            v = np.zeros_like(current[0])
            for x, fired, wrong in zip(current, spikes, differ, strict=True):
                h = v + (x - v) / node.tau if node.decay_input else v - v / node.tau + x
                if wrong.any():
                    assert (np.abs(h[wrong] - node.v_threshold) < 1e-4).all(), name
                    return True
                v = h * (1 - fired)
    return False


@torch.no_grad()
def dense(state: dict[str, Any], frames: Any, heads: int, reading: Any) -> Any:
    """Logits, written from the descriptions of paper, baseline and options alone: no module, one step at a time."""
    steps = range(len(frames))

    def lif(x: Any, threshold: float = 1.0) -> Any:
        v, spikes = torch.zeros_like(x[0]), []
        for current in x:
            v = v + (current - v) / reading.tau if reading.lif_input == "decayed" else v - v / reading.tau + current
            spikes.append((v >= threshold).float())
            v = v * (1 - spikes[-1])
        return torch.stack(spikes)

    def norm(name: str, x: Any) -> Any:
        parts = ("running_mean", "running_var", "weight", "bias")
        return torch.nn.functional.batch_norm(x, *(state[f"{name}.{part}"] for part in parts), eps=0.0)

    def conv(name: str, x: Any) -> Any:
        weight = state[f"{name}_conv.weight"]
        return norm(name + "_bn", torch.nn.functional.conv2d(x, weight, padding=weight.shape[2] // 2))

    def project(name: str, x: Any) -> Any:
        weight = state[f"{name}_conv.weight"].flatten(1)
        y = torch.nn.functional.conv1d(x.flatten(2), weight[:, :, None], state.get(f"{name}_conv.bias"))
        return norm(name + "_bn", y).unflatten(2, x.shape[2:])

    def over_time(core: str, index: int, x: Any) -> Any:
        weight = state[f"{core}.conv.{index}.weight"]
        size, *space = weight.shape[2:]
        before = size - 1 if reading.temporal_padding == "causal" else size // 2
        padding = tuple(side // 2 for side in space)
        out = []
        for t in range(len(x)):
            taps = [(k, t + k - before) for k in range(size) if 0 <= t + k - before < len(x)]
            maps = [
                torch.nn.functional.conv2d(x[at], weight[:, :, k], padding=padding, groups=reading.groups)
                for k, at in taps
            ]
            out.append(sum(maps))
        return norm(f"{core}.bn.{index}", torch.stack(out))

    def core_of(name: str, x2: Any) -> tuple[Any, Any]:
        n, has_y = reading.convs, reading.attention == "sga"
        starts = [index * len(x2) // n for index in range(n + 1)]
        if reading.time_split == "concatenated":
            pieces = [over_time(name, index, x2[starts[index] : starts[index + 1]]) for index in range(n)]
            made = torch.cat(pieces).unflatten(1, (reading.groups, 1 + has_y, -1))
            halves = [made[:, :, part].flatten(1, 2) for part in range(1 + has_y)]
        else:
            made = []
            for index in range(n):
                part = x2 if reading.time_split == "full" else x2[starts[index] : starts[index + 1]]
                z = over_time(name, index, part)
                made.append(torch.stack([z[t % len(part)] for t in steps]))
            width = x2.shape[1]
            halves = [torch.cat(made, 1)[:, part * width : (part + 1) * width] for part in range(1 + has_y)]
        return lif(halves[0]), lif(halves[1]) if has_y else None

    x = frames
    for stage, pool in zip(("proj", "proj1", "proj2", "proj3"), reading.pools, strict=True):
        x = conv(f"patch_embed.{stage}", x if stage == "proj" else lif(x))
        x = torch.nn.functional.max_pool2d(x, 3, 2, 1) if pool == "1" else x
    if reading.rpe == "before":
        x = conv("patch_embed.proj4", lif(x)) + (x if reading.rpe_residual == "add" else 0)
    y = None
    for index in range(sum(name.endswith("q_conv.weight") for name in state)):
        attn, mlp = f"block.{index}.attn", f"block.{index}.mlp"
        x2 = lif(x)
        if reading.convs and (index == 0 or reading.core == "per_block"):
            x1, y = core_of("temporal_core" if reading.core == "once" else f"block.{index}.temporal_core", x2)
            if reading.rpe == "before":
                x = x1 + x2
            else:
                x = conv("patch_embed.proj4", x1) + x2 + (x1 if reading.rpe_residual == "add" else 0)
            signals = {"x2": x2, "x": lif(x), "y": y}
        else:
            later = x2 if y is None or reading.later_blocks == "ssa" else y
            signals = {"x2": x2, "x": x2, "y": later}
        if reading.convs == 0 or reading.attention == "ssa":
            signals = dict.fromkeys(signals, signals["x"])
        sources = (signals[word] for word in (reading.query, reading.key, reading.value))
        q, k, v = (
            lif(project(f"{attn}.{part}", source)).flatten(2).unflatten(1, (heads, -1))
            for part, source in zip("qkv", sources, strict=True)
        )
        z = (torch.einsum("thcn,thcm,thdm->thdn", q, k, v).flatten(1, 2) * 0.125).unflatten(2, x.shape[2:])
        s = project(f"{attn}.proj", lif(z, 0.5)) + (x if reading.attn_residual == "add" else 0)
        spikes = lif(s)
        shortcut = spikes if reading.mlp_residual == "spikes" else s
        x = project(f"{mlp}.mlp2", lif(project(f"{mlp}.mlp1", spikes))) + shortcut
    x = lif(x) if reading.head_lif else x
    return state["head.weight"] @ x.flatten(2).mean(2).mean(0) + state["head.bias"]


@pytest.mark.parametrize("name", [*READINGS, "baseline"])
def test_the_definition_is_what_its_options_say(name: str) -> None:
    reading = {**READINGS, "baseline": definition.ABLATIONS["baseline"]}[name]
    pools = "0011" if reading.get("kernel_size") == 3 else "0110"
    model = make_dyadic(build({"pools": pools, **reading}), seed=4)
    frames = frames_for(model)
    expected = dense(model.state_dict(), torch.from_numpy(frames), model.heads, model.reading)
    assert_array_equal(torch_run(model, frames)[0], expected.numpy())


def cifar(**reading: Any) -> Any:
    """The published size, 4-384."""
    sizes = {"width": 384, "depth": 4, "heads": 12, "classes": 10, "in_channels": 3, "size": 32, "time_steps": 4}
    with torch.device("meta"):
        return definition.STFormer(**sizes, reading=definition.Reading(**reading))


def parameters(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_parameter_counts() -> None:
    assert parameters(cifar(convs=0, kernel_size=3)) == 9_320_122  # that of Spikingformer-CML 4-384
    spatial = parameters(cifar(convs=0))
    assert spatial == 10_868_410
    assert parameters(cifar()) - spatial == 886_272
    assert parameters(cifar(groups=384)) - spatial == 3_840
    assert parameters(cifar(temporal_kernel=(3, 3, 3))) - spatial == 7_964_160
    assert parameters(cifar(core="per_block")) - spatial == 4 * 886_272
    assert parameters(cifar(attention="ssa")) - spatial == 886_272 // 2
    assert parameters(cifar(time_split="concatenated")) - spatial == 2 * 886_272
    kernels = {3: 9_320_122, 5: 10_868_410, 7: 13_190_842, 11: 20_158_138, 31: 101_443_258}  # of Table 7
    assert {size: parameters(cifar(convs=0, kernel_size=size)) for size in kernels} == kernels


@pytest.mark.parametrize(
    ("ablation", "parameters_of_it"),
    [
        ("none", 11_754_682),
        ("without_sga", 11_311_546),
        ("without_temporal_core", 10_868_410),
        ("without_st_core", 9_320_122),
        ("spatial_core", 10_868_410),
        ("temporal_core", 9_763_258),
        ("baseline", 9_320_122),
    ],
)
def test_parameter_counts_of_the_ablations(ablation: str, parameters_of_it: int) -> None:
    assert parameters(cifar(**definition.ABLATIONS[ablation])) == parameters_of_it


# --- ablations


@pytest.mark.parametrize("ablation", definition.ABLATIONS)
def test_every_ablation_trains_and_is_imported(tmp_path: Path, ablation: str) -> None:
    torch.manual_seed(0)
    model = make_lively(definition.nmnist_model(ablation), seed=0).train()
    frames = torch.from_numpy(np.stack([frames_for(model, seed=seed) for seed in range(3)], 1))
    labels = torch.tensor([1, 2, 3])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    losses = []
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(model(frames), labels)
        optimizer.zero_grad()
        loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            # a bias before a normalisation has none
            assert name.endswith("conv.bias") or parameter.grad.any(), name
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all((parameter != before[name]).any() for name, parameter in model.named_parameters())

    model.eval()
    logits, seen = torch_run(model, frames[:, 0].numpy())
    neurons = spiking(model, seen)
    network = imported(model, tmp_path)
    assert of_the_network(network) == ()
    result = Simulator(network, record=neurons).run(frames[:, 0].numpy())
    if not check_spikes(result, seen, neurons, model):
        assert_allclose(result.logits, logits, atol=1e-4)


def test_dense_macs_of_the_published_size(tmp_path: Path) -> None:
    state = {name: torch.ones(value.shape) for name, value in cifar().state_dict().items()}
    save_file(state, tmp_path / "c.safetensors")
    network = import_checkpoint(tmp_path / "c.safetensors")
    assert network.name == "STFormer 4-384"
    macs = {name: layer.dense_macs(*network.input_types(name)) for name, layer in network.layers.items()}
    found = {name: value for name, value in macs.items() if value and not name.startswith("block")}
    assert found == {
        "patch_embed.proj_conv": 1_327_104,
        "patch_embed.proj1_conv": 117_964_800,  # 25 / 9 of the baseline's 42,467,328, and so on
        "patch_embed.proj2_conv": 471_859_200,
        "patch_embed.proj3_conv": 471_859_200,
        "patch_embed.proj4_conv": 84_934_656,
        "temporal_core.conv.0": 28_311_552,
        "temporal_core.conv.1": 28_311_552,
        "head": 3_840,
    }
    for index in range(4):
        block = {
            name.removeprefix(f"block.{index}."): value for name, value in macs.items() if f"block.{index}" in name
        }
        assert {name: value for name, value in block.items() if value} == {
            **{f"attn.{part}_conv": 9_437_184 for part in ("q", "k", "v", "proj")},
            "attn": 3_145_728,
            **{f"mlp.mlp{part}_conv": 37_748_736 for part in (1, 2)},
        }


def test_what_the_state_dict_cannot_tell_is_said(tmp_path: Path) -> None:
    model = build({"pools": "1111"}, width=64, size=34)
    save_file(model.state_dict(), tmp_path / "c.safetensors")
    network = import_checkpoint(tmp_path / "c.safetensors")
    said = {assumption.split(":")[0] for assumption in of_the_network(network)}
    assert said == {
        "heads = 4",
        "scale = 0.125",
        "time_steps = 16",
        "height = 128",
        "width = 128",
        "input_kind = graded",
        "pools = 1111",
        "tau = 1.75",
        "decay_input = true",
        "v_threshold = 1.0",
        "attn_threshold = 0.5",
        "reset = zero",
        "v_reset = 0.0",
        "strict = false",
        "bn_eps = 1e-05",
        "temporal_padding = centred",
        "time_split = full",
        "attention = sga",
        "query = x2",
        "key = x",
        "value = y",
        "rpe = before",
        "rpe_residual = add",
        "mlp_residual = spikes",
        "attn_residual = add",
        "later_blocks = sga",
        "head_lif = false",
    }
    reason = "that of the baseline's models for event cameras"
    assert f"tau = 1.75: not in the checkpoint, {reason}" in of_the_network(network)
    assert of_the_network(imported(model, tmp_path)) == ()
    assert set(definition.metadata(model)) - {"format"} == {assumption.split(" ")[0] for assumption in said}
    save_file(build(in_channels=3).state_dict(), tmp_path / "c.safetensors")
    said = {assumption.split(":")[0] for assumption in of_the_network(import_checkpoint(tmp_path / "c.safetensors"))}
    assert {"pools = 0011", "time_steps = 4", "height = 32", "input_kind = real", "tau = 2.0"} <= said


def test_the_time_constant_is_the_baselines() -> None:
    for channels, tau in ((2, 1.75), (3, 2.0)):
        model = definition.STFormer(
            width=16, depth=1, heads=2, classes=5, in_channels=channels, size=8, time_steps=T
        )  # no reading: every default
        assert {module.tau for module in model.modules() if isinstance(module, neuron.LIFNode)} == {tau}
        assert definition.metadata(model)["tau"] == str(tau)


def test_what_the_tensors_tell_is_inferred(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    for reading, inferred, assumed in (
        ({"convs": 4}, {"attention = sga"}, {"time_split = full"}),
        ({"attention": "ssa", "convs": 4}, {"attention = ssa"}, {"time_split = full"}),
        ({"time_split": "concatenated"}, {"attention = sga", "time_split = concatenated"}, set()),
        (
            {"time_split": "concatenated", "attention": "ssa", "convs": 3},
            {"attention = ssa", "time_split = concatenated"},
            set(),
        ),
        ({}, set(), {"attention = sga", "time_split = full"}),
    ):
        save_file(build(reading).state_dict(), path)
        said = {"inferred": set(), "assumed": set(), "option": set()}
        for setting in import_checkpoint(path, heads=2).settings:
            if setting.option in ("attention", "time_split"):
                said[setting.source].add(f"{setting.option} = {setting.value}")
        assert said == {"inferred": inferred, "assumed": assumed, "option": set()}
    # two convolutions of as many outputs as channels: X1 and Y of all steps, or X1 of two parts of them
    model = make_dyadic(build({"pools": "0110", "attention": "ssa", "time_split": "concatenated"}), seed=3)
    save_file(model.state_dict(), tmp_path / "c.safetensors")
    assert any(
        each.startswith("attention = sga")
        for each in of_the_network(import_checkpoint(tmp_path / "c.safetensors", heads=2))
    )
    frames = frames_for(model)
    sizes = {"heads": 2, "height": 8, "width": 8, "pools": "0110", "bn_eps": 0.0, "tau": 2.0}
    for options in ({"attention": "ssa"}, {"time_split": "concatenated"}):
        network = import_checkpoint(tmp_path / "c.safetensors", **sizes, **options)
        assert_array_equal(Simulator(network).run(frames).logits, torch_run(model, frames)[0])


LATER = ("key", "value", "rpe_residual", "head_lif", "attention", "format")


def test_metadata_of_before_there_were_these_options_mean_what_they_meant(tmp_path: Path) -> None:
    model = make_dyadic(build({"pools": "0110", "key": "y"}), seed=3)
    stated = {name: value for name, value in definition.metadata(model).items() if name not in LATER}
    save_file(model.state_dict(), tmp_path / "c.safetensors", stated)
    network = import_checkpoint(tmp_path / "c.safetensors", bn_eps=0.0)
    assert of_the_network(network) == ()
    frames = frames_for(model)
    assert_array_equal(Simulator(network).run(frames).logits, torch_run(model, frames)[0])
    said = {setting.option: setting for setting in network.settings}
    assert {(name, said[name].value, said[name].source) for name in LATER[:4]} == {
        ("key", "y", "inferred"),
        ("value", "y", "inferred"),
        ("rpe_residual", "add", "inferred"),
        ("head_lif", False, "inferred"),
    }
    other = import_checkpoint(tmp_path / "c.safetensors", bn_eps=0.0, key="x")
    assert next(each for each in other.settings if each.option == "key").source == "option"
    assert (Simulator(other).run(frames).logits != torch_run(model, frames)[0]).any()


def test_the_baseline_is_read_as_spikingformer_cml(tmp_path: Path) -> None:
    for ablation in ("baseline", "without_st_core"):  # the same tensors
        reading = {"pools": "0110", "tau": 1.75, **definition.ABLATIONS[ablation]}
        model = make_dyadic(build(reading), seed=3)
        frames = frames_for(model)
        network = imported(model, tmp_path, bn_eps=0.0)
        assert of_the_network(network) == ()
        assert_array_equal(Simulator(network).run(frames).logits, torch_run(model, frames)[0])
        expected = {"baseline": "Spikingformer-CML dvs 2-16", "without_st_core": "STFormer 2-16 without temporal core"}
        assert network.name == expected[ablation]
    save_file(model.state_dict(), tmp_path / "c.safetensors")  # then nothing tells it from Spikingformer
    assert import_checkpoint(tmp_path / "c.safetensors").name == "Spikingformer dvs 2-16"
    default = import_checkpoint(tmp_path / "c.safetensors", variant="cml")
    assert any(each.startswith("tau = 1.75") for each in of_the_network(default))
    stated = definition.metadata(model)
    del stated["format"]
    save_file(model.state_dict(), tmp_path / "c.safetensors", stated)
    with pytest.raises(InputError, match=r"could be spikingformer or stformer; say which with --format"):
        import_checkpoint(tmp_path / "c.safetensors")
    assert import_checkpoint(tmp_path / "c.safetensors", format="stformer").name.startswith("STFormer")


def test_the_baseline_is_that_of_another_definition() -> None:
    reading = {"pools": "0110", **definition.ABLATIONS["baseline"]}
    model = make_dyadic(build(reading), seed=3)
    baseline = spikingformer_torch.Reading(variant="cml", pools="0110")
    sizes = {"width": 16, "depth": 2, "heads": 2, "classes": 5, "in_channels": 2, "size": 8, "time_steps": T}
    other = spikingformer_torch.Spikingformer(**sizes, reading=baseline).eval()
    missing, left = other.load_state_dict(model.state_dict(), strict=False)
    assert not left
    assert all(".norm" in name for name in missing)
    for module in other.modules():
        module.eps = 0.0
    frames = frames_for(model)
    logits = torch_run(model, frames)[0]
    with torch.no_grad():
        assert_array_equal(other(torch.from_numpy(frames)[:, None])[0].numpy(), logits)
    said = {name: value for name, value in spikingformer_torch.metadata(other).items() if name != "reset"}
    assert said.items() <= definition.metadata(model).items()


@pytest.mark.parametrize("tau", [1.75, 2.0])
def test_neurons_of_x_fire_where_x1_and_x2_both_do(tau: float) -> None:
    model = make_dyadic(build({"pools": "0110", "tau": tau}), seed=3)
    _, seen = torch_run(model, frames_for(model, steps=12))
    x1, x2, x = (seen[name][1] for name in ("temporal_core.x1_lif", "temporal_core.lif", "block.0.attn.proj_lif"))
    assert_array_equal(x, x1 * x2)
    assert x.any()


@pytest.mark.parametrize("steps", [1, 3])
def test_parts_of_time_need_a_step_each(tmp_path: Path, steps: int) -> None:
    model = make_dyadic(build({"pools": "0110", "time_split": "concatenated", "convs": 4}), seed=6)
    frames = frames_for(model, steps=steps)
    with pytest.raises(ValueError, match=f"{steps} time steps found; expected one for each of 4 parts"):
        torch_run(model, frames)
    network = imported(model, tmp_path, bn_eps=0.0)
    with pytest.raises(InputError, match=rf"layer temporal_core\.x1_join\.\d: parts of .* a sample of {steps} found"):
        Simulator(network).run(frames)
    with pytest.raises(InputError, match=rf"time_steps={steps} and 4 parts of them found; expected a time step for ev"):
        import_checkpoint(tmp_path / "c.safetensors", time_steps=steps)
    frames = frames_for(model, steps=6)  # parts of 1, 2, 1 and 2 steps
    assert_allclose(Simulator(network).run(frames).logits, torch_run(model, frames)[0], atol=1e-6)


def test_options_override_metadata(tmp_path: Path) -> None:
    model = make_dyadic(build({"pools": "0110", "query": "x", "mlp_residual": "membrane"}), seed=3)
    path = export(model, tmp_path)
    changed = make_dyadic(build({"pools": "0110", "tau": 4.0}), seed=3)  # the same weights
    logits, _ = torch_run(changed, frames_for(changed))
    assert (torch_run(model, frames_for(model))[0] != logits).any()
    network = import_checkpoint(path, bn_eps=0.0, query="x2", mlp_residual="spikes", tau="4")
    assert_array_equal(Simulator(network).run(frames_for(changed)).logits, logits)


def test_other_systems_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", **spikformer_state("dvs"))
    with pytest.raises(InputError, match=r"c\.npz: no STFormer found; expected temporal_core\.conv or block\.0\.temp"):
        import_checkpoint(tmp_path / "c.npz", format="stformer")
    baseline = build(definition.ABLATIONS["baseline"])
    with pytest.raises(InputError, match=r"no STFormer found"):
        import_checkpoint(export(baseline, tmp_path), format="stformer")
    larger = build({**definition.ABLATIONS["baseline"], "kernel_size": 7})
    with pytest.raises(
        InputError, match=r"patch_embed\.proj1_conv\.weight \(4, 2, 7, 7\) found; expected \(any, 2, 3, 3"
    ):
        import_checkpoint(export(larger, tmp_path), format="spikingformer")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"temporal_core.conv.1.weight": None},
            r"1 convolutions temporal_core\.conv with 16 outputs in temporal_core\.conv\.0\.weight, attention=sga, "
            r"time_split=full found; expected an even number with 32 outputs together, or 16 together with attention",
        ),
        (
            {"temporal_core.conv.2.weight": (16, 16, 3, 1, 1)},
            r"3 convolutions temporal_core\.conv with 16 outputs .* found; expected an even number with 32 outputs",
        ),
        (
            {"temporal_core.conv.0.weight": None},
            r"attention=sga with no tensor temporal_core\.conv\.0\.weight found; expected the option left out",
        ),
        (
            {"temporal_core.conv.1.weight": (8, 16, 3, 1, 1)},
            r"tensor temporal_core\.conv\.1\.weight \(8, 16, 3, 1, 1\) found; expected \(16, any, any, any, any\)",
        ),
        (
            {"temporal_core.conv.1.weight": (16, 16, 3, 2, 1)},
            r"conv\.1\.weight \(16, 16, 3, 2, 1\) found; expected \(16, a divisor of 16, any, odd, odd\)",
        ),
        (
            {"temporal_core.conv.1.weight": (16, 5, 3, 1, 1)},
            r"\(16, 5, 3, 1, 1\) found; expected \(16, a divisor of 16",
        ),
        (
            {"temporal_core.conv.0.weight": (16, 16, 2, 1, 1)},
            r"layer temporal_core\.conv\.0: centred kernel of 2 time steps found; expected an odd number",
        ),
        ({"temporal_core.bn.1.bias": (15,)}, r"tensor temporal_core\.bn\.1\.bias \(15\) found; expected \(16\)"),
        (
            {"patch_embed.proj2_conv.weight": (8, 4, 4, 4)},
            r"proj2_conv\.weight \(8, 4, 4, 4\) found; expected a square",
        ),
        ({"patch_embed.proj2_conv.weight": (8, 3, 5, 5)}, r"\(8, 3, 5, 5\) found; expected \(any, 4, any, any\)"),
        ({"patch_embed.proj3_conv.weight": (24, 8, 5, 5)}, r"\(24, 8, 5, 5\) found; expected \(16, 8, any, any\)"),
        (
            {"block.1.attn.k_conv.weight": (16, 16)},
            r"block\.1\.attn\.k_conv\.weight \(16, 16\) found; expected \(16, 16, 1\)",
        ),
        (
            {"block.0.temporal_core.conv.0.weight": (16, 16, 3, 1, 1)},
            r"tensor block\.0\.temporal_core\.conv\.0\.weight \(16, 16, 3, 1, 1\) left over",
        ),
        ({"head.weight": (5, 15)}, r"tensor head\.weight \(5, 15\) found; expected \(any, 16\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    model = build({"pools": "0110"})
    state = model.state_dict()
    for name, shape in change.items():
        if shape is None:
            del state[name]
        else:
            state[name] = torch.zeros(shape)
    save_file(state, tmp_path / "c.safetensors", definition.metadata(model))
    with pytest.raises(InputError, match=message) as error:
        import_checkpoint(tmp_path / "c.safetensors")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pools": "011"}, r"c\.safetensors: pools=011 found; expected four ones and zeros, such as 0011"),
        ({"heads": 3}, r"c\.safetensors: heads=3 found; expected a divisor of width 16"),
        (
            {"attn_residual": "none", "key": "y"},
            r"attn_residual=none with query=x2, key=y, value=y found; expected one of them x, or nothing reads X1",
        ),
        ({"value": "x"}, r"query=x2, key=x, value=x found; expected one of them y, or nothing reads Y"),
        ({"attention": "ssa"}, r"16 outputs in temporal_core\.conv\.0\.weight, attention=ssa, time_split=full found"),
        ({"time_split": "concatenated"}, r"attention=sga, time_split=concatenated found; expected an even number with"),
        ({"tau": 0.5}, r"tau=0\.5 found; expected at least 1 time step"),
        ({"height": 0}, r"layer input: shape \(2, 0, 8\) found"),
    ],
)
def test_options_that_do_not_fit_are_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        imported(build({"pools": "0110"}), tmp_path, **options)
    assert "\n" not in str(error.value)


def test_options_of_another_arrangement_are_refused(tmp_path: Path) -> None:
    path = export(build({"pools": "0110", "core": "per_block"}), tmp_path)
    with pytest.raises(
        InputError, match=r"later_blocks=ssa with a temporal core in every block found; expected the opt"
    ):
        import_checkpoint(path, later_blocks="ssa")
    with pytest.raises(InputError, match=r"rpe=after with a temporal core in every block found; expected rpe=before"):
        import_checkpoint(path, rpe="after")
    state = {
        name: value for name, value in build({"core": "per_block"}).state_dict().items() if "1.temporal" not in name
    }
    save_file(state, path)
    with pytest.raises(
        InputError, match=r"0 convolutions block\.1\.temporal_core\.conv found; expected 2, as in the first block"
    ):
        import_checkpoint(path)


@pytest.mark.parametrize("ablation", ["without_temporal_core", "spatial_core", "without_sga", "temporal_core"])
def test_options_of_what_an_ablation_took_away_are_refused(tmp_path: Path, ablation: str) -> None:
    reading = {"pools": "0110", **definition.ABLATIONS[ablation]}
    path = export(build(reading), tmp_path)
    no_core = reading.get("convs") == 0
    found = r"no tensor temporal_core\.conv\.0\.weight" if no_core else "no SGA"
    words = {"query": "x2", "key": "x", "value": "y", "later_blocks": "sga"}
    words |= {"temporal_padding": "causal", "time_split": "full", "rpe": "before"} if no_core else {}
    for name, word in words.items():  # whatever is said, the default too
        with pytest.raises(
            InputError, match=rf"c\.safetensors: {name}={word} with {found} found; expected the opt"
        ) as error:
            import_checkpoint(path, **{name: word})
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("ablation", ["without_temporal_core", "spatial_core", "without_sga"])
def test_tensors_that_an_ablation_leaves_over_are_named(tmp_path: Path, ablation: str) -> None:
    model = build({"pools": "0110", **definition.ABLATIONS[ablation]})
    state = model.state_dict()
    left = {name: value for name, value in build().state_dict().items() if "temporal_core.bn.1" in name}
    if ablation == "without_sga":
        left = {f"{name}.y": value for name, value in list(left.items())[:1]}
    save_file(state | left, tmp_path / "c.safetensors", definition.metadata(model))
    with pytest.raises(InputError, match=r"tensor temporal_core\.bn\.1\S* .*left over") as error:
        import_checkpoint(tmp_path / "c.safetensors")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        ({"convs": 3}, "convs=3: an even number is needed"),
        ({"attn_residual": "none", "query": "y", "key": "y"}, "nothing would read X1"),
        ({"value": "x"}, "nothing would read Y"),
        ({"value": "x", "query": "x"}, "nothing would read Y"),
        ({"core": "per_block", "rpe": "after"}, "core='per_block' needs"),
        ({"core": "per_block", "later_blocks": "ssa"}, "core='per_block' needs"),
        ({"convs": 0, "rpe": "after"}, "rpe='after' needs convs above 0"),
    ],
)
def test_readings_that_contradict_themselves_are_refused(reading: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        definition.Reading(**reading)
    with pytest.raises(ValueError, match="convs=5"):
        replace(definition.Reading(), convs=5)


def test_trained_weights_predict_the_same_as_pytorch(shared: Path) -> None:
    weights = EXAMPLES / "weights" / "nmnist_stformer.safetensors"
    assert weights.stat().st_size < 1.5e6
    network = import_checkpoint(weights)
    assert network.assumptions == ()
    model = definition.nmnist_model().eval()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in Checkpoint.open(weights).tensors.items()})
    simulator = Simulator(network)
    samples = labelled_files(shared / "nmnist" / "Test")
    right = 0
    for sample in samples:
        frames = frames_by_count(open_recording(sample.name), model.time_steps).astype(np.float32)
        found, (expected, _) = simulator.run(frames), torch_run(model, frames)
        assert found.prediction == int(expected.argmax())
        right += found.prediction == sample.label
    assert len(samples) == 50
    assert right >= 0.85 * len(samples)
