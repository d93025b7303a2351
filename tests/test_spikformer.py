"""Spikformer V1 against the PyTorch definition, bit for bit: learned attention scales; the defaults of its variants.

Real weights are compared in test_examples_spikformer.py, options of neurons, poolings and residual connections in
test_neuron_readings.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_oracle as oracle
from assumptions import of_the_network
from numpy.testing import assert_array_equal
from safetensors.numpy import load_file, save_file
from state_dicts import spikformer_state

from eventsim import InputError, Simulator, import_checkpoint, load, save
from eventsim.settings import Setting

torch = oracle.torch
definition = oracle.example("spikformer")

F = np.float32
T = 4
SCALES = (0.5, 0.1875)
"""Of two blocks; neither is a default."""
CHOICES = [
    ("cifar", False, 0, False, "scores_first"),
    ("cifar", True, 1, True, "context_first"),
    ("dvs", False, 1, False, "context_first"),
    ("dvs", True, 0, True, "scores_first"),
    ("imagenet", False, 0, True, "context_first"),
    ("imagenet", True, 1, False, "scores_first"),
]
"""Variant, learned scale, axes that it is stored with, folding, order of the products: every pair of values."""


def build(variant: str = "dvs", *, learned_scale: bool = True, **sizes: Any) -> Any:
    """A small model: 16 channels, 2 blocks; everything that is averaged is a power of two."""
    settings = {"width": 16, "depth": 2, "heads": 2, "classes": 5, "in_channels": 2, "time_steps": T}
    settings["size"] = 16 if variant == "cifar" else 64
    torch.manual_seed(0)
    kind = replace(definition.VARIANTS[variant], learned_scale=learned_scale)
    model = definition.Spikformer(kind, **settings | sizes)
    oracle.make_dyadic(model, seed=7)
    if learned_scale:
        for block, scale in zip(model.block, SCALES, strict=False):
            block.attn.scale.data.fill_(scale)
    return model


def export(model: Any, folder: Path, axes: int = 0, **tensors: np.ndarray | None) -> Path:
    """The state dict, the scales with this many axes, tensors replaced or, where None, left out."""
    path = oracle.export(model, folder, definition.metadata(model))
    state = load_file(path)
    state |= {name: tensor.reshape((1,) * axes) for name, tensor in state.items() if name.endswith("attn.scale")}
    kept = {name: tensor for name, tensor in (state | tensors).items() if tensor is not None}
    save_file(kept, path, definition.metadata(model))
    return path


# --- learned scales


@pytest.mark.parametrize(("variant", "learned", "axes", "fold_bn", "order"), CHOICES)
def test_every_pair_of_choices_equals_pytorch_bit_for_bit(
    tmp_path: Path, variant: str, learned: bool, axes: int, fold_bn: bool, order: str
) -> None:
    model = build(variant, learned_scale=learned)
    frames = oracle.frames_for(model)
    logits, seen = oracle.run(model, frames)
    path = export(model, tmp_path, axes)
    network = import_checkpoint(path, bn_eps=0.0, fold_bn=fold_bn, attention_order=order)
    assert of_the_network(network) == ()
    for chunk in range(1, T + 1):
        result = Simulator(network, chunk=chunk, record=oracle.neurons_of(model)).run(frames)
        oracle.check_equal(result, seen, model)
        assert_array_equal(result.logits, logits)


def test_every_block_has_its_own_scale_and_says_so(tmp_path: Path) -> None:
    network = import_checkpoint(export(build(), tmp_path))
    assert [network.layers[f"block.{i}.attn"].scale for i in range(2)] == list(SCALES)
    said = [each for each in network.settings if each.option == "scale"]
    assert said == [Setting("scale", "learned", "inferred", "block.0.attn.scale and 1 more")]
    save(network, tmp_path / "model.h5")
    assert load(tmp_path / "model.h5").settings == network.settings
    assert "scale" not in definition.metadata(build())


def test_a_scale_that_is_learned_counts_as_a_parameter(tmp_path: Path) -> None:
    model = build()
    network = import_checkpoint(export(model, tmp_path))
    counted = {setting.option: setting.value for setting in network.settings}["checkpoint_parameters"]
    assert counted == sum(parameter.numel() for parameter in model.parameters())


def test_a_learned_scale_learns() -> None:
    """The surrogate passes a gradient through the neurons behind the attention."""
    kind = replace(definition.VARIANTS["dvs"], learned_scale=True)
    model = definition.Spikformer(kind, width=16, depth=1, heads=2, classes=5, in_channels=2, size=32, time_steps=T)
    assert float(model.block[0].attn.scale.detach()) == 0.25
    oracle.make_lively(model, 0).train()
    model(torch.from_numpy(oracle.frames_for(model))[:, None].repeat(1, 2, 1, 1, 1)).square().sum().backward()
    assert model.block[0].attn.scale.grad.abs() > 0


def test_a_stated_scale_beside_learned_ones_is_refused(tmp_path: Path) -> None:
    path = export(build(), tmp_path)
    message = rf"^{path}: scale=0.5 with tensor block.0.attn.scale found; expected scale left out"
    with pytest.raises(InputError, match=message):
        import_checkpoint(path, scale=0.5)
    save_file(load_file(path), path, definition.metadata(build()) | {"scale": "0.5"})
    with pytest.raises(InputError, match=message):
        import_checkpoint(path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"block.1.attn.scale": None}, r"tensor block.1.attn.scale missing; expected it with shape \(\)"),
        ({"block.0.attn.scale": None}, r"tensor block.0.attn.scale missing; expected it with shape \(\)"),
        ({"block.0.attn.scale": np.ones(2, F)}, r"tensor block.0.attn.scale \(2\) found; expected \(1\)"),
        ({"block.0.attn.scale": np.ones((1, 1), F)}, r"tensor block.0.attn.scale \(1, 1\) found; expected \(1\)"),
        ({"block.0.attn.scale": np.full((), np.nan, F)}, "tensor block.0.attn.scale holds NaN"),
        ({"block.2.attn.scale": np.ones((), F)}, "tensor block.2.attn.q_conv.weight missing"),
    ],
)
def test_bad_scales_are_refused(tmp_path: Path, tensors: dict[str, Any], message: str) -> None:
    path = export(build(), tmp_path, **tensors)
    with pytest.raises(InputError, match=f"^{path}: {message}"):
        import_checkpoint(path)


@pytest.mark.parametrize("scale", [0.0, -0.25])
def test_scales_that_are_not_positive_are_refused(tmp_path: Path, scale: float) -> None:
    path = export(build(), tmp_path, **{"block.1.attn.scale": np.array(scale, F)})
    with pytest.raises(InputError, match=rf"^layer block.1.attn: scale {scale} found; expected a positive float32"):
        import_checkpoint(path)


# --- heads


@pytest.mark.parametrize(
    ("variant", "dim", "channels", "classes", "heads"),
    [
        ("dvs", 256, 2, 10, 16),  # CIFAR10-DVS
        ("dvs", 256, 2, 11, 8),  # DVS128 Gesture
        ("cifar", 384, 3, 11, 12),
    ],
)
def test_default_heads(tmp_path: Path, variant: str, dim: int, channels: int, classes: int, heads: int) -> None:
    np.savez(tmp_path / "c.npz", **spikformer_state(variant, dim=dim, depth=1, channels=channels, classes=classes))
    network = import_checkpoint(tmp_path / "c.npz")
    assert network.layers["block.0.attn"].heads == heads
    assert any(each.startswith(f"heads = {heads}: not found in the checkpoint") for each in network.assumptions)
    assert import_checkpoint(tmp_path / "c.npz", heads=4).layers["block.0.attn"].heads == 4
