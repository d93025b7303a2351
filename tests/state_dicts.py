"""State dicts of Spikformer as NumPy arrays, shaped and named as the official code does."""

from __future__ import annotations

import numpy as np

STAGES = {
    "cifar": ("proj_conv", "proj_conv1", "proj_conv2", "proj_conv3"),
    "dvs": ("proj_conv", "proj_conv1", "proj_conv2", "proj_conv3"),
    "imagenet": ("proj_conv", "proj_conv1", "proj_conv2", "proj_conv3"),
    "first_release": ("block1_conv", "block2_conv", "block3_conv", "block4_conv"),
}


def spikformer_shapes(
    variant: str, *, dim: int = 32, depth: int = 2, channels: int = 2, classes: int = 10
) -> dict[str, tuple[int, ...]]:
    """Names and shapes, unused tensors included."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, size: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (size,)
        shapes[f"{name}.num_batches_tracked"] = ()

    def layer_norm(name: str) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (dim,)

    widths = (dim // 8, dim // 4, dim // 2, dim)
    for stage, before, after in zip(STAGES[variant], (channels, *widths), widths, strict=False):
        shapes[f"patch_embed.{stage}.weight"] = (after, before, 3, 3)
        norm(f"patch_embed.{stage.replace('_conv', '_bn')}", after)
    shapes["patch_embed.rpe_conv.weight"] = (dim, dim, 3, 3)
    norm("patch_embed.rpe_bn", dim)
    qkv = "linear" if variant == "cifar" else "conv"
    ones = {"cifar": (), "dvs": (1,), "imagenet": (1, 1), "first_release": (1, 1)}[variant]
    for i in range(depth):
        block = f"block.{i}"
        layer_norm(f"{block}.norm1")
        layer_norm(f"{block}.norm2")
        for name in ("q", "k", "v", "proj"):
            shapes[f"{block}.attn.{name}_{qkv}.weight"] = (dim, dim, *(() if variant == "cifar" else (1,)))
            if variant == "cifar" or name == "proj":
                shapes[f"{block}.attn.{name}_{qkv}.bias"] = (dim,)
            norm(f"{block}.attn.{name}_bn", dim)
        for name, before, after in (("fc1", dim, 4 * dim), ("fc2", 4 * dim, dim)):
            shapes[f"{block}.mlp.{name}_{qkv}.weight"] = (after, before, *ones)
            shapes[f"{block}.mlp.{name}_{qkv}.bias"] = (after,)
            norm(f"{block}.mlp.{name}_bn", after)
    if variant == "dvs":
        shapes["pos_embed"] = (1, 64, dim)
        layer_norm("norm")
    shapes["head.weight"] = (classes, dim)
    shapes["head.bias"] = (classes,)
    return shapes


def spikformer_state(
    variant: str, *, dim: int = 32, depth: int = 2, channels: int = 2, classes: int = 10, seed: int = 0
) -> dict[str, np.ndarray]:
    """Random weights; normalisations that make neurons fire now and then."""
    rng = np.random.default_rng(seed)
    shapes = spikformer_shapes(variant, dim=dim, depth=depth, channels=channels, classes=classes)

    def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
        module, _, part = name.rpartition(".")
        if part == "num_batches_tracked":
            return np.asarray(7)
        if module.rpartition(".")[2] in ("norm", "norm1", "norm2"):
            return np.full(shape, part == "weight", np.float32)
        if f"{module}.running_mean" not in shapes:
            return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float32)
        if part == "running_mean":
            return rng.normal(0, 0.1, shape).astype(np.float32)
        low, high = {"weight": (0.5, 1.5), "bias": (-0.5, 1.0), "running_var": (0.1, 0.5)}[part]
        return rng.uniform(low, high, shape).astype(np.float32)

    return {name: values(name, shape) for name, shape in shapes.items()}
