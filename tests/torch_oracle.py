"""Models of the examples as oracles: weights for which sums are exact, runs with every spike recorded, comparisons."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from eventsim import Result, open_recording
from eventsim.datasets import Sample
from eventsim.dvs import frames_by_count

torch = pytest.importorskip("torch", reason="needs PyTorch")
save_file = pytest.importorskip("safetensors.torch").save_file
EXAMPLES = Path(__file__).parents[1] / "examples"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # SpikingJelly uses torch.jit
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron", reason="needs SpikingJelly")

torch.set_num_threads(1)  # on tensors this small, threads wait for each other

QKV = ("q_bn", "k_bn", "v_bn")  # these must fire more than others, or no attention passes its threshold
Seen = dict[str, tuple[np.ndarray, np.ndarray]]


def example(name: str) -> ModuleType:
    """Import a module of the examples."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.syspath_prepend(EXAMPLES)
        return importlib.import_module(name)


def make_dyadic(model: Any, seed: int) -> Any:
    """Give every weight few bits, and every normalisation a gain that is a power of two: currents become exact."""
    rng = np.random.default_rng(seed)

    def fill(tensor: Any, values: np.ndarray) -> None:
        tensor.data = torch.from_numpy(np.broadcast_to(values, tensor.shape).astype(np.float32).copy())

    for name, module in model.named_modules():
        if hasattr(module, "running_var"):
            module.eps = 0.0
            fill(module.weight, rng.choice([1, 2], module.weight.shape))
            least = 6 if name.endswith(QKV) else -2
            fill(module.bias, rng.integers(least, least + 9, module.bias.shape) / 8)
            fill(module.running_mean, rng.integers(-2, 3, module.bias.shape) / 8)
            fill(module.running_var, rng.choice([0.25, 1], module.bias.shape))
        elif hasattr(module, "weight"):
            fill(module.weight, rng.integers(-5, 6, module.weight.shape) / 16)
            if module.bias is not None:
                fill(module.bias, rng.integers(-4, 5, module.bias.shape) / 16)
    return model.eval()


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
    return model.eval()


def frames_for(model: Any, seed: int = 0, steps: int = 4) -> np.ndarray:
    """Event counts for two input channels, else pixels in sixteenths."""
    rng = np.random.default_rng(seed)
    shape = (steps, model.in_channels, *model.size)
    return (rng.poisson(0.7, shape) if model.in_channels == 2 else rng.integers(0, 16, shape) / 16).astype(np.float32)


def export(model: Any, folder: Path, metadata: dict[str, str]) -> Path:
    """Write the state dict as the examples do."""
    path = folder / "checkpoint.safetensors"
    save_file(model.state_dict(), path, metadata)
    return path


@torch.no_grad()
def run(model: Any, frames: np.ndarray) -> tuple[np.ndarray, Seen]:
    """Return the logits, and what goes into and comes out of every module that is used, by name, [T, 1, ...]."""
    seen: Seen = {}

    def record(name: str) -> Any:
        return lambda module, inputs, output: seen.__setitem__(name, (inputs[0].numpy(), output.numpy()))

    hooks = [module.register_forward_hook(record(name)) for name, module in model.named_modules() if name]
    logits = model(torch.from_numpy(frames)[:, None])[0].numpy()
    for hook in hooks:
        hook.remove()
    return logits, seen


def neurons_of(model: Any) -> list[str]:
    """Names of the neuron layers."""
    return [name for name, module in model.named_modules() if isinstance(module, neuron.BaseNode)]


def as_tokens(x: np.ndarray) -> np.ndarray:
    """[T, 1, C, N] as (T, N, C)."""
    return x[:, 0].swapaxes(1, 2)


def as_recorded(x: np.ndarray) -> np.ndarray:
    """[T, 1, C, H, W] as (T, C, H, W), and [T, 1, C, N] with tokens as the pixels of a square map."""
    if x.ndim == 5:
        return x[:, 0]
    side = round(x.shape[3] ** 0.5)
    return x[:, 0].reshape(*x[:, 0].shape[:2], side, side)


def check_equal(result: Result, seen: Seen, model: Any) -> None:
    """Compare every spike bit for bit; every layer of neurons must fire, and not always."""
    for name in neurons_of(model):
        spikes = as_recorded(seen[name][1])
        assert_array_equal(result.recorded[name], spikes, err_msg=name)
        assert 0 < spikes.mean() < 1, name


def check_close(result: Result, seen: Seen, model: Any) -> bool:
    """Check that the first spikes that differ, if any, were within 1e-4 of the threshold; return whether any did."""
    modules = dict(model.named_modules())
    for name in neurons_of(model):
        current, spikes = map(as_recorded, seen[name])
        assert spikes.any(), name
        differ = result.recorded[name] != spikes
        if differ.any():
            node = modules[name]
            decay = float(node.w.sigmoid()) if hasattr(node, "w") else 1 / node.tau
            v = np.zeros_like(current[0])
            for x, fired, wrong in zip(current, spikes, differ, strict=True):
                h = v + (x - v) * decay
                if wrong.any():
                    assert (np.abs(h[wrong] - node.v_threshold) < 1e-4).all(), name
                    return True
                v = h * (1 - fired)
    return False


def synapses_served(module: Any, x: np.ndarray) -> tuple[int, int]:
    """Return the pairs of non-zero input and synapse, and the sum of inputs over them, by weights that are all 1."""
    given = torch.from_numpy(np.abs(x)).double().flatten(0, 1)
    ones = torch.ones_like(module.weight).double()
    if ones.ndim == 2:
        return tuple(int(part.sum()) * len(ones) for part in ((given != 0).double(), given))
    if ones.ndim == 4 and given.ndim == 3:
        given = given.unsqueeze(-1)
    convolve = {3: torch.nn.functional.conv1d, 4: torch.nn.functional.conv2d}[ones.ndim]
    return tuple(
        int(convolve(part, ones, None, module.stride, module.padding).sum()) for part in ((given != 0).double(), given)
    )


def recorded_frames(samples: list[Sample], time_steps: int) -> list[np.ndarray]:
    """Cut recordings into frames as ``eventsim evaluate`` does."""
    return [frames_by_count(open_recording(sample.name), time_steps).astype(np.float32) for sample in samples]


@torch.no_grad()
def predictions(model: Any, frames: list[np.ndarray]) -> list[int]:
    """Return the predicted class of each sample."""
    return model(torch.from_numpy(np.stack(frames, axis=1))).argmax(1).tolist()
