"""Masked pre-training of Spikformer V2: sparse stem, loss, and what a pre-training checkpoint imports as."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_oracle as oracle
from assumptions import of_the_network
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file, save_file

from eventsim import InputError, Network, Simulator, import_checkpoint, load, save
from eventsim.cli import main
from eventsim.datasets import Sample, evaluate
from eventsim.preparation import Preparation
from eventsim.settings import Setting

torch = oracle.torch
definition = oracle.example("spikformer_v2")
pretraining = oracle.example("pretrain_spikformer_v2")

SIDE = 48
SIZE, T = 64, 4
"""Of what is imported: all that is averaged is a power of two."""
SEED = 6
READINGS: list[dict[str, Any]] = [
    {},
    {"residual_op": "iand"},
    {"scs_residual": False},
    {"stem_bias": "down"},
    {"stem_bias": "conv2"},
]


def build(reading: dict[str, Any] | None = None, size: Any = SIDE) -> Any:
    """A small encoder, 9 patches, and its decoder."""
    torch.manual_seed(0)
    encoder = definition.SpikformerV2(
        width=16,
        depth=1,
        heads=2,
        classes=5,
        in_channels=1,
        size=size,
        time_steps=1,
        reading=definition.Reading(**reading or {}),
    )
    oracle.make_lively(encoder, 3)
    for module in encoder.modules():
        if hasattr(module, "running_var"):
            module.bias.data += 1  # one time step takes twice the threshold
    return encoder, pretraining.MaskedAutoencoder(encoder, width=8, depth=1, heads=2).eval()


def images(count: int = 4, seed: int = 0) -> Any:
    return torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) * 4


# --- mask


@pytest.mark.parametrize(("grid", "ratio", "visible"), [((14, 14), 0.75, 49), ((3, 3), 0.75, 2), ((2, 1), 0.9, 1)])
def test_a_mask_leaves_equally_many_patches_of_each_sample(grid: tuple[int, int], ratio: float, visible: int) -> None:
    torch.manual_seed(1)
    mask = pretraining.random_mask(300, grid, ratio)
    assert mask.shape == (300, *grid)
    assert (mask.flatten(1).sum(1) == visible).all()
    assert_allclose(mask.float().mean(0), visible / np.prod(grid), atol=0.12)  # every patch as often


def test_an_enlarged_mask_repeats_every_patch() -> None:
    mask = pretraining.random_mask(2, (3, 2), 0.5)
    for factor in (1, 2, 4, 8):
        expected = [np.kron(each, np.ones((factor, factor), bool)) for each in mask.numpy()]
        assert_array_equal(pretraining.enlarged(mask, factor), expected)


# --- sparse normalisation and convolution


def test_sparse_statistics_are_those_of_the_visible_pixels() -> None:
    torch.manual_seed(2)
    norm = torch.nn.BatchNorm2d(3)
    torch.nn.init.uniform_(norm.weight)
    torch.nn.init.uniform_(norm.bias, 1, 2)
    x, mask = torch.randn(4, 3, 6, 6), pretraining.enlarged(pretraining.random_mask(4, (3, 3), 0.6), 2)
    out = pretraining.sparse_norm(norm, x, mask).detach().numpy()
    visible, at = x.numpy().astype(np.float64), mask.numpy()
    for channel in range(3):
        values = visible[:, channel][at]
        gain, offset = norm.weight[channel].item(), norm.bias[channel].item()
        expected = (values - values.mean()) / np.sqrt(values.var() + norm.eps) * gain + offset
        assert_allclose(out[:, channel][at], expected, atol=1e-5)
        assert_allclose(norm.running_mean[channel], 0.1 * values.mean(), atol=1e-6)
        assert_allclose(norm.running_var[channel], 0.9 + 0.1 * values.var(ddof=1), atol=1e-5)
        assert not out[:, channel][~at].any()


def test_a_sparse_layer_sees_no_pixel_that_is_masked() -> None:
    """Against a sum over the neighbours of each visible pixel that are visible themselves."""
    encoder, _ = build()
    stage, mask = encoder.stem[1].eval(), pretraining.enlarged(pretraining.random_mask(1, (3, 3), 0.5), 4)
    spikes = (torch.rand(1, 4, 12, 12) < 0.5).float() * mask[:, None]
    currents = []
    stage.lif1.register_forward_hook(lambda module, inputs, output: currents.append(inputs[0][0, 0].detach().numpy()))
    pretraining.sparse_layer(stage.conv1, stage.bn1, stage.lif1, spikes, mask)
    weight, x, at = stage.conv1.weight.detach().numpy(), spikes[0].numpy(), mask[0].numpy()
    with torch.no_grad():
        gain = stage.bn1.weight / (stage.bn1.running_var + stage.bn1.eps).sqrt()
        offset = (stage.bn1.bias - stage.bn1.running_mean * gain).numpy()
    assert 0 < at.mean() < 1
    for row, column in np.ndindex(12, 12):
        total = np.zeros(16)
        for dy, dx in np.ndindex(3, 3):
            y, z = row + dy - 1, column + dx - 1
            if 0 <= y < 12 and 0 <= z < 12 and at[y, z]:
                total += weight[:, :, dy, dx] @ x[:, y, z]
        expected = total * gain.numpy() + offset if at[row, column] else np.zeros(16)
        assert_allclose(currents[0][:, row, column], expected, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_what_is_under_the_mask_changes_nothing_visible(reading: dict[str, Any], training: bool) -> None:
    _, model = build(reading)
    model.train(training)
    mask = pretraining.random_mask(4, (3, 3), 0.5)
    shown, hidden = images(), pretraining.enlarged(~mask, pretraining.PATCH)[:, None]
    other = torch.where(hidden, images(seed=1), shown)
    assert (other != shown).any()
    again = copy.deepcopy(model)
    tokens = model.encode(shown, mask)
    assert tokens.shape == (4, int(mask[0].sum()), 16)
    assert tokens.std() > 0
    assert torch.equal(tokens, again.encode(other, mask))
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), again.buffers(), strict=True))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_without_a_mask_the_encoder_is_the_whole_one(reading: dict[str, Any], training: bool) -> None:
    encoder, model = build(reading)
    seen: list[Any] = []
    encoder.block.register_forward_hook(lambda module, inputs, output: seen.append(output[0].transpose(1, 2)))
    model.train(training)
    tokens = model.encode(images(), torch.ones(4, 3, 3, dtype=torch.bool))
    encoder.train(training)(images()[None])
    assert_allclose(tokens.detach(), seen[-1].detach(), atol=0 if not training else 1e-6)
    assert_array_equal(seen[0].detach(), tokens.detach())


def test_tokens_come_row_by_row() -> None:
    """One visible patch alone gives the same token wherever it is, at its place in the decoder."""
    _, model = build()
    patch, tokens = images(1)[:, :, :16, :16], []
    for row, column in np.ndindex(3, 3):
        image, mask = torch.zeros(1, 1, SIDE, SIDE), torch.zeros(1, 3, 3, dtype=torch.bool)
        image[:, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = patch
        mask[0, row, column] = True
        tokens.append(model.encode(image, mask))
        assert_array_equal(pretraining.patches_of(image)[0, 3 * row + column], patch.flatten())
    assert tokens[0].std() > 0
    assert all(torch.equal(tokens[0], each) for each in tokens)


# --- loss


def test_the_loss_is_that_of_the_masked_patches() -> None:
    _, model = build()
    shown, mask = images(), pretraining.random_mask(4, (3, 3), 0.5)
    found = model.reconstruct(model.encode(shown, mask), mask).detach().numpy()
    errors = []
    for sample, row, column in np.ndindex(4, 3, 3):
        image = shown[sample, 0].numpy().astype(np.float64)
        patch = image[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        target = (patch - image.mean()) / np.sqrt(image.var() + 1e-6)
        if not mask[sample, row, column]:
            errors.append(np.mean((found[sample, 3 * row + column] - target.ravel()) ** 2))
    assert_allclose(float(model(shown, mask).detach()), np.mean(errors), rtol=1e-5)


def test_a_masked_patch_is_a_shared_vector_and_a_position() -> None:
    _, model = build()
    mask = torch.zeros(1, 3, 3, dtype=torch.bool)
    mask[0, 1, 1] = True
    seen: list[Any] = []
    model.decoder_blocks.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0][0]))
    tokens = model.encode(images(1), mask)
    model.reconstruct(tokens, mask)
    expected = model.mask_token[0].repeat(9, 1)
    expected[4] = model.decoder_embed(tokens)[0, 0]
    assert torch.equal(seen[0], expected + model.decoder_pos_embed[0])


def test_the_published_decoder_has_3_41_million_parameters() -> None:
    """With its position embedding, without the layer from the encoder's width to its own."""
    with torch.device("meta"):
        model = pretraining.MaskedAutoencoder(definition.imagenet_model("12-512"))
    held = {name: parameter.numel() for name, parameter in model.named_parameters()}
    decoder = sum(n for name, n in held.items() if name.startswith(("decoder_", "mask_token")))
    assert decoder - held["decoder_embed.weight"] - held["decoder_embed.bias"] == 3_407_360
    assert decoder == 3_538_688
    assert sum(held.values()) - decoder == 64_177_128 - 513_000  # the encoder, without its head


def test_pre_training_reconstructs_better_and_reaches_the_encoder() -> None:
    torch.manual_seed(0)
    encoder, model = build()
    before = copy.deepcopy(encoder.state_dict())
    ramps = torch.linspace(0, 1, SIDE).outer(torch.linspace(0, 1, SIDE)).repeat(16, 1, 1, 1)
    ramps = torch.stack([ramp.rot90(turn % 4, (1, 2)) for turn, ramp in enumerate(ramps)])
    first = pretraining.pretrain(model, ramps, epochs=1, batch_size=8)
    last = pretraining.pretrain(model, ramps, epochs=12, batch_size=8)
    assert last < 0.8 * first
    changed = {name for name, tensor in encoder.state_dict().items() if not torch.equal(tensor, before[name])}
    assert set(before) - changed == {"head.weight", "head.bias"}


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"input of size \(34, 34\) found; expected multiples of 16"):
        build(size=34)


# --- import of a pre-training checkpoint


def exported(folder: Path, reading: dict[str, Any] | None = None, prefix: str = "") -> tuple[Path, Any]:
    """A pre-training checkpoint with sums that are exact, the encoder maybe behind a prefix."""
    encoder, model = build(reading, SIZE)
    oracle.make_dyadic(encoder, seed=SEED)
    path = folder / "pretrained.safetensors"
    pretraining.export_encoder(model, encoder, path, time_steps=T)
    if prefix:
        theirs = ("mask_token", "decoder_")
        state = {name if name.startswith(theirs) else prefix + name: each for name, each in load_file(path).items()}
        save_file(state, path, definition.metadata(encoder) | {"time_steps": str(T)})
    return path, encoder


def features(encoder: Any, frames: np.ndarray) -> Any:
    """What the head would get."""
    seen: list[Any] = []
    hook = encoder.head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0][0].detach().numpy()))
    encoder(torch.from_numpy(frames)[:, None])
    hook.remove()
    return seen[0]


@pytest.mark.parametrize(
    ("reading", "prefix"),
    [*((reading, "") for reading in READINGS), ({}, "encoder."), ({}, "module.encoder.")],
    ids=str,
)
def test_a_pre_training_checkpoint_is_read_as_its_encoder(tmp_path: Path, reading: dict[str, Any], prefix: str) -> None:
    path, encoder = exported(tmp_path, reading, prefix)
    network = import_checkpoint(path, bn_eps=0.0)
    assert of_the_network(network) == ()
    assert not network.classifies
    said = {setting.option: setting for setting in network.settings if setting.source == "inferred"}
    assert said["ignore"].value == "mask_token,decoder_*"
    assert said["ignore"].note.endswith(": mask token and decoder of a masked pre-training")
    assert said["head"] == Setting(
        "head",
        "none",
        "inferred",
        "no tensor head.weight; the outputs are means over tokens and time, no scores of classes",
    )
    frames = np.random.default_rng(0).integers(0, 16, (T, 1, SIZE, SIZE)).astype(np.float32) / 16
    oracle.run(encoder, frames)
    expected = features(encoder, frames)
    assert expected.std() > 0
    for chunk in range(1, T + 1):
        assert_array_equal(Simulator(network, chunk=chunk).run(frames).logits, expected)
    save(network, tmp_path / "model.h5")
    assert not load(tmp_path / "model.h5").classifies


def test_an_encoder_without_decoder_and_head_is_read_too(tmp_path: Path) -> None:
    path, encoder = exported(tmp_path)
    state = {name: each for name, each in load_file(path).items() if name.startswith(("stem.", "block."))}
    save_file(state, path, definition.metadata(encoder))
    network = import_checkpoint(path)
    assert not network.classifies
    assert "ignore" not in {setting.option for setting in network.settings}


def network_without_a_head(folder: Path) -> Network:
    network: Network = import_checkpoint(exported(folder)[0])
    return network


def test_features_are_not_called_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = network_without_a_head(tmp_path)
    with pytest.raises(InputError, match="16 outputs without a head found; expected scores of classes"):
        evaluate(Simulator(network), [Sample("a.npy", 1, "a.npy")], Preparation())
    save(network, tmp_path / "model.h5")
    np.save(tmp_path / "x.npy", np.zeros((1, SIZE, SIZE), np.float32))
    assert main(["run", str(tmp_path / "model.h5"), str(tmp_path / "x.npy")]) == 0
    printed = capsys.readouterr().out
    assert "16 features of a network without a head, no prediction" in printed.replace("\n", " ")
    assert main(["run", str(tmp_path / "model.h5"), str(tmp_path / "x.npy"), "--json"]) == 0
    assert '"prediction": null' in capsys.readouterr().out


def test_a_decoder_without_an_encoder_is_refused(tmp_path: Path) -> None:
    path, _ = exported(tmp_path)
    state = {name: each for name, each in load_file(path).items() if name.startswith(("mask_token", "decoder_"))}
    save_file(state, path)
    with pytest.raises(
        InputError,
        match=rf"^{path}: looks like .* a masked autoencoder whose encoder is of no known format \(tensor \S+",
    ):
        import_checkpoint(path)
    with pytest.raises(InputError, match=rf"^{path}: tensors \S+, .* found; expected stem.0.down.weight"):
        import_checkpoint(path, "spikformer_v2")


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("block.", "tensor block.0.attn.q_conv.weight missing; expected an encoder of stem and blocks"),
        ("stem.2.", "tensor stem.2.down.weight missing"),
        ("mask_token", r"tensor decoder_blocks.0.linear1.bias \(32\) and 18 more left over"),
    ],
)
def test_half_an_encoder_is_refused(tmp_path: Path, lost: str, message: str) -> None:
    path, encoder = exported(tmp_path)
    state = {name: each for name, each in load_file(path).items() if not name.startswith(lost)}
    save_file(state, path, definition.metadata(encoder))
    with pytest.raises(InputError, match=rf"^{path}: {message}"):
        import_checkpoint(path)


def test_half_a_head_is_refused(tmp_path: Path) -> None:
    path, encoder = exported(tmp_path)
    save_file(load_file(path) | {"head.bias": np.zeros(5, np.float32)}, path, definition.metadata(encoder))
    with pytest.raises(InputError, match=rf"^{path}: tensor head.weight missing"):
        import_checkpoint(path)


# --- the comparison


def test_the_comparison_runs_and_its_weights_predict_as_pytorch_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(48) % 10
    digits = (np.kron(np.eye(10)[labels].reshape(48, 2, 5), np.ones((14, 5))) * 255).astype(np.uint8)
    drawn = np.pad(digits, ((0, 0), (0, 0), (0, 3)))
    drawn[rng.random(drawn.shape) < 0.1] = 128
    np.savez(tmp_path / "mnist.npz", train_x=drawn, train_y=labels, test_x=drawn, test_y=labels)
    plan = pretraining.Plan(tmp_path / "mnist.npz", 32, 1, 20, 2, 16, tmp_path / "weights")
    outcome = pretraining.compare(0, plan)
    accuracies = (outcome.pretrained, outcome.scratch, outcome.longer)
    assert 0 <= min(accuracies) <= max(accuracies) <= 100
    assert len(outcome.seconds) == 4
    assert plan.longer == 2 + 1  # 32 images once, of one step, are about one epoch of 20 images of 2 steps
    tuned = tmp_path / "weights" / "mnist_spikformer_v2_fine_tuned.safetensors"
    model = pretraining.mnist_model().eval()
    model.load_state_dict({name: torch.from_numpy(each) for name, each in load_file(tuned).items()})
    frames = pretraining.pixels(drawn[:8])
    expected = model(frames).argmax(1).tolist()
    assert import_checkpoint(tuned).assumptions == ()
    simulator = Simulator(import_checkpoint(tuned))
    assert [simulator.run(image.numpy()).prediction for image in frames] == expected
    network = import_checkpoint(tmp_path / "weights" / "mnist_spikformer_v2_pretrained.safetensors")
    assert (network.time_steps, network.classifies) == (1, False)
