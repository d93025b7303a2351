"""State dicts of Spikformer as NumPy arrays, shaped and named as the official code does."""

from __future__ import annotations

import numpy as np

STAGES = {
    "cifar": ("proj_conv", "proj_conv1", "proj_conv2", "proj_conv3"),
    "dvs": ("proj_conv", "proj_conv1", "proj_conv2", "proj_conv3"),
    "imagenet": ("proj_conv", "proj_conv1", "proj_conv2", "proj_conv3"),
    "first_release": ("block1_conv", "block2_conv", "block3_conv", "block4_conv"),
}


def spikformer_state(
    variant: str, *, dim: int = 32, depth: int = 2, channels: int = 2, classes: int = 10, seed: int = 0
) -> dict[str, np.ndarray]:
    """Random weights; normalisations that make neurons fire now and then."""
    rng = np.random.default_rng(seed)
    state: dict[str, np.ndarray] = {}

    def tensor(name: str, *shape: int) -> None:
        state[name] = (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float32)

    def norm(name: str, size: int) -> None:
        state[f"{name}.weight"] = rng.uniform(0.5, 1.5, size).astype(np.float32)
        state[f"{name}.bias"] = rng.uniform(-0.5, 1.0, size).astype(np.float32)
        state[f"{name}.running_mean"] = rng.normal(0, 0.1, size).astype(np.float32)
        state[f"{name}.running_var"] = rng.uniform(0.1, 0.5, size).astype(np.float32)
        state[f"{name}.num_batches_tracked"] = np.asarray(7)

    widths = (dim // 8, dim // 4, dim // 2, dim)
    for stage, before, after in zip(STAGES[variant], (channels, *widths), widths, strict=False):
        tensor(f"patch_embed.{stage}.weight", after, before, 3, 3)
        norm(f"patch_embed.{stage.replace('_conv', '_bn')}", after)
    tensor("patch_embed.rpe_conv.weight", dim, dim, 3, 3)
    norm("patch_embed.rpe_bn", dim)
    qkv = "linear" if variant == "cifar" else "conv"
    ones = {"cifar": (), "dvs": (1,), "imagenet": (1, 1), "first_release": (1, 1)}[variant]
    for i in range(depth):
        block = f"block.{i}"
        for unused in ("norm1", "norm2"):
            state[f"{block}.{unused}.weight"] = np.ones(dim, np.float32)
            state[f"{block}.{unused}.bias"] = np.zeros(dim, np.float32)
        for name in ("q", "k", "v", "proj"):
            tensor(f"{block}.attn.{name}_{qkv}.weight", dim, dim, *(() if variant == "cifar" else (1,)))
            if variant == "cifar" or name == "proj":
                tensor(f"{block}.attn.{name}_{qkv}.bias", dim)
            norm(f"{block}.attn.{name}_bn", dim)
        for name, before, after in (("fc1", dim, 4 * dim), ("fc2", 4 * dim, dim)):
            tensor(f"{block}.mlp.{name}_{qkv}.weight", after, before, *ones)
            tensor(f"{block}.mlp.{name}_{qkv}.bias", after)
            norm(f"{block}.mlp.{name}_bn", after)
    if variant == "dvs":
        tensor("pos_embed", 1, 64, dim)
        state["norm.weight"], state["norm.bias"] = np.ones(dim, np.float32), np.zeros(dim, np.float32)
    tensor("head.weight", classes, dim)
    tensor("head.bias", classes)
    return state
