"""SpikingJelly's Spikformer: published sizes, and the import against a PyTorch definition, spikes and counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spikformer_zoo_torch as definition
import torch_oracle as oracle
from assumptions import of_the_network
from numpy.testing import assert_allclose, assert_array_equal
from reference.counts import attention_counts
from safetensors.numpy import load_file, save_file

from eventsim import InputError, Network, Result, Simulator, import_checkpoint
from eventsim.layers import Affine
from eventsim_importers import spikformer_zoo as importer
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.container import Contents

torch = oracle.torch

T = 4
SEED = 14
READINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as published": ({}, {}),
    "images": ({}, {"in_channels": 3}),
    "other time constants": ({"tau": 1.5, "attn_tau": 3.0}, {}),
    "input not decayed": ({"decay_input": False}, {}),
    "other thresholds": ({"v_threshold": 0.75, "attn_threshold": 0.25, "scale": 0.25}, {}),
    "reset by subtraction": ({"v_reset": None}, {}),
    "reset to another potential": ({"v_reset": 0.25}, {}),
    "four heads": ({}, {"heads": 4}),
}
"""What the weights do not tell, and sizes."""


def build(reading: dict[str, Any] | None = None, **sizes: Any) -> Any:
    """A small model: 16 channels, 2 blocks, 4 tokens; everything that is averaged is a power of two."""
    settings = {"width": 16, "depth": 2, "heads": 2, "classes": 5, "in_channels": 2, "size": 32, "time_steps": T}
    torch.manual_seed(0)
    return definition.Spikformer(**settings | sizes, reading=definition.Reading(**reading or {})).eval()


def dyadic(*args: Any, **sizes: Any) -> Any:
    return definition.excite(oracle.make_dyadic(build(*args, **sizes), seed=SEED))


def export(model: Any, folder: Path) -> Path:
    return oracle.export(model, folder, definition.metadata(model))


def imported(model: Any, folder: Path, **options: Any) -> Network:
    return import_checkpoint(export(model, folder), **options)


@pytest.mark.parametrize(("width", "depth", "heads", "parameters"), [(256, 4, 8, 4_400_392), (384, 6, 12, 13_244_824)])
def test_published_sizes(width: int, depth: int, heads: int, parameters: int) -> None:
    with torch.device("meta"):
        model = build(width=width, depth=depth, heads=heads, classes=1000, in_channels=3)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    tensors = {key: np.broadcast_to(np.float32(1), shape) for key, shape in shapes.items()}
    checkpoint = Checkpoint(Path("published"), "npz", Contents(tensors))
    assert importer.signature(checkpoint) == len(tensors)
    network = importer.read(checkpoint, importer.Options(fold_bn=False))
    assert network.parameters == sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert network.layers["blocks.0.attn"].heads == heads
    assert (network.time_steps, network.input.shape, network.input.kind) == (4, (3, 224, 224), "real")
    assert network.types["patch_embed.add"].grid == (14, 14)
    assert network.name == f"Spikformer of SpikingJelly {depth}-{width}"


# --- against PyTorch


def spikes_of(seen: oracle.Seen, model: Any) -> dict[str, np.ndarray]:
    """Spikes of every layer of the network; those of queries, keys and values come from one module."""
    found = {}
    for name in oracle.neurons_of(model):
        spikes = oracle.as_recorded(seen[name][1])
        if name.endswith(".qkv_lif"):
            found |= {f"{name}.{part}": third for part, third in zip("qkv", np.split(spikes, 3, 1), strict=True)}
        else:
            found[name] = spikes
    return found


@pytest.mark.parametrize("fold_bn", [True, False])
@pytest.mark.parametrize("name", READINGS)
def test_every_reading_equals_pytorch_bit_for_bit(tmp_path: Path, name: str, fold_bn: bool) -> None:
    reading, sizes = READINGS[name]
    model = dyadic(reading, **sizes)
    frames = oracle.frames_for(model)
    logits, seen = oracle.run(model, frames)
    expected = spikes_of(seen, model)
    network = imported(model, tmp_path, fold_bn=fold_bn, bn_eps=0.0)
    assert of_the_network(network) == ()
    assert (not any(isinstance(layer, Affine) for layer in network.layers.values())) == fold_bn
    assert {each for each, layer in network.layers.items() if type(layer).__name__ == "LIF"} == set(expected)
    results = [Simulator(network, chunk=c, record=list(expected)).run(frames) for c in (None, 1, 3)]
    for result in results:
        for each, spikes in expected.items():
            assert_array_equal(result.recorded[each], spikes, err_msg=each)
            assert 0 < spikes.mean() < 1, each
        assert_array_equal(result.logits, logits)
        assert [layer.counts for layer in result.profile] == [layer.counts for layer in results[0].profile]
    check_counts(results[0], seen, model, network)


def check_counts(result: Result, seen: oracle.Seen, model: Any, network: Network) -> None:
    """Compare with the synapses that PyTorch's own convolutions reach, enumerated by weights that are all 1."""
    profile = {layer.name: layer.counts for layer in result.profile}
    modules = dict(model.named_modules())
    convs = [name for name in seen if type(modules[name]).__name__ in ("Conv1d", "Conv2d")]
    assert len(convs) == 5 + 2 * 4
    for name in convs:
        pairs, units = oracle.synapses_served(modules[name], seen[name][0][:, None])
        parts = [f"{name}.{part}" for part in "qkv"] if "qkv" in name else [name]
        kind = network.input_types(parts[0])[0].kind
        found = [
            sum(getattr(profile[part], count) for part in parts)
            for count in ("acs", "graded_macs", "graded_acs", "macs")
        ]
        if kind == "real":
            assert name == "patch_embed.stages.0.conv_bn.block.0"
            assert found[:3] == [0, 0, 0]
            assert found[3] >= pairs
        else:
            assert found == ([0, pairs, units, 0] if kind == "graded" else [pairs, 0, 0, 0]), name
    for index in range(len(model.blocks)):
        attn = f"blocks.{index}.attn"
        q, k, v = np.split(oracle.as_tokens(seen[f"{attn}.qkv_lif"][1]), 3, axis=2)
        assert profile[attn].acs == attention_counts(q, k, v, model.heads, "qk_v")["acs"]
    assert profile["head"].macs == model.head.weight.numel()
    assert result.totals.spikes == sum(int(spikes.sum()) for spikes in spikes_of(seen, model).values())


def test_images_are_shown_in_every_step(tmp_path: Path) -> None:
    model = dyadic(in_channels=3)
    image = oracle.frames_for(model, steps=1)[0]
    logits, _ = oracle.run(model, np.stack([image] * T))
    assert_array_equal(Simulator(imported(model, tmp_path, bn_eps=0.0)).run(image).logits, logits)


def test_real_weights_differ_by_rounding_only(tmp_path: Path) -> None:
    model = definition.excite(oracle.make_lively(build(width=64, heads=4), seed=1))
    frames = oracle.frames_for(model, seed=2)
    network = imported(model, tmp_path, attention_order="context_first")
    assert_allclose(Simulator(network).run(frames).logits, oracle.run(model, frames)[0], atol=1e-4)


# --- what is said, and bad input


def test_what_the_state_dict_cannot_tell_is_said(tmp_path: Path) -> None:
    path = export(build(), tmp_path)
    save_file(load_file(path), path)
    said = {assumption.split(" ")[0] for assumption in of_the_network(import_checkpoint(path))}
    sizes = {"heads", "scale", "time_steps", "height", "width", "input_kind"}
    neurons = {"tau", "attn_tau", "decay_input", "v_threshold", "attn_threshold", "reset", "v_reset", "strict"}
    assert said == sizes | neurons | {"bn_eps"}


F = np.float32
QKV = "blocks.0.attn.qkv_conv_bn"


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({f"{QKV}.0.weight": np.ones((32, 16, 1), F)}, {}, rf"tensor {QKV}.0.weight \(32, 16, 1\) found; .*\(48, 16"),
        ({f"{QKV}.1.bias": np.ones(16, F)}, {}, rf"tensor {QKV}.1.bias \(16\) found; expected \(48\)"),
        ({"blocks.1.mlp.fc1.0.bias": np.ones(64, F)}, {}, r"tensor blocks.1.mlp.fc1.0.bias \(64\) left over"),
        ({"patch_embed.stages.2.conv_bn.block.1.weight": None}, {}, "tensor patch_embed.stages.2.conv_bn.block.1.weig"),
        ({}, {"heads": "3"}, "heads=3 found; expected a divisor of width 16"),
        ({}, {"attn_tau": "0.5"}, "attn_tau=0.5 found; expected at least 1 time step"),
    ],
)
def test_bad_input_is_refused(tmp_path: Path, tensors: dict[str, Any], metadata: dict[str, str], message: str) -> None:
    model = build()
    path = export(model, tmp_path)
    state = {name: tensor for name, tensor in (load_file(path) | tensors).items() if tensor is not None}
    save_file(state, path, definition.metadata(model) | metadata)
    with pytest.raises(InputError, match=f"^{path}: {message}") as error:
        import_checkpoint(path)
    assert "\n" not in str(error.value)


def test_another_system_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", **{"head.weight": np.ones((2, 2), F)})
    message = r"c\.npz: no Spikformer of SpikingJelly found; expected blocks.0.attn.qkv_conv_bn.0.weight with patch_emb"
    with pytest.raises(InputError, match=message):
        import_checkpoint(tmp_path / "c.npz", "spikformer_zoo")
