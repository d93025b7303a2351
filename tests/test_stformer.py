"""STFormer: the import equals the PyTorch definition in every reading of the paper, spikes and counts."""

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
    "core per block": {"core": "per_block"},
    "queries of X": {"query": "x"},
    "queries of X, core per block": {"query": "x", "core": "per_block", "attn_residual": "none"},
    "position after": {"rpe": "after"},
    "position after, queries of X": {"rpe": "after", "query": "x"},
    "input not decayed": {"lif_input": "undecayed"},
    "membrane shortcut": {"mlp_residual": "membrane"},
    "no attention shortcut": {"attn_residual": "none", "query": "x"},
    "plain attention later": {"later_blocks": "ssa"},
    "small spatial kernel": {"kernel_size": 3},
}


def build(reading: dict[str, Any] | None = None, *, seed: int = 0, **sizes: Any) -> Any:
    """A small model: 16 channels, 2 blocks, 4 tokens; everything that is averaged is a power of two."""
    settings = {"width": 16, "depth": 2, "heads": 2, "classes": 5, "in_channels": 2, "size": 8, "time_steps": T}
    torch.manual_seed(seed)
    return definition.STFormer(**settings | sizes, reading=definition.Reading(**reading or {})).eval()


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
    return reading.get("temporal_padding") != "causal" or reading.get("time_split") == "tiled"


@pytest.mark.parametrize("fold_bn", [True, False])
@pytest.mark.parametrize("name", READINGS)
def test_every_reading_equals_pytorch_bit_for_bit(tmp_path: Path, name: str, fold_bn: bool) -> None:
    reading = READINGS[name]
    pools = "0011" if name == "small spatial kernel" else "0110"
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
    assert len(layers) == sum(1 for layer in network.layers.values() if type(layer).__name__ in CONVOLUTIONS) - 1
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
        counts = profile[name].counts
        graded = name == "patch_embed.proj_conv"
        assert (counts.acs, counts.graded_macs, counts.graded_acs, counts.macs) == (
            (0, pairs, units, 0) if graded else (pairs, 0, 0, 0)
        ), name
    for index in range(len(model.block)):
        attn = f"block.{index}.attn"
        q, k, v = (seen[f"{attn}.{part}_lif"][1][:, 0].swapaxes(1, 2) for part in "qkv")
        assert profile[attn].counts.acs == attention_counts(q, k, v, model.heads, "qk_v")["acs"]
    assert profile["head"].counts.macs == model.head.weight.numel()
    assert result.totals.spikes == sum(int(seen[each][1].sum()) for each in spiking(model, seen))


CONVOLUTIONS = ("Conv2d", "Conv3d", "Linear", "SparseLinear")


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
@pytest.mark.parametrize("name", ["proposed", "causal", "position after, queries of X", "input not decayed"])
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
def spikingformer_cml(state: dict[str, Any], frames: Any, pools: str, heads: int, shortcut: bool) -> Any:
    """The baseline, written from its description alone; `shortcut` adds what goes into the position embedding."""

    def lif(x: Any, threshold: float = 1.0) -> Any:
        v, spikes = torch.zeros_like(x[0]), []
        for current in x:
            v = v + (current - v) / 2
            spikes.append((v >= threshold).float())
            v = v * (1 - spikes[-1])
        return torch.stack(spikes)

    def norm(name: str, x: Any) -> Any:
        parts = ("running_mean", "running_var", "weight", "bias")
        return torch.nn.functional.batch_norm(x, *(state[f"{name}.{part}"] for part in parts), eps=0.0)

    def conv(name: str, x: Any) -> Any:
        return norm(name + "_bn", torch.nn.functional.conv2d(x, state[f"{name}_conv.weight"], padding=1))

    def dense(name: str, x: Any) -> Any:
        weight = state[f"{name}_conv.weight"].flatten(1)
        return norm(name + "_bn", torch.nn.functional.conv1d(x, weight[:, :, None], state.get(f"{name}_conv.bias")))

    x = frames
    for stage, pool in zip(("proj", "proj1", "proj2", "proj3"), pools, strict=True):
        x = conv(f"patch_embed.{stage}", x if stage == "proj" else lif(x))
        x = torch.nn.functional.max_pool2d(x, 3, 2, 1) if pool == "1" else x
    x = conv("patch_embed.proj4", lif(x)) + (x if shortcut else 0)
    x = x.flatten(2)
    for index in range(sum(name.endswith("q_conv.weight") for name in state)):
        attn, mlp = f"block.{index}.attn", f"block.{index}.mlp"
        spikes = lif(x)
        q, k, v = (lif(dense(f"{attn}.{part}", spikes)).unflatten(1, (heads, -1)) for part in "qkv")
        y = torch.einsum("thcn,thcm,thdm->thdn", q, k, v).flatten(1, 2) * 0.125
        x = x + dense(f"{attn}.proj", lif(y, 0.5))
        x = x + dense(f"{mlp}.mlp2", lif(dense(f"{mlp}.mlp1", lif(x))))
    return state["head.weight"] @ x.mean(2).mean(0) + state["head.bias"]


def test_without_a_temporal_core_the_baseline_remains() -> None:
    reading = {"convs": 0, "kernel_size": 3, "mlp_residual": "membrane", "pools": "0110"}
    model = make_dyadic(build(reading), seed=4)
    frames = frames_for(model)
    state = model.state_dict()
    expected = spikingformer_cml(state, torch.from_numpy(frames), "0110", model.heads, shortcut=True)
    assert_array_equal(torch_run(model, frames)[0], expected.numpy())
    plain = spikingformer_cml(state, torch.from_numpy(frames), "0110", model.heads, shortcut=False)
    assert (plain != expected).any()


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
        "tau = 2.0",
        "decay_input = true",
        "v_threshold = 1.0",
        "attn_threshold = 0.5",
        "reset = zero",
        "v_reset = 0.0",
        "strict = false",
        "bn_eps = 1e-05",
        "temporal_padding = centred",
        "time_split = full",
        "query = x2",
        "rpe = before",
        "mlp_residual = spikes",
        "attn_residual = add",
        "later_blocks = sga",
    }
    assert of_the_network(imported(model, tmp_path)) == ()
    assert set(definition.metadata(model)) == {assumption.split(" ")[0] for assumption in said}
    save_file(build(in_channels=3).state_dict(), tmp_path / "c.safetensors")
    said = {assumption.split(":")[0] for assumption in of_the_network(import_checkpoint(tmp_path / "c.safetensors"))}
    assert {"pools = 0011", "time_steps = 4", "height = 32", "input_kind = real"} <= said


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
    baseline = build({"convs": 0, "kernel_size": 3})
    with pytest.raises(InputError, match=r"no STFormer found"):
        import_checkpoint(export(baseline, tmp_path), format="stformer")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temporal_core.conv.1.weight": None}, r"1 convolutions temporal_core\.conv found; expected an even number"),
        (
            {"temporal_core.conv.2.weight": (16, 16, 3, 1, 1)},
            r"3 convolutions temporal_core\.conv found; expected an even number that divides 32",
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
        ({"attn_residual": "none"}, r"attn_residual=none with query=x2 found; expected query=x, or nothing reads X1"),
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
        InputError, match=r"0 convolutions block\.1\.temporal_core\.conv found; expected an even number"
    ):
        import_checkpoint(path)


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        ({"convs": 3}, "convs=3: an even number is needed"),
        ({"attn_residual": "none"}, "nothing would read X1"),
        ({"core": "per_block", "rpe": "after"}, "core='per_block' needs"),
        ({"core": "per_block", "later_blocks": "ssa"}, "core='per_block' needs"),
        ({"convs": 0, "rpe": "after"}, "needs a temporal core"),
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
