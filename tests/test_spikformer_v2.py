"""Spikformer V2: published sizes, and the import against the PyTorch definition, spikes and counts."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_oracle as oracle
from assumptions import of_the_network
from numpy.testing import assert_allclose, assert_array_equal
from reference.counts import attention_counts
from safetensors.numpy import load_file, save_file
from state_dicts import spikformer_state

from eventsim import InputError, Network, Simulator, import_checkpoint, load, save
from eventsim.datasets import labelled_files
from eventsim.layers import Affine
from eventsim.settings import Setting
from eventsim_importers import spikformer_v2 as importer
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.container import Contents

torch = oracle.torch
definition = oracle.example("spikformer_v2")

T = 4
NEURONS = {"bn_eps", "tau", "decay_input", "v_threshold", "attn_threshold", "reset", "v_reset", "strict"}
"""Of every spiking transformer."""
READINGS: dict[str, dict[str, Any]] = {
    "add": {},
    "iand": {"residual_op": "iand"},
    "add, none in the stem": {"scs_residual": False},
    "iand, none in the stem": {"residual_op": "iand", "scs_residual": False},
    "other scale": {"scale": 0.25},
    "bias behind down": {"stem_bias": "down"},
    "bias behind conv2": {"stem_bias": "conv2"},
}
STEM_BIASES = ("none", "down", "conv2")


def build(reading: dict[str, Any] | None = None, **sizes: Any) -> Any:
    """A small model: 16 channels, 2 blocks, 4 tokens; everything that is averaged is a power of two."""
    settings = {"width": 16, "depth": 2, "heads": 2, "classes": 5, "in_channels": 2, "size": 32, "time_steps": T}
    torch.manual_seed(0)
    return definition.SpikformerV2(**settings | sizes, reading=definition.Reading(**reading or {}))


def export(model: Any, folder: Path) -> Path:
    return oracle.export(model, folder, definition.metadata(model))


def imported(model: Any, folder: Path, **options: Any) -> Network:
    return import_checkpoint(export(model, folder), **options)


# --- the published models


def published(name: str, stem_bias: str = "none") -> Any:
    with torch.device("meta"):
        return definition.imagenet_model(name, definition.Reading(stem_bias=stem_bias))


def published_network(name: str, stem_bias: str = "none") -> Network:
    """Import a published model whose weights take no memory."""
    shapes = {key: tuple(value.shape) for key, value in published(name, stem_bias).state_dict().items()}
    tensors = {key: np.broadcast_to(np.float32(1), shape) for key, shape in shapes.items()}
    checkpoint = Checkpoint(Path(name), "npz", Contents(tensors))
    return importer.read(checkpoint, importer.Options(fold_bn=False))


@pytest.mark.parametrize(
    ("name", "parameters", "giga_macs"),
    [
        ("8-384", 29_111_272, 11.5152),
        ("8-512", 51_545_064, 20.3631),
        ("12-512", 64_177_128, 22.9867),
        ("12-768", 143_893_480, 51.3585),
        ("16-768", 172_278_760, 57.1436),
    ],
)
def test_published_sizes(name: str, parameters: int, giga_macs: float) -> None:
    assert sum(parameter.numel() for parameter in published(name).parameters()) == parameters
    network = published_network(name)
    assert network.parameters == parameters
    assert round(sum(dense_macs(network).values()) / 1e9, 4) == giga_macs


@pytest.mark.parametrize("stem_bias", STEM_BIASES)
@pytest.mark.parametrize(
    ("name", "printed"), [("8-384", 29.11), ("8-512", 51.55), ("12-512", 64.18), ("12-768", 143.89), ("16-768", 172.28)]
)
def test_three_ways_of_biases_in_the_stem_fit_the_printed_parameters(name: str, printed: float, stem_bias: str) -> None:
    """The four convolutions of a kind have D/8, D/4, D/2 and D outputs together; those of conv1 four times as many."""
    model = published(name, stem_bias)
    count = sum(parameter.numel() for parameter in model.parameters())
    width = model.head.in_features
    assert count - sum(each.numel() for each in published(name).parameters()) == (
        0 if stem_bias == "none" else width * 15 // 8
    )
    assert round(count / 1e6, 2) == printed
    assert published_network(name, stem_bias).parameters == count


def test_other_ways_of_biases_do_not_fit() -> None:
    """At width 768: 172,278,760 parameters and 1,440 for each of down and conv2, 5,760 for conv1."""
    none = {name: sum(each.numel() for each in published(name).parameters()) for name in definition.SIZES}
    printed = {"8-384": 29.11, "8-512": 51.55, "12-512": 64.18, "12-768": 143.89, "16-768": 172.28}
    fitting = []
    for down, conv1, conv2 in np.ndindex(2, 2, 2):
        more = {name: (down + 4 * conv1 + conv2) * size["width"] * 15 // 8 for name, size in definition.SIZES.items()}
        if all(round((none[name] + more[name]) / 1e6, 2) == printed[name] for name in none):
            fitting.append((down, conv1, conv2))
    assert fitting == [(0, 0, 0), (0, 0, 1), (1, 0, 0)]


def dense_macs(network: Network) -> dict[str, int]:
    return {name: layer.dense_macs(*network.input_types(name)) for name, layer in network.layers.items()}


@pytest.mark.parametrize(
    ("name", "first", "down", "conv", "linear", "attention"),
    [
        ("8-384", 7_225_344, 57_802_752, 1_040_449_536, 2_774_532_096, 236_027_904),
        ("8-512", 9_633_792, 102_760_448, 1_849_688_064, 4_932_501_504, 314_703_872),
    ],
)
def test_published_work_of_each_layer(name: str, first: int, down: int, conv: int, linear: int, attention: int) -> None:
    network = published_network(name)
    macs = dense_macs(network)
    assert [macs.pop(f"stem.{i}.down") for i in range(4)] == [first, down, down, down]
    assert [macs.pop(f"stem.{i}.conv{j}") for i in range(4) for j in (1, 2)] == [conv] * 8
    assert sum(macs.pop(f"block.{i}.attn") for i in range(8)) == attention
    assert sum(macs.pop(f"block.{i}.attn.{x}_conv") for i in range(8) for x in ("q", "k", "v", "proj")) + sum(
        macs.pop(f"block.{i}.mlp.fc{j}_conv") for i in range(8) for j in (1, 2)
    ) == (linear)
    assert macs.pop("head") == 1000 * network.types["mean_over_positions"].channels
    assert not any(macs.values())
    assert network.types["stem.3.lif2_add"].shape[1:] == (14, 14)


@pytest.mark.parametrize(("width", "heads"), [(384, 8), (512, 8), (768, 12)])
def test_default_heads(width: int, heads: int) -> None:
    name = {384: "8-384", 512: "8-512", 768: "12-768"}[width]
    network = published_network(name)
    assert network.layers["block.0.attn"].heads == heads
    said = {assumption.split(" ")[0] for assumption in of_the_network(network)}
    expected = {"heads", "scale", "time_steps", "height", "width", "input_kind", "residual_op", "scs_residual"}
    assert said == expected | NEURONS
    assert (network.time_steps, network.input.shape) == (4, (3, 224, 224))


# --- against PyTorch


@pytest.mark.parametrize("fold_bn", [True, False])
@pytest.mark.parametrize("name", READINGS)
def test_every_reading_equals_pytorch_bit_for_bit(tmp_path: Path, name: str, fold_bn: bool) -> None:
    model = oracle.make_dyadic(build(READINGS[name]), seed=4)
    frames = oracle.frames_for(model)
    logits, seen = oracle.run(model, frames)
    network = imported(model, tmp_path, fold_bn=fold_bn, bn_eps=0.0)
    assert of_the_network(network) == ()
    assert (not any(isinstance(layer, Affine) for layer in network.layers.values())) == fold_bn
    results = [Simulator(network, chunk=c, record=oracle.neurons_of(model)).run(frames) for c in range(1, T + 1)]
    for result in results:
        oracle.check_equal(result, seen, model)
        assert_array_equal(result.logits, logits)
        assert [layer.counts for layer in result.profile] == [layer.counts for layer in results[0].profile]
    check_counts(results[0], seen, model)


CHOICES: dict[str, tuple[Any, ...]] = {
    "residual_op": ("add", "iand"),
    "scs_residual": (True, False),
    "scale": (0.125, 0.25, "learned"),
    "stem_bias": ("none", "down", "conv2", "all"),
    "head": (True, False),
    "fold_bn": (True, False),
    "attention_order": ("scores_first", "context_first"),
}
"""Of the definition, and of the importer. Learned scales, other biases and a missing head are put into the model."""


def covering(seed: int) -> list[dict[str, Any]]:
    """Sets of all choices in which every pair of values occurs, greedily few."""
    missing = {frozenset([(a, x), (b, y)]) for a, b in combinations(CHOICES, 2) for x in CHOICES[a] for y in CHOICES[b]}
    rng, rows = np.random.default_rng(seed), []

    def pairs(row: dict[str, Any]) -> set[frozenset[tuple[str, Any]]]:
        return {frozenset(pair) for pair in combinations(row.items(), 2)}

    while missing:
        drawn = [{name: each[rng.integers(len(each))] for name, each in CHOICES.items()} for _ in range(200)]
        rows.append(max(drawn, key=lambda row: len(pairs(row) & missing)))
        missing -= pairs(rows[-1])
    return rows


@pytest.mark.parametrize("chosen", covering(0), ids=str)
def test_every_pair_of_choices_equals_pytorch_bit_for_bit(tmp_path: Path, chosen: dict[str, Any]) -> None:
    """All values go together; what may not be said of a tensor that is there is refused below."""
    reading = {name: chosen[name] for name in ("residual_op", "scs_residual")}
    if chosen["scale"] != "learned":
        reading["scale"] = chosen["scale"]
    model = build(reading | ({} if chosen["stem_bias"] == "all" else {"stem_bias": chosen["stem_bias"]}), size=64)
    if chosen["stem_bias"] == "all":
        for stage in model.stem:
            for conv in (stage.down, stage.conv1, stage.conv2):
                conv.bias = torch.nn.Parameter(torch.zeros(conv.out_channels))
    oracle.make_dyadic(model, seed=12)
    metadata = definition.metadata(model)
    if chosen["scale"] == "learned":
        del metadata["scale"]
        for index, block in enumerate(model.block):
            block.attn.scale = torch.nn.Parameter(torch.tensor(0.25 / (1 + index)))
    frames = oracle.frames_for(model)
    expected, seen = oracle.run(model, frames)
    path = oracle.export(model, tmp_path, metadata)
    if not chosen["head"]:
        save_file({name: each for name, each in load_file(path).items() if name[:4] != "head"}, path, metadata)
        expected = seen["head"][0][0]
    ways = {name: chosen[name] for name in ("fold_bn", "attention_order")}
    network = import_checkpoint(path, bn_eps=0.0, **ways)
    assert of_the_network(network) == ()
    assert network.classifies == chosen["head"]
    results = [Simulator(network, chunk=c, record=oracle.neurons_of(model)).run(frames) for c in (1, 3, T)]
    for result in results:
        oracle.check_equal(result, seen, model)
        assert_array_equal(result.logits, expected)
        assert [layer.counts for layer in result.profile] == [layer.counts for layer in results[0].profile]


def test_biases_of_the_stem_are_said(tmp_path: Path) -> None:
    for stem_bias in STEM_BIASES:
        network = imported(build({"stem_bias": stem_bias}), tmp_path)
        said = [each for each in network.settings if each.option == "stem_bias"]
        note = f"tensor stem.0.{stem_bias}.bias and so on"
        assert said == ([] if stem_bias == "none" else [Setting("stem_bias", stem_bias, "inferred", note)])


def check_counts(result: Any, seen: oracle.Seen, model: Any) -> None:
    profile = {layer.name: layer.counts for layer in result.profile}
    modules = dict(model.named_modules())
    served = [name for name in seen if hasattr(modules[name], "weight") and not hasattr(modules[name], "running_var")]
    assert len(served) == 12 + 6 * 2 + 1
    for name in served:
        if name == "head":
            assert profile[name].macs == model.head.weight.numel()
            continue
        x = seen[name][0]
        pairs, units = oracle.synapses_served(modules[name], x[:, None])
        counts = profile[name]
        found = (counts.acs, counts.graded_macs, counts.graded_acs, counts.macs)
        graded = name == "stem.0.down" or (
            model.reading.residual_op == "add" and name.endswith((".down", "q_conv", "k_conv", "v_conv", "fc1_conv"))
        )
        if graded and not model.reading.scs_residual and name != "stem.0.down":  # the stem emits spikes
            graded = not name.startswith("stem") and not name.startswith("block.0.attn")
        assert found == ((0, pairs, units, 0) if graded else (pairs, 0, 0, 0)), name
    for index in range(len(model.block)):
        attn = f"block.{index}.attn"
        q, k, v = (oracle.as_tokens(seen[f"{attn}.{part}_lif"][1]) for part in "qkv")
        assert profile[attn].acs == attention_counts(q, k, v, model.heads, "qk_v")["acs"]
    assert result.totals.spikes == sum(int(seen[name][1].sum()) for name in oracle.neurons_of(model))


def test_iand_makes_every_activation_binary(tmp_path: Path) -> None:
    for op in ("iand", "add"):
        model = oracle.make_dyadic(build({"residual_op": op}), seed=4)
        network = imported(model, tmp_path, bn_eps=0.0)
        joins = [name for name in network.layers if name.endswith(("_iand", "_add"))]
        assert len(joins) == 4 + 2 * 2
        result = Simulator(network, record=joins).run(oracle.frames_for(model))
        largest = max(result.recorded[name].max() for name in joins)
        graded = [layer.name for layer in result.profile if layer.counts.graded_macs]
        if op == "iand":
            assert largest == 1
            assert graded == ["stem.0.down"]  # event counts
            assert {network.types[name].kind for name in joins} == {"binary"}
        else:
            assert largest > 1
            assert len(graded) > 1


def test_images_are_shown_in_every_step(tmp_path: Path) -> None:
    model = oracle.make_dyadic(build(in_channels=3), seed=4)
    image = oracle.frames_for(model, steps=1)[0]
    logits, _ = oracle.run(model, np.stack([image] * T))
    assert_array_equal(model(torch.from_numpy(image)[None]).detach().numpy()[0], logits)
    network = imported(model, tmp_path, bn_eps=0.0)
    assert network.input.kind == "real"
    result = Simulator(network).run(image)
    assert_array_equal(result.logits, logits)
    (first,) = (layer for layer in result.profile if layer.name == "stem.0.down")
    assert first.counts.macs == 16 * 16 * 2 * 3 * 4  # computed once
    again = Simulator(network).run(image, time_steps=1)  # the same weights run at any T
    assert_array_equal(again.logits, oracle.run(model, image[None])[0])


@pytest.mark.parametrize("size", [34, (18, 47)])
def test_odd_rows_and_columns_are_cut_off(tmp_path: Path, size: Any) -> None:
    """A convolution 2 x 2 of stride 2 does not see the last row of an odd map: 34 -> 17 -> 8 -> 4 -> 2."""
    model = oracle.make_dyadic(build(size=size), seed=4)
    frames = oracle.frames_for(model)
    network = imported(model, tmp_path, bn_eps=0.0)
    assert network.types["stem.3.lif2_add"].grid == tuple(n // 16 for n in model.size)
    assert_array_equal(Simulator(network).run(frames).logits, oracle.run(model, frames)[0])


@pytest.mark.parametrize("op", ["add", "iand"])
def test_real_weights_differ_by_rounding_only(tmp_path: Path, op: str) -> None:
    model = oracle.make_lively(build({"residual_op": op}, width=64, heads=4), seed=1)
    frames = oracle.frames_for(model, seed=2)
    logits, seen = oracle.run(model, frames)
    network = imported(model, tmp_path)
    results = [Simulator(network, chunk=chunk, record=oracle.neurons_of(model)).run(frames) for chunk in (None, 1, 3)]
    if not oracle.check_close(results[0], seen, model):
        assert_allclose(results[0].logits, logits, atol=1e-4)
    for result in results[1:]:
        assert_array_equal(result.logits, results[0].logits)
        assert result.totals == results[0].totals


def test_attention_order_and_model_file_keep_the_result(tmp_path: Path) -> None:
    model = oracle.make_dyadic(build(), seed=4)
    frames = oracle.frames_for(model)
    logits, _ = oracle.run(model, frames)
    network = imported(model, tmp_path, bn_eps=0.0, attention_order="context_first")
    save(network, tmp_path / "model.h5")
    assert_array_equal(Simulator(load(tmp_path / "model.h5")).run(frames).logits, logits)


# --- recognition, renaming, bad input


def test_a_spikformer_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "v1.npz", **spikformer_state("dvs"))
    with pytest.raises(InputError, match=r"v1\.npz: tensors patch_embed\S+, .* found; expected stem.0.down.weight"):
        import_checkpoint(tmp_path / "v1.npz", "spikformer_v2")


def foreign(folder: Path) -> tuple[Path, str]:
    """A checkpoint with other names for the modules of the stem, and the option that tells them."""
    model = oracle.make_dyadic(build(), seed=4)
    path = export(model, folder)
    state = load_file(path)
    theirs = {"stem": "scs", "down": "conv0", "down_bn": "norm0", "conv1": "expand", "bn1": "norm1"}

    def rename(name: str) -> str:
        return ".".join(theirs.get(part, part) for part in name.split(".")) if name.startswith("stem.") else name

    save_file({rename(name): tensor for name, tensor in state.items()}, folder / "foreign.safetensors")
    pairs = ["scs:stem"]
    for i in range(4):
        parts = {"conv0": "down", "norm0": "down_bn", "expand": "conv1", "norm1": "bn1"}
        pairs += [f"scs.{i}.{a}:stem.{i}.{b}" for a, b in parts.items()]
    return folder / "foreign.safetensors", ",".join(pairs)


def test_other_names_are_recognised_by_shape_and_told_by_an_option(tmp_path: Path) -> None:
    path, pairs = foreign(tmp_path)
    with pytest.raises(
        InputError, match=r"foreign.safetensors: tensors .* found; expected stem.0.down.weight.* rename="
    ):
        import_checkpoint(path)
    network = import_checkpoint(path, rename=pairs, bn_eps=0.0, heads=2, time_steps=T, height=32, width=32)
    ours = import_checkpoint(tmp_path / "checkpoint.safetensors", bn_eps=0.0)
    frames = np.ones((T, 2, 32, 32), np.float32)
    assert_array_equal(Simulator(network).run(frames).logits, Simulator(ours).run(frames).logits)
    assert [each for each in network.settings if each.option == "rename"] == [Setting("rename", pairs, "option")]
    save_file(load_file(path), path, {**definition.metadata(build()), "rename": pairs})
    stored = import_checkpoint(path, "spikformer_v2", bn_eps=0.0)
    assert_array_equal(Simulator(stored).run(frames).logits, Simulator(ours).run(frames).logits)
    assert [each for each in stored.settings if each.option == "rename"] == [Setting("rename", pairs, "metadata")]


@pytest.mark.parametrize(("name", "value"), [("pools", "0011"), ("pool_order", "before_fire")])
def test_poolings_are_refused(tmp_path: Path, name: str, value: str) -> None:
    path = changed(tmp_path)
    with pytest.raises(InputError, match=rf"^option {name}={value} found; expected none, as the stem of"):
        import_checkpoint(path, **{name: value})
    path = changed(tmp_path, {name: value})
    with pytest.raises(InputError, match=rf"^{path}: metadata {name}={value} found; expected none, as the stem of"):
        import_checkpoint(path)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ("nothing:stem", "option rename=nothing:stem found; expected THEIRS:OURS with the name of a module of"),
        ("scs", "option rename=scs found; expected THEIRS:OURS"),
        ("scs:stem,block:stem,", "option rename= found; expected THEIRS:OURS"),
        ("scs.0:x,scs.1:x", "option rename=scs.0:x,scs.1:x found; expected names of their own, not x"),
    ],
)
def test_bad_renames_are_refused(tmp_path: Path, pairs: str, message: str) -> None:
    path, _ = foreign(tmp_path)
    with pytest.raises(InputError, match=f"^{message}"):
        import_checkpoint(path, rename=pairs)


def changed(folder: Path, metadata: dict[str, str] | None = None, **tensors: np.ndarray | None) -> Path:
    """The small model with tensors replaced, added or, where None, left out."""
    model = build()
    path = export(model, folder)
    state = load_file(path) | tensors
    kept = {name: tensor for name, tensor in state.items() if tensor is not None}
    save_file(kept, path, definition.metadata(model) | (metadata or {}))
    return path


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"block.0.norm1.weight": np.ones(16, np.float32)}, r"tensor block.0.norm1.weight \(16\) left over"),
        (
            {"stem.1.down.weight": np.ones((4, 2, 3, 3), np.float32)},
            r"tensor stem.1.down.weight \(4, 2, 3, 3\) found; expected \(any, any, 2, 2\)",
        ),
        (
            {"stem.1.down.bias": np.ones(4, np.float32)},
            r"tensor stem.0.down.bias missing; expected it with shape \(2\)",
        ),
        (
            {f"stem.{i}.conv2.bias": np.ones(1, np.float32) for i in range(4)},
            r"tensor stem.0.conv2.bias \(1\) found; expected \(2\)",
        ),
        ({"block.1.attn.scale": np.ones((), np.float32)}, "scale=0.125 with tensor block.1.attn.scale found"),
    ],
)
def test_bad_tensors_are_refused(tmp_path: Path, tensors: dict[str, Any], message: str) -> None:
    path = changed(tmp_path, **tensors)
    with pytest.raises(InputError, match=f"^{path}: {message}"):
        import_checkpoint(path)


def test_a_stage_of_wrong_width_is_refused(tmp_path: Path) -> None:
    path = changed(tmp_path, **{"stem.1.conv1.weight": np.ones((16, 5, 3, 3), np.float32)})
    with pytest.raises(InputError, match=r"^layer stem.1.conv1: weight of shape \(16, 5, 3, 3\) .* 4 input channels"):
        import_checkpoint(path)


def test_heads_that_do_not_divide_the_width_are_refused(tmp_path: Path) -> None:
    path = changed(tmp_path, {"heads": "3"})
    with pytest.raises(InputError, match=f"^{path}: heads=3 found; expected a divisor of width 16"):
        import_checkpoint(path)


def test_the_definition_refuses_other_operations() -> None:
    with pytest.raises(ValueError, match="residual_op 'and' found; expected 'add' or 'iand'"):
        replace(definition.Reading(), residual_op="and")
    with pytest.raises(ValueError, match="stem_bias 'conv1' found; expected 'none', 'down' or 'conv2'"):
        replace(definition.Reading(), stem_bias="conv1")


# --- the trained model


def test_trained_model_predicts_as_pytorch_does(shared: Path) -> None:
    path = oracle.EXAMPLES / "weights" / "nmnist_spikformer_v2.safetensors"
    network = import_checkpoint(path)
    assert network.assumptions == ()
    model = definition.nmnist_model().eval()
    model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in load_file(path).items()})
    samples = labelled_files(shared / "nmnist" / "Test")
    frames = oracle.recorded_frames(samples, network.time_steps)
    expected = oracle.predictions(model, frames)
    found = [result.prediction for result in Simulator(network).run_many(frames)]
    assert found == expected
    right = sum(prediction == sample.label for prediction, sample in zip(found, samples, strict=True))
    assert right / len(samples) >= 0.9
