"""STAA-SNN: the import equals the PyTorch definition in every reading of the paper, spikes and counts."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from state_dicts import spikformer_state

from eventsim import InputError, Network, Result, Simulator, import_checkpoint, open_recording
from eventsim.datasets import labelled_files
from eventsim.dvs import frames_by_count
from eventsim.energy import FORTY_FIVE_NM
from eventsim.layers import AdaptiveLIF, Affine, Conv2d, GlobalContext, Linear
from eventsim.ledger import Counts
from eventsim_importers import staa_snn
from eventsim_importers.reading.checkpoint import Checkpoint
from eventsim_importers.reading.container import Contents

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
}


def build(backbone: str, reading: dict[str, Any] | None = None, *, seed: int = 0, **changes: Any) -> Any:
    """A small model; everything that is averaged is a power of two, but for the stem of ImageNet."""
    torch.manual_seed(seed)
    options = {"classes": 5, "in_channels": 2, "time_steps": T, **BACKBONES[backbone]}
    options |= {"reading": definition.Reading(**{"sa_ratio": 2, **(reading or {})}), **changes}
    model = definition.VGG(**options) if backbone == "vgg" else definition.ResNet(backbone, **options)
    return model.eval()


def fill(tensor: Any, values: Any) -> None:
    tensor.data = torch.from_numpy(np.broadcast_to(values, tensor.shape).astype(np.float32).copy())


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
            if module.P is not None:
                fill(module.P, rng.integers(-4, 5, module.P.shape) / 8)
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
            if module.P is not None:
                fill(module.P, rng.normal(0, 0.3, module.P.shape))
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
            elif isinstance(module, definition.STAALIF):
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


EXACT = [("three", name) for name in READINGS] + [("one", "proposed"), ("one", "P for all"), ("vgg", "proposed")]


@pytest.mark.parametrize(("backbone", "name"), EXACT)
def test_every_reading_equals_pytorch_bit_for_bit(tmp_path: Path, backbone: str, name: str) -> None:
    """Without layer normalisation; the stem of ImageNet averages nine values, which is not dyadic either."""
    model = make_dyadic(build(backbone, {"gc_layer_norm": False, **READINGS[name]}), seed=1)
    frames = frames_for(model)
    seen = Seen(model, frames)
    for fold_bn in (True, False):
        network = imported(model, tmp_path, fold_bn=fold_bn, bn_eps=0.0)
        assert any(isinstance(layer, Affine) for layer in network.layers.values()) != fold_bn
        for chunk in range(1, T + 1) if fold_bn else (T,):
            result = Simulator(network, chunk=chunk, record=seen.spikes).run(frames)
            for each, spikes in seen.spikes.items():
                assert_array_equal(result.recorded[each], spikes, err_msg=each)
                assert 0 < spikes.mean() < 1, each
            assert_array_equal(result.logits, seen.logits)
            check_counts(result, model, network, seen)
    assert set(seen.spikes) == {each for each, layer in network.layers.items() if isinstance(layer, AdaptiveLIF)}


def check_counts(result: Result, model: Any, network: Network, seen: Seen) -> None:
    """Compare with the synapses that PyTorch's own convolutions reach, enumerated by weights that are all 1."""
    modules = dict(model.named_modules())
    convs = [name for name, layer in network.layers.items() if isinstance(layer, Conv2d)]
    assert convs == [
        name for name, module in modules.items() if isinstance(getattr(module, "pool", 0), torch.nn.Conv2d)
    ]
    for layer in result.profile:
        counts = layer.counts
        if layer.name in convs:
            x, module = torch.from_numpy(np.abs(seen.inputs[layer.name])).double(), modules[layer.name].pool
            ones = torch.ones_like(module.weight).double()
            pairs, units = (
                int(torch.nn.functional.conv2d(given, ones, None, module.stride, module.padding).sum().item())
                for given in ((x != 0).double(), x)
            )
            first = layer.name in ("conv1", "conv1.0", "features.0")
            binary = bool(((x == 0) | (x == 1)).all())
            averaged = network.types[network.sources[layer.name][0]].kind == "real"
            assert first or averaged or binary, layer.name
            expected = (0, pairs, units, 0) if first else (0, 0, 0, pairs) if averaged else (pairs, 0, 0, 0)
            assert (counts.acs, counts.graded_macs, counts.graded_acs, counts.macs) == expected, layer.name
        elif layer.kind == "AdaptiveLIF":
            assert counts.spikes == seen.spikes[layer.name].sum()
            assert counts.neuron_updates == seen.spikes[layer.name].size == layer.neurons * T
            assert (counts.acs, counts.graded_macs) == (0, 0)
    assert result.totals.spikes == sum(int(spikes.sum()) for spikes in seen.spikes.values())


REAL = [(backbone, "proposed") for backbone in BACKBONES] + [("three", name) for name in READINGS]


@pytest.mark.parametrize(("backbone", "name"), REAL)
def test_real_weights_differ_by_rounding_only(tmp_path: Path, backbone: str, name: str) -> None:
    """With layer normalisation, and sizes that are odd somewhere: the last average of a shortcut has fewer values."""
    model = make_lively(build(backbone, READINGS[name], size=(22, 17)), seed=2)
    frames = frames_for(model, seed=3)
    seen = Seen(model, frames)
    network = imported(model, tmp_path)
    result = Simulator(network, record=seen.spikes).run(frames)
    if not check_spikes(result, seen):
        assert_allclose(result.logits, seen.logits, atol=1e-4)
    for chunk in (1, 3):
        again = Simulator(network, chunk=chunk).run(frames)
        assert_array_equal(again.logits, result.logits)
        assert again.totals == result.totals


def check_spikes(result: Result, seen: Seen) -> bool:
    """Check that the first spikes that differ, if any, were within 1e-4 of the threshold; return whether any did."""
    for name, spikes in seen.spikes.items():
        assert spikes.any(), name
        differ = result.recorded[name] != spikes
        for potential, wrong in zip(seen.potentials[name], differ, strict=True):
            if wrong.any():
                assert (np.abs(potential[wrong] - 1) < 1e-4).all(), name
                return True
    return False


@pytest.mark.parametrize(
    ("given", "other"),
    [
        ({"gc_norm": "sigmoid"}, {"gc_norm": "softmax"}),
        ({"gc_combine": "gated"}, {"gc_combine": "additive"}),
        ({"sa_inputs": "features"}, {"sa_inputs": "terms"}),
        ({"sa_scale": 1.0}, {"sa_scale": 2.0}),
        ({}, {"v_threshold": 1.5}),
        ({}, {"bn_eps": 0.1}),
        ({}, {"ln_eps": 0.5}),
        ({}, {"reset": "subtract"}),
    ],
)
def test_options_change_the_result_and_metadata_answers_first(tmp_path: Path, given: Any, other: Any) -> None:
    model = make_lively(build("three", given), seed=4)
    frames = frames_for(model)
    logits, changed, asked = (
        Simulator(import_checkpoint(export(model, tmp_path), **options)).run(frames).logits
        for options in ({}, other, {name: str(value) for name, value in given.items()})
    )
    assert (logits != changed).any()
    assert_array_equal(logits, asked)


def test_images_are_shown_in_every_step(tmp_path: Path) -> None:
    model = make_dyadic(build("three", {"gc_layer_norm": False}, in_channels=3), seed=5)
    image = frames_for(model, steps=1)[0]
    seen = Seen(model, np.stack([image] * T))
    network = imported(model, tmp_path, bn_eps=0.0)
    assert network.input.kind == "real"
    result = Simulator(network).run(image)
    assert_array_equal(result.logits, seen.logits)
    assert_array_equal(model(torch.from_numpy(image)[None]).detach().numpy()[0], seen.logits)
    first = next(layer for layer in result.profile if layer.name == "conv1.0")
    assert first.counts.macs == 3 * 4 * (3 * 16 - 2) ** 2  # computed once; each pixel of a border has fewer taps
    assert first.dense_macs == T * 3 * 4 * 9 * 16**2
    constant = make_dyadic(
        build("three", {"pe_axes": ("height", "width"), "gc_layer_norm": False}, in_channels=3), seed=5
    )
    result = Simulator(imported(constant, tmp_path, bn_eps=0.0)).run(image)
    assert_array_equal(result.logits, Seen(constant, np.stack([image] * T)).logits)
    context = next(layer for layer in result.profile if layer.name == "conv1.2.gc")
    assert context.counts.macs == context.dense_macs / T  # as P, which is the same in every step, lets it


def test_fewer_time_steps_meet_the_beginning_of_what_depends_on_time(tmp_path: Path) -> None:
    model = make_dyadic(build("three", {"gc_layer_norm": False, **READINGS["gates of each step"]}), seed=6)
    frames = frames_for(model, steps=2)
    network = imported(model, tmp_path, bn_eps=0.0, time_steps=2)
    assert_array_equal(Simulator(network).run(frames).logits, Seen(model, frames).logits)
    with pytest.raises(InputError, match=r"^layer conv1\.2\.P: 5 time steps found; the encoding has 4"):
        Simulator(network).run(frames_for(model, steps=5))


def test_plain_aggregation_replaces_the_modules_in_training_only() -> None:
    torch.manual_seed(0)
    with_modules, without = (
        definition.STAALIF((4, 6, 6), T, definition.Reading(tsrd=1.0, modules=modules))
        for modules in (("pe", "gc", "sa"), ())
    )
    for parameter in (with_modules.P, with_modules.gc.query.weight):
        torch.nn.init.normal_(parameter)
    x = torch.randn(T, 3, 4, 6, 6) * 2
    assert_array_equal(with_modules.train()(x).detach(), without(x).detach())
    assert (with_modules.eval()(x) != without(x)).any()


# --- published sizes


def shapes_of(make: Any, *sizes: int, **options: Any) -> Any:
    with torch.device("meta"):
        return make(*sizes, **options)


def backbone_parameters(model: Any) -> int:
    return sum(p.numel() for name, p in model.named_parameters() if name.rsplit(".", 1)[-1] not in "MNP")


@pytest.mark.parametrize(
    ("make", "classes", "expected"),
    [
        ("resnet20", 10, 11_247_946),
        ("resnet20", 100, 11_294_116),
        ("resnet19", 10, 12_569_226),
        ("resnet19", 100, 12_615_396),
        ("resnet18", 1000, 11_689_512),
        ("resnet34", 1000, 21_797_672),
    ],
)
def test_parameters_of_the_backbones(make: str, classes: int, expected: int) -> None:
    model = shapes_of(getattr(definition, make), classes, reading=definition.Reading(modules=()))
    assert backbone_parameters(model) == expected


def test_one_reading_has_the_parameters_that_the_paper_states() -> None:
    reading = definition.Reading(pe_axes=("channel", "height", "width"))
    model = shapes_of(definition.resnet20, 100, reading=reading)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == 12.69


def network_of(model: Any, **options: Any) -> Network:
    """Import tensors of the shapes of a model, each a single value that is never copied."""
    state = {name: np.broadcast_to(np.float32(1), tuple(value.shape)) for name, value in model.state_dict().items()}
    checkpoint = Checkpoint(Path("published"), "npz", Contents(state, definition.metadata(model)))
    return staa_snn.read(checkpoint, staa_snn.Options(fold_bn=False, **options))


def dense_macs(network: Network, *kinds: type, source: str | None = None) -> int:
    """Of one time step, over layers of some types, that read a kind of signal."""
    return sum(
        layer.dense_macs(*network.input_types(name))
        for name, layer in network.layers.items()
        if isinstance(layer, kinds) and source in (None, network.input_types(name)[0].kind)
    )


def test_published_figures_of_resnet20() -> None:
    network = network_of(shapes_of(definition.resnet20, 100))
    steps, giga = network.time_steps, 1e9
    assert steps == 4
    backbone, context = dense_macs(network, Conv2d, Linear), dense_macs(network, GlobalContext)
    assert backbone == 215_730_176
    assert round(steps * backbone / giga, 4) == 0.8629
    assert round(steps * (backbone + context) / giga, 4) == 0.8683
    real = dense_macs(network, Conv2d, Linear, source="real")
    assert round(steps * real / giga, 4) == 0.0513
    assert round(steps * (real + context) / giga, 4) == 0.0567
    assert sum(isinstance(layer, GlobalContext) for layer in network.layers.values()) == 19
    energy = FORTY_FIVE_NM.millijoules(Counts(acs=100_000_000, macs=60_000_000))
    assert round(energy, 3) == 0.366


PUBLISHED = {
    "resnet20": ("modified ResNet", "layer4.1.output_act", (512, 2, 2)),
    "resnet19": ("ResNet", "layer3.1.output_act", (512, 8, 8)),
    "resnet18": ("ImageNet ResNet", "layer4.1.output_act", (512, 7, 7)),
    "resnet34": ("ImageNet ResNet", "layer4.2.output_act", (512, 7, 7)),
    "vgg13": ("VGG", "features.34", (512, 1, 1)),
}


@pytest.mark.parametrize("make", PUBLISHED)
def test_published_backbones_are_told_apart(make: str) -> None:
    layout, last, shape = PUBLISHED[make]
    model = shapes_of(getattr(definition, make))
    network = network_of(model)
    assert network.name == f"STAA-SNN {layout}"
    assert network.types[last].shape == shape
    assert network.time_steps == model.time_steps
    spiking = sum(isinstance(layer, AdaptiveLIF) for layer in network.layers.values())
    assert spiking == sum(isinstance(module, definition.STAALIF) for module in model.modules())


# --- checkpoints


def test_shapes_tell_sizes_and_the_rest_is_said(tmp_path: Path) -> None:
    model = build("three", {"pe_axes": ("time", "channel"), "sa_mode": "sum"})
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    np.savez(tmp_path / "c.npz", **state)
    network = import_checkpoint(tmp_path / "c.npz")
    assert network.time_steps == T
    said = " ".join(network.assumptions)
    for words in ("height = 48", "width = 48", "gc_norm = softmax", "gc_combine = additive", "sa_inputs = terms"):
        assert words in said
    assert "sa_scale = 2.0" in said
    assert "sa_mode" not in said
    for words in ("reset = zero", "v_reset = 0.0", "strict = false"):
        assert words in said
    settings = {setting.option: (setting.value, setting.source, setting.note) for setting in network.settings}
    assert settings["sa_mode"] == ("sum", "inferred", "outputs of conv1.2.sa.expand")
    static = {name: value.numpy() for name, value in build("one", READINGS["P for pixels"]).state_dict().items()}
    np.savez(tmp_path / "p.npz", **static)
    sized = import_checkpoint(tmp_path / "p.npz", input_kind="graded")
    assert sized.input.shape == (2, 8, 8)
    assert sized.time_steps == 16


@pytest.mark.parametrize("prefix", ["model.", "module.model.", ""])
def test_prefixes_of_wrappers(tmp_path: Path, prefix: str) -> None:
    state = {f"{prefix}{name}": value for name, value in build("one").state_dict().items()}
    torch.save(state, tmp_path / "c.pth")
    assert import_checkpoint(tmp_path / "c.pth").name == "STAA-SNN ResNet"


@pytest.mark.parametrize("shape", [(), (1,), (4,), (4, 1, 1), (1, 16, 1), (1, 1, 1, 16), (4, 4, 16, 16)])
def test_coefficients_of_fewer_axes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """One number, (channels,), three axes and four mean what their repetition to four axes means."""
    model = make_dyadic(build("three", {"gc_layer_norm": False, **READINGS["M, N for all"]}), seed=8)
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    few = np.random.default_rng(0).choice([0.5, 1, 2], shape).astype(np.float32)
    whole = np.broadcast_to(few[:, None, None] if few.ndim == 1 else few, (T, 4, 16, 16))
    logits = []
    for array in (few, whole):
        np.savez(tmp_path / "c.npz", **{**state, "conv1.2.M": array, "conv1.5.N": array, "conv1.8.P": array})
        network = import_checkpoint(tmp_path / "c.npz", bn_eps=0.0)
        logits.append(Simulator(network).run(frames_for(model)).logits)
    assert_array_equal(*logits)


def test_other_checkpoints_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", **spikformer_state("dvs"))
    words = (
        r"c.npz: no STAA-SNN found; expected one of conv1.0.pool.weight with conv1.2.M, conv1.pool.weight with relu.M"
    )
    with pytest.raises(InputError, match=words):
        import_checkpoint(tmp_path / "c.npz", "staa_snn")
    state = {name: value.numpy() for name, value in build("one").state_dict().items() if ".M" not in name}
    np.savez(tmp_path / "c.npz", **state)  # the baseline, whose neurons are others
    with pytest.raises(InputError, match=r"looks like a checkpoint of ResNet with normalised .* which is not read"):
        import_checkpoint(tmp_path / "c.npz")


Z = np.zeros
BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "P in all neurons but the first": ({"conv1.2.P": None}, {}, r"conv1.5.P \(4, 1, 16, 16\) and 7 more left over"),
    "extra": ({"layer1.0.relu1.bn.weight": Z(4)}, {}, r"layer1.0.relu1.bn.weight \(4\) left over"),
    "conv": ({"conv1.3.pool.weight": Z((4, 4, 5, 5))}, {}, r"weight \(4, 4, 5, 5\) found; expected \(any, 4, 3, 3\)"),
    "gc": ({"conv1.2.gc.value.bias": Z(2)}, {}, r"conv1.2.gc.value.bias \(2\) found; expected \(1\)"),
    "P": ({"conv1.8.P": Z((4, 3, 16, 16))}, {}, r"P \(4, 3, 16, 16\) found; expected .*repeats to \(4, 4, 16, 16\)"),
    "M axes": ({"conv1.8.M": Z((4, 4))}, {}, r"conv1.8.M \(4, 4\) found; expected a shape that repeats"),
    "M length": ({"conv1.8.M": Z((2, 1, 1, 1))}, {}, "time_steps=4 found; expected at most 2, .* of tensor conv1.8.M"),
    "integers": ({"conv1.8.M": Z(4, np.int64)}, {}, "conv1.8.M of type int64 found; expected floating point"),
    "size": ({}, {"height": 20}, r"conv1.2.P \(4, 1, 16, 16\) found; .* \(4, 4, 20, 16\): time steps, channels"),
    "no size": ({}, {"height": 0}, r"layer input: shape \(2, 0, 16\) found"),
    "steps": ({}, {"time_steps": 5}, "time_steps=5 found; expected at most 4, the number of tensor conv1.2.P"),
    "no steps": ({}, {"time_steps": 0}, "0 time steps found; expected a whole number"),
    "reset value": (
        {},
        {"v_reset": 0.3},
        r"c.npz: v_reset=0.3 found; expected 0, as conv1.2.M multiplies the potential",
    ),
    "last pool": ({}, {"last_pool": True}, r"c.npz: last_pool=True for a modified ResNet found; expected it left out"),
    "eps": ({}, {"ln_eps": -1.0}, r"c.npz: ln_eps=-1 found; expected more than 0"),
    "threshold": ({}, {"v_threshold": -1.0}, r"c.npz: v_threshold=-1 found; expected more than v_reset=0"),
    "scale": ({}, {"sa_scale": 0.0}, r"c.npz: sa_scale=0 found; expected more than 0"),
    "overflow": (
        {},
        {"sa_scale": 1e39},
        r"option sa_scale=1e\+39 found; expected a finite number, at most 3.40282e\+38",
    ),
    "mode": ({}, {"sa_mode": "sum"}, "sa_mode=sum with 8 outputs of conv1.2.sa.expand found; expected 4"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_in_one_line(tmp_path: Path, name: str) -> None:
    changes, options, words = BAD[name]
    model = build("three")
    state = {name: value.numpy() for name, value in model.state_dict().items()} | changes
    state = {
        key: value if value is None or value.dtype.kind == "i" else np.float32(value) for key, value in state.items()
    }
    np.savez(tmp_path / "c.npz", **{key: value for key, value in state.items() if value is not None})
    with pytest.raises(InputError, match=words) as caught:
        import_checkpoint(tmp_path / "c.npz", **options)
    assert "\n" not in str(caught.value)


def test_bad_metadata_is_named(tmp_path: Path) -> None:
    model = build("three")
    save_file(model.state_dict(), tmp_path / "c.safetensors", {**definition.metadata(model), "ln_eps": "1e39"})
    with pytest.raises(InputError, match=r"c.safetensors: metadata ln_eps='1e39' found; expected a finite number, at"):
        import_checkpoint(tmp_path / "c.safetensors")
    save_file(model.state_dict(), tmp_path / "c.safetensors", {**definition.metadata(model), "sa_mode": "none"})
    with pytest.raises(InputError, match=r"metadata sa_mode='none' found; expected one of each, sum"):
        import_checkpoint(tmp_path / "c.safetensors")


@pytest.mark.parametrize("as_metadata", [False, True])
def test_neurons_fire_and_reset_as_said(tmp_path: Path, as_metadata: bool) -> None:
    model, path, said = build("three"), tmp_path / "c.safetensors", {"reset": "subtract", "strict": "true"}
    save_file(model.state_dict(), path, definition.metadata(model) | (said if as_metadata else {}))
    network = import_checkpoint(path, **({} if as_metadata else said))
    layers = [layer for layer in network.layers.values() if isinstance(layer, AdaptiveLIF)]
    assert layers
    assert all((layer.reset, layer.strict) == ("subtract", True) for layer in layers)


def test_the_last_pooling_of_a_vgg_is_said(tmp_path: Path) -> None:
    """No tensor tells it; of a map of 3 x 3 it leaves out the last row and column."""
    model = make_lively(build("vgg", size=24), seed=2)
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    np.savez(tmp_path / "c.npz", **state)
    options = {"height": 24, "width": 24}
    network = import_checkpoint(tmp_path / "c.npz", **options)
    assert "last_pool = true" in " ".join(network.assumptions)
    without = import_checkpoint(tmp_path / "c.npz", **options, last_pool=False)
    assert set(network.layers) - set(without.layers) == {"features.14"}
    assert network.types["features.14"].grid == (3, 3)


def test_attention_for_too_few_steps_is_refused(tmp_path: Path) -> None:
    model = build("three", {"sa_per_step": True, "pe_axes": ()})
    with pytest.raises(InputError, match=r"time_steps=5 found; expected at most 4, the number of .* conv1\.2\.sa"):
        imported(model, tmp_path, time_steps=5)


def test_a_gap_in_a_vgg_is_refused(tmp_path: Path) -> None:
    state = {name: value.numpy() for name, value in build("vgg").state_dict().items()}
    moved = {name.replace("features.7.", "features.9."): value for name, value in state.items()}
    np.savez(tmp_path / "c.npz", **moved)
    with pytest.raises(InputError, match=r"features.3 followed by features.9 found; expected a convolution"):
        import_checkpoint(tmp_path / "c.npz")


# --- trained weights


def test_trained_weights_predict_the_same_and_well(shared: Path) -> None:
    path = EXAMPLES / "weights" / "nmnist_staa_snn.safetensors"
    network = import_checkpoint(path)
    assert not network.assumptions
    model = definition.nmnist_model()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in Checkpoint.open(path).tensors.items()})
    model.eval()
    samples = labelled_files(shared / "nmnist" / "Test")
    frames = [frames_by_count(open_recording(sample.name), network.time_steps).astype(np.float32) for sample in samples]
    with torch.no_grad():
        expected = model(torch.from_numpy(np.stack(frames, 1))).numpy()
    simulator = Simulator(network)
    logits = np.stack([simulator.run(each).logits for each in frames])
    assert_array_equal(logits.argmax(1), expected.argmax(1))
    assert np.mean(logits.argmax(1) == [int(sample.label) for sample in samples]) >= 0.85
    for each in frames[::10]:
        seen = Seen(model, each)
        if not check_spikes(Simulator(network, record=seen.spikes).run(each), seen):
            assert_allclose(simulator.run(each).logits, seen.logits, atol=1e-4)
