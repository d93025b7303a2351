"""Spikingformer and CML: published sizes, and the import against a PyTorch definition, spikes and counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spikingformer_torch as definition
import torch_oracle as oracle
from assumptions import of_the_network
from numpy.testing import assert_allclose, assert_array_equal
from reference.counts import attention_counts
from safetensors.numpy import load_file, save_file

from eventsim import InputError, Network, Result, Simulator, import_checkpoint
from eventsim.layers import Affine
from eventsim_importers import spikingformer as importer
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.container import Contents

torch = oracle.torch

T = 4
CIFAR = {"size": 8, "in_channels": 3}
READINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "events": ({}, {}),
    "events, cml": ({"variant": "cml"}, {}),
    "events, tau": ({"tau": 1.5}, {}),
    "events, cml, tau": ({"variant": "cml", "tau": 1.75}, {}),
    "cifar": ({"names": "block", "pools": "0011"}, CIFAR),
    "cifar, cml": ({"variant": "cml", "pools": "0011"}, CIFAR),
    "imagenet, cml": ({"variant": "cml"}, {"in_channels": 3}),
    "other pools": ({"pools": "0110"}, {"size": 8}),
    "input not decayed": ({"decay_input": False, "tau": 4.0}, {}),
    "other thresholds": ({"v_threshold": 0.75, "attn_threshold": 0.25, "scale": 0.25}, {}),
    "reset to another potential": ({"v_reset": 0.25}, {}),
    "reset by subtraction": ({"v_reset": None}, {}),
}
"""What the weights do not tell, and sizes."""


def build(reading: dict[str, Any] | None = None, **sizes: Any) -> Any:
    """A small model: 16 channels, 2 blocks, 4 tokens; everything that is averaged is a power of two."""
    settings = {"width": 16, "depth": 2, "heads": 2, "classes": 5, "in_channels": 2, "size": 32, "time_steps": T}
    torch.manual_seed(0)
    return definition.Spikingformer(**settings | sizes, reading=definition.Reading(**reading or {})).eval()


def export(model: Any, folder: Path) -> Path:
    return oracle.export(model, folder, definition.metadata(model))


def imported(model: Any, folder: Path, **options: Any) -> Network:
    return import_checkpoint(export(model, folder), **options)


# --- the published models


def published(names: str, width: int, depth: int, classes: int, in_channels: int = 3) -> tuple[int, Network]:
    """Parameters of a published model that the forward pass uses, and its import, with weights that take no memory."""
    with torch.device("meta"):
        reading = definition.Reading(names=names)
        sizes = {"width": width, "depth": depth, "classes": classes, "in_channels": in_channels, "size": 32}
        model = definition.Spikingformer(heads=8, time_steps=T, reading=reading, **sizes)
    used = sum(parameter.numel() for name, parameter in model.named_parameters() if ".norm" not in name)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    tensors = {key: np.broadcast_to(np.float32(1), shape) for key, shape in shapes.items()}
    checkpoint = Checkpoint(Path("published"), "npz", Contents(tensors))
    assert importer.signature(checkpoint) == len(tensors)
    return used, importer.read(checkpoint, importer.Options(fold_bn=False))


@pytest.mark.parametrize(
    ("model", "used", "unused", "name", "expected"),
    [
        (("block", 256, 4, 10), 4_152_106, 4_096, "Spikingformer cifar 4-256", (8, 4, (3, 32, 32), "0011", 2.0)),
        (("block", 384, 2, 10), 5_762_746, 3_072, "Spikingformer cifar 2-384", (12, 4, (3, 32, 32), "0011", 2.0)),
        (("block", 384, 4, 10), 9_320_122, 6_144, "Spikingformer cifar 4-384", (12, 4, (3, 32, 32), "0011", 2.0)),
        (("proj", 384, 4, 10), 9_320_122, 6_144, "Spikingformer-CML cifar 4-384", (12, 4, (3, 32, 32), "0011", 2.0)),
        (("proj", 384, 4, 100), 9_354_772, 6_144, "Spikingformer-CML cifar 4-384", (12, 4, (3, 32, 32), "0011", 2.0)),
        (("proj", 384, 4, 101), 9_355_157, 6_144, "Spikingformer imagenet 4-384", (8, 4, (3, 224, 224), "1111", 2.0)),
        (("proj", 256, 2, 10, 2), 2_566_666, 2_048, "Spikingformer dvs 2-256", (16, 16, (2, 128, 128), "1111", 1.5)),
        (("proj", 384, 8, 1000), 16_816_024, 12_288, "Spikingformer imagenet 8-384", (8, 4, (3, 224, 224), "1111", 2)),
        (("proj", 512, 8, 1000), 29_689_384, 16_384, "Spikingformer imagenet 8-512", (8, 4, (3, 224, 224), "1111", 2)),
        (("proj", 768, 8, 1000), 66_338_632, 24_576, "Spikingformer imagenet 8-768", (8, 4, (3, 224, 224), "1111", 2)),
    ],
)
def test_published_sizes(model: tuple[Any, ...], used: int, unused: int, name: str, expected: tuple[Any, ...]) -> None:
    count, network = published(*model)
    assert (count, network.parameters) == (used, used)
    assert network.name == name
    settings = {setting.option: setting.value for setting in network.settings}
    found = (settings["heads"], network.time_steps, network.input.shape, settings["pools"], settings["tau"])
    assert found == expected
    with_norms = {"imagenet 8-384": 16_828_312, "imagenet 8-512": 29_705_768, "imagenet 8-768": 66_363_208}
    assert with_norms.get(name.partition(" ")[2], used + unused) == used + unused
    if (name, model[3]) == ("Spikingformer cifar 4-384", 10):
        assert used + unused == 9_326_266


def test_work_of_each_layer_of_the_published_model() -> None:
    """The first convolution runs at full resolution, the later ones behind their pooling: CIFAR 4-384."""
    _, network = published("block", 384, 4, 10)
    macs = {name: layer.dense_macs(*network.input_types(name)) for name, layer in network.layers.items()}
    assert {name: value for name, value in macs.items() if value and not name.startswith("block.")} == {
        "patch_embed.block0_conv": 48 * 27 * 32 * 32,
        "patch_embed.block1_conv": 96 * 48 * 9 * 32 * 32,
        "patch_embed.block2_conv": 192 * 96 * 9 * 32 * 32,
        "patch_embed.block3_conv": 384 * 192 * 9 * 16 * 16,
        "patch_embed.block4_conv": 384 * 384 * 9 * 8 * 8,
        "head": 3_840,
    }


def test_cml_for_event_cameras_has_a_time_constant_of_its_own(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", **{name: tensor.numpy() for name, tensor in build().state_dict().items()})
    network = import_checkpoint(tmp_path / "c.npz", variant="cml")
    assert {setting.option: setting.value for setting in network.settings}["tau"] == 1.75
    assert network.name == "Spikingformer-CML dvs 2-16"


# --- against PyTorch


@pytest.mark.parametrize("fold_bn", [True, False])
@pytest.mark.parametrize("name", READINGS)
def test_every_reading_equals_pytorch_bit_for_bit(tmp_path: Path, name: str, fold_bn: bool) -> None:
    reading, sizes = READINGS[name]
    model = oracle.make_dyadic(build(reading, **sizes), seed=2)
    frames = oracle.frames_for(model)
    logits, seen = oracle.run(model, frames)
    network = imported(model, tmp_path, fold_bn=fold_bn, bn_eps=0.0)
    assert of_the_network(network) == ()
    assert (not any(isinstance(layer, Affine) for layer in network.layers.values())) == fold_bn
    results = [Simulator(network, chunk=c, record=oracle.neurons_of(model)).run(frames) for c in (None, 1, 3)]
    for result in results:
        oracle.check_equal(result, seen, model)
        assert_array_equal(result.logits, logits)
        assert [layer.counts for layer in result.profile] == [layer.counts for layer in results[0].profile]
    check_counts(results[0], seen, model)


def check_counts(result: Result, seen: oracle.Seen, model: Any) -> None:
    """Every convolution but the first sees spikes; its additions are the synapses that they reach."""
    profile = {layer.name: layer.counts for layer in result.profile}
    modules = dict(model.named_modules())
    served = [name for name in seen if name.endswith("_conv")]
    assert len(served) == 5 + 2 * 6
    for name in served:
        pairs, units = oracle.synapses_served(modules[name], seen[name][0][:, None])
        counts = profile[name]
        found = (counts.acs, counts.graded_macs, counts.graded_acs, counts.macs)
        if name.startswith(("patch_embed.proj_", "patch_embed.block0")):
            if model.in_channels == 2:
                assert found == (0, pairs, units, 0), name
            else:
                assert (counts.acs, counts.graded_macs, counts.graded_acs) == (0, 0, 0)
                assert counts.macs >= pairs
        else:
            assert found == (pairs, 0, 0, 0), name
    for index in range(len(model.block)):
        attn = f"block.{index}.attn"
        q, k, v = (oracle.as_tokens(seen[f"{attn}.{part}_lif"][1]) for part in "qkv")
        assert profile[attn].acs == attention_counts(q, k, v, model.heads, "qk_v")["acs"]
    assert profile["head"].macs == model.head.weight.numel()
    assert result.totals.spikes == sum(int(seen[name][1].sum()) for name in oracle.neurons_of(model))


def test_the_shortcut_carries_potentials(tmp_path: Path) -> None:
    network = imported(build(), tmp_path)
    joins = [name for name in network.layers if name.endswith("_add")]
    assert len(joins) == 4
    assert {network.types[name].kind for name in joins} == {"real"}
    for name, layer in network.layers.items():
        if name.endswith("_conv") and name != "patch_embed.proj_conv":
            assert network.input_types(name)[0].kind == "binary", (name, layer)


def test_the_variants_differ(tmp_path: Path) -> None:
    """Names and shapes are the same; only the option tells, and the wrong one gives other logits."""
    model = oracle.make_dyadic(build(), seed=2)
    frames = oracle.frames_for(model)
    right, wrong = (imported(model, tmp_path, bn_eps=0.0, variant=variant) for variant in ("spikingformer", "cml"))
    assert_array_equal(Simulator(right).run(frames).logits, oracle.run(model, frames)[0])
    assert (Simulator(wrong).run(frames).logits != oracle.run(model, frames)[0]).any()


def test_neurons_that_fire_above_the_threshold_only(tmp_path: Path) -> None:
    """PyTorch's modules fire at the threshold; with weights of few bits potentials meet it often."""
    model = oracle.make_dyadic(build(), seed=2)
    frames = oracle.frames_for(model)
    first = "patch_embed.proj1_lif"
    strict = imported(model, tmp_path, bn_eps=0.0, strict=True)
    current = oracle.run(model, frames)[1][first][0][:, 0]
    v, expected = np.zeros_like(current[0]), []
    for x in current:
        v = v + (x - v) / 2
        expected.append(v > 1)
        v = v * ~expected[-1]
    assert_array_equal(Simulator(strict, record=[first]).run(frames).recorded[first], np.stack(expected))


@pytest.mark.parametrize(
    ("names", "variant", "size", "expected"),
    [
        ("block", "spikingformer", 8, ["block3_mp", "block4_mp"]),
        ("proj", "cml", 8, ["proj2_mp", "proj3_mp"]),
        ("proj", "cml", 32, ["maxpool", "maxpool1", "maxpool2", "maxpool3"]),
        ("proj", "spikingformer", 32, ["maxpool1", "maxpool2", "maxpool3", "maxpool4"]),
    ],
)
def test_poolings_are_named_as_in_the_source(
    tmp_path: Path, names: str, variant: str, size: int, expected: list[str]
) -> None:
    pools = "0011" if size == 8 else "1111"
    sizes = {"size": size, "in_channels": 3 if size == 8 else 2}
    network = imported(build({"names": names, "variant": variant, "pools": pools}, **sizes), tmp_path)
    found = [name for name, layer in network.layers.items() if type(layer).__name__ == "MaxPool2d"]
    assert found == [f"patch_embed.{name}" for name in expected]


def test_images_are_shown_in_every_step(tmp_path: Path) -> None:
    model = oracle.make_dyadic(build(in_channels=3), seed=2)
    image = oracle.frames_for(model, steps=1)[0]
    logits, _ = oracle.run(model, np.stack([image] * T))
    result = Simulator(imported(model, tmp_path, bn_eps=0.0)).run(image)
    assert_array_equal(result.logits, logits)
    (first,) = (layer for layer in result.profile if layer.name == "patch_embed.proj_conv")
    assert first.counts.macs == 3 * 2 * (3 * 32 - 2) ** 2  # computed once; each pixel of a border has fewer taps


@pytest.mark.parametrize("variant", ["spikingformer", "cml"])
def test_real_weights_differ_by_rounding_only(tmp_path: Path, variant: str) -> None:
    model = oracle.make_lively(build({"variant": variant, "tau": 1.75}, width=64, heads=4), seed=1)
    frames = oracle.frames_for(model, seed=2)
    logits, seen = oracle.run(model, frames)
    network = imported(model, tmp_path, attention_order="context_first")
    result = Simulator(network, record=oracle.neurons_of(model)).run(frames)
    if not oracle.check_close(result, seen, model):
        assert_allclose(result.logits, logits, atol=1e-4)


# --- what is said, and bad input


def test_what_the_state_dict_cannot_tell_is_said(tmp_path: Path) -> None:
    neurons = {"tau", "decay_input", "v_threshold", "attn_threshold", "reset", "v_reset", "strict", "bn_eps"}
    sizes = {"heads", "scale", "time_steps", "height", "width", "input_kind", "pools"}
    for names, told in (("proj", set()), ("block", {"variant"})):
        model = build({"names": names})
        np.savez(tmp_path / "c.npz", **{name: tensor.numpy() for name, tensor in model.state_dict().items()})
        network = import_checkpoint(tmp_path / "c.npz")
        said = {assumption.split(" ")[0] for assumption in of_the_network(network)}
        assert said == (neurons | sizes | {"variant"}) - told
    (variant,) = (setting for setting in network.settings if setting.option == "variant")
    assert (variant.source, variant.value) == ("inferred", "spikingformer")


def changed(folder: Path, metadata: dict[str, str] | None = None, **tensors: np.ndarray | None) -> Path:
    """The small model with tensors replaced, added or, where None, left out."""
    model = build()
    path = export(model, folder)
    state = load_file(path) | tensors
    kept = {name: tensor for name, tensor in state.items() if tensor is not None}
    save_file(kept, path, definition.metadata(model) | (metadata or {}))
    return path


ONES = np.ones((4, 4, 5, 5), np.float32)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"patch_embed.rpe_conv.weight": ONES}, r"tensor patch_embed.rpe_conv.weight \(4, 4, 5, 5\) left over"),
        ({"patch_embed.proj2_conv.weight": ONES}, r"tensor patch_embed.proj2_conv.weight \(4, 4, 5, 5\) found"),
        ({"patch_embed.proj2_bn.weight": None}, r"tensor patch_embed.proj2_bn.weight missing"),
        ({"block.1.attn.q_conv.weight": None}, r"tensor block.1.attn.q_conv.weight missing"),
        ({"head.weight": None}, r"tensor head.weight missing"),
    ],
)
def test_bad_tensors_are_refused(tmp_path: Path, tensors: dict[str, Any], message: str) -> None:
    path = changed(tmp_path, **tensors)
    with pytest.raises(InputError, match=f"^{path}: {message}") as error:
        import_checkpoint(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"heads": "3"}, "heads=3 found; expected a divisor of width 16"),
        ({"pools": "111"}, "pools=111 found; expected 4 ones and zeros, such as 1111"),
        ({"tau": "0.5"}, "tau=0.5 found; expected at least 1 time step"),
        ({"variant": "other"}, "metadata variant='other' found; expected one of spikingformer, cml"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, metadata: dict[str, str], message: str) -> None:
    path = changed(tmp_path, metadata)
    with pytest.raises(InputError, match=f"^{path}: {message}"):
        import_checkpoint(path)


def test_another_system_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", **{"head.weight": np.ones((2, 2), np.float32)})
    with pytest.raises(InputError, match=r"c\.npz: no Spikingformer found; expected block.0.mlp.mlp1_conv.weight with"):
        import_checkpoint(tmp_path / "c.npz", "spikingformer")
