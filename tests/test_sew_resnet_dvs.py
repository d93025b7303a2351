"""SEW-ResNet for event cameras: published sizes, and the import against a PyTorch definition, spikes and counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sew_resnet_torch as definition
import torch_oracle as oracle
from assumptions import of_the_network
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file, save_file

from eventsim import InputError, Network, Result, Simulator, import_checkpoint
from eventsim.layers import Affine
from eventsim_importers import sew_resnet_dvs as importer
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.container import Contents

torch = oracle.torch

T = 4
SEED = 43
READINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "add": ({}, {}),
    "and": ({"residual_op": "and"}, {}),
    "iand": ({"residual_op": "iand"}, {}),
    "plain": ({"block": "plain"}, {}),
    "spiking resnet": ({"block": "spiking_resnet"}, {}),
    "pool of 4": ({"pool": 4}, {"widths": (4, 4)}),
    "no pooling at the end": ({}, {"pools": "1110"}),
    "no pooling in the middle": ({"residual_op": "iand"}, {"pools": "1011"}),
    "kernel of 3": ({}, {"kernel": 3}),
    "images": ({}, {"in_channels": 3}),
    "reset by subtraction": ({"v_reset": None}, {}),
    "reset to another potential": ({"v_reset": -0.25, "v_threshold": 0.75}, {}),
}
"""What the weights do not tell, and sizes."""


def build(reading: dict[str, Any] | None = None, **sizes: Any) -> Any:
    """A small model; what is averaged is a power of two."""
    settings = {"widths": (4, 4, 8, 8), "classes": 5, "in_channels": 2, "size": 16, "time_steps": T}
    torch.manual_seed(0)
    return definition.EventNet(**settings | sizes, reading=definition.EventReading(**reading or {})).eval()


def export(model: Any, folder: Path) -> Path:
    return oracle.export(model, folder, definition.event_metadata(model))


def imported(model: Any, folder: Path, **options: Any) -> Network:
    return import_checkpoint(export(model, folder), **options)


@pytest.mark.parametrize(
    ("widths", "classes", "parameters", "published"),
    [((32,) * 7, 11, 130_426, 0.13), ((64,) * 4 + (128,) * 3, 10, 1_192_218, 1.19)],
)
def test_published_sizes(widths: tuple[int, ...], classes: int, parameters: int, published: float) -> None:
    """7B-Net for DVS-Gesture and Wide-7B-Net for CIFAR10-DVS."""
    with torch.device("meta"):
        model = build(widths=widths, classes=classes, size=128)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert round(parameters / 1e6, 2) == published
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    tensors = {key: np.broadcast_to(np.float32(1), shape) for key, shape in shapes.items()}
    checkpoint = Checkpoint(Path("published"), "npz", Contents(tensors))
    assert importer.signature(checkpoint) == len(tensors)
    network = importer.read(checkpoint, importer.Options(fold_bn=False))
    neurons = sum(name.endswith(".w") for name in tensors)
    assert network.parameters == parameters - neurons  # the time constants
    assert (network.name, network.time_steps, network.input.shape) == ("SEW-ResNet of 7 blocks", 16, (2, 128, 128))


# --- against PyTorch


@pytest.mark.parametrize("fold_bn", [True, False])
@pytest.mark.parametrize("name", READINGS)
def test_every_reading_equals_pytorch_bit_for_bit(tmp_path: Path, name: str, fold_bn: bool) -> None:
    reading, sizes = READINGS[name]
    model = oracle.make_dyadic(build(reading, **sizes), seed=SEED)
    frames = oracle.frames_for(model)
    logits, seen = oracle.run(model, frames)
    neurons = oracle.neurons_of(model)
    network = imported(model, tmp_path, fold_bn=fold_bn, bn_eps=0.0)
    assert of_the_network(network) == ()
    assert (not any(isinstance(layer, Affine) for layer in network.layers.values())) == fold_bn
    assert {each for each, layer in network.layers.items() if type(layer).__name__ == "PLIF"} == set(neurons)
    pools = [each for each, module in model.named_modules() if isinstance(module, definition.Pool)]
    assert [each for each, layer in network.layers.items() if type(layer).__name__ == "MaxPool2d"] == pools
    results = [Simulator(network, chunk=c, record=neurons).run(frames) for c in (None, 1, 3)]
    for result in results:
        for each in neurons:
            spikes = seen[each][1][:, 0]
            assert_array_equal(result.recorded[each], spikes, err_msg=each)
            assert spikes.any(), each
        assert_array_equal(result.logits, logits)
        assert [layer.counts for layer in result.profile] == [layer.counts for layer in results[0].profile]
    check_counts(results[0], seen, model, network)


def check_counts(result: Result, seen: oracle.Seen, model: Any, network: Network) -> None:
    """Compare with the synapses that PyTorch's own convolutions reach, enumerated by weights that are all 1."""
    profile = {layer.name: layer.counts for layer in result.profile}
    modules = dict(model.named_modules())
    convs = [name for name in seen if isinstance(modules[name], torch.nn.Conv2d)]
    assert len(convs) == sum(type(layer).__name__ == "Conv2d" for layer in network.layers.values())
    for name in convs:
        pairs, units = oracle.synapses_served(modules[name], seen[name][0][:, None])
        counts = profile[name]
        found = (counts.acs, counts.graded_macs, counts.graded_acs, counts.macs)
        kind = network.input_types(name)[0].kind
        if kind == "real":
            assert name == "conv.0.0.module.0"
            assert counts.macs >= pairs
        else:
            assert found == ((0, pairs, units, 0) if kind == "graded" else (pairs, 0, 0, 0)), name
    assert profile["out"].macs == model.out.weight.numel()
    assert result.totals.spikes == sum(int(seen[name][1].sum()) for name in oracle.neurons_of(model))


def test_real_weights_differ_by_rounding_only(tmp_path: Path) -> None:
    model = oracle.make_lively(build(), seed=1)
    frames = oracle.frames_for(model, seed=2)
    assert_allclose(Simulator(imported(model, tmp_path)).run(frames).logits, oracle.run(model, frames)[0], atol=1e-4)


# --- what is said, and bad input


def test_what_the_state_dict_cannot_tell_is_said(tmp_path: Path) -> None:
    shared = {"time_steps", "height", "width", "input_kind", "pool", "bn_eps"}
    shared |= {"v_threshold", "reset", "v_reset", "strict", "decay_input"}
    for block, more in (("sew", {"block", "residual_op"}), ("spiking_resnet", set())):
        path = export(build({"block": block}, size=128), tmp_path)
        save_file(load_file(path), path)
        assert {each.split(" ")[0] for each in of_the_network(import_checkpoint(path))} == shared | more


F = np.float32


@pytest.mark.parametrize(
    ("reading", "tensors", "options", "message"),
    [
        ({}, {"conv.1.conv.2.module.0.weight": np.ones((4, 4, 3, 3), F)}, {}, "tensor conv.1.conv.2.module.0.weight"),
        ({}, {"conv.1.conv.1.1.w": None}, {}, "tensor conv.1.conv.1.1.w missing"),
        ({}, {"conv.1.conv.0.0.module.0.weight": np.ones((4, 3, 3, 3), F)}, {}, r"tensor conv.1.*expected \(any, 4,"),
        (
            {},
            {"out.weight": np.ones((5, 9), F)},
            {},
            r"tensor out.weight \(5, 9\) found; expected \(any, 8\) ",
        ),
        ({}, {}, {"height": 64}, r"tensor out.weight \(5, 8\) found; expected \(any, 32\) with this height, width"),
        ({}, {}, {"pool": 1}, "pool=1 found; expected at least 2"),
        ({}, {}, {"block": "plain"}, "residual_op=add with blocks of kind plain found; expected residual_op left out"),
        (
            {"block": "spiking_resnet"},
            {},
            {"block": "sew"},
            "block=sew with blocks of kind spiking_resnet found; expected block left out",
        ),
    ],
)
def test_bad_input_is_refused(
    tmp_path: Path, reading: dict[str, Any], tensors: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    model = build(reading)
    path = export(model, tmp_path)
    state = {name: tensor for name, tensor in (load_file(path) | tensors).items() if tensor is not None}
    save_file(state, path, definition.event_metadata(model))
    with pytest.raises(InputError, match=f"^{path}: {message}") as error:
        import_checkpoint(path, **options)
    assert "\n" not in str(error.value)


def test_another_system_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", **{"head.weight": np.ones((2, 2), F)})
    with pytest.raises(InputError, match=r"c\.npz: no SEW-ResNet of events found; expected conv.0.0.module.0.weight"):
        import_checkpoint(tmp_path / "c.npz", "sew_resnet_dvs")
