"""SEW-ResNet and spiking ResNet: published sizes, and the import against PyTorch definitions, spikes and counts."""

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
from eventsim_importers import sew_resnet as importer
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.container import Contents

torch = oracle.torch

T = 4
SEED = 0
DEEP = {"bottleneck": True}
READINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "add": ({}, {}),
    "and": ({"residual_op": "and"}, {}),
    "iand": ({"residual_op": "iand"}, {}),
    "add, bottleneck": ({}, DEEP),
    "and, bottleneck": ({"residual_op": "and"}, DEEP),
    "iand, bottleneck": ({"residual_op": "iand"}, DEEP),
    "leaky": ({"neuron": "lif", "tau": 1.5}, {}),
    "learned time constants": ({"neuron": "plif"}, {}),
    "reset by subtraction": ({"v_reset": None}, {}),
    "reset to another potential": ({"v_reset": -0.25, "v_threshold": 0.75}, {}),
    "spiking resnet": ({"block": "spiking_resnet"}, {}),
    "spiking resnet, bottleneck": ({"block": "spiking_resnet"}, DEEP),
    "spiking resnet, learned time constants": ({"block": "spiking_resnet", "neuron": "plif"}, {}),
    "images": ({}, {"in_channels": 3}),
    "groups": ({}, {"bottleneck": True, "groups": 4}),
}
"""What the weights do not tell, and sizes."""


def build(source: str = "authors", reading: dict[str, Any] | None = None, **sizes: Any) -> Any:
    """A small model; what is averaged is a power of two."""
    kind = {"authors": definition.ResNet, "zoo": definition.Zoo}[source]
    if source == "zoo":
        sizes = {"widths": (8, 8, 16, 16), "blocks": (1, 2, 1, 1), "size": 64} | sizes
    settings = {"widths": (8, 16), "blocks": (2, 2), "classes": 5, "in_channels": 2, "size": 32, "time_steps": T}
    torch.manual_seed(0)
    return kind(**settings | sizes, reading=definition.Reading(**reading or {})).eval()


def imported(model: Any, folder: Path, **options: Any) -> Network:
    return import_checkpoint(definition.export(model, folder), **options)


def frames_of(model: Any, steps: int = T) -> np.ndarray:
    return oracle.frames_for(model, steps=steps)


def run(model: Any, frames: np.ndarray) -> tuple[np.ndarray, oracle.Seen, Any]:
    """Logits, what every module saw under the names of the checkpoint, and the model that has these names."""
    logits, seen = oracle.run(model, frames)
    seen = {name.removeprefix("net."): arrays for name, arrays in seen.items() if name != "net"}
    return logits, seen, getattr(model, "net", model)


# --- the published models


def published(blocks: tuple[int, ...], convs: int, groups: int = 1) -> Network:
    """The import of a published model, with weights that take no memory."""
    sizes = {"widths": (64, 128, 256, 512), "blocks": blocks, "classes": 1000, "in_channels": 3, "size": 224}
    with torch.device("meta"):
        model = build("authors", bottleneck=convs == 3, groups=groups, **sizes)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    tensors = {key: np.broadcast_to(np.float32(1), shape) for key, shape in shapes.items()}
    checkpoint = Checkpoint(Path("published"), "npz", Contents(tensors))
    assert importer.signature(checkpoint) == len(tensors)
    network = importer.read(checkpoint, importer.Options(fold_bn=False))
    assert network.parameters == sum(parameter.numel() for parameter in model.parameters())
    return network


@pytest.mark.parametrize(
    ("depth", "blocks", "convs", "parameters", "giga_macs"),
    [
        (18, (2, 2, 2, 2), 2, 11_689_512, 1.814),
        (34, (3, 4, 6, 3), 2, 21_797_672, 3.664),
        (50, (3, 4, 6, 3), 3, 25_557_032, 4.089),
        (101, (3, 4, 23, 3), 3, 44_549_160, 7.801),
        (152, (3, 8, 36, 3), 3, 60_192_808, 11.514),
    ],
)
def test_published_sizes(depth: int, blocks: tuple[int, ...], convs: int, parameters: int, giga_macs: float) -> None:
    """The parameters and multiplications of the ResNets that they are made of."""
    network = published(blocks, convs)
    assert network.name == f"SEW-ResNet-{depth}"
    assert network.parameters == parameters
    macs = sum(layer.dense_macs(*network.input_types(name)) for name, layer in network.layers.items())
    assert round(macs / 1e9, 3) == giga_macs
    assert (network.time_steps, network.input.shape, network.input.kind) == (4, (3, 224, 224), "real")


# --- against PyTorch


@pytest.mark.parametrize("fold_bn", [True, False])
@pytest.mark.parametrize("source", ["authors", "zoo"])
@pytest.mark.parametrize("name", READINGS)
def test_every_reading_equals_pytorch_bit_for_bit(tmp_path: Path, source: str, name: str, fold_bn: bool) -> None:
    reading, sizes = READINGS[name]
    model = oracle.make_dyadic(build(source, reading, **sizes), seed=SEED)
    frames = frames_of(model)
    logits, seen, named = run(model, frames)
    network = imported(model, tmp_path, fold_bn=fold_bn, bn_eps=0.0)
    assert of_the_network(network) == ()
    assert (not any(isinstance(layer, Affine) for layer in network.layers.values())) == fold_bn
    neurons = [each for each in oracle.neurons_of(named) if each in seen]
    assert len(neurons) == sum(type(layer).__name__ in ("IF", "LIF", "PLIF") for layer in network.layers.values())
    results = [Simulator(network, chunk=c, record=neurons).run(frames) for c in (None, 1, 3)]
    for result in results:
        for each in neurons:
            spikes = seen[each][1][:, 0]
            assert_array_equal(result.recorded[each], spikes, err_msg=each)
            assert spikes.any(), each
        assert_array_equal(result.logits, logits)
        assert [layer.counts for layer in result.profile] == [layer.counts for layer in results[0].profile]
    check_counts(results[0], seen, named, network)


def check_counts(result: Result, seen: oracle.Seen, model: Any, network: Network) -> None:
    """Compare with the synapses that PyTorch's own convolutions reach, enumerated by weights that are all 1."""
    profile = {layer.name: layer.counts for layer in result.profile}
    modules = dict(model.named_modules())
    convs = [name for name in seen if isinstance(modules[name], torch.nn.Conv2d)]
    assert len(convs) == sum(type(layer).__name__ == "Conv2d" for layer in network.layers.values())
    for name in convs:
        x, module = torch.from_numpy(np.abs(seen[name][0])).double(), modules[name]
        x = x.flatten(0, 1) if x.ndim == 5 else x
        ones, how = torch.ones_like(module.weight).double(), (module.stride, module.padding, 1, module.groups)
        pairs, units = (
            int(torch.nn.functional.conv2d(each, ones, None, *how).sum()) for each in ((x != 0).double(), x)
        )
        counts = profile[name]
        found = (counts.acs, counts.graded_macs, counts.graded_acs, counts.macs)
        kind = network.input_types(name)[0].kind
        if kind == "real":
            assert name == "conv1"
            assert counts.macs >= pairs
        else:
            assert found == ((0, pairs, units, 0) if kind == "graded" else (pairs, 0, 0, 0)), name
    assert profile["fc"].macs == model.fc.weight.numel()
    assert result.totals.spikes == sum(int(seen[name][1].sum()) for name in oracle.neurons_of(model) if name in seen)


def test_spikes_stay_spikes_unless_they_are_added(tmp_path: Path) -> None:
    for op, kind in (("add", "graded"), ("and", "binary"), ("iand", "binary")):
        network = imported(build(reading={"residual_op": op}), tmp_path)
        joins = [name for name in network.layers if name.endswith(".join")]
        assert len(joins) == 4
        assert {network.types[name].kind for name in joins} == {kind}


def test_iand_of_three_convolutions_differs_between_the_sources(tmp_path: Path) -> None:
    """The authors keep the shortcut where the branch is silent; SpikingJelly's bottleneck does the reverse."""
    for source, first in (("authors", "layer1.0.downsample.1"), ("zoo", "layer1.0.sn3")):
        network = imported(build(source, {"residual_op": "iand"}, bottleneck=True), tmp_path)
        assert network.sources["layer1.0.join"][0] == first
    network = imported(build("zoo", {"residual_op": "iand"}), tmp_path)
    assert network.sources["layer2.0.join"] == ("layer2.0.downsample_sn", "layer2.0.sn2")


def test_images_are_shown_in_every_step(tmp_path: Path) -> None:
    model = oracle.make_dyadic(build(in_channels=3), seed=SEED)
    image = frames_of(model, steps=1)[0]
    logits, _, _ = run(model, np.stack([image] * T))
    result = Simulator(imported(model, tmp_path, bn_eps=0.0)).run(image)
    assert_array_equal(result.logits, logits)
    (first,) = (layer for layer in result.profile if layer.name == "conv1")
    assert first.counts.macs == 8 * 3 * (16 * 7 - 3 - 1 - 2) ** 2  # computed once; borders have fewer taps


@pytest.mark.parametrize("source", ["authors", "zoo"])
def test_real_weights_differ_by_rounding_only(tmp_path: Path, source: str) -> None:
    model = oracle.make_lively(build(source, {"neuron": "lif"}), seed=1)
    frames = frames_of(model)
    logits, _, _ = run(model, frames)
    assert_allclose(Simulator(imported(model, tmp_path)).run(frames).logits, logits, atol=1e-4)


# --- what is said, and bad input

NEURONS = {"v_threshold", "reset", "v_reset", "strict", "bn_eps"}
SIZES = {"time_steps", "height", "width", "input_kind"}


def bare(model: Any, folder: Path) -> Path:
    """The checkpoint without metadata."""
    path = definition.export(model, folder)
    save_file(load_file(path), path)
    return path


def said(network: Network) -> set[str]:
    return {assumption.split(" ")[0] for assumption in of_the_network(network)}


def source_of(network: Network, option: str) -> tuple[str, Any]:
    (setting,) = (setting for setting in network.settings if setting.option == option)
    return setting.source, setting.value


def test_what_the_state_dict_cannot_tell_is_said(tmp_path: Path) -> None:
    network = import_checkpoint(bare(build(), tmp_path))
    assert said(network) == NEURONS | SIZES | {"residual_op", "neuron"}
    assert source_of(network, "block") == ("inferred", "sew")
    network = import_checkpoint(bare(build(reading={"block": "spiking_resnet", "neuron": "plif"}), tmp_path))
    assert said(network) == NEURONS | SIZES | {"decay_input"}
    assert source_of(network, "block") == ("inferred", "spiking_resnet")
    assert source_of(network, "neuron") == ("inferred", "plif")
    assert network.name == "Spiking ResNet-10"
    network = import_checkpoint(bare(build(widths=(8,), blocks=(1,)), tmp_path))  # sizes never change
    assert said(network) == NEURONS | SIZES | {"residual_op", "neuron", "block"}
    network = import_checkpoint(bare(build(), tmp_path), neuron="lif")
    assert said(network) == NEURONS | SIZES | {"residual_op", "tau", "decay_input"}
    network = import_checkpoint(bare(build("zoo", {"neuron": "plif"}), tmp_path))
    assert source_of(network, "block") == ("inferred", "sew")


def test_names_that_resnets_without_spikes_share_tell_nothing(tmp_path: Path) -> None:
    path = bare(build("zoo"), tmp_path)
    message = (
        rf"^{path}: names of tensors found that ResNets without spikes have too \(layer1.0.conv1.weight\); expected "
        "block=sew or block=spiking_resnet to say which it is$"
    )
    with pytest.raises(InputError, match=message):
        import_checkpoint(path)
    assert said(import_checkpoint(path, block="sew")) == NEURONS | SIZES | {"residual_op", "neuron"}
    assert import_checkpoint(path, block="spiking_resnet").name == "Spiking ResNet-12"


def test_what_lies_beside_the_weights_and_has_no_effect_is_left(tmp_path: Path) -> None:
    """A training script has a time constant among its arguments whether its neurons leak or not."""
    model = build()
    torch.save({"model": model.state_dict(), "args": {"tau": 2.0, "v_reset": 0.5}}, tmp_path / "c.pth")
    network = import_checkpoint(tmp_path / "c.pth", reset="subtract")
    assert not {"tau", "v_reset"} & {setting.option for setting in network.settings if setting.source == "option"}
    assert "tau" not in said(network)


@pytest.mark.parametrize(
    ("reading", "options", "message"),
    [
        ({}, {"tau": 2.0}, "tau=2 with neuron=if found; expected neuron=lif, or tau left out"),
        ({}, {"decay_input": False}, "decay_input=False with neuron=if found; expected neuron=lif"),
        (
            {"block": "spiking_resnet"},
            {"residual_op": "and"},
            "residual_op=and with block=spiking_resnet found; expected block=sew, or residual_op left out",
        ),
        ({}, {"v_reset": 1.0}, "v_threshold=1 found; expected more than v_reset=1"),
        ({}, {"neuron": "plif"}, "tensor sn1.w missing"),
        ({"neuron": "plif"}, {"neuron": "if"}, r"tensor layer1.0.sn1.w \(\) and 9 more left over"),
        ({}, {"block": "spiking_resnet"}, "tensor layer2.0.downsample.module.0.weight missing"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    tmp_path: Path, reading: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    path = bare(build(reading=reading), tmp_path)
    with pytest.raises(InputError, match=f"^{path}: {message}"):
        import_checkpoint(path, **options)


F = np.float32


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"layer2.1.conv1.module.0.bias": np.ones(16, F)}, r"tensor layer2.1.conv1.module.0.bias \(16\) left over"),
        ({"conv1.weight": np.ones((8, 2, 3, 3), F)}, r"tensor conv1.weight \(8, 2, 3, 3\) found; expected \(any, any"),
        ({"layer2.1.conv1.module.0.weight": np.ones((16, 5, 3, 3), F)}, r"tensor layer2.1.conv1.module.0.weight .*16"),
        ({"layer1.1.conv2.module.1.weight": None}, "tensor layer1.1.conv2.module.1.weight missing"),
        ({"fc.weight": np.ones((5, 8), F)}, r"tensor fc.weight \(5, 8\) found; expected \(any, 16\)"),
    ],
)
def test_bad_tensors_are_refused(tmp_path: Path, tensors: dict[str, Any], message: str) -> None:
    model = build()
    path = definition.export(model, tmp_path)
    state = {name: tensor for name, tensor in (load_file(path) | tensors).items() if tensor is not None}
    save_file(state, path, definition.metadata(model))
    with pytest.raises(InputError, match=f"^{path}: {message}") as error:
        import_checkpoint(path)
    assert "\n" not in str(error.value)


def test_another_system_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", **{"head.weight": np.ones((2, 2), F)})
    with pytest.raises(InputError, match=r"c\.npz: no SEW-ResNet found; expected conv1.weight with layer1.0.conv1.mod"):
        import_checkpoint(tmp_path / "c.npz", "sew_resnet")
