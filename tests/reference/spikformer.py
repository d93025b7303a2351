"""Spikformer V1 over all time steps, dense, from its state dict; the variant with linear layers (CIFAR).

Neurons, residual connections and pooling in every reading that SpikingJelly, SEW-ResNet and CML give them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .attention import spiking_attention
from .pooling import maxpool2d
from .residual import residual
from .synapses import conv2d, linear

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Reading:
    """What the state dict does not tell."""

    heads: int
    scale: float = 0.125
    tau: float = 2.0
    decay_input: bool = True
    v_threshold: float = 1.0
    attn_threshold: float = 0.5
    reset: str = "zero"
    v_reset: float = 0.0
    strict: bool = False
    residual_op: str = "add"
    pools: str = "0011"
    pool_order: str = "after_fire"
    bn_eps: float = 1e-5


def lif(x: Float32, reading: Reading, threshold: float) -> Float32:
    """As SpikingJelly's LIFNode is written: the potential starts at v_reset, leaks to it and goes back to it."""
    spikes = np.zeros_like(x)
    rest = reading.v_reset if reading.reset == "zero" else 0.0
    v = np.full(x.shape[1:], rest, np.float64)
    for t, current in enumerate(x.astype(np.float64)):
        leak = -(v - rest) / reading.tau
        h = v + leak + (current / reading.tau if reading.decay_input else current)
        fired = h > threshold if reading.strict else h >= threshold
        v = np.where(fired, rest if reading.reset == "zero" else h - threshold, h)
        spikes[t] = fired
    return spikes


def run(state: Mapping[str, Float32], frames: Float32, reading: Reading) -> Float32:
    """Logits of frames (T, C, H, W)."""

    def norm(name: str, x: Float32, axis: int) -> Float32:
        shape = [1] * x.ndim
        shape[axis] = -1
        w, b, mean, var = (
            state[f"{name}.{part}"].astype(np.float64).reshape(shape)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return ((x - mean) / np.sqrt(var + reading.bn_eps) * w + b).astype(np.float32)

    def fire(x: Float32, threshold: float = reading.v_threshold) -> Float32:
        return lif(x, reading, threshold)

    def convolve(name: str, x: Float32) -> Float32:
        weight = state[f"patch_embed.{name}.weight"]
        return norm(f"patch_embed.{name.replace('conv', 'bn')}", conv2d(x, weight, None, (1, 1), (1, 1)), 1)

    def project(name: str, x: Float32) -> Float32:
        y = linear(x, state[f"{name}_linear.weight"], state[f"{name}_linear.bias"])
        return norm(f"{name}_bn", y, 2)

    x = frames
    for stage, pooled in zip(("proj_conv", "proj_conv1", "proj_conv2", "proj_conv3"), reading.pools, strict=True):
        x = convolve(stage, x)
        before = reading.pool_order == "before_fire"
        if pooled == "1" and before:
            x = maxpool2d(x, (3, 3), (2, 2), (1, 1))
        x = fire(x)
        if pooled == "1" and not before:
            x = maxpool2d(x, (3, 3), (2, 2), (1, 1))
    x = residual(x, fire(convolve("rpe_conv", x)), reading.residual_op)
    tokens = x.reshape(*x.shape[:2], -1).swapaxes(1, 2)
    block = 0
    while f"block.{block}.attn.q_linear.weight" in state:
        attn, mlp = f"block.{block}.attn", f"block.{block}.mlp"
        q, k, v = (fire(project(f"{attn}.{part}", tokens)) for part in "qkv")
        y = fire(spiking_attention(q, k, v, reading.heads, reading.scale), reading.attn_threshold)
        tokens = residual(tokens, fire(project(f"{attn}.proj", y)), reading.residual_op)
        y = fire(project(f"{mlp}.fc2", fire(project(f"{mlp}.fc1", tokens))))
        tokens = residual(tokens, y, reading.residual_op)
        block += 1
    return tokens.mean(axis=(0, 1)) @ state["head.weight"].T + state["head.bias"]
