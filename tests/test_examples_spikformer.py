"""Spikformer in PyTorch against the imported network: every spike of every neuron, and the logits.

Where the order of float32 additions differs, a neuron whose membrane potential lies on its threshold may decide
differently, and then everything behind it does. So PyTorch is run on the simulation's spikes: each layer of neurons
gets its input from the spikes that the simulation's layers before it have sent, and resets where the simulation's
neuron has fired. Then every neuron can be held to this rule on its own: its spike differs only if its potential
before the reset lies within MARGIN of its threshold. Where no spike differs, this run is PyTorch's own.
"""

from __future__ import annotations

import importlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from assumptions import of_the_network
from numpy.testing import assert_allclose, assert_array_equal
from state_dicts import spikformer_state

from eventsim import Network, Simulator, import_checkpoint, open_recording
from eventsim.cli import main
from eventsim.dvs import frames_by_count
from eventsim.layers import LIF

torch = pytest.importorskip("torch", reason="needs PyTorch")
ROOT = Path(__file__).parents[1]
with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)  # SpikingJelly uses it
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron", reason="needs SpikingJelly")
    patch.syspath_prepend(ROOT / "examples")
    spikformer = importlib.import_module("spikformer")
    training = importlib.import_module("training")

MARGIN = 1e-4
DIGITS = ROOT / "eventsim" / "demo" / "digits.safetensors"
NMNIST = ROOT / "examples" / "weights" / "nmnist_spikformer.safetensors"
SIZES: dict[str, dict[str, Any]] = {
    "cifar": {"width": 32, "depth": 2, "heads": 2, "in_channels": 3, "size": (12, 16), "time_steps": 4},
    "dvs": {"width": 64, "depth": 2, "heads": 4, "in_channels": 2, "size": 34, "time_steps": 6},
    "imagenet": {"width": 64, "depth": 2, "heads": 4, "in_channels": 3, "size": (48, 64), "time_steps": 4},
}


def random_model(variant: str, frames: Any) -> Any:
    """A model whose normalisations have the statistics of its currents, and random gains and offsets."""
    torch.manual_seed(1)
    model = spikformer.Spikformer(variant, classes=7, **SIZES[variant])
    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            # few tokens have few spikes of q, k and v that meet, so these must fire more
            lowest = 0.5 if name.endswith(("q_bn", "k_bn", "v_bn")) else 0.0
            torch.nn.init.uniform_(module.bias, lowest, lowest + 1.0)
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(frames)
    return model.eval()


def random_input(variant: str) -> np.ndarray:
    """Event counts (T, 2, H, W), or an image (3, H, W)."""
    rng = np.random.default_rng(2)
    sizes = SIZES[variant]
    height, width = np.broadcast_to(sizes["size"], 2)
    if variant == "dvs":
        return rng.poisson(0.4, (sizes["time_steps"], 2, height, width)).astype(np.float32)
    return rng.random((3, height, width), np.float32)


def trained_model(path: Path) -> Any:
    """A shipped checkpoint in PyTorch; its sizes are told by its tensors and its metadata."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    state = load_file(path)
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    model = spikformer.Spikformer(
        "dvs",
        width=state["head.weight"].shape[1],
        depth=1 + max(int(name.split(".")[1]) for name in state if name.startswith("block.")),
        heads=int(metadata["heads"]),
        classes=state["head.weight"].shape[0],
        in_channels=2,
        size=(int(metadata["height"]), int(metadata["width"])),
        time_steps=int(metadata["time_steps"]),
    )
    model.load_state_dict(state)
    assert spikformer.metadata(model) | training.PREPARATION == metadata
    return model.eval()


@dataclass
class Comparison:
    """One sample in both worlds.

    Attributes
    ----------
    simulated, expected : logits of eventsim, and of PyTorch on eventsim's spikes
    distances : distance to the threshold of the potential behind each spike that differs
    rates : firing rate of each layer of neurons
    """

    simulated: np.ndarray
    expected: np.ndarray
    distances: np.ndarray
    rates: dict[str, float]

    def check(self) -> None:
        assert_allclose(self.simulated, self.expected, rtol=0, atol=1e-4)
        assert (self.distances <= MARGIN).all(), f"{self.distances.max()} from the threshold"


@torch.no_grad()
def compare(model: Any, network: Network, sample: np.ndarray) -> Comparison:
    """Simulate a sample, and run PyTorch on the spikes of the simulation."""
    nodes = {name: module for name, module in model.named_modules() if isinstance(module, neuron.LIFNode)}
    assert set(nodes) == {name for name, layer in network.layers.items() if isinstance(layer, LIF)}
    result = Simulator(network, record=nodes).run(sample)
    spikes: dict[str, Any] = {}
    currents: dict[str, Any] = {}

    def hook(name: str) -> Any:
        def replace(module: Any, inputs: tuple[Any, ...], output: Any) -> Any:
            currents[name] = inputs[0]
            # (T, C, H, W) is [T, 1, C, H, W], and [T, 1, C, N] for tokens, which go row by row
            spikes[name] = torch.from_numpy(result.recorded[name]).reshape(output.shape)
            return spikes[name]

        return replace

    hooks = [node.register_forward_hook(hook(name)) for name, node in nodes.items()]
    batch = torch.from_numpy(sample).float().unsqueeze(0 if sample.ndim == 3 else 1)
    logits = model(batch)[0].numpy()
    for handle in hooks:
        handle.remove()
    distances = [threshold_distances(node, currents[name], spikes[name]) for name, node in nodes.items()]
    rates = {name: float(spikes[name].mean()) for name in nodes}
    return Comparison(result.logits, logits, np.concatenate(distances), rates)


def threshold_distances(node: Any, current: Any, spikes: Any) -> np.ndarray:
    """Distances to the threshold where SpikingJelly's neuron, reset as the given spikes say, decides differently."""
    node.reset()
    node.v_float_to_tensor(current[0])
    distances = []
    for x, spike in zip(current, spikes, strict=True):
        node.neuronal_charge(x)
        distances.append((node.v - node.v_threshold).abs()[node.neuronal_fire() != spike])
        node.neuronal_reset(spike)
    return torch.cat(distances).numpy()


@pytest.mark.parametrize("fold_bn", [True, False])
@pytest.mark.parametrize("variant", SIZES)
def test_random_weights(variant: str, fold_bn: bool, tmp_path: Path) -> None:
    sample = random_input(variant)
    model = random_model(variant, torch.from_numpy(sample).unsqueeze(0 if sample.ndim == 3 else 1))
    training.export(model, spikformer.metadata(model), tmp_path / "random.safetensors")
    network = import_checkpoint(tmp_path / "random.safetensors", fold_bn=fold_bn)
    assert not of_the_network(network)
    comparison = compare(model, network, sample)
    comparison.check()
    assert all(0.05 <= rate <= 0.4 for rate in comparison.rates.values()), comparison.rates


@pytest.mark.parametrize("fold_bn", [True, False])
def test_trained_on_digits(fold_bn: bool) -> None:
    model, network = trained_model(DIGITS), import_checkpoint(DIGITS, fold_bn=fold_bn)
    assert not network.assumptions
    recordings = sorted(DIGITS.parent.glob("digit_*.bin"))
    assert recordings
    for path in recordings:
        comparison = compare(model, network, frames_by_count(open_recording(path), network.time_steps))
        comparison.check()
        assert comparison.simulated.argmax() == int(path.stem.rpartition("_")[2])


@pytest.mark.parametrize("fold_bn", [True, False])
def test_trained_on_nmnist(fold_bn: bool, shared: Path) -> None:
    model, network = trained_model(NMNIST), import_checkpoint(NMNIST, fold_bn=fold_bn)
    assert not network.assumptions
    for path in sorted(shared.glob("nmnist/Test/*/*.bin"))[::10]:
        compare(model, network, frames_by_count(open_recording(path), network.time_steps)).check()


def test_same_predictions_on_nmnist(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shared / "nmnist" / "Test"
    assert main(["import", str(NMNIST), "-o", str(tmp_path / "model.h5"), "--json"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "model.h5"), str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    samples = document["predictions"]
    model = trained_model(NMNIST)
    frames = training.frames_of([open_recording(sample["input"]) for sample in samples], model.time_steps)
    assert [sample["prediction"] for sample in samples] == training.predict(model, frames).tolist()
    assert len(samples) == 50
    assert document["accuracy"] >= 0.9


@pytest.mark.parametrize("variant", SIZES)
def test_official_names_and_shapes(variant: str) -> None:
    model = spikformer.Spikformer(variant, classes=10, **SIZES[variant])
    sizes = {key: SIZES[variant][key] for key in ("depth",)}
    official = spikformer_state(variant, dim=SIZES[variant]["width"], channels=SIZES[variant]["in_channels"], **sizes)
    unused = ("norm.", "pos_embed")
    used = {name: array.shape for name, array in official.items() if not name.startswith(unused)}
    used = {name: shape for name, shape in used.items() if ".norm1." not in name and ".norm2." not in name}
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == used


@pytest.mark.parametrize(
    ("variant", "width", "depth", "classes", "in_channels", "parameters"),
    [
        ("cifar", 256, 4, 10, 3, 4_155_178),
        ("cifar", 384, 4, 100, 3, 9_359_380),
        ("dvs", 256, 2, 10, 2, 2_566_666),
        ("imagenet", 512, 8, 1000, 3, 29_689_384),
    ],
)
def test_parameters_of_the_published_models(
    variant: str, width: int, depth: int, classes: int, in_channels: int, parameters: int
) -> None:
    with torch.device("meta"):
        model = spikformer.Spikformer(
            variant,
            width=width,
            depth=depth,
            heads=8,
            classes=classes,
            in_channels=in_channels,
            size=32,
            time_steps=4,
        )
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@torch.no_grad()
def test_an_image_is_shown_in_every_time_step_and_every_forward_pass_starts_at_rest() -> None:
    image = torch.from_numpy(random_input("cifar")).unsqueeze(0)
    model = random_model("cifar", image)
    logits = model(image)
    assert_array_equal(model(image.expand(4, *image.shape)), logits)
    assert_array_equal(model(image), logits)
    assert not torch.equal(model(image.expand(2, *image.shape)), logits)


def test_training_learns(capsys: pytest.CaptureFixture[str]) -> None:
    class Perceptron(torch.nn.Linear):
        def forward(self, frames: Any) -> Any:
            return super().forward(frames.mean(0).flatten(1))

    torch.manual_seed(0)
    labels = torch.arange(200) % 10
    frames = torch.poisson(torch.full((200, 2, 2, 10, 10), 0.2))
    frames[torch.arange(200), :, :, labels] += 1  # a bright row whose place is the label
    model = Perceptron(200, 10)
    assert training.accuracy(model, frames, labels) < 0.3
    training.train(model, frames, labels, epochs=10, augment=lambda batch: batch)
    assert training.accuracy(model, frames, labels) > 0.95
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == [f"{n}/10" for n in range(1, 11)]


@pytest.mark.parametrize("variant", SIZES)
def test_gradients_reach_every_parameter(variant: str) -> None:
    sample = torch.from_numpy(random_input(variant))
    batch = torch.stack([sample, sample.flip(-1)], 0 if sample.ndim == 3 else 1)
    model = random_model(variant, batch).train()  # SpikingJelly's neurons have no gradient in evaluation
    torch.nn.functional.cross_entropy(model(batch), torch.tensor([0, 1])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def centres(frames: Any) -> np.ndarray:
    """Centre of the activity in each frame, (samples, frames, (y, x))."""
    frames = frames.sum(2)
    height, width = frames.shape[-2:]
    y = (frames.sum(-1) * torch.arange(height)).sum(-1)
    x = (frames.sum(-2) * torch.arange(width)).sum(-1)
    return (torch.stack((y, x), -1) / frames.sum((-1, -2)).unsqueeze(-1)).numpy()


def test_augmentation_moves_all_frames_of_a_sample_alike() -> None:
    torch.manual_seed(0)
    frames = torch.zeros(100, 3, 2, 21, 21)
    frames[..., 9:12, 9:12] = torch.arange(1, 7).reshape(3, 2, 1, 1)
    shifted = training.moved(frames, shift=2, turn=0, zoom=0)
    assert set(shifted.unique().tolist()) == set(range(7))
    displacements = centres(shifted) - centres(frames)
    assert_allclose(displacements, displacements[:, :1].repeat(3, 1), atol=1e-5)
    assert_allclose(displacements.min((0, 1)), -2, atol=1e-5)
    assert_allclose(displacements.max((0, 1)), 2, atol=1e-5)
    assert_array_equal(training.moved(frames, shift=0, turn=0, zoom=0), frames)


def test_augmentation_turns_and_zooms() -> None:
    torch.manual_seed(0)
    frames = torch.zeros(100, 1, 1, 41, 41)
    frames[..., 20, 35] = 1  # 15 pixels to the right of the centre
    turned = training.moved(torch.nn.functional.max_pool2d(frames[:, 0], 3, 1, 1).unsqueeze(1), 0, 0.2, 0)
    y, x = (centres(turned)[:, 0] - 20).T
    assert_allclose(np.hypot(y, x), 15, atol=0.7)
    assert_allclose([np.arctan2(y, x).min(), np.arctan2(y, x).max()], [-0.2, 0.2], atol=0.04)
    zoomed = training.moved(torch.nn.functional.max_pool2d(frames[:, 0], 3, 1, 1).unsqueeze(1), 0, 0, 0.1)
    y, x = (centres(zoomed)[:, 0] - 20).T
    assert_allclose(y, 0, atol=0.5)
    assert_allclose([x.min(), x.max()], [15 / 1.1, 15 / 0.9], atol=0.7)
