"""STAA-SNN in PyTorch as an oracle: small models in every reading of the paper, with weights that make sums exact."""

from __future__ import annotations

import importlib
import warnings
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eventsim import Network, import_checkpoint

torch = pytest.importorskip("torch", reason="needs PyTorch")
save_file = pytest.importorskip("safetensors.torch").save_file
EXAMPLES = Path(__file__).parents[1] / "examples"
with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
    warnings.simplefilter("ignore")  # SpikingJelly uses torch.jit
    pytest.importorskip("spikingjelly.activation_based.neuron", reason="needs SpikingJelly")
    patch.syspath_prepend(EXAMPLES)
    definition = importlib.import_module("staa_snn")

T = 4
BACKBONES: dict[str, dict[str, Any]] = {
    "three": {"widths": (4, 8), "blocks": (1, 2), "size": 16},
    "one": {"widths": (4, 8, 12), "blocks": (2, 1, 1), "size": 8},
    "imagenet": {"widths": (4, 8), "blocks": (1, 1), "size": 32},
    "vgg": {"widths": ((4, 6), (8,), (8,)), "size": 16},
}
TOLD = ("neurons", "modules")
"""Fields of a reading that are no options of the importer: tensors tell them."""
READINGS: dict[str, dict[str, Any]] = {
    "proposed": {},
    "sigmoid": {"gc_norm": "sigmoid"},
    "gated": {"gc_combine": "gated"},
    "sigmoid, gated": {"gc_norm": "sigmoid", "gc_combine": "gated"},
    "bottleneck of 2": {"gc_ratio": 2},
    "gates for the sum": {"sa_mode": "sum"},
    "gates from features": {"sa_inputs": "features"},
    "gates of each step": {"sa_per_step": True},
    "gates of each step, for the sum, from features": {"sa_per_step": True, "sa_mode": "sum", "sa_inputs": "features"},
    "gates up to 1": {"sa_scale": 1.0},
    "P for all": {"pe_axes": ("time", "channel", "height", "width")},
    "P for channels of steps": {"pe_axes": ("time", "channel")},
    "P for pixels": {"pe_axes": ("channel", "height", "width")},
    "P for rows": {"pe_axes": ("height",)},
    "M, N one number": {"mn_axes": ()},
    "M, N for all": {"mn_axes": ("time", "channel", "height", "width")},
    "M, N for columns": {"mn_axes": ("width",)},
    "adaptive neurons": {"modules": ()},
    "GC": {"modules": ("gc",)},
    "GC and PE": {"modules": ("gc", "pe")},
    "SA": {"modules": ("sa",)},
    "plain neurons": {"neurons": "plain", "modules": (), "tau": 4.0},
    "plain neurons, decayed input": {"neurons": "plain", "modules": (), "decay_input": True},
    "scalar gates": {"sa_gates": "scalar"},
    "scalar gates of each step, for the sum": {"sa_gates": "scalar", "sa_mode": "sum", "sa_per_step": True},
    "context on the input": {"gc_at": "input"},
    "context on the input, gated, encoding on the current": {
        "gc_at": "input",
        "gc_combine": "gated",
        "pe_at": "current",
    },
    "P on the input": {"pe_at": "input", "pe_axes": ("time", "channel", "height", "width")},
    "P on what is left": {"pe_at": "past", "pe_axes": ("time", "channel", "height", "width")},
    "P at both ports": {"pe_at": "both"},
    "P on the potential": {"pe_at": "potential"},
}
FIXED = {f"fixed encoding of {counted}": {"pe_fixed": counted} for counted in ("time", "space", "both")}
SPIKING = (definition.STAALIF, definition.PlainLIF)


def build(backbone: str, reading: dict[str, Any] | None = None, *, seed: int = 0, **changes: Any) -> Any:
    """A small model; everything that is averaged is a power of two, but for the stem of ImageNet."""
    torch.manual_seed(seed)
    options = {"classes": 5, "in_channels": 2, "time_steps": T, **BACKBONES[backbone]}
    options |= {"reading": definition.Reading(**{"sa_ratio": 2, **(reading or {})}), **changes}
    model = definition.VGG(**options) if backbone == "vgg" else definition.ResNet(backbone, **options)
    return model.eval()


def fill(tensor: Any, values: Any) -> None:
    tensor.data = torch.from_numpy(np.broadcast_to(values, tensor.shape).astype(np.float32).copy())


def learned(neuron: Any) -> list[Any]:
    return [encoding for name in ("P", "P_H") if (encoding := neuron._parameters.get(name)) is not None]


def make_dyadic(model: Any, seed: int) -> Any:
    """Give every weight few bits, and saturate what is not dyadic, so that all sums become exact.

    Positions weigh the same; gates are 0, a half or the whole of their scale, and depend on what they pool.
    """
    rng = np.random.default_rng(seed)
    for name, module in model.named_modules():
        if hasattr(module, "running_var"):
            module.eps = 0.0
            fill(module.weight, rng.choice([1, 2], module.weight.shape))
            fill(module.bias, rng.integers(-2, 7, module.bias.shape) / 8)
            fill(module.running_mean, rng.integers(-2, 3, module.bias.shape) / 8)
            fill(module.running_var, rng.choice([0.25, 1], module.bias.shape))
        elif isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            fewer, most = (4, 2) if ".gc." in name else (8, 5)
            fill(module.weight, rng.integers(-most + 1, most + 1, module.weight.shape) / fewer)
            if module.bias is not None:
                fill(module.bias, rng.integers(-1, 2, module.bias.shape) / fewer)
            if name.endswith(".gc.key"):
                fill(module.weight, 0)
                fill(module.bias, 0)
            elif name.endswith(".expand") or (model.reading.gc_combine == "gated" and name.endswith(".gc.query")):
                fill(module.weight, rng.choice([0, 0, 0, 1], module.weight.shape) * 2.0**26)
                fill(module.bias, rng.choice([-1, 0, 1, 1], module.bias.shape) * 2.0**12)
        elif isinstance(module, definition.STAALIF):
            fill(module.M, rng.choice([0.5, 1], module.M.shape))
            fill(module.N, rng.choice([0.5, 1, 2], module.N.shape))
            for encoding in learned(module):
                fill(encoding, rng.integers(-4, 5, encoding.shape) / 8)
    return model


def make_lively(model: Any, seed: int) -> Any:
    """Give normalisations real statistics, and what training begins with at 0 a value."""
    rng = np.random.default_rng(seed)
    for name, module in model.named_modules():
        if hasattr(module, "running_var"):
            fill(module.weight, rng.uniform(0.5, 1.5, module.weight.shape))
            fill(module.bias, rng.uniform(-0.2, 1.3, module.weight.shape))
            fill(module.running_mean, rng.uniform(-0.1, 0.1, module.weight.shape))
            fill(module.running_var, rng.uniform(0.05, 0.3, module.weight.shape))
        elif isinstance(module, definition.STAALIF):
            fill(module.M, rng.uniform(0.1, 0.9, module.M.shape))
            fill(module.N, rng.uniform(0.5, 1.5, module.N.shape))
            for encoding in learned(module):
                fill(encoding, rng.normal(0, 0.3, encoding.shape))
        elif isinstance(module, torch.nn.LayerNorm):
            fill(module.weight, rng.uniform(0.5, 1.5, module.weight.shape))
            fill(module.bias, rng.normal(0, 0.5, module.weight.shape))
        elif ".gc." in name or ".sa." in name:
            for parameter in module.parameters(recurse=False):
                fill(parameter, rng.normal(0, 0.7, parameter.shape))
    return model


def frames_for(model: Any, seed: int = 0, steps: int = T) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (steps, model.in_channels, *model.size)
    return (rng.poisson(0.7, shape) if model.in_channels == 2 else rng.integers(0, 16, shape) / 16).astype(np.float32)


def export(model: Any, folder: Path, name: str = "c.safetensors") -> Path:
    save_file(model.state_dict(), folder / name, definition.metadata(model))
    return folder / name


def imported(model: Any, folder: Path, **options: Any) -> Network:
    return import_checkpoint(export(model, folder), **options)


class Seen:
    """Logits of a model, what goes into its convolutions, and potentials V and spikes of its neurons."""

    def __init__(self, model: Any, frames: np.ndarray) -> None:
        self.inputs: dict[str, np.ndarray] = {}
        self.spikes: dict[str, np.ndarray] = {}
        self.potentials: dict[str, list[np.ndarray]] = {}
        hooks = []
        for name, module in model.named_modules():
            if isinstance(module, definition.Each):
                hooks.append(module.register_forward_hook(self._see(self.inputs, name, 0)))
            elif isinstance(module, SPIKING):
                hooks.append(module.register_forward_hook(self._see(self.spikes, name, 1)))
                self.potentials[name] = []
                hooks.append(module.spike.register_forward_hook(self._potential(name)))
        with torch.no_grad():
            self.logits = model(torch.from_numpy(frames)[:, None])[0].numpy()
        for hook in hooks:
            hook.remove()

    @staticmethod
    def _see(where: dict[str, np.ndarray], name: str, which: int) -> Any:
        return lambda module, inputs, output: where.__setitem__(name, (inputs[0], output)[which].numpy()[:, 0])

    def _potential(self, name: str) -> Any:
        return lambda module, inputs, output: self.potentials[name].append(inputs[0].numpy()[0] + np.float32(1))


def awake(make: Any, model: Any, frames: np.ndarray, seed: int) -> Seen:
    """Fill a model with the first weights with which every neuron layer fires, and not always."""
    for each in range(seed, seed + 20):
        seen = Seen(make(model, each), frames)
        if all(0 < spikes.mean() < 1 for spikes in seen.spikes.values()):
            return seen
    raise AssertionError("a layer without spikes, or with nothing else, found with 20 seeds")


EXACT = [("three", name) for name in READINGS] + [("one", "proposed"), ("one", "P for all"), ("vgg", "proposed")]
EXACT += [(backbone, name) for backbone in ("one", "vgg") for name in ("plain neurons", "context on the input")]
REAL = [(backbone, "proposed") for backbone in BACKBONES] + [("three", name) for name in (*READINGS, *FIXED)]
REAL += [("imagenet", "context on the input"), ("vgg", "fixed encoding of both")]
CHANGES: dict[str, dict[str, Any]] = {
    "no PE": {"without": "pe"},
    "no GC": {"without": "gc"},
    "no SA": {"without": "sa"},
    "plain": {"neurons": "plain", "without": "pe gc sa"},
    "gc_at=input": {"gc_at": "input"},
    "gc_norm=sigmoid": {"gc_norm": "sigmoid"},
    "gc_combine=gated": {"gc_combine": "gated"},
    **{f"pe_at={place}": {"pe_at": place} for place in ("current", "input", "past", "both", "potential")},
    **{f"pe_fixed={counted}": {"pe_fixed": counted} for counted in ("time", "space", "both")},
    "sa_gates=scalar": {"sa_gates": "scalar"},
    "sa_mode=sum": {"sa_mode": "sum"},
    "sa_inputs=features": {"sa_inputs": "features"},
    "sa_per_step": {"sa_per_step": True},
}


def reading_of(*names: str) -> dict[str, Any]:
    """Fields of a reading with changes."""
    changes = [CHANGES[name] for name in names]
    without = " ".join(change.get("without", "") for change in changes).split()
    merged = {key: value for change in changes for key, value in change.items() if key != "without"}
    return merged | {"modules": tuple(module for module in ("pe", "gc", "sa") if module not in without)}


def differ_in_one_field(first: str, second: str) -> bool:
    """Two values of one option do not go together."""
    return bool(CHANGES[first].keys() & CHANGES[second].keys() - {"without"})


PAIRS = [pair for pair in combinations(CHANGES, 2) if not differ_in_one_field(*pair)]
